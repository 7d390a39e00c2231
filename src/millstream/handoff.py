"""Handoffs: how one agent lets the model pass the conversation on to another."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, cast

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from typing_extensions import TypeVar

from millstream.context import MaybeAwaitable, RunContextWrapper, TContext, settle
from millstream.errors import ModelBehaviorError, SchemaError, UserError
from millstream.schema import ensure_strict_json_schema, problems, reason_of

if TYPE_CHECKING:
    from millstream.agent import Agent, AgentBase
    from millstream.items import RunItem, TResponseInputItem

TAgent = TypeVar("TAgent", bound="AgentBase[Any]", default="Agent[Any]")
THandoffInput = TypeVar("THandoffInput", default=Any)

OnHandoffWithInput: TypeAlias = Callable[[RunContextWrapper[Any], THandoffInput], Any]
OnHandoffWithoutInput: TypeAlias = Callable[[RunContextWrapper[Any]], Any]


@dataclass(frozen=True)
class HandoffInputData:
    """What the next agent would see: the history, and what this run has added to it."""

    input_history: str | tuple[TResponseInputItem, ...]
    """The input of the run."""
    pre_handoff_items: tuple[RunItem, ...]
    """Items of the turns before this one."""
    new_items: tuple[RunItem, ...]
    """Items of this turn, the handoff's call and output among them."""
    run_context: RunContextWrapper[Any] | None = None
    input_items: tuple[RunItem, ...] | None = None
    """What the model is shown instead of `new_items`, which stay as they are in the result."""
    history_items: tuple[RunItem, ...] = ()
    """Items that `input_history` has word for word, so that `to_input_list()` need not have them twice."""

    def clone(self, **kwargs: Any) -> HandoffInputData:
        """A copy with some fields replaced."""
        return dataclasses.replace(self, **kwargs)


HandoffInputFilter: TypeAlias = Callable[[HandoffInputData], MaybeAwaitable[HandoffInputData]]
"""Changes what the next agent sees."""


@dataclass
class Handoff(Generic[TContext, TAgent]):
    """A way to another agent, which the model sees as a tool. Usually made by `handoff`."""

    tool_name: str
    tool_description: str
    input_json_schema: dict[str, Any]
    """The arguments of the call; an object without properties where there are none."""
    on_invoke_handoff: Callable[[RunContextWrapper[Any], str], Awaitable[TAgent]]
    """Called with the arguments as JSON text; returns the agent that takes over."""
    agent_name: str
    input_filter: HandoffInputFilter | None = None
    nest_handoff_history: bool | None = None
    """Whether the next agent is told the conversation as text; None leaves it to the run's configuration."""
    strict_json_schema: bool = True
    is_enabled: bool | Callable[[RunContextWrapper[Any], AgentBase[Any]], MaybeAwaitable[bool]] = True
    leads_to: Agent[Any] | None = field(default=None, init=False, repr=False, compare=False)
    """The agent that takes over, where it is known beforehand: `handoff` does know it."""

    def get_transfer_message(self, agent: AgentBase[Any]) -> str:
        """The output of the call, as the history will have it."""
        return json.dumps({"assistant": agent.name})

    def to_responses_tool(self) -> dict[str, Any]:
        """The handoff as the Responses API takes it: a function."""
        return {
            "type": "function",
            "name": self.tool_name,
            "description": self.tool_description,
            "parameters": self.input_json_schema,
            "strict": self.strict_json_schema,
        }

    @classmethod
    def default_tool_name(cls, agent: AgentBase[Any]) -> str:
        """`transfer_to_` and the agent's name, in the letters that the models' APIs take."""
        return re.sub(r"[^a-zA-Z0-9_]", "_", f"transfer_to_{agent.name}").lower()

    @classmethod
    def default_tool_description(cls, agent: AgentBase[Any]) -> str:
        """What the model is told where nothing else is given."""
        return f"Hand over to the {agent.name} agent. {agent.handoff_description or ''}".rstrip()


