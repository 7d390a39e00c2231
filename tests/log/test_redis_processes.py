"""Several processes on one Redis: who follows, who owns, and who is dead or slept too long."""

import asyncio
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from millstream.errors import LogBrokenError, RunClosedError
from millstream.events import RunAttempt, Stamp
from millstream.log import Batch, Command, NewRun
from millstream.log.redis import RedisLog
from millstream.testing.logs.clause import RUN, batch, positions_and_names

pytestmark = [pytest.mark.requires_program("redis-server"), pytest.mark.slow]

PROGRAM = """
import asyncio, sys
from millstream.errors import AgentsException
from millstream.log import NewRun
from millstream.log.redis import RedisLog
from millstream.testing.logs.clause import RUN, batch

def say(*words):
    print(*words, flush=True)

async def follow(log):
    async for entry in log.follow(RUN):
        say(entry.position)

async def own(log, lease):
    epoch = await log.claim(RUN, owner="child", lease=float(lease))
    say("epoch", epoch)
    for position in range(1, 10_000):
        await log.append(RUN, batch(position, "child"), epoch=epoch)
        if position == 20:
            say("wrote", position)
            sys.stdin.readline()

async def claim(log, owner):
    say("ready")
    sys.stdin.readline()
    say(await log.claim(RUN, owner=owner, lease=60))

async def create(log, number):
    say("ready")
    sys.stdin.readline()
    runs = [
        NewRun(run_id=f"run_{number}_{each}", agent="A", request=b"{}", caller="ann", idempotency_key="once")
        for each in range(10)
    ]
    for record in await asyncio.gather(*map(log.create, runs)):
        say(record.run_id)

async def mail(log):
    say(*[command.body.decode() for command in await log.wait_for_mail(RUN)])

async def main(url, prefix, what, *arguments):
    log = RedisLog(url, prefix=prefix)
    try:
        await globals()[what](log, *arguments)
    except AgentsException as error:
        say(type(error).__name__)
    await log.aclose()

asyncio.run(main(*sys.argv[1:]))
"""


