"""What the results of all runs have in common, and the result of one that is over."""

from __future__ import annotations

from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from millstream.config import DEFAULT_MAX_TURNS
from millstream.context import ToolContext
from millstream.items import ItemHelpers, ModelResponse, RunItem, TResponseInputItem
from millstream.run.state import RunProgress
from millstream.run_state import RunState

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import RunContextWrapper
    from millstream.guardrail import (
        InputGuardrailResult,
        OutputGuardrailResult,
        ToolInputGuardrailResult,
        ToolOutputGuardrailResult,
    )

T = TypeVar("T")


@dataclass(frozen=True)
class AgentToolInvocation:
    """The call of an agent that is a tool."""

    tool_name: str
    tool_call_id: str
    tool_arguments: str


class RunResultBase:
    """What the results of plain and streamed runs have in common."""

    input: str | list[TResponseInputItem]
    """The input of the run, as handoff filters have left it."""
    new_items: list[RunItem]
    """Everything the run produced, in order."""
    raw_responses: list[ModelResponse]
    """The model's whole answers, one per call."""
    final_output: Any
    """The output; None while there is none."""
    context_wrapper: RunContextWrapper[Any]
    input_guardrail_results: list[InputGuardrailResult]
    """The verdicts of guardrails, as the three below, in the order in which they came."""
    output_guardrail_results: list[OutputGuardrailResult]
    tool_input_guardrail_results: list[ToolInputGuardrailResult]
    tool_output_guardrail_results: list[ToolOutputGuardrailResult]
    interruptions: list[Any]
    """Tool calls that wait for approval."""
    max_turns: int | None
    _progress: RunProgress

    @property
    def last_agent(self) -> Agent[Any]:
        """The agent that acted last.

        Raises:
            AgentsException: it was released, and is gone.
        """
        return self._progress.last_agent

    @property
    def last_response_id(self) -> str | None:
        """The id of the model's last response, for `previous_response_id` of a later run."""
        return self.raw_responses[-1].response_id if self.raw_responses else None

    @property
    def run_id(self) -> str:
        """Names the run in its log and in every line that is logged of it."""
        return self._progress.run_id

    def final_output_as(self, cls: type[T], raise_if_incorrect_type: bool = False) -> T:
        """The final output, typed as `cls`.

        Raises:
            TypeError: it is not one, and `raise_if_incorrect_type` is set.
        """
        if raise_if_incorrect_type and not isinstance(self.final_output, cls):
            raise TypeError(f"Final output is not of type {cls.__name__}")
        return cast("T", self.final_output)

    def to_input_list(
        self, *, mode: Literal["preserve_all", "normalized"] = "preserve_all"
    ) -> list[TResponseInputItem]:
        """Input and everything new, as input of a run that goes on from here.

        Args:
            mode: "preserve_all" has every item; "normalized" what the model was given, where
                a handoff filter changed that.
        """
        items = self._progress.model_items
        if mode == "preserve_all":
            told = {id(item) for item in self._progress.input_has}
            items = [item for item in self.new_items if id(item) not in told]
        return [
            *ItemHelpers.input_to_new_input_list(self.input),
            *self._progress.as_input(item for item in items if item.type != "tool_approval_item"),
        ]

    @property
    def agent_tool_invocation(self) -> AgentToolInvocation | None:
        """The call that this run answers, where an agent was called as a tool."""
        context = self.context_wrapper
        if not isinstance(context, ToolContext):
            return None
        return AgentToolInvocation(context.tool_name, context.tool_call_id, context.tool_arguments)

    def release_agents(self, *, release_new_items: bool = True) -> None:
        """Hold the agents weakly from here on, so that keeping the result does not keep them.

        Items and `last_agent` show an agent for as long as somebody else keeps it; then an item
        shows an `AgentRef` with its name. The log of a handle keeps them while the handle lives.

        Args:
            release_new_items: whether the items let go of them too.
        """
        if release_new_items:
            for item in self.new_items:
                item.release_agent()
        if getattr(self, "is_complete", True):  # a run that goes on keeps the agent that is acting
            self._progress.release("current_agent")

    def to_state(self) -> RunState[Any, Any]:
        """Where the run stands that waits for decisions (`interruptions`), or has failed or was stopped: to go on there.

        Every call gives a state of its own, with what was decided by then; one of them can be run on from, once.

        Raises:
            RunStateError: the run goes on.
        """
        return RunState.of(self._progress)


@dataclass
class RunResult(RunResultBase):
    """The result of a run that is over. For a test it can be built by hand, with the SDK's arguments."""

    input: str | list[TResponseInputItem]
    new_items: list[RunItem]
    raw_responses: list[ModelResponse]
    final_output: Any
    input_guardrail_results: list[InputGuardrailResult]
    output_guardrail_results: list[OutputGuardrailResult]
    tool_input_guardrail_results: list[ToolInputGuardrailResult]
    tool_output_guardrail_results: list[ToolOutputGuardrailResult]
    context_wrapper: RunContextWrapper[Any]
    _last_agent: InitVar[Agent[Any]]
    _progress: RunProgress = field(default=cast("RunProgress", None), repr=False, compare=False)
    """What the loop knows of the run; made of the other fields where no loop ran."""
    max_turns: int | None = DEFAULT_MAX_TURNS
    interruptions: list[Any] = field(default_factory=list[Any])

    def __post_init__(self, _last_agent: Agent[Any]) -> None:
        if cast("RunProgress | None", self._progress) is None:
            self._progress = RunProgress(
                run_id="",
                input=self.input,
                current_agent=_last_agent,
                context_wrapper=self.context_wrapper,
                max_turns=self.max_turns,
                new_items=self.new_items,
                model_items=self.new_items,
            )

    @classmethod
    def of(cls, progress: RunProgress) -> RunResult:
        """The result that `progress` has come to."""
        return cls(
            input=progress.input,
            new_items=progress.new_items,
            raw_responses=progress.raw_responses,
            final_output=progress.final_output,
            input_guardrail_results=progress.input_guardrail_results,
            output_guardrail_results=progress.output_guardrail_results,
            tool_input_guardrail_results=progress.tool_input_guardrail_results,
            tool_output_guardrail_results=progress.tool_output_guardrail_results,
            context_wrapper=progress.context_wrapper,
            _last_agent=progress.current_agent,
            _progress=progress,
            max_turns=progress.max_turns,
            interruptions=progress.interruptions,
        )

    def __str__(self) -> str:
        return describe(self)


def describe(result: RunResultBase) -> str:
    """What `print` shows of a result."""
    return (
        f"{type(result).__name__}: run {result.run_id}, last agent {result.last_agent.name!r}, "
        f"{len(result.new_items)} new item(s), {len(result.raw_responses)} model response(s)\n"
        f"Final output ({type(result.final_output).__name__}): {result.final_output}"
    )
