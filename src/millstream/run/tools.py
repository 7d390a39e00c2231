"""The tools of one turn: run side by side, each result in the log when it exists.

Rules of this file:

1. Every call gets exactly one output item, whatever becomes of it: also a tool that was
   cancelled, timed out or raised. The history stays valid for the next call. A call is known
   by its place among the calls of its turn: some servers use one call id for several.
2. Items stand in the log in the order in which tools end; the history has them in the order
   of the calls.
3. The first error that ends the run cancels the other tools. A tool that will not be
   cancelled is waited for `GRACE` seconds, then left behind with a warning; one that runs an
   agent as much longer as that agent's own tools are waited for.
4. After `cancel("after_tool")` no tool begins; those that run end by themselves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from millstream.context import ToolContext
from millstream.errors import (
    AgentsException,
    ModelBehaviorError,
    ToolFailedError,
    ToolTimeoutError,
)
from millstream.event_loops import wake
from millstream.events import RunItemStreamEvent, ToolFinished, ToolStarted
from millstream.items import ItemHelpers, ToolCallOutputItem
from millstream.output import text_of
from millstream.run.link import CallLink
from millstream.tool import FunctionTool, FunctionToolResult, invoke_function_tool

if TYPE_CHECKING:
    from openai.types.responses import ResponseFunctionToolCall

    from millstream.agent import Agent
    from millstream.clock import Clock
    from millstream.events import Event
    from millstream.run.active import ActiveRun
    from millstream.run.seams import Seams
    from millstream.run.state import RunProgress
    from millstream.tool import Tool

logger = logging.getLogger("millstream")

GRACE = 2.0
"""Seconds that a cancelled tool has to stop."""

CANCELLED_OUTPUT = "The tool call was cancelled before it finished."
"""What the history says of a call that was stopped."""

FAILED_OUTPUT = "The tool failed."
"""What the history says of a call whose exception ends the run."""


@dataclass(frozen=True)
class ToolCall:
    """A call of the model, and the tool that answers to it."""

    place: int
    """Which of the calls of its turn it is, from 0."""
    raw: ResponseFunctionToolCall
    tool: FunctionTool
    once: bool = False
    """Whether it is not begun again where it leaves no result as its process dies."""


class ToolFailure(Exception):
    """Wraps the exception of a tool on its way out of the tool's task, so that its class cannot matter."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self.error = error


async def resolve(
    run: ActiveRun, calls: Iterable[tuple[int, ResponseFunctionToolCall]], tools: Mapping[str, Tool]
) -> tuple[list[ToolCall], dict[int, str]]:
    """Find the tool of each call, which comes with its place; answers for the calls that have none, by their place.

    Raises:
        ModelBehaviorError: an unknown tool, where the policy is to raise.
    """
    found: list[ToolCall] = []
    answers: dict[int, str] = {}
    for place, call in calls:
        tool = tools.get(call.name)
        if isinstance(tool, FunctionTool):
            found.append(ToolCall(place, call, tool, once=tool.retry == "never"))
        elif run.config.tool_not_found_behavior == "return_error_to_model":
            message = f"Tool '{call.name}' not found."
            answers[place] = await run.config.format_tool_error(
                kind="tool_not_found",
                tool_name=call.name,
                call_id=call.call_id,
                default_message=message,
                run_context=run.progress.context_wrapper,
            )
        else:
            raise ModelBehaviorError(f"Tool {call.name} not found in agent {run.progress.current_agent.name}")
    return found, answers


async def answer(run: ActiveRun, call: ResponseFunctionToolCall, output: Any) -> ToolCallOutputItem:
    """Write `output` as the answer to `call`, without a tool having run."""
    item = output_item(run.progress.current_agent, call, output)
    await run.write(RunItemStreamEvent(item=item))
    return item


def output_item(
    agent: Agent[Any], call: ResponseFunctionToolCall, output: Any, tool: FunctionTool | None = None
) -> ToolCallOutputItem:
    """The item that answers `call` with `output`, which `tool` gave, if any did."""
    raw_item = ItemHelpers.tool_call_output_item(call, output)
    return ToolCallOutputItem(agent, raw_item, output, tool_origin=tool.tool_origin if tool else None)


