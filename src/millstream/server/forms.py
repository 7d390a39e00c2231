"""What a client says, read into structs; and what he is told where it does not fit."""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import msgspec

from millstream import codec
from millstream.errors import DecodeError
from millstream.server.answers import BAD_JSON, ProblemError, invalid

if TYPE_CHECKING:
    from starlette.requests import Request

    from millstream.codec import BadField

T = TypeVar("T", bound=msgspec.Struct)


def json_of(data: bytes | str, what: str = "The body") -> Any:
    """The JSON value that `data` is. `what` names it for its client.

    Raises:
        ProblemError: it is none, or one that could not be kept whole.
    """
    try:
        value = codec.decode(data)
    except (DecodeError, RecursionError):
        raise ProblemError(replace(BAD_JSON, message=f"{what} is no JSON.")) from None
    lost: list[BadField] = []
    codec.encode(value, bad=lost)
    if lost:
        raise ProblemError(invalid(what, "JSON that is not nested so deeply, nor so long"))
    return value


def formed(plain: Any, form: type[T], what: str = "The body") -> T:
    """`plain`, which is a JSON object of that form. `what` names it for its client.

    Raises:
        ProblemError: it is not; says what is wrong with it.
    """
    if isinstance(plain, dict):
        plain = {name: _whole(value) for name, value in cast("dict[str, Any]", plain).items()}
    try:
        return msgspec.convert(plain, form)
    except msgspec.ValidationError as error:
        place, wanted = _told(error, form, what)
        raise ProblemError(invalid(place, wanted)) from None


def _whole(value: Any) -> Any:
    """`value`, or the whole number that it is: JSON has one kind of numbers, in which 10.0 is 10."""
    return int(value) if isinstance(value, float) and abs(value) < 2**53 and value.is_integer() else value


def _told(error: msgspec.ValidationError, form: type[msgspec.Struct], what: str) -> tuple[str, str]:
    """The field that is wrong, and what it has to be: types and paths, and nothing of a value."""
    text = str(error)
    if found := re.fullmatch(r"Object missing required field `(\w+)`(?: - at `([^`]*)`)?", text):
        return found[1], "given"
    if found := re.fullmatch(r"Object contains unknown field `.*`(?: - at `([^`]*)`)?", text, re.DOTALL):
        names: tuple[str, ...] = getattr(form, "__struct_fields__", ())  # a union of forms has none
        return what, f"made of {', '.join(names)} alone" if names else "without fields that nobody knows"
    place = re.search(r"at `\$\.?([\w.\[\]]*)`", text)
    wanted = re.match(r"Expected (`[\w| ]+`.*?)(?:, got| - at|$)", text)
    words = wanted[1] if wanted else "one of the values that there are"
    if pattern := re.search(r"matching regex ('.*')", words):  # shown as Python would write it
        words = f"a text that matches {ast.literal_eval(pattern[1])}"
    return (place[1] if place and place[1] else what), words


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
    """The headers of a request, as `query_of`. One that is empty, where a number should be, is not there."""
    given: dict[str, list[str]] = {}
    for field in msgspec.structs.fields(form):
        text: str | None = request.headers.get(field.encode_name)
        if text or (text is not None and isinstance(_kind(field), msgspec.inspect.StrType)):
            given[field.encode_name] = [text]
    return _of_texts(given, form)


def _of_texts(given: dict[str, list[str]], form: type[T]) -> T:
    kinds = {field.encode_name: _kind(field) for field in msgspec.structs.fields(form)}
    plain: dict[str, Any] = {
        name: [each for text in texts for each in text.split(",")]
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
    return kind.type if isinstance(kind, msgspec.inspect.Metadata) else kind


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
            return f"a text of {least or 0} to {most} characters"
        case msgspec.inspect.BoolType():
            return "1 or 0"
        case _:
            return "one of those that there are"
