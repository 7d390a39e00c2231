"""Readers: cursors in the log of a run that give one thing at a time, each what it is for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

from millstream import raw
from millstream.errors import LogBrokenError, UserError
from millstream.event_loops import call_on
from millstream.events import Entry, Event, RawResponsesStreamEvent, StreamEvent
from millstream.log.promise import live
from millstream.stream.arguments import ToolArguments, ToolArgumentsDelta
from millstream.stream.filter import EVERYTHING, EntryFilter
from millstream.stream.order import EventOrder
from millstream.stream.partial import PartialOutput
from millstream.stream.text import text_delta

if TYPE_CHECKING:
    from millstream.log.promise import Batch, Cursor, Payload
    from millstream.result.source import Source

ENTRIES_AT_ONCE = 500
"""About how many entries a reader of them takes from the log in one go."""
_TOGETHER = 64
"""Raw events whose data is made in one: enough to halve what it costs, few enough to be a matter of
50 us and 100 KB."""


class Reader:
    """A cursor in a run's log that gives one thing at a time.

    Args:
        source: the run, made for this reader.
        after: the position behind which it begins.
    """

    __slots__ = (
        "__weakref__",
        "_batch",
        "_bound",
        "_cursor",
        "_place",
        "_ready",
        "_source",
        "_waiting",
        "_woken",
    )

    _holds = False
    """Whether the run may have to wait for it (`millstream.run.readers`)."""
    _raises = True
    """Whether it raises at its end what the run failed with."""

    def __init__(self, source: Source, after: int = 0) -> None:
        self._source = source
        self._cursor: Cursor | None = source.cursor(after)
        self._ready: list[Any] = []
        """What is at hand, what comes next last."""
        self._batch: Batch | None = None
        self._bound = True
        self._waiting: asyncio.Task[Any] | None = None
        """The task that waits for what comes next."""
        self._woken = False
        """Whether that wait was cut off, because the reader was closed meanwhile."""
        self._place = source.attach(self, after)

    def __aiter__(self) -> Any:
        return self

    @property
    def has_more(self) -> bool:
        """Whether the next thing is at hand, so that asking for it will not wait."""
        return bool(self._ready)

    def unbind(self) -> None:
        """Begin, in the caller's context, and belong to no task; for a reader that is driven from outside its loop."""
        self._bound = False
        self._source.begin(self._place, holds=self._holds)

    async def aclose(self) -> None:
        """Leave the stream; whoever waits for its next comes to its end. The run goes on."""
        self._close()
        task = self._waiting
        if task is None:
            return
        loop = task.get_loop()
        call_on(loop, self._wake, task)

    def _wake(self, task: asyncio.Task[Any]) -> None:
        if self._waiting is task and not self._woken:
            self._woken = True
            task.cancel()  # as `asyncio.timeout` does it: `_refill` takes it back

    def _close(self) -> None:
        self._ready = []
        self._cursor = None
        self._source.detach(self)

    async def _refill(self) -> None:
        """Put what comes next into `_ready`.

        Raises:
            StopAsyncIteration: the run is over, or the reader was closed.
            UserError: another task waits for this reader's next.
        """
        place, source = self._place, self._source
        if place.asks:
            raise UserError(
                "This reader is being iterated already. Any number of readers may read a run: "
                "give each task one of its own."
            )
        source.look_after()
        self._ready = []
        while not self._ready:
            cursor, batch = self._cursor, self._batch
            if cursor is None:
                raise StopAsyncIteration
            if batch is not None:
                place.taken = batch.last
                place.taken_bytes += batch.size
                self._batch = None
            ends_at = source.ends_at
            if ends_at is not None and place.taken >= ends_at:
                await source.settled()
                if source.ends_at == ends_at:  # a run that paused may have been stopped in that moment
                    await self._is_over()
                continue
            source.ask(place, holds=self._holds, bound=self._bound)
            task = self._waiting = asyncio.current_task()
            cancelling = 0 if task is None else task.cancelling()
            try:
                batch = await self._next(cursor)
            except asyncio.CancelledError:
                if self._woken and task is not None and task.uncancel() <= cancelling:
                    raise StopAsyncIteration from None
                raise  # also where both came: the reader was closed and its task cancelled
            finally:
                self._waiting = None
                source.answer(place)
            if self._cursor is None:  # closed while it waited
                raise StopAsyncIteration
            if batch is None:
                await self._is_over()
            self._batch = batch
            self._ready = self._look(batch)[::-1]

    async def _is_over(self) -> NoReturn:
        """Come to the end."""
        await self._source.settled()
        if self._cursor is not None:  # not closed while it waited
            self._end()
        raise StopAsyncIteration

    async def _next(self, cursor: Cursor) -> Batch | None:
        try:
            return await cursor.next()
        except LogBrokenError as broken:
            return await self._source.beyond(broken, self._place.taken)

    def _look(self, batch: Batch) -> list[Any]:
        """What `batch` gives."""
        raise NotImplementedError

    def _end(self) -> None:
        self._source.seen()  # first: the last reader that leaves unseen is told of in the log
        self._close()
        if self._raises:
            self._source.raise_failure()


