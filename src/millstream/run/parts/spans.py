"""Spans of a run: opened and closed in its own task, and those of its tools in theirs.

    trace > task > agent > turn > generation | response
                                > function > …
                                > handoff

A trace is of the run's own, unless the caller has one open, which the run then joins. Nothing
here is ever current in the caller's context. Without a processor there is the trace alone, whose
id a program may have use for: `RunTrace` then costs a run no more than an object.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractContextManager, ExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, cast

from millstream.errors import (
    InputGuardrailTripwireTriggered,
    MaxTurnsExceeded,
    OutputGuardrailTripwireTriggered,
    ToolFailedError,
)
from millstream.output import text_of
from millstream.run.model_call import model_name
from millstream.run.seams import Seams
from millstream.tracing import (
    AgentSpanData,
    FunctionSpanData,
    GenerationSpanData,
    HandoffSpanData,
    NoOpTrace,
    ResponseSpanData,
    Span,
    SpanError,
    Trace,
    agent_span,
    function_span,
    generation_span,
    get_current_trace,
    get_trace_provider,
    handoff_span,
    response_span,
    task_span,
    turn_span,
)
from millstream.tracing.traces import RecordedTrace

if TYPE_CHECKING:
    from openai.types.responses import Response

    from millstream.agent import Agent
    from millstream.config import RunConfig
    from millstream.context import ToolContext
    from millstream.items import ModelResponse, TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.run.prepare import PreparedAgent


class RunTrace(Seams):
    """The trace of a run whose spans nobody records.

    Args:
        trace: the trace.
        is_own: whether it begins and ends with the run.
    """

    def __init__(self, trace: Trace, *, is_own: bool) -> None:
        self.trace = trace
        self.is_own = is_own

    def starting(self, run: ActiveRun) -> None:
        """Let the run tell its trace."""
        run.trace = self.trace

    @asynccontextmanager
    async def run_span(self, run: ActiveRun) -> AsyncGenerator[None]:
        """The trace, current in the run's task."""
        with self._own_trace():
            yield

    def _own_trace(self) -> AbstractContextManager[Any]:
        return self.trace if self.is_own else nullcontext()


def trace_run(config: RunConfig) -> RunTrace:
    """Who keeps the trace of a run that starts here, and its spans where somebody records them."""
    # A trace that has ended may still be current where it was ended from elsewhere.
    current = get_current_trace()
    joins = current is not None and not getattr(current, "has_ended", False) and not config.tracing_disabled
    trace = cast("Trace", current) if joins else _own_trace(config)
    unheard = isinstance(trace, NoOpTrace) or (isinstance(trace, RecordedTrace) and trace.processors is None)
    return (RunTrace if unheard else Spans)(trace, is_own=not joins)


def _own_trace(config: RunConfig) -> Trace:
    return get_trace_provider().create_trace(
        config.workflow_name,
        config.trace_id,
        config.group_id,
        config.trace_metadata,
        config.tracing_disabled,
        config.tracing,
    )


