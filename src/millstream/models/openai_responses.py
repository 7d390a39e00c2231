"""Models behind the OpenAI Responses API, and behind the many servers that speak it."""

from __future__ import annotations

import functools
import typing
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast

import msgspec

from millstream import codec, raw
from millstream.errors import (
    InputItemError,
    ModelProtocolError,
    ModelResponseError,
    UserError,
)
from millstream.items import ModelResponse
from millstream.models.batched import ClientModel, signed
from millstream.models.promise import ModelTracing, RawBatch
from millstream.models.request import FAKE_ID, Request, build_request, item_type, plain_items
from millstream.models.transport import IDLE_TIMEOUT
from millstream.models.wire import FrameReader, excerpt, failure_told, response_error, strict_json
from millstream.usage import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI
    from openai.types.responses import Response

    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import MCPToolChoice, ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseInputItem
    from millstream.tool import Tool


class _Event(msgspec.Struct, gc=False):
    """All that is read of an event on its way."""

    type: str
    object: Annotated[str, msgspec.Meta(pattern="^(?!error$)")] | None = None
    """No event has one; what says "error" here is vLLM's failure, whose `type` is another thing: no event."""


_events = msgspec.json.Decoder(list[_Event])

_DONE = frozenset({"response.completed", "response.incomplete"})
_FAILED = frozenset({"response.failed", "error", "response.error"})
_TERMINAL = _DONE | _FAILED

HOSTED_TOOLS = frozenset(
    {
        "file_search",
        "web_search",
        "web_search_preview",
        "code_interpreter",
        "image_generation",
        "mcp",
        "computer",
        "computer_use_preview",
        "shell",
        "apply_patch",
    }
)
"""Names that, as a `tool_choice`, mean the tool that the model's host runs."""


