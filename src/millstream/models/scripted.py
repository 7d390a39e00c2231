"""The scripted model: it answers what it was told to, the same every time, and needs nobody.

A script is a list of steps, one per model call. A step is an answer (text, output items), an
error, a function of the call, or a stream of your own; it streams as a real model does, with
the natural sequence of Responses events, and may fail, fall silent or break off after any of
them:

    model = ScriptedModel([
        [function_call("weather", {"city": "Oslo"}, call_id="call_1")],
        "It is cold in Oslo.",
    ])

Time passes only where `tokens_per_second` asks for it, by the run's clock or one passed in.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias

from millstream import codec, raw
from millstream.clock import Clock, current_clock
from millstream.errors import ModelProtocolError, UserError
from millstream.items import ModelResponse
from millstream.models.batched import signed
from millstream.models.narration import narrated
from millstream.models.promise import Model, ModelTracing, RawBatch
from millstream.models.script import (
    ModelCall,
    ModelScriptItem,
    ModelStep,
    UnconsumedModelSteps,
    UnexpectedModelCall,
    as_step,
)
from millstream.usage import Usage

if TYPE_CHECKING:
    from openai.types.responses import ResponseStreamEvent

    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import ModelRetryAdvice, ModelRetryAdviceRequest, ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseInputItem, TResponseStreamEvent
    from millstream.tool import Tool


class ScriptedModel(Model):
    """A model that answers by a script, one step per call, and remembers what it was asked."""

    def __init__(
        self,
        steps: Iterable[ModelScriptItem] = (),
        *,
        emit_traces: bool = False,
        default_usage: Usage | None = None,
        tokens_per_second: float | None = None,
        chunk_size: int | None = None,
        batch_size: int = 1,
        clock: Clock | None = None,
    ) -> None:
        """Take the script.

        Args:
            steps: the answers, in the order of the calls.
            emit_traces: whether a call has a span, a generation.
            default_usage: counts where a step has no usage of its own.
            tokens_per_second: how many deltas are streamed in a second; None is as fast as may be.
            chunk_size: characters in a delta; by default a delta is one word.
            batch_size: events that arrive together, as with one read of a socket. Other tasks
                run before each batch, as they do while a real model is waited for.
            clock: makes the time that `tokens_per_second` is about; by default the run's.
        """
        if tokens_per_second is not None and tokens_per_second <= 0:
            raise UserError("ScriptedModel(tokens_per_second=...) is a positive number.")
        if batch_size < 1 or (chunk_size is not None and chunk_size < 1):
            raise UserError("ScriptedModel(batch_size=..., chunk_size=...) are at least 1.")
        self.traced_as = "generation" if emit_traces else None
        self._steps: deque[ModelStep] = deque()
        self._given = 0
        self._calls: list[ModelCall] = []
        self._default_usage = default_usage
        self._seconds_per_token = 1 / tokens_per_second if tokens_per_second else 0.0
        self._chunk_size = chunk_size
        self._batch_size = batch_size
        self._clock = clock
        self._failed: tuple[Exception | None, ModelRetryAdvice | None] = (None, None)
        self.extend(steps)

    # The script.

    def enqueue(self, step: ModelScriptItem) -> None:
        """Add a step at the end.

        Raises:
            InvalidModelStep: it is not one.
        """
        self._steps.append(as_step(step, self._given))
        self._given += 1

    def extend(self, steps: Iterable[ModelScriptItem]) -> None:
        """Add steps at the end: all, or none of them when one is no step.

        Raises:
            InvalidModelStep: one of them is no step.
        """
        added = [as_step(step, index) for index, step in enumerate(steps, self._given)]
        self._steps.extend(added)
        self._given += len(added)

    def set_default_usage(self, usage: Usage | None) -> None:
        """What later calls have used, where a step has no usage of its own."""
        self._default_usage = usage

    @property
    def remaining_steps(self) -> int:
        """Steps that no call has used yet."""
        return len(self._steps)

    def assert_complete(self) -> None:
        """Check that the script was used up.

        Raises:
            UnconsumedModelSteps: it was not.
        """
        if self._steps:
            raise UnconsumedModelSteps(
                f"{len(self._steps)} of {self._given} scripted model step(s) were not used: "
                f"the model was called {len(self._calls)} time(s).",
                remaining_steps=len(self._steps),
            )

    # What it was asked.

    @property
    def calls(self) -> tuple[ModelCall, ...]:
        """Every call so far, also those that failed."""
        return tuple(self._calls)

    @property
    def first_call(self) -> ModelCall | None:
        """The first call, if there was one."""
        return self._calls[0] if self._calls else None

    @property
    def last_call(self) -> ModelCall | None:
        """The latest call, if there was one."""
        return self._calls[-1] if self._calls else None

    # The answers.

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """The `retry_advice` of the step that failed with that error; None where it has none."""
        error, advice = self._failed
        return advice if request.error is error else None

    def count_tokens(self, text: str) -> int:
        """None: what a call of a script has used, its step says."""
        return 0

    async def get_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: Any | None,
    ) -> ModelResponse:
        """The next step's output, whole.

        Raises:
            UnexpectedModelCall: the script has no step left.
        """
        call = self._record(
            ModelCall(
                system_instructions,
                input,
                model_settings,
                tools,
                output_schema,
                handoffs,
                tracing,
                previous_response_id,
                conversation_id,
                prompt,
                streamed=False,
            )
        )
        step = await self._step_for(call)
        await asyncio.sleep(0)
        if self._seconds_per_token:
            deltas = sum(kind.endswith(".delta") for kind, _ in self._natural_events(step))
            await (self._clock or current_clock()).sleep(deltas * self._seconds_per_token)
        if step.fail_after is not None:
            raise self._failure(step)
        if step.hang_after is not None:
            await asyncio.Event().wait()
        if step.truncate_after is not None:
            raise ModelProtocolError("The scripted answer was truncated, as its step says.", cut_off=True)
        return ModelResponse(
            output=_output_items(step),
            usage=copy.deepcopy(step.usage),
            response_id=step.response_id,
            request_id=step.request_id,
            raw_usage=step.raw_usage,
        )

    async def stream_response(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: Any | None,
    ) -> AsyncGenerator[TResponseStreamEvent]:
        """The next step as a stream of typed events.

        Raises:
            UnexpectedModelCall: the script has no step left.
        """
        batches = self.stream_batches(
            system_instructions,
            input,
            model_settings,
            tools,
            output_schema,
            handoffs,
            tracing,
            previous_response_id=previous_response_id,
            conversation_id=conversation_id,
            prompt=prompt,
        )
        try:
            async for batch in batches:
                for event in batch.events:
                    yield raw.decode(event) if isinstance(event, bytes) else event
        finally:
            await batches.aclose()

    async def stream_batches(
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: Any | None,
    ) -> AsyncGenerator[RawBatch]:
        """The next step as a stream of wire JSON, `batch_size` events at a time.

        Raises:
            UnexpectedModelCall: the script has no step left.
        """
        call = self._record(
            ModelCall(
                system_instructions,
                input,
                model_settings,
                tools,
                output_schema,
                handoffs,
                tracing,
                previous_response_id,
                conversation_id,
                prompt,
                streamed=True,
            )
        )
        step = await self._step_for(call)
        batches = self._batches(step, call)
        try:
            async for batch in batches:
                # The other tasks go on while a model is waited for; so they do here.
                await asyncio.sleep(0)
                yield batch
        finally:
            await batches.aclose()
        if step.hang_after is not None:
            await asyncio.Event().wait()
        if step.fail_after is not None:
            raise self._failure(step)

    def _record(self, call: ModelCall) -> ModelCall:
        call = replace(
            call, input=copy.deepcopy(call.input), tools=list(call.tools), handoffs=list(call.handoffs)
        )
        self._calls.append(call)
        return call

    async def _step_for(self, call: ModelCall) -> ModelStep:
        index = len(self._calls) - 1
        if not self._steps:
            items = "text" if isinstance(call.input, str) else f"{len(call.input)} item(s)"
            raise UnexpectedModelCall(
                f"Model call {index + 1} (input: {items}) found no scripted step left of {self._given}. "
                "Add one with enqueue(...), or let an earlier step end the run: after a tool call "
                "the model is called again.",
                call=call,
                call_index=index,
            )
        step = self._steps.popleft()
        while step.responder is not None:
            result = step.responder(call)
            step = as_step(await result if isawaitable(result) else result, index)
        if step.error is not None and step.fail_after is None:
            raise self._failure(step)
        usage = step.usage
        if usage == Usage():
            usage = self._default_usage or usage
        return replace(step, usage=replace(usage, requests=usage.requests or 1))

    def _failure(self, step: ModelStep) -> Exception:
        error = step.error or ConnectionResetError("The scripted connection broke, as its step says.")
        self._failed = error, step.retry_advice
        return error

    async def _batches(self, step: ModelStep, call: ModelCall) -> AsyncGenerator[RawBatch]:
        """The events of `step` up to where it fails, falls silent or breaks off, each delta at its time."""
        ends = (step.fail_after, step.hang_after, step.truncate_after)
        end = min((n for n in ends if n is not None), default=None)
        batch = RawBatch([], [])
        clock = self._clock or current_clock()
        start = clock.monotonic()
        count = deltas = 0
        events = self._events(step, call)
        try:
            while count != end and (next_event := await anext(events, None)) is not None:
                kind, event = next_event
                count += 1
                if self._seconds_per_token and kind.endswith(".delta"):
                    if batch.events:
                        yield batch
                        batch = RawBatch([], [])
                    deltas += 1
                    # Counted from the start, so that waits that come late do not add up.
                    due = start + deltas * self._seconds_per_token
                    await clock.sleep(max(0.0, due - clock.monotonic()))
                batch.events.append(event)
                batch.types.append(kind)
                if len(batch.events) == self._batch_size:
                    yield batch
                    batch = RawBatch([], [])
        finally:
            await events.aclose()
        if batch.events:
            yield batch

    async def _events(self, step: ModelStep, call: ModelCall) -> AsyncGenerator[_Wire]:
        if step.stream_events is None:
            for kind, event in self._natural_events(step):
                if kind == "response.completed" and isinstance(event, bytes):
                    event = signed(event, step.request_id)
                yield kind, event
        elif callable(step.stream_events):
            stream = step.stream_events(call)
            try:
                async for event in stream:
                    yield _wire(event)
            finally:
                if isinstance(stream, AsyncGenerator):
                    await stream.aclose()
        else:
            for event in step.stream_events:
                yield _wire(event)

    def _natural_events(self, step: ModelStep) -> Iterator[_Wire]:
        return narrated(step, chunk_size=self._chunk_size)


def _output_items(step: ModelStep) -> list[Any]:
    items: Sequence[Any] = step.output
    return [raw.item_from(item) if isinstance(item, dict) else item for item in items]


_Wire: TypeAlias = "tuple[str, bytes | ResponseStreamEvent]"
"""An event's type, and its JSON or the typed object that a user gave."""


def _wire(event: Any) -> _Wire:
    """An event of a user's own stream: typed, JSON, or a dict."""
    if isinstance(event, Mapping):
        event = codec.encode(event)
    if isinstance(event, bytes):
        return str(codec.decode(event)["type"]), event
    return event.type, event
