"""A conversation of a store as the session of its runs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from millstream.errors import UserError
from millstream.sessions import rows

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem
    from millstream.log.store import RunStore

CONVERSATION_ID = r"^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,127}$"
"""What the id of a conversation is made of. It stands in paths, where `.` and `..` would lead elsewhere."""


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
        caller: whose.
        conversation: its id.

    Every method may raise what the store does: an `UnknownConversationError`, where the conversation was
    forgotten, and a `LogUnavailableError` or `LogDamagedError`.
    """

    session_settings = None

    def __init__(self, store: RunStore, caller: str, conversation: str) -> None:
        self.session_id = conversation
        self._store = store
        self._caller = caller

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in order; with a limit the latest so many. What is no item is left out, and logged."""
        kept = await self._store.items(self._caller, self.session_id, limit)
        items = [item for each in kept if (item := rows.read(each)) is not None]
        rows.log_unreadable(self.session_id, len(kept) - len(items), "the store")
        return items

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add `items`: all of them, or none, and side by side.

        Raises:
            InputItemError: one is no dict, or not to be written as JSON.
        """
        added = [text.encode() for text in rows.written(items)]
        await self._store.add_items(self._caller, self.session_id, added)
