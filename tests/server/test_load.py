"""Many at once: readers of one run, streams that break off together, requests that wait for a store that is busy."""

import asyncio
import contextlib
import json
import threading
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, RunConfig, tool
from millstream.client import SseParser
from millstream.log import RedisLog, SQLiteLog
from millstream.server import LOCAL, create_app
from millstream.server import app as server_app
from millstream.server.streaming import LATEST, SOONEST
from millstream.testing import ManualClock, ScriptedModel, function_call
from tests.server.kit import serving
from tests.server.sockets import line_to, stalled
from tests.support.redis_server import own_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

READERS = 200
"""As many as a process that may have 1024 files has sockets for, at both ends."""


class Held:
    """An agent that says much, then stands still in a tool until it is let go, and says a little more."""

    def __init__(self, text: str = "Hi", chunk_size: int = 250_000) -> None:
        self.go_on = asyncio.Event()

        @tool
        async def hold() -> str:
            await self.go_on.wait()
            return "held"

        model = ScriptedModel([[text, function_call("hold")], "Done."], chunk_size=chunk_size)
        self.agent = Agent(name="A", model=model, tools=[hold])


class Handed:
    """An application around another: how many bytes of its answers it has handed on, by the port of the client."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.bytes: Counter[int] = Counter()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            self.bytes[scope["client"][1]] += len(message.get("body", b""))
            await send(message)

        await self.app(scope, receive, send if scope["type"] == "lifespan" else counted)


async def standing(client: httpx2.AsyncClient) -> tuple[str, int]:
    """The path of a run that stands still in its tool, and its last position."""
    run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
    async with client.stream("GET", f"/runs/{run_id}/events", params={"types": "tool.started"}) as answer:
        parser = SseParser()
        async for piece in answer.aiter_raw():
            for event in parser.feed(piece):
                if '"type":"tool.started"' in event.data:
                    return f"/runs/{run_id}/events", int(event.id)
    raise AssertionError("it has ended")


class Follower:
    """A client that is a socket and a parser."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.parser = SseParser()
        self.head = b""

    async def ask(self, path: str, after: int) -> None:
        self._writer.write(f"GET {path}?after={after} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        self.head = await self._reader.readuntil(b"\r\n\r\n")

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    async def rest(self) -> list[tuple[int, str]]:
        """Positions and types of what comes, to the end of the body."""
        found: list[tuple[int, str]] = []
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            events = self.parser.feed(await self._reader.readexactly(size))
            found += [(int(event.id), json.loads(event.data)["event"]["type"]) for event in events]
            await self._reader.readexactly(2)
        return found

    def break_off(self) -> None:
        self._writer.transport.abort()


@contextlib.asynccontextmanager
async def followers(
    client: httpx2.AsyncClient, count: int, path: str, after: int
) -> AsyncIterator[list[Follower]]:
    """So many clients, each of which has the head of its answer."""
    async with contextlib.AsyncExitStack() as lines:
        found = [Follower(*await lines.enter_async_context(line_to(client))) for _ in range(count)]
        await asyncio.gather(*(each.ask(path, after) for each in found))
        yield found


async def test_row_12_of_many_readers_of_one_run_one_that_stalls_for_ever_costs_the_others_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock, held = ManualClock(), Held("x" * 4_000_000)
    app = create_app(
        held.agent,
        access=LOCAL,
        log=MemoryLog(),
        run_config=RunConfig(clock=clock),
        send_timeout=7,
        heartbeat=1000,
    )
    handed = Handed(app)
    async with serving(handed) as client:
        path, last = await standing(client)
        async with stalled(client, path) as line:
            port = line.getsockname()[1]
            async with followers(client, READERS, path, last) as readers:
                while 7 not in clock.due:  # nothing more is taken of what it is sent
                    await asyncio.sleep(0)
                held.go_on.set()
                seen = await asyncio.gather(*(each.rest() for each in readers))
            held_for_it = handed.bytes[port]
            clock.advance(7)
            while "took nothing" not in caplog.text:
                await asyncio.sleep(0)
            assert handed.bytes[port] == held_for_it

    positions = [position for position, _ in seen[0]]
    assert positions == list(range(last + 1, positions[-1] + 1))
    assert seen[0][-1][1] == "run.completed"
    assert all(each == seen[0] for each in seen)
    # Of about 20 MB it was handed what its line takes and one piece; the rest is in the log, and nowhere else.
    assert 0 < held_for_it < 4_000_000
    assert caplog.text.count("took nothing for 7 s and was let go") == 1


async def test_row_41_many_streams_that_break_off_together_come_back_to_what_they_missed() -> None:
    held = Held()
    app = create_app(held.agent, access=LOCAL, log=MemoryLog(), max_streams=2 * READERS)
    async with serving(app) as client:
        path, last = await standing(client)
        async with followers(client, READERS, path, last - 1) as idle:
            assert len(app.state.service._streams) == READERS
            for each in idle:
                each.break_off()
            # All at once, and somebody who has nothing to do with it.
            async with followers(client, READERS, path, last - 1) as back:
                assert (await client.get("/runs")).status_code == 200
                held.go_on.set()
                seen = await asyncio.gather(*(each.rest() for each in back))
        while app.state.service._streams:
            await asyncio.sleep(0)  # until it has seen that the last one is gone

    assert seen[0][0] == (last, "tool.started")
    assert seen[0][-1][1] == "run.completed"
    assert all(each == seen[0] for each in seen)


async def test_row_41_who_comes_back_too_often_takes_no_other_callers_place() -> None:
    async def by_header(connection: Any) -> str | None:
        return connection.query_params.get("as", "ann")

    held = Held()
    async with serving(create_app(held.agent, access=by_header, log=MemoryLog(), max_streams=20)) as client:
        path, last = await standing(client)
        async with followers(client, 50, path, last) as many:
            of_bob = (await client.post("/runs?as=bob", json={"input": "Hi"})).status_code
            held.go_on.set()
            statuses = Counter(each.status for each in many)
            refused = next(each for each in many if each.status == 429)

    # The place that `standing` had may be taken by then, or not yet free.
    assert statuses[200] in (19, 20)
    assert statuses[200] + statuses[429] == 50
    assert b"retry-after: 5\r\n" in refused.head.lower()
    assert of_bob == 202


async def test_row_41_a_server_that_stops_has_its_clients_come_back_one_after_the_other() -> None:
    held = Held()
    app = create_app(held.agent, access=LOCAL, log=MemoryLog(), drain=0)
    async with serving(app) as client:
        path, last = await standing(client)
        async with followers(client, 50, path, last) as readers:
            await app.state.service.leave_streams()
            await asyncio.gather(*(each.rest() for each in readers))
        held.go_on.set()

    waits = [each.parser.retry for each in readers]
    assert all(wait is not None and SOONEST <= wait <= LATEST for wait in waits)
    assert len(set(waits)) > 20


# --- a store that is busy ---------------------------------------------------------------------


UNKNOWN = f"run_{32 * '0'}"


async def all_wait(clock: ManualClock, count: int) -> None:
    while clock.due.count(server_app.ANSWER_SECONDS) < count:
        await asyncio.sleep(0)


async def are_told_to_come_back(client: httpx2.AsyncClient, clock: ManualClock) -> None:
    """Twenty requests, that all need the store: each waits as long as it may, and no longer."""
    paths = ["/runs", f"/runs/{UNKNOWN}", f"/runs/{UNKNOWN}/events", "/conversations"] * 5
    wanted = [asyncio.create_task(client.get(path)) for path in paths]
    await all_wait(clock, len(wanted))
    assert (await client.get("/health")).status_code == 200  # which needs none
    clock.advance(server_app.ANSWER_SECONDS)
    for answer in await asyncio.gather(*wanted):
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "log_unavailable"
        assert answer.headers["retry-after"] == "5"


async def test_row_43_requests_that_wait_for_the_only_thread_of_a_file_are_told_to_come_back(
    tmp_path: Path,
) -> None:
    clock, log, free = ManualClock(), SQLiteLog(tmp_path / "runs.db"), threading.Event()
    app = create_app(Held().agent, access=LOCAL, log=log, run_config=RunConfig(clock=clock), drain=0)
    async with serving(app) as client:
        busy = [
            asyncio.create_task(worker.ask(lambda _: free.wait())) for worker in (log._reader, log._writer)
        ]
        try:
            await are_told_to_come_back(client, clock)
        finally:
            free.set()
        await asyncio.gather(*busy)

        assert (await client.get("/runs")).status_code == 200
    await log.aclose()


@pytest.mark.requires_program("redis-server")
async def test_row_43_requests_that_wait_for_the_only_connection_to_redis_are_told_to_come_back() -> None:
    clock = ManualClock()
    with own_server() as server:
        log = RedisLog(server.url)
        app = create_app(Held().agent, access=LOCAL, log=log, run_config=RunConfig(clock=clock), drain=0)
        async with serving(app) as client:
            server.hold_still()
            try:
                await are_told_to_come_back(client, clock)
            finally:
                server.go_on()
            while (answer := await client.get("/runs")).status_code != 200:
                assert answer.status_code == 503
        await log.aclose()
