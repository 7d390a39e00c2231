"""The log in an SQLite file."""

import itertools
from pathlib import Path

from millstream.log.sqlite import SQLiteLog
from millstream.testing.logs import check_log


async def test_the_sqlite_log_keeps_the_contract(tmp_path: Path) -> None:
    numbers = itertools.count()
    await check_log(lambda: SQLiteLog(tmp_path / f"{next(numbers)}.db"))