class Spans(RunTrace):
    """The spans of one run.

    What a span is about is filled in as it becomes known, and whole when it ends.
    """

    def __init__(self, trace: Trace, *, is_own: bool) -> None:
        super().__init__(trace, is_own=is_own)
        self._agent: Agent[Any] | None = None
        """Whose span is open."""
        self._agent_span: Span[AgentSpanData] | None = None
        self._model_span: Span[GenerationSpanData] | Span[ResponseSpanData] | None = None
        self._tool_spans: dict[ToolContext[Any], Span[FunctionSpanData]] = {}
        self._handoff_span: Span[HandoffSpanData] | None = None

    @asynccontextmanager
    async def run_span(self, run: ActiveRun) -> AsyncGenerator[None]:
        """Trace, task and the first agent."""
        before = _counts(run)
        with self._own_trace(), ExitStack() as stack:
            task = None
            if _has_structure(run):
                task = stack.enter_context(task_span(run.config.workflow_name))
            stack.callback(self._end_agent)
            self._begin_agent(run.progress.current_agent)
            try:
                yield
            finally:
                if task is not None:
                    task.span_data.usage = _used(before, _counts(run), _OF_TASKS)

    @asynccontextmanager
    async def turn_span(self, run: ActiveRun) -> AsyncGenerator[None]:
        """The turn, in the span of its agent."""
        agent = run.progress.current_agent
        if agent is not self._agent:
            self._end_agent()
            self._begin_agent(agent)
        if not _has_structure(run):
            yield
            return
        before = _counts(run)
        span = turn_span(run.progress.current_turn, agent.name)
        span.start(mark_as_current=True)
        try:
            yield
        finally:
            span.span_data.usage = _used(before, _counts(run), _OF_TURNS)
            # What went wrong in it is the agent's error, told once.
            span.finish(reset_current=True)

    @asynccontextmanager
    async def model_span(self, run: ActiveRun, ready: PreparedAgent) -> AsyncGenerator[None]:
        """The model call with all its tries, where the model leaves that to the run (`Model.traced_as`)."""
        self._agent_is_ready(ready)
        span = self._model_span = _model_span(run, ready)
        if span is None:
            yield
            return
        what = "Error streaming response" if run.streamed else "Error getting response"
        with span:
            try:
                yield
            except BaseException as error:
                span.set_error(_error(run, what, error))
                raise

    async def model_start(
        self, run: ActiveRun, agent: Agent[Any], instructions: str | None, input: Sequence[TResponseInputItem]
    ) -> None:
        """Note what the model is asked."""
        if self._model_span is None or not run.config.trace_include_sensitive_data:
            return
        data = self._model_span.span_data
        if isinstance(data, ResponseSpanData):
            data.input = list(input)
        else:
            system = [] if instructions is None else [{"role": "system", "content": instructions}]
            data.input = [*system, *cast("Sequence[dict[str, Any]]", input)]

    async def model_end(self, run: ActiveRun, agent: Agent[Any], response: ModelResponse) -> None:
        """Note what the model answered."""
        if self._model_span is None:
            return
        data = self._model_span.span_data
        data.usage = _usage_of(response)
        if not run.config.trace_include_sensitive_data:
            return
        if isinstance(data, ResponseSpanData):
            data.response = _as_response(response, data.model, run)
        else:
            data.output = [_plain(each) for each in response.output]

    @asynccontextmanager
    async def tool_span(self, run: ActiveRun, context: ToolContext[Any]) -> AsyncGenerator[None]:
        """The call of a tool, in the task of the call."""
        includes_data = run.config.trace_include_sensitive_data
        name = context.tool_name
        span = function_span(name, context.tool_arguments if includes_data else None)
        span.span_data.call_id = context.tool_call_id
        with span:
            self._tool_spans[context] = span
            try:
                yield
            except BaseException as error:
                raised = error.__cause__ if isinstance(error, ToolFailedError) else None
                span.set_error(_error(run, "Error running tool", raised or error, tool_name=name))
                raise
            finally:
                del self._tool_spans[context]
            if context.failure is not None:
                span.set_error(_error(run, "Error running tool (non-fatal)", context.failure, tool_name=name))

    def tool_answered(self, run: ActiveRun, context: ToolContext[Any], output: Any) -> None:
        """Note what the call came to."""
        if run.config.trace_include_sensitive_data:
            self._tool_spans[context].span_data.output = output

    @asynccontextmanager
    async def handoff_span(self, run: ActiveRun, source: Agent[Any]) -> AsyncGenerator[None]:
        """A handoff, which leads to nobody where it fails."""
        with handoff_span(source.name) as span:
            self._handoff_span = span
            try:
                yield
            except BaseException as error:
                span.set_error(_error(run, "Error in handoff", error))
                raise
            finally:
                self._handoff_span = None

    async def handoff(self, run: ActiveRun, source: Agent[Any], target: Agent[Any]) -> None:
        """Note where the handoff leads."""
        if self._handoff_span is not None:
            self._handoff_span.span_data.to_agent = target.name

    async def run_end(self, run: ActiveRun, error: BaseException | None) -> None:
        """Note what the run fails with, at the agent that was acting."""
        if error is not None and self._agent_span is not None:
            self._agent_span.set_error(_run_error(run, error))

    # --- agents ------------------------------------------------------------------------------

    def _begin_agent(self, agent: Agent[Any]) -> None:
        self._agent, self._agent_span = agent, agent_span(agent.name)
        self._agent_span.start(mark_as_current=True)

    def _end_agent(self) -> None:
        if self._agent_span is not None:
            self._agent_span.finish(reset_current=True)

    def _agent_is_ready(self, ready: PreparedAgent) -> None:
        """Note what the agent has. Functions may make that, so it is known when they were asked."""
        if self._agent_span is None:
            return
        data = self._agent_span.span_data
        data.tools = [tool.name for tool in ready.tools]
        data.handoffs = [handoff.agent_name for handoff in ready.handoffs.values()]
        data.output_type = "str" if ready.output_schema is None else ready.output_schema.name()


def _has_structure(run: ActiveRun) -> bool:
    """Whether the run itself and its turns have spans."""
    settings = run.config.tracing
    return settings is None or settings.get("include_task_and_turn_spans", True)