class OpenAIResponsesModel(ClientModel):
    """A model of the OpenAI Responses API, reached through an `AsyncOpenAI`.

    The client keeps its say in everything about the connection: key, base URL, headers,
    Azure, retries, and its HTTP client if it was given one.

    Args:
        model: the model's name, as the server knows it.
        openai_client: the client; it is not closed with the model.
        model_is_explicit: False where the name is only a default, which a prompt may replace.
        idle_timeout: seconds without a byte in a stream after which it ends with
            `ModelTimeoutError`; None for never.
    """

    traced_as = "response"

    def __init__(
        self,
        model: str,
        openai_client: AsyncOpenAI,
        *,
        model_is_explicit: bool = True,
        idle_timeout: float | None = IDLE_TIMEOUT,
    ) -> None:
        super().__init__(model, openai_client, idle_timeout=idle_timeout)
        self._explicit = model_is_explicit

    # By position too, as in the SDK; the checker wants the names that it is given all the same.
    async def get_response(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        system_instructions: str | None,
        input: str | list[TResponseInputItem],
        model_settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        tracing: ModelTracing,
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        prompt: Any | None = None,
    ) -> ModelResponse:
        """Ask for the whole answer.

        Raises:
            ModelResponseError: the server reported that it failed.
            ModelProtocolError: the answer is not a response.
            ModelTimeoutError: `model_settings.timeout` is over.
            openai.OpenAIError: what the client says of connections and statuses.
        """
        request = self._request(
            system_instructions,
            input,
            model_settings,
            tools,
            output_schema,
            handoffs,
            previous_response_id=previous_response_id,
            conversation_id=conversation_id,
            prompt=prompt,
            stream=False,
        )
        data, request_id = await self._transport.fetch(request)
        response = _response(data)
        if response.status == "failed":
            raise response_error(_plain(response.error))
        usage = response.usage
        keep = model_settings.preserve_raw_usage and usage is not None
        return ModelResponse(
            output=response.output or [],
            usage=Usage.from_response(usage),
            response_id=response.id,
            request_id=request_id,
            raw_usage=_plain(usage) if keep else None,
        )

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
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        prompt: Any | None = None,
    ) -> AsyncGenerator[RawBatch]:
        """The same, one item per read of the socket.

        Raises:
            ModelResponseError: the server reported that it failed; the event that says so comes first.
            ModelProtocolError: a broken frame, a cut connection, or an end without a terminal event.
            ModelTimeoutError: silence, or `model_settings.timeout` is over.
            openai.OpenAIError: what the client says of connections and statuses.
        """
        request = self._request(
            system_instructions,
            input,
            model_settings,
            tools,
            output_schema,
            handoffs,
            previous_response_id=previous_response_id,
            conversation_id=conversation_id,
            prompt=prompt,
            stream=True,
        )
        stream = await self._transport.stream(request, FrameReader(_events))
        try:
            while (frames := await stream.next()) is not None:
                types = [event.type for event in frames.values]
                events = cast("list[Any]", frames.payloads)
                if _TERMINAL.isdisjoint(types):
                    yield RawBatch(events, types)
                    continue
                last = next(i for i, kind in enumerate(types) if kind in _TERMINAL)
                ending = frames.payloads[last]
                if types[last] in _FAILED:
                    yield RawBatch(events[: last + 1], types[: last + 1])
                    raise _failure(ending)
                yield RawBatch([*events[:last], signed(ending, stream.request_id)], types[: last + 1])
                await stream.finish()
                return
            raise stream.ended_early(
                f"The model's stream ended without response.completed, after {stream.count} events."
            )
        finally:
            await stream.close()

    def _request(
        self,
        instructions: str | None,
        input: str | list[TResponseInputItem],
        settings: ModelSettings,
        tools: list[Tool],
        output_schema: AgentOutputSchemaBase | None,
        handoffs: list[Handoff[Any, Any]],
        *,
        previous_response_id: str | None,
        conversation_id: str | None,
        prompt: Any | None,
        stream: bool,
    ) -> Request:
        definitions, include = tool_definitions(tools, handoffs)
        include += settings.response_include or ()
        if settings.top_logprobs is not None:
            include.append("message.output_text.logprobs")
        choice = tool_choice(settings.tool_choice)
        # A prompt on the server may bring its own tools: an empty list would take them away,
        # and a choice by name would look for it in ours.
        theirs = prompt is not None and not definitions
        body: dict[str, Any] = {
            "model": None if prompt is not None and not self._explicit else self.model,
            "input": input_items(input),
            "instructions": instructions,
            "include": list(dict.fromkeys(include)),
            "tools": None if theirs else definitions,
            "tool_choice": None if theirs and isinstance(choice, dict) else choice,
            "parallel_tool_calls": settings.parallel_tool_calls
            if definitions or prompt is not None
            else None,
            "previous_response_id": previous_response_id,
            "conversation": conversation_id,
            "prompt": prompt,
            "stream": True if stream else None,
            "text": _text(output_schema, settings.verbosity),
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "top_logprobs": settings.top_logprobs,
            "truncation": settings.truncation,
            "max_output_tokens": settings.max_tokens,
            "reasoning": settings.reasoning,
            "metadata": settings.metadata,
            "store": settings.store,
            "prompt_cache_retention": settings.prompt_cache_retention,
            "prompt_cache_options": settings.prompt_cache_options,
            "context_management": settings.context_management,
        }
        return build_request("/responses", body, settings)


def input_items(input: str | list[TResponseInputItem]) -> list[dict[str, Any]]:
    """Input as the Responses API takes it.

    Raises:
        InputItemError: an item is of no type that the API knows.
    """
    items = plain_items(input)
    for index, item in enumerate(items):
        kind = item_type(item, index)
        # What a server gave an id is its own, and it may know more types than we do.
        if kind not in _known_types() and "id" not in item:
            raise InputItemError(
                f"Input item {index} is of type {kind!r}, which the Responses API does not take."
            )
    return [_without_notes(item) for item in items if not _is_foreign_reasoning(item)]


