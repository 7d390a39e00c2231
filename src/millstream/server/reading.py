"""What a request says, read and checked: who asks, for which run, and with which body."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from millstream import codec
from millstream.about import CURRENT_RUN
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
    from starlette.requests import HTTPConnection, Request

    from millstream.log.store import RunRecord, RunStore
    from millstream.server.access import Access
    from millstream.server.service import Service

T = TypeVar("T", bound=msgspec.Struct)

BODY_SECONDS = 60.0
"""Seconds that a client may take for the body of a request."""

RUN_ID = "run_[0-9a-f]{32}"
"""What the id of a run is, as a regular expression."""


async def caller_of(request: HTTPConnection, access: Access) -> str:
    """Who asks, by a request or a WebSocket, on which more may be asked for than reading.

    Raises:
        ProblemError: nobody who may; or a page of somebody else's wants to change something.
    """
    if not reads_only(request.scope.get("method")) and not origin_is_this(request):
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


def reads_only(method: str | None) -> bool:
    """Whether requests of that method change nothing."""
    return method in ("GET", "HEAD", "OPTIONS")


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
    return form_of(bytes(body), form)


def form_of(data: bytes | str, form: type[T]) -> T:
    """`data`, which is a JSON object of that form.

    Raises:
        ProblemError: it is not; says what is wrong with it.
    """
    return formed(json_of(data), form)


def json_of(data: bytes | str, what: str = "The body") -> Any:
    """The JSON value that `data` is. `what` names it for its client.

    Raises:
        ProblemError: it is none.
    """
    try:
        return codec.decode(data)
    except (DecodeError, RecursionError):
        raise ProblemError(replace(BAD_JSON, message=f"{what} is no JSON.")) from None


def formed(plain: Any, form: type[T], what: str = "The body") -> T:
    """`plain`, which is a JSON object of that form. `what` names it for its client.

    Raises:
        ProblemError: it is not; says what is wrong with it.
    """
    try:
        return msgspec.convert(plain, form)
    except msgspec.ValidationError as error:
        place, wanted = _told(error, what)
        raise ProblemError(invalid(place, wanted)) from None


def _told(error: msgspec.ValidationError, what: str) -> tuple[str, str]:
    """The field that is wrong, and what it has to be: types and paths, and nothing of a value."""
    text = str(error)
    if found := re.fullmatch(r"Object missing required field `(\w+)`(?: - at `([^`]*)`)?", text):
        return found[1], "given"
    if found := re.fullmatch(r"Object contains unknown field `.*`(?: - at `([^`]*)`)?", text, re.DOTALL):
        return what, "without fields that nobody knows"
    place = re.search(r"at `\$\.?([\w.\[\]]*)`", text)
    wanted = re.match(r"Expected (`[\w| ]+`[^,]*)", text)
    return (place[1] if place and place[1] else what), (
        wanted[1] if wanted else "one of the values that there are"
    )


def query_of(request: Request, form: type[T]) -> T:
    """The query of a request, which is of that form. A list may be given again and again, or with commas.

    What the form does not name is nobody's concern: it may be for the access hook, or for what stands before us.

    Raises:
        ProblemError: it is not; says what is wrong with it.
    """
    given: dict[str, list[str]] = {}
    for name, text in request.query_params.multi_items():
        given.setdefault(name, []).append(text)
    return _of_texts(given, form)


def headers_of(request: Request, form: type[T]) -> T:
    """The headers of a request, as `query_of`. One that is empty is not there."""
    named = {field.encode_name for field in msgspec.structs.fields(form)}
    return _of_texts({name: [text] for name in named if (text := request.headers.get(name))}, form)


def _of_texts(given: dict[str, list[str]], form: type[T]) -> T:
    kinds = {field.encode_name: _kind(field) for field in msgspec.structs.fields(form)}
    plain: dict[str, Any] = {
        name: [each for text in texts for each in text.split(",") if each]
        if isinstance(kinds.get(name), msgspec.inspect.ListType)
        else texts[-1].strip()
        for name, texts in given.items()
    }
    try:
        return msgspec.convert(plain, form, strict=False, str_keys=True)
    except msgspec.ValidationError as error:
        place = re.search(r"at `\$\.?([\w-]*)", str(error))
        assert place is not None, "nothing is missing, so that a field is wrong"
        raise ProblemError(invalid(place[1], _wanted(kinds[place[1]]))) from None


def _kind(field: msgspec.structs.FieldInfo) -> msgspec.inspect.Type:
    """What values a field has, where it has any."""
    kind = msgspec.inspect.type_info(field.type)
    if isinstance(kind, msgspec.inspect.UnionType):
        (kind,) = [each for each in kind.types if not isinstance(each, msgspec.inspect.NoneType)]
    return kind


def _wanted(kind: msgspec.inspect.Type) -> str:
    """What a text has to be that stands for a value of that kind, in words."""
    match kind:
        case msgspec.inspect.IntType(ge=least, le=None):
            return f"a whole number from {least or 0}"
        case msgspec.inspect.IntType(ge=least, le=most):
            return f"a whole number from {least or 0} to {most}"
        case msgspec.inspect.LiteralType(values=values):
            return "one of " + ", ".join(str(value) for value in values)
        case msgspec.inspect.ListType(item_type=item):
            return _wanted(item)
        case msgspec.inspect.StrType(min_length=least, max_length=most) if most is not None:
            return f"a text of {least} to {most} characters"
        case msgspec.inspect.BoolType():
            return "1 or 0"
        case _:
            return "one of those that there are"


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
