"""The server over one WebSocket: runs are begun, followed, stopped, decided over and given input, as over HTTP.

Rules of this file:

1. Who may, and whose page it is, is asked before the connection is accepted.
2. Each command has one answer: `command.done`, `command.error` or `pong`, with the `id` that the command has,
   if any. The next is read when this one is answered.
3. One run is followed at a time. Between the answer to the command that follows it and that of the next one
   that begins, changes or ends what is followed, all entries and all `stream.…` messages are of that run's
   stream. A command that is refused changes nothing.
4. The messages of a run are those of its stream over HTTP, byte for byte.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from millstream.attach import AttachedRun
from millstream.delivery.frame import error_message
from millstream.delivery.leaving import TookNothingError, break_off, first_of, log_let_go
from millstream.delivery.line import RESTARTS, GoneError, Line
from millstream.errors import ServerStoppingError
from millstream.server import commands, messages
from millstream.server.answers import ProblemError, invalid, problem_answer, problem_fields, problem_of
from millstream.server.reading import caller_of, record_of
from millstream.server.routes.acting import Accepted, Decided

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.websockets import WebSocket

    from millstream.delivery.feed import Feed
    from millstream.log.store import RunRecord
    from millstream.server.service import Service

PATH = "/ws"
SUBPROTOCOL = "millstream"
"""Chosen where a client offers it. A page has no other way to tell an access hook a token in its handshake."""


def endpoint(service: Service) -> Callable[[WebSocket], Awaitable[None]]:
    """What serves each connection, to its end."""

    async def serve(websocket: WebSocket) -> None:
        with contextlib.ExitStack() as place:
            try:
                session = await _let_in(websocket, service)
                place.enter_context(service.connected(session, session.caller))
            except Exception as error:
                await _refuse(websocket, error)
            else:
                await session.serve()

    return serve


async def _let_in(websocket: WebSocket, service: Service) -> _Session:
    """The session of a client who may have one.

    Raises:
        ProblemError: he may not, or asks for something that there is not.
        ServerStoppingError: nobody is let in any more.
        LogError: the store cannot be used.
    """
    await service.start()
    caller = await caller_of(websocket, service)
    if service.is_stopping:
        raise ServerStoppingError("This server is stopping and takes no connections.")
    close: Any = websocket.query_params.get("close")
    if close not in (None, "end"):
        raise ProblemError(invalid("close", '"end", or left out'))
    return _Session(websocket, service, caller, closes=close == "end")


async def _refuse(websocket: WebSocket, error: Exception) -> None:
    """Answer the handshake as a request is answered that cannot be done; without words, where the HTTP server has no way for them."""
    response = problem_answer(*problem_of(error, f"WebSocket {websocket.url.path}"))
    with contextlib.suppress(Exception):  # of one who is gone, each framework has a class of its own
        if "websocket.http.response" in websocket.scope.get("extensions", {}):
            await websocket.send_denial_response(response)
        else:
            await websocket.close()


@dataclass
class _Followed:
    """A run that is followed."""

    run: AttachedRun
    feed: Feed
    stops: bool
    """Whether the run is stopped where its client is gone before its end."""
    is_left: bool = False
    """Whether it was followed no longer before all was told."""
    is_told: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when nothing more is sent of it."""

    async def leave(self) -> None:
        """Let nothing more be sent of it than what is on its way; the run goes on."""
        self.is_left = self.is_left or not self.feed.is_over
        await self.feed.aclose()


