"""What a caller holds: the result of a run that is over, and the handle of one that streams.

A handle shows a run and lets it be read, awaited and stopped; it does not drive it. Any
number of readers may read a run, at once and one after another, from any task, thread and
loop; each sees the whole stream. Leaving a reader leaves the run alone; `aclose()`, leaving
`async with`, and cancelling a task that awaits the handle stop it (promise 10).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeVar, cast, overload

from millstream import raw
from millstream.config import DEFAULT_MAX_TURNS
from millstream.context import ToolContext
from millstream.errors import LogBrokenError, RunCancelledError, UserError
from millstream.event_loops import call_on
from millstream.events import SOONEST_FIRST, CancelMode, Entry, Event, RawResponsesStreamEvent, StreamEvent
from millstream.items import ItemHelpers, ModelResponse, RunItem, TResponseInputItem
from millstream.log.promise import live
from millstream.run.input import check_input
from millstream.run.state import RunProgress
from millstream.run_state import RunState
from millstream.stream.arguments import ToolArguments, ToolArgumentsDelta
from millstream.stream.filter import EVERYTHING, EntryFilter
from millstream.stream.order import EventOrder
from millstream.stream.partial import Partial, PartialOutput
from millstream.stream.text import text_delta

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import RunContextWrapper
    from millstream.guardrail import (
        InputGuardrailResult,
        OutputGuardrailResult,
        ToolInputGuardrailResult,
        ToolOutputGuardrailResult,
    )
    from millstream.log.promise import Batch, Cursor, Payload
    from millstream.run.active import ActiveRun
    from millstream.tracing import Trace

T = TypeVar("T")

ENTRIES_AT_ONCE = 500
"""About how many entries a reader of them takes from the log in one go."""
_TOGETHER = 64
"""Raw events whose data is made in one: enough to halve what it costs, few enough to be a matter of
50 us and 100 KB."""


@dataclass(frozen=True)
class AgentToolInvocation:
    """The call of an agent that is a tool."""

    tool_name: str
    tool_call_id: str
    tool_arguments: str


class RunResultBase:
    """What the results of plain and streamed runs have in common."""

    input: str | list[TResponseInputItem]
    """The input of the run, as handoff filters have left it."""
    new_items: list[RunItem]
    """Everything the run produced, in order."""
    raw_responses: list[ModelResponse]
    """The model's whole answers, one per call."""
    final_output: Any
    """The output; None while there is none."""
    context_wrapper: RunContextWrapper[Any]
    input_guardrail_results: list[InputGuardrailResult]
    """The verdicts of guardrails, as the three below, in the order in which they came."""
    output_guardrail_results: list[OutputGuardrailResult]
    tool_input_guardrail_results: list[ToolInputGuardrailResult]
    tool_output_guardrail_results: list[ToolOutputGuardrailResult]
    interruptions: list[Any]
    """Tool calls that wait for approval."""
    max_turns: int | None
    _progress: RunProgress

    @property
    def last_agent(self) -> Agent[Any]:
        """The agent that acted last.

        Raises:
            AgentsException: it was released, and is gone.
        """
        return self._progress.last_agent

    @property
    def last_response_id(self) -> str | None:
        """The id of the model's last response, for `previous_response_id` of a later run."""
        return self.raw_responses[-1].response_id if self.raw_responses else None

    @property
    def run_id(self) -> str:
        """Names the run in its log and in every line that is logged of it."""
        return self._progress.run_id

    def final_output_as(self, cls: type[T], raise_if_incorrect_type: bool = False) -> T:
        """The final output, typed as `cls`.

        Raises:
            TypeError: it is not one, and `raise_if_incorrect_type` is set.
        """
        if raise_if_incorrect_type and not isinstance(self.final_output, cls):
            raise TypeError(f"Final output is not of type {cls.__name__}")
        return cast("T", self.final_output)

    def to_input_list(
        self, *, mode: Literal["preserve_all", "normalized"] = "preserve_all"
    ) -> list[TResponseInputItem]:
        """Input and everything new, as input of a run that goes on from here.

        Args:
            mode: "preserve_all" has every item; "normalized" what the model was given, where
                a handoff filter changed that.
        """
        items = self._progress.model_items
        if mode == "preserve_all":
            told = {id(item) for item in self._progress.input_has}
            items = [item for item in self.new_items if id(item) not in told]
        return [
            *ItemHelpers.input_to_new_input_list(self.input),
            *self._progress.as_input(item for item in items if item.type != "tool_approval_item"),
        ]

    @property
    def agent_tool_invocation(self) -> AgentToolInvocation | None:
        """The call that this run answers, where an agent was called as a tool."""
        context = self.context_wrapper
        if not isinstance(context, ToolContext):
            return None
        return AgentToolInvocation(context.tool_name, context.tool_call_id, context.tool_arguments)

    def release_agents(self, *, release_new_items: bool = True) -> None:
        """Hold the agents weakly from here on, so that keeping the result does not keep them.

        Items and `last_agent` show an agent for as long as somebody else keeps it; then an item
        shows an `AgentRef` with its name. The log of a handle keeps them while the handle lives.

        Args:
            release_new_items: whether the items let go of them too.
        """
        if release_new_items:
            for item in self.new_items:
                item.release_agent()
        if getattr(self, "is_complete", True):  # a run that goes on keeps the agent that is acting
            self._progress.release("current_agent")

    def to_state(self) -> RunState[Any, Any]:
        """Where the run stands that waits for decisions (`interruptions`), or has failed or was stopped: to go on there.

        Every call gives a state of its own, with what was decided by then; one of them can be run on from, once.

        Raises:
            RunStateError: the run goes on.
        """
        return RunState.of(self._progress)


