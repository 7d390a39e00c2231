"""Two tools that run side by side, watched while they do."""

import asyncio
import os

from millstream import Agent, Runner, tool
from millstream.testing import ScriptedModel, function_call

CALLS = [function_call("weather", {"city": city}, call_id=city) for city in ("Oslo", "Lisbon")]
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel([CALLS, "Go to Lisbon."])


@tool
async def weather(city: str) -> str:
    """Tell the weather in a city."""
    await asyncio.sleep(0.2)
    return {"Oslo": "snow, -4 °C", "Lisbon": "sun, 21 °C"}.get(city, "unknown")


agent = Agent(name="Guide", instructions="Compare the weather, then advise.", tools=[weather], model=model)


async def main() -> None:
    run = Runner.run_streamed(agent, "Oslo or Lisbon today?")
    async for event in run.stream_events(early=True):
        if event.type != "run_item_stream_event":
            continue
        if event.name == "tool_called":
            print(f"call   {event.item.tool_name} {event.item.raw_item.arguments}")
        elif event.name == "tool_output":
            print(f"output {event.item.output}")
    print(run.final_output)


asyncio.run(main())
