"""Raw model events: wire JSON to the `openai.types.responses` classes and back.

Rules of this file:

1. What comes out is a real instance of the one class whose `type` the event carries; an
   event of an unknown type is an `UnknownRawEvent`, never an error.
2. An event whose values are all flat (text, numbers, an empty list) is read by pydantic's own
   core, straight from the bytes, with a schema that has the fields of its class and checks no
   value: a server that leaves out a field gets the same path as one
   that does not. (Validation would fail there, and what builds an event that does not
   validate takes twenty times as long.) `tests/test_raw.py` holds every event that is read so
   against a validated one, and so notices when `openai` or `pydantic` change.
3. Any other event is validated as that one class; where a compatible server left fields out
   that the class requires, it is built from what is there, as the `openai` client does.

The types cost half a second to import: that is paid when the first event is looked at.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from millstream import codec
from millstream.errors import DecodeError

if TYPE_CHECKING:
    from openai.types.responses import ResponseStreamEvent
    from pydantic_core import SchemaValidator

Reader: TypeAlias = "Callable[[bytes], Any]"
"""Makes one typed event of its JSON."""


def decode(json: bytes) -> ResponseStreamEvent:
    """The typed event of one JSON object.

    Raises:
        DecodeError: not a JSON object with a `type`.
    """
    prefix, read = _latest
    if json.startswith(prefix):
        try:
            return read(json)
        except ValueError:
            pass
    return _read(json)


# Most events are of the type of the one before, and most servers write the type first: then
# what reads a flat one is known from the first bytes. One tuple, so that threads see both or neither.
_latest: tuple[bytes, Reader] = (b"\0", lambda json: None)


def _read(json: bytes) -> Any:
    """The typed event, whatever its type and its values are."""
    global _latest
    try:
        kind = codec.decode(json)["type"]
        flat, checked = _READERS[kind]
    except (KeyError, TypeError, IndexError):
        raise DecodeError("A model event is a JSON object with a `type`.") from None
    if flat is None:
        return checked(json)
    prefix = b'{"type":"%b"' % kind.encode()
    if json.startswith(prefix):
        _latest = (prefix, flat)
    try:
        return flat(json)
    except ValueError:  # a value that is not flat; or half a surrogate pair, and our own decoder says so
        return checked(json)


def encode(event: Any) -> bytes:
    """`event` as one line of strict UTF-8 JSON, with the fields that were sent."""
    if event is None:
        return b"null"
    if hasattr(event, "model_dump"):
        try:
            return codec.encode(_sent_fields(event))
        except Exception:  # a field that pydantic cannot write: encode total, field by field
            return codec.encode(event)
    return codec.encode(event)


def _sent_fields(model: Any) -> dict[str, Any]:
    # By alias: the wire's `async` is `async_` in Python.
    return model.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False)


def item_from(plain: Any) -> Any:
    """The typed output item of a plain dict, where its type is one a model may output; else the dict."""
    if not isinstance(plain, dict):
        return plain
    values = typing.cast("dict[str, Any]", plain)
    kind = values.get("type")
    cls = _item_classes().get(kind) if isinstance(kind, str) else None
    return values if cls is None else build(cls, values)


def build(cls: type[Any], values: dict[str, Any]) -> Any:
    """`values` as an instance of `cls`: validated, or as the server sent them where they do not validate."""
    from pydantic import ValidationError

    try:
        return cls.model_validate(values)
    except ValidationError:
        return cls.construct(None, **values)


def _readers(cls: type[Any]) -> tuple[Reader | None, Reader]:
    """What reads the flat events of `cls`, where it has such; and what reads any."""
    nested = [name for name, field in cls.model_fields.items() if not _is_flat(field.annotation)]
    checked = functools.partial(_read_checked, cls)
    if any(cls.model_fields[name].is_required() for name in nested if name != _LOGPROBS):
        return None, checked
    return _flat_validator(cls, nested).validate_json, checked


def _read_checked(cls: type[Any], json: bytes) -> Any:
    return build(cls, codec.decode(json))


def _flat_validator(cls: type[Any], nested: list[str]) -> SchemaValidator:
    """Reads JSON into `cls` and checks no value, but that there is nothing in what may be nested.

    A field that was not sent has its default, `_ABSENT`, or None.
    """
    from pydantic_core import SchemaValidator, core_schema

    nothing = core_schema.nullable_schema(core_schema.list_schema(core_schema.any_schema(), max_length=0))

    def field(name: str, info: Any) -> Any:
        schema = nothing if name in nested else core_schema.any_schema()
        if name == _LOGPROBS:
            default = core_schema.with_default_schema(schema, default_factory=list)
        else:
            value = _ABSENT.get(name) if info.is_required() else info.get_default(call_default_factory=True)
            default = core_schema.with_default_schema(schema, default=value)
        return core_schema.model_field(default)

    fields = {name: field(name, info) for name, info in cls.model_fields.items()}
    schema = core_schema.model_fields_schema(fields, extra_behavior="allow")
    return SchemaValidator(core_schema.model_schema(cls, schema, extra_behavior="allow"))


_ABSENT = {"delta": ""}
"""What is added up by whoever reads it, where a server has not sent it."""
_LOGPROBS = "logprobs"
"""Required by the types, and left out by most servers that only speak the protocol: then an empty list."""


def _is_flat(annotation: Any) -> bool:
    if annotation in (str, int, float, bool, None, type(None)):
        return True
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return True
    if origin in (typing.Union, types.UnionType):
        return all(_is_flat(arg) for arg in typing.get_args(annotation))
    return False


class _Readers(dict[str, "tuple[Reader | None, Reader]"]):
    """What reads events of each type; looked up in the types of `openai` when a type first comes up."""

    def __missing__(self, kind: str) -> tuple[Reader | None, Reader]:
        cls = _event_classes().get(kind)
        if cls is None:  # not kept: a server may invent any number of types
            return None, _read_unknown
        readers = self[kind] = _readers(cls)
        return readers


_READERS = _Readers()


def _read_unknown(json: bytes) -> Any:
    return _unknown_class().construct(None, **codec.decode(json))


@functools.cache
def _event_classes() -> dict[str, type[Any]]:
    from openai.types.responses import ResponseStreamEvent

    return _classes_by_type(ResponseStreamEvent)


@functools.cache
def _item_classes() -> dict[str, type[Any]]:
    from openai.types.responses import ResponseOutputItem

    return _classes_by_type(ResponseOutputItem)


def _classes_by_type(union: Any) -> dict[str, type[Any]]:
    """The member classes of a discriminated union, by the value of their `type`."""
    found: dict[str, type[Any]] = {}
    for member in typing.get_args(typing.get_args(union)[0]):
        for kind in typing.get_args(member.model_fields["type"].annotation):
            found[kind] = member
    return found


@functools.cache
def _unknown_class() -> type[Any]:
    from openai import BaseModel

    class UnknownRawEvent(BaseModel):
        """A model event of a type that the installed `openai` package does not know."""

        type: str

    return UnknownRawEvent
