"""The events of one run in memory: a list of batches, which may lack its beginning and what was dropped.

Nothing here waits or locks: whoever holds the batches of a run sees to that.
"""

from __future__ import annotations

import bisect
from dataclasses import dataclass

from millstream.errors import LogFullError, LogGapError, PositionConflictError, RunClosedError
from millstream.events import Event, ModelCompleted
from millstream.log.promise import Batch, LogInfo, Payload, live

ROOM = 1_000
"""Events that a run may still write once it was told that its log is full."""


@dataclass(frozen=True, slots=True)
class Caps:
    """How much of one run is held."""

    events: int
    bytes: int
    """Of its raw model events."""


class Batches:
    """What is held of one run.

    Where a cap is reached, the raw events of model calls that have ended are dropped, except
    those that were written together with others. That leaves holes in the middle.
    """

    def __init__(self, run_id: str, caps: Caps) -> None:
        self.run_id = run_id
        self.first: int = 1
        self.last: int = 0
        self.sealed = False
        self._caps = caps
        self._batches: list[Batch] = []
        self._events = 0
        self._bytes = 0
        self._thinned = 0
        """Before this position there is no raw event left that could be dropped."""
        self._full_at: int | None = None
        """The last position when the run was told that its log is full."""

    @property
    def info(self) -> LogInfo:
        """How far they reach."""
        return LogInfo(self.first, self.last, self.sealed)

    # --- writing -----------------------------------------------------------------------------

    def take(self, batch: Batch) -> Batch | None:
        """Hold `batch`; what of it is new, or None where nothing is.

        Raises:
            PositionConflictError, RunClosedError, LogFullError: as `EventLog.append`.
        """
        if batch.first != self.last + 1:
            rest = self._rest_of(batch)
            if rest is None:
                return None
            batch = rest
        count = len(batch.payloads)
        if not count:
            return None
        if self.sealed:
            raise RunClosedError(f"Run {self.run_id} has ended; nothing more can be written to its log.")
        ends = not batch.raw_only and batch.ends(self.run_id)
        if not (self._full_at is None and self._fits(batch, count)) and not ends:
            self._make_room(batch, count)
        self._batches.append(batch)
        self.last += count
        self._events += count
        self._bytes += batch.size
        self.sealed = ends
        return batch

    def _fits(self, batch: Batch, count: int) -> bool:
        return self._events + count <= self._caps.events and self._bytes + batch.size <= self._caps.bytes

    def _make_room(self, batch: Batch, count: int) -> None:
        if self._full_at is None:
            self._thin()
            if self._fits(batch, count):
                return
            self._full_at = self.last
        elif not batch.size and batch.last <= self._full_at + ROOM:
            return
        raise LogFullError(
            f"Run {self.run_id} reached the cap of its log "
            f"({self._caps.events} events, {self._caps.bytes} bytes)."
        )

    def _rest_of(self, batch: Batch) -> Batch | None:
        """What of `batch` is new, given that all that is not new equals what stands here."""
        overlap = self.last - batch.first + 1
        if overlap <= 0:
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
        return Batch(self.last + 1, batch.stamp, rest, batch.raw_only, size, batch.checkpoint)

    def _at(self, position: int) -> Payload:
        place = self._place(position)
        batch = self._batches[place] if place < len(self._batches) else None
        if batch is None or position < max(batch.first, self.first):
            raise PositionConflictError(
                f"Position {position} is not the next one: that is {self.last + 1}. What it held is no longer held."
            )
        return batch.payloads[position - batch.first]

    # --- reading -----------------------------------------------------------------------------

    def look(self, after: int, place: int) -> tuple[int, Batch | None]:
        """The first batch beyond position `after`, and its place in the list; None where it is not written yet.

        Args:
            after: the position.
            place: where the batch may be looked for first; a wrong guess costs a search.

        Raises:
            LogGapError: the position behind `after` is no longer held.
        """
        batches = self._batches
        if place < len(batches) and batches[place].first == after + 1 >= self.first:
            return place, batches[place]
        if after >= self.last:
            return len(batches), None
        place = self._place(after + 1)
        held_from = max(batches[place].first, self.first) if place < len(batches) else self.first
        if after + 1 < held_from:
            raise LogGapError(self.run_id, after + 1, held_from)
        return place, batches[place]

    def _place(self, position: int) -> int:
        """Where in the list the batch stands that holds `position`, or the next one behind it."""
        return bisect.bisect_left(self._batches, position, key=lambda batch: batch.last)

    # --- forgetting --------------------------------------------------------------------------

    def trim(self, first: int) -> None:
        """Forget the positions before `first`."""
        self.first = min(max(first, self.first), self.last + 1)
        self._hold(0, self._place(self.first), [])

    def _thin(self) -> None:
        """Drop what is raw only, of the model calls that have ended."""
        start = self._place(self._thinned)
        kept: list[Batch] = []
        ended: set[str] = set()
        self._thinned = self.last + 1
        for batch in reversed(self._batches[start:]):
            if not batch.raw_only:
                if any(isinstance(payload, ModelCompleted) for payload in batch.payloads):
                    ended.add(batch.stamp.run_id)
            elif batch.stamp.run_id in ended:
                continue
            else:
                self._thinned = batch.first
            kept.append(batch)
        kept.reverse()
        self._hold(start, len(self._batches), kept)

    def _hold(self, start: int, end: int, kept: list[Batch]) -> None:
        """Hold `kept` in place of the batches from `start` to `end`."""
        for batch in self._batches[start:end]:
            self._events -= len(batch.payloads)
            self._bytes -= batch.size
        for batch in kept:
            self._events += len(batch.payloads)
            self._bytes += batch.size
        self._batches[start:end] = kept
        self.first = max(self.first, self._batches[0].first if self._batches else self.last + 1)


def _same(one: Payload, other: Payload) -> bool:
    if one is other:
        return True
    left: Event = live(one)
    right: Event = live(other)
    return left.to_json() == right.to_json()
