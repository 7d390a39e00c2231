"""The application of the first seed, as its author wrote it: an agent's stream, made in one place, iterated in another.

With FastAPI's OpenTelemetry instrumentation, a tool that opens a span, and readers that leave in
every way a web application knows.
"""

import asyncio
import contextvars
import gc
import itertools
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from fastapi import APIRouter, FastAPI, HTTPException
from fastapi.responses import StreamingResponse
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from pydantic import BaseModel

from millstream import Agent, Runner, RunResultStreaming, to_sse, tool
from millstream.testing import ScriptedModel, function_call

doc_agent_router = APIRouter()
tracer = trace.ProxyTracerProvider().get_tracer("tool")
started: list[asyncio.Task[None]] = []
"""The tasks of all runs."""


@tool
async def look_up(number: int) -> str:
    with tracer.start_as_current_span("look_up", attributes={"number": number}):
        await asyncio.sleep(0)
        return f"document {number}"


def make_agent(number: int) -> Agent[Any]:
    model = ScriptedModel([[function_call("look_up", {"number": number})], "The document says so."])
    return Agent(name="Doc", model=model, tools=[look_up])


def start(number: int) -> RunResultStreaming:
    trace.get_current_span().set_attribute("number", number)
    run = Runner.run_streamed(starting_agent=make_agent(number), input="Hello!")
    assert run.run_loop_task
    started.append(run.run_loop_task)
    return run


async def agent_func(query: str, original_content: int, stream: bool) -> Any:
    if stream:
        return start(original_content).stream_events()
    return (await Runner.run(make_agent(original_content), query)).final_output


agent_map: dict[str, Callable[..., Any]] = {"doc": agent_func}


class AgentRequest(BaseModel):
    mode: str
    query: str
    content: int
    stream: bool
    leave: str = "at its end"


def sse_event(chunk: Any) -> str:
    return f"data: {chunk.to_json().decode()}\n\n"


def sse_done() -> str:
    return "data: [DONE]\n\n"


@doc_agent_router.post("/agent/run")
async def run_agent(request: AgentRequest) -> Any:
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
                async for chunk in LEAVINGS[request.leave](result):
                    yield sse_event(chunk)
                yield sse_done()

            return StreamingResponse(event_stream(), media_type="text/event-stream")
        return {"code": 200, "data": result}
    except Exception as e:
        raise HTTPException(status_code=500, detail=f"SLevel Internal server error: {e!s}") from e


@doc_agent_router.post("/agent/sse")
async def run_agent_with_to_sse(request: AgentRequest) -> Any:
    return to_sse(start(request.content))


# --- ways to leave a stream, which the original's users took -----------------------------------


async def at_its_end(result: Any) -> AsyncIterator[Any]:
    async for chunk in result:
        yield chunk


async def by_a_break(result: Any) -> AsyncIterator[Any]:
    async for count, chunk in counted(result):
        if count == 3:
            break
        yield chunk


async def by_an_exception(result: Any) -> AsyncIterator[Any]:
    try:
        async for count, chunk in counted(result):
            if count == 3:
                raise LookupError
            yield chunk
    except LookupError:
        return


async def to_the_collector(result: Any) -> AsyncIterator[Any]:
    yield await anext(result)
    del result
    gc.collect(0)


async def by_a_cancelled_task(result: Any) -> AsyncIterator[Any]:
    yield await anext(result)

    async def read() -> None:
        async for _ in result:
            await asyncio.sleep(0)

    task = asyncio.create_task(read())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])


async def in_another_context(result: Any) -> AsyncIterator[Any]:
    """Each step is taken in a task and a context of its own, and the stream closed in one more."""
    for _ in range(4):
        context = contextvars.Context()
        yield await asyncio.create_task(anext(result), context=context)
    await asyncio.create_task(result.aclose(), context=contextvars.Context())


async def counted(result: Any) -> AsyncIterator[tuple[int, Any]]:
    counter = itertools.count()
    async for chunk in result:
        yield next(counter), chunk


LEAVINGS: dict[str, Callable[[Any], AsyncIterator[Any]]] = {
    "at its end": at_its_end,
    "by a break": by_a_break,
    "by an exception": by_an_exception,
    "to the collector": to_the_collector,
    "by a cancelled task": by_a_cancelled_task,
    "in another context": in_another_context,
}


def make_app(provider: TracerProvider) -> FastAPI:
    """The application, instrumented."""
    global tracer
    tracer = provider.get_tracer("tool")
    app = FastAPI()
    app.include_router(doc_agent_router)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    return app


def body_of(number: int, leave: str) -> bytes:
    return json.dumps(
        {"mode": "doc", "query": "Hello!", "content": number, "stream": True, "leave": leave}
    ).encode()
