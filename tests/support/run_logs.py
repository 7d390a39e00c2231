"""The logs of all runs that a test starts, and whether they keep to the grammar.

The seam is the class that the four doors make a run of, `ActiveRun`: a run that a test drives
by hand, and what a test writes to a log without a run, is not looked at.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from millstream import runner
from millstream.events import Entry
from millstream.log import EventLog, MemoryLog
from millstream.run.active import ActiveRun
from millstream.testing import StreamChecker, StreamReport

T = TypeVar("T")


class RunLogs:
    """The logs in memory that runs have written to since `watch`."""

    def __init__(self) -> None:
        self._logs: list[tuple[EventLog, str]] = []

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take note of every run that begins until the end of the test."""
        logs = self._logs

        class Watched(ActiveRun):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                logs.append((self.log, self.run_id))

        monkeypatch.setattr(runner, "ActiveRun", Watched)

    def reports(self) -> Iterator[StreamReport]:
        """What is wrong with each log, of those that anything is wrong with.

        A run that has not ended yet, as its event loop goes on, owes no end.
        """
        for log, run_id in self._logs:
            if not isinstance(log, MemoryLog):
                continue
            entries, sealed = entries_of(log, run_id)
            checker = StreamChecker()
            for entry in entries:
                checker.feed(entry)
            report = checker.report(ended=sealed)
            if not report.ok:
                yield report


def entries_of(log: MemoryLog, run_id: str) -> tuple[list[Entry], bool]:
    """What a log in memory holds of a run, whatever its class makes of it; and whether the run has ended."""
    if run_id not in log._runs:
        return [], False
    info = at_once(MemoryLog.info(log, run_id))
    cursor = MemoryLog.cursor(log, run_id, info.first - 1)
    entries: list[Entry] = []
    while not entries or entries[-1].position < info.last:
        batch = at_once(cursor.next())
        assert batch is not None
        entries += batch.entries(info.first - 1)
    return entries, info.sealed


def at_once(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits for something")
