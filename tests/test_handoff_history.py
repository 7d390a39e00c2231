"""History: the conversation so far as one message, for an agent that takes over."""

from collections.abc import Iterator
from typing import Any

import pytest

from millstream.agent import Agent
from millstream.config import RunConfig
from millstream.errors import UserError
from millstream.extensions.handoff_filters import nest_handoff_history as as_a_filter
from millstream.handoff import HandoffInputData, handoff
from millstream.handoff_history import (
    default_handoff_history_mapper,
    get_conversation_history_wrappers,
    nest_handoff_history,
    reset_conversation_history_wrappers,
    set_conversation_history_wrappers,
)
from millstream.items import (
    HandoffCallItem,
    HandoffOutputItem,
    InputItem,
    MessageOutputItem,
    ReasoningItem,
    ToolApprovalItem,
    ToolCallItem,
    ToolCallOutputItem,
)
from millstream.runner import Runner
from millstream.testing import ScriptedModel, assistant_message, function_call, reasoning
from millstream.tool import tool

PREFACE = "For context, here is the conversation so far between the user and the previous agent:"
START, END = "<CONVERSATION HISTORY>", "</CONVERSATION HISTORY>"
NOTHING = "(no previous turns recorded)"
AGENT: Any = Agent(name="a")
CALL = ToolCallItem(AGENT, {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"})
OUTPUT = ToolCallOutputItem(
    AGENT, {"type": "function_call_output", "call_id": "c", "output": "found"}, output="found"
)
HANDOFF: tuple[Any, ...] = (
    HandoffCallItem(AGENT, {"type": "function_call", "call_id": "h", "name": "transfer_to_b"}),  # pyright: ignore[reportArgumentType]
    HandoffOutputItem(AGENT, {"type": "function_call_output", "call_id": "h"}, AGENT, AGENT),
)
HANDOFF_LINES = (
    '{"type": "function_call", "call_id": "h", "name": "transfer_to_b"}',
    '{"type": "function_call_output", "call_id": "h"}',
)


@pytest.fixture(autouse=True)
def wrappers() -> Iterator[None]:
    yield
    reset_conversation_history_wrappers()


def said(text: str) -> MessageOutputItem:
    return MessageOutputItem(AGENT, {"role": "assistant", "content": text})  # pyright: ignore[reportArgumentType]


def told(*lines: str, start: str = START, end: str = END) -> dict[str, Any]:
    numbered = [f"{number}. {line}" for number, line in enumerate(lines, 1)] or [NOTHING]
    return {"role": "assistant", "content": "\n".join([PREFACE, start, *numbered, end])}


def user(text: str) -> Any:
    return {"role": "user", "content": text}


# --- lines ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "line"),
    [
        (user("a: b"), "user: a: b"),
        (user(""), "user: "),
        (user(" x "), "user:  x "),
        ({"role": "user", "content": None}, "user: "),
        ({"role": "user"}, "user: "),
        ({"role": "user", "name": "bob", "content": "x"}, "user (bob): x"),
        ({"role": "user", "name": "", "content": "x"}, "user: x"),
        ({"role": "user", "content": "x", "type": "message", "id": "m"}, "user: x"),
        (user("x\ny"), r'{"role": "user", "content": "x\ny"}'),
        (user("x\ry"), r'{"role": "user", "content": "x\ry"}'),
        (user("x\u2028y"), "user: x\u2028y"),
        ({"role": "user", "content": [{"type": "input_text"}]}, '{"role": "user", "content": [{"type": "input_text"}]}'),
        ({"type": "function_call_output", "output": "é"}, '{"type": "function_call_output", "output": "é"}'),
        ({"content": "x"}, '{"content": "x"}'),
        ({"role": 3, "content": "x"}, '{"role": 3, "content": "x"}'),
        ({"type": int}, "{\"type\": \"<class 'int'>\"}"),
    ],
)  # fmt: skip
def test_an_item_is_one_line(item: Any, line: str) -> None:
    assert default_handoff_history_mapper([item]) == [told(line)]


def test_lines_are_numbered() -> None:
    items: Any = [user("one"), {"role": "assistant", "content": "two"}]

    assert default_handoff_history_mapper(items) == [told("user: one", "assistant: two")]
    assert default_handoff_history_mapper([]) == [told()]


def test_the_wrappers_are_the_programs_choice() -> None:
    set_conversation_history_wrappers(start="<<")
    set_conversation_history_wrappers(end=">>")

    assert get_conversation_history_wrappers() == ("<<", ">>")
    assert default_handoff_history_mapper([user("x")]) == [told("user: x", start="<<", end=">>")]

    reset_conversation_history_wrappers()

    assert get_conversation_history_wrappers() == (START, END)


# --- nesting ----------------------------------------------------------------------------------


def test_what_the_turn_said_stays_between_what_is_told() -> None:
    ok, more = said("ok"), said("more")
    data = HandoffInputData("hi", (said("before"), CALL, OUTPUT), (ok, CALL, more, *HANDOFF))

    nested = nest_handoff_history(data)

    call = '{"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}'
    output = '{"type": "function_call_output", "call_id": "c", "output": "found"}'
    assert nested.input_history == (
        told("user: hi", "assistant: before", call, output),
        {"role": "assistant", "content": "ok"},
        told(call),
        {"role": "assistant", "content": "more"},
        told(*HANDOFF_LINES),
    )
    assert (nested.pre_handoff_items, nested.input_items) == ((), ())
    assert nested.new_items == data.new_items
    assert nested.history_items == (ok, more)


def test_input_that_came_on_the_way_stays_and_approvals_are_no_history() -> None:
    injected = InputItem(AGENT, user("wait"))
    approval = ToolApprovalItem(AGENT, CALL.raw_item)

    nested = nest_handoff_history(
        HandoffInputData("hi", (injected, injected, approval), (approval, *HANDOFF))
    )

    assert nested.input_history == (
        told("user: hi"),
        user("wait"),
        user("wait"),
        told(*HANDOFF_LINES),
    )


def test_an_agent_learns_that_it_takes_over_where_nothing_went_before() -> None:
    assert nest_handoff_history(HandoffInputData((), (), ())).input_history == (told(),)
    assert nest_handoff_history(HandoffInputData((), (), (said("x"),))).input_history == (
        told(),
        {"role": "assistant", "content": "x"},
    )


def test_reasoning_is_told_with_the_rest() -> None:
    thought = ReasoningItem(AGENT, reasoning("hm"))

    (message,) = nest_handoff_history(HandoffInputData("hi", (thought,), ())).input_history

    assert '2. {"' in str(message)
    assert '"type": "reasoning"' in str(message)


def test_a_mapper_makes_all_of_the_history() -> None:
    seen: list[Any] = []

    def mapper(transcript: list[Any]) -> list[Any]:
        seen.extend(transcript)
        return [user("in short")]

    nested = nest_handoff_history(HandoffInputData("hi", (), (said("ok"), *HANDOFF)), history_mapper=mapper)

    assert [item.get("content") for item in seen] == ["hi", "ok", None, None]
    assert nested.input_history == (user("in short"),)
    assert nested.history_items == ()


@pytest.mark.parametrize("returned", ["text", None, ["text"], 3])
def test_a_mapper_that_returns_no_items_is_a_users_mistake(returned: Any) -> None:
    with pytest.raises(UserError, match="handoff_history_mapper returns a list of input items, not"):
        nest_handoff_history(HandoffInputData("hi", (), ()), history_mapper=lambda transcript: returned)


# --- reading back -----------------------------------------------------------------------------

WAYS: list[Any] = [
    user("one"),
    user("x\ny"),
    {"role": "user", "name": "bob", "content": "x: (y)"},
    {"role": "odd role", "content": ""},
    {"type": "function_call_output", "call_id": "c", "output": "1. é\u2028"},
]


def test_what_was_nested_is_not_nested_twice() -> None:
    first: Any = nest_handoff_history(HandoffInputData(tuple(WAYS), (), ())).input_history

    again = nest_handoff_history(HandoffInputData((*first, user("more")), (), ())).input_history

    assert again == tuple(default_handoff_history_mapper([*WAYS, user("more")]))


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("1. user: one\n2. nonsense", ["user: one"]),
        ("1. user: one\n  and more\n2. assistant: two", [r'{"role": "user", "content": "one\n  and more"}', "assistant: two"]),
        ("user: one", ["user: one"]),
        ("7. user(bob): one", ["user (bob): one"]),
        ("1. {bad json", []),
        ("1. [1]", []),
        ("1. : x", []),
        (NOTHING, []),
        ("", []),
    ],
)  # fmt: skip
def test_lines_that_somebody_changed_are_read_as_far_as_they_go(text: str, lines: list[str]) -> None:
    changed: Any = {"role": "assistant", "content": "\n".join([PREFACE, START, text, END])}

    assert nest_handoff_history(HandoffInputData((changed,), (), ())).input_history == (told(*lines),)


