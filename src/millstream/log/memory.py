"""The log in memory: for library use and for tests. It lives as long as somebody holds it.

Written, read, claimed and trimmed from any thread. Each run has a lock, held for every look at
it and never while anything is awaited, so that a reader that finds nothing waits before more
can come. A second lock guards what concerns several runs: who is created, and under which key.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from millstream import codec
from millstream.clock import SYSTEM_CLOCK, Clock
from millstream.errors import (
    CommandConflictError,
    ConversationBusyError,
    IdempotencyError,
    LogBrokenError,
    LogGapError,
    PositionConflictError,
    RunClosedError,
    RunExistsError,
    RunOwnedError,
    StaleOwnerError,
    UnknownConversationError,
    UnknownRunError,
)
from millstream.event_loops import wake
from millstream.log.batches import ROOM, Batches, Caps
from millstream.log.promise import Batch, Cursor, LogInfo
from millstream.log.store import (
    Command,
    ConversationRecord,
    NewRun,
    RunRecord,
    RunStatus,
    RunStore,
    status_told,
)

__all__ = ["MAX_BYTES", "MAX_EVENTS", "ROOM", "MemoryLog"]

MAX_EVENTS = 5_000_000
"""Default cap on the events of one run."""
MAX_BYTES = 1 << 30
"""Default cap on the bytes of raw model events of one run."""


class MemoryLog(RunStore):
    """Keeps runs in this process.

    At a cap, the raw events of a run's model calls that have ended are dropped; who asks for them
    gets a `LogGapError`. If that is not enough, the run is told so once. It may still write what
    closes what it opened, and its terminal event, which is never refused: every start has its end.

    Args:
        max_events: cap on the events of one run.
        max_bytes: cap on the bytes of raw model events of one run.
        clock: by which leases end, and the ages of runs are told.
    """

    durability: Literal["memory", "process", "power"] = "memory"

    def __init__(
        self, *, max_events: int = MAX_EVENTS, max_bytes: int = MAX_BYTES, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._caps = Caps(max_events, max_bytes)
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        self._keys: dict[tuple[str, str], _Run] = {}
        """The run that a caller's idempotency key made."""
        self._conversations: dict[tuple[str, str], _Conversation] = {}
        """By their callers and ids."""
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    # --- events ------------------------------------------------------------------------------

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        """Write `batch`. Never suspends: what is appended is visible when the call returns."""
        self._run(run_id).append(batch, epoch)

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        """A cursor behind position `after`."""
        return _MemoryCursor(self._run(run_id), after)

    async def info(self, run_id: str) -> LogInfo:
        """How far the log reaches."""
        known = self.info_nowait(run_id)
        if known is None:
            raise UnknownRunError(run_id)
        return known

    def info_nowait(self, run_id: str) -> LogInfo | None:
        """How far the log reaches; None where it has nothing of that run."""
        run = self._runs.get(run_id)
        return None if run is None else run.info()

    async def trim(self, run_id: str, first: int) -> None:
        """Forget the positions before `first`."""
        self._run(run_id).trim(first)

    def break_off(self, run_id: str) -> None:
        """Let nobody wait for a run that is written no more. Whoever claims it may be waited for again."""
        self._run(run_id).break_off()

    # --- records -----------------------------------------------------------------------------

    async def create(self, run: NewRun) -> RunRecord:
        """Keep `run`, queued."""
        with self._lock:
            made = self._made_by_key(run)
            if made is None:
                known = self._runs.get(run.run_id)
                if run.conversation and (known is None or not known.number):
                    self._must_not_be_busy(run.caller, run.conversation)
                made = self._run(run.run_id)
                made.create(run)
                if run.idempotency_key is not None:
                    self._keys[run.caller, run.idempotency_key] = made
                if run.conversation:
                    self._go_on(made)
        return made.record()

    def _made_by_key(self, run: NewRun) -> _Run | None:
        if run.idempotency_key is None:
            return None
        made = self._keys.get((run.caller, run.idempotency_key))
        if made is not None and made.new is not None and made.new.request != run.request:
            raise IdempotencyError(run.idempotency_key, made.run_id)
        return made

    async def record(self, run_id: str) -> RunRecord:
        """What is known of a run."""
        return self._known(run_id).record()

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
        end = None if before is None else self._known(before).number
        found = (
            run.listed()
            for run in reversed(self._in_order())
            if (end is None or run.number < end)
            and (caller is None or run.caller == caller)
            and (not statuses or run.status in statuses)
            and (conversation is None or run.conversation == conversation)
        )
        return list(itertools.islice(found, limit))

    async def delete(self, run_id: str) -> None:
        """Forget a run."""
        with self._lock:
            run = self._runs.pop(run_id, None)
            if run is None:
                return
            new = run.new
            if new is not None and new.idempotency_key is not None:
                del self._keys[new.caller, new.idempotency_key]
        run.be_gone()

    async def sweep(self, older_than: float) -> int:
        """Forget the runs that ended more than `older_than` seconds ago."""
        now = self._clock.monotonic()
        old = [
            run for run in self._in_order() if run.ended_at is not None and now - run.ended_at > older_than
        ]
        for run in old:
            await self.delete(run.run_id)
        return len(old)

    # --- conversations -----------------------------------------------------------------------

    async def conversation(self, caller: str, conversation: str) -> ConversationRecord:
        """What is known of a conversation."""
        return self._told(self._conversation(caller, conversation))

    async def conversations(
        self, caller: str, *, limit: int = 100, before: str | None = None
    ) -> list[ConversationRecord]:
        """The conversations of a caller, that of the newest run first."""
        end = None if before is None else self._conversation(caller, before).last
        found = [each for (whose, _), each in list(self._conversations.items()) if whose == caller]
        found.sort(key=lambda each: each.last, reverse=True)
        return [self._told(each) for each in found if end is None or each.last < end][:limit]

    async def items(self, caller: str, conversation: str, limit: int | None = None) -> list[bytes]:
        """The items of a conversation."""
        items = self._conversation(caller, conversation).items
        return items[max(len(items) - limit, 0) :] if limit is not None else items.copy()

    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        """Put `items` at the end of the conversation of a run."""
        run = self._known(run_id)
        conversation = self._conversation(run.caller, run.conversation)
        run.add_to(conversation.items, items, epoch)

    async def forget(self, caller: str, conversation: str) -> None:
        """Forget a conversation with its items and its runs."""
        whose = (caller, conversation)
        with self._lock:
            self._must_not_be_busy(*whose)
            if self._conversations.pop(whose, None) is None:
                return
            runs = [run.run_id for run in self._in_order() if (run.caller, run.conversation) == whose]
        for run_id in runs:
            await self.delete(run_id)

    def _go_on(self, run: _Run) -> None:
        """Have a conversation go on with that run, which is new; make it where there is none."""
        created = run.record().created
        whose = (run.caller, run.conversation)
        conversation = self._conversations.setdefault(whose, _Conversation(*whose, created))
        conversation.updated, conversation.last, conversation.run_id = created, run.number, run.run_id

    def _conversation(self, caller: str, conversation: str) -> _Conversation:
        found = self._conversations.get((caller, conversation))
        if found is None:
            raise UnknownConversationError(conversation)
        return found

    def _must_not_be_busy(self, caller: str, conversation: str) -> None:
        found = self._conversations.get((caller, conversation))
        run = None if found is None else self._last_of(found)
        if run is not None and run.ended_at is None:
            raise ConversationBusyError(conversation, run.run_id)

    def _last_of(self, conversation: _Conversation) -> _Run | None:
        """Its last run, unless that is forgotten, and its id perhaps used again."""
        run = self._runs.get(conversation.run_id)
        return run if run is not None and run.number == conversation.last else None

    def _told(self, conversation: _Conversation) -> ConversationRecord:
        run = self._last_of(conversation)
        return ConversationRecord(
            id=conversation.id,
            caller=conversation.caller,
            created=conversation.created,
            updated=conversation.updated,
            run=None if run is None else run.listed(),
        )

    # --- owners ------------------------------------------------------------------------------

    async def claim(self, run_id: str, *, owner: str, lease: float, last: int | None = None) -> int:
        """Become the owner of a run."""
        return self._known(run_id).claim(owner, lease, last)

    async def renew(self, run_id: str, *, epoch: int, lease: float) -> None:
        """Keep the run for another `lease` seconds."""
        self._known(run_id).renew(epoch, lease)

    async def let_go(self, run_id: str, *, epoch: int) -> None:
        """End the lease."""
        run = self._runs.get(run_id)
        if run is not None:
            run.let_go(epoch)

    async def orphans(self, limit: int = 100) -> list[str]:
        """The runs that are queued or running, and nobody's."""
        found = (
            run.run_id
            for run in self._in_order()
            if run.status in ("queued", "running") and not run.is_owned()
        )
        return list(itertools.islice(found, limit))

    # --- mail --------------------------------------------------------------------------------

    async def tell(self, run_id: str, command: Command) -> int:
        """Put a command into the mail of a run."""
        return self._known(run_id).tell(command)

    async def mail(self, run_id: str, after: int = 0) -> list[Command]:
        """The commands behind number `after`."""
        run = self._runs.get(run_id)
        return [] if run is None else run.mail[max(after, 0) :]

    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        """As `mail`, but waits for the first."""
        run = self._runs.get(run_id)
        return [] if run is None else await run.wait_for_mail(max(after, 0))

    # --- the engine --------------------------------------------------------------------------

    async def check(self) -> list[str]:
        """There is nothing to reach, and nothing that was promised is lost."""
        return []

    # --- the runs ----------------------------------------------------------------------------

    def _run(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None:
            # Asked for by a writer and a reader in two threads at once, it is one and the same.
            run = self._runs.setdefault(run_id, _Run(run_id, self._caps, self._clock, self._numbers))
        return run

    def _known(self, run_id: str) -> _Run:
        run = self._runs.get(run_id)
        if run is None or not run.number:
            raise UnknownRunError(run_id)
        return run

    def _in_order(self) -> list[_Run]:
        """The runs that there are, the oldest first."""
        return sorted((run for run in list(self._runs.values()) if run.number), key=lambda run: run.number)


@dataclass
class _Conversation:
    caller: str
    id: str
    created: float
    updated: float = 0.0
    last: int = 0
    """The number of its last run, which may be forgotten; and its id."""
    run_id: str = ""
    items: list[bytes] = field(default_factory=list[bytes])


class _Run:
    """One run, and who waits for it. What a cursor names before anything is known of it has number 0."""

    def __init__(self, run_id: str, caps: Caps, clock: Clock, numbers: itertools.count[int]) -> None:
        self.run_id = run_id
        self.number = 0
        """Its place among the runs, in the order in which they came."""
        self.new: NewRun | None = None
        self.status: RunStatus = "queued"
        self.ended_at: float | None = None
        self.mail: list[Command] = []
        self._batches = Batches(run_id, caps)
        self._broken = False
        self._gone = False
        self._epoch = 0
        self._owner = ""
        self._lease_until = -math.inf
        self._agent = ""
        self._options = b"{}"
        self._code: str | None = None
        self._created = 0.0
        self._updated = 0.0
        self._checkpoint: bytes | None = None
        self._checkpoint_at = 0
        self._clock = clock
        self._numbers = numbers
        self._lock = threading.Lock()
        self._readers = _Waiting(self._lock)
        self._mail_readers = _Waiting(self._lock)

    # --- its events --------------------------------------------------------------------------

    def append(self, batch: Batch, epoch: int) -> None:
        with self._lock:
            if epoch != self._epoch:
                raise self._stale(epoch)
            new = self._batches.take(batch)
            if new is None:
                return
            if not self.number:
                self._begin(batch.stamp.agent)
            self._updated = self._clock.time()
            if new.checkpoint is not None:
                self._checkpoint, self._checkpoint_at = new.checkpoint, new.last
            if not new.raw_only:
                self._follow(new)
            woken = self._readers.called()
            if self.ended_at is not None:
                woken += self._mail_readers.called()
        for future in woken:
            wake(future)

    def add_to(self, kept: list[bytes], items: Sequence[bytes], epoch: int) -> None:
        """Add `items` to those of its conversation."""
        with self._lock:
            self._must_be_there()
            if epoch != self._epoch:
                raise self._stale(epoch)
            self._must_not_have_ended("nothing more can be added to its conversation")
            kept += items

    def _follow(self, batch: Batch) -> None:
        """Let the record say what `batch` says of the run."""
        told = status_told(self.run_id, batch)
        if told is not None:
            self.status, self._code = told
            if self.status != "running":
                self._lease_until = -math.inf
            if self._batches.sealed:
                self.ended_at = self._clock.monotonic()

    def look(self, after: int, place: int) -> tuple[int, Batch | None]:
        """As `Batches.look`, and raises a `LogBrokenError` where the run was deleted."""
        with self._lock:
            return self._look(after, place)

    def _look(self, after: int, place: int) -> tuple[int, Batch | None]:
        if self._gone:
            raise LogBrokenError(self.run_id)
        return self._batches.look(after, place)

    @property
    def is_sealed(self) -> bool:
        """Whether nothing more comes, as its end is written."""
        return self._batches.sealed

    @property
    def is_broken(self) -> bool:
        """Whether nothing more comes, though its end is not written."""
        return self._broken

    async def wait(self, after: int, place: int) -> None:
        """Return when `look` would find something or raise, or nothing more comes."""
        await self._readers.wait(
            lambda: self.is_sealed or self._broken or self._look(after, place)[1] is not None
        )

    def info(self) -> LogInfo | None:
        with self._lock:
            return self._batches.info if self._batches.last else None

    def trim(self, first: int) -> None:
        with self._lock:
            self._batches.trim(first)

    def break_off(self) -> None:
        with self._lock:
            self._broken = True
            woken = self._readers.called()
        for future in woken:
            wake(future)

    def be_gone(self) -> None:
        with self._lock:
            self._gone = True
            self._epoch = -1  # which nobody has: nothing is written to it any more
            woken = [*self._readers.called(), *self._mail_readers.called()]
        for future in woken:
            wake(future)

    # --- its record --------------------------------------------------------------------------

    def create(self, new: NewRun) -> None:
        with self._lock:
            if self.number:
                raise RunExistsError(
                    f"There is a run {self.run_id} already: give a new one an id of its own."
                )
            self._begin(new.agent)
            self.new = new
            self._options = codec.encode(new.options)

    def _begin(self, agent: str) -> None:
        self.number = next(self._numbers)
        self._agent = agent
        self._created = self._updated = self._clock.time()

    def record(self) -> RunRecord:
        new = self.new
        with self._lock:
            return RunRecord(
                run_id=self.run_id,
                agent=self._agent,
                status=self.status,
                caller=self.caller,
                options=codec.decode(self._options),
                idempotency_key=None if new is None else new.idempotency_key,
                conversation=self.conversation,
                created=self._created,
                updated=self._updated,
                epoch=self._epoch,
                is_owned=self.is_owned(),
                last=self._batches.last,
                code=self._code,
                request=None if new is None else new.request,
                checkpoint=self._checkpoint,
                checkpoint_at=self._checkpoint_at,
            )

    @property
    def caller(self) -> str:
        """Who asked for it."""
        return "" if self.new is None else self.new.caller

    @property
    def conversation(self) -> str:
        """What it belongs to."""
        return "" if self.new is None else self.new.conversation

    def listed(self) -> RunRecord:
        """Its record, as in a listing."""
        return replace(self.record(), request=None, checkpoint=None)

    # --- its owner ---------------------------------------------------------------------------

    def is_owned(self) -> bool:
        """Whether a lease lives."""
        return self._clock.monotonic() < self._lease_until

    def claim(self, owner: str, lease: float, last: int | None) -> int:
        with self._lock:
            self._must_be_there()
            self._must_not_have_ended("cannot be claimed")
            is_owned = self.is_owned()
            if is_owned and owner != self._owner:
                raise RunOwnedError(f"Run {self.run_id} has an owner that lives: {self._owner}.")
            if last is not None and last != self._batches.last:
                raise PositionConflictError(
                    f"Run {self.run_id} was written to: its last position is {self._batches.last}, not {last}."
                )
            if not is_owned:
                self._epoch += 1
                self._broken = False  # whoever owns it now can write
            self._owner = owner
            self._lease_until = self._clock.monotonic() + lease
            return self._epoch

    def renew(self, epoch: int, lease: float) -> None:
        with self._lock:
            self._must_be_there()
            if epoch != self._epoch:
                raise self._stale(epoch)
            self._lease_until = self._clock.monotonic() + lease

    def let_go(self, epoch: int) -> None:
        with self._lock:
            if epoch == self._epoch:
                self._lease_until = -math.inf

    def _stale(self, epoch: int) -> StaleOwnerError:
        if self._gone:
            return StaleOwnerError(f"Run {self.run_id} was deleted: nothing can be written to it.")
        return StaleOwnerError(
            f"Run {self.run_id} has another owner: its epoch is {self._epoch}, not {epoch}."
        )

    # --- its mail ----------------------------------------------------------------------------

    def tell(self, command: Command) -> int:
        with self._lock:
            self._must_be_there()
            self._must_not_have_ended("nobody would read that")
            for known in self.mail if command.key is not None else ():
                if known.key == command.key:
                    if (known.kind, known.body) != (command.kind, command.body):
                        raise CommandConflictError(
                            f"Something else was said to run {self.run_id} under the key {command.key!r}."
                        )
                    return known.number
            self.mail.append(replace(command, number=len(self.mail) + 1))
            number, woken = len(self.mail), self._mail_readers.called()
        for future in woken:
            wake(future)
        return number

    async def wait_for_mail(self, after: int) -> list[Command]:
        await self._mail_readers.wait(
            lambda: len(self.mail) > after or self.ended_at is not None or self._gone
        )
        return self.mail[after:]

    # --- what it may refuse ------------------------------------------------------------------

    def _must_be_there(self) -> None:
        if self._gone:
            raise UnknownRunError(self.run_id)

    def _must_not_have_ended(self, so: str) -> None:
        if self._batches.sealed:
            raise RunClosedError(f"Run {self.run_id} has ended; {so}.")


class _Waiting:
    """Those who wait until something is the case of a run, which is looked at and changed under its lock."""

    __slots__ = ("_futures", "_lock")

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock
        self._futures: set[asyncio.Future[None]] = set()

    async def wait(self, is_so: Callable[[], bool]) -> None:
        """Return when it may be so; at once where it is."""
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            if is_so():
                return
            self._futures.add(waiter)
        try:
            await waiter
        finally:
            with self._lock:
                self._futures.discard(waiter)

    def called(self) -> list[asyncio.Future[None]]:
        """Who waits, to be woken once the lock is free. They wait no more: who still has to comes again."""
        if not self._futures:
            return []
        called = list(self._futures)
        self._futures.clear()
        return called


class _MemoryCursor(Cursor):
    __slots__ = ("_after", "_place", "_run")

    def __init__(self, run: _Run, after: int) -> None:
        self._run = run
        self._after = after
        self._place = 0
        """Where the next batch stands in the list, unless that was cut since."""

    async def next(self) -> Batch | None:
        run = self._run
        while True:
            sealed = run.is_sealed  # before looking: what seals the run is written with it
            batch = self._advance()
            if batch is not None:
                return batch
            if sealed:
                return None
            if run.is_broken:
                raise LogBrokenError(run.run_id)
            await run.wait(self._after, self._place)

    def next_nowait(self) -> Batch | None:
        """The next events where they are written."""
        try:
            return self._advance()
        except (LogGapError, LogBrokenError):  # `next` tells of it
            return None

    def _advance(self) -> Batch | None:
        place, batch = self._run.look(self._after, self._place)
        if batch is not None:
            self._place = place + 1
            self._after = batch.last
        return batch
