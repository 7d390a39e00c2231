"""The error family: one root, a branch per stage of a run.

    AgentsException                        root; `.run_data` says how far the run got
    ├── UserError                          the program asks for something impossible
    │   ├── ToolFailedError                a tool raised, and its error was not to become a result
    │   ├── DuplicateToolError             two tools of one agent answer to one name
    │   ├── SchemaError                    a signature or type has no JSON schema
    │   ├── UnknownModelError              nobody serves a model of that name
    │   ├── UnknownAgentError              there is no agent of that name here
    │   ├── MissingKeyError                no API key, and no way to guess one
    │   ├── MissingExtraError              a part whose extra is not installed (also ImportError)
    │   ├── InputItemError                 an input item the models cannot take
    │   ├── MCPServerError                 an MCP server cannot be reached, or does not answer as one
    │   ├── ApprovalError                  a decision over a call that does not wait, or was decided over before
    │   ├── RunStateError                  a state that cannot be read, or not be run on from
    │   │   └── RunStateVersionError       it was written by a newer version
    │   ├── NestedLoopError                a synchronous door used inside a running loop (also RuntimeError)
    │   ├── NoRunningLoopError             an asynchronous door used outside any loop (also RuntimeError)
    │   └── NotSupportedError              a part of the API that this version does not have
    ├── MaxTurnsExceeded                   the model was asked `max_turns` times and was not done
    ├── BudgetExceeded                     the run has used its budget of tokens or money
    ├── ModelBehaviorError                 the model answered something that cannot be used
    │   ├── ModelProtocolError             the server broke the wire protocol
    │   └── ModelResponseError             the model's server reported that it failed
    ├── ModelRefusalError                  the model refused to answer
    ├── ModelTimeoutError                  the model took too long, or fell silent
    ├── ToolTimeoutError                   a tool took longer than it may
    ├── MCPToolCancellationError           a call of an MCP server's tool was cancelled, by nobody who made it
    ├── InputGuardrailTripwireTriggered    a guardrail stopped the run
    ├── OutputGuardrailTripwireTriggered
    ├── ToolInputGuardrailTripwireTriggered
    ├── ToolOutputGuardrailTripwireTriggered
    ├── RunCancelledError                  the result of a cancelled run was asked for
    ├── RunFailedError                     the result of a run was asked for that failed in another process
    ├── LogError                           the run's log
    │   ├── RunClosedError                 an append after the terminal event
    │   ├── PositionConflictError          an append that is not the next one
    │   ├── LogGapError                    a position that is no longer held
    │   ├── LogBrokenError                 the log of a run broke off before its terminal event
    │   ├── LogFullError                   a run went over the cap of its log
    │   ├── LogUnavailableError            the log's engine is away, full, locked or read-only
    │   ├── LogDamagedError                what the log holds cannot be read
    │   ├── LogTruncatedError              the engine lost events that it had taken
    │   ├── StaleOwnerError                another process has taken the run over
    │   │   └── HandedBackError            this process has left the run to others
    │   ├── RunOwnedError                  another process runs it
    │   ├── RunExistsError                 a run of that id is there already
    │   ├── IdempotencyError               a key that was used for another request
    │   ├── CommandConflictError           something else was said under that key before
    │   ├── ConversationBusyError          a conversation of which a run is going
    │   ├── UnknownConversationError       no conversation of that id in this log
    │   └── UnknownRunError                no run of that id in this log
    ├── RecoveryError                      a run whose process died cannot be gone on with
    │   ├── NotResumableError              its context is not kept, or its agent is not there
    │   ├── RunInterruptedError            a tool that must not run twice began, and left no result
    │   └── AttemptsExhaustedError         it was taken over as often as it may be
    ├── SessionError                       the store of a conversation
    │   └── SessionClosedError             a session used after its close() (also RuntimeError)
    ├── ServerStoppingError                a server that stops is asked to begin a run
    ├── ServerError                        a server of runs did not do what a client asked for
    │   ├── AccessDeniedError              it does not let the client in
    │   └── ServerUnreachableError         it was not reached, or broke off, as often as may be
    ├── StreamProtocolError                a server's stream is none that can be read
    └── DecodeError                        bytes that are not an event or entry of ours

`ModelScriptError` and its children (`UnexpectedModelCall`, `InvalidModelStep`, `UnconsumedModelSteps`)
are `UserError`s too: a `ScriptedModel` raises them, so they live in `millstream.testing`.

The names of the OpenAI Agents SDK keep their spelling and their attributes.

Errors of libraries (an HTTP client's, say) pass through a run unchanged: whatever its
class, an exception that ends a run carries `run_data` (see `RunErrorDetails`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import RunContextWrapper
    from millstream.guardrail import (
        InputGuardrailResult,
        OutputGuardrailResult,
        ToolGuardrailFunctionOutput,
        ToolInputGuardrail,
        ToolInputGuardrailResult,
        ToolOutputGuardrail,
        ToolOutputGuardrailResult,
    )
    from millstream.items import ModelResponse, RunItem, TResponseInputItem


@dataclass
class RunErrorDetails:
    """How far a run had come when its exception was raised."""

    input: str | list[TResponseInputItem]
    new_items: list[RunItem]
    raw_responses: list[ModelResponse]
    last_agent: Agent[Any]
    context_wrapper: RunContextWrapper[Any]
    input_guardrail_results: list[InputGuardrailResult]
    output_guardrail_results: list[OutputGuardrailResult]
    tool_input_guardrail_results: list[ToolInputGuardrailResult] = field(default_factory=list)
    tool_output_guardrail_results: list[ToolOutputGuardrailResult] = field(default_factory=list)
    partial_text: str = ""
    """Text of a model call that did not end. It is the last of `new_items` too, as a message of status "incomplete"."""
    run_id: str | None = None
    progress: Any = field(default=None, repr=False, compare=False)
    """What `RunState.after(error)` makes a state of."""

    def __str__(self) -> str:
        return (
            f"RunErrorDetails: last agent {self.last_agent.name!r}, {len(self.new_items)} new item(s), "
            f"{len(self.raw_responses)} model response(s)"
        )


class AgentsException(Exception):
    """Root of every exception that Millstream itself raises."""

    code: ClassVar[str] = "internal"
    """What the terminal event of a run that ends with this exception says."""
    public: ClassVar[str] = "The run failed."
    """What a client is told: never a detail of the exception."""
    retryable: ClassVar[bool] = False
    """Whether the same run may well succeed when it is started again."""

    run_data: RunErrorDetails | None

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.run_data = None


class _MessageError(AgentsException):
    message: str

    def __init__(self, message: str) -> None:
        self.message = message
        super().__init__(message)


class UserError(_MessageError):
    """The program uses the library in a way that cannot work; the message says what to change."""

    code = "user_error"
    public = "The agent is not set up correctly."


class ToolFailedError(UserError):
    """A tool raised, and nothing turned that into a result: its `failure_error_function` is None."""

    code = "tool_failed"
    public = "A tool failed."


class DuplicateToolError(UserError):
    """Two tools, or a tool and a handoff, of one agent answer to the same name."""


class SchemaError(UserError):
    """A function signature or an output type has no (strict) JSON schema."""


class UnknownModelError(UserError):
    """Nobody serves a model of that name."""


class UnknownAgentError(UserError):
    """There is no agent of that name here. Raised by a function that makes the agents of runs, it leaves a run to others."""


class MissingKeyError(UserError):
    """A model needs an API key and none was given."""


class MissingExtraError(UserError, ImportError):
    """A part of the library was used that needs an extra which is not installed.

    Attributes:
        extra: the name of the extra, as `pip install "millstream[extra]"` takes it.
    """

    def __init__(self, what: str, extra: str) -> None:
        self.extra = extra
        super().__init__(f'{what} needs an extra that is not installed: pip install "millstream[{extra}]"')


class InputItemError(UserError):
    """An input item is not of a type that models take."""


class ApprovalError(UserError):
    """A decision that cannot be taken: the call does not wait for one, or was decided over before."""


class RunStateError(UserError):
    """The state of a run that cannot be read, or that the run cannot go on from."""


class RunStateVersionError(RunStateError):
    """A state that a newer version has written.

    Attributes:
        version: the version of its schema.
        known: the newest version that this one reads.
    """

    def __init__(self, version: int, known: int) -> None:
        self.version = version
        self.known = known
        super().__init__(
            f"The state of this run has version {version} of its schema, and this version of Millstream reads "
            f"versions 1 to {known}: resume it where a Millstream of that age or newer is installed, or upgrade here."
        )


class MCPServerError(UserError):
    """An MCP server cannot be reached, did not answer in time, or answered what is not MCP.

    Where it is raised by a call of a tool, the model is told that the tool failed; where the
    server was asked for its tools, it ends the run.

    Attributes:
        server_name: which server.
    """

    code = "mcp_server"
    public = "A tool server is not available just now."
    retryable = True

    def __init__(self, server_name: str, message: str) -> None:
        self.server_name = server_name
        super().__init__(message)


class NestedLoopError(UserError, RuntimeError):
    """A synchronous door (`run_sync`) was used while an event loop runs in this thread."""


class NoRunningLoopError(UserError, RuntimeError):
    """`run_streamed` was used where no event loop runs."""


class NotSupportedError(UserError):
    """An argument of the API that this version does not act on, refused rather than ignored."""


class MaxTurnsExceeded(_MessageError):
    """The run took more model calls than `max_turns` allows."""

    code = "max_turns"
    public = "The run took more turns than it may."


class BudgetExceeded(_MessageError):
    """The run has used its `RunConfig.budget`, together with the runs nested in it."""

    code = "budget"
    public = "The run has used its budget."

    def __init__(self, message: str, *, tokens: int = 0, money: float = 0.0) -> None:
        super().__init__(message)
        self.tokens = tokens
        """Tokens that were used."""
        self.money = money
        """What they cost, where they have prices."""


class ModelBehaviorError(_MessageError):
    """The model answered something that cannot be used: an unknown tool, malformed arguments or output."""

    code = "model_behavior"
    public = "The model gave an answer that cannot be used."
    retryable = True


class ModelProtocolError(ModelBehaviorError):
    """The model's server broke its wire protocol: malformed frames, or an end without a terminal event.

    Attributes:
        cut_off: the answer is not damaged but ended too early: the connection broke, or was closed.
    """

    code = "model_protocol"
    public = "The model's answer was cut off or damaged."
    retryable = True

    def __init__(self, message: str, *, cut_off: bool = False) -> None:
        super().__init__(message)
        self.cut_off = cut_off


class ModelResponseError(ModelBehaviorError):
    """The model's server ended the response by reporting a failure of its own."""

    code = "model_failed"
    public = "The model reported a failure."
    retryable = True

    def __init__(self, message: str, *, error_code: str | None = None) -> None:
        super().__init__(message)
        self.error_code = error_code


