"""The log in memory: in any thread, and up to its caps. The contract of all logs is in `test_contract.py`."""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from millstream.errors import (
    LogBrokenError,
    LogFullError,
    LogGapError,
    PositionConflictError,
    RunOwnedError,
    StaleOwnerError,
)
from millstream.events import ModelCompleted, ModelStarted, RunCompleted, Stamp, UserEvent
from millstream.log import Batch, Command, Cursor, LogInfo, MemoryLog, NewRun
from millstream.log.memory import ROOM
from millstream.testing import ManualClock

STAMP = Stamp(run_id="r", agent="A")
END = RunCompleted(output="done")
RAW = b'{"type":"response.output_text.delta","delta":"x"}'


def events(first: int, *names: Any) -> Batch:
    return Batch(first, STAMP, [UserEvent(name=str(name)) for name in names])


def raw(first: int, count: int) -> Batch:
    return Batch(first, STAMP, [RAW] * count, raw_only=True, size=count * len(RAW))


async def names(log: MemoryLog, after: int = 0) -> list[str]:
    return [getattr(entry.event, "name", entry.type) async for entry in log.follow("r", after)]


async def test_a_cursor_tells_what_is_at_hand_without_waiting_for_more() -> None:
    log = MemoryLog()
    cursor = log.cursor("r", after=1)
    assert cursor.next_nowait() is None
    await log.append("r", events(1, "a"))
    await log.append("r", events(2, "b"))
    await log.append("r", Batch(3, STAMP, [END]))

    taken = [cursor.next_nowait(), await cursor.next(), cursor.next_nowait()]

    assert [batch and batch.first for batch in taken] == [2, 3, None]
    assert await cursor.next() is None


async def test_a_cursor_that_was_overtaken_by_a_trim_has_nothing_at_hand_and_says_why_when_asked() -> None:
    log = MemoryLog()
    cursor = log.cursor("r")
    await log.append("r", events(1, "a", "b"))
    await log.append("r", events(3, "c"))
    await log.trim("r", 3)

    assert cursor.next_nowait() is None
    with pytest.raises(LogGapError):
        await cursor.next()


# --- caps -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "too_much"),
    [(MemoryLog(max_events=2), events(2, "b", "c")), (MemoryLog(max_bytes=100), raw(2, 3))],
    ids=["events", "bytes"],
)
async def test_a_run_at_a_cap_is_told_so_and_may_close_what_it_opened(
    log: MemoryLog, too_much: Batch
) -> None:
    await log.append("r", events(1, "a"))

    with pytest.raises(LogFullError, match="Run r reached the cap"):
        await log.append("r", too_much)
    await log.append("r", events(2, "closes this", "closes that"))
    with pytest.raises(LogFullError):
        await log.append("r", raw(4, 1))
    await log.append("r", Batch(4, STAMP, [END]))

    assert await names(log) == ["a", "closes this", "closes that", "run.completed"]


async def test_the_room_to_close_things_in_ends_too_and_the_terminal_event_fits_even_then() -> None:
    log = MemoryLog(max_events=1)
    await log.append("r", events(1, "a"))
    with pytest.raises(LogFullError):
        await log.append("r", events(2, "b"))

    await log.append("r", events(2, *range(ROOM)))
    with pytest.raises(LogFullError):
        await log.append("r", events(ROOM + 2, "one more"))
    await log.append("r", Batch(ROOM + 2, STAMP, [END]))

    assert (await log.info("r")).sealed


async def test_only_one_run_is_full() -> None:
    log = MemoryLog(max_events=1)
    with pytest.raises(LogFullError):
        await log.append("r", events(1, "a", "b"))

    await log.append("other", Batch(1, Stamp(run_id="other", agent="A"), [UserEvent(name="x")]))

    assert (await log.info("other")).last == 1


async def test_the_rest_of_a_repeated_batch_counts_for_the_cap() -> None:
    log = MemoryLog(max_bytes=3 * len(RAW))
    await log.append("r", raw(1, 2))

    await log.append("r", raw(1, 3))
    with pytest.raises(LogFullError):
        await log.append("r", raw(4, 1))


def started(first: int, run_id: str = "r") -> Batch:
    return Batch(first, Stamp(run_id=run_id, agent="A"), [ModelStarted(turn=1)])


def completed(first: int, run_id: str = "r") -> Batch:
    return Batch(first, Stamp(run_id=run_id, agent="A"), [ModelCompleted(turn=1)])


async def held(log: MemoryLog) -> list[int]:
    """The positions that a reader sees who goes on behind each gap."""
    seen: list[int] = []
    after = 0
    while True:
        try:
            async for entry in log.follow("r", after):
                seen.append(entry.position)
                after = entry.position
        except LogGapError as gap:
            after = gap.first - 1
        else:
            return seen


