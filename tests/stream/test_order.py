"""The order of `stream_events()`: that of the SDK, as a fold over the log; `early=True` is the log's own."""

import asyncio
from typing import Any

import pytest

from millstream import Agent, RunConfig, Runner, tool
from millstream.context import RunContextWrapper
from millstream.events import (
    AgentUpdatedStreamEvent,
    Event,
    ModelCompleted,
    ModelRetried,
    ModelStarted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunCompleted,
    RunItemStreamEvent,
    RunStarted,
    Stamp,
    ToolFinished,
    ToolProgress,
    ToolStarted,
)
from millstream.items import ItemHelpers, MessageOutputItem, ToolCallItem, ToolCallOutputItem
from millstream.log import Batch, MemoryLog
from millstream.result.readers import EventReader
from millstream.result.source import ActiveSource
from millstream.run.active import ActiveRun
from millstream.run.state import RunProgress
from millstream.stream.order import EventOrder
from millstream.testing import ScriptedModel, assistant_message, function_call

A = Agent(name="A")


def called(call_id: str) -> RunItemStreamEvent:
    return RunItemStreamEvent(item=ToolCallItem(A, function_call("echo", call_id=call_id)))


def answered(call_id: str) -> RunItemStreamEvent:
    raw = ItemHelpers.tool_call_output_item(function_call("echo", call_id=call_id), "x")
    return RunItemStreamEvent(item=ToolCallOutputItem(A, raw, "x"))


def message(text: str = "hi") -> RunItemStreamEvent:
    return RunItemStreamEvent(item=MessageOutputItem(A, assistant_message(text)))


def raw(kind: str = "response.output_text.delta") -> RawResponsesStreamEvent:
    return RawResponsesStreamEvent.from_wire(b'{"type":"%b","delta":"x"}' % kind.encode())


def folded(*events: Event, early: bool = False) -> list[Any]:
    order = EventOrder(early=early)
    return [out for event in events for out in order.feed(event)] + order.flush()


MODEL, MODEL_DONE = ModelStarted(turn=1), ModelCompleted(turn=1)
C1, C2, O1, O2 = called("c1"), called("c2"), answered("c1"), answered("c2")
C3, O3 = called("c3"), answered("c3")
ATTEMPT, UPDATED = RunAttempt(number=2, resumed_from=9), AgentUpdatedStreamEvent(A)
R1, R2, SAID = raw(), raw("response.completed"), message()


def test_the_items_of_a_response_follow_its_raw_events() -> None:
    assert folded(MODEL, R1, SAID, R1, C1, R2, MODEL_DONE) == [R1, R1, R2, SAID, C1]


def test_the_outputs_of_a_turn_come_together_in_the_order_of_the_calls() -> None:
    started, finished = ToolStarted(call_id="c1", name="echo"), ToolFinished(call_id="c1", name="echo")
    progress = ToolProgress(call_id="c1", name="echo", data=1)

    seen = folded(MODEL, C1, C2, MODEL_DONE, started, O2, progress, finished, O1, MODEL, SAID, MODEL_DONE)

    assert seen == [C1, C2, O1, O2, SAID]


def test_nothing_is_held_back_when_the_last_output_is_there() -> None:
    order = EventOrder()
    for event in (MODEL, C1, C2, MODEL_DONE):
        order.feed(event)

    assert order.feed(O2) == []
    assert order.feed(O1) == [O1, O2]
    assert order.flush() == []


@pytest.mark.parametrize(
    "ends_the_turn", [MODEL, AgentUpdatedStreamEvent(A), RunCompleted(output="x"), SAID], ids=lambda e: e.type
)
def test_outputs_that_are_held_go_out_before_the_run_goes_on(ends_the_turn: Any) -> None:
    seen = folded(MODEL, C1, C2, MODEL_DONE, O2, ends_the_turn)

    assert seen[:3] == [C1, C2, O2]


def test_the_items_of_a_try_that_was_given_up_are_left_out_and_its_raw_events_stay() -> None:
    again = ModelRetried(turn=1, attempt=1, reason="model_unavailable")
    events = (MODEL, R1, SAID, C1, again, R1, C2, R2, MODEL_DONE, O2)

    assert folded(*events) == [R1, R1, R2, C2, O2]
    assert folded(*events, early=True) == [R1, SAID, C1, R1, C2, R2, O2]


def test_the_items_of_a_call_that_died_with_its_process_are_left_out() -> None:
    events = (MODEL, R1, SAID, C1, ATTEMPT, UPDATED, MODEL, R1, C2, R2, MODEL_DONE, O2)

    assert folded(*events) == [R1, UPDATED, R1, R2, C2, O2]
    assert folded(*events, early=True) == [R1, SAID, C1, UPDATED, R1, C2, R2, O2]


