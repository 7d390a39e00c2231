"""A real HTTP proxy that does what proxies do to streams."""

import contextlib
import zlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from tests.server.kit import PATIENCE, serving

METHODS = ["GET", "POST", "DELETE"]
HOP_BY_HOP = {"transfer-encoding", "connection", "content-length", "date", "server"}

Body = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]


class Between:
    """Passes requests on to a server, and its answers back.

    Args:
        port: where the server is, on loopback.
        body: what becomes of the body of a stream.
        collects: whether a stream is passed on when it is whole.
        takes_out: headers that are not passed on, either way.
        adds: headers of every stream.
        refuses: methods that are answered here.
        answers: paths that are answered here.
    """

    def __init__(
        self,
        port: int | None,
        *,
        body: Body | None = None,
        collects: bool = False,
        takes_out: tuple[str, ...] = (),
        adds: dict[str, str] | None = None,
        refuses: tuple[str, ...] = (),
        answers: dict[str, Response] | None = None,
    ) -> None:
        self.port = port
        self.body = body
        self.collects = collects
        self.takes_out = {*takes_out, *HOP_BY_HOP}
        self.adds = adds or {}
        self.refuses = refuses
        self.answers = answers or {}

    async def pass_on(self, request: Request) -> Response:
        if request.method in self.refuses:
            return Response("<html>No.</html>", 405, media_type="text/html")
        if request.url.path in self.answers:
            return self.answers[request.url.path]
        client: httpx2.AsyncClient = request.app.state.client
        asked = client.build_request(
            request.method,
            f"http://127.0.0.1:{self.port}{request.url.path}?{request.url.query}",
            headers=self._kept(request.headers),
            content=await request.body(),
        )
        answer = await client.send(asked, stream=True)
        headers = self._kept(answer.headers)
        if not answer.headers.get("content-type", "").startswith("text/event-stream"):
            return Response(await answer.aread(), answer.status_code, headers)
        headers |= self.adds
        pieces: Any = answer.aiter_raw()
        pieces = pieces if self.body is None else self.body(pieces)
        if self.collects:
            return Response(b"".join([piece async for piece in pieces]), answer.status_code, headers)
        return StreamingResponse(pieces, answer.status_code, headers)

    def _kept(self, headers: Any) -> dict[str, str]:
        return {name: value for name, value in headers.items() if name.lower() not in self.takes_out}


@contextlib.asynccontextmanager
async def between(port: int | None, **options: Any) -> AsyncIterator[str]:
    """The URL of such a proxy."""
    proxy = Between(port, **options)
    app = Starlette(routes=[Route("/{path:path}", proxy.pass_on, methods=METHODS)])
    async with httpx2.AsyncClient(timeout=PATIENCE) as client, serving(app) as served:
        app.state.client = client
        yield str(served.base_url).rstrip("/")


async def packed(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Packs what passes, and gives it when it has enough."""
    pack = zlib.compressobj(wbits=31)
    async for piece in pieces:
        if out := pack.compress(piece):
            yield out
    yield pack.flush()


async def packed_at_once(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Packs each piece by itself."""
    pack = zlib.compressobj(wbits=31)
    async for piece in pieces:
        yield pack.compress(piece) + pack.flush(zlib.Z_SYNC_FLUSH)
    yield pack.flush()


async def without_comments(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        if kept := piece.replace(b":\n\n", b""):
            yield kept


async def until_it_is_silent(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Cuts what is silent, before its first heartbeat."""
    async for piece in pieces:
        if piece.startswith(b":\n\n"):
            return
        yield piece
