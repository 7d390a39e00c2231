"""A stream that tells when it was sent: by when it arrives, a client finds out what stands between.

It says nothing of anybody's runs, and goes the way of every stream: the same headers, the same
writes, the same heartbeats, a place among those of its caller. It ends by itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from starlette.routing import WebSocketRoute

from millstream import codec
from millstream.clock import time_limit
from millstream.delivery.frame import Message
from millstream.server.streaming import Streamed

if TYPE_CHECKING:
    from starlette.responses import Response

    from millstream.clock import Clock
    from millstream.server.endpoint import Asked


class Probing(msgspec.Struct):
    """What a probe sends. It lasts as long as this says, and never longer than six minutes."""

    frames: Annotated[int, msgspec.Meta(ge=1, le=20)] = 5
    """Frames, the last one aside."""
    every: Annotated[int, msgspec.Meta(ge=0, le=2_000)] = 100
    """Milliseconds from one to the next."""
    silence: Annotated[int, msgspec.Meta(ge=0, le=300_000)] = 0
    """Milliseconds between them and the last one, in which only heartbeats are sent."""
    heartbeat: Annotated[int, msgspec.Meta(ge=50, le=60_000)] | None = None
    """Milliseconds from one heartbeat to the next; as of every stream, where this is left out."""


class ProbeHeaders(msgspec.Struct):
    """What is told back, so that a client sees whether it arrived."""

    last_event_id: Annotated[str, msgspec.Meta(max_length=100)] | None = msgspec.field(
        name="Last-Event-ID", default=None
    )
    """Anything."""


class ProbeFrame(msgspec.Struct, kw_only=True, tag_field="type", tag="stream.probe"):
    """One frame of a probe. It has no position."""

    number: int
    """Counts from 1."""
    ms: int
    """Milliseconds since the answer began, by the server's monotonic clock."""
    time: float
    """Seconds since the epoch, by the server's wall clock."""
    heartbeats: int
    """How many were sent so far."""
    is_last: bool
    """True of one frame only."""
    heartbeat: float
    """Seconds between two heartbeats of the server's other streams."""
    last_event_id: str | None
    """The header, as it arrived."""
    websocket: str | None
    """Where the server's WebSocket is, behind the path that it is mounted at."""


async def probe(asked: Asked[None, Probing, ProbeHeaders]) -> Response:
    """A stream that tells when it was sent, to see when it arrives: frames at intervals, silence with heartbeats, one last frame."""
    service = asked.service
    routes: list[Any] = asked.request.app.routes
    facts = {
        "heartbeat": service.heartbeat,
        "last_event_id": asked.headers.last_event_id,
        "websocket": next((each.path for each in routes if isinstance(each, WebSocketRoute)), None),
    }
    own = service.heartbeat if asked.query.heartbeat is None else asked.query.heartbeat / 1000
    return Streamed(ProbeFeed(asked.query, own, facts, service.clock), asked.caller, service)


class ProbeFeed:
    """The messages of one probe, given as a `Feed` gives those of a run.

    Args:
        wanted: what is to be sent.
        heartbeat: seconds between two heartbeats.
        facts: what else each frame tells.
        clock: by which it is sent.
    """

    run_id = "(none: a probe)"

    def __init__(self, wanted: Probing, heartbeat: float, facts: dict[str, Any], clock: Clock) -> None:
        self._wanted = wanted
        self._heartbeat = heartbeat
        self._facts = facts
        self._clock = clock
        self._began = clock.monotonic()
        self._steps = self._planned()
        self._number = 0
        self._heartbeats = 0
        self._closed = asyncio.Event()
        self.is_over = False

    async def next(self) -> list[Message] | None:
        """The next frame, or an empty list for a heartbeat, when it is due; None at the end."""
        wait, is_frame = next(self._steps, (0.0, False))
        if self.is_over or await self._is_closed_within(wait):
            self.is_over = True
            return None
        if not is_frame:
            self._heartbeats += 1
            return []
        self._number += 1
        self.is_over = self._number > self._wanted.frames
        return [self._frame()]

    async def aclose(self) -> None:
        """Come to the end, also for who waits."""
        self.is_over = True
        self._closed.set()

    def _planned(self) -> Generator[tuple[float, bool]]:
        """How long to wait for each thing that is sent, and whether it is a frame."""
        yield 0.0, True
        for _ in range(self._wanted.frames - 1):
            yield self._wanted.every / 1000, True
        left = self._wanted.silence / 1000
        while left > self._heartbeat:
            yield self._heartbeat, False
            left -= self._heartbeat
        yield left, True

    async def _is_closed_within(self, seconds: float) -> bool:
        if seconds <= 0:
            await asyncio.sleep(0)
            return self._closed.is_set()
        try:
            async with time_limit(self._clock, seconds, _DueError()):
                return await self._closed.wait()
        except _DueError:
            return False

    def _frame(self) -> Message:
        frame = ProbeFrame(
            number=self._number,
            ms=round((self._clock.monotonic() - self._began) * 1000),
            time=self._clock.time(),
            heartbeats=self._heartbeats,
            is_last=self.is_over,
            **self._facts,
        )
        return Message(codec.encode(msgspec.to_builtins(frame)), "stream.probe")


class _DueError(Exception):
    """It is time for what comes next."""
