"""The places where others may take part in a run: hooks, spans, guardrails, approvals, sessions.

The loop calls every seam at its moment and does not know who stands behind it. Each seam
returns what lets the run go on. A feature that takes part in runs is a subclass here, in a
file of its own, never a branch in the loop; `run/parts/__init__.py` says who takes part in a run.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.context import ToolContext
    from millstream.items import ModelResponse, TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.run.prepare import PreparedAgent
    from millstream.run.tools import ToolCall
    from millstream.run.turn import Turn
    from millstream.tool import FunctionTool


class Seams:
    """What a run asks others at each of its moments, in the order of the loop. What one raises ends the run."""

    @property
    def reads_answers(self) -> bool:
        """Whether `model_read` is to be called for the answer that is about to begin."""
        return False

    def starting(self, run: ActiveRun) -> None:
        """The run is about to start: not in its own task yet, but where its caller is."""

    def run_span(self, run: ActiveRun) -> AbstractAsyncContextManager[Any]:
        """Held open from the first event of the run to the last but one, in the run's own task.

        It never sees an exception: how the run ends is known in `run_end`.
        """
        return nullcontext()

    async def run_input(self, run: ActiveRun) -> None:
        """Before the first turn: sessions add history, blocking input guardrails judge, parallel ones begin."""

    async def run_resumed(self, run: ActiveRun) -> None:
        """In place of `run_input`, where the run goes on with one that was paused or had ended: nothing begins anew."""

    async def input_added(
        self, run: ActiveRun, agent: Agent[Any], items: Sequence[TResponseInputItem]
    ) -> None:
        """Input that was sent to the run is about to be given to the model of `agent`: input guardrails judge it."""

    def turn_span(self, run: ActiveRun) -> AbstractAsyncContextManager[Any]:
        """Held open for one turn, its tools and handoffs included."""
        return nullcontext()

    async def agent_start(self, run: ActiveRun, agent: Agent[Any]) -> None:
        """An agent begins to act."""

    def model_span(self, run: ActiveRun, ready: PreparedAgent) -> AbstractAsyncContextManager[Any]:
        """Held open for one model call, from behind its `model.started` to before its `model.completed`."""
        return nullcontext()

    async def model_start(
        self, run: ActiveRun, agent: Agent[Any], instructions: str | None, input: Sequence[TResponseInputItem]
    ) -> None:
        """A model is about to be called."""

    async def model_read(self, run: ActiveRun, turn: Turn) -> None:
        """One read of the model's answer was written. Only called where `reads_answers` is set."""

    async def model_end(self, run: ActiveRun, agent: Agent[Any], response: ModelResponse) -> None:
        """A model has answered."""

    async def before_tools(self, run: ActiveRun, calls: Sequence[ToolCall]) -> None:
        """Before the tools of a turn start: parallel guardrails judge."""

    def tool_span(self, run: ActiveRun, context: ToolContext[Any]) -> AbstractAsyncContextManager[Any]:
        """Held open for one tool call, in the task of that call. It sees what the tool raises."""
        return nullcontext()

    async def tool_input(self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool) -> str | None:
        """A tool may begin with its arguments: None; or what the call is answered with instead of that."""
        return None

    async def tool_start(self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool) -> None:
        """A tool is about to run."""

    async def tool_output(
        self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool, output: Any
    ) -> Any:
        """A tool has run; what is returned is its output from here on."""
        return output

    def tool_answered(self, run: ActiveRun, context: ToolContext[Any], output: Any) -> None:
        """A call has its output: of its tool, or of who did not let that begin. Inside of its `tool_span`."""

    async def tool_end(
        self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool, output: Any
    ) -> None:
        """A tool has run, and that is its output, whatever is raised here."""

    def handoff_span(self, run: ActiveRun, source: Agent[Any]) -> AbstractAsyncContextManager[Any]:
        """Held open while `source` hands over: its functions for that, and `handoff`. It sees what those raise."""
        return nullcontext()

    async def handoff(self, run: ActiveRun, source: Agent[Any], target: Agent[Any]) -> None:
        """An agent hands over to another."""

    async def turn_end(self, run: ActiveRun) -> None:
        """A turn is complete, its tools included, and another follows: sessions store it."""

    async def final_output(self, run: ActiveRun, agent: Agent[Any], output: Any) -> None:
        """The run has an output: output guardrails judge it, hooks are told."""

    async def run_end(self, run: ActiveRun, error: BaseException | None) -> None:
        """The loop is over, however it ended, and the history is whole; before the terminal event, or the pause.

        Called once for every run that took its first step, also where that was cancelled; what
        waits here is not interrupted by `cancel`. What it raises is what a run fails with that
        would not have failed, and is logged otherwise.

        Args:
            run: the run.
            error: what it fails with; a `CancelledError` where it was cancelled, None where it
                has its output or pauses.
        """


