# pyright: reportPrivateUsage=false
"""How a request goes out through an `AsyncOpenAI`, and how its answer is read.

The client does what it is there for: key, base URL, headers, Azure routing, retries, and
its own errors for connections and statuses. What it would do to each event and to each
input item is passed by: we hand it bytes and take the open response.

Rules of this file:

0. What is private to `openai` and is used all the same stands in this file only, and
   `test_transport.py` notices when it changes.
1. A client that was given an HTTP client of its own is used with it. One that was not gets
   an aiohttp pool from us, whose parser is written in C, one for each event loop.
2. A pool ends with whatever comes first: `close`, the end of its loop, the end of the client.
3. Limits cost one timer a stream, not one a read, and no time counts in which nobody reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import json
import weakref
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from millstream import codec
from millstream.clock import Clock, Timer, current_clock, time_limit
from millstream.errors import AgentsException, ModelProtocolError, ModelTimeoutError, UserError
from millstream.event_loops import wake
from millstream.models.request import Request
from millstream.models.wire import FrameReader, Frames, excerpt

if TYPE_CHECKING:
    import ssl

    import httpx2
    from openai import AsyncOpenAI

T = TypeVar("T")

IDLE_TIMEOUT = 300.0
"""Seconds for which a model may send nothing in the middle of an answer, unless told otherwise.

