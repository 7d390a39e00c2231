"""What `docs/deployment.md` says of services and of several processes."""

import argparse
import configparser
import signal
from pathlib import Path

import pytest

from millstream import SQLiteLog
from millstream.cli import serve
from tests.cli.program import DEADLINE
from tests.cli.test_serve import APP, serving
from tests.server.shown import shown

GRACE = 5
"""Seconds that the HTTP server waits for its connections, before runs are waited for."""


def test_the_unit_that_the_page_shows_starts_a_server_and_waits_until_it_has_stopped() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # pyright: ignore[reportAttributeAccessIssue]
    unit.read_string(shown("deployment.md", "ini"))
    service = unit["Service"]
    parser = argparse.ArgumentParser()
    serve.add_arguments(parser)

    program, command, *arguments = service["ExecStart"].split()
    asked = parser.parse_args(arguments)

    assert (Path(program).name, command) == ("millstream", "serve")
    assert asked.workers > 1
    assert service["KillMode"] == "mixed"
    assert int(service["TimeoutStopSec"]) > asked.drain + GRACE


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_several_workers_that_are_stopped_send_clients_away_and_hand_their_runs_back(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(APP)

    with serving(tmp_path, "--workers", "2") as workers:
        with workers.stream("POST", "/runs", {"input": "Hi", "stream": True}) as stream:
            stream.until("tool.started")
            workers.process.send_signal(signal.SIGTERM)
            stream.until()
        code = workers.process.wait(DEADLINE)
    store = SQLiteLog(tmp_path / "millstream.db")
    record = await store.record(stream.run_id)
    await store.aclose()

    assert code == 0
    assert stream.parser.retry is not None
    assert (record.status, record.is_owned) == ("running", False)  # the next server goes on with it
