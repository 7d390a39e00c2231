"""A chat over a WebSocket, in two ways: `uvicorn fastapi_websocket:app`."""

import json
import os

from fastapi import FastAPI, WebSocket

from millstream import Agent, Runner, to_websocket
from millstream.testing import ModelStep, ScriptedModel

parrot = ModelStep.respond(lambda call: f"You said: {call.input[-1]['content']}")
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel([parrot] * 1000)

agent = Agent(name="Friend", instructions="Be brief.", model=model)
app = FastAPI()


@app.websocket("/chat")
async def chat(websocket: WebSocket):
    """Everything of one run; the client may stop it."""
    await websocket.accept()
    prompt = await websocket.receive_text()
    await to_websocket(Runner.run_streamed(agent, prompt), websocket)


async def stream_to_websocket(websocket, agent, input):
    """Messages in a format of your own."""
    async for event in Runner.run_streamed(agent, input):
        await websocket.send_json({"type": event.type, "data": json.loads(event.to_json())})


@app.websocket("/own")
async def own(websocket: WebSocket):
    await websocket.accept()
    async for prompt in websocket.iter_text():
        await stream_to_websocket(websocket, agent, prompt)
        await websocket.send_json({"type": "end"})
