"""The rows of an SQLite log, and what is read of them. Every one of them tells when it was damaged.

SQLite finds a page whose structure is broken, and not one whose contents are: so a row has a
checksum of its own, as the form of a batch has. What does not fit is a `LogDamagedError`.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal, TypeAlias, cast

import msgspec

from millstream import codec
from millstream.errors import LogDamagedError
from millstream.log.form import unpack
from millstream.log.promise import Batch
from millstream.log.store import Command, RunRecord, RunStatus
from millstream.log.tails import Chunk, Reach

CHUNK_BYTES = 256 * 1024
"""Bytes of batches that are read at once, and at least one batch."""
CHUNK_BATCHES = 256
"""Batches that are read at once."""

OTHER, RAW_ONLY, MODEL_COMPLETED = 0, 1, 2
"""Kinds of batches: nothing but raw model events, or the end of a model call among others, or neither."""

ROUNDED = 0.001
"""Seconds by which a lease may seem longer than it is: a time and a lease are added, and rounded."""

DocumentKind: TypeAlias = Literal["options", "request", "checkpoint"]


@dataclass(slots=True)
class Row:
    """One run, as its row has it. The names are those of the columns."""

    number: int
    run_id: str
    agent: str
    caller: str
    key: str | None
    created: float
    is_asked_for: int
    """Whether `create` made it, so that it has a request and options."""
    conversation: str
    """What it belongs to; "" for nothing."""
    updated: float
    status: RunStatus
    code: str | None = None
    ended: float | None = None
    first: int = 1
    last: int = 0
    events: int = 0
    """Those that are held."""
    bytes: int = 0
    """Those of raw model events that are held."""
    full_at: int | None = None
    """The last position when the run was told that its log is full."""
    epoch: int = 0
    owner: str = ""
    lease: float = 0.0
    until: float = 0.0
    """When the lease ends, by the clock of the machine that counts from its start; 0 where there is none."""
    mail: int = 0
    checkpoint_at: int = 0

    @property
    def reach(self) -> Reach:
        """How far the run reaches."""
        return Reach(self.first, self.last, self.ended is not None, self.mail)

    def is_owned(self, now: float) -> bool:
        """Whether a lease lives. One that ends later than it is long is of before the machine was started again."""
        return 0.0 < self.until - now <= self.lease + ROUNDED

    def let_go(self) -> None:
        """End the lease."""
        self.until = self.lease = 0.0

    def values(self) -> tuple[Any, ...]:
        """The values of its columns, with their checksum."""
        values = _values_of(self)
        return (*values, _crc_of(values))


_COLUMNS = tuple(field.name for field in fields(Row))
_values_of: Callable[[Row], tuple[Any, ...]] = attrgetter(*_COLUMNS)
_SELECT = f"SELECT {', '.join(_COLUMNS)}, crc FROM runs"
_INSERT = f"INSERT INTO runs ({', '.join(_COLUMNS)}, crc) VALUES ({', '.join('?' * (len(_COLUMNS) + 1))})"
# What does not change is left out, as it would be looked up in the indexes; `number` is the last.
_FIXED = 8
_UPDATE = (
    f"UPDATE runs SET {', '.join(f'{name} = ?' for name in _COLUMNS[_FIXED:])}, crc = ? WHERE number = ?"
)


OF_CONVERSATION = "WHERE caller = ? AND conversation = ? AND conversation <> ''"
"""The rest of an SQL statement about the runs of a conversation; its last part is what their index is chosen by."""


def find(connection: sqlite3.Connection, run_id: str) -> Row | None:
    """The row of a run."""
    values = connection.execute(f"{_SELECT} WHERE run_id = ?", (run_id,)).fetchone()
    return None if values is None else _row(values)


def find_all(connection: sqlite3.Connection, rest: str, values: tuple[Any, ...]) -> Iterator[Row]:
    """The rows that the rest of an SQL statement, with its values, names."""
    for found in connection.execute(f"{_SELECT} {rest}", values):
        yield _row(found)


def insert(connection: sqlite3.Connection, row: Row) -> None:
    """Write a row that is new. Its number is the next one."""
    (number,) = connection.execute(
        "SELECT coalesce(max(seq), 0) + 1 FROM sqlite_sequence WHERE name = 'runs'"
    ).fetchone()
    row.number = number
    connection.execute(_INSERT, row.values())


def update(connection: sqlite3.Connection, row: Row) -> None:
    """Write a row that has changed."""
    connection.execute(_UPDATE, (*row.values()[_FIXED:], row.number))


def _row(values: tuple[Any, ...]) -> Row:
    if _crc_of(values[:-1]) != values[-1]:
        raise LogDamagedError(f"The record of run {values[1]} cannot be read: its checksum does not fit.")
    return Row(*values[:-1])


def _crc_of(values: tuple[Any, ...]) -> int:
    return zlib.crc32(msgspec.msgpack.encode(values))


# --- batches -----------------------------------------------------------------------------------


def chunk_behind(connection: sqlite3.Connection, row: Row | None, after: int) -> Chunk:
    """The batches of a run beyond position `after`: as many as are good to read at once."""
    if row is None:
        return Chunk([], Reach())
    reach = row.reach
    if not reach.first - 1 <= after < reach.last:
        return Chunk([], reach)
    found = connection.execute(
        "SELECT first, last, data FROM batches WHERE run = ?1 AND last > ?2 AND first >= "
        "(SELECT coalesce(max(first), 0) FROM batches WHERE run = ?1 AND first <= ?2 + 1) ORDER BY first",
        (row.number, after),
    )
    batches: list[Batch] = []
    size = 0
    for first, last, data in found:
        try:
            batch = unpack(data, row.run_id, first)
            if batch.last != last:
                raise LogDamagedError(
                    f"Run {row.run_id}: {last} is not the last position of the batch at {first}."
                )
        except LogDamagedError:
            if batches:  # those before it are as they were
                break
            raise
        batches.append(batch)
        size += len(data)
        if size >= CHUNK_BYTES or len(batches) >= CHUNK_BATCHES:
            break
    if not batches or batches[-1].last > reach.last:
        raise LogDamagedError(
            f"Run {row.run_id}: its events from position {after + 1} to {reach.last} are not where they should be."
        )
    return Chunk(batches, reach)


# --- what belongs to a run ---------------------------------------------------------------------


def put_document(connection: sqlite3.Connection, number: int, kind: DocumentKind, body: bytes) -> None:
    """Keep a document of a run, in place of the one of that kind."""
    connection.execute(
        "INSERT INTO documents (run, kind, body, crc) VALUES (?, ?, ?, ?) "
        "ON CONFLICT (run, kind) DO UPDATE SET body = excluded.body, crc = excluded.crc",
        (number, kind, body, zlib.crc32(body)),
    )


def document(connection: sqlite3.Connection, row: Row, kind: DocumentKind) -> bytes | None:
    """A document of a run; None where it never had one of that kind."""
    if not (row.checkpoint_at if kind == "checkpoint" else row.is_asked_for):
        return None
    found = connection.execute(
        "SELECT body, crc FROM documents WHERE run = ? AND kind = ?", (row.number, kind)
    ).fetchone()
    body, crc = found or (b"", -1)
    if not isinstance(body, bytes) or zlib.crc32(body) != crc:
        raise LogDamagedError(f"The {kind} of run {row.run_id} is missing, or does not fit its checksum.")
    return body


def record_of(connection: sqlite3.Connection, row: Row, now: float, *, with_documents: bool) -> RunRecord:
    """What is known of a run; `now` is the time by which leases end."""
    options = document(connection, row, "options")
    return RunRecord(
        run_id=row.run_id,
        agent=row.agent,
        status=row.status,
        caller=row.caller,
        options={} if options is None else codec.decode(options),
        idempotency_key=row.key,
        conversation=row.conversation,
        created=row.created,
        updated=row.updated,
        epoch=row.epoch,
        is_owned=row.is_owned(now),
        last=row.last,
        code=row.code,
        request=document(connection, row, "request") if with_documents else None,
        checkpoint=document(connection, row, "checkpoint") if with_documents else None,
        checkpoint_at=row.checkpoint_at,
    )


def put_mail(connection: sqlite3.Connection, number: int, command: Command) -> None:
    """Keep a command in the mail of a run."""
    values = (number, command.number, command.kind, command.key, command.body)
    connection.execute(
        "INSERT INTO mail (run, number, kind, key, body, crc) VALUES (?, ?, ?, ?, ?, ?)",
        (*values, _crc_of(values)),
    )


def mail_of(connection: sqlite3.Connection, row: Row, after: int) -> list[Command]:
    """The commands behind number `after`."""
    found = connection.execute(
        "SELECT run, number, kind, key, body, crc FROM mail WHERE run = ? AND number > ? ORDER BY number",
        (row.number, after),
    ).fetchall()
    commands: list[Command] = []
    for *values, crc in cast("list[tuple[Any, ...]]", found):
        if _crc_of(tuple(values)) != crc:
            raise LogDamagedError(
                f"Run {row.run_id}: command {values[1]} of its mail does not fit its checksum."
            )
        _, number, kind, key, body = values
        commands.append(Command(kind, body, key, number))
    if len(commands) != max(row.mail - max(after, 0), 0):
        raise LogDamagedError(f"Run {row.run_id}: some of its mail is not where it should be.")
    return commands


def forget(connection: sqlite3.Connection, number: int) -> None:
    """Forget a run with all that belongs to it, whatever state that is in."""
    for statement in (
        "DELETE FROM batches WHERE run = ?",
        "DELETE FROM documents WHERE run = ?",
        "DELETE FROM mail WHERE run = ?",
        "DELETE FROM runs WHERE number = ?",
    ):
        connection.execute(statement, (number,))
