"""Two servers in processes of their own, on one store: whichever is asked, it is one run."""

import contextlib
import http.client
import json
from pathlib import Path

import pytest

from tests.cli.test_serve import serving

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


APP = """
import asyncio
from pathlib import Path

from millstream import Agent, tool
from millstream.testing import ScriptedModel, function_call


@tool
async def wait() -> str:
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    return "waited"


first = not Path("second").exists()
agent = Agent(name="A", tools=[wait], model=ScriptedModel([[function_call("wait", {})]] if first else ["Done."]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


def test_a_run_is_stopped_from_another_process(folder: Path) -> None:
    with serving(folder) as runner, serving(folder) as other:
        with runner.stream("POST", "/runs", {"input": "Hi", "stream": True}) as stream:
            stream.until("tool.started")
            said = other.ask("POST", f"/runs/{stream.run_id}/cancel", {"mode": "now"})
            stream.until()
        status = other.ask("GET", f"/runs/{stream.run_id}")["status"]

    assert said == {"run_id": stream.run_id}
    assert json.loads(stream.events[-1].data)["event"]["type"] == "run.cancelled"
    assert status == "cancelled"


def test_a_follower_at_another_process_sees_a_run_through_the_death_of_its_own(folder: Path) -> None:
    asked = {"input": "Hi", "stream": True}
    with serving(folder) as runner, runner.stream("POST", "/runs", asked) as started:
        started.until("tool.started")
        (folder / "second").touch()
        path = f"/runs/{started.run_id}/events"
        with serving(folder) as other:
            with other.stream("GET", path) as follower:
                follower.until("tool.started")
                runner.process.kill()
                with contextlib.suppress(http.client.HTTPException, OSError):
                    started.until()
                (folder / "go").touch()
                follower.until()  # `other` takes it over when the lease of the dead one ends
            with other.stream("GET", path) as replay:
                replay.until()

    assert follower.events == replay.events
    assert follower.events[: len(started.events)] == started.events
    assert json.loads(follower.events[-1].data)["event"]["type"] == "run.completed"
    positions = [int(event.id) for event in follower.events]
    assert positions == list(range(1, len(positions) + 1))
