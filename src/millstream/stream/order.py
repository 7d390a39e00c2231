"""The order of `stream_events()`: a pure fold of the log into the three kinds of the SDK.

The log has the natural order: a tool call stands where the model finished it, a tool's
output where it came to be. Programs written for the OpenAI Agents SDK expect another one:

1. the raw events of a model call first, then the items of that response;
2. the outputs of a turn's tools together, when the last has ended, in the order of the calls.

Nothing is held back beyond that, and whatever is held is given out before the stream ends. Where
a model call is tried again (`model.retried`), the items of the try that failed are left out; its
raw events have been given out by then, and the next try begins with `response.created` again.

So it is where another process goes on with the run (`run.attempt`) that had died in a model call.
What a finished call said and what a tool gave is never void: outputs that are held go out there,
those of the turn that are still to come behind it, and none comes twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from millstream.events import (
    AgentUpdatedStreamEvent,
    ModelCompleted,
    ModelRetried,
    ModelStarted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunItemStreamEvent,
    StreamEvent,
    ToolFinished,
    ToolStarted,
)
from millstream.items import call_id_of, is_function_call

if TYPE_CHECKING:
    from millstream.events import Event

_KINDS = (RawResponsesStreamEvent, RunItemStreamEvent, AgentUpdatedStreamEvent)


class EventOrder:
    """Folds the events of one run into those of `stream_events()`.

    Args:
        early: leave the natural order, and only leave out what is not one of the three kinds.
        calls: the ids of the calls that have no output where the stream begins, as it does behind a pause.
    """

    __slots__ = ("_calls", "_early", "_in_model", "_items", "_outputs")

    def __init__(self, *, early: bool = False, calls: Iterable[str] = ()) -> None:
        self._early = early
        self._in_model = False
        self._items: list[RunItemStreamEvent] = []
        self._calls = list(calls)
        self._outputs: list[RunItemStreamEvent] = []

    def feed(self, event: Event) -> list[StreamEvent]:
        """What `event` lets out, in order."""
        if self._early:
            return [event] if isinstance(event, _KINDS) else []
        if isinstance(event, RawResponsesStreamEvent):
            return [event]
        if isinstance(event, RunItemStreamEvent):
            return self._item(event)
        if isinstance(event, ModelStarted):
            self._in_model = True
            released: list[StreamEvent] = self._release_outputs()
            self._calls.clear()
            return released
        if isinstance(event, ModelRetried):
            return self._give_up_try()
        if isinstance(event, RunAttempt) and self._in_model:
            self._in_model = False
            return self._give_up_try()
        if isinstance(event, ModelCompleted):
            self._in_model = False
            released = [*self._items]
            self._items.clear()
            return released
        if isinstance(event, AgentUpdatedStreamEvent):
            return [*self._release_outputs(), event]
        if isinstance(event, ToolStarted | ToolFinished):
            return []
        return self.flush() if event.type.startswith("run.") else []

    def flush(self) -> list[StreamEvent]:
        """What is still held: to be given out at the end."""
        released: list[StreamEvent] = [*self._items, *self._release_outputs()]
        self._items.clear()
        return released

    def _give_up_try(self) -> list[StreamEvent]:
        """The items that the model has said in this try are void. Its raw events are out already."""
        self._items.clear()
        self._calls.clear()
        return []

    def _item(self, event: RunItemStreamEvent) -> list[StreamEvent]:
        if self._in_model:
            self._items.append(event)
            if event.name == "tool_called" and is_function_call(event.item.raw_item):
                self._calls.append(call_id_of(event.item.raw_item) or "")
            return []
        if event.name == "tool_output":
            self._outputs.append(event)
            return self._release_outputs() if len(self._outputs) >= len(self._calls) else []
        return [*self._release_outputs(), event]

    def _release_outputs(self) -> list[StreamEvent]:
        if not self._outputs:
            return []
        place = {call_id: index for index, call_id in enumerate(self._calls)}
        outputs = sorted(
            self._outputs, key=lambda e: place.get(call_id_of(e.item.raw_item) or "", len(place))
        )
        self._outputs = []
        for event in outputs:
            call_id = call_id_of(event.item.raw_item) or ""
            if call_id in self._calls:
                self._calls.remove(call_id)
        return [*outputs]
