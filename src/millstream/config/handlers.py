"""Error handlers: make an output of what would else end a run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias

from typing_extensions import TypedDict

from millstream.context import MaybeAwaitable, RunContextWrapper, TContext

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.errors import MaxTurnsExceeded, ModelBehaviorError, ModelRefusalError
    from millstream.items import ModelResponse, RunItem, TResponseInputItem


@dataclass
class RunErrorData:
    """How far the run had come."""

    input: str | list[TResponseInputItem]
    new_items: list[RunItem]
    history: list[TResponseInputItem]
    """The input and all that was added, as input of another run."""
    output: list[TResponseInputItem]
    """What was added, as input of another run."""
    raw_responses: list[ModelResponse]
    last_agent: Agent[Any]


@dataclass
class RunErrorHandlerInput(Generic[TContext]):
    """What an error handler is called with."""

    error: MaxTurnsExceeded | ModelRefusalError | ModelBehaviorError
    context: RunContextWrapper[TContext]
    run_data: RunErrorData


@dataclass
class RunErrorHandlerResult:
    """What the run ends with instead."""

    final_output: Any
    include_in_history: bool = True
    """Whether the output also becomes a message of the run."""


RunErrorHandler: TypeAlias = Callable[
    [RunErrorHandlerInput[TContext]], MaybeAwaitable[RunErrorHandlerResult | dict[str, Any] | Any | None]
]
"""Gives the output to end with (a result, a dict of its fields, or the output itself), or None to fail."""


class RunErrorHandlers(TypedDict, Generic[TContext], total=False):
    """Handlers by the kind of error."""

    max_turns: RunErrorHandler[TContext]
    model_refusal: RunErrorHandler[TContext]
    invalid_final_output: RunErrorHandler[TContext]
