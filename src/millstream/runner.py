"""The door: starts runs. Joins loop, log and handle; all four ways run the same loop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import threading
import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from millstream.agent import Agent, check_max_turns
from millstream.attach import AttachedRun
from millstream.config import DEFAULT_MAX_TURNS, RunConfig
from millstream.context import RunContextWrapper
from millstream.errors import NestedLoopError, NoRunningLoopError, UserError
from millstream.log.address import store_of
from millstream.log.conversation import check_conversation_id
from millstream.recovery import MAX_ATTEMPTS, Recovery, submit
from millstream.result import RunResult, RunResultStreaming, result_of
from millstream.run.conversation import Conversation
from millstream.run.input import check_input
from millstream.run.start import resume_run, start_run
from millstream.run.state import RunProgress, new_run_id
from millstream.run_state import RunState
from millstream.sync import SyncStream

if TYPE_CHECKING:
    from millstream.config import RunErrorHandlers
    from millstream.items import TResponseInputItem
    from millstream.log.store import RunRecord, RunStore
    from millstream.recovery import AgentOf, ContextOf, SessionOf
    from millstream.run.active import ActiveRun
    from millstream.sessions import Session

T = TypeVar("T")


class Runner:
    """Runs agents.

    `run` gives the result, `run_streamed` a handle that streams; `run_sync` and
    `run_streamed_sync` are the same for programs without an event loop. Same agent and same
    input: same items, outputs, usage and exceptions, whichever door is used.
    """

    @classmethod
    async def run(
        cls,
        starting_agent: Agent[Any],
        input: str | list[TResponseInputItem] | RunState[Any, Any],
        *,
        context: Any = None,
        max_turns: int | None = DEFAULT_MAX_TURNS,
        hooks: Any = None,
        run_config: RunConfig | dict[str, Any] | None = None,
        error_handlers: RunErrorHandlers[Any] | None = None,
        previous_response_id: str | None = None,
        auto_previous_response_id: bool = False,
        conversation_id: str | None = None,
        session: Session | None = None,
    ) -> RunResult:
        """Run `starting_agent` to its output. To cancel the task that awaits this cancels the run.

        Args:
            starting_agent: the agent that acts first.
            input: a message of the user, or a list of input items; or the state of a run that was
                paused or has failed, to go on with it. Configuration, hooks, session and error
                handlers are passed again then; a state does not have them.
            context: an object of the program's own for tools and callbacks; models never see it.
                With a state, None keeps the context that it has.
            max_turns: how often a model may be asked; None for no limit. With a state, the limit
                that the run began with holds, over all its parts.
            hooks: callbacks on what happens, an instance of a subclass of `RunHooks`.
            run_config: settings for the whole run, also as a dict.
            error_handlers: turn an error of a kind into an output.
            previous_response_id: go on from a response that the model's server keeps.
            auto_previous_response_id: let the server keep the history of this run.
            conversation_id: go on with a conversation that the model's server keeps.
            session: keeps the conversation: what it has goes before the input, and the run stores there
                what is new.

        Raises:
            UserError: the agent or the input cannot work; before any model is asked.
            RunStateError: the state was run on from already, or its run is complete.
            MaxTurnsExceeded: the run took more turns than it may.
            AgentsException: see `millstream.errors`. Every exception that this raises, of whatever
                class, has `run_data`, which tells how far the run came (one that allows no new
                attributes aside, and `NestedLoopError` and `NoRunningLoopError` of the other
                doors: where they are raised there is no run).
        """
        run = _start(
            starting_agent,
            input,
            context=context,
            max_turns=max_turns,
            run_config=run_config,
            error_handlers=error_handlers,
            conversation=Conversation(previous_response_id, conversation_id, auto_previous_response_id),
            streamed=False,
            hooks=hooks,
            session=session,
        )
        return await result_of(run)

    @classmethod
    def run_sync(
        cls,
        starting_agent: Agent[Any],
        input: str | list[TResponseInputItem] | RunState[Any, Any],
        *,
        context: Any = None,
        max_turns: int | None = DEFAULT_MAX_TURNS,
        hooks: Any = None,
        run_config: RunConfig | dict[str, Any] | None = None,
        error_handlers: RunErrorHandlers[Any] | None = None,
        previous_response_id: str | None = None,
        auto_previous_response_id: bool = False,
        conversation_id: str | None = None,
        session: Session | None = None,
    ) -> RunResult:
        """`run`, for a program without an event loop.

        All calls of one thread share a loop, so that connections to the model stay open between them.

        Raises:
            NestedLoopError: an event loop runs in this thread: await `Runner.run` there.
        """
        if _loop_runs():
            raise NestedLoopError(
                "Runner.run_sync() was called while an event loop runs in this thread (a notebook or an async "
                "function): use `await Runner.run(...)`, or `Runner.run_streamed_sync(...)`, there."
            )
        return _thread_loop().run(
            cls.run(
                starting_agent,
                input,
                context=context,
                max_turns=max_turns,
                hooks=hooks,
                run_config=run_config,
                error_handlers=error_handlers,
                previous_response_id=previous_response_id,
                auto_previous_response_id=auto_previous_response_id,
                conversation_id=conversation_id,
                session=session,
            )
        )

    @classmethod
    def run_streamed(
        cls,
        starting_agent: Agent[Any],
        input: str | list[TResponseInputItem] | RunState[Any, Any],
        context: Any = None,
        max_turns: int | None = DEFAULT_MAX_TURNS,
        hooks: Any = None,
        run_config: RunConfig | dict[str, Any] | None = None,
        previous_response_id: str | None = None,
        auto_previous_response_id: bool = False,
        conversation_id: str | None = None,
        session: Session | None = None,
        *,
        error_handlers: RunErrorHandlers[Any] | None = None,
    ) -> RunResultStreaming:
        """Start `starting_agent` and return at once with a handle on its run.

        The run belongs to a task of its own, in the caller's context: it goes on whether it is
        read or not, and readers may come and go. Arguments are those of `run`.

        Raises:
            NoRunningLoopError: no event loop runs here: use `Runner.run_streamed_sync`.
            UserError: the agent or the input cannot work: two tools of one name, a missing key,
                an input item of unknown type. What shows only in the run ends the run instead.
        """
        if not _loop_runs():
            raise NoRunningLoopError(
                "Runner.run_streamed() needs a running event loop: call it in an async function, "
                "or use `for event in Runner.run_streamed_sync(...)`."
            )
        run = _start(
            starting_agent,
            input,
            context=context,
            max_turns=max_turns,
            run_config=run_config,
            error_handlers=error_handlers,
            conversation=Conversation(previous_response_id, conversation_id, auto_previous_response_id),
            streamed=True,
            hooks=hooks,
            session=session,
        )
        return RunResultStreaming(run)

    @classmethod
    def run_streamed_sync(
        cls,
        starting_agent: Agent[Any],
        input: str | list[TResponseInputItem] | RunState[Any, Any],
        context: Any = None,
        max_turns: int | None = DEFAULT_MAX_TURNS,
        hooks: Any = None,
        run_config: RunConfig | dict[str, Any] | None = None,
        previous_response_id: str | None = None,
        auto_previous_response_id: bool = False,
        conversation_id: str | None = None,
        session: Session | None = None,
        *,
        error_handlers: RunErrorHandlers[Any] | None = None,
    ) -> SyncStream:
        """`run_streamed` for a plain `for`: in scripts, notebooks, Streamlit.

        The run has a thread and an event loop of its own. Leaving the `for` cancels it.
        Arguments are those of `run`.
        """

        def start() -> RunResultStreaming:
            return cls.run_streamed(
                starting_agent,
                input,
                context,
                max_turns,
                hooks,
                run_config,
                previous_response_id,
                auto_previous_response_id,
                conversation_id,
                session,
                error_handlers=error_handlers,
            )

        return SyncStream(start)

    @classmethod
    def attach(cls, run_id: str, *, log: RunStore | str) -> AttachedRun:
        """The handle of a run that was started elsewhere, by whatever program, on the store `log`.

        By it the run is read, awaited, cancelled, given input, decided over and gone on with. It is
        made at once and looks for nothing: an unknown run is an `UnknownRunError` of its first use.

        Args:
            run_id: the run: `run_id` of its handle, result or record.
            log: the store that the run was started with (`RunConfig.log`), opened by this process, or
                its address.

        Raises:
            UserError: `run_id` is no id; `log` keeps no records of runs, or is no address of a store.
        """
        return AttachedRun(run_id, log)

    @classmethod
    async def submit(
        cls,
        log: RunStore | str,
        agent: Agent[Any],
        input: str | list[TResponseInputItem],
        *,
        context: Any = None,
        max_turns: int | None = DEFAULT_MAX_TURNS,
        caller: str = "",
        idempotency_key: str | None = None,
        conversation: str | None = None,
    ) -> RunRecord:
        """Keep a run in `log` for whoever begins it: a process that calls `recover`. It is queued when this returns.

        Args:
            log: the store, or its address.
            agent: the agent that it begins with: of this its name is kept.
            input: as of `run`.
            context: as of `run`; kept where it is JSON.
            max_turns: as of `run`.
            caller: who asks for it.
            idempotency_key: of runs of one caller with the same key and the same request only the first
                is kept: its record is returned.
            conversation: the id of the conversation that it goes on with, or begins, one of its caller's:
                the store has the history, and takes a run at a time.

        Raises:
            UserError: the agent or the input cannot work, `log` is no store, or that names no conversation.
            IdempotencyError: the key was used for another request.
            ConversationBusyError: the last run of the conversation has not ended.
            LogUnavailableError: the store cannot be written.
        """
        if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"The starting agent must be an Agent, not {type(agent).__name__}.")
        check_max_turns(max_turns)
        progress = RunProgress(
            run_id=new_run_id(),
            input=check_input(input),
            current_agent=agent,
            context_wrapper=RunContextWrapper(context=context),
            max_turns=max_turns,
        )
        if conversation is not None:
            check_conversation_id(conversation, "submit(conversation=...)")
        return await submit(
            store_of("submit()", log),
            progress,
            caller=caller,
            idempotency_key=idempotency_key,
            conversation=conversation or "",
        )

    @classmethod
    async def recover(
        cls,
        log: RunStore | str,
        agent: AgentOf,
        *,
        context_from: ContextOf | None = None,
        session_from: SessionOf | None = None,
        run_config: RunConfig | dict[str, Any] | None = None,
        hooks: Any = None,
        error_handlers: RunErrorHandlers[Any] | None = None,
        max_attempts: int = MAX_ATTEMPTS,
        limit: int = 100,
    ) -> list[RunResultStreaming]:
        """Go on with the runs of `log` whose process died, and begin those that are queued.

        Each goes on from its last checkpoint: a finished model call, or a tool's output. What was
        written behind that is void, and `run.attempt` in its log says so. Tools that had begun and
        left no output are started again, under the same `ToolContext.idempotency_key`, unless they
        say `retry="never"` or needed approval: such a run ends failed, with the code "interrupted".
        A run whose owner lives is left alone, however slow that is.

        Args:
            log: the store, or its address.
            agent: the agent that runs were started with, or a function that makes it of a `RunRecord`. Runs of
                other agents are left alone, with a line in the log: those that have none of its names, or for
                which the function gives None or raises an `UnknownAgentError`. What else that and the next
                two raise leaves the run for another call; a `NotResumableError` ends it.
            context_from: makes a run's context object of its record; needed where that is no JSON.
            session_from: makes a run's session of its record; needed where it had one.
            run_config: how they run; its `log` is not asked.
            hooks: as of `run`.
            error_handlers: as of `run`.
            max_attempts: how often a run is begun before something of it is finished; then it ends
                failed, with the code "attempts_exhausted".
            limit: how many runs at most.

        Returns:
            Handles of those that were to be had, also of those that ended since they cannot go on
            (`not_resumable`, `interrupted`, `attempts_exhausted`, `log_damaged`).

        Raises:
            UserError: an argument that cannot work; no run is touched.
            LogUnavailableError: the store cannot be read.
        """
        recovery = Recovery(
            log=store_of("recover()", log),
            agent=agent,
            context_from=context_from,
            session_from=session_from,
            run_config=RunConfig.of(run_config),
            hooks=hooks,
            error_handlers=error_handlers,
            max_attempts=max_attempts,
        )
        return await recovery.all(limit)


def _start(
    agent: Agent[Any],
    input: str | list[TResponseInputItem] | RunState[Any, Any],
    *,
    context: Any,
    max_turns: int | None,
    conversation: Conversation,
    **options: Any,
) -> ActiveRun:
    """Start a run, or go on with one."""
    if isinstance(input, RunState):
        return resume_run(agent, input.to_go_on(context, conversation), **options)
    return start_run(agent, input, context=context, max_turns=max_turns, conversation=conversation, **options)


def _loop_runs() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


class _ThreadLoop:
    """The event loop that the synchronous calls of one thread share."""

    def __init__(self) -> None:
        # With a factory, the runner leaves the thread's current event loop what it is.
        self._runner = asyncio.Runner(loop_factory=asyncio.new_event_loop)
        self.close = weakref.finalize(self, _close, self._runner)

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run `main` to its end, in the caller's context; Ctrl-C cancels it."""
        try:
            return self._runner.run(main, context=contextvars.copy_context())
        except (KeyboardInterrupt, SystemExit):
            # What the interrupt left half done is cancelled here, rather than go on with the next call.
            del _local.loop
            self.close()
            raise


def _close(runner: asyncio.Runner) -> None:
    """End what the loop of `runner` still does. The collector may call this anywhere, and where a loop runs none can."""
    if _loop_runs():
        threading.Thread(target=runner.close, name="millstream closes a loop").start()
    else:
        runner.close()


_local = threading.local()


def _thread_loop() -> _ThreadLoop:
    loop: _ThreadLoop | None = getattr(_local, "loop", None)
    if loop is None:
        loop = _local.loop = _ThreadLoop()
    return loop


_inherited: list[_ThreadLoop] = []


def _leave_loop_to_parent() -> None:
    # A forked child shares the selector of its parent's loop: to use it, or only to close it,
    # would take the parent's sockets out of it.
    loop: _ThreadLoop | None = _local.__dict__.pop("loop", None)
    if loop is not None:
        loop.close.detach()
        _inherited.append(loop)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_leave_loop_to_parent)
