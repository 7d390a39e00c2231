"""The family "raw" of the grammar: what the Responses protocol has a model's server say.

Raw events are passed through as they came, so these clauses are the server's to keep, not
ours: they are looked at only where that is asked for. The scripted model keeps them, and so
does what is made of a Chat Completions stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec

from millstream.events import Entry, ModelRetried, ModelStarted, RawResponsesStreamEvent
from millstream.items import raw_field
from millstream.stream.grammar.clauses import Rule, Violation

FINAL_TYPES = frozenset({"response.completed", "response.incomplete"})
"""The raw events that end a response that was given."""
_OVER = FINAL_TYPES | {"response.failed", "error"}


class RawEvent(msgspec.Struct):
    """What the grammar looks at of a raw event. Nothing of it was checked."""

    type: Any = None
    sequence_number: Any = None
    output_index: Any = None
    content_index: Any = None
    summary_index: Any = None
    item: Any = None
    part: Any = None
    delta: Any = None
    text: Any = None
    refusal: Any = None
    arguments: Any = None

    @property
    def item_id(self) -> str | None:
        """The id of the output item that the event holds."""
        value = raw_field(self.item, "id")
        return value if isinstance(value, str) else None

    @property
    def item_type(self) -> str | None:
        """The type of the output item that the event holds."""
        value = raw_field(self.item, "type")
        return value if isinstance(value, str) else None

    def ends(self, raw_item: Any) -> bool:
        """Whether `raw_item` can be the output item that the event holds."""
        for name, value in (("id", self.item_id), ("type", self.item_type)):
            other = raw_field(raw_item, name)
            if value is not None and isinstance(other, str) and value != other:
                return False
        return True


_decode = msgspec.json.Decoder(RawEvent).decode


def read_raw(event: RawResponsesStreamEvent) -> RawEvent:
    """The parts of `event` that the grammar looks at; empty where it is no JSON object."""
    try:
        return _decode(event.json)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return RawEvent()


class RawResponse:
    """Holds the raw events of one response to the protocol.

    Args:
        known: whether it is seen from its beginning.
    """

    def __init__(self, *, known: bool = True) -> None:
        self.is_over = False
        self._known = known
        self._began = False
        self._sequence_number = -1
        self._items: dict[Any, RawEvent] = {}
        """Output items that are open, by their index."""
        self._parts: set[_Place] = set()
        """Parts that are open."""
        self._said: dict[_Place, list[str]] = {}
        """The deltas of what is not done yet."""

    def see(self, event: RawEvent) -> Iterator[Violation]:
        """What is wrong with `event`, by clause, after what was seen before."""
        kind = event.type if isinstance(event.type, str) else ""
        yield from self._order(kind, event.sequence_number)
        if kind == "response.output_item.added":
            yield from self._item_added(event)
        elif kind == "response.output_item.done":
            yield from self._item_done(event)
        elif kind.endswith(("_part.added", "_part.done")):
            yield from self._part(kind, event)
        elif kind.endswith(".delta"):
            yield from self._open_item(kind, event)
            if isinstance(event.delta, str):
                self._said.setdefault(_place(kind, event), []).append(event.delta)
        elif kind.endswith(".done"):
            yield from self._whole(kind, event)
        elif kind in FINAL_TYPES and self._items:
            indexes = ", ".join(map(str, self._items))
            yield Violation(
                "every_output_item_is_done", f"{kind} came, and the items at {indexes} are not done."
            )

    def _order(self, kind: str, number: Any) -> Iterator[Violation]:
        if self.is_over:
            yield Violation("a_response_begins_and_ends_once", f"{kind} came behind the final event.")
        elif kind == "response.created":
            if self._began:
                yield Violation("a_response_begins_and_ends_once", "response.created came a second time.")
        elif not self._began and self._known and kind != "error":
            yield Violation(
                "a_response_begins_and_ends_once", f"{kind} came: expected response.created first."
            )
        self._began = True
        self.is_over = self.is_over or kind in _OVER
        if isinstance(number, int) and not isinstance(number, bool):
            if number <= self._sequence_number:
                yield Violation(
                    "sequence_numbers_go_up",
                    f"Sequence number {number} of {kind} came behind {self._sequence_number}.",
                )
            self._sequence_number = number
        elif kind != "error":
            yield Violation("sequence_numbers_go_up", f"{kind} has no sequence number.")

    def _item_added(self, event: RawEvent) -> Iterator[Violation]:
        index = _index(event.output_index)
        if index in self._items:
            yield Violation("every_output_item_is_done", f"An item was added at {index}, where one is open.")
        self._items[index] = event

    def _item_done(self, event: RawEvent) -> Iterator[Violation]:
        index = _index(event.output_index)
        added = self._items.pop(index, None)
        if added is None:
            if self._known:
                yield Violation(
                    "every_output_item_is_done",
                    f"The item at {index} is done: expected it to be added first.",
                )
        elif not added.ends(event.item):
            yield Violation(
                "every_output_item_is_done",
                f"The item at {index} was added as {added.item_type} {added.item_id!r}, "
                f"and is done as {event.item_type} {event.item_id!r}.",
            )
        left = [place for place in self._parts if place[1] == index]
        for place in left:
            self._parts.discard(place)
            yield Violation(
                "every_part_is_done", f"The item at {index} is done, and its {place[0]} {place[2]} is not."
            )

    def _part(self, kind: str, event: RawEvent) -> Iterator[Violation]:
        name, _, end = kind.rpartition(".")
        place = (name.removeprefix("response."), _index(event.output_index), _part_index(event))
        if end == "added":
            yield from self._open_item(kind, event, "every_part_is_done")
            if place in self._parts:
                yield Violation(
                    "every_part_is_done", f"A {place[0]} was added at {place[2]}, where one is open."
                )
            self._parts.add(place)
        elif place in self._parts:
            self._parts.discard(place)
        elif self._known:
            yield Violation("every_part_is_done", f"{kind} came: expected it to be added first.")

    def _open_item(
        self, kind: str, event: RawEvent, clause: str = "every_output_item_is_done"
    ) -> Iterator[Violation]:
        index = _index(event.output_index)
        if self._known and index is not None and index not in self._items:
            yield Violation(clause, f"{kind} came for the item at {index}, which is not open.")

    def _whole(self, kind: str, event: RawEvent) -> Iterator[Violation]:
        whole = next(
            (value for value in (event.text, event.refusal, event.arguments) if isinstance(value, str)), None
        )
        if whole is None:
            return
        yield from self._open_item(kind, event)
        said = "".join(self._said.pop(_place(kind, event), ()))
        if self._known and said != whole:
            yield Violation(
                "deltas_make_up_the_whole",
                f"{kind} has {_cut(whole)}, and its deltas make up {_cut(said)}.",
            )


class RawEvents(Rule):
    """The protocol of the model's server, response by response.

    Args:
        sdk: no model.started tells the responses apart.
    """

    def __init__(self, *, sdk: bool) -> None:
        self._sdk = sdk
        self._response = RawResponse()

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event = entry.event
        if isinstance(event, RawResponsesStreamEvent):
            raw = read_raw(event)
            if self._sdk and raw.type == "response.created":
                self._response = RawResponse()
            yield from self._response.see(raw)
        elif isinstance(event, ModelStarted | ModelRetried):
            self._response = RawResponse()

    def forget(self) -> None:
        """Something was not seen."""
        self._response = RawResponse(known=False)


_Place: TypeAlias = "tuple[str, int | None, int | None]"
"""What a delta adds to: the kind of its text, its item, and which part of it."""


def _place(kind: str, event: RawEvent) -> _Place:
    return kind.rpartition(".")[0], _index(event.output_index), _part_index(event)


def _part_index(event: RawEvent) -> int | None:
    return _index(event.content_index if event.content_index is not None else event.summary_index)


def _index(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _cut(text: str) -> str:
    return repr(text) if len(text) <= 40 else f"{text[:40]!r}… ({len(text)} characters)"