Long, because a model that reasons says nothing meanwhile; short enough that a dead
connection is noticed. The wait for the first byte is the client's own read timeout.
"""

_REUSE_GRACE = 0.1
"""Seconds to wait, after the last event, for the server to end the answer: then the connection can be kept."""

_HEAD = 120
"""Bytes to remember of an answer that may turn out to be no stream."""

_LIBRARIES = frozenset({"aiohttp", "anyio", "h11", "h2", "httpcore", "httpcore2", "httpx", "httpx2", "ssl"})


class Transport:
    """Sends requests through one `AsyncOpenAI`.

    Args:
        client: the client, which stays its owner's: `close` does not close it.
        idle_timeout: seconds of silence in a stream after which it is given up; None for never.
    """

    def __init__(self, client: AsyncOpenAI, *, idle_timeout: float | None = IDLE_TIMEOUT) -> None:
        self.client = client
        self.idle_timeout = idle_timeout
        self._pools: _Pools | None = None

    async def fetch(self, request: Request) -> tuple[bytes, str | None]:
        """Send `request`; the whole answer, and the id that the server gave the request.

        Raises:
            ModelTimeoutError: `request.timeout` is over, or the client's own timeout.
            openai.OpenAIError: what the client itself says of connections and statuses.
        """
        response = await self._send_within(request, stream=False)
        return response.content, response.headers.get("x-request-id")

    async def stream(self, request: Request, reader: FrameReader[T]) -> Stream[T]:
        """Send `request`; its answer as frames. The same errors as `fetch`; `Stream.next` has more."""
        clock = current_clock()
        started = clock.monotonic()
        response = await self._send_within(request, stream=True)
        patience = Patience(clock, self.idle_timeout, request.timeout, spent=clock.monotonic() - started)
        return Stream(response, reader, patience)

    async def close(self) -> None:
        """Close the connections opened for the client, unless another transport uses them. Safe to call twice."""
        pools, self._pools = self._pools, None
        if pools is not None:
            pools.users.discard(self)
            if not pools.users:
                await pools.close()

    async def _send_within(self, request: Request, *, stream: bool) -> httpx2.Response:
        async with time_limit(current_clock(), request.timeout, ModelTimeoutError(request.timeout or 0.0)):
            return await self._send(request, stream=stream)

    async def _send(self, request: Request, *, stream: bool) -> httpx2.Response:
        import httpx2
        from openai import AsyncStream

        client = await self._with_pool()
        headers: dict[str, Any] = dict(request.headers or {})
        options: dict[str, Any] = {"headers": headers, "security": {"bearer_auth": True}}
        if request.query:
            options["params"] = request.query
        if request.client_timeout is not None:
            options["timeout"] = request.client_timeout
        if request.tries_once:
            options["max_retries"] = 0
        payload: dict[str, Any] = {"body": request.body}
        if _takes_bytes(client):
            payload = {"content": _encode(request.body)}
            headers.setdefault("Content-Type", "application/json")
        try:
            return await cast("Any", client).post(
                request.path,
                cast_to=httpx2.Response,
                options=options,
                stream=stream,
                stream_cls=AsyncStream if stream else None,
                **payload,
            )
        except Exception as error:
            mended = _connection_error(error, client)
            if mended is None:
                raise
            raise mended from error
        finally:
            # Found out once in a thread: the next copy need not.
            self.client._platform = client._platform

    async def _with_pool(self) -> AsyncOpenAI:
        """The client itself, or a copy of it that uses our pool where it would use its default one."""
        client = self.client
        if not _has_default_http_client(client):
            return client
        if self._pools is None:
            self._pools = _pools.setdefault(client, _Pools())
            self._pools.users.add(self)
        http = await self._pools.get()
        # Shallow, and anew for each request: what its owner changes on the client holds at once.
        twin = copy.copy(client)
        twin._client = http
        return twin


def new_client(**arguments: Any) -> AsyncOpenAI:
    """A client of our own, made in a thirtieth of the time since it shares its certificates with all others."""
    import httpx2
    from openai import AsyncOpenAI

    client = AsyncOpenAI(**arguments, http_client=httpx2.AsyncClient(verify=_ssl_context()))
    _ours.add(client)
    return client


def _connection_error(error: Exception, client: AsyncOpenAI) -> Exception | None:
    """What `error` is in the client's own terms, where aiohttp's transport tells it as something else.

    It passes off a connection that was refused, or lost, as one that timed out, and lets errors
    of a malformed answer through as they are.
    """
    import aiohttp
    import httpx2
    from openai import APIConnectionError, APITimeoutError

    request = getattr(error, "request", None) or httpx2.Request("POST", str(client.base_url))
    if isinstance(error, aiohttp.ClientError):
        return APIConnectionError(message=f"The server's answer is not HTTP: {error}", request=request)
    cause: BaseException | None = error
    while isinstance(error, APITimeoutError) and cause is not None:
        if isinstance(cause, aiohttp.ClientConnectorError):
            return APIConnectionError(
                message=f"No connection to {client.base_url}: {cause.strerror or cause}", request=request
            )
        if isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
            return APIConnectionError(
                message=f"The connection to {client.base_url} was lost before the answer began: {cause}",
                request=request,
            )
        cause = cause.__cause__
    return _client_timeout_error()(error) if isinstance(error, APITimeoutError) else None


@functools.cache
def _client_timeout_error() -> type[Exception]:
    """The class of a client's own timeout: `except ModelTimeoutError` has it, and who knows only `openai` too."""
    from openai import APITimeoutError

    class ClientTimeoutError(ModelTimeoutError, APITimeoutError):  # pyright: ignore[reportIncompatibleVariableOverride]
        def __init__(self, error: APITimeoutError) -> None:
            APITimeoutError.__init__(self, error.request)
            vars(self).pop("code")  # None: what the exceptions of `openai` have by that name is the server's
            self.run_data = None
            self.idle = False
            limits = cast("dict[str, float | None]", error.request.extensions.get("timeout") or {})
            kind = type(error.__cause__).__name__.removesuffix("Timeout").lower()
            self.timeout_seconds = limits.get(kind) or limits.get("read") or 0.0
            self.message = (
                f"The model's server did not answer within {self.timeout_seconds:g} s, the client's limit."
            )
            self.args = (self.message,)

    return ClientTimeoutError


def _has_default_http_client(client: AsyncOpenAI) -> bool:
    """Whether nobody chose the client's HTTP client. A client that was closed says so itself when used."""
    from openai._base_client import AsyncHttpxClientWrapper

    return not client.is_closed() and (type(client._client) is AsyncHttpxClientWrapper or client in _ours)


