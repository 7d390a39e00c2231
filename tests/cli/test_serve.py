"""`millstream serve`: the real server, in processes of its own."""

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from millstream.client import SseEvent, SseParser
from tests.cli.program import DEADLINE, PROGRAM, environment, millstream
from tests.support.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

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



agent = Agent(name="A", tools=[wait], model=ScriptedModel([[function_call("wait", {})]] if not Path("go").exists() else ["Done."]))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


class Served:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self.port = port

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            headers = {"content-type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            return json.loads(connection.getresponse().read())

    @contextlib.contextmanager
    def stream(self, method: str, path: str, body: Any = None) -> Iterator["Stream"]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
        with contextlib.closing(connection):
            headers = {"content-type": "application/json"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            yield Stream(connection.getresponse())


class Stream:
    """What a server streams."""

    def __init__(self, response: http.client.HTTPResponse) -> None:
        self._response = response
        self.run_id = response.headers["x-run-id"]
        self.parser = SseParser()
        self.events: list[SseEvent] = []

    def until(self, kind: str | None = None) -> None:
        """Read up to an event of that type, or to the end."""
        while piece := self._response.read1():
            self.events += self.parser.feed(piece)
            if kind is not None and any(f'"type":"{kind}"' in event.data for event in self.events):
                return


@contextlib.contextmanager
def serving(folder: Path, *arguments: str, app: str = "app.py", port: int | None = None) -> Iterator[Served]:
    port = port or free_port()
    command = [*PROGRAM, "serve", app, "--port", str(port), "--drain", "0.5", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stderr=subprocess.PIPE, encoding="utf-8",
        start_new_session=True,
    )  # fmt: skip
    served = Served(process, port)
    try:
        for _ in range(int(DEADLINE * 20)):
            with contextlib.suppress(OSError):
                if served.ask("GET", "/ready")["status"] == "ready":
                    break
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.05)
        yield served
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.communicate()


def test_a_server_that_is_stopped_sends_clients_away_and_the_next_one_goes_on(folder: Path) -> None:
    with serving(folder) as first:
        with first.stream("POST", "/runs", {"input": "Hi", "stream": True}) as stream:
            stream.until("tool.started")
            first.process.send_signal(signal.SIGTERM)
            stream.until()
        seen = stream.events
        assert stream.parser.retry is not None
        assert 1000 <= stream.parser.retry <= 3000
        assert first.process.wait(DEADLINE) == 0

    (folder / "go").touch()
    with serving(folder) as second:
        with second.stream("GET", f"/runs/{stream.run_id}/events?after={seen[-1].id}") as rest:
            rest.until()
        whole = [json.loads(event.data) for event in [*seen, *rest.events]]

    assert [entry["position"] for entry in whole] == list(range(1, len(whole) + 1))
    assert [entry["event"]["type"] for entry in whole].count("run.attempt") == 1
    assert whole[-1]["event"]["output"] == "Done."


def test_who_stops_a_server_twice_does_not_wait_for_its_runs_and_the_next_one_goes_on(folder: Path) -> None:
    with serving(folder, "--drain", "3600") as first:
        with first.stream("POST", "/runs", {"input": "Hi", "stream": True}) as stream:
            stream.until("tool.started")
            first.process.send_signal(signal.SIGINT)
            stream.until()
        first.process.send_signal(signal.SIGINT)
        first.process.wait(DEADLINE)
        assert first.process.stderr is not None
        assert "stopping: 1 run(s) have 3600 s to end" in first.process.stderr.read()

    (folder / "go").touch()
    with serving(folder) as second:
        path = f"/runs/{stream.run_id}/events?after={stream.events[-1].id}"
        with second.stream("GET", path) as rest:
            rest.until()
    assert json.loads(rest.events[-1].data)["event"]["output"] == "Done."


def test_a_server_that_is_killed_loses_no_run(folder: Path) -> None:
    asked = {"input": "Hi", "stream": True}
    with serving(folder) as first, first.stream("POST", "/runs", asked) as stream:
        stream.until("tool.started")
        first.process.kill()
        with contextlib.suppress(http.client.HTTPException, OSError):
            stream.until()
    (folder / "go").touch()
    with serving(folder) as second:  # which waits for the lease of the first to end
        path = f"/runs/{stream.run_id}/events?after={stream.events[-1].id}"
        with second.stream("GET", path) as rest:
            rest.until()

    assert json.loads(rest.events[-1].data)["event"]["output"] == "Done."


CHANGED = """
from pathlib import Path

from millstream import Agent, tool
from millstream.testing import ScriptedModel


@tool
async def wait() -> str:
    return "waited no more"


agent = Agent(name="A", tools=[wait], model=ScriptedModel(["Done by the new code."]))
"""


def test_a_change_of_a_file_loses_no_run(folder: Path) -> None:
    with serving(folder, "--reload", "--drain", "0") as served:
        with served.stream("POST", "/runs", {"input": "Hi", "stream": True}) as stream:
            stream.until("tool.started")
            (folder / "app.py").write_text(CHANGED)
            stream.until()
        seen = stream.events
        assert stream.parser.retry is not None
        while '"run.completed"' not in seen[-1].data:  # as a client does: it comes back until all is told
            path = f"/runs/{stream.run_id}/events?after={seen[-1].id}"
            with contextlib.suppress(http.client.HTTPException, OSError), served.stream("GET", path) as rest:
                rest.until()
                seen += rest.events
        served.process.send_signal(signal.SIGTERM)
        code = served.process.wait(DEADLINE)

    whole = [json.loads(event.data) for event in seen]
    assert [entry["position"] for entry in whole] == list(range(1, len(whole) + 1))
    assert [entry["event"]["type"] for entry in whole].count("run.attempt") == 1
    assert whole[-1]["event"]["output"] == "Done by the new code."
    assert code == 0


def test_another_address_is_not_served_without_a_word_on_who_may_use_it(folder: Path) -> None:
    refused = millstream("serve", "app.py", "--host", "0.0.0.0", cwd=folder)

    assert refused.code == 2
    assert "0.0.0.0 can be reached from other machines" in refused.err
    assert "--insecure" in refused.err


OWN = """
from millstream.server import create_app


async def by_name(connection):
    return connection.headers.get("x-name")


app = create_app(agent, access=by_name, log="memory:")
"""


def test_an_application_says_itself_who_may_and_where_its_runs_are(folder: Path) -> None:
    with (folder / "app.py").open("a") as file:
        file.write(OWN)

    with serving(folder, "--host", "0.0.0.0", app="app.py:app") as served:
        refused = served.ask("GET", "/runs")
    told = millstream("serve", "app.py:app", "--store", "sqlite:///runs.db", cwd=folder)

    assert refused["error"]["code"] == "unauthorized"
    assert not (folder / "millstream.db").exists()
    assert told.code == 2
    assert "an application was made with its own log" in told.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nothing.py"], "there is no file nothing.py"),
        (["app.py", "--port", "65536"], "'65536' is not a port"),
        (["app.py", "--workers", "0"], "'0' is not a number of processes"),
        (["app.py", "--drain", "x"], "'x' is not a number of seconds"),
        (["app.py", "--reload", "--workers", "2"], "--reload goes with one worker"),
        (["app.py", "--workers", "2", "--store", "memory:"], "several workers cannot share memory:"),
        (["app.py", "--store", "nonsense"], "nonsense"),
        (["app.py", "--log-level", "loud"], "'loud'"),
    ],
)
def test_what_cannot_be_served_is_told_before_anything_is(
    folder: Path, arguments: list[str], said: str
) -> None:
    refused = millstream("serve", *arguments, cwd=folder)

    assert refused.code == 2
    assert said in refused.err
    assert "Traceback" not in refused.err