class ToolRunner:
    """Runs the tool calls of one turn.

    Args:
        run: the run that they belong to.
        agent: the agent that called them.
        seams: who takes part.
    """

    def __init__(self, run: ActiveRun, agent: Agent[Any], seams: Seams) -> None:
        self._run = run
        self._agent = agent
        self._seams = seams
        limit = run.config.tool_execution.max_function_tool_concurrency if run.config.tool_execution else None
        self._slots = asyncio.Semaphore(limit) if limit else None
        self._began: dict[int, float] = {}
        """When the calls began that have not ended, by place."""
        self._stopping = False
        self._stopped = False
        self._unwritten: set[int] = set()
        """The places of calls that run, or have run, and whose output is not in the log."""
        self.items: dict[int, ToolCallOutputItem] = {}
        """Output items so far, by the place of the call."""
        self.paused: dict[int, RunProgress] = {}
        """The runs that are paused inside of a call, by its place: that call has no output yet."""

    async def run_all(self, calls: Sequence[ToolCall]) -> list[FunctionToolResult]:
        """Run `calls` side by side and return their results in the order of the calls.

        Raises:
            Exception: what the first failing tool raised; the others are cancelled.
            CancelledError: the run is to stop, and not every call has a result.
        """
        if not calls:
            return []
        self._unwritten = {call.place for call in calls}
        tasks = [asyncio.create_task(self._run_one(call)) for call in calls]
        for task in tasks:
            task.add_done_callback(look_at)
            # As for the run's own task: a loop that is closed carelessly says nothing of ours.
            task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            failure = _failure(tasks)  # there already, whoever cancels
            await self._stop(tasks, calls)
            if not isinstance(failure, Exception):  # none, or one that ends the program and not just the run
                raise
            raise failure  # noqa: B904  # it has a cause of its own
        failure = _failure(tasks)
        if failure is None and not any(task.cancelled() for task in tasks):
            return [task.result() for task in tasks]
        await self._stop(tasks, calls)
        raise failure or asyncio.CancelledError

    def answers(self, calls: Sequence[ToolCall]) -> list[ToolCallOutputItem]:
        """The answers to all calls in their order; to one of `calls` that has none, that it was cancelled.

        One in which a run is paused has none, and gets none.
        """
        for call in calls:
            if call.place not in self.items and call.place not in self.paused:
                self.items[call.place] = output_item(self._agent, call.raw, CANCELLED_OUTPUT, call.tool)
        return [item for _, item in sorted(self.items.items())]

    async def rejection(self, call: ToolCall) -> str | None:
        """What `call` would be answered with in its tool's place; None where the tool may begin.

        Raises:
            Exception: what those raise who take part in the run.
        """
        context, link = self._context(call)
        try:
            return await self._seams.tool_input(self._run, context, call.tool)
        finally:
            await link.end()

    async def reject(self, call: ToolCall, text: str) -> FunctionToolResult:
        """Answer `call` with `text`, and do not run it."""
        item = self.items[call.place] = output_item(self._agent, call.raw, text, call.tool)
        await self._run.write(RunItemStreamEvent(item=item))
        return FunctionToolResult(tool=call.tool, output=text, run_item=item)

    async def _run_one(self, call: ToolCall) -> FunctionToolResult:
        async with self._slots or contextlib.nullcontext():
            # One that waited for its turn does not begin behind one that has failed.
            if self._stopping or self._run.begins_nothing:
                raise asyncio.CancelledError
            return await self._call(call)

    async def _call(self, call: ToolCall) -> FunctionToolResult:
        run, raw, tool = self._run, call.raw, call.tool
        context, link = self._context(call)
        item: ToolCallOutputItem | None = None
        failure: BaseException | None = None
        output: Any = None
        try:
            async with self._seams.tool_span(run, context):
                output = await self._work(call, context, link)
                if link.paused is None:
                    item = self.items[call.place] = output_item(self._agent, raw, output, tool)
                    self._seams.tool_answered(run, context, output)
                    if call.place in self._began:
                        await self._seams.tool_end(run, context, tool, output)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            if isinstance(error, asyncio.CancelledError) and self._is_cancelled():
                await link.end()
                raise
            # Whatever else it is: also a cancellation that nobody but the tool asked for.
            failure = error
        await link.end()
        if self._stopped:  # it would not be cancelled, was answered for, and comes too late
            raise asyncio.CancelledError
        if failure is None and link.paused is not None:
            self.paused[call.place] = link.paused
            await run.write_closing(*self._finished(call, None, is_paused=True))
            return FunctionToolResult(tool, None, None, link.paused.interruptions, link.agent_run_result)
        if item is None:
            item = self.items[call.place] = output_item(self._agent, raw, FAILED_OUTPUT, tool)
            finished = self._finished(call, failure)
        else:
            finished = self._finished(call, context.failure)
            self._log_failure(call, context.failure)
        self._unwritten.discard(call.place)
        if run.checkpoints is not None:
            written = {place: each for place, each in self.items.items() if place not in self._unwritten}
            run.checkpoints.answered(written, self.paused)
        await run.write_closing(*finished, RunItemStreamEvent(item=item), is_whole=True)
        if failure is not None:
            self._stopping = True
            # What others raise who take part in the run is theirs, and not the tool's.
            error = failure if isinstance(failure, Exception) else as_run_error(tool, failure)
            raise ToolFailure(error) from failure
        return FunctionToolResult(tool, output, item, [], link.agent_run_result)

    async def _work(self, call: ToolCall, context: ToolContext[Any], link: CallLink) -> Any:
        """What the call is answered with: by its tool, or by one who takes part in the run and does not let it begin.

        None where a run is paused inside of the tool, which has no output yet.
        """
        run, tool, seams = self._run, call.tool, self._seams
        goes_on = call.place in run.progress.nested  # behind a pause inside of it
        answer = None if goes_on else await seams.tool_input(run, context, tool)
        if answer is not None:
            return answer
        await run.write(ToolStarted(call_id=call.raw.call_id, name=tool.name, once=call.once))
        self._began[call.place] = run.config.clock.monotonic()
        link.begin()
        if not goes_on:
            await seams.tool_start(run, context, tool)
        try:
            output = await invoke_function_tool(tool, context, call.raw.arguments)
        except AgentsException:
            raise
        except Exception as error:
            raise as_run_error(tool, error) from error
        return None if link.paused is not None else await seams.tool_output(run, context, tool, output)

    def _log_failure(self, call: ToolCall, failure: BaseException | None) -> None:
        """Say what went wrong in a tool: neither the model nor a client is told."""
        if failure is not None and not isinstance(failure, ModelBehaviorError):
            run_id, name = self._run.run_id, call.tool.name
            logger.info(
                "run %s: the tool %s failed (call %s)", run_id, name, call.raw.call_id, exc_info=failure
            )

    def _is_cancelled(self) -> bool:
        """Whether somebody wants the tools to stop: the run, or whoever cancels the run's own task."""
        task = self._run.task
        return self._stopping or (task is not None and task.cancelling() > 0)

    def _finished(
        self, call: ToolCall, failure: BaseException | None, *, is_paused: bool = False
    ) -> list[Event]:
        """The end of the tool, if it has begun."""
        if call.place not in self._began:
            return []
        status, code = ("paused", None) if is_paused else _status(failure)
        ms = (self._run.config.clock.monotonic() - self._began.pop(call.place)) * 1000
        return [
            ToolFinished(
                call_id=call.raw.call_id, name=call.tool.name, status=status, code=code, ms=round(ms, 3)
            )
        ]

    def _context(self, call: ToolCall) -> tuple[ToolContext[Any], CallLink]:
        """The context of `call`, and what ties it to the run."""
        run, raw = self._run, call.raw
        context = ToolContext.from_agent_context(
            run.progress.context_wrapper,
            raw.call_id,
            tool_call=raw,
            agent=self._agent,
            run_config=run.config,
            idempotency_key=run.name_of_call(call.place, raw.call_id),
        )
        link = context._link = CallLink(run, call)  # pyright: ignore[reportPrivateUsage]
        return context, link

    async def _stop(self, tasks: Sequence[asyncio.Task[Any]], calls: Sequence[ToolCall]) -> None:
        """Cancel what still runs, and wait for it, but not for ever."""
        self._stopping = True
        for task in tasks:
            task.cancel()
        # A run that is nested in this one waits for its own tools, and is waited for.
        pending = await wait_bounded(tasks, GRACE * _levels(self._run), self._run.config.clock)
        self._stopped = True
        for task, call in zip(tasks, calls, strict=True):
            if task in pending:
                logger.warning(
                    "run %s: tool %s did not stop when it was cancelled and is left behind",
                    self._run.run_id,
                    call.tool.name,
                )


