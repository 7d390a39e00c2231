"""Raw model events: wire JSON to the `openai.types.responses` classes and back.

Rules of this file:

1. What comes out is a real instance of the one class whose `type` the event carries; an
   event of an unknown type is an `UnknownRawEvent`, never an error.
2. An event whose values are all flat (text, numbers, an empty list) is put together here, and no
   value is checked: a server that leaves out a field gets the same path as one that does not.
   (Validation would fail there, and what builds an event that does not validate takes twenty
   times as long.) A `_Form` knows how, for one class and one set of fields. It does what
   `model_construct` does; `tests/test_raw.py` holds every event that is made so against a
   validated one, and so notices when `openai` or `pydantic` change.
3. Any other event is validated as that one class, and each output item in it as its own; where
   a compatible server left fields out that the class requires, it is built from what is there,
   as the `openai` client does.

The types cost half a second to import: that is paid when the first event is looked at.
"""

from __future__ import annotations

import functools
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast

import msgspec

from millstream import codec
from millstream.errors import DecodeError

if TYPE_CHECKING:
    from openai.types.responses import ResponseStreamEvent


def decode(json: bytes) -> ResponseStreamEvent:
    """The typed event of one JSON object.

    Raises:
        DecodeError: not a JSON object with a `type`.
    """
    prefix, form = _latest
    if json.startswith(prefix):
        try:
            return form.read(json)
        except _NOT_OF_THIS_FORM:
            pass
    return _read(json)


def decode_alike(jsons: Sequence[bytes]) -> list[ResponseStreamEvent] | None:
    """The typed events of `jsons`, for two thirds of what one by one would cost.

    None where they are not all of one type and with the same fields, or not flat.
    """
    first, *others = jsons
    try:
        event = decode(first)  # the form of the others is then the latest
        return [event, *_latest[1].read_all(others)]
    except (DecodeError, *_NOT_OF_THIS_FORM):
        return None


def _read(json: bytes) -> Any:
    """The typed event, whatever its type and its values are."""
    global _latest
    try:
        values = codec.decode(json)
        kind = values["type"]
        reader = _READERS[kind]
    except (KeyError, TypeError, IndexError):
        raise DecodeError("A model event is a JSON object with a `type`.") from None
    form = None if reader is None else reader.form(tuple(values))
    if form is not None:
        try:
            event = form.read(json)
        except _NOT_OF_THIS_FORM:
            pass
        else:
            _latest = (b'{"type":"%b"' % kind.encode(), form)
            return event
    return build(_unknown_class() if reader is None else reader.cls, values)


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
    values = cast("dict[str, Any]", plain)
    kind = values.get("type")
    cls = _item_classes().get(kind) if isinstance(kind, str) else None
    return values if cls is None else build(cls, values)


def build(cls: type[Any], values: dict[str, Any]) -> Any:
    """`values` as an instance of `cls`: validated, or as the server sent them where they do not validate."""
    from pydantic import ValidationError

    try:
        return cls.model_validate(_with_items(cls, values))
    except ValidationError:
        return cls.construct(None, **values)


def _with_items(cls: type[Any], values: Any) -> Any:
    """`values` for `cls`, the output items in them made already, each by its type.

    Left to pydantic, each is tried as all of two dozen classes, which takes ten times as long.
    """
    if not isinstance(values, dict):
        return values
    fields = cast("dict[str, Any]", values)
    made = {name: make(fields[name]) for name, make in _makers(cls).items() if name in fields}
    return {**fields, **made} if made else fields


@functools.cache
def _makers(cls: type[Any]) -> dict[str, Callable[[Any], Any]]:
    """What makes the items in those fields of `cls` that are such, or hold some."""
    from openai.types.responses import Response, ResponseOutputItem

    union = typing.get_args(ResponseOutputItem)[0]
    makers: dict[str, Callable[[Any], Any]] = {}
    for name, field in cls.model_fields.items():
        if field.annotation == union:
            makers[name] = item_from
        elif typing.get_args(field.annotation) == (ResponseOutputItem,):
            makers[name] = _items_from
        elif field.annotation is Response:
            makers[name] = functools.partial(_with_items, Response)
    return makers


def _items_from(plain: Any) -> Any:
    return list(map(item_from, cast("list[Any]", plain))) if isinstance(plain, list) else plain


class _Form(NamedTuple):
    """How events of one class are made that have the same fields, with flat values.

    Both raise one of `_NOT_OF_THIS_FORM` where an event is not such.
    """

    read: Callable[[bytes], Any]
    read_all: Callable[[Sequence[bytes]], list[Any]]