def handoff(
    agent: Agent[TContext],
    tool_name_override: str | None = None,
    tool_description_override: str | None = None,
    on_handoff: OnHandoffWithInput[Any] | OnHandoffWithoutInput | None = None,
    input_type: type[Any] | None = None,
    input_filter: HandoffInputFilter | None = None,
    nest_handoff_history: bool | None = None,
    is_enabled: bool | Callable[[RunContextWrapper[Any], Agent[TContext]], MaybeAwaitable[bool]] = True,
) -> Handoff[TContext, Agent[TContext]]:
    """Describe a handoff to `agent`, to be put into another agent's `handoffs`.

    Args:
        agent: who takes over.
        tool_name_override: the name that the model calls; by default `transfer_to_<name>`.
        tool_description_override: what the model is told of it.
        on_handoff: called, and awaited, when the model hands over: with the context, and with
            the validated input if there is an `input_type`.
        input_type: what the model has to say when it hands over.
        input_filter: changes what the next agent sees.
        nest_handoff_history: tell the next agent the conversation as text (see
            `millstream.handoff_history`); None leaves it to `RunConfig.nest_handoff_history`.
        is_enabled: whether the model is shown the handoff; a callable is asked once a turn.

    Raises:
        UserError: `agent` is no agent, or `on_handoff` does not take what it would be given.
        SchemaError: `input_type` has no strict JSON schema.
    """
    # Not isinstance: agents stand above handoffs, and know them.
    if not callable(getattr(agent, "get_all_tools", None)) or inspect.isclass(agent):
        raise UserError(f"A handoff leads to an Agent, not to {_described(agent)}.")
    _check_callback(on_handoff, input_type)
    adapter: TypeAdapter[Any] | None = None
    if input_type is None:
        schema = ensure_strict_json_schema({})
    else:
        adapter, schema = _adapter(input_type)

    async def invoke(context: RunContextWrapper[Any], input_json: str | None = None) -> Agent[TContext]:
        arguments = () if adapter is None else (_parse(adapter, input_json, agent.name),)
        if on_handoff is not None:
            await settle(cast("Callable[..., Any]", on_handoff)(context, *arguments))
        return agent

    made = Handoff(
        tool_name=tool_name_override or Handoff.default_tool_name(agent),
        tool_description=tool_description_override or Handoff.default_tool_description(agent),
        input_json_schema=schema,
        on_invoke_handoff=invoke,
        agent_name=agent.name,
        input_filter=input_filter,
        nest_handoff_history=nest_handoff_history,
        is_enabled=cast("Any", is_enabled),
    )
    made.leads_to = agent
    return made


def _described(value: Any) -> str:
    return f"the text {value!r}: pass the agent itself" if isinstance(value, str) else type(value).__name__


def _check_callback(on_handoff: Any, input_type: Any) -> None:
    if on_handoff is None:
        if input_type is not None:
            raise UserError("handoff(input_type=...) needs an on_handoff that receives the input.")
        return
    if not callable(on_handoff):
        raise UserError(f"handoff(on_handoff=...) takes a function, not {type(on_handoff).__name__}.")
    expected = ("context",) if input_type is None else ("context", "input")
    try:
        signature = inspect.signature(on_handoff)
    except ValueError:
        return  # written in C: nothing can be known of it
    try:
        signature.bind(*expected)
    except TypeError:
        raise UserError(
            f"on_handoff is called with {' and '.join(expected)}: it takes {signature}."
        ) from None


def _adapter(input_type: Any) -> tuple[TypeAdapter[Any], dict[str, Any]]:
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(input_type)
        return adapter, ensure_strict_json_schema(adapter.json_schema())
    except (PydanticUserError, PydanticInvalidForJsonSchema, SchemaError) as error:
        raise SchemaError(
            f"handoff(input_type={input_type!r}) has no strict JSON schema. {reason_of(error)} Make it of types "
            "that JSON can express: str, int, a list, a dataclass, a pydantic model."
        ) from error


def _parse(adapter: TypeAdapter[Any], input_json: str | None, name: str) -> Any:
    if not input_json:
        raise ModelBehaviorError(f"The handoff to {name} needs an input, and the model gave none.")
    try:
        return adapter.validate_json(input_json)
    except ValidationError as error:
        problem = problems(error)
    raise ModelBehaviorError(f"The model's input for the handoff to {name} is not valid: {problem}")