@asynccontextmanager
async def started(url: str, prefix: str, *arguments: str) -> AsyncIterator[Process]:
    """A process that does what one function of the program does."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PROGRAM, url, prefix, *arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )  # fmt: skip
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@asynccontextmanager
async def opened(url: str, prefix: str) -> AsyncIterator[RedisLog]:
    log = RedisLog(url, prefix=prefix)
    try:
        yield log
    finally:
        await log.aclose()


async def line(process: Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()


async def rest(process: Process) -> list[str]:
    assert process.stdout is not None
    return (await process.stdout.read()).decode().split()


def go(process: Process) -> None:
    assert process.stdin is not None
    process.stdin.write(b"\n")


async def lost_its_owner(log: RedisLog) -> None:
    while RUN not in await log.orphans():
        await asyncio.sleep(0.02)


async def test_a_run_is_followed_in_another_process(redis_url: str) -> None:
    async with opened(redis_url, "p-follow") as log:
        await log.append(RUN, batch(1, "a"))
        async with started(redis_url, "p-follow", "follow") as reader:
            assert await line(reader) == "1"
            for position in range(2, 50):
                await log.append(RUN, batch(position, "b"))
                assert await line(reader) == str(position)
            await log.append(RUN, batch(50, ends=True))
            assert await rest(reader) == ["50"]


async def test_mail_reaches_the_owner_in_another_process(redis_url: str) -> None:
    async with opened(redis_url, "p-mail") as log:
        await log.create(NewRun(run_id=RUN, agent="A", request=b""))
        async with started(redis_url, "p-mail", "mail") as owner:
            await log.tell(RUN, Command("send", b"hello"))
            assert await rest(owner) == ["hello"]


async def test_rows_14_and_16_another_owner_goes_on_where_one_was_killed(redis_url: str) -> None:
    async with opened(redis_url, "p-kill") as log, opened(redis_url, "p-kill") as reader:
        await log.create(NewRun(run_id=RUN, agent="A", request=b""))
        reading = asyncio.create_task(positions_and_names(reader))
        async with started(redis_url, "p-kill", "own", "1.0") as owner:
            assert [await line(owner), await line(owner)] == ["epoch 1", "wrote 20"]
            go(owner)
            owner.kill()
        await lost_its_owner(log)

        last = (await log.record(RUN)).last
        epoch = await log.claim(RUN, owner="parent", lease=60, last=last)
        attempt = RunAttempt(number=epoch, resumed_from=0)
        await log.append(RUN, Batch(last + 1, Stamp(run_id=RUN, agent="A"), [attempt]), epoch=epoch)
        await log.append(RUN, batch(last + 2, ends=True), epoch=epoch)

        seen = await reading
        assert epoch == 2
        assert last >= 20
        assert [position for position, _ in seen] == list(range(1, last + 3))
        assert [name for _, name in seen[last:]] == ["run.attempt", "run.completed"]


async def test_rows_15_and_25_an_owner_that_slept_through_its_lease_is_fenced(redis_url: str) -> None:
    async with opened(redis_url, "p-stop") as log:
        await log.create(NewRun(run_id=RUN, agent="A", request=b""))
        async with started(redis_url, "p-stop", "own", "0.5") as owner:
            assert [await line(owner), await line(owner)] == ["epoch 1", "wrote 20"]
            owner.send_signal(signal.SIGSTOP)
            await lost_its_owner(log)
            epoch = await log.claim(RUN, owner="parent", lease=60)
            await log.append(RUN, batch(21, "parent"), epoch=epoch)
            go(owner)
            owner.send_signal(signal.SIGCONT)

            assert await rest(owner) == ["StaleOwnerError"]
            await log.append(RUN, batch(22, ends=True), epoch=epoch)
            names = [name for _, name in await positions_and_names(log)]
            assert names == [*["child"] * 20, "parent", "run.completed"]


async def test_row_25_of_many_processes_that_claim_a_run_one_gets_it(redis_url: str) -> None:
    async with opened(redis_url, "p-race") as log:
        await log.create(NewRun(run_id=RUN, agent="A", request=b""))
        async with (
            started(redis_url, "p-race", "claim", "one") as one,
            started(redis_url, "p-race", "claim", "two") as two,
            started(redis_url, "p-race", "claim", "three") as three,
        ):
            racers = (one, two, three)
            assert [await line(each) for each in racers] == ["ready"] * 3
            for each in racers:
                go(each)

            said = [await line(each) for each in racers]
            assert sorted(said) == ["1", "RunOwnedError", "RunOwnedError"]


async def test_row_26_one_idempotency_key_makes_one_run_in_all_processes(redis_url: str) -> None:
    async with (
        opened(redis_url, "p-once") as log,
        started(redis_url, "p-once", "create", "1") as one,
        started(redis_url, "p-once", "create", "2") as two,
        started(redis_url, "p-once", "create", "3") as three,
    ):
        assert [await line(each) for each in (one, two, three)] == ["ready"] * 3
        mine = [
            log.create(
                NewRun(run_id=f"run_{each}", agent="A", request=b"{}", caller="ann", idempotency_key="once")
            )
            for each in range(20)
        ]
        for each in (one, two, three):
            go(each)
        ids = [record.run_id for record in await asyncio.gather(*mine)]
        for each in (one, two, three):
            ids += await rest(each)

        assert list(Counter(ids).values()) == [50]
        assert [record.run_id for record in await log.runs(caller="ann")] == ids[:1]


async def test_a_run_that_another_process_deletes_is_over_for_its_readers(redis_url: str) -> None:
    async with opened(redis_url, "p-delete") as log, opened(redis_url, "p-delete") as elsewhere:
        await log.append(RUN, batch(1, "a"))
        cursor = log.cursor(RUN)
        await cursor.next()
        waiting = asyncio.create_task(cursor.next())
        await asyncio.sleep(0)
        await elsewhere.delete(RUN)

        with pytest.raises(LogBrokenError):
            await waiting


async def test_who_ends_a_run_leaves_it_to_nobody(redis_url: str) -> None:
    async with opened(redis_url, "p-end") as log, opened(redis_url, "p-end") as other:
        epoch = await _owned(log)
        await log.append(RUN, batch(1, ends=True), epoch=epoch)

        with pytest.raises(RunClosedError):
            await other.claim(RUN, owner="other", lease=60)
        assert await other.orphans() == []


async def _owned(log: RedisLog) -> int:
    await log.create(NewRun(run_id=RUN, agent="A", request=b""))
    return await log.claim(RUN, owner="me", lease=60)
