"""A reader in a process of its own: tells when each event reached it.

python logs_follower.py ADDRESS COUNT RUN…    follows these runs of a store
python logs_follower.py - COUNT               reads lines of its standard input instead: the floor

It prints a line when it has the first event of each run, and at last the times as JSON.
"""

import asyncio
import json
import sys
import time

from millstream import open_log
from millstream.log.promise import Cursor, EventLog


async def arrivals(cursor: Cursor, count: int) -> list[float]:
    """When each of the next `count` events came, in seconds of the machine's clock."""
    times: list[float] = []
    while len(times) < count:
        batch = await cursor.next()
        now = time.monotonic()
        assert batch is not None, "the run has ended"
        times += [now] * len(batch.payloads)
    return times


async def follow(log: EventLog, count: int, run_ids: list[str]) -> dict[str, list[float]]:
    cursors = [log.cursor(run_id) for run_id in run_ids]
    await asyncio.gather(*(arrivals(cursor, 1) for cursor in cursors))
    print("ready", flush=True)
    times = await asyncio.gather(*(arrivals(cursor, count) for cursor in cursors))
    return dict(zip(run_ids, times, strict=True))


async def main(address: str, count: int, run_ids: list[str]) -> None:
    log = open_log(address)
    times = await follow(log, count, run_ids)
    await log.aclose()
    print(json.dumps(times), flush=True)


def read_lines(count: int) -> None:
    print("ready", flush=True)
    times: list[float] = []
    for _ in range(count):
        sys.stdin.buffer.readline()
        times.append(time.monotonic())
    print(json.dumps({"": times}), flush=True)


if __name__ == "__main__":
    address, count, *run_ids = sys.argv[1:]
    if address == "-":
        read_lines(int(count))
    else:
        asyncio.run(main(address, int(count), run_ids))
