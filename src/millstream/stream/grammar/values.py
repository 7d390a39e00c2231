"""What values the fields of envelopes and events may have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from math import isfinite
from typing import Any, TypeAlias, cast

from millstream.events import ITEM_EVENT_NAMES, TERMINAL_TYPES, Entry
from millstream.stream.grammar.clauses import Violation

_STATES: dict[str, frozenset[str]] = {
    "model.completed": frozenset({"completed", "failed", "cancelled"}),
    "tool.finished": frozenset({"ok", "error", "timeout", "cancelled", "paused"}),
}


def wrong_values(entry: Entry, *, bare: bool) -> Iterator[Violation]:
    """What is wrong with single values of an entry."""
    wrong = [] if bare else list(_envelope_values(entry))
    event: Any = entry.event
    kind = entry.type
    if kind in _STATES and event.status not in _STATES[kind]:
        wrong.append(("status", event.status, f"one of {', '.join(sorted(_STATES[kind]))}"))
    if kind == "run.decided" and event.decision not in ("approved", "rejected"):
        wrong.append(("decision", event.decision, "approved or rejected"))
    if kind in ("model.started", "model.completed", "model.retried") and not _is_count(event.turn):
        wrong.append(("turn", event.turn, "a number of turns"))
    if kind == "model.completed" or kind in TERMINAL_TYPES:
        wrong += _usage_values(event.usage)
    if kind == "run.cancelled" and event.mode not in ("now", "after_tool", "after_turn"):
        wrong.append(("mode", event.mode, "now, after_tool or after_turn"))
    for field in ("ms", "delay"):
        value = getattr(event, field, 0)
        if not _is_number(value):
            wrong.append((field, value, "a number that is not negative"))
    if kind == "run_item_stream_event":
        expected = ITEM_EVENT_NAMES.get(getattr(event.item, "type", ""))
        if event.name != expected:
            wrong.append(("name", event.name, f"{expected}, as its item says"))
    if kind == "run.attempt":
        numbers = {"number": event.number, "resumed_from": event.resumed_from}
        wrong += [(field, value, "a count") for field, value in numbers.items() if not _is_count(value)]
    if kind == "tool.started" and not isinstance(event.once, bool):
        wrong.append(("once", event.once, "a boolean"))
    for field, value, expected in wrong:
        yield Violation("values_are_valid", f"{kind}: {field} is {_short(value)}: expected {expected}.")


_Wrong: TypeAlias = "tuple[str, Any, str]"


def _envelope_values(entry: Any) -> Iterator[_Wrong]:
    if not _is_count(entry.position) or entry.position == 0:
        yield "position", entry.position, "1 or more"
    if not isinstance(entry.run_id, str) or not entry.run_id:
        yield "run_id", entry.run_id, "the id of a run"
    if not isinstance(entry.agent, str):
        yield "agent", entry.agent, "the name of an agent"
    if not _is_count(entry.turn):
        yield "turn", entry.turn, "a number of turns"
    if not _is_count(entry.depth):
        yield "depth", entry.depth, "a number of levels"
    elif (entry.depth == 0) != (entry.parent_run_id is None):
        yield (
            "parent_run_id",
            entry.parent_run_id,
            f"{'none' if entry.depth == 0 else 'one'} at depth {entry.depth}",
        )
    elif not _is_path(entry.path, entry.depth):
        yield "path", entry.path, f"the ids of {entry.depth} calls"
    if not _is_number(entry.time):
        yield "time", entry.time, "seconds since the epoch"


def _usage_values(usage: Any) -> Iterator[_Wrong]:
    if not isinstance(usage, Mapping):
        yield "usage", usage, "an object of counts"
        return
    for name, value in cast("Mapping[Any, Any]", usage).items():
        if name == "estimated":
            if not isinstance(value, bool):
                yield "usage.estimated", value, "a boolean"
        elif not _is_count(value):
            yield f"usage.{name}", value, "a count"


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_path(value: Any, depth: int) -> bool:
    if not isinstance(value, tuple):
        return False
    calls = cast("tuple[Any, ...]", value)
    return len(calls) == depth and all(isinstance(call, str) for call in calls)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0


def _short(value: Any) -> str:
    text = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return text if len(text) <= 60 else f"{text[:60]}…"
