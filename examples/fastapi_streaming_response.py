"""A stream in a format of your own, by FastAPI's own means: `uvicorn fastapi_streaming_response:app`."""

import json
import os

from fastapi import FastAPI
from fastapi.responses import StreamingResponse

from millstream import Agent, RawResponsesStreamEvent, Runner
from millstream.testing import ModelStep, ScriptedModel

parrot = ModelStep.respond(lambda call: f"You said: {call.input[-1]['content']}")
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel([parrot] * 1000)

agent = Agent(name="Friend", instructions="Be brief.", model=model)
app = FastAPI()


def serialize_event(event) -> str:
    if isinstance(event, RawResponsesStreamEvent):
        return json.dumps({"type": event.data.type, "delta": getattr(event.data, "delta", None)})
    return event.to_json().decode()


@app.get("/stream")
async def stream_endpoint(query: str):
    """Stream via SSE."""

    async def event_generator():
        async for event in Runner.run_streamed(agent, query):
            yield f"data: {serialize_event(event)}\n\n"

    return StreamingResponse(
        event_generator(),
        media_type="text/event-stream",
    )
