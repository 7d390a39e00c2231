"""Guardrails: checks on what goes into and comes out of agents and tools, as plain descriptions.

A guardrail judges one thing when it is asked (`run`). When it is asked, and what becomes of a
run that it stops, is the run's to know: `run/parts/guardrails.py` and `run/parts/hold.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias, TypedDict, TypeVar, overload

from millstream.context import MaybeAwaitable, RunContextWrapper, TContext, ToolContext, settle
from millstream.errors import UserError

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


@dataclass(frozen=True)
class HoldChunks:
    """Hold streamed output, and let it out in pieces that the guardrail has passed.

    Whenever so much new text has come, the guardrail is asked about all the text of the answer so
    far. What it passes is let out; where it trips, what is held is forgotten.
    """

    characters: int = 200
    """How much new text is waited for: the guardrail is asked when there is this much, or more."""

    def __post_init__(self) -> None:
        characters: Any = self.characters
        if isinstance(characters, bool) or not isinstance(characters, int) or characters < 1:
            raise UserError(
                f"HoldChunks(characters={characters!r}): a whole number of characters, 1 or more."
            )


Hold: TypeAlias = Literal["pass", "verdict"] | HoldChunks
"""What becomes of streamed output until a guardrail has judged it: it passes, or it is held."""


InputGuardrailFunction: TypeAlias = Callable[
    [RunContextWrapper[TContext], "Agent[Any]", "str | list[TResponseInputItem]"],
    MaybeAwaitable[GuardrailFunctionOutput],
]
OutputGuardrailFunction: TypeAlias = Callable[
    [RunContextWrapper[TContext], "Agent[Any]", Any], MaybeAwaitable[GuardrailFunctionOutput]
]


@dataclass
class InputGuardrail(Generic[TContext]):
    """A check on the input of a run, as its first agent gets it; and on what is sent to its agent later."""

    guardrail_function: InputGuardrailFunction[TContext]
    name: str | None = None
    run_in_parallel: bool = True
    """False: the model is asked only after this guardrail has passed."""
    hold: Literal["pass", "verdict"] = "pass"
    """What becomes of what models write until this guardrail has judged: see `OutputGuardrail.hold`."""

    def __post_init__(self) -> None:
        hold: Any = self.hold
        if hold not in ("pass", "verdict"):
            raise UserError(
                f"Input guardrail {self.get_name()!r}: hold is 'pass' or 'verdict', not {hold!r}."
            )

    def get_name(self) -> str:
        """The given name, else the function's."""
        return self.name or _name_of(self.guardrail_function)

    async def run(
        self,
        agent: Agent[Any],
        input: str | list[TResponseInputItem],
        context: RunContextWrapper[TContext],
    ) -> InputGuardrailResult:
        """Judge `input`. A function that is not async runs on the event loop.

        Raises:
            UserError: the guardrail is not a function, or gave no `GuardrailFunctionOutput`.
            Exception: what the function raised.
        """
        output = await _judge(self, GuardrailFunctionOutput, context, agent, input)
        return InputGuardrailResult(guardrail=self, output=output)


@dataclass
class OutputGuardrail(Generic[TContext]):
    """A check on the final output of an agent."""

    guardrail_function: OutputGuardrailFunction[TContext]
    name: str | None = None
    hold: Hold = "pass"
    """What becomes of what the agent's model writes until this guardrail has judged it.

    "pass": readers see it at once; where the guardrail trips, `text.retracted` takes it back.
    "verdict": nobody sees it before the guardrail has passed it. `HoldChunks(...)`: it comes in
    pieces, each of which the guardrail has passed. What is held is not in the log.
    """

    def __post_init__(self) -> None:
        hold: Any = self.hold
        if not isinstance(hold, HoldChunks) and hold not in ("pass", "verdict"):
            raise UserError(
                f"Output guardrail {self.get_name()!r}: hold is 'pass', 'verdict' or HoldChunks(...), "
                f"not {hold!r}."
            )

    def get_name(self) -> str:
        """The given name, else the function's."""
        return self.name or _name_of(self.guardrail_function)

    async def run(
        self, context: RunContextWrapper[TContext], agent: Agent[Any], agent_output: Any
    ) -> OutputGuardrailResult:
        """Judge `agent_output`. A function that is not async runs on the event loop.

        Raises:
            UserError: the guardrail is not a function, or gave no `GuardrailFunctionOutput`.
            Exception: what the function raised.
        """
        output = await _judge(self, GuardrailFunctionOutput, context, agent, agent_output)
        return OutputGuardrailResult(guardrail=self, agent_output=agent_output, agent=agent, output=output)


