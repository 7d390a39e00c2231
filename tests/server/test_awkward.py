"""Tools that give what no JSON can hold: the run goes on, its stream is whole, and the log names the culprit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, tool
from millstream.log import RunStore, SQLiteLog
from millstream.server import LOCAL, create_app
from millstream.testing import CANARY, ScriptedModel, awkward_values, function_call
from tests.delivery.serving import Frame, ends, parse
from tests.server.kit import serving

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


@pytest.fixture(params=["memory", pytest.param("sqlite", marks=pytest.mark.slow)])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], RunStore]:
    if request.param == "memory":
        log = MemoryLog()
        return lambda: log
    return lambda: SQLiteLog(tmp_path / "runs.db")


async def comes_through(values: dict[str, Any], stores: Callable[[], RunStore]) -> dict[str, str]:
    """Hold a run for each of the values to its promises, live, resumed and replayed; their ids by name."""
    runs: dict[str, str] = {}
    agents = [giving(name, value) for name, value in values.items()]
    async with (
        serving(create_app(agents, access=LOCAL, log=stores())) as one,
        serving(create_app(agents, access=LOCAL, log=stores())) as other,
    ):
        for name in values:
            live = await one.post("/runs", json={"input": "Hi", "agent": name, "stream": True})
            frames = parse(live.content)
            assert ends(frames) == ["run.completed"], name
            assert [int(frame.id) for frame in frames] == list(range(1, len(frames) + 1)), name
            assert has_output(frames), name
            assert CANARY.encode() not in live.content or name in IS_TOLD, name
            runs[name] = run_id = live.headers["x-run-id"]
            for client in (one, other):
                whole = await client.get(f"/runs/{run_id}/events")
                rest = await client.get(f"/runs/{run_id}/events", headers={"last-event-id": "9"})
                assert whole.content == live.content, name
                assert whole.content.endswith(rest.content), name
                assert rest.content.startswith(b"id: 10\n"), name
            assert (await other.get(f"/runs/{run_id}")).json()["status"] == "completed"
    return runs


def has_output(frames: list[Frame]) -> bool:
    """Whether it is told, once, what the tool gave."""
    return [frame.json["event"].get("name") for frame in frames].count("tool_output") == 1


@pytest.mark.hostile
@pytest.mark.timeout(300)
async def test_whatever_a_tool_gives_is_streamed_resumed_and_replayed(
    stores: Callable[[], RunStore], caplog: pytest.LogCaptureFixture
) -> None:
    values = {each.name: each.value for each in awkward_values() if each.name not in HUGE}
    assert len(values) > 40

    runs = await comes_through(values, stores)

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
async def test_what_is_far_too_long_is_streamed_resumed_and_replayed(stores: Callable[[], RunStore]) -> None:
    await comes_through({each.name: each.value for each in awkward_values() if each.name in HUGE}, stores)
