"""How far a run has come: what its loop changes and its handle shows."""

from __future__ import annotations

import copy
import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from millstream.errors import AgentsException, RunErrorDetails
from millstream.items import (
    AgentRef,
    InputItem,
    ItemHelpers,
    ModelResponse,
    Releasable,
    RunItem,
    ToolApprovalItem,
    ToolCallOutputItem,
    TResponseInputItem,
    call_id_of,
)
from millstream.run.conversation import Conversation
from millstream.usage import Usage

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import RunContextWrapper
    from millstream.guardrail import (
        InputGuardrailResult,
        OutputGuardrailResult,
        ToolInputGuardrailResult,
        ToolOutputGuardrailResult,
    )
    from millstream.log.promise import EventLog
    from millstream.run.turn import Turn


Outcome: TypeAlias = Literal["running", "paused", "completed", "failed", "cancelled"]
"""How a run was left; "running" where its process died."""


@dataclass
class Left:
    """How and where a run was left that is done, as far as its process goes. All states of that moment share it."""

    outcome: Outcome
    position: int = 0
    """The last position of its log."""
    log: EventLog | None = None
    """That log, where it is at hand."""
    is_durable: bool = False
    """Whether it stands in a log that other processes can go on with, so that the run goes on there."""
    resumed_by: str | None = None
    """The run that went on from here: there is one at most."""


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
    waiting: dict[int, ToolApprovalItem] = field(default_factory=dict[int, "ToolApprovalItem"])
    """The calls of this turn that wait for a decision, by their place among its calls."""
    nested: dict[int, RunProgress] = field(default_factory=dict[int, "RunProgress"])
    """The runs that are paused inside of a call of this turn, by its place."""
    interruptions: list[ToolApprovalItem] = field(default_factory=list["ToolApprovalItem"])
    """Whatever waits for a decision, in nested runs too: what the run pauses for."""
    pending_input: list[TResponseInputItem] = field(default_factory=list["TResponseInputItem"])
    """Input that was added, for the next model call."""
    conversation: Conversation = field(default_factory=Conversation)
    left: Left | None = None
    """Where the run was left; None while it goes on."""
    goes_on_with: str | None = None
    """The run that this one goes on with: itself, where it was paused and its log is at hand."""
    input_guardrail_results: list[InputGuardrailResult] = field(default_factory=list["InputGuardrailResult"])
    """The verdicts of guardrails, as the three below, in the order in which they came."""
    output_guardrail_results: list[OutputGuardrailResult] = field(
        default_factory=list["OutputGuardrailResult"]
    )
    tool_input_guardrail_results: list[ToolInputGuardrailResult] = field(
        default_factory=list["ToolInputGuardrailResult"]
    )
    tool_output_guardrail_results: list[ToolOutputGuardrailResult] = field(
        default_factory=list["ToolOutputGuardrailResult"]
    )
    stored_items: int | None = None
    """How many of `new_items` the session has, behind the input; None where it has not even that, or there is none."""
    heard: int = 0
    """The number of the last command in its mail that was followed."""
    used: Usage = field(default_factory=Usage)
    """What a nested run has used, with those nested in it: that of a whole tree is in the context."""
    partial_text: str = ""
    omits_reasoning_ids: bool = False
    """Whether reasoning loses its id where it becomes input again."""
    have_used_tools: dict[int, str] = field(default_factory=dict[int, str])
    """The name of each agent that has called a tool in this run, or handed over, by its `id()`."""

    @property
    def last_agent(self) -> Agent[Any]:
        """The agent that acted last, where the run is over; else the one that is acting.

        Raises:
            AgentsException: it was released, and is gone.
        """
        agent: Any = self.current_agent
        if isinstance(agent, AgentRef):
            raise AgentsException(
                f"The agent {agent.name!r} is gone: release_agents() let go of it, and nobody else kept it."
            )
        return agent

    def add(self, item: RunItem) -> None:
        """Take in a new item."""
        self.new_items.append(item)
        self.model_items.append(item)

    def add_input(self, items: Iterable[TResponseInputItem]) -> list[InputItem]:
        """Take in input that came while the run went on; as items, not yet written."""
        added = [InputItem(self.current_agent, each) for each in items]
        for item in added:
            self.add(item)
        return added

    def waits_for_nothing(self) -> None:
        """No call waits for a decision any more, and no run inside of one."""
        self.waiting, self.nested, self.interruptions = {}, {}, []

    def forget(self, items: Iterable[RunItem]) -> None:
        """Take `items` of the present turn, and its text that is in none, out of the history: nobody was to see them.

        Where the model's server keeps the history and has the turn, they stay: it wants answers to its calls.
        """
        turn = self.turn
        if turn is None or (turn.response is not None and self.conversation.tracks):
            return
        gone = list(items)
        turn.forget(gone)
        ids = set(map(id, gone))
        for kept in (self.new_items, self.model_items):
            kept[:] = [item for item in kept if id(item) not in ids]

    def answers_of(self, turn: Turn) -> dict[int, ToolCallOutputItem]:
        """The answers that calls of `turn` have, by the place of the call."""
        found: dict[int, ToolCallOutputItem] = {}
        outputs = [i for i in turn.first_and_after(self.new_items) if isinstance(i, ToolCallOutputItem)]
        for place, call in enumerate(turn.calls()):
            if place in self.waiting or place in self.nested:
                continue
            item = next((each for each in outputs if call_id_of(each.raw_item) == call_id_of(call)), None)
            if item is not None:
                outputs.remove(item)
                found[place] = item
        return found

    def all_waiting(self) -> list[ToolApprovalItem]:
        """Whatever waits for a decision, in the order of the calls; a call in which a run is paused has that run's."""
        places = sorted({*self.waiting, *self.nested})
        return [
            item
            for place in places
            for item in ([self.waiting[place]] if place in self.waiting else self.nested[place].interruptions)
        ]

    def copy(self) -> RunProgress:
        """The same state, which goes its own way from here on. How the run was left is one for both.

        Raises:
            AgentsException: the agent was released, and is gone.
        """
        agent = self.last_agent
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        own = {name: copy.copy(value) for name, value in values.items() if type(value) in (list, dict)}
        return replace(
            self,
            **own,
            current_agent=agent,
            context_wrapper=self.context_wrapper.copy(),
            used=copy.deepcopy(self.used),
            conversation=replace(self.conversation),
        )

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
            input_guardrail_results=list(self.input_guardrail_results),
            output_guardrail_results=list(self.output_guardrail_results),
            tool_input_guardrail_results=list(self.tool_input_guardrail_results),
            tool_output_guardrail_results=list(self.tool_output_guardrail_results),
            partial_text=self.partial_text,
            run_id=self.run_id,
            progress=self,
        )


def new_run_id() -> str:
    """An id that cannot be guessed: 128 random bits."""
    return f"run_{secrets.token_hex(16)}"
