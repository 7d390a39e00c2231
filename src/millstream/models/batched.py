"""The part that all models share which read their answer in batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from millstream import raw
from millstream.clock import current_clock
from millstream.models.promise import Model, ModelTracing, RawBatch
from millstream.models.retry import advice_of_client
from millstream.models.transport import Transport

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import ModelRetryAdvice, ModelRetryAdviceRequest, ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseInputItem, TResponseStreamEvent
    from millstream.tool import Tool


class BatchedModel(Model):
    """A model whose stream is `stream_batches`, of which `stream_response` is derived."""

    model: str

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.model!r})"

    @abstractmethod
    def stream_batches(
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
        """The answer as it forms, one item per read of the socket."""

    # By position too, as in the SDK; the checker wants the names that it is given all the same.
    async def stream_response(  # pyright: ignore[reportIncompatibleMethodOverride]
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
    ) -> AsyncGenerator[TResponseStreamEvent]:
        """Ask for the answer as it forms, one typed event at a time. The same errors as `stream_batches`."""
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

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """What the status, the headers or the kind of a failure say of trying again."""
        return advice_of_client(request, now=current_clock().time())


class ClientModel(BatchedModel):
    """Such a model behind an `AsyncOpenAI`."""

    def __init__(self, model: str, openai_client: AsyncOpenAI, *, idle_timeout: float | None) -> None:
        self.model = model
        self._transport = Transport(openai_client, idle_timeout=idle_timeout)

    async def close(self) -> None:
        """Close the connections that were opened for the model's client. An HTTP client of its own stays open."""
        await self._transport.close()


def signed(event: bytes, request_id: str | None) -> bytes | TResponseStreamEvent:
    """The last event of a response, as an object that carries the request's id where there is one."""
    if request_id is None:
        return event
    typed: Any = raw.decode(event)
    typed.response._request_id = request_id
    return typed
