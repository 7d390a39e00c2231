"""Recovery: runs whose process died go on here, from their last checkpoint, or end and say why they cannot.

Rules of this file:

1. A run is claimed before anything is done with it. Of two processes that recover one store, each
   run goes on in one.
2. What a run was asked for, and how far it came, is in the store. What cannot be there (agents, a
   context that is no JSON, sessions, hooks) comes from functions of the program, by the run's record.
3. Whatever is wrong with a run keeps it from going on for good, and ends it, failed, with a code. What
   is wrong with this program does not: a run of an agent that it does not have is left to who has that,
   and one for which a function of the program raises is tried again, later and later. Both are told in the log.
4. Before a function of the program is called, the run's mail says so: a process that dies of that leaves a
   trace, and the run is not tried for ever.
5. A tool that must not be started twice (`ToolStarted.once`), began, and left no result, is not
   started again: the run ends with the code "interrupted" (promise 12).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from millstream import metrics
from millstream.agent import Agent
from millstream.attach import AttachedRun
from millstream.config import RunConfig
from millstream.context import RunContextWrapper, settle
from millstream.errors import (
    AgentsException,
    AttemptsExhaustedError,
    LogDamagedError,
    LogError,
    LogUnavailableError,
    NotResumableError,
    RecoveryError,
    RunClosedError,
    RunOwnedError,
    RunStateError,
    UnknownAgentError,
    UnknownRunError,
    UserError,
)
from millstream.events import RunAttempt
from millstream.log.conversation import ConversationSession
from millstream.log.store import NewRun, RunRecord, RunStore
from millstream.result import RunResultStreaming
from millstream.run import mail
from millstream.run.checkpoint import request_of
from millstream.run.kept.context import context_from
from millstream.run.kept.form import agents_by_name, progress_from, read
from millstream.run.past import Past, past_of
from millstream.run.start import take_over_run
from millstream.run.state import Left, RunProgress
from millstream.run.tenure import new_owner

if TYPE_CHECKING:
    from millstream.config import RunErrorHandlers
    from millstream.run.active import ActiveRun
    from millstream.run.kept.document import StateDocument

logger = logging.getLogger("millstream")

T = TypeVar("T")

MAX_ATTEMPTS = 3
"""How often a run is begun, in all, unless the program says otherwise."""

MOST_PATIENCE = 300.0
"""Seconds, at most, between two tries to go on with a run for which a function of the program raised."""

MOST_LEFT = 10_000
"""Runs, at most, that a program remembers to let be."""

AgentOf: TypeAlias = "Agent[Any] | Callable[[RunRecord], Agent[Any] | Awaitable[Agent[Any] | None] | None]"
"""The agent that runs were started with, or what makes it of a run's record.

