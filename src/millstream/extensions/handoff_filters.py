"""Input filters for handoffs: `handoff(agent, input_filter=...)`, or for a whole run in `RunConfig`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

from millstream.handoff_history import default_handoff_history_mapper, nest_handoff_history
from millstream.items import InputItem, MessageOutputItem

if TYPE_CHECKING:
    from millstream.handoff import HandoffInputData
    from millstream.items import RunItem

__all__ = ["default_handoff_history_mapper", "nest_handoff_history", "remove_all_tools"]

# By the shape of the name, so that the tools of a later API go too. Reasoning goes with the
# calls that it led to: servers refuse it without them.
_OF_TOOLS = re.compile(r".*_call|.*_output|mcp_.*|program|reasoning")


def remove_all_tools(handoff_input_data: HandoffInputData) -> HandoffInputData:
    """Leave the next agent what was said, without calls, their outputs, handoffs and reasoning.

    A history that is a text stays as it is.
    """
    data = handoff_input_data
    history = data.input_history
    if not isinstance(history, str):
        history = tuple(item for item in history if not _is_of_tools(item))
    return data.clone(
        input_history=history,
        pre_handoff_items=_said(data.pre_handoff_items),
        new_items=_said(data.new_items),
        input_items=None if data.input_items is None else _said(data.input_items),
    )


def _is_of_tools(item: Any) -> bool:
    kind = cast("dict[str, Any]", item).get("type")
    return isinstance(kind, str) and _OF_TOOLS.fullmatch(kind) is not None


def _said(items: tuple[RunItem, ...]) -> tuple[RunItem, ...]:
    return tuple(item for item in items if isinstance(item, MessageOutputItem | InputItem))
