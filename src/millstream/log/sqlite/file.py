"""The file of an SQLite log: its tables, how it is opened, and what its errors mean.

A file says whose it is (`application_id`) and in which version (`user_version`). One that is
something else's is left as it was found.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Generator
from dataclasses import dataclass
from typing import Literal

from millstream.errors import LogDamagedError, LogError, LogTruncatedError, LogUnavailableError

TROUBLE = (sqlite3.Error, UnicodeDecodeError)
"""What is raised where something is wrong with a file. The second, where SQLite quotes damaged text in an error."""

APPLICATION_ID = 0x4D537472
"""`MStr`, where `file` and others look."""
VERSION = 2
"""Of the tables. Another one is refused."""
PATIENCE = 5.0
"""Seconds that a change waits while another process writes to the file."""
WAL_TRIES = 100
"""How often others may be in front who open a new file at the same moment."""

TABLES = """
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL UNIQUE,
    agent TEXT NOT NULL,
    caller TEXT NOT NULL,
    key TEXT,
    created REAL NOT NULL,
    is_asked_for INTEGER NOT NULL,
    conversation TEXT NOT NULL,
    updated REAL NOT NULL,
    status TEXT NOT NULL,
    code TEXT,
    ended REAL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    events INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    full_at INTEGER,
    epoch INTEGER NOT NULL,
    owner TEXT NOT NULL,
    lease REAL NOT NULL,
    until REAL NOT NULL,
    mail INTEGER NOT NULL,
    checkpoint_at INTEGER NOT NULL,
    crc INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX runs_by_key ON runs (caller, key) WHERE key IS NOT NULL;
