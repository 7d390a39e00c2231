"""The log in Redis: for several processes or machines.

What it keeps, under one prefix:

    P:store            the name of this log, by which it is seen that it has lost its data
    P:number           how many runs there were
    P:run:R            hash: the record of a run, its owner and lease, how far it reaches
    P:run:R:log        stream: one entry for each batch, under the id <last position>-0
    P:run:R:raw        list: which of them are raw model events only, until the run ends
    P:run:R:calls      hash: where each run of the tree ended a model call last, until the run ends
    P:run:R:mail       list: its commands
    P:run:R:said       hash: which command has which key
    P:runs, P:caller:C sorted sets: runs in the order in which they came, of all and of one caller
    P:live             sorted set: the runs that are queued or running, by the end of their lease
    P:ended            sorted set: the runs that have ended, by when
    P:key:…            the run that an idempotency key of a caller has made
    P:conversations:C  sorted set: the conversations of a caller, by their last runs
    P:conversation:is:…     hash: a conversation of a caller, and its last run
    P:conversation:items:…  list: its items
    P:conversation:runs:…   sorted set: its runs, in the order in which they came
    P:conversation:added:…  list: the last calls that have added items

Channels, `P@<database>:R`, tell of what is written. All is changed by the scripts in `lua/`
alone, each of which does what it does as a whole, and by the server's own clock.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Collection, Sequence
from typing import Any, Literal

from millstream.errors import UserError
from millstream.log.batches import Caps
from millstream.log.form import Packed
from millstream.log.memory import MAX_BYTES, MAX_EVENTS
from millstream.log.promise import Batch, Cursor, LogInfo
from millstream.log.redis import checks, requests
from millstream.log.redis.appends import Append, Appender
from millstream.log.redis.keeper import Ask, Keeper, Work
from millstream.log.redis.requests import Page
from millstream.log.redis.server import TIMEOUT, Address, Server
from millstream.log.store import Command, ConversationRecord, NewRun, RunRecord, RunStatus, RunStore
from millstream.log.tails import Chunk, Mail, Tails
from millstream.log.worker import Worker

RETENTION = 3600.0
"""Seconds for which a run is kept after its end."""
PATIENCE = 30.0
"""Seconds for which a server may be away before those who wait for it are told."""


class RedisLog(RunStore):
    """Keeps runs in Redis 7 or newer, or in Valkey, for any number of processes and machines.

    Any number of logs may use one server at once, each from any event loop and any thread. A
    batch is one entry of a stream, written by one script; those that are written at the same time
    share a round trip. Readers in the writer's process are given what was written once the server
    has taken it; those in others are told by the server. Needs the extra `redis`. A cluster cannot
    be used: what belongs to a run is not in one slot there.

    A server that cannot be reached is tried again until `patience` is over, and what was asked for
    is asked again: nothing is written twice. Then all that wait get a `LogUnavailableError`, and
    those who ask later get it at once, until the server is back. What the server refuses (no memory,
    a read-only replica) is a `LogUnavailableError` at once.

    A run is forgotten `retention` seconds after its end, by the server itself; a conversation is kept. At a cap, the raw
    events of model calls that have ended are dropped; who asks for them gets a `LogGapError`. If
    that is not enough, the run is told so once. It may still write what closes what it opened, and
    its terminal event, which is refused for no cap.

    What an event survives is what the server is set up for. `check()` finds out, says so in
    `durability`, and names what may be lost: "power" with `appendonly yes` and `appendfsync always`,
    "process" with `appendonly yes` alone (a loss of power may cost the last second or two, as may a
    server that is killed while its disk is slow), else "memory".
    Before that, `durability` is "memory": nothing is known.

    Args:
        url_or_client: as "redis://localhost:6379/0", "rediss://…" or "unix:///path"; or a
            `redis.Redis`, of which the address and the login are taken. It stays the caller's.
        prefix: what the names of all keys begin with. Each log of a server has its own.
        max_events: cap on the events of one run.
        max_bytes: cap on the bytes of raw model events of one run.
        retention: seconds for which a run is kept after its end; None for until it is deleted or swept.
        patience: seconds for which the server may be away.

    Raises:
        MissingExtraError: `redis` is not installed; where this class is imported.
        UserError: an argument can be none.
    """

    durability: Literal["memory", "process", "power"]  # pyright: ignore[reportIncompatibleVariableOverride]  # the server decides

    def __init__(
        self,
        url_or_client: Any,
        *,
        prefix: str = "millstream",
        max_events: int = MAX_EVENTS,
        max_bytes: int = MAX_BYTES,
        retention: float | None = RETENTION,
        patience: float = PATIENCE,
    ) -> None:
        if not prefix or not isinstance(prefix, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"prefix={prefix!r}: text that the names of all keys of this log begin with.")
        if retention is not None and not (retention > 0 and math.isfinite(retention)):
            raise UserError(f"retention={retention!r}: a number of seconds; None means for ever.")
        if not (patience > 0 and math.isfinite(patience)):
            raise UserError(f"patience={patience!r}: a number of seconds.")
        self.durability = "memory"
        server = Server(Address(url_or_client, min(TIMEOUT, patience)), prefix, patience)
        keeper = Keeper(server, Appender(server, Caps(max_events, max_bytes), retention))
        # The thread does not keep the log alive, but cursors keep alive what they ask.
        self._worker: Worker[Work] = Worker(keeper, "millstream redis", "The log in Redis")
        worker = self._worker

        async def read(run_id: str, after: int) -> Chunk:
            return await worker.ask(requests.read(run_id, after))

        self._tails = Tails(read, worker.poke)
        keeper.serve(weakref.ref(self._tails), _weakly(worker))

    # --- events ------------------------------------------------------------------------------

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        """Write `batch`."""
        if batch.payloads:
            await self._worker.ask(Append(run_id, Packed.of(batch), epoch))

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        """A cursor behind position `after`."""
        return self._tails.cursor(run_id, after)

    def known_end(self, run_id: str) -> int:
        """The last position that this process knows of."""
        return self._tails.last(run_id)

    async def info(self, run_id: str) -> LogInfo:
        """How far the log reaches."""
        return await self._worker.ask(requests.info(run_id))

    async def trim(self, run_id: str, first: int) -> None:
        """Forget the positions before `first`."""
        await self._worker.ask(requests.trim(run_id, first))

    def break_off(self, run_id: str) -> None:
        """Let nobody in this process wait for a run that it cannot write to any more."""
        self._tails.break_off(run_id)

    # --- records -----------------------------------------------------------------------------

    async def create(self, run: NewRun) -> RunRecord:
        """Keep `run`, queued."""
        return await self.record(await self._worker.ask(requests.create(run)))

    async def record(self, run_id: str) -> RunRecord:
        """What is known of a run."""
        return await self._worker.ask(requests.record(run_id))

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
        found: list[RunRecord] = []
        place = "+inf"
        while place and len(found) < limit:
            page: Page = await self._worker.ask(
                requests.runs(caller, statuses, conversation, limit - len(found), before, place)
            )
            found += page.records
            place, before = page.place, None
        return found

    async def delete(self, run_id: str) -> None:
        """Forget a run."""
        await self._worker.ask(requests.delete(run_id))

    async def sweep(self, older_than: float) -> int:
        """Forget the runs that ended more than `older_than` seconds ago, and what is left of those that have expired.

        Where an answer was lost, the number may leave out some that are gone.
        """
        swept, is_more = 0, True
        while is_more:
            count, is_more = await self._worker.ask(requests.sweep(older_than))
            swept += count
        return swept

    # --- conversations -----------------------------------------------------------------------

    async def conversation(self, caller: str, conversation: str) -> ConversationRecord:
        """What is known of a conversation."""
        (found,) = await self._worker.ask(requests.conversations(caller, 1, one=conversation))
        return found

    async def conversations(
        self, caller: str, *, limit: int = 100, before: str | None = None
    ) -> list[ConversationRecord]:
        """The conversations of a caller, that of the newest run first."""
        return await self._worker.ask(requests.conversations(caller, limit, before=before))

    async def items(self, caller: str, conversation: str, limit: int | None = None) -> list[bytes]:
        """The items of a conversation."""
        if limit is not None and limit < 1:  # the server's -0 would be the first one
            await self.conversation(caller, conversation)
            return []
        return await self._worker.ask(requests.items(caller, conversation, limit))

    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        """Put `items` at the end of the conversation of a run."""
        await self._worker.ask(requests.add_items(run_id, items, epoch))

    async def forget(self, caller: str, conversation: str) -> None:
        """Forget a conversation with its items and its runs."""
        await self._worker.ask(requests.forget(caller, conversation))

    # --- owners ------------------------------------------------------------------------------

    async def claim(self, run_id: str, *, owner: str, lease: float, last: int | None = None) -> int:
        """Become the owner of a run."""
        return await self._worker.ask(requests.claim(run_id, owner, lease, last))

    async def renew(self, run_id: str, *, epoch: int, lease: float) -> None:
        """Keep the run for another `lease` seconds."""
        await self._worker.ask(requests.renew(run_id, epoch, lease))

    async def let_go(self, run_id: str, *, epoch: int) -> None:
        """End the lease."""
        await self._worker.ask(requests.let_go(run_id, epoch))

    async def orphans(self, limit: int = 100) -> list[str]:
        """The runs that are queued or running, and nobody's."""
        return await self._worker.ask(requests.orphans(limit))

    # --- mail --------------------------------------------------------------------------------

    async def tell(self, run_id: str, command: Command) -> int:
        """Put a command into the mail of a run."""
        return await self._worker.ask(requests.tell(run_id, command))

    async def mail(self, run_id: str, after: int = 0) -> list[Command]:
        """The commands behind number `after`."""
        mail: Mail = await self._worker.ask(requests.mail(run_id, after))
        return list(mail.commands)

    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        """As `mail`, but waits for the first."""
        after = max(after, 0)
        return await self._tails.mail(run_id, after, lambda: self._worker.ask(requests.mail(run_id, after)))

    # --- the engine --------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """Reach the server, and see what it is set up to keep."""
        found: checks.Found = await self._worker.ask(Ask(checks.COMMANDS, checks.found))
        self.durability = found.durability  # pyright: ignore[reportIncompatibleVariableOverride]
        return self._warn_once(found.warnings)

    async def aclose(self) -> None:
        """Write what waits, and let go of the connections. Safe to call twice."""
        self._tails.close()
        await self._worker.aclose()


def _weakly(worker: Worker[Any]) -> Any:
    known = weakref.ref(worker)

    def poke() -> None:
        if (alive := known()) is not None:
            alive.poke()

    return poke
