"""The error family: drawn as it is, and mute towards clients."""

import inspect
import re
from types import SimpleNamespace
from typing import Any

import pytest

from millstream import errors
from millstream.agent import Agent
from millstream.errors import (
    AgentsException,
    ConversationBusyError,
    IdempotencyError,
    InputGuardrailTripwireTriggered,
    LogBrokenError,
    LogGapError,
    MCPServerError,
    MissingExtraError,
    ModelBehaviorError,
    ModelRefusalError,
    ModelResponseError,
    ModelTimeoutError,
    NestedLoopError,
    NoRunningLoopError,
    OutputGuardrailTripwireTriggered,
    PublicError,
    RunErrorDetails,
    RunFailedError,
    RunStateVersionError,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
    ToolTimeoutError,
    UnknownConversationError,
    UnknownRunError,
    UserError,
    public_error,
)
from millstream.testing import (
    CANARY,
    InvalidModelStep,
    ModelScriptError,
    UnconsumedModelSteps,
    UnexpectedModelCall,
)

GUARDRAIL: Any = SimpleNamespace(guardrail=SimpleNamespace(name=CANARY), output=CANARY)
MADE_OTHERWISE: dict[type[AgentsException], tuple[Any, ...]] = {
    MissingExtraError: (CANARY, "redis"),
    ModelTimeoutError: (1.5,),
    ToolTimeoutError: (CANARY, 2.0),
    InputGuardrailTripwireTriggered: (GUARDRAIL,),
    OutputGuardrailTripwireTriggered: (GUARDRAIL,),
    ToolInputGuardrailTripwireTriggered: (GUARDRAIL, CANARY),
    ToolOutputGuardrailTripwireTriggered: (GUARDRAIL, CANARY),
    LogGapError: (CANARY, 3, 7),
    RunStateVersionError: (3, 1),
    MCPServerError: (CANARY, CANARY),
    RunFailedError: (CANARY, "internal", "The run failed."),
    IdempotencyError: (CANARY, CANARY),
    ConversationBusyError: (CANARY, CANARY),
    UnknownConversationError: (CANARY,),
}
FAMILY: list[type[AgentsException]] = [
    cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, AgentsException) and not name.startswith("_")
]


def made(cls: type[AgentsException]) -> AgentsException:
    return cls(*MADE_OTHERWISE.get(cls, (CANARY,)))


@pytest.mark.parametrize("cls", FAMILY)
def test_a_client_is_told_nothing_of_an_error_but_its_kind(cls: type[AgentsException]) -> None:
    error = made(cls)
    error.__cause__ = ValueError(CANARY)
    error.add_note(CANARY)

    public = public_error(error)

    assert CANARY not in repr(public)
    assert public == PublicError(cls.code, cls.public, cls.retryable)
    assert re.fullmatch(r"[a-z_]+", public.code)
    assert re.fullmatch(r"[A-Z][^\n]*\.", public.message), "a sentence"


@pytest.mark.parametrize(
    "error",
    [
        ValueError(CANARY),
        ConnectionResetError(CANARY),
        KeyboardInterrupt(CANARY),
        ExceptionGroup(CANARY, [ValueError()]),
    ],
)
def test_a_client_is_told_nothing_of_errors_that_are_not_ours(error: BaseException) -> None:
    public = public_error(error)

    assert CANARY not in repr(public)
    assert (public.code, public.retryable) == ("internal", False)


def test_a_subclass_of_the_users_is_as_mute_as_its_parent() -> None:
    class Mine(ModelBehaviorError):
        pass

    assert public_error(Mine(CANARY)) == public_error(ModelBehaviorError("x"))


@pytest.mark.parametrize("cls", FAMILY)
def test_every_error_tells_the_program_what_happened(cls: type[AgentsException]) -> None:
    error = made(cls)

    assert str(error)
    assert error.run_data is None
    assert inspect.getdoc(cls)
    if cls not in MADE_OTHERWISE and cls not in (ModelRefusalError, LogBrokenError, UnknownRunError):
        assert str(error) == CANARY


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn: list[tuple[str, str | None]] = []
    parents: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"    ((?:[│ ]   )*(?:[├└]── )?)(\w+)(?:\s{2,}|$)", line)
        if match:
            depth = len(match[1]) // 4
            parents[depth:] = [match[2]]
            drawn.append((match[2], parents[depth - 1] if depth else None))

    def parent(cls: type) -> str | None:
        above = [
            c for c in cls.__mro__[1:] if issubclass(c, AgentsException) and not c.__name__.startswith("_")
        ]
        return above[0].__name__ if above else None

    assert sorted(drawn, key=str) == sorted(((cls.__name__, parent(cls)) for cls in FAMILY), key=str)


@pytest.mark.parametrize("cls", [NestedLoopError, NoRunningLoopError])
def test_errors_about_loops_are_runtime_errors_too(cls: type[UserError]) -> None:
    assert issubclass(cls, RuntimeError)


def test_an_extra_that_is_missing_is_named_with_the_command_that_installs_it() -> None:
    error = MissingExtraError("The model 'litellm/x'", "litellm")

    assert isinstance(error, ImportError)
    assert error.extra == "litellm"
    assert 'pip install "millstream[litellm]"' in str(error)


def test_errors_carry_data_as_attributes() -> None:
    assert ModelRefusalError("no").refusal == "no"
    assert ModelResponseError("x", error_code="rate_limit").error_code == "rate_limit"
    assert (ModelTimeoutError(30).timeout_seconds, ModelTimeoutError(30).idle) == (30, False)
    assert "sent nothing for 30 s" in str(ModelTimeoutError(30.0, idle=True))
    assert "did not finish within 0.5 s" in str(ModelTimeoutError(0.5))
    assert ToolTimeoutError("search", 3).tool_name == "search"
    assert InputGuardrailTripwireTriggered(GUARDRAIL).guardrail_result is GUARDRAIL
    assert ToolInputGuardrailTripwireTriggered(GUARDRAIL, GUARDRAIL).output is GUARDRAIL
    gap = LogGapError("run_1", 3, 7)
    assert (gap.run_id, gap.requested, gap.first) == ("run_1", 3, 7)
    assert "after=6" in str(gap)
    assert UnknownRunError("run_1").run_id == "run_1"
    assert UnknownConversationError("chat").conversation == "chat"
    busy = ConversationBusyError("chat", "run_1")
    assert (busy.conversation, busy.run_id) == ("chat", "run_1")
    assert LogBrokenError("run_1").run_id == "run_1"


def test_run_data_reads_as_one_line() -> None:
    nothing: Any = None
    details = RunErrorDetails("hi", [], [], Agent(name="helper"), nothing, [], [], partial_text=CANARY)

    assert str(details) == "RunErrorDetails: last agent 'helper', 0 new item(s), 0 model response(s)"


def test_the_errors_of_scripts_are_told_of_where_the_others_are(pytestconfig: pytest.Config) -> None:
    page = (pytestconfig.rootpath / "docs" / "errors.md").read_text()

    for cls in (ModelScriptError, UnexpectedModelCall, InvalidModelStep, UnconsumedModelSteps):
        assert issubclass(cls, UserError)
        assert f"`{cls.__name__}`" in (errors.__doc__ or "")
        assert f"`{cls.__name__}`" in page
