"""Models behind the Chat Completions API, which most other servers speak."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, Any, cast

import msgspec

from millstream import codec, raw
from millstream.errors import ModelProtocolError, NotSupportedError, UserError
from millstream.items import ModelResponse
from millstream.models.batched import BatchedModel, signed
from millstream.models.chat_messages import (
    ReasoningContentReplayContext,
    ReasoningContentSource,
    ShouldReplayReasoningContent,
    messages,
    replay_to_deepseek,
)
from millstream.models.chat_stream import ChatStream, Chunk, chunks
from millstream.models.promise import ModelTracing, RawBatch
from millstream.models.request import Request, build_request, plain_items
from millstream.models.transport import IDLE_TIMEOUT
from millstream.models.wire import FrameReader, excerpt, response_error
from millstream.usage import Usage

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import MCPToolChoice, ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseInputItem
    from millstream.tool import Tool

_whole = msgspec.json.Decoder(Chunk)

_REFUSE_STREAM_OPTIONS = ("mistral.ai",)
"""Hosts that answer 422 to `stream_options`; they send their usage unasked."""


class OpenAIChatCompletionsModel(BatchedModel):
    """A model of the Chat Completions API, reached through an `AsyncOpenAI`.

    What it streams are the events of the Responses API, so that whoever reads a run need not
    know which wire it came over. An answer that the model had to break off ends with
    `response.incomplete`.

    Args:
        model: the model's name, as the server knows it.
        openai_client: the client; it is not closed with the model.
        should_replay_reasoning_content: whether a reasoning item of the history is sent back
            to the model. Left out, DeepSeek's models get what they thought themselves.
        strict_feature_validation: accepted for compatibility; what this wire cannot do is
            always refused.
        buffer_streamed_tool_calls: not supported: tool calls are streamed as they form.
        idle_timeout: seconds without a byte in a stream after which it ends with
            `ModelTimeoutError`; None for never.
    """

    def __init__(
        self,
        model: str,
        openai_client: AsyncOpenAI,
        should_replay_reasoning_content: ShouldReplayReasoningContent | None = None,
        strict_feature_validation: bool = False,
        buffer_streamed_tool_calls: bool = False,
        *,
        idle_timeout: float | None = IDLE_TIMEOUT,
    ) -> None:
        super().__init__(model, openai_client, idle_timeout=idle_timeout)
        if buffer_streamed_tool_calls:
            raise NotSupportedError(
                "buffer_streamed_tool_calls: tool calls are streamed as they form. Leave it out."
            )
        self._replays = should_replay_reasoning_content or replay_to_deepseek

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
            InputItemError: an input item that this wire has no words for.
            NotSupportedError: something that only the Responses API does.
            ModelResponseError: the server reported that it failed.
            ModelProtocolError: the answer is not a chat completion.
            ModelTimeoutError: `model_settings.timeout` is over.
            openai.OpenAIError: what the client says of connections and statuses.
        """
        _refuse_state(previous_response_id, conversation_id, prompt)
        request = self._request(
            system_instructions, input, model_settings, tools, output_schema, handoffs, stream=False
        )
        data, request_id = await self._transport.fetch(request)
        chunk = _completion(data)
        fold = ChatStream(self.model)
        fold.feed([chunk])
        fold.finish()
        response = _typed(fold.response())
        return ModelResponse(
            output=response.output,
            usage=Usage.from_response(response.usage),
            response_id=response.id,
            request_id=request_id,
            raw_usage=chunk.usage if model_settings.preserve_raw_usage else None,
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
        """The answer as it forms, one item per read of the socket.

        Raises:
            InputItemError: an input item that this wire has no words for.
            NotSupportedError: something that only the Responses API does.
            ModelResponseError: the server reported that it failed.
            ModelProtocolError: a broken frame, a cut connection, or an end in the middle.
            ModelTimeoutError: silence, or `model_settings.timeout` is over.
            openai.OpenAIError: what the client says of connections and statuses.
        """
        _refuse_state(previous_response_id, conversation_id, prompt)
        request = self._request(
            system_instructions, input, model_settings, tools, output_schema, handoffs, stream=True
        )
        reader = FrameReader(chunks)
        stream = await self._transport.stream(request, reader)
        fold = ChatStream(self.model)
        try:
            while not reader.done and (frames := await stream.next()) is not None:
                batch = fold.feed(frames.values)
                if batch.events:
                    yield batch
                if fold.error is not None:
                    raise fold.error
            if not reader.count or not (reader.done or fold.finished):
                raise stream.ended_early(
                    f"The model's stream ended in the middle, after {reader.count} chunks."
                )
            events, types = fold.finish()
            yield RawBatch([*events[:-1], signed(cast("bytes", events[-1]), stream.request_id)], types)
            await stream.finish()
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
        stream: bool,
    ) -> Request:
        definitions = [_tool(tool) for tool in tools] + [_handoff(handoff) for handoff in handoffs]
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages(instructions, plain_items(input), replays=self._is_replayed),
            "tools": definitions or None,
            "tool_choice": _tool_choice(settings.tool_choice),
            "parallel_tool_calls": settings.parallel_tool_calls if definitions else None,
            "response_format": _response_format(output_schema),
            "stream": True if stream else None,
            "stream_options": {"include_usage": True} if stream and self._asks_usage(settings) else None,
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "frequency_penalty": settings.frequency_penalty,
            "presence_penalty": settings.presence_penalty,
            "max_tokens": settings.max_tokens,
            "logprobs": True if settings.top_logprobs is not None else None,
            "top_logprobs": settings.top_logprobs,
            "reasoning_effort": _reasoning_effort(settings.reasoning),
            "verbosity": settings.verbosity,
            "metadata": settings.metadata,
            "store": settings.store,
            "prompt_cache_retention": settings.prompt_cache_retention,
            "prompt_cache_options": settings.prompt_cache_options,
        }
        return build_request("/chat/completions", body, settings)

    def _asks_usage(self, settings: ModelSettings) -> bool:
        if settings.include_usage is not None:
            return settings.include_usage
        return not self._transport.client.base_url.host.endswith(_REFUSE_STREAM_OPTIONS)

    def _is_replayed(self, item: dict[str, Any]) -> bool:
        data = cast("Mapping[str, Any]", item.get("provider_data") or {})
        source = ReasoningContentSource(item, data.get("model"), data)
        return self._replays(
            ReasoningContentReplayContext(self.model, str(self._transport.client.base_url), source)
        )


