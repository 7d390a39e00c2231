"""A session in SQLite: a file, or the memory of the process.

Rules of this file:

1. No call of SQLite is made where an event loop runs, but on a thread.
2. An object has one connection, which one thread uses at a time. Several objects and several
   processes meet in the file alone, and SQLite keeps them apart: who writes takes the write
   lock before he looks (`BEGIN IMMEDIATE`), and waits for it.
3. What changes the conversation is one transaction. Who is cancelled meanwhile waits for its
   outcome: a call that has returned or raised does nothing any more.

The tables are those of the OpenAI Agents SDK, so that either reads what the other has written.
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
import weakref
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from millstream.errors import SessionClosedError, SessionError, UserError
from millstream.sessions import rows
from millstream.sessions.outcome import outcome
from millstream.sessions.promise import SessionABC, SessionSettings, check_session_id, limit_of, settings_of
from millstream.tool.threads import thread_future

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem

T = TypeVar("T")

MEMORY = ":memory:"

PATIENCE = 30.0
"""Seconds that a call waits while somebody else writes to the file."""


class SQLiteSession(SessionABC):
    """A conversation in an SQLite database.

    May be used from any thread and event loop; a file, from any number of objects and
    processes at once. What is added to a file survives the end of the process and the loss of
    power. An object has a database in memory to itself, which is gone with it.

    Args:
        session_id: names the conversation.
        db_path: the file, which is made where there is none; its folder is not.
        sessions_table: where the ids of conversations are kept.
        messages_table: where their items are kept.
        session_settings: how it is read, where a call or a run does not say; also as a dict.

    Raises:
        UserError: an argument can be none. Whether the file can be opened shows in the first call.

    Every method may raise `SessionError`: the file cannot be opened, read or written, or was
    locked for 30 seconds. `SessionClosedError`: `close` was called.
    """

    def __init__(
        self,
        session_id: str,
        db_path: str | Path = MEMORY,
        sessions_table: str = "agent_sessions",
        messages_table: str = "agent_messages",
        session_settings: SessionSettings | dict[str, Any] | None = None,
    ) -> None:
        self.session_id = check_session_id(session_id)
        self.session_settings: SessionSettings | None = settings_of(session_settings)
        if not isinstance(db_path, str | os.PathLike):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"db_path={db_path!r}: the path of a file, or {MEMORY!r}.")
        self.db_path = db_path
        self.sessions_table = _table("sessions_table", sessions_table)
        self.messages_table = _table("messages_table", messages_table)
        if sessions_table.lower() == messages_table.lower():
            raise UserError(f"sessions_table and messages_table are two tables, not both {messages_table!r}.")
        self._database: _Database | None = _Database(db_path, sessions_table, messages_table)

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in order; with a limit the latest so many. Rows that are no items are left out, and logged."""
        most = limit_of(limit, self.session_settings)
        return await self._call(lambda connection: self._read(connection, most))

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add `items`: all of them, or none where this raises, and side by side.

        Raises:
            InputItemError: one is no dict, or not to be written as JSON.
        """
        texts = rows.written(items)
        if texts:
            await self._change(lambda connection: self._insert(connection, texts))

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the latest item out; None where there is none. No two callers get the same one."""
        return await self._change(self._pop)

    async def clear_session(self) -> None:
        """Forget the conversation."""
        await self._change(self._clear)

    def close(self) -> None:
        """Let go of the database. Calls under way end as they would have; later ones raise. Safe to call twice.

        Where no event loop runs, the file is closed when this returns; else soon after.
        """
        database, self._database = self._database, None
        if database is not None:
            try:
                thread_future(database.close)  # to close a file is to write to it
            except RuntimeError:
                database.close()

    # --- what is done on a thread ------------------------------------------------------------

    def _read(self, connection: sqlite3.Connection, limit: int | None) -> list[TResponseInputItem]:
        # Backwards, so that a limit counts items and not rows.
        found = connection.execute(
            f'SELECT message_data FROM "{self.messages_table}" WHERE session_id = ? ORDER BY id DESC',
            (self.session_id,),
        )
        unreadable = 0

        def readable() -> Iterator[TResponseInputItem]:
            nonlocal unreadable
            for (row,) in found:
                item = rows.read(row)
                unreadable += item is None
                if item is not None:
                    yield item

        items = list(islice(readable(), limit))
        found.close()
        rows.log_unreadable(self.session_id, unreadable, self._place)
        return items[::-1]

    def _insert(self, connection: sqlite3.Connection, texts: list[str]) -> None:
        connection.execute(
            f'INSERT OR IGNORE INTO "{self.sessions_table}" (session_id) VALUES (?)', (self.session_id,)
        )
        connection.executemany(
            f'INSERT INTO "{self.messages_table}" (session_id, message_data) VALUES (?, ?)',
            [(self.session_id, text) for text in texts],
        )
        connection.execute(
            f'UPDATE "{self.sessions_table}" SET updated_at = CURRENT_TIMESTAMP WHERE session_id = ?',
            (self.session_id,),
        )

    def _pop(self, connection: sqlite3.Connection) -> TResponseInputItem | None:
        unreadable = 0
        item = None
        while item is None:
            row = connection.execute(
                f'SELECT id, message_data FROM "{self.messages_table}" '
                "WHERE session_id = ? ORDER BY id DESC LIMIT 1",
                (self.session_id,),
            ).fetchone()
            if row is None:
                break
            connection.execute(f'DELETE FROM "{self.messages_table}" WHERE id = ?', row[:1])
            item = rows.read(row[1])
            unreadable += item is None
        rows.log_unreadable(self.session_id, unreadable, self._place)
        return item

    def _clear(self, connection: sqlite3.Connection) -> None:
        for table in (self.messages_table, self.sessions_table):
            connection.execute(f'DELETE FROM "{table}" WHERE session_id = ?', (self.session_id,))

    # --- on its way there --------------------------------------------------------------------

    @property
    def _place(self) -> str:
        return "memory" if self.db_path == MEMORY else str(self.db_path)

    def _open(self) -> _Database:
        if self._database is None:
            raise SessionClosedError(
                f"The session {self.session_id!r} was closed: make another SQLiteSession of that id."
            )
        return self._database

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        database = self._open()
        return await self._named(thread_future(lambda: database.read(work)))

    async def _change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        database = self._open()
        return await self._named(outcome(thread_future(lambda: database.change(work))))

    async def _named(self, call: Any) -> Any:
        try:
            return await call
        except sqlite3.Error as error:
            raise SessionError(
                f"The session {self.session_id!r} in {self._place}: {error}. {_remedy(error)}",
                session_id=self.session_id,
            ) from error