@dataclass
class RunResult(RunResultBase):
    """The result of a run that is over. For a test it can be built by hand, with the SDK's arguments."""

    input: str | list[TResponseInputItem]
    new_items: list[RunItem]
    raw_responses: list[ModelResponse]
    final_output: Any
    input_guardrail_results: list[InputGuardrailResult]
    output_guardrail_results: list[OutputGuardrailResult]
    tool_input_guardrail_results: list[ToolInputGuardrailResult]
    tool_output_guardrail_results: list[ToolOutputGuardrailResult]
    context_wrapper: RunContextWrapper[Any]
    _last_agent: InitVar[Agent[Any]]
    _progress: RunProgress = field(default=cast("RunProgress", None), repr=False, compare=False)
    """What the loop knows of the run; made of the other fields where no loop ran."""
    max_turns: int | None = DEFAULT_MAX_TURNS
    interruptions: list[Any] = field(default_factory=list[Any])

    def __post_init__(self, _last_agent: Agent[Any]) -> None:
        if cast("RunProgress | None", self._progress) is None:
            self._progress = RunProgress(
                run_id="",
                input=self.input,
                current_agent=_last_agent,
                context_wrapper=self.context_wrapper,
                max_turns=self.max_turns,
                new_items=self.new_items,
                model_items=self.new_items,
            )

    @classmethod
    def of(cls, progress: RunProgress) -> RunResult:
        """The result that `progress` has come to."""
        return cls(
            input=progress.input,
            new_items=progress.new_items,
            raw_responses=progress.raw_responses,
            final_output=progress.final_output,
            input_guardrail_results=progress.input_guardrail_results,
            output_guardrail_results=progress.output_guardrail_results,
            tool_input_guardrail_results=progress.tool_input_guardrail_results,
            tool_output_guardrail_results=progress.tool_output_guardrail_results,
            context_wrapper=progress.context_wrapper,
            _last_agent=progress.current_agent,
            _progress=progress,
            max_turns=progress.max_turns,
            interruptions=progress.interruptions,
        )

    def __str__(self) -> str:
        return _describe(self)


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
        return EventReader(self._run, EventOrder(early=early, calls=self._run.begins_with))

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
        if after < 0:
            raise UserError(f"entries(after={after}): positions count from 1; after=0 reads from the start.")
        return EntryReader(self._run, after, EntryFilter.of("entries()", depth=depth, types=types))

    def text(self) -> AsyncIterator[str]:
        """The text of the answer as it forms: the deltas of the run itself, not of runs nested in it.

        Raises at its end what the run failed with.
        """
        return TextReader(self._run, self._run.begins_after)

    def tool_arguments(self) -> AsyncIterator[ToolArgumentsDelta]:
        """The arguments of tool calls as the model writes them, each piece with its call: of the run itself.

        The last piece of a call says that it is done, or dropped: its answer was cut off, or the
        model is asked again. Raises at its end what the run failed with.
        """
        return ToolArgumentsReader(self._run)

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
        return PartialReader(self._run)

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
        return _describe(self)


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