class _Session:
    """One connection of one caller.

    Args:
        websocket: not accepted yet.
        service: the server.
        caller: who is at the other end.
        closes: whether the connection is closed when all is told of the first run that is followed.
    """

    def __init__(self, websocket: WebSocket, service: Service, caller: str, *, closes: bool) -> None:
        self._websocket = websocket
        self._line = Line(websocket, clock=service.clock, send_timeout=service.send_timeout)
        self._service = service
        self.caller = caller
        self._closes = closes
        self._followed: _Followed | None = None
        self._run_id: str | None = None
        """The run that a command is about which names none."""
        self._changed = asyncio.Event()
        """Set when something is to be told."""

    async def serve(self) -> None:
        """Serve the client until one of the two leaves."""
        loop = asyncio.get_running_loop()
        try:
            await self._line.within_time(lambda: self._websocket.accept(_subprotocol(self._websocket)))
            telling = loop.create_task(self._tell())
            await first_of(telling, loop.create_task(self._line.hear(self._obey)))
            await self._line.close(telling.result())
        except GoneError:
            pass
        except TookNothingError:
            log_let_go(self._run_id, self._service.send_timeout, "websocket")
            await break_off(self._websocket.scope)
        finally:
            await self._end()

    async def aclose(self) -> None:
        """Tell the client that the server stops, and close. Safe to call twice."""
        if self._followed is not None:
            await self._followed.leave()
        self._changed.set()

    async def _end(self) -> None:
        """Leave what is followed, and stop it where its client wished that."""
        followed = self._followed
        if followed is None:
            return
        stops = followed.stops and not followed.feed.is_over and not self._service.is_stopping
        await followed.feed.aclose()
        if stops:
            try:
                await followed.run.cancel()
            except Exception as error:  # its client is gone, so that only the log can be told
                problem_of(error, f"run {followed.run.run_id}: stopping it behind its client")

    # --- telling -----------------------------------------------------------------------------

    async def _tell(self) -> int:
        """Send the runs that are followed, one after the other. Returns the code to close with."""
        while not self._service.is_stopping:
            await self._changed.wait()
            self._changed.clear()
            followed = self._followed
            if followed is not None:
                with self._service.reading(followed.feed, "websocket"):
                    code = await self._line.send_all(followed.feed)
                followed.is_told.set()
                if self._closes and not followed.is_left:
                    return code
        if self._followed is not None and self._followed.is_left:
            position = self._followed.feed.passed
            await self._line.send(error_message("stopping", ServerStoppingError.public, position))
        return RESTARTS

    async def _follow(self, run_id: str, feed: Feed, *, stops: bool = False) -> None:
        """Follow a run in place of what was followed; told of when `_changed` is set."""
        await self._unfollow()
        self._followed = _Followed(AttachedRun(run_id, self._service.store), feed, stops)
        self._run_id = run_id

    async def _unfollow(self) -> None:
        """Follow nothing more; returns when all is sent that was on its way."""
        followed = self._followed
        if followed is not None:
            await followed.leave()
            await followed.is_told.wait()
            self._followed = None

    # --- hearing -----------------------------------------------------------------------------

    async def _obey(self, data: str | bytes) -> None:
        """Do what the client says, and answer it."""
        called: messages.Id = None
        before = self._followed
        try:
            plain = messages.object_in(data, self._service.max_body)
            called = messages.id_in(plain)
            kind, fields = await self._done(messages.command_in(plain))
        except Exception as error:
            problem = problem_of(error, f"WebSocket {self._websocket.url.path}")
            kind, fields = "command.error", problem_fields(*problem)
        await self._line.send(messages.message(kind, called, fields))
        if self._followed is not before:
            self._changed.set()

    async def _done(self, said: messages.Command) -> tuple[str, dict[str, Any]]:
        """Do what the client says; the type and the fields of the answer."""
        service = self._service
        match said:
            case messages.Ping():
                return "pong", {}
            case messages.Start():
                record = await commands.start(service, self.caller, said, said.idempotency_key)
                if said.stream:
                    feed = commands.feed_of(service, record, commands.Follow())
                    await self._follow(record.run_id, feed, stops=said.on_disconnect == "cancel")
                done = messages.Following.of(record, is_followed=said.stream)
            case messages.Follow():
                record = await self._record(said.run_id)
                feed = await commands.follow(service, record, said)
                await self._follow(record.run_id, feed or commands.feed_of(service, record, said))
                done = messages.Following.of(record, is_followed=feed is not None)
            case messages.Unfollow():
                done = messages.Unfollowed(self._run_id)
                await self._unfollow()
                self._run_id = None
            case messages.Cancel():
                record = await self._record(said.run_id)
                await commands.cancel(service, record, said)
                done = Accepted(record.run_id)
            case messages.Decide():
                record = await self._record(said.run_id)
                done = Decided(record.run_id, await commands.decide(service, record, said))
            case messages.Input():
                record = await self._record(said.run_id)
                await commands.give_input(service, record, said)
                done = Accepted(record.run_id)
        return "command.done", {"command": said.__struct_config__.tag} | msgspec.to_builtins(done)

    async def _record(self, run_id: str | None) -> RunRecord:
        """The record of the run that a command is about.

        Raises:
            ProblemError: it names none, and none was followed.
            UnknownRunError: as `record_of`.
        """
        run_id = self._run_id if run_id is None else run_id
        if run_id is None:
            raise ProblemError(invalid("run_id", "given, where no run is followed"))
        return await record_of(run_id, self._service.store, self.caller)


def _subprotocol(websocket: WebSocket) -> str | None:
    offered: list[str] = websocket.scope.get("subprotocols", [])
    return SUBPROTOCOL if SUBPROTOCOL in offered else None
