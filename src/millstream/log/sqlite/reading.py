"""The thread that reads an SQLite log, and watches it for what other processes write."""

from __future__ import annotations

import sqlite3
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from millstream.clock import Clock
from millstream.errors import LogDamagedError, LogError, LogTruncatedError, UnknownRunError, UserError
from millstream.log.promise import LogInfo
from millstream.log.sqlite import conversations, rows
from millstream.log.sqlite.file import TROUBLE, File, Opened, transaction
from millstream.log.sqlite.rows import Row
from millstream.log.store import Command, ConversationRecord, RunRecord, RunStatus
from millstream.log.tails import Chunk, Mail, Seen, Tails
from millstream.log.worker import Job, Wakes

FAST = 0.005
"""Seconds between two looks at a file whose runs others write and somebody here follows."""
SLOW = 0.05
"""Seconds between two looks where nothing has happened for `PATIENT` looks, or nobody follows."""
PATIENT = 100


@dataclass(slots=True)
class Look:
    """What is read in one transaction."""

    connection: sqlite3.Connection
    clock: Clock
    _chunks: dict[tuple[str, int], Chunk] = field(default_factory=dict[tuple[str, int], Chunk])

    def chunk(self, run_id: str, after: int) -> Chunk:
        """What there is of a run beyond a position. Those who ask for the same get the same."""
        known = self._chunks.get((run_id, after))
        if known is None:
            row = rows.find(self.connection, run_id)
            known = self._chunks[run_id, after] = rows.chunk_behind(self.connection, row, after)
        return known

    def info(self, run_id: str) -> LogInfo:
        """As `EventLog.info`."""
        row = self._known(run_id)
        if not row.last:
            raise UnknownRunError(run_id)
        return LogInfo(row.first, row.last, row.ended is not None)

    def record(self, run_id: str) -> RunRecord:
        """As `RunStore.record`."""
        return rows.record_of(
            self.connection, self._known(run_id), self.clock.monotonic(), with_documents=True
        )

    def runs(
        self,
        caller: str | None,
        statuses: Collection[RunStatus],
        conversation: str | None,
        limit: int,
        before: str | None,
    ) -> list[RunRecord]:
        """As `RunStore.runs`."""
        conditions, values = ["true"], list[Any]()
        if before is not None:
            conditions.append("number < ?")
            values.append(self._known(before).number)
        if caller is not None:
            conditions.append("caller = ?")
            values.append(caller)
        if statuses:
            conditions.append(f"status IN ({', '.join('?' * len(statuses))})")
            values += statuses
        if conversation is not None:
            conditions.append("conversation = ? AND conversation <> ''")
            values.append(conversation)
        rest = f"WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT ?"
        found = rows.find_all(self.connection, rest, (*values, limit))
        now = self.clock.monotonic()
        return [rows.record_of(self.connection, row, now, with_documents=False) for row in found]

    def conversation(self, caller: str, conversation: str) -> ConversationRecord:
        """As `RunStore.conversation`."""
        row = conversations.known(self.connection, caller, conversation)
        return conversations.told(self.connection, row, self.clock.monotonic())

    def conversations(self, caller: str, limit: int, before: str | None) -> list[ConversationRecord]:
        """As `RunStore.conversations`."""
        return conversations.listing(self.connection, caller, limit, before, self.clock.monotonic())

    def items(self, caller: str, conversation: str, limit: int | None) -> list[bytes]:
        """As `RunStore.items`."""
        row = conversations.known(self.connection, caller, conversation)
        return conversations.items_of(self.connection, row, limit)

    def orphans(self, limit: int) -> list[str]:
        """As `RunStore.orphans`."""
        now = self.clock.monotonic()
        found: list[str] = []
        for (run_id,) in self.connection.execute(
            "SELECT run_id FROM runs WHERE status IN ('queued', 'running') ORDER BY number"
        ):
            if len(found) >= limit:
                break
            if self._is_nobodys(run_id, now):
                found.append(run_id)
        return found

    def _is_nobodys(self, run_id: str, now: float) -> bool:
        try:
            return not self._known(run_id).is_owned(now)
        except LogDamagedError:  # whoever claims it is told; the others are to be had all the same
            return True

    def mail(self, run_id: str, after: int) -> list[Command]:
        """As `RunStore.mail`."""
        row = rows.find(self.connection, run_id)
        return [] if row is None else rows.mail_of(self.connection, row, after)

    def all_mail(self, run_id: str, after: int) -> Mail:
        """As `mail`, and whether more may come."""
        row = rows.find(self.connection, run_id)
        if row is None:
            return Mail([], is_last=True)
        return Mail(rows.mail_of(self.connection, row, after), row.ended is not None)

    def _known(self, run_id: str) -> Row:
        row = rows.find(self.connection, run_id)
        if row is None:
            raise UnknownRunError(run_id)
        return row


