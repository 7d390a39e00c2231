"""A small HTTP server on loopback that answers as a test scripted it, byte for byte.

It runs on a thread and loop of its own, so that one server serves a test's many loops.

    with ModelServer() as server:
        server.answer(*text_frames("Hello"))
        client = AsyncOpenAI(api_key="k", base_url=server.url)

An answer is a sequence of steps: bytes are sent as they are (one HTTP chunk each), a `Gate`
waits until the test opens it, `CUT` breaks the connection, `HANG` sends nothing until the
client is gone.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


class _Mark:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


CUT = _Mark("CUT")
HANG = _Mark("HANG")


class Gate:
    """Holds an answer back until the test opens it; tells when the answer has come to it."""

    def __init__(self) -> None:
        self._open: Future[None] = Future()
        self._reached: Future[None] = Future()

    def open(self) -> None:
        self._open.set_result(None)

    async def reached(self) -> None:
        await asyncio.wrap_future(self._reached)

    async def _pass(self) -> None:
        self._reached.set_result(None)
        await asyncio.wrap_future(self._open)


Step = bytes | Gate | _Mark


@dataclass
class Received:
    """A request as it arrived."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    port: int
    gone: Future[None] = field(default_factory=Future, repr=False)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    async def client_gone(self) -> None:
        """Wait until the client has closed the connection of this request."""
        await asyncio.wrap_future(self.gone)


