"""A desk that hands over to a specialist."""

import asyncio
import os

from millstream import Agent, Runner
from millstream.testing import ScriptedModel, function_call

offline = not os.environ.get("OPENAI_API_KEY")

spanish = Agent(
    name="Spanish",
    handoff_description="Speaks Spanish.",
    instructions="Answer in Spanish.",
    model=ScriptedModel(["¡Muy bien, gracias!"]) if offline else None,
)
desk = Agent(
    name="Desk",
    instructions="Hand over to the agent that speaks the user's language.",
    handoffs=[spanish],
    model=ScriptedModel([[function_call("transfer_to_spanish", call_id="c1")]]) if offline else None,
)


async def main() -> None:
    run = Runner.run_streamed(desk, "Hola, ¿qué tal?")
    async for event in run:
        if event.type == "agent_updated_stream_event":
            print(f"[{event.new_agent.name}]")
        elif event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            print(event.data.delta, end="", flush=True)
    print()


asyncio.run(main())
