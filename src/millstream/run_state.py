"""The state of a run that waits for decisions, or has ended: decide over its calls, keep it as JSON, run on from it.

Rules of this file:

1. A state is one place in one run. It shows what waits there, and takes decisions and input; it
   changes nothing but itself. `Runner.run(agent, state)`, by any of the four doors, goes on.
2. A state is run on from once: what was approved must not be done twice. What came of it has a
   state of its own.
3. Every call that waits is decided over once. To say the same again changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Generic, cast

import msgspec
from typing_extensions import TypeVar

from millstream.approval import Decision, Decisions, arguments_text, key_that_waits
from millstream.context import RunContextWrapper, TContext
from millstream.errors import ApprovalError, RunStateError
from millstream.items import ItemHelpers, ToolApprovalItem
from millstream.run.conversation import Conversation
from millstream.run.input import check_input
from millstream.run.kept.context import (
    ContextDeserializer,
    ContextOverride,
    ContextSerializer,
    context_document,
    context_from,
    no_context,
)
from millstream.run.kept.form import agents_by_name, progress_from, read, to_json
from millstream.run.state import RunProgress, new_run_id

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.config import ReasoningItemIdPolicy
    from millstream.items import TResponseInputItem
    from millstream.run.kept.document import ContextDocument

TAgent = TypeVar("TAgent", bound="Agent[Any]", default="Agent[Any]")


class RunState(Generic[TContext, TAgent]):
    """Where a run stands. Comes from `result.to_state()` or from `RunState.from_json()`.

    ```python
    state = result.to_state()
    for item in state.get_interruptions():
        state.approve(item)
    result = await Runner.run(agent, state)
    ```

    Args:
        context: the run's context.
        original_input: its input.
        starting_agent: the agent that acts.
        max_turns: how many turns the run may take in all, those before the state included.
        conversation_id: a conversation that the model's server keeps.
        previous_response_id: a response to go on from, which the server keeps.
        auto_previous_response_id: let the server keep the history.
    """

    def __init__(
        self,
        context: RunContextWrapper[TContext],
        original_input: str | list[Any],
        starting_agent: TAgent,
        max_turns: int | None = 10,
        *,
        conversation_id: str | None = None,
        previous_response_id: str | None = None,
        auto_previous_response_id: bool = False,
    ) -> None:
        self._progress = RunProgress(
            run_id=new_run_id(),
            input=check_input(original_input),
            current_agent=starting_agent,
            context_wrapper=context,
            max_turns=max_turns,
            conversation=Conversation(previous_response_id, conversation_id, auto_previous_response_id),
        )
        self._unread: ContextDocument | None = None
        """What stands for the context where it could not be made of that: a state that was read back."""

    @classmethod
    def of(cls, progress: RunProgress) -> RunState[Any, Any]:
        """The state of the run whose progress this is.

        Raises:
            RunStateError: the run goes on.
        """
        self = object.__new__(cls)
        if progress.left is None:
            raise RunStateError(
                f"Run {progress.run_id} goes on, and has no state to keep yet: read it, or await it, to its end "
                "or its pause."
            )
        self._progress = progress.copy()
        self._unread = None
        return cast("RunState[Any, Any]", self)

    @classmethod
    def after(cls, error: BaseException) -> RunState[Any, Any]:
        """Where the run stood that ended with `error`, which `Runner.run` or `await handle` has raised.

        Raises:
            RunStateError: it is no error of a run that has begun.
        """
        progress = getattr(getattr(error, "run_data", None), "progress", None)
        if not isinstance(progress, RunProgress) or progress.left is None:
            raise RunStateError(
                f"{type(error).__name__} is not what a run ended with: there is no state to go on from."
            )
        return cls.of(progress)

    # --- what waits --------------------------------------------------------------------------

    def get_interruptions(self) -> list[ToolApprovalItem]:
        """The calls that wait for a decision, those of nested runs included; also those decided over by now."""
        return list(self._progress.interruptions)

    def approve(
        self,
        approval_item: ToolApprovalItem | str,
        always_approve: bool = False,
        *,
        arguments: Mapping[str, Any] | str | None = None,
    ) -> None:
        """Let a call that waits run when the run goes on.

        Args:
            approval_item: the call: one of `get_interruptions()`, or its call id.
            always_approve: all later calls of that tool by that agent too, in this run.
            arguments: what the tool gets in place of the model's own arguments: a JSON object,
                or its text. The history keeps the call as the model made it.

        Raises:
            ApprovalError: no such call waits, or it was rejected, or approved otherwise, before.
        """
        edited = None if arguments is None else arguments_text(arguments)
        self._decide(approval_item, Decision(approved=True, arguments=edited), always=always_approve)

    def reject(
        self,
        approval_item: ToolApprovalItem | str,
        always_reject: bool = False,
        *,
        rejection_message: str | None = None,
    ) -> None:
        """Answer a call that waits without running it when the run goes on.

        Args:
            approval_item: the call: one of `get_interruptions()`, or its call id.
            always_reject: all later calls of that tool by that agent too, in this run.
            rejection_message: what the model is told; without one what the run's
                `tool_error_formatter` says, else a usual text.

        Raises:
            ApprovalError: no such call waits, or it was approved, or rejected otherwise, before.
        """
        self._decide(approval_item, Decision(approved=False, message=rejection_message), always=always_reject)

    def _decide(self, item: ToolApprovalItem | str, decision: Decision, *, always: bool) -> None:
        self._check_not_resumed()
        decisions = self._decisions
        key = key_that_waits(item, self._progress.interruptions, decisions.once)
        before = decisions.once.get(key)
        if before is not None and before != decision:
            what = "approved" if before.approved else "rejected"
            raise ApprovalError(
                f"The call {key.call_id!r} of {key.tool} was {what} before, in another way than now: "
                "a call is decided over once. Take the state anew, from result.to_state() or from its JSON, "
                "to decide otherwise."
            )
        decisions.decide(key, decision, always=always)

    @property
    def _decisions(self) -> Decisions:
        return self._progress.context_wrapper.decisions

    # --- input that comes in meanwhile -------------------------------------------------------

    def add_input(self, input: str | list[TResponseInputItem]) -> None:
        """Add to what the model is given next, behind the answers to the calls that wait.

        Raises:
            InputItemError: it is no input that models take.
            RunStateError: the run is complete, or goes on already.
        """
        self._check_not_resumed()
        if self._progress.left is not None and self._progress.left.outcome == "completed":
            raise RunStateError(
                "The run is complete, and takes no more input: begin another with "
                "result.to_input_list() and what you have to add."
            )
        added = check_input(ItemHelpers.input_to_new_input_list(cast("Any", input)))
        self._progress.pending_input.extend(cast("list[Any]", added))

    @property
    def pending_input(self) -> list[TResponseInputItem]:
        """What was added and no model was given yet: a copy."""
        return copy.deepcopy(self._progress.pending_input)

    def clear_pending_input(self) -> None:
        """Take back what was added."""
        self._progress.pending_input.clear()

    def set_reasoning_item_id_policy(self, policy: ReasoningItemIdPolicy | None) -> None:
        """Say whether reasoning that becomes input again keeps its id; a `RunConfig` that says so counts more."""
        self._progress.omits_reasoning_ids = policy == "omit"

    # --- JSON ----------------------------------------------------------------------------------

    def to_json(
        self,
        *,
        context_serializer: ContextSerializer | None = None,
        strict_context: bool = False,
        include_tracing_api_key: bool = False,
    ) -> dict[str, Any]:
        """The state as plain values for JSON, with a schema and its version.

        It has the whole conversation and the context in plain text: keep it where you would keep
        those. Whoever can change it decides over the calls in it.

        Args:
            context_serializer: makes of a context that is no mapping one that JSON can hold.
            strict_context: refuse a context that is no mapping where there is no serializer. Without
                it, one that JSON cannot hold is left out, with a line in the log.
            include_tracing_api_key: has no effect: traces have no key here.

        Raises:
            RunStateError: the context cannot be kept, and `strict_context` is set.
        """
        context = self._progress.context_wrapper.context
        document = self._unread or context_document(context, context_serializer, strict=strict_context)
        return to_json(self._progress, document)

    def to_string(
        self,
        *,
        context_serializer: ContextSerializer | None = None,
        strict_context: bool = False,
        include_tracing_api_key: bool = False,
    ) -> str:
        """`to_json` as one line of text."""
        document = self.to_json(context_serializer=context_serializer, strict_context=strict_context)
        return msgspec.json.encode(document).decode()

    @staticmethod
    async def from_json(
        initial_agent: Agent[Any],
        state_json: dict[str, Any],
        *,
        context_override: ContextOverride | None = None,
        context_deserializer: ContextDeserializer | None = None,
        strict_context: bool = False,
    ) -> RunState[Any, Agent[Any]]:
        """The state that `to_json` made.

        What stands in it is data, wherever it comes from: nothing is imported or evaluated by it.
        Yet it says which calls were approved. Read only what you have kept yourself.

        Args:
            initial_agent: the agent that the run was started with. Others are found by their names,
                among those that it can hand over to.
            state_json: the document.
            context_override: the context, in place of the one in the document; also a whole wrapper.
            context_deserializer: makes the context of what a serializer made.
            strict_context: refuse a context that needs a deserializer or an override and has none.

        Raises:
            RunStateVersionError: it was written by a newer version.
            RunStateError: it is no state, or a damaged one, or of agents that are not there.
        """
        document = read(state_json)
        wrapper = context_from(document.context, context_override, context_deserializer)
        if wrapper is None and strict_context:
            raise no_context(document.context)
        self = object.__new__(RunState)
        self._unread = document.context if wrapper is None else None
        wrapper = wrapper or RunContextWrapper(context=document.context.value)
        self._progress = progress_from(document, agents_by_name(initial_agent), wrapper)
        return self

    @staticmethod
    async def from_string(
        initial_agent: Agent[Any],
        state_string: str,
        *,
        context_override: ContextOverride | None = None,
        context_deserializer: ContextDeserializer | None = None,
        strict_context: bool = False,
    ) -> RunState[Any, Agent[Any]]:
        """The state that `to_string` made; see `from_json`."""
        return await RunState.from_json(
            initial_agent,
            cast("Any", state_string),
            context_override=context_override,
            context_deserializer=context_deserializer,
            strict_context=strict_context,
        )

    # --- running on ----------------------------------------------------------------------------

    def to_go_on(self, context: Any = None, conversation: Conversation | None = None) -> RunProgress:
        """What a run begins with that goes on from here: for `Runner`, and not to be called by others.

        Args:
            context: the program's context object, in place of the one that the state has.
            conversation: what the model's server remembers, where the caller says so anew.

        Raises:
            RunStateError: the state lacks its context, and none is passed.
        """
        progress = self._progress.copy()
        if context is not None:
            given = cast("Any", context.context) if isinstance(context, RunContextWrapper) else context
            progress.context_wrapper.context = given
        elif self._unread is not None:
            raise no_context(self._unread)
        if conversation is not None and conversation.tracks:
            progress.conversation.auto = conversation.auto or progress.conversation.auto
            for name in ("conversation_id", "previous_response_id"):
                if (told := getattr(conversation, name)) is not None:
                    setattr(progress.conversation, name, told)
        return progress

    def _check_not_resumed(self) -> None:
        left = self._progress.left
        if left is not None and left.resumed_by is not None:
            raise RunStateError(
                f"This state of run {self._progress.run_id} was run on from already, as run {left.resumed_by}: what "
                "is decided now comes too late. Decide on to_state() of what came of that."
            )

    def __repr__(self) -> str:
        progress = self._progress
        waiting = len(progress.interruptions)
        return (
            f"RunState(run {progress.run_id}, agent {progress.current_agent.name!r}, "
            f"turn {progress.current_turn}, {waiting} call(s) waiting)"
        )
