"""Processes that own runs, and die of it."""

import asyncio
import os
import signal
from typing import Any, Literal, NoReturn

from millstream import RunConfig, Runner, open_log
from millstream.log import Batch, RunStore
from tests.durable.kit import Line
from tests.durable.programs import work

Side = Literal["before", "while", "after"]
"""When a process dies: before the event is given to the store, while that has it, or when it is written."""

LEASE = 0.3


async def dies_at(line: Line, address: str, effects: str, at: int, side: Side, streamed: bool) -> None:
    """Begin a run, say its id, and kill this process at event `at`."""
    store = open_log(address)
    _die_at(store, at, side)
    config = RunConfig(log=store, lease=LEASE, ahead="free")
    agent = work.everything(effects)
    if streamed:
        handle = Runner.run_streamed(agent, "Go", run_config=config)
        line.say(handle.run_id)
        await handle
    else:
        _say_run_id(store, line)
        await Runner.run(agent, "Go", run_config=config)


async def ends(line: Line, address: str, effects: str, streamed: bool) -> None:
    """Run to the end; say how many events that took."""
    store = open_log(address)
    config = RunConfig(log=store, ahead="free")
    agent = work.everything(effects)
    if streamed:
        result: Any = await Runner.run_streamed(agent, "Go", run_config=config)
    else:
        result = await Runner.run(agent, "Go", run_config=config)
    assert result.final_output == work.OUTPUT
    [record] = await store.runs()
    line.say(record.last)
    await store.aclose()


def die() -> NoReturn:
    """`kill -9` of this process."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nobody survives that")


def _die_at(store: RunStore, at: int, side: Side) -> None:
    append = store.append

    async def dying(run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if batch.last < at:
            await append(run_id, batch, epoch=epoch)
        elif side == "before":
            die()
        elif side == "after":
            await append(run_id, batch, epoch=epoch)
            die()
        else:
            asyncio.get_running_loop().call_soon(die)
            await append(run_id, batch, epoch=epoch)

    store.append = dying  # type: ignore[method-assign]


def _say_run_id(store: RunStore, line: Line) -> None:
    create = store.create

    async def saying(run: Any) -> Any:
        line.say(run.run_id)
        return await create(run)

    store.create = saying  # type: ignore[method-assign]