A function that has no such agent gives None, or raises an `UnknownAgentError`: the run is left to others. What else
it raises is taken for trouble that passes, and the run tried again later; a `NotResumableError` ends it.
"""

ContextOf: TypeAlias = Callable[[RunRecord], Any]
"""Makes the context object of a run of its record; may be async."""

SessionOf: TypeAlias = Callable[[RunRecord], Any]
"""Makes the session of a run of its record; may be async."""


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """How runs of a store are gone on with. See `Runner.recover`, whose arguments these are."""

    log: RunStore
    agent: AgentOf
    context_from: ContextOf | None = None
    session_from: SessionOf | None = None
    run_config: RunConfig
    hooks: Any = None
    error_handlers: RunErrorHandlers[Any] | None = None
    max_attempts: int = MAX_ATTEMPTS
    knows: Callable[[str], bool] | None = None
    """Whether there is an agent of that name, where a function that makes agents need not be asked."""
    left: LeftAlone = field(default_factory=lambda: LeftAlone(), init=False, repr=False)
    """Runs that it could not go on with, and that are others' to go on with, or its own some time later."""

    def __post_init__(self) -> None:
        # Here, and not where they are called: by then a run is claimed, and would end for this program's mistake.
        if not isinstance(self.agent, Agent) and not callable(self.agent):
            raise UserError(
                f"agent= of recover() is an Agent, or a function that makes one of a RunRecord, "
                f"not {type(self.agent).__name__}."
            )
        for name, makes in (("context_from", self.context_from), ("session_from", self.session_from)):
            if makes is not None and not callable(makes):
                raise UserError(
                    f"{name}= of recover() is a function of a RunRecord, not {type(makes).__name__}."
                )
        if self.max_attempts < 1:
            raise UserError(f"max_attempts={self.max_attempts} of recover(): a run is begun once at least.")

    async def all(self, limit: int, *, besides: Collection[str] = ()) -> list[RunResultStreaming]:
        """Go on with every run that nobody owns; the handles of those that were to be had.

        Args:
            limit: how many at most.
            besides: runs that go on here, and whose lease may have ended while nothing went on in this process.
        """
        handles: list[RunResultStreaming] = []
        orphans = await self.log.orphans(limit + len(self.left) + len(besides))  # these may be the oldest
        now = self.run_config.clock.monotonic()
        found = [each for each in orphans if each not in besides and not self.left.has(each, now)]
        for run_id in found[:limit]:
            try:
                handle = await self.one(run_id)
            except LogUnavailableError as error:
                if not handles:
                    raise
                logger.warning("run %s: it is left to whoever recovers next: %s", run_id, error)
                break
            if handle is not None:
                handles.append(handle)
        return handles

    async def one(self, run_id: str, *, is_new: bool = False) -> RunResultStreaming | None:
        """Go on with that run; None where somebody was faster, it has ended or is gone, or it is left alone.

        Args:
            run_id: the run.
            is_new: whether it is begun for somebody who waits for that: it is not left alone, but ends.
        """
        if not (is_new or await self._is_known(run_id)):
            return None
        owner = new_owner()
        try:
            epoch = await self.log.claim(run_id, owner=owner, lease=self.run_config.lease)
        except (RunClosedError, RunOwnedError, UnknownRunError):
            return None
        except LogDamagedError as error:  # nothing can be written to it, and the others are still to be had
            return self._cannot_be_had(run_id, error)
        trying = _Trying()
        try:
            claimed = await self._claimed(run_id, owner)
            claimed.trying = None if is_new else trying
            run = await self._go_on(claimed)
            self.left.forget(run_id)
            return RunResultStreaming(run)
        except _NotNow as left:
            await self._leave(run_id, epoch, trying)
            self.put_off(run_id, left.why)
            return None
        except UnknownRunError:  # deleted at this very moment
            return None
        except LogDamagedError as error:
            return self._cannot_be_had(run_id, error)
        except (LogUnavailableError, asyncio.CancelledError):  # which is no fault of the run's
            await self._leave(run_id, epoch, trying)
            raise

    async def _is_known(self, run_id: str) -> bool:
        """Whether the run is of an agent that there may be here: nothing is done to the run of another program."""
        if self.knows is None and not isinstance(self.agent, Agent):
            return True  # the function says so
        try:
            name = (await self.log.record(run_id)).agent
        except LogDamagedError:
            return True  # it is ended by whoever comes first
        except UnknownRunError:
            return False
        is_known = (
            self.knows(name) if self.knows is not None else name in agents_by_name(cast("Any", self.agent))
        )
        if not is_known:
            self._has_no_agent(run_id, f"There is no agent {name!r} here")
        return is_known

    def _has_no_agent(self, run_id: str, why: str) -> None:
        if self.left.add(run_id, self.run_config, quietly=True):
            logger.warning("run %s: it is left to a program that has its agent: %s", run_id, why)

    async def _leave(self, run_id: str, epoch: int, trying: _Trying) -> None:
        """Let go of a run which this program cannot go on with now."""
        with contextlib.suppress(LogError):
            await self._survived(run_id, trying)
            await self.log.let_go(run_id, epoch=epoch)

    def put_off(self, run_id: str, why: Exception) -> None:
        """Let a run be for some time, for that reason, which is told in the log."""
        if isinstance(why, UnknownAgentError):
            self._has_no_agent(run_id, str(why))
            return
        pause = self.left.add(run_id, self.run_config)
        logger.error(
            "run %s: what it needs to go on could not be made, which is tried again in %g s",
            run_id,
            pause,
            exc_info=why,
        )

    def _cannot_be_had(self, run_id: str, error: LogDamagedError) -> None:
        logger.error("run %s: it cannot be gone on with: %s", run_id, error)

    async def _claimed(self, run_id: str, owner: str) -> _Claimed:
        """What is known of a run that was claimed; where its record cannot be read, enough to end it."""
        try:
            return _Claimed(await self.log.record(run_id), owner)
        except LogDamagedError as error:
            damage = error
        try:
            last = (await self.log.info(run_id)).last
        except UnknownRunError:  # it is kept, and has not begun
            last = 0
        return _Claimed(
            RunRecord(run_id=run_id, agent="unknown", status="running", last=last, checkpoint_at=last),
            owner,
            damage=damage,
        )

    async def resume(self, run_id: str) -> RunResultStreaming | None:
        """Go on with a run that waits for decisions, with those that were made; None where it is left alone.

        Raises:
            UnknownRunError: there is no such run.
            RunStateError: it does not wait, or cannot be gone on with.
        """
        if not await self._is_known(run_id):
            return None
        waiting, trying = AttachedRun(run_id, self.log), _Trying()
        record = await waiting.record()
        try:
            if await self._try(run_id, 0 if record.checkpoint is None else _document(record).heard, trying):
                Past(died_asking=trying.died).check(run_id, self.max_attempts)
            agent = await _asked(_agent(self.agent, record))
            context = None if self.context_from is None else await _asked(_made(self.context_from, record))
            return await waiting.resume(
                agent,
                context=context,
                run_config=replace(self.run_config, log=None, caller=record.caller),
                hooks=self.hooks,
                error_handlers=self.error_handlers,
                session=await _asked(self.session(record)),
            )
        except AttemptsExhaustedError as error:
            self.put_off(run_id, error)  # it goes on waiting, and may be resumed where that does no harm
        except (Exception, asyncio.CancelledError) as error:
            with contextlib.suppress(LogError):
                await self._survived(run_id, trying)
            if not isinstance(error, _NotNow):
                raise
            self.put_off(run_id, error.why)
        return None

    async def _go_on(self, claimed: _Claimed) -> ActiveRun:
        """The run, which goes on; or ends, and says in its log why it cannot."""
        record = claimed.record
        progress = RunProgress(
            run_id=record.run_id,
            input="",
            current_agent=Agent(name=record.agent),
            context_wrapper=RunContextWrapper(context=None),
            max_turns=None,
            left=Left("running"),
        )
        try:
            # First: also where it cannot go on, its log is told of the attempt, and who acted.
            claimed.past = await past_of(self.log, record)
            progress.current_agent = Agent(name=claimed.past.agent or record.agent)
            if claimed.damage is not None:
                raise claimed.damage
            document = _document(record)
            if claimed.trying is not None and await self._try(record.run_id, document.heard, claimed.trying):
                claimed.past.died_asking = claimed.trying.died
                claimed.past.check(record.run_id, self.max_attempts)
            agent = await _asked(_agent(self.agent, record))
            if record.checkpoint is None and agent is not self.agent:
                # It was asked for by a name that the program may have given it, which makes the agent of that.
                document.agent = agent.name
            progress = progress_from(document, agents_by_name(agent), await self._context(record, document))
            claimed.past.check(record.run_id, self.max_attempts)
            session = await _asked(self.session(record))
            return self._take_over(claimed, agent, progress, session=session)
        except LogUnavailableError:
            raise
        except _NotNow as left:
            if claimed.trying is None:
                error = left.why
            elif claimed.trying.is_to_stop:  # which takes nothing of the program's
                return self._take_over(
                    claimed, progress.current_agent, progress, error=asyncio.CancelledError()
                )
            else:
                raise
        except Exception as raised:
            error = raised
        if not isinstance(error, RecoveryError | LogError):
            why = str(error) if isinstance(error, AgentsException) else repr(error)
            told = NotResumableError(f"Run {record.run_id} cannot go on: {why}")
            told.__cause__ = error
            error = told
        logger.error("run %s: it cannot be gone on with: %s", record.run_id, error)
        return self._take_over(claimed, progress.current_agent, progress, error=error)

    async def _try(self, run_id: str, heard: int, trying: _Trying) -> bool:
        """Leave word in the run's mail that its functions are asked now; whether processes have died of that before."""
        kinds = Counter(command.kind for command in await self.log.mail(run_id, heard))
        trying.is_to_stop = kinds["cancel"] > 0
        trying.died = max(kinds["try"] - kinds["leave"], 0)
        if trying.died < self.max_attempts and not self.left.has(run_id):  # else it has answered before
            await self.log.tell(run_id, mail.try_command())
            trying.is_told = True
        return trying.died > 0

    async def _survived(self, run_id: str, trying: _Trying) -> None:
        """Take that word back."""
        if trying.is_told:
            await self.log.tell(run_id, mail.leave_command())

    def _take_over(
        self,
        claimed: _Claimed,
        agent: Agent[Any],
        progress: RunProgress,
        *,
        session: Any = None,
        error: BaseException | None = None,
    ) -> ActiveRun:
        record, attempt = claimed.record, None
        if record.last:
            attempt = RunAttempt(number=claimed.past.attempts + 2, resumed_from=record.checkpoint_at)
            metrics.add(metrics.TAKEOVERS)
        config = replace(self.run_config, log=self.log, caller=record.caller, idempotency_key=None)
        return take_over_run(
            agent,
            progress,
            owner=claimed.owner,
            position=record.last,
            attempt=attempt,
            run_config=config,
            error_handlers=self.error_handlers,
            streamed=bool(record.options.get("streamed", True)),
            hooks=self.hooks,
            session=session,
            error=error,
        )

    async def _context(self, record: RunRecord, document: StateDocument) -> RunContextWrapper[Any]:
        if self.context_from is not None:
            return RunContextWrapper(context=await _asked(_made(self.context_from, record)))
        context = context_from(document.context, None, None)
        if context is None:
            raise NotResumableError(
                f"The context of run {record.run_id}, a {document.context.type}, is no JSON: pass context_from=, which "
                "makes it anew of the run's record."
            )
        return context

    async def session(self, record: RunRecord) -> Any:
        """The session of a run: of what the program makes them; else the conversation that the store has. None for none.

        Raises:
            NotResumableError: it had one of the program's own, and the program makes none.
        """
        if not record.options.get("has_session") and not record.conversation:
            return None
        if self.session_from is not None:
            return await _made(self.session_from, record)
        if record.conversation:
            return ConversationSession(self.log, record)
        raise NotResumableError(
            f"Run {record.run_id} has a session: pass session_from=, which makes it anew of the run's record."
        )


