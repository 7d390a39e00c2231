"""`millstream tail`: a run of another process, shown as `millstream run` shows it."""

import re
import subprocess
from pathlib import Path

import pytest

from millstream import Agent, MemoryLog, Runner
from millstream.cli.tail import entries
from millstream.testing import ScriptedModel, check_stream
from tests.cli.program import PROGRAM, Done, at_terminal, environment, millstream
from tests.cli.stores import begin_later, in_background, json_lines, run, run_id_in, sqlite_store

pytestmark = pytest.mark.slow


def without_times(text: str) -> str:
    return re.sub(r"[\d,.]+ (ms|s)\b", "… \\1", text)


def test_a_run_that_has_ended_is_shown_as_run_shows_it(store: str, apps: Path) -> None:
    shown = millstream("run", "shop.py", "Go.", "--store", store, cwd=apps)
    run_id = run_id_in(shown.err)

    done = millstream("tail", run_id, "--store", store)

    assert (done.code, done.err) == (0, "")
    assert without_times(done.out) == without_times(shown.out)
    assert millstream("tail", "-q", run_id, "--store", store).out == "Let me look.\nA lamp is 12.\n"


def test_json_is_its_log_from_the_position_that_is_asked_for(store: str, apps: Path) -> None:
    run_id = run(store, "shop.py", cwd=apps)

    whole = millstream("tail", "--json", run_id, "--store", store)
    rest = millstream("tail", "--json", run_id, "--from", "4", "--store", store)

    check_stream(whole.out.splitlines())
    assert whole.out.splitlines()[3:] == rest.out.splitlines()
    assert json_lines(rest)[0]["position"] == 4


def test_it_follows_a_run_of_another_process_to_its_end(store: str, apps: Path) -> None:
    with in_background(store, "talker.py", cwd=apps) as background:
        with at_terminal("tail", background.run_id, "--store", store) as terminal:
            terminal.wait_for("word word word")

            assert millstream("cancel", background.run_id, "--store", store).code == 0

            assert terminal.end() == 1
        assert background.end().code == 1
    assert "■ stopped; the text so far is kept" in terminal.screen
    assert "millstream: error: the run was cancelled." in terminal.screen


def test_leaving_it_leaves_the_run_alone(apps: Path) -> None:
    store = sqlite_store(apps)
    with in_background(store, "talker.py", cwd=apps) as background:
        with at_terminal("tail", background.run_id, "--store", store) as terminal:
            terminal.wait_for("word word word")
            terminal.press_ctrl_c()

            assert terminal.end() == 130

        assert "millstream: not looking any more; the run is not touched by that." in terminal.screen
        assert "Traceback" not in terminal.screen
        assert background.process.poll() is None


@pytest.mark.parametrize("style", [[], ["--json"]], ids=["view", "json"])
def test_a_reader_that_goes_away_ends_it_quietly(style: list[str], apps: Path) -> None:
    store = sqlite_store(apps)
    with in_background(store, "talker.py", cwd=apps) as background:
        with subprocess.Popen(
            [*PROGRAM, "tail", *style, background.run_id, "--store", store],
            env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.read(1)

            process.stdout.close()

            assert process.stderr.read() == b""
        assert process.returncode == 141
        assert background.process.poll() is None


def test_without_following_it_shows_what_is_there(apps: Path) -> None:
    store = sqlite_store(apps)
    with in_background(store, "talker.py", cwd=apps) as background:
        done = millstream("tail", "--no-follow", "--json", background.run_id, "--store", store)

        assert background.process.poll() is None
    assert done.code == 0
    check_stream(done.out.splitlines(), ended=False)


def test_through_a_pause_it_stays_and_says_what_is_waited_for(store: str, apps: Path) -> None:
    run_id = run(store, "janitor.py:one", cwd=apps)

    with at_terminal("tail", run_id, "--store", store) as terminal:
        terminal.wait_for("· paused: 1 call(s) wait for approval")
        terminal.wait_for(
            f"millstream: the run waits for approval: `millstream approve {run_id} --list` shows of what."
        )

        assert millstream("cancel", run_id, "--store", store).code == 0

        assert terminal.end() == 1
    assert "■ stopped" in terminal.screen


def test_a_pause_that_is_decided_over_waits_for_a_program(store: str, apps: Path) -> None:
    run_id = run(store, "janitor.py:one", cwd=apps)
    assert millstream("approve", run_id, "--store", store).code == 0

    with at_terminal("tail", run_id, "--store", store) as terminal:
        terminal.wait_for("millstream: all that waited is decided over: the run goes on when a program")

        assert millstream("cancel", run_id, "--store", store).code == 0

        assert terminal.end() == 1
    assert "waits for approval" not in terminal.screen


def test_where_nobody_runs_it_that_is_said(apps: Path) -> None:
    store = sqlite_store(apps)
    begin_later(store, "run_1")

    with at_terminal("tail", "run_1", "--store", store) as terminal:
        terminal.wait_for("millstream: nobody runs it at the moment: its process is gone, or has not begun.")
        terminal.press_ctrl_c()

        assert terminal.end() == 130


async def test_what_is_no_longer_held_is_told_of_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    log = MemoryLog()
    agent = Agent(name="A", model=ScriptedModel(["Hi."]))
    result = await Runner.run(agent, "Hello", run_config={"log": log})
    await log.trim(result.run_id, 4)

    shown = [entry.position async for entry in entries(log, result.run_id, 0)]
    some = [entry.position async for entry in entries(log, result.run_id, 0, until=5)]

    assert (shown, some) == ([4, 5, 6], [4, 5])
    assert (
        capsys.readouterr().err == "millstream: positions 1 to 3 are no longer held and are left out.\n" * 2
    )


FAILING = """
from millstream import Agent, tool
from millstream.testing import ScriptedModel, function_call

@tool
def again() -> str:
    return "again"

agent = Agent(name="Looper", tools=[again], model=ScriptedModel([[function_call("again", call_id="c")]] * 9))
"""


def test_the_exit_code_tells_how_the_run_ended(apps: Path) -> None:
    (apps / "failing.py").write_text(FAILING)
    store = sqlite_store(apps)
    shown = millstream("run", "failing.py", "Go.", "--max-turns", "2", "--store", store, cwd=apps)
    limited = run_id_in(shown.err)

    def tail(*arguments: str) -> Done:
        return millstream("tail", limited, "--store", store, *arguments)

    assert shown.code == 3
    done = tail()
    assert done.code == 3
    assert done.err.startswith(
        "millstream: error: the run failed (max_turns): The run took more turns than it may.\n"
    )
    assert "under err_" in done.err
    beyond = tail("--from", "1000", "--json")
    assert (beyond.code, beyond.out) == (3, "")
    assert beyond.err == "millstream: error: the run failed (max_turns).\n"


@pytest.mark.parametrize("position", ["0", "-1", "first"])
def test_a_position_is_a_number_from_1(position: str) -> None:
    done = millstream("tail", "run_1", f"--from={position}", "--store", "memory:")

    assert done.code == 2
    assert done.errors[0].endswith(f"{position!r} is not a position (1, 2, …)")
