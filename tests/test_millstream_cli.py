"""The door of the command `millstream`: Ctrl-C while Python still imports the program."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cli.program import environment

pytestmark = pytest.mark.slow

# Python imports a module of this name at its start. It counts what is imported from the door
# on, and sends the interrupt in the middle of one import, where this process can be sure to be.
COUNTER = """
import os, signal, sys

class Counter:
    count = 0
    behind_the_door = False

    def find_spec(self, name, *_):
        self.behind_the_door = self.behind_the_door or name == "millstream_cli"
        if not self.behind_the_door or name == "signal":
            return None
        self.count += 1
        if self.count == int(os.environ["INTERRUPT_AT"]):
            os.kill(os.getpid(), signal.SIGINT)

counter = Counter()
sys.meta_path.insert(0, counter)

import atexit
atexit.register(lambda: os.environ["INTERRUPT_AT"] == "0" and print(counter.count, file=sys.stderr))
"""


@pytest.fixture
def program(leave_out: Callable[[str], NoReturn]) -> Path:
    """The command as it is installed."""
    file = Path(sys.executable).with_name("millstream")
    if not file.is_file():
        leave_out("needs the package to be installed beside this Python")
    return file


def test_ctrl_c_at_any_moment_of_the_import_is_quiet_and_130(program: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(COUNTER)

    def interrupted(at: int) -> tuple[int, str, str]:
        env = environment({"PYTHONPATH": str(tmp_path), "INTERRUPT_AT": str(at)})
        # Coverage imports modules of its own before the first line of the door is run.
        env = {name: value for name, value in env.items() if not name.startswith("COV")}
        done = subprocess.run(
            [program, "models", "--offline"], env=env, capture_output=True, text=True, check=False, timeout=40,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    code, _, last_line = interrupted(0)
    modules = int(last_line)
    assert code == 0
    assert modules > 200

    moments = [2, 3, 4, *range(5, modules, modules // 16), modules]
    assert {at: interrupted(at) for at in moments} == dict.fromkeys(moments, (130, "", ""))


def test_python_m_millstream_goes_through_the_same_door() -> None:
    look = (
        "import runpy, sys; sys.argv[1:] = ['--version']; runpy.run_module('millstream', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", look], env=environment(), capture_output=True, text=True,
        check=False,
    )  # fmt: skip

    assert done.returncode == 0
    assert "| millstream_cli\n" in done.stderr
