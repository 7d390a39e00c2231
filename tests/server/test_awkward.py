"""Tools that give what no JSON can hold: the run goes on, its stream is whole, and the log names the culprit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, tool
from millstream.log import RunStore, SQLiteLog
from millstream.server import LOCAL, create_app
from millstream.testing import CANARY, ScriptedModel, awkward_values, function_call
from tests.delivery.serving import TERMINAL, parse
from tests.server.kit import serving
from tests.server.talk import talking

HUGE = {"huge text", "huge bytes"}
"""Twenty million characters: the ones that take seconds."""


HAVE_JSON = {
    *["array", "chain map", "dates", "decimal nan", "defaultdict", "deque", "frozenset of tuples"],
    *["int of 65 bits", "int whose text raises", "line breaks of all kinds", "mapping proxy"],
    *["numpy-like scalar", "ordered dict", "set", "str subclass that lies", "surrogates that are a pair"],
}
"""What looks hard and loses nothing; all others have a field that is none, which the log names."""
IS_TOLD = {"exception"}
"""What says a secret itself where it is given as a value: as with any other, its text is the output."""


def giving(name: str, value: Any) -> Agent[Any]:
    """An agent of that name, whose tool gives that value."""

    @tool
    async def give() -> Any:
        return value

    return Agent(
        name=name, model=ScriptedModel([[function_call("give", call_id="c1")], "Done."]), tools=[give]
    )


class OverSse:
    """Runs over HTTP, in frames that are held to the letter of the specification."""

    async def begin(self, client: httpx2.AsyncClient, agent: str) -> list[bytes]:
        """The messages of a new run, live."""
        answer = await client.post("/runs", json={"input": "Hi", "agent": agent, "stream": True})
        return self._messages(answer)

    async def follow(self, client: httpx2.AsyncClient, run_id: str, after: int = 0) -> list[bytes]:
        """The messages of a run behind a position."""
        headers = {"last-event-id": str(after)} if after else {}
        return self._messages(await client.get(f"/runs/{run_id}/events", headers=headers))

    def _messages(self, answer: httpx2.Response) -> list[bytes]:
        frames = parse(answer.content)
        assert all(int(frame.id) == frame.json["position"] for frame in frames)
        return [frame.data.encode() for frame in frames]


class OverWebSocket:
    """Runs over a WebSocket."""

    async def begin(self, client: httpx2.AsyncClient, agent: str) -> list[bytes]:
        """The messages of a new run, live."""
        async with talking(client) as talk:
            await talk.say("start", input="Hi", agent=agent)
            return await talk.stream()

    async def follow(self, client: httpx2.AsyncClient, run_id: str, after: int = 0) -> list[bytes]:
        """The messages of a run behind a position."""
        async with talking(client) as talk:
            await talk.say("follow", run_id=run_id, after=after)
            return await talk.stream()


Transport: TypeAlias = OverSse | OverWebSocket
Way: TypeAlias = tuple[Callable[[], RunStore], Transport]
"""Opens the one store of a test anew, as another process would; and how its runs are told."""

SLOW = pytest.mark.slow


@pytest.fixture(
    params=[("memory", OverSse), ("memory", OverWebSocket), pytest.param(("sqlite", OverSse), marks=SLOW)],
    ids=["memory-sse", "memory-websocket", "sqlite-sse"],
)
def way(request: pytest.FixtureRequest, tmp_path: Path) -> Way:
    store, transport = request.param
    if store == "memory":
        log = MemoryLog()
        return lambda: log, transport()
    return lambda: SQLiteLog(tmp_path / "runs.db"), transport()


async def comes_through(values: dict[str, Any], way: Way, *, at_once: int) -> dict[str, str]:
    """Hold a run for each of the values to its promises, live, resumed and replayed; their ids by name."""
    runs: dict[str, str] = {}
    left = list(values)
    while left:  # with servers of their own for so many, so that a slow machine has time for each
        some, left = left[:at_once], left[at_once:]
        runs |= await _come_through({name: values[name] for name in some}, way)
    return runs


async def _come_through(values: dict[str, Any], way: Way) -> dict[str, str]:
    stores, transport = way
    runs: dict[str, str] = {}
    agents = [giving(name, value) for name, value in values.items()]
    async with (
        serving(create_app(agents, access=LOCAL, log=stores())) as one,
        serving(create_app(agents, access=LOCAL, log=stores())) as other,
    ):
        for name in values:
            live = await transport.begin(one, name)
            entries = [json.loads(each.decode(), parse_constant=pytest.fail) for each in live]
            assert [each["position"] for each in entries] == list(range(1, len(live) + 1)), name
            kinds = [each["event"]["type"] for each in entries]
            assert [kind for kind in kinds if kind in TERMINAL] == kinds[-1:] == ["run.completed"], name
            assert has_output(entries), name
            assert CANARY.encode() not in b"".join(live) or name in IS_TOLD, name
            runs[name] = run_id = entries[0]["run_id"]
            for client in (one, other):
                assert await transport.follow(client, run_id) == live, name
                assert await transport.follow(client, run_id, 9) == live[9:], name
            assert (await other.get(f"/runs/{run_id}")).json()["status"] == "completed"
    return runs


def has_output(entries: list[Any]) -> bool:
    """Whether it is told, once, what the tool gave."""
    return [entry["event"].get("name") for entry in entries].count("tool_output") == 1


@pytest.mark.hostile
@pytest.mark.timeout(300)
async def test_whatever_a_tool_gives_is_streamed_resumed_and_replayed(
    way: Way, caplog: pytest.LogCaptureFixture
) -> None:
    values = {each.name: each.value for each in awkward_values() if each.name not in HUGE}
    assert len(values) > 40

    runs = await comes_through(values, way, at_once=10)

    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    unnamed = {
        name
        for name, run_id in runs.items()
        if not any(f"run {run_id}: no JSON for field(s)" in line and "output" in line for line in said)
    }
    assert unnamed == HAVE_JSON
    assert CANARY not in caplog.text


@pytest.mark.slow
@pytest.mark.hostile
@pytest.mark.timeout(300)
async def test_what_is_far_too_long_is_streamed_resumed_and_replayed(way: Way) -> None:
    values = {each.name: each.value for each in awkward_values() if each.name in HUGE}

    await comes_through(values, way, at_once=1)
