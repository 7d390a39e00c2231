"""What a reader reads: where the events of a run come from, where they end, and what that end comes to.

A reader is the same whoever drives the run. What differs is here: a run of this process may wait
for its readers, and knows its end before its log does; of any other there is the log alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from millstream.log.promise import Cursor
from millstream.run.readers import Place

if TYPE_CHECKING:
    from millstream.errors import LogBrokenError
    from millstream.log.promise import Batch
    from millstream.run.active import ActiveRun
    from millstream.run.writer import Trunk


class Source(ABC):
    """A run, as one reader of it sees it. Unless a subclass says otherwise, nobody waits for that reader.

    Args:
        run_id: the run.
        path: the ids of the tool calls that lead to it from the root of the log that it is in.
    """

    def __init__(self, run_id: str, path: tuple[str, ...] = ()) -> None:
        self.run_id = run_id
        self.path = path

    @abstractmethod
    def cursor(self, after: int) -> Cursor:
        """A cursor in the log, behind position `after`."""

    @property
    def ends_at(self) -> int | None:
        """The position behind which nothing is to be read, where that is known before a cursor comes to its end."""
        return None

    async def settled(self) -> None:
        """Return when it is known what the run has come to; called when everything was read."""

    @abstractmethod
    def raise_failure(self) -> None:
        """Raise what the run failed with, if it failed; called at the end of a reader that tells of that."""

    def seen(self) -> None:
        """Note that somebody read the run to its end."""

    async def beyond(self, broken: LogBrokenError, taken: int) -> Batch | None:
        """What comes behind position `taken` of a log that broke off there; None where that is all.

        Raises:
            LogBrokenError: `broken`: nothing is known of what comes.
        """
        raise broken

    # --- who reads ---------------------------------------------------------------------------

    def attach(self, reader: object, after: int) -> Place:
        """Take in a reader that was made."""
        return Place(after)

    def detach(self, reader: object) -> None:
        """Forget a reader that was closed, or has come to the end."""

    def begin(self, place: Place, *, holds: bool) -> None:
        """Note that the caller's context goes on to read there, and no task of its own."""

    def look_after(self) -> None:
        """Notice what keeps the run from ever going on; called when a reader is about to wait."""

    def ask(self, place: Place, *, holds: bool, bound: bool) -> None:
        """Note that a reader asks for more; as `Readers.ask`."""
        place.asks = True

    def answer(self, place: Place) -> None:
        """Note that it was given something, or does not ask any longer."""
        place.asks = False


class _LateCursor(Cursor):
    """A cursor in the log of a run that is over here, so that its store may have forgotten it, and would wait for another."""

    def __init__(self, trunk: Trunk, cursor: Cursor) -> None:
        self._trunk = trunk
        self._cursor = cursor
        self._is_there = False

    async def next(self) -> Batch | None:
        """The next events.

        Raises:
            UnknownRunError: the run was deleted.
        """
        if not self._is_there:
            await self._trunk.log.info(self._trunk.run_id)
            self._is_there = True
        return await self._cursor.next()

    def next_nowait(self) -> Batch | None:
        """The next events where they are written."""
        return self._cursor.next_nowait() if self._is_there else None


class ActiveSource(Source):
    """A run of this process: it may wait for the reader (`millstream.run.readers`)."""

    def __init__(self, run: ActiveRun) -> None:
        super().__init__(run.run_id, run.path)
        self._run = run

    def cursor(self, after: int) -> Cursor:
        """A cursor in the log of the tree that the run is in."""
        run = self._run
        cursor = run.trunk.cursor(after)
        may_be_gone = run.is_done and run.lost_end is None and run.root.tenure is not None
        return _LateCursor(run.trunk, cursor) if may_be_gone else cursor

    @property
    def ends_at(self) -> int | None:
        """Known before it is written: what comes behind a pause is another handle's."""
        return self._run.ends_at

    async def settled(self) -> None:
        """Wait until the run knows of its end: the log tells of it a moment before."""
        await self._run.wait_done()

    def raise_failure(self) -> None:
        """Raise what the run failed with."""
        self._run.raise_failure()

    def seen(self) -> None:
        """A failure needs no line in the log any more."""
        self._run.outcome_seen = True

    async def beyond(self, broken: LogBrokenError, taken: int) -> Batch | None:
        """The end of the run, which its log could not take."""
        await self._run.wait_done()
        end = self._run.lost_end
        return end if end is not None and end.last > taken else None

    def attach(self, reader: object, after: int) -> Place:
        """Let the run know of the reader."""
        return self._run.readers.attach(reader, after)

    def detach(self, reader: object) -> None:
        """Let the run go on without it."""
        self._run.readers.detach(reader)

    def begin(self, place: Place, *, holds: bool) -> None:
        """The run may wait for it from here on."""
        place.holds = holds
        self._run.readers.begin(place)

    def look_after(self) -> None:
        """End the run if its loop was closed under it."""
        self._run.look_after()

    def ask(self, place: Place, *, holds: bool, bound: bool) -> None:
        """Let the run wait until the reader has what it asks for."""
        self._run.readers.ask(place, holds=holds, bound=bound)

    def answer(self, place: Place) -> None:
        """It stands still from here on."""
        self._run.readers.answer(place)