CREATE INDEX runs_by_caller ON runs (caller, number);
CREATE INDEX runs_by_conversation ON runs (caller, conversation, number) WHERE conversation <> '';
CREATE INDEX runs_open ON runs (number) WHERE status IN ('queued', 'running');
CREATE INDEX runs_by_end ON runs (ended) WHERE ended IS NOT NULL;
CREATE TABLE batches (
    run INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    nested TEXT,
    data BLOB NOT NULL,
    PRIMARY KEY (run, first)
) STRICT, WITHOUT ROWID;
CREATE TABLE documents (
    run INTEGER NOT NULL,
    kind TEXT NOT NULL,
    body BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (run, kind)
) STRICT, WITHOUT ROWID;
CREATE TABLE mail (
    run INTEGER NOT NULL,
    number INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT,
    body BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (run, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE conversations (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    caller TEXT NOT NULL,
    id TEXT NOT NULL,
    created REAL NOT NULL,
    updated REAL NOT NULL,
    last INTEGER NOT NULL,
    items INTEGER NOT NULL,
    crc INTEGER NOT NULL,
    UNIQUE (caller, id)
) STRICT;
CREATE INDEX conversations_by_run ON conversations (caller, last);
CREATE TABLE items (
    conversation INTEGER NOT NULL,
    number INTEGER NOT NULL,
    body BLOB NOT NULL,
    crc INTEGER NOT NULL,
    PRIMARY KEY (conversation, number)
) STRICT, WITHOUT ROWID;
"""
# `batches.kind` and `documents.kind` are those of `changes.py` and `rows.py`.


class File:
    """A file with runs, which may not be there yet.

    Args:
        path: where, from the folder that the program runs in when it is opened first.
        synchronous: as SQLite calls it.
    """

    def __init__(self, path: str, synchronous: Literal["normal", "full"]) -> None:
        self.path = path
        self._synchronous = synchronous

    def open(self) -> Opened:
        """A connection to it, with the tables made where there is nothing.

        Raises:
            LogDamagedError: it is no database, or damaged, or of something else, or of a later version.
            LogUnavailableError: it cannot be opened.
        """
        self.path = os.path.abspath(self.path)  # whatever becomes the folder that the program runs in
        try:
            connection = sqlite3.connect(
                self.path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
        except TROUBLE as error:
            raise self.meant(error) from error
        try:
            self._prepare(connection)
            return Opened(self, connection, self._identity())
        except BaseException as error:
            with contextlib.suppress(*TROUBLE):
                connection.close()
            if isinstance(error, TROUBLE):
                raise self.meant(error) from error
            raise

    def _prepare(self, connection: sqlite3.Connection) -> None:
        with transaction(connection, "DEFERRED"):  # as of one moment: others may be making it
            is_new = self._is_new(connection)
        if is_new:
            _use_wal(connection)  # first: it cannot be changed in a transaction
            with transaction(connection):
                if self._is_new(connection):
                    self._make_tables(connection)
        else:
            _use_wal(connection)
            # The small table by which all else is found, and what finds it: what was lost there would
            # look as if it had never been.
            told = connection.execute("PRAGMA integrity_check(runs)").fetchone()
            if told != ("ok",):
                raise LogDamagedError(f"The log {self.path} is damaged: {told[0]}.")
        connection.execute(f"PRAGMA synchronous = {self._synchronous.upper()}")
        connection.execute(
            f"PRAGMA fullfsync = {int(self._synchronous == 'full')}"
        )  # else macOS stops half way

    def _is_new(self, connection: sqlite3.Connection) -> bool:
        """Whether there is nothing in it yet.

        Raises:
            LogDamagedError: there is something else.
        """
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application == APPLICATION_ID:
            if version > VERSION:
                raise LogDamagedError(
                    f"The log {self.path} has version {version} of its tables, and this version of Millstream "
                    f"reads version {VERSION}: use one of that age or newer."
                )
            if version < VERSION:
                raise LogDamagedError(
                    f"The log {self.path} has version {version} of its tables, of before the first release, and this "
                    f"version of Millstream reads version {VERSION}: delete it, or give another path."
                )
            return False
        (count,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if application or version or count:
            raise LogDamagedError(
                f"{self.path} is the database of something else, and not a log of Millstream: give another path."
            )
        return True

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        for statement in TABLES.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {VERSION}")

    def _identity(self) -> tuple[int, int]:
        try:
            found = os.stat(self.path)
        except OSError:
            return (0, 0)
        return found.st_dev, found.st_ino

    def must_be(self, identity: tuple[int, int]) -> None:
        """See whether the path still leads to the file of that identity. SQLite would go on with one that nobody finds.

        Raises:
            LogTruncatedError: it does not.
        """
        if self._identity() != identity:
            raise LogTruncatedError(
                f"The log {self.path} was removed or replaced while it was in use: what it held is not there any more."
            )

    def meant(self, error: Exception) -> LogError:
        """What one of `TROUBLE` means to whoever uses the log."""
        # The names of extended codes begin with that of their kind.
        name = getattr(error, "sqlite_errorname", "")
        for kind, remedy in _UNAVAILABLE.items():
            if name.startswith(kind):
                return LogUnavailableError(f"The log {self.path} cannot be used: {error}. {remedy}")
        return LogDamagedError(
            f"The log {self.path} cannot be read: {error}. It is damaged, or something else."
        )


_UNAVAILABLE = {
    "SQLITE_BUSY": f"Another process has kept it locked for {PATIENCE:g} s.",
    "SQLITE_LOCKED": "Another connection has kept it locked.",
    "SQLITE_PROTOCOL": "Too many others use it at once.",
    "SQLITE_FULL": "Its disk is full, or it may not grow.",
    "SQLITE_READONLY": "May this process write to the file and to its folder?",
    "SQLITE_CANTOPEN": "Does its folder exist, and may this process write there?",
    "SQLITE_PERM": "May this process use it?",
    "SQLITE_AUTH": "May this process use it?",
    "SQLITE_IOERR": "Its disk does not do as it should.",
    "SQLITE_NOLFS": "Its disk takes no larger files.",
    "SQLITE_NOMEM": "There is no memory left.",
    "SQLITE_INTERRUPT": "It was interrupted.",
}


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection to the file."""

    file: File
    connection: sqlite3.Connection
    identity: tuple[int, int]

    def close(self) -> None:
        """Close it; whatever is wrong with it."""
        with contextlib.suppress(*TROUBLE):
            self.connection.close()


def _use_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait here for others who do the same, as it does for whoever writes.
    for _ in range(WAL_TRIES):
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
        with transaction(connection):
            pass
    connection.execute("PRAGMA journal_mode = WAL").fetchall()


@contextlib.contextmanager
def transaction(
    connection: sqlite3.Connection, kind: Literal["IMMEDIATE", "DEFERRED"] = "IMMEDIATE"
) -> Generator[None]:
    """All that the body does, or nothing of it."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some failures, a full disk among them, have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
