"""How far a run has come: what its loop changes and its handle shows."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from millstream.errors import RunErrorDetails
from millstream.items import ItemHelpers, ModelResponse, Releasable, RunItem, TResponseInputItem

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import RunContextWrapper
    from millstream.run.turn import Turn


@dataclass
class RunProgress(Releasable):
    """The state of one run. Changed by its loop alone, read by anybody at any time."""

    run_id: str
    input: str | list[TResponseInputItem]
    """The input, as handoff filters have left it."""
    current_agent: Agent[Any]
    context_wrapper: RunContextWrapper[Any]
    max_turns: int | None
    new_items: list[RunItem] = field(default_factory=list["RunItem"])
    """Everything the run produced, whatever filters kept from the model."""
    model_items: list[RunItem] = field(default_factory=list["RunItem"])
    """What of it the model is given in its next call."""
    input_has: list[RunItem] = field(default_factory=list["RunItem"])
    """What of it stands in `input` already, word for word, since a handoff nested the history."""
    raw_responses: list[ModelResponse] = field(default_factory=list["ModelResponse"])
    current_turn: int = 0
    turn: Turn | None = None
    """What the model has said in that turn, in the try that counts; None before the first, and when the run is over."""
    final_output: Any = None
    interruptions: list[Any] = field(default_factory=list[Any])
    stored_items: int | None = None
    """How many of `new_items` the session has, behind the input; None where it has not even that, or there is none."""
    partial_text: str = ""
    omits_reasoning_ids: bool = False
    """Whether reasoning loses its id where it becomes input again."""
    have_used_tools: set[int] = field(default_factory=set[int])
    """The `id()` of each agent that has called a tool in this run, or handed over."""

    def add(self, item: RunItem) -> None:
        """Take in a new item."""
        self.new_items.append(item)
        self.model_items.append(item)

    def input_items(self) -> list[TResponseInputItem]:
        """The input of the next model call."""
        return [
            *ItemHelpers.input_to_new_input_list(self.input),
            *self.as_input(self.model_items),
        ]

    def as_input(self, items: Iterable[RunItem]) -> list[TResponseInputItem]:
        """`items` as input of a model call."""
        given = [item.to_input_item() for item in items]
        if self.omits_reasoning_ids:
            for each in cast("list[dict[str, Any]]", given):
                if each.get("type") == "reasoning":
                    each.pop("id", None)
        return given

    def error_details(self) -> RunErrorDetails:
        """What an exception that ends the run carries as `run_data`."""
        return RunErrorDetails(
            input=self.input,
            new_items=list(self.new_items),
            raw_responses=list(self.raw_responses),
            last_agent=self.current_agent,
            context_wrapper=self.context_wrapper,
            input_guardrail_results=[],
            output_guardrail_results=[],
            partial_text=self.partial_text,
            run_id=self.run_id,
        )


def new_run_id() -> str:
    """An id that cannot be guessed: 128 random bits."""
    return f"run_{secrets.token_hex(16)}"
