"""Who runs the runs of a server: they belong to it, and to no request.

Rules of this file:

1. A run is in the store before anybody is told of it, and begun by the same way as one whose
   process died: by its record. So nothing is lost between the two.
2. What has no owner is looked for at the start and from time to time: runs of a process that died,
   and runs that were submitted by others. Those that wait for decisions are looked at too: the last one may
   have come by another door.
3. A server that stops begins nothing more, gives its runs some time, and hands back those that
   are not done by then: another process goes on with them.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millstream.agent import Agent
from millstream.clock import Clock, time_limit
from millstream.context import RunContextWrapper
from millstream.errors import LogError, RunStateError, ServerStoppingError, UnknownRunError
from millstream.log.store import RunRecord
from millstream.recovery import Recovery, submit
from millstream.run.input import check_input
from millstream.run.state import RunProgress, new_run_id
from millstream.server.answers import TOO_MANY_RUNS
from millstream.server.observed import Observed
from millstream.server.places import Places
from millstream.server.waiting import WaitingRuns

if TYPE_CHECKING:
    from collections.abc import Callable

    from millstream.log.store import ConversationRecord, RunStore
    from millstream.result import RunResultStreaming

logger = logging.getLogger("millstream")

LOOKS = 3
"""How often in the time of a lease runs are looked for that nobody owns; and once, in all, those that wait for nothing more."""
MAX_RUNS = 1000
"""Runs that one caller may have going at a time, unless the program says otherwise."""
SWEEP_EVERY = 300.0
"""Seconds between two looks for runs that ended longer ago than they are to be kept."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A run that somebody asks for."""

    agent: str
    """The name of its agent."""
    input: Any
    caller: str
    context: Any = None
    max_turns: int | None = 10
    idempotency_key: str | None = None
    conversation: str = ""
    """The id of the conversation that it goes on with; "" for none."""


