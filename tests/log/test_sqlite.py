"""The log in an SQLite file: the contract of stores, several processes on one file, and what it costs."""

import asyncio
import gc
import itertools
import os
import signal
import sqlite3
import sys
import threading
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, RunConfig, Runner
from millstream.errors import (
    LogBrokenError,
    LogError,
    PositionConflictError,
    RunOwnedError,
    UnknownRunError,
    UserError,
)
from millstream.events import RunCompleted, Stamp, UserEvent
from millstream.log import Batch, Command, NewRun
from millstream.log.sqlite import SQLiteLog, rows
from millstream.log.sqlite.writing import SWEEP_EVERY
from millstream.testing import ManualClock, ScriptedModel, awkward_values, check_store

STAMP = Stamp(run_id="r", agent="A")
DELTA = b'{"type":"response.output_text.delta","delta":"x"}'
NET = 30
"""Seconds that another program or thread has, on a machine that has more to do."""

Made = Callable[..., SQLiteLog]


def events(first: int, *names: object, run: str = "r") -> Batch:
    return Batch(first, Stamp(run_id=run, agent="A"), [UserEvent(name=str(name)) for name in names])


def end(first: int, run: str = "r") -> Batch:
    return Batch(first, Stamp(run_id=run, agent="A"), [RunCompleted(output="done")])


def new(run: str = "r", **known: Any) -> NewRun:
    return NewRun(run_id=run, agent="A", request=b'{"input":"hello"}', **known)


@pytest.fixture
async def make(tmp_path: Path) -> AsyncIterator[Made]:
    """Makes logs in one file, or in the one that is named, and closes them."""
    async with AsyncExitStack() as stack:

        def made(name: str = "runs.db", **options: Any) -> SQLiteLog:
            log = SQLiteLog(tmp_path / name, **options)
            stack.push_async_callback(log.aclose)
            return log

        yield made


# --- the contract -----------------------------------------------------------------------------


async def test_a_file_that_is_to_survive_the_loss_of_power_keeps_the_contract_too(make: Made) -> None:
    numbers = itertools.count()

    await check_store(
        lambda: make(f"{next(numbers)}.db", synchronous="full"),
        make_capped=lambda cap: make(f"{next(numbers)}.db", max_events=cap, synchronous="full"),
    )


async def test_a_run_writes_itself_into_a_file_as_into_memory(make: Made) -> None:
    log = make()
    agent = Agent(name="A", model=ScriptedModel(["Hello there, how are you?"]))

    handle = Runner.run_streamed(agent, "hi", run_config=RunConfig(log=log))
    seen = [entry.to_json() async for entry in handle.entries()]

    again = [entry.to_json() async for entry in make().follow(handle.run_id)]
    assert (await handle).final_output == "Hello there, how are you?"
    assert again == seen


