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
import functools
import json
import re
from collections import deque
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, cast

from millstream import codec, raw
from millstream.clock import Clock, current_clock
from millstream.errors import ModelProtocolError, NotSupportedError, UserError
from millstream.items import ModelResponse
from millstream.models.batched import signed
from millstream.models.promise import Model, ModelTracing, RawBatch
from millstream.usage import Usage

if TYPE_CHECKING:
    from openai.types.responses import (
        ResponseFunctionToolCall,
        ResponseOutputMessage,
        ResponseReasoningItem,
        ResponseStreamEvent,
    )

    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import ModelRetryAdvice, ModelRetryAdviceRequest, ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseInputItem, TResponseOutputItem, TResponseStreamEvent
    from millstream.tool import Tool

MODEL_NAME = "scripted-model"
DEFAULT_RESPONSE_ID = "resp-789"

# --- errors ---------------------------------------------------------------------------------


class ModelScriptError(UserError):
    """Something about the script of a `ScriptedModel`."""


class UnexpectedModelCall(ModelScriptError):  # the SDK's name
    """The model was called once more than its script has steps."""

    def __init__(self, message: str, *, call: ModelCall, call_index: int) -> None:
        super().__init__(message)
        self.call = call
        self.call_index = call_index


class UnconsumedModelSteps(ModelScriptError):  # the SDK's name
    """`assert_complete` found steps that no call used."""

    def __init__(self, message: str, *, remaining_steps: int) -> None:
        super().__init__(message)
        self.remaining_steps = remaining_steps


StepReason: TypeAlias = Literal["invalid_input", "invalid_error", "unsupported_field"]


class InvalidModelStep(ModelScriptError):  # the SDK's name
    """A step of the script is not one; raised when it is given, or returned by a responder."""

    def __init__(self, message: str, *, reason: StepReason, input_index: int) -> None:
        super().__init__(message)
        self.reason: StepReason = reason
        self.input_index = input_index


# --- calls and steps ------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelCall:
    """What a `ScriptedModel` was asked; `input` is a copy that later turns do not change."""

    system_instructions: str | None
    input: Any
    model_settings: ModelSettings
    tools: list[Tool]
    output_schema: AgentOutputSchemaBase | None
    handoffs: list[Handoff[Any, Any]]
    tracing: ModelTracing
    previous_response_id: str | None
    conversation_id: str | None
    prompt: Any | None
    streamed: bool


ModelStepOutput: TypeAlias = "str | Sequence[TResponseOutputItem | str]"
"""Text (one assistant message), or output items; a text among them is a message too."""


class ModelStepSpec(TypedDict, total=False):
    """A `ModelStep` as a dict."""

    output: ModelStepOutput
    usage: Usage
    response_id: str | None
    request_id: str | None
    raw_usage: dict[str, Any] | None
    error: Exception | None
    responder: ModelResponder | None
    stream_events: Sequence[TResponseStreamEvent] | ModelStreamFactory | None
    retry_advice: ModelRetryAdvice | None
    fail_after: int | None
    hang_after: int | None
    truncate_after: int | None


ModelStepResult: TypeAlias = "ModelStep | ModelStepSpec | ModelStepOutput | Exception"
"""What a responder may return."""
ModelScriptItem: TypeAlias = "ModelStepResult"
"""What may stand in a script."""
ModelResponder: TypeAlias = "Callable[[ModelCall], ModelStepResult | Awaitable[ModelStepResult]]"
ModelStreamFactory: TypeAlias = "Callable[[ModelCall], AsyncIterator[TResponseStreamEvent]]"


