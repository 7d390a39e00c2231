"""What a model promises to a run, and how a name becomes a model."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from millstream.models.estimate import estimate_tokens

if TYPE_CHECKING:
    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import ModelRetryAdvice, ModelRetryAdviceRequest, ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import ModelResponse, TResponseInputItem, TResponseStreamEvent
    from millstream.tool import Tool


class ModelTracing(enum.Enum):
    """How much of a model call goes into a trace."""

    DISABLED = 0
    ENABLED = 1
    ENABLED_WITHOUT_DATA = 2

    def is_disabled(self) -> bool:
        """Whether nothing is traced."""
        return self is ModelTracing.DISABLED

    def include_data(self) -> bool:
        """Whether inputs and outputs are traced too."""
        return self is ModelTracing.ENABLED


class RawBatch(NamedTuple):
    """The model events that arrived with one read of the model's socket, in order.

    `types[i]` is the type of `events[i]`. An event is its wire JSON (checked: one line of
    strict UTF-8, `codec.is_clean`) or a typed object. The event that ends a response is an
    object where the server named the request: its `response._request_id`.
    """

    events: list[bytes | TResponseStreamEvent]
    types: list[str]


class Model(ABC):
    """A model: asked with everything it is to know, it answers whole or as a stream.

    A stream is the events of the OpenAI Responses API, whatever the wire beneath. Its last
    event is `response.completed` or `response.incomplete`, or it raises; where a server reports
    a failure, its `response.failed` or `error` event comes first, then `ModelResponseError`.

    Closing the iterator closes the connection to the model at once. Iterate past the last
    event to its end: only then can the connection be used for the next call.
    """

    traced_as: Literal["generation", "response"] | None = None
    """The span that a run opens around a call. None: the model opens its own, if any, as `tracing` tells it."""

    @abstractmethod
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
        """Ask for the whole answer."""

    @abstractmethod
    def stream_response(
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
    ) -> AsyncIterator[TResponseStreamEvent]:
        """Ask for the answer as it forms, one typed event at a time."""

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
    ) -> AsyncIterator[RawBatch]:
        """The same stream, one item per read of the socket: this is what a run reads.

        A model of your own need not have it: by default each event of `stream_response` is a
        batch of one. A model that reads a socket gives what one read brought, undecoded, and
        so pays per read what would else be paid per token.
        """
        stream = self.stream_response(
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
            async for event in stream:
                yield RawBatch([event], [event.type])
        finally:
            aclose = getattr(stream, "aclose", None)
            if aclose is not None:
                await aclose()

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """What is known here of a failure of this model: for the policy of `ModelSettings.retry`. None for nothing."""
        return None

    def count_tokens(self, text: str) -> int:
        """About how many tokens `text` is, for usage that the server does not send.

        By default `millstream.models.estimate.estimate_tokens`, which has no tokenizer; a model of
        your own may know better. A run asks this of each text of a call, and marks the sums as
        `estimated`; 0 for every text is no estimate at all.
        """
        return estimate_tokens(text)

    async def close(self) -> None:
        """Release what the model holds. Safe to call twice."""


class ModelProvider(ABC):
    """Finds models by name."""

    @abstractmethod
    def get_model(self, model_name: str | None) -> Model:
        """The model of that name; the default one for None.

        Raises:
            UnknownModelError: nobody serves it.
        """

    async def aclose(self) -> None:
        """Release what the provider's models hold. Safe to call twice."""
