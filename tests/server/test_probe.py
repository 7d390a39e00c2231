"""The probe: a stream that tells when it was sent, and of nobody's runs."""

import asyncio
import json
import re
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog
from millstream.client import SseParser
from millstream.config import RunConfig
from millstream.server import LOCAL, create_app
from millstream.testing import ManualClock, ScriptedModel
from tests.server.kit import serving


def app(**options: Any) -> Any:
    agent = Agent(name="A", model=ScriptedModel(["Hello."]))
    return create_app(agent, **{"access": LOCAL, "log": MemoryLog()} | options)


def frames_in(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(event.data) for event in SseParser().feed(body)]


async def test_it_sends_frames_then_heartbeats_then_one_last_frame_and_ends() -> None:
    async with serving(app(heartbeat=7.5)) as client:
        asked = "/probe?frames=3&every=20&silence=130&heartbeat=50"
        answer = await client.get(asked, headers={"last-event-id": "41"})
        whole = await client.get("/runs/run_x/events")

    frames = frames_in(answer.content)
    assert [frame["number"] for frame in frames] == [1, 2, 3, 4]
    assert [frame["is_last"] for frame in frames] == [False, False, False, True]
    assert {frame["type"] for frame in frames} == {"stream.probe"}
    assert {frame["last_event_id"] for frame in frames} == {"41"}
    assert {frame["heartbeat"] for frame in frames} == {7.5}
    assert answer.content.count(b":\n\n") == frames[-1]["heartbeats"] == 2
    assert b"id:" not in answer.content
    assert whole.status_code == 404


async def test_it_has_the_headers_of_a_stream_of_a_run() -> None:
    async with serving(app()) as client:
        real = await client.post("/runs", json={"input": "Hi", "stream": True})
        answer = await client.get("/probe?frames=1")

    of_every_stream = {"content-type", "cache-control", "x-accel-buffering", "transfer-encoding"}
    assert {name: answer.headers[name] for name in of_every_stream} == {
        name: real.headers[name] for name in of_every_stream
    }
    assert set(answer.headers) == set(real.headers) - {"x-run-id"}


async def test_it_tells_the_times_of_the_server_and_waits_by_its_clock() -> None:
    clock = ManualClock(start=1_000_000.0)
    async with (
        serving(app(run_config=RunConfig(clock=clock))) as client,
        client.stream("GET", "/probe?frames=2&every=500&silence=16000") as response,
    ):
        pieces = response.aiter_raw()
        parser = SseParser()
        first = parser.feed(await anext(pieces))
        while 0.5 not in clock.due:
            await asyncio.sleep(0)
        clock.advance(0.5)
        second = parser.feed(await anext(pieces))
        while 15.0 not in clock.due:  # the heartbeat of this server, as none is asked for
            await asyncio.sleep(0)
        clock.advance(15.0)
        beat = await anext(pieces)
        while 1.0 not in clock.due:
            await asyncio.sleep(0)
        clock.advance(1.0)
        last = parser.feed(await anext(pieces))

    told = [json.loads(event.data) for event in [*first, *second, *last]]
    assert beat == b":\n\n"
    assert [(frame["ms"], frame["time"]) for frame in told] == [
        (0, 1_000_000.0),
        (500, 1_000_000.5),
        (16_500, 1_000_016.5),
    ]


@pytest.mark.parametrize(
    "query",
    [
        "frames=21",
        "frames=0",
        "every=2001",
        "silence=300001",
        "silence=-1",
        "heartbeat=0",
        "heartbeat=60001",
        "heartbeat=0.5",
    ],
)
async def test_nobody_can_ask_for_a_long_one(query: str) -> None:
    async with serving(app()) as client:
        refused = await client.get(f"/probe?{query}")

    assert refused.status_code == 422
    assert query.partition("=")[0] in refused.json()["error"]["message"]


async def test_it_takes_a_place_of_its_callers_streams_and_gives_it_back() -> None:
    async with serving(app(max_streams=1)) as client:
        async with client.stream("GET", "/probe?silence=300000") as held:
            pieces = held.aiter_raw()
            await anext(pieces)
            refused = await client.get("/probe")
        while (freed := await client.get("/probe?frames=1")).status_code == 429:
            await asyncio.sleep(0)

    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_streams")
    assert freed.status_code == 200


async def test_a_server_that_stops_ends_it_and_says_when_to_come_back() -> None:
    application = app()
    async with serving(application) as client, client.stream("GET", "/probe?silence=300000") as held:
        pieces = held.aiter_raw()
        body = await anext(pieces)
        await application.state.service.leave_streams()
        async for piece in pieces:
            body += piece

    assert re.search(rb"retry: [123]\d{3}\n\n$", body)
    assert not any(frame["is_last"] for frame in frames_in(body))


async def test_who_may_not_use_the_server_gets_none() -> None:
    async def nobody(connection: Any) -> str | None:
        return None

    async with serving(app(access=nobody)) as client:
        refused = await client.get("/probe")

    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "unauthorized")


async def test_what_it_tells_back_is_short_and_cannot_break_a_frame() -> None:
    async with serving(app()) as client:
        client.headers.encoding = "latin-1"
        client.headers["last-event-id"] = "x\x85x" * 30
        answer = await client.get("/probe?frames=1")
        client.headers["last-event-id"] = "x" * 101
        refused = await client.get("/probe?frames=1")

    (only, last) = frames_in(answer.content)
    assert only["last_event_id"] == last["last_event_id"] == "x\x85x" * 30
    assert refused.status_code == 422
