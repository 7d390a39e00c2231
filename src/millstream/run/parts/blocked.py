"""A tool's output that was to be the run's, and that an output guardrail blocked: what stands for it in the history."""

from __future__ import annotations

import inspect
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from millstream.config import OutputGuardrailBlockedMessageArgs
from millstream.guardrail import GuardrailFunctionOutput, OutputGuardrailResult
from millstream.items import ToolCallOutputItem

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.errors import OutputGuardrailTripwireTriggered
    from millstream.items import RunItem
    from millstream.run.active import ActiveRun

logger = logging.getLogger("millstream")

BLOCKED_OUTPUT = "Output withheld by an output guardrail."
"""What the history says of an output that was blocked, unless `RunConfig.output_guardrail_blocked_message` does."""


def withhold_tool_outputs(
    run: ActiveRun, agent: Agent[Any], tripped: OutputGuardrailTripwireTriggered
) -> bool:
    """Put a text in place of the outputs of the present turn's tools, and of what the guardrails were given.

    False, and nothing is done, where the output that tripped is the model's own.
    """
    progress = run.progress
    turn = progress.turn
    new = [] if turn is None else turn.first_and_after(progress.new_items)
    outputs = [item for item in new if isinstance(item, ToolCallOutputItem)]
    if not outputs:
        return False
    message = _message(run, agent, tripped)
    stands_for: dict[int, RunItem] = {id(item): _in_place_of(item, message) for item in outputs}
    for items in (progress.new_items, progress.model_items):
        items[:] = [stands_for.get(id(item), item) for item in items]
    results = progress.output_guardrail_results
    results[:] = [_without_output(result, message) for result in results]
    tripped.guardrail_result = _without_output(tripped.guardrail_result, message)
    return True


def _in_place_of(item: ToolCallOutputItem, message: str) -> ToolCallOutputItem:
    raw_item: Any = {**dict(item.raw_item), "output": message}
    return replace(item, raw_item=raw_item, output=message)


def _without_output(result: OutputGuardrailResult, message: str) -> OutputGuardrailResult:
    found = GuardrailFunctionOutput(None, tripwire_triggered=result.output.tripwire_triggered)
    return OutputGuardrailResult(result.guardrail, message, result.agent, found)


def _message(run: ActiveRun, agent: Agent[Any], tripped: OutputGuardrailTripwireTriggered) -> str:
    given: Any = run.config.output_guardrail_blocked_message
    if callable(given):
        args = OutputGuardrailBlockedMessageArgs(
            default_message=BLOCKED_OUTPUT,
            guardrail_name=tripped.guardrail_result.guardrail.get_name(),
            agent=agent,
            run_context=run.progress.context_wrapper,
        )
        try:
            given = given(args)
        except Exception:
            logger.exception("run %s: output_guardrail_blocked_message failed", run.run_id)
            return BLOCKED_OUTPUT
    if inspect.iscoroutine(given):
        given.close()
    return given if isinstance(given, str) and given else BLOCKED_OUTPUT
