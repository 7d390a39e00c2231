"""Who runs the runs of a server: what it finds, what it goes on with, and what it leaves to others."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, RunConfig, Runner, tool
from millstream.log import Command, RunRecord, RunStore, SQLiteLog
from millstream.recovery import Recovery
from millstream.run.mail import cancel_command
from millstream.server import waiting
from millstream.server.answers import ProblemError
from millstream.server.supervisor import LOOKS, Order, Supervisor
from millstream.testing import ManualClock, check_stream, function_call
from tests.support.by_history import ByHistory

LEASE = 9.0


@pytest.fixture(params=["memory", "sqlite"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], RunStore]:
    """The same store, as each server has it."""
    if request.param == "memory":
        log = MemoryLog()
        return lambda: log
    return lambda: SQLiteLog(tmp_path / "runs.db")


class Desk:
    """An agent that wipes two disks when that is approved, and what it has wiped."""

    def __init__(self) -> None:
        self.wiped = list[str]()

    def agent(self) -> Agent[Any]:
        @tool(needs_approval=True)
        async def wipe(disk: str) -> str:
            self.wiped.append(disk)
            return f"wiped {disk}"

        calls = [function_call("wipe", {"disk": disk}, call_id=disk) for disk in "ab"]
        return Agent(name="A", tools=[wipe], model=ByHistory({(): calls, ("a", "b"): "Done."}))


async def paused(store: RunStore, caller: str = "") -> str:
    result = await Runner.run(Desk().agent(), "Go", run_config=RunConfig(log=store, caller=caller))
    assert len(result.interruptions) == 2
    return result.run_id


async def decide(store: RunStore, run_id: str, *calls: str) -> None:
    """By a door that has no agents, as the command line is one."""
    for call in calls:
        await Runner.attach(run_id, log=store).approve(call)


class Counted(Supervisor):
    """Counts how often it has begun to look for what there is to go on with."""

    looks = 0

    async def _recover(self) -> None:
        self.looks += 1
        await super()._recover()


class Served:
    """A server's runs, and its clock."""

    def __init__(self, store: RunStore, agent: Any, **options: Any) -> None:
        self._clock = ManualClock()
        config = RunConfig(clock=self._clock, lease=LEASE)
        recovery = Recovery(log=store, agent=agent, run_config=config)
        self.supervisor = Counted(recovery, **options)

    async def look(self, times: int = LOOKS) -> None:
        """Return when it has looked that often, and to the end."""
        done = self.supervisor.looks + times + 1
        while self.supervisor.looks < done:
            if LEASE / LOOKS in self._clock.due:
                self._clock.advance(LEASE / LOOKS)
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def served(store: RunStore, agent: Any, **options: Any) -> AsyncIterator[Served]:
    server = Served(store, agent, **options)
    await server.supervisor.start()
    try:
        yield server
    finally:
        await server.supervisor.stop(0)


async def ended(store: RunStore, run_id: str) -> str:
    """How a run ends."""
    entries = [entry async for entry in store.follow(run_id)]
    check_stream(entries).raise_for_problems()
    return entries[-1].type


# --- runs that wait for nothing more ----------------------------------------------------------


async def test_a_run_that_was_decided_over_by_another_door_is_gone_on_with(
    stores: Callable[[], RunStore],
) -> None:
    desk, store = Desk(), stores()
    run_id = await paused(store)
    async with served(store, desk.agent()) as server:
        await decide(stores(), run_id, "a")
        await server.look()
        assert desk.wiped == []
        await decide(stores(), run_id, "b")
        await server.look()

        assert await ended(store, run_id) == "run.completed"
    assert sorted(desk.wiped) == ["a", "b"]


async def test_a_run_that_was_decided_over_while_no_server_was_there_is_gone_on_with_at_the_start(
    stores: Callable[[], RunStore],
) -> None:
    desk, store = Desk(), stores()
    run_id = await paused(store)
    await decide(store, run_id, "a", "b")

    async with served(stores(), desk.agent()):
        assert await ended(store, run_id) == "run.completed"

    assert sorted(desk.wiped) == ["a", "b"]


async def test_of_several_servers_one_goes_on_with_each_run_that_was_decided_over(
    stores: Callable[[], RunStore],
) -> None:
    desk, store = Desk(), stores()
    run_ids = [await paused(store) for _ in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(served(stores(), desk.agent())) for _ in range(3)]
        for run_id in run_ids:
            await decide(store, run_id, "a", "b")
        await asyncio.gather(*(server.look() for server in servers))

        assert {await ended(store, run_id) for run_id in run_ids} == {"run.completed"}
    assert sorted(desk.wiped) == ["a"] * 4 + ["b"] * 4


class Counting(MemoryLog):
    """Counts how often a record is read, which has all that a run was and is."""

    reads = 0

    async def record(self, run_id: str) -> RunRecord:
        self.reads += 1
        return await super().record(run_id)


