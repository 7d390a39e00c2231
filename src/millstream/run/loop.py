"""The loop: asks the model, runs the tools, hands over, until there is an output.

There is one, for `run`, `run_sync` and `run_streamed` alike. It writes to the log and
returns nothing: whoever wants to know something reads.
"""

from __future__ import annotations

import asyncio
import logging
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from millstream.about import CURRENT_RUN
from millstream.agent import refuse_unsupported
from millstream.clock import CURRENT_CLOCK
from millstream.errors import (
    AgentsException,
    MaxTurnsExceeded,
    PositionConflictError,
    RunClosedError,
    RunOwnedError,
    RunStateError,
    StaleOwnerError,
)
from millstream.events import AgentUpdatedStreamEvent, InputAdded, RunResumed, RunStarted
from millstream.items import ItemHelpers
from millstream.run.approvals import decided, judge, wait
from millstream.run.final_output import FinalOutput
from millstream.run.handing_over import hand_over
from millstream.run.model_call import ModelCaller
from millstream.run.prepare import prepare
from millstream.run.steering import OVER, PAUSED
from millstream.run.tools import ToolRunner, answer, resolve
from millstream.tool import FunctionToolResult

if TYPE_CHECKING:
    from millstream.config import RunErrorHandlers
    from millstream.events import Event
    from millstream.run.active import ActiveRun
    from millstream.run.approvals import Judged
    from millstream.run.prepare import PreparedAgent
    from millstream.run.seams import Seams
    from millstream.run.tenure import Tenure
    from millstream.run.turn import Turn

logger = logging.getLogger("millstream")

_TAKEN = (PositionConflictError, RunClosedError, RunOwnedError, StaleOwnerError)
"""What a store says of a run that others go on with, or have ended."""


