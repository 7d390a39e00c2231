"""The way to OpenTelemetry, with its own SDK: parents, names, attributes, errors."""

import asyncio
import contextvars
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from opentelemetry import trace as otel
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from millstream import Agent, RunConfig, Runner, Usage, UserError, tool
from millstream.testing import ModelStep, ScriptedModel, function_call
from millstream.tracing import (
    SpanError,
    add_trace_processor,
    custom_span,
    flush_traces,
    guardrail_span,
    mcp_tools_span,
    response_span,
    trace,
)
from millstream.tracing.otel import OpenTelemetryProcessor
from tests.support.traces import Recorder


class Exported:
    """OpenTelemetry's side: its provider, and the spans that have ended."""

    def __init__(self) -> None:
        self._memory = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self._memory))
        self.tracer = self.provider.get_tracer("tests")

    def spans(self) -> list[ReadableSpan]:
        return sorted(self._memory.get_finished_spans(), key=lambda span: span.start_time or 0)

    def one(self, name: str) -> ReadableSpan:
        (span,) = [span for span in self.spans() if span.name == name]
        return span

    def tree(self) -> list[str]:
        """Every span, indented below its parent."""
        lines: list[str] = []

        def tell(parent: int | None, depth: int) -> None:
            for span in self.spans():
                if (span.parent and span.parent.span_id) == parent:
                    lines.append("  " * depth + span.name)
                    tell(_id(span), depth + 1)

        tell(None, 0)
        return lines


def _id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.span_id


@pytest.fixture
def exported(recorder: Recorder) -> Iterator[Exported]:
    exported = Exported()
    add_trace_processor(OpenTelemetryProcessor(exported.provider))
    yield exported
    assert otel.get_current_span() is otel.INVALID_SPAN


USAGE = Usage(requests=1, input_tokens=7, output_tokens=5, total_tokens=12)


def agent(exported: Exported, name: str = "A", model_of_guide: ScriptedModel | None = None) -> Agent[Any]:
    """Calls two tools, one of them in a thread, and hands over."""

    @tool
    async def look_up(city: str) -> str:
        with exported.tracer.start_as_current_span(f"GET {city}"):
            await asyncio.sleep(0)
        with custom_span("rank", {"hits": 3, "of": ["a"]}):
            return "cold"

    @tool
    def count() -> int:
        with exported.tracer.start_as_current_span("in the thread"):
            return 2

    guide = Agent(name="Guide", model=model_of_guide or ScriptedModel(["Dress warmly."], emit_traces=True))
    steps = [
        ModelStep(
            [function_call("look_up", {"city": name}, call_id="c1"), function_call("count", {})], USAGE
        ),
        [function_call("transfer_to_guide", {})],
    ]
    model = ScriptedModel(steps, emit_traces=True)
    return Agent(name=name, model=model, tools=[look_up, count], handoffs=[guide])


def tree_of(name: str) -> list[str]:
    return [
        "invoke_workflow Agent workflow",
        f"  invoke_agent {name}",
        "    chat ScriptedModel",
        "    execute_tool look_up",
        f"      GET {name}",
        "      rank",
        "    execute_tool count",
        "      in the thread",
        "    chat ScriptedModel",
        "    handoff Guide",
        "  invoke_agent Guide",
        "    chat ScriptedModel",
    ]


# --- parents ----------------------------------------------------------------------------------


async def test_what_a_run_does_stands_below_the_span_that_its_caller_has_open(exported: Exported) -> None:
    with exported.tracer.start_as_current_span("request"):
        await Runner.run(agent(exported), "Hello")

    assert exported.tree() == ["request", *(f"  {line}" for line in tree_of("A"))]


async def test_a_streamed_run_tells_the_same_whoever_reads_it_and_where(exported: Exported) -> None:
    async def read_in_another_task(run: Any) -> None:
        async for _ in run.stream_events():
            assert otel.get_current_span().get_span_context().span_id == request

    with exported.tracer.start_as_current_span("request") as span:
        request = span.get_span_context().span_id
        run = Runner.run_streamed(agent(exported), "Hello")
        await asyncio.create_task(read_in_another_task(run))
        await run

    assert exported.tree() == ["request", *(f"  {line}" for line in tree_of("A"))]