@dataclass
class ModelStep:
    """One answer of a `ScriptedModel`.

    `error` alone is raised instead of an answer. The three `..._after` count stream events:
    that many are delivered first. A call for the whole answer gets none of it: it raises the
    error, hangs, or raises `ModelProtocolError`.
    """

    output: ModelStepOutput = ()
    usage: Usage = field(default_factory=Usage)
    """Of this call; left as it is, the model's `default_usage` counts."""
    response_id: str | None = DEFAULT_RESPONSE_ID
    request_id: str | None = None
    raw_usage: dict[str, Any] | None = None
    error: Exception | None = None
    responder: ModelResponder | None = None
    """Called with the `ModelCall`, awaited if need be; what it returns is the step."""
    stream_events: Sequence[TResponseStreamEvent] | ModelStreamFactory | None = None
    """The events to stream instead of the natural ones: typed, or as JSON bytes or dicts."""
    retry_advice: ModelRetryAdvice | None = None
    """What the model says of trying again, where the step fails."""
    _: KW_ONLY
    fail_after: int | None = None
    """Raise `error` (without one, a `ConnectionResetError`) after so many events."""
    hang_after: int | None = None
    """Fall silent for ever after so many events; only closing or cancelling ends it."""
    truncate_after: int | None = None
    """End the stream after so many events, as a cut connection does: nothing terminal comes."""

    @classmethod
    def raise_error(cls, error: Exception, *, retry_advice: ModelRetryAdvice | None = None) -> ModelStep:
        """A step that raises `error`, with what the model says of trying again."""
        return cls(error=error, retry_advice=retry_advice)

    @classmethod
    def respond(cls, responder: ModelResponder) -> ModelStep:
        """A step that `responder` makes of the call, when it comes."""
        return cls(responder=responder)

    @classmethod
    def stream(
        cls,
        events: Sequence[TResponseStreamEvent] | ModelStreamFactory,
        *,
        output: ModelStepOutput = (),
        usage: Usage | None = None,
        response_id: str | None = DEFAULT_RESPONSE_ID,
    ) -> ModelStep:
        """A step that streams `events` as they are; a call for the whole answer gets `output`."""
        return cls(output, usage or Usage(), response_id, stream_events=events)


# --- output items ---------------------------------------------------------------------------


def assistant_message(text: str, *, item_id: str = "scripted-message") -> ResponseOutputMessage:
    """A message of the model."""
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    part = ResponseOutputText(annotations=[], text=text, type="output_text", logprobs=[])
    return ResponseOutputMessage(
        id=item_id, content=[part], role="assistant", status="completed", type="message"
    )


def final_json(output: Any, *, item_id: str = "scripted-message") -> ResponseOutputMessage:
    """A message whose text is `output` as JSON: what a model says to an agent with an `output_type`."""
    return assistant_message(codec.encode(output).decode(), item_id=item_id)


def refusal(text: str, *, item_id: str = "scripted-refusal") -> ResponseOutputMessage:
    """A message in which the model declines to answer."""
    from openai.types.responses import ResponseOutputMessage, ResponseOutputRefusal

    part = ResponseOutputRefusal(refusal=text, type="refusal")
    return ResponseOutputMessage(
        id=item_id, content=[part], role="assistant", status="completed", type="message"
    )


def reasoning(text: str, *, item_id: str = "scripted-reasoning") -> ResponseReasoningItem:
    """A piece of reasoning, `text` being its summary."""
    from openai.types.responses import ResponseReasoningItem
    from openai.types.responses.response_reasoning_item import Summary

    return ResponseReasoningItem(
        id=item_id, summary=[Summary(text=text, type="summary_text")], type="reasoning"
    )


def function_call(
    name: str,
    arguments: str | Mapping[str, Any] = "{}",
    *,
    call_id: str | None = None,
    item_id: str | None = None,
    namespace: str | None = None,
) -> ResponseFunctionToolCall:
    """A call of a tool; arguments given as text are passed on as they are, valid or not.

    Without a `call_id` it is `call_` and the tool's name: give one where a tool is called twice.
    """
    from openai.types.responses import ResponseFunctionToolCall

    if not isinstance(arguments, str):
        arguments = json.dumps(arguments, separators=(",", ":"), ensure_ascii=False)
    if call_id is None:
        call_id = f"call_{name}"
    call = ResponseFunctionToolCall(
        arguments=arguments, call_id=call_id, name=name, type="function_call", id=item_id or call_id
    )
    if namespace is not None:  # what is not set is not sent
        call.namespace = namespace
    return call