def _refuse_state(previous_response_id: str | None, conversation_id: str | None, prompt: Any) -> None:
    for name, value in {
        "previous_response_id": previous_response_id,
        "conversation_id": conversation_id,
        "prompt": prompt,
    }.items():
        if value is not None:
            raise NotSupportedError(
                f"{name}: Chat Completions keeps nothing on the server. Use the Responses API "
                "(OpenAIResponsesModel), or a session to keep the history here."
            )


def _tool(tool: Any) -> dict[str, Any]:
    if not hasattr(tool, "params_json_schema"):
        raise UserError(
            f"{type(tool).__name__} {getattr(tool, 'name', '')!r} runs at the model's host, which Chat Completions "
            "has no words for. Use the Responses API (OpenAIResponsesModel), or leave the tool out."
        )
    return _function(tool.name, tool.description, tool.params_json_schema, tool.strict_json_schema)


def _handoff(handoff: Any) -> dict[str, Any]:
    return _function(
        handoff.tool_name, handoff.tool_description, handoff.input_json_schema, handoff.strict_json_schema
    )


def _function(name: str, description: str | None, parameters: Any, strict: bool) -> dict[str, Any]:
    function = {"name": name, "description": description or "", "parameters": parameters, "strict": strict}
    return {"type": "function", "function": function}


def _tool_choice(choice: str | MCPToolChoice | None) -> Any:
    if choice is None or choice in ("auto", "required", "none"):
        return choice
    if isinstance(choice, str):
        return {"type": "function", "function": {"name": choice}}
    raise NotSupportedError(
        f"tool_choice names {choice.name!r} of an MCP server that the model's host talks to: only the Responses API "
        "does that (OpenAIResponsesModel)."
    )


def _response_format(output_schema: AgentOutputSchemaBase | None) -> dict[str, Any] | None:
    if output_schema is None or output_schema.is_plain_text():
        return None
    schema = {
        "name": "final_output",
        "strict": output_schema.is_strict_json_schema(),
        "schema": output_schema.json_schema(),
    }
    return {"type": "json_schema", "json_schema": schema}


def _reasoning_effort(reasoning: Any) -> str | None:
    if isinstance(reasoning, Mapping):
        return cast("Mapping[str, Any]", reasoning).get("effort")
    return getattr(reasoning, "effort", None)


def _completion(data: bytes) -> Chunk:
    try:
        chunk = _whole.decode(codec.clean(data))
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ModelProtocolError(
            f"The model's server sent no chat completion ({error}): {excerpt(data)}"
        ) from None
    if chunk.error:
        raise response_error(chunk.error)
    if not chunk.choices:
        raise ModelProtocolError(
            f"The model's server sent a chat completion without choices: {excerpt(data)}"
        )
    return chunk


def _typed(response: dict[str, Any]) -> Any:
    from openai.types.responses import Response

    return raw.build(Response, response)
