"""A model server on loopback that answers by a script, and badly where it is told to.

    async with ModelServer(["It is cold."]) as server:
        client = AsyncOpenAI(api_key="k", base_url=server.base_url)

It is a real HTTP/1.1 server, so that what stands between a program and its model's server is
tested too: connections, timeouts, retries, parsers. The steps are those of a `ScriptedModel`;
each is told over the wire that the request came by, streamed or whole. Faults (see
`millstream.testing.faults`) change how.

It runs on a thread and an event loop of its own: one server serves the many loops of a test,
programs without a loop, and other processes; and the tasks and sockets that a test counts on
its own loop are those of the program under test.
"""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import struct
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from millstream.clock import SYSTEM_CLOCK, Clock
from millstream.errors import UserError
from millstream.models.narration import MODEL_NAME
from millstream.models.script import ModelScriptItem, ModelStep, as_step
from millstream.testing import model_wires
from millstream.testing.faults import CUT, HANG, RESET, End, Fault, Gate, Head, Pause, Piece, Reset, Stall
from millstream.testing.model_wires import Talk

_START_TIMEOUT = 30
_RST = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""To linger for no time: whoever closes a socket so resets its connection."""


@dataclass
class ReceivedRequest:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    """By their names in lower case."""
    body: bytes
    gone: Future[None] = field(default_factory=Future[None], repr=False)
    """Done when the client has closed the connection of this request."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    async def client_gone(self) -> None:
        """Wait until the client has closed the connection of this request."""
        await asyncio.shield(asyncio.wrap_future(self.gone))


Said: TypeAlias = "ModelScriptItem | Callable[[ReceivedRequest], ModelScriptItem]"
"""A step of a script, or a function that makes one of the request, on the server's thread."""


@dataclass
class _Reply:
    """All that is sent to one request."""

    pieces: Sequence[Piece]
    head: Head = field(default_factory=Head)
    told: Future[ReceivedRequest] | None = None

    def __post_init__(self) -> None:
        self.start: list[Piece] = [*self.head.before, *_head_pieces(self)]


_Answer: TypeAlias = "Callable[[ReceivedRequest], _Reply] | _Reply"