@dataclass
class _Claimed:
    """A run that is ours now."""

    record: RunRecord
    owner: str
    past: Past = field(default_factory=Past)
    damage: LogDamagedError | None = None
    """Why its record cannot be read, where that is so."""
    trying: _Trying | None = None
    """What its mail says of those who wanted to go on with it; None where it is begun for the first time, for somebody who waits."""


@dataclass
class _Trying:
    """What the mail of a run says of those who ask their program for what it needs to go on."""

    died: int = 0
    """How many did not survive that."""
    is_told: bool = False
    """Whether it says so of this process."""
    is_to_stop: bool = False
    """Whether the run was told to stop."""


class LeftAlone:
    """Runs that a program could not go on with, each with how often it tried, and until when it lets them be."""

    def __init__(self) -> None:
        self._tries: dict[str, tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._tries)

    def has(self, run_id: str, now: float = -math.inf) -> bool:
        """Whether the run is to be let be at that moment; at any, where none is given."""
        _, until = self._tries.get(run_id, (0, -math.inf))
        return now < until

    def add(self, run_id: str, config: RunConfig, *, quietly: bool = False) -> float:
        """Let a run be for some time, each time for longer; how many seconds. 0 where it is `quietly` done again."""
        tries, _ = self._tries.get(run_id, (0, 0.0))
        pause = min(config.lease * 2.0 ** min(tries, 20), max(MOST_PATIENCE, config.lease))
        self._tries[run_id] = tries + 1, config.clock.monotonic() + pause
        if len(self._tries) > MOST_LEFT:  # those of the longest ago may be over by now
            del self._tries[next(iter(self._tries))]
        return 0.0 if quietly and tries else pause

    def forget(self, run_id: str) -> None:
        """Let a run be no longer."""
        self._tries.pop(run_id, None)


