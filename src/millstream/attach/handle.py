"""The handle of a run that was started elsewhere: by another handle, in another process, on another machine.

Rules of this file:

1. It is not the run's. It drives nothing, and whether it is kept or dropped makes no difference to
   the run (promise 10); nor does whoever reads by it, awaits it, or is cancelled at that.
2. It knows of the run what its store knows, and nothing else. All that acts on the run is a
   command in its mail, which its owner follows.
3. A run that waits has no owner. It goes on when somebody resumes it, and is cancelled by whoever
   says so (`ending.py`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from millstream.approval import Decision, arguments_text, key_that_waits, keys_of_items
from millstream.attach.ending import end_unowned
from millstream.attach.result import AttachedResult, history_of, output_as, result_from
from millstream.attach.source import AttachedSource, Until
from millstream.config import RunConfig
from millstream.errors import ApprovalError, CommandConflictError, RunClosedError, RunStateError, UserError
from millstream.events import AgentUpdatedStreamEvent, CancelMode, Entry, RunPaused, StreamEvent
from millstream.items import AgentRef
from millstream.log.address import store_of
from millstream.log.store import RunRecord, RunStatus, RunStore
from millstream.result import RunResultStreaming, readers
from millstream.run import mail
from millstream.run.kept.form import read
from millstream.run.start import resume_run
from millstream.run_state import RunState
from millstream.stream.arguments import ToolArgumentsDelta
from millstream.stream.history import approval_items
from millstream.stream.order import EventOrder
from millstream.stream.partial import Partial, PartialOutput

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.config import RunErrorHandlers
    from millstream.items import ToolApprovalItem, TResponseInputItem
    from millstream.log.promise import Batch, Payload
    from millstream.run.kept.context import ContextDeserializer
    from millstream.sessions import Session

T = TypeVar("T")


class AttachedRun:
    """The handle of a run that was started elsewhere, found in a store. Comes from `Runner.attach`.

    ```python
    run = Runner.attach(run_id, log=store)
    async for event in run:
        ...
    ```

    Making it looks for nothing: a run that the store does not know is an `UnknownRunError` of
    whatever is asked first. Any method may also raise a `LogUnavailableError`, where the store cannot
    be reached just now, and a `LogDamagedError`.

    Args:
        run_id: the run.
        log: the store that it is kept in, or the address of that.
    """

    def __init__(self, run_id: str, log: RunStore | str) -> None:
        self._run_id = run_id
        self._store = store_of("Runner.attach(log=...)", log)

    @property
    def run_id(self) -> str:
        """The run."""
        return self._run_id

    # --- looking -----------------------------------------------------------------------------

    async def record(self) -> RunRecord:
        """What the store knows of the run: who asked for it, how far it has come, whether anybody owns it.

        Raises:
            UnknownRunError: there is no such run.
        """
        return await self._store.record(self._run_id)

    async def status(self) -> RunStatus:
        """Where the run stands. "running" says nothing of whether its process lives: `record()` has `is_owned`."""
        return (await self.record()).status

    # --- reading -----------------------------------------------------------------------------

    def entries(
        self,
        after: int = 0,
        *,
        depth: int | None = None,
        types: Iterable[str] | None = None,
        until: Until = "end",
    ) -> AsyncIterator[Entry]:
        """Every entry beyond position `after`, nested runs included, to the terminal one.

        Goes on through pauses, whoever resumes the run, and through a change of its owner: `run.attempt`
        says what that made void. Never raises for a failed run: its terminal entry says so.

        Args:
            after: the position behind which to begin; 0 for the start.
            depth: how deep a run may be nested whose entries are given: 0 for this run alone, None for all.
            types: the types of events that are given, and of the model's own ("response.…"); None for all.
            until: "pause" ends where the run waits for decisions, too.

        Raises:
            UserError: `after` is negative, `depth` is no number of levels, or there is no such type.
            LogGapError: the reader asked for a position that is no longer held.
            LogBrokenError: the run was deleted.
        """
        if until not in ("end", "pause"):
            raise UserError(f"entries(until={until!r}): a reader goes on until 'end' or 'pause'.")
        wanted = readers.wanted(after, depth=depth, types=types)
        return readers.EntryReader(self._source(until), after, wanted)

    def stream_events(self, *, early: bool = False) -> AsyncIterator[StreamEvent]:
        """The run's own events from the first on, in the order of the OpenAI Agents SDK.

        Ends with the run, and where it waits for decisions; raises at its end what its log tells of
        a failure, as a `RunFailedError`. A cancelled run just ends.

        Args:
            early: give each item when it exists: a tool call when the model has written it,
                a tool's output when that tool is done.
        """
        return readers.EventReader(self._source(), EventOrder(early=early))

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self.stream_events()

    def text(self) -> AsyncIterator[str]:
        """The text of the answer as it forms: of the run itself, not of runs nested in it. Ends as `stream_events()`."""
        return readers.TextReader(self._source())

    def tool_arguments(self) -> AsyncIterator[ToolArgumentsDelta]:
        """The arguments of tool calls as the model writes them, each piece with its call. Ends as `stream_events()`."""
        return readers.ToolArgumentsReader(self._source())

    @overload
    def partial_output(self) -> AsyncIterator[Any]: ...
    @overload
    def partial_output(self, output_type: type[T]) -> AsyncIterator[Partial[T] | T]: ...
    def partial_output(self, output_type: type[Any] | None = None) -> AsyncIterator[Any]:
        """The output as it forms: `Partial`s, each with more of it, and at last the output itself.

        Where the model starts over, a `Partial` without a value says that what came before is void.
        Ends as `stream_events()`.

        Args:
            output_type: what the agents' output is to be: their log does not say it. None for text.

        Raises:
            TypeError: at its end: the output is no `output_type`.
        """
        return _OutputReader(self._source(), output_type)

    def _source(self, until: Until = "pause") -> AttachedSource:
        return AttachedSource(self._store, self._run_id, until)

    # --- the result --------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, AttachedResult]:
        return self.result().__await__()

    async def result(self) -> AttachedResult:
        """Wait until the run has ended, or waits for decisions; what it came to. To be cancelled meanwhile leaves the run alone.

        Raises:
            RunFailedError: it failed.
            RunCancelledError: it was cancelled.
            LogGapError: its beginning is no longer held.
        """
        source = self._source()
        return result_from(source, await history_of(source))

    # --- acting ------------------------------------------------------------------------------

    async def cancel(self, mode: CancelMode | Literal["immediate"] = "immediate") -> None:
        """Stop the run, whoever drives it. May be said any number of times, also to a run that has ended.

        Returns when the store has it; the run's end says when it was done. A run that waits for
        decisions, or to begin, has ended when this returns.

        Args:
            mode: as of `RunResultStreaming.cancel`: "now" (also spelled "immediate"), "after_tool" or
                "after_turn".

        Raises:
            UserError: no such mode.
        """
        command = mail.cancel_command(mode)
        try:
            await self._store.tell(self._run_id, command)
        except RunClosedError:
            return
        await end_unowned(self._store, self._run_id, "now" if mode == "immediate" else mode)

    async def send(self, message: str | list[TResponseInputItem], when: CancelMode = "now") -> None:
        """Give the run more input. Returns when the store has it; `input.added` says when its model gets it.

        A run that waits for decisions gets it when it goes on.

        Args:
            message: a message of the user, or a list of input items.
            when: as of `RunResultStreaming.send`: "now", "after_tool" or "after_turn".

        Raises:
            UserError: no such moment, nothing to send, or the run is over.
            InputItemError: it is no input that models take.
        """
        if message == []:
            raise UserError("send([]): there is nothing to send.")
        command = mail.send_command(message, when)
        try:
            await self._store.tell(self._run_id, command)
        except RunClosedError:
            raise UserError(
                f"Run {self._run_id} is over, and takes no more input: begin another with to_input_list() of its "
                "result and what you have to say."
            ) from None

    async def approve(
        self,
        approval_item: ToolApprovalItem | str,
        always_approve: bool = False,
        *,
        arguments: Mapping[str, Any] | str | None = None,
    ) -> None:
        """Let a call that waits run when the run goes on (`resume`). To say it again changes nothing.

        Args:
            approval_item: the call: one of the result's `interruptions`, or its call id.
            always_approve: all later calls of that tool by that agent too, in this run.
            arguments: what the tool gets in place of the model's own arguments: a JSON object,
                or its text. The history keeps the call as the model made it.

        Raises:
            ApprovalError: no such call waits, or somebody decided over it in another way before.
        """
        edited = None if arguments is None else arguments_text(arguments)
        await self._decide(approval_item, Decision(approved=True, arguments=edited), always=always_approve)

    async def reject(
        self,
        approval_item: ToolApprovalItem | str,
        always_reject: bool = False,
        *,
        rejection_message: str | None = None,
    ) -> None:
        """Answer a call that waits without running it when the run goes on (`resume`). To say it again changes nothing.

        Args:
            approval_item: the call: one of the result's `interruptions`, or its call id.
            always_reject: all later calls of that tool by that agent too, in this run.
            rejection_message: what the model is told; without one what the run's
                `tool_error_formatter` says, else a usual text.

        Raises:
            ApprovalError: no such call waits, or somebody decided over it in another way before.
        """
        decision = Decision(approved=False, message=rejection_message)
        await self._decide(approval_item, decision, always=always_reject)

    async def _decide(self, item: ToolApprovalItem | str, decision: Decision, *, always: bool) -> None:
        record = await self.record()
        pause = await self._pause(record)
        waiting = [] if pause is None else approval_items(cast("RunPaused", pause.event))
        decided = {said.key for said in await self._decisions(record)}
        key = key_that_waits(item, waiting, decided)
        position = 0 if pause is None else pause.position
        command = mail.decide_command(key, decision, pause=position, always=always)
        try:
            await self._store.tell(self._run_id, command)
        except CommandConflictError:
            raise ApprovalError(
                f"Somebody decided over the call {key.call_id!r} of {key.tool} before, in another way than now: "
                "a call is decided over once, and the first decision counts."
            ) from None
        except RunClosedError:
            raise ApprovalError(f"Run {self._run_id} has ended by now, and nothing waits.") from None

    async def waiting(self) -> list[str]:
        """The ids of the calls that wait for a decision, in order; none of a run that does not wait.

        Raises:
            UnknownRunError: there is no such run.
        """
        record = await self.record()
        pause = await self._pause(record)
        if pause is None:
            return []
        decided = {said.key for said in await self._decisions(record)}
        waiting = approval_items(cast("RunPaused", pause.event))
        return [key.call_id for key in keys_of_items(waiting) if key not in decided]

    async def _pause(self, record: RunRecord) -> Entry | None:
        """The pause that the run stands at; None where it stands at none."""
        if record.status != "paused":
            return None
        after = (record.checkpoint_at or record.last) - 1
        batch = await self._store.cursor(self._run_id, after).next()
        if batch is None:
            return None
        return next((entry for entry in batch.entries(after) if isinstance(entry.event, RunPaused)), None)

    async def _decisions(self, record: RunRecord) -> list[mail.Decide]:
        """What was decided since the run took its last decisions in."""
        heard = 0 if record.checkpoint is None else read(record.checkpoint).heard
        said = mail.read(await self._store.mail(self._run_id, heard), self._run_id)
        return [each for each in said if isinstance(each, mail.Decide)]

    # --- going on ----------------------------------------------------------------------------

    async def state(
        self,
        agent: Agent[Any],
        *,
        context: Any = None,
        context_deserializer: ContextDeserializer | None = None,
    ) -> RunState[Any, Any]:
        """The state of the run that waits for decisions, with those that were made: to look at, to decide, to run on from.

        `Runner.run(agent, state)`, by any of its doors, goes on in the same run and log.

        Args:
            agent: the agent that the run was started with. Others are found by their names, among
                those that it can hand over to.
            context: the context, in place of what was kept of it.
            context_deserializer: makes the context of what was kept of it.

        Raises:
            RunStateError: the run does not wait for decisions, or its state cannot be read.
        """
        record = await self.record()
        if record.status != "paused" or record.checkpoint is None:
            raise RunStateError(_why_not(record))
        state = await RunState.from_json(
            agent,
            cast("Any", record.checkpoint),
            context_override=context,
            context_deserializer=context_deserializer,
        )
        progress = state._progress  # pyright: ignore[reportPrivateUsage]
        assert progress.left is not None
        progress.left.log = self._store
        for said in await self._decisions(record):
            progress.context_wrapper.decisions.decide(said.key, said.decision, always=said.always)
        return state

    async def resume(
        self,
        agent: Agent[Any],
        *,
        context: Any = None,
        context_deserializer: ContextDeserializer | None = None,
        run_config: RunConfig | dict[str, Any] | None = None,
        hooks: Any = None,
        error_handlers: RunErrorHandlers[Any] | None = None,
        session: Session | None = None,
    ) -> RunResultStreaming:
        """Go on with the run that waits for decisions, in this process: the same run, in the same log.

        Args:
            agent: the agent that the run was started with.
            context: the context object, where what was kept of it is not enough.
            context_deserializer: makes the context of what was kept of it.
            run_config: how it runs from here on; its log is this run's.
            hooks: as of `Runner.run`; nothing of these three is kept in a store.
            error_handlers: as of `Runner.run`.
            session: as of `Runner.run`.

        Raises:
            RunStateError: the run does not wait for decisions, or its state cannot be read.
            UserError: the agent cannot work, or `run_config` names another log.
        """
        config = RunConfig.of(run_config)
        if config.get_log() not in (None, self._store):
            raise UserError("resume(run_config=...) has a log, and a run goes on in its own: leave that out.")
        state = await self.state(agent, context=context, context_deserializer=context_deserializer)
        run = resume_run(
            agent,
            state.to_go_on(),
            run_config=replace(config, log=self._store),
            error_handlers=error_handlers,
            streamed=True,
            hooks=hooks,
            session=session,
        )
        return RunResultStreaming(run)

    def __repr__(self) -> str:
        return f"AttachedRun({self._run_id!r})"


class _OutputReader(readers.PartialReader):
    """Gives the output as it forms, and at last validated, as an `output_type`."""

    __slots__ = ("_type", "_writer")

    def __init__(self, source: AttachedSource, output_type: Any) -> None:
        self._type = output_type
        self._writer = cast("Any", _Writer(output_type))
        super().__init__(source, PartialOutput(self._writer))

    def _look(self, batch: Batch) -> list[Any]:
        found = super()._look(replace(batch, payloads=[self._typed(each) for each in batch.payloads]))
        if self._type is None or not found or isinstance(found[-1], Partial):
            return found
        return [*found[:-1], output_as(self._type, found[-1])]

    def _typed(self, payload: Payload) -> Payload:
        """What was read back of an agent is its name: whichever it is, it writes what is asked for."""
        if isinstance(payload, AgentUpdatedStreamEvent) and isinstance(payload.new_agent, AgentRef):
            return AgentUpdatedStreamEvent(self._writer)
        return payload


class _Writer:
    """Stands for an agent of that output type."""

    def __init__(self, output_type: Any) -> None:
        self.output_type = output_type


def _why_not(record: RunRecord) -> str:
    """Why there is no state of the run to go on from."""
    where = f"Run {record.run_id} is {record.status}, and does not wait for decisions"
    if record.status in ("running", "queued"):
        return f"{where}: read it, or await it. If its process died, Runner.recover(...) goes on with it."
    if record.has_ended:
        return f"{where}: begin another with to_input_list() of its result."
    return f"{where} in this store: it was written without checkpoints."
