"""A model server, and the shortest way to ask a model something."""

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import pytest

from millstream.config import ModelSettings
from millstream.models.promise import Model, ModelTracing, RawBatch
from millstream.testing.model_server import ModelServer


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


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