def test_what_it_survives_is_said() -> None:
    assert SQLiteLog("runs.db").durability == "process"
    assert SQLiteLog("runs.db", synchronous="full").durability == "power"
    assert repr(SQLiteLog("/runs.db")) == "SQLiteLog('/runs.db')"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": ":memory:"}, "a log in memory is a MemoryLog"),
        ({"path": ""}, "the path of no file"),
        ({"path": "a\0b"}, "the path of no file"),
        ({"path": "a.db", "synchronous": "off"}, '"normal" or "full"'),
        ({"path": "a.db", "retention": -1}, "None to keep runs for ever"),
    ],
)
def test_what_can_be_no_log_is_refused_where_it_is_made(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        SQLiteLog(**options)


async def test_a_path_is_that_of_where_the_log_was_used_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = SQLiteLog("here.db")
    await log.append("r", events(1, "a"))
    monkeypatch.chdir("/")

    assert (await log.info("r")).last == 1  # read on another connection

    assert (tmp_path / "here.db").exists()
    await log.aclose()


async def test_every_awkward_value_is_kept_as_what_it_is_on_the_wire(make: Made) -> None:
    log = make()
    batch = Batch(1, STAMP, [UserEvent(name=name, data=value) for name, value in awkward_values()])
    written = [entry.event.to_json() for entry in batch.entries()]

    await log.append("r", batch)
    await log.append("r", end(batch.last + 1))

    assert [entry.event.to_json() async for entry in make().follow("r")][:-1] == written


async def test_what_is_no_text_is_refused_and_harms_nobody_else(make: Made) -> None:
    log = make()

    results = await asyncio.gather(
        log.create(new("r", caller="\ud800")),
        log.create(new("other")),
        log.record("\ud800"),
        return_exceptions=True,
    )

    assert [type(each).__name__ for each in results] == ["UserError", "RunRecord", "UserError"]


async def test_an_agent_may_have_any_name(make: Made) -> None:
    await make().append("r", Batch(1, Stamp(run_id="r", agent="\ud800"), [DELTA]))

    assert (await make().record("r")).agent == "?"


# --- leases and ages --------------------------------------------------------------------------


async def test_a_lease_of_before_the_machine_was_started_again_has_ended(make: Made) -> None:
    before, since = ManualClock(), ManualClock()
    before.advance(1_000_000)
    since.advance(3)
    await make(clock=before).create(new())
    await make(clock=before).claim("r", owner="one", lease=10)

    log = make(clock=since)

    assert await log.orphans() == ["r"]
    assert await log.claim("r", owner="two", lease=10) == 2


@pytest.mark.parametrize("lease", [0.1, 0.3, 3.3, 10.1])
async def test_a_lease_lives_in_the_moment_in_which_it_is_given(make: Made, lease: float) -> None:
    clock = ManualClock()
    clock.advance(1_234_567.8)  # to which fractions cannot be added as they are
    log = make(clock=clock)
    await log.create(new())
    await log.claim("r", owner="one", lease=lease)

    with pytest.raises(RunOwnedError):
        await log.claim("r", owner="two", lease=lease)


async def test_a_lease_goes_by_the_clock_that_no_one_sets(make: Made) -> None:
    clock = ManualClock(1_000_000.0)
    log, other = make(clock=clock), make(clock=ManualClock(9_000_000.0))
    await log.create(new())
    await log.claim("r", owner="one", lease=10)

    with pytest.raises(RunOwnedError):
        await other.claim("r", owner="two", lease=10)


async def test_runs_are_forgotten_a_while_after_their_end_by_whoever_writes(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("millstream.log.sqlite.changes.SWEPT_AT_ONCE", 2)
    now = 0.0
    monkeypatch.setattr("millstream.clock.SystemClock.monotonic", staticmethod(lambda: now))
    clock = ManualClock(1_000_000.0)
    log = make(retention=3600.0, clock=clock)
    await log.append("live", events(1, "a", run="live"))
    for number in range(5):
        await log.append(f"r{number}", end(1, run=f"r{number}"))

    clock.advance(3601)
    await log.append("live", events(2, "not yet looked", run="live"))
    assert len(await log.runs()) == 6
    now += SWEEP_EVERY + 1
    await log.append("live", events(3, "now", run="live"))

    async with asyncio.timeout(NET):
        while [record.run_id for record in await log.runs()] != ["live"]:
            await asyncio.sleep(0)


async def test_runs_may_be_kept_for_ever(make: Made) -> None:
    clock = ManualClock(1_000_000.0)
    await make(clock=clock).append("r", end(1))
    clock.advance(1e9)

    log = make(retention=None, clock=clock)
    for position in (1, 2):
        await log.append("other", events(position, "x", run="other"))

    assert len(await log.runs()) == 2


# --- reading ----------------------------------------------------------------------------------


async def test_who_reads_beside_the_writer_is_given_what_was_appended_and_decodes_nothing(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = make()
    await log.append("r", events(1, "so that the file is not asked what there is"))
    monkeypatch.setattr("millstream.log.sqlite.rows.unpack", None)
    monkeypatch.setattr("millstream.log.tails.QUIET", 1000.0)  # however slow the machine is
    cursor = log.cursor("r", after=1)
    written = [events(2, "a"), events(3, "b"), end(4)]
    given: list[Batch | None] = []

    for batch in written:
        waiting = asyncio.create_task(cursor.next())
        await asyncio.sleep(0)
        await log.append("r", batch)
        given.append(await waiting)

    assert all(one is other for one, other in zip(given, written, strict=True))
    assert await cursor.next() is None


async def test_a_thousand_who_begin_at_once_ask_the_file_as_often_as_one(
    make: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, log = make(), make()
    for batch in (events(1, *range(100)), events(101, *range(100)), end(201)):
        await writing.append("r", batch)
    monkeypatch.setattr("millstream.log.sqlite.rows.CHUNK_BATCHES", 1)
    read: list[int] = []
    chunk_behind = rows.chunk_behind
    monkeypatch.setattr(
        rows,
        "chunk_behind",
        lambda found, row, after: (read.append(after), chunk_behind(found, row, after))[1],
    )

    async def firsts() -> list[int]:
        cursor, seen = log.cursor("r"), list[int]()
        while (batch := await cursor.next()) is not None:
            seen.append(batch.first)
        return seen

    assert await asyncio.gather(*[firsts() for _ in range(1000)]) == [[1, 101, 201]] * 1000
    assert len(read) < 100  # once for all who ask in one round, and not for each of them


async def test_a_long_run_is_read_in_chunks(make: Made) -> None:
    log = make()
    for position in range(1, 601):
        await log.append("r", Batch(position, STAMP, [DELTA * 100], raw_only=True, size=100 * len(DELTA)))
    await log.append("r", end(601))

    positions = [entry.position async for entry in make().follow("r")]

    assert positions == list(range(1, 602))


# --- several processes ------------------------------------------------------------------------


class Program:
    """One of `tests/support/sqlite_programs.py`, which runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self.process = process
        self._out, self._in = process.stdout, process.stdin

    async def line(self) -> str:
        async with asyncio.timeout(NET):
            return (await self._out.readline()).decode().strip()

    def tell(self) -> None:
        self._in.write(b"\n")

    async def rest(self) -> list[str]:
        """The lines to its end, which is one without an error."""
        async with asyncio.timeout(NET):
            out, _ = await self.process.communicate()
        assert self.process.returncode == 0
        return out.decode().split()


Start = Callable[..., Awaitable[Program]]


@pytest.fixture
async def start(root: Path, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts programs that share the file with the test."""
    programs: list[Program] = []

    async def started(what: str, *args: object) -> Program:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.support.sqlite_programs", what, tmp_path / "runs.db", *map(str, args),
            cwd=root, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        programs.append(Program(process))
        return programs[-1]

    yield started
    for program in programs:
        if program.process.returncode is None:
            program.process.kill()
        await program.process.communicate()


@pytest.mark.slow
async def test_what_one_process_writes_two_others_and_this_one_follow(make: Made, start: Start) -> None:
    log = make()
    here = asyncio.create_task(log.cursor("r").next())
    followers = [await start("follow", "r", after) for after in (0, 20)]

    writer = await start("append", "r", 60)

    everything = list(map(str, range(1, 62)))
    assert await followers[0].rest() == everything
    assert await followers[1].rest() == everything[20:]
    assert await writer.rest() == everything[:-1]
    assert (await here) is not None
    assert [str(entry.position) async for entry in log.follow("r")] == everything


@pytest.mark.slow
async def test_of_claims_of_several_processes_at_once_one_wins(make: Made, start: Start) -> None:
    await make().create(new())
    claimers = [await start("claim", "r", owner) for owner in "abcd"]
    for claimer in claimers:
        assert await claimer.line() == "ready"

    for claimer in claimers:
        claimer.tell()

    said = sorted([await claimer.line() for claimer in claimers])
    assert said == ["1", "RunOwnedError", "RunOwnedError", "RunOwnedError"]
    assert (await make().record("r")).epoch == 1


@pytest.mark.slow
async def test_fifty_submits_of_one_key_in_several_processes_make_one_run(make: Made, start: Start) -> None:
    creators = [await start("create", "key", 10) for _ in range(5)]  # which all open a file that is new
    for creator in creators:
        assert await creator.line() == "ready"

    for creator in creators:
        creator.tell()

    ids = [run_id for creator in creators for run_id in await creator.rest()]
    assert len(ids) == 50
    assert {record.run_id for record in await make().runs()} == set(ids)
    assert len(set(ids)) == 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
async def test_a_process_that_is_killed_while_it_writes_leaves_a_whole_file(
    make: Made, start: Start, tmp_path: Path
) -> None:
    for round_ in range(3):
        run = f"r{round_}"
        writer = await start("stream", run)
        told = [await writer.line() for _ in range(20 + 37 * round_)]
        writer.process.kill()
        told += (await writer.process.communicate())[0].decode().split()

        log = make()
        info = await log.info(run)
        assert info.last >= len([line for line in told if line.isdigit()]) - 1
        await log.append(run, end(info.last + 1, run))
        positions = [entry.position async for entry in log.follow(run)]
        assert positions == list(range(1, info.last + 2))

    connection = sqlite3.connect(tmp_path / "runs.db")
    assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["cancel", "nothing, as it ends", "nothing, as it is deleted"])
async def test_mail_that_another_process_waits_for_is_seen(make: Made, start: Start, what: str) -> None:
    log = make()
    await log.create(new())
    owner = await start("mail", "r")
    assert await owner.line() == "ready"

    if what == "cancel":
        await log.tell("r", Command("cancel", b"{}"))
    elif "ends" in what:
        await log.append("r", end(1))
    else:
        await log.delete("r")

    assert await owner.rest() == (["cancel"] if what == "cancel" else [])


async def test_a_run_that_is_deleted_by_others_is_told_to_who_follows_it(make: Made) -> None:
    here, there = make(), make()
    await there.append("r", events(1, "a"))
    cursor = here.cursor("r")
    assert await cursor.next() is not None
    waiting = asyncio.create_task(cursor.next())
    await asyncio.sleep(0)

    await there.delete("r")

    with pytest.raises(LogBrokenError):
        await waiting


async def test_a_run_that_is_taken_over_by_others_is_followed_on(make: Made) -> None:
    here, there = make(), make()
    await here.append("r", events(1, "written here"))
    following = asyncio.create_task(here.cursor("r", after=1).next())
    await asyncio.sleep(0)

    await there.append("r", end(2))

    batch = await following
    assert batch is not None
    assert batch.first == 2


async def test_what_is_trimmed_by_others_is_a_gap_for_who_waits(make: Made) -> None:
    here, there = make(), make()
    await there.append("r", events(1, "a"))
    positions = [position async for position in _positions_over_gaps(here, there)]

    assert positions == [1, "gap to 4", 4, 5]


async def _positions_over_gaps(here: SQLiteLog, there: SQLiteLog) -> AsyncIterator[int | str]:
    cursor = here.cursor("r")
    first = await cursor.next()
    assert first is not None
    yield first.first
    for position in (2, 3, 4):
        await there.append("r", events(position, position))
    await there.append("r", end(5))
    await there.trim("r", 4)
    try:
        await cursor.next()
    except LogError as gap:
        yield f"gap to {gap.first}"  # pyright: ignore[reportAttributeAccessIssue]
    async for entry in here.follow("r", after=3):
        yield entry.position


async def test_two_who_write_one_run_without_claiming_it_do_not_both_have_their_way(make: Made) -> None:
    one, other = make(), make()

    results = await asyncio.gather(
        one.append("r", events(1, "one")), other.append("r", events(1, "other")), return_exceptions=True
    )

    assert sorted(type(each).__name__ for each in results) == ["NoneType", PositionConflictError.__name__]


# --- its end ----------------------------------------------------------------------------------


async def test_what_was_closed_says_so_to_all(make: Made) -> None:
    log = make()
    await log.create(new())
    follower = asyncio.create_task(log.cursor("r").next())
    mail = asyncio.create_task(log.wait_for_mail("r"))
    await log.record("r")

    await log.aclose()
    await log.aclose()

    for task in (follower, mail):
        with pytest.raises(LogError, match="closed"):
            await task
    with pytest.raises(LogError, match=r"The log .*runs.db was closed by aclose"):
        await log.append("r", events(1, "a"))
    with pytest.raises(LogError, match="closed"):
        await log.record("r")


async def test_a_log_that_nobody_has_any_more_ends_its_threads_and_keeps_what_was_written(
    make: Made, tmp_path: Path
) -> None:
    log = SQLiteLog(tmp_path / "runs.db")
    threads = {thread.ident for thread in threading.enumerate()}
    await log.append("r", events(1, "a"))
    await log.info("r")
    begun = [thread for thread in threading.enumerate() if thread.ident not in threads]
    call = log.append("r", events(2, "and left"))
    call.send(None)
    call.close()
    seen = weakref.ref(log)

    del log, call
    gc.collect()

    assert seen() is None
    await asyncio.get_running_loop().run_in_executor(None, lambda: [thread.join(NET) for thread in begun])
    assert len(begun) == 2
    assert (await make().info("r")).last == 2


async def test_a_cursor_keeps_reading_a_log_that_nobody_else_has(tmp_path: Path) -> None:
    log = SQLiteLog(tmp_path / "runs.db")
    for batch in (events(1, "a"), end(2)):
        await log.append("r", batch)
    cursor = SQLiteLog(tmp_path / "runs.db").cursor("r")

    gc.collect()

    assert [(await cursor.next()) is not None for _ in range(3)] == [True, True, False]
    await log.aclose()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("is_used", [True, False], ids=["used before", "not used before"])
def test_a_log_that_goes_into_a_child_process_says_what_is_wrong_or_works(
    tmp_path: Path, is_used: bool
) -> None:
    log = SQLiteLog(tmp_path / "runs.db")
    if is_used:
        asyncio.run(log.append("r", events(1, "parent")))
    reading, writing = os.pipe()

    child = os.fork()
    if child == 0:
        try:
            asyncio.run(log.append("child", events(1, "child", run="child")))
            said = "written"
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)

    asyncio.run(log.append("r", events(2 if is_used else 1, "parent")))
    ids = [record.run_id for record in asyncio.run(log.runs())]
    asyncio.run(log.aclose())
    if is_used:
        assert "was used before this process was forked" in said
        assert ids == ["r"]
    else:
        assert said == "written"
        assert ids == ["r", "child"]


async def test_a_run_that_is_not_there_is_unknown_in_every_way(make: Made) -> None:
    log = make()

    for ask in (log.info, log.record):
        with pytest.raises(UnknownRunError):
            await ask("nobody")
    await log.trim("nobody", 7)
    await log.delete("nobody")

    assert log.info_nowait("nobody") is None
    assert await log.runs() == []
