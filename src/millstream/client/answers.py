"""What is asked of a server, and what it says where it does not do it: as the exceptions that a store would raise. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from millstream import codec
from millstream.errors import (
    AccessDeniedError,
    AgentsException,
    ApprovalError,
    CommandConflictError,
    ConversationBusyError,
    DecodeError,
    IdempotencyError,
    InputItemError,
    LogGapError,
    ServerError,
    UnknownConversationError,
    UnknownRunError,
    UserError,
)


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked of a server."""

    method: str
    path: str
    """Below the server's address."""
    body: Any = None
    """The JSON to send; None for none."""
    query: Mapping[str, Any] = field(default_factory=dict[str, Any])
    run_id: str = ""
    """The run that it is about."""
    conversation: str = ""
    """The conversation that it is about."""
    after: int = 0
    """The position behind which that is to be read."""
    key: str | None = None
    """The idempotency key."""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Statuses that a later request may well not get again."""
_SHOWN = 300
"""Characters of what a server says that stand in an exception."""

_OF_CODES: dict[str, Callable[[str], AgentsException]] = {
    "no_such_decision": ApprovalError,
    "conflict": CommandConflictError,
    "bad_input": InputItemError,
    "bad_request": UserError,
    "unknown_agent": UserError,
    "not_possible": UserError,
    "run_over": UserError,
}


def error_in(body: bytes) -> dict[str, Any]:
    """The error that a body tells; an empty one where it tells none of ours."""
    try:
        plain = codec.decode(body)
    except (DecodeError, RecursionError):
        return {}
    told: Any = cast("dict[str, Any]", plain).get("error") if isinstance(plain, dict) else None
    return cast("dict[str, Any]", told) if isinstance(told, dict) else {}


def refusal(request: Request, status: int, told: dict[str, Any], server: str) -> AgentsException:
    """What a status that is no success stands for.

    Args:
        request: what was asked.
        status: the status.
        told: the error that the body tells.
        server: the server, for people.
    """
    code = str(told.get("code", ""))
    message = str(told.get("message", ""))[:_SHOWN]
    where = f"{request} at {server}"
    if status in (401, 403):
        return AccessDeniedError(
            f"{where}: the server does not let this client do that ({status}). {message or 'It does not say why.'} "
            "Is the token right: Client(url, token=...)?",
            status=status,
            reason=code,
        )
    if code == "unknown_run":
        return UnknownRunError(request.run_id)
    if code == "unknown_conversation":
        return UnknownConversationError(request.conversation)
    if code == "conversation_busy":
        return ConversationBusyError(request.conversation, str(told.get("run_id", "of this caller")))
    if status == 410:
        after, first = request.after, told.get("first")
        return LogGapError(request.run_id, after + 1, first if isinstance(first, int) else after + 2)
    if code == "idempotency_conflict" and request.key is not None:
        return IdempotencyError(request.key, str(told.get("run_id", "of this caller")))
    if code in _OF_CODES:
        return _OF_CODES[code](message)
    hint = "" if code else " Is there a Millstream server at this address?"
    return ServerError(
        f"{where}: the server answered {status}. {message or 'It does not say why.'}{hint}",
        status=status,
        reason=code,
    )