class _NotNow(Exception):
    """The program does not have what a run needs, or fails to make it."""

    def __init__(self, why: Exception) -> None:
        super().__init__(str(why))
        self.why = why


async def _asked(made: Awaitable[T]) -> T:
    """What a function of the program makes for a run.

    Raises:
        RecoveryError: the run cannot go on, for good.
        LogUnavailableError: the store is away.
        _NotNow: it raised anything else.
    """
    try:
        return await made
    except (RecoveryError, LogUnavailableError):
        raise
    except Exception as error:
        raise _NotNow(error) from error


async def submit(
    log: RunStore,
    progress: RunProgress,
    *,
    caller: str = "",
    idempotency_key: str | None = None,
    conversation: str = "",
) -> RunRecord:
    """Keep a run that is to begin as `progress` says. See `Runner.submit`."""
    run = NewRun(
        run_id=progress.run_id,
        agent=progress.current_agent.name,
        request=request_of(progress),
        caller=caller,
        options={"streamed": True, "has_session": bool(conversation)},
        idempotency_key=idempotency_key,
        conversation=conversation,
    )
    return await log.create(run)


def _document(record: RunRecord) -> StateDocument:
    """How far the run came: its checkpoint, or what it was asked for."""
    kept = record.request if record.checkpoint is None else record.checkpoint
    if kept is None:
        raise NotResumableError(f"Nothing is kept of run {record.run_id} to go on from.")
    try:
        document = read(kept)
    except RunStateError as error:
        raise LogDamagedError(f"Run {record.run_id}: its checkpoint cannot be used: {error}") from None
    document.run_id = record.run_id
    return document


async def _made(make: Callable[[RunRecord], Any], record: RunRecord) -> Any:
    return await settle(make(record))


async def _agent(agent_of: AgentOf, record: RunRecord) -> Agent[Any]:
    made: Any = agent_of
    if not isinstance(made, Agent):
        made = await _made(made, record)
        if made is None:
            raise UnknownAgentError(f"There is no agent {record.agent!r} here.")
    if not isinstance(made, Agent):
        raise UserError(
            f"agent= of recover() gave {type(made).__name__} for run {record.run_id} of {record.agent!r}, not an Agent."
        )
    return made  # pyright: ignore[reportUnknownVariableType]
