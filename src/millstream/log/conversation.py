"""A conversation of a store as the session of its runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from millstream.errors import UserError
from millstream.sessions import rows

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem
    from millstream.log.store import RunRecord, RunStore

CONVERSATION_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}(?!\n)$"
"""What the id of a conversation is made of. It stands in paths, where `.` and `..` would lead elsewhere.

To Python, though to nobody else who reads it, `$` is also in front of a last newline.
"""


def check_conversation_id(conversation: Any, where: str) -> str:
    """The id of a conversation that somebody passed to `where`.

    Raises:
        UserError: it is none.
    """
    if isinstance(conversation, str) and re.fullmatch(CONVERSATION_ID[1:-1], conversation):
        return conversation
    raise UserError(
        f"{where}: {conversation!r} names no conversation: 1 to 128 letters, digits, and any of _ . : - behind the first."
    )


class ConversationSession:
    """What the runs of a conversation read and leave: its items, in the store that has the runs.

    What is added is there for every process that has the store when `add_items` returns, and survives
    what the store survives.

    Args:
        store: where the conversation is, which its first run began.
        run: the record of the run that reads and adds. Who only reads has no use for one that is going.

    Every method may raise what the store does: a `LogUnavailableError` or `LogDamagedError`, and where the
    run or its conversation is not there any more, an `UnknownRunError` or `UnknownConversationError`.
    """

    session_settings = None

    def __init__(self, store: RunStore, run: RunRecord) -> None:
        self.session_id = run.conversation
        self.epoch = run.epoch
        """Under which the run is held: of whoever was taken over from, nothing is taken any more."""
        self._store = store
        self._run = run

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in order; with a limit the latest so many. What is no item is left out, and logged."""
        kept = await self._store.items(self._run.caller, self.session_id, limit)
        items = [item for each in kept if (item := rows.read(each)) is not None]
        rows.log_unreadable(self.session_id, len(kept) - len(items), "the store")
        return items

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add `items`: all of them, or none, and side by side.

        Raises:
            InputItemError: one is no dict, or not to be written as JSON.
            StaleOwnerError: another process has taken the run over.
            RunClosedError: the run has ended.
        """
        added = [text.encode() for text in rows.written(items)]
        await self._store.add_items(self._run.run_id, added, epoch=self.epoch)
