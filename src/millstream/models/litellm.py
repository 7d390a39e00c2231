"""Models of any vendor by way of LiteLLM: the extra `litellm`.

Rules of this file:

1. LiteLLM takes seconds to import, so this happens in a thread, when the first call is made.
   It is kept from fetching its price list from the network meanwhile, and from printing.
2. Its chunks are written as the JSON that they would be on the wire of Chat Completions, and
   go the same way from there: one fold makes the events, whoever the vendor is.
3. It ends a stream that was cut off as if it were whole, and fills in usage that no server
   sent. What it has really heard it tells beside the stream, and this is what counts.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from millstream import codec
from millstream.clock import current_clock, time_limit
from millstream.config.defaults import get_default_model
from millstream.errors import (
    MissingExtraError,
    ModelProtocolError,
    ModelTimeoutError,
    UnknownModelError,
)
from millstream.items import ModelResponse
from millstream.models.batched import BatchedModel
from millstream.models.chat_messages import (
    ShouldReplayReasoningContent,
    replay_to_deepseek,
)
from millstream.models.chat_request import ChatRequests, refuse_state
from millstream.models.chat_stream import ChatStream, Chunk, chunk_of, whole_response
from millstream.models.promise import Model, ModelProvider, ModelTracing, RawBatch
from millstream.models.request import Request
from millstream.models.transport import IDLE_TIMEOUT, Patience

if TYPE_CHECKING:
    from millstream.agent import AgentOutputSchemaBase
    from millstream.config import ModelSettings
    from millstream.handoff import Handoff
    from millstream.items import TResponseInputItem
    from millstream.tool import Tool

_PRICES = "LITELLM_LOCAL_MODEL_COST_MAP"


def require_litellm(what: str) -> None:
    """Make sure that LiteLLM is there, without importing it.

    Raises:
        MissingExtraError: it is not installed; `what` needs it.
    """
    if importlib.util.find_spec("litellm") is None:
        raise MissingExtraError(what, "litellm")


class LitellmModel(ChatRequests, BatchedModel):
    """A model by its name at LiteLLM, such as "anthropic/claude-sonnet-4-5".

    It streams the events of the Responses API, as every model does; see
    `OpenAIChatCompletionsModel`, whose way of putting things it shares. Usage that the server
    did not send is left to be estimated, not taken from LiteLLM's own guess.

    Args:
        model: the name, with the vendor before its first slash.
        base_url: the server, where it is not the vendor's own.
        api_key: the key; else LiteLLM looks for the vendor's variable (`ANTHROPIC_API_KEY`).
        should_replay_reasoning_content: see `OpenAIChatCompletionsModel`. Thoughts that their
            model has signed go back to it in any case.
        idle_timeout: seconds without a piece in a stream after which it ends with
            `ModelTimeoutError`; None for never.

    Raises:
        MissingExtraError: LiteLLM is not installed.
    """

    traced_as = "generation"

    def __init__(
        self,
        model: str,
        base_url: str | None = None,
        api_key: str | None = None,
        should_replay_reasoning_content: ShouldReplayReasoningContent | None = None,
        *,
        idle_timeout: float | None = IDLE_TIMEOUT,
    ) -> None:
        require_litellm(f"The model {'litellm/' + model!r}")
        self.model = model
        self.base_url = base_url
        self.api_key = api_key
        self._replays = should_replay_reasoning_content or replay_to_deepseek
        self._idle_timeout = idle_timeout

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
            UnknownModelError: LiteLLM knows no vendor for the name.
            ModelProtocolError: the answer is not a chat completion.
            ModelTimeoutError: `model_settings.timeout` is over.
            openai.OpenAIError: what LiteLLM says of connections and statuses; its errors are
                children of openai's.
        """
        refuse_state(previous_response_id, conversation_id, prompt)
        request = self._request(
            system_instructions, input, model_settings, tools, output_schema, handoffs, stream=False
        )
        answer = await self._ask(request)
        return whole_response(
            self.model, _json(answer), keep_raw_usage=bool(model_settings.preserve_raw_usage)
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
        """The answer as it forms, one item per chunk of LiteLLM's.

        Raises:
            InputItemError: an input item that this wire has no words for.
            NotSupportedError: something that only the Responses API does.
            UnknownModelError: LiteLLM knows no vendor for the name.
            ModelProtocolError: a broken piece, a cut connection, or an end in the middle.
            ModelTimeoutError: silence, or `model_settings.timeout` is over.
            openai.OpenAIError: what LiteLLM says of connections and statuses; its errors are
                children of openai's.
        """
        refuse_state(previous_response_id, conversation_id, prompt)
        request = self._request(
            system_instructions, input, model_settings, tools, output_schema, handoffs, stream=True
        )
        clock = current_clock()
        started = clock.monotonic()
        stream = _Stream(await self._ask(request, stream=True))
        patience = Patience(clock, self._idle_timeout, request.timeout, spent=clock.monotonic() - started)
        fold = ChatStream(self.model, created=current_clock().time())
        try:
            while (chunk := await patience.wait(stream.next)) is not None:
                batch = fold.feed([chunk])
                if batch.events:
                    yield batch
                if fold.error is not None:
                    raise fold.error
            stream.check_end()
            yield fold.finish()
        finally:
            patience.close()
            await stream.close()

    def _server(self) -> str | None:
        return self.base_url

    async def _ask(self, request: Request, *, stream: bool = False) -> Any:
        """LiteLLM's answer to `request`: its response, or its stream."""
        own = {
            "base_url": self.base_url,
            "api_key": self.api_key,
            "extra_headers": request.headers,
            "extra_query": request.query,
            "timeout": request.client_timeout,
            "num_retries": 0 if request.tries_once else None,
        }
        given = {**request.body, **{name: value for name, value in own.items() if value is not None}}
        async with time_limit(current_clock(), request.timeout, ModelTimeoutError(request.timeout or 0.0)):
            litellm = await _load()
            try:
                answer = await litellm.acompletion(**given)
                if stream and getattr(answer, "completion_stream", answer) is None:
                    await answer.fetch_stream()  # for some vendors the request is left to the first chunk
                return answer
            except litellm.BadRequestError as error:
                if "LLM Provider NOT provided" not in str(error):
                    raise
                raise UnknownModelError(
                    f"LiteLLM knows no vendor for the model {self.model!r}: put it before a slash, "
                    f"as in 'litellm/openai/{self.model}'."
                ) from error


class LitellmProvider(ModelProvider):
    """Models by their names at LiteLLM: what serves the names that begin with `litellm/`.

    Keys and servers are those of LiteLLM's own variables; where they are to be given, make a
    `LitellmModel`.
    """

    def get_model(self, model_name: str | None) -> Model:
        """The model of that name; the default one (`get_default_model()`) for None.

        Raises:
            MissingExtraError: LiteLLM is not installed.
            UnknownModelError: the name is empty.
        """
        name = get_default_model() if model_name is None else model_name
        if not name.strip():
            raise UnknownModelError("The name of the model is empty.")
        return LitellmModel(name)


class _Stream:
    """LiteLLM's stream, and what it really heard."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._response = _response_beneath(getattr(stream, "completion_stream", None))
        self._count = 0

    async def next(self) -> Chunk | None:
        """The next chunk; None at the end."""
        try:
            chunk = await anext(self._stream, None)
        except Exception as error:
            if not self._count:
                raise
            raise ModelProtocolError(
                f"The model's stream broke off after {self._count} chunks ({type(error).__name__}: {error})."
            ) from error
        if chunk is None:
            return None
        self._count += 1
        read = chunk_of(_json(chunk))
        if read.usage and not self._heard_usage():
            read.usage = None
        return read

    def check_end(self) -> None:
        """Whether the answer is whole.

        Raises:
            ModelProtocolError: no chunk said why it ends.
        """
        reasons = [getattr(self._stream, name, "?") for name in _REASONS]
        if not any(reasons):
            raise ModelProtocolError(f"The model's stream ended in the middle, after {self._count} chunks.")

    async def close(self) -> None:
        """Close the stream, and the connection where the answer has not been read to its end."""
        close = getattr(self._stream, "aclose", None)
        if close is not None:
            await close()
        if self._response is not None:
            await self._response.aclose()

    def _heard_usage(self) -> bool:
        return any(getattr(chunk, "usage", None) for chunk in getattr(self._stream, "chunks", [True]))


def _response_beneath(stream: Any) -> Any:
    """The HTTP response that a vendor's iterator reads, if it can be found.

    Most of these iterators cannot be closed: they hold a generator of lines, and only its frame
    holds the response. It has to be looked for early, as a generator that was cancelled has no frame.
    """
    level: list[Any] = [stream]
    for _ in range(_DEPTH):
        below: list[Any] = []
        for each in level:
            frame = getattr(each, "ag_frame", None)
            below += (frame.f_locals if frame is not None else getattr(each, "__dict__", {})).values()
        for each in below:
            if hasattr(each, "aiter_raw") and hasattr(each, "aclose"):
                return each
        level = below
    return None


_DEPTH = 4

_REASONS = ("received_finish_reason", "intermittent_finish_reason")
"""Where LiteLLM's stream keeps why the vendor said that the answer ends."""


def _json(answer: Any) -> bytes:
    """A chunk or a response of LiteLLM's as JSON. Total, as what vendors send may be anything."""
    return codec.encode(answer.model_dump(exclude_none=True, warnings=False))


_litellm: Any = None


async def _load() -> Any:
    """LiteLLM, ready to be asked."""
    global _litellm
    if _litellm is None:
        _litellm = await asyncio.to_thread(_import)
    return _litellm


def _import() -> Any:
    ours = _PRICES not in os.environ
    if ours:
        os.environ[_PRICES] = "True"
    try:
        litellm: Any = importlib.import_module("litellm")
    finally:
        if ours:
            os.environ.pop(_PRICES, None)
    litellm.suppress_debug_info = True  # it prints advice where an error is raised
    litellm.token_counter(model="", text="")  # a quarter of a second, which its first call would take else
    return litellm
