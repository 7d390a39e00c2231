"""What was said and is taken back: which messages of a run stand in its log, and where they begin."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from millstream.errors import LogError
from millstream.events import (
    ModelRetried,
    ModelStarted,
    RawResponsesStreamEvent,
    RunItemStreamEvent,
    TextRetracted,
)
from millstream.items import MessageOutputItem, ToolCallOutputItem, raw_field
from millstream.models.request import FAKE_ID

if TYPE_CHECKING:
    from millstream.events import Entry
    from millstream.run.active import ActiveRun


async def take_back(run: ActiveRun, after: int, *, outputs: bool = False) -> None:
    """Tell clients to remove the messages that the run wrote behind position `after`, and tell of them no more.

    Read from the log, and only here: what passes through is not looked at for this.

    Args:
        run: the run.
        after: a position of its log.
        outputs: whether the outputs of tools are taken back too; each goes by the id of its call.
    """
    run.closing.takes_back = True
    said = _Said(outputs=outputs)
    end = run.position
    cursor = run.trunk.cursor(after)
    at = after
    try:
        while at < end and (batch := await cursor.next()) is not None:
            for entry in batch.entries(at):
                if entry.run_id == run.run_id and entry.position <= end:
                    said.see(entry)
            at = batch.last
    except LogError:  # the beginning is no longer held, and nobody can have it from here
        await run.write(TextRetracted())
        return
    await run.write(
        *(
            TextRetracted(item_id=message.item_id, from_position=position)
            for message, position in said.messages.items()
        )
    )


class _Message(NamedTuple):
    """A message by what tells it from others: servers count their ids anew in each response."""

    call: int
    item_id: str | None


class _Said:
    """Folds the entries of one run into its messages, each with the position of its first entry."""

    def __init__(self, *, outputs: bool) -> None:
        self.messages: dict[_Message, int] = {}
        self._outputs = outputs
        self._call = 0

    def see(self, entry: Entry) -> None:
        """Take in the next entry."""
        event = entry.event
        if isinstance(event, ModelStarted):
            self._call += 1
        elif isinstance(event, ModelRetried):  # superseded: no client shows it any more
            self.messages = {
                message: at for message, at in self.messages.items() if message.call != self._call
            }
        elif isinstance(event, RunItemStreamEvent):
            if isinstance(event.item, MessageOutputItem):
                self._begins(raw_field(event.item.raw_item, "id"), entry.position)
            elif self._outputs and isinstance(event.item, ToolCallOutputItem):
                self._begins(event.item.call_id, entry.position)
        elif isinstance(event, RawResponsesStreamEvent):
            self._raw(event, entry.position)

    def _raw(self, event: RawResponsesStreamEvent, position: int) -> None:
        plain = cast("dict[str, Any]", json.loads(event.json))
        kind = plain.get("type")
        if kind == "response.output_item.added":
            item = plain.get("item")
            if raw_field(item, "type") == "message":
                self._begins(raw_field(item, "id"), position)
        elif kind in ("response.output_text.delta", "response.refusal.delta"):
            self._begins(plain.get("item_id"), position)

    def _begins(self, item_id: Any, position: int) -> None:
        named = isinstance(item_id, str) and item_id != FAKE_ID
        self.messages.setdefault(_Message(self._call, item_id if named else None), position)
