"""How a run starts, and who keeps it: whatever door it comes by, and whatever run it is nested in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, cast

from millstream.agent import Agent, check_agent, check_max_turns, reachable, refuse_unsupported
from millstream.agent.as_tool import agent_of
from millstream.config import RunConfig
from millstream.context import RunContextWrapper
from millstream.errors import RunStateError, UserError
from millstream.log.memory import MemoryLog
from millstream.log.store import RunStore
from millstream.run.active import ActiveRun
from millstream.run.input import check_input
from millstream.run.loop import Loop
from millstream.run.parts import parts_of
from millstream.run.parts.session import check_session
from millstream.run.prepare import model_of
from millstream.run.seams import Seams
from millstream.run.state import RunProgress, new_run_id
from millstream.run.tenure import Tenure

if TYPE_CHECKING:
    from millstream.config import RunErrorHandlers
    from millstream.events import RunAttempt
    from millstream.items import TResponseInputItem
    from millstream.log.promise import EventLog
    from millstream.run.conversation import Conversation
    from millstream.run.link import CallLink
    from millstream.run.state import Left

logger = logging.getLogger("millstream")


def start_run(
    agent: Agent[Any],
    input: str | list[TResponseInputItem],
    *,
    context: Any,
    max_turns: int | None,
    run_config: RunConfig | dict[str, Any] | None,
    error_handlers: RunErrorHandlers[Any] | None,
    conversation: Conversation,
    streamed: bool,
    hooks: Any,
    session: Any,
    link: CallLink | None = None,
) -> ActiveRun:
    """Check what can be checked, then start the run's task, on the loop that runs here.

    Args as of `Runner.run`, and:
        conversation: what the model's server remembers.
        streamed: whether the model is asked for a stream.
        link: ties the run to the tool call of another one that it answers: it is written in that one's log.

    Raises:
        UserError: the agent or the input cannot work. It has `run_data`, as every exception of a run.
    """
    if not isinstance(context, RunContextWrapper):
        context = RunContextWrapper(context=context)
    progress = RunProgress(
        run_id=new_run_id(),
        input=input,
        current_agent=agent,
        context_wrapper=cast("RunContextWrapper[Any]", context),
        max_turns=max_turns,
        conversation=conversation,
    )
    with _telling_how_far(progress):
        check_max_turns(max_turns)
        config = _checked(agent, run_config, hooks=hooks)
        check_session(session, server_keeps_history=progress.conversation.tracks)
        progress.omits_reasoning_ids = config.reasoning_item_id_policy == "omit"
        progress.input = check_input(input)
        run = _active(
            progress,
            config,
            config.get_log(),
            link=link,
            streamed=streamed,
            has_session=session is not None,
        )
        return _launch(
            run, parts_of(agent, config, ledger=run.ledger, hooks=hooks, session=session), error_handlers
        )


def resume_run(
    agent: Agent[Any],
    progress: RunProgress,
    *,
    run_config: RunConfig | dict[str, Any] | None,
    error_handlers: RunErrorHandlers[Any] | None,
    streamed: bool,
    hooks: Any,
    session: Any,
    link: CallLink | None = None,
) -> ActiveRun:
    """As `start_run`, for a run that goes on from where another one was left.

    It goes on as that run and in its log, where that was paused and its log is at hand; else as
    a run of its own, whose log names the one that it goes on with.

    Args as of `start_run`, and:
        agent: the agent that the run was started with.
        progress: the state of the run that was left: a copy, which changes from here on.

    Raises:
        RunStateError: the run is complete, or went on already.
        UserError: as of `start_run`.
    """
    left = progress.left
    with _taking_up, _telling_how_far(progress):
        config = _checked(agent, run_config, hooks=hooks)
        check_session(session, server_keeps_history=progress.conversation.tracks)
        _checked(progress.current_agent, config)
        log, goes_on = config.get_log(), False
        if left is not None:  # else it is a state that no run has come to
            _check_may_go_on(progress.run_id, left)
            if log is None and left.outcome == "paused":
                log = left.log
            if link is not None:
                goes_on = link.run.goes_on
            elif log is not None:
                goes_on = _is_at_hand(progress.run_id, left, log)
            if not _begins_anew(progress, left):
                progress.goes_on_with = progress.run_id
            if not goes_on:
                progress.run_id = new_run_id()
        progress.interruptions = []
        if config.reasoning_item_id_policy is not None:
            progress.omits_reasoning_ids = config.reasoning_item_id_policy == "omit"
        run = _active(
            progress,
            config,
            log,
            link=link,
            streamed=streamed,
            has_session=session is not None,
            position=left.position if left is not None and goes_on else 0,
            goes_on=goes_on,
        )
        _launch(run, parts_of(agent, config, ledger=run.ledger, hooks=hooks, session=session), error_handlers)
        if left is not None:
            left.resumed_by = run.run_id
            progress.left = None
        return run


def take_over_run(
    agent: Agent[Any],
    progress: RunProgress,
    *,
    owner: str,
    position: int,
    attempt: RunAttempt | None,
    run_config: RunConfig | dict[str, Any] | None,
    error_handlers: RunErrorHandlers[Any] | None,
    streamed: bool,
    hooks: Any,
    session: Any,
    error: BaseException | None = None,
) -> ActiveRun:
    """Go on with a run whose process died, from its last checkpoint, in its log: `run_config` names that.

    Args as of `resume_run`, and:
        owner: who has claimed it.
        position: the last position of its log.
        attempt: what its log is told of that; None where it begins only now.
        error: what the run is to end with at once, as nobody can go on with it.
    """
    with _telling_how_far(progress):
        config = RunConfig.of(run_config) if error is not None else _checked(agent, run_config, hooks=hooks)
        if progress.left is not None and not _begins_anew(progress, progress.left):
            progress.goes_on_with = progress.run_id
        progress.interruptions = []
        run = _active(
            progress,
            config,
            config.get_log(),
            link=None,
            streamed=streamed,
            has_session=session is not None,
            position=position,
            goes_on=attempt is not None,
            owner=owner,
        )
        run.attempt, run.stop_error, progress.left = attempt, error, None
        parts = (
            Seams()
            if error is not None
            else parts_of(agent, config, ledger=run.ledger, hooks=hooks, session=session)
        )
        return _launch(run, parts, error_handlers)


def _begins_anew(progress: RunProgress, left: Left) -> bool:
    """Whether a run was left before it had taken in its input: as its process died then."""
    return left.outcome == "running" and progress.current_turn == 0


def _active(
    progress: RunProgress,
    config: RunConfig,
    log: EventLog | None,
    *,
    link: CallLink | None,
    streamed: bool,
    has_session: bool,
    position: int = 0,
    goes_on: bool = False,
    owner: str | None = None,
) -> ActiveRun:
    """The run, on the event loop that runs here; with a hold on it, where it is the root in a log that others share.

    Args:
        progress: its state.
        config: its configuration.
        log: where it is written; None for a log of its own.
        link: ties it to the call that it answers.
        streamed: whether the model is asked for a stream.
        has_session: whether it has a session.
        position: that behind which it goes on.
        goes_on: whether the log has its beginning.
        owner: who has claimed it.
    """
    tenure = None
    if link is None and isinstance(log, RunStore):
        is_kept = goes_on or owner is not None
        tenure = Tenure(log, lease=config.lease, owner=owner, last=position if is_kept else None)
    return ActiveRun(
        progress,
        config,
        MemoryLog() if log is None else log,
        streamed=streamed,
        loop=asyncio.get_running_loop(),
        parent=None if link is None else link.run,
        call_id="" if link is None else link.call.raw.call_id,
        # A function that runs an agent on its way is begun again itself.
        place=None if link is None or agent_of(link.call.tool) is None else link.call.place,
        position=position,
        goes_on=goes_on,
        tenure=tenure,
        has_session=has_session,
    )


_taking_up = threading.Lock()
"""Held from the look whether a run may go on to where it does: of two threads with one state, one does."""


def _check_may_go_on(run_id: str, left: Left) -> None:
    """Raise where nobody can go on with the run that was left so."""
    if left.resumed_by is not None:
        raise RunStateError(
            f"This state of run {run_id} was run on from already, as run {left.resumed_by}: what was approved is "
            "done once. Go on with to_state() of what came of that."
        )
    if left.outcome == "completed":
        raise RunStateError(
            f"Run {run_id} is complete, and there is nothing to go on with. Begin another with "
            "result.to_input_list() and what you have to add."
        )


def _is_at_hand(run_id: str, left: Left, log: EventLog) -> bool:
    """Whether the run that was left can go on in `log`.

    Raises:
        RunStateError: that log says that it went on already.
    """
    if left.outcome != "paused":
        return False  # its log has its end
    known = log.info_nowait(run_id)
    if known is None:
        # In a store it is claimed: it is known then whether somebody was faster.
        return log is left.log or (isinstance(log, RunStore) and left.is_durable)
    under_way = any(run.run_id == run_id and not run.is_done for runs in _under_way.values() for run in runs)
    if under_way or known.sealed or known.last != left.position:
        raise RunStateError(
            f"Run {run_id} has gone on since this state was taken of it, at position {left.position}: what was "
            "approved is done once. Go on with a state of what came of that."
        )
    return True


@contextlib.contextmanager
def _telling_how_far(progress: RunProgress) -> Generator[None]:
    """A stretch in which a run is about to start: what it raises has `run_data`."""
    try:
        yield
    except Exception as error:
        with contextlib.suppress(Exception):  # an exception that is frozen, or has ideas of its own
            error.run_data = progress.error_details()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        raise


def _checked(
    agent: Agent[Any], run_config: RunConfig | dict[str, Any] | None, *, hooks: Any = None
) -> RunConfig:
    """The configuration of a run of `agent`, when everything was checked that can be.

    Raises:
        UserError: it cannot work.
    """
    if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(f"The starting agent must be an Agent, not {type(agent).__name__}.")
    config = RunConfig.of(run_config)
    refuse_unsupported(agent, config)
    check_agent(agent, config.tool_name_collision_policy)
    for each in reachable(agent)[0]:
        model_of(each, config)
    return config


def _launch(run: ActiveRun, seams: Seams, error_handlers: RunErrorHandlers[Any] | None) -> ActiveRun:
    """Start the task of `run`."""
    steps = Loop(run, seams, error_handlers)
    task = run.loop.create_task(steps.main(), name=f"millstream run {run.run_id}")
    # A loop that is closed without cancelling its tasks would complain of a run left behind.
    task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
    run.task = task
    _keep(run)
    task.add_done_callback(_Ended(run))
    return run


_under_way: dict[asyncio.AbstractEventLoop, set[ActiveRun]] = {}
"""Runs by their loop: a loop holds its tasks weakly, and a run must not need a reader to stay alive."""


def _keep(run: ActiveRun) -> None:
    runs = _under_way.get(run.loop)
    if runs is None:
        # A moment that does not come often, to let go of what a loop left behind that was
        # closed without cancelling its tasks.
        for loop in [loop for loop in _under_way.copy() if loop.is_closed()]:
            for left in _under_way.pop(loop, ()):
                left.abandon()
        runs = _under_way[run.loop] = set()
    runs.add(run)


class _Ended:
    """Lets go of a run whose task has ended, and ends the run where the task did not."""

    __slots__ = ("_run",)

    def __init__(self, run: ActiveRun) -> None:
        self._run = run

    def __call__(self, task: asyncio.Task[None]) -> None:
        run = self._run
        error = None if task.cancelled() else task.exception()
        if error is None or isinstance(error, _INTERRUPTS):
            run.abandon()
        else:
            logger.error("run %s: its task failed", run.run_id, exc_info=error)
            run.abandon(error)
        runs = _under_way[run.loop]
        runs.discard(run)
        if not runs:
            del _under_way[run.loop]


_INTERRUPTS = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""What the loop itself has raised, or the interpreter."""