class ModelServer:
    """See the head of this file. `with` and `async with` start and stop it.

    Attributes:
        requests: what was asked so far, in order, `GET /v1/models` included.
        connections: how many connections were opened so far.
    """

    def __init__(
        self,
        script: Iterable[Said] = (),
        *faults: Fault,
        models: Sequence[str] = (MODEL_NAME,),
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        """Take the script.

        Args:
            script: the answers, in the order of the requests. A request that finds none left
                gets status 500, which says so.
            faults: of all these answers, and of those that `answer` adds.
            models: what `GET /v1/models` lists.
            clock: tells the time of `faults.Delay`; it is awaited on the server's own thread.

        Raises:
            InvalidModelStep: one of the steps is none.
        """
        self.requests: list[ReceivedRequest] = []
        self.connections = 0
        self._faults = faults
        self._models = tuple(models)
        self._clock = clock
        self._answers: deque[_Answer] = deque()
        self._always: _Answer | None = None
        self._given = 0
        self._open: set[asyncio.Task[None]] = set()
        self._waiting: list[tuple[Future[None], int]] = []
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=self._run, name="model server", daemon=True)
        for said in script:
            self.answer(said)

    # --- the script ---

    def answer(self, said: Said, *faults: Fault, always: bool = False) -> None:
        """Answer the next model call (with `always`, every one that no other answer is for).

        `fail_after`, `hang_after` and `truncate_after` of a step count frames here.

        Raises:
            InvalidModelStep: `said` is no step.
            UserError: the step is an error or a responder, which a server cannot be.
        """
        index, self._given = self._given, self._given + 1
        step = None if callable(said) else _step(said, index)

        def answer(request: ReceivedRequest) -> _Reply:
            now = _step(said(request), index) if callable(said) else step
            assert now is not None, "a step is made above, or here"
            return _reply(now, _talk(request), (*faults, *self._faults))

        self._add(answer, always)

    def send(
        self,
        *pieces: Piece,
        status: int = 200,
        headers: Mapping[str, str] | None = None,
        always: bool = False,
    ) -> None:
        """Answer the next request with these very bytes, whatever it asks for.

        Bytes are an HTTP chunk each. A `Gate` holds the answer until it is opened, `CUT` and
        `RESET` break the connection, `HANG` sends nothing until the client is gone.
        """
        content = "application/json" if status != 200 else "text/event-stream"
        head = Head(status=status, headers={"content-type": content, **(headers or {})})
        self._add(_Reply(pieces, head), always)

    def send_json(self, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer the next request with a JSON document."""
        content = {"content-type": "application/json"}
        self.send(json.dumps(value).encode(), status=status, headers={**content, **(headers or {})})

    def hold(self) -> Future[ReceivedRequest]:
        """Send the next request nothing at all, not even a status; tells when it has come."""
        held: Future[ReceivedRequest] = Future()
        self._add(_Reply([], Head(before=(HANG,)), held), always=False)
        return held

    def _add(self, answer: _Answer, always: bool) -> None:
        if always:
            self._always = answer
        else:
            self._answers.append(answer)

    # --- what a test looks at ---

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return self._started.result(_START_TIMEOUT)

    @property
    def base_url(self) -> str:
        """What an OpenAI client takes as its `base_url`."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def last(self) -> ReceivedRequest:
        """The latest request."""
        return self.requests[-1]

    @property
    def remaining_steps(self) -> int:
        """Answers that no request has got yet."""
        return len(self._answers)

    @property
    def open_connections(self) -> int:
        """How many connections are open now. A client's pool may rightly keep one; see `clients_gone`."""
        return len(self._open)

    async def clients_gone(self, *, but: int = 0) -> None:
        """Wait until no connection is open, or no more than `but`.

        For none at all close the model first: it keeps connections to use again.
        """
        gone: Future[None] = Future()
        self._loop.call_soon_threadsafe(self._await_gone, gone, but)
        await asyncio.wrap_future(gone)

    # --- its life ---

    def __enter__(self) -> ModelServer:
        self._thread.start()
        self._started.result(_START_TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(_START_TIMEOUT)

    async def __aenter__(self) -> ModelServer:
        self._thread.start()
        await asyncio.wrap_future(self._started)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        await asyncio.to_thread(self._thread.join, _START_TIMEOUT)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # no port, say: whoever waits for the server is told
            if not self._started.done():
                self._started.set_exception(error)
            raise

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._started.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._connection(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        self._open.discard(task)
        self._tell_who_waits()

    def _await_gone(self, gone: Future[None], but: int) -> None:
        self._waiting.append((gone, but))
        self._tell_who_waits()

    def _tell_who_waits(self) -> None:
        for waiting in [w for w in self._waiting if len(self._open) <= w[1]]:
            self._waiting.remove(waiting)
            if not waiting[0].done():
                waiting[0].set_result(None)

    # --- one connection ---

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = None
        try:
            while True:
                request = await _read_request(reader)
                self.requests.append(request)
                answer = self._next_answer(request)
                reply = answer if isinstance(answer, _Reply) else _refused_or(answer, request)
                if reply.told is not None:
                    reply.told.set_result(request)
                await self._send(reader, writer, reply)
                if reply.head.framing == "close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()
            if request is not None and not request.gone.done():
                request.gone.set_result(None)

    def _next_answer(self, request: ReceivedRequest) -> _Answer:
        scripted = self._answers[0] if self._answers else self._always
        if (
            request.method == "GET"
            and request.path.endswith("/models")
            and (scripted is None or callable(scripted))
        ):
            return functools.partial(_listed, self._models)
        if self._answers:
            return self._answers.popleft()
        return self._always or _failure(f"The script of this server has no answer left for {request.path}.")

    async def _send(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, reply: _Reply) -> None:
        # Nothing is to be read while an answer goes out: what comes is the client's leaving.
        left = asyncio.create_task(reader.read(1))
        chunked = reply.head.framing == "chunked"
        try:
            for piece in reply.start:
                if isinstance(piece, bytes):
                    writer.write(piece)
                else:
                    await self._do(piece, writer, left)
            for piece in reply.pieces:
                if not isinstance(piece, bytes):
                    await self._do(piece, writer, left)
                elif piece:
                    writer.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                    await writer.drain()
            if chunked:
                writer.write(b"0\r\n\r\n")
            await writer.drain()
            if reply.head.framing == "close":
                writer.write_eof()
                await left
        finally:
            left.cancel()
            await asyncio.wait({left})

    async def _do(self, piece: Piece, writer: asyncio.StreamWriter, left: asyncio.Task[bytes]) -> None:
        if piece is CUT:
            raise ConnectionAbortedError
        if piece is RESET:
            linger: socket.socket = writer.get_extra_info("socket")
            linger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RST)
            raise ConnectionAbortedError
        if piece is HANG:
            await left
            raise ConnectionResetError
        if isinstance(piece, Gate):
            await _unless_left(piece.wait(), left)
        elif isinstance(piece, Pause):
            await _unless_left(self._clock.sleep(piece.seconds), left)


def rendered(said: ModelScriptItem, *faults: Fault, talk: Talk) -> bytes:
    """The body that a `ModelServer` sends as the answer: to know its length, say, and cut it at each byte.

    Raises:
        InvalidModelStep: `said` is no step.
        UserError: it cannot be said over this wire.
    """
    reply = _reply(_step(said, 0), talk, faults)
    return b"".join(piece for piece in reply.pieces if isinstance(piece, bytes))


async def _unless_left(waits: Awaitable[None], left: asyncio.Task[bytes]) -> None:
    """Wait, but no longer than the client does."""
    waiting = asyncio.ensure_future(waits)
    try:
        await asyncio.wait({waiting, left}, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ConnectionResetError
        await waiting
    finally:
        waiting.cancel()


def _step(said: ModelScriptItem, index: int) -> ModelStep:
    step = as_step(said, index)
    if step.responder is not None:
        raise UserError(
            "A responder answers a ModelCall, which a server has not: give a function of the request instead."
        )
    if step.error is not None and step.fail_after is None:
        raise UserError(
            f"A server cannot raise {step.error!r}: give an answer with faults.Status(500), or faults.Reset()."
        )
    return step


def _talk(request: ReceivedRequest) -> Talk:
    """How the request wants to be answered."""
    wires: dict[str, model_wires.Wire] = {"/responses": "responses", "/chat/completions": "chat"}
    for path, wire in wires.items():
        if request.method == "POST" and request.path.endswith(path):
            body: dict[str, Any] = request.json
            options: dict[str, Any] = body.get("stream_options") or {}
            return Talk(wire, bool(body.get("stream")), bool(options.get("include_usage")))
    raise UserError(f"This server knows no {request.method} {request.path}.")


def _reply(step: ModelStep, talk: Talk, faults: Sequence[Fault]) -> _Reply:
    said = model_wires.objects(step, talk)
    for fault in faults:
        said = fault.objects(said, talk)
    frames = model_wires.frames(said, talk.wire) if talk.streamed else [model_wires.text(one) for one in said]
    content = "text/event-stream; charset=utf-8" if talk.streamed else "application/json"
    head = Head(headers={"content-type": content}, framing="chunked" if talk.streamed else "length")
    for fault in faults:
        frames = fault.frames(frames, talk) if talk.streamed else frames
        head = fault.head(head)
    pieces: list[Piece] = list(frames)
    for fault in (*faults, *_own_faults(step, talk)):
        pieces = fault.pieces(pieces)
    return _Reply(pieces, head)


def _own_faults(step: ModelStep, talk: Talk) -> list[Fault]:
    """What a step itself says of where it breaks; a whole answer breaks off before it begins."""
    own = [(step.fail_after, Reset), (step.hang_after, Stall), (step.truncate_after, End)]
    return [fault(frame=after if talk.streamed else 0) for after, fault in own if after is not None]


def _refused_or(answer: Callable[[ReceivedRequest], _Reply], request: ReceivedRequest) -> _Reply:
    try:
        return answer(request)
    except Exception as error:  # the test's mistake: it shall see it where it looks, in the client's error
        return _failure(str(error))


def _failure(told: str) -> _Reply:
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    return _Reply([json.dumps({"error": {"message": told}}).encode()], Head(status=500, headers=headers))


def _listed(models: Sequence[str], _: ReceivedRequest) -> _Reply:
    data = [{"id": name, "object": "model", "created": 0, "owned_by": "millstream"} for name in models]
    body = json.dumps({"object": "list", "data": data}).encode()
    return _Reply([body], Head(headers={"content-type": "application/json"}))


def _head_pieces(reply: _Reply) -> list[Piece]:
    lines = _head_lines(reply)
    pieces: list[Piece] = []
    sent = 0
    for byte, does in sorted(reply.head.within, key=lambda place: place[0]):
        if not 0 <= byte <= len(lines):
            raise UserError(f"A fault at byte {byte} of the head: it has {len(lines)} bytes.")
        pieces += [lines[sent:byte], does]
        sent = byte
    return [*pieces, lines[sent:]]


def _head_lines(reply: _Reply) -> bytes:
    head = reply.head
    headers = dict(head.headers)
    if head.framing == "chunked":
        headers.setdefault("transfer-encoding", "chunked")
    elif head.framing == "length":
        size = sum(len(piece) for piece in reply.pieces if isinstance(piece, bytes))
        headers.setdefault("content-length", str(size))
    lines = [
        f"{head.version} {head.status} Scripted",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def _read_request(reader: asyncio.StreamReader) -> ReceivedRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return ReceivedRequest(method, target, headers, body)