@pytest.mark.parametrize(
    "log", [MemoryLog(max_events=12), MemoryLog(max_bytes=10 * len(RAW))], ids=["events", "bytes"]
)
async def test_at_a_cap_raw_events_of_model_calls_that_ended_are_dropped(log: MemoryLog) -> None:
    await log.append("r", started(1))
    await log.append("r", raw(2, 8))
    await log.append("r", completed(10))

    await log.append("r", started(11))
    await log.append("r", raw(12, 9))
    await log.append("r", Batch(21, STAMP, [ModelCompleted(turn=2), END]))

    assert await held(log) == [1, *range(10, 23)]
    with pytest.raises(LogGapError) as caught:
        await names(log, after=4)
    assert (caught.value.requested, caught.value.first) == (5, 10)


async def test_raw_events_of_a_call_that_goes_on_are_never_dropped_whoevers_call_ends_meanwhile() -> None:
    log = MemoryLog(max_events=12)
    await log.append("r", raw(1, 4))
    await log.append("r", Batch(5, Stamp(run_id="nested", agent="B", depth=1), [RAW] * 4, raw_only=True))
    await log.append("r", completed(9, "nested"))

    await log.append("r", raw(10, 4))
    with pytest.raises(LogFullError):
        await log.append("r", raw(14, 4))
    await log.append("r", Batch(14, STAMP, [END]))

    assert await held(log) == [1, 2, 3, 4, *range(9, 15)]


async def test_room_is_made_again_and_again_as_calls_end() -> None:
    log = MemoryLog(max_events=50)
    position = 1
    for _ in range(30):
        await log.append("r", raw(position, 10))
        await log.append("r", completed(position + 10))
        position += 11
    await log.append("r", Batch(position, STAMP, [END]))

    seen = await held(log)
    assert set(range(11, position, 11)) <= set(seen)
    assert len(seen) <= 51


async def test_a_reader_that_follows_a_run_is_not_led_astray_when_room_is_made() -> None:
    log = MemoryLog(max_events=20)
    cursor = log.cursor("r")
    await log.append("r", raw(1, 4))
    await log.append("r", raw(5, 4))
    await log.append("r", completed(9))
    taken = [await cursor.next() for _ in range(3)]

    await log.append("r", raw(10, 8))
    await log.append("r", raw(18, 8))  # now what is before position 9 is gone
    taken += [await cursor.next() for _ in range(2)]

    assert [batch and batch.first for batch in taken] == [1, 5, 9, 10, 18]


async def test_what_was_dropped_cannot_be_written_again() -> None:
    log = MemoryLog(max_events=10)
    await log.append("r", events(1, "a"))
    await log.append("r", raw(2, 6))
    await log.append("r", completed(8))
    await log.append("r", raw(9, 6))

    await log.append("r", events(1, "a"))
    with pytest.raises(PositionConflictError, match="no longer held"):
        await log.append("r", raw(2, 6))


async def test_a_log_whose_beginning_was_dropped_says_where_it_begins() -> None:
    log = MemoryLog(max_events=10)
    await log.append("r", raw(1, 6))
    await log.append("r", completed(7))
    await log.append("r", raw(8, 6))

    assert await log.info("r") == LogInfo(first=7, last=13, sealed=False)


# --- positions --------------------------------------------------------------------------------


async def test_an_empty_batch_changes_nothing() -> None:
    log = MemoryLog()
    await log.append("r", events(1, "a"))
    await log.append("r", events(2))

    assert (await log.info("r")).last == 1


@pytest.mark.parametrize("first", [3, 5])
async def test_a_conflict_says_which_position_is_the_next(first: int) -> None:
    log = MemoryLog()
    await log.append("r", events(1, "a"))

    with pytest.raises(PositionConflictError, match=f"Position {first} is not the next one: that is 2"):
        await log.append("r", events(first, "x"))


async def test_what_was_trimmed_cannot_be_written_again() -> None:
    log = MemoryLog()
    await log.append("r", events(1, "a"))
    await log.append("r", events(2, "b"))
    await log.trim("r", 2)

    with pytest.raises(PositionConflictError):
        await log.append("r", events(1, "a"))


async def test_raw_events_are_compared_by_their_json_when_an_append_is_repeated() -> None:
    log = MemoryLog()
    await log.append("r", raw(1, 1))

    await log.append("r", Batch(1, STAMP, [bytes(bytearray(RAW))], raw_only=True))
    with pytest.raises(PositionConflictError, match="Position 1 holds another event"):
        await log.append("r", Batch(1, STAMP, [RAW.replace(b"x", b"y")], raw_only=True))


# --- cursors ----------------------------------------------------------------------------------


