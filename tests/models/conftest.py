"""A model server, and the shortest way to ask a model something."""

import inspect
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import Any

import pytest

from millstream.config import ModelSettings
from millstream.models.promise import Model, ModelTracing, RawBatch
from millstream.testing.model_server import ModelServer


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


@pytest.fixture
async def litellm_ends() -> AsyncIterator[None]:
    """LiteLLM keeps clients and a queue of what is to be logged: left alone, they would be a later test's warnings."""
    yield
    litellm: Any = sys.modules.get("litellm")
    if litellm is None:
        return
    from litellm.litellm_core_utils.logging_worker import GLOBAL_LOGGING_WORKER

    if GLOBAL_LOGGING_WORKER._queue is not None:
        await GLOBAL_LOGGING_WORKER._queue.join()
    cache = litellm.in_memory_llm_clients_cache
    clients = [*cache.cache_dict.values(), vars(litellm).pop("module_level_aclient", None)]
    cache.flush_cache()
    for client in clients:
        closing = client.close() if hasattr(client, "close") else None
        if inspect.isawaitable(closing):
            await closing


def asked(input: Any = "hi", **given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a model call, where only what a test is about is said."""
    positional = (
        given.pop("instructions", None),
        input,
        given.pop("settings", None) or ModelSettings(),
        given.pop("tools", []),
        given.pop("output_schema", None),
        given.pop("handoffs", []),
        ModelTracing.DISABLED,
    )
    state: dict[str, Any] = dict.fromkeys(("previous_response_id", "conversation_id", "prompt"))
    return positional, {**state, **given}


def batches(model: Model, input: Any = "hi", **given: Any) -> AsyncGenerator[RawBatch]:
    args, kwargs = asked(input, **given)
    return model.stream_batches(*args, **kwargs)  # type: ignore[return-value]


async def streamed(model: Model, input: Any = "hi", **given: Any) -> list[Any]:
    """All typed events of an answer."""
    args, kwargs = asked(input, **given)
    return [event async for event in model.stream_response(*args, **kwargs)]


async def whole(model: Model, input: Any = "hi", **given: Any) -> Any:
    args, kwargs = asked(input, **given)
    return await model.get_response(*args, **kwargs)


async def types_into(types: list[str], stream: AsyncGenerator[RawBatch]) -> None:
    """Read a stream to its end, or to where it raises; `types` has what came till then."""
    async for batch in stream:
        types += batch.types