class _Reader:
    """A cursor in a run's log that gives one thing at a time."""

    __slots__ = (
        "__weakref__",
        "_batch",
        "_bound",
        "_cursor",
        "_place",
        "_ready",
        "_run",
        "_waiting",
        "_woken",
    )

    _holds = False
    """Whether the run may have to wait for it (`millstream.run.readers`)."""
    _raises = True
    """Whether it raises at its end what the run failed with."""

    def __init__(self, run: ActiveRun, after: int = 0) -> None:
        self._run = run
        self._cursor = run.trunk.cursor(after)
        self._ready: list[Any] = []
        """What is at hand, what comes next last."""
        self._batch: Batch | None = None
        self._bound = True
        self._waiting: asyncio.Task[Any] | None = None
        """The task that waits for what comes next."""
        self._woken = False
        """Whether that wait was cut off, because the reader was closed meanwhile."""
        self._place = run.readers.attach(self, after)

    def __aiter__(self) -> Any:
        return self

    @property
    def has_more(self) -> bool:
        """Whether the next thing is at hand, so that asking for it will not wait."""
        return bool(self._ready)

    def unbind(self) -> None:
        """Begin, in the caller's context, and belong to no task; for a reader that is driven from outside its loop."""
        self._bound = False
        self._place.holds = self._holds
        self._run.readers.begin(self._place)

    async def aclose(self) -> None:
        """Leave the stream; whoever waits for its next comes to its end. The run goes on."""
        self._close()
        task = self._waiting
        if task is None:
            return
        loop = task.get_loop()
        call_on(loop, self._wake, task)

    def _wake(self, task: asyncio.Task[Any]) -> None:
        if self._waiting is task and not self._woken:
            self._woken = True
            task.cancel()  # as `asyncio.timeout` does it: `_refill` takes it back

    def _close(self) -> None:
        self._ready = []
        self._cursor = None
        self._run.readers.detach(self)

    async def _refill(self) -> None:
        """Put what comes next into `_ready`.

        Raises:
            StopAsyncIteration: the run is over, or the reader was closed.
            UserError: another task waits for this reader's next.
        """
        place, run = self._place, self._run
        if place.asks:
            raise UserError(
                "This reader is being iterated already. Any number of readers may read a run: "
                "give each task one of its own."
            )
        run.look_after()
        self._ready = []
        while not self._ready:
            cursor, batch = self._cursor, self._batch
            if cursor is None:
                raise StopAsyncIteration
            if batch is not None:
                place.taken = batch.last
                place.taken_bytes += batch.size
                self._batch = None
            if run.ends_at is not None and place.taken >= run.ends_at:
                await self._is_over()
            run.readers.ask(place, holds=self._holds, bound=self._bound)
            task = self._waiting = asyncio.current_task()
            cancelling = 0 if task is None else task.cancelling()
            try:
                batch = await self._next(cursor)
            except asyncio.CancelledError:
                if self._woken and task is not None and task.uncancel() <= cancelling:
                    raise StopAsyncIteration from None
                raise  # also where both came: the reader was closed and its task cancelled
            finally:
                self._waiting = None
                run.readers.answer(place)
            if self._cursor is None:  # closed while it waited
                raise StopAsyncIteration
            if batch is None:
                await self._is_over()
            self._batch = batch
            self._ready = self._look(batch)[::-1]

    async def _is_over(self) -> NoReturn:
        """Come to the end."""
        await self._run.wait_done()  # the log tells of the end a moment before the run knows it
        if self._cursor is not None:  # not closed while it waited
            self._end()
        raise StopAsyncIteration

    async def _next(self, cursor: Cursor) -> Batch | None:
        try:
            return await cursor.next()
        except LogBrokenError:
            await self._run.wait_done()
            end = self._run.lost_end
            return end if end is not None and end.last > self._place.taken else None

    def _look(self, batch: Batch) -> list[Any]:
        """What `batch` gives."""
        raise NotImplementedError

    def _end(self) -> None:
        run = self._run
        run.outcome_seen = True  # first: the last reader that leaves unseen is told of in the log
        self._close()
        if self._raises:
            run.raise_failure()


class EventReader(_Reader):
    """Gives the events of `stream_events()`."""

    __slots__ = ("_order", "_probe")

    _holds = True

    def __init__(self, run: ActiveRun, order: EventOrder) -> None:
        super().__init__(run, run.begins_after)
        self._order = order
        self._probe: RawResponsesStreamEvent | None = None
        """The last raw event that was given with its data still to be made."""

    async def __anext__(self) -> StreamEvent:
        if not self._ready:
            await self._refill()
        payload = self._ready.pop()
        if payload.__class__ is not bytes:
            return payload
        probe = self._probe
        if self._ready and probe is not None and probe.has_data:
            return self._with_those_behind(payload)
        event = self._probe = RawResponsesStreamEvent.from_wire(payload)
        return event

    def _with_those_behind(self, json: bytes) -> RawResponsesStreamEvent:
        """The event of `json`, made in one with some of the next: who looked at the data of one will look at theirs.

        The furthest of these is left without, so that it tells whether to go on like that.
        """
        ready = self._ready
        furthest, *nearer = ready[-_TOGETHER:]
        events = _with_data([*nearer, json])
        last = live(furthest)
        self._probe = last if isinstance(last, RawResponsesStreamEvent) else None
        ready[-len(events) :] = [last, *events[:-1]]
        return cast("RawResponsesStreamEvent", events[-1])

    def _look(self, batch: Batch) -> list[Payload]:
        if batch.stamp.run_id != self._run.run_id:
            return []
        if batch.raw_only:
            return batch.payloads
        order = self._order
        ready: list[Payload] = []
        for payload in batch.payloads:
            if payload.__class__ is bytes:
                ready.append(payload)
            else:
                ready.extend(order.feed(cast("Any", payload)))
        return ready


