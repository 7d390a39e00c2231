"""The loop: what it asks, what it decides, how it ends; the same streamed and plain."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseErrorEvent,
    ResponseFailedEvent,
    ResponseFunctionToolCall,
    ResponseFunctionWebSearch,
    ResponseOutputItemDoneEvent,
    ResponseTextDeltaEvent,
)
from pydantic import BaseModel, Field

from millstream import (
    Agent,
    HandoffInputData,
    MaxTurnsExceeded,
    ModelBehaviorError,
    ModelRefusalError,
    ModelSettings,
    RunConfig,
    RunContextWrapper,
    RunErrorHandlerResult,
    Runner,
    ToolsToFinalOutputResult,
    UserError,
    handoff,
    tool,
)
from millstream.config import CallModelData, ModelInputData
from millstream.errors import (
    AgentsException,
    LogFullError,
    LogGapError,
    ModelProtocolError,
    ModelResponseError,
    RunCancelledError,
)
from millstream.events import Entry, ModelCompleted, ToolFinished, ToolStarted
from millstream.items import MessageOutputItem, ModelResponse
from millstream.log import Batch, MemoryLog
from millstream.models.promise import RawBatch
from millstream.run.turn import Turn
from millstream.testing import (
    ModelStep,
    ScriptedModel,
    assistant_message,
    final_json,
    function_call,
    reasoning,
    refusal,
)
from millstream.usage import Usage

# --- helpers ----------------------------------------------------------------------------------


@tool
async def echo(text: str) -> str:
    return text


def agent(*steps: Any, **options: Any) -> Agent[Any]:
    return Agent(name="A", model=ScriptedModel(steps), **options)


def model_of(an_agent: Agent[Any]) -> ScriptedModel:
    assert isinstance(an_agent.model, ScriptedModel)
    return an_agent.model


def calls_echo(call_id: str = "c1", text: str = "x") -> Any:
    return function_call("echo", {"text": text}, call_id=call_id)


async def run(an_agent: Agent[Any], streamed: bool, input: Any = "hi", **options: Any) -> Any:
    """Run to the end, through one door or the other."""
    if streamed:
        return await Runner.run_streamed(an_agent, input, **options)
    return await Runner.run(an_agent, input, **options)


both_doors = pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])


async def entries_of(handle: Any) -> list[Entry]:
    return [entry async for entry in handle.entries()]


def kinds(items: list[Any]) -> list[str]:
    return [item.type.removesuffix("_item") for item in items]


def said(item: Any) -> str:
    return item.raw_item.content[0].text


def is_well_formed(entries: list[Entry]) -> bool:
    """Positions count from 1, every start has its end, one terminal event stands last."""
    events = [entry.event for entry in entries]
    begun = sorted(e.call_id for e in events if isinstance(e, ToolStarted))
    ended = sorted(e.call_id for e in events if isinstance(e, ToolFinished))
    types = [entry.type for entry in entries]
    return (
        [entry.position for entry in entries] == list(range(1, len(entries) + 1))
        and begun == ended
        and types.count("model.started") == types.count("model.completed")
        and [entry.is_terminal for entry in entries] == [False] * (len(entries) - 1) + [True]
    )


def every_call_is_answered(items: list[Any]) -> bool:
    calls = [i.raw_item.call_id for i in items if getattr(i.raw_item, "type", "") == "function_call"]
    answers = [
        i.raw_item["call_id"] for i in items if i.type in ("tool_call_output_item", "handoff_output_item")
    ]
    return sorted(calls) == sorted(answers)


WEB = ResponseFunctionWebSearch.model_validate(
    {"id": "w", "type": "web_search_call", "status": "completed", "action": {"type": "search", "query": "q"}}
)


def parts(*texts: str) -> Any:
    """A message of several parts; a text that begins with ! is a refusal."""
    message = assistant_message("")
    message.content = [
        refusal(text[1:]).content[0] if text.startswith("!") else assistant_message(text).content[0]
        for text in texts
    ]
    return message


# --- the output -------------------------------------------------------------------------------


@both_doors
@pytest.mark.parametrize(
    ("steps", "output", "turns"),
    [
        ([["hello"]], "hello", 1),
        ([[]], "", 1),
        ([[parts("a", "b")]], "ab", 1),
        ([["first", "last"]], "last", 1),
        ([[reasoning("hm")]], "", 1),
        ([[refusal("no"), "well, yes"]], "well, yes", 1),
        ([[WEB, "found"]], "found", 1),
        ([["looking", WEB]], "looking", 1),
        ([[WEB], ["found"]], "found", 2),
        ([[reasoning("hm"), WEB], ["found"]], "found", 2),
        ([["pre", calls_echo()], ["done"]], "done", 2),
    ],
)
async def test_the_output_is_the_text_of_the_last_message(
    streamed: bool, steps: list[Any], output: str, turns: int
) -> None:
    an_agent = agent(*steps, tools=[echo])

    result = await run(an_agent, streamed)

    assert result.final_output == output
    assert len(model_of(an_agent).calls) == turns


class City(BaseModel):
    name: str = Field(alias="called")


@dataclass
class Point:
    x: int


@both_doors
@pytest.mark.parametrize(
    ("output_type", "written", "output"),
    [
        (list[int], '{"response":[1,2]}', [1, 2]),
        (int, '{"response":3}', 3),
        (City, '{"called":"Oslo"}', City(called="Oslo")),
        (Point, '{"response":{"x":1}}', Point(1)),
        (str, "text", "text"),
    ],
)
async def test_an_output_type_makes_an_object_of_the_answer(
    streamed: bool, output_type: Any, written: str, output: Any
) -> None:
    result = await run(agent([written], output_type=output_type), streamed)

    assert result.final_output == output


@both_doors
@pytest.mark.parametrize("first", [[], [""], [reasoning("hm")], [WEB]])
async def test_a_model_that_says_nothing_is_asked_again_where_an_object_is_wanted(
    streamed: bool, first: Any
) -> None:
    result = await run(agent(first, [final_json({"response": 1})], output_type=int), streamed)

    assert result.final_output == 1


@both_doors
async def test_an_answer_that_is_no_such_object_ends_the_run(streamed: bool) -> None:
    with pytest.raises(ModelBehaviorError, match="not a valid int") as caught:
        await run(agent(["three"], output_type=int), streamed)

    assert caught.value.run_data is not None
    assert kinds(caught.value.run_data.new_items) == ["message_output"]


@both_doors
@pytest.mark.parametrize("message", [refusal("no"), parts("a", "!no"), parts("!no", "a")])
async def test_a_refusal_ends_the_run(streamed: bool, message: Any) -> None:
    with pytest.raises(ModelRefusalError) as caught:
        await run(agent([message]), streamed)

    assert caught.value.refusal == "no"


# --- tools and the output ---------------------------------------------------------------------


@tool
async def one() -> int:
    return 1


@tool
async def two() -> int:
    return 2


CALL_BOTH = [function_call("one", call_id="c1"), function_call("two", call_id="c2")]


async def last_of(context: Any, results: list[Any]) -> ToolsToFinalOutputResult:
    return ToolsToFinalOutputResult(is_final_output=True, final_output=results[-1].output)


@both_doors
@pytest.mark.parametrize(
    ("behavior", "output_type", "output"),
    [
        ("run_llm_again", None, "done"),
        ("stop_on_first_tool", None, "1"),
        ("stop_on_first_tool", int, 1),
        ({"stop_at_tool_names": ["two"]}, None, "2"),
        ({"stop_at_tool_names": ["three"]}, None, "done"),
        (lambda context, results: ToolsToFinalOutputResult(is_final_output=False), None, "done"),
        (lambda context, results: ToolsToFinalOutputResult(is_final_output=True), None, "None"),
        (last_of, None, "2"),
    ],
)
async def test_tools_may_be_the_output(streamed: bool, behavior: Any, output_type: Any, output: Any) -> None:
    an_agent = agent(
        CALL_BOTH, ["done"], tools=[one, two], tool_use_behavior=behavior, output_type=output_type
    )

    assert (await run(an_agent, streamed)).final_output == output


async def test_a_tool_use_behavior_that_decides_nothing_is_a_mistake_of_the_program() -> None:
    an_agent = agent(CALL_BOTH, tools=[one, two], tool_use_behavior=lambda context, results: None)

    with pytest.raises(UserError, match="returned NoneType, not a ToolsToFinalOutputResult"):
        await Runner.run(an_agent, "hi")


async def test_a_tool_use_behavior_that_was_changed_to_nonsense_is_a_mistake_of_the_program() -> None:
    an_agent = agent(CALL_BOTH, tools=[one, two])
    an_agent.tool_use_behavior = "sometimes"  # pyright: ignore[reportAttributeAccessIssue]

    with pytest.raises(UserError, match="Invalid tool_use_behavior: 'sometimes'"):
        await Runner.run(an_agent, "hi")


@pytest.mark.parametrize("error", [RuntimeError("no text"), SystemExit(3)])
async def test_an_output_that_cannot_be_told_as_text_is_marked(error: BaseException) -> None:
    class Mute:
        def __str__(self) -> str:
            raise error

    def decide(context: Any, results: Any) -> ToolsToFinalOutputResult:
        return ToolsToFinalOutputResult(is_final_output=True, final_output=Mute())

    an_agent = agent([calls_echo()], tools=[echo], tool_use_behavior=decide)

    assert (await Runner.run(an_agent, "hi")).final_output == "<Mute: no text>"


@both_doors
@pytest.mark.parametrize(
    ("reset", "first", "choices"),
    [
        (True, [calls_echo()], ["required", None]),
        (False, [calls_echo()], ["required", "required"]),
        (True, [WEB], ["required", None]),
        (True, [function_call("nope", call_id="c1")], ["required", None]),
    ],
)
async def test_a_tool_choice_holds_until_the_first_call(
    streamed: bool, reset: bool, first: Any, choices: list[Any]
) -> None:
    settings = ModelSettings(tool_choice="required")
    an_agent = agent(first, ["done"], tools=[echo], reset_tool_choice=reset, model_settings=settings)
    config = RunConfig(tool_not_found_behavior="return_error_to_model")

    await run(an_agent, streamed, run_config=config)

    assert [call.model_settings.tool_choice for call in model_of(an_agent).calls] == choices


async def test_the_settings_of_the_run_go_over_those_of_the_agent() -> None:
    an_agent = agent(["done"], model_settings=ModelSettings(temperature=1.0, top_p=0.5))

    await Runner.run(an_agent, "hi", run_config={"model_settings": {"temperature": 0.0}})

    (call,) = model_of(an_agent).calls
    assert (call.model_settings.temperature, call.model_settings.top_p) == (0.0, 0.5)


# --- handoffs ---------------------------------------------------------------------------------


def hands_over(to: Any, *, before: Any = (), call_id: str = "h1") -> Agent[Any]:
    """An agent that uses a tool, then says something, uses it again and hands over."""
    steps = [
        [calls_echo("c0")],
        ["pre", calls_echo("c1"), *before, function_call("transfer_to_b", call_id=call_id)],
    ]
    return agent(*steps, tools=[echo], handoffs=[to])


def agent_b() -> Agent[Any]:
    return Agent(name="B", model=ScriptedModel([[calls_echo("c9")], ["from b"]]), tools=[echo])


@both_doors
async def test_a_handoff_follows_the_tools_and_the_next_agent_goes_on(streamed: bool) -> None:
    b = agent_b()

    result = await run(hands_over(b), streamed)

    assert result.final_output == "from b"
    assert result.last_agent is b
    assert kinds(result.new_items) == [
        "tool_call",
        "tool_call_output",
        "message_output",
        "tool_call",
        "handoff_call",
        "tool_call_output",
        "handoff_output",
        "tool_call",
        "tool_call_output",
        "message_output",
    ]
    assert len(model_of(b).calls[0].input) == 8
    assert every_call_is_answered(result.new_items)


@both_doors
async def test_of_several_handoffs_the_first_counts_and_the_others_are_answered(streamed: bool) -> None:
    first = function_call("transfer_to_b", call_id="h0")

    result = await run(hands_over(agent_b(), before=[first]), streamed)

    answers = {
        item.raw_item["call_id"]: item.raw_item["output"]
        for item in result.new_items
        if item.type in ("tool_call_output_item", "handoff_output_item")
    }
    assert answers["h0"] == '{"assistant": "B"}'
    assert answers["h1"] == "Multiple handoffs detected, ignoring this one."
    assert every_call_is_answered(result.new_items)


@both_doors
async def test_a_handoff_may_have_an_input(streamed: bool) -> None:
    seen: list[Any] = []
    b = Agent(name="B", model=ScriptedModel(["from b"]))
    to_b = handoff(b, on_handoff=lambda context, reason: seen.append(reason), input_type=list[int])

    await run(agent([function_call("transfer_to_b", "[1,2]", call_id="h1")], handoffs=[to_b]), streamed)

    assert seen == [[1, 2]]


@both_doors
async def test_a_handoff_whose_input_does_not_fit_ends_the_run(streamed: bool) -> None:
    to_b = handoff(agent_b(), on_handoff=lambda context, reason: None, input_type=list[int])

    with pytest.raises(ModelBehaviorError, match="handoff to B") as caught:
        await run(agent([function_call("transfer_to_b", "{}", call_id="h1")], handoffs=[to_b]), streamed)

    assert caught.value.run_data is not None
    assert every_call_is_answered(caught.value.run_data.new_items)


@both_doors
async def test_a_handoff_that_is_not_enabled_is_an_unknown_tool(streamed: bool) -> None:
    with pytest.raises(ModelBehaviorError, match="Tool transfer_to_b not found in agent A"):
        await run(hands_over(handoff(agent_b(), is_enabled=False)), streamed)


async def test_a_handoff_to_something_that_is_no_agent_is_a_mistake_of_the_program() -> None:
    to_b = handoff(agent_b())

    async def nowhere(context: Any, arguments: str) -> Any:
        return "B"

    to_b.on_invoke_handoff = nowhere

    with pytest.raises(UserError, match="led to str: on_invoke_handoff returns an Agent"):
        await Runner.run(hands_over(to_b), "hi")


async def wiped(data: HandoffInputData) -> HandoffInputData:
    return data.clone(input_history="summary", pre_handoff_items=(), new_items=())


@both_doors
@pytest.mark.parametrize(
    ("change", "input", "given"),
    [
        (lambda data: data, "hi", 8),
        (wiped, "summary", 1),
        (lambda data: data.clone(pre_handoff_items=()), "hi", 6),
        (lambda data: data.clone(new_items=data.new_items[-1:]), "hi", 4),
        (lambda data: data.clone(input_items=()), "hi", 3),
        (
            lambda data: data.clone(input_history=({"role": "user", "content": "s"},)),
            [{"role": "user", "content": "s"}],
            8,
        ),
    ],
    ids=["nothing", "everything", "earlier turns", "this turn", "only for the model", "the input"],
)
async def test_a_filter_changes_what_the_next_agent_sees_and_not_what_happened(
    streamed: bool, change: Callable[..., Any], input: Any, given: int
) -> None:
    b = agent_b()

    result = await run(hands_over(handoff(b, input_filter=change)), streamed)

    assert result.input == input
    assert [len(call.input) for call in model_of(b).calls] == [given, given + 2]
    assert len(result.new_items) == 10
    assert len(result.to_input_list(mode="normalized")) == given + 3


async def test_a_filter_is_told_the_turns_apart() -> None:
    seen: list[HandoffInputData] = []

    def look(data: HandoffInputData) -> HandoffInputData:
        seen.append(data)
        return data

    result = await Runner.run(
        hands_over(handoff(agent_b(), input_filter=look)), [{"role": "user", "content": "hi"}]
    )

    (data,) = seen
    assert data.input_history == ({"role": "user", "content": "hi"},)
    assert kinds(list(data.pre_handoff_items)) == ["tool_call", "tool_call_output"]
    assert kinds(list(data.new_items)) == [
        "message_output",
        "tool_call",
        "handoff_call",
        "tool_call_output",
        "handoff_output",
    ]
    assert data.run_context is result.context_wrapper


@both_doors
async def test_the_filter_of_the_run_is_for_handoffs_without_one(streamed: bool) -> None:
    config = RunConfig(handoff_input_filter=wiped)
    with_own, without = agent_b(), agent_b()

    await run(hands_over(handoff(with_own, input_filter=lambda data: data)), streamed, run_config=config)
    await run(hands_over(without), streamed, run_config=config)

    assert len(model_of(with_own).calls[0].input) == 8
    assert model_of(without).calls[0].input == [{"role": "user", "content": "summary"}]


async def test_a_filter_that_returns_something_else_is_a_mistake_of_the_program() -> None:
    with pytest.raises(UserError, match="None is not a HandoffInputData"):
        await Runner.run(hands_over(handoff(agent_b(), input_filter=lambda data: None)), "hi")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("kept", [{"conversation_id": "c"}, {"auto_previous_response_id": True}])
async def test_a_history_that_the_server_keeps_cannot_be_filtered(kept: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="'transfer_to_b' has an input filter, but the model's server keeps"):
        await Runner.run(hands_over(handoff(agent_b(), input_filter=wiped)), "hi", **kept)


# --- what the model is given ------------------------------------------------------------------


def three_turns(*ids: str | None) -> Agent[Any]:
    steps = [
        ModelStep(output=[calls_echo("c0")], response_id=ids[0]),
        ModelStep(output=["mid", calls_echo("c1")], response_id=ids[1]),
        ModelStep(output=["done"], response_id=ids[2]),
    ]
    return agent(*steps, tools=[echo])


def sent(an_agent: Agent[Any]) -> list[tuple[list[str], str | None, str | None]]:
    """What each call was given: what its items are, and what it goes on from."""
    return [
        (
            [item.get("call_id") or item.get("type") or item["role"] for item in call.input],
            call.previous_response_id,
            call.conversation_id,
        )
        for call in model_of(an_agent).calls
    ]


@both_doors
@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (
            {},
            [
                (["user"], None, None),
                (["user", "c0", "c0"], None, None),
                (["user", "c0", "c0", "message", "c1", "c1"], None, None),
            ],
        ),
        ({"conversation_id": "cv"}, [(["user"], None, "cv"), (["c0"], None, "cv"), (["c1"], None, "cv")]),
        (
            {"previous_response_id": "r0"},
            [(["user"], "r0", None), (["c0"], "r1", None), (["c1"], "r2", None)],
        ),
        (
            {"auto_previous_response_id": True},
            [(["user"], None, None), (["c0"], "r1", None), (["c1"], "r2", None)],
        ),
    ],
)
async def test_a_server_that_keeps_the_history_is_sent_what_it_has_not_seen(
    streamed: bool, kept: dict[str, Any], expected: list[Any]
) -> None:
    an_agent = three_turns("r1", "r2", "r3")

    await run(an_agent, streamed, **kept)

    assert sent(an_agent) == expected


async def test_a_server_that_names_no_response_is_sent_everything_again() -> None:
    an_agent = three_turns(None, "r2", "r3")

    await Runner.run(an_agent, "hi", auto_previous_response_id=True)

    assert sent(an_agent) == [
        (["user"], None, None),
        (["user", "c0", "c0"], None, None),
        (["c1"], "r2", None),
    ]


@both_doors
async def test_a_filter_may_change_what_one_call_is_given(streamed: bool) -> None:
    seen: list[CallModelData[Any]] = []

    async def last_only(data: CallModelData[Any]) -> ModelInputData:
        seen.append(data)
        return ModelInputData(input=data.model_data.input[-1:], instructions="new")

    an_agent = agent([calls_echo("c0")], ["done"], tools=[echo], instructions="old")
    config = RunConfig(call_model_input_filter=last_only)

    result = await run(an_agent, streamed, context="mine", run_config=config)

    assert [call.system_instructions for call in model_of(an_agent).calls] == ["new", "new"]
    assert [len(call.input) for call in model_of(an_agent).calls] == [1, 1]
    assert [(data.agent, data.context, len(data.model_data.input)) for data in seen] == [
        (an_agent, "mine", 1),
        (an_agent, "mine", 3),
    ]
    assert len(result.to_input_list()) == 4


@both_doors
async def test_a_filter_that_returns_something_else_ends_the_run(streamed: bool) -> None:
    config = RunConfig(call_model_input_filter=lambda data: None)  # pyright: ignore[reportArgumentType]

    with pytest.raises(UserError, match="must return a ModelInputData") as caught:
        await run(agent(["done"]), streamed, run_config=config)

    assert caught.value.run_data is not None


@both_doors
@pytest.mark.parametrize(("handler", "output"), [(lambda data: 7, 7), (lambda data: None, 8)])
async def test_a_handler_may_make_the_output_of_a_model_that_said_nothing(
    streamed: bool, handler: Any, output: int
) -> None:
    an_agent = agent([], [final_json({"response": 8})], output_type=int)

    result = await run(an_agent, streamed, error_handlers={"invalid_final_output": handler})

    assert result.final_output == output


@both_doors
async def test_reasoning_becomes_input_without_its_id_where_that_is_wished(streamed: bool) -> None:
    an_agent = agent([reasoning("hm"), calls_echo()], ["done"], tools=[echo])
    config = RunConfig(reasoning_item_id_policy="omit")
    given = [{"type": "reasoning", "id": "given", "summary": []}]

    result = await run(an_agent, streamed, given, run_config=config)

    ids = [[item.get("id") for item in items if item.get("type") == "reasoning"] for items in (
        model_of(an_agent).calls[1].input, result.to_input_list(), [i.to_input_item() for i in result.new_items]
    )]  # fmt: skip
    assert ids == [["given", None], ["given", None], ["scripted-reasoning"]]


@both_doors
async def test_where_names_may_collide_the_model_is_shown_what_it_would_call(streamed: bool) -> None:
    first, second = (tool(lambda: "seen", name_override="look", description_override=d) for d in "12")
    other = tool(lambda: "taken", name_override="to_b")
    target = agent(["B here."]).clone(name="B")
    an_agent = agent(
        [function_call("look"), function_call("to_b")],
        tools=[first, other, second],
        handoffs=[handoff(each, tool_name_override="to_b") for each in (agent().clone(name="C"), target)],
    )

    result = await run(an_agent, streamed, run_config=RunConfig(tool_name_collision_policy="warn"))

    call = model_of(an_agent).calls[0]
    assert call.tools == [second]
    assert [each.agent_name for each in call.handoffs] == ["B"]
    assert result.last_agent is target


@both_doors
async def test_instructions_and_tools_see_the_input_of_the_run_in_every_turn(streamed: bool) -> None:
    seen: list[Any] = []

    def instructions(context: RunContextWrapper[Any], agent: Agent[Any]) -> str:
        seen.append(context.turn_input)
        return "Look."

    @tool
    def look(context: RunContextWrapper[Any]) -> str:
        seen.append(context.turn_input)
        return "seen"

    await run(agent([function_call("look")], ["done"], tools=[look], instructions=instructions), streamed)

    assert seen == [[{"content": "hi", "role": "user"}]] * 3


# --- max_turns and error handlers -------------------------------------------------------------


def never_done(**options: Any) -> Agent[Any]:
    return agent(*[[calls_echo()]] * 15, tools=[echo], **options)


@both_doors
async def test_a_run_may_take_only_so_many_turns(streamed: bool) -> None:
    an_agent = never_done()

    with pytest.raises(MaxTurnsExceeded, match=r"Max turns \(2\) exceeded") as caught:
        await run(an_agent, streamed, max_turns=2)

    assert len(model_of(an_agent).calls) == 2
    assert caught.value.run_data is not None
    assert kinds(caught.value.run_data.new_items) == ["tool_call", "tool_call_output"] * 2
    assert caught.value.run_data.context_wrapper.usage.requests == 2


async def test_a_turn_that_was_refused_does_not_count() -> None:
    handled = Runner.run_streamed(
        never_done(), "hi", max_turns=2, error_handlers={"max_turns": lambda data: "so far"}
    )
    failed = Runner.run_streamed(never_done(), "hi", max_turns=2)

    await handled
    with pytest.raises(MaxTurnsExceeded):
        await failed

    assert (handled.current_turn, failed.current_turn) == (2, 2)


@both_doors
async def test_one_turn_is_enough_for_an_answer_and_none_is_no_limit(streamed: bool) -> None:
    once = await run(agent(["done"]), streamed, max_turns=1)
    often = await run(agent(*[[calls_echo()]] * 12, ["done"], tools=[echo]), streamed, max_turns=None)

    assert once.final_output == often.final_output == "done"


@both_doors
@pytest.mark.parametrize(
    ("kind", "steps", "options"),
    [
        ("max_turns", [[calls_echo()]], {}),
        ("model_refusal", [[refusal("no")]], {}),
        ("invalid_final_output", [["nope"]], {"output_type": str | int}),
    ],
)
@pytest.mark.parametrize(
    "handler",
    [
        lambda data: RunErrorHandlerResult(final_output="sorry"),
        lambda data: {"final_output": "sorry"},
        lambda data: "sorry",
    ],
    ids=["result", "dict", "value"],
)
async def test_a_handler_makes_an_output_of_an_error(
    streamed: bool, kind: Any, steps: list[Any], options: dict[str, Any], handler: Any
) -> None:
    an_agent = agent(*steps, tools=[echo], **options)

    result = await run(an_agent, streamed, max_turns=1, error_handlers={kind: handler})

    assert result.final_output == "sorry"
    assert result.new_items[-1].type == "message_output_item"
    assert "sorry" in said(result.new_items[-1])


@both_doors
async def test_a_handler_may_keep_its_output_out_of_the_history(streamed: bool) -> None:
    async def handler(data: Any) -> RunErrorHandlerResult:
        return RunErrorHandlerResult(final_output="sorry", include_in_history=False)

    result = await run(never_done(), streamed, max_turns=1, error_handlers={"max_turns": handler})

    assert result.final_output == "sorry"
    assert kinds(result.new_items) == ["tool_call", "tool_call_output"]


@both_doors
async def test_a_handler_that_returns_nothing_leaves_the_error(streamed: bool) -> None:
    seen: list[Any] = []

    with pytest.raises(MaxTurnsExceeded):
        await run(never_done(), streamed, max_turns=1, error_handlers={"max_turns": seen.append})

    (given,) = seen
    assert isinstance(given.error, MaxTurnsExceeded)
    assert given.run_data.input == "hi"
    assert [item.get("type", "user") for item in given.run_data.history] == [
        "user",
        "function_call",
        "function_call_output",
    ]
    assert given.run_data.output == given.run_data.history[1:]
    assert len(given.run_data.raw_responses) == 1
    assert given.run_data.last_agent.name == "A"


@pytest.mark.parametrize(
    ("output_type", "output", "written"),
    [
        (list[int], [1], '{"response":[1]}'),
        (City, City(called="Oslo"), '{"called":"Oslo"}'),
        (Point, Point(1), '{"response":{"x":1}}'),
        (None, {"a": 1}, "{'a': 1}"),
        (str, 5, "5"),
    ],
)
async def test_a_handlers_output_stands_in_the_history_as_the_model_would_have_written_it(
    output_type: Any, output: Any, written: str
) -> None:
    handlers: Any = {"max_turns": lambda data: RunErrorHandlerResult(final_output=output)}

    result = await Runner.run(never_done(output_type=output_type), "hi", max_turns=1, error_handlers=handlers)

    assert result.final_output is output
    assert said(result.new_items[-1]) == written


@pytest.mark.parametrize(
    ("output_type", "returned", "complaint"),
    [
        (list[int], {"final_output": "nope"}, r"a str as final_output, which is not a valid list\[int\]"),
        (None, {"final_output": "x", "history": True}, "more than final_output and include_in_history"),
    ],
)
async def test_a_handler_that_returns_what_cannot_be_an_output_is_a_mistake_of_the_program(
    output_type: Any, returned: Any, complaint: str
) -> None:
    handlers: Any = {"max_turns": lambda data: returned}

    with pytest.raises(UserError, match=complaint):
        await Runner.run(never_done(output_type=output_type), "hi", max_turns=1, error_handlers=handlers)


@pytest.mark.parametrize(
    ("handlers", "complaint"),
    [
        (5, "error_handlers takes a dict of functions, not int"),
        ({"max_turn": print}, "error_handlers has no 'max_turn'. It has: max_turns, model_refusal"),
        ({"max_turns": 5}, r"error_handlers\['max_turns'\] takes a function, not int"),
    ],
)
async def test_handlers_that_can_never_be_called_are_refused_before_the_model_is_asked(
    handlers: Any, complaint: str
) -> None:
    an_agent = agent(["done"])

    with pytest.raises(UserError, match=complaint):
        await Runner.run(an_agent, "hi", error_handlers=handlers)

    assert model_of(an_agent).calls == ()


@both_doors
@pytest.mark.parametrize("ahead", ["turn", "free", 1])
async def test_how_far_a_run_may_get_ahead_changes_nothing_for_who_awaits_it(
    streamed: bool, ahead: Any
) -> None:
    result = await run(done_in_two(), streamed, run_config=RunConfig(ahead=ahead))

    assert result.final_output == "done"


def done_in_two() -> Agent[Any]:
    return agent([calls_echo()], ["done"], tools=[echo])


# --- both doors -------------------------------------------------------------------------------


def handing_over() -> Agent[Any]:
    return hands_over(agent_b())


SCRIPTS: dict[str, Callable[[], Agent[Any]]] = {
    "a message": lambda: agent(["Hello there."]),
    "nothing": lambda: agent([]),
    "reasoning": lambda: agent([reasoning("Hm."), "Hello."]),
    "tools": lambda: agent([reasoning("Hm."), calls_echo("c1"), calls_echo("c2")], ["done"], tools=[echo]),
    "a hosted tool": lambda: agent([WEB, "found"]),
    "a handoff": handing_over,
    "an output type": lambda: agent([final_json({"response": [1]})], output_type=list[int]),
    "a refusal": lambda: agent([refusal("no")]),
    "an invalid output": lambda: agent(["nope"], output_type=int),
    "too many turns": lambda: never_done(),
    "an unknown tool": lambda: agent([function_call("nope", call_id="c1")]),
    "a model that fails": lambda: agent([calls_echo()], ConnectionError("down"), tools=[echo]),
    "a script that runs out": lambda: agent([calls_echo()], tools=[echo]),
    "two tools of one name": lambda: agent(["x"], tools=[echo, echo]),
}


async def told(an_agent: Agent[Any], streamed: bool) -> dict[str, Any]:
    """Everything that a caller can know of a run."""
    model_of(an_agent).set_default_usage(Usage(requests=1, input_tokens=3, output_tokens=2, total_tokens=5))
    history = None
    try:
        data = await run(an_agent, streamed, max_turns=3)
        outcome, history = data.final_output, data.to_input_list()
    except Exception as error:
        data = error.run_data  # pyright: ignore[reportAttributeAccessIssue]
        outcome = (type(error), str(error))
    usage = data.context_wrapper.usage
    return {
        "outcome": outcome,
        "items": [(item.type, item.agent.name, item.to_input_item()) for item in data.new_items],
        "history": history,
        "responses": [(r.output, r.response_id, r.usage) for r in data.raw_responses],
        "usage": (usage.requests, usage.input_tokens, usage.total_tokens, len(usage.request_usage_entries)),
        "agent": data.last_agent.name,
        "input": data.input,
    }


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_streamed_and_plain_runs_tell_the_same(script: Callable[[], Agent[Any]]) -> None:
    streamed = await told(script(), True)
    plain = await told(script(), False)

    assert streamed == plain


# --- models of all kinds ----------------------------------------------------------------------


def response(*items: Any, **fields: Any) -> Response:
    return Response.model_validate(
        {
            "id": "r1",
            "created_at": 0,
            "model": "m",
            "object": "response",
            "output": [item.model_dump(exclude_unset=True) for item in items],
            "parallel_tool_calls": False,
            "tool_choice": "none",
            "tools": [],
            **fields,
        }
    )


class Foreign:
    """A model as one writes it for the SDK: no base class, typed events, no batches."""

    def __init__(self, *events: Any, whole: Any = ()) -> None:
        self.events = events
        self.whole = whole
        self.arguments: list[tuple[int, list[str]]] = []
        self.closed = False

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        self.arguments.append((len(args), sorted(kwargs)))
        return ModelResponse(list(self.whole), Usage(), None)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        self.arguments.append((len(args), sorted(kwargs)))
        try:
            for event in self.events:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.closed = True


class Stuck(Foreign):
    """Says what it has to say and never ends."""

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for event in super().stream_response(*args, **kwargs):
            yield event
        await asyncio.Event().wait()


def completed(*items: Any) -> ResponseCompletedEvent:
    return ResponseCompletedEvent(type="response.completed", response=response(*items), sequence_number=9)


def item_done(item: Any, index: int = 0) -> ResponseOutputItemDoneEvent:
    return ResponseOutputItemDoneEvent.model_construct(
        type="response.output_item.done", item=item, output_index=index, sequence_number=index
    )


def text(delta: str, index: int = 0) -> ResponseTextDeltaEvent:
    return ResponseTextDeltaEvent(
        type="response.output_text.delta",
        delta=delta,
        content_index=0,
        item_id=f"m{index}",
        logprobs=[],
        output_index=index,
        sequence_number=index,
    )


def foreign(model: Any, **options: Any) -> Agent[Any]:
    return Agent(name="A", model=model, **options)


KEYWORDS = ["conversation_id", "previous_response_id", "prompt"]
PLACES = [
    "handoffs",
    "input",
    "model_settings",
    "output_schema",
    "system_instructions",
    "tools",
    "tracing",
]


async def test_a_model_written_for_the_sdk_is_called_as_the_sdk_calls_it() -> None:
    message = assistant_message("hello")
    model = Foreign(completed(message), whole=[message])

    streamed = await run(foreign(model), True)
    plain = await run(foreign(model), False)

    assert streamed.final_output == plain.final_output == "hello"
    assert model.arguments == [(7, KEYWORDS), (0, sorted(KEYWORDS + PLACES))]
    assert model.closed


async def test_a_models_batches_may_come_from_any_iterator() -> None:
    class Batches:
        def __init__(self) -> None:
            self.left = [RawBatch([completed(assistant_message("hello"))], ["response.completed"])]

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> RawBatch:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop()

    class Model(Foreign):
        def stream_batches(self, *args: Any, **kwargs: Any) -> Batches:
            return Batches()

    assert (await run(foreign(Model()), True)).final_output == "hello"


async def test_a_model_given_by_name_is_found_by_the_provider_of_the_run() -> None:
    class Provider:
        def get_model(self, name: str | None) -> Any:
            return ScriptedModel([f"I am {name}."])

    config = RunConfig(model_provider=Provider())  # pyright: ignore[reportArgumentType]
    overruled = RunConfig(model="x", model_provider=Provider())  # pyright: ignore[reportArgumentType]

    assert (await Runner.run(Agent(name="A", model="m"), "hi", run_config=config)).final_output == "I am m."
    assert (await Runner.run(Agent(name="A"), "hi", run_config=config)).final_output == "I am None."
    assert (await Runner.run(agent(["no"]), "hi", run_config=overruled)).final_output == "I am x."


async def test_the_log_names_the_model() -> None:
    model = Foreign(completed(assistant_message("x")))
    unnamed = await entries_of(Runner.run_streamed(foreign(model), "hi"))
    model.model = "gpt-x"  # pyright: ignore[reportAttributeAccessIssue]
    named = await entries_of(Runner.run_streamed(foreign(model), "hi"))

    names = [
        [entry.event.model for entry in entries if entry.type == "model.started"]  # pyright: ignore[reportAttributeAccessIssue]
        for entries in (unnamed, named)
    ]

    assert names == [["Foreign"], ["gpt-x"]]


# --- failing models ---------------------------------------------------------------------------


class Unwilling(Exception):
    """Does not take what it is given."""

    @property
    def run_data(self) -> None:
        return None


@both_doors
@pytest.mark.parametrize(
    "error", [ConnectionError("down"), KeyError("x"), ExceptionGroup("g", [ValueError()])]
)
async def test_any_exception_of_a_model_reaches_the_caller_with_run_data(
    streamed: bool, error: Exception
) -> None:
    an_agent = agent([calls_echo()], error, tools=[echo])

    with pytest.raises(type(error)) as caught:
        await run(an_agent, streamed)

    assert caught.value is error
    assert kinds(caught.value.run_data.new_items) == ["tool_call", "tool_call_output"]  # pyright: ignore[reportAttributeAccessIssue]


async def test_an_exception_that_does_not_take_run_data_reaches_the_caller_too() -> None:
    with pytest.raises(Unwilling):
        await Runner.run(agent(Unwilling()), "hi")


@both_doors
@pytest.mark.parametrize("error", [SystemExit(3), BaseExceptionGroup("g", [SystemExit(3)])])
async def test_an_exception_that_would_end_the_program_ends_the_run(
    streamed: bool, error: BaseException
) -> None:
    def instructions(context: Any, agent: Any) -> str:
        raise error

    with pytest.raises(type(error)) as caught:
        await run(agent(["x"], instructions=instructions), streamed)

    assert caught.value.run_data is not None  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("where", ["instructions", "tool"])
def test_an_interrupt_from_the_keyboard_ends_the_program_and_the_run_is_cancelled(where: str) -> None:
    handles: list[Any] = []

    def instructions(context: Any, agent: Any) -> str:
        if where == "instructions":
            raise KeyboardInterrupt
        return ""

    @tool
    async def interrupted() -> str:
        raise KeyboardInterrupt

    async def main() -> None:
        an_agent = agent(
            [function_call("interrupted", call_id="c1")], tools=[interrupted], instructions=instructions
        )
        handles.append(Runner.run_streamed(an_agent, "hi"))
        await handles[0]

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())

    assert handles[0].is_cancelled
    assert every_call_is_answered(handles[0].new_items)


@both_doors
async def test_a_cancellation_that_nobody_asked_for_is_a_failure(streamed: bool) -> None:
    async def instructions(context: Any, agent: Any) -> str:
        raise asyncio.CancelledError

    with pytest.raises(AgentsException, match="nobody cancelled the run"):
        await run(agent(["x"], instructions=instructions), streamed)


@pytest.mark.parametrize(
    ("last", "error"),
    [
        ([], ModelProtocolError),
        ([ConnectionError("down")], ConnectionError),
        (
            [ResponseErrorEvent(type="error", code="c", message="m", param=None, sequence_number=9)],
            ModelResponseError,
        ),
        (
            [ResponseFailedEvent(type="response.failed", response=response(), sequence_number=9)],
            ModelResponseError,
        ),
    ],
    ids=["cut off", "connection", "error event", "failed response"],
)
async def test_what_a_model_said_before_it_failed_is_kept(last: list[Any], error: type[Exception]) -> None:
    call = calls_echo("c1")
    model = Foreign(item_done(call), text("Half ", 1), text("a", 1), *last)
    handle = Runner.run_streamed(foreign(model, tools=[echo]), "hi")

    entries = await entries_of(handle)

    assert is_well_formed(entries)
    assert entries[-1].type == "run.failed"
    assert entries[-1].event.partial == "Half a"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(handle.run_loop_exception, error)
    assert handle.run_loop_exception.run_data.partial_text == "Half a"  # pyright: ignore[reportAttributeAccessIssue]
    assert kinds(handle.new_items) == ["tool_call", "message_output", "tool_call_output"]
    assert handle.new_items[1].raw_item.status == "incomplete"  # pyright: ignore[reportAttributeAccessIssue]
    assert said(handle.new_items[1]) == "Half a"
    assert every_call_is_answered(handle.new_items)
    assert model.closed


@pytest.mark.parametrize("odd", [{"delta": None}, {"delta": 5}, {"item_id": ["m"]}], ids=str)
async def test_a_model_that_fails_behind_a_malformed_delta_fails_the_run(odd: dict[str, Any]) -> None:
    frame = {"type": "response.output_text.delta", "delta": "", "item_id": "m", "output_index": 0} | odd
    model = Foreign(ResponseTextDeltaEvent.model_construct(**frame), ConnectionError("down"))
    handle = Runner.run_streamed(foreign(model), "hi")

    entries = await entries_of(handle)

    assert entries[-1].type == "run.failed"
    assert isinstance(handle.run_loop_exception, ConnectionError)


@pytest.mark.parametrize("error", [TypeError("unhashable"), SystemExit(3)])
@pytest.mark.parametrize(("is_cancelled", "end"), [(False, "run.failed"), (True, "run.cancelled")])
async def test_a_run_ends_as_it_ended_also_where_nothing_can_be_kept(
    is_cancelled: bool,
    end: str,
    error: BaseException,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def raises(turn: Turn) -> str:
        raise error

    monkeypatch.setattr(Turn, "partial_text", raises)
    model = Stuck(text("Half")) if is_cancelled else Foreign(text("Half"), ConnectionError("down"))
    handle = Runner.run_streamed(foreign(model), "hi")

    entries: list[Entry] = []
    async for entry in handle.entries():
        entries.append(entry)
        if is_cancelled and entry.type == "raw_response_event":
            handle.cancel()

    assert entries[-1].type == end
    assert "could not be kept whole" in caplog.text
    assert is_cancelled or isinstance(handle.run_loop_exception, ConnectionError)


async def test_an_open_call_is_answered_also_where_an_earlier_turn_used_its_id() -> None:
    steps = [[calls_echo("c0")], ModelStep(output=[calls_echo("c0")], truncate_after=8)]
    handle = Runner.run_streamed(agent(*steps, tools=[echo]), "hi")

    await entries_of(handle)

    assert kinds(handle.new_items) == ["tool_call", "tool_call_output"] * 2


async def test_a_call_whose_id_is_no_text_is_none_and_leaves_none_open() -> None:
    call: Any = ResponseFunctionToolCall.model_construct(
        type="function_call", call_id=["c"], name="echo", arguments="{}"
    )
    handle = Runner.run_streamed(foreign(Foreign(item_done(call), ConnectionError("down"))), "hi")

    entries = await entries_of(handle)

    assert entries[-1].type == "run.failed"
    assert isinstance(handle.run_loop_exception, ConnectionError)
    assert kinds(handle.new_items) == []


async def test_the_usage_of_a_failed_response_counts() -> None:
    usage = {
        "input_tokens": 3,
        "output_tokens": 2,
        "total_tokens": 5,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    failed = ResponseFailedEvent(type="response.failed", response=response(usage=usage), sequence_number=9)
    handle = Runner.run_streamed(foreign(Foreign(failed)), "hi")

    entries = await entries_of(handle)

    assert handle.context_wrapper.usage.total_tokens == 5
    assert entries[-1].event.usage["total_tokens"] == 5  # pyright: ignore[reportAttributeAccessIssue]
    (ended,) = [e.event for e in entries if isinstance(e.event, ModelCompleted)]
    assert (ended.status, ended.usage["total_tokens"]) == ("failed", 5)


# --- cancelling -------------------------------------------------------------------------------


async def cancel_at(handle: Any, at: str, mode: Any) -> list[Entry]:
    """Read the log; cancel when an entry of that type, or an item of that name, comes."""
    entries: list[Entry] = []
    cancelled = False
    async for entry in handle.entries():
        entries.append(entry)
        name = getattr(entry.event, "name", "")
        if entry.type == "raw_response_event":
            name = entry.event.data.type  # pyright: ignore[reportAttributeAccessIssue]
        if not cancelled and at in (entry.type, name):
            cancelled = True
            handle.cancel(mode)
    assert cancelled
    return entries


@pytest.mark.parametrize("mode", ["now", "immediate", "after_tool", "after_turn"])
@pytest.mark.parametrize(
    "at",
    [
        "run.started",
        "model.started",
        "response.output_text.delta",
        "message_output_created",
        "tool_called",
        "model.completed",
        "tool.started",
        "tool.finished",
        "tool_output",
    ],
)
async def test_a_cancelled_run_ends_cancelled_at_any_moment_and_leaves_a_history_to_go_on_with(
    mode: Any, at: str
) -> None:
    an_agent = agent(["Hello there.", calls_echo("c1"), calls_echo("c2")], ["never said"], tools=[echo])
    handle = Runner.run_streamed(an_agent, "hi")

    entries = await cancel_at(handle, at, mode)

    assert is_well_formed(entries)
    assert entries[-1].type == "run.cancelled"
    assert every_call_is_answered(handle.new_items)
    assert handle.is_complete
    assert handle.is_cancelled
    assert handle.final_output is None
    assert len(model_of(an_agent).calls) <= 1
    if mode == "after_turn" and at != "run.started":
        assert kinds(handle.new_items) == [
            "message_output",
            "tool_call",
            "tool_call",
            *["tool_call_output"] * 2,
        ]
    follow_up = agent(["Welcome back."])
    assert (await Runner.run(follow_up, handle.to_input_list())).final_output == "Welcome back."


@pytest.mark.parametrize("mode", ["now", "after_tool"])
async def test_text_that_was_shown_is_kept_when_the_run_is_cancelled(mode: Any) -> None:
    model = ScriptedModel([ModelStep(output=["One two three."], hang_after=5)])
    handle = Runner.run_streamed(Agent(name="A", model=model), "hi")
    shown = ""
    async for delta in handle.text():
        shown += delta
        handle.cancel(mode)

    (item,) = handle.new_items
    assert isinstance(item, MessageOutputItem)
    assert item.raw_item.status == "incomplete"
    assert said(item) == "One"
    entries = await entries_of(handle)
    assert entries[-1].event.partial == "One"  # pyright: ignore[reportAttributeAccessIssue]
    assert entries[-1].event.mode == mode  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(RunCancelledError) as caught:
        await handle
    assert caught.value.run_data is not None
    assert caught.value.run_data.partial_text == "One"
    assert shown == "One"


async def test_a_response_that_was_all_said_counts_although_its_stream_was_cut() -> None:
    usage = Usage(requests=1, input_tokens=3, output_tokens=2, total_tokens=5)
    model = ScriptedModel([ModelStep(output=[calls_echo()], usage=usage, hang_after=100)])
    handle = Runner.run_streamed(Agent(name="A", model=model, tools=[echo]), "hi")

    entries = await cancel_at(handle, "response.completed", "now")

    assert handle.context_wrapper.usage.total_tokens == 5
    assert len(handle.raw_responses) == 1
    assert kinds(handle.new_items) == ["tool_call", "tool_call_output"]
    (ended,) = [e.event for e in entries if isinstance(e.event, ModelCompleted)]
    assert (ended.status, ended.usage["total_tokens"]) == ("completed", 5)


async def test_a_run_that_is_cancelled_before_it_begins_asks_no_model() -> None:
    an_agent = agent(["x"])
    handle = Runner.run_streamed(an_agent, "hi")

    handle.cancel("after_turn")
    entries = await entries_of(handle)

    assert [entry.type for entry in entries] == ["run.started", "agent_updated_stream_event", "run.cancelled"]
    assert model_of(an_agent).calls == ()


@pytest.mark.parametrize("mode", ["now", "after_tool"])
async def test_a_handoff_that_has_not_begun_does_not_take_place(mode: Any) -> None:
    b = agent_b()
    handle = Runner.run_streamed(hands_over(b), "hi")

    async for event in handle.stream_events(early=True):
        if getattr(event, "name", "") == "handoff_requested":
            handle.cancel(mode)

    assert model_of(b).calls == ()
    assert handle.current_agent.name == "A"
    assert every_call_is_answered(handle.new_items)


async def test_after_turn_lets_a_handoff_take_place() -> None:
    b = agent_b()
    handle = Runner.run_streamed(hands_over(b), "hi")

    await cancel_at(handle, "handoff_requested", "after_turn")

    assert handle.current_agent is b
    assert model_of(b).calls == ()
    assert handle.is_cancelled


async def test_a_tool_that_cancels_its_run_after_the_tools_stops_the_handoff() -> None:
    handles: list[Any] = []

    @tool
    async def stop() -> str:
        handles[0].cancel("after_tool")
        return "stopped"

    b = agent_b()
    an_agent = agent(
        [function_call("stop", call_id="c1"), function_call("transfer_to_b", call_id="h1")],
        tools=[stop],
        handoffs=[b],
    )
    handles.append(Runner.run_streamed(an_agent, "hi"))
    entries = await entries_of(handles[0])

    assert entries[-1].type == "run.cancelled"
    assert kinds(handles[0].new_items) == [
        "tool_call",
        "handoff_call",
        "tool_call_output",
        "tool_call_output",
    ]
    assert handles[0].new_items[2].output == "stopped"


async def test_what_a_cancellation_makes_others_raise_is_still_a_cancellation() -> None:
    begun = asyncio.Event()

    class Angry(Foreign):
        async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            try:
                begun.set()
                await asyncio.Event().wait()
                yield None
            except asyncio.CancelledError:
                raise RuntimeError("the connection was lost") from None

    handle = Runner.run_streamed(foreign(Angry()), "hi")
    await begun.wait()
    await handle.aclose()

    assert handle.is_cancelled
    assert handle.run_loop_exception is None


async def test_a_model_that_swallows_its_cancellation_stops_nothing() -> None:
    begun = asyncio.Event()

    class Deaf(Foreign):
        async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            begun.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                yield completed(calls_echo())

    handle = Runner.run_streamed(foreign(Deaf(), tools=[echo]), "hi")
    await begun.wait()
    await handle.aclose()

    assert handle.is_cancelled
    assert every_call_is_answered(handle.new_items)
    assert all(not isinstance(e.event, ToolStarted) for e in await entries_of(handle))


# --- the log ----------------------------------------------------------------------------------


async def test_the_log_of_a_run_in_its_natural_order() -> None:
    an_agent = agent(["pre", calls_echo("c1")], ["done"], tools=[echo])

    entries = await entries_of(Runner.run_streamed(an_agent, "hi"))

    told = [
        getattr(entry.event, "name", None) if entry.type == "run_item_stream_event" else entry.type
        for entry in entries
        if entry.type != "raw_response_event"
        or entry.event.data.type in ("response.output_item.done", "response.completed")  # pyright: ignore[reportAttributeAccessIssue]
    ]
    raw = "raw_response_event"
    assert told == [
        "run.started",
        "agent_updated_stream_event",
        "model.started",
        *(raw, "message_output_created", raw, "tool_called", raw),
        "model.completed",
        *("tool.started", "tool.finished", "tool_output"),
        "model.started",
        *(raw, "message_output_created", raw),
        "model.completed",
        "run.completed",
    ]
    assert is_well_formed(entries)
    assert [e.turn for e in entries] == sorted(e.turn for e in entries)


async def test_a_plain_run_has_the_same_log_without_raw_events() -> None:
    class Kept(MemoryLog):
        run_id = ""

        async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
            self.run_id = run_id
            await super().append(run_id, batch, epoch=epoch)

    logs = [Kept(), Kept()]
    await Runner.run(handing_over(), "hi", run_config=RunConfig(log=logs[0]))
    await entries_of(Runner.run_streamed(handing_over(), "hi", run_config=RunConfig(log=logs[1])))

    plain, streamed = [
        [
            (entry.type, getattr(entry.event, "name", None), entry.turn, entry.agent)
            async for entry in log.follow(log.run_id)
            if entry.type != "raw_response_event"
        ]
        for log in logs
    ]

    assert plain == streamed


@pytest.mark.parametrize("max_events", range(1, 28))
async def test_a_run_whose_log_is_full_fails_wherever_it_is_and_closes_what_it_opened(
    max_events: int,
) -> None:
    an_agent = agent(["pre", calls_echo("c1"), calls_echo("c2")], ["done"], tools=[echo])
    config = RunConfig(log=MemoryLog(max_events=max_events))
    handle = Runner.run_streamed(an_agent, "hi", run_config=config)

    entries = await entries_of(handle)

    assert is_well_formed(entries)
    assert entries[-1].event.code == "log_full"  # pyright: ignore[reportAttributeAccessIssue]
    assert isinstance(handle.run_loop_exception, LogFullError)
    assert every_call_is_answered(handle.new_items)


@pytest.mark.parametrize("max_events", range(28, 32))
async def test_a_run_goes_on_where_raw_events_of_a_finished_answer_make_room(max_events: int) -> None:
    an_agent = agent(["pre", calls_echo("c1"), calls_echo("c2")], ["done"], tools=[echo])
    log = MemoryLog(max_events=max_events)
    handle = Runner.run_streamed(an_agent, "hi", run_config=RunConfig(log=log))

    entries = await entries_of(handle)

    assert entries[-1].type == "run.completed"
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    with pytest.raises(LogGapError):
        _ = [entry async for entry in log.follow(handle.run_id)]


async def test_a_log_that_breaks_down_ends_the_run_with_its_error() -> None:
    class Broken(MemoryLog):
        async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
            if batch.first > 3 and not batch.ends(run_id):
                raise OSError("disk full")
            await super().append(run_id, batch, epoch=epoch)

    handle = Runner.run_streamed(agent(["Hello"]), "hi", run_config=RunConfig(log=Broken()))

    entries = await entries_of(handle)

    assert [entry.type for entry in entries][-1] == "run.failed"
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    assert isinstance(handle.run_loop_exception, OSError)


async def test_a_log_that_takes_not_even_the_end_leaves_no_reader_waiting(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Gone(MemoryLog):
        async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
            if batch.first > 3:
                raise OSError("disk full")
            await super().append(run_id, batch, epoch=epoch)

    handle = Runner.run_streamed(agent(["Hello"]), "hi", run_config=RunConfig(log=Gone()))
    reader = handle.stream_events()

    first = await anext(reader)
    with pytest.raises(OSError, match="disk full"):
        await anext(reader)
    early = await entries_of(handle)

    assert first.type == "agent_updated_stream_event"
    assert [entry.type for entry in early][-1] == "run.failed"
    assert [entry.position for entry in early] == list(range(1, len(early) + 1))
    assert [r.getMessage() for r in caplog.records] == [
        f"run {handle.run_id}: its end could not be written to its log"
    ]


async def test_a_model_that_never_waits_does_not_keep_the_event_loop_to_itself() -> None:
    beats = 0

    async def heart() -> None:
        nonlocal beats
        while True:
            beats += 1
            await asyncio.sleep(0)

    heartbeat = asyncio.create_task(heart())
    agent = Agent(name="A", model=ScriptedModel([" ".join(["word"] * 20_000)]))

    await Runner.run_streamed(agent, "Hello")

    heartbeat.cancel()
    assert beats > 5