class ModelRefusalError(AgentsException):
    """The model refused to answer, and no handler turned the refusal into an output."""

    code = "model_refusal"
    public = "The model declined to answer."
    refusal: str

    def __init__(self, refusal: str) -> None:
        self.refusal = refusal
        super().__init__(f"Model refused to produce output: {refusal}")


class ModelTimeoutError(AgentsException):
    """The model did not answer within `timeout_seconds`, or sent nothing for that long.

    Whosever limit it was: `ModelSettings.timeout`, the `idle_timeout` of a model, or the client's
    own. Where the client itself would have raised `openai.APITimeoutError`, it is one of these too.

    Attributes:
        timeout_seconds: the limit.
        idle: it was a limit of silence in the middle of an answer, not one of the whole call.
    """

    code = "model_timeout"
    public = "The model took too long to answer."
    retryable = True
    timeout_seconds: float
    idle: bool

    def __init__(self, timeout_seconds: float, *, idle: bool = False) -> None:
        self.timeout_seconds = timeout_seconds
        self.idle = idle
        what = "sent nothing for" if idle else "did not finish within"
        super().__init__(f"The model {what} {timeout_seconds:g} s.")


class ToolTimeoutError(AgentsException):
    """A tool ran longer than its timeout, and its `timeout_behavior` is to raise."""

    code = "tool_timeout"
    public = "A tool took too long."
    tool_name: str
    timeout_seconds: float

    def __init__(self, tool_name: str, timeout_seconds: float) -> None:
        self.tool_name = tool_name
        self.timeout_seconds = timeout_seconds
        super().__init__(f"Tool '{tool_name}' timed out after {timeout_seconds:g} seconds.")


