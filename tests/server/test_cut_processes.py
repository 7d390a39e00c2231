"""Clients that are cut off anywhere, and whose server is then killed, have the very stream of one that never was."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.cli.test_serve import Served
from tests.cli.test_serve import serving as serving_process
from tests.server.cuts import TRANSPORTS, cut_places
from tests.server.kit import PATIENCE
from tests.server.sockets import CutLine
from tests.support.redis_server import redis_server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

APP = """
import asyncio
from pathlib import Path

from millstream import Agent, tool
from millstream.testing import ScriptedModel, function_call

CALLS = [function_call("look_up", {"city": "Zürich\\n\\ndata: x"})], [function_call("wait", {})]


@tool
async def look_up(city: str) -> dict:
    return {"text": "a\\r\\nb\\u2028c\\x85\\0: id: 5\\n\\n", "city": city, "bytes": b"\\xff"}


@tool
async def wait() -> str:
    while not Path("go").exists():
        await asyncio.sleep(0.02)
    return "waited"


steps = ["Grüße aus 東京 \\n\\nid: 1 🏁"] if Path("go").exists() else [*CALLS, "Never."]
agent = Agent(name="A", tools=[look_up, wait], model=ScriptedModel(steps))
"""


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.requires_program("redis-server"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'runs.db'}"
    else:
        with redis_server() as url:
            yield url


@contextlib.asynccontextmanager
async def serving(folder: Path, store: str) -> AsyncIterator[tuple[Served, httpx2.AsyncClient]]:
    """A server in a process of its own, killed behind the block."""
    with contextlib.ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, serving_process(folder, "--store", store))
        url = f"http://127.0.0.1:{server.port}"
        async with httpx2.AsyncClient(base_url=url, timeout=PATIENCE, verify=False) as client:
            yield server, client
        await asyncio.to_thread(stack.close)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_clients_that_are_cut_at_any_byte_go_on_at_the_next_server_when_theirs_was_killed(
    tmp_path: Path, store: str, transport: str
) -> None:
    by: Any = TRANSPORTS[transport]
    (tmp_path / "app.py").write_text(APP)
    async with serving(tmp_path, store) as (server, client):
        run_id = (await client.post("/runs", json={"input": "Hi\n\nid: 9"})).json()["run_id"]
        told = await by.until_cut(client, run_id, enough=until_it_waits)
        line = CutLine(server.port)
        seen = list[list[bytes]]()
        async with (
            line.open() as url,
            httpx2.AsyncClient(base_url=url, timeout=PATIENCE, verify=False) as through,
        ):
            for line.lets_through in cut_places(told, seed=9):
                seen.append(await by.until_cut(through, run_id))
        server.process.kill()

    (tmp_path / "go").touch()
    async with serving(tmp_path, store) as (_, client):
        whole = await by.rest(client, run_id)
        for before in seen:
            assert before + await by.rest(client, run_id, len(before)) == whole, len(before)

    assert told == whole[: len(told)]
    assert len({len(before) for before in seen}) > 10
    assert b'"run.attempt"' in whole[len(told)]
    assert b'"run.completed"' in whole[-1]


def until_it_waits(seen: list[bytes]) -> bool:
    return sum(b'"type":"tool.started"' in entry for entry in seen) == 2
