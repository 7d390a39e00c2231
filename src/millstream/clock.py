"""The clock: the one place where time is read, so that a test can pass another one in."""

from __future__ import annotations

import asyncio
import time as _time
from typing import Protocol


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


class SystemClock:
    """The clock of the machine."""

    def time(self) -> float:
        """Seconds since the epoch."""
        return _time.time()

    def monotonic(self) -> float:
        """Seconds since some moment."""
        return _time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""
        await asyncio.sleep(seconds)


SYSTEM_CLOCK = SystemClock()
