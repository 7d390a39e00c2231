"""A real server behind a line that breaks: what a stranger's client has to follow a run through."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path

from tests.cli.program import DEADLINE
from tests.cli.test_serve import Served, serving
from tests.client.proxy import Proxy, proxy


class BrokenLine:
    """A server in a process of its own, which clients reach at one address, whatever becomes of it.

    Args:
        folder: where it runs, and its runs are.
        app: names what it serves.
        between: the line to it.
        stack: ends its processes.
    """

    def __init__(self, folder: Path, app: str, between: Proxy, stack: contextlib.AsyncExitStack) -> None:
        self._folder = folder
        self._app = app
        self._between = between
        self._stack = stack
        self.server: Served

    async def start(self) -> None:
        self.server = await asyncio.to_thread(self._stack.enter_context, serving(self._folder, app=self._app))
        self._between.port = self.server.port

    async def stop(self) -> None:
        """Stop the server, as its operator does. Who comes back meanwhile waits."""
        self._between.port = None
        self.server.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(self.server.process.wait, DEADLINE) == 0

    def begin(self) -> str:
        """Begin a run; the address of its stream."""
        run_id = self.server.ask("POST", "/runs", {"input": "Hi"})["run_id"]
        return f"{self._between.url}/runs/{run_id}/events"

    @property
    def url(self) -> str:
        return self._between.url

    def cut_behind(self, *marks: bytes) -> None:
        """Have the line break behind each of these, once."""
        self._between.marks = list(marks)

    async def until(self, text: bytes, times: int = 1) -> None:
        """Wait until so many clients were sent `text`."""
        await self._between.until_passed(text, times)

    @property
    def statuses(self) -> list[int]:
        """What was answered for streams, and for what is over."""
        heads = re.findall(
            rb"HTTP/1.1 (\d+) [^\r]*\r\n(.*?)\r\n\r\n", b"".join(self._between.answers), re.DOTALL
        )
        return sorted(int(status) for status, head in heads if status == b"204" or b"event-stream" in head)


@contextlib.asynccontextmanager
async def broken_line(folder: Path, app: str = "app.py") -> AsyncIterator[BrokenLine]:
    """A server that runs, and what may become of it."""
    async with contextlib.AsyncExitStack() as stack:
        line = BrokenLine(folder, app, await stack.enter_async_context(proxy(None)), stack)
        await line.start()
        yield line
