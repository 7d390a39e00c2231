"""What a run writes: sealed, stamped, placed in the log of its run tree, and held back where it has to be.

Rules of this file:

1. A root run and all runs nested in it write one log, that of the root: positions count over
   them all (`Trunk`). A place is taken before the append, so that appends follow in order.
2. What a program could still change is encoded here, before anything is awaited.
3. An append that was interrupted is repeated: appends are idempotent by position, so to
   repeat one is to know.
4. What is held back has no position. It is written in its order, or it never was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from millstream import codec, metrics
from millstream.clock import SYSTEM_CLOCK
from millstream.events import ModelCompleted, RawResponsesStreamEvent, RunItemStreamEvent, Stamp
from millstream.log.promise import Batch
from millstream.run.closing import Opened

if TYPE_CHECKING:
    from millstream.clock import Clock
    from millstream.events import Event
    from millstream.items import RunItem
    from millstream.log.promise import Cursor, EventLog, Payload
    from millstream.run.state import RunProgress

logger = logging.getLogger("millstream")


class Trunk:
    """The log of a root run, as that run and those nested in it write it.

    Args:
        log: where it is kept.
        run_id: the root run's.
        position: the last one that is written there.
    """

    def __init__(self, log: EventLog, run_id: str, position: int = 0) -> None:
        self.log = log
        self.run_id = run_id
        self.position = position
        self.epoch = 0
        """What owner of the run writes; 0 where its log knows none."""
        self.written_bytes = 0

    def take(self, stamp: Stamp, payloads: list[Payload], *, raw_only: bool = False, size: int = 0) -> Batch:
        """The next places in the log, for what is appended there at once."""
        batch = Batch(self.position + 1, stamp, payloads, raw_only, size)
        self.position = batch.last
        self.written_bytes += size
        return batch

    def give_back(self, batch: Batch) -> None:
        """Free the places of `batch`, which was not written."""
        self.position = min(self.position, batch.first - 1)

    def cursor(self, after: int) -> Cursor:
        """A cursor in the log, behind position `after`."""
        return self.log.cursor(self.run_id, after)


class _Unwritten(NamedTuple):
    """What is to be written, and may have to wait for that."""

    stamp: Stamp
    payloads: list[Payload]
    raw_only: bool = False
    size: int = 0
    checkpoint: Callable[[], bytes] | None = None
    """What it makes true."""


class Writer:
    """Writes the events of one run.

    Args:
        trunk: the log of the run tree.
        progress: the state of the run.
        clock: tells the time of what is written.
        parent_run_id: the run that it is nested in.
        path: the ids of the tool calls that lead from the root run to this one.
    """

    def __init__(
        self,
        trunk: Trunk,
        progress: RunProgress,
        clock: Clock,
        parent_run_id: str | None = None,
        path: tuple[str, ...] = (),
    ) -> None:
        self.trunk = trunk
        self.opened = Opened()
        self.error: BaseException | None = None
        """What the log said last when it did not take something."""
        self.has_written = False
        """Whether anything of the run stands in the log, of this time that it runs."""
        self.closed = False
        """Whether what comes now comes too late."""
        self._progress = progress
        self._clock = clock
        self._parent_run_id = parent_run_id
        self._path = path
        self._held: list[_Unwritten] | None = None
        self._holders: set[object] = set()
        self.hides = False
        """Whether nothing was written of what the model says since `hold`."""
        self.was_dropped = False
        """Whether something that the model said was held back, and then forgotten."""
        self.dropped: list[RunItem] = []
        """The items that were forgotten the last time."""

    async def write(self, events: Sequence[Event], checkpoint: Callable[[], bytes] | None = None) -> None:
        """Append `events` under one stamp, with the checkpoint that they make true: that of the moment of this call."""
        payloads: list[Payload] = list(events)
        self.seal(payloads)
        if payloads and not self.closed:
            await self._append(_Unwritten(self.stamp(), payloads, checkpoint=checkpoint))

    async def write_model_events(self, payloads: list[Payload], *, raw_only: bool, size: int) -> None:
        """Append what one read of the model's socket brought, `size` bytes of it."""
        if payloads and not self.closed:
            await self._append(_Unwritten(self.stamp(), payloads, raw_only, size))

    async def _append(self, each: _Unwritten) -> None:
        if self._held is not None:
            self._held.append(each)
        else:
            await self._take_and_put(each)

    async def _take_and_put(self, each: _Unwritten) -> None:
        batch = self.trunk.take(each.stamp, each.payloads, raw_only=each.raw_only, size=each.size)
        if each.checkpoint is not None:
            # It says where the log stands behind them: the places are taken first.
            batch = replace(batch, checkpoint=each.checkpoint())
        await self._put(batch)

    async def _put(self, batch: Batch) -> None:
        trunk = self.trunk
        try:
            await trunk.log.append(trunk.run_id, batch, epoch=trunk.epoch)
        except asyncio.CancelledError:
            await trunk.log.append(trunk.run_id, batch, epoch=trunk.epoch)
            self._written(batch)
            raise
        except BaseException as error:
            trunk.give_back(batch)
            self.error = error
            raise
        self._written(batch)

    def _written(self, batch: Batch) -> None:
        self.has_written = True
        if not batch.raw_only:
            self.opened.see(batch.payloads, batch.stamp.time)

    # --- holding back ----------------------------------------------------------------------

    @property
    def holds(self) -> bool:
        """Whether what is written waits."""
        return self._held is not None

    def held_items(self) -> list[RunItem]:
        """The items that wait."""
        held = self._held or []
        return [each.item for one in held for each in one.payloads if isinstance(each, RunItemStreamEvent)]

    def hold(self, by: object) -> None:
        """From here on what is written waits, in its order, until `release` by all who hold, or `drop`."""
        self._holders.add(by)
        if self._held is None:
            self._held = []
            self.hides = True

    async def let_out(self, by: object) -> None:
        """Write what waits, unless others hold it, and go on holding."""
        await self.release(by)
        self._holders.add(by)
        if self._held is None:
            self._held = []

    async def release(self, by: object) -> None:
        """Hold no longer: where nobody else does, write what waits."""
        self._holders.discard(by)
        while self._held and not self._holders:
            await self._take_and_put(self._held.pop(0))
        if not self._holders:
            self._held = None
            self.hides = False

    def drop(self) -> list[Event]:
        """Forget what the model said of what waits, and hold no longer; the other events that waited."""
        self._holders.clear()
        self.dropped = self.held_items()
        held, self._held = self._held or [], None
        self.was_dropped = self.was_dropped or bool(held)
        events: list[Event] = []
        for each in held:
            others = _others(each)
            self.opened.see(others, each.stamp.time)  # they are written, if elsewhere
            events += others
        return events

    def drop_try(self) -> None:
        """Forget what waits of a model call that is tried again, and go on holding."""
        if self._held is not None:
            self.hides = True
            self._held = [
                each._replace(payloads=list[Any](others)) for each in self._held if (others := _others(each))
            ]

    # --- the form --------------------------------------------------------------------------

    def seal(self, payloads: Sequence[Payload]) -> None:
        """Encode what a program could still change."""
        for event in payloads:
            if not isinstance(event, bytes) and event.type in _MUTABLE:
                bad = event.seal()
                codec.log_bad_fields(logger, bad, event.type, self._progress.run_id)
                for each in bad:
                    metrics.add(
                        metrics.BAD_FIELDS,
                        1,
                        {"millstream.event.type": event.type, "millstream.value.type": each.type},
                    )

    def stamp(self) -> Stamp:
        """The envelope of what is written now."""
        return self._stamp(self._clock.time())

    def last_stamp(self) -> Stamp:
        """The stamp of the end, which is written whatever the clock does."""
        try:
            return self.stamp()
        except Exception:
            known = self.opened.time
            return self._stamp(SYSTEM_CLOCK.time() if known is None else known)

    def _stamp(self, time: float) -> Stamp:
        progress = self._progress
        return Stamp(
            run_id=progress.run_id,
            agent=progress.current_agent.name,
            turn=progress.current_turn,
            depth=len(self._path),
            parent_run_id=self._parent_run_id,
            path=self._path,
            time=time,
        )


def _others(held: _Unwritten) -> list[Event]:
    """What waits besides the words of the model, and the end of a call that is not whole without them."""
    return [payload for payload in held.payloads if not isinstance(payload, _WORDS)]


_WORDS = (bytes, RawResponsesStreamEvent, RunItemStreamEvent, ModelCompleted)


_MUTABLE = frozenset(
    {
        "run.started",
        "run.paused",
        "run.completed",
        "run_item_stream_event",
        "tool.progress",
        "tool.partial",
        "guardrail.result",
        "input.added",
        "user.event",
    }
)
"""Events that carry values of the program's own; all others are made here and never change."""
