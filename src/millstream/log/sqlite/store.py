"""The log in an SQLite file: what `RunStore` promises, by two threads and the tails of the runs."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Awaitable, Collection, Sequence
from typing import Literal

from millstream import codec
from millstream.clock import SYSTEM_CLOCK, Clock
from millstream.errors import UserError
from millstream.log.batches import Caps
from millstream.log.form import Packed
from millstream.log.memory import MAX_BYTES, MAX_EVENTS
from millstream.log.promise import Batch, Cursor, LogInfo
from millstream.log.sqlite.changes import Work as Changing
from millstream.log.sqlite.file import File
from millstream.log.sqlite.reading import Reading
from millstream.log.sqlite.reading import Work as Looking
from millstream.log.sqlite.writing import Writing
from millstream.log.store import Command, ConversationRecord, NewRun, RunRecord, RunStatus, RunStore
from millstream.log.tails import Chunk, Tails
from millstream.log.worker import Worker

RETENTION = 86_400.0
"""Seconds that a run is kept after its end: a day."""


class SQLiteLog(RunStore):
    """Keeps runs in a file, which any number of processes of one machine may share.

    What was written survives the end of the process; with `synchronous="full"` the loss of power,
    too, and each write waits for the disk. Nothing is opened before the first call, so a log may be
    made where a module is imported, and in a process that forks afterwards.

    What waits is written in one transaction. Readers in the process are given it as it was
    appended, when it is committed. For what other processes write the file is looked at every 5 ms,
    as long as somebody here waits for that.

    Args:
        path: the file, which is made where there is none; its folder is not. Not on a network drive:
            the processes that share it also share the clock of their machine, by which leases end.
        synchronous: "normal", or "full" for what is to survive the loss of power.
        max_events: cap on the events of one run, as of a `MemoryLog`.
        max_bytes: cap on the bytes of raw model events of one run.
        retention: how many seconds a run is kept after its end; None is for ever. Looked after once in
            five minutes of use, by whoever writes to the file.
        clock: by which leases end, and the ages of runs are told.

    Raises:
        UserError: an argument can be none. Whether the file can be opened shows in the first call.
    """

    durability: Literal["memory", "process", "power"]

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        synchronous: Literal["normal", "full"] = "normal",
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        retention: float | None = RETENTION,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        if synchronous not in ("normal", "full"):
            raise UserError(f'SQLiteLog(synchronous={synchronous!r}): "normal" or "full".')
        if retention is not None and not retention >= 0:
            raise UserError(f"SQLiteLog(retention={retention!r}): seconds, or None to keep runs for ever.")
        self.durability = "power" if synchronous == "full" else "process"
        self._path = _path_of(path)
        file = File(self._path, synchronous)
        self._tails = tails = Tails(self._chunk, self._watch)
        what = f"The log {self._path}"
        self._writer = Worker[Changing](
            Writing(file, tails, Caps(max_events, max_bytes), clock, retention), "millstream log writer", what
        )
        self._reader = Worker[Looking](Reading(file, tails, clock), "millstream log reader", what)

    def __repr__(self) -> str:
        return f"SQLiteLog({self._path!r})"

    # --- events ------------------------------------------------------------------------------

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        """Write `batch`; visible once it is committed."""
        packed = Packed.of(batch)  # before anything is awaited: its events may change then
        await self._writer.ask(lambda change: change.append(run_id, packed, epoch))

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        """A cursor behind position `after`."""
        return self._tails.cursor(run_id, after)

    def known_end(self, run_id: str) -> int:
        """The last position that this process knows of."""
        return self._tails.last(run_id)

    async def info(self, run_id: str) -> LogInfo:
        """How far the log reaches."""
        return await self._reader.ask(lambda look: look.info(run_id))

    async def trim(self, run_id: str, first: int) -> None:
        """Forget the positions before `first`."""
        await self._writer.ask(lambda change: change.trim(run_id, first))

    def break_off(self, run_id: str) -> None:
        """Let nobody in this process wait for a run that is written no more. Whoever claims it here may be waited for again."""
        self._tails.break_off(run_id)

    # --- records -----------------------------------------------------------------------------

    async def create(self, run: NewRun) -> RunRecord:
        """Keep `run`, queued."""
        options = codec.encode(run.options)
        return await self._writer.ask(lambda change: change.create(run, options))

    async def record(self, run_id: str) -> RunRecord:
        """What is known of a run."""
        return await self._reader.ask(lambda look: look.record(run_id))

    async def runs(
        self,
        *,
        caller: str | None = None,
        statuses: Collection[RunStatus] = (),
        conversation: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRecord]:
        """Runs, the newest first."""
        wanted = tuple(statuses)
        return await self._reader.ask(lambda look: look.runs(caller, wanted, conversation, limit, before))

    async def delete(self, run_id: str) -> None:
        """Forget a run. Who follows it in another process gets a `LogBrokenError` when he looks next."""
        await self._writer.ask(lambda change: change.delete(run_id))

    async def sweep(self, older_than: float) -> int:
        """Forget the runs that ended more than `older_than` seconds ago, by the clock of the day."""
        count = 0
        while swept := await self._writer.ask(lambda change: change.sweep(older_than)):
            count += swept
        return count

    # --- conversations -----------------------------------------------------------------------

    async def conversation(self, caller: str, conversation: str) -> ConversationRecord:
        """What is known of a conversation."""
        return await self._reader.ask(lambda look: look.conversation(caller, conversation))

    async def conversations(
        self, caller: str, *, limit: int = 100, before: str | None = None
    ) -> list[ConversationRecord]:
        """The conversations of a caller, that of the newest run first."""
        return await self._reader.ask(lambda look: look.conversations(caller, limit, before))

    async def items(self, caller: str, conversation: str, limit: int | None = None) -> list[bytes]:
        """The items of a conversation."""
        return await self._reader.ask(lambda look: look.items(caller, conversation, limit))

    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        """Put `items` at the end of the conversation of a run."""
        added = list(items)
        await self._writer.ask(lambda change: change.add_items(run_id, added, epoch))

    async def forget(self, caller: str, conversation: str) -> None:
        """Forget a conversation with its items and its runs."""
        await self._writer.ask(lambda change: change.forget(caller, conversation))

    # --- owners ------------------------------------------------------------------------------

    async def claim(self, run_id: str, *, owner: str, lease: float, last: int | None = None) -> int:
        """Become the owner of a run."""
        return await self._writer.ask(lambda change: change.claim(run_id, owner, lease, last))

    async def renew(self, run_id: str, *, epoch: int, lease: float) -> None:
        """Keep the run for another `lease` seconds."""
        await self._writer.ask(lambda change: change.renew(run_id, epoch, lease))

    async def let_go(self, run_id: str, *, epoch: int) -> None:
        """End the lease."""
        await self._writer.ask(lambda change: change.let_go(run_id, epoch))

    async def orphans(self, limit: int = 100) -> list[str]:
        """The runs that are queued or running, and nobody's."""
        return await self._reader.ask(lambda look: look.orphans(limit))

    # --- mail --------------------------------------------------------------------------------

    async def tell(self, run_id: str, command: Command) -> int:
        """Put a command into the mail of a run."""
        return await self._writer.ask(lambda change: change.tell(run_id, command))

    async def mail(self, run_id: str, after: int = 0) -> list[Command]:
        """The commands behind number `after`."""
        return await self._reader.ask(lambda look: look.mail(run_id, after))

    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        """As `mail`, but waits for the first. What another process says is seen within about 50 ms."""
        return await self._tails.mail(
            run_id, after, lambda: self._reader.ask(lambda look: look.all_mail(run_id, after))
        )

    # --- the engine --------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """Open the file, and see whether this process may write to it."""
        return self._warn_once(await self._writer.ask(lambda change: change.check()))

    async def aclose(self) -> None:
        """Write what waits, and close the file. Who still follows a run gets a `LogError`."""
        await self._writer.aclose()
        self._tails.close()
        await self._reader.aclose()

    def _chunk(self, run_id: str, after: int) -> Awaitable[Chunk]:
        return self._reader.ask(lambda look: look.chunk(run_id, after))

    def _watch(self) -> None:
        self._reader.poke()


def _path_of(path: str | os.PathLike[str]) -> str:
    if sqlite3.sqlite_version_info < (3, 37):
        raise UserError(f"SQLiteLog needs SQLite 3.37 or newer; this Python has {sqlite3.sqlite_version}.")
    text = os.fspath(path)
    if text == ":memory:":
        raise UserError("SQLiteLog(':memory:'): a log in memory is a MemoryLog.")
    if not text or "\0" in text:
        raise UserError(f"SQLiteLog({path!r}): that is the path of no file.")
    return text
