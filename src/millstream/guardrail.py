"""Guardrails: checks on what goes into and comes out of agents and tools, as plain descriptions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypedDict, overload

from millstream.context import MaybeAwaitable, RunContextWrapper, TContext, ToolContext

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.items import TResponseInputItem


# --- agents --------------------------------------------------------------------------------


@dataclass
class GuardrailFunctionOutput:
    """What a guardrail found, and whether the run has to stop."""

    output_info: Any
    tripwire_triggered: bool


@dataclass
class InputGuardrailResult:
    """The verdict of one input guardrail."""

    guardrail: InputGuardrail[Any]
    output: GuardrailFunctionOutput


@dataclass
class OutputGuardrailResult:
    """The verdict of one output guardrail, and the output it is about."""

    guardrail: OutputGuardrail[Any]
    agent_output: Any
    agent: Agent[Any]
    output: GuardrailFunctionOutput


InputGuardrailFunction: TypeAlias = Callable[
    [RunContextWrapper[TContext], "Agent[Any]", "str | list[TResponseInputItem]"],
    MaybeAwaitable[GuardrailFunctionOutput],
]
OutputGuardrailFunction: TypeAlias = Callable[
    [RunContextWrapper[TContext], "Agent[Any]", Any], MaybeAwaitable[GuardrailFunctionOutput]
]


@dataclass
class InputGuardrail(Generic[TContext]):
    """A check on the input of a run's first agent."""

    guardrail_function: InputGuardrailFunction[TContext]
    name: str | None = None
    run_in_parallel: bool = True
    """False: the model is asked only after this guardrail has passed."""

    def get_name(self) -> str:
        """The given name, else the function's."""
        return self.name or _name_of(self.guardrail_function)


@dataclass
class OutputGuardrail(Generic[TContext]):
    """A check on the final output of an agent."""

    guardrail_function: OutputGuardrailFunction[TContext]
    name: str | None = None

    def get_name(self) -> str:
        """The given name, else the function's."""
        return self.name or _name_of(self.guardrail_function)


@overload
def input_guardrail(func: InputGuardrailFunction[TContext], /) -> InputGuardrail[TContext]: ...
@overload
def input_guardrail(
    *, name: str | None = None, run_in_parallel: bool = True
) -> Callable[[InputGuardrailFunction[TContext]], InputGuardrail[TContext]]: ...
def input_guardrail(
    func: InputGuardrailFunction[Any] | None = None,
    *,
    name: str | None = None,
    run_in_parallel: bool = True,
) -> Any:
    """Make a function (sync or async) of context, agent and input an `InputGuardrail`."""

    def decorate(func: InputGuardrailFunction[Any]) -> InputGuardrail[Any]:
        return InputGuardrail(func, name, run_in_parallel)

    return decorate if func is None else decorate(func)


@overload
def output_guardrail(func: OutputGuardrailFunction[TContext], /) -> OutputGuardrail[TContext]: ...
@overload
def output_guardrail(
    *, name: str | None = None
) -> Callable[[OutputGuardrailFunction[TContext]], OutputGuardrail[TContext]]: ...
def output_guardrail(func: OutputGuardrailFunction[Any] | None = None, *, name: str | None = None) -> Any:
    """Make a function (sync or async) of context, agent and output an `OutputGuardrail`."""

    def decorate(func: OutputGuardrailFunction[Any]) -> OutputGuardrail[Any]:
        return OutputGuardrail(func, name)

    return decorate if func is None else decorate(func)


# --- tools ---------------------------------------------------------------------------------


class RejectContentBehavior(TypedDict):
    """The call is answered with `message` instead of with what the tool has."""

    type: Literal["reject_content"]
    message: str


class RaiseExceptionBehavior(TypedDict):
    """The run stops."""

    type: Literal["raise_exception"]


class AllowBehavior(TypedDict):
    """The call goes on."""

    type: Literal["allow"]


def _allow() -> AllowBehavior:
    return {"type": "allow"}


