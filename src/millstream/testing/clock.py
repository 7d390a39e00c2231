"""A clock that a test moves by hand."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import heapq
import itertools
import math
from collections.abc import Callable

from millstream.clock import CURRENT_CLOCK, Clock, Timer
from millstream.errors import UserError
from millstream.event_loops import call_on, wake


class ManualClock:
    """A clock that stands still until a test moves it.

    Pass it as `RunConfig(clock=clock)`: everything that the run does goes by it. For a model or
    a tool without a run, `with clock:` makes it the clock of what is called in that block.

    Nothing about it is left to chance: who waits is woken when `advance` passes his moment, in
    the order of the moments, and of two for the same moment the one who came first.

    Args:
        start: what `time()` says at first, in seconds since the epoch. `monotonic()` begins at 0.
    """

    def __init__(self, start: float = 0.0) -> None:
        self._start = start
        self._now = 0.0
        self._waits: list[_Wait] = []
        self._order = itertools.count()
        self._watchers: list[tuple[int, asyncio.Future[None]]] = []
        self._entered: list[contextvars.Token[Clock]] = []

    # What programs ask of a clock.

    def time(self) -> float:
        """Seconds since the epoch."""
        return self._start + self._now

    def monotonic(self) -> float:
        """Seconds by which the clock was moved."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Return when the clock was moved by `seconds`; with 0 or less, after the other tasks had a turn."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        woken = asyncio.get_running_loop().create_future()
        timer = self.call_later(seconds, lambda: wake(woken))
        try:
            await woken
        finally:
            timer.cancel()

    def call_later(self, seconds: float, callback: Callable[[], object]) -> Timer:
        """Call `callback` when the clock was moved by `seconds`."""
        wait = _Wait(self, self._now + max(seconds, 0.0), next(self._order), callback)
        heapq.heappush(self._waits, wait)
        for watcher in [w for w in self._watchers if w[0] <= len(self._waits)]:
            self._watchers.remove(watcher)
            wake(watcher[1])
        return wait

    # What tests do with it.

    @property
    def due(self) -> tuple[float, ...]:
        """In how many seconds those who wait are due, the next one first."""
        return tuple(wait.due - self._now for wait in sorted(self._waits))

    async def waiting(self, count: int = 1) -> None:
        """Return when at least `count` sleepers and timers wait for the clock."""
        if len(self._waits) < count:
            future = asyncio.get_running_loop().create_future()
            self._watchers.append((count, future))
            await future

    def advance(self, seconds: float) -> None:
        """Move the clock, and wake those whose moment has come.

        At once: a task that is woken runs when the caller lets it, and if it sleeps again, it
        does so from the moment at which the clock has arrived.

        Raises:
            UserError: `seconds` is negative, or no number.
        """
        if not (seconds >= 0 and math.isfinite(seconds)):
            raise UserError(f"ManualClock.advance({seconds!r}): a clock goes on by 0 seconds or more.")
        end = self._now + seconds
        while self._waits and self._waits[0].due <= end:
            wait = heapq.heappop(self._waits)
            self._now = max(self._now, wait.due)
            wait.come()
        self._now = end

    async def tick(self) -> float:
        """Wait until somebody waits, then go on to the moment of the next one. Returns the seconds that takes."""
        await self.waiting()
        seconds = self.due[0]
        self.advance(seconds)
        return seconds

    def __enter__(self) -> ManualClock:
        self._entered.append(CURRENT_CLOCK.set(self))
        return self

    def __exit__(self, *_: object) -> None:
        CURRENT_CLOCK.reset(self._entered.pop())

    def __repr__(self) -> str:
        return f"ManualClock(at {self._now:g} s, {len(self._waits)} waiting)"


class _Wait:
    """Somebody who waits for a moment."""

    def __init__(self, clock: ManualClock, due: float, order: int, callback: Callable[[], object]) -> None:
        self.due = due
        self._clock = clock
        self._order = order
        self._callback = callback
        self._loop = asyncio.get_running_loop()
        self._context = contextvars.copy_context()

    def __lt__(self, other: _Wait) -> bool:
        return (self.due, self._order) < (other.due, other._order)

    def come(self) -> None:
        """Do what was to be done at this moment, on the loop of who asked for it."""
        call_on(self._loop, self._context.run, self._callback)

    def cancel(self) -> None:
        """Wait no longer."""
        with contextlib.suppress(ValueError):
            self._clock._waits.remove(self)  # pyright: ignore[reportPrivateUsage]
            heapq.heapify(self._clock._waits)  # pyright: ignore[reportPrivateUsage]


_: type[Clock] = ManualClock
