"""The commands for runs, asked of a server: the program in this process, the server on a thread."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Iterator

import openai.types.responses  # noqa: F401  # reads files when first imported, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, Runner, tool
from millstream.cli import exits, program
from millstream.server import create_app
from millstream.testing import ScriptedModel, check_stream, function_call
from tests.cli.on_thread import TOKEN, OnThread, by_token
from tests.server.kit import serving


class Served(OnThread):
    """A server with a run of each kind."""

    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog()
        self.url = ""
        self.ids: dict[str, str] = {}
        self.deleted: list[str] = []

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        @tool
        async def wait() -> None:
            await asyncio.Event().wait()

        @tool(needs_approval=True)
        async def delete(name: str) -> str:
            self.deleted.append(name)
            return f"deleted {name}"

        calls = [function_call("delete", {"name": name}, call_id=f"call_{name}") for name in "ab"]
        agents = [
            Agent(name="Poet", model=ScriptedModel(["Streams run."])),
            Agent(name="Waiter", model=ScriptedModel([[function_call("wait", {})]] * 2), tools=[wait]),
            Agent(name="Clerk", model=ScriptedModel([calls, "Done."]), tools=[delete]),
        ]
        async with serving(create_app(agents, access=by_token, log=self.log, drain=0)) as direct:
            direct.headers["authorization"] = f"Bearer {TOKEN}"
            for agent in agents:
                asked = await direct.post("/runs", json={"input": "Go.", "agent": agent.name})
                self.ids[agent.name] = asked.json()["run_id"]
            for name, last in (
                ("Poet", "run.completed"),
                ("Waiter", "tool.started"),
                ("Clerk", "run.paused"),
            ):
                async for entry in Runner.attach(self.ids[name], log=self.log).entries():
                    if entry.type == last:
                        break
            self.url = str(direct.base_url)
            yield


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    with Served() as server:
        monkeypatch.setenv("MILLSTREAM_URL", server.url)
        monkeypatch.setenv("MILLSTREAM_TOKEN", TOKEN)
        yield server


class Told:
    """What the program says, when it is run here."""

    def __init__(self, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
        self._capture = capfdbinary

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        code = program.run(arguments)
        out, err = self._capture.readouterr()
        return code, out.decode(), err.decode()


@pytest.fixture
def millstream(capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Told]:
    logger = logging.getLogger("millstream")
    level = logger.level
    yield Told(capfdbinary)
    logger.setLevel(level)  # a program may have its own


def test_the_runs_of_a_server_are_listed(served: Served, millstream: Told) -> None:
    code, out, err = millstream("runs", "--json")
    _, paused, _ = millstream("runs", "--status", "paused", "--url", served.url, "--token", TOKEN)

    listed = {each["agent"]: each for each in map(json.loads, out.splitlines())}
    assert (code, err) == (exits.OK, "")
    assert {name: each["run_id"] for name, each in listed.items()} == served.ids
    assert listed["Waiter"]["is_owned"]
    assert served.ids["Clerk"] in paused
    assert "Poet" not in paused


def test_a_run_of_a_server_is_shown_by_the_beginning_of_its_id(served: Served, millstream: Told) -> None:
    run_id = served.ids["Poet"]

    code, out, err = millstream("tail", run_id.removeprefix("run_")[:12], "--json")
    rest = millstream("tail", run_id, "--json", "--from", "5")[1]
    text = millstream("tail", run_id, "-q")[1]

    assert (code, err) == (exits.OK, "")
    assert check_stream(out.encode()).ok
    assert rest.splitlines() == out.splitlines()[4:]
    assert text == "Streams run.\n"


def test_a_run_of_a_server_is_given_input_and_stopped(served: Served, millstream: Told) -> None:
    run_id = served.ids["Waiter"]

    sent = millstream("send", run_id, "And", "now?")
    stopped = millstream("cancel", run_id)
    code, out, err = millstream("tail", run_id, "--json")
    again = millstream("cancel", run_id)
    late = millstream("send", run_id, "Too late.")

    assert sent == (exits.OK, f"Sent to {run_id}. It reads that at once.\n", "")
    assert stopped[0] == exits.OK
    assert stopped[1].startswith(f"{run_id} is ")
    assert (code, "the run was cancelled" in err) == (exits.FAILED, True)
    assert '"type":"run.cancelled"' in out
    assert again[1] == f"{run_id} is cancelled already: there is nothing to stop.\n"
    assert late[0] == exits.FAILED
    assert "is cancelled: it takes no more input" in late[2]


def test_the_calls_of_a_paused_run_are_decided_over_by_way_of_its_server(
    served: Served, millstream: Told
) -> None:
    run_id = served.ids["Clerk"]

    listed = millstream("approve", run_id, "--list", "--json")[1]
    unclear = millstream("approve", run_id)
    first = millstream("reject", run_id, "2", "--message", "Keep it.")
    left = millstream("approve", run_id, "--list", "--json")[1]
    other = millstream("approve", run_id, "call_b")
    last = millstream("approve", run_id, "--arguments", '{"name": "x"}')
    seen = millstream("tail", run_id, "--json")[1]
    late = millstream("approve", run_id)

    assert [json.loads(line)["call_id"] for line in listed.splitlines()] == ["call_a", "call_b"]
    assert unclear[0] == exits.USAGE
    assert first[0] == exits.OK
    assert "1 more waits" in first[2]
    assert [json.loads(line)["number"] for line in left.splitlines()] == [1]
    assert other[0] == exits.FAILED
    assert (last[0], last[2]) == (
        exits.OK,
        "millstream: nothing else waits: the server goes on with the run.\n",
    )
    assert "Keep it." in seen
    assert served.deleted == ["x"]
    assert late[0] == exits.FAILED
    assert "does not wait for approval: it is completed" in late[2]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["runs", "--token", "wrong"], exits.FAILED, "MILLSTREAM_TOKEN, lets you in"),
        (["runs", "--url", "nonsense"], exits.USAGE, "http://host:port"),
        (["runs", "--caller", "ann"], exits.USAGE, "a server lists the runs of whoever asks"),
        (["runs", "--url", "http://127.0.0.1:1"], exits.FAILED, "is the server running"),
        (["runs", "--url", "http://h", "--store", "memory:"], exits.USAGE, "name two places"),
        (["tail", "run_zzz"], exits.FAILED, "there is no run 'run_zzz'"),
        (["tail", "../runs"], exits.USAGE, "is not the id of a run"),
        (["tail", "run_"], exits.USAGE, "3 runs begin with 'run_'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_wrong_is_told(
    served: Served, millstream: Told, arguments: list[str], code: int, said: str
) -> None:
    done = millstream(*arguments)

    assert (done[0], done[1]) == (code, "")
    assert said in done[2]


def test_two_places_in_the_environment_are_one_too_many(
    monkeypatch: pytest.MonkeyPatch, millstream: Told
) -> None:
    monkeypatch.setenv("MILLSTREAM_URL", "http://127.0.0.1:7420")
    monkeypatch.setenv("MILLSTREAM_STORE", "sqlite:///runs.db")

    code, _, err = millstream("runs")

    assert code == exits.USAGE
    assert "say --url or --store" in err
