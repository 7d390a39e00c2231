"""Behind FastAPI with its OpenTelemetry instrumentation: a run belongs to the request that started it."""

import asyncio
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from millstream import Agent, Runner, to_sse, tool
from millstream.testing import ScriptedModel, function_call
from millstream.tracing import add_trace_processor
from millstream.tracing.otel import OpenTelemetryProcessor
from tests.delivery.serving import serving
from tests.support.traces import Recorder
from tests.tracing.test_otel import Exported

CLIENTS = 6


def make_app(exported: Exported) -> FastAPI:
    app = FastAPI()

    @tool
    async def look_up(number: int) -> str:
        with exported.tracer.start_as_current_span(f"GET {number}"):
            await asyncio.sleep(0)
            return "cold"

    def agent(number: int) -> Agent[Any]:
        model = ScriptedModel([[function_call("look_up", {"number": number})], "Cold."], emit_traces=True)
        return Agent(name=f"Agent {number}", model=model, tools=[look_up])

    @app.get("/plain/{number}")
    async def plain(number: int) -> Any:
        done = await Runner.run(agent(number), "Hello")
        return StreamingResponse(iter([done.final_output]))

    @app.get("/both/{number}")
    async def both(number: int) -> Any:
        done = await asyncio.gather(*(Runner.run(agent(each), "Hello") for each in (number, number)))
        return StreamingResponse(iter([each.final_output for each in done]))

    @app.get("/streamed/{number}")
    async def streamed(number: int) -> Any:
        return to_sse(Runner.run_streamed(agent(number), "Hello"))

    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=exported.provider, exclude_spans=["send", "receive"]
    )
    return app


def tree_of(number: int) -> list[str]:
    return [
        "  invoke_workflow Agent workflow",
        f"    invoke_agent Agent {number}",
        "      chat ScriptedModel",
        "      execute_tool look_up",
        f"        GET {number}",
        "      chat ScriptedModel",
    ]


async def test_runs_of_many_clients_stand_below_the_requests_that_started_them(recorder: Recorder) -> None:
    exported = Exported()
    add_trace_processor(OpenTelemetryProcessor(exported.provider))

    async with serving(make_app(exported)) as server:

        async def ask(path: str) -> bytes:
            return await (await server.get(path)).body()

        paths = [f"/{kind}/{n}" for n in range(CLIENTS) for kind in ("plain", "both", "streamed")]
        answers = await asyncio.gather(*map(ask, paths))
        await server.has_no_requests()

    assert all(b"Cold." in answer for answer in answers)
    assert recorder.open == set()
    requests = below_requests(exported.tree())
    assert sorted(requests) == sorted(
        [("GET /plain/{number}", tree_of(n)) for n in range(CLIENTS)]
        + [("GET /both/{number}", tree_of(n) * 2) for n in range(CLIENTS)]
        + [("GET /streamed/{number}", tree_of(n)) for n in range(CLIENTS)]
    )


def below_requests(tree: list[str]) -> list[tuple[str, list[str]]]:
    """Each request's span, with what stands below it."""
    found: list[tuple[str, list[str]]] = []
    for line in tree:
        if not line.startswith(" "):
            found.append((line, []))
        else:
            found[-1][1].append(line)
    return found
