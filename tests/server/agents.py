"""The agents that tests of the server serve, where they are like others."""

import asyncio
from typing import Any

from starlette.applications import Starlette

from millstream import Agent, MemoryLog, RunConfig, tool
from millstream.server import OPEN, create_app
from millstream.testing import ManualClock, ScriptedModel, function_call


def agent(*steps: Any, **options: Any) -> Agent[Any]:
    """One that answers by a script, or with a greeting."""
    return Agent(name="A", model=ScriptedModel(steps or ["Hello there."]), **options)


def asking() -> Agent[Any]:
    """One whose runs wait for a decision."""

    @tool(needs_approval=True)
    async def delete(name: str) -> str:
        return f"deleted {name}"

    return agent([function_call("delete", {"name": "x"}, call_id="c1")], "Done.", tools=[delete])


def flooding(clock: ManualClock) -> Starlette:
    """A server whose run gives more at once than a line holds. Who takes nothing for 7 seconds by `clock` is let go."""
    model = ScriptedModel(["x" * 10_000_000], chunk_size=1_000_000)
    return create_app(
        Agent(name="A", model=model),
        access=OPEN,
        log=MemoryLog(),
        run_config=RunConfig(clock=clock),
        send_timeout=7,
        heartbeat=1000,
    )


class Held:
    """An agent whose run stands still in a tool until it is let go, or stopped."""

    def __init__(self, name: str = "A") -> None:
        self.begun, self.go_on, self.stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

        @tool
        async def hold() -> str:
            self.begun.set()
            try:
                await self.go_on.wait()
            except asyncio.CancelledError:
                self.stopped.set()
                raise
            return "held"

        model = ScriptedModel([[function_call("hold")], "Done."])
        self.agent = Agent(name=name, model=model, tools=[hold])
