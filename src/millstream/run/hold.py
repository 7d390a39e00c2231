"""Output guardrails: when they judge, and what is held of a stream until they have.

Rules of this file:

1. The output is judged when the hooks have been told of it, by the guardrails of the agent that
   gave it and those of the run, side by side. It is the run's only when all have passed it.
2. Where one of them holds, everything of a model call waits, from behind its `model.started`. It
   is written in its order when it may be; until then it is in nobody's log.
3. With `HoldChunks`, the guardrail is asked on the way about all the text of the answer so far, and
   what had come by then is let out, unless another guardrail holds for the whole verdict.
4. A turn that turns out not to be the last is let out before its tools run, or the run is handed
   over: the rest of its text by those that judge chunks, otherwise unjudged.
5. Where one trips, what waits is forgotten and what is out is taken back (`run/retract.py`). Where
   a run ends otherwise, what waits is forgotten too: `ActiveRun` sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from millstream.errors import OutputGuardrailTripwireTriggered
from millstream.guardrail import HoldChunks, OutputGuardrail, OutputGuardrailResult
from millstream.items import MessageOutputItem
from millstream.run.blocked import withhold_tool_outputs
from millstream.run.retract import take_back
from millstream.run.seams import Seams
from millstream.run.verdicts import Verdicts, tell

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.items import TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.run.tools import ToolCall
    from millstream.run.turn import Turn


class OutputGuardrails(Seams):
    """Judges the output of a run, and holds what its models write until then.

    Args:
        of_run: the guardrails of the run; each agent has its own.
    """

    def __init__(self, of_run: Sequence[OutputGuardrail[Any]]) -> None:
        self._of_run = of_run
        self._turn_began: int | None = None
        """The position behind which the present turn is written; None between turns."""
        self._chunks: _Chunks | None = None

    @property
    def reads_answers(self) -> bool:
        """Whether chunks of the present answer are judged."""
        return self._chunks is not None

    async def run_resumed(self, run: ActiveRun) -> None:
        """The turn that is taken up again has said what it has to say."""
        self._turn_began = run.begins_after

    async def model_start(
        self, run: ActiveRun, agent: Agent[Any], instructions: str | None, input: Sequence[TResponseInputItem]
    ) -> None:
        """From here on what the model writes is held, where a guardrail wants that."""
        guardrails = self._of(agent)
        self._turn_began = run.position
        chunked = [each for each in guardrails if isinstance(each.hold, HoldChunks)]
        self._chunks = _Chunks(run, agent, chunked) if chunked and run.streamed else None
        if any(each.hold != "pass" for each in guardrails):
            run.writer.hold()

    async def model_read(self, run: ActiveRun, turn: Turn) -> None:
        """Where enough new text has come, it is judged, and let out."""
        chunks = self._chunks
        if chunks is None or not chunks.are_due(turn):
            return
        await self._judge_chunk(run, chunks)
        if not any(each.hold == "verdict" for each in self._of(chunks.agent)):
            await run.writer.let_out()

    async def before_tools(self, run: ActiveRun, calls: Sequence[ToolCall]) -> None:
        """The turn is not the last, as far as the model goes."""
        await self._let_out(run)

    async def handoff(self, run: ActiveRun, source: Agent[Any], target: Agent[Any]) -> None:
        """The turn is not the last."""
        await self._let_out(run)

    async def turn_end(self, run: ActiveRun) -> None:
        """The turn was not the last."""
        await self._let_out(run)
        self._turn_began = None

    async def final_output(self, run: ActiveRun, agent: Agent[Any], output: Any) -> None:
        """Judge the output; what waits is let out when all have passed it."""
        chunks = self._chunks
        turn = run.progress.turn
        if chunks is not None and turn is not None and _messages(turn) > 1:
            # The output is the last message alone: of the others no guardrail would know the end.
            await self._judge_chunk(run, chunks)
        await self._judge(run, agent, output, self._of(agent))
        await run.writer.release()

    async def run_end(self, run: ActiveRun, error: BaseException | None) -> None:
        """A run that pauses has nothing that waits."""
        if error is None:
            await self._let_out(run)

    def _of(self, agent: Agent[Any]) -> list[OutputGuardrail[Any]]:
        return [*agent.output_guardrails, *self._of_run]

    async def _let_out(self, run: ActiveRun) -> None:
        chunks = self._chunks
        if run.writer.holds and chunks is not None and chunks.are_left():
            await self._judge_chunk(run, chunks)
        await run.writer.release()

    async def _judge_chunk(self, run: ActiveRun, chunks: _Chunks) -> None:
        text = chunks.take()
        await self._judge(run, chunks.agent, text, chunks.guardrails, is_whole=False)

    async def _judge(
        self,
        run: ActiveRun,
        agent: Agent[Any],
        output: Any,
        guardrails: Sequence[OutputGuardrail[Any]],
        *,
        is_whole: bool = True,
    ) -> None:
        """Ask all of `guardrails`. That a piece has passed is not told: the verdict on the whole will be."""

        async def heard(result: OutputGuardrailResult) -> None:
            found = result.output
            if is_whole or found.tripwire_triggered:
                run.progress.output_guardrail_results.append(result)
                await tell(
                    run,
                    "output",
                    result.guardrail.get_name(),
                    tripped=found.tripwire_triggered,
                    info=found.output_info,
                )
            if found.tripwire_triggered:
                raise OutputGuardrailTripwireTriggered(result)

        verdicts: Verdicts[OutputGuardrailResult] = Verdicts(run, heard)
        context = run.progress.context_wrapper
        verdicts.ask("output", ((each.get_name(), each.run(context, agent, output)) for each in guardrails))
        try:
            await verdicts.given()
        except OutputGuardrailTripwireTriggered as tripped:
            if self._turn_began is not None:  # else it is an error handler's output, and nobody has seen it
                outputs = withhold_tool_outputs(run, agent, tripped)
                await take_back(run, self._turn_began, outputs=outputs)
            raise


class _Chunks:
    """The text of an answer as it grows, and how much of it was judged.

    Args:
        run: the run.
        agent: the agent whose model answers.
        guardrails: those that judge chunks of it.
    """

    def __init__(self, run: ActiveRun, agent: Agent[Any], guardrails: Sequence[OutputGuardrail[Any]]) -> None:
        self.agent = agent
        self.guardrails = guardrails
        self._run = run
        self._size = min(each.hold.characters for each in guardrails if isinstance(each.hold, HoldChunks))
        self._turn: Turn | None = None
        self._place = 0
        self._text = ""
        self._judged = 0

    def are_due(self, turn: Turn) -> bool:
        """Whether enough text has come since the last time."""
        self._hear(turn)
        return len(self._text) - self._judged >= self._size

    def are_left(self) -> bool:
        """Whether there is text that was not judged."""
        self._hear(self._turn)
        return len(self._text) > self._judged

    def take(self) -> str:
        """All the text so far, which is judged now."""
        self._hear(self._turn)
        self._judged = len(self._text)
        return self._text

    def _hear(self, turn: Turn | None) -> None:
        if turn is not self._turn:  # another try: the one before is void
            self._turn, self._place, self._text, self._judged = turn, 0, "", 0
        if turn is not None:
            more, self._place = turn.text_behind(self._place)
            self._text += more


def _messages(turn: Turn) -> int:
    return sum(isinstance(item, MessageOutputItem) for item in turn.items)
