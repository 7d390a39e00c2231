"""The conversations of an SQLite log: a row for each, and one for each of its items. As those of runs, they tell when they were damaged."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from typing import Any

import msgspec

from millstream.errors import LogDamagedError, UnknownConversationError
from millstream.log.sqlite import rows
from millstream.log.store import ConversationRecord


@dataclass(slots=True)
class Row:
    """One conversation, as its row has it. The names are those of the columns."""

    number: int
    caller: str
    id: str
    created: float
    updated: float
    last: int
    """The number of its last run, which may be forgotten."""
    items: int = 0
    """How many it has."""

    def values(self) -> tuple[Any, ...]:
        """The values of its columns, with their checksum."""
        values = astuple(self)
        return (*values, _crc_of(values))


_SELECT = "SELECT number, caller, id, created, updated, last, items, crc FROM conversations"


def find(connection: sqlite3.Connection, caller: str, conversation: str) -> Row | None:
    """The row of a conversation."""
    values = connection.execute(f"{_SELECT} WHERE caller = ? AND id = ?", (caller, conversation)).fetchone()
    return None if values is None else _row(values)


def known(connection: sqlite3.Connection, caller: str, conversation: str) -> Row:
    """As `find`.

    Raises:
        UnknownConversationError: there is none.
    """
    row = find(connection, caller, conversation)
    if row is None:
        raise UnknownConversationError(conversation)
    return row


def listing(
    connection: sqlite3.Connection, caller: str, limit: int, before: str | None, now: float
) -> list[ConversationRecord]:
    """As `RunStore.conversations`; `now` is the time by which leases end."""
    behind = "" if before is None else " AND last < ?"
    places = () if before is None else (known(connection, caller, before).last,)
    found = connection.execute(
        f"{_SELECT} WHERE caller = ?{behind} ORDER BY last DESC LIMIT ?", (caller, *places, limit)
    ).fetchall()
    return [told(connection, _row(values), now) for values in found]


def told(connection: sqlite3.Connection, row: Row, now: float) -> ConversationRecord:
    """What is known of a conversation; `now` is the time by which leases end."""
    runs = rows.find_all(connection, "WHERE number = ?", (row.last,))
    records = [rows.record_of(connection, run, now, with_documents=False) for run in runs]
    return ConversationRecord(
        id=row.id,
        caller=row.caller,
        created=row.created,
        updated=row.updated,
        run=records[0] if records else None,
    )


def go_on(connection: sqlite3.Connection, run: rows.Row) -> None:
    """Have a conversation go on with that run, which is new; make it where there is none."""
    row = find(connection, run.caller, run.conversation)
    if row is None:
        row = Row(0, run.caller, run.conversation, run.created, run.created, run.number)
        row.number = _next_number(connection)
    row.updated, row.last = run.created, run.number
    _put(connection, row)


def items_of(connection: sqlite3.Connection, row: Row, limit: int | None) -> list[bytes]:
    """The items of a conversation, the latest so many."""
    wanted = row.items if limit is None else min(limit, row.items)
    found = connection.execute(
        "SELECT number, body, crc FROM items WHERE conversation = ? AND number > ? ORDER BY number",
        (row.number, row.items - wanted),
    ).fetchall()
    for number, body, crc in found:
        if not isinstance(body, bytes) or zlib.crc32(body) != crc:
            raise LogDamagedError(
                f"The conversation {row.id!r}: its item {number} does not fit its checksum."
            )
    if len(found) != wanted:
        raise LogDamagedError(f"The conversation {row.id!r}: some of its items are not where they should be.")
    return [body for _, body, _ in found]


def add(connection: sqlite3.Connection, row: Row, items: Sequence[bytes]) -> None:
    """Put items at the end of a conversation."""
    connection.executemany(
        "INSERT INTO items (conversation, number, body, crc) VALUES (?, ?, ?, ?)",
        [(row.number, number, body, zlib.crc32(body)) for number, body in enumerate(items, row.items + 1)],
    )
    row.items += len(items)
    _put(connection, row)


def forget(connection: sqlite3.Connection, caller: str, conversation: str) -> None:
    """Forget a conversation with its items, whatever state they are in."""
    whose = (caller, conversation)
    connection.execute(
        "DELETE FROM items WHERE conversation IN (SELECT number FROM conversations WHERE caller = ? AND id = ?)",
        whose,
    )
    connection.execute("DELETE FROM conversations WHERE caller = ? AND id = ?", whose)


def _next_number(connection: sqlite3.Connection) -> int:
    (number,) = connection.execute(
        "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'conversations'"
    ).fetchone()
    return number


def _put(connection: sqlite3.Connection, row: Row) -> None:
    connection.execute(
        "INSERT INTO conversations (number, caller, id, created, updated, last, items, crc) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (number) DO UPDATE "
        "SET updated = excluded.updated, last = excluded.last, items = excluded.items, crc = excluded.crc",
        row.values(),
    )


def _row(values: tuple[Any, ...]) -> Row:
    if _crc_of(values[:-1]) != values[-1]:
        raise LogDamagedError(
            f"What is known of the conversation {values[2]!r} cannot be read: its checksum does not fit."
        )
    return Row(*values[:-1])


def _crc_of(values: tuple[Any, ...]) -> int:
    return zlib.crc32(msgspec.msgpack.encode(values))
