"""The thread that writes an SQLite log: all that waits goes into one transaction, and is shown behind it."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Sequence

from millstream.clock import SYSTEM_CLOCK, Clock
from millstream.errors import LogDamagedError, LogError, LogTruncatedError, UserError
from millstream.log.batches import Caps
from millstream.log.sqlite.changes import Change, Work
from millstream.log.sqlite.file import TROUBLE, File, Opened, transaction
from millstream.log.tails import Tails
from millstream.log.worker import Job, Wakes

logger = logging.getLogger("millstream")

SWEEP_EVERY = 300.0
"""Seconds of use after which it is looked again for runs that were kept long enough."""


class Writing:
    """Makes changes, on a worker's thread.

    Args:
        file: where.
        tails: are told of what was written, as long as anybody has them.
        caps: of one run.
        clock: by which leases end, and the ages of runs are told.
        retention: how many seconds a run is kept after its end; None is for ever.
    """

    def __init__(self, file: File, tails: Tails, caps: Caps, clock: Clock, retention: float | None) -> None:
        self._file = file
        # Weakly: a log that nobody has any more is to be collected, though its thread lives.
        self._tails = weakref.ref(tails)
        self._caps = caps
        self._clock = clock
        self._retention = retention
        self._swept_at = float("-inf")
        self._opened: Opened | None = None

    def handle(self, jobs: Sequence[Job[Work]], wakes: Wakes) -> None:
        """Make the changes of `jobs` in one transaction."""
        try:
            self._change(jobs, wakes)
        except LogDamagedError as error:
            # What is damaged concerns one of them, perhaps: each has a transaction of its own then.
            for job in jobs if len(jobs) > 1 else ():
                self.handle([job], wakes)
            if len(jobs) == 1:
                jobs[0].error = error
        except LogError as error:
            for job in jobs:
                job.error = type(error)(error.message)

    def _change(self, jobs: Sequence[Job[Work]], wakes: Wakes) -> None:
        opened = self._open()
        change = Change(opened.connection, self._caps, self._clock)
        try:
            with transaction(opened.connection):
                for job in jobs:
                    _do(job, change)
                change.flush()
        except TROUBLE as error:
            self.close()
            raise self._file.meant(error) from error
        tails = self._tails()
        if tails is not None:
            for tell in change.then:
                tell(tails, wakes)

    def _open(self) -> Opened:
        if self._opened is not None:
            try:
                self._file.must_be(self._opened.identity)
            except LogTruncatedError:
                self.close()
                raise
            return self._opened
        self._opened = self._file.open()
        return self._opened

    def beat(self, wakes: Wakes) -> float | None:
        """Forget, now and then, what was kept long enough."""
        now = SYSTEM_CLOCK.monotonic()
        if self._retention is None or self._opened is None or now - self._swept_at < SWEEP_EVERY:
            return None
        retention = self._retention
        job = Job[Work](lambda change: change.sweep(retention))
        self.handle([job], wakes)
        if job.error is not None:
            logger.warning("Runs that were kept long enough could not be forgotten: %s", job.error)
        if job.error is not None or not job.result:
            self._swept_at = now
            return None
        return 0.0  # there may be more; those who wait come first

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


def _do(job: Job[Work], change: Change) -> None:
    job.result = job.error = None
    try:
        job.result = job.work(change)
    except LogError as error:  # a refusal, which leaves nothing behind
        job.error = error
    except (UnicodeEncodeError, OverflowError) as error:
        job.error = UserError(f"That cannot be kept in an SQLite log: {error}.")