def _levels(run: ActiveRun) -> int:
    """How many runs deep `run` is as it stands: 1 where no run is nested in it."""
    return 1 + max(map(_levels, run.children), default=0)


def _failure(tasks: Iterable[asyncio.Task[Any]]) -> BaseException | None:
    """What one of `tasks` has raised that is done, if one did."""
    for task in tasks:
        raised = task.exception() if task.done() and not task.cancelled() else None
        if raised is not None:
            return raised.error if isinstance(raised, ToolFailure) else raised
    return None


def _status(failure: BaseException | None) -> tuple[str, str | None]:
    """How a tool ended. A failure that the model is told of as a result is a failure all the same."""
    if failure is None:
        return "ok", None
    if isinstance(failure, ToolTimeoutError):
        return "timeout", failure.code
    if isinstance(failure, asyncio.CancelledError):
        return "error", "tool_cancelled_itself"
    return "error", "tool_failed"


def as_run_error(tool: FunctionTool, error: BaseException) -> BaseException:
    """What a run fails with where `tool`, or a function of its description, raised `error`."""
    if isinstance(error, AgentsException):
        return error
    wrapped = ToolFailedError(f"Error running tool {tool.name}: {text_of(error)}")
    wrapped.__cause__ = error
    return wrapped


async def wait_bounded(
    tasks: Sequence[asyncio.Task[Any]], seconds: float, clock: Clock
) -> set[asyncio.Task[Any]]:
    """Wait for all to end, however often the waiting itself is cancelled; what has not ended by then."""
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    timer = clock.call_later(seconds, lambda: wake(over))
    pending: set[asyncio.Future[Any]] = {task for task in tasks if not task.done()}
    try:
        while pending and not over.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait({*pending, over}, return_when=asyncio.FIRST_COMPLETED)
            pending = {task for task in pending if not task.done()}
    finally:
        timer.cancel()
    return {task for task in tasks if task in pending}


def look_at(task: asyncio.Task[Any]) -> None:
    """Take note of how a task ended: who is answerable for its exception gets it, and asyncio need not log it too."""
    if not task.cancelled():
        task.exception()
