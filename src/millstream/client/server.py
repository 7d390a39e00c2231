"""A server as a client reaches it: one address, one way in, requests, and answers that stream.

Rules of this file:

1. Whatever goes wrong on the way, or may pass by, is a `Failure`. Whoever asked decides whether to ask again.
2. What a server refuses is the exception that a store would raise (`answers.py`), and is not asked again.
3. Nothing that a server sends is trusted to end: each answer has a bound in bytes, and silence one in time.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

import httpx2

from millstream import codec
from millstream.about import __version__
from millstream.client.answers import PASSING, Request, error_in, refusal
from millstream.client.sse import SseEvent, SseParser
from millstream.client.tries import Failure, Tries
from millstream.clock import time_limit
from millstream.errors import DecodeError, ServerError, ServerUnreachableError, StreamProtocolError, UserError
from millstream.models.retry import retry_after

if TYPE_CHECKING:
    from millstream.clock import Clock

MAX_ANSWER = 16 * 1024 * 1024
"""Bytes that an answer may have that does not stream."""
CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 30.0
"""How long an answer that does not stream may be silent."""

EVENTS = "text/event-stream"

_RUN_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_TOKEN = re.compile(r"[\x21-\x7e]+")
_NEVER_SENT = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.ProxyError,
)
_OUR_FAULT = (httpx2.InvalidURL, httpx2.UnsupportedProtocol, httpx2.LocalProtocolError)


class Server:
    """A server, as one client reaches it.

    Args:
        url: where it is: `http://127.0.0.1:7420`, or below a path.
        token: sent as `Authorization: Bearer …`.
        headers: sent with every request.
        http_client: sends the requests; None for one of its own.
        clock: by which it waits.
        tries: how many requests in a row may fail.
        idle_timeout: seconds after which a stream that is silent counts as dead.

    Raises:
        UserError: an argument that cannot work.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | None,
        headers: Mapping[str, str] | None,
        http_client: httpx2.AsyncClient | None,
        clock: Clock,
        tries: int,
        idle_timeout: float,
    ) -> None:
        self._url = _checked_url(url)
        self._headers = _checked_headers(token, headers)
        self._given = http_client
        self._own: httpx2.AsyncClient | None = None
        self._is_closed = False
        self.clock = clock
        self.tries = tries
        self.idle_timeout = idle_timeout

    @property
    def name(self) -> str:
        """The address, for people: without what lets one in."""
        url = self._url
        return str(url.copy_with(username=None, password=None)).rstrip("/")

    # --- requests ----------------------------------------------------------------------------

    async def ask(self, request: Request, *, repeatable: bool = True) -> dict[str, Any]:
        """What the server answers to a request, which is asked again where that may help.

        Args:
            request: what is asked.
            repeatable: whether to ask twice is as good as once. What is not is asked again only where
                it cannot have been done.

        Raises:
            ServerUnreachableError: it was asked as often as may be.
            AgentsException: it refuses; as what a store would say.
        """
        tries = Tries(self.tries)
        while True:
            try:
                return await self._answer(request)
            except Failure as failure:
                wait = tries.after(failure) if repeatable or not failure.was_sent else None
                if wait is None:
                    raise self.unreachable(str(request), failure, tries.failed) from failure.__cause__
            await self.clock.sleep(wait)

    async def _answer(self, request: Request) -> dict[str, Any]:
        response = await self.send(request, "application/json", silence=ANSWER_SECONDS)
        body = await self.whole(response)
        if not 200 <= response.status_code < 300:
            raise self._refused(request, response, body)
        try:
            plain = codec.decode(body)
        except (DecodeError, RecursionError):
            plain = None
        if not isinstance(plain, dict):
            raise ServerError(
                f"{request} at {self.name}: the answer is no JSON object. Is there a Millstream server at this address?",
                status=response.status_code,
            )
        return cast("dict[str, Any]", plain)

    async def stream(self, request: Request) -> EventStream | None:
        """The events that the server streams; None where nothing is left.

        Raises:
            Failure: it does not do so now.
            AgentsException: it refuses.
        """
        response = await self.send(request, EVENTS, silence=self.idle_timeout)
        kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
        if response.status_code == 200 and kind == EVENTS:
            return EventStream(self, response)
        body = await self.whole(response)
        if response.status_code == 204:
            return None
        if response.status_code == 200:
            raise Failure(f"it answered with {kind or 'nothing'}, which is no stream of events", status=200)
        raise self._refused(request, response, body)

    async def send(
        self, request: Request, accept: str, *, silence: float, headers: Mapping[str, str] | None = None
    ) -> httpx2.Response:
        """Send a request; the answer, of which the body is still to be read, whatever its status is.

        Args:
            request: what is asked.
            accept: the type of the answer.
            silence: seconds within which it has to begin.
            headers: in place of those that a client sends.

        Raises:
            Failure: there is none.
            UserError: the request cannot be sent.
        """
        client = self._client()
        # Who packs a stream holds it back until there is enough to pack.
        own = {"accept": accept, "accept-encoding": "identity", "cache-control": "no-store"}
        content = None
        if request.body is not None:
            content = codec.encode(request.body)
            own["content-type"] = "application/json"
        if request.key is not None:
            own["idempotency-key"] = request.key
        if request.after:
            own["last-event-id"] = str(request.after)
        built = client.build_request(
            request.method,
            self._url.copy_with(raw_path=self._url.raw_path.rstrip(b"/") + request.path.encode()),
            params=dict(request.query) or None,
            headers={**self._headers, **own, **(headers or {})},
            content=content,
            timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        )
        try:
            async with time_limit(self.clock, silence, Failure(f"it said nothing for {silence:g} s")):
                return await client.send(built, stream=True, follow_redirects=False)
        except httpx2.TransportError as error:
            raise _failure_of(error) from error

    async def whole(self, response: httpx2.Response) -> bytes:
        """The body of an answer that does not stream.

        Raises:
            Failure: it broke off, or is too long.
        """
        body = b""
        silent = Failure(f"its answer broke off for {ANSWER_SECONDS:g} s", status=response.status_code)
        try:
            async with time_limit(self.clock, ANSWER_SECONDS, silent):
                async for piece in response.aiter_bytes():
                    body += piece
                    if len(body) > MAX_ANSWER:
                        raise Failure(f"it answered with more than {MAX_ANSWER} bytes")
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _failure_of(error) from error
        finally:
            await response.aclose()
        return body

    def _refused(self, request: Request, response: httpx2.Response, body: bytes) -> Exception:
        status, told = response.status_code, error_in(body)
        if status not in PASSING:
            return refusal(request, status, told, self.name)
        reason = str(told.get("code", ""))
        return Failure(
            f"it answered {status}" + (f" ({reason})" if reason else ""),
            status=status,
            reason=reason,
            wait=retry_after(response.headers, now=self.clock.time()),
            was_sent=status not in (429, 503),  # by which a server says that it has not begun
        )

    def unreachable(self, what: str, failure: Failure, tries: int) -> ServerUnreachableError:
        """The exception of who gives up."""
        often = "" if tries <= 1 else f" {tries} times in a row"
        return ServerUnreachableError(
            f"{what} failed{often} at {self.name}: {failure.why}.",
            status=failure.status,
            reason=failure.reason,
        )

    def _client(self) -> httpx2.AsyncClient:
        if self._is_closed:
            raise UserError(
                "This Client is closed: nothing can be asked by it any more. Runs go on without it."
            )
        if self._given is not None:
            return self._given
        if self._own is None:
            # A follower holds its connection as long as its run takes: any number of them may be there.
            limits = httpx2.Limits(max_connections=None, max_keepalive_connections=20)
            self._own = httpx2.AsyncClient(limits=limits, headers={"user-agent": f"millstream/{__version__}"})
        return self._own

    async def aclose(self) -> None:
        """Close the connections, where they are its own, and open no other. Safe to call twice."""
        self._is_closed = True
        if self._own is not None:
            client, self._own = self._own, None
            await client.aclose()