class EventReader(Reader):
    """Gives the events of `stream_events()`."""

    __slots__ = ("_order", "_probe")

    _holds = True

    def __init__(self, source: Source, order: EventOrder, after: int = 0) -> None:
        super().__init__(source, after)
        self._order = order
        self._probe: RawResponsesStreamEvent | None = None
        """The last raw event that was given with its data still to be made."""

    async def __anext__(self) -> StreamEvent:
        if not self._ready:
            await self._refill()
        payload = self._ready.pop()
        if payload.__class__ is not bytes:
            return payload
        probe = self._probe
        if self._ready and probe is not None and probe.has_data:
            return self._with_those_behind(payload)
        event = self._probe = RawResponsesStreamEvent.from_wire(payload)
        return event

    def _with_those_behind(self, json: bytes) -> RawResponsesStreamEvent:
        """The event of `json`, made in one with some of the next: who looked at the data of one will look at theirs.

        The furthest of these is left without, so that it tells whether to go on like that.
        """
        ready = self._ready
        furthest, *nearer = ready[-_TOGETHER:]
        events = _with_data([*nearer, json])
        last = live(furthest)
        self._probe = last if isinstance(last, RawResponsesStreamEvent) else None
        ready[-len(events) :] = [last, *events[:-1]]
        return cast("RawResponsesStreamEvent", events[-1])

    def _look(self, batch: Batch) -> list[Payload]:
        if batch.stamp.run_id != self._source.run_id:
            return []
        if batch.raw_only:
            return batch.payloads
        order = self._order
        ready: list[Payload] = []
        for payload in batch.payloads:
            if payload.__class__ is bytes:
                ready.append(payload)
            else:
                ready.extend(order.feed(cast("Any", payload)))
        return ready


def _with_data(payloads: list[Payload]) -> Sequence[Event]:
    """The events of `payloads`, with their data where they are so alike that it can be made in one."""
    if set(map(type, payloads)) == {bytes}:
        jsons = cast("list[bytes]", payloads)
        data = raw.decode_alike(jsons)
        if data is not None:
            return RawResponsesStreamEvent.all_from_wire(jsons, data)
    return [live(payload) for payload in payloads]


class EntryReader(Reader):
    """Gives the entries of the run, and of those nested in it."""

    __slots__ = ("_wanted",)

    _raises = False

    def __init__(self, source: Source, after: int = 0, wanted: EntryFilter = EVERYTHING) -> None:
        super().__init__(source, after)
        self._wanted = wanted

    async def __anext__(self) -> Entry:
        if not self._ready:
            await self._refill()
        entry = self._ready.pop()
        return entry

    def _look(self, batch: Batch) -> list[Entry]:
        entries = list(batch.entries(self._place.taken))
        # What else is written is taken with it: who sends entries on sends them in one piece.
        cursor, ends_at = self._cursor, self._source.ends_at
        while cursor is not None and len(entries) < ENTRIES_AT_ONCE:
            if ends_at is not None and entries and entries[-1].position >= ends_at:
                break  # what comes behind a pause is another handle's
            more = cursor.next_nowait()
            if more is None:
                break
            entries.extend(more.entries())
            self._batch = more
        if self._wanted == EVERYTHING and not self._source.path:
            return entries
        return [entry for entry in entries if self._takes(entry)]

    def _takes(self, entry: Entry) -> bool:
        path = self._source.path  # a nested run has its root's log, and shows of it what is its own
        return entry.path[: len(path)] == path and self._wanted.takes(entry)


def wanted(after: int, *, depth: int | None, types: Iterable[str] | None) -> EntryFilter:
    """What a caller of `entries()` asks for, when it was checked.

    Raises:
        UserError: `after` is negative, `depth` is no number of levels, or there is no such type.
    """
    if after < 0:
        raise UserError(f"entries(after={after}): positions count from 1; after=0 reads from the start.")
    return EntryFilter.of("entries()", depth=depth, types=types)


class TextReader(Reader):
    """Gives the text deltas of the run itself."""

    __slots__ = ()

    async def __anext__(self) -> str:
        if not self._ready:
            await self._refill()
        delta = self._ready.pop()
        return delta

    def _look(self, batch: Batch) -> list[str]:
        if batch.stamp.run_id != self._source.run_id:
            return []
        return [delta for payload in batch.payloads if (delta := text_delta(payload))]


class ToolArgumentsReader(Reader):
    """Gives the arguments of the tool calls of the run itself, as they form."""

    __slots__ = ("_arguments",)

    def __init__(self, source: Source, after: int = 0) -> None:
        super().__init__(source, after)
        self._arguments = ToolArguments()

    async def __anext__(self) -> ToolArgumentsDelta:
        if not self._ready:
            await self._refill()
        delta = self._ready.pop()
        return delta

    def _look(self, batch: Batch) -> list[ToolArgumentsDelta]:
        if batch.stamp.run_id != self._source.run_id:
            return []
        return self._arguments.feed(batch.payloads)


class PartialReader(Reader):
    """Gives the output of the run itself as it forms, and at last as it is."""

    __slots__ = ("_output",)

    def __init__(self, source: Source, output: PartialOutput, after: int = 0) -> None:
        super().__init__(source, after)
        self._output = output

    async def __anext__(self) -> Any:
        if not self._ready:
            await self._refill()
        value = self._ready.pop()
        return value

    def _look(self, batch: Batch) -> list[Any]:
        return [] if batch.stamp.run_id != self._source.run_id else self._output.feed(batch.payloads)
