"""What of a conversation a model can be given. Pure.

Models refuse a history in which a call has no answer, an answer no call, or the model's
reasoning not what it led to. None of our runs stores such a history, but a limit may cut one in
two, a program may take items out, and others may have written what is read.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any

from millstream.items import raw_field
from millstream.models.request import FAKE_ID

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem

CALL_OF = {
    "function_call_output": "function_call",
    "custom_tool_call_output": "custom_tool_call",
    "computer_call_output": "computer_call",
    "shell_call_output": "shell_call",
    "apply_patch_call_output": "apply_patch_call",
}
"""By the type of an answer, that of the calls it answers; a call id ties the two."""

_CALLS = frozenset(CALL_OF.values())


def whole(items: Sequence[TResponseInputItem], keep: Container[int] = ()) -> list[TResponseInputItem]:
    """Those of `items` that do not lack what they belong to.

    Call ids tie calls to answers each once, in their order: servers use them again.

    Args:
        items: in their order.
        keep: places of items that stay, whatever they lack.
    """
    lost = {place for place in _torn(items) if place not in keep}
    after: Any = None
    for place in reversed(range(len(items))):
        item = items[place]
        if raw_field(item, "type") == "reasoning" and place not in keep and not _is_said(after):
            lost.add(place)
        if place not in lost:
            after = item
    return [item for place, item in enumerate(items) if place not in lost]


def _torn(items: Sequence[Any]) -> set[int]:
    """The places of calls without an answer, and of answers without a call."""
    torn: set[int] = set()
    waiting: dict[tuple[str, Any], list[int]] = {}
    for place, item in enumerate(items):
        kind = raw_field(item, "type")
        if kind in _CALLS:
            waiting.setdefault((kind, raw_field(item, "call_id")), []).append(place)
        elif kind in CALL_OF:
            calls = waiting.get((CALL_OF[kind], raw_field(item, "call_id")))
            if calls:
                del calls[0]
            else:
                torn.add(place)
    return torn.union(*waiting.values())


def _is_said(item: Any) -> bool:
    """Whether a model has said it, whole: its reasoning may stand before it."""
    if item is None:
        return False
    kind = raw_field(item, "type") or "message"
    if kind == "message":
        return raw_field(item, "role") == "assistant" and raw_field(item, "id") != FAKE_ID
    return not kind.endswith(("_output", "_response", "_reference"))
