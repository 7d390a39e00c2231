"""Ctrl-C: once stops the run and waits for its end, twice leaves at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

from millstream.cli.problem import say


class Interrupts:
    """While entered, the signals that ask the program to stop stop its run.

    Plain handlers, not those of the event loop: they also work while something blocks it, a
    terminal that is held with Ctrl-S, say.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        """The signal that came, if one did."""
        self._stop: Callable[[], Any] | None = None
        self._before: dict[int, Any] = {}

    @property
    def exit_code(self) -> int:
        """What a shell expects of a program that the signal ended."""
        return 128 + (self.number or signal.SIGINT)

    def stops(self, stop: Callable[[], Any]) -> None:
        """Call `stop` when a signal comes, in the middle of whatever goes on; before this, one just interrupts."""
        self._stop = stop

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
        if self.number is not None:
            os._exit(128 + number)
        self.number = number
        if self._stop is None:
            raise KeyboardInterrupt
        self._stop()


def still_stopping() -> None:
    """Say how to leave when stopping takes its time."""
    say("stopping; Ctrl-C again leaves at once.")