def _takes_bytes(client: AsyncOpenAI) -> bool:
    """Whether the client sends a body as it is; Azure's, and those of others, look into it to route it."""
    from openai import AsyncOpenAI

    return type(client) is AsyncOpenAI and getattr(client, "_provider", None) is None


def _encode(body: Mapping[str, Any]) -> bytes:
    """`body` as JSON, whole: unlike an event it is never cut or marked, so what has no JSON is refused."""
    try:
        return _encode_json(body)
    except UnicodeError:  # half a surrogate pair, from a tool's output say: it becomes U+FFFD
        return codec.clean(json.dumps(body, default=_plain).encode())


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False)
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    raise UserError(f"A request to a model holds a {type(value).__name__}, which has no JSON: {value!r:.200}")


_encode_json = msgspec.json.Encoder(enc_hook=_plain).encode


class Stream(Generic[T]):
    """The frames of one answer, as they arrive."""

    def __init__(self, response: httpx2.Response, reader: FrameReader[T], patience: Patience) -> None:
        self._response = response
        self._reader = reader
        self._patience = patience
        self._ahead = _ReadAhead(response)
        self._body = _aiohttp_body(response)
        self._read: Callable[[], Awaitable[bytes]] = getattr(self._body, "readany", self._ahead.read)
        self._head = b""
        self.request_id: str | None = response.headers.get("x-request-id")

    @property
    def count(self) -> int:
        """How many frames have come."""
        return self._reader.count

    async def next(self) -> Frames[T] | None:
        """What the next read of the socket brought; None at the end.

        Raises:
            ModelProtocolError: the connection was cut, or a frame is broken.
            ModelResponseError: the server sent its failure as a frame of no type.
            ModelTimeoutError: nothing came for too long, or the answer took too long.
        """
        reader = self._reader
        while reader.error is None:
            try:
                data = await self._patience.wait(self._read)
            except AgentsException:
                raise
            except Exception as error:
                data = _left_behind(self._body)
                if not data:
                    translated = self._translated(error)
                    if translated is None:
                        raise
                    raise translated from error
            if not reader.count and len(self._head) <= _HEAD:
                self._head += data[: _HEAD + 1]
            frames = reader.feed(data) if data else reader.finish()
            if frames is not None:
                return frames
            if reader.error is None and (reader.done or not data):
                return None
        raise reader.error

    def ended_early(self, told: str) -> ModelProtocolError:
        """The exception for an answer that ended too early: `told`, or else what came that was no stream at all."""
        if self.count:
            return ModelProtocolError(told, cut_off=True)
        url = self._response.request.url
        where = f"{url.scheme}://{url.netloc.decode()}{url.path}"  # without what may be secret in it
        kind = self._response.headers.get("content-type", "")
        head = f"It begins {excerpt(self._head)}" if self._head else "It is empty"
        return ModelProtocolError(
            f"The model's server sent an answer without any event ({kind or 'no content type'}), "
            f"from {where}. {head}. {_advice(kind)}",
            cut_off=not self._head,
        )

    async def finish(self) -> None:
        """Read what little may follow the last event, so that the connection can be used again."""
        try:
            async with time_limit(self._patience.clock, _REUSE_GRACE, TimeoutError()):
                while await self._read():
                    pass
        except Exception:  # the answer is whole: what happens to its connection is nobody's loss
            pass

    async def close(self) -> None:
        """Close the answer, and its connection where the answer has not been read to its end."""
        self._patience.close()
        try:
            await self._ahead.close()
        finally:
            await self._response.aclose()

    def _translated(self, error: Exception) -> AgentsException | None:
        kind = type(error)
        if isinstance(error, TimeoutError) or "Timeout" in kind.__name__:
            limits = cast("dict[str, float | None]", self._response.request.extensions.get("timeout") or {})
            return ModelTimeoutError(limits.get("read") or 0.0, idle=True)
        if isinstance(error, (OSError, EOFError)) or kind.__module__.partition(".")[0] in _LIBRARIES:
            what = f"{kind.__name__}: {error}" if str(error) else kind.__name__
            return ModelProtocolError(
                f"The connection to the model's server was cut after {self._reader.count} events ({what}).",
                cut_off=True,
            )
        return None


