"""Standard output that cannot be written to, whatever the command and however it is buffered."""

import os
from pathlib import Path

import pytest

from tests.cli.program import millstream

pytestmark = pytest.mark.slow

COMMANDS = [["--help"], ["--version"], ["models"], ["demo", "--speed", "1000"]]


@pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_nobody_reads_and_nobody_is_bothered(command: list[str], unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as nobody:
        done = millstream(*command, stdout=nobody, env={"PYTHONUNBUFFERED": unbuffered})

    assert (done.code, done.err) == (141, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_full_disk_is_one_line(command: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        done = millstream(*command, stdout=full)

    assert done.code == 1
    assert done.err == "millstream: error: the output could not be written: No space left on device\n"