class _Database:
    """One connection to a database with the two tables, made when it is first needed.

    It closes with the last one who holds it, at the latest.
    """

    def __init__(self, path: str | Path, sessions_table: str, messages_table: str) -> None:
        self._path = path
        self._sessions_table = sessions_table
        self._messages_table = messages_table
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._lost = False
        _databases.add(self)

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` makes of the connection."""
        with self._lock:
            return work(self._connected())

    def change(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """What `work` makes of the connection in a transaction; nothing is changed where it raises."""
        with self._lock:
            return _transaction(self._connected(), work)

    def close(self) -> None:
        """Close the connection. A call that was on its way here makes another for itself."""
        with self._lock:
            connection, self._connection = self._connection, None
            if connection is not None:
                connection.close()

    def _connected(self) -> sqlite3.Connection:
        if self._lost:
            raise sqlite3.OperationalError("it was kept in the memory of the parent process")
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=PATIENCE, isolation_level=None, check_same_thread=False
            )
            try:
                self._prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        # Readers and the writer do not wait for each other then. Everything works without: where the
        # file may not be written, or others are just now at it.
        with contextlib.suppress(sqlite3.OperationalError):
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        known = connection.execute(
            "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN (?, ?)",
            (self._sessions_table, self._messages_table),
        ).fetchone()
        if known != (2,):
            _transaction(connection, self._make_tables)

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        sessions, messages = self._sessions_table, self._messages_table
        connection.execute(
            f'CREATE TABLE IF NOT EXISTS "{sessions}" (session_id TEXT PRIMARY KEY, '
            "created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP)"
        )
        connection.execute(
            f'CREATE TABLE IF NOT EXISTS "{messages}" (id INTEGER PRIMARY KEY AUTOINCREMENT, '
            "session_id TEXT NOT NULL, message_data TEXT NOT NULL, "
            "created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, "
            f'FOREIGN KEY (session_id) REFERENCES "{sessions}" (session_id) ON DELETE CASCADE)'
        )
        connection.execute(
            f'CREATE INDEX IF NOT EXISTS "idx_{messages}_session_id" ON "{messages}" (session_id, id)'
        )

    def forked(self) -> None:
        """A fork has put this into a child process, which may not use what the parent has open."""
        self._lock = threading.Lock()
        if self._connection is not None:
            _inherited.append(self._connection)  # for ever: to close it would touch the parent's file
            self._connection = None
            self._lost = str(self._path) == MEMORY

    def __del__(self) -> None:
        connection = self.__dict__.get("_connection")
        if connection is not None:
            connection.close()


_databases: weakref.WeakSet[_Database] = weakref.WeakSet()
_inherited: list[sqlite3.Connection] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: [database.forked() for database in list(_databases)])


def _transaction(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    connection.execute("BEGIN IMMEDIATE")
    try:
        result = work(connection)
        connection.execute("COMMIT")
    except BaseException:
        # Some failures, a full disk among them, have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return result


def _table(name: str, value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise UserError(f"{name}={value!r}: a table is named by letters, digits and underscores.")
    if value.lower().startswith("sqlite_"):
        raise UserError(f"{name}={value!r}: SQLite keeps names that begin with sqlite_ to itself.")
    return value


def _remedy(error: sqlite3.Error) -> str:
    told = str(error)
    if "locked" in told:
        return f"Somebody else has kept it locked for {PATIENCE:g} s."
    if "unable to open" in told:
        return "Does its folder exist, and may this process write there?"
    if "not a database" in told or "malformed" in told:
        return "The file is damaged, or something else."
    if "parent process" in told:
        return "Give db_path a file, which processes can share."
    return "Nothing of this call was stored."