async def test_runs_side_by_side_stand_below_their_own_callers(exported: Exported) -> None:
    async def request(name: str) -> None:
        with exported.tracer.start_as_current_span(f"request {name}"):
            await Runner.run(agent(exported, name), "Hello")

    await asyncio.gather(*(request(name) for name in "ABC"))

    roots = {f"request {name}": tree_of(name) for name in "ABC"}
    tree = exported.tree()
    assert len(tree) == sum(len(lines) + 1 for lines in roots.values())
    for root, lines in roots.items():
        at = tree.index(root)
        assert tree[at + 1 : at + 1 + len(lines)] == [f"  {line}" for line in lines]


async def test_runs_in_gather_below_one_trace_are_told_apart(exported: Exported) -> None:
    with trace("Both"):
        await asyncio.gather(*(Runner.run(agent(exported, name), "Hello") for name in "AB"))

    agents = [line for line in exported.tree() if line.startswith("  invoke_agent")]
    assert exported.tree()[0] == "invoke_workflow Both"
    assert sorted(agents) == ["  invoke_agent A", "  invoke_agent B"] + ["  invoke_agent Guide"] * 2


async def test_a_run_in_a_tool_stands_below_what_the_tool_had_open(exported: Exported) -> None:
    @tool
    async def ask() -> str:
        with exported.tracer.start_as_current_span("lookup"):
            inner = Agent(name="Inner", model=ScriptedModel(["Yes."]))
            return str((await Runner.run(inner, "?")).final_output)

    outer = Agent(name="Outer", model=ScriptedModel([[function_call("ask", {})], "Done."]), tools=[ask])
    await Runner.run(outer, "Hello")

    assert exported.tree() == [
        "invoke_workflow Agent workflow",
        "  invoke_agent Outer",
        "    execute_tool ask",
        "      lookup",
        "        invoke_agent Inner",
    ]


def test_a_span_with_a_parent_of_its_own_stands_below_that(exported: Exported) -> None:
    with trace("W"), custom_span("first") as first:
        pass
    with trace("W") as second, custom_span("open"):
        with custom_span("below the first", parent=first):
            pass
        with custom_span("below the trace", parent=second):
            pass
        aside = custom_span("aside")
        aside.start()
        assert otel.get_current_span() is not otel.INVALID_SPAN
        with custom_span("beside the aside"):
            pass
        aside.finish()

    assert exported.tree() == [
        "invoke_workflow W", "  first", "    below the first",
        "invoke_workflow W", "  open", "    aside", "    beside the aside", "  below the trace",
    ]  # fmt: skip


@pytest.mark.parametrize("finish_in", ["another context", "a thread"])
def test_a_span_that_is_finished_elsewhere_is_told_of_without_a_word_in_the_log(
    finish_in: str, exported: Exported, caplog: pytest.LogCaptureFixture
) -> None:
    def use() -> None:
        whole = trace("W")
        whole.start(mark_as_current=True)
        span = custom_span("x")
        span.start(mark_as_current=True)

        def finish() -> None:
            span.finish(reset_current=True)
            whole.finish(reset_current=True)

        if finish_in == "a thread":
            thread = threading.Thread(target=finish)
            thread.start()
            thread.join()
        else:
            contextvars.Context().run(finish)

    contextvars.Context().run(use)

    assert exported.tree() == ["invoke_workflow W", "  x"]
    assert caplog.records == []


# --- what is told -----------------------------------------------------------------------------


async def test_spans_have_the_attributes_of_the_conventions(exported: Exported) -> None:
    with trace("Weather", group_id="chat_7"):
        await Runner.run(agent(exported), "Hello")

    assert exported.one("invoke_workflow Weather").attributes == {
        "gen_ai.operation.name": "invoke_workflow",
        "gen_ai.workflow.name": "Weather",
        "gen_ai.conversation.id": "chat_7",
    }
    assert exported.one("invoke_agent A").attributes == {
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "A",
    }
    assert exported.one("execute_tool look_up").attributes == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "look_up",
        "gen_ai.tool.type": "function",
        "gen_ai.tool.call.id": "c1",
    }
    assert exported.one("handoff Guide").attributes == {
        "millstream.handoff.from_agent": "A",
        "millstream.handoff.to_agent": "Guide",
    }
    assert exported.one("rank").attributes == {"millstream.custom.hits": 3, "millstream.custom.of": '["a"]'}
    chat = next(span for span in exported.spans() if span.name == "chat ScriptedModel")
    assert chat.kind is SpanKind.CLIENT
    assert chat.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "ScriptedModel",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "gen_ai.usage.reasoning.output_tokens": 0,
    }


