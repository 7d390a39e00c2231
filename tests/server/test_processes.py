"""Two servers in processes of their own, on one store: whichever is asked, it is one run."""

import contextlib
import http.client
import json
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.cli.program import DEADLINE
from tests.cli.test_serve import Served, serving

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


def talking(server: Served) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{server.port}/ws", max_size=None, ping_interval=None)


def test_a_server_that_is_stopped_closes_its_websockets_and_the_next_one_tells_the_rest(folder: Path) -> None:
    with serving(folder) as stopped, talking(stopped) as socket:
        socket.send('{"type":"start","input":"Hi"}')
        run_id, seen = json.loads(socket.recv())["run_id"], list[str]()
        while not seen or "tool.started" not in seen[-1]:
            seen.append(str(socket.recv(DEADLINE)))
        stopped.process.terminate()
        with contextlib.suppress(ConnectionClosed):
            while True:
                seen.append(str(socket.recv(DEADLINE)))
        code = stopped.process.wait(DEADLINE)
    (folder / "second").touch()
    (folder / "go").touch()
    if "stopping" in seen[-1]:  # what the HTTP server leaves time for, on most days
        seen.pop()
    with serving(folder) as again, talking(again) as resumed:
        resumed.send(json.dumps({"type": "follow", "run_id": run_id, "after": len(seen)}))
        resumed.recv()
        while "run.completed" not in seen[-1]:
            seen.append(str(resumed.recv(DEADLINE)))
        with talking(again) as replay:
            replay.send(json.dumps({"type": "follow", "run_id": run_id}))
            replay.recv()
            whole = [str(replay.recv(DEADLINE)) for _ in seen]

    assert (code, socket.protocol.close_code) == (0, 1012)
    assert seen == whole
