"""A rich run, stopped at each of its awaits: it ends once and whole, and leaves nothing behind."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import pytest
from openai import AsyncOpenAI

from millstream import (
    Agent,
    AgentHooks,
    GuardrailFunctionOutput,
    MemoryLog,
    Model,
    OpenAIResponsesModel,
    RunConfig,
    RunHooks,
    Runner,
    RunResultStreaming,
    SQLiteSession,
    ToolContext,
    input_guardrail,
    output_guardrail,
    tool,
)
from millstream.mcp import MCPServer
from millstream.testing import ModelServer, ReceivedRequest, ScriptedModel, check_stream, function_call
from millstream.tracing import TracingProcessor, set_trace_processors
from tests.mcp.kit import by_hand
from tests.support.awaits import Awaits, counted_awaits

DEADLINE = 50
Stop: TypeAlias = Callable[[Any], None]
pytestmark = [pytest.mark.slow, pytest.mark.hostile, pytest.mark.timeout(300)]


class Spans(TracingProcessor):
    """Counts what was opened and not closed."""

    def __init__(self) -> None:
        self.open: set[str] = set()

    def on_trace_start(self, trace: Any) -> None:
        self.open.add(trace.trace_id)

    def on_trace_end(self, trace: Any) -> None:
        self.open.remove(trace.trace_id)

    def on_span_start(self, span: Any) -> None:
        self.open.add(span.span_id)

    def on_span_end(self, span: Any) -> None:
        self.open.remove(span.span_id)

    def shutdown(self) -> None: ...
    def force_flush(self) -> None: ...


class Hooks(RunHooks[Any]):
    """Awaits in every callback."""

    async def on_llm_start(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)

    async def on_tool_end(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)

    async def on_handoff(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)


class OwnHooks(AgentHooks[Any]):
    """Awaits where the agent begins and ends."""

    async def on_start(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)

    async def on_end(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)


@tool
async def weather(ctx: ToolContext, city: str) -> str:
    """The weather."""
    await asyncio.sleep(0)
    ctx.progress({"city": city})
    return "Cold."


@tool
async def pieces() -> AsyncIterator[str]:
    """Says its result in pieces."""
    for piece in ("one", "two"):
        await asyncio.sleep(0)
        yield piece


@tool
def in_a_thread() -> str:
    """Blocks, but not the loop."""
    return "done"


@input_guardrail
async def polite(*_: Any) -> GuardrailFunctionOutput:
    """Judges beside the first turn."""
    await asyncio.sleep(0)
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


@output_guardrail(hold="verdict")
async def true(*_: Any) -> GuardrailFunctionOutput:
    """Nothing of the answer is seen before this has judged."""
    await asyncio.sleep(0)
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


CALLS = [
    function_call("weather", '{"city":"Bergen"}', call_id="c1"),
    function_call("pieces", call_id="c2"),
    function_call("in_a_thread", call_id="c3"),
    function_call("ask_expert", '{"input":"Is it cold?"}', call_id="c4"),
    function_call("echo", '{"text":"from afar"}', call_id="c5"),
]
SCRIPTS: dict[str, list[Any]] = {
    "Desk": [["Let me see. ", *CALLS], [function_call("transfer_to_writer", call_id="c6")]],
    "Expert": [["Wait. ", function_call("weather", '{"city":"Oslo"}', call_id="n1")], "Cold."],
    "Writer": ["It is cold."],
}
Models: TypeAlias = Callable[[str], Model]


def scripted(agent: str) -> Model:
    """A model that answers in this process."""
    return ScriptedModel(SCRIPTS[agent])


def said(request: ReceivedRequest) -> Any:
    """The answer of a server: which agent asks is told by its instructions, its turn by what was answered already."""
    asked = request.json
    answers = [item for item in asked["input"] if item.get("type") == "function_call_output"]
    script = SCRIPTS[asked["instructions"]]
    return script[-1 if answers else 0]


@dataclass
class Scene:
    """All that takes part in one run."""

    server: MCPServer
    models: Models
    session: SQLiteSession = field(default_factory=lambda: SQLiteSession("s"))
    log: MemoryLog = field(default_factory=MemoryLog)

    def agent(self) -> Agent[Any]:
        expert = Agent(
            "Expert", "Expert", instructions="Expert", model=self.models("Expert"), tools=[weather]
        )
        writer = Agent(
            "Writer",
            instructions="Writer",
            model=self.models("Writer"),
            output_guardrails=[true],
            hooks=OwnHooks(),
        )
        return Agent(
            "Desk",
            instructions="Desk",
            model=self.models("Desk"),
            tools=[weather, pieces, in_a_thread, expert.as_tool("ask_expert", "Asks an expert.")],
            handoffs=[writer],
            mcp_servers=[self.server],
            input_guardrails=[polite],
            hooks=OwnHooks(),
        )

    def run(self, door: Any) -> Any:
        config = RunConfig(log=self.log)
        return door(self.agent(), "Hi", session=self.session, hooks=Hooks(), run_config=config)

    async def check(self) -> None:
        """One end, and a history that is valid and can be gone on with."""
        (run_id,) = self.log._runs or [None]
        if run_id is not None:
            async with asyncio.timeout(DEADLINE):
                entries = [entry async for entry in self.log.follow(run_id)]
            ends = [entry for entry in entries if entry.is_terminal and entry.run_id == run_id]
            assert ends == [entries[-1]]
            report = check_stream(entries)
            assert report.ok, str(report)
        assert unpaired(await self.session.get_items()) == set()
        result = await Runner.run(
            Agent("Next", model=ScriptedModel(["Good bye."])), "Go on", session=self.session
        )
        assert result.final_output == "Good bye."


def unpaired(items: list[Any]) -> set[Any]:
    """The ids of calls without an answer, and of answers without a call."""
    calls = [item["call_id"] for item in items if item.get("type") == "function_call"]
    answers = [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    assert len(calls) == len(set(calls)), "a call is there twice"
    assert len(answers) == len(set(answers)), "a call has two answers"
    return set(calls) ^ set(answers)


async def settled(tasks: set[Any]) -> None:
    """Wait until only `tasks` are left."""
    async with asyncio.timeout(DEADLINE):
        while asyncio.all_tasks() - tasks:
            await asyncio.sleep(0)


def files() -> int:
    """How many files and sockets are open."""
    return len(os.listdir("/proc/self/fd"))


async def streamed(scene: Scene, awaits: Awaits, number: int, stop: Stop) -> Any:
    """A run that streams, stopped at that await; its output."""
    handle = scene.run(Runner.run_streamed)
    awaits.do_at(number, lambda: stop(handle))
    async with asyncio.timeout(DEADLINE):
        async for _ in handle.entries():
            pass
    assert unpaired(handle.to_input_list()) == set()
    return handle.final_output


async def plain(scene: Scene, awaits: Awaits, number: int, stop: Stop) -> Any:
    """A run whose caller waits for it, and is cancelled at that await; its output."""
    task = asyncio.create_task(scene.run(Runner.run))
    awaits.do_at(number, lambda: stop(task))
    async with asyncio.timeout(DEADLINE):
        await asyncio.wait([task])
    return None if task.cancelled() else task.result().final_output


def nothing(_: Any) -> None:
    """Let it run to its end."""


def at_once(handle: RunResultStreaming) -> None:
    handle.cancel("now")


def after_tools(handle: RunResultStreaming) -> None:
    handle.cancel("after_tool")


def after_its_turn(handle: RunResultStreaming) -> None:
    handle.cancel("after_turn")


def from_outside(handle: RunResultStreaming) -> None:
    task = handle.run_loop_task
    assert task is not None
    task.cancel()


def its_caller(task: asyncio.Task[Any]) -> None:
    task.cancel()


WAYS = [
    (streamed, at_once),
    (streamed, after_tools),
    (streamed, after_its_turn),
    (streamed, from_outside),
    (plain, its_caller),
]
ways = pytest.mark.parametrize(("door", "stop"), WAYS, ids=[stop.__name__ for _, stop in WAYS])


@pytest.fixture
def spans() -> Iterator[Spans]:
    """Sees every trace that begins in the test."""
    processor = Spans()
    set_trace_processors([processor])
    yield processor
    set_trace_processors([])


@pytest.fixture
async def mcp_server() -> AsyncIterator[MCPServer]:
    """An MCP server that has started."""
    async with by_hand() as server:
        await server.list_tools()
        yield server


async def go(scene: Scene, door: Any, number: int, stop: Stop, spans: Spans) -> tuple[Any, int]:
    """Run, stop at that await, and see that nothing is left; the output, and how many awaits there were."""
    tasks = asyncio.all_tasks()
    with counted_awaits() as awaits:
        output = await door(scene, awaits, number, stop)
        count = awaits.count
        await settled(tasks)
    await scene.check()
    scene.session.close()
    assert spans.open == set(), f"stopped at await {number}"
    return output, count


@ways
async def test_a_rich_run_may_be_stopped_at_any_await(
    mcp_server: MCPServer, spans: Spans, door: Any, stop: Stop
) -> None:
    output, awaits = await go(Scene(mcp_server, scripted), door, 0, nothing, spans)
    assert (output, awaits > 50) == ("It is cold.", True)

    for number in range(awaits + 1):
        await go(Scene(mcp_server, scripted), door, number, stop, spans)


@ways
async def test_a_rich_run_that_is_stopped_leaves_no_connection_to_its_model(
    mcp_server: MCPServer, spans: Spans, door: Any, stop: Stop
) -> None:
    async with ModelServer() as server:
        server.answer(said, always=True)

        async def once(number: int, stop: Stop) -> tuple[Any, int]:
            async with AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0) as client:
                model = OpenAIResponsesModel("m", client)
                opened = files()
                told = await go(Scene(mcp_server, lambda _: model), door, number, stop, spans)
                await model.close()
            await server.clients_gone()
            assert files() <= opened, f"stopped at await {number}"
            return told

        output, awaits = await once(0, nothing)
        assert (output, awaits > 50) == ("It is cold.", True)
        for number in range(1, awaits, 4):
            await once(number, stop)
