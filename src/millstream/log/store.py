"""A log that keeps, beside the events of a run, what it takes to go on with it in another process.

Four things belong to a run, and one keeper has them all:

- its **events**, as every `EventLog`;
- its **record**: what was asked for, by whom, and how far it has come;
- its **owner**: who may write. An owner has a lease, which ends by the engine's own clock. Each
  owner has an epoch, one higher than the owner before: an append of an older epoch is refused,
  so that a process that slept through its lease can do no harm when it wakes;
- its **mail**: what others say to whoever owns it (stop, here is input, that call may run).

Runs of one caller, one after another, may belong to a **conversation**: its items are kept here too,
and stay when its runs are forgotten.

Nothing here knows what a checkpoint, a request, a command or an item means: to the keeper they are bytes.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from millstream.events import RunFailed
from millstream.log.promise import Batch, EventLog

logger = logging.getLogger("millstream")

RunStatus: TypeAlias = Literal["queued", "running", "paused", "completed", "failed", "cancelled"]
"""Where a run stands. The last three are ends; "running" says nothing of whether its owner lives."""

ENDED: frozenset[RunStatus] = frozenset({"completed", "failed", "cancelled"})
"""The statuses that are ends."""

_TOLD_BY: dict[str, RunStatus] = {
    "run.started": "running",
    "run.attempt": "running",
    "run.resumed": "running",
    "run.paused": "paused",
    "run.completed": "completed",
    "run.failed": "failed",
    "run.cancelled": "cancelled",
}


def status_told(run_id: str, batch: Batch) -> tuple[RunStatus, str | None] | None:
    """The status that `batch` gives the run, and why it failed where it did; None where it changes nothing of that.

    What is told of a run nested in this one is nothing of its own.
    """
    if batch.raw_only or batch.stamp.run_id != run_id:
        return None
    for payload in reversed(batch.payloads):
        status = None if isinstance(payload, bytes) else _TOLD_BY.get(payload.type)
        if status is not None:
            return status, payload.code if isinstance(payload, RunFailed) else None
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """What is kept of a run before it begins."""

    run_id: str
    agent: str
    """The name of its first agent."""
    request: bytes
    """All that it takes to begin it again: a JSON document."""
    caller: str = ""
    """Who asked for it. One caller's idempotency keys are not another's."""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    """Anything else that is to be known of it later: JSON values."""
    idempotency_key: str | None = None
    conversation: str = ""
    """The conversation that it goes on with, one of its caller's; "" for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """What is known of a run."""

    run_id: str
    agent: str
    status: RunStatus
    caller: str = ""
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    idempotency_key: str | None = None
    conversation: str = ""
    """As in `NewRun`."""
    created: float = 0.0
    """When, in seconds since the epoch by the engine's clock; as is `updated`."""
    updated: float = 0.0
    """When anything was written to it last."""
    epoch: int = 0
    """How many owners it has had."""
    is_owned: bool = False
    """Whether an owner's lease lives."""
    last: int = 0
    """The last position of its log."""
    code: str | None = None
    """Why it failed, where it did: the code of its terminal event."""
    request: bytes | None = field(default=None, repr=False)
    """As in `NewRun`; None in a listing, and where the run was never created but only written to."""
    checkpoint: bytes | None = field(default=None, repr=False)
    """What it can go on from: the last that was written with a batch. None in a listing, and where there is none."""
    checkpoint_at: int = 0
    """The last position of the batch that the checkpoint came with."""

    @property
    def has_ended(self) -> bool:
        """Whether its terminal event is written."""
        return self.status in ENDED


@dataclass(frozen=True, slots=True, kw_only=True)
class ConversationRecord:
    """What several runs of one caller share, one after another."""

    id: str
    """Names it among those of its caller."""
    caller: str
    created: float
    """When its first run was created, in seconds since the epoch by the engine's clock."""
    updated: float
    """When its last run was created."""
    run: RunRecord | None
    """Its last run, as in a listing; None where that is forgotten."""


@dataclass(frozen=True, slots=True)
class Command:
    """One piece of mail: something that is said to whoever owns the run."""

    kind: str
    body: bytes
    """A JSON document."""
    key: str | None = None
    """Names what may be said once only: of two commands with one key, the first one counts."""
    number: int = 0
    """Its place in the mail of its run, from 1; 0 before it has one."""


