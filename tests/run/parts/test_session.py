"""Sessions in runs: what a run is given, what it leaves there whatever ends it, and each item once."""

import asyncio
import contextlib
import copy
import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream import (
    Agent,
    GuardrailFunctionOutput,
    HandoffInputData,
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    OutputGuardrailTripwireTriggered,
    RunCancelledError,
    RunConfig,
    RunErrorHandlerResult,
    Runner,
    RunState,
    SessionABC,
    SessionSettings,
    SQLiteSession,
    ToolFailedError,
    UserError,
    handoff,
    input_guardrail,
    output_guardrail,
    tool,
)
from millstream.events import CancelMode
from millstream.testing import ManualClock, ModelStep, ScriptedModel, function_call, reasoning
from tests.run import test_parity as drawn_runs
from tests.support.histories import wrong_in


class Kept(SessionABC):
    """A session in a list, which notes how it was called."""

    def __init__(self, *texts: str, limit: int | None = None) -> None:
        self.session_id = "kept"
        self.session_settings = SessionSettings(limit=limit)
        self.items: list[Any] = say(*texts)
        self.reads: list[int | None] = []
        self.adds: list[int] = []

    async def get_items(self, limit: int | None = None) -> list[Any]:
        self.reads.append(limit)
        return copy.deepcopy(self.items if limit is None else self.items[max(0, len(self.items) - limit) :])

    async def add_items(self, items: list[Any]) -> None:
        self.adds.append(len(items))
        self.items.extend(copy.deepcopy(items))

    async def pop_item(self) -> Any:
        return self.items.pop() if self.items else None

    async def clear_session(self) -> None:
        self.items.clear()