class Supervisor:
    """Runs the runs of one server.

    Args:
        recovery: how a run of the store is begun, and gone on with.
        retention: seconds for which a run is kept behind its end; None for what the store does by itself.
        max_runs: runs that one caller may have going here at a time.
    """

    def __init__(
        self, recovery: Recovery, *, retention: float | None = None, max_runs: int = MAX_RUNS
    ) -> None:
        self._recovery = recovery
        self._retention = retention
        self.observed = Observed(recovery.log, recovery.run_config.clock)
        self._runs: set[RunResultStreaming] = set()
        self._waiting = WaitingRuns(recovery.log)
        self._places = Places(max_runs, TOO_MANY_RUNS)
        self._looking: asyncio.Task[None] | None = None
        self._watching: asyncio.Task[None] | None = None
        self._is_stopping = False

    @property
    def store(self) -> RunStore:
        """Where the runs are."""
        return self._recovery.log

    @property
    def is_stopping(self) -> bool:
        """Whether it begins nothing more."""
        return self._is_stopping

    @property
    def live_runs(self) -> int:
        """How many runs it runs."""
        return len(self._runs)

    async def start(self) -> None:
        """Reach the store, go on with what nobody owns, and look for such from now on.

        Raises:
            LogUnavailableError: the store cannot be reached.
            LogDamagedError: it is no store of ours.
        """
        await self.store.check()
        await self._recover()
        await self._resume_decided()
        self._looking = asyncio.create_task(self._look())
        self._watching = asyncio.create_task(self._watch())

    def refuse(self) -> None:
        """Begin nothing more, from here on."""
        self._is_stopping = True

    async def stop(self, patience: float) -> None:
        """Begin nothing more; give what runs `patience` seconds, then hand it back. Safe to call twice."""
        self.refuse()
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])
        tasks = [task for run in self._runs if (task := run.run_loop_task) is not None]
        if tasks and patience > 0:
            with contextlib.suppress(TimeoutError):
                async with time_limit(self._recovery.run_config.clock, patience, TimeoutError()):
                    await asyncio.wait(tasks)
        self._hand_back()
        if tasks:
            await asyncio.wait(tasks)
        if self._watching is not None:
            self._watching.cancel()

    def _hand_back(self) -> None:
        for run in self._runs:
            run.hand_back()

    async def _watch(self) -> None:
        await _EndOfLoop(self._hand_back)

    async def begin(self, order: Order) -> RunRecord:
        """Keep a run and begin it; its record, or that of the run which the order's key began before.

        Raises:
            ServerStoppingError: nothing is begun any more.
            InputItemError: its input is none that models take.
            IdempotencyError: the key was used for another request.
            ConversationBusyError: a run of its conversation is going.
            LogUnavailableError: the store does not take it.
            ProblemError: its caller has as many runs going as he may; also where the key began one of them.
        """
        if self._is_stopping:
            raise ServerStoppingError("This server is stopping and begins no runs. Ask again in a moment.")
        asked = self._recovery.run_config.clock.monotonic()
        progress = RunProgress(
            run_id=new_run_id(),
            input=check_input(order.input),
            current_agent=Agent(name=order.agent),
            context_wrapper=RunContextWrapper(context=order.context),
            max_turns=order.max_turns,
        )
        with self._places.place(order.caller):
            record = await submit(
                self.store,
                progress,
                caller=order.caller,
                idempotency_key=order.idempotency_key,
                conversation=order.conversation,
            )
            if record.run_id == progress.run_id:
                self._keep(await self._recovery.one(record.run_id, is_new=True), asked)
        return record

    async def session_of(self, conversation: ConversationRecord) -> Any:
        """What keeps the items of a conversation, as its runs have it."""
        last = conversation.run or RunRecord(
            run_id="",
            agent="",
            status="completed",
            caller=conversation.caller,
            conversation=conversation.id,
        )
        return await self._recovery.session(last)

    async def resume(self, run_id: str) -> bool:
        """Go on with a run that waited for decisions, with those that were made. False where it is left to others, or to later."""
        if self._is_stopping:
            return False  # who runs next finds the decisions in its mail
        try:
            run = await self._recovery.resume(run_id)
        except (RunStateError, UnknownRunError):
            return False
        self._keep(run)
        return run is not None

    def _keep(self, run: RunResultStreaming | None, asked: float | None = None) -> None:
        """Have `run` until it is over, in a place of its caller's, also where he has none left; and when it was `asked` for.

        A run that is recovered takes one, too: it costs what any other costs, and is his. It cannot be refused,
        as it goes on already, so that he may have more than he could begin; he begins nothing more until they end.
        """
        task = None if run is None else run.run_loop_task
        if run is None or task is None:
            return
        caller = run._run.config.caller  # pyright: ignore[reportPrivateUsage]
        self._runs.add(run)
        self._places.take(caller)
        tell_end = self.observed.run(run, asked)

        def over(_: object) -> None:
            tell_end()
            self._places.free(caller)
            self._runs.discard(run)

        task.add_done_callback(over)

    async def _look(self) -> None:
        clock: Clock = self._recovery.run_config.clock
        swept = clock.monotonic()
        for look in itertools.count(1):
            await clock.sleep(self._recovery.run_config.lease / LOOKS)
            try:
                await self._recover()
                if look % LOOKS == 0:
                    await self._resume_decided()
                if self._retention is not None and clock.monotonic() - swept > SWEEP_EVERY:
                    swept = clock.monotonic()
                    await self.store.sweep(self._retention)
            except LogError as error:
                logger.warning("runs that nobody owns could not be looked for: %s", error)
            except Exception:  # of a program's own: the next look may find it mended
                logger.exception("runs that nobody owns could not be looked for")

    async def _resume_decided(self) -> None:
        now = self._recovery.run_config.clock.monotonic()
        left = self._recovery.left
        for record in await self._waiting.decided(lambda run_id: left.has(run_id, now)):
            try:
                if not await self.resume(record.run_id):
                    left.add(record.run_id, self._recovery.run_config, quietly=True)
            except LogError:
                raise
            except Exception as error:  # of this program's making: the others are still to be gone on with
                self._recovery.put_off(record.run_id, error)

    async def _recover(self) -> None:
        # A loop that was blocked may come to this before it renews its leases.
        for run in await self._recovery.all(100, besides={run.run_id for run in self._runs}):
            self._keep(run)


class _EndOfLoop(asyncio.Future[None]):
    """Calls `told` where its event loop ends before anybody stopped the supervisor.

    An application that is mounted without its `lifespan` hears of no stop. When the program ends, asyncio cancels every task,
    and so what each waits for, before any of them goes on: it is the one moment at which a run can still be handed back.
    """

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self._told = told

    def cancel(self, msg: Any = None) -> bool:
        self._told()
        return super().cancel(msg)
