"""Clients that are nothing but sockets, and a line that breaks where a test says."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2


@dataclass(frozen=True)
class Answer:
    """What came back: the head, and the body without its chunks."""

    head: bytes
    body: bytes

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    @property
    def error(self) -> str:
        """The code of an error."""
        return json.loads(self.body)["error"]["code"]


def port_of(client: httpx2.AsyncClient) -> int:
    assert client.base_url.port is not None
    return client.base_url.port


@contextlib.asynccontextmanager
async def line_to(
    client: httpx2.AsyncClient, limit: int = 1 << 26
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection to the server of `client`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(client), limit=limit)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@contextlib.asynccontextmanager
async def stalled(client: httpx2.AsyncClient, path: str) -> AsyncIterator[socket.socket]:
    """A client that asks and does not read. Its buffer is tiny and its packets small, so that the kernel holds little for it."""
    loop = asyncio.get_running_loop()
    with socket.socket() as line:
        line.setblocking(False)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        await loop.sock_connect(line, ("127.0.0.1", port_of(client)))
        await loop.sock_sendall(line, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        yield line


async def asked(client: httpx2.AsyncClient, request: bytes) -> Answer:
    """The answer to the bytes of a request."""
    async with line_to(client) as (reader, writer):
        writer.write(request)
        return await answer_on(reader)


async def answer_on(reader: asyncio.StreamReader) -> Answer:
    """The next answer of a connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    fields = dict(line.lower().split(b": ", 1) for line in head.strip().split(b"\r\n")[1:])
    if b"content-length" in fields:
        return Answer(head, await reader.readexactly(int(fields[b"content-length"])))
    if fields.get(b"transfer-encoding") != b"chunked":
        return Answer(head, b"" if b" 204 " in head else await reader.read())
    body = b""
    while chunk := await chunk_of(reader):
        body += chunk
    return Answer(head, body)


async def chunk_of(reader: asyncio.StreamReader) -> bytes:
    """The next chunk of a body; empty at its end.

    Raises:
        IncompleteReadError: the line broke before it.
    """
    size = int(await reader.readuntil(b"\r\n"), 16)
    chunk = await reader.readexactly(size)
    await reader.readexactly(2)
    return chunk


class CutLine:
    """A proxy that lets each connection have so many bytes from the server, and then resets it.

    Args:
        port: where the server is.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.lets_through: int | None = None
        """Bytes that the next connection gets; None for all."""
        self._tasks: set[asyncio.Task[Any]] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        """The URL to use."""

        def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)

    def limit(self) -> int | None:
        """Bytes that a connection gets that comes now."""
        return self.lets_through

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        left = self.limit()
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:  # there is no server
            writer.transport.abort()
            return

        async def upwards() -> None:
            with contextlib.suppress(OSError):
                while piece := await reader.read(65536):
                    up_writer.write(piece)
            up_writer.close()

        sending = asyncio.create_task(upwards())
        try:
            while piece := await up_reader.read(65536):
                writer.write(piece if left is None else piece[:left])
                await writer.drain()
                if left is not None and (left := left - len(piece)) <= 0:
                    break
            await writer.drain()
            if left is not None and left <= 0:
                writer.write_eof()  # all that was let through arrives, and no more
        except OSError:
            pass
        finally:
            sending.cancel()
            await asyncio.wait([sending])
            up_writer.transport.abort()
            writer.close()
