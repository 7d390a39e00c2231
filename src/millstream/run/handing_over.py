"""A handoff of the model: to which agent it leads, and what of the history that agent's model is given."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

from millstream.agent import Agent, refuse_unsupported
from millstream.context import settle
from millstream.errors import UserError
from millstream.events import AgentUpdatedStreamEvent, RunItemStreamEvent
from millstream.handoff import Handoff, HandoffInputData
from millstream.handoff_history import nest_handoff_history
from millstream.items import HandoffCallItem, HandoffOutputItem, ItemHelpers
from millstream.run.tools import answer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from millstream.handoff import HandoffInputFilter
    from millstream.run.active import ActiveRun
    from millstream.run.prepare import PreparedAgent
    from millstream.run.seams import Seams
    from millstream.run.state import RunProgress
    from millstream.run.turn import Turn

logger = logging.getLogger("millstream")

IGNORED_HANDOFF = "Multiple handoffs detected, ignoring this one."
"""What the history says of a second handoff in one response."""


async def hand_over(
    run: ActiveRun, seams: Seams, ready: PreparedAgent, turn: Turn, requests: Sequence[HandoffCallItem]
) -> None:
    """Do the first of the handoffs that the model asked for in `turn`, and answer the others.

    Raises:
        UserError: it leads to no agent, or to one that cannot run, or its filter cannot be used.
        Exception: what a function of the handoff raised, or one who takes part in the run.
    """
    progress = run.progress
    first, *others = requests
    for request in others:
        progress.add(await answer(run, request.raw_item, IGNORED_HANDOFF))
    handoff = ready.handoffs[first.raw_item.name]
    input_filter = _filter_of(run, handoff)
    async with seams.handoff_span(run, ready.agent):
        target = await _target(handoff, progress.context_wrapper, first.raw_item.arguments)
        raw_output = ItemHelpers.tool_call_output_item(first.raw_item, handoff.get_transfer_message(target))
        item = HandoffOutputItem(ready.agent, raw_output, source_agent=ready.agent, target_agent=target)
        progress.add(item)
        await run.write(RunItemStreamEvent(item=item))
        await seams.handoff(run, ready.agent, target)
    if input_filter is not None:
        await _filter(progress, input_filter, turn)
    progress.current_agent = target
    await run.write(AgentUpdatedStreamEvent(target))


async def _target(handoff: Handoff[Any, Any], context: Any, arguments: str) -> Agent[Any]:
    """The agent that the handoff leads to."""
    target: Agent[Any] = await handoff.on_invoke_handoff(context, arguments)
    if not isinstance(target, Agent):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise UserError(
            f"The handoff {handoff.tool_name!r} led to {type(target).__name__}: on_invoke_handoff returns an Agent."
        )
    refuse_unsupported(target)
    return target


def _filter_of(run: ActiveRun, handoff: Handoff[Any, Any]) -> HandoffInputFilter | None:
    """What changes what the next agent sees: the handoff's filter, the run's, or nesting."""
    config, tracks = run.config, run.progress.conversation.tracks
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
            run.run_id,
            handoff.tool_name,
        )
        return None
    return partial(nest_handoff_history, history_mapper=config.handoff_history_mapper)


async def _filter(progress: RunProgress, input_filter: HandoffInputFilter, turn: Turn) -> None:
    """Let `input_filter` say what the next agent's model is given of what there is by now."""
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
