"""Programs that share the file of an SQLite log with a test. Each is told on its command line what to do.

append PATH RUN COUNT   append so many events, then the end; say each position when it is written
stream PATH RUN         append events for ever, and say each position when it is written
follow PATH RUN AFTER   say each position behind AFTER, to the end
claim PATH RUN OWNER    say `ready`, wait for a line, claim the run; say the epoch, or which error it was
create PATH KEY COUNT   say `ready`, wait for a line, create so many runs at once; say their ids
mail PATH RUN           wait for mail, and say it
lock PATH               keep the file locked, say `locked`, and wait for a line
"""

import asyncio
import os
import sqlite3
import sys

from millstream.errors import LogError
from millstream.events import RunCompleted, Stamp, UserEvent
from millstream.log import Batch, NewRun
from millstream.log.sqlite import SQLiteLog


def say(word: object) -> None:
    print(word, flush=True)


def event(run: str, position: int) -> Batch:
    return Batch(position, Stamp(run_id=run, agent="A"), [UserEvent(name=f"event {position}")])


async def append(path: str, run: str, count: str) -> None:
    log = SQLiteLog(path)
    for position in range(1, int(count) + 1):
        await log.append(run, event(run, position))
        say(position)
    await log.append(run, Batch(int(count) + 1, Stamp(run_id=run, agent="A"), [RunCompleted(output="")]))
    await log.aclose()


async def stream(path: str, run: str) -> None:
    log = SQLiteLog(path)
    position = 0
    while True:
        position += 1
        await log.append(run, event(run, position))
        say(position)


async def follow(path: str, run: str, after: str) -> None:
    log = SQLiteLog(path)
    async for entry in log.follow(run, int(after)):
        say(entry.position)
    await log.aclose()


async def claim(path: str, run: str, owner: str) -> None:
    log = SQLiteLog(path)
    await log.check()
    say("ready")
    sys.stdin.readline()
    try:
        say(await log.claim(run, owner=owner, lease=60.0))
    except LogError as error:
        say(type(error).__name__)
    await log.aclose()


async def create(path: str, key: str, count: str) -> None:
    log = SQLiteLog(path)
    await log.check()
    say("ready")
    sys.stdin.readline()
    new = [
        NewRun(run_id=f"run_{os.getpid()}_{number}", agent="A", request=b"{}", idempotency_key=key)
        for number in range(int(count))
    ]
    for record in await asyncio.gather(*map(log.create, new)):
        say(record.run_id)
    await log.aclose()


async def mail(path: str, run: str) -> None:
    log = SQLiteLog(path)
    say("ready")
    for command in await log.wait_for_mail(run):
        say(command.kind)
    await log.aclose()


async def lock(path: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    say("locked")
    sys.stdin.readline()


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
