"""Guardrails on the input of a run, and on the calls of its tools. Those on its output: `run/parts/hold.py`.

Rules of this file:

1. The input is judged once: by the guardrails of the run's first agent and those of the run, and
   not again where a run is taken up after a pause, or handed over. Input that comes later is
   judged by those of the agent that is to answer it, all of them before its model is asked.
2. Blocking guardrails judge before anything else; the parallel ones begin behind them, beside
   the first model call. One that trips or raises ends the run at once, whatever it is doing.
3. No run has its output, and none pauses, before every parallel guardrail has passed its input.
   Where one of them holds, nothing that a model writes is seen by then, and no tool runs.
4. A call that a guardrail of its tool rejects is answered with the guardrail's words. The tool
   does not begin.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from millstream.errors import (
    AgentsException,
    InputGuardrailTripwireTriggered,
    ToolInputGuardrailTripwireTriggered,
    ToolOutputGuardrailTripwireTriggered,
)
from millstream.guardrail import (
    InputGuardrail,
    InputGuardrailResult,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailData,
    ToolInputGuardrailResult,
    ToolOutputGuardrailData,
    ToolOutputGuardrailResult,
)
from millstream.run.parts.retract import take_back
from millstream.run.parts.verdicts import Verdicts, tell
from millstream.run.seams import Seams
from millstream.run.tools import as_run_error

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import ToolContext
    from millstream.items import TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.run.tools import ToolCall
    from millstream.tool import FunctionTool


class InputGuardrails(Seams):
    """Judges the input of a run.

    Args:
        of_run: the guardrails of the run; each agent has its own.
        first: the agent that the run began with: its guardrails judge the input.
    """

    def __init__(self, of_run: Sequence[InputGuardrail[Any]], first: Agent[Any]) -> None:
        self._of_run = of_run
        self._first = first
        self._parallel: Verdicts[InputGuardrailResult] | None = None
        self._holding = 0
        """How many guardrails have yet to judge that hold what models write until then."""

    async def run_input(self, run: ActiveRun) -> None:
        """Blocking guardrails judge, parallel ones begin."""
        await self._judge(run, self._of(run.progress.current_agent))

    async def run_resumed(self, run: ActiveRun) -> None:
        """Those judge whose verdict was not there yet when the run's process died."""
        if run.root.attempt is None:
            return
        known = Counter(each.guardrail.get_name() for each in run.progress.input_guardrail_results)
        unknown: list[InputGuardrail[Any]] = []
        for each in self._of(self._first):
            name = each.get_name()
            known[name] -= 1
            if known[name] < 0:
                unknown.append(each)
        await self._judge(run, unknown)

    async def _judge(self, run: ActiveRun, guardrails: Sequence[InputGuardrail[Any]]) -> None:
        await self._block(run, [each for each in guardrails if not each.run_in_parallel], run.progress.input)
        beside = [each for each in guardrails if each.run_in_parallel]
        self._holding = sum(each.hold == "verdict" for each in beside)
        self._parallel = self._verdicts(run, background=True)
        self._parallel.ask("input", _judging(run, beside, run.progress.input))
        if beside:
            await asyncio.sleep(0)  # those that know at once keep the model from being asked

    async def input_added(
        self, run: ActiveRun, agent: Agent[Any], items: Sequence[TResponseInputItem]
    ) -> None:
        """All guardrails of the agent that is to answer it judge, before its model is asked."""
        await self._block(run, self._of(agent), list(items))

    async def model_start(
        self, run: ActiveRun, agent: Agent[Any], instructions: str | None, input: Sequence[TResponseInputItem]
    ) -> None:
        """What the model writes is held, where a guardrail that has yet to judge wants that."""
        if self._holding:
            run.writer.hold(self)

    async def before_tools(self, run: ActiveRun, calls: Sequence[ToolCall]) -> None:
        """Tools wait for the verdicts, where that is wished, or what led to them is held."""
        execution = run.config.tool_execution
        if self._holding or (execution is not None and execution.wait_for_input_guardrails):
            await self._all_have_passed()

    async def handoff(self, run: ActiveRun, source: Agent[Any], target: Agent[Any]) -> None:
        """As before tools."""
        if self._holding:
            await self._all_have_passed()

    async def turn_end(self, run: ActiveRun) -> None:
        """As before tools."""
        if self._holding:
            await self._all_have_passed()

    async def final_output(self, run: ActiveRun, agent: Agent[Any], output: Any) -> None:
        """No run has its output before its input has passed."""
        await self._all_have_passed()

    async def run_end(self, run: ActiveRun, error: BaseException | None) -> None:
        """None is left running. What was said in answer to an input that tripped is taken back."""
        parallel = self._parallel
        if parallel is None:
            return
        try:
            if error is None:
                await parallel.given()
        finally:
            await parallel.stop()
        if isinstance(error, InputGuardrailTripwireTriggered) and error is parallel.failure:
            await take_back(run, run.begins_after)

    def _of(self, agent: Agent[Any]) -> list[InputGuardrail[Any]]:
        return [*agent.input_guardrails, *self._of_run]

    async def _block(self, run: ActiveRun, guardrails: Sequence[InputGuardrail[Any]], input: Any) -> None:
        verdicts = self._verdicts(run)
        verdicts.ask("input", _judging(run, guardrails, input))
        await verdicts.given()

    async def _all_have_passed(self) -> None:
        if self._parallel is not None:
            await self._parallel.given()

    def _verdicts(self, run: ActiveRun, *, background: bool = False) -> Verdicts[InputGuardrailResult]:
        async def heard(result: InputGuardrailResult) -> None:
            output = result.output
            run.progress.input_guardrail_results.append(result)
            await tell(
                run,
                "input",
                result.guardrail.get_name(),
                tripped=output.tripwire_triggered,
                info=output.output_info,
            )
            if output.tripwire_triggered:
                raise InputGuardrailTripwireTriggered(result)
            if background and result.guardrail.hold == "verdict":
                self._holding -= 1
                if not self._holding:
                    await run.writer.release(self)

        return Verdicts(run, heard, run.stop_with) if background else Verdicts(run, heard)


