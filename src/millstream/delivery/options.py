"""Where a delivery begins: a handle, and what the caller passes beside it, checked.

What the program itself got wrong raises at once. What came from a client, a position that is
none, is told to the client.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

from millstream.attach import AttachedRun
from millstream.delivery.feed import Entries, Feed
from millstream.delivery.frame import Message, error_message
from millstream.errors import UserError
from millstream.result import RunResultStreaming
from millstream.stream.filter import EntryFilter

if TYPE_CHECKING:
    from millstream.clock import Clock
    from millstream.run.active import ActiveRun

OnDisconnect: TypeAlias = Literal["continue", "cancel"]

HEARTBEAT_SECONDS = 15.0
"""How long a stream may be silent. Proxies cut what is silent for 30 to 60 seconds."""
SEND_SECONDS = 30.0
"""How long a client may take nothing of what it is sent."""


@dataclass(frozen=True)
class Options:
    """What the doors of this package have in common. `where` is the door's name, for errors.

    Raises:
        UserError: a value that cannot work, by name.
    """

    where: str
    after: int | str | None = None
    depth: int | None = None
    types: Iterable[str] | None = None
    heartbeat: float | None = HEARTBEAT_SECONDS
    named: bool = False
    send_timeout: float = SEND_SECONDS
    on_disconnect: OnDisconnect = "continue"
    wanted: EntryFilter = field(init=False)

    def __post_init__(self) -> None:
        wanted = EntryFilter.of(self.where, depth=self.depth, types=self.types)
        object.__setattr__(self, "wanted", wanted)
        if self.heartbeat is not None:
            self._check_seconds("heartbeat", self.heartbeat)
        self._check_seconds("send_timeout", self.send_timeout)
        if self.on_disconnect not in get_args(OnDisconnect):
            raise UserError(
                f"{self.where}: on_disconnect={self.on_disconnect!r} is neither 'continue' nor 'cancel'."
            )
        if isinstance(self.after, bool) or not isinstance(self.after, int | str | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(
                f"{self.where}: after={self.after!r} is no position. It takes a number, "
                "or what the client sent as its Last-Event-ID header, or None."
            )
        if isinstance(self.after, int) and self.after < 0:
            raise UserError(f"{self.where}: after={self.after}: positions count from 1; 0 is the start.")

    def _check_seconds(self, name: str, seconds: Any) -> None:
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds < math.inf:
            raise UserError(f"{self.where}: {name}={seconds!r}: a number of seconds above 0.")

    def position_in(self, run: RunResultStreaming) -> int | Message:
        """The position that the client has; or what to tell it, where it names one that cannot be."""
        after = self.after or 0
        if isinstance(after, str):
            after = whole_number(after)
        if after is not None and after <= last_position(run):
            return after
        return error_message("unknown_position", "This run has no such position.", 0)

    def feed(self, run: RunResultStreaming, after: int) -> Feed:
        """The feed for one more reader of `run`."""
        return Feed(
            cast("Entries", run.entries(after)),
            run.run_id,
            clock=clock_of(run),
            after=after,
            wanted=self.wanted,
            heartbeat=self.heartbeat,
            on_end=_active(run).log_failure,
        )


def whole_number(text: str) -> int | None:
    """The number that a client has written, a position say; None where it is none."""
    text = text.strip()
    # No more digits than a position has: a longer number costs time to read.
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else None


def clock_of(run: RunResultStreaming) -> Clock:
    """The clock of the run."""
    return _active(run).config.clock


def last_position(run: RunResultStreaming) -> int:
    """The last position that the run has written."""
    return _active(run).position


def _active(run: RunResultStreaming) -> ActiveRun:
    return run._run  # pyright: ignore[reportPrivateUsage]


def check_handle(where: str, handle: Any) -> RunResultStreaming:
    """`handle`, if it is one.

    Raises:
        UserError: it is something else; says what to pass instead.
    """
    if isinstance(handle, RunResultStreaming):
        return handle
    hint = "."
    if isinstance(handle, AttachedRun):
        hint = ": runs of a store are served by millstream.server.create_app(), which can be mounted into your application."
    elif inspect.iscoroutine(handle):
        handle.close()  # it is not awaited, and needs no warning of its own
        hint = ": without `await`, and not Runner.run(...)."
    elif hasattr(handle, "__anext__"):
        hint = ": without .stream_events(), .entries() or .text(), so that every entry and its position is at hand."
    raise UserError(
        f"{where} takes the handle that Runner.run_streamed(...) returns, not {type(handle).__name__}{hint}"
    )