def say(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


def told(items: list[Any]) -> list[str]:
    """What items say, in short."""
    return [_told(item) for item in items]


def _told(item: Any) -> str:
    if item.get("type", "message") == "message":
        content = item["content"]
        return content if isinstance(content, str) else content[0]["text"]
    return f"{item['type'].removeprefix('function_')} {item.get('call_id', '')}".strip()


@tool
async def look() -> str:
    return "seen"


@tool(failure_error_function=None)
async def raises() -> str:
    raise LookupError("It raised.")


def call(name: str, call_id: str) -> Any:
    return function_call(name, call_id=call_id)


def agent(*steps: Any, **options: Any) -> Agent[Any]:
    return Agent("A", tools=[look, raises], model=ScriptedModel(steps), **options)


def model_of(agent: Agent[Any]) -> ScriptedModel:
    assert isinstance(agent.model, ScriptedModel)
    return agent.model


async def plain(agent: Agent[Any], input: Any, session: Any, **options: Any) -> Any:
    return await Runner.run(agent, input, session=session, **options)


async def streamed(agent: Agent[Any], input: Any, session: Any, **options: Any) -> Any:
    handle = Runner.run_streamed(agent, input, session=session, **options)
    async for _ in handle.stream_events():
        pass
    return await handle


both = pytest.mark.parametrize("run", [plain, streamed])


# --- what a run is given, and what it leaves ---------------------------------------------------


@both
async def test_the_history_goes_before_the_input_and_what_is_new_is_stored_turn_by_turn(run: Any) -> None:
    session = Kept("old")
    asks = agent([call("look", "c1")], "Done.")

    result = await run(asks, "Hello", session)

    assert told(result.input) == ["old", "Hello"]
    assert told(result.to_input_list()) == ["old", "Hello", "call c1", "call_output c1", "Done."]
    assert [item.type for item in result.new_items] == [
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    assert [told(each.input) for each in model_of(asks).calls] == [
        ["old", "Hello"],
        ["old", "Hello", "call c1", "call_output c1"],
    ]
    assert session.items == result.to_input_list()
    assert session.adds == [1, 2, 1]


def test_all_doors_keep_the_same_conversation(tmp_path: Path) -> None:
    def session(name: str) -> SQLiteSession:
        return SQLiteSession(name, tmp_path / "s.db")

    def asks() -> Agent[Any]:
        return agent([reasoning("Hm."), call("look", "c1")], [reasoning("So."), "Done."])

    asyncio.run(plain(asks(), "Hello", session("run")))
    asyncio.run(streamed(asks(), "Hello", session("run_streamed")))
    Runner.run_sync(asks(), "Hello", session=session("run_sync"))
    for _ in Runner.run_streamed_sync(asks(), "Hello", session=session("run_streamed_sync")):
        pass

    stored = [
        asyncio.run(session(name).get_items())
        for name in ("run", "run_streamed", "run_sync", "run_streamed_sync")
    ]
    assert told(stored[0]) == ["Hello", "reasoning", "call c1", "call_output c1", "reasoning", "Done."]
    assert stored == [stored[0]] * 4


@both
async def test_a_conversation_goes_on_over_runs_and_agents(run: Any) -> None:
    session = SQLiteSession("one")

    await run(agent("First."), "One", session)
    await run(agent("Second."), say("Two", "Three"), session)
    last = agent("Third.")
    await run(last, [], session)

    assert told(model_of(last).calls[0].input) == ["One", "First.", "Two", "Three", "Second."]
    assert told(await session.get_items()) == ["One", "First.", "Two", "Three", "Second.", "Third."]


@both
@pytest.mark.parametrize(
    ("own", "of_the_run", "given"),
    [
        (None, None, ["a", "b", "c", "d", "Hello"]),
        (2, None, ["c", "d", "Hello"]),
        (2, SessionSettings(), ["c", "d", "Hello"]),
        (2, {"limit": 3}, ["b", "c", "d", "Hello"]),
        (None, SessionSettings(limit=0), ["Hello"]),
    ],
)
async def test_a_limit_of_the_session_or_the_run_bounds_what_is_given_and_not_what_is_kept(
    run: Any, own: Any, of_the_run: Any, given: list[str]
) -> None:
    session = Kept(*"abcd", limit=own)
    asks = agent("Done.")

    await run(asks, "Hello", session, run_config={"session_settings": of_the_run})

    assert told(model_of(asks).calls[0].input) == given
    assert told(session.items) == ["a", "b", "c", "d", "Hello", "Done."]


@pytest.mark.parametrize(
    ("history", "given"),
    [
        (["call 1", "output 1"], ["call 1", "call_output 1"]),
        (["output 1", "Hi"], ["Hi"]),
        (["Hi", "call 1"], ["Hi"]),
        (["thought", "call 1", "Hi"], ["Hi"]),
        (["thought", "call 1", "output 1"], ["reasoning", "call 1", "call_output 1"]),
        (["thought"], []),
        (["call 1", "output 1", "output 1"], ["call 1", "call_output 1"]),
        (["call 1", "call 1", "output 1", "output 1"], ["call 1"] * 2 + ["call_output 1"] * 2),
    ],
)
async def test_what_a_model_would_refuse_of_a_history_is_left_out_of_what_it_is_given(
    history: list[str], given: list[str]
) -> None:
    session = Kept()
    session.items = [item_of(each) for each in history]
    asks = agent("Done.")

    await Runner.run(asks, "Hello", session=session)

    assert told(list(model_of(asks).calls[0].input)) == [*given, "Hello"]
    assert not wrong_in(list(model_of(asks).calls[0].input))
    assert session.items[: len(history)] == [item_of(each) for each in history]


def item_of(text: str) -> Any:
    match text.split():
        case ["call", call_id]:
            return {"type": "function_call", "call_id": call_id, "name": "look", "arguments": "{}"}
        case ["output", call_id]:
            return {"type": "function_call_output", "call_id": call_id, "output": "seen"}
        case ["thought"]:
            return {"type": "reasoning", "id": "rs_1", "summary": []}
    return say(text)[0]


async def test_an_input_may_answer_a_call_of_the_history() -> None:
    session = Kept()
    session.items = [item_of("Hi"), item_of("call 1")]
    asks = agent("Done.")

    await Runner.run(asks, [item_of("output 1")], session=session)

    assert told(list(model_of(asks).calls[0].input)) == ["Hi", "call 1", "call_output 1"]


async def test_reasoning_whose_ids_are_omitted_is_stored_without_them() -> None:
    session = Kept()

    await Runner.run(
        agent([reasoning("Hm."), "Done."]), "Hello", session=session,
        run_config={"reasoning_item_id_policy": "omit"},
    )  # fmt: skip

    assert "id" not in session.items[1]


async def test_a_handler_that_makes_an_output_of_an_error_is_stored_where_it_says_so() -> None:
    def handle(_: Any) -> Any:
        return RunErrorHandlerResult(final_output="So far.")

    session = Kept()
    await Runner.run(
        agent([call("look", "c1")]), "Hello", session=session, max_turns=1,
        error_handlers={"max_turns": handle},
    )  # fmt: skip

    assert told(session.items) == ["Hello", "call c1", "call_output c1", "So far."]


@both
async def test_a_session_has_what_happened_whatever_a_handoff_shows_the_next_agent(run: Any) -> None:
    def nothing(data: HandoffInputData) -> HandoffInputData:
        return data.clone(input_history=(), pre_handoff_items=(), new_items=())

    second = Agent("B", model=ScriptedModel(["From B."]))
    first = agent([call("transfer_to_b", "h1")], handoffs=[handoff(second, input_filter=nothing)])
    session = Kept("old")

    await run(first, "Hello", session)

    assert model_of(second).calls[0].input == []
    assert told(session.items) == ["old", "Hello", "call h1", "call_output h1", "From B."]


async def test_a_session_that_takes_the_runs_context_is_given_it() -> None:
    seen: list[Any] = []

    class Tenant(Kept):
        async def get_items(self, limit: int | None = None, *, wrapper: Any = None) -> list[Any]:
            seen.append(wrapper.context)
            return await super().get_items(limit)

        async def add_items(self, items: list[Any], *, wrapper: Any = None) -> None:
            seen.append(wrapper.context)
            await super().add_items(items)

        async def pop_item(self, wrapper: Any = None) -> Any: ...
        async def clear_session(self, wrapper: Any = None) -> None: ...

    await Runner.run(agent("Done."), "Hello", session=Tenant(), context="tenant 7")

    assert seen == ["tenant 7"] * 3


async def test_the_methods_of_a_session_need_not_be_coroutines() -> None:
    class Plain:
        session_id = "plain"

        def __init__(self) -> None:
            self.items: list[Any] = []

        def get_items(self, limit: int | None = None) -> list[Any]:
            return list(self.items)

        def add_items(self, items: list[Any]) -> None:
            self.items += items

    session: Any = Plain()
    await Runner.run(agent("Done."), "Hello", session=session)

    assert told(session.items) == ["Hello", "Done."]


# --- session_input_callback --------------------------------------------------------------------


def behind(history: list[Any], new: list[Any]) -> Any:
    return [*history, *new]


def changed_in_place(history: list[Any], new: list[Any]) -> Any:
    history[0]["content"] = "old, in short"
    new[0]["content"] = "Hello!"
    return [*history, *new]


def copied(history: list[Any], new: list[Any]) -> Any:
    return copy.deepcopy([*history, *new])


async def later(history: list[Any], new: list[Any]) -> Any:
    await asyncio.sleep(0)
    return [*history[1:], *new]


CALLBACKS: list[tuple[Callable[..., Any], list[str], list[str]]] = [
    (behind, ["old", "older", "Hello"], ["Hello"]),
    (lambda history, new: new, ["Hello"], ["Hello"]),
    (lambda history, new: [*new, *history], ["Hello", "old", "older"], ["Hello"]),
    (lambda history, new: [*history, *new, *new], ["old", "older", "Hello", "Hello"], ["Hello", "Hello"]),
    (lambda history, new: [*say("Be kind."), *history, *new], ["Be kind.", "old", "older", "Hello"],
     ["Be kind.", "Hello"]),
    (lambda history, new: [*history, *say("Rewritten.")], ["old", "older", "Rewritten."], ["Rewritten."]),
    (lambda history, new: [*history, *say("old")], ["old", "older", "old"], ["old"]),
    (lambda history, new: [*history[1:], *say("old"), *new], ["older", "old", "Hello"], ["Hello"]),
    (lambda history, new: [*history, *history, *new], ["old", "older", "old", "older", "Hello"], ["Hello"]),
    (lambda history, new: [], [], []),
    (changed_in_place, ["old, in short", "older", "Hello!"], ["Hello!"]),
    (copied, ["old", "older", "Hello"], ["Hello"]),
    (later, ["older", "Hello"], ["Hello"]),
]  # fmt: skip


@both
@pytest.mark.parametrize(("combine", "given", "stored"), CALLBACKS)
async def test_a_callback_decides_what_is_given_and_what_of_it_is_new_is_stored(
    run: Any, combine: Any, given: list[str], stored: list[str]
) -> None:
    session = Kept("old", "older")
    asks, input = agent("Done."), say("Hello")

    await run(asks, input, session, run_config=RunConfig(session_input_callback=combine))

    assert told(list(model_of(asks).calls[0].input)) == given
    assert told(session.items) == ["old", "older", *stored, "Done."]
    assert input == say("Hello")


@both
@pytest.mark.parametrize(
    ("combine", "error", "says"),
    [
        (lambda history, new: None, UserError, "returned NoneType: it is to return a list"),
        (lambda history, new: (*history, *new), UserError, "returned tuple"),
        (lambda history, new: [*history, 5], UserError, r"input\[1\] is a int"),
        (lambda history, new: {}["key"], KeyError, "key"),
    ],
)
async def test_a_callback_that_fails_ends_the_run_and_nothing_is_stored(
    run: Any, combine: Any, error: Any, says: str
) -> None:
    session = Kept("old")

    with pytest.raises(error, match=says):
        await run(agent("Done."), "Hello", session, run_config={"session_input_callback": combine})

    assert told(session.items) == ["old"]
    assert not session.adds


# --- what cannot work --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"session": "one"}, "not str, which has no get_items"),
        ({"session": SQLiteSession}, "not a class: make one"),
        ({"session": Kept(), "conversation_id": "c"}, "cannot be combined with conversation_id"),
        ({"session": Kept(), "previous_response_id": "r"}, "kept twice"),
        ({"session": Kept(), "auto_previous_response_id": True}, "Leave out the session"),
        ({"run_config": {"session_input_callback": 5}}, r"session_input_callback is a function"),
        ({"run_config": {"session_settings": 5}}, r"RunConfig\.session_settings takes SessionSettings"),
        ({"run_config": {"session_settings": {"limits": 5}}}, "has no 'limits'"),
    ],
)
async def test_what_cannot_work_is_refused_before_the_run(arguments: Any, says: str) -> None:
    asks = agent("Done.")

    with pytest.raises(UserError, match=says):
        Runner.run_streamed(asks, "Hello", **arguments)

    assert not model_of(asks).calls


