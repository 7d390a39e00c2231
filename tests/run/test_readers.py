"""Who keeps a run from going on: the rules at the head of `run/readers.py`, each with a deadline.

The clock of the runs stands still, so that patience never ends where a test is not about it.
"""

import asyncio
import gc
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    Model,
    ModelResponse,
    RunConfig,
    RunItemStreamEvent,
    Runner,
    RunResultStreaming,
    tool,
)
from millstream.clock import SYSTEM_CLOCK
from millstream.errors import RunCancelledError
from millstream.run import readers as readers_module
from millstream.run.readers import Readers
from millstream.testing import ManualClock, ScriptedModel, function_call

DEADLINE = 10


@pytest.fixture(autouse=True)
def silence(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """No reader, however it goes, is worth a line in the log."""
    yield
    assert not caplog.records


@tool
async def weather() -> str:
    return "cold"


def two_turns() -> ScriptedModel:
    return ScriptedModel([[function_call("weather", call_id="c1")], "It is cold."])


def start(model: Model | None = None, **config: Any) -> RunResultStreaming:
    agent = Agent(name="A", model=model or two_turns(), tools=[weather])
    return Runner.run_streamed(agent, "Hi", run_config=RunConfig(**{"clock": ManualClock(), **config}))


async def collect(events: Any) -> list[Any]:
    return [event async for event in events]


async def ended(run: RunResultStreaming) -> None:
    """Wait for the end in a way of which the run knows nothing."""
    while not run.is_complete:
        await asyncio.sleep(0)


async def others_have_run() -> None:
    for _ in range(200):
        await asyncio.sleep(0)


async def standing(run: RunResultStreaming) -> Any:
    """A reader that has taken one event, and asks for no other."""
    reader = run.stream_events()
    await anext(reader)
    return reader


# --- what the run waits for --------------------------------------------------------------------


async def test_the_next_turn_starts_when_the_reader_has_taken_this_one() -> None:
    model = two_turns()
    run = start(model)
    reader = await standing(run)

    await others_have_run()
    calls_while_it_stands = len(model.calls)
    await collect(reader)

    assert (calls_while_it_stands, len(model.calls)) == (1, 2)


@pytest.mark.parametrize("mode", ["now", "after_tool", "after_turn"])
async def test_a_cancel_from_where_an_event_is_dealt_with_is_exact(mode: Any) -> None:
    model = two_turns()
    run = start(model)

    async for event in run:
        if isinstance(event, RunItemStreamEvent) and event.name == "tool_output":
            await others_have_run()
            run.cancel(mode)

    assert run.is_cancelled
    assert len(model.calls) == 1
    assert [item.type for item in run.new_items] == ["tool_call_item", "tool_call_output_item"]


async def test_it_is_exact_beside_a_task_that_awaits_the_result() -> None:
    model = two_turns()
    run = start(model)

    async def consume() -> None:
        async for event in run:
            if isinstance(event, RunItemStreamEvent) and event.name == "tool_output":
                await others_have_run()
                run.cancel("after_turn")

    consumer = asyncio.create_task(consume())
    with pytest.raises(RunCancelledError):
        await run
    await consumer

    assert len(model.calls) == 1


async def test_it_is_exact_beside_a_task_that_comes_to_await_the_result_meanwhile() -> None:
    model = two_turns()
    run = start(model)
    dealing, dealt = asyncio.Event(), asyncio.Event()

    async def consume() -> None:
        async for event in run:
            if event.type == "run_item_stream_event":
                dealing.set()
                await dealt.wait()
                run.cancel("after_turn")

    consumer = asyncio.create_task(consume())
    await dealing.wait()
    result = asyncio.ensure_future(run)
    await others_have_run()
    dealt.set()

    with pytest.raises(RunCancelledError):
        await result
    await consumer
    assert len(model.calls) == 1


async def test_the_slowest_of_several_readers_is_waited_for() -> None:
    model = two_turns()
    run = start(model)
    gate = asyncio.Event()

    async def slow() -> int:
        seen = 0
        async for _ in run:
            seen += 1
            await gate.wait()
        return seen

    slow_one = asyncio.create_task(slow())
    fast_one = asyncio.create_task(collect(run))
    await others_have_run()
    calls_while_it_is_slow = len(model.calls)
    gate.set()

    assert await slow_one == len(await fast_one)
    assert calls_while_it_is_slow == 1


async def test_a_reader_that_changes_its_task_is_still_waited_for() -> None:
    model = two_turns()
    run = start(model)
    reader = run.stream_events()

    async def take(number: int) -> None:
        for _ in range(number):
            await anext(reader)

    await asyncio.create_task(take(1))
    await take(1)
    await others_have_run()
    calls = len(model.calls)
    await reader.aclose()  # pyright: ignore[reportAttributeAccessIssue]
    await ended(run)

    assert (calls, len(model.calls)) == (1, 2)


async def test_a_run_that_may_go_ahead_waits_for_nobody() -> None:
    model = two_turns()
    run = start(model, ahead="free")
    reader = await standing(run)

    await ended(run)

    assert len(model.calls) == 2
    assert len(await collect(reader)) == len(await collect(run)) - 1


@pytest.mark.parametrize("kind", ["entries", "text"])
async def test_readers_of_entries_and_of_text_are_not_waited_for(kind: str) -> None:
    run = start(ScriptedModel([["Look: ", function_call("weather", call_id="c1")], "It is cold."]))
    reader = getattr(run, kind)()
    await anext(reader)

    async with asyncio.timeout(DEADLINE):
        await ended(run)


class Counting(Model):
    """Gives typed events, one at a time, and counts what is asked of it."""

    def __init__(self, inner: ScriptedModel) -> None:
        self.inner = inner
        self.pulled = 0

    async def get_response(self, *args: Any, **kwargs: Any) -> ModelResponse:
        return await self.inner.get_response(*args, **kwargs)

    async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        async for event in self.inner.stream_response(*args, **kwargs):
            self.pulled += 1
            yield event


class CountingBytes(ScriptedModel):
    """Gives the bytes of the wire, and counts what is asked of it."""

    pulled = 0

    async def stream_batches(self, *args: Any, **kwargs: Any) -> AsyncGenerator[Any]:
        async for batch in super().stream_batches(*args, **kwargs):
            self.pulled += 1
            yield batch


@pytest.mark.parametrize(
    "make",
    [lambda text: Counting(ScriptedModel([text])), lambda text: CountingBytes([text])],
    ids=["typed events", "bytes"],
)
async def test_a_number_of_bytes_bounds_how_far_the_model_is_read_ahead(make: Callable[[str], Any]) -> None:
    model = make("word " * 500)
    run = start(model, ahead=10_000)
    reader = await standing(run)

    await others_have_run()
    pulled_at_first = model.pulled
    for _ in range(100):
        await anext(reader)
    await others_have_run()
    pulled_then = model.pulled
    read_ahead = sum(len(e.event.to_json()) for e in await read_entries(run, pulled_at_first))
    await collect(reader)

    assert 20 < pulled_at_first < 120
    assert 90 <= pulled_then - pulled_at_first <= 110
    assert 10_000 < read_ahead < 15_000
    assert model.pulled > 500


async def read_entries(run: RunResultStreaming, number: int) -> list[Any]:
    entries = run.entries()
    return [await anext(entries) for _ in range(number)]


async def test_a_cancel_reaches_a_run_that_waits_for_its_reader() -> None:
    model = CountingBytes(["word " * 500])
    run = start(model, ahead=1_000)
    reader = await standing(run)
    await others_have_run()

    run.cancel()
    await ended(run)

    assert run.is_cancelled
    assert model.pulled < 50
    assert await collect(reader)


# --- what it does not wait for -----------------------------------------------------------------


async def closed(run: RunResultStreaming) -> Any:
    reader = await standing(run)
    await reader.aclose()
    return reader


async def collected(run: RunResultStreaming) -> Any:
    await standing(run)


async def collected_by_the_collector(run: RunResultStreaming) -> Any:
    cycle: list[Any] = [await standing(run)]
    cycle.append(cycle)
    del cycle
    gc.collect()


async def collected_in_another_thread(run: RunResultStreaming) -> Any:
    cycle: list[Any] = [await standing(run)]
    cycle.append(cycle)
    await others_have_run()  # the run waits by now
    del cycle
    thread = threading.Thread(target=gc.collect)
    thread.start()
    thread.join()


async def its_task_ended(run: RunResultStreaming) -> Any:
    return await asyncio.create_task(standing(run))


async def its_task_ended_while_the_run_waited(run: RunResultStreaming) -> Any:
    may_end = asyncio.Event()

    async def task() -> Any:
        reader = await standing(run)
        await may_end.wait()
        return reader

    reading = asyncio.create_task(task())
    await others_have_run()
    may_end.set()
    return await reading


async def its_task_was_cancelled(run: RunResultStreaming) -> Any:
    kept = []

    async def task() -> None:
        kept.append(await standing(run))
        await collect(kept[0])

    reading = asyncio.create_task(task())
    await others_have_run()
    reading.cancel()
    await asyncio.wait([reading])
    return kept


async def never_begun(run: RunResultStreaming) -> Any:
    return run.stream_events()


async def left_by_break(run: RunResultStreaming) -> Any:
    async for _ in run:
        break


async def raised_and_kept_alive_by_its_traceback(run: RunResultStreaming) -> Any:
    async def read() -> None:
        async for event in run:
            raise ValueError(event.type)

    try:
        await read()
    except ValueError as error:
        return error


async def raised_in_a_task_that_nobody_looks_at_yet(run: RunResultStreaming) -> Any:
    async def read() -> None:
        reader = run.stream_events()  # a name, which the traceback keeps alive
        async for event in reader:
            raise ValueError(event.type)

    reading = asyncio.create_task(read())
    await asyncio.wait([reading])
    return reading, reading.exception()


async def in_another_thread(run: RunResultStreaming) -> Any:
    return await asyncio.to_thread(lambda: asyncio.run(standing(run)))


@pytest.mark.may_block
@pytest.mark.parametrize(
    "leave",
    [
        closed,
        collected,
        collected_by_the_collector,
        collected_in_another_thread,
        its_task_ended,
        its_task_ended_while_the_run_waited,
        its_task_was_cancelled,
        never_begun,
        left_by_break,
        raised_and_kept_alive_by_its_traceback,
        raised_in_a_task_that_nobody_looks_at_yet,
        in_another_thread,
    ],
)
async def test_a_reader_that_is_gone_holds_nobody_up(
    leave: Callable[[RunResultStreaming], Awaitable[Any]],
) -> None:
    async with asyncio.timeout(DEADLINE):
        run = start()
        kept = await leave(run)
        await ended(run)

    assert run.final_output == "It is cold."
    del kept


async def awaits_the_run(run: RunResultStreaming) -> Any:
    return (await run).final_output


async def awaits_it_with_a_timeout(run: RunResultStreaming) -> Any:
    return (await asyncio.wait_for(run, DEADLINE)).final_output


async def gathers_it(run: RunResultStreaming) -> Any:
    return (await asyncio.gather(awaits_the_run(run), others_have_run()))[0]


async def shields_it(run: RunResultStreaming) -> Any:
    return (await asyncio.shield(run)).final_output


async def awaits_it_in_another_thread(run: RunResultStreaming) -> Any:
    return await asyncio.to_thread(lambda: asyncio.run(awaits_the_run(run)))


async def reads_it_anew(run: RunResultStreaming) -> Any:
    await collect(run)
    return run.final_output


async def reads_its_entries(run: RunResultStreaming) -> Any:
    return (await collect(run.entries()))[-1].event.output


async def reads_its_text(run: RunResultStreaming) -> Any:
    return "".join(await collect(run.text()))


async def reads_it_anew_with_a_timeout(run: RunResultStreaming) -> Any:
    return await asyncio.wait_for(reads_it_anew(run), DEADLINE)


async def reads_it_twice_at_once(run: RunResultStreaming) -> Any:
    one, _ = await asyncio.gather(reads_it_anew(run), reads_its_entries(run))
    return one


async def reads_it_in_another_thread(run: RunResultStreaming) -> Any:
    return await asyncio.to_thread(lambda: asyncio.run(reads_its_text(run)))


@pytest.mark.may_block
@pytest.mark.parametrize(
    "go_on",
    [
        awaits_the_run,
        awaits_it_with_a_timeout,
        gathers_it,
        shields_it,
        awaits_it_in_another_thread,
        reads_it_anew,
        reads_its_entries,
        reads_its_text,
        reads_it_anew_with_a_timeout,
        reads_it_twice_at_once,
        reads_it_in_another_thread,
    ],
)
async def test_who_lets_a_reader_stand_and_waits_for_the_run_gets_there(
    go_on: Callable[[RunResultStreaming], Awaitable[Any]],
) -> None:
    async with asyncio.timeout(DEADLINE):
        run = start()
        reader = await standing(run)
        output = await go_on(run)

    assert output == "It is cold."
    assert len(await collect(reader)) == len(await collect(run)) - 1


@pytest.mark.parametrize("way", ["aclose", "async with"])
async def test_who_lets_a_reader_stand_may_close_the_run(way: str) -> None:
    async with asyncio.timeout(DEADLINE):
        run = start()
        reader = await standing(run)
        if way == "aclose":
            await run.aclose()
        else:
            async with run:
                pass

    assert run.is_cancelled
    assert reader


async def test_two_readers_may_take_turns_in_one_task() -> None:
    run = start()
    one, other = run.stream_events(), run.stream_events()
    pairs = 0

    async with asyncio.timeout(DEADLINE):
        try:
            while True:
                assert await anext(one) == await anext(other)
                pairs += 1
        except StopAsyncIteration:
            pass

    assert pairs == len(await collect(run))


# --- patience ----------------------------------------------------------------------------------


async def waits_for_a_task_that_awaits_the_run(run: RunResultStreaming) -> Any:
    result = asyncio.create_task(awaits_the_run(run))
    await asyncio.sleep(0)
    return result


async def waits_for_a_task_that_reads_the_run(run: RunResultStreaming) -> Any:
    reading = asyncio.create_task(reads_it_anew(run))
    await asyncio.sleep(0)
    return reading


async def waits_for_the_task_of_the_run(run: RunResultStreaming) -> Any:
    return run.run_loop_task


@pytest.mark.parametrize(
    "others",
    [
        waits_for_a_task_that_awaits_the_run,
        waits_for_a_task_that_reads_the_run,
        waits_for_the_task_of_the_run,
    ],
)
async def test_who_waits_in_a_way_that_cannot_be_seen_waits_no_longer_than_patience(
    others: Callable[[RunResultStreaming], Awaitable[Any]],
) -> None:
    clock = ManualClock()

    async with asyncio.timeout(DEADLINE):
        run = start(clock=clock)
        other = await others(run)
        reader = await standing(run)
        await others_have_run()
        held_up = not run.is_complete
        assert await clock.tick() == readers_module.PATIENCE
        await other

    assert held_up

    assert run.final_output == "It is cold."
    assert reader


async def test_where_nobody_waits_patience_has_no_end() -> None:
    model, clock = two_turns(), ManualClock()
    run = start(model, clock=clock)
    reader = await standing(run)

    for _ in range(20):
        await clock.tick()
        await others_have_run()

    assert len(model.calls) == 1
    await collect(reader)


# --- the keeper of places ----------------------------------------------------------------------


class Someone:
    """Who reads."""


@pytest.mark.may_block
async def test_what_another_thread_changes_while_the_run_looks_is_not_missed() -> None:
    readers = Readers(asyncio.get_running_loop(), lambda: None, SYSTEM_CLOCK)
    reader = Someone()
    place = readers.attach(reader)
    readers.ask(place, holds=True, bound=True)

    def behind_while_it_leaves(_: object) -> bool:
        leaving = threading.Thread(target=readers.detach, args=[reader])
        leaving.start()
        leaving.join()
        return False

    async with asyncio.timeout(DEADLINE):
        await readers._until(behind_while_it_leaves)


async def test_a_task_keeps_nothing_of_the_runs_it_has_read() -> None:
    task: Any = asyncio.current_task()
    before = len(task._callbacks or ())

    for _ in range(3):
        await collect(start())

    assert len(task._callbacks or ()) == before


def test_a_reader_that_leaves_when_the_loop_is_closed_is_let_go() -> None:
    loop = asyncio.new_event_loop()
    gone: list[str] = []
    readers = Readers(loop, lambda: gone.append("gone"), SYSTEM_CLOCK)
    reader = Someone()
    place = readers.attach(reader)

    async def ask_and_wait() -> None:
        readers.ask(place, holds=True, bound=False)
        waiting = asyncio.ensure_future(readers.have_taken(1))
        await asyncio.sleep(0)
        kept.append(waiting)

    kept: list[Any] = []
    loop.run_until_complete(ask_and_wait())
    kept[0]._log_destroy_pending = False
    loop.close()
    readers.detach(reader)
    readers.detach(reader)

    assert gone == ["gone"]
    assert len(readers) == 0
