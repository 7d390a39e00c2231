"""Decisions over tool calls: what was decided, over which call, and for how long it counts.

Rules of this file:

1. A decision is about one call: that agent, that tool, that call id and those very arguments.
   Servers use call ids again, and what was approved once must let nothing else through.
2. It is taken once: who runs the call takes it, and the same call, come again, waits again.
3. A decision for "always" is about a tool of an agent, and is never used up.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from millstream import codec
from millstream.errors import ApprovalError, DecodeError
from millstream.items import ToolApprovalItem, raw_field


class CallKey(NamedTuple):
    """The call that a decision is about."""

    agent: str
    tool: str
    call_id: str
    arguments: str
    nth: int = 0
    """Which it is, of calls of one turn that are the same in everything."""


class ToolKey(NamedTuple):
    """The tool that a decision for always is about."""

    agent: str
    tool: str


@dataclass(frozen=True)
class Decision:
    """What somebody decided."""

    approved: bool
    message: str | None = None
    """What the model is told of a call that was rejected; None for the usual text."""
    arguments: str | None = None
    """The arguments that the tool gets in place of the model's own: JSON text."""

    def __post_init__(self) -> None:
        if not isinstance(self.message, str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ApprovalError(
                f"rejection_message is text, which the model is told, or None, not {type(self.message).__name__}."
            )


@dataclass
class Decisions:
    """What was decided in one run, and in the runs nested in it."""

    once: dict[CallKey, Decision] = field(default_factory=dict["CallKey", "Decision"])
    """Over calls that have not run yet."""
    always: dict[ToolKey, Decision] = field(default_factory=dict["ToolKey", "Decision"])
    taken: dict[CallKey, Decision] = field(default_factory=dict["CallKey", "Decision"])
    """Over calls that were let through, or were answered: for those who ask later."""

    def decide(self, key: CallKey, decision: Decision, *, always: bool = False) -> None:
        """Enter a decision; with `always`, also over all later calls of that tool by that agent."""
        self.once[key] = decision
        if always:
            self.always[ToolKey(key.agent, key.tool)] = Decision(decision.approved, decision.message)

    def of(self, key: CallKey) -> Decision | None:
        """What was decided over a call; None where nobody has."""
        return self.once.get(key) or self.always.get(ToolKey(key.agent, key.tool))

    def take(self, key: CallKey) -> Decision | None:
        """What was decided over a call that is dealt with now: its own decision is used up."""
        decision = self.of(key)
        if decision is not None:
            self.once.pop(key, None)
            self.taken[key] = decision
        return decision

    def copy(self) -> Decisions:
        """The same decisions, which go their own way from here on."""
        return Decisions(dict(self.once), dict(self.always), dict(self.taken))

    def known(self, tool: str, call_id: str) -> Decision | None:
        """What was decided over that call of that tool, of whichever agent, and whether it has run by now or not."""
        for decided in (self.once, self.taken):
            for key, decision in decided.items():
                if (key.tool, key.call_id) == (tool, call_id):
                    return decision
        return next((decision for key, decision in self.always.items() if key.tool == tool), None)


def key_of(agent: Any, raw_call: Any, tool: str | None = None, nth: int = 0) -> CallKey:
    """The key of a call that `agent` made, whose payload is `raw_call`."""
    return CallKey(
        agent=str(getattr(agent, "name", "")),
        tool=str(tool or raw_field(raw_call, "name") or ""),
        call_id=str(raw_field(raw_call, "call_id") or ""),
        arguments=str(raw_field(raw_call, "arguments") or ""),
        nth=nth,
    )


def key_of_item(item: ToolApprovalItem, nth: int = 0) -> CallKey:
    """The key of the call that `item` asks for."""
    return key_of(item.agent, item.raw_item, item.name, nth)


def keys_of_items(waiting: Sequence[ToolApprovalItem]) -> list[CallKey]:
    """The key of each call that waits, in order."""
    seen: dict[CallKey, int] = {}
    keys: list[CallKey] = []
    for item in waiting:
        key = key_of_item(item)
        nth = seen[key] = seen.get(key, -1) + 1
        keys.append(key._replace(nth=nth))
    return keys


def key_that_waits(
    item: ToolApprovalItem | str, waiting: Sequence[ToolApprovalItem], decided: Collection[CallKey]
) -> CallKey:
    """The key of a call that somebody wants to decide over.

    Args:
        item: the call: one of `waiting`, or one that is the same, or its call id.
        waiting: the calls that wait.
        decided: those that were decided over: of calls that are the same in everything, the next one is meant.

    Raises:
        ApprovalError: no such call waits, or several have that id.
    """
    if not isinstance(item, str | ToolApprovalItem):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise ApprovalError(
            f"To decide over a call takes one of get_interruptions(), or a call id, not {type(item).__name__}."
        )
    keys = keys_of_items(waiting)
    if isinstance(item, str):
        found = [key for key in keys if key.call_id == item]
        if len(found) == 1:
            return found[0]
        if found:
            raise ApprovalError(
                f"{len(found)} calls wait that have the id {item!r}: decide by the items of get_interruptions()."
            )
    else:
        for key, each in zip(keys, waiting, strict=True):
            if each is item:
                return key
        wanted = key_of_item(item)
        same = [key for key in keys if key._replace(nth=0) == wanted]
        if same:
            return next((key for key in same if key not in decided), same[0])
    call = item if isinstance(item, str) else f"{item.call_id} of {item.name}"
    calls = ", ".join(f"{key.call_id} of {key.tool}" for key in keys) or "none"
    raise ApprovalError(
        f"The call {call} does not wait for a decision. These do: {calls}. It may have been dealt with by now, or "
        "belong to another run."
    )


def arguments_text(arguments: Any) -> str:
    """The JSON text of arguments that somebody has edited.

    Raises:
        ApprovalError: they are no JSON object.
    """
    try:
        text = arguments if isinstance(arguments, str) else msgspec.json.encode(arguments).decode()
        plain = codec.decode(text)
    except (DecodeError, TypeError, ValueError, RecursionError) as error:
        raise ApprovalError(f"arguments= must be a JSON object, or the text of one: {error}") from None
    if not isinstance(plain, dict):
        raise ApprovalError(
            f"arguments= must be a JSON object, or the text of one, not {type(plain).__name__}."
        )
    return text