class MCPToolCancellationError(_MessageError):
    """A call of an MCP server's tool was cancelled, but not by whoever made it."""

    code = "tool_failed"
    public = "A tool failed."


class _TripwireError(AgentsException):
    code = "tripwire"
    public = "A guardrail stopped the run."


class InputGuardrailTripwireTriggered(_TripwireError):
    """An input guardrail stopped the run."""

    guardrail_result: InputGuardrailResult

    def __init__(self, guardrail_result: InputGuardrailResult) -> None:
        self.guardrail_result = guardrail_result
        super().__init__(f"Guardrail {type(guardrail_result.guardrail).__name__} triggered tripwire")


class OutputGuardrailTripwireTriggered(_TripwireError):
    """An output guardrail stopped the run."""

    guardrail_result: OutputGuardrailResult

    def __init__(self, guardrail_result: OutputGuardrailResult) -> None:
        self.guardrail_result = guardrail_result
        super().__init__(f"Guardrail {type(guardrail_result.guardrail).__name__} triggered tripwire")


class ToolInputGuardrailTripwireTriggered(_TripwireError):
    """A guardrail on a tool's input stopped the run."""

    guardrail: ToolInputGuardrail[Any]
    output: ToolGuardrailFunctionOutput

    def __init__(self, guardrail: ToolInputGuardrail[Any], output: ToolGuardrailFunctionOutput) -> None:
        self.guardrail = guardrail
        self.output = output
        super().__init__(f"Tool input guardrail {type(guardrail).__name__} triggered tripwire")


