"""The output of a run: what its model said last, what a tool gave, or what an error handler made of an error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from millstream.agent import ToolsToFinalOutputResult
from millstream.context import settle
from millstream.errors import AgentsException, ModelBehaviorError, ModelRefusalError, UserError
from millstream.events import RunItemStreamEvent
from millstream.items import ItemHelpers, MessageOutputItem, ReasoningItem
from millstream.output import text_of
from millstream.run.closing import message_item
from millstream.run.error_handlers import ErrorHandlers, as_written

if TYPE_CHECKING:
    from millstream.agent import Agent, StopAtTools
    from millstream.config import RunErrorHandlers
    from millstream.run.active import ActiveRun
    from millstream.run.prepare import PreparedAgent
    from millstream.run.seams import Seams
    from millstream.run.turn import Turn
    from millstream.tool import FunctionToolResult


class FinalOutput:
    """Finds the output of a run, and keeps it in the run's progress, when those who take part have judged it.

    Args:
        run: the run.
        seams: who takes part.
        error_handlers: the caller's handlers for errors that may become an output.
    """

    def __init__(
        self, run: ActiveRun, seams: Seams, error_handlers: RunErrorHandlers[Any] | None = None
    ) -> None:
        self._run = run
        self._progress = run.progress
        self._seams = seams
        self._error_handlers = ErrorHandlers(error_handlers)

    async def from_tools(self, agent: Agent[Any], results: list[FunctionToolResult]) -> bool:
        """Whether the tools' results are the output already (`Agent.tool_use_behavior`)."""
        decision = await _decide(agent, self._progress.context_wrapper, results)
        if not decision.is_final_output:
            return False
        output = decision.final_output
        if agent.output_type in (None, str):
            output = text_of(output)
        await self._set(agent, output)
        return True

    async def from_model(self, ready: PreparedAgent, turn: Turn) -> bool:
        """Take the model's last message as the output. False where there is none, and it is asked again."""
        messages = [item.raw_item for item in turn.items if isinstance(item, MessageOutputItem)]
        if not messages and any(not isinstance(item, ReasoningItem) for item in turn.items):
            return False  # a hosted tool has run, and the model has not said what of it
        refusal = ItemHelpers.extract_refusal(messages[-1]) if messages else None
        if refusal is not None:
            await self.from_error("model_refusal", ModelRefusalError(refusal))
            return True
        text = (ItemHelpers.extract_text(messages[-1]) if messages else None) or ""
        schema = ready.output_schema
        if schema is None or schema.is_plain_text():
            await self._set(ready.agent, text)
            return True
        if not text:
            nothing = ModelBehaviorError(f"The model gave no final output: it is to be a {schema.name()}.")
            return await self._handled("invalid_final_output", nothing)
        try:
            output = schema.validate_json(text)
        except ModelBehaviorError as error:
            await self.from_error("invalid_final_output", error)
        else:
            await self._set(ready.agent, output)
        return True

    async def from_error(self, kind: str, error: AgentsException) -> None:
        """Let the caller's handler turn `error` into an output, or raise it."""
        if not await self._handled(kind, error):
            raise error

    async def _handled(self, kind: str, error: AgentsException) -> bool:
        """Let the caller's handler turn `error` into an output. False where there is none, or it does not."""
        progress = self._progress
        result = await self._error_handlers.result(kind, error, progress)
        if result is None:
            return False
        agent = progress.current_agent
        text = as_written(agent, result.final_output)
        await self._seams.final_output(self._run, agent, result.final_output)
        if result.include_in_history:
            item = message_item(agent, text)
            progress.add(item)
            await self._run.write(RunItemStreamEvent(item=item))
        progress.final_output = result.final_output
        return True

    async def _set(self, agent: Agent[Any], output: Any) -> None:
        await self._seams.final_output(self._run, agent, output)
        self._progress.final_output = output


async def _decide(
    agent: Agent[Any], context: Any, results: list[FunctionToolResult]
) -> ToolsToFinalOutputResult:
    behavior = agent.tool_use_behavior
    if behavior == "run_llm_again":
        return ToolsToFinalOutputResult(is_final_output=False)
    if behavior == "stop_on_first_tool":
        return ToolsToFinalOutputResult(is_final_output=True, final_output=results[0].output)
    if isinstance(behavior, dict):
        names = cast("StopAtTools", behavior).get("stop_at_tool_names", [])
        for result in results:
            if result.tool.name in names:
                return ToolsToFinalOutputResult(is_final_output=True, final_output=result.output)
        return ToolsToFinalOutputResult(is_final_output=False)
    if callable(behavior):
        decision: Any = await settle(behavior(context, results))
        if not isinstance(decision, ToolsToFinalOutputResult):
            raise UserError(
                f"Agent {agent.name!r}: tool_use_behavior returned {type(decision).__name__}, "
                "not a ToolsToFinalOutputResult."
            )
        return decision
    raise UserError(f"Invalid tool_use_behavior: {behavior!r}")
