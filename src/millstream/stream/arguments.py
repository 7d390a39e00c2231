"""The arguments of tool calls as the model writes them: a fold over the payloads of one run.

The model's own events (`response.function_call_arguments.delta`) name an output item, not a
call; the item that was added before them names the call. This fold ties the two.

Rules of this file:

1. A call has pieces in state "forming", if any, and then one that is "done" or "dropped".
   The deltas of a call that is done, joined, are its arguments.
2. "dropped" says that the call is void: its answer was cut off, or the model is asked again, by
   this process or by another; that may be so of one that was done, too. One of which nothing was told is left at that.
3. Nothing of a server was checked: what cannot be tied to a call is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec

from millstream.events import ModelCompleted, ModelRetried, RawResponsesStreamEvent, RunAttempt
from millstream.items import raw_field

if TYPE_CHECKING:
    from millstream.log.promise import Payload

ArgumentsState: TypeAlias = Literal["forming", "done", "dropped"]


@dataclass(frozen=True, slots=True)
class ToolArgumentsDelta:
    """A piece of the arguments of one tool call."""

    call_id: str
    """The call: the `call_id` of its items and of the `tool.*` events."""
    tool_name: str
    """The name that the model calls; that of a handoff begins with `transfer_to_`."""
    delta: str
    """What is added to the arguments: JSON text, which is whole when the call is done."""
    state: ArgumentsState = "forming"
    """"forming" while more may come, "done" with the last piece, whose delta is often empty, and
    "dropped" where the call is void, also after it was done: the model is asked again."""


class ToolArguments:
    """Folds the payloads of one run into pieces of arguments."""

    __slots__ = ("_done", "_open")

    def __init__(self) -> None:
        self._open: dict[Any, _Call] = {}
        """The calls that are being written, by what their raw events name them by."""
        self._done: list[_Call] = []
        """Those that are written, in an answer that may yet be given up."""

    def feed(self, payloads: Iterable[Payload]) -> list[ToolArgumentsDelta]:
        """What `payloads` add, in order."""
        return [piece for payload in payloads for piece in self._feed(payload)]

    def _feed(self, payload: Payload) -> Iterable[ToolArgumentsDelta]:
        if isinstance(payload, bytes | RawResponsesStreamEvent):
            json = payload if isinstance(payload, bytes) else payload.json
            # A scan of the bytes spares decoding what is no call, which most events are.
            return self._raw(json) if b"function_call" in json else ()
        if isinstance(payload, ModelRetried | RunAttempt):
            return self._drop([*self._done, *self._open.values()])
        if isinstance(payload, ModelCompleted) or payload.type.startswith("run."):
            return self._drop(self._open.values())
        return ()

    def _raw(self, json: bytes) -> Iterator[ToolArgumentsDelta]:
        try:
            event = _read(json)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        if event.type == "response.output_item.added":
            self._begin(event)
        elif event.type == "response.function_call_arguments.delta":
            yield from self._more(self._open.get(event.key), event.delta)
        elif event.type == "response.function_call_arguments.done":
            call = self._open.pop(event.key, None)
            yield from self._end(call, event.arguments)
        elif event.type == "response.output_item.done":
            # Where the server has told of the arguments' end, the call is gone from here by now.
            call = self._open.pop(event.key, None)
            yield from self._end(call, raw_field(event.item, "arguments"))

    def _begin(self, event: _RawEvent) -> None:
        item = event.item
        call_id, name = raw_field(item, "call_id"), raw_field(item, "name")
        is_call = raw_field(item, "type") == "function_call"
        if is_call and isinstance(call_id, str) and isinstance(name, str):
            self._open[event.key] = _Call(call_id, name)

    def _more(self, call: _Call | None, delta: Any) -> Iterator[ToolArgumentsDelta]:
        if call is not None and isinstance(delta, str) and delta:
            call.length += len(delta)
            call.is_told = True
            yield ToolArgumentsDelta(call.call_id, call.name, delta)

    def _end(self, call: _Call | None, arguments: Any) -> Iterator[ToolArgumentsDelta]:
        """The last piece: what a server has not told in deltas is in it."""
        if call is not None:
            rest = arguments[call.length :] if isinstance(arguments, str) else ""
            call.is_told = True
            self._done.append(call)
            yield ToolArgumentsDelta(call.call_id, call.name, rest, "done")

    def _drop(self, calls: Iterable[_Call]) -> list[ToolArgumentsDelta]:
        """The answer has ended: all of its `calls` that were told of are void."""
        dropped = [
            ToolArgumentsDelta(each.call_id, each.name, "", "dropped") for each in calls if each.is_told
        ]
        self._open.clear()
        self._done.clear()
        return dropped


@dataclass(slots=True)
class _Call:
    call_id: str
    name: str
    length: int = 0
    """How much of the arguments was told."""
    is_told: bool = False
    """Whether anything was told of it."""


class _RawEvent(msgspec.Struct):
    """What is looked at of a raw event. Nothing of it was checked."""

    type: Any = None
    output_index: Any = None
    item_id: Any = None
    item: Any = None
    delta: Any = None
    arguments: Any = None

    @property
    def key(self) -> Any:
        """What the events of one output item have in common: its place, or its id where a server counts none."""
        if isinstance(self.output_index, int):
            return self.output_index
        item_id = self.item_id if isinstance(self.item_id, str) else raw_field(self.item, "id")
        return item_id if isinstance(item_id, str) else None


_read = msgspec.json.Decoder(_RawEvent).decode
