"""Sessions in SQLite: shared by threads, event loops and processes; what a file may hold; trouble with it."""

import asyncio
import json
import logging
import os
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from millstream import InputItemError, SessionClosedError, SessionError, SQLiteSession, UserError
from millstream.errors import public_error
from millstream.sessions import sqlite
from tests.differential.peer import PYTHON as PEER


def say(*texts: str) -> list[Any]:
    return [{"role": "user", "content": text} for text in texts]


def texts(items: list[Any]) -> list[str]:
    return [item["content"] for item in items]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "conversations.db"


# --- who shares it --------------------------------------------------------------------------


def test_a_session_is_used_from_several_threads_and_event_loops() -> None:
    session = SQLiteSession("one")
    names = [f"{thread}.{n}" for thread in range(6) for n in range(5)]

    async def write(thread: int) -> None:
        for n in range(5):
            await session.add_items(say(f"{thread}.{n}"))

    threads = [threading.Thread(target=asyncio.run, args=(write(n),)) for n in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()

    assert sorted(texts(asyncio.run(session.get_items()))) == names


WRITER = """
import asyncio, sys
from millstream.sessions import SQLiteSession

async def main(file, writer):
    session = SQLiteSession("one", file)
    print("ready", flush=True)
    sys.stdin.readline()
    for n in range(15):
        await session.add_items([{"role": "user", "content": f"{writer}.{n}.{part}"} for part in "abc"])
        print(n, flush=True)

asyncio.run(main(*sys.argv[1:]))
"""


def writer(file: Path, name: str, program: str = WRITER) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", program, file, name],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_several_processes_write_at_once_and_nothing_is_lost_or_torn(file: Path) -> None:
    writers = [writer(file, name) for name in "xyz"]
    for each in writers:
        assert each.stdout
        assert each.stdout.readline() == "ready\n"
    for each in writers:
        each.communicate("go\n")

    assert [each.returncode for each in writers] == [0, 0, 0]
    got = texts(asyncio.run(SQLiteSession("one", file).get_items()))
    assert sorted(got) == sorted(f"{name}.{n}.{part}" for name in "xyz" for n in range(15) for part in "abc")
    for place in range(0, len(got), 3):
        batch = got[place].rpartition(".")[0]
        assert got[place : place + 3] == [f"{batch}.{part}" for part in "abc"]
    for name in "xyz":
        mine = [text for text in got if text.startswith(name)]
        assert mine == sorted(mine, key=lambda text: (int(text.split(".")[1]), text))


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGKILL")
def test_a_writer_that_is_killed_leaves_what_it_was_told_is_stored_and_nothing_torn(file: Path) -> None:
    program = WRITER.replace("range(15)", "range(10_000)")
    process = writer(file, "x", program)
    assert process.stdin
    assert process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    acknowledged = -1
    for line in process.stdout:
        if line.strip() == "20":
            process.kill()
        acknowledged = int(line) if line.strip().isdigit() else acknowledged
    process.communicate()

    session = SQLiteSession("one", file)
    got = texts(asyncio.run(session.get_items()))
    batches = len(got) // 3
    assert acknowledged >= 20
    assert batches >= acknowledged + 1
    assert got == [f"x.{n}.{part}" for n in range(batches) for part in "abc"]
    asyncio.run(session.add_items(say("after")))
    assert texts(asyncio.run(session.get_items(1))) == ["after"]


FORKED = """
import asyncio, os, sys
from millstream.sessions import SQLiteSession

file = sys.argv[1]
in_file, in_memory, not_used = SQLiteSession("one", file), SQLiteSession("one"), SQLiteSession("one")
for session in (in_file, in_memory):
    asyncio.run(session.add_items([{"role": "user", "content": "parent"}]))
if os.fork() == 0:
    asyncio.run(in_file.add_items([{"role": "user", "content": "child"}]))
    asyncio.run(not_used.add_items([]))
    print(len(asyncio.run(not_used.get_items())), flush=True)
    try:
        asyncio.run(in_memory.get_items())
    except Exception as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
asyncio.run(in_file.add_items([{"role": "user", "content": "again"}]))
print([item["content"] for item in asyncio.run(in_file.get_items())])
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_shares_the_file_and_not_the_connection(file: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED, file], capture_output=True, text=True, check=True
    )

    empty, refused, whole = done.stdout.splitlines()
    assert empty == "0"
    assert "parent process" in refused
    assert "Give db_path a file" in refused
    assert whole == "['parent', 'child', 'again']"


# --- what it holds ----------------------------------------------------------------------------


async def test_a_conversation_outlives_its_session_and_its_process(file: Path) -> None:
    await SQLiteSession("one", file).add_items(say("a", "b"))

    assert await SQLiteSession("one", str(file)).get_items() == say("a", "b")
    assert await SQLiteSession("one", file, messages_table="others").get_items() == []


async def test_rows_that_are_no_items_are_left_out_and_logged_without_what_they_say(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    session = SQLiteSession("one", file)
    await session.add_items(say("a"))
    for row in ("{secret", "3", '"secret"', b"\xff{}", "[" * 100_000):
        write_row(file, row)
    await session.add_items(say("b"))
    write_row(file, "{secret")

    with caplog.at_level(logging.WARNING, "millstream"):
        assert await session.get_items() == say("a", "b")
        assert await session.get_items(1) == say("b")
        assert await session.get_items(2) == say("a", "b")
        assert [await session.pop_item() for _ in range(3)] == [*say("b", "a"), None]

    assert "session 'one': 6 item(s) in" in caplog.text
    assert "secret" not in caplog.text


def write_row(file: Path, row: str | bytes) -> None:
    connection = sqlite3.connect(file)
    connection.execute("INSERT INTO agent_messages (session_id, message_data) VALUES ('one', ?)", (row,))
    connection.commit()
    connection.close()


SDK = """
import asyncio, json, sys
from agents import SQLiteSession

async def main(file, *added):
    session = SQLiteSession("one", file)
    print(json.dumps(await session.get_items()))
    await session.add_items([json.loads(item) for item in added])
    session.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_file_of_the_sdk_is_read_and_written_and_read_there_again(
    file: Path, leave_out: Callable[[str], NoReturn]
) -> None:
    if not PEER.exists():
        leave_out("needs openai-agents in its environment: `make .venv-peer/.peer`")
    theirs, ours = say("theirs \u2028 caf\xe9", "b"), say("ours \U0001f600")

    def sdk(*added: Any) -> Any:
        command = [PEER, "-c", SDK, file, *map(json.dumps, added)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    assert sdk(*theirs) == []
    assert asyncio.run(SQLiteSession("one", file).get_items()) == theirs
    asyncio.run(SQLiteSession("one", file).add_items(ours))
    assert sdk(*theirs[:1]) == theirs + ours
    assert asyncio.run(SQLiteSession("one", file).get_items()) == theirs + ours + theirs[:1]


async def test_the_sdk_finds_its_tables_in_a_file_that_was_made_here(file: Path) -> None:
    session = SQLiteSession("one", file, sessions_table="order", messages_table="Group")
    await session.add_items(say("a"))

    connection = sqlite3.connect(file)
    columns = {
        table: [(name, kind) for _, name, kind, *_ in connection.execute(f'PRAGMA table_info("{table}")')]
        for table in ("order", "Group")
    }
    mode = connection.execute("PRAGMA journal_mode").fetchone()
    connection.close()
    assert columns == {
        "order": [("session_id", "TEXT"), ("created_at", "TIMESTAMP"), ("updated_at", "TIMESTAMP")],
        "Group": [
            ("id", "INTEGER"),
            ("session_id", "TEXT"),
            ("message_data", "TEXT"),
            ("created_at", "TIMESTAMP"),
        ],
    }
    assert mode == ("wal",)


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ([*say("a"), 3], r"items\[1\] is a int, not an input item"),
        ([{"role": "user", "content": object()}], r"items\[0\] cannot be stored as JSON"),
        ([{"role": "user", "content": float("nan")}], r"items\[0\] cannot be stored as JSON"),
    ],
)
async def test_what_is_no_item_is_refused_with_its_place(bad: list[Any], says: str) -> None:
    session = SQLiteSession("one")

    with pytest.raises(InputItemError, match=says):
        await session.add_items(bad)

    assert await session.get_items() == []


