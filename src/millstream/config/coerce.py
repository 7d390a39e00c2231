"""Configuration given as a dict."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from millstream.errors import UserError

T = TypeVar("T")


def from_dict(cls: type[T], value: Any, where: str) -> T:
    """`value` if it is a `cls`, or a `cls` made of it if it is a dict of its fields.

    Raises:
        UserError: it is neither, or it has a key that is no field; says which one is near.
    """
    if isinstance(value, cls):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{where} takes a {cls.__name__} or a dict, not {type(value).__name__}.")
    given = cast("Mapping[str, Any]", value)
    known = [f.name for f in dataclasses.fields(cast("Any", cls)) if f.init]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"It has: {', '.join(known)}."
            raise UserError(f"{where}: {cls.__name__} has no {key!r}. {hint}")
    return cls(**given)


def one_of(where: str, value: Any, choices: tuple[str, ...]) -> None:
    """Check a closed choice.

    Raises:
        UserError: `value` is none of `choices`.
    """
    if value not in choices:
        raise UserError(f"{where} is one of {', '.join(map(repr, choices))}, not {value!r}.")
