"""What a request says, read and checked: who asks, for which run, and with which body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeVar

import msgspec

from millstream.about import CURRENT_RUN
from millstream.clock import time_limit
from millstream.errors import UnknownRunError
from millstream.server.access import origin_may
from millstream.server.answers import (
    NO_ACCESS,
    NOT_JSON,
    TOO_LARGE,
    TOO_SLOW,
    WRONG_ORIGIN,
    ProblemError,
)
from millstream.server.forms import formed, json_of

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection, Request

    from millstream.log.store import RunRecord, RunStore
    from millstream.server.service import Service

T = TypeVar("T", bound=msgspec.Struct)

BODY_SECONDS = 60.0
"""Seconds that a client may take for the body of a request."""

RUN_ID = "run_[0-9a-f]{32}"
"""What the id of a run is, as a regular expression."""


async def caller_of(request: HTTPConnection, service: Service) -> str:
    """Who asks, by a request or a WebSocket, on which more may be asked for than reading.

    Raises:
        ProblemError: nobody who may; or a page of somebody else's wants to change something.
    """
    if not reads_only(request.scope.get("method")) and not origin_may(request, service.origins):
        raise ProblemError(WRONG_ORIGIN)
    caller = await service.access(request)
    if caller is None:
        raise ProblemError(NO_ACCESS)
    if not isinstance(caller, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        # Not shown: it may be all that is known of somebody.
        raise TypeError(
            f"access= gave a {type(caller).__name__}: it names the caller by a text, or gives None."
        )
    return caller


def reads_only(method: str | None) -> bool:
    """Whether requests of that method change nothing."""
    return method in ("GET", "HEAD", "OPTIONS")


async def record_of(run_id: str, store: RunStore, caller: str) -> RunRecord:
    """The record of a run, if it is the caller's.

    Raises:
        UnknownRunError: there is none, or it is somebody else's: nothing tells which.
    """
    if not re.fullmatch(RUN_ID, run_id):
        raise UnknownRunError(run_id)
    CURRENT_RUN.set(run_id)  # for what is logged of this request from here on
    record = await store.record(run_id)
    if record.caller != caller:
        raise UnknownRunError(run_id)
    return record


async def body_of(request: Request, service: Service, form: type[T]) -> T:
    """The body of a request, which is a JSON object of that form.

    Raises:
        ProblemError: it is not; says what is wrong with it.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ProblemError(NOT_JSON)
    body = bytearray()
    async with time_limit(service.clock, BODY_SECONDS, ProblemError(TOO_SLOW)):
        async for piece in request.stream():
            body += piece
            if len(body) > service.max_body:
                raise ProblemError(TOO_LARGE)
    return formed(json_of(bytes(body)), form)
