"""Connections: one to each MCP server from each event loop, owned by a task of its own.

The `mcp` package holds a connection open by task groups, which only the task that entered them
may leave. So each connection has a task that does nothing else: it opens, waits until nobody
wants the connection any more or it breaks, and closes. Whoever calls a tool may come from any
task and any context, be cancelled, or leave; the owner is not theirs. Neither is a request: it
has a task too, so that one who is cancelled goes at once while the server is told that nobody
waits any more.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from millstream.clock import SYSTEM_CLOCK
from millstream.event_loops import call_on, is_running_on, wake
from millstream.mcp.trouble import reason

if TYPE_CHECKING:
    from mcp import Client

T = TypeVar("T")

Streams: TypeAlias = tuple[Any, Any]
"""What a transport gives: a stream of messages to read, and one to write."""

OpenClient: TypeAlias = Callable[
    [AbstractAsyncContextManager[Streams]], "AbstractAsyncContextManager[Client]"
]
"""Makes of a transport the client that talks over it."""

LAST_WAIT = 10.0
"""Seconds that a connection has to close: a server that does not end is killed by then."""

logger = logging.getLogger("millstream")


class ConnectionLostError(Exception):
    """The connection ended before the answer to a request was there.

    Attributes:
        did_nothing: surely the server did not act on the request.
    """

    def __init__(self, message: str, *, did_nothing: bool = False) -> None:
        super().__init__(message)
        self.did_nothing = did_nothing


class Connection:
    """One connection, from its opening to its end. Made on the loop that it belongs to.

    Args:
        name: the server's, for the log.
        transport: opens the way to the server.
        client: makes the client of it.
    """

    def __init__(
        self, name: str, transport: AbstractAsyncContextManager[Streams], client: OpenClient
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self._name = name
        self._client: Client | None = None
        self._ready: asyncio.Future[None] = self.loop.create_future()
        self._leave: asyncio.Future[None] = self.loop.create_future()
        self._is_lost = False
        self._error: Exception | None = None
        self.is_suspect = False
        """A request took too long, and nothing came from the server since."""
        # In a context of its own: it outlives the run that wanted it first, and its trace and clock.
        self._owner = _Owner(
            self._own(client(_heard(transport, self))), loop=self.loop, context=contextvars.Context()
        )
        _quiet(self._owner)
        _open.add(self)  # the loop holds tasks weakly
        self._owner.add_done_callback(self._ended)

    @property
    def is_usable(self) -> bool:
        """Whether requests may be made, now or as soon as it is open."""
        return not (self._leave.done() or self._owner.done() or self.loop.is_closed())

    async def opened(self) -> None:
        """Return when it is open. Who is cancelled here does not stop the opening.

        Raises:
            Exception: what went wrong instead.
        """
        await asyncio.wait((self._ready, self._owner), return_when=asyncio.FIRST_COMPLETED)
        if self._client is None:
            raise self._error or ConnectionLostError("It was closed while it was being opened.")

    async def ask(self, request: Callable[[Client], Awaitable[T]]) -> T:
        """The answer to a request. Who is cancelled here goes at once; the server is told soon.

        Raises:
            ConnectionLostError: the connection ended meanwhile.
            Exception: what `request` raised.
        """
        if self._client is None or not self.is_usable:
            raise ConnectionLostError("It is not open.", did_nothing=True)
        call = self.loop.create_task(_await(request(self._client)))
        _quiet(call)
        try:
            await asyncio.wait((call, self._owner), return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            call.cancel()
            raise
        if call.done() and not call.cancelled():
            error = call.exception()
            if error is None or self.is_usable:
                return call.result()
        call.cancel()
        raise ConnectionLostError("It ended before the answer came.")

    def leave(self) -> None:
        """Let it end, soon. Safe in any thread, and twice."""
        call_on(self.loop, self._let_go)

    async def close(self) -> None:
        """Let it end, and wait until it has; on the loop of another thread it ends without being waited for."""
        self.leave()
        if is_running_on(self.loop):
            timer = SYSTEM_CLOCK.call_later(LAST_WAIT, self._owner.give_up)
            try:
                await asyncio.wait((self._owner,))
            finally:
                timer.cancel()

    def _let_go(self) -> None:
        wake(self._leave)
        if not self._ready.done():
            self._owner.cancel()

    def heard(self) -> None:
        """Something came from the server: it lives."""
        self.is_suspect = False

    def lost(self) -> None:
        """Nothing more will come from the server."""
        if not self._leave.done():
            self._is_lost = True
            wake(self._leave)

    async def _own(self, client: AbstractAsyncContextManager[Client]) -> None:
        try:
            async with client as self._client:
                wake(self._ready)
                try:
                    await self._leave
                finally:
                    self._owner.is_closing = True
        except Exception as error:
            self._error = error
            self._is_lost = not self._leave.done() or self._is_lost
            logger.debug("MCP server %r: the connection ended by an error", self._name, exc_info=True)
        finally:
            wake(self._leave)  # also where this task is cancelled: nobody may use it from here on
        if self._is_lost and self._ready.done():
            logger.warning(
                "MCP server %r: the connection was lost (%s); the next call connects again",
                self._name,
                "the server ended it" if self._error is None else reason(self._error),
            )

    def _ended(self, owner: asyncio.Task[None]) -> None:
        _open.discard(self)


class _Owner(asyncio.Task[None]):
    """The task of a connection. What it does to close is not interrupted by a loop that ends meanwhile.

    A loop that ends cancels every task once, and waits for it. Where that came while a server was
    being ended, the `mcp` package would leave the server running, and wait for ever for what it says.
    """

    is_closing = False

    def cancel(self, msg: Any | None = None) -> bool:
        # The scopes of `anyio`, which the closing has time limits of, cancel with a message.
        return False if self.is_closing and msg is None else super().cancel(msg)

    def give_up(self) -> None:
        """Interrupt it, whatever it does."""
        super().cancel()


class Connections:
    """The connections to one server, by event loop: none outlives its loop."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, Connection] = {}

    def here(self, connect: Callable[[], Connection]) -> Connection:
        """The connection of the loop that runs here, opened by `connect` where there is none to be used."""
        for loop in list(self._by_loop):  # which loops in other threads may add to meanwhile
            if loop.is_closed() and (left := self._by_loop.pop(loop, None)) is not None:
                _open.discard(left)
        loop = asyncio.get_running_loop()
        connection = self._by_loop.get(loop)
        if connection is None or not connection.is_usable:
            connection = self._by_loop[loop] = connect()
        return connection

    async def close(self) -> None:
        """End all of them; wait for that of this loop."""
        connections = list(self._by_loop.values())
        self._by_loop.clear()
        for connection in connections:
            connection.leave()
        for connection in connections:
            await connection.close()

    def leave(self) -> None:
        """End all of them, soon. Safe in any thread."""
        for connection in list(self._by_loop.values()):
            connection.leave()