# --- trouble ----------------------------------------------------------------------------------


async def test_a_file_that_another_keeps_locked_is_told_and_works_again_later(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await SQLiteSession("one", file).add_items(say("a"))
    monkeypatch.setattr(sqlite, "PATIENCE", 0.05)
    session = SQLiteSession("one", file)
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with pytest.raises(
        SessionError, match=r"'one' in .*conversations\.db: .*locked.* Somebody else"
    ) as caught:
        await session.add_items(say("b"))
    read_meanwhile = await session.get_items()
    other.execute("ROLLBACK")
    other.close()
    await session.add_items(say("c"))

    assert caught.value.session_id == "one"
    assert public_error(caught.value).code == "session"
    assert public_error(caught.value).retryable
    assert read_meanwhile == say("a")
    assert await session.get_items() == say("a", "c")


async def test_a_file_that_cannot_be_opened_says_what_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear reader, " * 100)

    with pytest.raises(SessionError, match="Does its folder exist"):
        await SQLiteSession("one", tmp_path / "no" / "s.db").get_items()
    with pytest.raises(SessionError, match="damaged, or something else"):
        await SQLiteSession("one", tmp_path / "letter.txt").get_items()


async def test_a_write_that_fails_in_the_middle_leaves_nothing_behind(file: Path) -> None:
    session = SQLiteSession("one", file)
    await session.add_items(say("a"))
    other = sqlite3.connect(file)
    other.execute(
        "CREATE TRIGGER t BEFORE INSERT ON agent_messages WHEN NEW.message_data LIKE '%bad%' "
        "BEGIN SELECT RAISE(FAIL, 'disk on fire'); END"
    )
    other.commit()
    other.close()

    with pytest.raises(SessionError, match="disk on fire"):
        await session.add_items(say("b", "bad", "c"))

    assert await session.get_items() == say("a")
    await session.add_items(say("d"))
    assert await session.get_items() == say("a", "d")


async def test_a_closed_session_says_so_and_what_was_under_way_is_done(file: Path) -> None:
    session = SQLiteSession("one", file)
    adding = asyncio.ensure_future(session.add_items(say("a")))
    await asyncio.sleep(0)
    session.close()
    session.close()
    await adding

    for call in (
        session.get_items(),
        session.add_items(say("b")),
        session.pop_item(),
        session.clear_session(),
    ):
        with pytest.raises(SessionClosedError, match="make another SQLiteSession"):
            await call
    assert await SQLiteSession("one", file).get_items() == say("a")


def test_where_no_loop_runs_the_file_is_closed_at_once(file: Path) -> None:
    session = SQLiteSession("one", file)
    asyncio.run(session.add_items(say("a")))
    wal = file.with_name(f"{file.name}-wal")
    was_open = wal.exists()

    session.close()

    assert was_open
    assert not wal.exists()  # SQLite takes it away with the last connection


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"db_path": None}, "db_path=None: the path of a file"),
        ({"sessions_table": "a b"}, "sessions_table='a b'"),
        ({"messages_table": 'a"; DROP TABLE agent_sessions; --'}, "letters, digits and underscores"),
        ({"messages_table": "sqlite_items"}, "to itself"),
        ({"messages_table": None}, "messages_table=None"),
        ({"sessions_table": "same", "messages_table": "SAME"}, "two tables"),
    ],
)
def test_what_cannot_be_is_refused_where_it_is_given(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        SQLiteSession("one", **arguments)
