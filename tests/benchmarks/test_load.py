"""The benchmark of the server measures what there is, and misses no event."""

import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

PROGRAM = Path(__file__).parents[2] / "benchmarks" / "load.py"


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, PROGRAM, *arguments], capture_output=True, text=True, check=False, timeout=280
    )


def test_it_measures_a_server_with_a_client_that_stalls_beside_a_floor() -> None:
    arguments = ("--quick", "--store", "SQLite normal", "--part", "readers", "--part", "flood", "--json")

    done = ended(*arguments)

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["machine"]["uvicorn"]
    assert found["readers"].keys() == {"floor", "SQLite normal", "SQLite normal, one stalled"}
    assert found["flood"].keys() == {"floor", "SQLite normal"}
    for figures in (*found["readers"].values(), *found["flood"].values()):
        assert 0 < figures["p50"] <= figures["p99"] <= figures["max"]
        assert figures["cpu_us"] > 0
        assert figures["memory"]["there"] > 0


def test_more_readers_than_a_process_may_have_files_are_refused_with_the_remedy() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("a process may have any number of files here")

    done = ended("--readers", str(hard))

    assert done.returncode == 1
    assert f"a process may have {hard} here" in done.stderr
    assert "ulimit -n" in done.stderr
