"""The first seed: no run, however its reader goes, breaks a context, a span or a log's peace."""

import asyncio
import gc
import itertools
import logging

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.delivery import seed_000_app
from tests.delivery.serving import Served, nothing_is_left, serving

RUNS = 1_000
AT_A_TIME = 20
CLIENTS = ("reads to the end", "leaves at the first chunk", "leaves at once")


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_a_thousand_streams_left_in_every_way_break_no_context_and_leave_no_trace(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    ways = [("/agent/run", leave) for leave in seed_000_app.LEAVINGS] + [("/agent/sse", "at its end")]
    requests = itertools.islice(itertools.cycle(itertools.product(CLIENTS, ways)), RUNS)
    numbered = iter(list(enumerate(requests)))

    async with serving(seed_000_app.make_app(provider), deadline=150) as server:

        async def client() -> None:
            for number, (behaviour, (path, leave)) in numbered:
                await ask(server, path, seed_000_app.body_of(number, leave), behaviour)
                if number % 100 == 0:
                    gc.collect()

        await asyncio.gather(*[client() for _ in range(AT_A_TIME)])
        await server.has_no_requests()
    await asyncio.wait(seed_000_app.started)
    gc.collect()

    await nothing_is_left()
    assert [f"{r.name}: {r.getMessage()}" for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert len(seed_000_app.started) == RUNS
    assert not [task for task in seed_000_app.started if task.cancelled() or task.exception()]
    check_parents(exporter.get_finished_spans())


async def ask(server: Served, path: str, body: bytes, behaviour: str) -> None:
    connection = await server.get(path, method="POST", body=body)
    assert connection.status == 200
    if behaviour == "reads to the end":
        assert await connection.body()
    elif behaviour == "leaves at the first chunk":
        await connection.chunk()
    connection.cut()


def check_parents(spans: tuple[ReadableSpan, ...]) -> None:
    """Each tool's span hangs below the server span of the very request that started its run."""
    requests = {s.attributes["number"]: s for s in spans if s.attributes and s.kind.name == "SERVER"}
    tools = {s.attributes["number"]: s for s in spans if s.attributes and s.name == "look_up"}

    assert set(requests) == set(tools) == set(range(RUNS))
    for number, span in tools.items():
        assert span.parent == requests[number].context
