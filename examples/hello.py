"""The smallest program: one agent, one answer."""

import asyncio
import os

from millstream import Agent, Runner
from millstream.testing import ScriptedModel

SCRIPT = ["Water wheels turn,\ngrain becomes flour, flour bread:\nthe stream never stops."]
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel(SCRIPT)

agent = Agent(name="Poet", instructions="Answer with a haiku.", model=model)


async def main() -> None:
    result = await Runner.run(agent, "Tell me about mills.")
    print(result.final_output)


asyncio.run(main())
