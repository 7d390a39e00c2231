"""A script: what models are told to answer, one step for each call, and what its steps are made of."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, cast

from millstream import codec
from millstream.errors import UserError
from millstream.items import raw_field
from millstream.models.promise import ModelTracing
from millstream.usage import Usage

if TYPE_CHECKING:
    from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseReasoningItem

    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import ModelRetryAdvice, ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseOutputItem, TResponseStreamEvent
    from millstream.tool import Tool

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
        if not isinstance(part, str) and raw_field(part, "type") is None:
            raise invalid(f"{type(part).__name__} is not an output item (they have a `type`)")
    messages = [
        assistant_message(part, item_id=f"msg_{index + 1}_{place}") if isinstance(part, str) else part
        for place, part in enumerate(items)
    ]
    return replace(step, output=messages)
