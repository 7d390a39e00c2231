"""`millstream demo`, `--help` and `--version`: what a newcomer types first."""

import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

from millstream import Entry
from tests.cli.program import PROGRAM, at_terminal, environment, millstream

pytestmark = pytest.mark.slow


def test_the_demo_shows_all_that_it_promises_on_80_columns() -> None:
    with at_terminal("demo", "--speed", "30", "--no-color") as terminal:
        assert terminal.end() == 0

    screen = terminal.screen
    steps = [
        "● Front desk\n",
        "  ⇒ hands over to Planner\n",
        "● Planner\n",
        '  → weather(city="Lyon", day="Saturday")\n  → events(',
        " weather  ",
        " tables  ",
        "ConnectionError: the booking service did not answer",
        " events  3 of 3 calendars\n",
        "  ✓ events  ",
        "I'll try once more",
        "  │ ● Local\n  │ The market, before the crowd comes at ten.\n",
        "  ✓ ask_a_local  ",
        "= DayPlan\n  city           Lyon\n",
        "  4 turns · 1,250 tokens in, 303 out · ",
        "Next:  millstream run ",
    ]
    assert [screen.find(step) for step in steps] == sorted(screen.find(step) for step in steps)
    assert all(step in screen for step in steps)
    assert max(map(len, screen.splitlines())) <= 80


def test_the_demo_as_json_is_its_log_and_nothing_else() -> None:
    done = millstream("demo", "--json", "--speed", "1000")

    entries = [Entry.from_json(line) for line in done.out.splitlines()]
    assert (done.code, done.err) == (0, "")
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    assert entries[-1].event.type == "run.completed"


def test_the_demo_can_be_left_with_ctrl_c() -> None:
    with at_terminal("demo") as terminal:
        terminal.wait_for("A free")

        terminal.press_ctrl_c()

        assert terminal.end() == 130
    assert "Next:" not in terminal.screen


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs `unshare`, which Linux has")
def test_the_demo_needs_no_network_at_all() -> None:
    alone = ["unshare", "-rn"]
    if subprocess.run([*alone, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("this machine lets nobody make a network namespace")

    done = subprocess.run(
        [*alone, *PROGRAM, "demo", "--speed", "100"],
        env=environment(), capture_output=True, check=False, timeout=40,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("speed", ["0", "-1", "nan", "fast"])
def test_a_speed_that_is_none_is_a_mistake(speed: str) -> None:
    done = millstream("demo", f"--speed={speed}")

    assert done.code == 2
    assert f"{speed!r} is not a speed" in done.err


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["chat", "--help"], ["models", "--help"], ["demo", "--help"]]
)
def test_every_help_fits_80_columns_and_has_examples(arguments: list[str]) -> None:
    done = millstream(*arguments, env={"COLUMNS": "80"})

    assert (done.code, done.err) == (0, "")
    assert "examples:\n  millstream " in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_the_version_is_that_of_the_package() -> None:
    assert millstream("--version").out == f"millstream {version('millstream')}\n"


@pytest.mark.parametrize("argument", ["--help", "--version"])
def test_neither_help_nor_version_waits_for_slow_imports(argument: str) -> None:
    look = (
        "import sys; from millstream_cli import main; assert main(sys.argv[1:]) == 0; "
        "slow = {'openai', 'aiohttp', 'httpx2', 'griffe'} & sys.modules.keys(); sys.exit(str(slow) if slow else 0)"
    )

    done = subprocess.run([sys.executable, "-c", look, argument], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "error: the following arguments are required: COMMAND"),
        (["fly"], "error: argument COMMAND: invalid choice: 'fly'"),
        (["demo", "--fast"], "error: unrecognized arguments: --fast"),
    ],
)
def test_a_command_that_is_none_is_one_line_and_a_hint(arguments: list[str], said: str) -> None:
    done = millstream(*arguments)

    assert done.code == 2
    assert said in done.err
    assert "--help` tells what it takes." in done.err
    assert len(done.err.splitlines()) == 2
