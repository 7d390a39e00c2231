"""What a follower is told at any time in the life of a run, on every store that a server may have."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, RunConfig, Runner, tool
from millstream.client import SseEvent, SseParser
from millstream.log import RunStore
from millstream.server import LOCAL, create_app
from millstream.testing import ManualClock, ScriptedModel, function_call
from tests.server.agents import Held
from tests.server.kit import events_of, serving
from tests.support.redis_server import redis_server

LEASE = 9.0
_databases = itertools.count()


@pytest.fixture(scope="module")
def redis_address() -> Iterator[str]:
    with redis_server("--databases", "100") as url:
        yield url


@pytest.fixture(
    params=["memory", "sqlite", pytest.param("redis", marks=pytest.mark.requires_program("redis-server"))]
)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., RunStore]:
    """The same store, as each process has it; opened with options."""
    if request.param == "memory":
        opened = list[MemoryLog]()

        def the_one(**options: Any) -> RunStore:
            opened.extend([MemoryLog(**options)] if not opened else [])
            return opened[0]

        return the_one
    if request.param == "sqlite":
        from millstream.log import SQLiteLog

        return lambda **options: SQLiteLog(tmp_path / "runs.db", **options)
    from millstream.log import RedisLog

    address = f"{request.getfixturevalue('redis_address')}?db={next(_databases)}"
    return lambda **options: RedisLog(address, **options)


async def followed(client: httpx2.AsyncClient, run_id: str, opened: asyncio.Event) -> list[SseEvent]:
    """The stream of a run, which sets `opened` once the server has answered."""
    parser, events = SseParser(), list[SseEvent]()
    async with client.stream("GET", f"/runs/{run_id}/events") as answer:
        assert answer.status_code == 200
        opened.set()
        async for piece in answer.aiter_raw():
            events += parser.feed(piece)
    return events


async def test_who_follows_before_a_run_begins_in_its_middle_and_behind_its_end_sees_the_same(
    stores: Callable[..., RunStore],
) -> None:
    held, clock = Held(), ManualClock()
    config = RunConfig(clock=clock, lease=LEASE)
    app = create_app(held.agent, access=LOCAL, log=stores(), run_config=config, retention=0.0)
    async with serving(app) as client:
        assert (await client.get("/ready")).status_code == 200
        run_id = (
            await Runner.submit(stores(), held.agent, "Go")
        ).run_id  # by another process, which begins none
        path = f"/runs/{run_id}"
        opened = asyncio.Event()
        early = asyncio.create_task(followed(client, run_id, opened))
        await opened.wait()
        assert (await client.get(path)).json()["status"] == "queued"
        while not held.begun.is_set():
            clock.advance(LEASE / 3)
            await asyncio.sleep(0)
        opened.clear()
        amid = asyncio.create_task(followed(client, run_id, opened))
        await opened.wait()
        assert not early.done()
        held.go_on.set()

        whole = await early
        assert await amid == whole
        assert await events_of(client, run_id) == whole
        assert (await client.get(f"{path}/events", params={"after": len(whole)})).status_code == 204
        while (await client.get(path)).status_code != 404:  # it is kept no longer than its end
            clock.advance(100)
        gone = await client.get(f"{path}/events")
        never = await client.get(f"/runs/run_{'0' * 32}/events")

    assert json.loads(whole[-1].data)["event"]["output"] == "Done."
    assert [int(event.id) for event in whole] == list(range(1, len(whole) + 1))
    assert (gone.status_code, gone.content) == (404, never.content)


@pytest.mark.breaks_grammar("its log drops the deltas of its first answer")
async def test_what_a_log_has_dropped_in_its_middle_is_a_gap_and_what_it_has_at_its_beginning_is_gone(
    stores: Callable[..., RunStore],
) -> None:
    @tool
    async def look() -> str:
        return "seen"

    steps = [["x" * 40, function_call("look")], "Done."]
    agent = Agent(name="A", model=ScriptedModel(steps, chunk_size=1), tools=[look])
    log = stores(max_events=60)
    async with serving(create_app(agent, access=LOCAL, log=log)) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        live = await events_of(client, run_id)  # which has seen more than is kept, or was told
        seen, missed, after = set[int](), set[int](), 0
        last = (await client.get(f"/runs/{run_id}")).json()["position"]
        while after < last:
            for event in await events_of(client, run_id, after):
                told = json.loads(event.data)
                if "event" in told:
                    after = told["position"]
                    seen.add(after)
                else:
                    assert (told["type"], told["requested"], event.id) == ("stream.gap", after + 1, event.id)
                    missed |= set(range(told["requested"], told["first"]))
                    after = told["first"] - 1
        await log.trim(run_id, 3)
        trimmed = await client.get(f"/runs/{run_id}/events")
        behind = await client.get(f"/runs/{run_id}/events", params={"after": 2})

    assert live
    assert missed
    assert not seen & missed
    assert seen | missed == set(range(1, last + 1))
    assert (trimmed.status_code, trimmed.json()["error"]["code"]) == (410, "gone")
    assert trimmed.json()["error"]["first"] == 3
    assert behind.content.startswith(b"id: 3\n")


@pytest.mark.may_block
async def test_a_server_whose_loop_was_blocked_goes_on_with_its_runs_and_its_heartbeats(
    stores: Callable[..., RunStore],
) -> None:
    beat = asyncio.Event()

    @tool
    async def stall() -> str:
        time.sleep(2)
        beat.clear()
        await beat.wait()  # until a follower has heard of it again
        return "stalled"

    agent = Agent(name="A", model=ScriptedModel([[function_call("stall")], "Done."]), tools=[stall])
    app = create_app(agent, access=LOCAL, log=stores(), run_config=RunConfig(lease=1), heartbeat=0.05)
    async with serving(app) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        parser, events = SseParser(), list[SseEvent]()
        async with client.stream("GET", f"/runs/{run_id}/events") as answer:
            async for piece in answer.aiter_raw():
                before = parser.comments
                events += parser.feed(piece)
                if parser.comments > before:
                    beat.set()
        record = (await client.get(f"/runs/{run_id}")).json()

    # Its lease had ended, and nobody had come: it is renewed, and is nothing to be recovered here.
    assert (record["status"], record["attempts"]) == ("completed", 1)
    assert "run.attempt" not in [json.loads(event.data)["event"]["type"] for event in events]
