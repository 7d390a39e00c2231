"""The handle: looking at a run, reading it, awaiting it, stopping it; on the way and after."""

import asyncio
import contextlib
import contextvars
import gc
import logging
import re
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    MaxTurnsExceeded,
    RunConfig,
    Runner,
    RunResult,
    RunResultStreaming,
    UserError,
    tool,
)
from millstream.errors import RunCancelledError, RunStateError
from millstream.events import RawResponsesStreamEvent, RunItemStreamEvent
from millstream.testing import ModelStep, ScriptedModel, function_call
from millstream.usage import Usage
from tests.support.hurry import hurry

OUTPUT = "It is cold."
DEADLINE = 10


@tool
async def weather() -> str:
    return "cold"


def two_turns() -> ScriptedModel:
    return ScriptedModel(
        [[function_call("weather", call_id="c1")], OUTPUT],
        default_usage=Usage(requests=1, input_tokens=3, output_tokens=2, total_tokens=5),
    )


def start(model: ScriptedModel | None = None, *tools: Any, **config: Any) -> RunResultStreaming:
    agent = Agent(name="A", model=model or two_turns(), tools=list(tools) or [weather])
    return Runner.run_streamed(agent, "Hi", run_config=RunConfig(**config))


def failing() -> RunResultStreaming:
    return start(ScriptedModel([ModelStep("Hello there.", fail_after=6, error=ValueError("broken"))]))


def silent() -> RunResultStreaming:
    """A run whose model falls silent after "Hello"."""
    return start(ScriptedModel([ModelStep("Hello there.", hang_after=5)]))


async def collect(events: Any, *, into: list[Any] | None = None) -> list[Any]:
    seen: list[Any] = [] if into is None else into
    async for event in events:
        seen.append(event)  # noqa: PERF401  # what was seen before it raises
    return seen


async def ended(run: RunResultStreaming) -> None:
    while not run.is_complete:
        await asyncio.sleep(0)


async def nothing_is_left() -> None:
    """What a test has left behind goes on to its end, and no further."""
    async with asyncio.timeout(DEADLINE):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
    gc.collect()


# --- looking -----------------------------------------------------------------------------------


async def test_every_attribute_may_be_read_before_the_first_step() -> None:
    run = start()

    assert (run.input, run.new_items, run.raw_responses, run.final_output) == ("Hi", [], [], None)
    assert (run.current_agent.name, run.last_agent.name, run.current_turn, run.max_turns) == ("A", "A", 0, 10)
    assert (run.is_complete, run.is_cancelled, run.run_loop_exception) == (False, False, None)
    assert (run.last_response_id, run.interruptions) == (None, [])
    assert run.trace is not None
    assert run.to_input_list() == [{"role": "user", "content": "Hi"}]
    assert "0 new item(s)" in str(run)
    await run


async def test_attributes_follow_the_run() -> None:
    run = start()
    seen = []

    async for event in run:
        if isinstance(event, RunItemStreamEvent):
            seen.append((event.name, run.current_turn, len(run.new_items), len(run.raw_responses)))
            assert event.name == "message_output_created" or not (run.is_complete or run.final_output)

    # An item is shown once its whole turn may be gone on with, so its output is there already.
    assert [name for name, *_ in seen] == ["tool_called", "tool_output", "message_output_created"]
    assert [turn for _, turn, *_ in seen] == [1, 1, 2]
    assert run.is_complete


