"""The server as a part of somebody's application: under a prefix, with its lifespan and without."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette

from millstream import Agent, MemoryLog, Runner, tool
from millstream.server import LOCAL, create_app
from millstream.testing import ScriptedModel, function_call
from tests.server.kit import serving

OUTER: Any = pytest.mark.parametrize("outer", [FastAPI, Starlette])


def mounted(outer: Any, inner: Any) -> Any:
    """An application with `inner` under a prefix, as the page shows it."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        async with inner.router.lifespan_context(inner):
            yield

    app = outer(lifespan=lifespan)
    app.mount("/agents/v1", inner)
    return app


@OUTER
async def test_it_goes_on_with_what_was_left_behind_before_anybody_asks_it_anything(outer: Any) -> None:
    log, agent = MemoryLog(), Agent(name="A", model=ScriptedModel(["Done."]))
    run_id = (await Runner.submit(log, agent, "Go")).run_id
    async with serving(mounted(outer, create_app(agent, access=LOCAL, log=log))):
        async for _ in log.follow(run_id):  # to its end
            pass

    assert (await log.record(run_id)).status == "completed"


@OUTER
async def test_it_hands_its_runs_back_when_the_application_ends(outer: Any) -> None:
    begun = asyncio.Event()

    @tool
    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    log = MemoryLog()
    agent = Agent(name="A", model=ScriptedModel([[function_call("wait")]]), tools=[wait])
    async with serving(mounted(outer, create_app(agent, access=LOCAL, log=log, drain=0))) as client:
        started = await client.post("/agents/v1/runs", json={"input": "Hi"})
        await begun.wait()

    run_id = started.json()["run_id"]
    record = await log.record(run_id)
    assert started.headers["location"] == f"/agents/v1/runs/{run_id}"
    assert (record.status, record.is_owned) == ("running", False)
    assert await log.orphans() == [run_id]
