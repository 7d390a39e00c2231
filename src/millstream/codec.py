"""The total codec: any Python value to one line of strict JSON, and strict JSON back.

Rules of this file:

1. `encode` never raises an `Exception` and never waits. A value that has no JSON becomes a
   marked placeholder in its place, `{"$unserializable": <type>, ...}`; the rest stays.
2. What comes out is strict: UTF-8, one line, no NaN, no lone surrogate, and no raw control
   character, U+0085, U+2028 or U+2029, at which line readers out there would split.
3. Plain values go through C. The walk in Python is for what C would get wrong in silence:
   msgspec writes NaN as null and bytes as base64.
4. Everything is bounded: depth, nodes, text. A list that holds itself a hundred times over,
   or a string of 100 MB, costs no more than the limits below.

What has a natural JSON form takes it: dates as ISO 8601, UUIDs, decimals and paths as text,
enums as their value, sets, deques and ranges as lists, dataclasses, attrs classes, structs and
pydantic models as objects, numpy scalars and arrays as numbers and lists. A class of your own
says what stands for it with a method `__millstream_json__()`.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import itertools
import logging
import math
import pathlib
import re
import types
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence, Set, ValuesView
from decimal import Decimal
from typing import Any, Final, NamedTuple, cast

import msgspec

from millstream.errors import DecodeError

MAX_DEPTH: Final = 100
"""Levels of nesting; other JSON parsers stop at 128, and an envelope takes a few."""
MAX_NODES: Final = 100_000
"""Values, keys not counted, in one encoded value."""
MAX_TEXT: Final = 16 * 1024 * 1024
"""Characters of text in one encoded value, keys included; what is over is cut, and marked."""
FLOOR_NODES: Final = 10_000
FLOOR_TEXT: Final = 100_000
"""What is left of the limits for each of an event's own fields, however much those before it took."""
SHORT_TEXT: Final = 1_000
"""Characters up to which a text is kept whole where a longer one before it took what there was."""
MAX_REPR: Final = 200
"""Characters of a `repr` in a placeholder."""
MAX_BAD: Final = 100
"""Bad fields that are reported for one value; more are replaced all the same."""

CUT_MARK: Final = " …[cut: {} characters more]"
_MARK_ROOM: Final = len(CUT_MARK) + 20


class BadField(NamedTuple):
    """A field that had no JSON: where it stood and what it was, never its value."""

    path: str
    """As one would write it in Python: `item.output[3].x`; cut where long, empty for the value itself."""
    type: str


def encode(value: Any, *, bad: list[BadField] | None = None) -> bytes:
    """`value` as one line of strict UTF-8 JSON. Total: it never raises an `Exception`.

    What has no JSON becomes a placeholder `{"$unserializable": <type>, "repr": <cut repr>}`
    in its place. `repr` is left out where it fails or would tell what nobody outside should
    read (an exception, a module); `reason` says so where a limit or a cycle is the cause.
    Text loses lone surrogates (to U+FFFD) and what is over `MAX_TEXT`, and stays text.

    Args:
        value: anything.
        bad: is given one `BadField` for each value that was replaced or cut.
    """
    try:
        if _is_plain(value):
            return _on_one_line(_to_json(value))
    except Exception:  # a lone surrogate, or another thread changed it: walk
        pass
    try:
        return _on_one_line(_to_json(_Walk(bad).plain(value)))
    except Exception:  # no memory or stack left even for the walk
        return b'{"$unserializable":"object","reason":"resources"}'


def decode(data: bytes | bytearray | memoryview | str) -> Any:
    """The value of one JSON text, read strictly.

    Raises:
        DecodeError: not JSON (or not UTF-8, or too deep); says at which byte where that is known.
    """
    try:
        return _from_json(data)
    except UnicodeError as error:
        raise DecodeError(f"Not JSON: the text is not valid UTF-8 ({error.reason}).") from None  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    except (msgspec.MsgspecError, TypeError) as error:
        raise DecodeError(f"Not JSON: {str(error).removeprefix('JSON is malformed: ')}.") from None
    except RecursionError:
        raise DecodeError("Not JSON that can be read: nested too deep.") from None


