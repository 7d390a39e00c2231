"""The log in an SQLite file that something is wrong with: a typed error, never a hang, and nothing silent.

Rows 23 and 24 of the fault matrix: the disk is full, the file read-only, locked, damaged, cut
off, something else, of a later version, or gone.
"""

import asyncio
import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest

from millstream.errors import (
    LogBrokenError,
    LogDamagedError,
    LogError,
    LogGapError,
    LogTruncatedError,
    LogUnavailableError,
    UnknownRunError,
)
from millstream.events import RunCompleted, Stamp, UserEvent
from millstream.log import Batch, Command, NewRun
from millstream.log.sqlite import SQLiteLog, file
from tests.log.test_sqlite import Program, Start, start  # noqa: F401  # a fixture

pytestmark = pytest.mark.hostile

Open = Callable[..., SQLiteLog]
NET = 30.0
"""Seconds after which something hangs."""


def events(run: str, first: int, *names: object) -> Batch:
    return Batch(first, Stamp(run_id=run, agent="A"), [UserEvent(name=str(name)) for name in names])


def end(run: str, first: int) -> Batch:
    return Batch(first, Stamp(run_id=run, agent="A"), [RunCompleted(output="done")])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Open]:
    """Opens the file, and closes it in the end."""
    async with AsyncExitStack() as stack:

        def made(at: Path = path, **options: Any) -> SQLiteLog:
            log = SQLiteLog(at, **options)
            stack.push_async_callback(log.aclose)
            return log

        yield made


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long for who has locked the file."""
    monkeypatch.setattr(file, "PATIENCE", 0.05)


async def write(log: SQLiteLog, *runs: str, count: int = 30) -> None:
    """Write whole runs, with all that belongs to one."""
    for run in runs:
        await log.create(
            NewRun(run_id=run, agent="A", request=b'{"input":"hello"}', options={"tier": "gold"})
        )
        await log.tell(run, Command("send", b'{"items":[]}', key="k"))
        for position in range(1, count + 1):
            batch = events(run, position, f"{run} {position} {'x' * 100}")
            await log.append(run, Batch(position, batch.stamp, batch.payloads, checkpoint=b"%d" % position))
        await log.append(run, end(run, count + 1))


async def read(log: SQLiteLog, run: str) -> list[bytes]:
    async with asyncio.timeout(NET):
        return [entry.to_json() async for entry in log.follow(run)]


async def fill(log: SQLiteLog) -> None:
    """Write to a run until no more can be written."""
    for position in range(2, 1000):
        await log.append("r", events("r", position, "x" * 10_000))


def change(path: Path, statement: str, *values: Any) -> None:
    """Change the file as another program may."""
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(statement, values)
    connection.close()


async def closed(path: Path, *runs: str) -> None:
    """Leave a file with these runs, which nobody has open."""
    log = SQLiteLog(path)
    await write(log, *runs)
    await log.aclose()


async def everything(log: SQLiteLog, run: str) -> list[Any]:
    """All that can be asked of a run: what is said, or which error of ours is raised."""
    said: list[Any] = []
    asked: list[Callable[[], Awaitable[Any]]] = [
        lambda: read(log, run),
        lambda: log.info(run),
        lambda: log.record(run),
        lambda: log.runs(),
        lambda: log.orphans(),
        lambda: log.mail(run),
        lambda: log.wait_for_mail(run, 1),
    ]
    for ask in asked:
        try:
            async with asyncio.timeout(NET):
                said.append(await ask())
        except LogError as error:
            said.append(error)
    return said


# --- what is no log of ours -------------------------------------------------------------------


@pytest.mark.parametrize(
    "contents", [b"not a database, and longer than its header " * 50, b"SQLite format 3\0" + b"\xff" * 4080]
)
async def test_a_file_that_is_no_database_is_told_and_left_as_it_is(
    path: Path, opened: Open, contents: bytes
) -> None:
    path.write_bytes(contents)
    log = opened()

    for ask in (log.check(), log.runs(), log.append("r", events("r", 1, "a")), log.cursor("r").next()):
        with pytest.raises(LogDamagedError, match="is damaged, or something else"):
            await ask

    assert path.read_bytes() == contents


@pytest.mark.parametrize(
    "mark", ["PRAGMA user_version = 7", "PRAGMA application_id = 7", "CREATE TABLE theirs (a)"]
)
async def test_the_database_of_something_else_is_told_and_left_as_it_is(
    path: Path, opened: Open, mark: str
) -> None:
    change(path, mark)
    contents = path.read_bytes()

    with pytest.raises(LogDamagedError, match="is the database of something else"):
        await opened().check()

    assert path.read_bytes() == contents
    assert os.listdir(path.parent) == ["runs.db"]


async def test_a_file_of_a_later_version_is_refused(path: Path, opened: Open) -> None:
    await closed(path, "r")
    change(path, "PRAGMA user_version = 99")

    with pytest.raises(LogDamagedError, match="has version 99 of its tables"):
        await opened().check()


@pytest.mark.parametrize("what", ["folder", "no folder"])
async def test_what_cannot_be_opened_is_told(path: Path, opened: Open, what: str) -> None:
    if what == "folder":
        path.mkdir()
    log = opened(path if what == "folder" else path.parent / "nowhere" / "runs.db")

    for ask in (log.check(), log.runs(), log.wait_for_mail("r"), log.cursor("r").next()):
        with pytest.raises(LogUnavailableError, match="Does its folder exist"):
            await ask


# --- what was damaged -------------------------------------------------------------------------


async def test_an_event_of_a_later_version_is_told_where_it_stands_and_what_is_before_it_is_read(
    path: Path, opened: Open
) -> None:
    await closed(path, "r", "other")
    connection = sqlite3.connect(path)
    (data,) = connection.execute("SELECT data FROM batches WHERE run = 1 AND first = 10").fetchone()
    later = data[8:].replace(b"user.event", b"run.teleported")
    connection.execute(
        "UPDATE batches SET data = ? WHERE run = 1 AND first = 10", (b"%08x%b" % (zlib.crc32(later), later),)
    )
    connection.commit()
    connection.close()
    log = opened()

    reading = log.follow("r")
    assert [(await anext(reading)).position for _ in range(9)] == list(range(1, 10))
    with pytest.raises(LogDamagedError, match=r"Run r: what stands at position 10 .*'run.teleported'"):
        await anext(reading)
    assert len(await read(log, "other")) == 31


@pytest.mark.parametrize(
    ("statement", "asked"),
    [
        ("UPDATE runs SET last = 7 WHERE run_id = 'r'", "record"),
        ("UPDATE runs SET status = 'queued' WHERE run_id = 'r'", "info"),
        ("UPDATE runs SET epoch = 7 WHERE run_id = 'r'", "append"),
        ("UPDATE batches SET data = x'00' WHERE run = 1", "read"),
        ("UPDATE batches SET last = last + 1 WHERE run = 1", "read"),
        ("DELETE FROM batches WHERE run = 1", "read"),
        ("UPDATE documents SET body = x'00' WHERE run = 1 AND kind = 'request'", "record"),
        ("UPDATE documents SET body = x'00' WHERE run = 1 AND kind = 'checkpoint'", "record"),
        ("UPDATE documents SET body = x'00' WHERE run = 1 AND kind = 'options'", "runs"),
        ("DELETE FROM documents WHERE run = 1 AND kind = 'request'", "record"),
        ("DELETE FROM documents WHERE run = 1 AND kind = 'checkpoint'", "record"),
        ("UPDATE mail SET body = x'00' WHERE run = 1", "mail"),
        ("DELETE FROM mail WHERE run = 1", "mail"),
        ("UPDATE runs SET first = -5 WHERE run_id = 'r'", "read"),
    ],
)
async def test_what_others_have_changed_is_damaged_and_other_runs_are_not(
    path: Path, opened: Open, statement: str, asked: str
) -> None:
    await closed(path, "r", "other")
    change(path, statement)
    log = opened()
    asks: dict[str, Callable[[], Awaitable[Any]]] = {
        "record": lambda: log.record("r"),
        "info": lambda: log.info("r"),
        "read": lambda: read(log, "r"),
        "runs": lambda: log.runs(),
        "mail": lambda: log.mail("r"),
        "append": lambda: log.append("r", events("r", 32, "late")),
    }

    with pytest.raises(LogDamagedError, match="r"):
        await asks[asked]()

    assert len(await read(log, "other")) == 31
    assert (await log.record("other")).request == b'{"input":"hello"}'
    assert len(await log.mail("other")) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE items SET body = x'33' WHERE conversation = 1 AND number = 1",
        "DELETE FROM items WHERE conversation = 1 AND number = 1",
        "UPDATE conversations SET items = 1 WHERE number = 1",
    ],
)
async def test_a_conversation_that_others_have_changed_is_damaged_and_no_other_one_is(
    path: Path, opened: Open, statement: str
) -> None:
    log = opened()
    for conversation in ("chat", "other"):
        await log.create(NewRun(run_id=conversation, agent="A", request=b"{}", conversation=conversation))
        await log.add_items(conversation, [b"1", b"2"])
        await log.append(conversation, end(conversation, 1))
    change(path, statement)

    with pytest.raises(LogDamagedError, match="conversation 'chat'"):
        await log.items("", "chat")
    assert await log.items("", "other") == [b"1", b"2"]
    await log.forget("", "chat")
    assert [each.id for each in await log.conversations("")] == ["other"]


async def test_a_file_of_an_older_version_is_refused(path: Path, opened: Open) -> None:
    await closed(path, "r")
    change(path, "PRAGMA user_version = 1")

    with pytest.raises(LogDamagedError, match=r"version 1 of its tables, .* delete it, or give another path"):
        await opened().check()


async def test_a_damaged_run_can_be_forgotten_and_keeps_no_other_from_being(path: Path, opened: Open) -> None:
    await closed(path, "r", "other", "third")
    change(path, "UPDATE runs SET last = 7 WHERE run_id IN ('r', 'third')")
    log = opened()

    await log.delete("third")

    assert await log.sweep(-1.0) == 2
    assert await log.runs() == []


async def test_the_end_of_a_run_that_is_missing_is_not_taken_for_its_end(path: Path, opened: Open) -> None:
    await closed(path, "r")
    change(path, "DELETE FROM batches WHERE first >= 20")

    with pytest.raises(LogDamagedError, match="from position 20 to 31 are not where they should be"):
        await read(opened(), "r")


async def test_events_that_are_missing_in_the_middle_are_a_gap(path: Path, opened: Open) -> None:
    await closed(path, "r")
    change(path, "DELETE FROM batches WHERE first = 20")

    with pytest.raises(LogGapError) as caught:
        await read(opened(), "r")

    assert (caught.value.requested, caught.value.first) == (20, 21)


async def test_a_damaged_record_does_not_keep_other_runs_from_being_found_and_claimed(
    path: Path, opened: Open
) -> None:
    log = opened()
    for run in ("r", "other"):
        await log.create(NewRun(run_id=run, agent="A", request=b"{}"))
    change(path, "UPDATE runs SET epoch = 7 WHERE run_id = 'r'")

    assert await log.orphans() == ["r", "other"]
    with pytest.raises(LogDamagedError, match="The record of run r cannot be read"):
        await log.claim("r", owner="me", lease=60)
    assert await log.claim("other", owner="me", lease=60) == 1
    assert await log.orphans() == ["r"]


async def test_a_damaged_run_does_not_keep_those_beside_it_from_being_written(
    path: Path, opened: Open
) -> None:
    log = opened()
    for run in ("r", "other"):
        await log.append(run, events(run, 1, "a"))
    change(path, "INSERT INTO batches SELECT run, 2, 2, 0, 0, NULL, data FROM batches WHERE run = 1")

    results = await asyncio.gather(
        *[log.append(run, events(run, 2, "b")) for run in ("r", "other", "third")],
        log.append("third", events("third", 1, "a")),
        return_exceptions=True,
    )

    assert [type(each).__name__ for each in results] == [
        "LogDamagedError", "NoneType", "PositionConflictError", "NoneType",
    ]  # fmt: skip
    assert (await log.info("other")).last == 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_bytes_are_damaged_data_is_right_or_the_error_is_ours(
    path: Path, tmp_path: Path, opened: Open, seed: int
) -> None:
    print(f"seed {seed}")
    chosen = random.Random(seed)
    await closed(path, "r", "other")
    good = {run: await everything(opened(), run) for run in ("r", "other")}
    whole = path.read_bytes()

    for number in range(40):
        damaged = bytearray(whole)
        for _ in range(chosen.choice((1, 1, 3, 50))):
            damaged[chosen.randrange(100, len(damaged))] ^= chosen.randrange(1, 256)
        copy = tmp_path / f"{number}.db"
        copy.write_bytes(damaged)
        log = SQLiteLog(copy)

        for run in ("r", "other"):
            for said, right in zip(await everything(log, run), good[run], strict=True):
                assert said == right or isinstance(said, LogError), f"damage {number}: {said!r}"
        try:
            await log.append("new", events("new", 1, "a"))
        except LogError:
            pass
        await log.aclose()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.5, 0.9, 0.999])
async def test_a_file_that_was_cut_off_is_damaged_or_new(path: Path, opened: Open, share: float) -> None:
    await closed(path, "r", "other")
    log = SQLiteLog(path)
    right = await read(log, "r")
    await log.aclose()
    os.truncate(path, int(path.stat().st_size * share))

    said = (await everything(opened(), "r"))[0] if share else None

    assert said == right or isinstance(said, LogDamagedError) or (share == 0.0 and said is None)
    if share == 0.0:
        with pytest.raises(UnknownRunError):
            await opened().info("r")


async def test_a_file_that_is_damaged_while_it_is_used_is_told(path: Path, opened: Open) -> None:
    await closed(path, *[f"r{number}" for number in range(20)])
    log = opened()
    await log.check()
    with path.open("r+b") as raw:
        raw.seek(4096)
        raw.write(os.urandom(path.stat().st_size - 4096))

    with pytest.raises(LogDamagedError):
        await read(log, "r7")


# --- what is in the way -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("impatient")
async def test_a_file_that_another_process_keeps_locked_is_unavailable_and_is_read_all_the_same(
    path: Path,
    opened: Open,
    start: Start,  # noqa: F811
) -> None:
    log = opened()
    await log.append("r", events("r", 1, "a"))
    locker = await start("lock")
    assert await locker.line() == "locked"

    with pytest.raises(LogUnavailableError, match="Another process has kept it locked") as caught:
        await log.append("r", events("r", 2, "b"))
    assert caught.value.retryable
    assert (await log.info("r")).last == 1

    locker.tell()
    await locker.rest()
    await log.append("r", events("r", 2, "b"))
    await log.append("r", end("r", 3))
    assert len(await read(log, "r")) == 3


async def test_a_file_that_may_not_grow_is_full_and_goes_on_when_it_may(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare = file.File._prepare

    def bounded(self: file.File, connection: sqlite3.Connection) -> None:
        prepare(self, connection)
        connection.execute(f"PRAGMA max_page_count = {pages}")

    pages = 60
    monkeypatch.setattr(file.File, "_prepare", bounded)
    log = opened()
    await log.append("r", events("r", 1, "a"))
    await log.append("other", events("other", 1, "a"))

    with pytest.raises(LogUnavailableError, match="Its disk is full"):
        await fill(log)
    position = (await log.info("r")).last + 1
    assert (await log.info("other")).last == 1

    pages = 1000
    await log.append("r", events("r", position, "x" * 10_000))
    await log.append("r", end("r", position + 1))
    assert len(await read(log, "r")) == position + 1


@pytest.fixture
def small_disk(tmp_path: Path, leave_out: Callable[[str], NoReturn]) -> Any:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("mounts a disk, which root alone may")
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("this system does not let root mount a disk")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


async def test_a_full_disk_is_told_and_room_that_is_made_is_used(small_disk: Path, opened: Open) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 1_200_000)
    log = opened(small_disk / "runs.db")
    await log.append("r", events("r", 1, "a"))

    with pytest.raises(LogUnavailableError, match="Its disk"):
        await fill(log)
    position = (await log.info("r")).last + 1
    filler.unlink()
    await log.append("r", events("r", position, "x" * 10_000))
    await log.append("r", end("r", position + 1))

    assert len(await read(log, "r")) == position + 1


async def test_a_disk_that_may_only_be_read_is_told(small_disk: Path, opened: Open) -> None:
    await closed(small_disk / "runs.db", "r")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    log = opened(small_disk / "runs.db")

    for ask in (log.append("r", events("r", 1, "a")), log.runs()):
        with pytest.raises(LogUnavailableError):
            await ask


READ_ONLY = """
import asyncio, os, sys
from millstream.errors import LogError
from millstream.events import Stamp, UserEvent
from millstream.log import Batch
from millstream.log.sqlite import SQLiteLog

