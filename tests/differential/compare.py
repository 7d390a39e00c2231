"""Tells two records apart: where they differ, and what stands there."""

from collections.abc import Iterator
from typing import Any

_LINES = 12
_WIDTH = 300
_ABSENT = "nothing"


def told_apart(sdk: Any, ours: Any) -> str:
    """The first places at which the records differ, a line each for the SDK and for us."""
    places = list(_places(sdk, ours, ""))
    lines = [f"{place}\n    SDK  {_short(theirs)}\n    here {_short(here)}" for place, theirs, here in places]
    more = f"\n… and {len(places) - _LINES} more" if len(places) > _LINES else ""
    return "\n".join(lines[:_LINES]) + more


def _places(sdk: Any, ours: Any, place: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(sdk, dict) and isinstance(ours, dict):
        for key in [*sdk, *(key for key in ours if key not in sdk)]:
            yield from _places(sdk.get(key, _ABSENT), ours.get(key, _ABSENT), f"{place}.{key}")
    elif isinstance(sdk, list) and isinstance(ours, list) and len(sdk) == len(ours):
        for index, (theirs, here) in enumerate(zip(sdk, ours, strict=True)):
            yield from _places(theirs, here, f"{place}[{index}]")
    elif sdk != ours:
        yield place, sdk, ours


def _short(value: Any) -> str:
    if isinstance(value, list):
        return f"{len(value)}: [{', '.join(map(_named, value))}]"[:_WIDTH]
    return repr(value)[:_WIDTH]


def _named(value: Any) -> str:
    """An event or item by what tells it from others."""
    if isinstance(value, list) and len(value) > 1:
        return str(value[1].get("type") if isinstance(value[1], dict) else value[1])
    return str(value.get("type", value)) if isinstance(value, dict) else repr(value)
