"""The engines that keep runs, as tests see them: logs are opened on one, dropped, and opened again."""

import asyncio
import itertools
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from millstream.log import MemoryLog, RunStore
from millstream.testing import ManualClock


class Engine(ABC):
    """An engine of one kind. What is opened on one place is one store, as often as it is opened."""

    survives_its_logs = True
    """Whether what was written is there when the log was dropped, and opened again."""

    def __init__(self) -> None:
        self._places = itertools.count()

    def new_place(self) -> str:
        """A place where no runs are."""
        return str(next(self._places))

    @abstractmethod
    def open(self, place: str, **options: Any) -> RunStore:
        """A log on `place`."""

    @abstractmethod
    async def pass_time(self, seconds: float) -> None:
        """Let so many seconds pass by the engine's clock."""


class Memory(Engine):
    """Nothing but the log itself: opened again, it is the same one."""

    survives_its_logs = False

    def __init__(self) -> None:
        super().__init__()
        self._clock = ManualClock(start=1_000_000)
        self._logs: dict[str, MemoryLog] = {}

    def open(self, place: str, **options: Any) -> RunStore:
        if place not in self._logs:
            self._logs[place] = MemoryLog(clock=self._clock, **options)
        return self._logs[place]

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class SQLite(Engine):
    """Files in a folder."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder
        self._clock = ManualClock(start=1_000_000)

    def open(self, place: str, **options: Any) -> RunStore:
        from millstream.log.sqlite import SQLiteLog

        return SQLiteLog(self._folder / f"{place}.db", clock=self._clock, **options)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class Redis(Engine):
    """A server, whose clock is its own."""

    _prefixes = itertools.count()

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def new_place(self) -> str:
        return f"place{next(Redis._prefixes)}"

    def open(self, place: str, **options: Any) -> RunStore:
        from millstream.log.redis import RedisLog

        return RedisLog(self._url, prefix=place, **options)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