class Loop:
    """Runs one run from its first event to its last.

    Args:
        run: where it writes, and what tells it to stop.
        seams: who takes part.
        error_handlers: the caller's handlers for errors that may become an output.
    """

    def __init__(
        self,
        run: ActiveRun,
        seams: Seams,
        error_handlers: RunErrorHandlers[Any] | None = None,
    ) -> None:
        self._run = run
        self._seams = seams
        self._final_output = FinalOutput(run, seams, error_handlers)
        seams.starting(run)
        self._progress = run.progress
        self._agent_has_started = False

    async def main(self) -> None:
        """Run to the end. Returns when the terminal event is written, or the pause, and never raises."""
        run = self._run
        run.began = True
        CURRENT_CLOCK.set(run.config.clock)  # in this task, and in those that are started here
        CURRENT_RUN.set(run.run_id)
        if run.tenure is not None and not await self._is_held(run.tenure):
            return
        error = await self._to_the_end()
        if run.tenure is not None:
            run.tenure.stop()  # before it is told as done: its store may be closed then
        await self._end(error)

    async def _is_held(self, tenure: Tenure) -> bool:
        """Take hold of the run, in a log that others share. Where that cannot be, it has failed, or is theirs."""
        run = self._run
        try:
            await self._take_hold(tenure)
        except _TAKEN as taken:
            run.leave_to_others(_gone_on(run.run_id, taken))
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | GeneratorExit):
                raise
            run.not_held = _named(error)
            await self._end(self._outcome(error))
        else:
            run.trunk.epoch = tenure.epoch
            return True
        tenure.stop()
        return False

    async def _take_hold(self, tenure: Tenure) -> None:
        """Take hold of the run. Whoever cancels it meanwhile does not interrupt that: the store has what it was asked for.

        It would be begun by others, who know nothing of the cancellation.
        """
        run = self._run
        holding = asyncio.create_task(tenure.begin(run))
        holding._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]  # as for the run's own task
        while not holding.done():
            try:
                await asyncio.wait([holding])
            except asyncio.CancelledError:
                _uncancel()
                run.cancel_mode = run.cancel_mode or "now"
        await holding

    async def _end(self, error: BaseException | None) -> None:
        """Write how the run ends, or that it pauses."""
        run = self._run
        if isinstance(error, StaleOwnerError):
            if run.tenure is not None:
                await run.tenure.let_go(run)  # who is told of it may want to go on with the run at once
            run.leave_to_others(error)
        elif isinstance(error, asyncio.CancelledError):
            await run.end_cancelled()
        elif error is not None:
            await run.fail(_audible(error))
        elif not run.progress.interruptions:
            await run.complete()
        elif run.cancel_mode is not None:  # while those who take part were told that it waits
            await run.end_cancelled()
        else:
            try:
                await run.pause()
            except Exception as refused:
                await self._end(refused)

    async def _to_the_end(self) -> BaseException | None:
        """All but the last event; what the run fails with, a `CancelledError` where it was cancelled."""
        run, error = self._run, None
        try:
            async with self._seams.run_span(run):
                try:
                    await self._main()
                except BaseException as raised:
                    error = self._outcome(raised)
                if error is None:
                    error = run.stop_error
                if error is not None and run.tenure is not None:
                    error = (
                        await run.tenure.lost(run) or error
                    )  # what takes part leaves a session to its owner
                run.is_ending = True
                if error is not None or not run.progress.interruptions:
                    run.closing.make_whole()
                else:
                    run.steering.refuse(PAUSED)
                if error is not None:
                    run.end_soon()
                await self._seams.run_end(run, error)
        except BaseException as raised:
            late = self._outcome(raised)
            if error is None or run.stop_error is late:
                return late
            if not _is_cancellation(late):
                logger.error("run %s: after it had ended: %r", run.run_id, late, exc_info=late)
        return error

    def _outcome(self, raised: BaseException) -> BaseException:
        """What the run fails with, of which `raised` tells; a `CancelledError` where it was cancelled."""
        if isinstance(raised, KeyboardInterrupt | GeneratorExit):
            raise raised  # the interpreter's own: no time for anything
        # Cancelled by `cancel`, or by a loop that shuts down; whatever else was raised then
        # came of the cancellation.
        run = self._run
        cancelled = _uncancel()
        if run.stop_error is not None:
            return run.stop_error
        if cancelled or (run.cancel_mode is not None and _is_cancellation(raised)):
            return asyncio.CancelledError()
        return _named(raised)

    async def _main(self) -> None:
        run, progress = self._run, self._progress
        await self._begin()
        if run.stop_error is not None:
            raise run.stop_error
        if run.cancel_mode is not None:
            raise asyncio.CancelledError
        await (self._seams.run_input(run) if progress.goes_on_with is None else self._seams.run_resumed(run))
        said = progress.turn  # what the model said before a pause: that turn is not over
        while True:
            if said is None:
                if progress.current_turn == progress.max_turns:
                    error = MaxTurnsExceeded(f"Max turns ({progress.max_turns}) exceeded")
                    await self._final_output.from_error("max_turns", error)
                    return
                progress.current_turn += 1
            async with self._seams.turn_span(run):
                is_over = await self._take_turn_or_give_way(said)
            said = None
            if progress.interruptions and run.cancel_mode is not None:
                progress.interruptions = []  # to be stopped is not to wait
                raise asyncio.CancelledError
            if is_over and run.tenure is not None:
                await run.tenure.hear(run)
            if progress.interruptions or (is_over and run.steering.ends(OVER)):
                return
            progress.final_output = None  # where the run had one, input came at the last moment
            await self._seams.turn_end(run)
            if run.cancel_mode is not None:
                raise asyncio.CancelledError
            if run.config.ahead == "turn":
                with run.stoppable(by=("now", "after_tool", "after_turn")):
                    await run.readers.have_taken(run.position)

    async def _begin(self) -> None:
        """Write how the run begins, or how it goes on."""
        run, progress = self._run, self._progress
        events: list[Event] = []
        if run.attempt is not None:
            events.append(run.attempt)
        elif not run.goes_on:
            events.append(RunStarted(agent=progress.current_agent.name, input=progress.input))
        if run.attempt is None and (run.goes_on or progress.goes_on_with is not None):
            if run.parent is None:  # what was decided is one for all runs of the tree
                events += decided(progress.context_wrapper.decisions)
            events.append(RunResumed(of=None if run.goes_on else progress.goes_on_with))
        agent = AgentUpdatedStreamEvent(progress.current_agent)
        await run.write_whole(*events, agent, has_said=progress.turn is not None, turns=progress.current_turn)

    # --- one turn --------------------------------------------------------------------------

    async def _take_turn_or_give_way(self, said: Turn | None) -> bool:
        """A turn, which is given up where input comes that was sent for this moment."""
        run = self._run
        try:
            is_over = await self._take_turn(said)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as raised:
            gave_way = run.steering.was_it()
            # What failed in that moment ends the run: a guardrail may have said no.
            is_wanted = run.cancel_mode is None and run.stop_error is None
            if not (gave_way and is_wanted and _is_cancellation(raised)):
                raise
            await run.give_up_turn()
            return False
        run.steering.was_it()  # a model may have swallowed it
        return is_over

    async def _take_turn(self, said: Turn | None) -> bool:
        """Ask the model once, unless it has `said` what it has to say, and do that. True when the run has its output."""
        run, progress = self._run, self._progress
        agent = progress.current_agent
        refuse_unsupported(agent)
        progress.context_wrapper.turn_input = ItemHelpers.input_to_new_input_list(progress.input)
        if said is None and not self._agent_has_started:
            self._agent_has_started = True
            await self._seams.agent_start(run, agent)
        ready = await prepare(agent, run)
        turn = said if said is not None else await self._ask(ready)
        results = await self._run_tools(ready, turn)
        if progress.interruptions:
            return False
        handoffs = turn.handoffs()
        if handoffs:
            if run.begins_nothing:
                raise asyncio.CancelledError
            await hand_over(run, self._seams, ready, turn, handoffs)
            self._agent_has_started = False  # it does in the next turn, also where it is the same agent
            return False
        if run.steering.has_any():
            return False  # what would be an output has more to answer
        if results and await self._final_output.from_tools(ready.agent, results):
            return True
        return not turn.calls() and await self._final_output.from_model(ready, turn)

    async def _ask(self, ready: PreparedAgent) -> Turn:
        """What the model says, given what there is by now."""
        run = self._run
        while items := run.take_input():
            await run.write(*(InputAdded(input=item.raw_item) for item in items))
            await self._seams.input_added(run, ready.agent, [item.to_input_item() for item in items])
        with run.stoppable(by=("now", "after_tool")), run.steering.interrupts(when=("now", "after_tool")):
            return await ModelCaller(run, self._seams, run.progress.conversation, ready).call()

    # --- tools -----------------------------------------------------------------------------

    async def _run_tools(self, ready: PreparedAgent, turn: Turn) -> list[FunctionToolResult]:
        """Run what the model called and nobody has answered yet; what waits for a decision is in `interruptions` then."""
        run, progress = self._run, self._progress
        raw_calls = turn.calls()
        if not raw_calls:
            return []
        answered = progress.answers_of(turn)
        open_calls = [(place, raw) for place, raw in enumerate(raw_calls) if place not in answered]
        calls, answers = await resolve(run, open_calls, ready.by_name)
        if run.begins_nothing:
            raise asyncio.CancelledError
        await self._seams.before_tools(run, calls)
        judged = await judge(run, ready.agent, calls)
        runner = ToolRunner(run, ready.agent, self._seams)
        await self._reject_before_asking(judged, runner)
        results = {
            place: FunctionToolResult(tool, item.output, item)
            for place, item in answered.items()
            if (tool := ready.by_name.get(raw_calls[place].name)) is not None
        }
        try:
            for place, text in answers.items():
                runner.items[place] = await answer(run, raw_calls[place], text)
            for call, text in judged.rejected:
                results[call.place] = await runner.reject(call, text)
            with run.steering.interrupts(when=("now",)):
                ran = await runner.run_all(judged.ready)
        finally:
            for item in runner.answers(judged.ready):
                progress.add(item)
        wait(run, ready.agent, judged.waiting, runner.paused)
        results |= {call.place: result for call, result in zip(judged.ready, ran, strict=True)}
        return [result for _, result in sorted(results.items(), key=itemgetter(0))]

    async def _reject_before_asking(self, judged: Judged, runner: ToolRunner) -> None:
        """Ask nobody about a call that is rejected anyway, where that is wished."""
        execution = self._run.config.tool_execution
        if execution is None or not execution.pre_approval_tool_input_guardrails:
            return
        for call in judged.waiting.copy():
            text = None if call.place in self._progress.waiting else await runner.rejection(call)
            if text is not None:
                judged.waiting.remove(call)
                judged.rejected.append((call, text))