_open: set[Connection] = set()


async def _await(awaitable: Awaitable[T]) -> T:
    return await awaitable


def _quiet(task: asyncio.Task[Any]) -> None:
    """Let a task that is left with its loop say nothing, and whoever waits for it have its exception."""
    task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
    task.add_done_callback(lambda task: task.cancelled() or task.exception())


@asynccontextmanager
async def _heard(
    transport: AbstractAsyncContextManager[Streams], connection: Connection
) -> AsyncGenerator[Streams]:
    async with transport as (incoming, outgoing, *_):
        yield _Incoming(incoming, connection), outgoing


class _Incoming:
    """The messages of a server; tells its connection of each, and when there will be no more.

    The `mcp` package tells nobody that a server has gone, only those who wait for an answer.
    """

    def __init__(self, stream: Any, connection: Connection) -> None:
        self._stream = stream
        self._connection = connection

    @property
    def last_context(self) -> contextvars.Context | None:
        return getattr(self._stream, "last_context", None)

    async def receive(self) -> Any:
        try:
            message = await self._stream.receive()
        except BaseException:
            self._connection.lost()
            raise
        self._connection.heard()
        return message

    def __aiter__(self) -> _Incoming:
        return self

    async def __anext__(self) -> Any:
        try:
            message = await anext(self._stream)
        except BaseException:
            self._connection.lost()
            raise
        self._connection.heard()
        return message

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def __aenter__(self) -> _Incoming:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()