class EventStream:
    """The events of one answer that streams.

    It is a place in a body, and no task: whoever lets go of it lets go of the connection.
    """

    def __init__(self, server: Server, response: httpx2.Response) -> None:
        self._server = server
        self._pieces: AsyncIterator[bytes] = response.aiter_bytes()
        self._parser = SseParser()
        self.opened = server.clock.monotonic()
        """When it began."""

    @property
    def retry(self) -> float | None:
        """Seconds that the server wants to have before it is asked again, once it has said so."""
        return None if self._parser.retry is None else self._parser.retry / 1000

    async def next(self) -> list[SseEvent] | None:
        """The events of the next read, which may be none; None at the end of the body.

        To cancel it closes the connection, and so does a failure.

        Raises:
            Failure: the connection broke, fell silent, or brought what is no stream.
        """
        limit = self._server.idle_timeout
        silent = Failure(f"its stream was silent for {limit:g} s")
        try:
            async with time_limit(self._server.clock, limit, silent):
                piece = await anext(self._pieces, None)
            return None if piece is None else self._parser.feed(piece)
        except (httpx2.TransportError, httpx2.DecodingError) as error:
            raise _failure_of(error) from error
        except StreamProtocolError as error:
            await self.aclose()
            raise Failure("it sent an event that is too long") from error

    async def aclose(self) -> None:
        """Close the connection. Safe to call twice."""
        await cast("Any", self._pieces).aclose()


def run_path(run_id: str, rest: str = "") -> str:
    """The path of a run, below the address of its server.

    Raises:
        UserError: that is not the id of any run.
    """
    if not isinstance(run_id, str) or not _RUN_ID.fullmatch(run_id):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(f"{run_id!r} is not the id of a run: those are made of letters, digits, _ and -.")
    return f"/runs/{quote(run_id, safe='')}{rest}"


def _failure_of(error: Exception) -> Failure:
    """What an HTTP client raised."""
    if isinstance(error, _OUR_FAULT):
        raise UserError(f"The request cannot be sent: {error}") from error
    text = " ".join(str(error).split())[:200]
    return Failure(
        f"{type(error).__name__}{': ' + text if text else ''}", was_sent=not isinstance(error, _NEVER_SENT)
    )


def _checked_url(url: Any) -> httpx2.URL:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError):
        parsed = httpx2.URL("")
    port = parsed.port
    right = parsed.scheme in ("http", "https") and parsed.host and (port is None or 0 < port < 65536)
    if not right or parsed.query or parsed.fragment:
        raise UserError(
            "Client(url): the address of a server is http://host:port or https://host, with a path behind it "
            "where the server is mounted at one."
        )
    return parsed


def _checked_headers(token: Any, headers: Mapping[str, str] | None) -> dict[str, str]:
    """The headers of every request. What is wrong with a secret is told without it."""
    checked: dict[str, str] = {}
    for name, value in (headers or {}).items():
        whole: Any = (name, value)
        if not all(isinstance(each, str) and each.isprintable() and each.isascii() for each in whole):
            raise UserError(
                f"Client(headers=...): {name!r} is not a header: names and values are printable ASCII."
            )
        checked[name.lower()] = value
    if token is not None:
        if not isinstance(token, str) or not _TOKEN.fullmatch(token):
            raise UserError(
                "Client(token=...): a token is a text of ASCII characters, without spaces or lines."
            )
        checked["authorization"] = f"Bearer {token}"
    return checked
