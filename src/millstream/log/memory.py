"""The log in memory: for library use and for tests. It lives as long as somebody holds it.

Written by one event loop at a time, read from any thread and trimmed from any thread: a lock
guards every look at the batches, so that a reader that finds nothing waits before more can
come, and never counts in a list that is being cut.
"""

from __future__ import annotations

import asyncio
import bisect
import threading
from collections.abc import Collection
from typing import ClassVar, Literal

from millstream.errors import (
    LogBrokenError,
    LogFullError,
    LogGapError,
    PositionConflictError,
    RunClosedError,
    UnknownRunError,
)
from millstream.event_loops import wake
from millstream.events import Event
from millstream.log.promise import Batch, Cursor, EventLog, LogInfo, Payload, live

MAX_EVENTS = 5_000_000
"""Default cap on the events of one run."""
MAX_BYTES = 1 << 30
"""Default cap on the bytes of raw model events of one run."""
ROOM = 1_000
"""Events that a run may still write once it was told that its log is full."""


class MemoryLog(EventLog):
    """Keeps runs in this process.

    A run that reaches a cap is told so once. It may still write what closes what it opened,
    and its terminal event, which is never refused: every start has its end.

    Args:
        max_events: cap on the events of one run.
        max_bytes: cap on the bytes of raw model events of one run.
    """

    durability: ClassVar[Literal["memory", "process", "power"]] = "memory"

    def __init__(self, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES) -> None:
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._runs: dict[str, _Run] = {}

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        """Write `batch`. Never suspends: what is appended is visible when the call returns."""
        run = self._run(run_id)
        if batch.first != run.last + 1:
            batch_or_none = run.rest_of(batch)
            if batch_or_none is None:
                return
            batch = batch_or_none
        if not batch.payloads:
            return
        if run.sealed:
            raise RunClosedError(f"Run {run_id} has ended; nothing more can be written to its log.")
        sealed = batch.ends(run_id)
        if not sealed and not self._has_room(run, batch):
            run.full_at = run.last if run.full_at is None else run.full_at
            raise LogFullError(
                f"Run {run_id} reached the cap of its log ({self._max_events} events, {self._max_bytes} bytes)."
            )
        run.add(batch, sealed=sealed)

    def _has_room(self, run: _Run, batch: Batch) -> bool:
        if run.full_at is not None:
            return not batch.size and batch.last <= run.full_at + ROOM
        return batch.last <= self._max_events and run.bytes + batch.size <= self._max_bytes

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        """A cursor behind position `after`."""
        return _MemoryCursor(self._run(run_id), after)

    async def info(self, run_id: str) -> LogInfo:
        """How far the log reaches."""
        known = self._info(run_id)
        if known is None:
            raise UnknownRunError(run_id)
        return known

    def info_nowait(self, run_id: str) -> LogInfo | None:
        """How far the log reaches; None where it has nothing of that run."""
        return self._info(run_id)

    def _info(self, run_id: str) -> LogInfo | None:
        run = self._runs.get(run_id)
        return None if run is None or run.last == 0 else LogInfo(run.first, run.last, run.sealed)

    async def trim(self, run_id: str, first: int) -> None:
        """Forget the positions before `first`."""
        self._run(run_id).trim(first)

    def break_off(self, run_id: str) -> None:
        """Let nobody wait for a run that is written no more."""
        self._run(run_id).break_off()

    def _run(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            # Asked for by a writer and a reader in two threads at once, it is one and the same.
            run = self._runs.setdefault(run_id, _Run(run_id))
        return run


class _Run:
    """The batches of one run, and who waits for more."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.batches: list[Batch] = []
        self.first = 1
        self.last = 0
        self.bytes = 0
        self.sealed = False
        self.broken = False
        self.full_at: int | None = None
        """The last position when the run was told that its log is full."""
        self._dropped = 0
        self._lock = threading.Lock()
        self._waiting: set[asyncio.Future[None]] = set()

    def add(self, batch: Batch, *, sealed: bool) -> None:
        with self._lock:
            self.batches.append(batch)
            self.last = batch.last
            self.bytes += batch.size
            self.sealed = sealed
            woken = self._woken()
        for future in woken:
            wake(future)

    def break_off(self) -> None:
        with self._lock:
            self.broken = True
            woken = self._woken()
        for future in woken:
            wake(future)

    def _woken(self) -> Collection[asyncio.Future[None]]:
        """Who waits now. Gone through without the lock, so never the set that others may begin to wait in."""
        if not self._waiting:
            return ()
        woken, self._waiting = self._waiting, set()
        return woken

    def rest_of(self, batch: Batch) -> Batch | None:
        """What of `batch` is new, given that all that is not new equals what stands here."""
        overlap = self.last - batch.first + 1
        if overlap <= 0 or batch.first < self.first:
            raise PositionConflictError(
                f"Position {batch.first} is not the next one: that is {self.last + 1}."
            )
        for position, payload in enumerate(batch.payloads[:overlap], batch.first):
            if not _same(self._at(position), payload):
                raise PositionConflictError(f"Position {position} holds another event already.")
        if overlap >= len(batch.payloads):
            return None
        rest = batch.payloads[overlap:]
        size = sum(len(payload) for payload in rest if isinstance(payload, bytes))
        return Batch(self.last + 1, batch.stamp, rest, batch.raw_only, size)

    def trim(self, first: int) -> None:
        with self._lock:
            self.first = min(max(first, self.first), self.last + 1)
            keep = 0
            while keep < len(self.batches) and self.batches[keep].last < self.first:
                keep += 1
            del self.batches[:keep]
            self._dropped += keep

    def look(self, after: int, batch_number: int | None) -> tuple[int, Batch | None]:
        """The first batch beyond position `after`, or None where it is not written yet; and its batch number.

        Batch numbers count the batches of a run from 0, those that were trimmed included.

        Args:
            after: the position.
            batch_number: where it is known: that of the batch before, plus one.

        Raises:
            LogGapError: the position behind `after` is no longer held.
        """
        with self._lock:
            return self._look(after, batch_number)

    async def wait_for(self, after: int, batch_number: int) -> None:
        """Return when `look` would find something, or the run is sealed."""
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if self.sealed or self.broken or self._look(after, batch_number)[1] is not None:
                return
            self._waiting.add(waiter)
        try:
            await waiter
        finally:
            with self._lock:
                self._waiting.discard(waiter)

    def _look(self, after: int, batch_number: int | None) -> tuple[int, Batch | None]:
        if after + 1 < self.first:
            raise LogGapError(self.run_id, after + 1, self.first)
        if batch_number is None:
            batch_number = self._dropped + bisect.bisect_right(self.batches, after, key=lambda b: b.last)
        place = batch_number - self._dropped
        return batch_number, self.batches[place] if place < len(self.batches) else None

    def _at(self, position: int) -> Payload:
        batch = self.batches[bisect.bisect_left(self.batches, position, key=lambda b: b.last)]
        return batch.payloads[position - batch.first]


class _MemoryCursor(Cursor):
    __slots__ = ("_after", "_batch_number", "_run")

    def __init__(self, run: _Run, after: int) -> None:
        self._run = run
        self._after = after
        self._batch_number: int | None = None

    async def next(self) -> Batch | None:
        run = self._run
        while True:
            sealed = run.sealed  # before looking: what seals the run is written with it
            batch = self._advance()
            if batch is not None:
                return batch
            if sealed:
                return None
            if run.broken:
                raise LogBrokenError(run.run_id)
            await run.wait_for(self._after, self._batch_number or 0)

    def next_nowait(self) -> Batch | None:
        """The next events where they are written."""
        try:
            return self._advance()
        except LogGapError:  # `next` tells of it
            return None

    def _advance(self) -> Batch | None:
        while True:
            self._batch_number, batch = self._run.look(self._after, self._batch_number)
            if batch is None:
                return None
            self._batch_number += 1
            if batch.last > self._after:  # a cursor may stand ahead of what is written
                self._after = batch.last
                return batch


def _same(one: Payload, other: Payload) -> bool:
    if one is other:
        return True
    left: Event = live(one)
    right: Event = live(other)
    return left.to_json() == right.to_json()
