"""How runs and streams end: slow readers, no readers, other servers, trouble amid a stream."""

import asyncio
import json
import logging
import socket
from collections.abc import Callable
from pathlib import Path

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, tool
from millstream.client import SseEvent, SseParser
from millstream.log import RunStore, SQLiteLog
from millstream.log.promise import Batch, Cursor
from millstream.server import LOCAL, create_app
from millstream.server.slow_headers import HeaderLimit
from millstream.testing import CANARY, ManualClock, ScriptedModel, function_call
from tests.server.agents import Held, flooding
from tests.server.kit import events_of, serving
from tests.server.sockets import asked, stalled
from tests.server.talk import TERMINAL


@pytest.fixture(params=["memory", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], RunStore]:
    if request.param == "memory":
        log = MemoryLog()
        return lambda: log
    return lambda: SQLiteLog(tmp_path / "runs.db")


async def started(client: httpx2.AsyncClient) -> str:
    return (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]


def types_of(events: list[SseEvent]) -> list[str]:
    return [json.loads(event.data)["event"]["type"] for event in events]


async def has_ended(client: httpx2.AsyncClient, run_id: str) -> str:
    """The status with which a run that nobody follows has ended."""
    while (status := (await client.get(f"/runs/{run_id}")).json()["status"]) in ("queued", "running"):
        await asyncio.sleep(0)
    return status


# --- readers ----------------------------------------------------------------------------------


async def test_a_run_that_nobody_follows_comes_to_its_end() -> None:
    agent = Agent(name="A", model=ScriptedModel(["Hello."]))
    async with serving(create_app(agent, access=LOCAL, log=MemoryLog())) as client:
        assert await has_ended(client, await started(client)) == "completed"


async def read_to_the_end(line: socket.socket) -> None:
    while await asyncio.get_running_loop().sock_recv(line, 65536):
        pass


async def test_a_reader_that_takes_nothing_is_let_go_and_may_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    async with serving(flooding(clock), http=HeaderLimit) as client:
        caplog.set_level(logging.INFO, logger="uvicorn.error")
        run_id = await started(client)
        async with stalled(client, f"/runs/{run_id}/events") as line:
            assert await has_ended(client, run_id) == "completed"  # it holds nobody up
            while 7 not in clock.due:
                await asyncio.sleep(0)
            clock.advance(7)
            while "took nothing" not in caplog.text:
                await asyncio.sleep(0)
            with pytest.raises(ConnectionResetError):  # nothing is kept for it
                await read_to_the_end(line)
        ends = await events_of(client, run_id, types="run.completed")

    assert f"run {run_id}: a client took nothing for 7 s and was let go; it may resume" in caplog.text
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert types_of(ends)[-1] == "run.completed"


# --- servers ----------------------------------------------------------------------------------


async def test_a_run_is_followed_and_stopped_by_another_server_on_its_store(
    stores: Callable[[], RunStore],
) -> None:
    held = Held()
    async with (
        serving(create_app(held.agent, access=LOCAL, log=stores())) as runner,
        serving(create_app(held.agent, access=LOCAL, log=stores())) as other,
    ):
        run_id = await started(runner)
        parser, events = SseParser(), list[SseEvent]()
        async with other.stream("GET", f"/runs/{run_id}/events") as response:
            async for piece in response.aiter_raw():
                events += parser.feed(piece)
                if "tool.started" in types_of(events) and not held.stopped.is_set():
                    assert (await other.post(f"/runs/{run_id}/cancel", json={})).status_code == 202
                    await held.stopped.wait()
        assert events == await events_of(runner, run_id)

    assert types_of(events)[-1] == "run.cancelled"
    assert types_of(events).count("run.started") == 1
    assert "run.attempt" not in types_of(events)


async def test_a_run_that_waits_goes_on_at_whichever_server_hears_the_decision(
    stores: Callable[[], RunStore],
) -> None:
    @tool(needs_approval=True)
    async def delete() -> str:
        return "deleted it"

    agent = Agent(
        name="A", model=ScriptedModel([[function_call("delete", call_id="c1")], "Done."]), tools=[delete]
    )
    async with (
        serving(create_app(agent, access=LOCAL, log=stores())) as runner,
        serving(create_app(agent, access=LOCAL, log=stores())) as other,
    ):
        run_id = await started(runner)
        await events_of(runner, run_id, until="pause")
        answers = await asyncio.gather(
            *(
                client.post(f"/runs/{run_id}/decisions", json={"call_id": "c1", "approved": True})
                for client in (other, runner, other)
            )
        )
        events = await events_of(runner, run_id)

    assert answers[0].status_code in (202, 409)
    assert 202 in {each.status_code for each in answers}
    assert types_of(events).count("tool.started") == 1
    assert types_of(events)[-1] == "run.completed"


