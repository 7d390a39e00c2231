"""Approvals: which calls of a turn may run, which were rejected, and which wait for a decision.

Rules of this file:

1. A call is judged before any tool of its turn runs. Those that need no approval run; those that
   wait are not begun, and the run pauses when the others are done.
2. What was decided is looked up first (`Decisions`), and used up. Nobody is asked twice whether
   a call needs approval: one that waits goes on waiting until it is decided over.
3. Where it cannot be known whether a call needs approval, as its arguments are no JSON object,
   it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, cast

from millstream import codec
from millstream.approval import Decision, key_of
from millstream.context import settle
from millstream.errors import DecodeError
from millstream.events import RunDecided
from millstream.items import ToolApprovalItem
from millstream.run.tools import ToolCall, as_run_error

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.approval import CallKey, Decisions
    from millstream.run.active import ActiveRun
    from millstream.run.state import RunProgress

REJECTED_OUTPUT = "Tool execution was not approved."
"""What the history says of a call that was rejected without a word."""


@dataclass
class Judged:
    """The calls of a turn, by what becomes of them."""

    ready: list[ToolCall] = field(default_factory=list[ToolCall])
    rejected: list[tuple[ToolCall, str]] = field(default_factory=list[tuple[ToolCall, str]])
    """With what the model is told."""
    waiting: list[ToolCall] = field(default_factory=list[ToolCall])


async def judge(run: ActiveRun, agent: Agent[Any], calls: Sequence[ToolCall]) -> Judged:
    """Tell which of `calls`, which have no answer yet, may run.

    Raises:
        UserError: the `needs_approval` of a tool raised.
    """
    progress = run.progress
    decisions = progress.context_wrapper.decisions
    judged = Judged()
    for call, key in zip(calls, _keys(agent, calls), strict=True):
        decision = decisions.take(key)
        if decision is not None and run.checkpoints is not None:
            run.checkpoints.took(call.place, key, decision)
        if decision is not None and decision.approved:
            judged.ready.append(_approved(call, decision))
        elif decision is not None:
            judged.rejected.append((call, await _rejection(run, call, decision)))
        elif call.place in progress.nested:
            judged.ready.append(call)  # it has begun: what waits is inside of it
        elif call.place in progress.waiting or await _needs_approval(run, call):
            judged.waiting.append(call)
        else:
            judged.ready.append(call)
    return judged


def wait(
    run: ActiveRun, agent: Agent[Any], calls: Iterable[ToolCall], paused: dict[int, RunProgress]
) -> None:
    """Let these calls, and no others, wait for a decision; the run pauses, where there are any.

    Args:
        run: the run.
        agent: the agent that made the calls.
        calls: those that wait themselves: there is an item for each.
        paused: the runs that are paused inside of a call, by its place.
    """
    progress = run.progress
    before, progress.waiting = progress.waiting, {}
    for call in calls:
        item = before.get(call.place)
        if item is None:
            tool = call.tool
            item = ToolApprovalItem(agent, call.raw, tool_name=tool.name, tool_origin=tool.tool_origin)
            progress.new_items.append(item)  # for people: no model is given it
        progress.waiting[call.place] = item
    progress.nested = paused
    progress.interruptions = progress.all_waiting()


def decided(decisions: Decisions) -> list[RunDecided]:
    """What the log says of decisions that were made while the run was paused."""
    return [
        RunDecided(
            call_id=key.call_id,
            decision="approved" if decision.approved else "rejected",
            message=decision.message,
            tool=key.tool,
            arguments=decision.arguments,
            always=(key.agent, key.tool) in decisions.always,
        )
        for key, decision in decisions.once.items()
    ]


def _keys(agent: Agent[Any], calls: Sequence[ToolCall]) -> list[CallKey]:
    seen: Counter[CallKey] = Counter()
    keys: list[CallKey] = []
    for call in calls:
        key = key_of(agent, call.raw)
        keys.append(key._replace(nth=seen[key]))
        seen[key] += 1
    return keys


def _approved(call: ToolCall, decision: Decision) -> ToolCall:
    """`call`, with the arguments that somebody put in place of the model's. Who said yes said so to one call."""
    if decision.arguments is None:
        return replace(call, once=True)
    return replace(call, raw=call.raw.model_copy(update={"arguments": decision.arguments}), once=True)


async def _rejection(run: ActiveRun, call: ToolCall, decision: Decision) -> str:
    """What the model is told of a rejected call."""
    if decision.message is not None:
        return decision.message
    return await run.config.format_tool_error(
        kind="approval_rejected",
        tool_name=call.tool.name,
        call_id=call.raw.call_id,
        default_message=REJECTED_OUTPUT,
        run_context=run.progress.context_wrapper,
    )


async def _needs_approval(run: ActiveRun, call: ToolCall) -> bool:
    needs = call.tool.needs_approval
    if not callable(needs):
        return bool(needs)
    try:
        arguments: Any = codec.decode(call.raw.arguments)
    except DecodeError:
        return True
    if not isinstance(arguments, dict):
        return True
    try:
        return bool(
            await settle(
                needs(run.progress.context_wrapper, cast("dict[str, Any]", arguments), call.raw.call_id)
            )
        )
    except Exception as error:
        failure = as_run_error(call.tool, error)
        failure.add_note(f"Raised by needs_approval of tool {call.tool.name!r}, which has not run.")
        raise failure from error