@dataclass
class ToolGuardrailFunctionOutput:
    """What a guardrail of a tool found, and what becomes of the call."""

    output_info: Any
    behavior: RejectContentBehavior | RaiseExceptionBehavior | AllowBehavior = field(default_factory=_allow)

    @classmethod
    def allow(cls, output_info: Any = None) -> ToolGuardrailFunctionOutput:
        """Let the call go on."""
        return cls(output_info)

    @classmethod
    def reject_content(cls, message: str, output_info: Any = None) -> ToolGuardrailFunctionOutput:
        """Answer the call with `message`; the run goes on."""
        return cls(output_info, {"type": "reject_content", "message": message})

    @classmethod
    def raise_exception(cls, output_info: Any = None) -> ToolGuardrailFunctionOutput:
        """Stop the run with a tripwire error."""
        return cls(output_info, {"type": "raise_exception"})


@dataclass
class ToolInputGuardrailData:
    """What a guardrail on a tool's input is given."""

    context: ToolContext[Any]
    agent: Agent[Any]


@dataclass
class ToolOutputGuardrailData(ToolInputGuardrailData):
    """What a guardrail on a tool's output is given."""

    output: Any


ToolInputGuardrailFunction: TypeAlias = Callable[
    [ToolInputGuardrailData], MaybeAwaitable[ToolGuardrailFunctionOutput]
]
ToolOutputGuardrailFunction: TypeAlias = Callable[
    [ToolOutputGuardrailData], MaybeAwaitable[ToolGuardrailFunctionOutput]
]


@dataclass
class ToolInputGuardrail(Generic[TContext]):
    """A check on the arguments of a tool call."""

    guardrail_function: ToolInputGuardrailFunction
    name: str | None = None

    def get_name(self) -> str:
        """The given name, else the function's."""
        return self.name or _name_of(self.guardrail_function)


@dataclass
class ToolOutputGuardrail(Generic[TContext]):
    """A check on what a tool returned."""

    guardrail_function: ToolOutputGuardrailFunction
    name: str | None = None

    def get_name(self) -> str:
        """The given name, else the function's."""
        return self.name or _name_of(self.guardrail_function)


@dataclass
class ToolInputGuardrailResult:
    """The verdict of one guardrail on a tool's input."""

    guardrail: ToolInputGuardrail[Any]
    output: ToolGuardrailFunctionOutput


@dataclass
class ToolOutputGuardrailResult:
    """The verdict of one guardrail on a tool's output."""

    guardrail: ToolOutputGuardrail[Any]
    output: ToolGuardrailFunctionOutput


@overload
def tool_input_guardrail(func: ToolInputGuardrailFunction, /) -> ToolInputGuardrail[Any]: ...
@overload
def tool_input_guardrail(
    *, name: str | None = None
) -> Callable[[ToolInputGuardrailFunction], ToolInputGuardrail[Any]]: ...
def tool_input_guardrail(func: ToolInputGuardrailFunction | None = None, *, name: str | None = None) -> Any:
    """Make a function (sync or async) a `ToolInputGuardrail`."""

    def decorate(func: ToolInputGuardrailFunction) -> ToolInputGuardrail[Any]:
        return ToolInputGuardrail(func, name)

    return decorate if func is None else decorate(func)


@overload
def tool_output_guardrail(func: ToolOutputGuardrailFunction, /) -> ToolOutputGuardrail[Any]: ...
@overload
def tool_output_guardrail(
    *, name: str | None = None
) -> Callable[[ToolOutputGuardrailFunction], ToolOutputGuardrail[Any]]: ...
def tool_output_guardrail(func: ToolOutputGuardrailFunction | None = None, *, name: str | None = None) -> Any:
    """Make a function (sync or async) a `ToolOutputGuardrail`."""

    def decorate(func: ToolOutputGuardrailFunction) -> ToolOutputGuardrail[Any]:
        return ToolOutputGuardrail(func, name)

    return decorate if func is None else decorate(func)


def _name_of(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", type(func).__name__)
