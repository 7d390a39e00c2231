"""The log in an SQLite file."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from millstream.log import RunStore
from millstream.log.sqlite import SQLiteLog
from millstream.testing import ManualClock, check_store

Made = Callable[..., SQLiteLog]


@pytest.fixture
def make(tmp_path: Path) -> Made:
    """Makes logs, each in a file of its own."""
    numbers = itertools.count()
    return lambda **options: SQLiteLog(tmp_path / f"{next(numbers)}.db", **options)


async def test_a_file_keeps_the_contract_of_stores(make: Made) -> None:
    clock = ManualClock(1_000_000.0)

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    await check_store(
        lambda: make(clock=clock),
        pass_time=pass_time,
        make_capped=lambda cap: make(max_events=cap, clock=clock),
    )


async def test_a_file_that_is_to_survive_the_loss_of_power_keeps_it_too(make: Made) -> None:
    await check_store(
        lambda: make(synchronous="full"), make_capped=lambda cap: make(max_events=cap, synchronous="full")
    )
