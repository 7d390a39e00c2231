"""The logs of all runs that a test starts, what `stream_events()` made of them, and whether both keep to the grammar.

The seams are the class that the four doors make a run of, `ActiveRun`, and the one that reads
its events, `EventReader`: a run that a test drives by hand, and what a test writes to a log
without a run, is not looked at.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

import pytest

from millstream.errors import LogGapError
from millstream.events import Entry
from millstream.log import EventLog, MemoryLog
from millstream.log.promise import live
from millstream.result import readers
from millstream.run import start
from millstream.run.active import ActiveRun
from millstream.testing import StreamChecker, StreamReport

T = TypeVar("T")


class RunLogs:
    """The logs in memory that runs have written to since `watch`, and what readers of events were given."""

    def __init__(self) -> None:
        self._logs: list[tuple[EventLog, str]] = []
        self._given: list[Given] = []

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Take note of every run that begins until the end of the test."""
        logs, given = self._logs, self._given

        class Watched(ActiveRun):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                if self.parent is None:  # the log of a run has what is nested in it
                    logs.append((self.trunk.log, self.run_id))

        class WatchedReader(readers.EventReader):
            __slots__ = ("_given",)

            def __init__(self, *args: Any) -> None:
                super().__init__(*args)
                self._given = Given()
                given.append(self._given)

            def _look(self, batch: Any) -> list[Any]:
                ready = super()._look(batch)
                self._given.take(ready, ends=batch.ends(self._source.run_id))
                return ready

        monkeypatch.setattr(start, "ActiveRun", Watched)
        monkeypatch.setattr(readers, "EventReader", WatchedReader)

    def reports(self) -> Iterator[StreamReport]:
        """What is wrong with each log and each reader's events, of those that anything is wrong with.

        A run that has not ended yet, as its event loop goes on, owes no end, nor does a reader that left.
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
        for given in self._given:
            report = given.report()
            if not report.ok:
                yield report


class Given:
    """What a reader of events was given. Is looked at as it comes, and not kept: items may be let go."""

    def __init__(self) -> None:
        self._checker = StreamChecker()
        self._to_the_end = False

    def take(self, ready: list[Any], *, ends: bool) -> None:
        """Take what a reader is about to give, and whether the run ends with it."""
        for payload in ready:
            self._checker.feed(live(payload))  # of a raw event another than the reader makes of it
        self._to_the_end = self._to_the_end or ends

    def report(self) -> StreamReport:
        """What is wrong with it. A run may end before it had anything to give."""
        return self._checker.report(ended=self._to_the_end and self._checker.pieces > 0)


def entries_of(log: MemoryLog, run_id: str) -> tuple[list[Entry], bool]:
    """What a log in memory holds of a run, whatever its class makes of it; and whether the run has ended.

    Nothing of one that had to drop raw events for want of room: what is left of it is no whole stream.
    """
    info = MemoryLog.info_nowait(log, run_id)
    if info is None:
        return [], False
    cursor = MemoryLog.cursor(log, run_id, info.first - 1)
    entries: list[Entry] = []
    while not entries or entries[-1].position < info.last:
        try:
            batch = at_once(cursor.next())
        except LogGapError:
            return [], False
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
