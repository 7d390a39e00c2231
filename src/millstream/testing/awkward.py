"""Values that break encoders: for testing whatever has to carry values of strangers."""

from __future__ import annotations

import array
import asyncio
import dataclasses
import datetime
import decimal
import enum
import functools
import io
import re
import sys
import threading
import types
import weakref
from collections import ChainMap, OrderedDict, UserDict, defaultdict, deque
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn


class AwkwardValue(NamedTuple):
    """A value that many encoders fail on, and what it is called in a test's name."""

    name: str
    value: Any


CANARY = "canary-7f3a"
"""Stands in every message and `repr` here that nobody outside may read; look for it in what goes out."""


def awkward_values() -> list[AwkwardValue]:
    """About sixty values that are hard or impossible to write as JSON, made anew by each call.

    Whatever carries values to a client (an encoder, a log, a transport) can be held to them:
    each has to come through as valid JSON, raise nothing, and leave its neighbours whole.
    """
    values = {**_numbers(), **_texts(), **_containers(), **_hostile_objects(), **_machinery()}
    return [AwkwardValue(name, value) for name, value in values.items()]


def _numbers() -> dict[str, Any]:
    return {
        "nan": float("nan"),
        "infinity": float("inf"),
        "minus infinity": float("-inf"),
        "complex": 1 + 2j,
        "decimal nan": decimal.Decimal("NaN"),
        "int of 65 bits": 2**65,
        "int beyond doubles": 10**400,
        "int too long to print": 10**5000,
        "int whose text raises": _IntOfNoText(7),
        "numpy-like array": _array_like("ndarray", [1.0, float("nan")]),
        "numpy-like scalar": _array_like("float64", 0.5),
    }


def _texts() -> dict[str, Any]:
    return {
        "lone surrogate": "a\ud800b",
        "surrogates that are a pair": "\ud83d\ude00",
        "line breaks of all kinds": "a\r\nb\x00c\x85d\u2028e\u2029f\x0bg\x1ch",
        "str subclass that lies": _LyingText("text"),
        "huge text": "x" * 20_000_000,
        "bytes": b"\xff\xfe\r\n\r\ndata: x",
        "huge bytes": b"\xff" * 20_000_000,
        "bytearray": bytearray(b"abc"),
        "memoryview": memoryview(b"abc"),
    }


def _containers() -> dict[str, Any]:
    cycle: list[Any] = [1]
    cycle.append(cycle)
    cyclic_dict: dict[str, Any] = {"a": 1}
    cyclic_dict["self"] = {"again": cyclic_dict}
    deep: Any = "bottom"
    for _ in range(10_000):
        deep = [deep]
    doubled: Any = "leaf"
    for _ in range(60):
        doubled = [doubled, doubled]
    return {
        "cycle": cycle,
        "cycle through dicts": cyclic_dict,
        "depth 10,000": deep,
        "sixty doublings": doubled,
        "keys that are no text": {1: "a", None: "b", False: "c", (1, 2): "d", b"e": "e", 1.5: "f"},
        "keys that fall together": {1: "int", "1": "text"},
        "key with a lone surrogate": {"\udfff": 1},
        "set": {1, 2, 3},
        "frozenset of tuples": frozenset({(1, 2)}),
        "deque": deque([1, 2]),
        "defaultdict": defaultdict(list, a=[1]),
        "ordered dict": OrderedDict(a=1),
        "chain map": ChainMap({"a": 1}),
        "user dict": UserDict({"a": b"x"}),
        "mapping proxy": types.MappingProxyType({"a": 1}),
        "array": array.array("d", [1.0]),
        "range": range(10**12),
        "generator": (n for n in range(3)),
        "endless mapping": _EndlessMapping(),
        "named tuple": _Point(1, b"2"),
    }


def _hostile_objects() -> dict[str, Any]:
    unset = _Slotted.__new__(_Slotted)
    return {
        "object": object(),
        "repr raises": _Raises(),
        "repr runs out of memory": _ReprRaises(MemoryError),
        "repr runs out of stack": _ReprRaises(RecursionError),
        "repr is no text": _ReprIsNoText(),
        "every attribute raises": _EveryAttributeRaises(),
        "class attribute lies": _LyingClass(),
        "dict whose items raise": _DictOfNoItems(a=1),
        "dataclass of bad fields": _Record(b"x", {"y": object()}),
        "slots never set": unset,
        "pydantic model of bad fields": _pydantic_model(),
        "enum of an object": _Odd.ONE,
        "stand-in that stands in for itself": _StandsInForItself(),
        "stand-in raises": _StandInRaises(),
        "stand-ins without end": _StandInsWithoutEnd(),
        "exception": ValueError(f"secret {CANARY}"),
        "dates": [datetime.datetime.max, datetime.time.min, datetime.timedelta.max],
        "time zone raises": datetime.datetime(2024, 1, 1, tzinfo=_BadZone()),
    }