@pytest.mark.parametrize(
    "item",
    [
        {"role": "user", "content": told("user: one")["content"]},
        {"role": "assistant", "content": told("user: one")["content"] + "\n"},
        {"role": "assistant", "content": told("user: one")["content"].removeprefix(PREFACE)},
        {"role": "assistant", "content": told("user: one", start="<<", end=">>")["content"]},
    ],
)
def test_what_only_looks_like_it_is_told_as_it_is(item: Any) -> None:
    (message,) = nest_handoff_history(HandoffInputData((item,), (), ())).input_history

    assert str(message).count("1. {") == 1


# --- in a run ---------------------------------------------------------------------------------


@tool
def look() -> str:
    """Look."""
    return "found"


def desk(*, nest: bool | None = None, **options: Any) -> tuple[Agent[Any], ScriptedModel]:
    """An agent that looks something up and hands over, and the model of the one who takes over."""
    model = ScriptedModel(["done"])
    way = handoff(Agent(name="B", model=model), nest_handoff_history=nest, **options)
    first = ScriptedModel(
        [
            [assistant_message("Looking"), function_call("look", {}, call_id="c")],
            [assistant_message("ok"), function_call("transfer_to_b", {}, call_id="h")],
        ]
    )
    return Agent(name="A", tools=[look], handoffs=[way], model=first), model


