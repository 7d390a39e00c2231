"""What a log promises. A run writes one log; whatever reads a run is a cursor in it.

Positions count 1, 2, 3 … without holes over a run and all runs nested in it. What is
written together (the model events of one socket read, say) is written as one `Batch`, and a
cursor gives it as one: the costs of writing, waking and reading are paid per batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from millstream.events import TERMINAL_TYPES, Entry, Event, RawResponsesStreamEvent, Stamp

Payload: TypeAlias = bytes | Event
"""One event of a batch. Bytes are the wire JSON of a raw model event, not yet made an object."""


def live(payload: Payload) -> Event:
    """The event that `payload` is."""
    return RawResponsesStreamEvent.from_wire(payload) if payload.__class__ is bytes else payload  # pyright: ignore[reportArgumentType, reportReturnType]


@dataclass(frozen=True, slots=True)
class Batch:
    """Events written together: they share a stamp and stand at `first`, `first + 1` and so on."""

    first: int
    stamp: Stamp
    payloads: list[Payload]
    raw_only: bool = False
    """Whether every payload is a raw model event, so that a reader need not look at each."""
    size: int = 0
    """Bytes of the raw model events among the payloads, for caps and for flow control."""
    checkpoint: bytes | None = None
    """What the run can go on from once this is written: for a log that keeps it (`log/store.py`)."""

    @property
    def last(self) -> int:
        """The position of the last event."""
        return self.first + len(self.payloads) - 1

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """The events beyond position `after`, in their envelopes."""
        start = max(0, after - self.first + 1)
        for offset, payload in enumerate(self.payloads[start:], start):
            yield Entry(self.first + offset, self.stamp, live(payload))

    def ends(self, run_id: str) -> bool:
        """Whether the last event ends the run `run_id`; the end of a nested run does not."""
        if self.stamp.run_id != run_id:
            return False
        final = self.payloads[-1]
        return not isinstance(final, bytes) and final.type in TERMINAL_TYPES


@dataclass(frozen=True, slots=True)
class LogInfo:
    """How far a run's log reaches."""

    first: int
    """The first position still held; `last + 1` where none is."""
    last: int
    """The last position written; 0 where none is."""
    sealed: bool
    """Whether the last position holds the run's terminal event."""


class Cursor(ABC):
    """A place in a log. Any number of cursors may read one run, in any task, thread or loop."""

    @abstractmethod
    async def next(self) -> Batch | None:
        """The next events: waits for them, or returns None once the terminal event was given.

        May be cancelled at any time and called again: nothing is lost. The first batch may
        begin before the position that was asked for; the caller drops what it has.

        Raises:
            LogGapError: the next position is no longer held.
            LogBrokenError: nothing more is there, and `break_off` was called.
        """

    def next_nowait(self) -> Batch | None:
        """The next events where they are at hand; None where `next` would wait, end or raise.

        For readers that take at once what there is. A log whose reads take their time need not have it.
        """
        return None


class EventLog(ABC):
    """Keeps the entries of runs."""

    durability: Literal["memory", "process", "power"]
    """What a written event survives: nothing, the end of the process, or the loss of power."""

    @abstractmethod
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        """Write `batch` to the log of `run_id`; visible to readers once it is as durable as promised.

        Appends that are called in order are written in order, even if the earlier one is still
        being awaited. Appending again what stands there already changes nothing, so that an
        append may be repeated when its outcome is unknown.

        Raises:
            PositionConflictError: the position is not the next one, and does not hold this event.
            RunClosedError: the run's terminal event has been written.
            LogFullError: the run reached the cap of this log. Its terminal event is taken even so.
        """

    @abstractmethod
    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        """A cursor that stands behind position `after`. A run that has not begun is waited for."""

    @abstractmethod
    async def info(self, run_id: str) -> LogInfo:
        """How far the log reaches.

        Raises:
            UnknownRunError: nothing was ever written for that run.
        """

    def info_nowait(self, run_id: str) -> LogInfo | None:
        """`info` where that is known without waiting, and the run is: a log whose reads take their time says None."""
        return None

    def known_end(self, run_id: str) -> int:
        """The last position of a run that this process knows of without asking; 0 where it knows nothing. Safe in any thread."""
        known = self.info_nowait(run_id)
        return 0 if known is None else known.last

    @abstractmethod
    async def trim(self, run_id: str, first: int) -> None:
        """Forget the positions before `first`. Who asks for one of them gets a `LogGapError`."""

    @abstractmethod
    def break_off(self, run_id: str) -> None:
        """Let nobody wait for a run whose owner cannot write to this log any more.

        Cursors of this process give what is there, then raise `LogBrokenError`. Never waits,
        and does nothing to a run that has its terminal event.
        """

    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[Entry]:
        """Every entry beyond `after`, in order and without holes, up to and with the terminal one.

        Raises:
            LogGapError: a position is no longer held.
            LogBrokenError: the log broke off before the terminal event.
        """
        cursor = self.cursor(run_id, after)
        while (batch := await cursor.next()) is not None:
            for entry in batch.entries(after):
                yield entry
            after = batch.last

    async def aclose(self) -> None:
        """Release what the log holds. Safe to call twice."""