@overload
def input_guardrail(func: InputGuardrailFunction[TContext], /) -> InputGuardrail[TContext]: ...
@overload
def input_guardrail(
    *, name: str | None = None, run_in_parallel: bool = True, hold: Literal["pass", "verdict"] = "pass"
) -> Callable[[InputGuardrailFunction[TContext]], InputGuardrail[TContext]]: ...
def input_guardrail(
    func: InputGuardrailFunction[Any] | None = None,
    *,
    name: str | None = None,
    run_in_parallel: bool = True,
    hold: Literal["pass", "verdict"] = "pass",
) -> Any:
    """Make a function (sync or async) of context, agent and input an `InputGuardrail`."""

    def decorate(func: InputGuardrailFunction[Any]) -> InputGuardrail[Any]:
        return InputGuardrail(func, name, run_in_parallel, hold)

    return decorate if func is None else decorate(func)


@overload
def output_guardrail(func: OutputGuardrailFunction[TContext], /) -> OutputGuardrail[TContext]: ...
@overload
def output_guardrail(
    *, name: str | None = None, hold: Hold = "pass"
) -> Callable[[OutputGuardrailFunction[TContext]], OutputGuardrail[TContext]]: ...
def output_guardrail(
    func: OutputGuardrailFunction[Any] | None = None, *, name: str | None = None, hold: Hold = "pass"
) -> Any:
    """Make a function (sync or async) of context, agent and output an `OutputGuardrail`."""

    def decorate(func: OutputGuardrailFunction[Any]) -> OutputGuardrail[Any]:
        return OutputGuardrail(func, name, hold)

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

    async def run(self, data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        """Judge a call. A function that is not async runs on the event loop.

        Raises:
            UserError: the guardrail is not a function, or gave no `ToolGuardrailFunctionOutput`.
            Exception: what the function raised.
        """
        return await _judge(self, ToolGuardrailFunctionOutput, data)


@dataclass
class ToolOutputGuardrail(Generic[TContext]):
    """A check on what a tool returned."""

    guardrail_function: ToolOutputGuardrailFunction
    name: str | None = None

    def get_name(self) -> str:
        """The given name, else the function's."""
        return self.name or _name_of(self.guardrail_function)

    async def run(self, data: ToolOutputGuardrailData) -> ToolGuardrailFunctionOutput:
        """Judge a call. A function that is not async runs on the event loop.

        Raises:
            UserError: the guardrail is not a function, or gave no `ToolGuardrailFunctionOutput`.
            Exception: what the function raised.
        """
        return await _judge(self, ToolGuardrailFunctionOutput, data)


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


def check_guardrails(where: str, given: Any, kind: type[Any]) -> None:
    """Refuse what is no guardrail of that kind, at the place `where` it was given.

    Raises:
        UserError: one of them is none.
    """
    for index, each in enumerate(given or ()):
        if not isinstance(each, kind):
            decorator = re.sub("(?<!^)(?=[A-Z])", "_", kind.__name__).lower()
            raise UserError(
                f"{where}[{index}] is of type {type(each).__name__}, not {kind.__name__}: "
                f"@{decorator} makes one of a function."
            )


TOutput = TypeVar("TOutput")


async def _judge(guardrail: Any, output_type: type[TOutput], *given: Any) -> TOutput:
    """What the function of `guardrail` makes of what it is given."""
    function: Any = guardrail.guardrail_function
    if not callable(function):
        raise UserError(f"Guardrail function must be callable, got {function!r}")
    output: Any = await settle(function(*given))
    if not isinstance(output, output_type):
        raise UserError(
            f"{type(guardrail).__name__} {guardrail.get_name()!r} returned {type(output).__name__}, "
            f"not a {output_type.__name__}: return {_REMEDIES[output_type]}."
        )
    return output


_REMEDIES: dict[type[Any], str] = {
    GuardrailFunctionOutput: "GuardrailFunctionOutput(output_info=…, tripwire_triggered=…)",
    ToolGuardrailFunctionOutput: "ToolGuardrailFunctionOutput.allow(), .reject_content(message) or .raise_exception()",
}


def _name_of(func: Callable[..., Any]) -> str:
    return getattr(func, "__name__", type(func).__name__)
