"""The conversation so far as one message, for an agent that takes over.

An agent that takes over sees the calls of tools that it does not have, and may try them.
Nesting tells it the same as text: everything becomes numbered lines of a message of the
assistant, between two wrappers.

    For context, here is the conversation so far between the user and the previous agent:
    <CONVERSATION HISTORY>
    1. user: Where is my parcel?
    2. {"type": "function_call", "name": "look_up", …}
    </CONVERSATION HISTORY>

What was said in the turn that hands over stays as it is, so there may be such a message before
it and one behind. At the next handoff they are read back, and become one. The form is that of
the OpenAI Agents SDK.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from millstream.errors import UserError
from millstream.items import InputItem, ItemHelpers, MessageOutputItem, RunItem

if TYPE_CHECKING:
    from millstream.handoff import HandoffInputData
    from millstream.items import TResponseInputItem

HandoffHistoryMapper: TypeAlias = "Callable[[list[TResponseInputItem]], list[TResponseInputItem]]"
"""Makes of the whole conversation what the next agent sees of it."""

_PREFACE = "For context, here is the conversation so far between the user and the previous agent:"
_NOTHING = "(no previous turns recorded)"
_WRAPPERS = ("<CONVERSATION HISTORY>", "</CONVERSATION HISTORY>")
_wrappers = _WRAPPERS

_NUMBER = re.compile(r"\d+\.\s?")
_SAID = re.compile(r"(?P<role>[^:(]*?)\s*(?:\((?P<name>.*?)\))?:\s?(?P<content>.*)", re.DOTALL)


def set_conversation_history_wrappers(*, start: str | None = None, end: str | None = None) -> None:
    """Change what stands before and behind the lines, in the whole process; None leaves it as it is."""
    global _wrappers
    before, behind = _wrappers
    _wrappers = (before if start is None else start, behind if end is None else end)


def get_conversation_history_wrappers() -> tuple[str, str]:
    """What stands before and behind the lines."""
    return _wrappers


def reset_conversation_history_wrappers() -> None:
    """Go back to the wrappers that are there by default."""
    global _wrappers
    _wrappers = _WRAPPERS


def nest_handoff_history(
    handoff_input_data: HandoffInputData, *, history_mapper: HandoffHistoryMapper | None = None
) -> HandoffInputData:
    """Tell the next agent the conversation as text. An input filter, also for `handoff(input_filter=...)`.

    Args:
        handoff_input_data: what the next agent would see.
        history_mapper: makes the history of the whole conversation. Without one, each stretch of
            it goes through `default_handoff_history_mapper`; messages of the turn that hands
            over, and input that came in on the way, stay as they are between the stretches.

    Raises:
        UserError: `history_mapper` returned something else than a list of items.
    """
    data = handoff_input_data
    before = _unfolded(ItemHelpers.input_to_new_input_list(cast("Any", data.input_history)))
    items = [i for i in (*data.pre_handoff_items, *data.new_items) if i.type != "tool_approval_item"]
    if history_mapper is not None:
        history = _checked(history_mapper([*before, *(item.to_input_item() for item in items)]))
        return data.clone(input_history=history, pre_handoff_items=(), input_items=())
    this_turn = {id(item) for item in data.new_items}
    verbatim: list[RunItem] = []
    stretches: list[TResponseInputItem] = []
    stretch = before
    for item in items:
        if isinstance(item, InputItem) or (isinstance(item, MessageOutputItem) and id(item) in this_turn):
            # The first stretch is told even if it is empty: the agent learns that it takes over.
            if stretch or not stretches:
                stretches += default_handoff_history_mapper(stretch)
            stretches.append(item.to_input_item())
            verbatim.append(item)
            stretch = []
        else:
            stretch.append(item.to_input_item())
    if stretch or not stretches:
        stretches += default_handoff_history_mapper(stretch)
    return data.clone(
        input_history=tuple(stretches),
        pre_handoff_items=(),
        input_items=(),
        history_items=tuple(verbatim),
    )


def default_handoff_history_mapper(transcript: list[TResponseInputItem]) -> list[TResponseInputItem]:
    """The whole of `transcript` as one message of the assistant."""
    start, end = _wrappers
    lines = [f"{number}. {_line(cast('Any', item))}" for number, item in enumerate(transcript, 1)]
    text = "\n".join([_PREFACE, start, *(lines or [_NOTHING]), end])
    return [cast("TResponseInputItem", {"role": "assistant", "content": text})]


def _checked(mapped: Any) -> tuple[TResponseInputItem, ...]:
    if not isinstance(mapped, list | tuple) or not all(
        isinstance(item, dict) for item in cast("list[Any]", mapped)
    ):
        raise UserError(
            f"A handoff_history_mapper returns a list of input items, not {mapped!r:.80}: "
            "dicts such as {'role': 'user', 'content': '...'}."
        )
    return tuple(cast("list[TResponseInputItem]", mapped))


def _line(item: dict[str, Any]) -> str:
    role, content, name = item.get("role"), item.get("content"), item.get("name")
    if content is None and role is not None:
        content = ""
    # A line is one line: what has several is told as JSON, which escapes them.
    if not isinstance(role, str) or not isinstance(content, str) or "\n" in content or "\r" in content:
        return json.dumps(item, ensure_ascii=False, default=str)
    return f"{role} ({name}): {content}" if name else f"{role}: {content}"


def _unfolded(history: Iterable[TResponseInputItem]) -> list[TResponseInputItem]:
    """`history` with what earlier handoffs have nested read back, so that it is not nested twice."""
    return [each for item in history for each in _read_back(cast("Any", item))]


def _read_back(item: dict[str, Any]) -> Iterator[TResponseInputItem]:
    start, end = _wrappers
    before, behind = f"{_PREFACE}\n{start}\n", f"\n{end}"
    text = item.get("content")
    if (
        item.get("role") != "assistant"
        or not isinstance(text, str)
        or not (text.startswith(before) and text.endswith(behind))
    ):
        yield cast("TResponseInputItem", item)
        return
    for line in _numbered(text[len(before) : -len(behind)]):
        read = _item(line)
        if read is not None:
            yield cast("TResponseInputItem", read)


def _numbered(text: str) -> list[str]:
    """The lines without their numbers; a line without one goes on with the line before it."""
    lines: list[str] = []
    for line in text.split("\n"):
        number = _NUMBER.match(line)
        if number or not lines:
            lines.append(line[number.end() :] if number else line)
        else:
            lines[-1] += f"\n{line}"
    return lines


def _item(line: str) -> dict[str, Any] | None:
    """The item that a line tells of; None where it tells of none."""
    if line.startswith("{"):
        try:
            item = json.loads(line)
        except ValueError:
            return None
        return cast("dict[str, Any]", item)
    said = _SAID.fullmatch(line)
    if said is None or not said["role"]:
        return None
    named = {"name": said["name"]} if said["name"] else {}
    return {"role": said["role"], **named, "content": said["content"]}
