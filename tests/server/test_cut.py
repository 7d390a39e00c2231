"""A client that is cut off anywhere and comes back has the very stream of one that never was."""

import contextlib
import json
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, tool
from millstream.client import SseEvent, SseParser
from millstream.log import RunStore, SQLiteLog
from millstream.server import LOCAL, create_app
from millstream.testing import ScriptedModel, check_stream, function_call
from tests.server.cuts import TRANSPORTS, Sse, cut_places
from tests.server.kit import PATIENCE, events_of, hosting, serving
from tests.server.sockets import CutLine, line_to, port_of
from tests.support.redis_server import redis_server

Stores = Callable[[], RunStore]
"""Opens the one store of a test anew, as another process would."""


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=[pytest.mark.slow, pytest.mark.requires_program("redis-server")]),
    ]
)
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stores]:
    if request.param == "memory":
        log = MemoryLog()
        yield lambda: log
    elif request.param == "sqlite":
        yield lambda: SQLiteLog(tmp_path / "runs.db")
    else:
        from millstream.log.redis import RedisLog

        with redis_server() as url:
            yield lambda: RedisLog(url)


ANSWER = "Grüße aus 東京 \U0001f5fc\n\nid: 1 🏁\r\u2028\x85\0"


async def rich(record: Any) -> Agent[Any]:
    """An agent whose runs say what parsers like to fall over."""

    @tool
    async def look_up(city: str) -> dict[str, Any]:
        return {"text": "a\r\nb\u2028c\x85\0: id: 5\n\n", "city": city, "bytes": b"\xff"}

    steps = [function_call("look_up", {"city": "Zürich\n\ndata: x"})], ANSWER
    return Agent(name="R\u0308ich", model=ScriptedModel(list(steps)), tools=[look_up])


START = {"input": "Hi\n\nid: 9", "agent": "Rich"}


async def uncut_run(client: httpx2.AsyncClient) -> tuple[str, list[SseEvent]]:
    """A run that has ended, and its whole stream."""
    run_id = (await client.post("/runs", json=START)).json()["run_id"]
    events = await events_of(client, run_id)
    assert check_stream("\n".join(event.data for event in events)).ok
    assert json.loads(events[-1].data)["event"]["output"] == ANSWER
    return run_id, events


@contextlib.asynccontextmanager
async def two_servers(stores: Stores) -> AsyncIterator[tuple[httpx2.AsyncClient, httpx2.AsyncClient]]:
    """Two servers that share nothing but their store."""
    async with (
        hosting(create_app(rich, access=LOCAL, log=stores())) as one,
        hosting(create_app(rich, access=LOCAL, log=stores())) as other,
        httpx2.AsyncClient(base_url=one, timeout=PATIENCE, verify=False) as of_one,
        httpx2.AsyncClient(base_url=other, timeout=PATIENCE, verify=False) as of_other,
    ):
        yield of_one, of_other


async def test_a_client_that_is_cut_at_any_byte_resumes_to_the_uncut_stream() -> None:
    async with serving(create_app(rich, access=LOCAL, log=MemoryLog())) as client:
        run_id, events = await uncut_run(client)
        whole = (await client.get(f"/runs/{run_id}/events")).content
        rest = {str(event.id): await events_of(client, run_id, int(event.id)) for event in events[:-1]} | {
            "": events,
            events[-1].id: [],
        }

    parser, seen = SseParser(), list[SseEvent]()
    for place in range(len(whole)):
        assert seen + rest[parser.last_event_id] == events, place
        seen += parser.feed(whole[place : place + 1])
    assert seen == events


