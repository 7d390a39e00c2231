"""What a run has come to, told from its log alone."""

from typing import Any

from millstream import Agent, MemoryLog, RunConfig, Runner, tool
from millstream.events import (
    AgentUpdatedStreamEvent,
    Event,
    InputAdded,
    ModelCompleted,
    ModelRetried,
    ModelStarted,
    RunAttempt,
    RunCompleted,
    RunItemStreamEvent,
    RunPaused,
    RunResumed,
    RunStarted,
    Stamp,
)
from millstream.items import AgentRef, ItemHelpers, ToolApprovalItem, ToolCallOutputItem
from millstream.log import Batch
from millstream.run.closing import message_item
from millstream.stream.history import History
from millstream.testing import ScriptedModel, function_call

A: Any = AgentRef("A")
CALL = {"requests": 1, "input_tokens": 3, "output_tokens": 2, "total_tokens": 5}


def said(text: str) -> RunItemStreamEvent:
    return RunItemStreamEvent(item=message_item(A, text))


def answered(call_id: str) -> RunItemStreamEvent:
    raw = {"type": "function_call_output", "call_id": call_id, "output": call_id}
    return RunItemStreamEvent(item=ToolCallOutputItem(A, raw, call_id))


def told(*events: Event, run_id: str = "run_1") -> History:
    history = History("run_1")
    for position, event in enumerate(events, 1):
        history.feed(Batch(position, Stamp(run_id=run_id, agent="A"), [event]))
    return history


def texts(history: History) -> list[Any]:
    return [
        ItemHelpers.text_message_output(item) if item.type == "message_output_item" else item.raw_item
        for item in history.items
    ]


BEGIN = (RunStarted(agent="A", input="Hi"), AgentUpdatedStreamEvent(A), ModelStarted(turn=1))


def test_a_run_that_goes_on_tells_what_there_is_by_now() -> None:
    history = told(
        *BEGIN,
        said("one"),
        ModelCompleted(turn=1, usage=CALL),
        InputAdded(input={"role": "user", "content": "x"}),
    )

    assert (history.input, history.agent, history.end, history.pause) == ("Hi", A, None, None)
    assert texts(history) == ["one", {"role": "user", "content": "x"}]
    assert history.usage.to_dict() == {**CALL, "cached_tokens": 0, "reasoning_tokens": 0}


def test_the_items_of_a_try_that_was_given_up_do_not_count_and_its_usage_does() -> None:
    twice = {name: 2 * count for name, count in CALL.items()}
    history = told(
        *BEGIN,
        said("one"),
        ModelRetried(turn=1, attempt=1, reason="connection"),
        said("two"),
        ModelCompleted(turn=1, usage=twice),
    )

    assert texts(history) == ["two"]
    assert history.usage.requests == 2


def test_what_a_new_owner_has_superseded_does_not_count() -> None:
    history = told(
        *BEGIN,
        said("one"),
        ModelCompleted(turn=1, usage=CALL),
        answered("c1"),
        answered("c2"),
        RunAttempt(number=2, resumed_from=6),
        AgentUpdatedStreamEvent(A),
        answered("c2"),
    )

    outputs = [item.to_input_item() for item in history.items if item.type == "tool_call_output_item"]
    assert [output.get("call_id") for output in outputs] == ["c1", "c2"]


def test_a_pause_lasts_until_the_run_goes_on() -> None:
    item = ToolApprovalItem(A, {"type": "function_call", "call_id": "c1", "name": "wipe", "arguments": "{}"})
    paused = (*BEGIN, ModelCompleted(turn=1, usage=CALL), RunPaused(interruptions=(item,)))

    assert told(*paused).waiting == [item]
    assert told(*paused, RunResumed()).waiting == []
    assert told(*paused, RunResumed(), RunCompleted(output="x", usage=CALL)).pause is None


def test_other_runs_of_the_tree_tell_nothing_but_what_they_used() -> None:
    history = told(*BEGIN, said("one"), ModelCompleted(turn=1, usage=CALL), run_id="run_2")

    assert (history.items, history.input, history.stamp) == ([], "", None)
    assert history.usage.total_tokens == 5


async def test_it_is_what_the_run_itself_knows() -> None:
    @tool
    async def weather(city: str) -> str:
        return f"cold in {city}"

    log = MemoryLog()
    calls = [function_call("weather", {"city": city}, call_id=city) for city in ("Oslo", "Bergen")]
    agent = Agent(name="A", model=ScriptedModel([calls, "Cold."]), tools=[weather])
    run = Runner.run_streamed(agent, "Hi", run_config=RunConfig(log=log))
    result = await run

    history = History(run.run_id)
    cursor = log.cursor(run.run_id)
    while (batch := await cursor.next()) is not None:
        history.feed(batch)

    assert history.items == result.new_items
    assert isinstance(history.end, RunCompleted)
    assert history.usage.to_dict() == result.context_wrapper.usage.to_dict()
