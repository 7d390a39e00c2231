"""The benchmark of the logs measures what there is: what it imports from here must not move away under it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "logs.py"
SHORT = (
    "--rounds",
    "1",
    "--seconds",
    "0.01",
    "--delivery",
    "0.1",
    "--store",
    "memory",
    "--store",
    "SQLite normal",
)


def output(*arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, PROGRAM, *SHORT, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_measures_every_part_of_a_store_that_others_read(tmp_path: Path) -> None:
    found = json.loads(output("--json", "--folder", str(tmp_path)))

    assert found["machine"]["sqlite"]
    assert (
        found["room"]["SQLite normal"]["in batches of 1"]["disk"]
        > found["room"]["SQLite normal"]["in batches of 16"]["disk"]
        > 203
    )
    assert all(rate["ours"] > 0 and rate["floor"] > 0 for rate in found["appends"]["SQLite normal"].values())
    assert found["delivery"]["SQLite normal"].keys() == {"here", "there"}
    assert found["runs"]["1"].keys() == {"none", "memory", "SQLite normal"}
    assert all(each["checkpoint_bytes"] > each["last_bytes"] > 0 for each in found["turns"])
    assert list(tmp_path.iterdir()) == []


def test_a_part_alone_is_printed_as_a_table() -> None:
    first, _, head, _, *rows = output("--part", "appends").splitlines()

    assert "python" in first
    assert head.startswith("| events in a second (x floor)")
    assert [row.split("|")[1].strip() for row in rows] == ["memory", "SQLite normal"]