# --- the model ------------------------------------------------------------------------------


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
            emit_traces: not supported yet.
            default_usage: counts where a step has no usage of its own.
            tokens_per_second: how many deltas are streamed in a second; None is as fast as may be.
            chunk_size: characters in a delta; by default a delta is one word.
            batch_size: events that arrive together, as with one read of a socket. Other tasks
                run before each batch, as they do while a real model is waited for.
            clock: makes the time that `tokens_per_second` is about; by default the run's.
        """
        if emit_traces:
            raise NotSupportedError("ScriptedModel(emit_traces=True): this version has no tracing yet.")
        if tokens_per_second is not None and tokens_per_second <= 0:
            raise UserError("ScriptedModel(tokens_per_second=...) is a positive number.")
        if batch_size < 1 or (chunk_size is not None and chunk_size < 1):
            raise UserError("ScriptedModel(batch_size=..., chunk_size=...) are at least 1.")
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


def as_step(item: Any, index: int) -> ModelStep:
    """`item` of a script as a step, with every text in it a message.

    Raises:
        InvalidModelStep: it is none.
    """

    def invalid(what: str, reason: StepReason = "invalid_input") -> InvalidModelStep:
        return InvalidModelStep(f"Scripted model step {index + 1}: {what}.", reason=reason, input_index=index)

    if isinstance(item, BaseException):
        item = ModelStep(error=cast("Exception", item))
    elif isinstance(item, Mapping):
        spec = cast("Mapping[str, Any]", item)
        unknown = spec.keys() - {f.name for f in fields(ModelStep)}
        if unknown:
            raise invalid(f"a ModelStep has no field {', '.join(sorted(unknown))}", "unsupported_field")
        item = ModelStep(**spec)
    step = item if isinstance(item, ModelStep) else ModelStep(output=item)
    if step.error is not None and not isinstance(step.error, Exception):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise invalid("`error` is an Exception", "invalid_error")
    output: Any = [step.output] if isinstance(step.output, str) else step.output
    if not isinstance(output, Sequence) or isinstance(output, (bytes, bytearray)):
        raise invalid("output is text or a list of output items; wrap a single item in a list")
    items = cast("Sequence[Any]", output)
    for part in items:
        if not isinstance(part, str) and _field(part, "type") is None:
            raise invalid(f"{type(part).__name__} is not an output item (they have a `type`)")
    messages = [
        assistant_message(part, item_id=f"msg_{index + 1}_{place}") if isinstance(part, str) else part
        for place, part in enumerate(items)
    ]
    return replace(step, output=messages)


def _field(item: Any, name: str) -> Any:
    if isinstance(item, Mapping):
        return cast("Mapping[str, Any]", item).get(name)
    return getattr(item, name, None)


def _output_items(step: ModelStep) -> list[Any]:
    items: Sequence[Any] = step.output
    return [raw.item_from(item) if isinstance(item, dict) else item for item in items]


# --- the natural sequence of events ---------------------------------------------------------


_Told: TypeAlias = "tuple[str, bytes]"
"""An event's type and its JSON."""


def narrated(step: ModelStep, *, chunk_size: int | None = None) -> Iterator[_Told]:
    """The natural events of a step's answer, in order: the type of each, and its JSON."""
    return _Narrator(step, functools.partial(_pieces, size=chunk_size)).events()


_Wire: TypeAlias = "tuple[str, bytes | ResponseStreamEvent]"
"""An event's type, and its JSON or the typed object that a user gave."""

_WORD = re.compile(r"\s*\S+|\s+")
_ARGUMENTS_CHUNK = 8


def _pieces(text: str, size: int | None, words: bool = True) -> Iterable[str]:
    """`text` cut into deltas; joined, they are `text` again."""
    if size is None and words:
        return _WORD.findall(text)
    size = size or _ARGUMENTS_CHUNK  # arguments have few spaces to cut at
    return [text[i : i + size] for i in range(0, len(text), size)]


def _wire(event: Any) -> _Wire:
    """An event of a user's own stream: typed, JSON, or a dict."""
    if isinstance(event, Mapping):
        event = codec.encode(event)
    if isinstance(event, bytes):
        return str(codec.decode(event)["type"]), event
    return event.type, event