async def test_a_session_that_gives_no_list_is_told_by_its_class() -> None:
    class GivesNone(Kept):
        async def get_items(self, limit: int | None = None) -> Any:
            return None

    with pytest.raises(UserError, match=r"GivesNone\.get_items\(\) gave NoneType"):
        await Runner.run(agent("Done."), "Hello", session=GivesNone())


# --- whatever ends a run -----------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("steps", "error", "stored"),
    [
        ([ConnectionError("down")], ConnectionError, ["Hello"]),
        (
            [[call("look", "c1")], ConnectionError("down")],
            ConnectionError,
            ["Hello", "call c1", "call_output c1"],
        ),
        (
            [[reasoning("Hm."), call("look", "c1"), call("raises", "c2")]],
            ToolFailedError,
            ["Hello", "reasoning", "call c1", "call c2", "call_output c1", "call_output c2"],
        ),
        (
            [[call("look", "c1")], [call("look", "c2")], [call("look", "c3")]],
            MaxTurnsExceeded,
            ["Hello", "call c1", "call_output c1", "call c2", "call_output c2"],
        ),
    ],
)
async def test_a_run_that_fails_leaves_what_happened_and_can_be_gone_on_from(
    run: Any, steps: list[Any], error: Any, stored: list[str]
) -> None:
    session = Kept()

    with pytest.raises(error):
        await run(agent(*steps), "Hello", session, max_turns=2)

    assert told(session.items) == stored
    assert not wrong_in(session.items)
    assert (await run(agent("Better."), "Again", session)).final_output == "Better."