Work: TypeAlias = Callable[[Look], Any]


class Reading:
    """Reads, on a worker's thread.

    Args:
        file: where.
        tails: are told of what other processes have written, as long as anybody has them.
        clock: by which leases end.
    """

    def __init__(self, file: File, tails: Tails, clock: Clock) -> None:
        self._file = file
        # Weakly: a log that nobody has any more is to be collected, though its thread lives.
        self._tails = weakref.ref(tails)
        self._clock = clock
        self._opened: Opened | None = None
        self._version = -1
        """Changes when another connection has changed the file."""
        self._seen: Collection[str] = ()
        """The runs that were watched when it was looked at last."""
        self._quiet = 0
        """How often nothing was found since something was."""

    def handle(self, jobs: Sequence[Job[Work]], wakes: Wakes) -> None:
        """Read what `jobs` ask for: all of it as it stood at one moment."""
        try:
            opened = self._open()
            with transaction(opened.connection, "DEFERRED"):
                look = Look(opened.connection, self._clock)
                for job in jobs:
                    self._do(job, look)
        except TROUBLE as error:
            self.close()
            meant = self._file.meant(error)
            for job in jobs:
                job.error = type(meant)(meant.message)
        except LogError as error:
            if isinstance(error, LogTruncatedError):  # told: from here on it is the file that is there now
                self.close()
            for job in jobs:
                job.error = type(error)(error.message)

    def _do(self, job: Job[Work], look: Look) -> None:
        try:
            job.result = job.work(look)
        except LogError as error:
            job.error = error
        except (UnicodeEncodeError, OverflowError) as error:
            job.error = UserError(f"That cannot be in an SQLite log: {error}.")
        except TROUBLE as error:
            job.error = self._file.meant(error)
            if not isinstance(job.error, LogDamagedError):
                raise  # which concerns all of them

    def beat(self, wakes: Wakes) -> float | None:
        """Look for what other processes have written to the runs that somebody waits for."""
        tails = self._tails()
        if tails is None:
            return None
        # First: who begins to wait behind this look, as the only one, calls for another.
        watched = tails.watched()
        if not tails.are_waited_for:
            return None
        try:
            is_news = self._look(tails, watched, wakes)
        except (*TROUBLE, LogError) as error:  # who waits is told why, as he asks
            if isinstance(error, TROUBLE):
                self.close()
            for run_id in watched:
                tails.doubt(run_id, wakes)
            return SLOW
        self._quiet = 0 if is_news else self._quiet + 1
        is_followed = any(seen.is_followed for seen in watched.values())
        return FAST if is_followed and self._quiet < PATIENT else SLOW

    def _look(self, tails: Tails, watched: Mapping[str, Seen], wakes: Wakes) -> bool:
        connection = self._open().connection
        (version,) = connection.execute("PRAGMA data_version").fetchone()
        # Who began to wait since the last look may have missed what it saw.
        if version == self._version and watched.keys() <= set(self._seen):
            self._seen = watched.keys()
            return False
        self._version, self._seen = version, watched.keys()
        is_news = False
        with transaction(connection, "DEFERRED"):
            look = Look(connection, self._clock)
            for run_id, seen in watched.items():
                is_news |= self._look_at(look, run_id, seen, tails, wakes)
        return is_news

    def _look_at(self, look: Look, run_id: str, seen: Seen, tails: Tails, wakes: Wakes) -> bool:
        try:
            row = rows.find(look.connection, run_id)
            if row is None:
                if seen.is_there:
                    tails.deleted(run_id, wakes)
                return seen.is_there
            if not seen.is_followed:  # nothing but its mail is waited for
                tails.told(run_id, row.mail, wakes)
                if row.ended is not None:
                    tails.doubt(run_id, wakes)
                return False
            if row.reach == seen.reach:
                return False
            chunk = rows.chunk_behind(look.connection, row, seen.last)
        except LogDamagedError:  # which concerns this run alone; who waits is told, as he asks
            tails.doubt(run_id, wakes)
            return False
        if chunk.batches and chunk.batches[-1].last < chunk.reach.last:
            self._version = -1  # there is more: look again
        tails.found(run_id, chunk, wakes)
        return True

    def _open(self) -> Opened:
        if self._opened is None:
            self._opened = self._file.open()
            self._opened.connection.execute("PRAGMA query_only = ON")
            self._version = -1
            return self._opened
        self._file.must_be(self._opened.identity)
        return self._opened

    def close(self) -> None:
        """Close the file."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
