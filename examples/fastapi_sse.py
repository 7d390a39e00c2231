"""Runs over HTTP that a browser starts, follows, resumes and stops: `uvicorn fastapi_sse:app`."""

import os

from fastapi import FastAPI, Header, HTTPException

from millstream import Agent, Runner, RunResultStreaming, to_sse
from millstream.testing import ModelStep, ScriptedModel

parrot = ModelStep.respond(lambda call: f"You said: {call.input[-1]['content']}")
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel([parrot] * 1000)

agent = Agent(name="Friend", instructions="Be brief.", model=model)
app = FastAPI()
runs: dict[str, RunResultStreaming] = {}  # a program that runs for long forgets old ones


@app.post("/runs")
async def start(prompt: str):
    run = Runner.run_streamed(agent, prompt)
    runs[run.run_id] = run
    return {"run_id": run.run_id}


@app.get("/runs/{run_id}")
async def follow(run_id: str, last_event_id: str | None = Header(None)):
    return to_sse(known(run_id), after=last_event_id)


@app.delete("/runs/{run_id}")
async def stop(run_id: str):
    known(run_id).cancel()


def known(run_id: str) -> RunResultStreaming:
    if run_id not in runs:
        raise HTTPException(404)
    return runs[run_id]
