"""How a run starts, and who keeps it: whatever door it comes by, and whatever run it is nested in."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any, cast

from millstream.agent import Agent, check_agent, reachable, refuse_unsupported
from millstream.config import RunConfig
from millstream.context import RunContextWrapper
from millstream.errors import UserError
from millstream.log.memory import MemoryLog
from millstream.run.active import ActiveRun
from millstream.run.input import check_input
from millstream.run.loop import Loop
from millstream.run.parts import parts_of
from millstream.run.prepare import model_of
from millstream.run.session import check_session
from millstream.run.state import RunProgress, new_run_id

if TYPE_CHECKING:
    from millstream.config import RunErrorHandlers
    from millstream.items import TResponseInputItem
    from millstream.run.model_call import Conversation

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
    parent: ActiveRun | None = None,
    call_id: str = "",
) -> ActiveRun:
    """Check what can be checked, then start the run's task, on the loop that runs here.

    Args as of `Runner.run`, and:
        conversation: what the model's server remembers.
        streamed: whether the model is asked for a stream.
        parent: the run that this one is nested in: it is written in that one's log.
        call_id: the tool call of `parent` that it answers.

    Raises:
        UserError: the agent or the input cannot work. It has `run_data`, as every exception of a run.
    """
    if not isinstance(context, RunContextWrapper):
        context = RunContextWrapper(context=context)
    loop = asyncio.get_running_loop()
    progress = RunProgress(
        run_id=new_run_id(),
        input=input,
        current_agent=agent,
        context_wrapper=cast("RunContextWrapper[Any]", context),
        max_turns=max_turns,
    )
    try:
        if not isinstance(agent, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"The starting agent must be an Agent, not {type(agent).__name__}.")
        _check_max_turns(max_turns)
        config = RunConfig.of(run_config)
        progress.omits_reasoning_ids = config.reasoning_item_id_policy == "omit"
        refuse_unsupported(agent, config, hooks=hooks)
        check_session(session, server_keeps_history=conversation.tracks)
        check_agent(agent, config.tool_name_collision_policy)
        for each in reachable(agent)[0]:
            model_of(each, config)
        progress.input = check_input(input)
        log = config.log if config.log is not None else MemoryLog()
        seams = parts_of(agent, config, hooks=hooks, session=session)
        run = ActiveRun(progress, config, log, streamed=streamed, loop=loop, parent=parent, call_id=call_id)
        steps = Loop(run, seams, conversation, error_handlers)
    except Exception as error:
        with contextlib.suppress(Exception):  # an exception that is frozen, or has ideas of its own
            error.run_data = progress.error_details()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        raise
    task = loop.create_task(steps.main(), name=f"millstream run {run.run_id}")
    # A loop that is closed without cancelling its tasks would complain of a run left behind.
    task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
    run.task = task
    _keep(run)
    task.add_done_callback(_Ended(run))
    return run


def _check_max_turns(max_turns: Any) -> None:
    if max_turns is None:
        return
    if isinstance(max_turns, bool) or not isinstance(max_turns, int):
        raise UserError(f"max_turns={max_turns!r}: a whole number of turns; None means no limit.")
    if max_turns < 1:
        raise UserError(f"max_turns={max_turns}: a run takes at least one turn; None means no limit.")


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
