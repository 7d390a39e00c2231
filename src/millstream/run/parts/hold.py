"""Output guardrails: when they judge, and what is held of a stream until they have.

Rules of this file:

1. The output is judged when the hooks have been told of it, by the guardrails of the agent that
   gave it and those of the run, side by side. It is the run's only when all have passed it.
2. Where one of them holds, everything of a model call waits, from behind its `model.started`. It
   is written in its order when it may be; until then it is in nobody's log.
3. With `HoldChunks`, the guardrail is asked on the way about all the text of the answer so far, and
   what had come by then is let out, unless another guardrail holds for the whole verdict.
4. A turn that turns out not to be the last is let out before its tools run, or the run is handed
   over. No text is let out that those who hold have not passed: they are asked about its text.
5. Where one trips, what waits is forgotten and what is out is taken back (`run/parts/retract.py`). Where
   a run ends otherwise, what waits is forgotten too: `ActiveRun` sees to that.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from millstream.errors import OutputGuardrailTripwireTriggered
from millstream.guardrail import HoldChunks, OutputGuardrail, OutputGuardrailResult
from millstream.run.parts.blocked import withhold_tool_outputs
from millstream.run.parts.retract import take_back
from millstream.run.parts.verdicts import Verdicts, tell
from millstream.run.seams import Seams

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
        self._held: _Held | None = None

    @property
    def reads_answers(self) -> bool:
        """Whether the present answer is judged on the way."""
        return self._held is not None and bool(self._held.by_pieces)

    async def run_resumed(self, run: ActiveRun) -> None:
        """The turn that is taken up again has said what it has to say."""
        self._turn_began = run.begins_after

    async def model_start(
        self, run: ActiveRun, agent: Agent[Any], instructions: str | None, input: Sequence[TResponseInputItem]
    ) -> None:
        """From here on what the model writes is held, where a guardrail wants that."""
        self._turn_began = run.position
        holding = [each for each in self._of(agent) if each.hold != "pass"]
        self._held = _Held(agent, holding) if holding else None
        if holding:
            run.writer.hold(self)

    async def model_read(self, run: ActiveRun, turn: Turn) -> None:
        """Where enough new text has come, it is judged, and let out."""
        held = self._held
        if held is None or not held.is_due(turn):
            return
        await self._judge_piece(run, held, held.by_pieces, turn.prose())
        if held.by_pieces == held.guardrails:
            await run.writer.let_out(self)

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
        """Judge the output; what waits is let out when all have passed it, and whatever else was said."""
        if run.writer.holds and not _is_all_that_was_said(agent, run.progress.turn, output):
            await self._judge_the_rest(run)
        await self._judge(run, agent, output, self._of(agent))
        await run.writer.release(self)

    async def run_end(self, run: ActiveRun, error: BaseException | None) -> None:
        """A run that pauses has nothing that waits."""
        if error is None:
            await self._let_out(run)

    def _of(self, agent: Agent[Any]) -> list[OutputGuardrail[Any]]:
        return [*agent.output_guardrails, *self._of_run]

    async def _let_out(self, run: ActiveRun) -> None:
        await self._judge_the_rest(run)
        await run.writer.release(self)

    async def _judge_the_rest(self, run: ActiveRun) -> None:
        """Ask all who hold about the text of the turn, if any of it waits that nobody was asked about."""
        held, turn = self._held, run.progress.turn
        if held is None or turn is None or not run.writer.holds:
            return
        text = turn.prose()
        if text and text != held.judged:
            await self._judge_piece(run, held, held.guardrails, text)

    async def _judge_piece(
        self, run: ActiveRun, held: _Held, guardrails: Sequence[OutputGuardrail[Any]], text: str
    ) -> None:
        await self._judge(run, held.agent, text, guardrails, is_whole=False)
        if guardrails == held.guardrails:
            held.judged = text

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
        verdicts.ask(
            "output", ((each.get_name(), partial(each.run, context, agent, output)) for each in guardrails)
        )
        try:
            await verdicts.given()
        except OutputGuardrailTripwireTriggered as tripped:
            if self._turn_began is not None:  # else it is an error handler's output, and nobody has seen it
                outputs = withhold_tool_outputs(run, agent, tripped)
                await take_back(run, self._turn_began, outputs=outputs)
            raise


class _Held:
    """An answer that is held, and how much of its text was judged.

    Args:
        agent: the agent whose model answers.
        guardrails: those that hold it.
    """

    def __init__(self, agent: Agent[Any], guardrails: Sequence[OutputGuardrail[Any]]) -> None:
        self.agent = agent
        self.guardrails = guardrails
        self.by_pieces = [each for each in guardrails if isinstance(each.hold, HoldChunks)]
        """Those that are asked on the way."""
        self.judged = ""
        """The text that all who hold have passed."""
        sizes = [each.hold.characters for each in guardrails if isinstance(each.hold, HoldChunks)]
        self._size = min(sizes, default=0)
        self._turn: Turn | None = None
        self._place = 0
        self._new = 0

    def is_due(self, turn: Turn) -> bool:
        """Whether enough text has come since this was so the last time."""
        if turn is not self._turn:  # another try: the one before is void
            self._turn, self._place, self._new, self.judged = turn, 0, 0, ""
        more, self._place = turn.text_behind(self._place)
        self._new += len(more)
        if self._new < self._size:
            return False
        self._new = 0
        return True


def _is_all_that_was_said(agent: Agent[Any], turn: Turn | None, output: Any) -> bool:
    """Whether `output` is the one text of the turn: not so behind other messages, or where an error handler gave it."""
    if turn is None:
        return True
    text = turn.prose()
    schema = agent.output_schema()
    if schema is None or schema.is_plain_text():
        return text == output
    try:
        return bool(schema.validate_json(text) == output)
    except Exception:  # it is no such value, or one of the program's own that cannot be compared
        return False
