"""A feed: what one client is sent of a run, whatever the transport.

Rules of this file:

1. A feed gives every message once, in order, and ends once: with the terminal entry of the
   run, with the `run.paused` at which its reader stops, or with one message that says why the
   stream cannot go on (`stream.gap`, `stream.error`). Trouble is told to the client, never raised to the transport.
2. It belongs to no task and holds no context: it may be asked in one task and closed in
   another, or be dropped.
3. What is ready is given together, up to about `AT_ONCE` bytes.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from millstream.clock import time_limit
from millstream.delivery.frame import Message, entry_message, error_message, gap_message, position_message
from millstream.errors import LogGapError
from millstream.stream.filter import EVERYTHING

if TYPE_CHECKING:
    from millstream.clock import Clock
    from millstream.events import Entry
    from millstream.stream.filter import EntryFilter

logger = logging.getLogger("millstream")

AT_ONCE = 64 * 1024
"""About how many bytes are given together."""
LOOKED_AT = 256
"""As how many of them an entry counts that was left out: it had to be looked at."""


class Entries(Protocol):
    """Entries of one run, in order and without holes, up to its terminal one, or to where it pauses.

    `__anext__` may be cancelled while it waits, and asked again: nothing is lost.
    """

    @property
    def has_more(self) -> bool:
        """Whether the next entry is at hand, so that asking for it will not wait."""
        ...

    async def __anext__(self) -> Entry:
        """The next entry."""
        ...

    async def aclose(self) -> None:
        """Leave the stream; the run goes on."""
        ...


class Messages(Protocol):
    """What one client is sent, as a `Feed` gives it."""

    run_id: str
    """The run, for the server's log."""
    is_over: bool
    """Whether the last message was given."""

    async def next(self) -> list[Message] | None:
        """What is to be sent next: waits for it. An empty list for a heartbeat; None at the end."""
        ...

    async def aclose(self) -> None:
        """Come to the end, also for who waits. Safe to call twice."""
        ...


class _SilentError(Exception):
    """Nothing came until a heartbeat was due."""


class Feed:
    """The messages for one client.

    Args:
        entries: the run, beyond `after`.
        run_id: the run, whose terminal entry ends the feed; that of a run nested in it does not.
        clock: measures silence.
        after: the position that the client has.
        wanted: which entries to give; the end of the run, and that it pauses, are given in any case.
        heartbeat: after how many seconds of silence a heartbeat is due; None for never.
        on_end: called when the terminal entry of the run is given.
    """

    def __init__(
        self,
        entries: Entries,
        run_id: str,
        *,
        clock: Clock,
        after: int = 0,
        wanted: EntryFilter = EVERYTHING,
        heartbeat: float | None = None,
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self._entries = entries
        self.run_id = run_id
        self._clock = clock
        self._wanted = wanted
        self._heartbeat = heartbeat
        self._on_end = on_end
        self._after = after
        self._passed = after
        """The last position that was read."""
        self._told = after
        """The last position that the client knows of."""
        self._is_paused = False
        """Whether the last entry that was read says that the run waits for decisions."""
        self._at_a_stretch = 0
        """About how many bytes were given since others had their turn."""
        self._is_closed = False
        self.is_over = False
        """Whether the last message was given."""

    @property
    def passed(self) -> int:
        """The position that it has come to: what is behind that was not given yet."""
        return self._passed

    async def next(self) -> list[Message] | None:
        """What is to be sent next, all that is ready: waits for it. None at the end.

        An empty list says that a heartbeat is due. May be cancelled while it waits, and called again.
        """
        quiet_since = self._clock.monotonic()
        while not self.is_over:
            if self._at_a_stretch >= AT_ONCE:
                # A long log is at hand as a whole, and a fast client takes it all: others have their turn.
                self._at_a_stretch = 0
                await asyncio.sleep(0)
            messages: list[Message] = []
            try:
                entry = await self._first(quiet_since)
                if entry is None:
                    return self._position()
                size = self._take(entry, messages)
                while self._entries.has_more and size < AT_ONCE and not self.is_over:
                    size += self._take(await anext(cast("Any", self._entries)), messages)
                self._at_a_stretch += size
            except Exception as error:
                self.is_over = True
                messages += self._trouble(error)
            if messages:
                return messages
        await self.aclose()
        return None

    async def aclose(self) -> None:
        """Leave the run; it goes on. Safe to call twice."""
        self.is_over = self._is_closed = True
        await self._entries.aclose()

    async def _first(self, quiet_since: float) -> Entry | None:
        """The next entry; None if a heartbeat is due before."""
        left = None
        if self._heartbeat is not None and not self._entries.has_more:
            left = quiet_since + self._heartbeat - self._clock.monotonic()
            if left <= 0:
                return None
        try:
            async with time_limit(self._clock, left, _SilentError()):
                return await anext(cast("Any", self._entries))
        except _SilentError:
            return None

    def _take(self, entry: Entry, messages: list[Message]) -> int:
        """Add what is sent of `entry` to `messages`; about how many bytes that is."""
        message = None
        is_end = entry.is_terminal and entry.run_id == self.run_id
        self._is_paused = entry.type == "run.paused" and entry.run_id == self.run_id
        if is_end or self._is_paused or self._wanted.takes(entry):
            message = entry_message(entry)
            messages.append(message)
            self._told = entry.position
        self._passed = entry.position
        if is_end:
            self.is_over = True
            if self._on_end is not None:
                self._on_end()
        return LOOKED_AT if message is None else len(message.json)

    def _position(self) -> list[Message]:
        """Tell the client how far it has come, where what lies between was left out."""
        if self._told == self._passed:
            return []
        self._told = self._passed
        return [position_message(self._passed)]

    def _trouble(self, error: Exception) -> list[Message]:
        """What to say when `error` ended the stream."""
        nothing_left = self._is_closed or self._is_paused or self._passed == self._after
        if isinstance(error, StopAsyncIteration) and nothing_left:
            return []  # left, or told to the end, or nothing was there: the client has the end already
        position = self._position()
        if isinstance(error, LogGapError):
            return [*position, gap_message(error, self._passed)]
        error_id = f"err_{secrets.token_hex(8)}"
        logger.error(
            "run %s: a stream of it broke off behind position %d (%s)",
            self.run_id, self._passed, error_id, exc_info=error,
        )  # fmt: skip
        return [*position, error_message("broken_off", "The stream broke off.", self._passed, error_id)]