@both
async def test_text_that_a_guardrail_has_stopped_is_not_what_the_next_run_is_told(run: Any) -> None:
    @output_guardrail
    async def stops(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    session = Kept()
    asks = agent([call("look", "c1")], [reasoning("Hm."), "A secret."], output_guardrails=[stops])

    with pytest.raises(OutputGuardrailTripwireTriggered):
        await run(asks, "Hello", session)

    assert told(session.items) == ["Hello", "call c1", "call_output c1"]


@both
async def test_what_was_said_to_an_input_that_a_guardrail_refuses_is_not_told_either(run: Any) -> None:
    answered = asyncio.Event()

    @input_guardrail
    async def stops(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        await answered.wait()
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    @tool
    async def tells() -> str:
        answered.set()
        return "told"

    session = Kept()
    asks = Agent(
        "A", tools=[tells], input_guardrails=[stops],
        model=ScriptedModel([["Let me see.", call("tells", "c1")], "A secret."]),
    )  # fmt: skip

    with pytest.raises(InputGuardrailTripwireTriggered):
        await run(asks, "Hello", session)

    assert "A secret." not in told(session.items)
    assert not wrong_in(session.items)


async def test_text_that_is_held_back_when_its_run_is_cancelled_is_not_told() -> None:
    asked = asyncio.Event()

    @output_guardrail(hold="verdict")
    async def ponders(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        asked.set()
        return await asyncio.get_running_loop().create_future()

    session = Kept()
    handle = Runner.run_streamed(agent("A secret.", output_guardrails=[ponders]), "Hello", session=session)
    await asked.wait()
    await handle.aclose()

    assert told(session.items) == ["Hello"]


async def test_a_session_that_gives_what_is_no_item_is_named() -> None:
    class Broken(Kept):
        async def get_items(self, limit: int | None = None) -> list[Any]:
            return [7]

    with pytest.raises(UserError, match=r"Broken\.get_items\(\) gave something that is no input item: .*int"):
        await Runner.run(agent("ok"), "Hello", session=Broken())


async def test_calls_that_are_held_back_with_their_text_are_not_told_either() -> None:
    @tool
    async def tell(word: str) -> str:
        raise AssertionError("what led to it has tripped")

    @output_guardrail(hold="verdict")
    async def trips(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    session = Kept()
    steps = [["I tell it.", function_call("tell", {"word": "A secret."}, call_id="c1")]]
    asks = Agent("A", tools=[tell], output_guardrails=[trips], model=ScriptedModel(steps))

    with pytest.raises(OutputGuardrailTripwireTriggered):
        await Runner.run(asks, "Hello", session=session)

    assert told(session.items) == ["Hello"]


async def test_text_that_was_cut_off_is_stored_and_reasoning_that_led_to_nothing_is_not() -> None:
    session = Kept()
    step = ModelStep([reasoning("Hm."), "One two three four."])
    asks = Agent("A", model=ScriptedModel([step], batch_size=1, chunk_size=4))
    handle = Runner.run_streamed(asks, "Hello", session=session)
    async for text in handle.text():
        if "two" in text:
            handle.cancel()

    with pytest.raises(RunCancelledError):
        await handle

    assert told(session.items)[0] == "Hello"
    assert "One two" in told(session.items)[1]
    assert len(session.items) == 2
    assert not wrong_in(session.items)


async def test_a_run_that_waits_for_approval_stores_its_turn_when_it_has_gone_on() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    session = Kept()
    asks = Agent(
        "A", tools=[pay, look],
        model=ScriptedModel([[call("look", "c0")], [reasoning("Hm."), call("look", "c1"), call("pay", "c2")], "Done."]),
    )  # fmt: skip
    paused = await Runner.run(asks, "Hello", session=session)
    while_it_waits = told(session.items)
    state = await RunState.from_json(asks, paused.to_state().to_json())
    for item in state.get_interruptions():
        state.approve(item)

    result = await Runner.run(asks, state, session=session)

    assert result.final_output == "Done."
    assert while_it_waits == ["Hello", "call c0", "call_output c0"]
    assert told(session.items) == [
        *while_it_waits,
        *("reasoning", "call c1", "call c2", "call_output c1", "call_output c2"),
        "Done.",
    ]


async def test_a_run_that_had_no_session_is_stored_whole_where_it_goes_on_with_one() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    def nothing(data: HandoffInputData) -> HandoffInputData:
        return data.clone(input_history=(), pre_handoff_items=(), new_items=())

    session = Kept()
    second = Agent("B", model=ScriptedModel(["From B."]))
    asks = Agent(
        "A", tools=[pay], handoffs=[handoff(second, input_filter=nothing)],
        model=ScriptedModel([[call("pay", "c1")], [call("transfer_to_b", "h1")]]),
    )  # fmt: skip
    state = (await Runner.run(asks, "Hello")).to_state()
    state.approve(state.get_interruptions()[0])

    await Runner.run(asks, state, session=session)

    assert told(session.items) == [
        "Hello",
        "call c1",
        "call_output c1",
        "call h1",
        "call_output h1",
        "From B.",
    ]
    assert model_of(second).calls[0].input == []  # as its handoff wants it


# --- stores that fail or are slow --------------------------------------------------------------


class Failing(Kept):
    """Fails in the appends of these numbers, from 1, when it has taken `takes` items."""

    def __init__(self, *numbers: int, takes: int = 0) -> None:
        super().__init__()
        self.numbers = numbers
        self.takes = takes

    async def add_items(self, items: list[Any]) -> None:
        await super().add_items(items[: self.takes] if len(self.adds) + 1 in self.numbers else items)
        if len(self.adds) in self.numbers:
            raise OSError(f"append {len(self.adds)}")


WHOLE = ["Hello", "call c1", "call_output c1", "Done."]


@both
@pytest.mark.parametrize("takes", [0, 1, 2])
@pytest.mark.parametrize(("number", "stored"), [(1, WHOLE[:1]), (2, WHOLE[:3]), (3, WHOLE)])
async def test_an_append_that_fails_ends_the_run_and_what_is_not_there_is_stored_at_its_end(
    run: Any, number: int, stored: list[str], takes: int
) -> None:
    session = Failing(number, takes=takes)

    with pytest.raises(OSError, match=f"append {number}") as caught:
        await run(agent([call("look", "c1")], "Done."), "Hello", session)

    # The last one is made when the run is over, and there is nothing behind it to try again.
    lost = 1 if number == 3 and takes == 0 else 0
    assert told(session.items) == stored[: len(stored) - lost]
    assert caught.value.run_data  # type: ignore[attr-defined]


@both
async def test_a_session_that_takes_nothing_any_more_ends_the_run_with_what_it_says_and_nothing_is_logged(
    run: Any, caplog: pytest.LogCaptureFixture
) -> None:
    session = Failing(2, 3)

    with caplog.at_level(logging.WARNING), pytest.raises(OSError, match="append 2"):
        await run(agent([call("look", "c1")], "Done."), "Hello", session)

    assert told(session.items) == ["Hello"]
    assert not caplog.records


@both
async def test_a_history_that_cannot_be_read_ends_the_run_before_anything_is_stored(run: Any) -> None:
    class Unreadable(Kept):
        async def get_items(self, limit: int | None = None) -> list[Any]:
            raise OSError("no disk")

    session = Unreadable("old")
    asks = agent("Done.")

    with pytest.raises(OSError, match="no disk"):
        await run(asks, "Hello", session)

    assert not session.adds
    assert not model_of(asks).calls


class Slow(Kept):
    """Tells when an append has begun, and ends it when it is told to; whether it is cancelled or not."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.cancelled = False

    async def add_items(self, items: list[Any]) -> None:
        if len(self.adds) + 1 == self.number:
            self.begun.set()
            try:
                await self.may_end.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                await super().add_items(items)
                raise
        await super().add_items(items)


@pytest.mark.parametrize(("number", "stored"), [(1, WHOLE[:1]), (2, WHOLE[:3]), (3, WHOLE)])
async def test_a_run_that_is_cancelled_while_it_stores_stores_it_once(number: int, stored: list[str]) -> None:
    session = Slow(number)
    handle = Runner.run_streamed(agent([call("look", "c1")], "Done."), "Hello", session=session)
    await session.begun.wait()

    handle.cancel()
    await asyncio.sleep(0)
    session.may_end.set()
    with contextlib.suppress(RunCancelledError):
        await handle

    assert not session.cancelled
    assert told(session.items) == stored


@pytest.mark.parametrize(("number", "stored"), [(1, WHOLE[:1]), (2, WHOLE[:3]), (3, WHOLE)])
def test_a_loop_that_shuts_down_while_a_run_stores_stores_it_once(number: int, stored: list[str]) -> None:
    async def main() -> Slow:
        session = Slow(number)
        handles.append(Runner.run_streamed(agent([call("look", "c1")], "Done."), "Hello", session=session))
        await session.begun.wait()
        return session

    handles: list[Any] = []
    session = asyncio.run(main())

    assert session.cancelled
    assert told(session.items) == stored
    assert handles[0].is_complete


@pytest.mark.parametrize("ends", ["cancelled", "failed"])
async def test_a_session_that_hangs_does_not_hold_up_the_end_of_a_run_for_ever(
    ends: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, session = ManualClock(), Slow(2)
    steps = [[call("look", "c1")], "Done."] if ends == "cancelled" else [[call("raises", "c1")]]
    handle = Runner.run_streamed(agent(*steps), "Hello", session=session, run_config={"clock": clock})
    await session.begun.wait()

    handle.cancel()
    await clock.waiting()
    clock.advance(10)
    with pytest.raises((RunCancelledError, ToolFailedError)):
        await handle

    assert told(session.items) == ["Hello"]
    assert "not done with its end after 10 s" in caplog.text
    session.may_end.set()


async def test_a_run_that_is_done_but_for_a_session_that_hangs_can_be_cancelled() -> None:
    clock, session = ManualClock(), Slow(3)
    handle = Runner.run_streamed(
        agent([call("look", "c1")], "Done."), "Hello", session=session, run_config={"clock": clock}
    )
    await session.begun.wait()

    handle.cancel()
    handle.cancel()
    await clock.waiting()
    clock.advance(10)
    with pytest.raises(RunCancelledError):
        await handle

    assert clock.due == ()
    session.may_end.set()


async def test_two_runs_on_one_session_never_tear_a_turn_of_each_other(tmp_path: Path) -> None:
    def asks(name: str) -> Agent[Any]:
        turns = [[call("look", f"{name}{turn}a"), call("look", f"{name}{turn}b")] for turn in range(3)]
        return agent(*turns, f"{name} is done.")

    runs = [
        Runner.run(asks(name), f"I am {name}", session=SQLiteSession("one", tmp_path / "s.db"))
        for name in ("x", "y", "z")
    ]
    await asyncio.gather(*runs)

    items = await SQLiteSession("one", tmp_path / "s.db").get_items()
    assert not wrong_in(items)
    assert len(items) == 3 * (1 + 3 * 4 + 1)
    last = agent("All is well.")
    await Runner.run(last, "And?", session=SQLiteSession("one", tmp_path / "s.db"))
    assert not wrong_in(list(model_of(last).calls[0].input))


ENDLESS = """
import asyncio, sys
from millstream import Agent, Runner, SQLiteSession, tool
from millstream.testing import ScriptedModel, function_call

@tool
async def look() -> str:
    print("looks", flush=True)
    return "seen"

turns = [[function_call("look", call_id=f"{n}{letter}") for letter in "ab"] for n in range(10_000)]
agent = Agent("A", tools=[look], model=ScriptedModel(turns))
Runner.run_sync(agent, "Hello", max_turns=None, session=SQLiteSession("one", sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_process_that_is_killed_in_a_run_leaves_a_session_to_go_on_with(tmp_path: Path) -> None:
    file = tmp_path / "s.db"
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, file], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
    )
    assert process.stdout
    for _ in range(25):
        assert process.stdout.readline() == b"looks\n"
    process.kill()
    process.communicate()

    left = asyncio.run(SQLiteSession("one", file).get_items())
    result = Runner.run_sync(agent("Good bye."), "Go on", session=SQLiteSession("one", file))

    assert len(left) >= 1 + 11 * 4  # the turns before the one that was killed
    assert not wrong_in(left)
    assert result.final_output == "Good bye."


# --- stopped anywhere --------------------------------------------------------------------------

MODES: tuple[CancelMode, ...] = ("now", "after_tool", "after_turn")


async def stopped(plan: Any, at: int, mode: CancelMode, session: Kept) -> Any:
    """A drawn run, stopped where its event `at` is dealt with; the handle of what came of it."""
    stop = drawn_runs.Stop(plan.stops)
    options = drawn_runs.arguments(plan, stop, drawn_runs.MemoryLog())
    handle = Runner.run_streamed(drawn_runs.agents(plan), "Hi", session=session, **options)
    stop.cancel = lambda: handle.cancel(plan.stops)
    place = 0
    with contextlib.suppress(Exception):
        async for _ in handle.stream_events():
            if place == at:
                handle.cancel(mode)
            place += 1
    with contextlib.suppress(Exception):
        await handle
    return handle


@pytest.mark.timeout(300)  # as the other drawn runs
@drawn_runs.drawn
@given(
    drawn_runs.plans(drawn_runs.whole_steps | drawn_runs.torn_steps, *MODES),
    st.integers(0, 80),
    st.sampled_from(MODES),
)
def test_a_run_that_is_stopped_anywhere_leaves_a_session_to_go_on_with(
    plan: Any, at: int, mode: CancelMode
) -> None:
    async def main() -> None:
        session = Kept("old")
        handle = await stopped(plan, at, mode, session)
        left = list(session.items)
        last = agent("Good bye.")
        result = await Runner.run(last, "Go on", session=session)

        assert not wrong_in(left)
        assert not wrong_in(list(model_of(last).calls[0].input))
        assert result.final_output == "Good bye."
        # Nothing is there twice, and nothing is lost but reasoning that led to nothing.
        new = [item.to_input_item() for item in handle.new_items]
        if told(left)[:2] == ["old", "Hi"]:
            # A guardrail may have stopped what was said, or still hold it, with the calls of that turn.
            keeps = without_messages if plan.guards else without_thoughts
            kept, came = keeps(left[2:]), keeps(new)
            assert kept == came[: len(kept)]
            assert len(kept) == len(came) or any("held" in each for each in plan.guards)
        else:  # stopped before it had begun
            assert told(left) == ["old"]
            assert not new

    asyncio.run(main())


def without_messages(items: list[Any]) -> list[Any]:
    return [item for item in without_thoughts(items) if item.get("type") != "message"]


def without_thoughts(items: list[Any]) -> list[Any]:
    return [item for item in items if item.get("type") != "reasoning"]


# --- beside other features ---------------------------------------------------------------------


async def test_input_that_is_added_while_a_run_waits_is_stored_where_the_model_gets_it() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    session = Kept()
    asks = Agent("A", tools=[pay], model=ScriptedModel([[call("pay", "c1")], "Done."]))
    state = (await Runner.run(asks, "Hello", session=session)).to_state()
    state.reject(state.get_interruptions()[0], rejection_message="No.")
    state.add_input("Rather not.")

    await Runner.run(asks, state, session=session)

    assert told(session.items) == ["Hello", "call c1", "call_output c1", "Rather not.", "Done."]
    assert told(list(model_of(asks).calls[-1].input)) == told(session.items)[:-1]


async def test_input_that_is_sent_to_a_run_is_stored_behind_what_it_interrupts() -> None:
    session = Kept()
    handles: list[Any] = []

    @tool
    async def says_so() -> str:
        handles[0].send("Rather not.", when="after_tool")
        return "said"

    asks = Agent("A", tools=[says_so], model=ScriptedModel([[call("says_so", "c1")], "Done."]))
    handles.append(Runner.run_streamed(asks, "Hello", session=session))
    await handles[0]

    assert told(session.items) == ["Hello", "call c1", "call_output c1", "Rather not.", "Done."]


@both
async def test_an_agent_that_is_a_tool_has_the_session_it_was_given_and_not_its_callers(run: Any) -> None:
    inner, outer = Kept("old"), Kept()
    nested = agent([call("look", "c9")], "It is so.")
    looks_up = nested.as_tool("looks_up", "Looks something up.", session=inner)
    asks = Agent(
        "Asks", tools=[looks_up],
        model=ScriptedModel([[function_call("looks_up", {"input": "Is it?"}, call_id="c1")], "Done."]),
    )  # fmt: skip

    await run(asks, "Hello", outer)

    assert told(outer.items) == ["Hello", "call c1", "call_output c1", "Done."]
    assert told(inner.items) == ["old", "Is it?", "call c9", "call_output c9", "It is so."]


async def test_a_nested_run_that_waits_for_approval_goes_on_in_its_own_session() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    inner, outer = Kept("old"), Kept()
    nested = Agent("Nested", tools=[pay], model=ScriptedModel([[call("pay", "c9")], "It is paid."]))
    asks = Agent(
        "Asks", tools=[nested.as_tool("pays", "Pays.", session=inner)],
        model=ScriptedModel([[function_call("pays", {"input": "Pay."}, call_id="c1")], "Done."]),
    )  # fmt: skip
    state = (await Runner.run(asks, "Hello", session=outer)).to_state()
    while_it_waits = told(inner.items), told(outer.items)
    state.approve(state.get_interruptions()[0])

    await Runner.run(asks, state, session=outer)

    assert while_it_waits == (["old", "Pay."], ["Hello"])
    assert told(inner.items) == ["old", "Pay.", "call c9", "call_output c9", "It is paid."]
    assert told(outer.items) == ["Hello", "call c1", "call_output c1", "Done."]
