"""Models behind the Chat Completions API, which most other servers speak."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any, cast

from millstream.clock import current_clock
from millstream.errors import NotSupportedError
from millstream.items import ModelResponse
from millstream.models.batched import ClientModel, signed
from millstream.models.chat_messages import (
    ShouldReplayReasoningContent,
    replay_to_deepseek,
)
from millstream.models.chat_request import ChatRequests, refuse_state
from millstream.models.chat_stream import ChatStream, chunks, whole_response
from millstream.models.promise import ModelTracing, RawBatch
from millstream.models.transport import IDLE_TIMEOUT
from millstream.models.wire import FrameReader

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseInputItem
    from millstream.tool import Tool

_REFUSE_STREAM_OPTIONS = ("mistral.ai",)
"""Hosts that answer 422 to `stream_options`; they send their usage unasked."""


class OpenAIChatCompletionsModel(ChatRequests, ClientModel):
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

    traced_as = "generation"

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
        refuse_state(previous_response_id, conversation_id, prompt)
        request = self._request(
            system_instructions, input, model_settings, tools, output_schema, handoffs, stream=False
        )
        data, request_id = await self._transport.fetch(request)
        return whole_response(
            self.model, data, request_id=request_id, keep_raw_usage=bool(model_settings.preserve_raw_usage)
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
        refuse_state(previous_response_id, conversation_id, prompt)
        request = self._request(
            system_instructions, input, model_settings, tools, output_schema, handoffs, stream=True
        )
        reader = FrameReader(chunks)
        stream = await self._transport.stream(request, reader)
        fold = ChatStream(self.model, created=current_clock().time())
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

    def _server(self) -> str | None:
        return str(self._transport.client.base_url)

    def _asks_usage(self, settings: ModelSettings) -> bool:
        if settings.include_usage is not None:
            return settings.include_usage
        return not self._transport.client.base_url.host.endswith(_REFUSE_STREAM_OPTIONS)
