"""One route for several agents, streamed or whole as the request asks: `uvicorn fastapi_agent_run:app`.

A reader that leaves in another task than the one that started the run harms nothing. To resume,
and to tell a client how a run failed, `to_sse(run)` does what `event_stream` does here.
"""

import os
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from millstream import Agent, Runner  # was: from agents import Agent, Runner
from millstream.testing import ModelStep, ScriptedModel

parrot = ModelStep.respond(lambda call: f"You said: {call.input[-1]['content']}")
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel([parrot] * 1000)

agent = Agent(name="Doc", instructions="Be brief.", model=model)
doc_agent_router = APIRouter()


class AgentRequest(BaseModel):
    mode: str
    query: str
    content: str = ""
    stream: bool = False


class BaseResponse(BaseModel):
    code: int
    data: Any


async def agent_func(query: str, original_content: str, stream: bool):
    input_items = [
        {"role": "developer", "content": f"The document:\n{original_content}"},
        {"role": "user", "content": query},
    ]
    if stream:
        return Runner.run_streamed(
            starting_agent=agent,
            input=input_items,
        ).stream_events()
    return (await Runner.run(agent, input_items)).final_output


agent_map = {"doc": agent_func}


def sse_event(chunk) -> str:
    return f"data: {chunk.to_json().decode()}\n\n"


def sse_done() -> str:
    return "data: [DONE]\n\n"


@doc_agent_router.post("/agent/run")
async def run_agent(request: AgentRequest):
    try:
        agent_func = agent_map.get(request.mode)
        if not agent_func:
            raise ValueError("Invalid mode.")
        agent_kwargs = {
            "query": request.query,
            "original_content": request.content,
            "stream": request.stream,
        }
        result = await agent_func(**agent_kwargs)

        if request.stream:

            async def event_stream() -> AsyncGenerator[str, None]:
                async for chunk in result:
                    yield sse_event(chunk)
                yield sse_done()

            return StreamingResponse(event_stream(), media_type="text/event-stream")
        else:
            return BaseResponse(code=200, data=result)
    except Exception as e:
        raise HTTPException(status_code=500, detail=f"SLevel Internal server error: {e!s}") from e


app = FastAPI()
app.include_router(doc_agent_router)
