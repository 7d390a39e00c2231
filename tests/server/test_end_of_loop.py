"""A server that is told of no stop: its program ends, and asyncio cancels all that is going."""

import asyncio
from pathlib import Path

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for

from millstream import Agent, SQLiteLog, tool
from millstream.server import LOCAL, create_app
from millstream.testing import ScriptedModel, function_call


def test_a_program_that_ends_without_stopping_its_server_hands_its_runs_back(tmp_path: Path) -> None:
    store = tmp_path / "runs.db"

    async def program() -> str:
        begun = asyncio.Event()

        @tool
        async def wait() -> None:
            begun.set()
            await asyncio.Event().wait()

        agent = Agent(name="A", tools=[wait], model=ScriptedModel([["Let me see.", function_call("wait")]]))
        app = create_app(agent, access=LOCAL, log=SQLiteLog(store))
        transport = httpx2.ASGITransport(app)  # says nothing of a lifespan
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            run_id: str = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
            await begun.wait()
        return run_id

    async def status_of(run_id: str) -> tuple[str, bool]:
        log = SQLiteLog(store)
        record = await log.record(run_id)
        await log.aclose()
        return record.status, record.is_owned

    run_id = asyncio.run(program())

    assert asyncio.run(status_of(run_id)) == ("running", False)
