"""What a soak is made of: servers that are killed, lines that break, and clients that come back (`tests/soak.py`)."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from websockets.exceptions import WebSocketException

from millstream.client import Client, SseParser
from millstream.errors import ServerUnreachableError
from tests.cli.program import PROGRAM, environment
from tests.server.sockets import CutLine
from tests.server.talk import LAST, TERMINAL, talking
from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
LEASE = 2.0
"""Seconds. One that is held still for longer loses its runs."""
SILENCE = 10.0
"""Seconds after which a client takes its server for dead, and comes back: the other may be alive."""

APP = f"""
import asyncio
import os

from millstream import Agent, RunConfig, tool
from millstream.server import LOCAL, create_app
from millstream.testing import function_call
from tests.support.by_history import ByHistory


@tool
async def work(number: int, pause: int) -> dict:
    await asyncio.sleep(pause / 1000)
    return {{"text": "a\\r\\nb\\u2028c\\0: id: 5\\n\\n" * number, "bytes": b"\\xff"}}


@tool(needs_approval=True)
async def pay() -> str:
    await asyncio.sleep(0.01)
    return "paid"


async def agent_of(record):
    steps, asks, pause = map(int, record.agent.split("_")[1:])
    ids = tuple(f"c{{number}}" for number in range(steps))
    says = {{
        ids[:number]: [function_call("work", {{"number": number, "pause": pause}}, call_id=ids[number])]
        for number in range(steps)
    }}
    said = "Grüße aus 東京 \\n\\nid: 1 🏁 " * (steps * 5)
    says |= {{ids: [function_call("pay", {{}}, call_id="ask")], (*ids, "ask"): said}} if asks else {{ids: said}}
    return Agent(name=record.agent, tools=[work, pay], model=ByHistory(says))


