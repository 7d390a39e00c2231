"""The tails of runs: what is written here is given to who waits here, and gaps are found by counting."""

import asyncio
import dataclasses
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest

from millstream.errors import (
    LogBrokenError,
    LogError,
    LogGapError,
    LogTruncatedError,
    LogUnavailableError,
)
from millstream.events import RunCompleted, Stamp, UserEvent
from millstream.log import Batch, Command, Cursor
from millstream.log.tails import ALL_BATCHES, KEPT, TAIL_BATCHES, Chunk, Mail, Reach, Tails
from millstream.log.worker import Wakes

AT_ONCE = 3
"""Batches that the engine gives at once."""


def batch(first: int, *names: object, run: str = "r") -> Batch:
    return Batch(first, Stamp(run_id=run, agent="A"), [UserEvent(name=str(name)) for name in names])


def end(first: int, run: str = "r") -> Batch:
    return Batch(first, Stamp(run_id=run, agent="A"), [RunCompleted(output="")])


class Engine:
    """Has batches, and tells tails of those that are written here. It makes a batch anew whenever it is asked."""

    def __init__(self) -> None:
        self.batches: dict[str, list[Batch]] = {}
        self.first = 1
        self.asked: list[tuple[str, int]] = []
        self.pokes = 0
        self.error: Exception | None = None
        self.tails = Tails(self.read, self.watch)

    def watch(self) -> None:
        self.pokes += 1

    async def read(self, run: str, after: int) -> Chunk:
        self.asked.append((run, after))
        await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        return self.chunk(run, after)

    def chunk(self, run: str, after: int) -> Chunk:
        batches = self.batches.get(run, [])
        last = batches[-1].last if batches else 0
        found = [dataclasses.replace(each) for each in batches if each.last > max(after, self.first - 1)]
        return Chunk(found[:AT_ONCE], Reach(self.first, last, bool(batches) and batches[-1].ends(run)))

    def write(self, *batches: Batch, elsewhere: bool = False) -> None:
        """Write, in this process or in another one."""
        for each in batches:
            self.batches.setdefault(each.stamp.run_id, []).append(each)
            if not elsewhere:
                self.tell(
                    lambda wakes, each=each: self.tails.written(each.stamp.run_id, each, wakes, size=100)
                )

    def look(self) -> None:
        """What a keeper does that watches: tell of what others have written."""
        for run, seen in self.tails.watched().items():
            self.tell(
                lambda wakes, run=run, seen=seen: self.tails.found(run, self.chunk(run, seen.last), wakes)
            )

    @staticmethod
    def tell(told: Callable[[Wakes], object]) -> None:
        wakes = Wakes()
        told(wakes)
        wakes.send()


@pytest.fixture
def engine() -> Engine:
    return Engine()


async def rest(cursor: Cursor) -> list[int]:
    """The first positions of the batches up to the end."""
    firsts: list[int] = []
    while (found := await cursor.next()) is not None:
        firsts.append(found.first)
    return firsts


async def waits(cursor: Cursor) -> asyncio.Task[Batch | None]:
    """A task that waits for what comes next."""
    task = asyncio.create_task(cursor.next())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    return task


# --- what is written here ---------------------------------------------------------------------


async def test_who_waits_is_given_the_very_batch_that_was_written(engine: Engine) -> None:
    waiting = await waits(engine.tails.cursor("r", 0))
    written = batch(1, "a")

    engine.write(written)

    assert await waiting is written
    assert engine.asked == [("r", 0)]  # once, to know that there was nothing


async def test_what_was_written_here_is_read_without_asking_the_engine(engine: Engine) -> None:
    written = [batch(1, "a", "b"), batch(3, "c"), end(4)]
    engine.write(*written)

    cursor = engine.tails.cursor("r", 0)

    assert [cursor.next_nowait() for _ in range(4)] == [*written, None]
    assert await cursor.next() is None
    assert engine.asked == []


