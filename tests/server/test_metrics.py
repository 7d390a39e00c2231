"""The numbers of a server, read by OpenTelemetry's own SDK while it is used over HTTP."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MaxTurnsExceeded, MemoryLog, RunConfig, Runner, metrics, tool
from millstream.log import RunStore, SQLiteLog
from millstream.server import LOCAL, create_app
from millstream.testing import CANARY, ManualClock, ScriptedModel, function_call
from tests.server.agents import Held, flooding
from tests.server.kit import events_of, serving
from tests.server.sockets import stalled
from tests.server.talk import talking
from tests.support.meters import Numbers, no_provider

RUNS, DURATION = "millstream.run.active", "millstream.run.duration"
FIRST_EVENT, FIRST_TEXT = "millstream.run.time_to_first_event", "millstream.run.time_to_first_text"
STREAMS, LAG, DROPPED = "millstream.stream.active", "millstream.stream.lag", "millstream.stream.dropped"
TAKEOVERS, BAD_FIELDS = "millstream.run.takeovers", "millstream.event.bad_fields"


async def started(client: httpx2.AsyncClient, **more: Any) -> str:
    return (await client.post("/runs", json={"input": "Hi", **more})).json()["run_id"]


async def until(what: Callable[[], bool]) -> None:
    while not what():
        await asyncio.sleep(0)


async def test_runs_and_streams_go_up_and_down(numbers: Numbers) -> None:
    held = Held()
    async with serving(create_app(held.agent, access=LOCAL, log=MemoryLog())) as client:
        before = numbers.values(RUNS), numbers.values(STREAMS)
        run_id = await started(client)
        await held.begun.wait()
        async with client.stream("GET", f"/runs/{run_id}/events") as response:
            pieces = response.aiter_raw()
            await anext(pieces)
            amid = numbers.values(RUNS), numbers.values(STREAMS), numbers.values(LAG)
            held.go_on.set()
            async for _ in pieces:
                pass
        await until(lambda: numbers.values(STREAMS)["sse"] == 0 == numbers.values(RUNS)[""])

    assert before == ({"": 0}, {"sse": 0, "websocket": 0})
    assert amid == ({"": 1}, {"sse": 1, "websocket": 0}, {"sse": 0, "websocket": 0})
    assert numbers.counts(DURATION) == {"completed": 1}


async def test_a_run_that_is_followed_on_a_websocket_is_a_stream_of_that_transport(numbers: Numbers) -> None:
    held = Held()
    async with serving(create_app(held.agent, access=LOCAL, log=MemoryLog())) as client:
        async with talking(client) as talk:
            await talk.say("start", input="Hi")
            await held.begun.wait()
            await until(lambda: numbers.values(STREAMS) == {"sse": 0, "websocket": 1})
            held.go_on.set()
            await talk.stream()
        await until(lambda: numbers.values(STREAMS) == {"sse": 0, "websocket": 0})

    assert numbers.values(LAG) == {"sse": 0, "websocket": 0}


async def test_two_servers_in_one_process_are_counted_together(numbers: Numbers) -> None:
    one, other = Held(), Held()
    async with (
        serving(create_app(one.agent, access=LOCAL, log=MemoryLog())) as first,
        serving(create_app(other.agent, access=LOCAL, log=MemoryLog())) as second,
    ):
        runs = [await started(first), await started(second)]
        await one.begun.wait()
        await other.begun.wait()
        both = numbers.values(RUNS)
        one.go_on.set()
        await events_of(first, runs[0])
        await until(lambda: numbers.values(RUNS) == {"": 1})
        other.go_on.set()
        await events_of(second, runs[1])
        await until(lambda: numbers.values(RUNS) == {"": 0})

    assert both == {"": 2}
    assert numbers.counts(DURATION) == {"completed": 2}


async def test_a_run_is_counted_by_how_it_ended(numbers: Numbers) -> None:
    held = Held()
    agents = [
        Agent(name="good", model=ScriptedModel(["Hello."])),
        Agent(name="broken", model=ScriptedModel([RuntimeError(CANARY)])),
        Agent(
            name="long", tools=held.agent.tools, model=ScriptedModel([[function_call("hold")], "Too late."])
        ),
        held.agent,
    ]
    held.go_on.set()
    async with serving(create_app(agents, access=LOCAL, log=MemoryLog())) as client:
        for agent, more in (("good", {}), ("broken", {}), ("long", {"max_turns": 1})):
            await events_of(client, await started(client, agent=agent, **more))
        held.go_on.clear()
        run_id = await started(client, agent="A")
        await held.begun.wait()
        await client.post(f"/runs/{run_id}/cancel", json={})
        await events_of(client, run_id)
        await until(lambda: numbers.values(RUNS) == {"": 0})

    ends = numbers.counts(DURATION)
    assert ends == {
        "completed": 1,
        "internal failed": 1,
        f"{MaxTurnsExceeded.code} failed": 1,
        "cancelled": 1,
    }


async def test_it_is_measured_how_long_the_first_event_and_the_first_text_are_in_coming(
    numbers: Numbers,
) -> None:
    clock, held = ManualClock(), Held()
    app = create_app(held.agent, access=LOCAL, log=MemoryLog(), run_config=RunConfig(clock=clock))
    async with serving(app) as client:
        run_id = await started(client)
        await held.begun.wait()
        await until(lambda: numbers.counts(FIRST_EVENT) == {"": 1})
        assert numbers.counts(FIRST_TEXT) == {}
        clock.advance(3)
        held.go_on.set()
        await events_of(client, run_id)
        await until(lambda: numbers.counts(FIRST_TEXT) == {"": 1})
        await until(lambda: numbers.counts(DURATION) == {"completed": 1})

    assert numbers.points(FIRST_EVENT)[""].sum == 0
    assert numbers.points(FIRST_TEXT)[""].sum == 3
    assert numbers.points(DURATION)["completed"].sum == 3


@pytest.mark.parametrize("durable", [False, True], ids=["memory", "sqlite"])
async def test_a_run_that_another_server_goes_on_with_is_a_takeover(
    numbers: Numbers, tmp_path: Path, durable: bool
) -> None:
    log = MemoryLog()
    stores: Callable[[], RunStore] = (lambda: SQLiteLog(tmp_path / "runs.db")) if durable else (lambda: log)
    first, second = Held(), Held()
    async with serving(create_app(first.agent, access=LOCAL, log=stores(), drain=0)) as client:
        run_id = await started(client)
        await first.begun.wait()
    between = numbers.values(TAKEOVERS), numbers.counts(DURATION)
    second.go_on.set()
    async with serving(create_app(second.agent, access=LOCAL, log=stores())) as client:
        await events_of(client, run_id)

    assert between == ({}, {"left": 1})
    assert numbers.values(TAKEOVERS) == {"": 1}


async def test_fields_without_json_are_counted_by_event_and_class_and_never_by_value(
    numbers: Numbers,
) -> None:
    class Secret:
        def __repr__(self) -> str:
            return CANARY

    @tool
    async def give() -> Any:
        return {"a": Secret(), "b": [Secret(), float("nan")]}

    agent = Agent(name="A", tools=[give], model=ScriptedModel([[function_call("give")], "Done."]))
    async with serving(create_app(agent, access=LOCAL, log=MemoryLog())) as client:
        await events_of(client, await started(client))

    counted = numbers.values(BAD_FIELDS)
    secret = f"{Secret.__module__}.{Secret.__qualname__}"
    assert counted == {f"run_item_stream_event {secret}": 2, "run_item_stream_event float": 1}
    assert CANARY not in json.dumps(counted)


async def test_a_stream_that_is_not_taken_falls_behind_and_is_counted_when_it_is_let_go(
    numbers: Numbers,
) -> None:
    clock = ManualClock()
    async with serving(flooding(clock)) as client:
        run_id = await started(client)
        async with stalled(client, f"/runs/{run_id}/events"):
            await until(lambda: numbers.counts(DURATION) == {"completed": 1} and 7 in clock.due)
            behind = numbers.values(LAG), numbers.values(STREAMS), numbers.values(DROPPED)
            clock.advance(7)
            await until(lambda: numbers.values(STREAMS)["sse"] == 0)

    assert behind[0]["sse"] > 0
    assert behind[0]["websocket"] == 0
    assert behind[1:] == ({"sse": 1, "websocket": 0}, {})
    assert numbers.values(DROPPED) == {"sse": 1}
    assert numbers.values(LAG)["sse"] == 0


async def test_how_far_a_stream_is_behind_is_known_of_a_run_in_a_store_too(tmp_path: Path) -> None:
    log = SQLiteLog(tmp_path / "runs.db")
    agent = Agent(name="A", model=ScriptedModel(["Hello."]))
    assert log.known_end("run_none") == 0
    run = Runner.run_streamed(agent, "Hi", run_config=RunConfig(log=log))
    await run

    assert log.known_end(run.run_id) == (await log.record(run.run_id)).last > 0
    await log.aclose()


# --- OpenTelemetry, or none -------------------------------------------------------------------


def test_the_table_of_the_page_is_that_of_the_program(root: Path) -> None:
    page = (root / "docs" / "observability.md").read_text()

    rows = re.findall(r"^\| `(millstream\.[\w.]+)` \| ([\w -]+) \| `([^`]+)` \|", page, re.MULTILINE)

    kinds = {"observable_up_down_counter": "up-down counter", "observable_gauge": "gauge"}
    assert rows == [(each.name, kinds.get(each.kind, each.kind), each.unit) for each in metrics.INSTRUMENTS]


async def test_a_provider_that_is_chosen_behind_the_first_run_has_the_numbers_from_then_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    no_provider(monkeypatch)
    agent = Agent(name="A", model=ScriptedModel(["One.", "Two."]))
    async with serving(create_app(agent, access=LOCAL, log=MemoryLog())) as client:
        await events_of(client, await started(client))
        import opentelemetry.metrics

        late = Numbers()
        opentelemetry.metrics.set_meter_provider(late.provider)
        await events_of(client, await started(client))
        await until(lambda: late.counts(DURATION) == {"completed": 1})
        states = late.values(RUNS)

    assert states == {"": 0}
    late.provider.shutdown()


@pytest.mark.slow
def test_without_opentelemetry_all_is_as_it_was() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None  # as if it were not installed
from millstream import Agent, Runner, metrics, tool
from millstream.server import LOCAL, create_app
from millstream.testing import ScriptedModel, function_call

@tool
def give() -> object:
    return object()

agent = Agent(name="A", tools=[give], model=ScriptedModel([[function_call("give")], "Done."]))
create_app(agent, access=LOCAL, log="memory:")
print(Runner.run_sync(agent, "Hi").final_output, metrics.are_read())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, encoding="utf-8", timeout=100, check=False
    )

    assert done.stdout == "Done. False\n", done.stderr
