"""`millstream runs`: what it lists, and how."""

import subprocess
from pathlib import Path

import pytest

from millstream.cli.runs import age, table
from millstream.log.store import RunRecord
from tests.cli.program import PROGRAM, environment, millstream
from tests.cli.stores import begin_later, in_background, json_lines, run, sqlite_store

pytestmark = pytest.mark.slow


def test_the_runs_of_a_store_are_listed_the_newest_first(store: str, apps: Path) -> None:
    done = run(store, "shop.py", cwd=apps)
    waits = run(store, "janitor.py:one", cwd=apps)
    with in_background(store, "talker.py", cwd=apps) as background:
        listed = millstream("runs", "--store", store)

    head, *lines = listed.out.splitlines()
    assert (listed.code, listed.err) == (0, "")
    assert head.split() == ["RUN", "STATUS", "UPDATED", "AGENT"]
    assert [line.split()[:2] for line in lines] == [
        [background.run_id, "running"],
        [waits, "paused"],
        [done, "completed"],
    ]
    assert lines[1].endswith("ago  Janitor")
    assert lines[2].endswith("ago  Clerk")


def test_some_of_them_are_listed_by_status_caller_and_number(apps: Path) -> None:
    store = sqlite_store(apps)
    done = run(store, "shop.py", cwd=apps)
    waits = run(store, "janitor.py:one", cwd=apps)

    def listed(*arguments: str) -> list[str]:
        return [
            each["run_id"] for each in json_lines(millstream("runs", "--json", "--store", store, *arguments))
        ]

    assert listed() == [waits, done]
    assert listed("--status", "completed") == [done]
    assert listed("--status", "completed", "--status", "paused") == [waits, done]
    assert listed("--caller", "") == [waits, done]
    assert listed("--caller", "ada") == []
    assert listed("--limit", "1") == [waits]
    begin_later(store, "run_2", caller="ada", conversation="chat")
    assert listed("--conversation", "chat") == ["run_2"]
    assert listed("--conversation", "other") == []
    head, line, *_ = millstream("runs", "--store", store).out.splitlines()
    assert head.split()[-3:] == ["CALLER", "CONVERSATION", "AGENT"]
    assert line.split()[-3:] == ["ada", "chat", "Clerk"]
    assert (
        "millstream: there are more: --limit 5 shows more of them."
        in millstream("runs", "--store", store, "--limit", "1").err
    )


def test_json_is_one_object_a_line_with_what_is_known_of_a_run(apps: Path) -> None:
    store = sqlite_store(apps)
    run_id = run(store, "shop.py", cwd=apps)

    (record,) = json_lines(millstream("runs", "--json", env={"MILLSTREAM_STORE": store}))

    assert record["run_id"] == run_id
    assert (record["agent"], record["status"], record["is_owned"]) == ("Clerk", "completed", False)
    assert record["last"] > 10
    assert record["created"] <= record["updated"]
    assert "request" not in record
    assert "checkpoint" not in record


def test_where_there_is_none_it_is_said(apps: Path) -> None:
    store = sqlite_store(apps)
    run(store, "shop.py", cwd=apps)

    done = millstream("runs", "--store", store, "--status", "failed")

    assert (done.code, done.out, done.err) == (0, "", "millstream: there are no such runs.\n")


def test_a_run_that_nobody_runs_has_no_owner(store: str, apps: Path) -> None:
    begin_later(store, "run_1", caller="ada")

    head, line = millstream("runs", "--store", store).out.splitlines()
    assert head.split() == ["RUN", "STATUS", "UPDATED", "CALLER", "AGENT"]
    assert line.split()[:2] == ["run_1", "queued"]
    assert line.endswith("ago  no owner  ada     Clerk")


def test_a_reader_that_goes_away_is_no_trouble(apps: Path) -> None:
    store = sqlite_store(apps)
    run(store, "shop.py", cwd=apps)
    reading = subprocess.Popen(
        [*PROGRAM, "runs", "--store", store],
        env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert reading.stdout is not None
    assert reading.stderr is not None
    reading.stdout.close()

    with reading:
        assert reading.stderr.read() == b""
    assert reading.returncode == 141


def record(run_id: str, **more: object) -> RunRecord:
    return RunRecord(run_id=run_id, **{"agent": "A", "status": "completed", "updated": 0.0, **more})  # pyright: ignore[reportArgumentType]


def test_a_line_fits_into_the_terminal_and_an_id_is_never_cut() -> None:
    records = [record("run_" + "a" * 32, agent="Agent " * 20, status="failed", code="max_turns")]

    head, line = "".join(text for _, text in table(records, now=90.0, width=80)).splitlines()
    piped = "".join(text for _, text in table(records, now=90.0, width=None))

    assert head.split() == ["RUN", "STATUS", "UPDATED", "AGENT"]
    assert line.startswith(f"run_{'a' * 32}  failed  1 min ago  max_turns  Agent Agent")
    assert len(line) <= 80
    assert line.endswith("…")
    assert piped.endswith("Agent " * 19 + "Agent\n")


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(-3, "0 s ago"), (59.9, "59 s ago"), (60, "1 min ago"), (7300, "2 h ago"), (90_000, "1 d ago")],
)
def test_how_long_ago_is_told_roughly(seconds: float, told: str) -> None:
    assert age(seconds) == told