async def test_a_cursor_may_begin_within_a_batch_and_ahead_of_all_of_them(engine: Engine) -> None:
    engine.write(batch(1, "a", "b", "c"), batch(4, "d"))
    within, ahead = engine.tails.cursor("r", 1), engine.tails.cursor("r", 4)
    waiting = await waits(ahead)

    engine.write(end(5))

    assert await rest(within) == [1, 4, 5]
    assert await waiting is engine.batches["r"][-1]


async def test_a_tail_has_a_bound_and_who_is_behind_it_asks_the_engine_in_chunks(engine: Engine) -> None:
    count = TAIL_BATCHES + 9
    engine.write(*[batch(position, position) for position in range(1, count + 1)], end(count + 1))

    firsts = await rest(engine.tails.cursor("r", 0))

    assert firsts == list(range(1, count + 2))
    assert [after for _, after in engine.asked] == [0, 3, 6, 9]


async def test_a_tail_is_bounded_by_bytes_too_and_holds_the_last_batch_in_any_case(engine: Engine) -> None:
    for position in (1, 2):
        each = batch(position, "large")
        engine.batches.setdefault("r", []).append(each)
        engine.tell(lambda wakes, each=each: engine.tails.written("r", each, wakes, size=1 << 30))
    cursor = engine.tails.cursor("r", 0)

    assert cursor.next_nowait() is None
    assert engine.tails.cursor("r", 1).next_nowait() is engine.batches["r"][1]


