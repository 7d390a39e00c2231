"""The handle of a run that streams.

It shows a run and lets it be read, awaited and stopped; it does not drive it. Any number of
readers may read a run, at once and one after another, from any task, thread and loop; each
sees the whole stream. Leaving a reader leaves the run alone; `aclose()`, leaving `async with`,
and cancelling a task that awaits the handle stop it (promise 10).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from millstream.errors import RunCancelledError, UserError
from millstream.events import SOONEST_FIRST, CancelMode, Entry, StreamEvent
from millstream.items import ItemHelpers, ModelResponse, RunItem, TResponseInputItem
from millstream.result import readers
from millstream.result.base import RunResult, RunResultBase, describe
from millstream.result.source import ActiveSource
from millstream.run.input import check_input
from millstream.stream.arguments import ToolArgumentsDelta
from millstream.stream.order import EventOrder
from millstream.stream.partial import Partial, PartialOutput

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import RunContextWrapper
    from millstream.guardrail import (
        InputGuardrailResult,
        OutputGuardrailResult,
        ToolInputGuardrailResult,
        ToolOutputGuardrailResult,
    )
    from millstream.run.active import ActiveRun
    from millstream.tracing import Trace

T = TypeVar("T")


class RunResultStreaming(RunResultBase):
    """The handle of a run that streams.

    ```python
    async for event in Runner.run_streamed(agent, "Hello"):
        ...
    ```

    The run goes on by itself, whether anybody reads or not. Every attribute may be read on
    the way and after the end.
    """

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._progress = run.progress

    # --- looking ---------------------------------------------------------------------------

    @property
    def input(self) -> str | list[TResponseInputItem]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The input of the run, as handoff filters have left it."""
        return self._progress.input

    @property
    def new_items(self) -> list[RunItem]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Everything the run has produced so far."""
        return self._progress.new_items

    @property
    def raw_responses(self) -> list[ModelResponse]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The model's whole answers so far."""
        return self._progress.raw_responses

    @property
    def final_output(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The output; None until the run has one."""
        return self._progress.final_output

    @property
    def input_guardrail_results(self) -> list[InputGuardrailResult]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The verdicts of input guardrails so far, in the order in which they came."""
        return self._progress.input_guardrail_results

    @property
    def output_guardrail_results(self) -> list[OutputGuardrailResult]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The verdicts of output guardrails so far."""
        return self._progress.output_guardrail_results

    @property
    def tool_input_guardrail_results(self) -> list[ToolInputGuardrailResult]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The verdicts on arguments of tool calls so far."""
        return self._progress.tool_input_guardrail_results

    @property
    def tool_output_guardrail_results(self) -> list[ToolOutputGuardrailResult]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The verdicts on outputs of tools so far."""
        return self._progress.tool_output_guardrail_results

    @property
    def context_wrapper(self) -> RunContextWrapper[Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The context of the run, and its usage so far."""
        return self._progress.context_wrapper

    @property
    def interruptions(self) -> list[Any]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Tool calls that wait for approval."""
        return self._progress.interruptions

    @property
    def max_turns(self) -> int | None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """How many turns the run may take."""
        return self._progress.max_turns

    @property
    def current_agent(self) -> Agent[Any]:
        """The agent that is acting."""
        return self._progress.current_agent

    @property
    def current_turn(self) -> int:
        """The turn that the run is in, from 1; 0 before the first."""
        return self._progress.current_turn

    @property
    def is_complete(self) -> bool:
        """Whether the run is over, however it ended."""
        return self._run.is_done

    @property
    def is_cancelled(self) -> bool:
        """Whether the run ended because it was cancelled."""
        return self._run.terminal is not None and self._run.terminal.type == "run.cancelled"

    @property
    def begins_after(self) -> int:
        """The position behind which what this handle is of stands in its log: 0, or that of the pause it goes on from."""
        return self._run.begins_after

    @property
    def run_loop_task(self) -> asyncio.Task[None] | None:
        """The task of the run. To know how the run ended, rather await the handle."""
        self._run.readers.may_be_awaited()
        return self._run.task

    @property
    def run_loop_exception(self) -> BaseException | None:
        """What ended the run, where it failed."""
        run = self._run
        run.outcome_seen = run.outcome_seen or run.exception is not None
        return run.exception

    @property
    def trace(self) -> Trace | None:
        """The trace of the run: its own, or the one that was current where it was started."""
        return self._run.trace

    # --- reading ---------------------------------------------------------------------------

    def stream_events(self, *, early: bool = False) -> AsyncIterator[StreamEvent]:
        """The run's own events from the first on, in the order of the OpenAI Agents SDK.

        Ends with the run; raises at its end what the run failed with. A cancelled run just ends.

        Args:
            early: give each item when it exists: a tool call when the model has written it,
                a tool's output when that tool is done.
        """
        order = EventOrder(early=early, calls=self._run.begins_with)
        return readers.EventReader(ActiveSource(self._run), order, self._run.begins_after)

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self.stream_events()

    def entries(
        self, after: int = 0, *, depth: int | None = None, types: Iterable[str] | None = None
    ) -> AsyncIterator[Entry]:
        """Every entry beyond position `after`, nested runs included, to the terminal one.

        Never raises for a failed run: its terminal entry says so. Where only some are asked for,
        they keep their positions, and the iteration ends with the run all the same.

        Args:
            after: the position behind which to begin; 0 for the start.
            depth: how deep a run may be nested whose entries are given: 0 for this run alone, None for all.
            types: the types of events that are given, and of the model's own ("response.…"); None for all.

        Raises:
            UserError: `after` is negative, `depth` is no number of levels, or there is no such type.
        """
        wanted = readers.wanted(after, depth=depth, types=types)
        return readers.EntryReader(ActiveSource(self._run), after, wanted)

    def text(self) -> AsyncIterator[str]:
        """The text of the answer as it forms: the deltas of the run itself, not of runs nested in it.

        Raises at its end what the run failed with.
        """
        return readers.TextReader(ActiveSource(self._run), self._run.begins_after)

    def tool_arguments(self) -> AsyncIterator[ToolArgumentsDelta]:
        """The arguments of tool calls as the model writes them, each piece with its call: of the run itself.

        The last piece of a call says that it is done, or dropped: its answer was cut off, or the
        model is asked again. Raises at its end what the run failed with.
        """
        return readers.ToolArgumentsReader(ActiveSource(self._run), self._run.begins_after)

    @overload
    def partial_output(self) -> AsyncIterator[Any]: ...
    @overload
    def partial_output(self, output_type: type[T]) -> AsyncIterator[Partial[T] | T]: ...
    def partial_output(self, output_type: type[Any] | None = None) -> AsyncIterator[Any]:
        """The output as it forms: `Partial`s, each with more of it, and at last the output itself.

        The last is `final_output`, validated. Where the model starts over, a `Partial` without a
        value says that what came before is void. Raises at its end what the run failed with; a
        cancelled run just ends, without an output.

        Args:
            output_type: the type of the output, for type checkers. It changes nothing.
        """
        output = PartialOutput(self._progress.current_agent)
        return readers.PartialReader(ActiveSource(self._run), output, self._run.begins_after)

    def __await__(self) -> Generator[Any, None, RunResult]:
        return self._result().__await__()

    async def _result(self) -> RunResult:
        return await result_of(self._run)

    # --- stopping --------------------------------------------------------------------------

    def cancel(self, mode: CancelMode | Literal["immediate"] = "immediate") -> None:
        """Stop the run. May be called at any time, from any thread, any number of times.

        Args:
            mode: "now" (also spelled "immediate") closes the model's connection and cancels
                running tools; "after_tool" lets tools that run finish; "after_turn" lets the
                model finish too, and the tools that it calls.

        Partial text and usage are kept, and every open tool call is answered in the history.

        Raises:
            UserError: no such mode.
        """
        if mode not in ("immediate", *SOONEST_FIRST):
            raise UserError(f"cancel(mode={mode!r}): the modes are 'now', 'after_tool' and 'after_turn'.")
        self._run.cancel("now" if mode == "immediate" else mode)

    def hand_back(self) -> None:
        """Stop the run in this process, without an end: another process goes on with it from its last checkpoint.

        For a program that shuts down. Whoever awaits the run here gets a `HandedBackError`; those who
        read it read on, once somebody goes on with it (`Runner.recover`).

        Raises:
            UserError: the log of the run is no store that other processes share.
        """
        self._run.hand_back()

    # --- steering --------------------------------------------------------------------------

    def send(self, message: str | list[TResponseInputItem], when: CancelMode = "now") -> None:
        """Give the running run more input. May be called at any time before its end, from any thread.

        The model gets it with its next call, behind all that was said till then; what was sent
        several times, in that order. A run that would have been complete takes another turn for it.

        Args:
            message: a message of the user, or a list of input items.
            when: "now" ends the model's answer, whose text is kept, and cancels running tools;
                "after_tool" lets tools that run finish; "after_turn" lets the model finish too,
                and the tools that it calls.

        Raises:
            UserError: no such moment, nothing to send, or the run is over or paused.
            InputItemError: it is no input that models take.
        """
        if when not in SOONEST_FIRST:
            raise UserError(f"send(when={when!r}): the moments are 'now', 'after_tool' and 'after_turn'.")
        items = ItemHelpers.input_to_new_input_list(check_input(message))
        if not items:
            raise UserError("send([]): there is nothing to send.")
        self._run.send(items, when)

    # --- closing ---------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Stop the run now and wait until it has ended. Never raises for how it ended."""
        self._run.cancel("now")
        with self._run.readers.awaited():
            await self._run.wait_done()

    async def __aenter__(self) -> RunResultStreaming:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        run = self.__dict__.get("_run")
        if run is not None:
            run.handle_gone()

    def __str__(self) -> str:
        return describe(self)


async def result_of(run: ActiveRun) -> RunResult:
    """Wait for the end of `run` and return its result. To be cancelled meanwhile cancels the run.

    Raises:
        Exception: what the run failed with.
        RunCancelledError: it was cancelled.
    """
    with run.readers.awaited():
        try:
            await run.wait_done()
        except asyncio.CancelledError:
            run.cancel("now")
            await run.wait_done()
            raise
    run.raise_failure()
    if run.terminal is not None and run.terminal.type == "run.cancelled":
        error = RunCancelledError(f"Run {run.run_id} was cancelled and has no result.")
        error.run_data = run.progress.error_details()
        raise error
    return RunResult.of(run.progress)
