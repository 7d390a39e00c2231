"""What a store is asked: how fast it takes events, how soon a reader has them, how much room they take."""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from logs_follower import arrivals
from logs_stores import DELTA, Floor, Store

from millstream.events import Stamp
from millstream.log.promise import Batch
from millstream.log.store import RunStore

HERE = Path(__file__).parent
SHAPES = {
    "1 at a time": (1, 1),
    "batches of 16": (1, 16),
    "batches of 64": (1, 64),
    "50 runs at once": (50, 1),
}
"""How many runs write at once, and how many events each appends together."""
RUNS, RATE = 20, 30
"""Of a delivery: how many runs go on, and how many events each has in a second."""


def batch_of(run_id: str, first: int, count: int) -> Batch:
    """Model events as one read of a socket brings them."""
    return Batch(first, Stamp(run_id, "A", 1, time=1.0), [DELTA] * count, True, len(DELTA) * count)


# --- appends -----------------------------------------------------------------------------------


async def appended(store: RunStore, name: str, shape: tuple[int, int], seconds: float) -> float:
    """Events that are appended in a second, by writers that await each append."""
    runs, together = shape

    async def write(run_id: str) -> int:
        first = 1
        while time.monotonic() < end:
            await store.append(run_id, batch_of(run_id, first, together))
            first += together
        return first - 1

    await store.append(f"{name} opens", batch_of(f"{name} opens", 1, 1))
    began = time.monotonic()
    end = began + seconds
    counts = await asyncio.gather(*(write(f"{name} {run}") for run in range(runs)))
    return sum(counts) / (time.monotonic() - began)


async def written(floor: Floor, shape: tuple[int, int], seconds: float) -> float:
    """The same without us: what is written together is one call, what runs write at once too."""
    runs, together = shape
    await floor.write(1, 1)
    began, events = time.monotonic(), 0
    while time.monotonic() - began < seconds:
        await floor.write(runs, together)
        events += runs * together
    return events / (time.monotonic() - began)


@dataclass
class Rate:
    """Events in a second; medians."""

    ours: float
    floor: float | None


async def rates(store: Store, seconds: float, rounds: int) -> dict[str, Rate]:
    """By shape. Ours and the floor take turns."""
    ours: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    floors: dict[str, list[float]] = {shape: [] for shape in SHAPES}
    for number in range(rounds):
        for shape, size in SHAPES.items():
            log = store.open()
            ours[shape].append(await appended(log, f"{number} {shape}", size, seconds))
            await log.aclose()
            floor = store.floor()
            if floor is not None:
                floors[shape].append(await written(floor, size, seconds))
                await floor.aclose()
    return {
        shape: Rate(median(ours[shape]), median(floors[shape]) if floors[shape] else None) for shape in SHAPES
    }


# --- delivery ----------------------------------------------------------------------------------


@dataclass
class Delay:
    """Milliseconds from the call of `append` to the reader."""

    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: list[float]) -> "Delay":
        ordered = sorted(1000 * each for each in seconds)
        return cls(ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], ordered[-1])


async def paced(write: Callable[[int], Awaitable[object]], count: int, began: float) -> list[float]:
    """Call `write` `RATE` times a second; when each call began."""
    times: list[float] = []
    for number in range(count):
        await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
        times.append(time.monotonic())
        await write(number)
    return times


async def delivered_here(store: Store, count: int) -> Delay:
    """To readers beside the writers, on their event loop."""
    log = store.open()
    run_ids = [f"here {number}" for number in range(RUNS)]
    await _first_events(log, run_ids)
    reading = asyncio.gather(*(arrivals(log.cursor(run_id, 1), count) for run_id in run_ids))
    times = await _write_all(log, run_ids, count)
    arrived = await reading
    await log.aclose()
    return Delay.of(_delays(times, arrived))


async def delivered_there(store: Store, count: int) -> Delay:
    """To one other process that follows all of them."""
    log = store.open()
    run_ids = [f"there {number}" for number in range(RUNS)]
    await _first_events(log, run_ids)
    follower = await _follower(store.address, str(count), *run_ids)
    times = await _write_all(log, run_ids, count)
    arrived = await _told(follower)
    await log.aclose()
    return Delay.of(_delays(times, [arrived[run_id] for run_id in run_ids]))


async def delivered_by_pipe(count: int) -> Delay:
    """The floor: a pipe to the other process, and nothing kept."""
    follower = await _follower("-", str(count * RUNS))
    pipe = follower.stdin
    assert pipe is not None
    times: list[float] = []

    async def write(_: int) -> None:
        times.append(time.monotonic())
        pipe.write(DELTA + b"\n")

    began = time.monotonic() + 0.1
    await asyncio.gather(*(paced(write, count, began + run / RUNS / RATE) for run in range(RUNS)))
    return Delay.of(_delays([times], [(await _told(follower))[""]]))


async def _first_events(log: RunStore, run_ids: list[str]) -> None:
    for run_id in run_ids:
        await log.append(run_id, batch_of(run_id, 1, 1))


async def _write_all(log: RunStore, run_ids: list[str], count: int) -> list[list[float]]:
    began = time.monotonic() + 0.1

    def writer(run_id: str) -> Callable[[int], Awaitable[object]]:
        return lambda number: log.append(run_id, batch_of(run_id, number + 2, 1))

    # Not all runs at one moment: models do not keep time.
    return await asyncio.gather(
        *(paced(writer(run_id), count, began + at / RUNS / RATE) for at, run_id in enumerate(run_ids))
    )


async def _follower(*arguments: str) -> asyncio.subprocess.Process:
    follower = await asyncio.create_subprocess_exec(
        sys.executable, HERE / "logs_follower.py", *arguments,
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, limit=1 << 26,
    )  # fmt: skip
    assert follower.stdout is not None
    assert await follower.stdout.readline() == b"ready\n", "the follower ended early"
    return follower


async def _told(follower: asyncio.subprocess.Process) -> dict[str, list[float]]:
    assert follower.stdout is not None
    told = json.loads(await follower.stdout.readline())
    await follower.wait()
    return told


def _delays(sent: list[list[float]], arrived: list[list[float]]) -> list[float]:
    return [
        there - here
        for times, others in zip(sent, arrived, strict=True)
        for here, there in zip(times, others, strict=True)
    ]


# --- room --------------------------------------------------------------------------------------


async def room(store: Store, count: int = 4096) -> dict[str, dict[str, float]]:
    """Bytes that an event takes up, by place, where it is appended alone and with 15 others."""
    found: dict[str, dict[str, float]] = {}
    await _make(store)  # what is there without any event is not counted
    for together in (1, 16):
        run_id = f"room {together}"
        before = store.bytes()
        log = store.open()
        for first in range(1, count + 1, together):
            await log.append(run_id, batch_of(run_id, first, together))
        await log.aclose()
        after = store.bytes()
        found[f"in batches of {together}"] = {
            place: (after[place] - before[place]) / count for place in after
        }
    return found


async def _make(store: Store) -> None:
    log = store.open()
    await log.check()
    await log.aclose()