def _uncancel() -> bool:
    """Whether the task was asked to stop; from here on it was not, and goes on to its end."""
    task = asyncio.current_task()
    asked = False
    while task is not None and task.cancelling():
        task.uncancel()
        asked = True
    return asked


def _gone_on(run_id: str, error: BaseException) -> RunStateError:
    """What is raised to who wanted to go on with a run that somebody else goes on with."""
    told = RunStateError(
        f"Run {run_id} is gone on with elsewhere, or was, since this state was taken of it ({error}): what was approved "
        "is done once. Read it with Runner.attach()."
    )
    told.__cause__ = error
    return told


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError)


def _named(error: BaseException) -> BaseException:
    """What a run fails with. A `CancelledError` would tell whoever awaits the run that he was cancelled himself."""
    if not _is_cancellation(error):
        return error
    named = AgentsException("Something that the run awaited was cancelled, but nobody cancelled the run.")
    named.__cause__ = error
    return named


def _audible(error: BaseException) -> BaseException:
    """`error`, as it can be told to who reads the run: there a `StopAsyncIteration` would be the end of a stream."""
    if not isinstance(error, StopAsyncIteration):
        return error
    told = RuntimeError("Something that the run awaited raised StopAsyncIteration.")  # as of a generator
    told.__cause__ = error
    return told