async def on_the_wire(client: httpx2.AsyncClient, run_id: str) -> bytes:
    """All bytes of the answer that replays a run: its head, and its body in chunks."""
    async with line_to(client) as (reader, writer):
        writer.write(f"GET /runs/{run_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        return await reader.readuntil(b"\r\n0\r\n\r\n")


async def seen_until_cut(response: httpx2.Response) -> list[SseEvent]:
    """What arrives before the line breaks, or the stream ends."""
    parser, events = SseParser(), list[SseEvent]()
    with contextlib.suppress(httpx2.TransportError):
        async for piece in response.aiter_raw():
            events += parser.feed(piece)
    return events


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> Any:
    return TRANSPORTS[request.param]


async def test_a_client_that_is_cut_behind_any_event_and_comes_back_misses_none(
    stores: Stores, transport: Any
) -> None:
    async with two_servers(stores) as (one, other):
        run_id, events = await uncut_run(one)
        whole = [event.data.encode() for event in events]
        for cut in range(len(whole)):
            seen = await transport.until_cut(one, run_id, enough=lambda seen, cut=cut: len(seen) >= cut)
            assert seen[:cut] == whole[:cut]
            again = other if cut % 2 else one
            assert seen[:cut] + await transport.rest(again, run_id, cut) == whole, cut


async def test_a_line_that_breaks_behind_any_event_loses_none(stores: Stores) -> None:
    async with two_servers(stores) as (one, other):
        run_id, events = await uncut_run(one)
        wire = await on_the_wire(one, run_id)
        ends = [place + 2 for place in range(len(wire)) if wire.startswith(b"\n\n", place)]
        assert len(ends) == len(events)
        await cuts_of_a_replay(run_id, Sse(), one, other, cuts=ends)


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_line_that_breaks_at_any_byte_loses_nothing_on_either_server(
    stores: Stores, transport: Any
) -> None:
    async with two_servers(stores) as (one, other):
        run_id, events = await uncut_run(one)
        places = cut_places([event.data.encode() for event in events], seed=200)
        await cuts_of_a_replay(run_id, transport, one, other, cuts=places)


async def cuts_of_a_replay(
    run_id: str, transport: Any, one: httpx2.AsyncClient, other: httpx2.AsyncClient, cuts: list[int]
) -> None:
    """Follow the run through a line that breaks at each of `cuts`, and resume on one server or the other in turn."""
    whole = await transport.rest(one, run_id)
    line, broken = CutLine(port_of(one)), 0
    async with (
        line.open() as url,
        httpx2.AsyncClient(base_url=url, timeout=PATIENCE, verify=False) as through,
    ):
        for number, line.lets_through in enumerate(cuts):
            seen = await transport.until_cut(through, run_id)
            assert seen == whole[: len(seen)]
            if len(seen) < len(whole):
                broken += 1
                seen += await transport.rest(other if number % 2 else one, run_id, len(seen))
            assert seen == whole, line.lets_through
    assert broken >= len(cuts) - 1


async def test_a_run_whose_starter_is_cut_off_is_begun_once_and_seen_whole(stores: Stores) -> None:
    # The run is under way. Who was cut before he knew its id asks again with his key.
    places = random.Random(1).sample(range(12_000), 30)
    async with two_servers(stores) as (one, other):
        line = CutLine(port_of(one))
        async with (
            line.open() as url,
            httpx2.AsyncClient(base_url=url, timeout=PATIENCE, verify=False) as through,
        ):
            for number, place in enumerate([10, *places]):
                again = other if number % 2 else one
                headers = {"idempotency-key": secrets.token_hex(8)}
                seen, line.lets_through = list[SseEvent](), place
                with contextlib.suppress(httpx2.TransportError):
                    async with through.stream(
                        "POST", "/runs", json=START | {"stream": True}, headers=headers
                    ) as got:
                        seen = await seen_until_cut(got)
                response = await again.post("/runs", json=START, headers=headers)
                run_id = response.json()["run_id"]
                last = int(seen[-1].id) if seen else 0
                if '"run.completed"' not in (seen[-1].data if seen else ""):
                    seen += await events_of(again, run_id, last)
                assert seen == await events_of(one, run_id), place
                assert [json.loads(event.data)["event"]["type"] for event in seen].count("run.started") == 1
        assert len((await one.get("/runs?limit=100")).json()["runs"]) == len(places) + 1