@functools.cache
def _known_types() -> frozenset[str]:
    from openai.types.responses import ResponseInputItem

    found: set[str] = {"message"}
    for member in typing.get_args(typing.get_args(ResponseInputItem)[0]):
        found.update(_literals(member.model_fields["type"].annotation))
    return frozenset(found)


def _literals(annotation: Any) -> Iterable[str]:
    for arg in typing.get_args(annotation):
        if isinstance(arg, str):
            yield arg
        else:
            yield from _literals(arg)


def _is_foreign_reasoning(item: Mapping[str, Any]) -> bool:
    """Whether the item is what a model behind another API thought: it means nothing here."""
    return bool(item.get("provider_data")) and item.get("type") == "reasoning"


def _without_notes(item: dict[str, Any]) -> dict[str, Any]:
    """The item without notes of other providers, and without the ids that go with them."""
    if "provider_data" not in item and item.get("id") != FAKE_ID:
        return item
    return {name: value for name, value in item.items() if name not in ("provider_data", "id")}


def tool_definitions(
    tools: Iterable[Tool], handoffs: Iterable[Handoff[Any, Any]]
) -> tuple[list[Any], list[str]]:
    """Tools and handoffs as the Responses API takes them, and what the request must `include` for them."""
    definitions: list[Any] = []
    include: list[str] = []
    for tool in cast("Iterable[Any]", tools):
        if hasattr(tool, "params_json_schema"):
            definitions.append(
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": tool.params_json_schema,
                    "strict": tool.strict_json_schema,
                }
            )
        elif hasattr(tool, "to_responses_tool"):
            definitions.append(tool.to_responses_tool())
            include.extend(getattr(tool, "includes", ()))
        else:
            raise UserError(f"{tool!r} is not a tool that the Responses API takes.")
    definitions.extend(
        {
            "type": "function",
            "name": handoff.tool_name,
            "description": handoff.tool_description,
            "parameters": handoff.input_json_schema,
            "strict": handoff.strict_json_schema,
        }
        for handoff in handoffs
    )
    return definitions, include


def tool_choice(choice: str | MCPToolChoice | None) -> Any:
    """A `tool_choice` setting as the Responses API takes it: a plain name becomes that tool."""
    if choice is None or choice in ("auto", "required", "none"):
        return choice
    if isinstance(choice, str):
        return {"type": choice} if choice in HOSTED_TOOLS else {"type": "function", "name": choice}
    return {"type": "mcp", "server_label": choice.server_label, "name": choice.name}


def _text(output_schema: AgentOutputSchemaBase | None, verbosity: str | None) -> dict[str, Any] | None:
    text: dict[str, Any] = {}
    if output_schema is not None and not output_schema.is_plain_text():
        text["format"] = {
            "type": "json_schema",
            "name": "final_output",
            "schema": output_schema.json_schema(),
            "strict": output_schema.is_strict_json_schema(),
        }
    if verbosity is not None:
        text["verbosity"] = verbosity
    return text or None


def _response(data: bytes) -> Response:
    from openai.types.responses import Response

    _, plain = strict_json(data, "a response")
    if not isinstance(plain, dict):
        raise ModelProtocolError(f"The model's server sent no response: {excerpt(data)}")
    values = cast("dict[str, Any]", plain)
    failure = None if "output" in values else failure_told(values)
    if failure is not None:
        raise failure
    if "output" not in values:
        raise ModelProtocolError(f"The model's server sent no response: {excerpt(data)}")
    return raw.build(Response, values)


def _failure(payload: bytes) -> ModelResponseError:
    """The exception for an event that ends a response with a failure."""
    event = cast("dict[str, Any]", codec.decode(payload))
    response = event.get("response")
    if isinstance(response, dict):
        return response_error(cast("dict[str, Any]", response).get("error") or {})
    return response_error(event.get("error") or {"code": event.get("code"), "message": event.get("message")})


def _plain(value: Any) -> Any:
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False)
    return value