async def test_many_tails_share_what_one_log_holds_and_their_readers_miss_nothing(engine: Engine) -> None:
    count = 40
    names = [f"r{number}" for number in range(ALL_BATCHES // 20)]
    cursors = [engine.tails.cursor(name, 0) for name in names]

    for name in names:
        engine.write(*[batch(position, position, run=name) for position in range(1, count + 1)])

    held = list[int]()
    for name in names:
        cursor = engine.tails.cursor(name, count - 20)
        held.append(sum(cursor.next_nowait() is not None for _ in range(count)))
    assert set(held) == {20}
    assert engine.tails.cursor(names[0], count - 21).next_nowait() is None
    engine.write(end(count + 1, run=names[0]))
    assert await rest(cursors[0]) == list(range(1, count + 2))


async def test_a_thousand_cursors_that_wait_ask_the_engine_no_more_than_one(engine: Engine) -> None:
    engine.write(batch(1, "a"))
    cursors = [engine.tails.cursor("r", 0) for _ in range(1000)]
    tasks = [asyncio.create_task(rest(cursor)) for cursor in cursors]
    for position in range(2, 20):
        await asyncio.sleep(0)
        engine.write(batch(position, position))

    engine.write(end(20))

    assert await asyncio.gather(*tasks) == [list(range(1, 21))] * 1000
    assert engine.asked == []


async def test_tails_that_nobody_reads_are_forgotten_but_for_the_last(engine: Engine) -> None:
    for number in range(KEPT + 20):
        engine.write(batch(1, "a", run=f"r{number}"))
    gc.collect()

    assert engine.tails.last("r0") == 0
    assert engine.tails.last(f"r{KEPT + 19}") == 1
    assert engine.tails.cursor("r0", 0).next_nowait() is None
    assert (await engine.tails.cursor("r0", 0).next()) == engine.batches["r0"][0]


# --- what others write ------------------------------------------------------------------------


async def test_what_others_wrote_before_is_asked_for_once_for_the_tail(engine: Engine) -> None:
    engine.write(batch(1, "a"), batch(2, "b"), elsewhere=True)
    one, other = engine.tails.cursor("r", 0), engine.tails.cursor("r", 0)

    assert await one.next() == engine.batches["r"][0]
    assert other.next_nowait() == engine.batches["r"][0]
    assert engine.asked == [("r", 0)]


async def test_what_others_write_is_found_for_all_who_wait_at_once(engine: Engine) -> None:
    tasks = [await waits(engine.tails.cursor("r", 0)) for _ in range(10)]
    asked = len(engine.asked)

    engine.write(batch(1, "a"), elsewhere=True)
    engine.look()

    found = await asyncio.gather(*tasks)
    assert len({id(each) for each in found}) == 1
    assert len(engine.asked) == asked


async def test_more_than_the_engine_gives_at_once_is_found_bit_by_bit(engine: Engine) -> None:
    reading = asyncio.create_task(rest(engine.tails.cursor("r", 0)))
    for _ in range(5):
        await asyncio.sleep(0)
    engine.write(*[batch(position, position) for position in range(1, 2 * AT_ONCE + 1)], elsewhere=True)
    engine.write(end(2 * AT_ONCE + 1), elsewhere=True)

    while not reading.done():
        engine.look()
        await asyncio.sleep(0)

    assert reading.result() == list(range(1, 2 * AT_ONCE + 2))
    assert len(engine.asked) == 1


async def test_a_run_that_this_process_writes_is_not_watched_while_it_does(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("millstream.clock.SystemClock.monotonic", staticmethod(lambda: now))
    engine.write(batch(1, "a"))
    waiting = await waits(engine.tails.cursor("r", 1))
    assert not engine.tails.watched()

    now += 60
    assert engine.tails.watched()["r"].last == 1
    engine.write(end(2), elsewhere=True)
    engine.look()

    assert await waiting == engine.batches["r"][1]


async def test_whoever_watches_is_told_once_that_somebody_waits(engine: Engine) -> None:
    await waits(engine.tails.cursor("r", 0))
    assert engine.pokes == 1
    assert list(engine.tails.watched()) == ["r"]

    await waits(engine.tails.cursor("r", 0))
    assert engine.pokes == 1
    await waits(engine.tails.cursor("other", 0))

    assert engine.pokes == 2
    assert engine.tails.are_waited_for


async def test_what_was_found_and_what_was_written_may_overlap_in_any_order(engine: Engine) -> None:
    waiting = await waits(engine.tails.cursor("r", 0))
    one, two = batch(1, "a"), batch(2, "b")
    engine.batches["r"] = [one, two]

    engine.look()  # committed, and seen before it was told
    engine.tell(lambda wakes: engine.tails.written("r", one, wakes, size=1))
    engine.tell(lambda wakes: engine.tails.written("r", two, wakes, size=1))
    engine.tell(lambda wakes: engine.tails.found("r", Chunk([one], Reach(last=1)), wakes))
    engine.write(end(3))

    assert await waiting == one
    assert await rest(engine.tails.cursor("r", 0)) == [1, 2, 3]


# --- gaps -------------------------------------------------------------------------------------


async def test_what_was_trimmed_here_is_a_gap_also_for_who_stands_before_it(engine: Engine) -> None:
    engine.write(batch(1, "a"), batch(2, "b"), batch(3, "c", "d"))
    cursor = engine.tails.cursor("r", 0)
    await cursor.next()

    engine.first = 4
    engine.tell(lambda wakes: engine.tails.trimmed("r", 4, wakes))

    for _again in range(2):
        with pytest.raises(LogGapError) as caught:
            await cursor.next()
        assert (caught.value.requested, caught.value.first) == (2, 4)
    assert cursor.next_nowait() is None
    found = await engine.tails.cursor("r", 3).next()
    assert found is not None
    assert [entry.position for entry in found.entries(3)] == [4]


async def test_what_was_trimmed_elsewhere_is_a_gap(engine: Engine) -> None:
    engine.write(batch(1, "a"), batch(2, "b", "c"), end(4), elsewhere=True)
    engine.first = 3

    with pytest.raises(LogGapError) as caught:
        await engine.tails.cursor("r", 1).next()

    assert (caught.value.requested, caught.value.first) == (2, 3)
    assert await rest(engine.tails.cursor("r", 2)) == [2, 4]


async def test_all_may_be_trimmed(engine: Engine) -> None:
    engine.write(batch(1, "a"), end(2), elsewhere=True)
    engine.first = 3

    with pytest.raises(LogGapError) as caught:
        await engine.tails.cursor("r", 0).next()

    assert caught.value.first == 3
    assert await rest(engine.tails.cursor("r", 2)) == []


async def test_a_hole_in_the_middle_is_found_by_counting(engine: Engine) -> None:
    engine.write(batch(1, "a"), batch(2, "b"), batch(3, "c"), end(4))
    cursor = engine.tails.cursor("r", 0)
    await cursor.next()

    del engine.batches["r"][1:2]
    engine.tails.thinned("r")

    for _again in range(2):
        with pytest.raises(LogGapError) as caught:
            await cursor.next()
        assert (caught.value.requested, caught.value.first) == (2, 3)
    assert await rest(engine.tails.cursor("r", 2)) == [3, 4]


async def test_a_hole_that_others_made_is_found_by_who_waits_for_what_comes_behind_it(engine: Engine) -> None:
    engine.write(batch(1, "a"), elsewhere=True)
    waiting = await waits(engine.tails.cursor("r", 1))

    engine.batches["r"].append(batch(5, "e"))
    engine.look()

    with pytest.raises(LogGapError) as caught:
        await waiting
    assert (caught.value.requested, caught.value.first) == (2, 5)


async def test_an_engine_that_has_less_than_it_had_is_not_believed(engine: Engine) -> None:
    engine.write(batch(1, "a"), batch(2, "b"), batch(3, "c"))
    engine.tails.thinned("r")
    del engine.batches["r"][1:]

    with pytest.raises(LogTruncatedError, match="Run r reached position 3 of its log, which has 1 now"):
        await engine.tails.cursor("r", 1).next()


# --- ends -------------------------------------------------------------------------------------


async def test_who_waits_for_a_run_that_is_deleted_is_told_and_so_is_who_has_not_read_all_of_it(
    engine: Engine,
) -> None:
    engine.write(batch(1, "a"), batch(2, "b"))
    waiting = await waits(engine.tails.cursor("r", 2))
    behind = engine.tails.cursor("r", 0)
    engine.tails.thinned("r")

    engine.tell(lambda wakes: engine.tails.deleted("r", wakes))

    with pytest.raises(LogBrokenError):
        await waiting
    with pytest.raises(LogBrokenError):
        await behind.next()


async def test_a_run_that_is_made_anew_under_an_id_has_another_tail(engine: Engine) -> None:
    engine.write(batch(1, "a"))
    old = engine.tails.cursor("r", 1)
    engine.batches.clear()
    engine.tell(lambda wakes: engine.tails.deleted("r", wakes))

    engine.write(batch(1, "anew"), end(2))

    assert await rest(engine.tails.cursor("r", 0)) == [1, 2]
    with pytest.raises(LogBrokenError):
        await old.next()


async def test_a_run_that_broke_off_is_read_to_there_and_may_be_claimed_again(engine: Engine) -> None:
    engine.write(batch(1, "a"))
    waiting = await waits(engine.tails.cursor("r", 1))

    engine.tails.break_off("r")

    with pytest.raises(LogBrokenError):
        await waiting
    cursor = engine.tails.cursor("r", 0)
    assert await cursor.next() is not None
    with pytest.raises(LogBrokenError):
        await cursor.next()

    engine.tails.claimed("r")
    engine.write(end(2))
    assert await rest(cursor) == [2]


async def test_a_run_that_broke_off_with_its_engine_is_not_waited_for(engine: Engine) -> None:
    engine.write(batch(1, "a"), elsewhere=True)
    engine.error = LogUnavailableError("away")
    engine.tails.break_off("r")

    with pytest.raises(LogBrokenError):
        await engine.tails.cursor("r", 0).next()


async def test_an_engine_that_is_away_is_told_and_may_be_asked_again(engine: Engine) -> None:
    cursor = engine.tails.cursor("r", 0)
    waiting = await waits(cursor)

    engine.error = LogUnavailableError("away")
    engine.tell(lambda wakes: engine.tails.doubt("r", wakes))
    with pytest.raises(LogUnavailableError):
        await waiting

    engine.error = None
    engine.write(end(1), elsewhere=True)
    assert await rest(cursor) == [1]


async def test_nobody_waits_for_a_log_that_was_closed(engine: Engine) -> None:
    cursor = engine.tails.cursor("r", 0)
    waiting = await waits(cursor)
    mail = asyncio.create_task(engine.tails.wait_for_mail("r", 0))
    await asyncio.sleep(0)

    engine.tails.close()

    with pytest.raises(LogError, match="closed by aclose"):
        await waiting
    with pytest.raises(LogError):
        await cursor.next()
    await mail
    with pytest.raises(LogError):
        await engine.tails.wait_for_mail("r", 0)
    assert cursor.next_nowait() is None


# --- mail -------------------------------------------------------------------------------------


async def test_mail_wakes_who_waits_for_it(engine: Engine) -> None:
    waiting = asyncio.create_task(engine.tails.wait_for_mail("r", 0))
    await asyncio.sleep(0)
    assert not engine.tails.watched()["r"].is_followed

    engine.tell(lambda wakes: engine.tails.told("r", 1, wakes))

    await waiting


async def test_mail_that_comes_between_looking_and_waiting_is_not_missed(engine: Engine) -> None:
    mail: list[Command] = []

    async def read() -> Mail:
        found = Mail(mail[:], is_last=False)
        if not mail:
            mail.append(Command("cancel", b"{}", number=1))
            engine.tell(lambda wakes: engine.tails.told("r", 1, wakes))
        return found

    assert await engine.tails.mail("r", 0, read) == mail


async def test_no_mail_is_waited_for_where_none_will_come(engine: Engine) -> None:
    async def read() -> Mail:
        return Mail([], is_last=True)

    assert await engine.tails.mail("r", 0, read) == []


@pytest.mark.parametrize("how", ["ended", "deleted"])
async def test_the_end_of_a_run_wakes_who_waits_for_its_mail(engine: Engine, how: str) -> None:
    waiting = asyncio.create_task(engine.tails.wait_for_mail("r", 0))
    await asyncio.sleep(0)

    if how == "ended":
        engine.write(end(1))
        await engine.tails.wait_for_mail("r", 0)  # kept, as it is written here
    else:
        engine.tell(lambda wakes: engine.tails.deleted("r", wakes))

    await waiting


# --- cancelling, threads, loops ---------------------------------------------------------------


async def test_a_cursor_that_was_cancelled_goes_on_where_it_stood(engine: Engine) -> None:
    cursor = engine.tails.cursor("r", 0)
    for position in (1, 2, 3):
        waiting = await waits(cursor) if position > 1 else asyncio.create_task(cursor.next())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        engine.write(batch(position, position))
        found = await cursor.next()
        assert found is not None
        assert found.first == position


def test_cursors_of_many_threads_and_loops_miss_nothing(engine: Engine) -> None:
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(asyncio.run(rest(engine.tails.cursor("r", 0)))))
        for _ in range(5)
    ]

    for position in range(1, 301):
        if position % 60 == 1:
            threads[position // 60].start()
        engine.write(batch(position, position))
    engine.write(end(301))
    for thread in threads:
        thread.join(20)

    assert results == [list(range(1, 302))] * 5


async def test_a_loop_that_was_closed_under_a_cursor_keeps_nobody_from_writing(engine: Engine) -> None:
    def leave() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(engine.tails.cursor("r", 0).next())
        for _ in range(5):
            loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
        loop.close()

    await asyncio.get_running_loop().run_in_executor(None, leave)
    engine.write(batch(1, "a"), end(2))

    assert await rest(engine.tails.cursor("r", 0)) == [1, 2]