async def main():
    log = SQLiteLog(sys.argv[1])
    print(len([entry async for entry in log.follow("r")]))
    try:
        await log.append("other", Batch(1, Stamp(run_id="other", agent="A"), [UserEvent(name="a")]))
    except LogError as error:
        print(type(error).__name__, error)
    await log.aclose()

os.setgid(65534)
os.setuid(65534)
asyncio.run(main())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() != 0, reason="only root can be another user")
async def test_a_file_that_may_only_be_read_is_read_and_who_writes_is_told(
    path: Path, opened: Open, root: Path
) -> None:
    await closed(path, "r")
    await opened().check()  # whoever may write has it open: the files that readers need stand beside it
    with tempfile.TemporaryDirectory() as folder:  # where another user may look, as in pytest's he may not
        os.chmod(folder, 0o755)
        for each in path.parent.iterdir():
            shutil.copy(each, folder)
        reader = await asyncio.create_subprocess_exec(
            sys.executable, "-c", READ_ONLY, f"{folder}/runs.db", cwd=root, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(NET):
            out, _ = await reader.communicate()

    read_events, told = out.decode().splitlines()
    assert read_events == "31"
    assert told.startswith("LogUnavailableError The log")
    assert "May this process write to the file and to its folder?" in told


# --- what is gone -----------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["removed", "replaced"])
async def test_a_file_that_is_gone_underneath_is_told_once_and_then_there_is_a_new_one(
    path: Path, opened: Open, what: str
) -> None:
    log = opened()
    await log.append("r", events("r", 1, "a"))
    await log.info("r")
    waiting = asyncio.create_task(log.cursor("r", after=1).next())
    await asyncio.sleep(0)
    for each in path.parent.iterdir():
        each.unlink()
    if what == "replaced":
        change(path, "PRAGMA user_version = 0")

    for ask in (log.append("r", events("r", 2, "b")), log.record("r")):
        with pytest.raises(LogTruncatedError, match="removed or replaced while it was in use"):
            await ask
    with pytest.raises((LogTruncatedError, LogBrokenError)):  # as he asks first, or behind another
        await waiting

    await log.append("new", end("new", 1))
    assert len(await read(log, "new")) == 1
    assert [record.run_id for record in await log.runs()] == ["new"]
