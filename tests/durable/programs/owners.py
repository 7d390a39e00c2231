"""Processes that own runs, and die of it."""

import asyncio
import itertools
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


async def stops_at(line: Line, address: str, effects: str, at: int) -> None:
    """Begin a run, say its id, and SIGSTOP this process before event `at`; once it is woken, say how the run ends here."""
    store = open_log(address)
    append, has_stopped = store.append, False

    async def stopping(run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        nonlocal has_stopped
        if batch.last >= at and not has_stopped:
            has_stopped = True
            os.kill(os.getpid(), signal.SIGSTOP)
        await append(run_id, batch, epoch=epoch)

    store.append = stopping  # type: ignore[method-assign]
    _say_run_id(store, line)
    config = RunConfig(log=store, lease=LEASE, ahead="free")
    line.say(await _outcome(Runner.run(work.everything(effects), "Go", run_config=config)))
    await store.aclose()


async def pays(line: Line, address: str, effects: str, kind: str) -> None:
    """Begin a run whose tool takes its time; say its id when the tool runs, or waits, and then how it ends here."""
    store = open_log(address)
    agent = work.payer(effects, kind=kind)
    handle = Runner.run_streamed(agent, "Pay", run_config=RunConfig(log=store, lease=LEASE, ahead="free"))
    async for _ in handle.entries(types=["tool.started", "run.paused"]):
        line.say(handle.run_id)
        break
    line.say(await _outcome(handle))
    await store.aclose()


async def blocks(line: Line, address: str, effects: str, lease: float) -> None:
    """Begin a run whose tool blocks the event loop; say its id before, and then how it ends here."""
    store = open_log(address)
    _say_run_id(store, line)
    config = RunConfig(log=store, lease=lease, ahead="free")
    line.say(await _outcome(Runner.run(work.payer(effects, kind="blocks"), "Pay", run_config=config)))
    await store.aclose()


async def _outcome(run: Any) -> tuple[str, str]:
    """How a run ends in this process: its output, or the class of what it raises."""
    try:
        result = await run
    except Exception as error:
        return "raised", type(error).__name__
    return ("paused", "") if result.interruptions else ("completed", result.final_output)


async def dies_when_it_resumes(line: Line, address: str, effects: str, run_id: str, at: int) -> None:
    """Go on with a run that waits, and kill this process before append number `at` of that."""
    store = open_log(address)
    append, numbers = store.append, itertools.count(1)

    async def dying(run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if next(numbers) == at:
            die()
        await append(run_id, batch, epoch=epoch)

    store.append = dying  # type: ignore[method-assign]
    await _resume(store, effects, run_id)


async def goes_on(line: Line, address: str, effects: str, run_id: str) -> None:
    """Go on with a run that waits."""
    await _resume(open_log(address), effects, run_id)


async def _resume(store: RunStore, effects: str, run_id: str) -> None:
    agent = work.payer(effects, kind="approval")
    await (await Runner.attach(run_id, log=store).resume(agent, run_config=RunConfig(lease=LEASE)))


async def dies_before_it_claims(line: Line, address: str, effects: str, key: str) -> None:
    """Ask for a run under an idempotency key, and kill this process when the store has it, and nobody owns it."""
    store = open_log(address)

    async def claim(run_id: str, **_: Any) -> int:
        die()

    store.claim = claim  # type: ignore[method-assign]
    config = RunConfig(log=store, idempotency_key=key)
    await Runner.run(work.everything(effects), "Go", run_config=config)


async def runs_under_key(line: Line, address: str, effects: str, key: str) -> None:
    """When the test says so, run under an idempotency key; say how that ends."""
    store = open_log(address)
    await store.check()
    line.say("ready")
    await line.hear()
    config = RunConfig(log=store, idempotency_key=key)
    line.say(await _outcome(Runner.run(work.everything(effects), "Go", run_config=config)))
    await store.aclose()


async def takes_its_time(line: Line, address: str, effects: str) -> None:
    """Begin a streamed run that is slow to write; say its id, then each position from 10 on by tens, and how it ends here."""
    store = open_log(address)
    append = store.append

    async def slow(run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        await append(run_id, batch, epoch=epoch)
        await asyncio.sleep(0.01)
        if batch.last % 10 == 0:
            line.say(batch.last)

    store.append = slow  # type: ignore[method-assign]
    agent = work.everything(effects)
    handle = Runner.run_streamed(agent, "Go", run_config=RunConfig(log=store, lease=30, ahead="free"))
    line.say(handle.run_id)
    line.say(await _outcome(handle))
    await store.aclose()


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