def test_a_store_that_cannot_be_used_is_told_before_anything_is_served(folder: Path) -> None:
    (folder / "other.db").write_text("something else")

    refused = millstream("serve", "app.py", "--store", "sqlite:///other.db", cwd=folder)

    assert refused.code == 1
    assert "error: LogDamagedError" in refused.err
    assert "Traceback" not in refused.err
    assert "serving" not in refused.err


def test_a_store_that_is_away_is_waited_for_and_that_is_told(folder: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "serve", "app.py", "--store", f"redis://127.0.0.1:{free_port()}/0"],
        cwd=folder, env=environment(), stderr=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    try:
        assert process.stderr is not None
        said = process.stderr.readline()
    finally:
        process.kill()
        process.communicate()

    assert re.search(r"waiting for redis://\S+, which does not answer yet", said)


def test_a_file_with_an_application_and_an_agent_is_asked_which_of_them(folder: Path) -> None:
    with (folder / "app.py").open("a") as file:
        file.write(OWN)

    refused = millstream("serve", "app.py", cwd=folder)

    assert refused.code == 2
    assert "name it: app.py:app, app.py:agent." in refused.err


def test_a_process_of_a_server_whose_file_was_broken_since_says_so_in_a_line(folder: Path) -> None:
    (folder / "app.py").write_text("def x(:")
    told = {"app": "app.py", "store": "memory:", "drain": None, "is_open": False}
    log = {"log_level": "info", "log_format": "text"}

    process = subprocess.run(
        [sys.executable, "-c", "from millstream.cli.served import application; application()"],
        cwd=folder, env={**environment(), "MILLSTREAM_SERVE": json.dumps({**told, **log})},
        capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip

    assert process.returncode == 2
    assert process.stderr.startswith("millstream: error: app.py cannot be imported: SyntaxError")
    assert "Traceback" not in process.stderr


def test_a_port_that_is_taken_is_a_failure(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        refused = millstream("serve", "app.py", "--port", str(taken.getsockname()[1]), cwd=folder)

    assert refused.code == 1
    assert "cannot be served: Address already in use" in refused.err
    assert "--port" in refused.err
    assert "serving" not in refused.err
    assert "Traceback" not in refused.err


# --- what is printed --------------------------------------------------------------------------

FAILING = """
from millstream import Agent
from millstream.testing import ScriptedModel

agent = Agent(name="A", model=ScriptedModel(["Hello.", RuntimeError("the wire is cut")]))
"""


@contextlib.contextmanager
def printing(folder: Path, *arguments: str) -> Iterator[tuple[Served, list[str]]]:
    """A server on a free port, and the lines that it has printed when it was stopped."""
    command = [*PROGRAM, "serve", "app.py", "--port", "0", *arguments]
    process = subprocess.Popen(
        command, cwd=folder, env=environment(), stderr=subprocess.PIPE, encoding="utf-8",
        start_new_session=True,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        lines, found = list[str](), None
        while found is None:
            lines.append(process.stderr.readline())
            assert lines[-1], lines  # or it has ended
            found = re.search(r"serving .* on http://127\.0\.0\.1:(\d+)", lines[-1])
        yield Served(process, int(found[1])), lines
        process.send_signal(signal.SIGTERM)
        lines += process.communicate(timeout=DEADLINE)[1].splitlines()
        assert process.returncode == 0, lines
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)  # its workers, too
        process.communicate()


def test_what_is_printed_first_is_where_it_is_served_and_then_how_each_run_began_and_ended(
    tmp_path: Path,
) -> None:
    (tmp_path / "app.py").write_text(FAILING)

    with printing(tmp_path) as (served, lines):
        ready = served.ask("GET", "/ready")  # at once: nobody has to try again
        runs = [served.ask("POST", "/runs", {"input": "Hi"})["run_id"] for _ in range(2)]
        for run_id in runs:
            while served.ask("GET", f"/runs/{run_id}")["status"] in ("queued", "running"):
                time.sleep(0.02)
        states = sorted(served.ask("GET", f"/runs/{run_id}")["status"] for run_id in runs)

    assert lines[0].startswith("millstream: serving app.py on http://127.0.0.1:")
    assert ready["status"] == "ready"
    assert states == ["completed", "failed"]
    for run_id in runs:
        own = [line for line in lines if run_id in line]
        assert re.fullmatch(rf"\S+ \S+ INFO run {run_id}: begins", own[0])
        assert re.fullmatch(
            rf"\S+ \S+ (INFO run {run_id}: completed after [\d.]+ s|ERROR run {run_id} failed \(.*, err_\w+\))",
            own[1],
        )
        assert len(own) == 2
    assert "nobody asked" not in "".join(lines)
    assert [line for line in lines if "GET /" in line] == []


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=["one process", "two"])
def test_a_log_for_machines_is_json_line_by_line(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "app.py").write_text(FAILING.replace('"Hello.", ', ""))

    with printing(tmp_path, "--log-format", "json", *more) as (served, lines):
        with served.stream("POST", "/runs", {"input": "Hi", "stream": True}) as stream:
            stream.until()
        end = json.loads(stream.events[-1].data)["event"]

    told = [json.loads(line) for line in lines]
    (failure,) = [each for each in told if each["level"] == "ERROR"]
    assert failure["run_id"] == stream.run_id
    assert end["error_id"] in failure["message"]
    assert "the wire is cut" in failure["exception"]
    assert [each["message"] for each in told if each.get("run_id") == stream.run_id] == [
        f"run {stream.run_id}: begins",
        failure["message"],
    ]


def test_a_program_that_shows_its_log_itself_is_left_to_it(tmp_path: Path) -> None:
    own = 'import logging\nlogging.basicConfig(format="OWN %(run_id)s %(message)s")\n'
    (tmp_path / "app.py").write_text(own + FAILING)

    with (
        printing(tmp_path) as (served, lines),
        served.stream("POST", "/runs", {"input": "Hi", "stream": True}) as stream,
    ):
        stream.until()

    begun, *_ = [line for line in lines if stream.run_id in line]
    assert begun == f"OWN {stream.run_id} run {stream.run_id}: begins"


COUNTING = """
import os
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter, PeriodicExportingMetricReader

exporter = ConsoleMetricExporter(out=open(f"numbers.{os.getpid()}", "w"))
metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(exporter, export_interval_millis=1e9)]))
"""


@pytest.mark.parametrize("more", [[], ["--workers", "2"]], ids=["one process", "two"])
def test_what_exports_at_the_end_of_a_process_does_so_when_it_is_stopped(
    tmp_path: Path, more: list[str]
) -> None:
    (tmp_path / "app.py").write_text(COUNTING + FAILING)

    with (
        printing(tmp_path, *more) as (served, lines),
        served.stream("POST", "/runs", {"input": "Hi", "stream": True}) as stream,
    ):
        stream.until()

    numbers = [file.read_text() for file in tmp_path.glob("numbers.*")]
    assert sum("millstream.run.duration" in each for each in numbers) == 1
    assert "not allowed" not in "".join(lines)  # the program was run once in each process


def test_an_agent_without_a_model_or_a_key_is_told_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from millstream import Agent\nagent = Agent(name='A')\n")

    refused = millstream("serve", "app.py", cwd=tmp_path, env={"OPENAI_API_KEY": ""})

    assert refused.code == 2
    assert "OPENAI_API_KEY" in refused.err