class RunStore(EventLog):
    """A log that keeps records, owners and mail of its runs. Every method may be called from any event loop.

    What an engine cannot do at the moment (it is away, its disk is full, it is read-only) is a
    `LogUnavailableError` by any method; what it holds and cannot be read is a `LogDamagedError`.
    """

    @abstractmethod
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        """As `EventLog.append`. `batch.checkpoint`, where there is one, is kept with it or not at all.

        The record's status follows what is written: `run.started`, `run.attempt` and `run.resumed` of
        the run itself make it running, `run.paused` paused, its terminal event what that says. Where that
        is a pause or an end, the owner's lease ends with it: who reads of it may claim the run at once.

        Raises:
            StaleOwnerError: `epoch` is not the present one. A run that was never claimed has epoch 0.
        """

    # --- records -----------------------------------------------------------------------------

    @abstractmethod
    async def create(self, run: NewRun) -> RunRecord:
        """Keep `run`, queued; its record, or that of the run that this caller's idempotency key already made.

        Its conversation is made, where there is none of that id of that caller's. Of two runs that are
        created in one at the same time one is refused.

        Raises:
            IdempotencyError: the key was used for another request.
            RunExistsError: another run has that id.
            ConversationBusyError: the last run of its conversation has not ended.
        """

    @abstractmethod
    async def record(self, run_id: str) -> RunRecord:
        """What is known of a run, with its request and its checkpoint.

        Raises:
            UnknownRunError: nothing is.
        """

    @abstractmethod
    async def runs(
        self,
        *,
        caller: str | None = None,
        statuses: Collection[RunStatus] = (),
        conversation: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRecord]:
        """Runs, the newest first.

        Args:
            caller: those of one caller only.
            statuses: those with one of these statuses only; none means any.
            conversation: those of the conversation of that id only: of that caller, or of each caller who has one.
            limit: how many at most.
            before: only those that are older than the run of that id: the last of the page before.

        Raises:
            UnknownRunError: there is no run `before`.
        """

    @abstractmethod
    async def delete(self, run_id: str) -> None:
        """Forget a run with all that belongs to it. Who follows it gets a `LogBrokenError`. Unknown runs are no error."""

    @abstractmethod
    async def sweep(self, older_than: float) -> int:
        """Forget the runs that ended more than `older_than` seconds ago; how many those were."""

    # --- conversations -----------------------------------------------------------------------

    @abstractmethod
    async def conversation(self, caller: str, conversation: str) -> ConversationRecord:
        """What is known of a conversation.

        Raises:
            UnknownConversationError: this caller has none of that id.
        """

    @abstractmethod
    async def conversations(
        self, caller: str, *, limit: int = 100, before: str | None = None
    ) -> list[ConversationRecord]:
        """The conversations of a caller, that of the newest run first. They are there until they are forgotten.

        Args:
            caller: whose.
            limit: how many at most.
            before: only those behind the one of that id: the last of the page before.

        Raises:
            UnknownConversationError: there is none `before`.
        """

    @abstractmethod
    async def items(self, caller: str, conversation: str, limit: int | None = None) -> list[bytes]:
        """The items of a conversation, the oldest first; with `limit` the latest so many.

        Raises:
            UnknownConversationError: this caller has none of that id.
        """

    @abstractmethod
    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        """Put `items` at the end of the conversation of a run that is going: all of them, side by side, or none.

        Raises:
            UnknownRunError: there is no such run.
            UnknownConversationError: it belongs to none.
            StaleOwnerError: `epoch` is not the present one, as of `append`.
            RunClosedError: it has ended: what it leaves is there.
        """

    @abstractmethod
    async def forget(self, caller: str, conversation: str) -> None:
        """Forget a conversation with its items and its runs. One that is not there is no error.

        Raises:
            ConversationBusyError: its last run has not ended.
        """

    # --- owners ------------------------------------------------------------------------------

    @abstractmethod
    async def claim(self, run_id: str, *, owner: str, lease: float, last: int | None = None) -> int:
        """Become the owner of a run; the epoch to append with.

        Where `owner` has the lease already, that is renewed, under the epoch that it has. So a claim
        may be repeated when its outcome is unknown.

        Args:
            run_id: the run.
            owner: names who claims it.
            lease: how many seconds it is theirs, unless they renew that.
            last: the last position of its log, where something was concluded from that.

        Raises:
            UnknownRunError: there is no such run.
            RunOwnedError: it has an owner whose lease lives.
            RunClosedError: it has ended.
            PositionConflictError: `last` is not the last position any more.
        """

    @abstractmethod
    async def renew(self, run_id: str, *, epoch: int, lease: float) -> None:
        """Keep the run for another `lease` seconds from now, also where the old lease ran out and nobody came.

        Raises:
            StaleOwnerError: somebody else took over.
            UnknownRunError: it is gone.
        """

    @abstractmethod
    async def let_go(self, run_id: str, *, epoch: int) -> None:
        """End the lease: anybody may claim the run from now on. Does nothing to one that is somebody else's, or gone."""

    @abstractmethod
    async def orphans(self, limit: int = 100) -> list[str]:
        """The ids of runs that are queued or running and have no owner whose lease lives, the oldest first."""

    # --- mail --------------------------------------------------------------------------------

    @abstractmethod
    async def tell(self, run_id: str, command: Command) -> int:
        """Put a command into the mail of a run; its number there. One with the same key and body is not put twice.

        Raises:
            UnknownRunError: there is no such run.
            RunClosedError: it has ended: nobody will read it.
            CommandConflictError: another command has that key.
        """

    @abstractmethod
    async def mail(self, run_id: str, after: int = 0) -> list[Command]:
        """The commands behind number `after`, at once; none for a run that is not there."""

    @abstractmethod
    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        """As `mail`, but waits for the first; none where the run ends, or is deleted. May be cancelled at any time."""

    # --- the engine --------------------------------------------------------------------------

    _was_checked = False
    _has_warned = False

    @abstractmethod
    async def check(self) -> list[str]:
        """Reach the engine, and see whether it keeps what `durability` promises; what may be lost, in sentences for people.

        The sentences go to the log as warnings, once.

        Raises:
            LogUnavailableError: it cannot be reached or used, and why.
            LogDamagedError: what is there is no store of ours.
        """

    async def check_once(self) -> None:
        """`check`, unless that was done before: called by every run that is about to be written here.

        Raises as `check`.
        """
        if not self._was_checked:
            await self.check()
            self._was_checked = True

    def _warn_once(self, sentences: list[str]) -> list[str]:
        """Log what `check` found, the first time, and give it back."""
        if not self._has_warned:
            self._has_warned = True
            for sentence in sentences:
                logger.warning("%s", sentence)
        return sentences
