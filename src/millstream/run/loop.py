"""The loop: asks the model, runs the tools, hands over, until there is an output.

There is one, for `run`, `run_sync` and `run_streamed` alike. It writes to the log and
returns nothing: whoever wants to know something reads.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from operator import itemgetter
from typing import TYPE_CHECKING, Any, cast

from millstream.agent import Agent, ToolsToFinalOutputResult, refuse_unsupported
from millstream.clock import CURRENT_CLOCK, time_limit
from millstream.context import settle
from millstream.errors import (
    AgentsException,
    MaxTurnsExceeded,
    ModelBehaviorError,
    ModelRefusalError,
    UserError,
)
from millstream.events import AgentUpdatedStreamEvent, InputAdded, RunItemStreamEvent, RunResumed, RunStarted
from millstream.handoff import Handoff, HandoffInputData
from millstream.handoff_history import nest_handoff_history
from millstream.items import (
    HandoffCallItem,
    HandoffOutputItem,
    ItemHelpers,
    MessageOutputItem,
    ReasoningItem,
)
from millstream.output import text_of
from millstream.run.approvals import decided, judge, wait
from millstream.run.closing import message_item
from millstream.run.error_handlers import ErrorHandlers, as_written
from millstream.run.model_call import ModelCaller
from millstream.run.prepare import prepare
from millstream.run.steering import OVER, PAUSED
from millstream.run.tools import ToolRunner, answer, resolve
from millstream.tool import FunctionToolResult

if TYPE_CHECKING:
    from millstream.agent import StopAtTools
    from millstream.config import RunErrorHandlers
    from millstream.events import Event
    from millstream.handoff import HandoffInputFilter
    from millstream.run.active import ActiveRun
    from millstream.run.approvals import Judged
    from millstream.run.prepare import PreparedAgent
    from millstream.run.seams import Seams
    from millstream.run.turn import Turn

logger = logging.getLogger("millstream")

END_GRACE = 10.0
"""Seconds that those who take part in a run have for its end, where it failed or was cancelled."""

_TOO_LATE = f"What takes part in the run was not done with its end after {END_GRACE:g} s."

IGNORED_HANDOFF = "Multiple handoffs detected, ignoring this one."
"""What the history says of a second handoff in one response."""


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
        self._conversation = run.progress.conversation
        self._error_handlers = ErrorHandlers(error_handlers)
        seams.starting(run)
        self._progress = run.progress
        self._agent_has_started = False

    async def main(self) -> None:
        """Run to the end. Returns when the terminal event is written, or the pause, and never raises."""
        run = self._run
        run.began = True
        CURRENT_CLOCK.set(run.config.clock)  # in this task, and in those that are started here
        error = await self._to_the_end()
        if isinstance(error, asyncio.CancelledError):
            await run.end_cancelled()
        elif error is not None:
            await run.fail(error)
        elif not run.progress.interruptions:
            await run.complete()
        else:
            try:
                await run.pause()
            except Exception as refused:
                await run.fail(refused)

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
                run.is_ending = True
                if error is not None or not run.progress.interruptions:
                    run.make_whole()
                else:
                    run.steering.refuse(PAUSED)
                limit = None if error is None else END_GRACE
                async with time_limit(run.config.clock, limit, TimeoutError(_TOO_LATE)):
                    await self._seams.run_end(run, error)
        except BaseException as raised:
            late = self._outcome(raised)
            if error is None or run.stop_error is late:
                return late
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
        if run.cancel_mode is not None:
            raise asyncio.CancelledError
        await (self._seams.run_input(run) if progress.goes_on_with is None else self._seams.run_resumed(run))
        said = progress.turn  # what the model said before a pause: that turn is not over
        while True:
            if said is None:
                if progress.current_turn == progress.max_turns:
                    error = MaxTurnsExceeded(f"Max turns ({progress.max_turns}) exceeded")
                    await self._handle("max_turns", error)
                    return
                progress.current_turn += 1
            async with self._seams.turn_span(run):
                is_over = await self._take_turn_or_give_way(said)
            said = None
            if progress.interruptions and run.cancel_mode is not None:
                progress.interruptions = []  # to be stopped is not to wait
                raise asyncio.CancelledError
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
        if not run.goes_on:
            events.append(RunStarted(agent=progress.current_agent.name, input=progress.input))
        before = progress.goes_on_with
        if before is not None:
            if run.parent is None:  # what was decided is one for all runs of the tree
                events += decided(progress.context_wrapper.decisions)
            events.append(RunResumed(of=None if run.goes_on else before))
        await run.write(*events, AgentUpdatedStreamEvent(progress.current_agent))

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
            await self._hand_over(ready, turn, handoffs)
            return False
        if run.steering.has_any():
            return False  # what would be an output has more to answer
        if results and await self._tools_decide(ready, results):
            return True
        return not turn.calls() and await self._final_output(ready, turn)

    async def _ask(self, ready: PreparedAgent) -> Turn:
        """What the model says, given what there is by now."""
        run = self._run
        while items := run.take_input():
            await run.write(*(InputAdded(input=item.raw_item) for item in items))
            await self._seams.input_added(run, ready.agent, [item.to_input_item() for item in items])
        with run.stoppable(by=("now", "after_tool")), run.steering.interrupts(when=("now", "after_tool")):
            return await ModelCaller(run, self._seams, self._conversation, ready).call()

    # --- tools and handoffs ----------------------------------------------------------------

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

    async def _tools_decide(self, ready: PreparedAgent, results: list[FunctionToolResult]) -> bool:
        """Whether the tools' results are the output already (`Agent.tool_use_behavior`)."""
        decision = await _decide(ready.agent, self._progress.context_wrapper, results)
        if not decision.is_final_output:
            return False
        output = decision.final_output
        if ready.agent.output_type in (None, str):
            output = text_of(output)
        await self._set_output(ready.agent, output)
        return True

    async def _hand_over(self, ready: PreparedAgent, turn: Turn, requests: list[HandoffCallItem]) -> None:
        run, progress = self._run, self._progress
        if run.begins_nothing:
            raise asyncio.CancelledError
        first, *others = requests
        for request in others:
            progress.add(await answer(run, request.raw_item, IGNORED_HANDOFF))
        handoff = ready.handoffs[first.raw_item.name]
        input_filter = self._handoff_filter(handoff)
        target: Agent[Any] = await handoff.on_invoke_handoff(
            progress.context_wrapper, first.raw_item.arguments
        )
        if not isinstance(target, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(
                f"The handoff {handoff.tool_name!r} led to {type(target).__name__}: on_invoke_handoff returns an Agent."
            )
        refuse_unsupported(target)
        raw_output = ItemHelpers.tool_call_output_item(first.raw_item, handoff.get_transfer_message(target))
        item = HandoffOutputItem(ready.agent, raw_output, source_agent=ready.agent, target_agent=target)
        progress.add(item)
        await run.write(RunItemStreamEvent(item=item))
        await self._seams.handoff(run, ready.agent, target)
        if input_filter is not None:
            await self._filter_handoff(input_filter, turn)
        progress.current_agent = target
        self._agent_has_started = False  # it does in the next turn, also where it is the same agent
        await run.write(AgentUpdatedStreamEvent(target))

    def _handoff_filter(self, handoff: Handoff[Any, Any]) -> HandoffInputFilter | None:
        """What changes what the next agent sees: the handoff's filter, the run's, or nesting."""
        config, tracks = self._run.config, self._conversation.tracks
        input_filter = handoff.input_filter or config.handoff_input_filter
        if input_filter is not None:
            if tracks:
                raise UserError(
                    f"The handoff {handoff.tool_name!r} has an input filter, but the model's server keeps the "
                    "history of this run: what it has seen cannot be filtered. Leave out the filter, or "
                    "conversation_id, previous_response_id and auto_previous_response_id."
                )
            return input_filter
        nests = handoff.nest_handoff_history
        if not (config.nest_handoff_history if nests is None else nests):
            return None
        if tracks:
            logger.warning(
                "run %s: the handoff %r does not nest the history, which the model's server keeps",
                self._run.run_id,
                handoff.tool_name,
            )
            return None
        return partial(nest_handoff_history, history_mapper=config.handoff_history_mapper)

    async def _filter_handoff(self, input_filter: HandoffInputFilter, turn: Turn) -> None:
        progress = self._progress
        new = turn.first_and_after(progress.model_items)
        data = HandoffInputData(
            input_history=progress.input if isinstance(progress.input, str) else tuple(progress.input),
            pre_handoff_items=tuple(progress.model_items[: len(progress.model_items) - len(new)]),
            new_items=tuple(new),
            run_context=progress.context_wrapper,
        )
        filtered = await settle(input_filter(data))
        if not isinstance(filtered, HandoffInputData):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"Invalid input filter result: {filtered!r} is not a HandoffInputData")
        history = filtered.input_history
        progress.input = history if isinstance(history, str) else list(history)
        kept = filtered.input_items if filtered.input_items is not None else filtered.new_items
        progress.model_items = [*filtered.pre_handoff_items, *kept]
        progress.input_has = list(filtered.history_items)

    # --- the output ------------------------------------------------------------------------

    async def _final_output(self, ready: PreparedAgent, turn: Turn) -> bool:
        """Take the model's last message as the output. False where there is none, and it is asked again."""
        messages = [item.raw_item for item in turn.items if isinstance(item, MessageOutputItem)]
        if not messages and any(not isinstance(item, ReasoningItem) for item in turn.items):
            return False  # a hosted tool has run, and the model has not said what of it
        refusal = ItemHelpers.extract_refusal(messages[-1]) if messages else None
        if refusal is not None:
            await self._handle("model_refusal", ModelRefusalError(refusal))
            return True
        text = (ItemHelpers.extract_text(messages[-1]) if messages else None) or ""
        schema = ready.output_schema
        if schema is None or schema.is_plain_text():
            await self._set_output(ready.agent, text)
            return True
        if not text:
            nothing = ModelBehaviorError(f"The model gave no final output: it is to be a {schema.name()}.")
            return await self._handled("invalid_final_output", nothing)
        try:
            output = schema.validate_json(text)
        except ModelBehaviorError as error:
            await self._handle("invalid_final_output", error)
        else:
            await self._set_output(ready.agent, output)
        return True

    async def _set_output(self, agent: Agent[Any], output: Any) -> None:
        await self._seams.final_output(self._run, agent, output)
        self._progress.final_output = output

    async def _handle(self, kind: str, error: AgentsException) -> None:
        """Let the caller's handler turn `error` into an output, or raise it."""
        if not await self._handled(kind, error):
            raise error

    async def _handled(self, kind: str, error: AgentsException) -> bool:
        """Let the caller's handler turn `error` into an output. False where there is none, or it does not."""
        progress = self._progress
        result = await self._error_handlers.result(kind, error, progress)
        if result is None:
            return False
        agent = progress.current_agent
        text = as_written(agent, result.final_output)
        await self._seams.final_output(self._run, agent, result.final_output)
        if result.include_in_history:
            item = message_item(agent, text)
            progress.add(item)
            await self._run.write(RunItemStreamEvent(item=item))
        progress.final_output = result.final_output
        return True


