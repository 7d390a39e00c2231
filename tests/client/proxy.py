"""A TCP proxy that breaks connections: the network between a client and its server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable


class Proxy:
    """Passes bytes on, and cuts answers.

    Args:
        port: where the server is, on loopback; None while there is none: who connects then waits.
    """

    def __init__(self, port: int | None) -> None:
        self._port = port
        self._is_there = asyncio.Event()
        self._passed = asyncio.Event()
        self.url = ""
        self.answers: list[bytes] = []
        """What was passed on to the client, for each connection."""
        self.cuts: list[int] = []
        """After how many bytes the next answers are cut; those behind them are whole."""
        self.marks: list[bytes] = []
        """Behind each of these, the first answer is cut that has it."""
        self.connected = 0
        self.left = asyncio.Event()
        """Set when a client has closed a connection before its answer's end."""
        self._move()

    @property
    def port(self) -> int | None:
        return self._port

    @port.setter
    def port(self, port: int | None) -> None:
        self._port = port
        self._move()

    def _move(self) -> None:
        if self._port is None:
            self._is_there.clear()
        else:
            self._is_there.set()

    def cut_at(self, *offsets: int) -> None:
        self.cuts = list(offsets)

    async def until_passed(self, text: bytes, times: int = 1) -> None:
        """Wait until so many connections were sent `text`."""
        while sum(text in answer for answer in self.answers) < times:
            self._passed.clear()
            await self._passed.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connected += 1
        cut = self.cuts.pop(0) if self.cuts else None
        place = len(self.answers)
        self.answers.append(b"")
        async with contextlib.AsyncExitStack() as stack:
            stack.push_async_callback(_close, writer)
            await self._is_there.wait()
            upstream, to_server = await asyncio.open_connection("127.0.0.1", self._port)
            stack.push_async_callback(_close, to_server)
            asking = asyncio.create_task(self._ask(reader, to_server))
            stack.callback(asking.cancel)
            with contextlib.suppress(OSError):
                while data := await upstream.read(65536):
                    before, whole = len(self.answers[place]), self.answers[place] + data
                    end = self._end(whole, cut)
                    self.answers[place] = whole[:end]
                    self._passed.set()
                    writer.write(whole[before:end])
                    await writer.drain()
                    if end is not None:
                        break

    def _end(self, answer: bytes, cut: int | None) -> int | None:
        """Where an answer is cut that has come this far; None: not yet."""
        if cut is not None and len(answer) >= cut:
            return cut
        for mark in self.marks:
            if mark in answer:
                self.marks.remove(mark)
                return answer.index(mark) + len(mark)
        return None

    async def _ask(self, reader: asyncio.StreamReader, to_server: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                to_server.write(data)
                await to_server.drain()
        self.left.set()
        to_server.close()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@contextlib.asynccontextmanager
async def proxy(port: int | None) -> AsyncIterator[Proxy]:
    """A proxy to `port` of loopback."""
    between = Proxy(port)
    tasks = set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(between.serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    between.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield between
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


def boundaries(answer: bytes) -> Iterable[int]:
    """Where an answer may be cut so that the events before are whole: behind its head, and behind each frame."""
    at = 0
    while (at := answer.find(b"\n\n", at) + 2) > 1:
        yield at