def _judging(run: ActiveRun, guardrails: Sequence[InputGuardrail[Any]], input: Any) -> Any:
    """Each guardrail by its name, and what gives its verdict on `input`."""
    progress = run.progress
    return [
        (each.get_name(), partial(each.run, progress.current_agent, _copied(input), progress.context_wrapper))
        for each in guardrails
    ]


class ToolGuardrails(Seams):
    """Judges the calls of tools that have guardrails, and what such a tool gave."""

    async def tool_input(self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool) -> str | None:
        """The words of the first guardrail that rejects the call; those behind it are not asked."""
        for guardrail in tool.tool_input_guardrails or ():
            data = ToolInputGuardrailData(context, _agent_of(run, context))
            output = await _judge(tool, guardrail.run(data))
            run.progress.tool_input_guardrail_results.append(ToolInputGuardrailResult(guardrail, output))
            rejection = await _told(run, "tool_input", guardrail.get_name(), output)
            if output.behavior["type"] == "raise_exception":
                raise ToolInputGuardrailTripwireTriggered(guardrail, output)
            if rejection is not None:
                return rejection
        return None

    async def tool_output(
        self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool, output: Any
    ) -> Any:
        """What the tool gave, or the words of the first guardrail that rejects it."""
        for guardrail in tool.tool_output_guardrails or ():
            data = ToolOutputGuardrailData(context, _agent_of(run, context), output)
            found = await _judge(tool, guardrail.run(data))
            run.progress.tool_output_guardrail_results.append(ToolOutputGuardrailResult(guardrail, found))
            rejection = await _told(run, "tool_output", guardrail.get_name(), found)
            if found.behavior["type"] == "raise_exception":
                raise ToolOutputGuardrailTripwireTriggered(guardrail, found)
            if rejection is not None:
                return rejection
        return output


async def _judge(
    tool: FunctionTool, verdict: Awaitable[ToolGuardrailFunctionOutput]
) -> ToolGuardrailFunctionOutput:
    """The verdict; what a guardrail of a tool raises counts as raised by the tool, as in the SDK."""
    try:
        return await verdict
    except AgentsException:
        raise
    except Exception as error:
        raise as_run_error(tool, error) from error


async def _told(run: ActiveRun, stage: str, name: str, output: ToolGuardrailFunctionOutput) -> str | None:
    """Write the verdict of a tool's guardrail; what the call is answered with, where it rejects it."""
    behavior = output.behavior
    await tell(run, stage, name, tripped=behavior["type"] != "allow", info=output.output_info)
    return behavior["message"] if behavior["type"] == "reject_content" else None


def _agent_of(run: ActiveRun, context: ToolContext[Any]) -> Any:
    return run.progress.current_agent if context.agent is None else context.agent


def _copied(input: Any) -> Any:
    """The input as a guardrail is given it: what it changes there changes nothing."""
    return input if isinstance(input, str) else [dict(item) for item in input]
