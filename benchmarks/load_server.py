"""A server under load, in a process of its own; `load.py` starts it and speaks to it by its standard input.

python load_server.py PLAN     serves a store with Millstream, as `millstream serve` does
                               or, where the plan says so, the floor: a bare ASGI application that
                               writes the same bytes to as many clients

It prints its port. Then it answers each of these lines by one:

    go        the paced part of every run begins
    end       every run may end
    measure   JSON: seconds of CPU so far, and the bytes that wait for the client that takes least
"""

import asyncio
import json
import socket
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

import uvicorn
from logs_runs import recorded
from logs_stores import DELTA

from millstream import Agent, Model, open_log
from millstream.cli.collector import relieve_collector
from millstream.delivery.frame import entry_message, sse_frame
from millstream.delivery.sse import SSE_HEADERS
from millstream.events import Entry, RawResponsesStreamEvent, Stamp
from millstream.items import ModelResponse
from millstream.models.promise import RawBatch
from millstream.server import LOCAL, create_app
from millstream.server.slow_headers import HeaderLimit


@dataclass(frozen=True)
class Plan:
    """What is served, and at which pace."""

    address: str
    """Of the store; "" for the floor."""
    runs: int
    """How many there are: one that all read, or one for each reader."""
    deltas: int
    """How many events of its model each run gives after `go`."""
    gap: float
    """Seconds between two of them; 0 for as fast as it goes."""

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def moments(self, number: int) -> list[float]:
        """When each delta of that run is due, in seconds behind `go`. Runs take turns."""
        return [self.gap * (at + number % self.runs / self.runs) for at in range(self.deltas)]


class Gates:
    """What the benchmark has said."""

    def __init__(self) -> None:
        self.go, self.end = asyncio.Event(), asyncio.Event()
        self.began = 0.0

    def open(self, said: str) -> None:
        self.began = time.monotonic()
        {"go": self.go, "end": self.end}[said].set()

    async def until(self, moment: float) -> None:
        """Return that long behind `go`; at once, but behind the others' turn, where that is over."""
        await asyncio.sleep(max(0.0, self.began + moment - time.monotonic()))


class Paced(Model):
    """Answers with as many deltas at once as its input says, then with one at a time."""

    def __init__(self, plan: Plan, gates: Gates, answer: RawBatch) -> None:
        self._plan = plan
        self._gates = gates
        at = answer.types.index("response.output_text.delta")
        self._head = RawBatch(answer.events[:at], answer.types[:at])
        self._tail = RawBatch(answer.events[at + 1 :], answer.types[at + 1 :])
        self._calls = 0

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        raise NotImplementedError

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def stream_batches(self, _: Any, input: Any, *__: Any, **___: Any) -> AsyncIterator[RawBatch]:
        plan, gates = self._plan, self._gates
        moments = plan.moments(self._calls)
        self._calls += 1
        text = input if isinstance(input, str) else input[-1]["content"]
        yield self._head
        for _ in range(int(text) // TOGETHER):
            yield _deltas(TOGETHER)
            await asyncio.sleep(0)
        await gates.go.wait()
        for moment in moments:
            await gates.until(moment)
            yield _deltas(1)
        await gates.end.wait()
        yield self._tail


TOGETHER = 16
"""Deltas of one read, of those that come at once."""


def _deltas(count: int) -> RawBatch:
    return RawBatch([DELTA] * count, ["response.output_text.delta"] * count)


class Floor:
    """An ASGI application that sends frames of the same bytes, made once for all who read the same run."""

    def __init__(self, plan: Plan, gates: Gates) -> None:
        self._plan = plan
        self._gates = gates
        self._frames: list[bytes] = []
        self._more = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._requests = 0
        stamp = Stamp("run_" + 32 * "0", "Loaded", turn=1, time=1.5)
        frame = sse_frame(entry_message(Entry(7, stamp, RawResponsesStreamEvent.from_wire(DELTA))))
        self._form = frame.replace(b"id: 7", b"id: %d").replace(b":7,", b":%d,").replace(b"1.5", b"%.6f")

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            while (message := await receive())["type"] != "lifespan.shutdown":
                await send({"type": f"{message['type']}.complete"})
            await send({"type": "lifespan.shutdown.complete"})
            return
        number, self._requests = self._requests, self._requests + 1
        headers = [(name.encode(), value.encode()) for name, value in SSE_HEADERS.items()]
        await send({"type": "http.response.start", "status": 200, "headers": headers})

        async def write(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body, "more_body": True})

        await write(self._frame(1))
        if self._plan.runs == 1:
            await self._share(write)
        else:
            await self._gates.go.wait()
            for position, moment in enumerate(self._plan.moments(number), 2):
                await self._gates.until(moment)
                await write(self._frame(position))
        await self._gates.end.wait()
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _share(self, write: Any) -> None:
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())
        for at in range(self._plan.deltas):
            while at >= len(self._frames):
                await self._more.wait()
            await write(self._frames[at])

    async def _write(self) -> None:
        await self._gates.go.wait()
        for position, moment in enumerate(self._plan.moments(0), 2):
            await self._gates.until(moment)
            self._frames.append(self._frame(position))
            more, self._more = self._more, asyncio.Event()
            more.set()

    def _frame(self, position: int) -> bytes:
        return self._form % (position, position, time.time())


async def application(plan: Plan, gates: Gates) -> Any:
    if not plan.address:
        return Floor(plan, gates)
    model = Paced(plan, gates, await recorded("word"))
    return create_app(
        Agent(name="Loaded", model=model),
        access=LOCAL,
        log=open_log(plan.address),
        drain=0,
        max_runs=1_000_000,
        max_streams=1_000_000,
    )


class Host(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()


async def main(plan: Plan) -> None:
    gates = Gates()
    config = uvicorn.Config(
        await application(plan, gates),
        http=HeaderLimit if plan.address else "auto",  # as `millstream serve` has it
        log_level="warning",
        timeout_graceful_shutdown=1,
    )
    server = Host(config)
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        serving = asyncio.create_task(server.serve([listening]))
        await server.has_started.wait()
        relieve_collector()  # as `millstream serve` does
        print(listening.getsockname()[1], flush=True)
        await obey(server, gates)
        server.should_exit = True
        await serving


async def obey(server: uvicorn.Server, gates: Gates) -> None:
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while said := (await lines.readline()).decode().strip():
        if said == "measure":
            print(json.dumps({"cpu": time.process_time(), "waiting": waiting(server)}), flush=True)
        else:
            gates.open(said)
            print(said, flush=True)


def waiting(server: uvicorn.Server) -> int:
    """The most bytes that this process holds for one client."""
    connections: Any = server.server_state.connections
    return max((each.transport.get_write_buffer_size() for each in connections), default=0)


if __name__ == "__main__":
    asyncio.run(main(Plan(**json.loads(sys.argv[1]))))