_class_of: Callable[[Any], type[Any]] = type  # not `isinstance`: mocks and proxies lie about their class
_to_json = msgspec.json.Encoder().encode
_from_json: Callable[[Any], Any] = msgspec.json.Decoder().decode

# --- plain values, checked before C writes them ---------------------------------------------


def _is_plain(value: Any) -> bool:
    """Whether C writes `value` as it should be: exact JSON types, finite, within the limits."""
    level: list[Any] = [value]
    nodes = text = 0
    for _ in range(MAX_DEPTH + 1):  # what the innermost hold is a level here
        below: list[Any] = []
        for item in level:
            cls = _class_of(item)
            if cls is str:
                text += len(item)
            elif item is None or cls is bool:
                pass
            elif cls is int:
                if not -_BIG < item < _BIG:
                    return False
            elif cls is float:
                if item - item != 0.0:  # NaN and the infinities
                    return False
            elif cls is dict:
                for key in item:
                    if type(key) is not str:
                        return False
                    text += len(key)
                below.extend(item.values())
            elif cls is list or cls is tuple:
                if nodes + len(item) > MAX_NODES:
                    return False
                below.extend(item)
            else:
                return False
        nodes += len(below)
        if nodes > MAX_NODES or text > MAX_TEXT:
            return False
        if not below:
            return True
        level = below
    return False


_BIG: Final = 2**1023
"""Beyond this an integer is Infinity to readers that know only doubles. (Below it they round.)"""


# --- one line -------------------------------------------------------------------------------

# Bytes by which the three characters could be recognised stand nowhere else in valid UTF-8,
# and outside of strings JSON has only ASCII: so they may be replaced without parsing.
_NEL, _LS, _PS = b"\xc2\x85", b"\xe2\x80\xa8", b"\xe2\x80\xa9"
_CONTROL: Final = bytes(range(0x20))
_TO_SPACE: Final = bytes.maketrans(_CONTROL, b" " * 0x20)
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    rb"|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)",
    re.DOTALL,
)


def _on_one_line(data: bytes) -> bytes:
    if not data.isascii():
        if _LS[:2] in data:
            data = data.replace(_LS, rb"\u2028").replace(_PS, rb"\u2029")
        if _NEL in data:
            data = data.replace(_NEL, rb"\u0085")
    return data


def is_clean(data: bytes) -> bool:
    """Whether JSON may cross as it is: see rule 2 at the head of this file.

    `data` is taken for strict JSON; whether it is, is not looked at. So of raw control characters
    only those are looked for that may stand between its tokens.
    """
    if b"\n" in data or b"\r" in data or b"\t" in data:
        return False
    if not data.isascii():
        try:
            data.decode()
        except UnicodeDecodeError:
            return False
        # First by one byte, which costs next to nothing.
        if (b"\xe2" in data and (_LS in data or _PS in data)) or (b"\xc2" in data and _NEL in data):
            return False
    if b"\\" not in data or (rb"\ud" not in data and rb"\uD" not in data):
        return True
    return not any(match["lone"] for match in _ESCAPE.finditer(data))


def clean(data: bytes) -> bytes:
    """The same JSON made clean, so that `is_clean` holds.

    Line breaks between tokens become spaces; bytes that are not UTF-8 and escaped lone
    surrogates become U+FFFD.
    """
    data = data.translate(_TO_SPACE)
    data = _on_one_line(data.decode("utf-8", "replace").encode())
    if rb"\ud" in data or rb"\uD" in data:
        data = _ESCAPE.sub(lambda match: rb"\ufffd" if match["lone"] else match[0], data)
    return data


def log_bad_fields(
    logger: logging.Logger, bad: Sequence[BadField], event_type: str, run_id: str | None
) -> None:
    """Say in one line which fields of an event had no JSON; never what stood in them."""
    if bad:
        shown = ", ".join(f"{field.path or 'the value itself'} ({field.type})" for field in bad[:10])
        more = f" and {len(bad) - 10} more" if len(bad) > 10 else ""
        logger.warning("run %s: no JSON for field(s) of %s: %s%s", run_id, event_type, shown, more)


