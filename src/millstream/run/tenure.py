"""A process's hold on a run that others could take over: its record, its lease, its mail.

Rules of this file:

1. A run of a `RunStore` is claimed before anything of it is written, and written under the epoch that
   the claim gave. So two processes that go on with one run are told apart by the store, not by luck.
2. While it goes on, its lease is renewed and its mail is read. Whoever cannot renew goes on all
   the same: only the store may say that somebody else has taken over, and every append asks it.
3. Where somebody has, the run ends in this process at once, and writes not a word more: its log
   is theirs. `ActiveRun.leave_to_others` does that.
4. A run that pauses or ends is nobody's any more with that very event (`RunStore.append`), and one that is
   handed back is let go of: nobody waits for a lease to end.
5. Mail is looked at once more where the run has its output, before that is taken for its end, and once more
   behind its pause. So what was told before is followed: input is answered, and who is told to stop while it
   pauses ends. What is told while the end itself is written has no effect, and the log shows it: there is no
   `input.added`. Input for a run that pauses stays in its mail, or waits with it, for who goes on.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

from millstream.errors import (
    LogDamagedError,
    LogError,
    LogTruncatedError,
    PositionConflictError,
    RunClosedError,
    RunExistsError,
    RunOwnedError,
    StaleOwnerError,
    UnknownRunError,
    UserError,
)
from millstream.log.store import NewRun
from millstream.run import mail
from millstream.run.checkpoint import request_of

if TYPE_CHECKING:
    from millstream.log.store import Command, RunStore
    from millstream.run.active import ActiveRun

logger = logging.getLogger("millstream")

RENEWALS = 3
"""How often a lease is renewed in its time."""


class Tenure:
    """The hold of this process on one root run.

    Args:
        store: where the run is kept.
        lease: how long the run is this process's without a renewal, in seconds.
        owner: names this hold; one that claimed the run already goes on by its name.
        last: the last position of the run, where it stands in the store already; None for a new one.
    """

    def __init__(
        self, store: RunStore, *, lease: float, owner: str | None = None, last: int | None = None
    ) -> None:
        self.store = store
        self.epoch = 0
        """What the run is written under; 0 while it is not held."""
        self._lease = lease
        self._owner = owner or new_owner()
        self._last = last
        self._tasks: list[asyncio.Task[None]] = []

    async def begin(self, run: ActiveRun) -> None:
        """Claim the run, a new one once it is kept; take in what its mail says already, and hold it from here on.

        Raises:
            LogError: it cannot be had. Nothing was written then.
        """
        await self.store.check_once()
        if self._last is None:
            await self._create(run)
        self.epoch = await self.store.claim(run.run_id, owner=self._owner, lease=self._lease, last=self._last)
        self._follow(run, await self.store.mail(run.run_id, run.progress.heard), first=True)
        for work in (self._renew(run), self._listen(run)):
            task = run.loop.create_task(work)
            # As for the run's own task: a loop that is closed carelessly says nothing of ours.
            task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
            self._tasks.append(task)

    async def hear(self, run: ActiveRun) -> None:
        """Follow what was told by now, also where word of it has not come yet."""
        try:
            self._follow(run, await self.store.mail(run.run_id, run.progress.heard))
        except LogError as error:
            logger.warning("run %s: its mail could not be read: %s", run.run_id, error)

    async def holds_to_stop(self, run: ActiveRun) -> bool:
        """Whether the run, which has just paused, was told to stop before that was to be seen; it is held again then.

        Who tells it later finds that it waits, and ends it himself.
        """
        try:
            commands = await self.store.mail(run.run_id, run.progress.heard)
            if not any(command.kind == "cancel" for command in commands):
                return False
            self.epoch = await self.store.claim(
                run.run_id, owner=self._owner, lease=self._lease, last=run.position
            )
        except (RunOwnedError, PositionConflictError, RunClosedError):
            return False  # somebody goes on with it, and has its mail; or has ended it
        except LogError as error:
            logger.warning("run %s: its mail could not be read behind its pause: %s", run.run_id, error)
            return False
        self._follow(run, commands)
        return run.cancel_mode is not None

    def stop(self) -> None:
        """Hear of nothing more, and renew nothing: the run is about to end, to pause, or to be left."""
        for task in self._tasks:
            task.cancel()

    async def let_go(self, run: ActiveRun) -> None:
        """Let anybody go on with the run at once. One that has ended or pauses is let go of by its store."""
        if self.epoch:
            try:
                await self.store.let_go(run.run_id, epoch=self.epoch)
            except LogError as error:
                logger.warning(
                    "run %s: it could not be let go of, and its lease will end: %s", run.run_id, error
                )

    async def lost(self, run: ActiveRun) -> BaseException | None:
        """What says that the run is somebody else's by now; None where it is ours, as far as can be known."""
        try:
            await self.store.renew(run.run_id, epoch=self.epoch, lease=self._lease)
        except StaleOwnerError as error:
            return error
        except LogError:
            pass  # what is written tells
        return None

    async def _create(self, run: ActiveRun) -> None:
        progress, config = run.progress, run.config
        asked = NewRun(
            run_id=run.run_id,
            agent=progress.current_agent.name,
            request=request_of(progress),
            caller=config.caller,
            options={"streamed": run.streamed, "has_session": run.has_session},
            idempotency_key=config.idempotency_key,
        )
        kept = await self.store.create(asked)
        if kept.run_id != run.run_id:
            raise RunExistsError(
                f"The idempotency key {config.idempotency_key!r} has begun run {kept.run_id} already: read that, with "
                f'Runner.attach("{kept.run_id}", log=...).'
            )

    async def _renew(self, run: ActiveRun) -> None:
        clock = run.config.clock
        while True:
            await clock.sleep(self._lease / RENEWALS)
            try:
                await self.store.renew(run.run_id, epoch=self.epoch, lease=self._lease)
            except StaleOwnerError as error:
                run.stop_with(error)
                return
            except UnknownRunError:
                run.stop_with(
                    LogTruncatedError(
                        f"Run {run.run_id} is not in its store any more: it was deleted, or the store has lost its data."
                    )
                )
                return
            except LogError as error:
                logger.warning("run %s: its lease could not be renewed: %s", run.run_id, error)

    async def _listen(self, run: ActiveRun) -> None:
        while True:
            try:
                commands = await self.store.wait_for_mail(run.run_id, run.progress.heard)
            except LogError as error:
                logger.warning("run %s: its mail could not be read: %s", run.run_id, error)
                await run.config.clock.sleep(self._lease / RENEWALS)
                continue
            if not commands or run.is_done:
                return
            self._follow(run, commands)

    def _follow(self, run: ActiveRun, commands: Sequence[Command], *, first: bool = False) -> None:
        """Do what `commands` say. What cannot be done any more is passed over, with a line in the log.

        Args:
            run: the run.
            commands: what came.
            first: whether it came before the run goes on here.
        """
        for command in commands:
            if command.number <= run.progress.heard:
                continue
            try:
                [said] = mail.read([command], run.run_id)
                _do(run, said, first=first)
            except LogDamagedError as error:  # those behind it are still to be followed
                logger.error("run %s: %s. It is passed over", run.run_id, error)
            except UserError as error:
                logger.warning("run %s: command %d came too late: %s", run.run_id, command.number, error)
            run.progress.heard = command.number


def _do(run: ActiveRun, said: mail.Said, *, first: bool) -> None:
    if isinstance(said, mail.Cancel):
        run.cancel(said.mode)
    elif isinstance(said, mail.Send):
        # Behind a pause, the calls that waited are answered first: it is no use to have approved them else.
        waited = first and run.goes_on and run.attempt is None
        items = cast("list[Any]", said.items)
        if run.is_ending and run.progress.interruptions:
            run.steering.keep(items)
        else:
            run.send(items, "after_turn" if waited else said.when)
    elif isinstance(said, mail.Decide):
        decisions = run.progress.context_wrapper.decisions
        # A call may wait again that is the same in everything: what was decided before is of the past then.
        if said.key not in decisions.once and (first or said.key not in decisions.taken):
            decisions.decide(said.key, said.decision, always=said.always)


def new_owner() -> str:
    """A name that nobody else has."""
    return f"own_{secrets.token_hex(8)}"
