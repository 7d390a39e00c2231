"""The places where others may take part in a run: hooks, spans, guardrails, approvals, sessions.

The loop calls every seam at its moment and does not know who stands behind it. In this
version nobody does: each seam returns what lets the run go on. A feature that takes part in
runs is a subclass here, never a branch in the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import ToolContext
    from millstream.items import ModelResponse, TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.tool import FunctionTool


class Seams:
    """What a run asks others at each of its moments, in the order of the loop."""

    def run_span(self, run: ActiveRun) -> AbstractAsyncContextManager[Any]:
        """Held open from the first to the last event of the run, in the run's own task."""
        return nullcontext()

    async def run_input(self, run: ActiveRun) -> None:
        """Before the first turn: sessions add history, blocking input guardrails judge."""

    async def agent_start(self, run: ActiveRun, agent: Agent[Any]) -> None:
        """An agent begins to act."""

    def model_span(self, run: ActiveRun, agent: Agent[Any]) -> AbstractAsyncContextManager[Any]:
        """Held open for one model call."""
        return nullcontext()

    async def model_start(
        self, run: ActiveRun, agent: Agent[Any], instructions: str | None, input: Sequence[TResponseInputItem]
    ) -> None:
        """A model is about to be called."""

    async def model_end(self, run: ActiveRun, agent: Agent[Any], response: ModelResponse) -> None:
        """A model has answered."""

    async def before_tools(self, run: ActiveRun, calls: Sequence[Any]) -> None:
        """Before the tools of a turn start: parallel guardrails judge. What it raises ends the run."""

    def tool_span(self, run: ActiveRun, context: ToolContext[Any]) -> AbstractAsyncContextManager[Any]:
        """Held open for one tool call."""
        return nullcontext()

    async def tool_start(self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool) -> None:
        """A tool is about to run."""

    async def tool_end(
        self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool, output: Any
    ) -> Any:
        """A tool has run; what is returned is its output from here on."""
        return output

    async def handoff(self, run: ActiveRun, source: Agent[Any], target: Agent[Any]) -> None:
        """An agent hands over to another."""

    async def turn_end(self, run: ActiveRun) -> None:
        """A turn is complete, its tools included: sessions store it."""

    async def final_output(self, run: ActiveRun, agent: Agent[Any], output: Any) -> None:
        """The run has an output: output guardrails judge it, hooks are told."""

    async def run_end(self, run: ActiveRun) -> None:
        """The run is over, however it ended; before its terminal event."""