async def test_a_cursor_may_stand_ahead_of_what_is_written() -> None:
    log = MemoryLog()
    cursor = log.cursor("r", after=2)
    waiting = asyncio.create_task(cursor.next())
    await asyncio.sleep(0)

    await log.append("r", events(1, "a"))
    await log.append("r", events(2, "b"))
    await log.append("r", events(3, "c"))

    batch = await waiting
    assert batch is not None
    assert batch.first == 3


async def test_a_cursor_that_is_overtaken_by_a_trim_gets_a_gap() -> None:
    log = MemoryLog()
    for position in range(1, 5):
        await log.append("r", events(position, position))
    cursor = log.cursor("r")
    await cursor.next()

    await log.trim("r", 4)

    with pytest.raises(LogGapError) as caught:
        await cursor.next()
    assert (caught.value.requested, caught.value.first) == (2, 4)


async def test_a_cursor_goes_on_where_it_stood_although_what_it_had_was_trimmed() -> None:
    log = MemoryLog()
    for position in range(1, 5):
        await log.append("r", events(position, position))
    cursor = log.cursor("r")
    await cursor.next()
    await cursor.next()

    await log.trim("r", 3)

    batch = await cursor.next()
    assert batch is not None
    assert batch.first == 3


async def test_a_waiting_cursor_is_told_of_a_gap_when_it_wakes() -> None:
    log = MemoryLog()
    await log.append("r", events(1, "a"))
    cursor = log.cursor("r", after=1)
    waiting = asyncio.create_task(cursor.next())
    await asyncio.sleep(0)

    await log.append("r", events(2, "b"))
    await log.trim("r", 10)

    with pytest.raises(LogGapError):
        await waiting


async def test_all_of_an_ended_run_may_be_trimmed() -> None:
    log = MemoryLog()
    await log.append("r", Batch(1, STAMP, [UserEvent(name="a"), END]))

    await log.trim("r", 100)

    assert (await log.info("r")).first == 3
    assert await names(log, after=2) == []
    with pytest.raises(LogGapError):
        await names(log)


# --- owners and mail --------------------------------------------------------------------------


async def test_a_run_that_broke_off_may_be_waited_for_again_when_somebody_else_owns_it() -> None:
    log = MemoryLog()
    await log.append("r", events(1, "a"))
    log.break_off("r")
    cursor = log.cursor("r", after=1)
    with pytest.raises(LogBrokenError):
        await cursor.next()

    epoch = await log.claim("r", owner="another", lease=60)
    waiting = asyncio.create_task(cursor.next())
    await asyncio.sleep(0)
    await log.append("r", Batch(2, STAMP, [END]), epoch=epoch)

    batch = await waiting
    assert batch is not None
    assert batch.last == 2


async def test_what_is_kept_of_a_run_is_a_copy() -> None:
    log = MemoryLog()
    options = {"tags": ["a"]}
    await log.create(NewRun(run_id="r", agent="A", request=b"{}", options=options))
    options["tags"].append("changed by the caller")

    (await log.record("r")).options["tags"].append("changed by a reader")

    assert (await log.record("r")).options == {"tags": ["a"]}


async def test_times_are_told_by_the_clock_of_the_log() -> None:
    clock = ManualClock(start=1000)
    log = MemoryLog(clock=clock)
    await log.create(NewRun(run_id="r", agent="A", request=b"{}"))
    clock.advance(5)
    await log.append("r", raw(1, 1))

    record = await log.record("r")

    assert (record.created, record.updated) == (1000, 1005)


async def test_a_refused_owner_and_a_refused_claim_say_whose_the_run_is() -> None:
    log = MemoryLog()
    await log.create(NewRun(run_id="r", agent="A", request=b"{}"))
    await log.claim("r", owner="worker-1", lease=60)

    with pytest.raises(RunOwnedError, match="Run r has an owner that lives: worker-1"):
        await log.claim("r", owner="worker-2", lease=60)
    with pytest.raises(StaleOwnerError, match="its epoch is 1, not 0"):
        await log.append("r", events(1, "a"))


async def test_a_command_wakes_who_waits_for_it_in_another_thread() -> None:
    log = MemoryLog()
    await log.create(NewRun(run_id="r", agent="A", request=b"{}"))
    waits = threading.Event()
    got: list[Command] = []

    async def wait() -> None:
        waiting = asyncio.ensure_future(log.wait_for_mail("r"))
        await asyncio.sleep(0)
        waits.set()
        got.extend(await waiting)

    thread = threading.Thread(target=lambda: asyncio.run(wait()), daemon=True)
    thread.start()
    waits.wait(10)
    await log.tell("r", Command("cancel", b"{}"))
    await asyncio.get_running_loop().run_in_executor(None, thread.join, 10)

    assert [command.number for command in got] == [1]