def _machinery() -> dict[str, Any]:
    dead = weakref.proxy(_Raises())  # what it points to is gone at once
    return {
        "function": awkward_values,
        "partial": functools.partial(awkward_values),
        "class": _Raises,
        "module": sys,
        "lock": threading.Lock(),
        "event": asyncio.Event(),
        "coroutine": _never_awaited(),
        "dead weak proxy": dead,
        "regular expression": re.compile("a+"),
        "file": io.BytesIO(b"x"),
        "not implemented": NotImplemented,
        "ellipsis": ...,
    }


class _Point(NamedTuple):
    x: int
    y: Any


class _Raises:
    def __repr__(self) -> NoReturn:
        raise RuntimeError(f"repr raised {CANARY}")

    __str__ = __repr__


class _ReprRaises:
    def __init__(self, error: type[Exception]) -> None:
        self.error = error

    def __repr__(self) -> NoReturn:
        raise self.error


class _ReprIsNoText:
    def __repr__(self) -> str:
        return 5  # pyright: ignore[reportReturnType]


class _EveryAttributeRaises:
    def __getattribute__(self, name: str) -> NoReturn:
        raise RuntimeError(f"attribute raised {CANARY}")


class _LyingClass:
    @property
    def __class__(self) -> type[dict[Any, Any]]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return dict


class _LyingText(str):
    __slots__ = ()

    def __str__(self) -> NoReturn:
        raise RuntimeError(f"text raised {CANARY}")

    __repr__ = encode = isascii = __len__ = __iter__ = __str__  # pyright: ignore[reportAssignmentType]


class _IntOfNoText(int):
    def __repr__(self) -> NoReturn:
        raise RuntimeError(f"int raised {CANARY}")

    __str__ = __int__ = __index__ = __repr__  # pyright: ignore[reportAssignmentType]


class _DictOfNoItems(dict[str, Any]):
    def items(self) -> NoReturn:
        raise RuntimeError(f"items raised {CANARY}")

    keys = values = __iter__ = items  # pyright: ignore[reportAssignmentType]


class _EndlessMapping(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        n = 0
        while True:
            yield str(n)
            n += 1

    def __len__(self) -> int:
        return sys.maxsize


@dataclasses.dataclass
class _Record:
    x: Any
    y: Any


@dataclasses.dataclass(slots=True)
class _Slotted:
    x: int


class _Odd(enum.Enum):
    ONE = object()


class _BadZone(datetime.tzinfo):
    def utcoffset(self, dt: datetime.datetime | None) -> NoReturn:
        raise RuntimeError(f"zone raised {CANARY}")


class _StandsInForItself:
    def __millstream_json__(self) -> _StandsInForItself:
        return self


class _StandInsWithoutEnd:
    def __millstream_json__(self) -> tuple[Any]:
        return (_StandInsWithoutEnd(),)


class _StandInRaises:
    def __millstream_json__(self) -> NoReturn:
        raise RuntimeError(f"stand-in raised {CANARY}")


async def _never_awaited_body() -> None:
    pass


def _never_awaited() -> Any:
    coroutine = _never_awaited_body()
    coroutine.close()  # else Python would warn, rightly
    return coroutine


def _array_like(name: str, content: Any) -> Any:
    """Something of numpy's shape, as numpy itself is nobody's dependency here."""

    def tolist(_: Any) -> Any:
        return content

    return type(name, (), {"tolist": tolist, "size": 2, "__module__": "numpy"})()


def _pydantic_model() -> Any:
    import pydantic

    class Model(pydantic.BaseModel):
        model_config = pydantic.ConfigDict(arbitrary_types_allowed=True)

        good: int
        bad: Any

        @pydantic.field_serializer("bad")
        def raises(self, value: Any) -> Any:
            raise RuntimeError(f"serializer raised {CANARY}")

    return Model(good=1, bad=object())
