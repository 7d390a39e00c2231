"""What one transaction changes in an SQLite log. Every change refuses before it writes.

The changes that wait are made in one transaction (`writing.py`), so that a refusal of one must
leave nothing behind that the others would commit. The rows of runs are read once and written
once, however often a transaction changes them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias

from millstream.clock import Clock
from millstream.errors import (
    CommandConflictError,
    ConversationBusyError,
    IdempotencyError,
    LogFullError,
    PositionConflictError,
    RunClosedError,
    RunExistsError,
    RunOwnedError,
    StaleOwnerError,
    UnknownRunError,
)
from millstream.events import ModelCompleted
from millstream.log.batches import ROOM, Caps
from millstream.log.form import Packed, unpack_lines
from millstream.log.sqlite import conversations, rows
from millstream.log.sqlite.rows import MODEL_COMPLETED, OTHER, RAW_ONLY, Row
from millstream.log.store import NewRun, RunRecord, status_told

if TYPE_CHECKING:
    from millstream.log.promise import Batch
    from millstream.log.store import Command
    from millstream.log.tails import Tails
    from millstream.log.worker import Wakes

SWEPT_AT_ONCE = 100
"""Runs that one transaction forgets at most: others want to write."""


@dataclass(slots=True)
class Change:
    """What one transaction changes."""

    connection: sqlite3.Connection
    caps: Caps
    clock: Clock

    then: list[Callable[[Tails, Wakes], None]] = field(default_factory=list["Callable[[Tails, Wakes], None]"])
    """What the tails are to be told once it is committed."""
    _rows: dict[str, Row | None] = field(default_factory=dict[str, "Row | None"])
    _changed: dict[str, Row] = field(default_factory=dict[str, Row])

    def flush(self) -> None:
        """Write the rows that have changed."""
        for row in self._changed.values():
            rows.update(self.connection, row)
        self._changed.clear()

    # --- events ------------------------------------------------------------------------------

    def append(self, run_id: str, packed: Packed, epoch: int) -> None:
        """As `RunStore.append`."""
        row = self._row(run_id) or self._not_yet(run_id, packed.batch.stamp.agent)
        if epoch != row.epoch:
            raise _stale(row, epoch)
        if packed.batch.first != row.last + 1:
            packed = self._new_of(row, packed)
        batch = packed.batch
        if not batch.payloads:
            return
        if row.ended is not None:
            raise RunClosedError(f"Run {run_id} has ended; nothing more can be written to its log.")
        ends = not batch.raw_only and batch.ends(run_id)
        if not (row.full_at is None and self._fits(row, batch)) and not ends:
            self._make_room(row, batch)
        if not row.number:
            self._insert(row)
        self._write(row, packed, ends=ends)

    def _new_of(self, row: Row, packed: Packed) -> Packed:
        """What of it is new, given that all that is not new equals what stands there."""
        first, last = packed.batch.first, row.last
        if first > last:
            raise PositionConflictError(f"Position {first} is not the next one: that is {last + 1}.")
        known = self._lines(row, first, min(packed.batch.last, last))
        for position, line in enumerate(packed.lines[: last - first + 1], first):
            if position not in known:
                raise PositionConflictError(
                    f"Position {position} is not the next one: that is {last + 1}. What it held is no longer held."
                )
            if known[position] != line:
                raise PositionConflictError(f"Position {position} holds another event already.")
        return packed.beyond(last)

    def _lines(self, row: Row, first: int, last: int) -> dict[int, bytes]:
        """The JSON of the events from `first` to `last`, as far as they are held, by position."""
        found = self.connection.execute(
            "SELECT first, data FROM batches WHERE run = ? AND first <= ? AND last >= ?",
            (row.number, last, first),
        )
        lines: dict[int, bytes] = {}
        for begin, data in found:
            lines |= enumerate(unpack_lines(data, row.run_id, begin), begin)
        return {position: line for position, line in lines.items() if position >= row.first}

    def _fits(self, row: Row, batch: Batch) -> bool:
        return (
            row.events + len(batch.payloads) <= self.caps.events and row.bytes + batch.size <= self.caps.bytes
        )

    def _make_room(self, row: Row, batch: Batch) -> None:
        if row.full_at is None:
            self._thin(row)
            if self._fits(row, batch):
                return
            row.full_at = row.last
            self._is_changed(row)
        elif not batch.size and batch.last <= row.full_at + ROOM:
            return
        raise LogFullError(
            f"Run {row.run_id} reached the cap of its log ({self.caps.events} events, {self.caps.bytes} bytes)."
        )

    def _write(self, row: Row, packed: Packed, *, ends: bool) -> None:
        batch = packed.batch
        nested = None if batch.stamp.run_id == row.run_id else batch.stamp.run_id
        values = (row.number, batch.first, batch.last, batch.size, _kind(batch), nested, packed.data)
        self.connection.execute(
            "INSERT INTO batches (run, first, last, bytes, kind, nested, data) VALUES (?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        row.last = batch.last
        row.events += len(batch.payloads)
        row.bytes += batch.size
        row.updated = float(self.clock.time())
        if batch.checkpoint is not None:
            rows.put_document(self.connection, row.number, "checkpoint", batch.checkpoint)
            row.checkpoint_at = batch.last
        told = status_told(row.run_id, batch)
        if told is not None:
            row.status, row.code = told
            if row.status != "running":
                row.let_go()
        if ends:
            row.ended = row.updated
        self._is_changed(row)
        self.then.append(lambda tails, wakes: tails.written(row.run_id, batch, wakes, size=len(packed.data)))

    def trim(self, run_id: str, first: int) -> None:
        """As `EventLog.trim`."""
        row = self._row(run_id)
        if row is None:
            return
        row.first = min(max(first, row.first), row.last + 1)
        self.connection.execute("DELETE FROM batches WHERE run = ? AND last < ?", (row.number, row.first))
        self._recount(row)
        self.then.append(lambda tails, wakes: tails.trimmed(run_id, row.first, wakes))

    def _thin(self, row: Row) -> None:
        """Drop what is raw only, of the model calls that have ended."""
        ended = self.connection.execute(
            "SELECT nested, max(first) FROM batches WHERE run = ? AND kind = ? GROUP BY nested",
            (row.number, MODEL_COMPLETED),
        ).fetchall()
        for nested, end in ended:
            self.connection.execute(
                "DELETE FROM batches WHERE run = ? AND kind = ? AND nested IS ? AND first < ?",
                (row.number, RAW_ONLY, nested, end),
            )
        self._recount(row)
        self.then.append(lambda tails, _: tails.thinned(row.run_id))

    def _recount(self, row: Row) -> None:
        first, row.events, row.bytes = self.connection.execute(
            "SELECT min(first), coalesce(sum(last - first + 1), 0), coalesce(sum(bytes), 0) FROM batches WHERE run = ?",
            (row.number,),
        ).fetchone()
        row.first = max(row.first, row.last + 1 if first is None else first)
        self._is_changed(row)

    # --- records -----------------------------------------------------------------------------

    def create(self, run: NewRun, options: bytes) -> RunRecord:
        """As `RunStore.create`; `options` are those of `run` as JSON."""
        row = self._made_by_key(run)
        if row is None:
            if self._row(run.run_id) is not None:
                raise RunExistsError(f"There is a run {run.run_id} already: give a new one an id of its own.")
            if run.conversation:
                self._must_not_be_busy(run.caller, run.conversation)
            row = self._not_yet(run.run_id, run.agent)
            row.caller, row.key, row.is_asked_for = run.caller, run.idempotency_key, 1
            row.conversation = run.conversation
            self._insert(row)
            if run.conversation:
                conversations.go_on(self.connection, row)
            rows.put_document(self.connection, row.number, "request", run.request)
            rows.put_document(self.connection, row.number, "options", options)
        return rows.record_of(self.connection, row, self.clock.monotonic(), with_documents=True)

    def _made_by_key(self, run: NewRun) -> Row | None:
        key = run.idempotency_key
        if key is None:
            return None
        found = self.connection.execute(
            "SELECT run_id FROM runs WHERE caller = ? AND key = ?", (run.caller, key)
        ).fetchone()
        row = None if found is None else self._row(found[0])
        if row is not None and rows.document(self.connection, row, "request") != run.request:
            raise IdempotencyError(key, row.run_id)
        return row

    def delete(self, run_id: str) -> None:
        """As `RunStore.delete`. One that is damaged can be forgotten, too."""
        self._forget(self.connection.execute("SELECT number, run_id FROM runs WHERE run_id = ?", (run_id,)))

    def sweep(self, older_than: float) -> int:
        """Some of the runs that `RunStore.sweep` forgets; how many those were, and 0 once there are none."""
        self.flush()  # of what was changed in this transaction, too
        return self._forget(
            self.connection.execute(
                "SELECT number, run_id FROM runs WHERE ended < ? LIMIT ?",
                (self.clock.time() - older_than, SWEPT_AT_ONCE),
            )
        )

    def _forget(self, found: sqlite3.Cursor) -> int:
        runs: list[tuple[int, str]] = found.fetchall()
        for number, run_id in runs:
            rows.forget(self.connection, number)
            self._rows[run_id] = None
            self._changed.pop(run_id, None)
            self.then.append(lambda tails, wakes, run_id=run_id: tails.deleted(run_id, wakes))
        return len(runs)

    # --- conversations -----------------------------------------------------------------------

    def add_items(self, run_id: str, items: Sequence[bytes], epoch: int) -> None:
        """As `RunStore.add_items`."""
        row = self._known(run_id)
        conversation = conversations.known(self.connection, row.caller, row.conversation)
        if epoch != row.epoch:
            raise _stale(row, epoch)
        self._must_not_have_ended(row, "nothing more can be added to its conversation")
        conversations.add(self.connection, conversation, items)

    def forget(self, caller: str, conversation: str) -> None:
        """As `RunStore.forget`."""
        whose = (caller, conversation)
        self._must_not_be_busy(*whose)
        conversations.forget(self.connection, *whose)
        self._forget(
            self.connection.execute(f"SELECT number, run_id FROM runs {rows.OF_CONVERSATION}", whose)
        )

    def _must_not_be_busy(self, caller: str, conversation: str) -> None:
        """Refuse where a run of the conversation is going. The last one is: none is created before that has ended."""
        found = self.connection.execute(
            f"SELECT run_id FROM runs {rows.OF_CONVERSATION} ORDER BY number DESC LIMIT 1",
            (caller, conversation),
        ).fetchone()
        last = None if found is None else self._row(found[0])
        if last is not None and last.ended is None:
            raise ConversationBusyError(conversation, last.run_id)

    # --- owners ------------------------------------------------------------------------------

    def claim(self, run_id: str, owner: str, lease: float, last: int | None) -> int:
        """As `RunStore.claim`."""
        row = self._known(run_id)
        self._must_not_have_ended(row, "it cannot be claimed")
        is_owned = row.is_owned(self.clock.monotonic())
        if is_owned and owner != row.owner:
            raise RunOwnedError(f"Run {run_id} has an owner that lives: {row.owner}.")
        if last is not None and last != row.last:
            raise PositionConflictError(
                f"Run {run_id} was written to: its last position is {row.last}, not {last}."
            )
        if not is_owned:
            row.epoch += 1
            self.then.append(lambda tails, _: tails.claimed(run_id))
        row.owner = owner
        self._lease(row, lease)
        return row.epoch

    def renew(self, run_id: str, epoch: int, lease: float) -> None:
        """As `RunStore.renew`."""
        row = self._known(run_id)
        if epoch != row.epoch:
            raise _stale(row, epoch)
        self._lease(row, lease)

    def let_go(self, run_id: str, epoch: int) -> None:
        """As `RunStore.let_go`."""
        row = self._row(run_id)
        if row is not None and epoch == row.epoch:
            row.let_go()
            self._is_changed(row)

    def _lease(self, row: Row, lease: float) -> None:
        row.lease, row.until = float(lease), float(self.clock.monotonic() + lease)
        self._is_changed(row)

    # --- mail --------------------------------------------------------------------------------

    def tell(self, run_id: str, command: Command) -> int:
        """As `RunStore.tell`."""
        row = self._known(run_id)
        self._must_not_have_ended(row, "nobody would read that")
        known = self._said_before(row, command)
        if known is not None:
            return known
        row.mail += 1
        rows.put_mail(self.connection, row.number, replace(command, number=row.mail))
        self._is_changed(row)
        number = row.mail
        self.then.append(lambda tails, wakes: tails.told(run_id, number, wakes))
        return number

    def _said_before(self, row: Row, command: Command) -> int | None:
        if command.key is None:
            return None
        for known in rows.mail_of(self.connection, row, 0):
            if known.key == command.key:
                if (known.kind, known.body) != (command.kind, command.body):
                    raise CommandConflictError(
                        f"Something else was said to run {row.run_id} under the key {command.key!r}."
                    )
                return known.number
        return None

    # --- the engine --------------------------------------------------------------------------

    def check(self) -> list[str]:
        """As `RunStore.check`."""
        (mode,) = self.connection.execute("PRAGMA journal_mode").fetchone()
        if mode == "wal":
            return []
        return [
            f"The file system takes no write-ahead log (journal mode {mode!r}): readers and the writer wait for "
            "each other. Is it a network drive? Processes of several machines must not share the file."
        ]

    # --- rows --------------------------------------------------------------------------------

    def _row(self, run_id: str) -> Row | None:
        if run_id not in self._rows:
            self._rows[run_id] = rows.find(self.connection, run_id)
        return self._rows[run_id]

    def _known(self, run_id: str) -> Row:
        row = self._row(run_id)
        if row is None:
            raise UnknownRunError(run_id)
        return row

    def _not_yet(self, run_id: str, agent: str) -> Row:
        now = float(self.clock.time())
        # The name is text that a model's program chose: what has no UTF-8 must not keep its run from being written.
        name = agent.encode("utf-8", "replace").decode()
        return Row(0, run_id, name, "", None, now, 0, "", now, "queued")

    def _insert(self, row: Row) -> None:
        rows.insert(self.connection, row)
        self._rows[row.run_id] = row

    def _is_changed(self, row: Row) -> None:
        if row.number:
            self._changed[row.run_id] = row

    def _must_not_have_ended(self, row: Row, so: str) -> None:
        if row.ended is not None:
            raise RunClosedError(f"Run {row.run_id} has ended; {so}.")


Work: TypeAlias = Callable[[Change], Any]
"""What somebody wants to be changed."""


def _kind(batch: Batch) -> int:
    if batch.raw_only:
        return RAW_ONLY
    return (
        MODEL_COMPLETED if any(isinstance(payload, ModelCompleted) for payload in batch.payloads) else OTHER
    )


def _stale(row: Row, epoch: int) -> StaleOwnerError:
    if not row.number:
        return StaleOwnerError(f"Run {row.run_id} is not there any more: nothing can be written to it.")
    return StaleOwnerError(f"Run {row.run_id} has another owner: its epoch is {row.epoch}, not {epoch}.")
