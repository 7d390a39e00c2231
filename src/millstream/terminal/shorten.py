"""Values on one line of a terminal: flattened, made printable, cut to a width."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any, cast

from millstream import codec
from millstream.errors import DecodeError

ELLIPSIS = "…"
ARGUMENT_WIDTH = 40
"""How much one argument of a call may take of its line."""


def one_line(text: str) -> str:
    """`text` with every run of white space as one space, and with nothing a terminal would obey."""
    flat = " ".join(text[:100_000].split())
    if flat.isprintable():
        return flat
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in flat)


def cells(text: str) -> int:
    """How many columns of a terminal `text` takes."""
    if text.isascii():
        return len(text)
    return sum(_cells_of(c) for c in text)


def _cells_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def cut(text: str, width: int) -> str:
    """The beginning of `text` that fits into `width` columns, with an ellipsis where something is left out."""
    if cells(text) <= width:
        return text
    room = max(width, 1) - 1
    for index, char in enumerate(text):
        room -= _cells_of(char)
        if room < 0:
            return text[:index].rstrip() + ELLIPSIS
    return text


def call(name: str, arguments: str | None, width: int) -> str:
    """A tool call as a line of code: `weather(city="Lyon")`, within `width` columns."""
    inside = _arguments(arguments or "")
    return f"{name}({cut(inside, max(width - cells(name) - 2, 8))})"


def _arguments(json: str) -> str:
    try:
        values = codec.decode(json.encode(errors="replace"))
    except DecodeError:
        return one_line(json)  # as the model wrote them
    if not isinstance(values, dict):
        return one_line(json)
    pairs = cast("dict[str, Any]", values).items()
    return ", ".join(f"{one_line(name)}={cut(compact(value), ARGUMENT_WIDTH)}" for name, value in pairs)


def compact(value: Any) -> str:
    """`value` as JSON on one line."""
    return one_line(codec.encode(value).decode())


def result(value: Any, width: int) -> str:
    """What a tool returned, within `width` columns; how long it is, where that is longer."""
    text = _as_text(value)
    flat = one_line(text)
    if cells(flat) <= width:
        return flat
    length = f" ({len(text):,} characters)"
    return cut(flat, max(width - len(length), 8)) + length


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        parts = [_part(part) for part in cast("list[Any]", value)]
        if None not in parts:
            return " ".join(cast("list[str]", parts))
    return compact(value)


def _part(part: Any) -> str | None:
    """A part of a tool's output as models take it: text as such, anything else by its kind."""
    if not isinstance(part, Mapping):
        return None
    kind = cast("Mapping[str, Any]", part).get("type")
    if kind == "input_text":
        return str(cast("Mapping[str, Any]", part).get("text", ""))
    return f"[{kind.removeprefix('input_')}]" if isinstance(kind, str) else None
