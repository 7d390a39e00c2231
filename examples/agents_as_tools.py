"""An agent that asks another one, which has a tool that says how far it is; all of it in one log."""

import asyncio
import os
from typing import Any

from millstream import Agent, Runner, ToolContext, tool
from millstream.testing import ScriptedModel, function_call

SEARCH = function_call("search", {"words": "mills"}, call_id="inner")
ASK = function_call("ask_librarian", {"input": "What is there about mills?"}, call_id="outer")


def model(*steps: Any) -> ScriptedModel | None:
    return None if os.environ.get("OPENAI_API_KEY") else ScriptedModel(list(steps))


@tool
async def search(ctx: ToolContext, words: str) -> str:
    """Search the library."""
    for shelf in range(1, 4):
        await asyncio.sleep(0.1)
        ctx.progress({"shelf": shelf, "of": 3})
    return "'Mills and Streams', shelf 2"


librarian = Agent(name="Librarian", tools=[search], model=model([SEARCH], "'Mills and Streams', shelf 2."))
ask = librarian.as_tool("ask_librarian", "Ask about books.")
reader = Agent(name="Reader", tools=[ask], model=model([ASK], "I'll read 'Mills and Streams'."))


async def main() -> None:
    run = Runner.run_streamed(reader, "Find me something to read.")
    async for entry in run.entries(types=["run.started", "tool.progress", "run.completed"]):
        said = getattr(entry.event, "data", "") or getattr(entry.event, "output", "")
        print("  " * entry.depth + f"{entry.agent}: {entry.type} {said}")


asyncio.run(main())