@dataclass
class Answer:
    steps: Sequence[Step]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class ModelServer:
    """See the head of this file. With no answer left, it sends status 500 and says so."""

    def __init__(self) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self._answers: list[Answer | Future[Received]] = []
        self._always: Answer | None = None
        self._started: Future[int] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def answer(
        self, *steps: Step, status: int = 200, headers: Mapping[str, str] | None = None, always: bool = False
    ) -> None:
        """Answer the next request (with `always`, every one that no other answer is for) with `steps`."""
        content = "application/json" if status != 200 else "text/event-stream"
        answer = Answer(steps, status, {"content-type": content, **(headers or {})})
        if always:
            self._always = answer
        else:
            self._answers.append(answer)

    def answer_json(self, value: Any, *, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        """Answer the next request with a JSON document."""
        self.answer(
            json.dumps(value).encode(),
            status=status,
            headers={"content-type": "application/json", **(headers or {})},
        )

    def hold(self) -> Future[Received]:
        """Send the next request nothing at all, not even a status; tells when it has come."""
        held: Future[Received] = Future()
        self._answers.append(held)
        return held

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def last(self) -> Received:
        return self.requests[-1]

    def __enter__(self) -> ModelServer:
        self._thread.start()
        self.port = self._started.result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._started.set_result(server.sockets[0].getsockname()[1])
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = None
        try:
            while True:
                request = await _read_request(reader, writer)
                self.requests.append(request)
                answer = self._next_answer()
                if isinstance(answer, Future):
                    answer.set_result(request)
                    await reader.read(1)
                    raise ConnectionResetError
                await _send(writer, reader, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            if request is not None and not request.gone.done():
                request.gone.set_result(None)
            writer.transport.abort()

    def _next_answer(self) -> Answer | Future[Received]:
        if self._answers:
            return self._answers.pop(0)
        if self._always is not None:
            return self._always
        said = json.dumps({"error": {"message": "the test scripted no answer for this request"}})
        return Answer([said.encode()], 500, {"content-type": "application/json", "x-should-retry": "false"})


async def _read_request(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    method, target, _ = first.split(" ")
    headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, target, headers, body, writer.get_extra_info("peername")[1])


async def _send(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, answer: Answer) -> None:
    headers = {"transfer-encoding": "chunked", **answer.headers}
    lines = [f"HTTP/1.1 {answer.status} Scripted", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    # Nothing is to be read while an answer goes out: what comes is the client's leaving.
    left = asyncio.create_task(reader.read(1))
    try:
        for step in answer.steps:
            if step is CUT:
                raise ConnectionAbortedError
            if step is HANG:
                await left
                raise ConnectionResetError
            if isinstance(step, Gate):
                gate = asyncio.create_task(step._pass())
                await asyncio.wait({gate, left}, return_when=asyncio.FIRST_COMPLETED)
                if not gate.done():
                    gate.cancel()
                    raise ConnectionResetError
            elif isinstance(step, bytes) and step:
                writer.write(b"%x\r\n%b\r\n" % (len(step), step))
                await writer.drain()
        writer.write(b"0\r\n\r\n")
        await writer.drain()
    finally:
        left.cancel()
        await asyncio.wait({left})


# --- frames of the two wires ------------------------------------------------------------------


def frame(type: str, **fields: Any) -> bytes:
    """One frame of the Responses wire."""
    data = json.dumps({"type": type, **fields}, separators=(",", ":"))
    return f"event: {type}\ndata: {data}\n\n".encode()


def response(
    output: Iterable[Any] = (), *, id: str = "resp_1", status: str = "completed", **more: Any
) -> dict[str, Any]:
    """A response object of the Responses wire."""
    usage = {
        "input_tokens": 3,
        "output_tokens": 5,
        "total_tokens": 8,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    return {
        "id": id,
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": list(output),
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "usage": usage if status == "completed" else None,
        **more,
    }


def message(text: str, *, id: str = "msg_1") -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": [part]}


def call(name: str, arguments: str, *, call_id: str = "call_1", id: str = "fc_1") -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": id,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def responses_frames(*output: dict[str, Any], words: Sequence[str] | None = None, **more: Any) -> list[bytes]:
    """The frames by which the Responses wire streams messages (word by word) and calls."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": response(status="in_progress", **more)}),
        ("response.in_progress", {"response": response(status="in_progress", **more)}),
    ]
    for index, item in enumerate(output):
        at = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            part = item["content"][0]
            added = {**item, "status": "in_progress", "content": []}
            kinds.append(("response.output_item.added", {"output_index": index, "item": added}))
            at["content_index"] = 0
            kinds.append(("response.content_part.added", {**at, "part": {**part, "text": ""}}))
            pieces = words or part["text"].split(" ")
            deltas = [w if i == 0 or words else f" {w}" for i, w in enumerate(pieces)]
            kinds.extend(("response.output_text.delta", {**at, "delta": d, "logprobs": []}) for d in deltas)
            kinds.append(("response.output_text.done", {**at, "text": part["text"], "logprobs": []}))
            kinds.append(("response.content_part.done", {**at, "part": part}))
        else:
            added = {**item, "status": "in_progress", "arguments": ""}
            kinds.append(("response.output_item.added", {"output_index": index, "item": added}))
            kinds.append(("response.function_call_arguments.delta", {**at, "delta": item["arguments"]}))
            done = {**at, "arguments": item["arguments"], "name": item["name"]}
            kinds.append(("response.function_call_arguments.done", done))
        kinds.append(("response.output_item.done", {"output_index": index, "item": item}))
    kinds.append(("response.completed", {"response": response(output, **more)}))
    return [frame(kind, **fields, sequence_number=n) for n, (kind, fields) in enumerate(kinds)]


def text_frames(text: str, **more: Any) -> list[bytes]:
    """The frames of an answer that is one message."""
    return responses_frames(message(text), **more)


def chunk(delta: Mapping[str, Any] | None = None, *, finish: str | None = None, **fields: Any) -> bytes:
    """One frame of the Chat Completions wire."""
    data: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    data["choices"] = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return f"data: {json.dumps({**data, **fields}, separators=(',', ':'))}\n\n".encode()


CHAT_DONE = b"data: [DONE]\n\n"
CHAT_USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 5,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def chat_frames(text: str) -> list[bytes]:
    """The frames by which the Chat Completions wire streams one message, word by word."""
    words = text.split(" ")
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": w if i == 0 else f" {w}"}) for i, w in enumerate(words)),
        chunk({}, finish="stop"),
        chunk(usage=CHAT_USAGE),
        CHAT_DONE,
    ]
