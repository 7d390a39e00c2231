"""The clock: the one place where time is read and waited for, so that a test can pass another one in.

A run sets the clock of its `RunConfig` in its own task. What works for the run (models, tools,
runs that its tools start) finds it as `current_clock()`, as tasks and threads that are started
there inherit it. Nobody else reads the time: `tests/test_clock.py` looks.
"""

from __future__ import annotations

import asyncio
import time as _time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Protocol


class Timer(Protocol):
    """Something that is going to happen."""

    def cancel(self) -> None:
        """Let it not happen. Safe to call twice, and too late."""
        ...


class Clock(Protocol):
    """Tells the time and waits."""

    def time(self) -> float:
        """Seconds since the epoch; for people to read, never for measuring a span."""
        ...

    def monotonic(self) -> float:
        """Seconds that only ever grow; for measuring a span."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        ...

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` after `seconds` on the event loop that runs now."""
        ...


class SystemClock:
    """The clock of the machine."""

    # Without a method of our own between: a stream of a model asks for each of its reads.
    time = staticmethod(_time.time)
    monotonic = staticmethod(_time.monotonic)

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` after `seconds` on the event loop that runs now."""
        return asyncio.get_running_loop().call_later(seconds, callback)


SYSTEM_CLOCK = SystemClock()

CURRENT_CLOCK: ContextVar[Clock] = ContextVar("millstream_clock", default=SYSTEM_CLOCK)
"""Set by a run in its own task."""


def current_clock() -> Clock:
    """The clock of the run for which the caller works; the machine's where it works for none."""
    return CURRENT_CLOCK.get()


class time_limit:
    """Cancels the body after `seconds` by `clock`, and raises `error` in its place; None is no limit.

    As `asyncio.timeout`, but by a clock that may be passed in, and for a third of the price: a
    stream has one for each of its events.
    """

    __slots__ = ("_cancelling", "_clock", "_error", "_is_cut", "_seconds", "_task", "_timer")

    def __init__(self, clock: Clock, seconds: float | None, error: Exception) -> None:
        self._clock = clock
        self._seconds = seconds
        self._error = error
        self._task: asyncio.Task[Any] | None = None
        self._timer: Timer | None = None
        self._cancelling = 0
        self._is_cut = False

    async def __aenter__(self) -> None:
        if self._seconds is not None:
            task = self._task = asyncio.current_task()
            assert task is not None
            self._cancelling = task.cancelling()
            self._timer = self._clock.call_later(self._seconds, self._ring)

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()
        # Somebody else may have cancelled the task at the same time: then that is what happened.
        if self._is_cut and self._task is not None and self._task.uncancel() <= self._cancelling:
            self._is_cut = False
            if kind is not None and issubclass(kind, asyncio.CancelledError):
                raise self._error from None

    def _ring(self) -> None:
        # A turn later: a clock that is moved by hand may call this from within the body.
        self._timer = asyncio.get_running_loop().call_soon(self._cut)

    def _cut(self) -> None:
        if self._task is not None:
            self._is_cut = True
            self._task.cancel()
