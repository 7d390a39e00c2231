"""Describes the public names of a package as JSON, the same way on both sides."""

import dataclasses
import enum
import importlib
import inspect
import re
import types
import typing
from typing import Any

from typing_extensions import is_typeddict

Description = dict[str, Any]

REQUIRED = "none: it is required"
UNSET = "an object that stands for no value"


def describe(package: str, names: list[str]) -> dict[str, Description | None]:
    """Each name (`Agent`, or `testing.ScriptedModel`) with what can be known of it; None where it is missing."""
    return {name: _describe_name(package, name) for name in names}


def _describe_name(package: str, name: str) -> Description | None:
    module, _, attribute = name.rpartition(".")
    places = [f"{package}.{module}" if module else package, package, f"{package}.schema"]
    for place in dict.fromkeys(places):
        try:
            found = getattr(importlib.import_module(place), attribute)
        except (ImportError, AttributeError):
            continue
        return _described(package, found)
    return None


def _described(package: str, found: Any) -> Description:
    origin = typing.get_origin(found)
    if isinstance(origin, type) and origin.__module__.split(".")[0] == package:  # RunHooks[Any], say
        found = origin
    if is_typeddict(found):
        return {"kind": "dict", "keys": list(found.__annotations__)}
    if isinstance(found, type) and issubclass(found, enum.Enum):
        return {"kind": "enum", "values": {each.name: each.value for each in found}}
    if isinstance(found, type):
        return _class(package, found)
    if inspect.isroutine(found):
        return {"kind": "function", "signature": _signature(found)}
    return {"kind": "type", "means": _means(found)}


def _class(package: str, found: type) -> Description:
    own = [each for each in found.__mro__ if each.__module__.split(".")[0] == package]
    members: dict[str, Any] = {}
    for each in reversed(own):
        for name in [*inspect.get_annotations(each), *vars(each)]:
            if not name.startswith("_"):
                value = inspect.getattr_static(each, name, None)
                function = getattr(each, name, None)
                is_method = isinstance(value, types.FunctionType | classmethod | staticmethod)
                members[name] = (
                    _signature(function, bound=isinstance(value, types.FunctionType))
                    if is_method
                    else "value"
                )
    return {
        "kind": "class",
        "signature": None if getattr(found, "_is_protocol", False) else _signature(found),
        "members": members,
        "fields": [each.name for each in dataclasses.fields(found) if not each.name.startswith("_")]
        if dataclasses.is_dataclass(found)
        else None,
        "bases": [each.__name__ for each in own[1:] if not each.__name__.startswith("_")],
    }


def _signature(function: Any, *, bound: bool = False) -> list[Any] | None:
    """Parameters: name, kind, default. Without `self`, and without what is private."""
    try:
        parameters = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    except (ValueError, TypeError):
        return None
    return [
        [each.name, each.kind.name, REQUIRED if each.default is each.empty else _default(each.default)]
        for each in parameters
        if not each.name.startswith("_")
    ]


def _default(value: Any) -> str:
    """A default as one would read it: without addresses and modules."""
    if type(value) is object or "unset" in type(value).__name__.lower():
        return UNSET
    if inspect.isroutine(value):
        return value.__name__
    text = re.sub(r" at 0x[0-9a-f]+", "", repr(value))
    return re.sub(r"\b(?:agents|millstream)(?:\.\w+)*\.", "", text)


def _means(found: Any) -> list[str]:
    """The names of what a union or a `Literal` allows."""
    arguments = typing.get_args(found)
    if typing.get_origin(found) is typing.Literal:
        return sorted(map(repr, arguments))
    if typing.get_origin(found) in (typing.Union, types.UnionType):
        return sorted({getattr(typing.get_origin(each) or each, "__name__", str(each)) for each in arguments})
    return []