async def test_runs_that_still_wait_cost_no_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "AT_ONCE", 2)
    store, desk = Counting(), Desk()
    run_ids = [await paused(store) for _ in range(5)]
    await decide(store, run_ids[0], "a")
    async with served(store, desk.agent()) as server:
        await server.look(3 * LOOKS)
        store.reads = 0
        await server.look(3 * LOOKS)
        assert store.reads == 0

        for run_id in run_ids[0], run_ids[-1]:
            await decide(store, run_id, *(await Runner.attach(run_id, log=store).waiting()))
        await server.look(3 * LOOKS)
        ends = [await ended(store, run_id) for run_id in (run_ids[0], run_ids[-1])]

    assert ends == ["run.completed"] * 2
    assert sorted(desk.wiped) == ["a", "a", "b", "b"]


async def test_a_run_that_was_told_to_stop_as_it_came_to_wait_is_ended(
    stores: Callable[[], RunStore],
) -> None:
    desk, store = Desk(), stores()
    run_id = await paused(store)
    await store.tell(run_id, cancel_command())  # by somebody who died before he could end it

    async with served(stores(), desk.agent()):
        assert await ended(store, run_id) == "run.cancelled"

    assert desk.wiped == []


async def test_a_run_whose_mail_makes_no_sense_keeps_no_other_from_going_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk, store = Desk(), MemoryLog()
    run_ids = [await paused(store) for _ in range(2)]
    await store.tell(run_ids[1], Command("decide", b"{}"))
    await decide(store, run_ids[0], "a", "b")

    async with served(store, desk.agent()) as server:
        assert await ended(store, run_ids[0]) == "run.completed"
        await server.look()

    assert caplog.text.count(f"run {run_ids[1]}: whether it was decided over cannot be read") == 1
    assert (await store.record(run_ids[1])).status == "paused"


async def test_a_run_whose_agent_cannot_work_keeps_no_other_from_going_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk, store = Desk(), MemoryLog()
    run_ids = [await paused(store, caller) for caller in ("ann", "bob")]
    for run_id in run_ids:
        await decide(store, run_id, "a", "b")

    def agent_for(record: RunRecord) -> Agent[Any]:
        agent = desk.agent()
        agent.tools = agent.tools * (2 if record.caller == "bob" else 1)  # two of one name
        return agent

    async with served(store, agent_for) as server:
        assert await ended(store, run_ids[0]) == "run.completed"
        await server.look(LOOKS)

    assert (await store.record(run_ids[1])).status == "paused"
    assert f"run {run_ids[1]}: what it needs to go on could not be made" in caplog.text


# --- what is not its own ----------------------------------------------------------------------


async def test_a_run_that_cannot_be_gone_on_with_now_waits_and_is_tried_again(
    stores: Callable[[], RunStore], caplog: pytest.LogCaptureFixture
) -> None:
    desk, store, is_deployed = Desk(), stores(), False

    def agent_for(record: RunRecord) -> Agent[Any]:
        if not is_deployed:
            raise ModuleNotFoundError("No module named 'wiping'")
        return desk.agent()

    run_id = await paused(store)
    await decide(store, run_id, "a", "b")
    async with served(stores(), agent_for) as server:
        await server.look()
        assert (await store.record(run_id)).status == "paused"
        assert "No module named 'wiping'" in caplog.text
        is_deployed = True
        await server.look(4 * LOOKS)

        assert await ended(store, run_id) == "run.completed"
    assert sorted(desk.wiped) == ["a", "b"]


async def test_a_run_of_another_programs_agent_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    store, desk = MemoryLog(), Desk()
    other = Agent(name="other", model=ByHistory({(): "Done."}))
    queued = (await Runner.submit(store, other, "Go")).run_id
    waits = await paused(store)
    await decide(store, waits, "a", "b")

    async with served(store, lambda record: other if record.agent == "other" else None) as server:
        await server.look(3 * LOOKS)
        assert await ended(store, queued) == "run.completed"

    assert (await store.record(waits)).status == "paused"
    assert caplog.text.count(f"run {waits}: it is left to a program that has its agent") == 1
    assert desk.wiped == []


# --- places -----------------------------------------------------------------------------------


async def test_a_run_that_is_recovered_takes_a_place_of_its_caller() -> None:
    store, go_on = MemoryLog(), asyncio.Event()

    @tool
    async def hold() -> str:
        await go_on.wait()
        return "held"

    model = ByHistory({(): [function_call("hold", {}, call_id="c")], ("c",): "Done."})
    agent = Agent(name="A", tools=[hold], model=model)
    runs = [await Runner.submit(store, agent, "Go", caller="ann") for _ in range(2)]

    async with served(store, agent, max_runs=2) as server:
        with pytest.raises(ProblemError, match="As many of your runs are going"):
            await server.supervisor.begin(Order(agent="A", input="Hi", caller="ann"))
        bobs = await server.supervisor.begin(Order(agent="A", input="Hi", caller="bob"))
        go_on.set()
        assert {await ended(store, run.run_id) for run in (*runs, bobs)} == {"run.completed"}
        while server.supervisor.live_runs:
            await asyncio.sleep(0)
        anns = await server.supervisor.begin(Order(agent="A", input="Hi", caller="ann"))
        assert await ended(store, anns.run_id) == "run.completed"
