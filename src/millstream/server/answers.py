"""What a server answers besides streams: JSON, and errors that say no more than a client may know.

An error is `{"error": {"code", "message", "retryable"}}`, with an `error_id` where details stand in the
server's log. Its message comes from the table here, never from an exception.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from millstream import codec
from millstream.errors import (
    AgentsException,
    ApprovalError,
    CommandConflictError,
    ConversationBusyError,
    IdempotencyError,
    InputItemError,
    LogError,
    LogGapError,
    RunClosedError,
    ServerStoppingError,
    UnknownConversationError,
    UnknownRunError,
    UserError,
)

if TYPE_CHECKING:
    from starlette.requests import Request

logger = logging.getLogger("millstream")


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with a request, for its client."""

    status: int
    code: str
    message: str
    retry_after: int | None = None
    """Seconds after which it may be asked again, where that may help."""


NO_ACCESS = Problem(401, "unauthorized", "You may not use this server.")
WRONG_ORIGIN = Problem(403, "wrong_origin", "A page of another origin may not do that.")
NO_RUN = Problem(404, "unknown_run", "There is no such run.")
NO_CONVERSATION = Problem(404, "unknown_conversation", "There is no such conversation.")
NO_ROUTE = Problem(404, "unknown_path", "There is nothing here: openapi.json tells what there is.")
WRONG_METHOD = Problem(405, "wrong_method", "That cannot be done here.")
NO_AGENT = Problem(422, "unknown_agent", "There is no agent of that name.")
NO_AGENT_NAMED = Problem(422, NO_AGENT.code, "It is not clear which agent is meant: name it in `agent`.")
NOT_JSON = Problem(415, "not_json", "The body has to be JSON: say Content-Type: application/json.")
TOO_LARGE = Problem(413, "too_large", "The body is larger than this server takes.")
LEFT = Problem(400, "left", "The body is not whole.")
TOO_SLOW = Problem(408, "too_slow", "The body took too long to arrive.")
TOO_MANY_RUNS = Problem(
    429,
    "too_many_runs",
    "As many of your runs are going as may at a time. Ask again in a moment.",
    retry_after=5,
)
TOO_MANY_STREAMS = Problem(
    429,
    "too_many_streams",
    "You follow as many streams as you may at a time. Leave one first.",
    retry_after=5,
)
BAD_JSON = Problem(400, "bad_json", "The body is no JSON.")
INTERNAL = Problem(500, "internal", "Something went wrong.")

NO_POSITION = Problem(400, "no_such_position", "The run has not come to that position.")
GONE = Problem(410, "gone", "This part of the stream is no longer held.")
KEY_TAKEN = Problem(409, "idempotency_conflict", "The key was used for another request.")
NO_DECISION = Problem(409, "no_such_decision", "No such call waits, or it was decided over otherwise.")
CONFLICT = Problem(409, "conflict", "Something else was said before.")
BUSY = Problem(
    409,
    "conversation_busy",
    "A run of this conversation is going. Wait for its end, or stop it first.",
    retry_after=2,
)
RUN_OVER = Problem(409, "run_over", "The run is over.")
BAD_INPUT = Problem(422, "bad_input", "The input is none that models take.")
STOPPING = Problem(503, "stopping", ServerStoppingError.public, retry_after=2)
NO_STORE = Problem(503, "log_unavailable", "The server's store cannot be used at the moment.", retry_after=5)
NOT_POSSIBLE = Problem(409, "not_possible", "That is not possible with this run.")
BAD_REQUEST = Problem(422, "bad_request", "Something of the request is not what it has to be.")

_OF_ERRORS: dict[type[AgentsException], Problem] = {
    UnknownRunError: NO_RUN,
    UnknownConversationError: NO_CONVERSATION,
    ConversationBusyError: BUSY,
    LogGapError: GONE,
    IdempotencyError: KEY_TAKEN,
    ApprovalError: NO_DECISION,
    CommandConflictError: CONFLICT,
    RunClosedError: RUN_OVER,
    InputItemError: BAD_INPUT,
    ServerStoppingError: STOPPING,
    LogError: NO_STORE,
    UserError: NOT_POSSIBLE,
}
"""By the class of an error, the more special one first."""


def invalid(where: str, wanted: str) -> Problem:
    """A field of a request is not what it has to be. Both are words of ours."""
    return replace(BAD_REQUEST, message=f"{where} has to be {wanted}.")


class ProblemError(Exception):
    """Ends the handling of a request with `problem`."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def answer(value: Any, status: int = 200, **headers: str) -> Response:
    """`value` as JSON; total, as every encoding here is."""
    shown = {name.replace("_", "-"): text for name, text in headers.items()}
    return Response(
        codec.encode(value),
        status,
        {"cache-control": "no-store", "x-content-type-options": "nosniff", **shown},
        "application/json",
    )


class ErrorDetails(msgspec.Struct, kw_only=True):
    """What was wrong."""

    code: str
    message: str
    retryable: bool
    """Whether the same request may do better in a moment: see `Retry-After`."""
    error_id: str | msgspec.UnsetType = msgspec.UNSET
    """Stands in the server's log, with what happened."""
    requested: int | msgspec.UnsetType = msgspec.UNSET
    """The position that was asked for, where it is gone."""
    first: int | msgspec.UnsetType = msgspec.UNSET
    """The first position that is held, then."""
    run_id: str | msgspec.UnsetType = msgspec.UNSET
    """The run that the idempotency key belongs to, or that is going in the conversation."""


class ErrorAnswer(msgspec.Struct):
    """An error."""

    error: ErrorDetails


def problem_fields(problem: Problem, facts: Mapping[str, Any]) -> dict[str, Any]:
    """`problem`, for a client, with `facts` about it."""
    retryable = problem.retry_after is not None
    return msgspec.to_builtins(
        ErrorDetails(code=problem.code, message=problem.message, retryable=retryable, **facts)
    )


def problem_answer(problem: Problem, facts: Mapping[str, Any] | None = None) -> Response:
    """`problem` as the answer to a request, with `facts` about it."""
    headers = {} if problem.retry_after is None else {"retry_after": str(problem.retry_after)}
    return answer({"error": problem_fields(problem, facts or {})}, problem.status, **headers)


def answer_to_error(request: Request, error: Exception) -> Response:
    """The answer to a request for which `error` was raised."""
    return problem_answer(*problem_of(error, f"{request.method} {request.url.path}"))


def problem_of(error: Exception, asked: str) -> tuple[Problem, dict[str, Any]]:
    """What a client is told of what was raised for what he `asked`, with facts about it; all else goes to the log."""
    if isinstance(error, ProblemError):
        return error.problem, {}
    if isinstance(error, ClientDisconnect):  # amid its body: nobody is there to be told
        return LEFT, {}
    found = next((problem for kind, problem in _OF_ERRORS.items() if isinstance(error, kind)), None)
    if found is not None and (found.status < 500 or found is STOPPING):  # which is no trouble of the server's
        logger.debug("%s: %s", asked, found.code, exc_info=error)
        return found, _facts(error)
    error_id = f"err_{secrets.token_hex(8)}"
    logger.error("%s failed (%s)", asked, error_id, exc_info=error)
    return found or INTERNAL, {"error_id": error_id}


def _facts(error: Exception) -> dict[str, Any]:
    """What a client may know of an error besides: where to read on, and which of his runs it is about."""
    if isinstance(error, LogGapError):
        return {"requested": error.requested, "first": error.first}
    return {"run_id": error.run_id} if isinstance(error, IdempotencyError | ConversationBusyError) else {}