class Together(Seams):
    """Several who take part, asked one after the other; what they hold open closes in reverse.

    Args:
        parts: who takes part, in order.
    """

    def __init__(self, parts: Sequence[Seams]) -> None:
        self.parts = tuple(parts)

    @property
    def reads_answers(self) -> bool:
        """Whether any of them wants it."""
        return any(part.reads_answers for part in self.parts)

    def starting(self, run: ActiveRun) -> None:
        """Each."""
        for part in self.parts:
            part.starting(run)

    def run_span(self, run: ActiveRun) -> AbstractAsyncContextManager[Any]:
        """All of theirs."""
        return self._spans(lambda part: part.run_span(run))

    async def run_input(self, run: ActiveRun) -> None:
        """Each."""
        for part in self.parts:
            await part.run_input(run)

    async def run_resumed(self, run: ActiveRun) -> None:
        """Each."""
        for part in self.parts:
            await part.run_resumed(run)

    async def input_added(
        self, run: ActiveRun, agent: Agent[Any], items: Sequence[TResponseInputItem]
    ) -> None:
        """Each."""
        for part in self.parts:
            await part.input_added(run, agent, items)

    def turn_span(self, run: ActiveRun) -> AbstractAsyncContextManager[Any]:
        """All of theirs."""
        return self._spans(lambda part: part.turn_span(run))

    async def agent_start(self, run: ActiveRun, agent: Agent[Any]) -> None:
        """Each."""
        for part in self.parts:
            await part.agent_start(run, agent)

    def model_span(self, run: ActiveRun, ready: PreparedAgent) -> AbstractAsyncContextManager[Any]:
        """All of theirs."""
        return self._spans(lambda part: part.model_span(run, ready))

    async def model_start(
        self, run: ActiveRun, agent: Agent[Any], instructions: str | None, input: Sequence[TResponseInputItem]
    ) -> None:
        """Each."""
        for part in self.parts:
            await part.model_start(run, agent, instructions, input)

    async def model_read(self, run: ActiveRun, turn: Turn) -> None:
        """Each that wants it."""
        for part in self.parts:
            if part.reads_answers:
                await part.model_read(run, turn)

    async def model_end(self, run: ActiveRun, agent: Agent[Any], response: ModelResponse) -> None:
        """Each."""
        for part in self.parts:
            await part.model_end(run, agent, response)

    async def before_tools(self, run: ActiveRun, calls: Sequence[ToolCall]) -> None:
        """Each."""
        for part in self.parts:
            await part.before_tools(run, calls)

    def tool_span(self, run: ActiveRun, context: ToolContext[Any]) -> AbstractAsyncContextManager[Any]:
        """All of theirs."""
        return self._spans(lambda part: part.tool_span(run, context))

    async def tool_input(self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool) -> str | None:
        """Each, until one answers in the tool's place."""
        for part in self.parts:
            answer = await part.tool_input(run, context, tool)
            if answer is not None:
                return answer
        return None

    async def tool_start(self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool) -> None:
        """Each."""
        for part in self.parts:
            await part.tool_start(run, context, tool)

    async def tool_output(
        self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool, output: Any
    ) -> Any:
        """Each, with what the one before made of the output."""
        for part in self.parts:
            output = await part.tool_output(run, context, tool, output)
        return output

    def tool_answered(self, run: ActiveRun, context: ToolContext[Any], output: Any) -> None:
        """Each."""
        for part in self.parts:
            part.tool_answered(run, context, output)

    async def tool_end(
        self, run: ActiveRun, context: ToolContext[Any], tool: FunctionTool, output: Any
    ) -> None:
        """Each."""
        for part in self.parts:
            await part.tool_end(run, context, tool, output)

    def handoff_span(self, run: ActiveRun, source: Agent[Any]) -> AbstractAsyncContextManager[Any]:
        """All of theirs."""
        return self._spans(lambda part: part.handoff_span(run, source))

    async def handoff(self, run: ActiveRun, source: Agent[Any], target: Agent[Any]) -> None:
        """Each."""
        for part in self.parts:
            await part.handoff(run, source, target)

    async def turn_end(self, run: ActiveRun) -> None:
        """Each, in reverse: what is to be judged is so before it is stored."""
        for part in reversed(self.parts):
            await part.turn_end(run)

    async def final_output(self, run: ActiveRun, agent: Agent[Any], output: Any) -> None:
        """Each."""
        for part in self.parts:
            await part.final_output(run, agent, output)

    async def run_end(self, run: ActiveRun, error: BaseException | None) -> None:
        """Each, also where one before raised; that is raised at the end, the first of several."""
        failure: Exception | None = None
        for part in self.parts:
            try:
                await part.run_end(run, error)
            except Exception as raised:
                failure = failure or raised
        if failure is not None:
            raise failure

    @asynccontextmanager
    async def _spans(self, span: Callable[[Seams], AbstractAsyncContextManager[Any]]) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for part in self.parts:
                await stack.enter_async_context(span(part))
            yield