def _advice(kind: str) -> str:
    """What to change where an answer of that content type came in place of a stream."""
    if "json" in kind:
        return "The server does not stream: let it, or ask for whole answers with Runner.run()."
    if "event-stream" in kind:
        return "Try again, or look into the server's own log."
    return "Correct the base URL (most end in /v1), or get past the proxy or login page that answers there."


def _aiohttp_body(response: httpx2.Response) -> Any:
    """The body as aiohttp has it, where it carries the response as it is; None elsewhere.

    Its `readany` gives all that has arrived in one piece, where httpx's iterators pass on each
    piece through three generators. The names are private: `test_transport.py` notices when they go.
    """
    if not _is_identity(response):
        return None
    stream: Any = getattr(response.stream, "_stream", None)
    return getattr(getattr(stream, "_aiohttp_response", None), "content", None)


def _pieces(response: httpx2.Response) -> AsyncIterable[bytes]:
    """The body of a response piece by piece, as the HTTP client has it.

    `aiter_bytes` would give the same through two more generators; but it can decode, and begin again
    with a body that a hook of the client's owner has read.
    """
    if response.is_stream_consumed or response.is_closed or not _is_identity(response):
        return response.aiter_bytes()
    return cast("AsyncIterable[bytes]", response.stream)


def _is_identity(response: httpx2.Response) -> bool:
    return response.headers.get("content-encoding", "identity") == "identity"


def _left_behind(body: Any) -> bytes:
    """What arrived before the connection broke: aiohttp tells of the break first, and then gives nothing more."""
    try:
        return body._read_nowait(-1)
    except Exception:  # there is nothing, or no such body: the break itself is told
        return b""


class _ReadAhead:
    """Reads a response in a task of its own, so that pieces which arrived together are handed on together.

    httpx gives each chunk of HTTP by itself, also where one read of the socket brought
    hundreds, and who takes them one by one pays for each what a whole read costs. It has
    to be a task: httpx holds timeouts of its own across its reads, which belong to one.
    """

    LIMIT = 128 * 1024
    """Bytes to be ahead of the reader, beyond which the socket is no longer read."""

    def __init__(self, response: httpx2.Response) -> None:
        self._response = response
        self._pieces: list[bytes] = []
        self._size = 0
        self._over = False
        self._error: Exception | None = None
        self._task: asyncio.Task[None] | None = None
        self._changed: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """All that has arrived, as soon as something has; empty at the end."""
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._over:
                return b""
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        wake(self._room)
        return data

    async def close(self) -> None:
        """End the task, if there is one."""
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        try:
            async for piece in _pieces(self._response):
                if not piece:
                    continue
                self._pieces.append(piece)
                self._size += len(piece)
                if len(self._pieces) == 1:
                    wake(self._changed)
                if self._size > self.LIMIT:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
        except Exception as error:
            self._error = error
        finally:
            self._over = True
            wake(self._changed)


