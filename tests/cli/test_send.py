"""`millstream send`: input from another process."""

from pathlib import Path

import pytest

from tests.cli.program import millstream
from tests.cli.stores import in_background, json_lines, run, sqlite_store

pytestmark = pytest.mark.slow


def test_a_run_of_another_process_gets_more_input(store: str, apps: Path) -> None:
    with in_background(store, "talker.py", cwd=apps) as background:
        done = millstream("send", background.run_id, "Enough", "of that.", "--store", store)

        ended = background.end()

    assert (done.code, done.err) == (0, "")
    assert done.out == f"Sent to {background.run_id}. It reads that at once.\n"
    assert ended.code == 0
    assert ended.out.endswith("Noted.\n")
    log = json_lines(millstream("tail", "--json", background.run_id, "--store", store))
    (added,) = [entry["event"] for entry in log if entry["event"]["type"] == "input.added"]
    assert "Enough of that." in str(added["input"])


def test_what_is_piped_in_stands_for_a_dash_and_for_nothing_else(apps: Path) -> None:
    store = sqlite_store(apps)
    run_id = run(store, "janitor.py:one", cwd=apps)

    piped = millstream("send", run_id, "Mind this:", "-", "--store", store, input="the cat\n")
    not_piped = millstream("send", run_id, "And this.", "--store", store, input="never read\n")
    nothing = millstream("send", run_id, "-", "--store", store, input="\n")

    assert piped.code == not_piped.code == 0
    assert "reads that when somebody goes on with it" in piped.out
    assert nothing.code == 2
    assert nothing.errors[0] == "millstream: error: there is no text."


def test_one_that_has_ended_takes_no_more(apps: Path) -> None:
    store = sqlite_store(apps)
    run_id = run(store, "shop.py", cwd=apps)

    done = millstream("send", run_id, "More.", "--store", store)

    assert (done.code, done.out) == (1, "")
    assert done.err == f"millstream: error: {run_id} is completed: it takes no more input.\n"
