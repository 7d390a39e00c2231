"""A run that takes too long is stopped; what was said is kept."""

import asyncio
import os

from millstream import Agent, Runner
from millstream.testing import ScriptedModel

offline = ScriptedModel(["a very long story " * 100], tokens_per_second=20)
model = None if os.environ.get("OPENAI_API_KEY") else offline

agent = Agent(name="Teller", instructions="Tell a long story.", model=model)


async def main() -> None:
    try:
        # `async with` stops the run on the way out; a timeout around `async for` alone would not.
        async with asyncio.timeout(1), Runner.run_streamed(agent, "Begin!") as run:
            async for piece in run.text():
                print(piece, end="", flush=True)
    except TimeoutError:
        print(f"\n-- stopped: {run.is_cancelled}, items kept: {len(run.new_items)}")


asyncio.run(main())