class Patience:
    """Ends a read that takes too long, and adds up how long the model made us wait."""

    def __init__(self, clock: Clock, idle: float | None, total: float | None, *, spent: float) -> None:
        self.clock = clock
        self._time = clock.monotonic
        self._idle = idle
        self._total = total
        self._spent = spent
        self._since = 0.0
        self._reader: asyncio.Task[Any] | None = None
        self._timer: Timer | None = None
        self._over: ModelTimeoutError | None = None

    async def wait(self, read: Callable[[], Awaitable[T]]) -> T:
        """What `read` gives, or `ModelTimeoutError`."""
        if self._idle is None and self._total is None:
            return await read()
        # What asyncio.timeout does, but for a timer that outlives the read.
        self._since = since = self._time()
        self._reader = task = asyncio.current_task()
        cancelling = 0 if task is None else task.cancelling()
        if self._timer is None:
            self._arm()
        try:
            return await read()
        except asyncio.CancelledError:
            if self._over is not None and task is not None and task.uncancel() <= cancelling:
                raise self._over from None
            raise
        finally:
            self._reader = None
            self._spent += self._time() - since

    def _left(self) -> float:
        waited = self._time() - self._since
        idle = float("inf") if self._idle is None else self._idle - waited
        total = float("inf") if self._total is None else self._total - self._spent - waited
        return min(idle, total)

    def _arm(self) -> None:
        self._timer = self.clock.call_later(max(self._left(), 0.0), self._look)

    def _look(self) -> None:
        self._timer = None
        task = self._reader
        if task is None:
            return
        if self._left() > 0:
            self._arm()
            return
        waited = self._time() - self._since
        if self._total is not None and self._spent + waited >= self._total:
            self._over = ModelTimeoutError(self._total)
        else:
            self._over = ModelTimeoutError(self._idle or 0.0, idle=True)
        task.cancel()

    def close(self) -> None:
        """Stop looking. Safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _Pools:
    """The HTTP clients of one `AsyncOpenAI`: one for each event loop, since no connection outlives its loop."""

    def __init__(self) -> None:
        self.users: weakref.WeakSet[Transport] = weakref.WeakSet()
        self._by_loop: dict[asyncio.AbstractEventLoop, tuple[httpx2.AsyncClient, AsyncGenerator[None]]] = {}

    async def get(self) -> httpx2.AsyncClient:
        loop = asyncio.get_running_loop()
        pool = self._by_loop.get(loop)
        if pool is not None and not pool[0].is_closed:
            return pool[0]
        self._forget_closed_loops()
        from openai import DefaultAioHttpClient

        http = DefaultAioHttpClient(verify=_ssl_context())
        # Where aiohttp has changed it is slow, not wrong.
        with contextlib.suppress(ImportError, AttributeError):
            from millstream.models.connections import join_chunks

            join_chunks(http)
        keeper = _close_with_loop(http, loop, weakref.ref(self))
        self._by_loop[loop] = http, keeper
        await anext(keeper)
        return http

    async def close(self) -> None:
        here = asyncio.get_running_loop()
        for loop, (_, keeper) in list(self._by_loop.items()):
            self.forget(loop)
            if loop is here:
                await keeper.aclose()
            elif loop.is_running():
                asyncio.run_coroutine_threadsafe(_aclose(keeper), loop)

    def forget(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hold the client of `loop` no longer."""
        self._by_loop.pop(loop, None)

    def _forget_closed_loops(self) -> None:
        for loop in list(self._by_loop):
            if loop.is_closed():
                http, _ = self._by_loop.pop(loop)
                _run_without_loop(http.aclose())


async def _close_with_loop(
    http: httpx2.AsyncClient, loop: asyncio.AbstractEventLoop, pools: weakref.ref[_Pools]
) -> AsyncGenerator[None]:
    """Waits at its `yield` until its loop shuts down its generators, or nobody holds it; then closes `http`."""
    try:
        yield
    finally:
        holder = pools()
        if holder is not None:
            holder.forget(loop)
        await http.aclose()


async def _aclose(generator: AsyncGenerator[None]) -> None:
    await generator.aclose()


def _run_without_loop(coroutine: Any) -> None:
    """Run a coroutine whose loop is gone, so that it has nothing left to wait for."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    except RuntimeError:  # it wanted its loop after all: there is nothing left to close
        return
    coroutine.close()


@functools.cache
def _ssl_context() -> ssl.SSLContext:
    """Reading the certificates takes some 20 ms: once a process, not once a loop."""
    import httpx2

    return httpx2.create_ssl_context()


_pools: weakref.WeakKeyDictionary[AsyncOpenAI, _Pools] = weakref.WeakKeyDictionary()
_ours: weakref.WeakSet[AsyncOpenAI] = weakref.WeakSet()
