"""What a request says, read and checked: who asks, for which run, and with which body."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from millstream import codec
from millstream.clock import time_limit
from millstream.delivery.options import whole_number
from millstream.errors import DecodeError, UnknownRunError
from millstream.server.access import origin_is_this
from millstream.server.answers import (
    BAD_JSON,
    NO_ACCESS,
    NOT_JSON,
    TOO_LARGE,
    TOO_SLOW,
    WRONG_ORIGIN,
    ProblemError,
    invalid,
)

if TYPE_CHECKING:
    from starlette.requests import Request

    from millstream.log.store import RunRecord, RunStore
    from millstream.server.access import Access
    from millstream.server.service import Service

T = TypeVar("T", bound=msgspec.Struct)

BODY_SECONDS = 60.0
"""Seconds that a client may take for the body of a request."""

_RUN_ID = re.compile(r"run_[0-9a-f]{32}")
_READS_ONLY = frozenset({"GET", "HEAD", "OPTIONS"})


async def caller_of(request: Request, access: Access) -> str:
    """Who asks.

    Raises:
        ProblemError: nobody who may; or a page of somebody else's wants to change something.
    """
    if request.method not in _READS_ONLY and not origin_is_this(request):
        raise ProblemError(WRONG_ORIGIN)
    caller = await access(request)
    if caller is None:
        raise ProblemError(NO_ACCESS)
    if not isinstance(caller, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        # Not shown: it may be all that is known of somebody.
        raise TypeError(
            f"access= gave a {type(caller).__name__}: it names the caller by a text, or gives None."
        )
    return caller


async def asked_run(request: Request, service: Service) -> RunRecord:
    """The record of the run that the path of a request names.

    Raises:
        ProblemError: the caller may not use the server.
        UnknownRunError: as `record_of`.
    """
    caller = await caller_of(request, service.access)
    return await record_of(request.path_params["run_id"], service.store, caller)


async def record_of(run_id: str, store: RunStore, caller: str) -> RunRecord:
    """The record of a run, if it is the caller's.

    Raises:
        UnknownRunError: there is none, or it is somebody else's: nothing tells which.
    """
    if not _RUN_ID.fullmatch(run_id):
        raise UnknownRunError(run_id)
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
    return form_of(bytes(body), form)


def form_of(data: bytes | str, form: type[T]) -> T:
    """`data`, which is a JSON object of that form.

    Raises:
        ProblemError: it is not; says what is wrong with it.
    """
    try:
        plain = codec.decode(data)
    except (DecodeError, RecursionError):
        raise ProblemError(BAD_JSON) from None
    try:
        return msgspec.convert(plain, form)
    except msgspec.ValidationError as error:
        place, wanted = _told(error)
        raise ProblemError(invalid(place, wanted)) from None


def _told(error: msgspec.ValidationError) -> tuple[str, str]:
    """The field that is wrong, and what it has to be: types and paths, and nothing of a value."""
    text = str(error)
    if found := re.fullmatch(r"Object missing required field `(\w+)`(?: - at `([^`]*)`)?", text):
        return found[1], "given"
    if found := re.fullmatch(r"Object contains unknown field `.*`(?: - at `([^`]*)`)?", text, re.DOTALL):
        return "The body", "without fields that nobody knows"
    place = re.search(r"at `\$\.?([\w.\[\]]*)`", text)
    wanted = re.match(r"Expected (`[\w| ]+`[^,]*)", text)
    return (place[1] if place and place[1] else "The body"), (
        wanted[1] if wanted else "one of the values that there are"
    )


def query_number(request: Request, name: str, default: int, *, most: int) -> int:
    """A number of the query, from 0 to `most`.

    Raises:
        ProblemError: it is none.
    """
    text: Any = request.query_params.get(name)
    return default if text is None else number_from(text, name, most=most)


def number_from(text: str, name: str, *, most: int) -> int:
    """The number from 0 to `most` that a client has written for `name`.

    Raises:
        ProblemError: it is none.
    """
    number = whole_number(text)
    if number is None or number > most:
        raise ProblemError(invalid(name, f"a whole number from 0 to {most}"))
    return number
