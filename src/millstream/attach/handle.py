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

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, cast

from millstream.approval import Decision, arguments_text, key_that_waits
from millstream.attach.ending import end_unowned
from millstream.attach.reading import LogRun
from millstream.attach.source import AttachedSource, Until
from millstream.attach.waiting import Pause, decisions, heard, pause_of, tell
from millstream.config import RunConfig
from millstream.errors import RunClosedError, RunStateError, UserError
from millstream.events import CancelMode
from millstream.log.address import store_of
from millstream.log.store import RunRecord, RunStore
from millstream.result import RunResultStreaming
from millstream.run import mail
from millstream.run.start import resume_run
from millstream.run_state import RunState
from millstream.stream.filter import EVERYTHING, EntryFilter

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.config import RunErrorHandlers
    from millstream.items import ToolApprovalItem, TResponseInputItem
    from millstream.run.kept.context import ContextDeserializer
    from millstream.sessions import Session


class AttachedRun(LogRun):
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
        if not isinstance(run_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(
                f"Runner.attach() takes the id of a run, as in `run_id` of its handle, result or record, "
                f"not {type(run_id).__name__}."
            )
        super().__init__(run_id)
        self._store = store_of("Runner.attach(log=...)", log)

    # --- looking -----------------------------------------------------------------------------

    async def record(self) -> RunRecord:
        """What the store knows of the run: who asked for it, how far it has come, whether anybody owns it.

        Raises:
            UnknownRunError: there is no such run.
        """
        return await self._store.record(self._run_id)

    def _source(self, until: Until = "pause", wanted: EntryFilter = EVERYTHING) -> AttachedSource:
        return AttachedSource(self._store, self._run_id, until)

    # --- acting ------------------------------------------------------------------------------

    async def cancel(self, mode: CancelMode | Literal["immediate"] = "immediate") -> None:
        """Stop the run, whoever drives it. May be said any number of times, also to a run that has ended.

        Returns when the store has it; the run's end says when it was done. A run that waits for
        decisions, or to begin, has ended when this returns; one that comes to wait in this very moment ends
        behind its pause. One that has its output, and is about to say so, may complete.

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

    async def end_if_told(self) -> bool:
        """End the run where it waits and was told to stop as it came to that, so that nobody did; whether it was told so."""
        record = await self.record()
        if record.status != "paused":
            return False
        told = await self._store.mail(self._run_id, heard(record))
        said = mail.read([each for each in told if each.kind == "cancel"], self._run_id)
        modes: list[CancelMode] = [each.mode for each in said if isinstance(each, mail.Cancel)]
        if modes:
            await end_unowned(self._store, self._run_id, modes[0])
        return bool(modes)

    async def send(self, message: str | list[TResponseInputItem], when: CancelMode = "now") -> None:
        """Give the run more input. Returns when the store has it; `input.added` says when its model gets it.

        A run that waits for decisions gets it when it goes on. One that is told before it has its output does not
        end without an answer to it; to one whose end is being written in this very moment it has no effect,
        which is seen by its log: there is no `input.added` in it.

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
        pause = await pause_of(self._store, await self.record()) or Pause(0, [], {})
        key = key_that_waits(item, pause.items, pause.decided)
        await tell(self._store, self._run_id, pause.position, key, decision, always=always)

    async def waiting(self) -> list[str]:
        """The ids of the calls that wait for a decision, in order; none of a run that does not wait.

        Raises:
            UnknownRunError: there is no such run.
        """
        pause = await pause_of(self._store, await self.record())
        return [] if pause is None else [key.call_id for key in pause.keys if key not in pause.decided]

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
        for said in await decisions(self._store, record):
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


def _why_not(record: RunRecord) -> str:
    """Why there is no state of the run to go on from."""
    where = f"Run {record.run_id} is {record.status}, and does not wait for decisions"
    if record.status in ("running", "queued"):
        return f"{where}: read it, or await it. If its process died, Runner.recover(...) goes on with it."
    if record.has_ended:
        return f"{where}: begin another with to_input_list() of its result."
    return f"{where} in this store: it was written without checkpoints."
