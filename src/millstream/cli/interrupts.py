"""Ctrl-C: once stops the run and waits for its end, twice leaves at once."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from millstream.cli.problem import say
from millstream.clock import Timer, current_clock

if TYPE_CHECKING:
    from millstream.result import RunResultStreaming

GRACE = 1.0
"""Seconds after which it is said how to leave a run that does not stop."""


class Interrupts:
    """While entered, the signals that ask the program to stop stop its run.

    Plain handlers, not those of the event loop: they also work while something blocks it, a
    terminal that is held with Ctrl-S, say.

    Args:
        grace: seconds within which a second signal is taken for the first: an impatient key.
        leaving: called before a second one leaves at once.
    """

    def __init__(self, *, grace: float = 0.0, leaving: Callable[[], Any] | None = None) -> None:
        self.number: int | None = None
        """The signal that came, if one did."""
        self._came_at = 0.0
        self._grace = grace
        self._leaving = leaving
        self._stop: Callable[[], Any] | None = None
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that the signal ended."""
        return 128 + (self.number or signal.SIGINT)

    def stops(self, stop: Callable[[], Any] | None) -> None:
        """Call `stop` when a signal comes, in the middle of whatever goes on; without one, it just interrupts."""
        self._stop = stop

    def interrupt(self) -> None:
        """Stop as the first Ctrl-C does, for another key; nothing where a signal came already."""
        if self.number is None:
            self._on_signal(signal.SIGINT, None)

    def forget(self) -> None:
        """The signal that came has been dealt with: the next one is a first one."""
        self.number = None

    def __enter__(self) -> Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Who starts a program with the signal ignored (nohup, a shell's background) means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        now = current_clock().monotonic()
        if self.number is not None:
            if now - self._came_at < self._grace:
                self.number = max(self.number, number)  # a polite kill, 15, is more than Ctrl-C, 2
                return
            if self._leaving is not None:
                self._leaving()
            os._exit(128 + number)
        self.number, self._came_at = number, now
        if self._stop is None:
            raise KeyboardInterrupt
        self._stop()


class Stop:
    """Stops a run, also when it is asked to before the run is there; says how to leave when that takes its time."""

    def __init__(self) -> None:
        self.was_asked = False
        """Whether the run was to stop; it may have ended by itself all the same."""
        self._handle: RunResultStreaming | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: Timer | None = None

    def __call__(self) -> None:
        """Stop the run. In the middle of anything, any number of times."""
        self.was_asked = True
        if self._handle is not None and self._loop is not None:
            self._handle.cancel()
            self._loop.call_soon_threadsafe(self._watch)

    def begin(self, handle: RunResultStreaming) -> None:
        """This is the run; within its event loop."""
        self._handle, self._loop = handle, asyncio.get_running_loop()
        if self.was_asked:
            self()

    def end(self) -> None:
        """The run is over."""
        self._handle = None
        if self._timer is not None:
            self._timer.cancel()

    def _watch(self) -> None:
        if self._handle is not None and self._timer is None:
            self._timer = current_clock().call_later(GRACE, _still_stopping)


def _still_stopping() -> None:
    say("stopping; Ctrl-C again leaves at once.")
