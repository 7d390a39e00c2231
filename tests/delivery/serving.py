"""A real server on a free port of loopback, clients that read what it really sends, and runs to serve."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import uvicorn
from fastapi import FastAPI, Request

from millstream import Agent, RunConfig, Runner, RunResultStreaming, to_sse, tool
from millstream.testing import ModelStep, ScriptedModel, check_stream, function_call

DEADLINE = 20
"""Seconds after which a test gives up; nothing here takes long."""


class _Server(uvicorn.Server):
    def capture_signals(self) -> Any:
        return contextlib.nullcontext()  # they belong to the test runner


@contextlib.asynccontextmanager
async def serving(app: Any, *, deadline: float = DEADLINE) -> AsyncIterator["Served"]:
    """Serve `app` on this loop. Leaving cuts the clients off and waits until every request has ended."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        served = Served(app, listening.getsockname()[1])
        config = uvicorn.Config(
            served.answer,
            log_config=None,  # so that `caplog` sees what the server says
            log_level="warning",
            lifespan="off",
            interface="asgi3",
        )
        server = _Server(config)
        task = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0)
        try:
            async with asyncio.timeout(deadline):
                yield served
        finally:
            for connection in served.connections:
                connection.cut()
            server.should_exit = True
            async with asyncio.timeout(DEADLINE):
                await task


class Served:
    """A server that runs."""

    def __init__(self, app: Any, port: int) -> None:
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.connections: list[Connection] = []
        self._app = app
        self._open = 0
        self._changed = asyncio.Condition()

    async def answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The application, whose requests are counted."""
        self._open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            async with self._changed:
                self._open -= 1
                self._changed.notify_all()

    async def get(
        self, path: str, *headers: str, method: str = "GET", version: str = "1.1", body: bytes = b""
    ) -> "Connection":
        """Send a request and read the head of its answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 26)
        connection = Connection(reader, writer)
        self.connections.append(connection)
        lines = [f"{method} {path} HTTP/{version}", "Host: x", *headers]
        if body:
            lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        connection.head = await reader.readuntil(b"\r\n\r\n")
        return connection

    async def has_no_requests(self) -> None:
        """Return when no request is being answered."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._open)


@dataclass
class Frame:
    """What a browser would dispatch, and what it would send as Last-Event-ID afterwards."""

    data: str
    id: str
    event: str = "message"

    @cached_property
    def json(self) -> Any:
        return json.loads(self.data, parse_constant=_refuse)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def parse(body: bytes, *, whole: bool = True, filtered: bool = False, not_a_run: str = "") -> list[Frame]:
    """The frames of an SSE body, read by the letter of the specification; what we promise beyond it is asserted.

    The entries in it are held to the grammar, wherever the body begins and ends; with
    `filtered`, positions may have holes. `not_a_run` says why there is none to hold to it.
    """
    text = body.decode("utf-8")
    assert not any(sign in text for sign in "\r\0\x85\u2028\u2029")
    *blocks, rest = text.split("\n\n")
    assert not (whole and rest), f"the body ends amid a frame: {rest!r}"
    frames, last_id = [], ""
    for block in blocks:
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, colon, value = line.partition(":")
            assert colon, line
            assert name in {"", "id", "event", "data"} - fields.keys(), line
            fields[name] = value.removeprefix(" ")
        last_id = fields.get("id", last_id)
        if "data" in fields:
            frames.append(Frame(fields["data"], last_id, fields.get("event", "message")))
    if not not_a_run:
        keeps_the_grammar([body[: len(body) - len(rest.encode())]], filtered=filtered)
    return frames


def keeps_the_grammar(pieces: Iterable[Any], *, filtered: bool = False) -> None:
    """Hold what a client got to the grammar; that it has an end is for the tests to say."""
    check_stream(pieces, filtered=filtered, ended=False)


class Connection:
    """A client that is nothing but a socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.head = b""

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    async def chunk(self) -> bytes:
        """The next chunk of the body as it was sent; empty at the end."""
        size = int(await self.reader.readuntil(b"\r\n"), 16)
        chunk = await self.reader.readexactly(size)
        await self.reader.readexactly(2)
        return chunk

    async def body(self) -> bytes:
        """What is left of the body."""
        pieces = []
        while chunk := await self.chunk():
            pieces.append(chunk)
        return b"".join(pieces)

    async def until(self, wanted: bytes) -> bytes:
        """The body up to the chunk that holds `wanted`."""
        seen = b""
        while wanted not in seen:
            chunk = await self.chunk()
            assert chunk, f"the body ended before {wanted!r}"
            seen += chunk
        return seen

    def cut(self) -> None:
        """Break the connection off, as a network does."""
        self.writer.transport.abort()


@dataclass
class Runs:
    """An application with a route that streams runs by name, and the runs."""

    options: dict[str, Any] = field(default_factory=dict[str, Any])
    handles: dict[str, RunResultStreaming] = field(default_factory=dict[str, RunResultStreaming])
    app: FastAPI = field(default_factory=FastAPI)

    def __post_init__(self) -> None:
        @self.app.api_route("/runs/{name}", methods=["GET", "HEAD", "POST"])
        async def follow(name: str, request: Request) -> Any:
            last = request.headers.get("last-event-id")
            return to_sse(self.handles[name], after=last, **self.options)


def greeting(text: str = "Hello there, you.", **config: Any) -> RunResultStreaming:
    """A run that answers at once."""
    agent = Agent(name="Greeter", model=ScriptedModel([text]))
    return Runner.run_streamed(agent, "Hi", run_config=RunConfig(**config))


class Held:
    """A run that stands still in a tool until it is let go."""

    def __init__(
        self, answer: Any = "Done.", result: Callable[[], Any] = lambda: "ok", **config: Any
    ) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

        @tool
        async def hold() -> Any:
            self.reached.set()
            await self.go_on.wait()
            return result()

        model = ScriptedModel([[function_call("hold", call_id="c1")], answer])
        agent = Agent(name="Holder", model=model, tools=[hold])
        self.handle = Runner.run_streamed(agent, "Hi", run_config=RunConfig(**config))


def silent(**config: Any) -> RunResultStreaming:
    """A run whose model falls silent amid its answer."""
    agent = Agent(name="Silent", model=ScriptedModel([ModelStep("Hello there.", hang_after=5)]))
    return Runner.run_streamed(agent, "Hi", run_config=RunConfig(**config))


async def ended(run: RunResultStreaming) -> None:
    """Wait for the end of a run, however it ends."""
    assert run.run_loop_task
    await asyncio.wait([run.run_loop_task])


async def nothing_is_left(*, but: set[asyncio.Task[Any]] | None = None) -> None:
    """Wait until only the test itself and `but` are running."""
    spared = {asyncio.current_task()} | (but or set())
    async with asyncio.timeout(DEADLINE):
        while others := {task for task in asyncio.all_tasks() if task not in spared}:
            await asyncio.wait(others)


TERMINAL = {"run.completed", "run.failed", "run.cancelled"}


def types_of(frames: list[Frame]) -> list[str]:
    return [frame.json["event"]["type"] if "event" in frame.json else frame.json["type"] for frame in frames]


def ends(frames: list[Frame]) -> list[str]:
    """The terminal entries among `frames`."""
    return [kind for kind in types_of(frames) if kind in TERMINAL]
