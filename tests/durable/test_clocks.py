"""Clocks that are wrong, or are set: no lease, no limit and no order of events goes by the time of day."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, RunConfig, Runner, tool
from millstream.clock import SystemClock
from millstream.errors import HandedBackError
from millstream.events import ToolFinished
from millstream.log import RedisLog, RunStore, SQLiteLog
from millstream.run.state import new_run_id
from millstream.testing import ManualClock, check_stream, function_call
from tests.support.by_history import ByHistory

HOUR, LEASE = 3600.0, 10.0


class Set(ManualClock):
    """A clock whose time of day somebody sets."""

    offset = 0.0

    def time(self) -> float:
        return super().time() + self.offset


class Wrong(SystemClock):
    """The clock of a machine whose time of day is wrong, by so many seconds."""

    def __init__(self, by: float) -> None:
        self._by = by

    def time(self) -> float:  # type: ignore[override]
        return SystemClock.time() + self._by


class Held:
    """An agent whose runs stand still in a tool until they are let go, or its time is over."""

    def __init__(self, **limits: Any) -> None:
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()

        @tool(**limits)
        async def hold() -> str:
            self.begun.set()
            await self.go_on.wait()
            return "held"

        steps = {(): [function_call("hold", {}, call_id="c")], ("c",): "Done."}
        self.agent = Agent(name="A", tools=[hold], model=ByHistory(steps))


def memory(folder: Path, clock: Any) -> RunStore:
    return MemoryLog(clock=clock)


def sqlite(folder: Path, clock: Any) -> RunStore:
    return SQLiteLog(folder / "runs.db", clock=clock)


# --- a clock that is set, under a run that goes on ------------------------------------------------


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@pytest.mark.parametrize("open_on", [memory, sqlite])
async def test_a_clock_that_is_set_ends_no_lease_and_no_limit(
    open_on: Callable[[Path, Any], RunStore], jump: float, tmp_path: Path
) -> None:
    clock, held = Set(start=1_000_000), Held(timeout=60)
    log = open_on(tmp_path, clock)
    config = RunConfig(log=log, clock=clock, lease=LEASE)
    run = Runner.run_streamed(held.agent, "Go", run_config=config)
    await held.begun.wait()

    clock.offset = jump
    assert (await log.record(run.run_id)).is_owned
    assert await log.orphans() == []
    assert await Runner.recover(log, held.agent, run_config=config) == []
    clock.advance(59)  # of the minute that the tool has
    await log.renew(run.run_id, epoch=1, lease=LEASE)  # as it does by itself, some time in these
    assert (await log.record(run.run_id)).is_owned
    clock.advance(1)
    result = await run
    entries = [entry async for entry in log.follow(run.run_id)]
    await log.aclose()

    [finished] = [entry.event for entry in entries if isinstance(entry.event, ToolFinished)]
    assert finished.status == "timeout"
    assert result.final_output == "Done."
    check_stream(entries).raise_for_problems()


@pytest.mark.parametrize("jump", [HOUR, -HOUR])
@pytest.mark.parametrize("open_on", [memory, sqlite])
async def test_a_lease_ends_when_it_should_whatever_its_clock_is_set_to(
    open_on: Callable[[Path, Any], RunStore], jump: float, tmp_path: Path
) -> None:
    clock, held = Set(start=1_000_000), Held()
    log = open_on(tmp_path, clock)
    held.go_on.set()
    run_id = (await Runner.submit(log, held.agent, "Go")).run_id
    await log.claim(run_id, owner="somebody who dies", lease=LEASE)

    clock.offset = jump
    clock.advance(LEASE - 1)
    assert await log.orphans() == []
    clock.advance(2)
    assert await log.orphans() == [run_id]
    (handle,) = await Runner.recover(log, held.agent)
    assert (await handle).final_output == "Done."
    await log.aclose()


def test_ids_of_runs_are_no_times() -> None:
    ids = [new_run_id() for _ in range(100)]

    assert len(set(ids)) == 100
    assert ids != sorted(ids)


# --- workers whose clocks differ ------------------------------------------------------------------


async def test_workers_whose_clocks_differ_by_minutes_share_a_store(address: str) -> None:
    def open_at(by: float) -> RunStore:
        if address.startswith("sqlite"):
            return SQLiteLog(address.removeprefix("sqlite:///"), clock=Wrong(by))
        return RedisLog(address)

    held = Held()
    fast, slow = open_at(600), open_at(-600)
    at = {fast: RunConfig(clock=Wrong(600), lease=60), slow: RunConfig(clock=Wrong(-600), lease=60)}
    run = Runner.run_streamed(held.agent, "Go", run_config=RunConfig(log=fast, clock=Wrong(600), lease=60))
    await held.begun.wait()

    assert (await slow.record(run.run_id)).is_owned
    assert await Runner.recover(slow, held.agent, run_config=at[slow]) == []
    for worker, other in itertools.islice(itertools.cycle([(fast, slow), (slow, fast)]), 4):
        run.hand_back()  # each goes on with what the other has begun
        with pytest.raises(HandedBackError):
            await run
        assert await worker.orphans() == [run.run_id]
        (run,) = await Runner.recover(other, held.agent, run_config=at[other], max_attempts=9)
    held.go_on.set()
    assert (await run).final_output == "Done."
    entries = [entry async for entry in slow.follow(run.run_id)]
    assert [entry.to_json() async for entry in fast.follow(run.run_id)] == [
        each.to_json() for each in entries
    ]
    for log in (fast, slow):
        await log.aclose()

    check_stream(entries).raise_for_problems()
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