# --- the walk: any value to a plain one -----------------------------------------------------


class _Walk:
    """Turns one value into a plain one, and notes what it could not turn."""

    def __init__(self, bad: list[BadField] | None) -> None:
        self._bad = bad
        self._path: list[Any] = []
        self._open: set[int] = set()
        self._depth = 0
        self._nodes = MAX_NODES
        self._text = MAX_TEXT
        self._reserve = FLOOR_TEXT
        """For short texts, when `_text` is used up: a long one must not cost its neighbours."""
        self._has_cut = False

    def plain(self, value: Any) -> Any:
        """`value` as dicts, lists, text and numbers that C writes."""
        cls = _class_of(value)
        if value is None or cls is bool or (cls is int and -_BIG < value < _BIG):
            return value
        if cls is float and value - value == 0.0:
            return value
        try:
            return self._clean_text(value) if cls is str else self._composed(value, cls)
        except Exception:  # user code ran: anything may have been raised
            return self._placeholder(value)

    def _composed(self, value: Any, cls: type[Any]) -> Any:
        if cls is int:
            return self._placeholder(value, "too large")
        if cls is float:
            return self._placeholder(value)
        if id(value) in self._open:
            return self._placeholder(value, "cycle")
        # The placeholder is a level, too. What only stands in for a value is none, but may go on for ever.
        if self._depth >= MAX_DEPTH - 1 or len(self._open) >= MAX_DEPTH + 50:
            was_read_back = cls is dict and "$unserializable" in value and _is_plain(value)
            return value if was_read_back else self._placeholder(value, "too deep")
        depth = self._depth
        self._open.add(id(value))
        try:
            if cls is dict:
                return self._object(value.items())
            if cls is list or cls is tuple:
                return self._array(value)
            return self._converted(value, cls)
        finally:
            self._depth = depth
            self._open.discard(id(value))

    def _converted(self, value: Any, cls: type[Any]) -> Any:
        converted = _convert(value, cls)
        if isinstance(converted, _Fields):
            return self._object(converted)
        if isinstance(converted, _Elements):
            return self._array(converted.values)
        if converted is _NOTHING or _class_of(converted) is cls:
            return self._placeholder(value)
        return self.plain(converted)

    def _object(self, items: Iterable[tuple[Any, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        self._depth += 1
        is_root = self._depth == 1
        for index, (key, value) in enumerate(self._copied(items)):
            if is_root and index < 64:
                self._nodes = max(self._nodes, FLOOR_NODES)
                self._text = max(self._text, FLOOR_TEXT)
                self._reserve = FLOOR_TEXT
                self._has_cut = False
            if self._is_spent(dict):
                result |= {"$unserializable": "dict", "reason": "too large"}
                break
            self._path.append(key)
            name = self._key(key)
            while name in result:  # 1 and "1" are two keys here and one in JSON
                self._note(key)
                name += "'"
            result[name] = self.plain(value)
            self._path.pop()
        return result

    def _array(self, values: Iterable[Any]) -> list[Any]:
        result: list[Any] = []
        self._depth += 1
        for index, value in enumerate(self._copied(values)):
            if self._is_spent(list):
                result.append({"$unserializable": "list", "reason": "too large"})
                break
            self._path.append(_Index(index))
            result.append(self.plain(value))
            self._path.pop()
        return result

    def _copied(self, values: Iterable[Any]) -> list[Any]:
        # First and in C: another thread may be writing to them. And not all: they may be endless.
        return list(itertools.islice(values, max(self._nodes, FLOOR_NODES) + 1))

    def _is_spent(self, kind: type[Any]) -> bool:
        self._nodes -= 1
        if self._nodes >= 0 and self._text >= 0:
            return False
        if not self._has_cut:
            self._has_cut = True
            self._report(kind)
        return True

    def _key(self, key: Any) -> str:
        cls = _class_of(key)
        if cls is str:
            return self._clean_text(key)
        if cls is int:
            return int.__repr__(key)
        if key is None or cls is bool:
            return "null" if key is None else str(key).lower()
        if cls is float and math.isfinite(key):
            return float.__repr__(key)
        try:
            converted = _convert(key, cls)
            if type(converted) in (str, int, float, bool):
                return self._key(converted)
        except Exception:  # user code ran
            pass
        self._note(key)
        return f"$unserializable: {type_name(cls)}"

    def _clean_text(self, text: str) -> str:
        # What is no longer than the mark is not cut, and the mark has room in what is left:
        # so that encoding again changes nothing more.
        if len(text) > _MARK_ROOM and not self._has_room(len(text)):
            self._note(text)
            kept = max(self._text - _MARK_ROOM, 0)
            text = text[:kept] + CUT_MARK.format(len(text) - kept)
        self._spend(len(text))
        if text.isascii():
            return text
        try:
            text.encode()
        except UnicodeEncodeError:
            return self._mended(text)
        return text

    def _has_room(self, size: int) -> bool:
        return size <= self._text or size <= min(self._reserve, SHORT_TEXT)

    def _spend(self, size: int) -> None:
        if size > self._text and self._has_room(size):
            self._reserve -= size
        else:
            self._text -= size  # below 0 there is room for nothing more

    def _mended(self, text: str) -> str:
        units = text.encode("utf-16-le", "surrogatepass")
        try:
            return units.decode("utf-16-le")  # the halves stood beside one another
        except UnicodeDecodeError:
            self._note(text)
            return units.decode("utf-16-le", "replace")

    def _placeholder(self, value: Any, reason: str | None = None) -> dict[str, str]:
        self._note(value)
        placeholder = {"$unserializable": type_name(_class_of(value))}
        if reason is not None:
            placeholder["reason"] = reason
        else:
            text = _short_repr(value)
            if text is not None:
                placeholder["repr"] = text
        for text in placeholder.values():
            self._spend(len(text))
        return placeholder

    def _note(self, value: Any) -> None:
        self._report(_class_of(value))

    def _report(self, cls: type[Any]) -> None:
        if self._bad is not None and len(self._bad) < MAX_BAD:
            path = "".join(map(_step, self._path)).removeprefix(".")
            self._bad.append(BadField(path if len(path) <= 120 else f"{path[:119]}…", type_name(cls)))


class _Index(int):
    """A step of a path into a list, where a bare int is a key of a dict."""


def _step(key: Any) -> str:
    """How a key reads in a path. Log lines are made of it: short, one line, plain characters."""
    cls = _class_of(key)
    if cls is str and len(key) <= 60 and key.isidentifier() and key.isascii():
        return f".{key}"
    if cls is str:
        return f"[{key[:60]!a}]"
    if (cls is int or cls is _Index) and -_BIG < key < _BIG:
        return f"[{int(key)!r:.60}]"
    return f"[<{type_name(cls)}>]"


# --- what stands for a value ----------------------------------------------------------------

_NOTHING: Final = object()


class _Fields(list["tuple[Any, Any]"]):
    """The fields of an object."""


class _Elements(NamedTuple):
    """The elements of an array."""

    values: Iterable[Any]


def _convert(value: Any, cls: type[Any]) -> Any:
    """What stands for `value` in JSON, one level of it; `_NOTHING` where nothing does."""
    hook = getattr(cls, "__millstream_json__", None)
    if hook is not None:
        return hook(value)
    for kinds, convert in _CONVERSIONS:
        if issubclass(cls, kinds):
            return convert(value)
    if hasattr(cls, "__pydantic_serializer__"):
        return _pydantic_fields(value, cls)
    if dataclasses.is_dataclass(cls):
        return _named_fields(value, [field.name for field in dataclasses.fields(cls)])
    if hasattr(cls, "__attrs_attrs__"):
        return _named_fields(value, [attribute.name for attribute in cls.__attrs_attrs__])
    if (cls.__module__ or "").partition(".")[0] == "numpy" and hasattr(cls, "tolist"):
        return value.tolist() if value.size <= MAX_NODES else _NOTHING
    if issubclass(cls, Mapping):
        return _Fields(itertools.islice(cast("Mapping[Any, Any]", value).items(), MAX_NODES))
    if issubclass(cls, (Sequence, Set, ValuesView)):
        return _Elements(value)
    return _NOTHING


def _named_fields(value: Any, names: Iterable[str]) -> _Fields:
    # A field may never have been set, or be a property that raises: it alone is bad then.
    return _Fields((name, _attribute(value, name)) for name in names)


def _attribute(value: Any, name: str) -> Any:
    try:
        return getattr(value, name)
    except Exception as error:  # user code ran
        return error


def _pydantic_fields(value: Any, cls: type[Any]) -> Any:
    # An object of the model's wire is written as it was sent: those fields, by those names.
    is_wire = cls.__module__.partition(".")[0] == "openai"
    try:
        return value.model_dump(
            mode="json", exclude_unset=is_wire, by_alias=True if is_wire else None, warnings=False
        )
    except Exception:  # one field spoils it: go field by field, and mark that one
        if dataclasses.is_dataclass(cls):
            return _named_fields(value, [field.name for field in dataclasses.fields(cls)])
        fields: dict[str, Any] = {**value.__dict__, **(value.__pydantic_extra__ or {})}
        if is_wire:
            fields = {name: fields[name] for name in fields if name in value.__pydantic_fields_set__}
        return _Fields(fields.items())


def _items_of(value: Any) -> _Fields:
    return _Fields(itertools.islice(value.items(), MAX_NODES))


def _elements_of_set(value: Any) -> _Elements:
    elements: list[Any] = list(itertools.islice(value, MAX_NODES + 1))
    if all(type(element) is str for element in elements):
        elements.sort()  # else the same set would read differently in every process
    return _Elements(elements)


def _no_json(_: Any) -> Any:
    return _NOTHING


# In this order: an enum may be a str or an int too, a datetime is a date.
_CONVERSIONS: tuple[tuple[type[Any] | tuple[type[Any], ...], Callable[[Any], Any]], ...] = (
    (enum.Enum, lambda v: v.value),
    (str, str.__str__),
    (int, int.__index__),
    (float, float.__float__),
    (dict, _items_of),
    ((list, tuple, deque), _Elements),
    ((set, frozenset), _elements_of_set),
    (datetime.datetime, datetime.datetime.isoformat),
    (datetime.date, datetime.date.isoformat),
    (datetime.time, datetime.time.isoformat),
    (datetime.timedelta, msgspec.to_builtins),
    (uuid.UUID, uuid.UUID.__str__),
    (Decimal, Decimal.__str__),
    (pathlib.PurePath, str),
    (msgspec.Struct, lambda v: _named_fields(v, v.__struct_fields__)),
    (types.MappingProxyType, _items_of),
    ((bytes, bytearray, memoryview), _no_json),
)


# --- placeholders ---------------------------------------------------------------------------

# Their texts quote what nobody outside should read: messages, files, lines of source.
_UNTOLD = (
    BaseException,
    types.ModuleType,
    types.FrameType,
    types.TracebackType,
    types.CodeType,
)
_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+")


def type_name(cls: type[object]) -> str:
    """The qualified name of a class, builtins without a module; never raises."""
    try:
        # Past any metaclass of the user's, whose properties may raise.
        module, name = _module_of(cls), _name_of(cls)
        full = name if module in ("builtins", None) else f"{module}.{name}"
        return full[:MAX_REPR].encode("unicode_escape").decode()  # log lines are made of it
    except Exception:  # a class may carry anything as its module
        return "object"


_module_of: Callable[[type[object]], Any] = type.__dict__["__module__"].__get__
_name_of: Callable[[type[object]], str] = type.__dict__["__qualname__"].__get__


def _short_repr(value: Any) -> str | None:
    cls = _class_of(value)
    try:
        if issubclass(cls, _UNTOLD) or cls.__repr__ is object.__repr__:
            return None
        if issubclass(cls, (bytes, bytearray, str)):
            value = value[:MAX_REPR]  # the repr of 100 MB takes 400
        text = str.__str__(repr(value))
    except Exception:  # user code ran
        return None
    text = _ADDRESS.sub("", text[: 2 * MAX_REPR])
    if len(text) > MAX_REPR:
        text = f"{text[: MAX_REPR - 1]}…"
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