# --- model calls ----------------------------------------------------------------------------------


def _model_span(
    run: ActiveRun, ready: PreparedAgent
) -> Span[GenerationSpanData] | Span[ResponseSpanData] | None:
    # A model that was written for the SDK knows nothing of this, and opens its own.
    kind = getattr(ready.model, "traced_as", None)
    if kind not in ("generation", "response"):
        return None
    settings = ready.settings.to_traceable_dict()
    if not run.config.trace_include_sensitive_data:
        del settings["metadata"]
    if kind == "generation":
        return generation_span(model=model_name(ready.model), model_config=settings)
    span = response_span()
    # Before it begins: a sampler may ask for the model.
    span.span_data.model, span.span_data.model_config = model_name(ready.model), settings
    return span


def _as_response(response: ModelResponse, model: str | None, run: ActiveRun) -> Response:
    """The answer as processors of the SDK know it, made of what the run was told of it."""
    from openai.types.responses import Response  # costs half a second; who traces a response has it

    return Response.model_construct(
        id=response.response_id,
        object="response",
        created_at=run.config.clock.time(),
        model=model,
        output=response.output,
    )


def _plain(item: Any) -> dict[str, Any]:
    return (
        item.model_dump(exclude_unset=True, by_alias=True, warnings=False)
        if hasattr(item, "model_dump")
        else {"item": text_of(item)}
    )


# --- usage ----------------------------------------------------------------------------------------

_OF_TURNS = ("input_tokens", "output_tokens", "cached_input_tokens", "cache_write_input_tokens")
_OF_TASKS = (*_OF_TURNS, "requests", "total_tokens")


def _usage_of(response: ModelResponse) -> dict[str, Any]:
    usage = response.usage
    told: dict[str, Any] = {
        name: _number(usage, name) for name in ("requests", "input_tokens", "output_tokens", "total_tokens")
    }
    read, written = usage.input_tokens_details, usage.output_tokens_details
    told["input_tokens_details"] = {
        "cached_tokens": _number(read, "cached_tokens"),
        "cache_write_tokens": _number(read, "cache_write_tokens"),
    }
    told["output_tokens_details"] = {"reasoning_tokens": _number(written, "reasoning_tokens")}
    return told


def _counts(run: ActiveRun) -> dict[str, int]:
    """What the run has used so far, with those nested in it."""
    usage: Any = run.used
    read = getattr(usage, "input_tokens_details", None)
    return {
        "input_tokens": _number(usage, "input_tokens"),
        "output_tokens": _number(usage, "output_tokens"),
        "cached_input_tokens": _number(read, "cached_tokens"),
        "cache_write_input_tokens": _number(read, "cache_write_tokens"),
        "requests": _number(usage, "requests"),
        "total_tokens": _number(usage, "total_tokens"),
    }


def _used(before: dict[str, int], now: dict[str, int], names: Sequence[str]) -> dict[str, Any] | None:
    """What was used since `before`; None where no model has answered."""
    if now["requests"] == before["requests"]:
        return None
    return {name: now[name] - before[name] for name in names}


def _number(holder: Any, name: str) -> int:
    value = getattr(holder, name, 0)
    return value if isinstance(value, int) else 0  # a program may have put anything there


# --- errors ---------------------------------------------------------------------------------------

_NOT_RECORDED = "not recorded: trace_include_sensitive_data is off"


def _error(run: ActiveRun, message: str, error: BaseException, **more: Any) -> SpanError:
    """What went wrong; its text, which may quote anything, only where sensitive data is recorded."""
    if isinstance(error, asyncio.CancelledError):
        return SpanError(message="Cancelled", data={**more, "error_type": "CancelledError"})
    text = text_of(error) if run.config.trace_include_sensitive_data else _NOT_RECORDED
    return SpanError(message=message, data={**more, "error": text, "error_type": type(error).__name__})


def _run_error(run: ActiveRun, error: BaseException) -> SpanError:
    if isinstance(error, MaxTurnsExceeded):
        return SpanError(message="Max turns exceeded", data={"max_turns": run.progress.max_turns})
    if isinstance(error, InputGuardrailTripwireTriggered | OutputGuardrailTripwireTriggered):
        kind = "input" if isinstance(error, InputGuardrailTripwireTriggered) else "output"
        name = error.guardrail_result.guardrail.get_name()
        return SpanError(
            message="Guardrail tripwire triggered", data={"guardrail": name, "type": f"{kind}_guardrail"}
        )
    return _error(run, "Error in agent run", error)