async def test_after_the_end_the_handle_shows_what_the_result_shows() -> None:
    run = start()
    result = await run

    assert isinstance(result, RunResult)
    assert result.final_output == run.final_output == OUTPUT
    assert result.new_items == run.new_items
    assert [item.type for item in run.new_items] == [
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    assert result.raw_responses == run.raw_responses
    assert (result.last_response_id, run.last_response_id) == ("resp-789", "resp-789")
    assert result.last_agent is run.last_agent is run.current_agent
    assert result.run_id == run.run_id
    assert (run.current_turn, result.max_turns, run.is_cancelled) == (2, 10, False)
    assert run.context_wrapper.usage.total_tokens == 10
    assert result.to_input_list() == run.to_input_list() == run.to_input_list(mode="normalized")
    assert [item.get("type") for item in run.to_input_list()[1:]] == [
        "function_call",
        "function_call_output",
        "message",
    ]
    assert OUTPUT in str(run)
    assert OUTPUT in str(result)


async def test_the_output_can_be_had_as_its_type() -> None:
    run = start()
    await run

    assert run.final_output_as(str) == OUTPUT
    assert run.final_output_as(int) == OUTPUT  # a cast, as in the SDK
    with pytest.raises(TypeError, match="not of type int"):
        run.final_output_as(int, raise_if_incorrect_type=True)


async def test_a_run_that_goes_on_has_no_state_yet() -> None:
    run = start()

    with pytest.raises(RunStateError, match="goes on"):
        run.to_state()
    await run


async def test_the_end_is_known_when_a_reader_comes_to_it_in_whatever_thread() -> None:
    run = start(ahead="free")

    async def read() -> bool:
        await collect(run)
        return run.is_complete

    assert await asyncio.to_thread(lambda: asyncio.run(read()))


# --- reading -----------------------------------------------------------------------------------


async def test_each_of_several_readers_sees_the_whole_stream() -> None:
    run = start()
    async with asyncio.TaskGroup() as group:
        at_once = [group.create_task(collect(run)) for _ in range(3)]
    one_after_another = [await collect(run), await collect(run.stream_events())]

    first = at_once[0].result()
    assert len(first) > 10
    assert all(events == first for events in [*(task.result() for task in at_once), *one_after_another])


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
async def test_who_looks_at_each_event_sees_what_who_looks_later_sees(batch_size: int) -> None:
    """Events that came together are typed together for who looks at them: it makes no difference."""
    words = "".join(f"word{n} " for n in range(200))
    script = [[words, function_call("weather", '{"place": "a b c d e f"}', call_id="c1"), words], words]
    run = start(ScriptedModel(script, batch_size=batch_size))
    later: list[Any] = await collect(run)

    looked: list[Any] = []
    async for event in run:
        looked.append(event)
        if isinstance(event, RawResponsesStreamEvent):
            assert event.data.type
    now_and_then: list[Any] = []
    async for event in run:
        now_and_then.append(event)
        if isinstance(event, RawResponsesStreamEvent) and len(now_and_then) % 3 == 0:
            assert event.data is event.data

    assert looked == later == now_and_then
    raws = [(a, b) for a, b in zip(looked, later, strict=True) if isinstance(a, RawResponsesStreamEvent)]
    assert len(raws) > 600
    for one, other in raws:
        assert one.json == other.json
        assert type(one.data) is type(other.data)
        assert one.data is not other.data
        assert one.data.model_fields_set == other.data.model_fields_set


async def test_a_reader_that_comes_on_the_way_begins_at_the_beginning() -> None:
    run = start()
    early = run.stream_events()
    taken = [await anext(early) for _ in range(5)]

    late = await collect(run)

    assert late[:5] == taken
    assert late[5:] == await collect(early)


async def test_a_reader_gives_nothing_after_its_end() -> None:
    run = start()
    reader = run.stream_events()
    await collect(reader)

    assert await collect(reader) == []
    with pytest.raises(StopAsyncIteration):
        await anext(reader)


async def test_tools_and_calls_come_early_where_that_is_asked_for() -> None:
    run = start()

    def places(events: list[Any]) -> list[int]:
        return [index for index, e in enumerate(events) if isinstance(e, RunItemStreamEvent)]

    late, early = await collect(run), await collect(run.stream_events(early=True))

    assert len(late) == len(early)
    assert places(early)[0] < places(late)[0]


async def test_entries_begin_behind_any_position() -> None:
    run = start()
    everything = await collect(run.entries())

    assert [entry.position for entry in everything] == list(range(1, len(everything) + 1))
    assert everything[0].type == "run.started"
    assert everything[-1].type == "run.completed"
    for after in (1, 7, len(everything) - 1, len(everything)):
        assert await collect(run.entries(after=after)) == everything[after:]
    assert await collect(run.entries(after=len(everything) + 5)) == []
    with pytest.raises(UserError, match="count from 1"):
        run.entries(after=-1)


async def test_entries_end_with_the_failure_and_do_not_raise_it(caplog: pytest.LogCaptureFixture) -> None:
    run = failing()
    everything = await collect(run.entries())
    del run

    last = everything[-1]
    assert (last.type, last.event.code, last.event.partial) == ("run.failed", "internal", "Hello there.")
    assert not caplog.records  # it was told of


async def test_text_is_what_the_model_writes() -> None:
    run = start(ScriptedModel([["Let me see. ", function_call("weather", call_id="c1")], OUTPUT]))

    assert "".join(await collect(run.text())) == f"Let me see. {OUTPUT}"


async def test_deltas_that_came_together_are_given_one_by_one() -> None:
    run = start(ScriptedModel([OUTPUT], batch_size=100))

    assert await collect(run.text()) == ["It", " is", " cold."]


async def test_text_raises_what_the_run_failed_with() -> None:
    seen: list[Any] = []

    with pytest.raises(ValueError, match="broken"):
        await collect(failing().text(), into=seen)

    assert "".join(seen) == "Hello there."


async def test_a_reader_may_be_asked_again_after_a_timeout() -> None:
    run = silent()
    reader = run.stream_events()
    seen: list[Any] = []
    hurry(asyncio.get_running_loop())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(collect(reader, into=seen), 1)

    run.cancel()
    rest = await collect(reader)

    assert [*seen, *rest] == await collect(run)


async def test_one_reader_is_not_for_two_tasks() -> None:
    run = silent()
    reader = run.stream_events()
    one = asyncio.create_task(collect(reader))
    while len(await read_some(run, 6)) < 6:
        pass

    with pytest.raises(UserError, match="one of its own"):
        await anext(reader)

    await run.aclose()
    assert await one == await collect(run)


async def read_some(run: RunResultStreaming, number: int) -> list[Any]:
    reader = run.stream_events()
    return [await anext(reader) for _ in range(number)]


async def test_a_reader_that_is_closed_while_it_waits_gives_nothing_more() -> None:
    gate = asyncio.Event()

    @tool
    async def wait() -> str:
        await gate.wait()
        return ""

    run = start(ScriptedModel([[function_call("wait", call_id="c1")], OUTPUT]), wait)
    reader: Any = run.stream_events()
    reading = asyncio.create_task(collect(reader))
    async for event in run:
        if isinstance(event, RunItemStreamEvent):
            break

    await reader.aclose()
    gate.set()

    seen = await reading
    everything = await collect(run)
    assert seen == everything[: len(seen)]
    assert len(seen) < len(everything)


async def in_this_task(reader: Any) -> None:
    await reader.aclose()


async def twice(reader: Any) -> None:
    await reader.aclose()
    await reader.aclose()


async def in_another_thread(reader: Any) -> None:
    await asyncio.to_thread(lambda: asyncio.run(reader.aclose()))


READERS = pytest.mark.parametrize("read", [RunResultStreaming.entries, RunResultStreaming.stream_events])


@READERS
@pytest.mark.parametrize("close", [in_this_task, twice, in_another_thread])
async def test_who_waits_for_a_reader_that_is_closed_is_woken(
    read: Callable[[RunResultStreaming], Any], close: Callable[[Any], Awaitable[None]]
) -> None:
    run = silent()
    reader = read(run)
    seen: list[Any] = []
    reading = asyncio.create_task(collect(reader, into=seen))
    while not reader._waiting or run._run.position < 6:
        await asyncio.sleep(0)

    await close(reader)
    async with asyncio.timeout(DEADLINE):
        await reading

    assert seen
    assert reading.cancelling() == 0
    assert not run.is_complete
    await run.aclose()


@READERS
@pytest.mark.parametrize("first", ["close", "cancel"])
async def test_a_task_that_is_cancelled_while_its_reader_is_closed_is_cancelled(
    read: Callable[[RunResultStreaming], Any], first: str
) -> None:
    run = silent()
    reader = read(run)
    reading = asyncio.create_task(collect(reader))
    while not reader._waiting or run._run.position < 6:
        await asyncio.sleep(0)

    if first == "close":
        await reader.aclose()
    reading.cancel()
    await reader.aclose()
    await asyncio.wait([reading])

    assert reading.cancelled()
    await run.aclose()


async def test_a_task_that_has_refused_to_be_cancelled_is_woken_as_well() -> None:
    run = silent()
    reader: Any = run.entries()

    async def refuse_and_read() -> list[Any]:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        return await collect(reader)

    reading = asyncio.create_task(refuse_and_read())
    await asyncio.sleep(0)
    reading.cancel()
    while not reader._waiting or run._run.position < 6:
        await asyncio.sleep(0)
    await reader.aclose()

    async with asyncio.timeout(DEADLINE):
        assert (await reading)[0].type == "run.started"
    await run.aclose()


async def test_a_reader_of_another_loop_is_woken_as_well() -> None:
    run = silent()
    reader: Any = run.entries()

    reading = asyncio.create_task(asyncio.to_thread(lambda: asyncio.run(collect(reader))))
    while not reader._waiting or run._run.position < 6:
        await asyncio.sleep(0)
    await reader.aclose()

    async with asyncio.timeout(DEADLINE):
        assert (await reading)[0].type == "run.started"
    await run.aclose()


# Readers that do not come to the end. Each is given a run and goes away.


async def never_comes(run: RunResultStreaming) -> None:
    pass


async def is_made_and_not_begun(run: RunResultStreaming) -> None:
    run.stream_events()


async def breaks(run: RunResultStreaming) -> None:
    async for _ in run:
        break


async def raises(run: RunResultStreaming) -> None:
    try:
        async for _ in run:
            raise LookupError
    except LookupError:
        pass


async def times_out(run: RunResultStreaming) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await collect(run)


async def times_out_waiting_for_one_event(run: RunResultStreaming) -> None:
    reader = run.stream_events()
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(anext(reader), 0)


async def has_its_task_cancelled(run: RunResultStreaming) -> None:
    reading = asyncio.create_task(collect(run))
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait([reading])


async def closes_itself_twice(run: RunResultStreaming) -> None:
    reader: Any = run.stream_events()
    await anext(reader)
    await reader.aclose()
    await reader.aclose()


async def is_collected(run: RunResultStreaming) -> None:
    cycle: list[Any] = [run.stream_events()]
    await anext(cycle[0])
    cycle.append(cycle)
    del cycle
    gc.collect()


async def is_collected_by_another_thread(run: RunResultStreaming) -> None:
    cycle: list[Any] = [run.stream_events()]
    await anext(cycle[0])
    cycle.append(cycle)
    del cycle
    await asyncio.to_thread(gc.collect)


async def is_wrapped_in_a_generator_that_is_dropped(run: RunResultStreaming) -> None:
    async def wrapper() -> AsyncIterator[Any]:
        async for event in run:
            yield event

    async for _ in wrapper():
        break


async def lives_in_another_context(run: RunResultStreaming) -> None:
    reader = run.stream_events()
    for _ in range(3):
        await asyncio.create_task(anext(reader), context=contextvars.Context())  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def lives_in_another_thread(run: RunResultStreaming) -> None:
    await asyncio.to_thread(lambda: asyncio.run(breaks(run)))


async def lives_in_another_thread_and_is_cut_off(run: RunResultStreaming) -> None:
    def read() -> None:
        loop = asyncio.new_event_loop()
        reading = loop.create_task(collect(run))
        loop.run_until_complete(asyncio.sleep(0))
        reading.cancel()
        loop.run_until_complete(asyncio.wait([reading]))
        loop.close()

    await asyncio.to_thread(read)


@pytest.mark.may_block
@pytest.mark.parametrize(
    "reader",
    [
        never_comes,
        is_made_and_not_begun,
        breaks,
        raises,
        times_out,
        times_out_waiting_for_one_event,
        has_its_task_cancelled,
        closes_itself_twice,
        is_collected,
        is_collected_by_another_thread,
        is_wrapped_in_a_generator_that_is_dropped,
        lives_in_another_context,
        lives_in_another_thread,
        lives_in_another_thread_and_is_cut_off,
    ],
)
async def test_however_a_reader_goes_the_run_goes_on_to_its_end(
    reader: Callable[[RunResultStreaming], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    run = start()

    async with asyncio.timeout(DEADLINE):
        await reader(run)
        await ended(run)
    await nothing_is_left()

    assert run.final_output == OUTPUT
    assert not caplog.records


async def test_readers_are_held_by_nobody_but_who_iterates_them() -> None:
    run = silent()
    reader = run.stream_events()
    await anext(reader)
    gone = weakref.ref(reader)
    gc.disable()
    try:
        del reader
        assert gone() is None
    finally:
        gc.enable()
    await run.aclose()


async def test_a_dropped_run_leaves_nothing_behind() -> None:
    gc.disable()
    try:
        run = start()
        active = weakref.ref(run._run)
        await run
        del run
        await asyncio.sleep(0)
        assert active() is None
    finally:
        gc.enable()


async def test_a_handle_that_nobody_named_does_not_stop_its_run() -> None:
    names = [e.name async for e in start() if isinstance(e, RunItemStreamEvent)]

    assert names == ["tool_called", "tool_output", "message_output_created"]


# --- other loops -------------------------------------------------------------------------------


async def test_a_run_may_be_read_and_awaited_from_the_loop_of_another_thread() -> None:
    run = start()

    async def elsewhere() -> tuple[list[Any], Any]:
        return await collect(run), (await run).final_output

    events, output = await asyncio.to_thread(lambda: asyncio.run(elsewhere()))

    assert events == await collect(run)
    assert output == OUTPUT


async def test_a_run_may_be_closed_from_the_loop_of_another_thread() -> None:
    run = silent()
    await asyncio.to_thread(lambda: asyncio.run(run.aclose()))

    assert run.is_cancelled


def test_a_run_that_is_over_may_be_read_from_any_later_loop() -> None:
    async def begin() -> RunResultStreaming:
        run = start()
        await run
        return run

    run = asyncio.run(begin())

    assert asyncio.run(collect(run.text())) == ["It", " is", " cold."]


@pytest.mark.parametrize("cut", ["cancelled", "closed"])
def test_a_run_ends_with_its_loop(cut: str, caplog: pytest.LogCaptureFixture) -> None:
    async def begin() -> RunResultStreaming:
        run = silent()
        await read_some(run, 6)
        return run

    loop = asyncio.new_event_loop()
    if cut == "cancelled":
        run = asyncio.run(begin())
    else:
        run = loop.run_until_complete(begin())
    loop.close()

    entries = asyncio.run(collect(run.entries()))
    with pytest.raises(RunCancelledError):
        asyncio.run(collect_result(run))

    assert [entry.type for entry in entries].count("run.cancelled") == 1
    assert entries[-1].type == "run.cancelled"
    assert run.is_cancelled
    run.cancel()
    del run
    gc.collect()
    assert not caplog.records


async def collect_result(run: RunResultStreaming) -> RunResult:
    return await run


# --- awaiting ----------------------------------------------------------------------------------


async def test_awaiting_a_failed_run_raises_what_it_failed_with() -> None:
    run = failing()

    with pytest.raises(ValueError, match="broken") as raised:
        await run

    assert run.run_loop_exception is raised.value
    assert raised.value.run_data.run_id == run.run_id  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert (run.is_complete, run.is_cancelled, run.final_output) == (True, False, None)


async def test_everybody_who_asks_is_told_of_the_failure() -> None:
    run = failing()

    told = await asyncio.gather(*(collect(run) for _ in range(3)), run, run, return_exceptions=True)
    later = await asyncio.gather(collect(run), run, return_exceptions=True)

    assert {id(error) for error in [*told, *later]} == {id(run.run_loop_exception)}


async def test_a_traceback_does_not_grow_by_those_who_were_told() -> None:
    run = failing()
    depths = set()

    for _ in range(4):
        try:
            await run
        except ValueError as error:
            traceback, depth = error.__traceback__, 0
            while traceback is not None:
                traceback, depth = traceback.tb_next, depth + 1
            depths.add(depth)

    assert len(depths) == 1


async def test_what_came_before_a_failure_is_read_before_it_is_raised() -> None:
    agent = Agent(name="A", model=two_turns(), tools=[weather])
    run = Runner.run_streamed(agent, "Hi", max_turns=1)
    seen: list[Any] = []

    with pytest.raises(MaxTurnsExceeded) as raised:
        await collect(run, into=seen)

    assert [e.name for e in seen if isinstance(e, RunItemStreamEvent)] == ["tool_called", "tool_output"]
    assert raised.value.run_data
    assert len(raised.value.run_data.new_items) == 2


async def test_to_cancel_a_task_that_awaits_the_run_cancels_the_run() -> None:
    run = silent()
    awaiting = asyncio.create_task(collect_result(run))
    await read_some(run, 6)

    awaiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await awaiting
    assert run.is_cancelled  # by the time that the task has ended


async def test_to_cancel_it_twice_leaves_the_run_to_end_by_itself() -> None:
    stubborn = asyncio.Event()

    @tool
    async def wait() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            await stubborn.wait()
        return ""

    run = start(ScriptedModel([[function_call("wait", call_id="c1")]]), wait)
    awaiting = asyncio.create_task(collect_result(run))
    async for event in run.entries():
        if event.type == "tool.started":
            break
    await asyncio.sleep(0)

    for _ in range(2):
        awaiting.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    assert awaiting.cancelled()
    assert not run.is_complete
    stubborn.set()
    await ended(run)
    assert run.is_cancelled


async def test_awaiting_a_cancelled_run_says_how_far_it_came() -> None:
    run = silent()
    await read_some(run, 6)
    run.cancel()

    with pytest.raises(RunCancelledError) as raised:
        await run

    assert raised.value.run_data
    assert raised.value.run_data.partial_text == "Hello"


# --- stopping ----------------------------------------------------------------------------------


async def test_closing_waits_for_the_end_and_may_be_repeated() -> None:
    run = silent()
    await read_some(run, 6)

    await run.aclose()
    assert run.is_cancelled
    await run.aclose()

    assert [e.type for e in await collect(run.entries())].count("run.cancelled") == 1


async def test_closing_a_run_that_is_over_changes_nothing() -> None:
    run = start()
    await run
    before = await collect(run.entries())

    await run.aclose()
    run.cancel()

    assert not run.is_cancelled
    assert await collect(run.entries()) == before


async def test_leaving_the_context_stops_the_run_whatever_left_it() -> None:
    run = silent()

    with pytest.raises(LookupError):
        await leave_by_raising(run)

    assert run.is_cancelled


async def leave_by_raising(run: RunResultStreaming) -> None:
    async with run:
        await read_some(run, 6)
        raise LookupError


async def test_a_tool_may_close_the_run_that_it_is_part_of() -> None:
    handles: list[RunResultStreaming] = []

    @tool
    async def stop() -> None:
        await handles[0].aclose()

    handles.append(start(ScriptedModel([[function_call("stop", call_id="c1")], OUTPUT]), stop))

    async with asyncio.timeout(DEADLINE):
        with pytest.raises(RunCancelledError):
            await handles[0]


async def test_an_unknown_mode_is_refused() -> None:
    run = silent()

    with pytest.raises(UserError, match="the modes are"):
        run.cancel("tomorrow")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    assert not run.is_complete
    await run.aclose()


# --- who is there ------------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["handle", "reader"])
async def test_a_run_whose_last_reader_and_handle_are_gone_is_cancelled_where_that_is_wished(
    left: str,
) -> None:
    run = start(ScriptedModel([ModelStep("Hello there.", hang_after=5)]), when_unread="cancel")
    task = run.run_loop_task
    assert task
    reader = run.entries()
    await anext(reader)

    if left == "handle":
        del reader
        assert not task.done()
        del run
    else:
        del run
        await anext(reader)
        del reader

    async with asyncio.timeout(DEADLINE):
        await task


async def test_a_run_goes_on_unread_where_nothing_else_is_wished() -> None:
    done = asyncio.Event()

    @tool
    async def finish() -> str:
        done.set()
        return ""

    start(ScriptedModel([[function_call("finish", call_id="c1")], OUTPUT]), finish)

    async with asyncio.timeout(DEADLINE):
        await done.wait()
    await nothing_is_left()


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    return [re.sub(r"err_[0-9a-f]{16}", "err_…", line) for line in told]


@pytest.mark.parametrize("when", ["before the end", "after the end"])
async def test_a_failure_that_nobody_looked_at_is_logged_once_with_its_run_id(
    when: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = failing()
    run_id, task = run.run_id, run.run_loop_task
    assert task
    async for _ in run:
        break

    if when == "before the end":
        del run
        await task
    else:
        await task
        assert lines(caplog) == []  # somebody may still ask
        del run
    gc.collect()

    assert lines(caplog) == [f"run {run_id} failed (ValueError, err_…) and nobody asked for its result"]


async def test_to_close_a_run_is_not_to_look_at_it(caplog: pytest.LogCaptureFixture) -> None:
    async with failing() as run:
        await ended(run)
    run_id = run.run_id
    del run

    assert lines(caplog) == [f"run {run_id} failed (ValueError, err_…) and nobody asked for its result"]


async def reads(run: RunResultStreaming) -> None:
    await collect(run)


async def reads_the_text(run: RunResultStreaming) -> None:
    await collect(run.text())


async def awaits(run: RunResultStreaming) -> None:
    await run


async def looks(run: RunResultStreaming) -> None:
    await ended(run)
    assert run.run_loop_exception


@pytest.mark.parametrize("look", [reads, reads_the_text, awaits, looks])
async def test_a_failure_that_somebody_was_told_of_is_not_logged(
    look: Callable[[RunResultStreaming], Awaitable[None]], caplog: pytest.LogCaptureFixture
) -> None:
    async def unnamed() -> None:
        await look(failing())

    await asyncio.gather(unnamed(), return_exceptions=True)
    gc.collect()

    assert lines(caplog) == []


async def test_a_failure_is_not_logged_when_its_last_reader_holds_no_handle(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reader = failing().stream_events()
    gc.collect()

    with pytest.raises(ValueError, match="broken"):
        await collect(reader)
    del reader
    gc.collect()

    assert lines(caplog) == []


async def test_a_handle_may_be_dropped_in_another_thread(caplog: pytest.LogCaptureFixture) -> None:
    handles = [start(ScriptedModel([ModelStep("Hello there.", hang_after=5)]), when_unread="cancel")]
    task = handles[0].run_loop_task
    assert task

    dropping = threading.Thread(target=handles.clear)
    dropping.start()
    async with asyncio.timeout(DEADLINE):
        await task

    assert lines(caplog) == []
