"""The input of a run, checked before any model is asked."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from millstream.errors import InputItemError

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem


def check_input(input: Any) -> str | list[TResponseInputItem]:
    """`input` as a run takes it: text, or a list of its own with items of known types.

    Raises:
        InputItemError: it is neither, or an item is of a type that models do not take or
            lacks what no model can do without.
    """
    if isinstance(input, str):
        return input
    if not isinstance(input, list | tuple):
        raise InputItemError(
            f"The input must be text or a list of input items, not {type(input).__name__}. {_instead(input)}"
        )
    return [_check_item(index, item) for index, item in enumerate(cast("list[Any]", input))]


def _instead(input: Any) -> str:
    """What to pass, said to somebody who passed something that is no input."""
    if hasattr(input, "to_input_list"):
        return (
            "To say more after a run, pass result.to_input_list() with it; to go on with one that waits "
            "for approval, result.to_state()."
        )
    if inspect.iscoroutine(input):
        return "Await it, and pass what it gives."
    return "Pass a str, or a list such as [{'role': 'user', 'content': 'Hello'}]."


def _check_item(index: int, item: Any) -> TResponseInputItem:
    if hasattr(item, "model_dump"):
        item = item.model_dump(exclude_unset=True, by_alias=True, warnings=False)
    if not isinstance(item, Mapping):
        raise InputItemError(
            f"input[{index}] is a {type(item).__name__}, not an input item. "
            "An input item is a dict such as {'role': 'user', 'content': 'Hello'}."
        )
    fields = cast("Mapping[str, Any]", item)
    kind = fields.get("type")
    if kind is None and set(fields) == {"id"}:  # an item reference in its short form
        return cast("TResponseInputItem", dict(fields))
    if kind is None and ("role" in fields or "content" in fields):
        kind = "message"
    if not isinstance(kind, str) or kind not in _known_types():
        what = f"has the type {kind!r}" if kind is not None else "has neither a type nor role and content"
        raise InputItemError(
            f"input[{index}] {what}, which no model takes. Known types: {', '.join(sorted(_known_types()))}."
        )
    missing = [name for name in _NEEDED.get(kind, ()) if name not in fields]
    if missing:
        raise InputItemError(
            f"input[{index}] is a {kind} that lacks {' and '.join(missing)}. Add what is missing, "
            "or leave the item out."
        )
    return cast("TResponseInputItem", dict(fields))


# Of what the API wants, that without which an item means nothing: servers are not strict, and
# what one of them left out of an answer may come back here as history.
_NEEDED = {"message": ("role", "content"), "function_call_output": ("call_id", "output")}


@functools.cache
def _known_types() -> frozenset[str]:
    from openai.types.responses import ResponseInputItemParam

    kinds: set[str] = set()
    for member in typing.get_args(ResponseInputItemParam):
        hint = typing.get_type_hints(member).get("type")
        kinds.update(value for value in _literals(hint) if isinstance(value, str))
    return frozenset(kinds)


def _literals(hint: Any) -> list[Any]:
    if typing.get_origin(hint) is typing.Literal:
        return list(typing.get_args(hint))
    return [value for arg in typing.get_args(hint) for value in _literals(arg)]
