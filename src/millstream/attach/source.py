"""The source of readers of a run that is known by its log alone."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Literal, TypeAlias, cast

from millstream.errors import RunFailedError
from millstream.events import RunFailed, RunPaused
from millstream.log.promise import Cursor
from millstream.result.source import Source

if TYPE_CHECKING:
    from millstream.events import TerminalEvent
    from millstream.log.promise import Batch
    from millstream.log.store import RunStore

Until: TypeAlias = Literal["pause", "end"]
"""Where reading ends: at a pause that lasts, or at nothing but the run's end."""


class LogSource(Source):
    """A run that is known by its log alone, as one reader of it sees it.

    Args:
        run_id: the run.
        until: where its reader comes to its end.
    """

    def __init__(self, run_id: str, until: Until) -> None:
        super().__init__(run_id)
        self.until: Until = until
        self.end: TerminalEvent | None = None
        """How the run ended, when its reader has come to that."""

    @abstractmethod
    async def first_held(self) -> int:
        """The first position that the log still holds."""

    def raise_failure(self) -> None:
        """Raise what the log tells of the run's failure."""
        if isinstance(self.end, RunFailed):
            raise failure(self.run_id, self.end)

    def see(self, batch: Batch) -> None:
        """Note how the run ended, where `batch` tells it; called with all that a reader is given."""
        if batch.ends(self.run_id):
            self.end = cast("TerminalEvent", batch.payloads[-1])


class AttachedSource(LogSource):
    """A run of a store.

    Args:
        store: where the run is kept.
        run_id: the run.
        until: where its reader comes to its end.
    """

    def __init__(self, store: RunStore, run_id: str, until: Until) -> None:
        super().__init__(run_id, until)
        self.store = store

    def cursor(self, after: int) -> Cursor:
        """A cursor that looks for the run when it is first asked for something."""
        return _AttachedCursor(self, after)

    async def first_held(self) -> int:
        """The first position that the log still holds."""
        return (await self.store.info(self.run_id)).first


class _AttachedCursor(Cursor):
    """A cursor in the log of a run that is there; it ends at a pause, where its reader is to, for as long as that lasts."""

    def __init__(self, source: AttachedSource, after: int) -> None:
        self._source = source
        self._after = after
        self._cursor: Cursor | None = None
        self._paused_at: int | None = None
        """The last position that was given, if that is a pause of the run and the reader ends there."""

    async def next(self) -> Batch | None:
        source = self._source
        cursor = self._cursor
        if cursor is None:
            cursor = await self._begin()
        if self._paused_at is not None:
            info = await source.store.info(source.run_id)
            if info.last <= self._paused_at:
                return None
        batch = await cursor.next()
        if batch is not None:
            self._see(batch)
        return batch

    def next_nowait(self) -> Batch | None:
        """The next events, unless the reader may end here."""
        if self._cursor is None or self._paused_at is not None:
            return None
        batch = self._cursor.next_nowait()
        if batch is not None:
            self._see(batch)
        return batch

    async def _begin(self) -> Cursor:
        """Find the run: the log itself would wait for one that nobody knows."""
        source = self._source
        cursor = source.store.cursor(
            source.run_id, self._after
        )  # first: it is told if the run is deleted meanwhile
        record = await source.store.record(source.run_id)
        if source.until == "pause" and record.status == "paused" and record.last <= self._after:
            self._paused_at = self._after
        self._cursor = cursor
        return cursor

    def _see(self, batch: Batch) -> None:
        source = self._source
        source.see(batch)
        is_pause = isinstance(batch.payloads[-1], RunPaused) and batch.stamp.run_id == source.run_id
        self._paused_at = batch.last if is_pause and source.until == "pause" else None


def failure(run_id: str, end: RunFailed) -> RunFailedError:
    """The exception that stands for the end of a run that failed elsewhere."""
    return RunFailedError(run_id, end.code, end.message, error_id=end.error_id, retryable=end.retryable)
