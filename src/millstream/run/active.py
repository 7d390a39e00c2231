"""A run that is under way: its cancellation, its readers, its end. The loop writes, all others look.

One `ActiveRun` belongs to one task, that of its loop. Everything else (the handle, readers,
tools that are running) refers to it; it refers to none of them strongly, so that dropping the
handle and the last reader is noticed at once. What it writes goes by its `Writer`.

A run ends in its own task, whoever asks for it, with one exception: where that task will take
no step any more (it was cancelled before its first, or its event loop was closed), `abandon`
ends it from outside, and the runs nested in it before.

A run that pauses is done as far as this process goes: its task has ended and its readers come
to their end. Its log stays open, for the run that takes it up.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import weakref
from collections.abc import Callable, Coroutine, Generator, Sequence
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from millstream.errors import (
    AgentsException,
    BudgetExceeded,
    HandedBackError,
    InputGuardrailTripwireTriggered,
    LogFullError,
    MaxTurnsExceeded,
    OutputGuardrailTripwireTriggered,
    StaleOwnerError,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
    UserError,
    public_error,
)
from millstream.event_loops import call_on, wake
from millstream.events import (
    AgentUpdatedStreamEvent,
    CancelMode,
    Event,
    RawResponsesStreamEvent,
    RunAttempt,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    TerminalEvent,
)
from millstream.items import InputItem
from millstream.run.checkpoint import Checkpoints
from millstream.run.closing import Closing
from millstream.run.parts.budget import Ledger
from millstream.run.readers import Readers
from millstream.run.state import Left, Outcome
from millstream.run.steering import Steering, is_sooner
from millstream.run.writer import Trunk, Writer

if TYPE_CHECKING:
    from millstream.clock import Timer
    from millstream.config import RunConfig
    from millstream.items import TResponseInputItem
    from millstream.log.promise import Batch, EventLog, Payload
    from millstream.run.state import RunProgress
    from millstream.run.tenure import Tenure
    from millstream.tracing import Trace
    from millstream.usage import Usage

logger = logging.getLogger("millstream")

END_GRACE = 10.0
"""Seconds that those who take part in a run have for its end, where it failed or was cancelled."""


class ActiveRun:
    """One run under way.

    Args:
        progress: the state that the loop changes.
        config: how the run was asked to be run.
        log: where its events go; a nested run writes the log of its parent.
        streamed: whether the model is asked for a stream or for a response.
        loop: the loop that it runs on.
        parent: the run that it is nested in.
        call_id: the tool call of the parent that it answers.
        place: which of the calls of its turn that is, where the call is begun again by going on with this run.
        position: the last position of that log.
        goes_on: whether the log has the beginning of this very run.
        tenure: this process's hold on it, where its log is a store that others share; of a root run.
        has_session: whether it has one: for its record.
    """

    # How it stands: as every run begins.
    not_held: BaseException | None = None
    """Why this process has no hold on it, where it should: nothing is written."""
    attempt: RunAttempt | None = None
    """How it goes on, where that is in place of a process that died."""
    ends_at: int | None = None
    """The position behind which nothing of it comes, of this time; known before it is written."""
    terminal: TerminalEvent | None = None
    is_paused: bool = False
    """Whether it waits for decisions: whoever takes it up is another `ActiveRun`."""
    is_left: bool = False
    """Whether others go on with it, so that nothing more of it is written here."""
    exception: BaseException | None = None
    """What ended the run, where it failed."""
    outcome_seen: bool = False
    """Whether anybody was told of that exception."""
    lost_end: Batch | None = None
    """The end of the run, where its log could not take it."""
    cancel_mode: CancelMode | None = None
    stop_error: BaseException | None = None
    """What the run is to fail with, where something beside its loop found that."""
    trace: Trace | None = None
    """The trace that its spans go into: its own, or one that its caller had open."""
    task: asyncio.Task[None] | None = None
    began: bool = False
    """Whether that task has taken its first step."""
    is_ending: bool = False
    """Whether it is over for the loop, and only its end is to be told: that has `END_GRACE` when it is cancelled."""
    _patience: Timer | None = None
    """Runs out where those who take part in the run are not done with its end."""
    _error_id: str | None = None
    """Names that exception in the log and to clients, who are told no more of it."""
    _traceback: TracebackType | None = None
    _interrupts: tuple[CancelMode, ...] = ("now",)
    """The modes in which a cancellation interrupts what the loop is doing."""
    _has_handle: bool = True

    def __init__(
        self,
        progress: RunProgress,
        config: RunConfig,
        log: EventLog,
        *,
        streamed: bool,
        loop: asyncio.AbstractEventLoop,
        parent: ActiveRun | None = None,
        call_id: str = "",
        place: int | None = None,
        position: int = 0,
        goes_on: bool = False,
        tenure: Tenure | None = None,
        has_session: bool = False,
    ) -> None:
        self.progress = progress
        self.config = config
        self.streamed = streamed
        self.loop = loop
        self.run_id = progress.run_id
        self.parent = parent
        self.path: tuple[str, ...] = () if parent is None else (*parent.path, call_id)
        """The ids of the tool calls that lead from the root run to this one."""
        self.place = place
        self.name = self.run_id
        """Names it among all runs, also where it is begun again from its root's: what its calls are named by."""
        if parent is not None and place is not None:
            self.name = parent.name_of_call(place, call_id)
        self.tenure = tenure
        self.checkpoints = Checkpoints(self) if self.root.tenure is not None else None
        """What it can be gone on with from, where somebody may have to."""
        self.has_session = has_session
        self.ledger = Ledger.of(config.budget, None if parent is None else parent.ledger)
        """Where what it uses is counted, if it has a budget, or one of those that it is nested in."""
        self.children: set[ActiveRun] = set()
        """The runs nested in this one that have not ended."""
        self.trunk = Trunk(log, self.run_id, position) if parent is None else parent.trunk
        self.writer = Writer(
            self.trunk, progress, config.clock, None if parent is None else parent.run_id, self.path
        )
        if parent is not None:
            parent.children.add(self)
        if progress.turn is not None:  # it goes on in the middle of a turn
            self.writer.opened.take_up(progress)
        self.begins_with = self.writer.opened.calls()
        """The ids of the calls that have no output where its events begin."""
        nobody_left = weakref.WeakMethod(self.nobody_left)
        self.readers = Readers(loop, lambda: (call := nobody_left()) and call(), config.clock)
        interrupt = weakref.WeakMethod(self._interrupt)
        self.steering = Steering(progress.pending_input, lambda: bool((call := interrupt()) and call()))
        self.closing = Closing(progress, self.writer, self.steering)
        self.goes_on = goes_on
        self.begins_after = self.trunk.position
        """The position behind which its events stand, of this time that it runs."""
        self._done: set[asyncio.Future[None]] = set()

    @property
    def root(self) -> ActiveRun:
        """The run that all others of its tree are nested in: itself, where it is nested in none."""
        return self if self.parent is None else self.parent.root

    def name_of_call(self, place: int, call_id: str) -> str:
        """Names a call of the present turn, also where it is begun again."""
        # Not by the call id alone: some servers count it anew in every response.
        return f"{self.name}/{self.progress.current_turn}/{place}/{call_id}"

    # --- writing ---------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """The last position of the log that it writes."""
        return self.trunk.position

    @property
    def log_error(self) -> BaseException | None:
        """What the log said last when it did not take something."""
        return self.writer.error

    async def write(self, *events: Event) -> None:
        """Append `events` under one stamp. What a program could still change in them is encoded here."""
        await self.writer.write(events)

    async def write_whole(self, *events: Event, has_said: bool, turns: int) -> None:
        """As `write`, of events behind which all that came before is whole: with a checkpoint, where such are kept.

        Args:
            events: those.
            has_said: whether the model has answered in the present turn.
            turns: how many turns there were, this one included where the model has answered.
        """
        checkpoint = None
        if self.checkpoints is not None:
            self.checkpoints.take(has_said=has_said, turns=turns)
            checkpoint = self._checkpoint()
        await self.writer.write(events, checkpoint)

    async def write_closing(self, *events: Event, is_whole: bool = False) -> None:
        """Append what closes something that was opened.

        Args:
            events: those.
            is_whole: whether what was taken last as whole is so behind them.

        Raises:
            LogFullError: the log is full. It was told, and has room for what closes.
        """
        checkpoint = self._checkpoint() if is_whole and self.checkpoints is not None else None
        try:
            await self.writer.write(events, checkpoint)
        except LogFullError:
            await self.writer.write(events, checkpoint)
            raise

    def _checkpoint(self) -> Callable[[], bytes]:
        root = self.root.checkpoints
        assert root is not None
        return root.now()

    async def write_model_events(self, payloads: list[Payload], *, raw_only: bool) -> None:
        """Append what one read of the model's socket brought, and wait for readers that are too far behind."""
        size = sum([len(p) for p in payloads if p.__class__ is bytes])  # noqa: C419 (the faster form, per token)  # pyright: ignore[reportArgumentType]
        limit = self.config.ahead
        if isinstance(limit, int):
            # Typed events of a model of the user's own are encoded to be counted, and only here.
            size += sum(len(p.json) for p in payloads if isinstance(p, RawResponsesStreamEvent))
        await self.writer.write_model_events(payloads, raw_only=raw_only, size=size)
        if isinstance(limit, int):
            await self.root.readers.have_taken_bytes(self.trunk.written_bytes - limit)

    # --- the end ---------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether nothing more comes of it here: its end is written, or lost with its log; it is paused, or left to others."""
        return self.terminal is not None or self.is_paused or self.is_left

    def take_input(self) -> list[InputItem]:
        """What was sent to the run and waits, which is in its history from here on: as items, not yet written."""
        return self.progress.add_input(self.steering.take())

    async def complete(self) -> None:
        """Write that the run has its output."""
        await self._end(self._completed)

    async def fail(self, error: BaseException) -> None:
        """Write that the run failed, and keep `error` for whoever asks for the result."""
        await self._end(partial(self._failed, error))

    async def end_cancelled(self) -> None:
        """Write that the run was stopped."""
        await self._end(self._cancelled)

    async def pause(self) -> None:
        """Write that the run waits for decisions on its `interruptions`. Its history keeps what is open.

        One that was told to stop in this very moment ends behind that.

        Raises:
            LogError: the log does not take it: the run is not paused.
        """
        self.ends_at = self.trunk.position + 1
        try:
            checkpoints, checkpoint = self.checkpoints, None
            if checkpoints is not None and self.parent is None:
                checkpoints.take(has_said=True, turns=self.progress.current_turn)
                checkpoint = checkpoints.now(is_paused=True)
            await self.writer.write([RunPaused(interruptions=tuple(self.progress.interruptions))], checkpoint)
        except BaseException:
            self.ends_at = None
            raise
        is_to_stop = False
        try:
            is_to_stop = self.tenure is not None and await self.tenure.holds_to_stop(self)
        finally:
            if not is_to_stop:
                self._leave("paused")
                self.is_paused = True
                self._tell_all()
        if is_to_stop and self.tenure is not None:
            self.trunk.epoch = self.tenure.epoch
            await self.write(RunResumed(), AgentUpdatedStreamEvent(self.progress.current_agent))
            await self.end_cancelled()

    def leave_to_others(self, error: BaseException) -> None:
        """End in this process alone, with `error`: the run is another owner's, or was never to be had. Nothing is written."""
        for child in self.children.copy():
            child.leave_to_others(error)
        level = logging.INFO if isinstance(error, HandedBackError) else logging.WARNING
        logger.log(level, "run %s: it ends here, and nothing more of it is written: %s", self.run_id, error)
        self.exception = error
        self.outcome_seen = True  # told, as far as it has an outcome here
        self._traceback = error.__traceback__
        self.writer.closed = True
        self.progress.turn = None
        self.is_left = True
        self._tell_all()

    def _completed(self) -> RunCompleted:
        return RunCompleted(output=self.progress.final_output, usage=self._usage())

    def _failed(self, error: BaseException) -> RunFailed:
        with contextlib.suppress(Exception):  # an exception that is frozen, or has ideas of its own
            error.run_data = self.progress.error_details()  # pyright: ignore[reportAttributeAccessIssue]
        self.exception = error
        self._traceback = error.__traceback__
        public = public_error(error)
        self._error_id = f"err_{secrets.token_hex(8)}"
        logger.debug("run %s failed: %s (%s)", self.run_id, public.code, self._error_id, exc_info=error)
        return RunFailed(
            code=public.code,
            message=public.message,
            retryable=public.retryable,
            error_id=self._error_id,
            partial=self.closing.text(),
            usage=self._usage(),
        )

    def abandon(self, error: BaseException | None = None) -> None:
        """End a run whose task will take no step any more, and those nested in it. Does nothing to one that is done.

        Args:
            error: what the run fails with; None for a run that is cancelled.
        """
        if self.is_done:
            return
        for child in self.children.copy():
            child.abandon()
        self.writer.closed = True  # what the task still writes while it is destroyed comes too late
        self._close_task()
        event, batch = self._last_batch(self._cancelled if error is None else partial(self._failed, error))
        try:
            self.writer.seal(batch.payloads)
            if self.tenure is not None and not self.trunk.epoch and self.goes_on:
                self.not_held = self.not_held or AgentsException("It had not been claimed.")
            if self.not_held is not None:
                raise self.not_held
            append = self.trunk.log.append(self.trunk.run_id, batch, epoch=self.trunk.epoch)
            # Nothing can be awaited here. A log that takes its time will be without this end,
            # as after a crash.
            append.send(None)
            append.close()
            self.trunk.give_back(batch)
        except StopIteration:
            pass
        except BaseException as failure:
            self._lose_end(batch)
            if isinstance(failure, KeyboardInterrupt | SystemExit):
                self._ended(event)
                raise
        self._ended(event)

    def _close_task(self) -> None:
        """Let the task leave what it is in: it tells of its model call what there is to tell.

        Left to the collector, what its coroutine wants to await on its way out would be
        complained of on stderr.
        """
        if self.task is not None:
            with contextlib.suppress(BaseException):
                cast("Coroutine[Any, Any, None]", self.task.get_coro()).close()

    def look_after(self) -> None:
        """End the run if its loop was closed under it; for whoever is about to wait for something."""
        if not self.is_done and self.loop.is_closed():
            self.abandon()

    def _cancelled(self) -> RunCancelled:
        return RunCancelled(mode=self.cancel_mode or "now", partial=self.closing.text(), usage=self._usage())

    async def _end(self, make: Callable[[], TerminalEvent]) -> None:
        for child in self.children.copy():  # of a tool that would not stop and was left behind
            await child._end_with_parent()
        if self.writer.closed:
            return
        event, batch = self._last_batch(make)
        while True:
            try:
                self.writer.seal(batch.payloads)
                if self.not_held is not None:
                    raise self.not_held
                # Idempotent by position, so an append that was interrupted is simply repeated.
                await self.trunk.log.append(self.trunk.run_id, batch, epoch=self.trunk.epoch)
                break
            except asyncio.CancelledError:
                continue
            except StaleOwnerError as error:
                self.leave_to_others(error)
                return
            except Exception:
                self._lose_end(batch)
                break
        self._ended(event)

    async def _end_with_parent(self) -> None:
        """End as cancelled, as the parent ends: what its own loop still makes comes too late."""
        self.cancel_mode = "now"
        await self._end(self._cancelled)
        self.writer.closed = True
        if self.task is not None:
            self.task.cancel()

    def _last_batch(self, make: Callable[[], TerminalEvent]) -> tuple[TerminalEvent, Batch]:
        """The end of the run, and how it goes into the log: behind its beginning, or what closes what is open."""
        progress, writer, closing = self.progress, self.writer, self.closing
        closing.make_whole()
        events: list[Payload] = []
        stamp = writer.last_stamp()
        if not (writer.has_written or self.goes_on):
            events.append(RunStarted(agent=progress.current_agent.name, input=progress.input))
        events += closing.drop()
        event = make()
        events += [*closing.end(cancelled=event.type == "run.cancelled", time=stamp.time), event]
        batch = self.trunk.take(stamp, events)
        self.ends_at = batch.last
        return event, batch

    def _lose_end(self, batch: Batch) -> None:
        """The end cannot be written: readers in this process get it all the same, from `lost_end`."""
        if self.not_held is None:  # else it is no surprise, and whoever asks for the result is told why
            logger.exception("run %s: its end could not be written to its log", self.run_id)
        self.trunk.give_back(batch)
        self.lost_end = batch
        if self.parent is None:
            with contextlib.suppress(Exception):
                self.trunk.log.break_off(self.run_id)

    def _ended(self, event: TerminalEvent) -> None:
        self._leave(cast("Outcome", event.state))
        self.terminal = event
        self.progress.turn = None
        self._tell_all()
        self.log_unseen_failure()

    def _leave(self, outcome: Outcome) -> None:
        """Note in the run's progress, which a state is made of, how and where it was left."""
        if outcome != "paused":
            self.progress.waits_for_nothing()
        self.progress.left = Left(
            outcome,
            self.trunk.position,
            self.trunk.log if self.parent is None else None,
            is_durable=self.tenure is not None,
        )

    def _tell_all(self) -> None:
        """Tell whoever waits that it is done."""
        if self.parent is not None:
            if self.parent.checkpoints is not None:
                self.parent.checkpoints.child_is_over(self)
            self.parent.children.discard(self)
        if self._patience is not None:
            self._patience.cancel()
        self.readers.moved()
        for future in self._done.copy():
            with contextlib.suppress(RuntimeError):  # a loop that is closed takes no calls
                future.get_loop().call_soon_threadsafe(wake, future)

    def raise_failure(self) -> None:
        """Raise what the run failed with, if it failed.

        Every caller gets the same exception, with the traceback that it had when the run
        ended: not with those of others that it was raised to.
        """
        if self.exception is not None:
            self.outcome_seen = True
            raise self.exception.with_traceback(self._traceback)

    def use(self, usage: Usage, model: str) -> None:
        """Count what a call of `model` has used: for this run, and for those that it is nested in."""
        if self.ledger is not None:
            self.ledger.add(model, usage)
        self.progress.context_wrapper.usage.add(usage)  # which a nested run shares with its root
        run = self
        while run.parent is not None:
            run.used.add(usage)
            run = run.parent

    @property
    def used(self) -> Usage:
        """What the run has used, with those nested in it."""
        # That of a whole tree is shown to the program by the context, and may be changed there.
        return self.progress.context_wrapper.usage if self.parent is None else self.progress.used

    def _usage(self) -> dict[str, Any]:
        try:
            return self.used.to_dict()
        except Exception:  # a program may have put anything there
            logger.exception("run %s: its usage cannot be told", self.run_id)
            return {}

    async def wait_done(self) -> None:
        """Return when the run is done. May be called from any loop."""
        self.look_after()
        future = asyncio.get_running_loop().create_future()
        self._done.add(future)  # before looking: an end that another thread writes meanwhile is not missed
        try:
            if not self.is_done:
                await future
        finally:
            self._done.discard(future)

    # --- cancelling ------------------------------------------------------------------------

    def cancel(self, mode: CancelMode) -> None:
        """Ask the run to stop. A second call may only make it stop sooner; when it is done it does nothing."""
        if self.is_done:
            return
        if is_sooner(mode, self.cancel_mode):
            self.cancel_mode = mode
        call_on(self.loop, self._stop_if_due)

    def stop_with(self, error: BaseException) -> None:
        """End the run with `error`, whatever its loop is doing. For what goes on beside it, on the same event loop."""
        if self.is_done or self.stop_error is not None or self.cancel_mode == "now":
            return
        self.stop_error = error
        self._cancel_task()

    def hand_back(self) -> None:
        """Stop here, without an end: another process goes on with the run from its last checkpoint.

        Raises:
            UserError: its log is none that others share.
        """
        if self.root.tenure is None:
            raise UserError(
                "Only a run in a store can be handed back, RunConfig(log=SQLiteLog(...)) say: nobody else could go on."
            )
        self.root.stop_with(
            HandedBackError(f"Run {self.run_id} was handed back: another process may go on with it.")
        )

    @contextlib.contextmanager
    def stoppable(self, *, by: Sequence[CancelMode]) -> Generator[None]:
        """A stretch of the loop that a cancellation in one of the modes `by` interrupts."""
        previous, self._interrupts = self._interrupts, tuple(by)
        try:
            if self.cancel_mode in self._interrupts:
                raise asyncio.CancelledError
            yield
        finally:
            self._interrupts = previous

    def _stop_if_due(self) -> None:
        self.readers.moved()
        if self.cancel_mode in self._interrupts:
            self._cancel_task()

    def _cancel_task(self) -> bool:
        """Interrupt what the loop is doing; False where there is nothing to interrupt."""
        # A task that has not taken its first step would never take it: it looks at
        # `cancel_mode` when it begins.
        if not self.began or self.task is None:
            return False
        if not self.is_ending:
            return self.task.cancel()
        self.end_soon()
        return False

    def end_soon(self) -> None:
        """Give those who take part in the run `END_GRACE`, from the first call of this, to be done with its end."""
        if self._patience is None:
            self._patience = self.config.clock.call_later(END_GRACE, self._too_late)

    def _too_late(self) -> None:
        logger.error(
            "run %s: what takes part in it was not done with its end after %g s", self.run_id, END_GRACE
        )
        if self.task is not None:
            self.task.cancel()

    # --- steering --------------------------------------------------------------------------

    def send(self, items: Sequence[TResponseInputItem], when: CancelMode) -> None:
        """Give `items` to the model with its next call, which begins then. Safe in any thread.

        Raises:
            UserError: the run is over, or paused.
        """
        self.look_after()
        self.steering.put(items, when)
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self.loop.call_soon_threadsafe(self.steering.look)

    @property
    def begins_nothing(self) -> bool:
        """Whether no tool is to begin any more in this turn, and no handoff: the run stops, or input came."""
        return self.cancel_mode in ("now", "after_tool") or self.steering.is_due("now", "after_tool")

    async def give_up_turn(self) -> None:
        """Close what the present turn has open, in the history and in the log. The run goes on with another."""
        events = self.closing.give_up_turn()
        is_told = True
        try:
            await self.write_closing(*events)
        except LogFullError:
            raise  # told all the same: a full log has room for what closes
        except Exception:
            is_told = False
            raise
        finally:
            if is_told:
                self.closing.turn_is_closed()

    def _interrupt(self) -> bool:
        return self.cancel_mode is None and self._cancel_task()

    # --- who is there ----------------------------------------------------------------------

    def handle_gone(self) -> None:
        """The handle was collected."""
        self._has_handle = False
        self.nobody_left()

    def nobody_left(self) -> None:
        """Apply `when_unread` if neither a handle nor a reader is left, and tell of an unseen failure."""
        if self._has_handle or len(self.readers):
            return
        if not self.is_done:
            if self.config.when_unread == "cancel":
                self.cancel("now")
        else:
            self.log_unseen_failure()

    def log_unseen_failure(self) -> None:
        """Log that the run failed, unless somebody was told or still may ask."""
        if not (self._has_handle or len(self.readers)):
            self.log_failure(" and nobody asked for its result")

    def log_failure(self, besides: str = "") -> None:
        """Log, once, that the run failed, unless somebody was told. A client is told only the error's id."""
        if self.exception is None or self.outcome_seen:
            return
        self.outcome_seen = True
        code = (
            self.exception.code
            if isinstance(self.exception, AgentsException)
            else type(self.exception).__name__
        )
        level = logging.WARNING if isinstance(self.exception, _OWN_LIMITS) else logging.ERROR
        logger.log(
            level, "run %s failed (%s, %s)%s",
            self.run_id, code, self._error_id, besides, exc_info=self.exception,
        )  # fmt: skip


_OWN_LIMITS = (
    MaxTurnsExceeded,
    BudgetExceeded,
    InputGuardrailTripwireTriggered,
    OutputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)
"""What ends a run as its program wished: no fault of anybody's."""
