"""`millstream cancel`: from another process."""

from pathlib import Path

import pytest

from millstream.testing import check_stream
from tests.cli.program import millstream
from tests.cli.stores import in_background, run, sqlite_store

pytestmark = pytest.mark.slow


def test_a_run_of_another_process_is_stopped(store: str, apps: Path) -> None:
    with in_background(store, "talker.py", cwd=apps) as background:
        done = millstream("cancel", background.run_id[:12], "--store", store)

        ended = background.end()

    assert (done.code, done.err) == (0, "")
    assert done.out == f"{background.run_id} is asked to stop now. It reads that at once.\n"
    assert ended.code == 1
    assert "millstream: error: the run was cancelled." in ended.err
    assert "cancelled" in millstream("runs", "--store", store).out


def test_one_that_has_ended_is_left_as_it_is(apps: Path) -> None:
    store = sqlite_store(apps)
    run_id = run(store, "shop.py", cwd=apps)

    done = millstream("cancel", run_id, "--store", store)

    assert (done.code, done.err) == (0, "")
    assert done.out == f"{run_id} is completed already: there is nothing to stop.\n"


def test_one_that_waits_has_ended_when_the_command_has(store: str, apps: Path) -> None:
    run_id = run(store, "janitor.py:two", cwd=apps)

    done = millstream("cancel", run_id, "--store", store)
    again = millstream("cancel", run_id, "--store", store)

    assert (done.code, done.out) == (0, f"{run_id} is cancelled.\n")
    assert (again.code, again.out) == (0, f"{run_id} is cancelled already: there is nothing to stop.\n")
    check_stream(millstream("tail", "--json", run_id, "--store", store).out.splitlines())


def test_a_mode_that_there_is_not_is_told_so() -> None:
    done = millstream("cancel", "run_1", "--mode", "soon", "--store", "memory:")

    assert done.code == 2
    assert "invalid choice: 'soon'" in done.errors[0]
