"""Which store, and which run: what a person writes, and what becomes of mistakes."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path

import pytest

from millstream.cli.problem import Problem
from millstream.cli.store import find_run
from millstream.errors import UnknownRunError
from millstream.log.store import RunRecord
from tests.cli.program import millstream
from tests.cli.stores import run, sqlite_store

pytestmark = pytest.mark.slow

COMMANDS = [
    ["runs"],
    ["tail", "run_x"],
    ["cancel", "run_x"],
    ["send", "run_x", "Hello"],
    ["approve", "run_x"],
    ["reject", "run_x"],
]
EACH = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])


@EACH
def test_without_a_store_the_remedies_are_told(command: list[str]) -> None:
    done = millstream(*command)

    assert (done.code, done.out) == (2, "")
    assert done.errors == [
        "millstream: error: no store is named, and no server.",
        "millstream: hint: say where the runs are kept: --store sqlite:///runs.db, or "
        "MILLSTREAM_STORE=sqlite:///runs.db for all commands; also redis://host:6379/0. "
        "Or who has them: --url http://127.0.0.1:7420.",
    ]


@pytest.mark.parametrize(
    ("url", "code", "says"),
    [
        ("runs.db", 2, "'runs.db' is not the address of a log: it has to begin as one of these."),
        ("redis://:secret@host/x", 2, "'redis://…@host/x' is not the address of a log"),
        ("memory:", 2, "memory: is the memory of one process, and nobody else sees its runs."),
        ("sqlite:///typo.db", 1, "there is no file typo.db, so no runs are kept there."),
        ("sqlite:////nowhere/typo.db", 1, "there is no file /nowhere/typo.db, so no runs are kept there."),
        ("unix:///nowhere/redis.sock", 1, "LogUnavailableError: "),
    ],
)
def test_a_store_that_is_not_there_is_told_in_one_line(
    url: str, code: int, says: str, tmp_path: Path
) -> None:
    done = millstream("runs", "--store", url, cwd=tmp_path)

    assert (done.code, done.out) == (code, "")
    assert done.errors[0].startswith(f"millstream: error: {says}")
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_store_is_told_so_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letter.db").write_text("Dear Ada, " * 1000)
    with sqlite3.connect(tmp_path / "shop.db") as shop:
        shop.execute("CREATE TABLE lamps (price)")
    shop.close()
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    letter = millstream("runs", "--store", "sqlite:///letter.db", cwd=tmp_path)
    other = millstream("runs", "--store", "sqlite:///shop.db", cwd=tmp_path)

    assert (letter.code, other.code) == (1, 1)
    assert letter.errors[0].startswith("millstream: error: LogDamagedError: ")
    assert {name: (tmp_path / name).read_bytes() for name in before} == before


@EACH
def test_a_run_that_is_not_there_is_told_so(command: list[str], apps: Path) -> None:
    store = sqlite_store(apps)
    run(store, "shop.py", cwd=apps)
    if command == ["runs"]:
        return

    done = millstream(*command, "--store", store)

    assert (done.code, done.out) == (1, "")
    assert done.errors == [
        "millstream: error: there is no run 'run_x'.",
        "millstream: hint: `millstream runs` lists what is there.",
    ]


@EACH
def test_its_help_has_examples_and_fits_into_a_terminal(command: list[str]) -> None:
    done = millstream(command[0], "--help", env={"COLUMNS": "80"})

    assert (done.code, done.err) == (0, "")
    assert f"examples:\n  millstream {command[0]}" in done.out
    assert max(map(len, done.out.splitlines())) <= 80


# --- which run is meant ---------------------------------------------------------------------


class Few:
    """Some runs, given in pages of two."""

    def __init__(self, ids: Sequence[str]) -> None:
        self.ids = ids

    async def record(self, run_id: str) -> RunRecord:
        if run_id not in self.ids:
            raise UnknownRunError(run_id)
        return RunRecord(run_id=run_id, agent="A", status="completed")

    async def runs(self, *, limit: int = 100, before: str | None = None) -> list[RunRecord]:
        start = 0 if before is None else self.ids.index(before) + 1
        return [await self.record(run_id) for run_id in self.ids[start : start + 2]]


RUNS = Few(["run_1a", "run_1ab", "run_2c", "nightly", "run_2d", "run_3"])


@pytest.mark.parametrize(
    ("word", "run_id"),
    [
        ("run_3", "run_3"),
        ("run_1a", "run_1a"),
        ("run_2d", "run_2d"),
        ("3", "run_3"),
        ("2c", "run_2c"),
        ("nigh", "nightly"),
    ],
)
async def test_a_run_is_meant_by_its_id_or_by_the_only_one_that_begins_so(word: str, run_id: str) -> None:
    assert (await find_run(RUNS, word)).run_id == run_id


async def test_where_several_are_meant_they_are_listed() -> None:
    with pytest.raises(Problem) as raised:
        await find_run(RUNS, "run_2")

    assert (
        raised.value.line == "2 runs begin with 'run_2':\n    run_2c  completed  A\n    run_2d  completed  A"
    )
    assert raised.value.code == 2


async def test_of_very_many_only_some_are_listed() -> None:
    with pytest.raises(Problem) as raised:
        await find_run(Few([f"run_{number:02}" for number in range(30)]), "run_")

    assert raised.value.line.splitlines()[0] == "30 runs begin with 'run_':"
    assert raised.value.line.splitlines()[-1] == "    and 22 more"


@pytest.mark.parametrize("word", ["", "run_9", "nightly-build"])
async def test_where_none_is_meant_that_is_said(word: str) -> None:
    with pytest.raises(Problem, match=f"there is no run '{word}'"):
        await find_run(RUNS, word)