async def _decide(
    agent: Agent[Any], context: Any, results: list[FunctionToolResult]
) -> ToolsToFinalOutputResult:
    behavior = agent.tool_use_behavior
    if behavior == "run_llm_again":
        return ToolsToFinalOutputResult(is_final_output=False)
    if behavior == "stop_on_first_tool":
        return ToolsToFinalOutputResult(is_final_output=True, final_output=results[0].output)
    if isinstance(behavior, dict):
        names = cast("StopAtTools", behavior).get("stop_at_tool_names", [])
        for result in results:
            if result.tool.name in names:
                return ToolsToFinalOutputResult(is_final_output=True, final_output=result.output)
        return ToolsToFinalOutputResult(is_final_output=False)
    if callable(behavior):
        decision: Any = await settle(behavior(context, results))
        if not isinstance(decision, ToolsToFinalOutputResult):
            raise UserError(
                f"Agent {agent.name!r}: tool_use_behavior returned {type(decision).__name__}, "
                "not a ToolsToFinalOutputResult."
            )
        return decision
    raise UserError(f"Invalid tool_use_behavior: {behavior!r}")


def _uncancel() -> bool:
    """Whether the task was asked to stop; from here on it was not, and goes on to its end."""
    task = asyncio.current_task()
    asked = False
    while task is not None and task.cancelling():
        task.uncancel()
        asked = True
    return asked


def _is_cancellation(error: BaseException) -> bool:
    return isinstance(error, asyncio.CancelledError)


def _named(error: BaseException) -> BaseException:
    """What a run fails with. A `CancelledError` would tell whoever awaits the run that he was cancelled himself."""
    if not _is_cancellation(error):
        return error
    named = AgentsException("Something that the run awaited was cancelled, but nobody cancelled the run.")
    named.__cause__ = error
    return named