async def test_a_run_that_is_stopped_by_many_while_it_ends_has_one_end(
    stores: Callable[[], RunStore],
) -> None:
    agents = [Agent(name=str(n), model=ScriptedModel(["Hello there, all of you."])) for n in range(12)]
    async with (
        serving(create_app(agents, access=LOCAL, log=stores())) as runner,
        serving(create_app(agents, access=LOCAL, log=stores())) as other,
    ):
        ends = set[str]()
        for n, agent in enumerate(agents):
            run_id = (await runner.post("/runs", json={"input": "Hi", "agent": agent.name})).json()["run_id"]
            for _ in range(n):  # a little later each time
                await runner.get("/health")
            path, modes = f"/runs/{run_id}/cancel", ("now", "after_turn", "now")
            said = await asyncio.gather(
                *(client.post(path, json={"mode": mode}) for client in (other, runner) for mode in modes)
            )
            assert {each.status_code for each in said} == {202}
            kinds = types_of(await events_of(other, run_id))
            assert sum(kind in TERMINAL for kind in kinds) == 1
            assert kinds[-1] in TERMINAL
            ends.add(kinds[-1])
            late = await other.post(path, json={})
            assert late.status_code == 202
            assert types_of(await events_of(runner, run_id)) == kinds

    assert ends <= {"run.completed", "run.cancelled"}


async def test_a_server_that_stops_begins_nothing_more_and_lets_its_runs_end() -> None:
    held, log = Held(), MemoryLog()
    app = create_app(held.agent, access=LOCAL, log=log, drain=3600)
    async with serving(app) as client:
        run_id = await started(client)
        await held.begun.wait()
        stopping = asyncio.create_task(app.state.service.stop())
        while not app.state.service.is_stopping:
            await asyncio.sleep(0)
        refused = await client.post("/runs", json={"input": "Hi"})
        ready = await client.get("/ready")
        held.go_on.set()
        await stopping

    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "stopping")
    assert (refused.headers["retry-after"], ready.status_code) == ("2", 503)
    assert [(each.run_id, each.status, each.is_owned) for each in await log.runs()] == [
        (run_id, "completed", False)
    ]


# --- trouble amid a stream --------------------------------------------------------------------


class Breaking(MemoryLog):
    """A store that breaks under its readers, as long as `breaks`."""

    breaks = True

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        return _BreakingCursor(self, super().cursor(run_id, after))


class _BreakingCursor(Cursor):
    def __init__(self, log: Breaking, cursor: Cursor) -> None:
        self._log, self._cursor, self._given = log, cursor, 0

    async def next(self) -> Batch | None:
        if self._log.breaks and self._given == 2:
            raise RuntimeError(f"no disk {CANARY}")
        self._given += 1
        return await self._cursor.next()


async def test_a_stream_that_breaks_says_so_ends_its_body_and_is_resumed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Breaking()
    agent = Agent(name="A", model=ScriptedModel(["Hello there."]))
    async with serving(create_app(agent, access=LOCAL, log=log)) as client:
        run_id = await started(client)
        assert await has_ended(client, run_id) == "completed"
        request = f"GET /runs/{run_id}/events HTTP/1.1\r\nHost: localhost\r\n\r\n"
        answer = await asked(client, request.encode())  # which reads to the last chunk, or fails
        *seen, trouble = SseParser().feed(answer.body)
        log.breaks = False
        rest = await events_of(client, run_id, int(seen[-1].id))
        whole = await events_of(client, run_id)

    said = json.loads(trouble.data)
    assert (said["type"], said["after"]) == ("stream.error", int(seen[-1].id))
    assert said["error_id"] in caplog.text
    assert CANARY.encode() not in answer.body
    assert CANARY in caplog.text
    assert seen + rest == whole


@pytest.mark.breaks_grammar("its log drops the deltas of its first answer")
async def test_a_position_that_is_no_longer_held_is_gone_and_never_a_shorter_stream() -> None:
    log = MemoryLog(max_events=60)

    @tool
    async def look() -> str:
        return "seen"

    steps = [["x" * 40, function_call("look")], "Done."]
    agent = Agent(name="A", model=ScriptedModel(steps, chunk_size=1), tools=[look])
    async with serving(create_app(agent, access=LOCAL, log=log)) as client:
        run_id = await started(client)
        assert await has_ended(client, run_id) == "completed"
        last = (await log.record(run_id)).last
        positions, gaps, after = set[int](), list[tuple[int, int]](), 0
        while after < last:
            for event in await events_of(client, run_id, after):
                told = json.loads(event.data)
                if "event" in told:
                    after = told["position"]
                    positions.add(after)
                else:
                    assert (told["type"], told["requested"]) == ("stream.gap", after + 1)
                    gaps.append((told["requested"], told["first"]))
                    after = told["first"] - 1
        await log.trim(run_id, 3)
        gone = await client.get(f"/runs/{run_id}/events")

    missed = {position for first, then in gaps for position in range(first, then)}
    assert gaps, "nothing was dropped, so that this shows nothing"
    assert positions | missed == set(range(1, last + 1))
    assert not positions & missed
    assert (gone.status_code, gone.json()["error"]["code"], gone.json()["error"]["first"]) == (410, "gone", 3)
