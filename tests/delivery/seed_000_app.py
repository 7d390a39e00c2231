"""`examples/fastapi_agent_run.py`, the first seed's program: a stream made in one place, iterated in another.

With FastAPI's OpenTelemetry instrumentation, a tool that opens a span, and readers that leave in
every way a web application knows.
"""

import asyncio
import contextvars
import gc
import itertools
import json
import runpy
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

from fastapi import APIRouter, FastAPI
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import TracerProvider

from millstream import Agent, Runner, RunResultStreaming, to_sse, tool
from millstream.testing import ScriptedModel, function_call

EXAMPLE = Path(__file__).parents[2] / "examples" / "fastapi_agent_run.py"
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


def agent_func_left(leave: "Leaving") -> Callable[..., Awaitable[AsyncIterator[Any]]]:
    async def agent_func(query: str, original_content: str, stream: bool) -> AsyncIterator[Any]:
        return leave(start(int(original_content)).stream_events())

    return agent_func


router = APIRouter()


@router.post("/agent/sse")
async def run_agent_with_to_sse(request: dict[str, Any]) -> Any:
    return to_sse(start(int(request["content"])))


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


Leaving: TypeAlias = Callable[[Any], AsyncIterator[Any]]
LEAVINGS: dict[str, Leaving] = {
    "at its end": at_its_end,
    "by a break": by_a_break,
    "by an exception": by_an_exception,
    "to the collector": to_the_collector,
    "by a cancelled task": by_a_cancelled_task,
    "in another context": in_another_context,
}


def make_app(provider: TracerProvider) -> FastAPI:
    """The example's application, instrumented, with a mode for each way to leave a stream."""
    global tracer
    tracer = provider.get_tracer("tool")
    example = runpy.run_path(str(EXAMPLE))
    example["agent_map"].update({name: agent_func_left(leave) for name, leave in LEAVINGS.items()})
    app = example["app"]
    app.include_router(router)
    FastAPIInstrumentor.instrument_app(app, tracer_provider=provider)
    return app


def body_of(number: int, leave: str) -> bytes:
    return json.dumps({"mode": leave, "query": "Hello!", "content": str(number), "stream": True}).encode()
