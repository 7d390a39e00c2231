"""Rules about model calls, and the items that models say."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millstream.events import (
    ITEM_EVENT_NAMES,
    Entry,
    InputAdded,
    ModelCompleted,
    ModelRetried,
    ModelStarted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunItemStreamEvent,
)
from millstream.items import raw_field
from millstream.stream.grammar.clauses import Rule, Violation
from millstream.stream.grammar.raw import FINAL_TYPES, RawEvent, read_raw

_OTHERS = frozenset(
    {
        "tool_output",
        "handoff_occured",
        "tool_approval_requested",
        "input_added",
        "mcp_approval_response",
    }
)
_SAID = frozenset(ITEM_EVENT_NAMES.values()) - _OTHERS
"""Items that a model says."""
_ONLY_SAID = _SAID - {"message_output_created"}
"""Those that nobody else does: an error handler's output is a message too, as is text that was cut off."""
_NO_ITEM = frozenset({"compaction"})
"""Outputs that are history for the model and no event for people."""
_FINAL = "response.completed or response.incomplete"


class ModelCalls(Rule):
    """Model calls, one after another."""

    def __init__(self, *, bare: bool) -> None:
        self._bare = bare
        self._open: int | None = None
        """The turn of the call that is under way."""
        self._known = True
        """Whether it is known what is open."""
        self._turn = 0
        self._cut_short: int | None = None
        """The turn of a call that was cancelled, for which no reason was seen yet."""

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event = entry.event
        if isinstance(event, InputAdded | RunAttempt):
            self._cut_short = None
        elif isinstance(event, ModelStarted):
            yield from self._started(event, entry)
        elif isinstance(event, ModelCompleted):
            yield from self._completed(event)
        elif entry.is_terminal:
            if self._open is not None:
                yield Violation(
                    "every_model_call_ends", f"{entry.type} came before model.completed of turn {self._open}."
                )
        elif self._open is None and self._known:
            what = self._of_the_model(event)
            if what:
                yield Violation("a_model_speaks_in_its_call", f"{what} came outside of a model call.")

    def _started(self, event: ModelStarted, entry: Entry) -> Iterator[Violation]:
        if self._open is not None:
            yield Violation(
                "every_model_call_ends",
                f"model.started came before model.completed of turn {self._open}.",
            )
        if event.turn <= self._turn:
            yield Violation(
                "every_model_call_ends", f"model.started of turn {event.turn} came behind turn {self._turn}."
            )
        if not self._bare and event.turn != entry.turn:
            yield Violation(
                "the_envelope_tells_the_state",
                f"model.started is of turn {event.turn}, and its envelope says {entry.turn}.",
            )
        if self._cut_short is not None:
            yield Violation(
                "a_cancelled_call_gives_way_to_input",
                f"model.started came behind the cancelled call of turn {self._cut_short}: expected input.added first.",
            )
        self._open = self._turn = event.turn
        self._known, self._cut_short = True, None

    def _completed(self, event: ModelCompleted) -> Iterator[Violation]:
        if self._known and self._open != event.turn:
            expected = "model.started first" if self._open is None else f"that of turn {self._open}"
            yield Violation(
                "every_model_call_ends", f"model.completed of turn {event.turn} came: expected {expected}."
            )
        self._open, self._known = None, True
        self._cut_short = event.turn if event.status == "cancelled" else None

    def _of_the_model(self, event: Any) -> str | None:
        if isinstance(event, RawResponsesStreamEvent | ModelRetried):
            return event.type
        return event.name if isinstance(event, RunItemStreamEvent) and event.name in _ONLY_SAID else None

    def forget(self) -> None:
        """Something was not seen."""
        self._open, self._known, self._turn, self._cut_short = None, False, 0, None


class Items(Rule):
    """Items right behind the raw events that end them."""

    def __init__(self) -> None:
        self._known = True
        self._streamed = False
        """Whether the model answers as a stream: a whole response has no raw events."""
        self._final = False
        self._ended: RawEvent | None = None
        """The event right before, where it ends an item that is not there yet."""
        self._unusable: RawEvent | None = None
        """The first that ended an item of this call which did not follow: the call is not to be completed."""
        self._behind_end = False
        """Whether the event right before is an end, or an item behind one."""

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event = entry.event
        if isinstance(event, RunItemStreamEvent) and event.name in _SAID:
            yield from self._item(event)
            return
        ended, self._ended, self._behind_end = self._ended, None, False
        if ended is not None and ended.item_type not in _NO_ITEM:
            self._unusable = self._unusable or ended
        if isinstance(event, RawResponsesStreamEvent):
            self._raw(read_raw(event))
        elif isinstance(event, ModelStarted | ModelRetried):
            self._known, self._streamed, self._final, self._unusable = True, False, False, None
        elif isinstance(event, ModelCompleted):
            if event.status == "completed":
                yield from self._completed()
            self._streamed, self._unusable = False, None

    def _completed(self) -> Iterator[Violation]:
        if self._unusable is not None:
            yield Violation(
                "an_item_stands_behind_its_end",
                f"The call is completed, and the item {self._unusable.item_id!r} that it has ended did not follow: "
                "expected run_item_stream_event.",
            )
        if self._streamed and not self._final and self._known:
            yield Violation(
                "a_completed_call_is_whole",
                f"The call is completed, and its raw events are not: expected {_FINAL}.",
            )

    def _raw(self, event: RawEvent) -> None:
        self._streamed = True
        if event.type in FINAL_TYPES:
            self._final = self._behind_end = True
        elif event.type == "response.output_item.done":
            self._ended, self._behind_end = event, True

    def _item(self, event: RunItemStreamEvent) -> Iterator[Violation]:
        ended, self._ended = self._ended, None
        if not self._streamed or not self._known:
            return
        if not self._behind_end:
            yield _without_end(event)
        elif ended is not None and not ended.ends(event.item.raw_item):
            yield Violation(
                "an_item_stands_behind_its_end",
                f"{event.name} {_id_of(event)!r} stands behind the end of {ended.item_id!r}.",
            )

    def forget(self) -> None:
        """Something was not seen."""
        self._known, self._streamed, self._final = False, False, False
        self._ended, self._unusable, self._behind_end = None, None, False


class OrderedItems(Rule):
    """Items in the order of `stream_events()`: each anywhere behind the raw event that ends it."""

    def __init__(self) -> None:
        self._open = False
        """Whether a response has begun, and has no final event yet."""
        self._due = 0
        """How many items are done and have not come."""

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event = entry.event
        if isinstance(event, RawResponsesStreamEvent):
            kind = read_raw(event).type
            if kind == "response.created":
                self._open, self._due = True, 0
            elif kind == "response.output_item.done":
                self._due += 1
            elif kind in FINAL_TYPES:
                self._open = False
        elif isinstance(event, RunItemStreamEvent) and event.name in _SAID:
            # A message without an end may be what was left of an answer that was cut off.
            if self._open and self._due <= 0 and event.name in _ONLY_SAID:
                yield _without_end(event)
            self._due -= 1

    def forget(self) -> None:
        """Something was not seen."""
        self._open, self._due = False, 0


def _without_end(event: RunItemStreamEvent) -> Violation:
    return Violation(
        "an_item_stands_behind_its_end",
        f"{event.name} came without its end: expected response.output_item.done before it.",
    )


def _id_of(event: RunItemStreamEvent) -> Any:
    return raw_field(event.item.raw_item, "id")