def _with_data(payloads: list[Payload]) -> Sequence[Event]:
    """The events of `payloads`, with their data where they are so alike that it can be made in one."""
    if set(map(type, payloads)) == {bytes}:
        jsons = cast("list[bytes]", payloads)
        data = raw.decode_alike(jsons)
        if data is not None:
            return RawResponsesStreamEvent.all_from_wire(jsons, data)
    return [live(payload) for payload in payloads]


class EntryReader(_Reader):
    """Gives the entries of the run, and of those nested in it."""

    __slots__ = ("_wanted",)

    _raises = False

    def __init__(self, run: ActiveRun, after: int = 0, wanted: EntryFilter = EVERYTHING) -> None:
        super().__init__(run, after)
        self._wanted = wanted

    async def __anext__(self) -> Entry:
        if not self._ready:
            await self._refill()
        entry = self._ready.pop()
        return entry

    def _look(self, batch: Batch) -> list[Entry]:
        entries = list(batch.entries(self._place.taken))
        # What else is written is taken with it: who sends entries on sends them in one piece.
        cursor, ends_at = self._cursor, self._run.ends_at
        while cursor is not None and len(entries) < ENTRIES_AT_ONCE:
            if ends_at is not None and entries and entries[-1].position >= ends_at:
                break  # what comes behind a pause is another handle's
            more = cursor.next_nowait()
            if more is None:
                break
            entries.extend(more.entries())
            self._batch = more
        if self._wanted == EVERYTHING and not self._run.path:
            return entries
        return [entry for entry in entries if self._takes(entry)]

    def _takes(self, entry: Entry) -> bool:
        path = self._run.path  # a nested run has its root's log, and shows of it what is its own
        return entry.path[: len(path)] == path and self._wanted.takes(entry)


class TextReader(_Reader):
    """Gives the text deltas of the run itself."""

    __slots__ = ()

    async def __anext__(self) -> str:
        if not self._ready:
            await self._refill()
        delta = self._ready.pop()
        return delta

    def _look(self, batch: Batch) -> list[str]:
        if batch.stamp.run_id != self._run.run_id:
            return []
        return [delta for payload in batch.payloads if (delta := text_delta(payload))]


class ToolArgumentsReader(_Reader):
    """Gives the arguments of the tool calls of the run itself, as they form."""

    __slots__ = ("_arguments",)

    def __init__(self, run: ActiveRun) -> None:
        super().__init__(run, run.begins_after)
        self._arguments = ToolArguments()

    async def __anext__(self) -> ToolArgumentsDelta:
        if not self._ready:
            await self._refill()
        delta = self._ready.pop()
        return delta

    def _look(self, batch: Batch) -> list[ToolArgumentsDelta]:
        if batch.stamp.run_id != self._run.run_id:
            return []
        return self._arguments.feed(batch.payloads)


class PartialReader(_Reader):
    """Gives the output of the run itself as it forms, and at last as it is."""

    __slots__ = ("_output",)

    def __init__(self, run: ActiveRun) -> None:
        super().__init__(run, run.begins_after)
        self._output = PartialOutput(run.progress.current_agent)

    async def __anext__(self) -> Any:
        if not self._ready:
            await self._refill()
        value = self._ready.pop()
        return value

    def _look(self, batch: Batch) -> list[Any]:
        return [] if batch.stamp.run_id != self._run.run_id else self._output.feed(batch.payloads)


def _describe(result: RunResultBase) -> str:
    return (
        f"{type(result).__name__}: run {result.run_id}, last agent {result.last_agent.name!r}, "
        f"{len(result.new_items)} new item(s), {len(result.raw_responses)} model response(s)\n"
        f"Final output ({type(result.final_output).__name__}): {result.final_output}"
    )