class ToolOutputGuardrailTripwireTriggered(_TripwireError):
    """A guardrail on a tool's output stopped the run."""

    guardrail: ToolOutputGuardrail[Any]
    output: ToolGuardrailFunctionOutput

    def __init__(self, guardrail: ToolOutputGuardrail[Any], output: ToolGuardrailFunctionOutput) -> None:
        self.guardrail = guardrail
        self.output = output
        super().__init__(f"Tool output guardrail {type(guardrail).__name__} triggered tripwire")


class RunCancelledError(_MessageError):
    """The result of a run was awaited, and the run had been cancelled."""

    code = "cancelled"
    public = "The run was cancelled."


class RunFailedError(AgentsException):
    """The result of a run was asked for that failed, and of its exception there is what its log tells.

    Attributes:
        run_id: the run.
        code: the code of the exception that ended it (`AgentsException.code`).
        message: what clients are told of it.
        error_id: names the failure in the log of the process that ran it, which has the rest.
        retryable: whether the same run may well succeed when it is started again.
    """

    def __init__(
        self, run_id: str, code: str, message: str, *, error_id: str = "", retryable: bool = False
    ) -> None:
        self.run_id = run_id
        self.message = message
        self.error_id = error_id
        # Of the class elsewhere: here they are what the log tells.
        vars(self).update(code=code, public=message, retryable=retryable)
        super().__init__(
            f"Run {run_id} failed ({code}): {message} The log of the process that ran it has the rest, as {error_id}."
        )


class LogError(_MessageError):
    """Something about the log of a run."""

    code = "log"
    public = "The record of the run could not be kept."


class RunClosedError(LogError):
    """An append to a run whose terminal event has been written."""


class PositionConflictError(LogError):
    """An append whose position is not the next one, or that differs from what stands there."""


class LogGapError(LogError):
    """A reader asked for a position that the log no longer holds.

    Attributes:
        requested: the first position that was asked for.
        first: the first position that is still held.
    """

    def __init__(self, run_id: str, requested: int, first: int) -> None:
        self.run_id = run_id
        self.requested = requested
        self.first = first
        super().__init__(
            f"Run {run_id}: position {requested} is no longer held; the first one held is {first}. "
            f"Read on from after={first - 1}."
        )


