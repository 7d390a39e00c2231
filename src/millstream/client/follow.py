"""Following a run of a server: a cursor in its log that survives every connection it reads by.

Rules of this file:

1. The place of a cursor is a position, and nothing else. It comes back with that, and drops what it
   has seen: whatever is sent twice, is told once.
2. What came is given before trouble behind it is told, and before anybody waits for another try.
3. No task reads: a cursor that nobody asks holds a connection, and one that is let go of holds none.
4. Only the run ends its stream. A body that ends, or breaks off, is read on from another one.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec

from millstream import codec
from millstream.attach.source import LogSource
from millstream.client.answers import Request
from millstream.client.server import run_path
from millstream.client.tries import Failure, Tries
from millstream.errors import LogGapError
from millstream.events import RunPaused, Stamp
from millstream.log.form import payload_of
from millstream.log.promise import Batch, Cursor
from millstream.stream.filter import EVERYTHING

if TYPE_CHECKING:
    from millstream.attach.source import Until
    from millstream.client.server import EventStream, Server
    from millstream.client.sse import SseEvent
    from millstream.log.promise import Payload
    from millstream.stream.filter import EntryFilter

STEADY = 30.0
"""Seconds after which a connection has served its time, though a silent run gave it nothing to bring."""


class RemoteSource(LogSource):
    """A run of a server.

    Args:
        server: where the run is.
        run_id: the run.
        until: where its reader comes to its end.
        wanted: what the server need send.
    """

    def __init__(self, server: Server, run_id: str, until: Until, wanted: EntryFilter = EVERYTHING) -> None:
        super().__init__(run_id, until)
        self.server = server
        self.wanted = wanted

    def cursor(self, after: int) -> Cursor:
        """A cursor that asks the server when it is first asked for something."""
        return _RemoteCursor(self, after)

    async def first_held(self) -> int:
        """The first position that the server still holds."""
        try:
            await self.cursor(0).next()
        except LogGapError as gap:
            return gap.first
        return 1


class _RemoteCursor(Cursor):
    """A place in the log of a run of a server."""

    def __init__(self, source: RemoteSource, after: int) -> None:
        self._source = source
        self._after = after
        """The last position that came, or was passed over."""
        self._ready: deque[Batch] = deque()
        """What came and was not asked for yet."""
        self._stream: EventStream | None = None
        self._is_paused = False
        """Whether the run waits for decisions, as far as that came."""
        self._is_over = False
        self._tries = Tries(source.server.tries)
        self._again_at: float | None = None
        """When to ask the server again, where it has failed."""
        self._trouble: Exception | None = None
        """What to raise when everything that came is given."""

    async def next(self) -> Batch | None:
        while not self._ready:
            if self._trouble is not None:
                trouble, self._trouble = self._trouble, None
                raise trouble
            if self._is_over:
                return None
            if self._again_at is not None:
                clock = self._source.server.clock
                await clock.sleep(self._again_at - clock.monotonic())
                self._again_at = None
            await self._read()
        return self._give()

    def next_nowait(self) -> Batch | None:
        """What came already."""
        return self._give() if self._ready else None

    def _give(self) -> Batch:
        batch = self._ready.popleft()
        self._source.see(batch)
        return batch

    # --- reading -----------------------------------------------------------------------------

    async def _read(self) -> None:
        """Take in what one read brings; open a connection first, where there is none."""
        stream = self._stream
        try:
            if stream is None:
                stream = await self._open()
                if stream is None:
                    self._is_over = True
                    return
                self._stream = stream
            events = await stream.next()
            if events is None:
                await self._ended()
            else:
                for event in events:
                    self._take(event)
        except Failure as failure:
            self._fail(failure)
        except BaseException:  # cancelled, which has closed it: whoever asks again opens another one
            self._stream = None
            raise
        if self._is_over or self._stream is None or self._trouble is not None:
            self._stream = None
            if stream is not None:
                await stream.aclose()

    async def _open(self) -> EventStream | None:
        source = self._source
        query: dict[str, Any] = {}
        if source.until == "pause":
            query["until"] = "pause"
        if source.wanted.depth is not None:
            query["depth"] = source.wanted.depth
        if source.wanted.types is not None:
            query["types"] = ",".join(sorted(source.wanted.types))
        return await source.server.stream(
            Request(
                method="GET",
                path=run_path(source.run_id, "/events"),
                query=query,
                run_id=source.run_id,
                after=self._after,
            )
        )

    async def _ended(self) -> None:
        """The body came to its end, and the run has not, as far as that came."""
        source = self._source
        if source.until == "pause":
            if not self._is_paused:  # who begins behind a pause is sent nothing, and that is all
                asked = Request(method="GET", path=run_path(source.run_id), run_id=source.run_id)
                record = await source.server.ask(asked)
                self._is_paused = record.get("status") == "paused" and record.get("position") == self._after
            if self._is_paused:
                self._is_over = True
                return
        raise Failure("it ended its stream before the run had ended")

    def _fail(self, failure: Failure) -> None:
        """Have the server asked again in a while; or give up."""
        server, stream, tries = self._source.server, self._stream, self._tries
        if stream is not None:
            if server.clock.monotonic() - stream.opened >= STEADY:
                tries.progress()
            if stream.retry is not None:
                tries.pause = stream.retry
        self._stream = None
        wait = tries.after(failure)
        if wait is not None:
            self._again_at = server.clock.monotonic() + wait
            return
        what = f"Following run {self._source.run_id} from behind position {self._after}"
        self._trouble = server.unreachable(what, failure, tries.failed)
        self._trouble.__cause__ = failure.__cause__
        tries.progress()  # whoever asks in spite of that has as many tries again

    # --- what came ---------------------------------------------------------------------------

    def _take(self, event: SseEvent) -> None:
        if self._trouble is not None or self._is_over:
            return
        try:
            told = _read(event.data)
            line = bytes(told.event)
            if line:
                self._entry(told, payload_of(_clean(line)))
            else:
                self._message(told)
        except Failure:
            raise
        except Exception as error:  # a proxy, or another server, may have put anything there
            raise Failure("it sent what is no event of a run") from error

    def _entry(self, told: _Told, payload: Payload) -> None:
        position, source = told.position, self._source
        if position <= self._after:
            return  # seen already
        if position != self._after + 1 and source.wanted == EVERYTHING:
            raise Failure(f"it left out position {self._after + 1}")
        self._passed(position)
        is_own = told.run_id == source.run_id
        self._is_paused = is_own and isinstance(payload, RunPaused)
        last, stamp = self._ready[-1] if self._ready else None, told.stamp
        if last is not None and last.last + 1 == position and last.stamp == stamp:
            last.payloads.append(payload)
        else:
            last = Batch(position, stamp, [payload])
            self._ready.append(last)
        self._is_over = last.ends(source.run_id)

    def _message(self, told: _Told) -> None:
        """What is said of the stream itself. Messages that a later version may have are passed over."""
        if told.type == "stream.position" and told.position > self._after:
            self._passed(told.position)
            self._is_paused = False
        elif told.type == "stream.gap":
            self._trouble = LogGapError(self._source.run_id, told.requested, told.first)
        elif told.type == "stream.error":
            error_id = f", {told.error_id} in its log" if told.error_id else ""
            raise Failure(f"it ended its stream with an error ({told.code}{error_id})", reason=told.code)

    def _passed(self, position: int) -> None:
        self._after = position
        self._tries.progress()


class _Told(msgspec.Struct):
    """One message of a stream: an entry where it has an event, else what it says of the stream."""

    position: int = 0
    event: msgspec.Raw = msgspec.Raw()
    run_id: str = ""
    agent: str = ""
    turn: int = 0
    depth: int = 0
    parent_run_id: str | None = None
    time: float = 0.0
    path: tuple[str, ...] = ()
    type: str = ""
    requested: int = 0
    first: int = 0
    code: str = ""
    error_id: str | None = None

    @property
    def stamp(self) -> Stamp:
        """What an entry shares with those that were written with it."""
        return Stamp(self.run_id, self.agent, self.turn, self.depth, self.parent_run_id, self.time, self.path)


_read = msgspec.json.Decoder(_Told).decode


def _clean(line: bytes) -> bytes:
    return line if codec.is_clean(line) else codec.clean(line)