def test_outputs_that_are_there_when_another_process_goes_on_come_once_and_before_those_of_the_others() -> (
    None
):
    seen = folded(MODEL, C1, C2, C3, MODEL_DONE, O2, ATTEMPT, UPDATED, O3, O1, MODEL, SAID, MODEL_DONE)

    assert seen == [C1, C2, C3, O2, UPDATED, O1, O3, SAID]


def test_whatever_is_held_is_given_out_at_the_end() -> None:
    assert folded(MODEL, SAID, C1) == [SAID, C1]
    assert folded(MODEL, C1, C2, MODEL_DONE, O2) == [C1, C2, O2]


def test_an_output_that_no_call_waits_for_is_given_at_once() -> None:
    assert folded(O2, O1) == [O2, O1]


def test_the_natural_order_only_leaves_out_other_kinds() -> None:
    seen = folded(RunStarted(agent="A"), MODEL, C1, R1, SAID, MODEL_DONE, O1, RunCompleted(), early=True)

    assert seen == [C1, R1, SAID, O1]


# --- a run, read -------------------------------------------------------------------------------


def names(events: list[Any]) -> list[str]:
    """The names of items and of agents, and where a response ended."""
    return [
        event.name
        if event.type == "run_item_stream_event"
        else event.new_agent.name
        if event.type == "agent_updated_stream_event"
        else event.data.type
        for event in events
        if event.type != "raw_response_event" or event.data.type == "response.completed"
    ]


def a_run() -> Any:
    """Two tools of which the second is done first, and two handoffs."""
    second_done = asyncio.Event()

    @tool
    async def slow() -> str:
        await second_done.wait()
        return "slow"

    @tool
    async def fast() -> str:
        second_done.set()
        return "fast"

    steps: list[Any] = [
        [
            "pre",
            function_call("slow", call_id="c1"),
            function_call("fast", call_id="c2"),
            function_call("transfer_to_b", call_id="h1"),
            function_call("transfer_to_b", call_id="h2"),
        ],
    ]
    b = Agent(name="B", model=ScriptedModel(["from b"]))
    a = Agent(name="A", model=ScriptedModel(steps), tools=[slow, fast], handoffs=[b])
    return Runner.run_streamed(a, "hi")


async def test_a_run_streams_in_the_order_of_the_sdk() -> None:
    handle = a_run()
    events = [event async for event in handle.stream_events()]

    # What openai-agents 0.24.0 gives for the same script.
    assert names(events) == [
        "A",
        "response.completed",
        *("message_output_created", "tool_called", "tool_called", "handoff_requested", "handoff_requested"),
        *("tool_output", "tool_output"),
        *("tool_output", "handoff_occured", "B"),
        "response.completed",
        "message_output_created",
    ]
    outputs = [event.item.output for event in events if getattr(event, "name", "") == "tool_output"]
    assert outputs == ["slow", "fast", "Multiple handoffs detected, ignoring this one."]


async def test_a_run_streams_early_where_that_is_asked_for() -> None:
    handle = a_run()
    events = [event async for event in handle.stream_events(early=True)]

    assert names(events)[:6] == [
        "A",
        *("message_output_created", "tool_called", "tool_called", "handoff_requested", "handoff_requested"),
    ]
    outputs = [event.item.output for event in events if getattr(event, "name", "") == "tool_output"]
    assert outputs[:2] == ["fast", "slow"]


async def test_both_orders_have_the_same_events() -> None:
    handle = a_run()

    ordered = [event async for event in handle.stream_events()]
    early = [event async for event in handle.stream_events(early=True)]

    assert len(ordered) == len(early)
    assert sorted(names(ordered)) == sorted(names(early))


async def test_the_events_of_nested_runs_are_not_in_the_stream() -> None:
    log, wrapper = MemoryLog(), RunContextWrapper(None)
    progress = RunProgress("run_root", "hi", A, wrapper, None)
    run = ActiveRun(progress, RunConfig(), log, streamed=True, loop=asyncio.get_running_loop())
    root = Stamp(run_id="run_root", agent="A")
    nested = Stamp(run_id="run_child", agent="B", depth=1, parent_run_id="run_root")
    await log.append("run_root", Batch(1, root, [AgentUpdatedStreamEvent(A), MODEL, SAID, MODEL_DONE]))
    await log.append("run_root", Batch(5, nested, [message("nested"), raw(), RunCompleted(output="nested")]))
    await log.append("run_root", Batch(8, nested, [b'{"type":"response.created"}'], raw_only=True))
    run.trunk.position = 8
    await run.complete()

    events = [event async for event in EventReader(ActiveSource(run), EventOrder())]

    assert events == [AgentUpdatedStreamEvent(A), SAID]
