"""Only the text of an answer, behind a class of your own: `uvicorn fastapi_executor:app`."""

import os

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from millstream import Agent, Runner
from millstream.testing import ScriptedModel

model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel(["Hello to you."] * 1000)


class AgentExecutor:
    def __init__(self, agent: Agent):
        self.agent = agent

    async def run_stream(self, query: str):
        return Runner.run_streamed(self.agent, query)


app = FastAPI()
agent = Agent(name="Friend", instructions="Be brief.", model=model)


@app.get("/stream")
async def stream():
    executor = AgentExecutor(agent=agent)
    result = await executor.run_stream(query="Hello!")

    async def stream_gen():
        async for event in result.stream_events():
            # Text is in the model's own events, as `data.delta`: no event has a `delta` of its own.
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                yield event.data.delta

    return StreamingResponse(stream_gen(), media_type="text/plain")