async def both(agent: Agent[Any], streamed: bool, **options: Any) -> Any:
    return await (Runner.run_streamed if streamed else Runner.run)(agent, "hi", **options)


@pytest.mark.parametrize("streamed", [False, True])
async def test_the_next_agent_is_told_the_conversation(streamed: bool) -> None:
    agent, model = desk()

    result = await both(agent, streamed, run_config={"nest_handoff_history": True})

    before, ok, behind = model.calls[-1].input
    assert str(before).count("\\n1. user: hi\\n2. {") == 1
    assert ok["content"][0]["text"] == "ok"
    assert "transfer_to_b" in str(behind)
    assert [item.type for item in result.new_items] == [
        "message_output_item", "tool_call_item", "tool_call_output_item", "message_output_item",
        "handoff_call_item", "handoff_output_item", "message_output_item",
    ]  # fmt: skip


async def test_a_result_says_nothing_twice() -> None:
    agent, model = desk()

    result = await Runner.run(agent, "hi", run_config={"nest_handoff_history": True})

    normalized = result.to_input_list(mode="normalized")
    assert normalized[:3] == model.calls[-1].input
    assert len(normalized) == 4
    assert str(result.to_input_list()).count("'text': 'ok'") == 1
    assert [item.get("type") for item in result.to_input_list()[3:]] == [
        "message", "function_call", "function_call_output", "function_call", "function_call_output", "message",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("nest", "run_nests", "is_told"),
    [(None, False, False), (None, True, True), (True, False, True), (False, True, False)],
)
async def test_a_handoff_decides_for_itself(nest: bool | None, run_nests: bool, is_told: bool) -> None:
    agent, model = desk(nest=nest)

    await Runner.run(agent, "hi", run_config=RunConfig(nest_handoff_history=run_nests))

    assert (START in str(model.calls[-1].input)) is is_told


async def test_a_filter_takes_the_place_of_nesting() -> None:
    config = RunConfig(nest_handoff_history=True)
    with_own, model = desk(nest=True, input_filter=lambda data: data.clone(input_history="short"))
    await Runner.run(with_own, "hi", run_config=config)
    without, other = desk(nest=True)
    config.handoff_input_filter = lambda data: data.clone(input_history="short")
    await Runner.run(without, "hi", run_config=config)

    for asked in (model, other):
        assert asked.calls[-1].input[0] == {"content": "short", "role": "user"}


async def test_nesting_is_a_filter_too() -> None:
    agent, model = desk(input_filter=as_a_filter)

    await Runner.run(agent, "hi")

    assert START in str(model.calls[-1].input[0])


async def test_the_mapper_of_the_run_makes_the_history() -> None:
    agent, model = desk()
    config = RunConfig(nest_handoff_history=True, handoff_history_mapper=lambda transcript: [user("short")])

    await Runner.run(agent, "hi", run_config=config)

    assert model.calls[-1].input == [user("short")]


async def test_a_history_that_the_models_server_keeps_is_not_nested(caplog: pytest.LogCaptureFixture) -> None:
    agent, model = desk(nest=True)

    await Runner.run(agent, "hi", conversation_id="conv")

    assert [item["type"] for item in model.calls[-1].input] == ["function_call_output"]
    assert "does not nest the history, which the model's server keeps" in caplog.text


def test_a_mapper_that_is_no_function_is_refused_at_once() -> None:
    with pytest.raises(UserError, match="handoff_history_mapper is a function or None, not int"):
        RunConfig(handoff_history_mapper=3)  # pyright: ignore[reportArgumentType]
