"""What our users' type checkers see. Read by `make types`, never run."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, assert_type

from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel
from starlette.responses import Response
from starlette.websockets import WebSocket

from millstream import (
    Agent,
    AgentToolStreamEvent,
    AgentUpdatedStreamEvent,
    Entry,
    FunctionTool,
    GuardrailFunctionOutput,
    HoldChunks,
    InputGuardrail,
    ModelSettings,
    OutputGuardrail,
    Partial,
    RawResponsesStreamEvent,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    RunItemStreamEvent,
    Runner,
    RunResult,
    RunResultStreaming,
    Session,
    SQLiteSession,
    StreamEvent,
    Tool,
    ToolArgumentsDelta,
    ToolContext,
    TResponseInputItem,
    Usage,
    function_tool,
    handoff,
    input_guardrail,
    output_guardrail,
    to_sse,
    to_websocket,
)
from millstream.delivery import sse_frames
from millstream.testing import ScriptedModel, check_session


@dataclass
class Shop:
    name: str


class Order(BaseModel):
    item: str


@function_tool
async def stock(context: RunContextWrapper[Shop], item: str) -> int:
    """How many are left.

    Args:
        item: what to look for.
    """
    return len(context.context.name + item)


@function_tool(name_override="clock", timeout=2.0)
def now() -> str:
    return "noon"


def instructions(context: RunContextWrapper[Shop], agent: Agent[Shop]) -> str:
    return f"You serve {context.context.name} as {agent.name}."


@input_guardrail(hold="verdict")
async def polite(
    context: RunContextWrapper[Shop], agent: Agent[Any], given: str | list[TResponseInputItem]
) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(context.context.name, tripwire_triggered=False)


@output_guardrail(hold=HoldChunks(characters=100))
def true(context: RunContextWrapper[Shop], agent: Agent[Any], output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(context.context.name, tripwire_triggered=False)


class Watch(RunHooks[Shop]):
    async def on_tool_end(
        self, context: RunContextWrapper[Shop], agent: Agent[Shop], tool: Tool, result: object
    ) -> None:
        assert_type(context.context, Shop)


assert_type(polite, InputGuardrail[Shop])
assert_type(true, OutputGuardrail[Shop])

clerk = Agent[Shop](name="clerk", instructions=instructions, tools=[stock, now], output_type=Order)
door = Agent[Shop](
    name="door",
    handoffs=[clerk, handoff(clerk, tool_name_override="to_the_clerk")],
    model=ScriptedModel(),
    model_settings=ModelSettings(temperature=0),
)

assert_type(stock, FunctionTool)
assert_type(now, FunctionTool)
assert_type(door.clone(name="side door"), Agent[Shop])


async def plain() -> None:
    result = await Runner.run(door, "hello", context=Shop("ours"), run_config=RunConfig())
    assert_type(result, RunResult)
    assert_type(result.final_output, Any)
    assert_type(result.final_output_as(Order), Order)
    assert_type(result.context_wrapper.usage, Usage)

    await Runner.run(door, "hello", context=Shop("ours"), run_config={"workflow_name": "sale"})


async def streamed() -> None:
    stream = Runner.run_streamed(door, "hello", context=Shop("ours"))
    assert_type(stream, RunResultStreaming)

    async for event in stream.stream_events():
        assert_type(event, StreamEvent)
        if isinstance(event, RawResponsesStreamEvent):
            if isinstance(event.data, ResponseTextDeltaEvent):
                assert_type(event.data.delta, str)
        elif isinstance(event, RunItemStreamEvent):
            assert_type(event.name, str)
        else:
            assert_type(event, AgentUpdatedStreamEvent)

    async with Runner.run_streamed(door, "hello") as handle:
        assert_type(handle, RunResultStreaming)
        async for each in handle:
            assert_type(each, StreamEvent)
        assert_type(handle.is_complete, bool)
        assert_type(await handle, RunResult)


async def text(stream: RunResultStreaming) -> AsyncIterator[str]:
    async for piece in stream.text():
        assert_type(piece, str)
        yield piece


@function_tool
async def restock(context: ToolContext[Shop], items: list[str]) -> AsyncIterator[dict[str, int]]:
    for done, item in enumerate(items, 1):
        context.progress({"done": done})
        await context.progress(item)
        yield {item: done}


async def first_line(result: RunResult | RunResultStreaming) -> str:
    return str(result.final_output).splitlines()[0]


def listen(told: AgentToolStreamEvent) -> None:
    assert_type(told["event"], StreamEvent)
    assert_type(told["agent"], Agent[Any])


async def nested(stream: RunResultStreaming) -> None:
    ask = clerk.as_tool(
        "ask", "Ask the clerk.", custom_output_extractor=first_line, on_stream=listen, parameters=Order
    )
    assert_type(ask, FunctionTool)
    assert_type(restock, FunctionTool)
    async for entry in stream.entries(depth=1, types=["tool.progress"]):
        assert_type(entry, Entry)
    async for piece in stream.tool_arguments():
        assert_type(piece, ToolArgumentsDelta)
        assert_type(piece.delta, str)


async def growing(stream: RunResultStreaming) -> None:
    async for order in stream.partial_output(Order):
        if isinstance(order, Partial):
            assert_type(order, Partial[Order])
        else:
            assert_type(order, Order)


async def remembered() -> None:
    session = SQLiteSession("one")
    await Runner.run(door, "hello", session=session, run_config={"session_settings": {"limit": 5}})
    items: list[TResponseInputItem] = await session.get_items()
    await session.add_items([*items, {"role": "user", "content": "hello"}])
    kept: Session = session
    assert_type(await kept.pop_item(), TResponseInputItem | None)
    await check_session(SQLiteSession)


def on_a_thread() -> None:
    assert_type(Runner.run_sync(door, "hello"), RunResult)
    for event in Runner.run_streamed_sync(door, "hello"):
        assert_type(event, StreamEvent)


async def served(stream: RunResultStreaming, websocket: WebSocket) -> Response:
    async for piece in sse_frames(stream, after="3", types={"tool.started"}):
        assert_type(piece, bytes)
    assert_type(await to_websocket(stream, websocket, after=None), None)
    return to_sse(stream, after=3, on_disconnect="cancel")
