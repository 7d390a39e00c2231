"""Context: what a run hands to the functions of its user, to tools, hooks and callables alike."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Awaitable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, cast

from typing_extensions import TypeVar

from millstream.approval import Decision, Decisions, key_of_item
from millstream.usage import Usage

if TYPE_CHECKING:
    from openai.types.responses import ResponseFunctionToolCall

    from millstream.agent import AgentBase
    from millstream.config import RunConfig
    from millstream.items import ToolApprovalItem, TResponseInputItem
    from millstream.run.link import CallLink

TContext = TypeVar("TContext", default=Any)
"""The type of the object that a program passes to its run as `context`."""

T = TypeVar("T")

MaybeAwaitable: TypeAlias = Awaitable[T] | T
"""What a callback may return: the value, or something to await that gives it."""


async def settle(value: MaybeAwaitable[T]) -> T:
    """The value itself: what a callback returned, awaited where it has to be."""
    return await value if inspect.isawaitable(value) else cast("T", value)


@dataclass(eq=False)
class RunContextWrapper(Generic[TContext]):
    """The program's own context object, and what is known of the run that carries it.

    The context is never sent to a model. One wrapper lives as long as its run; tools see
    the same usage and context objects through a `ToolContext`.
    """

    context: TContext
    """What the program passed as `context=`, or None."""
    usage: Usage = field(default_factory=Usage)
    """Tokens of the run so far. While a response streams, it is not counted yet."""
    turn_input: list[TResponseInputItem] = field(default_factory=list["TResponseInputItem"])
    """The input of the run, as handoff filters have left it."""
    tool_input: Any | None = None
    """The structured input of a run that was started as a tool."""
    decisions: Decisions = field(default_factory=Decisions, repr=False)
    """What was decided over tool calls of the run, and of runs nested in it."""

    def approve_tool(self, approval_item: ToolApprovalItem, always_approve: bool = False) -> None:
        """Let a call run without waiting, as a hook may; of a run that waits, decide on its `RunState`."""
        self.decisions.decide(key_of_item(approval_item), Decision(approved=True), always=always_approve)

    def reject_tool(
        self,
        approval_item: ToolApprovalItem,
        always_reject: bool = False,
        rejection_message: str | None = None,
    ) -> None:
        """Answer a call without running it; of a run that waits, decide on its `RunState`."""
        decision = Decision(approved=False, message=rejection_message)
        self.decisions.decide(key_of_item(approval_item), decision, always=always_reject)

    def is_tool_approved(self, tool_name: str, call_id: str) -> bool | None:
        """What was decided over a call: True, False, or None where nobody has. See `get_approval_status`."""
        return self.get_approval_status(tool_name, call_id)

    def get_approval_status(
        self,
        tool_name: str,
        call_id: str,
        *,
        tool_namespace: str | None = None,
        existing_pending: ToolApprovalItem | None = None,
        tool_lookup_key: Any = None,
        current_invocation: ToolApprovalItem | None = None,
    ) -> bool | None:
        """What was decided over a call, whether it has run by now or not; None where nobody has.

        A decision for always counts for every call of the tool. The other arguments are the SDK's,
        and have no effect.
        """
        decision = self.decisions.known(tool_name, call_id)
        return None if decision is None else decision.approved

    def get_rejection_message(
        self,
        tool_name: str,
        call_id: str,
        *,
        tool_namespace: str | None = None,
        existing_pending: ToolApprovalItem | None = None,
        tool_lookup_key: Any = None,
    ) -> str | None:
        """What was said with the rejection of a call; None where nothing was, or it was not rejected."""
        decision = self.decisions.known(tool_name, call_id)
        return None if decision is None or decision.approved else decision.message

    def copy(self) -> RunContextWrapper[TContext]:
        """A wrapper of the same context object whose usage and decisions are its own from here on."""
        new = copy.copy(self)
        new.usage = copy.deepcopy(self.usage)
        new.decisions = self.decisions.copy()
        return new


@dataclass(eq=False)
class AgentHookContext(RunContextWrapper[TContext]):
    """The context that hooks on the start and the end of an agent receive."""


@dataclass(eq=False, init=False)
class ToolContext(RunContextWrapper[TContext]):
    """The context of one tool call: the run's, and which call of which tool this is."""

    tool_name: str
    """The name that the model called."""
    tool_call_id: str
    """Ties the call to its output."""
    tool_arguments: str
    """The arguments as the model wrote them: JSON text, unchecked."""
    tool_call: ResponseFunctionToolCall | None = None
    tool_namespace: str | None = None
    """The namespace that the model named with the tool; tools of this version are in none."""
    agent: AgentBase[Any] | None = None
    run_config: RunConfig | None = None
    idempotency_key: str = ""
    """Names this very call: no other call has the same text, in this run or any other.

    Hand it to a service that must not do the same thing twice, and use it again where your
    tool tries again. It lasts as long as the run, and a run is not taken up again after a
    crash: what is started then is another run, whose calls have other keys.
    """
    failure: BaseException | None = None
    """What the tool raised, where its error function made text of it for the model."""
    _link: CallLink | None = field(default=None, repr=False)
    """The run that made the call; None for a context that was built by hand."""

    def __init__(
        self,
        context: TContext,
        usage: Usage | None = None,
        tool_name: str | None = None,
        tool_call_id: str | None = None,
        tool_arguments: str | None = None,
        tool_call: ResponseFunctionToolCall | None = None,
        *,
        tool_namespace: str | None = None,
        agent: AgentBase[Any] | None = None,
        run_config: RunConfig | None = None,
        turn_input: list[TResponseInputItem] | None = None,
        tool_input: Any | None = None,
        idempotency_key: str | None = None,
    ) -> None:
        """Build the context of a call by hand, as a test of a tool does.

        Raises:
            ValueError: `tool_name`, `tool_call_id` or `tool_arguments` is missing.
        """
        super().__init__(
            context,
            Usage() if usage is None else usage,
            [] if turn_input is None else turn_input,
            tool_input,
        )
        self.tool_name = _given("tool_name", tool_name)
        self.tool_call_id = _given("tool_call_id", tool_call_id)
        self.tool_arguments = _given("tool_arguments", tool_arguments)
        self.tool_call = tool_call
        self.tool_namespace = tool_namespace
        self.agent = agent
        self.run_config = run_config
        self.idempotency_key = self.tool_call_id if idempotency_key is None else idempotency_key
        self.failure = None
        self._link = None

    def progress(self, data: Any) -> Awaitable[None]:
        """Tell whoever watches the run how far the tool is: a `tool.progress` with `data` in the log.

        `data` may be anything, and is told as it is now; what of it has no JSON is marked in its
        place. May be called in an async tool and in the thread of any other one, and returns at
        once, except that a thread far ahead of the log waits for it. Await it to be no faster
        than the log.

        What is told stands in its order before the call's `tool.finished`; what comes after the
        end of the call is dropped. A context that was built by hand tells nobody.
        """
        return _SILENCE if self._link is None else self._link.progress(data)

    @property
    def qualified_tool_name(self) -> str:
        """The tool's name with its namespace, where it has one: `namespace.name`."""
        return f"{self.tool_namespace}.{self.tool_name}" if self.tool_namespace else self.tool_name

    @classmethod
    def from_agent_context(
        cls,
        context: RunContextWrapper[TContext],
        tool_call_id: str,
        tool_call: ResponseFunctionToolCall | None = None,
        agent: AgentBase[Any] | None = None,
        *,
        tool_name: str | None = None,
        tool_arguments: str | None = None,
        tool_namespace: str | None = None,
        run_config: RunConfig | None = None,
        idempotency_key: str | None = None,
    ) -> ToolContext[TContext]:
        """The context of one call within the run of `context`: usage, input and context are shared.

        Name and arguments come from `tool_call` where they are not given.
        """
        if tool_call is not None:
            tool_name = tool_call.name if tool_name is None else tool_name
            tool_arguments = tool_call.arguments if tool_arguments is None else tool_arguments
            # Nothing of a server's payload was checked: it may lack the field.
            tool_namespace = tool_namespace or getattr(tool_call, "namespace", None)
        made = cls(
            context.context,
            context.usage,
            tool_name,
            tool_call_id,
            tool_arguments,
            tool_call,
            tool_namespace=tool_namespace,
            agent=agent,
            run_config=run_config,
            turn_input=context.turn_input,
            tool_input=context.tool_input,
            idempotency_key=idempotency_key,
        )
        made.decisions = context.decisions
        return made


class _Silence:
    """What is told to nobody is told at once."""

    def __await__(self) -> Generator[Any, None, None]:
        yield from ()


_SILENCE = _Silence()


def _given(name: str, value: str | None) -> str:
    # The SDK's order of parameters puts `usage`, which has a default, before them.
    if value is None:
        raise ValueError(f"{name} must be passed to ToolContext")
    return value