async def test_content_is_told_where_it_is_asked_for(recorder: Recorder) -> None:
    exported = Exported()
    add_trace_processor(OpenTelemetryProcessor(exported.provider, include_content=True))

    with trace("W"), response_span() as hand_made:
        hand_made.span_data.input = "Hello?"
    await Runner.run(agent(exported), "Hello")

    chats: list[dict[str, Any]] = [
        dict(span.attributes or {}) for span in exported.spans() if span.name == "chat ScriptedModel"
    ]
    assert json.loads(chats[1]["gen_ai.input.messages"]) == [
        {"role": "user", "parts": [{"type": "text", "content": "Hello"}]},
        *(
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": each, "name": name, "arguments": text}],
            }
            for each, name, text in [("c1", "look_up", '{"city":"A"}'), ("call_count", "count", "{}")]
        ),
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "result": "cold"}]},
        {"role": "tool", "parts": [{"type": "tool_call_response", "id": "call_count", "result": "2"}]},
    ]
    assert json.loads(chats[2]["gen_ai.output.messages"]) == [
        {"role": "assistant", "parts": [{"type": "text", "content": "Dress warmly."}]}
    ]
    called = exported.one("execute_tool look_up").attributes or {}
    assert called["gen_ai.tool.call.arguments"] == '{"city":"A"}'
    assert called["gen_ai.tool.call.result"] == "cold"
    asked = exported.one("chat").attributes or {}
    assert json.loads(str(asked["gen_ai.input.messages"]))[0]["parts"][0]["content"] == "Hello?"


async def test_a_run_without_sensitive_data_tells_no_content_whatever_is_asked_for(
    recorder: Recorder,
) -> None:
    exported = Exported()
    add_trace_processor(OpenTelemetryProcessor(exported.provider, include_content=True))

    await Runner.run(agent(exported), "My secret", run_config=RunConfig(trace_include_sensitive_data=False))

    told = json.dumps([dict(span.attributes or {}) for span in exported.spans() if span.name != "rank"])
    assert "secret" not in told
    assert "cold" not in told
    assert "Dress warmly" not in told


async def test_what_goes_wrong_is_the_status_of_its_span(exported: Exported) -> None:
    @tool(failure_error_function=None)
    def fail() -> None:
        raise LookupError("no such city")

    broken = Agent(name="A", model=ScriptedModel([[function_call("fail", {})]]), tools=[fail])

    with pytest.raises(Exception, match="no such city"):
        await Runner.run(broken, "Hello")

    failed, acted = exported.one("execute_tool fail"), exported.one("invoke_agent A")
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "no such city")
    assert (failed.attributes or {})["error.type"] == "LookupError"
    assert (acted.attributes or {})["error.type"] == "ToolFailedError"
    assert exported.one("invoke_workflow Agent workflow").status.status_code is StatusCode.UNSET


def test_spans_that_a_program_opens_itself_are_told_too(exported: Exported) -> None:
    with trace("W"):
        with guardrail_span("polite", triggered=True), mcp_tools_span("files", ["read"]):
            pass
        with response_span() as asked:
            asked.span_data.model = "anthropic/claude"
        with custom_span("x") as failed:
            failed.set_error(SpanError(message="Too cold.", data=None))

    assert exported.one("guardrail polite").attributes == {
        "millstream.guardrail.name": "polite",
        "millstream.guardrail.triggered": True,
    }
    assert exported.one("tools/list files").attributes == {
        "mcp.method.name": "tools/list",
        "millstream.mcp.server": "files",
        "millstream.mcp.tools": ("read",),
    }
    assert exported.one("x").status.description == "Too cold."
    assert exported.one("x").attributes == {"error.type": "_OTHER"}


def test_flushing_flushes_the_provider(exported: Exported) -> None:
    flush_traces()

    assert exported.spans() == []


@pytest.mark.slow
def test_without_opentelemetry_the_error_says_what_to_install() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
from millstream import MissingExtraError
try:
    import millstream.tracing.otel
except MissingExtraError as error:
    print(error, isinstance(error, ImportError))
"""

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == (
        'millstream.tracing.otel needs an extra that is not installed: pip install "millstream[otel]" True\n'
    )


def test_what_is_no_tracer_provider_is_refused_where_it_is_given() -> None:
    with pytest.raises(UserError, match="takes a TracerProvider, not str"):
        OpenTelemetryProcessor("nope")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
