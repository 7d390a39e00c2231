"""A run that is under way: its log, its cancellation, its readers. The loop writes, all others look.

One `ActiveRun` belongs to one task, that of its loop. Everything else (the handle, readers,
tools that are running) refers to it; it refers to none of them strongly, so that dropping the
handle and the last reader is noticed at once.

A run ends in its own task, whoever asks for it, with one exception: where that task will take
no step any more (it was cancelled before its first, or its event loop was closed), `abandon`
ends it from outside.
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

from millstream import codec
from millstream.clock import SYSTEM_CLOCK
from millstream.errors import AgentsException, public_error
from millstream.event_loops import call_on, wake
from millstream.events import (
    CancelMode,
    Event,
    RawResponsesStreamEvent,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunStarted,
    Stamp,
    TerminalEvent,
)
from millstream.log.promise import Batch
from millstream.run.closing import Opened, keep
from millstream.run.readers import Readers

if TYPE_CHECKING:
    from millstream.config import RunConfig
    from millstream.log.promise import EventLog, Payload
    from millstream.run.state import RunProgress

logger = logging.getLogger("millstream")


class ActiveRun:
    """One run under way.

    Args:
        progress: the state that the loop changes.
        config: how the run was asked to be run.
        log: where its events go.
        streamed: whether the model is asked for a stream or for a response.
        loop: the loop that it runs on.
    """

    def __init__(
        self,
        progress: RunProgress,
        config: RunConfig,
        log: EventLog,
        *,
        streamed: bool,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.progress = progress
        self.config = config
        self.log = log
        self.streamed = streamed
        self.loop = loop
        nobody_left = weakref.WeakMethod(self.nobody_left)
        self._opened = Opened()
        self.readers = Readers(loop, lambda: (call := nobody_left()) and call(), config.clock)
        self.run_id = progress.run_id
        self.position = 0
        """The last position written."""
        self.written_bytes = 0
        self.terminal: TerminalEvent | None = None
        self.exception: BaseException | None = None
        """What ended the run, where it failed."""
        self.outcome_seen = False
        """Whether anybody was told of that exception."""
        self.log_error: BaseException | None = None
        """What the log said last when it did not take something."""
        self.lost_end: Batch | None = None
        """The end of the run, where its log could not take it."""
        self.cancel_mode: CancelMode | None = None
        self.task: asyncio.Task[None] | None = None
        self.began = False
        """Whether that task has taken its first step."""
        self._error_id: str | None = None
        """Names that exception in the log and to clients, who are told no more of it."""
        self._traceback: TracebackType | None = None
        self._interrupts: tuple[CancelMode, ...] = ("now",)
        """The modes in which a cancellation interrupts what the loop is doing."""
        self._has_handle = True
        self._abandoned = False
        self._done: set[asyncio.Future[None]] = set()

    # --- writing ---------------------------------------------------------------------------

    async def write(self, *events: Event) -> None:
        """Append `events` under one stamp. What a program could still change in them is encoded here."""
        payloads: list[Payload] = list(events)
        self._seal(payloads)
        await self._append(payloads, raw_only=False, size=0)

    async def write_model_events(self, payloads: list[Payload], *, raw_only: bool) -> None:
        """Append what one read of the model's socket brought."""
        size = sum([len(p) for p in payloads if p.__class__ is bytes])  # noqa: C419 (the faster form, per token)  # pyright: ignore[reportArgumentType]
        limit = self.config.ahead
        if isinstance(limit, int):
            # Typed events of a model of the user's own are encoded to be counted, and only here.
            size += sum(len(p.json) for p in payloads if isinstance(p, RawResponsesStreamEvent))
        await self._append(payloads, raw_only=raw_only, size=size)
        if isinstance(limit, int):
            await self.readers.have_taken_bytes(self.written_bytes - limit)

    async def _append(self, payloads: list[Payload], *, raw_only: bool, size: int) -> None:
        if not payloads or self._abandoned:
            return
        batch = Batch(self.position + 1, self._stamp(), payloads, raw_only, size)
        self.position = batch.last
        self.written_bytes += size
        try:
            await self.log.append(self.run_id, batch)
        except asyncio.CancelledError:
            # Written or not? Appends are idempotent by position: to repeat it is to know.
            await self.log.append(self.run_id, batch)
            self._written(batch)
            raise
        except BaseException as error:
            self.position = min(self.position, batch.first - 1)  # it was not written: the place is free
            self.log_error = error
            raise
        self._written(batch)

    def _written(self, batch: Batch) -> None:
        if not batch.raw_only:
            self._opened.see(batch.payloads, batch.stamp.time)

    def _seal(self, payloads: Sequence[Payload]) -> None:
        """Encode what a program could still change."""
        for event in payloads:
            if not isinstance(event, bytes) and event.type in _MUTABLE:
                codec.log_bad_fields(logger, event.seal(), event.type, self.run_id)

    def _stamp(self) -> Stamp:
        progress = self.progress
        return Stamp(
            run_id=self.run_id,
            agent=progress.current_agent.name,
            turn=progress.current_turn,
            time=self.config.clock.time(),
        )

    def _last_stamp(self) -> Stamp:
        """The stamp of the end, which is written whatever the clock does."""
        try:
            return self._stamp()
        except Exception:
            agent, turn = self.progress.current_agent.name, self.progress.current_turn
            time = SYSTEM_CLOCK.time() if self._opened.time is None else self._opened.time
            return Stamp(run_id=self.run_id, agent=agent, turn=turn, time=time)

    # --- the end ---------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether the run has ended: its terminal event is written, or lost with its log."""
        return self.terminal is not None

    async def complete(self) -> None:
        """Write that the run has its output."""
        await self._end(self._completed)

    async def fail(self, error: BaseException) -> None:
        """Write that the run failed, and keep `error` for whoever asks for the result."""
        await self._end(partial(self._failed, error))

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
            partial=self.progress.partial_text,
            usage=self._usage(),
        )

    async def end_cancelled(self) -> None:
        """Write that the run was stopped."""
        await self._end(self._cancelled)

    def abandon(self, error: BaseException | None = None) -> None:
        """End a run whose task will take no step any more. Does nothing to one that has ended.

        Args:
            error: what the run fails with; None for a run that is cancelled.
        """
        if self.terminal is not None:
            return
        self._abandoned = True  # what the task still writes while it is destroyed comes too late
        self._close_task()
        event, batch = self._last_batch(self._cancelled if error is None else partial(self._failed, error))
        try:
            self._seal(batch.payloads)
            append = self.log.append(self.run_id, batch)
            # Nothing can be awaited here. A log that takes its time will be without this end,
            # as after a crash.
            append.send(None)
            append.close()
        except StopIteration:
            self.position = batch.last
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
        if self.terminal is None and self.loop.is_closed():
            self.abandon()

    def _cancelled(self) -> RunCancelled:
        return RunCancelled(
            mode=self.cancel_mode or "now", partial=self.progress.partial_text, usage=self._usage()
        )

    async def _end(self, make: Callable[[], TerminalEvent]) -> None:
        if self._abandoned:
            return
        event, batch = self._last_batch(make)
        while True:
            try:
                self._seal(batch.payloads)
                # Idempotent by position, so an append that was interrupted is simply repeated.
                await self.log.append(self.run_id, batch)
                self.position = batch.last
                break
            except asyncio.CancelledError:
                continue
            except Exception:
                self._lose_end(batch)
                break
        self._ended(event)

    def _last_batch(self, make: Callable[[], TerminalEvent]) -> tuple[TerminalEvent, Batch]:
        """The end of the run, and how it goes into the log: behind its beginning, or what closes what is open."""
        progress, opened, stamp = self.progress, self._opened, self._last_stamp()
        cut_off = None
        try:
            cut_off = keep(progress, opened.answers)
        except (KeyboardInterrupt, GeneratorExit):
            raise  # the interpreter's own; whoever ends the run then comes by here again
        except BaseException:
            # What ended the run is what it ends with, however broken what it leaves behind.
            logger.exception("run %s: what it had said at its end could not be kept whole", self.run_id)
        event = make()
        events: list[Payload] = []
        if self.position == 0:
            events.append(RunStarted(agent=progress.current_agent.name, input=progress.input))
        cancelled = event.type == "run.cancelled"
        events += [*opened.closing(progress, cut_off, cancelled=cancelled, time=stamp.time), event]
        return event, Batch(self.position + 1, stamp, events)

    def _lose_end(self, batch: Batch) -> None:
        """The end cannot be written: readers in this process get it all the same, from `lost_end`."""
        logger.exception("run %s: its end could not be written to its log", self.run_id)
        self.lost_end = batch
        with contextlib.suppress(Exception):
            self.log.break_off(self.run_id)

    def _ended(self, event: TerminalEvent) -> None:
        self.terminal = event
        self.progress.turn = None
        self.readers.moved()
        for future in self._done.copy():
            with contextlib.suppress(RuntimeError):  # a loop that is closed takes no calls
                future.get_loop().call_soon_threadsafe(wake, future)
        self.log_unseen_failure()

    def raise_failure(self) -> None:
        """Raise what the run failed with, if it failed.

        Every caller gets the same exception, with the traceback that it had when the run
        ended: not with those of others that it was raised to.
        """
        if self.exception is not None:
            self.outcome_seen = True
            raise self.exception.with_traceback(self._traceback)

    def _usage(self) -> dict[str, Any]:
        try:
            return self.progress.context_wrapper.usage.to_dict()
        except Exception:  # a program may have put anything there
            logger.exception("run %s: its usage cannot be told", self.run_id)
            return {}

    async def wait_done(self) -> None:
        """Return when the run has ended. May be called from any loop."""
        self.look_after()
        future = asyncio.get_running_loop().create_future()
        self._done.add(future)  # before looking: an end that another thread writes meanwhile is not missed
        try:
            if self.terminal is None:
                await future
        finally:
            self._done.discard(future)

    # --- cancelling ------------------------------------------------------------------------

    def cancel(self, mode: CancelMode) -> None:
        """Ask the run to stop. A second call may only make it stop sooner; after the end it does nothing."""
        if self.terminal is not None:
            return
        if self.cancel_mode is None or _SOONER.index(mode) < _SOONER.index(self.cancel_mode):
            self.cancel_mode = mode
        call_on(self.loop, self._stop_if_due)

    def stops_after(self, *modes: CancelMode) -> bool:
        """Whether the run was asked to stop in one of `modes`."""
        return self.cancel_mode in modes

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
        # A task that has not taken its first step would never take it: it looks at
        # `cancel_mode` when it begins.
        if self.began and self.task is not None and self.cancel_mode in self._interrupts:
            self.task.cancel()

    # --- who is there ----------------------------------------------------------------------

    def handle_gone(self) -> None:
        """The handle was collected."""
        self._has_handle = False
        self.nobody_left()

    def nobody_left(self) -> None:
        """Apply `when_unread` if neither a handle nor a reader is left, and tell of an unseen failure."""
        if self._has_handle or len(self.readers):
            return
        if self.terminal is None:
            if self.config.when_unread == "cancel":
                self.cancel("now")
        else:
            self.log_unseen_failure()

    def log_unseen_failure(self) -> None:
        """Log that the run failed, unless somebody was told or still may ask."""
        if not (self._has_handle or len(self.readers)):
            self.log_failure()

    def log_failure(self) -> None:
        """Log, once, that the run failed, unless somebody was told. A client is told only the error's id."""
        if self.exception is None or self.outcome_seen:
            return
        self.outcome_seen = True
        code = (
            self.exception.code
            if isinstance(self.exception, AgentsException)
            else type(self.exception).__name__
        )
        logger.error(
            "run %s failed (%s, %s) and nobody asked for its result",
            self.run_id, code, self._error_id, exc_info=self.exception,
        )  # fmt: skip


_MUTABLE = frozenset(
    {
        "run.started",
        "run.completed",
        "run_item_stream_event",
        "tool.progress",
        "tool.partial",
        "guardrail.result",
        "input.added",
        "user.event",
    }
)
"""Events that carry values of the program's own; all others are made here and never change."""

_SOONER: tuple[CancelMode, ...] = ("now", "after_tool", "after_turn")