_NOT_OF_THIS_FORM = (msgspec.MsgspecError, UnicodeError, RecursionError)


def _no_form(_: object) -> Any:
    raise msgspec.MsgspecError


# Most events are of the form of the one before, and most servers write the type first: then
# it is known from the first bytes. One tuple, so that threads see both or neither.
_latest: tuple[bytes, _Form] = (b"\0", _Form(_no_form, _no_form))


class _Reader:
    """What is known of the events of one class."""

    FORMS = 16
    """Forms to be kept: a server may invent any number of fields."""

    def __init__(self, cls: type[Any]) -> None:
        fields = cls.model_fields
        self.cls = cls
        self._nested = {name for name, field in fields.items() if not _is_flat(field.annotation)}
        self.is_never_flat = any(fields[name].is_required() for name in self._nested if name != _LOGPROBS)
        self._forms: dict[tuple[str, ...], _Form | None] = {}

    def form(self, names: tuple[str, ...]) -> _Form | None:
        """How those of its events are made that have fields of these names; None where there is no such way."""
        if self.is_never_flat:
            return None
        if names not in self._forms and len(self._forms) < self.FORMS:
            self._forms[names] = self._new_form(names)
        return self._forms.get(names)

    def _new_form(self, names: tuple[str, ...]) -> _Form | None:
        fields = self.cls.model_fields
        extra = [name for name in names if name not in fields]
        if any(not name.isidentifier() or name.startswith("_") for name in extra):
            return None
        # A struct takes these fields, all of them and no others, in the order of the class.
        struct = msgspec.defstruct(
            self.cls.__name__,
            [(name, *self._slot(name, is_sent=name in names)) for name in (*fields, *extra)],
            kw_only=True,
            forbid_unknown_fields=True,
            gc=False,
        )
        return _form(self.cls, frozenset(names), tuple(extra), struct)

    def _slot(self, name: str, *, is_sent: bool) -> tuple[Any, ...]:
        """Type and default of a field in the struct."""
        info = self.cls.model_fields.get(name)
        if is_sent:
            if name == "type" and info is not None:
                return (info.annotation,)
            return (_NOTHING if name in self._nested else Any,)
        unsent = f"-{name}"  # what JSON would call it: the struct gives the default alone
        if name == _LOGPROBS:
            return Any, msgspec.field(default_factory=cast("Callable[[], Any]", list), name=unsent)
        assert info is not None
        default = _ABSENT.get(name) if info.is_required() else info.get_default(call_default_factory=True)
        return Any, msgspec.field(default=default, name=unsent)


def _form(
    cls: type[Any], sent: frozenset[str], extra: tuple[str, ...], struct: type[msgspec.Struct]
) -> _Form:
    from pydantic import BaseModel

    one = msgspec.json.Decoder(struct).decode
    many = msgspec.json.Decoder(list[struct]).decode
    values_of: Any = msgspec.structs.asdict
    new, names = object.__new__, set(sent).copy
    slots: Any = vars(BaseModel)
    set_values = slots["__dict__"].__set__
    set_names = slots["__pydantic_fields_set__"].__set__
    set_extra = slots["__pydantic_extra__"].__set__
    set_private = slots["__pydantic_private__"].__set__

    def events_of(all_values: Iterable[dict[str, Any]]) -> list[Any]:
        events: list[Any] = []
        for values in all_values:
            more: dict[str, Any] = {}
            for name in extra:
                more[name] = values.pop(name)
            event = new(cls)
            set_values(event, values)
            set_names(event, names())
            set_extra(event, more)
            set_private(event, None)
            events.append(event)
        return events

    def read(json: bytes) -> Any:
        return events_of([values_of(one(json))])[0]

    def read_all(jsons: Sequence[bytes]) -> list[Any]:
        return events_of(map(values_of, many(b"[%b]" % b",".join(jsons))))

    return _Form(read, read_all)


_NOTHING = Annotated[list[Any], msgspec.Meta(max_length=0)] | None
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


class _Readers(dict[str, "_Reader | None"]):
    """What reads events of each type; looked up in the types of `openai` when a type first comes up."""

    def __missing__(self, kind: str) -> _Reader | None:
        cls = _event_classes().get(kind)
        if cls is None:  # not kept: a server may invent any number of types
            return None
        reader = self[kind] = _Reader(cls)
        return reader


_READERS = _Readers()


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