class _Narrator:
    """Tells one answer as the Responses API does, event by event, as wire JSON."""

    def __init__(self, step: ModelStep, pieces: Callable[..., Iterable[str]]) -> None:
        self._step = step
        self._pieces = pieces
        self._sequence_number = 0
        self._items = [cast("dict[str, Any]", _plain(item)) for item in step.output]

    def events(self) -> Iterator[_Told]:
        """All events of the answer, in order."""
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        for index, item in enumerate(self._items):
            yield from self._item(index, item)
        yield self._event("response.completed", response=self._response("completed"))

    def _event(self, kind: str, /, **values: Any) -> _Told:
        data = codec.encode({"type": kind, "sequence_number": self._sequence_number, **values})
        self._sequence_number += 1
        return kind, data

    def _response(self, status: str) -> dict[str, Any]:
        done = status == "completed"
        return {
            "id": self._step.response_id,
            "created_at": 0,
            "model": MODEL_NAME,
            "object": "response",
            "output": self._items if done else [],
            "parallel_tool_calls": False,
            "tool_choice": "none",
            "tools": [],
            "top_p": None,
            "status": status,
            "usage": _wire_usage(self._step.usage) if done else None,
        }

    def _item(self, index: int, item: dict[str, Any]) -> Iterator[_Told]:
        kind = item.get("type")
        at = {"item_id": item.get("id") or item.get("call_id") or f"item_{index}", "output_index": index}
        filled_later: dict[str, Any] = {"content": [], "summary": [], "arguments": ""}
        filled_later["encrypted_content"] = None
        started = {name: filled_later.get(name, value) for name, value in item.items()}
        if kind in ("message", "function_call", "reasoning"):
            started["status"] = "in_progress"
        yield self._event("response.output_item.added", output_index=index, item=started)
        if kind == "message":
            yield from self._parts(at, item.get("content") or [])
        elif kind == "function_call":
            yield from self._arguments(at, item)
        elif kind == "reasoning":
            yield from self._reasoning(at, item)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _parts(self, at: dict[str, Any], parts: list[dict[str, Any]]) -> Iterator[_Told]:
        for index, part in enumerate(parts):
            here = {**at, "content_index": index}
            field_name = "refusal" if part["type"] == "refusal" else "text"
            text = part.get(field_name) or ""
            empty = {**part, field_name: ""}
            yield self._event("response.content_part.added", **here, part=empty)
            if field_name == "refusal":
                yield from self._deltas("response.refusal", here, text)
                yield self._event("response.refusal.done", **here, refusal=text)
            else:
                yield from self._deltas("response.output_text", {**here, "logprobs": []}, text)
                yield self._event("response.output_text.done", **here, text=text, logprobs=[])
            yield self._event("response.content_part.done", **here, part=part)

    def _arguments(self, at: dict[str, Any], item: dict[str, Any]) -> Iterator[_Told]:
        arguments = item.get("arguments") or ""
        yield from self._deltas("response.function_call_arguments", at, arguments, words=False)
        yield self._event(
            "response.function_call_arguments.done", **at, arguments=arguments, name=item.get("name")
        )

    def _reasoning(self, at: dict[str, Any], item: dict[str, Any]) -> Iterator[_Told]:
        for index, part in enumerate(item.get("summary") or []):
            here = {**at, "summary_index": index}
            text = part.get("text") or ""
            yield self._event("response.reasoning_summary_part.added", **here, part={**part, "text": ""})
            yield from self._deltas("response.reasoning_summary_text", here, text)
            yield self._event("response.reasoning_summary_text.done", **here, text=text)
            yield self._event("response.reasoning_summary_part.done", **here, part=part)
        for index, part in enumerate(item.get("content") or []):
            here = {**at, "content_index": index}
            text = part.get("text") or ""
            yield from self._deltas("response.reasoning_text", here, text)
            yield self._event("response.reasoning_text.done", **here, text=text)

    def _deltas(self, family: str, here: dict[str, Any], text: str, *, words: bool = True) -> Iterator[_Told]:
        # What all deltas of one text share is encoded once, as there may be many.
        kind = f"{family}.delta"
        head = codec.encode({"type": kind, **here})[:-1]
        for piece in self._pieces(text, words=words):
            yield (
                kind,
                b'%b,"sequence_number":%d,"delta":%b}' % (head, self._sequence_number, codec.encode(piece)),
            )
            self._sequence_number += 1


def _plain(item: Any) -> Any:
    return codec.decode(raw.encode(item))


def _wire_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": usage.input_tokens_details,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": usage.output_tokens_details,
        "total_tokens": usage.total_tokens,
    }
