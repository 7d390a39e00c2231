"""The clock: the one place where time is read and waited for, so that a test can pass another one in.

A run sets the clock of its `RunConfig` in its own task. What works for the run (models, tools,
runs that its tools start) finds it as `current_clock()`, as tasks and threads that are started
there inherit it. Nobody else reads the time: `tests/test_clock.py` looks.
"""

from __future__ import annotations

import asyncio
import contextlib
import time as _time
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from typing import Protocol


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


@contextlib.asynccontextmanager
async def time_limit(clock: Clock, seconds: float | None, error: Exception) -> AsyncGenerator[None]:
    """Cancel the body after `seconds` by `clock`, and raise `error` in its place; None is no limit."""
    if seconds is None:
        yield
        return
    # asyncio does the cancelling, which is the hard part; only when is ours to say.
    limit = asyncio.timeout(None)
    try:
        async with limit:
            timer = clock.call_later(seconds, lambda: limit.reschedule(0))
            try:
                yield
            finally:
                timer.cancel()
    except TimeoutError:
        if limit.expired():
            raise error from None
        raise  # the body's own
