"""Nested runs: an agent that answers a tool call of another agent's run.

Rules of this file:

1. A nested run is a run as any other, started where all are started. It writes the log of its
   root, between `tool.started` and `tool.finished` of the call that it answers.
2. It goes by the configuration of the run that it is nested in, unless the tool has one of its
   own. The clock is that run's in any case, and so is the model provider where none is given.
3. Its model is asked for a stream where that of the run that it is nested in is, or where
   somebody listens to its events (`on_stream`).
4. It never outlives its call: whatever ends the call stops it, and waits until it has ended.
5. Where it pauses, its call has no output yet, and the run that it is nested in pauses too. It
   goes on when that call is run again.
6. Runs are nested `DEEPEST` deep at most. Agents that ask each other without end would use up the
   interpreter's stack, so who comes that far ends the whole tree.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import logging
from typing import TYPE_CHECKING, Any, cast

from millstream.config import DEFAULT_MAX_TURNS
from millstream.context import settle
from millstream.errors import UserError
from millstream.events import AgentUpdatedStreamEvent
from millstream.result import RunResultStreaming, result_of
from millstream.run.conversation import Conversation
from millstream.run.parts.hooks import check_hooks
from millstream.run.parts.session import check_session
from millstream.run.start import resume_run, start_run

if TYPE_CHECKING:
    from millstream.agent import AgentToolStreamEvent
    from millstream.agent.as_tool import AgentTool, OnStream
    from millstream.config import RunConfig
    from millstream.context import ToolContext
    from millstream.result import RunResult
    from millstream.run.active import ActiveRun
    from millstream.run.link import CallLink

logger = logging.getLogger("millstream")

DEEPEST = 100
"""How deep runs may be nested: each level waits in the one above it."""


def check(tool: AgentTool) -> None:
    """See, where `tool` is described, that its runs can use what they are to use.

    Raises:
        UserError: they cannot.
    """
    check_hooks(tool.hooks)
    conversation = Conversation(tool.previous_response_id, tool.conversation_id)
    check_session(tool.session, server_keeps_history=conversation.tracks)


async def run_agent(
    tool: AgentTool, context: ToolContext[Any], input: Any, tool_input: Any
) -> RunResult | RunResultStreaming:
    """Run the agent of `tool` to its end, as the answer to a call; its result, a handle where it was listened to.

    Args:
        tool: how the agent runs.
        context: the call's. One that was built by hand belongs to no run: the agent's run is
            nested in none, and has a log of its own.
        input: the agent's input.
        tool_input: what the model wrote, where it is an object; seen by tools and callbacks of the agent.

    Raises:
        Exception: what the run failed with.
        UserError: the call does not run, or the agent cannot, or runs are nested too deep.
    """
    link: CallLink | None = getattr(context, "_link", None)
    if link is not None and not link.is_open:
        raise UserError(
            f"The agent {tool.agent.name!r} was called as a tool while the call {context.tool_call_id!r} did not run: "
            "a tool runs agents while it runs itself."
        )
    if link is not None and len(link.run.path) >= DEEPEST:
        error = UserError(
            f"The agent {tool.agent.name!r} would run nested {DEEPEST + 1} deep, and {DEEPEST} is the most: agents that "
            "ask each other, or themselves, need an end. Leave the tool out at some point, with is_enabled=...."
        )
        link.run.root.stop_with(error)  # told to a model, it would be tried again at every level
        raise error
    run = _start(tool, context, link, input, tool_input)
    try:
        result = await _result(run, tool.on_stream, getattr(context, "tool_call", None))
    except asyncio.CancelledError:
        run.cancel("now")
        while not run.is_done:
            with contextlib.suppress(asyncio.CancelledError):
                await run.wait_done()
        raise
    if link is not None:
        link.agent_run_result = result
        link.paused = run.progress if result.interruptions else None
    return result


def _start(
    tool: AgentTool, context: ToolContext[Any], link: CallLink | None, input: Any, tool_input: Any
) -> ActiveRun:
    parent = None if link is None else link.run
    config = _config(tool, context, parent)
    own = copy.copy(context)  # the call's own, with the usage that all runs of the tree share
    own.turn_input, own.tool_input = [], tool_input
    own.run_config = config
    options: dict[str, Any] = {
        "run_config": config,
        "error_handlers": None,
        "streamed": tool.on_stream is not None or (parent is not None and parent.streamed),
        "hooks": tool.hooks,
        "session": tool.session,
        "link": link,
    }
    paused = None if link is None else link.take_paused()
    if paused is not None:
        paused.context_wrapper = own
        return resume_run(tool.agent, paused, **options)
    return start_run(
        tool.agent,
        input,
        context=own,
        max_turns=DEFAULT_MAX_TURNS if tool.max_turns is None else tool.max_turns,
        conversation=Conversation(tool.previous_response_id, tool.conversation_id),
        **options,
    )


def _config(tool: AgentTool, context: ToolContext[Any], parent: ActiveRun | None) -> RunConfig | None:
    config = tool.run_config
    if config is None:
        return getattr(context, "run_config", None)
    if parent is None:
        return config
    provider = parent.config.model_provider if config.model_provider is None else config.model_provider
    return dataclasses.replace(config, clock=parent.config.clock, model_provider=provider)


async def _result(
    run: ActiveRun, on_stream: OnStream | None, tool_call: Any
) -> RunResult | RunResultStreaming:
    if on_stream is None:
        return await result_of(run)
    handle = RunResultStreaming(run)
    await _listen(handle, on_stream, tool_call)
    await result_of(run)
    return handle


async def _listen(handle: RunResultStreaming, on_stream: OnStream, tool_call: Any) -> None:
    """Call `on_stream` with each event of a run, one after the other. What it raises is logged, and ends nothing."""
    agent, has_failed = handle.current_agent, False
    async for event in handle.stream_events():
        if isinstance(event, AgentUpdatedStreamEvent):
            agent = event.new_agent
        payload = cast("AgentToolStreamEvent", {"event": event, "agent": agent, "tool_call": tool_call})
        try:
            await settle(on_stream(payload))
        except Exception as error:
            # Told once: a callback that fails, fails for every token.
            level = logging.DEBUG if has_failed else logging.ERROR
            has_failed = True
            logger.log(
                level,
                "run %s: on_stream of the tool that runs %r raised %r",
                handle.run_id, agent.name, error, exc_info=error,
            )  # fmt: skip