app = create_app(
    agent_of, access=LOCAL, log=os.environ["SOAK_STORE"], run_config=RunConfig(lease={LEASE}), heartbeat=1, drain=0.5,
    max_attempts=1000,
)
"""


class BrokenError(Exception):
    """An invariant does not hold.

    Args:
        what: what should have been, and is not.
        facts: what there is.
    """

    def __init__(self, what: str, **facts: Any) -> None:
        super().__init__(what)
        self.facts = facts


class AgainError(Exception):
    """A server was asked that cannot answer now."""


TROUBLE = (AgainError, ServerUnreachableError, httpx2.TransportError, WebSocketException, OSError, EOFError)
"""What a client meets whose line broke, or whose server is gone: it comes back."""


class Server:
    """A server in a process of its own, that is stopped in every way and started again at its place.

    Args:
        name: names its log.
        folder: where it runs.
        store: where its runs are.
    """

    def __init__(self, name: str, folder: Path, store: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"{name}.log"
        self._folder = folder
        self._store = store
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Start it, and wait until it is ready."""
        environ = environment({"SOAK_STORE": self._store, "PYTHONPATH": str(ROOT)})
        command = [*PROGRAM, "serve", "app.py:app", "--port", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self._folder, env=environ, stderr=log)
        async with httpx2.AsyncClient(verify=False, timeout=SILENCE) as http:
            while not await self._is_ready(http):
                if self._process.poll() is not None:
                    raise BrokenError(f"a server ended by itself: see {self._log}")
                await asyncio.sleep(0.05)

    async def _is_ready(self, http: httpx2.AsyncClient) -> bool:
        with contextlib.suppress(httpx2.TransportError):
            return (await http.get(f"{self.url}/ready")).status_code == 200
        return False

    def tell(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def until_ended(self) -> int:
        """Its exit code."""
        assert self._process is not None
        return await asyncio.to_thread(self._process.wait)

    def end(self) -> None:
        """At once, if it has begun."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    @property
    def weight(self) -> tuple[int, int]:
        """Its file descriptors, and the KiB of memory that it has (Linux; elsewhere zeros)."""
        assert self._process is not None
        proc = Path(f"/proc/{self._process.pid}")
        if not proc.exists():
            return 0, 0
        pages = int((proc / "statm").read_text().split()[1])
        return len(list((proc / "fd").iterdir())), pages * os.sysconf("SC_PAGE_SIZE") // 1024


async def kill(server: Server, rng: random.Random) -> None:
    """End it as a power switch does, and start it again a while later."""
    server.tell(signal.SIGKILL)
    await server.until_ended()
    await asyncio.sleep(rng.uniform(0, LEASE))
    await server.start()


async def stop(server: Server, rng: random.Random) -> None:
    """Stop it as one is that is updated."""
    server.tell(signal.SIGTERM)
    if code := await server.until_ended():
        raise BrokenError(f"a server that got SIGTERM ended with {code}")
    await server.start()


async def freeze(server: Server, rng: random.Random) -> None:
    """Hold it still, mostly for longer than its leases last."""
    server.tell(signal.SIGSTOP)
    await asyncio.sleep(LEASE * rng.uniform(0.5, 2))
    server.tell(signal.SIGCONT)


class BadLine(CutLine):
    """A line that breaks at random places: most of its connections, and not all."""

    def __init__(self, port: int, rng: random.Random) -> None:
        super().__init__(port)
        self._rng = rng

    def limit(self) -> int | None:
        return None if self._rng.random() < 0.2 else self._rng.randrange(200, 8_000)


# --- three ways to follow ------------------------------------------------------------------------

Pieces = AsyncGenerator[bytes]


async def by_sse(http: httpx2.AsyncClient, run_id: str, after: int) -> Pieces:
    """What comes of a run from behind `after`, until the line breaks or the run ends."""
    async with http.stream("GET", f"/runs/{run_id}/events", params={"after": after}) as response:
        if response.status_code == 204:
            return
        if response.status_code != 200:
            refused(response.status_code, await response.aread())
        parser = SseParser()
        async for piece in response.aiter_raw():
            for event in parser.feed(piece):
                yield event.data.encode()


async def by_websocket(http: httpx2.AsyncClient, run_id: str, after: int) -> Pieces:
    """As `by_sse`."""
    async with talking(http, open_timeout=SILENCE, compression=None) as talk:
        told = await talk.say("follow", run_id=run_id, after=after)
        if "error" in told:
            refused(0, json.dumps(told).encode())
        for message in talk.heard:  # came before the answer
            yield message
        while told["is_followed"]:
            await talk.next()
            yield talk.heard[-1]


async def by_client(http: httpx2.AsyncClient, run_id: str, after: int) -> Pieces:
    """As `by_sse`, by our own client, which comes back by itself."""
    client = Client(str(http.base_url), http_client=http, tries=4, idle_timeout=SILENCE)
    async for entry in client.run(run_id).entries(after):
        yield entry.to_json()


WAYS: list[Callable[[httpx2.AsyncClient, str, int], Pieces]] = [by_sse, by_websocket, by_client]


def refused(status: int, body: bytes) -> None:
    """Raise what an answer means that is an error."""
    try:
        error = json.loads(body)["error"]
    except (ValueError, KeyError):
        raise BrokenError(f"an answer of {status} that is no error of ours", body=repr(body)) from None
    if not error["retryable"]:
        raise BrokenError(f"a server refuses a client with {error['code']}", status=status, error=error)
    raise AgainError


# --- a client ------------------------------------------------------------------------------------


@dataclass
class Doing:
    """What one client does, by its seed."""

    rng: random.Random
    steps: int = field(init=False)
    asks: bool = field(init=False)
    pause: int = field(init=False)
    acts: dict[int, str] = field(init=False)
    """Behind how many entries it acts, and how."""

    def __post_init__(self) -> None:
        rng = self.rng
        self.steps, self.asks, self.pause = rng.randint(1, 6), rng.random() < 0.4, rng.randint(1, 400)
        self.acts = {}
        for act in ("input", "cancel"):
            if rng.random() < 0.25:
                self.acts[rng.randint(1, 30)] = act

    @property
    def agent(self) -> str:
        return f"soak_{self.steps}_{int(self.asks)}_{self.pause}"


class User:
    """Starts one run, and follows it to its end through whatever happens.

    Args:
        doing: what it does.
        key: names the run.
        lines: to each server, good or bad.
    """

    def __init__(self, doing: Doing, key: str, lines: list[str]) -> None:
        self.doing = doing
        self.key = key
        self.run_id = ""
        self.seen: list[bytes] = []
        self.connections = 0
        self.has_cancelled = False
        self._lines = lines
        self._acts = dict(doing.acts)

    async def run(self) -> None:
        """Do it all."""
        body = {"input": self.key, "agent": self.doing.agent}
        told = await self._ask("/runs", body, {"idempotency-key": self.key})
        self.run_id = told["run_id"]
        while not self.is_over:
            self.connections += 1
            with contextlib.suppress(*TROUBLE):
                async with self._reached() as http, contextlib.aclosing(self._pieces(http)) as pieces:
                    async for piece in pieces:
                        await self._take(piece)
                        if self.is_over:  # a WebSocket stays
                            return
            await asyncio.sleep(0.05 * self.doing.rng.random())

    @property
    def is_over(self) -> bool:
        return bool(self.seen) and is_end(self.seen[-1])

    def _pieces(self, http: httpx2.AsyncClient) -> Pieces:
        return self.doing.rng.choice(WAYS)(http, self.run_id, len(self.seen))

    async def _take(self, piece: bytes) -> None:
        told = json.loads(piece)
        if "event" not in told:
            if told["type"] == "stream.gap":
                raise BrokenError("a client is told of a gap", told=told)
            return
        self.seen.append(piece)
        if told["event"]["type"] == "run.paused":
            approved = self.doing.rng.random() < 0.7
            await self._act("decisions", {"call_id": "ask", "approved": approved})
        for at in [at for at in self._acts if at <= len(self.seen)]:
            if self._acts.pop(at) == "cancel":
                self.has_cancelled = True
                await self._act(
                    "cancel", {"mode": self.doing.rng.choice(["now", "after_tool", "after_turn"])}
                )
            else:
                await self._act("input", {"input": "And this."})

    async def _act(self, what: str, body: dict[str, Any]) -> None:
        await self._ask(f"/runs/{self.run_id}/{what}", body, {})

    async def _ask(self, path: str, body: Any, headers: dict[str, str]) -> Any:
        """Ask one server or the other until one has answered."""
        while True:
            with contextlib.suppress(*TROUBLE):
                async with self._reached() as http:
                    response = await http.post(path, json=body, headers=headers)
                if response.status_code == 409 and path != "/runs":
                    return None  # too late: the run is over, or nothing waits any more
                if response.status_code == 202:
                    return response.json()
                refused(response.status_code, response.content)
            await asyncio.sleep(0.05 * self.doing.rng.random())

    @contextlib.asynccontextmanager
    async def _reached(self) -> AsyncIterator[httpx2.AsyncClient]:
        url = self.doing.rng.choice(self._lines)
        async with httpx2.AsyncClient(base_url=url, timeout=SILENCE, verify=False) as http:
            yield http


def is_end(piece: bytes) -> bool:
    """Whether a message is the last of its run's stream."""
    told = json.loads(piece)
    return told.get("depth") == 0 and told.get("event", {}).get("type") in TERMINAL


async def replay(http: httpx2.AsyncClient, run_id: str) -> list[bytes]:
    """The whole stream of a run that has ended."""
    return [piece async for piece in by_sse(http, run_id, 0) if json.loads(piece).get("type") not in LAST]