class LogBrokenError(LogError):
    """The log of a run broke off: its owner can write no more to it, not even how it ended."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(
            f"The log of run {run_id} broke off: nothing more will come, and its end is not written."
        )


class LogFullError(LogError):
    """A run wrote more events or bytes than the caps of its log allow."""

    code = "log_full"
    public = "The run produced more output than it may."


class LogUnavailableError(LogError):
    """The engine of a log cannot be used at the moment: it is away, its disk is full, it is locked or read-only."""

    code = "log_unavailable"
    retryable = True


class LogDamagedError(LogError):
    """What a log holds cannot be read: it was damaged, or written by a later version."""

    code = "log_damaged"


class LogTruncatedError(LogError):
    """The engine of a log has lost events that it had taken: it was restarted without its data, say."""

    code = "log_truncated"


class StaleOwnerError(LogError):
    """Whoever writes is not the owner of the run any more: another process has taken it over."""

    code = "stale_owner"


class HandedBackError(StaleOwnerError):
    """This process has let go of the run before its end: another one may go on with it."""


class RunOwnedError(LogError):
    """The run has an owner that lives, and is not to be taken from it."""


class RunExistsError(LogError):
    """A run of that id is in the log already."""


class IdempotencyError(LogError):
    """An idempotency key was used before, for another request.

    Attributes:
        run_id: the run that the key belongs to.
    """

    code = "idempotency_conflict"

    def __init__(self, key: str, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"The idempotency key {key!r} was used for another request: that is run {run_id}.")


class CommandConflictError(LogError):
    """Something else was said to the run before, where one thing may be said once."""


class ConversationBusyError(LogError):
    """A run of the conversation is going: another one waits for its end. One that is paused is going, too.

    Attributes:
        conversation: the id of the conversation.
        run_id: the run that is going.
    """

    code = "conversation_busy"
    retryable = True

    def __init__(self, conversation: str, run_id: str) -> None:
        self.conversation = conversation
        self.run_id = run_id
        super().__init__(
            f"Run {run_id} of the conversation {conversation!r} is going: wait for its end, or stop it first."
        )


class UnknownConversationError(LogError):
    """The log holds no conversation of that id of that caller's."""

    def __init__(self, conversation: str) -> None:
        self.conversation = conversation
        super().__init__(f"No conversation {conversation!r} in this log.")


class UnknownRunError(LogError):
    """The log holds no run of that id."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        super().__init__(f"No run {run_id!r} in this log.")


class RecoveryError(_MessageError):
    """A run whose process died, and that nobody can go on with: it ends failed, with this code."""

    code = "not_resumable"
    public = "The run was interrupted and could not go on."


class NotResumableError(RecoveryError):
    """What the run needs to go on is not kept, or not there: its context, its agent, its session."""


class RunInterruptedError(RecoveryError):
    """A tool that must not be started twice had begun, and left no result."""

    code = "interrupted"


class AttemptsExhaustedError(RecoveryError):
    """The run was taken over as often as it may be, and its process died each time."""

    code = "attempts_exhausted"


class SessionError(_MessageError):
    """The store of a conversation cannot be reached, read or written.

    Attributes:
        session_id: the conversation.
    """

    code = "session"
    public = "The conversation could not be read or kept."
    retryable = True

    def __init__(self, message: str, *, session_id: str | None = None) -> None:
        super().__init__(message)
        self.session_id = session_id


class SessionClosedError(SessionError, RuntimeError):
    """A session was used after its `close()`."""

    retryable = False


class ServerStoppingError(_MessageError):
    """The server is stopping, and begins nothing more."""

    code = "stopping"
    public = "The server is stopping. Ask again in a moment."
    retryable = True


class ServerError(_MessageError):
    """A server of runs did not do what a client asked for.

    Attributes:
        status: the HTTP status that it answered with; None where it answered with none.
        reason: the code of the error that it told; "" where it told none.
    """

    code = "server"

    def __init__(self, message: str, *, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class AccessDeniedError(ServerError):
    """A server does not let a client in, or not at this."""

    code = "access_denied"


class ServerUnreachableError(ServerError):
    """A server was not reached, or gave no answer that can be used, as often as it may be asked. Runs go on without it."""

    code = "server_unreachable"
    retryable = True


class StreamProtocolError(_MessageError):
    """A server's stream breaks the rules of its protocol, or the bounds that the client sets."""

    code = "stream_protocol"


class DecodeError(_MessageError):
    """Bytes that are not an event or an entry of this vocabulary."""

    code = "decode"


@dataclass(frozen=True)
class PublicError:
    """What may be said of an exception outside the process: see promise 11 in the design."""

    code: str
    message: str
    retryable: bool


def public_error(error: BaseException) -> PublicError:
    """Tell what a client may know of `error`: its code, a fixed message, and whether to try again."""
    if isinstance(error, AgentsException):
        return PublicError(error.code, error.public, error.retryable)
    # Not imported for this: where nobody has, the error cannot be one of its own.
    openai = sys.modules.get("openai")
    if openai is not None and isinstance(error, openai.APIError):
        status = getattr(error, "status_code", None)
        if status is None or status in _PASSING or status >= 500:
            return PublicError("model_unavailable", "The model cannot be reached just now.", retryable=True)
        return PublicError(
            "model_refused_request", "The model's server refused the request.", retryable=False
        )
    return PublicError(AgentsException.code, AgentsException.public, retryable=False)


_PASSING = frozenset({408, 409, 429})
"""Statuses below 500 that a later request may not get again."""
