"""`check_log` finds what is wrong with a log, and says which clause is broken."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from millstream.errors import (
    LogGapError,
    PositionConflictError,
    RunClosedError,
    UnknownRunError,
)
from millstream.events import Entry, Stamp
from millstream.log import Batch, Cursor, EventLog, LogInfo, MemoryLog
from millstream.testing import logs
from millstream.testing.logs import check_log
from millstream.testing.logs.clause import OTHER, RUN
from tests.support.hurry import hurry

# --- logs with one fault each ------------------------------------------------------------------


class Filtered(Cursor):
    """A cursor that another one feeds."""

    def __init__(self, inner: Cursor) -> None:
        self.inner = inner

    async def next(self) -> Batch | None:
        return await self.inner.next()


class LosesTheSecondBatch(MemoryLog):
    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        class Skips(Filtered):
            async def next(self) -> Batch | None:
                batch = await self.inner.next()
                while batch is not None and batch.first == 3:
                    batch = await self.inner.next()
                return batch

        return Skips(super().cursor(run_id, after))


class RewritesJson(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        payloads = [p.replace(b":", b": ") if isinstance(p, bytes) else p for p in batch.payloads]
        await super().append(run_id, Batch(batch.first, batch.stamp, payloads, batch.raw_only), epoch=epoch)


class BeginsOneTooEarly(MemoryLog):
    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Entry]:
        async for entry in super().follow(run_id, max(0, after - 1)):
            yield entry


class IgnoresWhoWaits(MemoryLog):
    """Ends where the log ends now, instead of waiting for more."""

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        class Impatient(Filtered):
            async def next(self) -> Batch | None:
                asking = asyncio.ensure_future(self.inner.next())
                await asyncio.sleep(0)
                if not asking.done():
                    asking.cancel()
                    return None
                return asking.result()

        return Impatient(super().cursor(run_id, after))


class LosesWhatWasAskedForInVain(MemoryLog):
    """A cursor that gives nothing for what it was cancelled for."""

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        class Forgetful(Filtered):
            cancelled = False

            async def next(self) -> Batch | None:
                try:
                    batch = await self.inner.next()
                except asyncio.CancelledError:
                    self.cancelled = True
                    raise
                return None if self.cancelled else batch

        return Forgetful(super().cursor(run_id, after))


class AcceptsHoles(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        try:
            await super().append(run_id, batch, epoch=epoch)
        except PositionConflictError as error:
            if "not the next" not in str(error):
                raise


class RefusesRepetition(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        last = 0
        try:
            last = (await self.info(run_id)).last
        except UnknownRunError:
            pass
        if batch.first <= last:
            raise PositionConflictError("no")
        await super().append(run_id, batch, epoch=epoch)


class KeepsTheFirstWithoutAWord(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        try:
            await super().append(run_id, batch, epoch=epoch)
        except PositionConflictError as error:
            if "another event" not in str(error):
                raise


class WritesAfterTheEnd(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        try:
            await super().append(run_id, batch, epoch=epoch)
        except RunClosedError:
            pass


class SealsWithAnyTerminalEvent(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        stamp = Stamp(run_id=run_id, agent=batch.stamp.agent)
        await super().append(run_id, Batch(batch.first, stamp, batch.payloads), epoch=epoch)


class MixesRuns(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if run_id == OTHER:
            batch = Batch(2, Stamp(run_id=RUN, agent="A"), batch.payloads)
        await super().append(RUN, batch, epoch=epoch)


class HidesGaps(MemoryLog):
    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Entry]:
        try:
            async for entry in super().follow(run_id, after):
                yield entry
        except LogGapError as gap:
            async for entry in super().follow(run_id, gap.first - 1):
                yield entry


class KnowsEveryRun(MemoryLog):
    async def info(self, run_id: str) -> LogInfo:
        try:
            return await super().info(run_id)
        except UnknownRunError:
            return LogInfo(1, 0, sealed=False)


class MisnamesTheGap(MemoryLog):
    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Entry]:
        try:
            async for entry in super().follow(run_id, after):
                yield entry
        except LogGapError as gap:
            raise LogGapError(run_id, gap.requested, gap.first + 1) from None


class BreaksTheLine(MemoryLog):
    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Entry]:
        class Spread(Entry):
            def to_json(self) -> bytes:
                return super().to_json().replace(b",", b",\n")

        async for entry in super().follow(run_id, after):
            yield Spread(entry.position, entry.stamp, entry.event)


class LetsThemWait(MemoryLog):
    def break_off(self, run_id: str) -> None:
        pass


@pytest.mark.parametrize(
    ("broken", "clause"),
    [
        (LosesTheSecondBatch, "what_is_written_can_be_read"),
        (RewritesJson, "raw_events_are_kept_as_they_came"),
        (BeginsOneTooEarly, "a_follower_may_begin_anywhere"),
        (IgnoresWhoWaits, "a_follower_waits_for_what_comes"),
        (LosesWhatWasAskedForInVain, "a_cursor_survives_being_cancelled"),
        (AcceptsHoles, "positions_have_no_holes"),
        (RefusesRepetition, "an_append_may_be_repeated"),
        (KeepsTheFirstWithoutAWord, "a_position_is_written_once"),
        (WritesAfterTheEnd, "nothing_follows_the_end"),
        (SealsWithAnyTerminalEvent, "the_end_of_a_nested_run_is_not_the_end"),
        (MixesRuns, "runs_do_not_mix"),
        (HidesGaps, "a_gap_is_never_silent"),
        (MisnamesTheGap, "a_gap_is_never_silent"),
        (LetsThemWait, "nobody_waits_for_a_run_that_broke_off"),
        (KnowsEveryRun, "the_log_says_how_far_it_reaches"),
        (BreaksTheLine, "entries_survive_the_wire"),
    ],
)
async def test_a_broken_log_is_found_out_by_the_clause_that_it_breaks(
    broken: type[EventLog], clause: str
) -> None:
    hurry(asyncio.get_running_loop())

    with pytest.raises(AssertionError, match=f"^{clause}: "):
        await check_log(broken)


async def test_every_clause_is_broken_by_one_of_these_logs() -> None:
    rows = test_a_broken_log_is_found_out_by_the_clause_that_it_breaks.pytestmark[0].args[1]  # pyright: ignore[reportFunctionMemberAccess]

    assert {clause for _, clause in rows} == {clause.__name__ for clause in logs.CLAUSES}


async def test_a_log_that_is_silent_is_given_up_on() -> None:
    class Silent(MemoryLog):
        def cursor(self, run_id: str, after: int = 0) -> Cursor:
            class Never(Filtered):
                async def next(self) -> Batch | None:
                    return await asyncio.get_running_loop().create_future()

            return Never(super().cursor(run_id, after))

    hurry(asyncio.get_running_loop())

    with pytest.raises(AssertionError, match=r"what_is_written_can_be_read: .*nothing happened for 30 s"):
        await check_log(Silent)


async def test_each_clause_has_a_log_of_its_own_which_is_closed() -> None:
    made: list[Any] = []

    class Closes(MemoryLog):
        closed = 0

        async def aclose(self) -> None:
            await super().aclose()
            self.closed += 1

    async def make_log() -> EventLog:
        made.append(Closes())
        return made[-1]

    await check_log(make_log)

    assert [log.closed for log in made] == [1] * len(logs.CLAUSES)


async def test_what_a_log_raises_where_it_should_not_breaks_the_clause() -> None:
    class Broken(MemoryLog):
        async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
            raise OSError("disk full")

    with pytest.raises(AssertionError, match=r"^what_is_written_can_be_read: .*disk full") as caught:
        await check_log(Broken)

    assert isinstance(caught.value.__cause__, OSError)
