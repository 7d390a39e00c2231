"""Input that is sent to a run while it goes on: where it waits, and what it interrupts.

Rules of this file:

1. What was sent is given to the model with its next call, all that waits at once and in the order
   in which it was sent. What came in before the run took its last decision is never lost: the
   run does not end with an output while something waits.
2. Whether to end is decided under a lock, as input comes from any thread: what is sent is taken,
   or refused.
3. Only stretches of the loop that say so give way to input: a model call, its tools, the wait for
   another try. Everything else is short, or is not to be done by halves.
4. Who interrupts is known: one cancellation of the task is ours, and taken back when the turn was
   given up. Any other is for the run, which ends. It is asked for while the task waits, never by
   something that the task itself calls: so it comes where the task waits, and not behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Generator, Sequence
from typing import TYPE_CHECKING

from millstream.errors import UserError
from millstream.events import SOONEST_FIRST

if TYPE_CHECKING:
    from millstream.events import CancelMode
    from millstream.items import TResponseInputItem


OVER = "The run is over, and takes no more input: begin another with run.to_input_list() and what you have to say."
PAUSED = "The run waits for decisions: give what you have to say to its state, with state.add_input(...), and run that."


class Steering:
    """What was sent to one run.

    Args:
        waiting: where it waits, with what was there before.
        interrupt: cancels what the run's task is doing, where that may be cancelled; called on its loop.
    """

    def __init__(self, waiting: list[TResponseInputItem], interrupt: Callable[[], bool]) -> None:
        self._waiting = waiting
        self._interrupt = interrupt
        self._lock = threading.Lock()
        self._refusal: str | None = None
        """Why nothing is taken any more."""
        self._due: CancelMode | None = None
        """The soonest moment for which something waits that was sent."""
        self._gives_way_to: tuple[CancelMode, ...] = ()
        """The moments of input that interrupts what the loop is doing."""
        self._interrupted = False

    # --- what waits --------------------------------------------------------------------------

    def put(self, items: Sequence[TResponseInputItem], when: CancelMode) -> None:
        """Let `items` wait. Safe in any thread.

        Raises:
            UserError: the run takes nothing any more.
        """
        with self._lock:
            if self._refusal is not None:
                raise UserError(self._refusal)
            self._waiting.extend(items)
            if is_sooner(when, self._due):
                self._due = when

    def keep(self, items: Sequence[TResponseInputItem]) -> None:
        """Let `items` wait, also where nothing is taken any more: for whoever goes on with the run."""
        with self._lock:
            self._waiting.extend(items)

    def take(self) -> list[TResponseInputItem]:
        """All that waits, which waits no longer."""
        with self._lock:
            taken = list(self._waiting)
            self._waiting.clear()
            self._due = None
            return taken

    def has_any(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def ends(self, refusal: str) -> bool:
        """Take nothing any more, unless something waits: False then."""
        with self._lock:
            if not self._waiting:
                self._refusal = refusal
            return not self._waiting

    def refuse(self, refusal: str) -> None:
        """Take nothing any more. What waits goes on waiting."""
        with self._lock:
            self._refusal = self._refusal or refusal

    # --- what it interrupts ------------------------------------------------------------------

    def is_due(self, *moments: CancelMode) -> bool:
        """Whether something waits that was sent for one of `moments`."""
        return self._due in moments

    @contextlib.contextmanager
    def interrupts(self, *, when: Sequence[CancelMode]) -> Generator[None]:
        """A stretch of the loop that input for one of these moments interrupts."""
        previous, self._gives_way_to = self._gives_way_to, tuple(when)
        try:
            if self.is_due(*when):
                raise asyncio.CancelledError
            yield
        finally:
            self._gives_way_to = previous

    def look(self) -> None:
        """Interrupt the loop if something waits for that. Called by the event loop, when something was put."""
        if not self._interrupted and self.is_due(*self._gives_way_to):
            self._interrupted = self._interrupt()

    def was_it(self) -> bool:
        """Whether the turn was given up for input, and for nothing else. Its cancellation is taken back then."""
        task = asyncio.current_task()
        ours, self._interrupted = self._interrupted, False
        if task is None or task.cancelling() != ours:
            return False
        if ours:
            task.uncancel()
        return ours or self.is_due("now", "after_tool")


def is_sooner(moment: CancelMode, than: CancelMode | None) -> bool:
    """Whether `moment` comes before another; None never comes."""
    return than is None or SOONEST_FIRST.index(moment) < SOONEST_FIRST.index(than)