@pytest.mark.usefixtures("threads_interleave")
async def test_an_owner_that_is_taken_over_from_in_another_thread_writes_nothing_behind_that() -> None:
    log = MemoryLog()
    written = threading.Event()

    def write() -> None:
        async def write_on() -> None:
            for position in range(1, 1_000_000):
                await log.append("r", events(position, "old"))
                written.set()

        with contextlib.suppress(StaleOwnerError):
            asyncio.run(write_on())

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    written.wait(10)
    epoch = await log.claim("r", owner="new", lease=60)
    last = (await log.info("r")).last
    await log.append("r", events(last + 1, "new"), epoch=epoch)
    await asyncio.get_running_loop().run_in_executor(None, thread.join, 10)
    await log.append("r", Batch(last + 2, STAMP, [END]), epoch=epoch)

    assert await names(log, after=last - 1) == ["old", "new", "run.completed"]


# --- threads ----------------------------------------------------------------------------------


def in_a_thread(log: MemoryLog, results: list[list[str]]) -> threading.Thread:
    """A reader on a loop of its own."""

    def read() -> None:
        results.append(asyncio.run(names(log)))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread


@pytest.fixture
def threads_interleave() -> Iterator[None]:
    """Let the interpreter change threads as often as it can, so that a race shows."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("threads_interleave")
async def test_readers_in_other_threads_miss_nothing_however_they_come() -> None:
    log = MemoryLog()
    results: list[list[str]] = []
    threads: list[threading.Thread] = []

    for position in range(1, 301):
        if position % 60 == 1:
            threads.append(in_a_thread(log, results))
        await log.append("r", events(position, position))
        await asyncio.sleep(0)
    await log.append("r", Batch(301, STAMP, [END]))
    await asyncio.get_running_loop().run_in_executor(None, lambda: [thread.join(10) for thread in threads])

    assert results == [[*map(str, range(1, 301)), "run.completed"]] * 5


@pytest.mark.usefixtures("threads_interleave")
async def test_a_reader_and_a_writer_that_name_a_run_at_the_same_moment_mean_the_same_run() -> None:
    log = MemoryLog()
    runs = [f"r{number}" for number in range(5000)]
    together = threading.Barrier(2)
    cursors: list[Cursor] = []

    def name_them_all() -> None:
        together.wait(10)
        cursors.extend(log.cursor(run) for run in runs)

    thread = threading.Thread(target=name_them_all)
    thread.start()
    together.wait(10)
    for run in runs:
        await log.append(run, events(1, 1))
    thread.join(10)

    async with asyncio.timeout(10):
        firsts = [await cursor.next() for cursor in cursors]
    assert [batch and batch.first for batch in firsts] == [1] * len(runs)


@pytest.mark.usefixtures("threads_interleave")
async def test_readers_in_other_threads_get_gaps_and_never_nonsense_while_the_log_is_trimmed() -> None:
    log = MemoryLog()
    done = threading.Event()
    wrong: list[Any] = []

    async def read() -> None:
        last = 0
        while not done.is_set():
            try:
                async for entry in log.follow("r", last):
                    if entry.position != last + 1:
                        wrong.append((last, entry.position))
                    last = entry.position
            except LogGapError as gap:
                last = gap.first - 1

    threads = [threading.Thread(target=lambda: asyncio.run(read()), daemon=True) for _ in range(2)]
    await log.append("r", events(1, 1))
    for thread in threads:
        thread.start()
    for position in range(2, 2000):
        await log.append("r", events(position, position))
        await log.trim("r", position - 3)
    done.set()
    await log.append("r", Batch(2000, STAMP, [END]))
    await asyncio.get_running_loop().run_in_executor(None, lambda: [thread.join(10) for thread in threads])

    assert wrong == []


async def test_a_reader_whose_loop_was_closed_does_not_keep_the_run_from_writing() -> None:
    log = MemoryLog()
    loop = asyncio.new_event_loop()

    def leave() -> None:
        waiting = loop.create_task(log.cursor("r").next())
        loop.run_until_complete(asyncio.sleep(0))
        waiting._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
        loop.close()

    await asyncio.get_running_loop().run_in_executor(None, leave)
    await log.append("r", events(1, "a"))

    assert (await log.info("r")).last == 1


async def test_a_log_may_be_written_where_no_loop_runs() -> None:
    log = MemoryLog()
    waiting = asyncio.create_task(log.cursor("r").next())
    await asyncio.sleep(0)

    def write() -> None:
        with pytest.raises(StopIteration):  # it never suspends
            log.append("r", events(1, "a")).send(None)

    await asyncio.get_running_loop().run_in_executor(None, write)

    batch = await waiting
    assert batch is not None
    assert batch.last == 1
