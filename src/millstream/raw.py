"""Raw model events: wire JSON to the `openai.types.responses` classes and back.

Rules of this file:

1. What comes out is a real instance of the one class whose `type` the event carries; an
   event of an unknown type is an `UnknownRawEvent`, never an error.
2. An event whose values are all flat (text, numbers, an empty list) is filled into its
   class unvalidated. That costs about what validation does, and costs it also where a
   compatible server left fields out, when validation fails and building what is there takes
   twenty times as long. `tests/test_raw.py` holds every filled event against a validated
   one and so notices when `openai` or `pydantic` change.
3. Any other event is validated as that one class; where a compatible server left fields out
   that the class requires, it is built from what is there, as the `openai` client does.

The types cost half a second to import: that is paid when the first event is looked at.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from millstream import codec
from millstream.errors import DecodeError

if TYPE_CHECKING:
    from openai.types.responses import ResponseStreamEvent

_decode_json = codec.decode


def decode(json: bytes) -> ResponseStreamEvent:
    """The typed event of one JSON object.

    Raises:
        DecodeError: not a JSON object with a `type`.
    """
    values: dict[str, Any] = _decode_json(json)
    try:
        filler = _FILLERS[values["type"]]
    except (KeyError, TypeError):
        raise DecodeError("A model event is a JSON object with a `type`.") from None
    return filler(values)


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


class _Shape(NamedTuple):
    """How the keys of an event fit its class."""

    nested: tuple[str, ...]
    """Keys whose values the class types, unless they are empty."""
    extra: tuple[str, ...]
    """Keys that the class does not know."""
    missing: dict[str, Any]
    """Fields that were not sent, and what they are then."""
    fields_set: set[str]


_MOST_SHAPES = 64


def _filler(cls: type[Any]) -> Callable[[dict[str, Any]], Any]:
    """A function that turns the values of one event into `cls`."""
    from pydantic import BaseModel

    nested = tuple(name for name, field in cls.model_fields.items() if not _is_flat(field.annotation))
    required_nested = [name for name in nested if cls.model_fields[name].is_required()]
    if any(name != _LOGPROBS for name in required_nested):
        return functools.partial(build, cls)

    slots: Any = BaseModel.__dict__
    set_fields_set = slots["__pydantic_fields_set__"].__set__
    set_extra = slots["__pydantic_extra__"].__set__
    set_private = slots["__pydantic_private__"].__set__
    set_dict = slots["__dict__"].__set__
    new = object.__new__
    shapes: dict[tuple[str, ...], _Shape] = {}

    def fill(values: dict[str, Any]) -> Any:
        shape = shapes.get(tuple(values))
        if shape is None:
            shape = _shape(cls, nested, tuple(values))
            if len(shapes) < _MOST_SHAPES:  # a server that invents keys must not make this grow for ever
                shapes[tuple(values)] = shape
        present, extras, missing, fields_set = shape
        for name in present:
            if values[name]:
                return build(cls, values)
        extra = {}
        if extras:
            for name in extras:
                extra[name] = values.pop(name)
        if missing:
            values.update(missing)
            if _LOGPROBS in missing:
                values[_LOGPROBS] = []  # each event has a list of its own
        event = new(cls)
        set_dict(event, values)
        set_fields_set(event, fields_set.copy())  # assigning to a field adds its name
        set_extra(event, extra)
        set_private(event, None)
        return event

    return fill


def _shape(cls: type[Any], nested: tuple[str, ...], keys: tuple[str, ...]) -> _Shape:
    known: dict[str, Any] = cls.model_fields
    missing = {
        name: None if name == _LOGPROBS else field.get_default(call_default_factory=True)
        for name, field in known.items()
        if name not in keys and (name == _LOGPROBS or not field.is_required())
    }
    return _Shape(
        nested=tuple(name for name in nested if name in keys),
        extra=tuple(key for key in keys if key not in known),
        missing=missing,
        fields_set=set(keys),
    )


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


class _Fillers(dict[str, Callable[[dict[str, Any]], Any]]):
    """What fills events of each type; looked up in the types of `openai` when a type first comes up."""

    def __missing__(self, kind: str) -> Callable[[dict[str, Any]], Any]:
        cls = _event_classes().get(kind)
        if cls is None:  # not kept: a server may invent any number of types
            return _unknown
        filler = self[kind] = _filler(cls)
        return filler


_FILLERS = _Fillers()


def _unknown(values: dict[str, Any]) -> Any:
    return _unknown_class().construct(None, **values)


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
