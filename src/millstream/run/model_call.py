"""The model call of a turn: what the model is given, its answer into the log, its tries and its usage.

Rules of this file:

1. A `model.started` has its `model.completed`, with the usage of all tries: from here where the
   answer is whole, from the end of the run (`closing.py`) where it is not.
2. Of a try that is given up only its usage is kept: whatever becomes of the next one, the
   turn has nothing of it.
3. What the model said is taken into the run once, also where the stream was cut behind its
   final event.

`ActiveRun.streamed` is asked here, and nowhere else in the loop: does the model answer as a
stream, or whole?
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from millstream.config import CallModelData, ModelInputData
from millstream.context import settle
from millstream.errors import UserError
from millstream.events import SOONEST_FIRST, ModelRetried, ModelStarted
from millstream.items import HandoffCallItem, ToolCallItem
from millstream.models.estimate import estimate_tokens, estimate_usage
from millstream.models.promise import Model, ModelTracing
from millstream.models.retry import Retries, Retry
from millstream.run.turn import Turn
from millstream.usage import Usage

if TYPE_CHECKING:
    from millstream.config import RunConfig
    from millstream.items import ModelResponse, TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.run.conversation import Conversation
    from millstream.run.prepare import PreparedAgent
    from millstream.run.seams import Seams

logger = logging.getLogger("millstream")

_SLICE = 0.005
"""Seconds after which a stream that always has more at hand lets the event loop serve others."""


class ModelCaller:
    """Makes the model call of one turn.

    Args:
        run: the run that it belongs to.
        seams: who takes part.
        conversation: what the model's server remembers; changed by an answer.
        ready: the agent whose turn it is.
    """

    def __init__(
        self, run: ActiveRun, seams: Seams, conversation: Conversation, ready: PreparedAgent
    ) -> None:
        self._run = run
        self._seams = seams
        self._conversation = conversation
        self._ready = ready
        self._instructions: str | None = None
        self._input: list[TResponseInputItem] = []
        self._is_taken = False
        self._seams_error: Exception | None = None
        """What somebody raised who takes part in the run, of what the model says."""

    async def call(self) -> Turn:
        """Call the model, and again where its settings say so; what it said is in the run's items and usage.

        Raises:
            Exception: what the model, the filter of its input, or the log raised.
            CancelledError: the run is to stop. `RunProgress.turn` has what the model had said by then.
        """
        run, progress, ready = self._run, self._run.progress, self._ready
        self._begin_try()
        self._instructions, self._input = await self._model_input()
        started = ModelStarted(turn=progress.current_turn, model=model_name(ready.model))
        await run.write_whole(started, has_said=False, turns=progress.current_turn - 1)
        is_whole = False
        try:
            async with self._seams.model_span(run, ready):
                await self._seams.model_start(run, ready.agent, self._instructions, self._input)
                turn, response = await self._answer()
                is_whole = True
                self._take(turn, response)
                await self._seams.model_end(run, ready.agent, response)
                return turn
        except asyncio.CancelledError:
            is_whole = progress.turn is not None and progress.turn.response is not None
            raise
        finally:
            await self._end(is_whole=is_whole)

    async def _end(self, *, is_whole: bool) -> None:
        """Take in what there is of an answer, and write the end of a call that is whole; of any other the run ends."""
        run, turn = self._run, cast("Turn", self._run.progress.turn)
        if turn.response is not None:
            self._take(turn, turn.response)
        elif turn.usage is not None:
            run.use(turn.usage, model_name(self._ready.model))
        if is_whole:
            number = run.progress.current_turn
            if run.checkpoints is not None:
                run.checkpoints.take(has_said=True, turns=number)
            await run.write_closing(turn.completed(number, status="completed"), is_whole=True)

    def _begin_try(self, earlier: Sequence[Usage] = ()) -> None:
        """Take up a try of the call, behind those that have used `earlier`."""
        ready = self._ready
        self._run.progress.turn = Turn(ready.agent, ready.by_name, ready.handoffs, earlier)

    def _take(self, turn: Turn, response: ModelResponse) -> None:
        """Take in what the model said, once."""
        if self._is_taken:
            return
        self._is_taken = True
        progress = self._run.progress
        progress.raw_responses.append(response)
        self._run.use(response.usage, model_name(self._ready.model))
        for item in turn.items:
            progress.add(item)
            if isinstance(item, ToolCallItem | HandoffCallItem):
                progress.have_used_tools[id(turn.agent)] = turn.agent.name
        self._conversation.answered(response.response_id, len(progress.model_items))

    # --- what it is given ------------------------------------------------------------------

    async def _model_input(self) -> tuple[str | None, list[TResponseInputItem]]:
        """Instructions and input of the call, as `call_model_input_filter` leaves them."""
        progress, conversation, ready = self._run.progress, self._conversation, self._ready
        if conversation.knows_input:
            items = progress.as_input(progress.model_items[conversation.known_items :])
        else:
            items = progress.input_items()
        filter_input = self._run.config.call_model_input_filter
        if filter_input is None:
            return ready.instructions, items
        data = ModelInputData(input=items, instructions=ready.instructions)
        filtered = await settle(
            filter_input(
                CallModelData(model_data=data, agent=ready.agent, context=progress.context_wrapper.context)
            )
        )
        if not isinstance(filtered, ModelInputData):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError("call_model_input_filter must return a ModelInputData instance")
        return filtered.instructions, list(filtered.input)

    # --- its tries -------------------------------------------------------------------------

    async def _answer(self) -> tuple[Turn, ModelResponse]:
        """Ask the model, and again where its settings say so (`models/retry.py`)."""
        run, conversation, ready = self._run, self._conversation, self._ready
        retries = Retries(
            ready.settings.retry,
            ready.model,
            run.streamed,
            conversation.previous_response_id,
            conversation.conversation_id,
        )
        while True:
            turn = cast("Turn", run.progress.turn)
            try:
                return turn, await self._try(turn)
            except Exception as error:
                # A log that takes no more is no failure of the model, nor is what another part of the run
                # found in its answer; and what has ended is not begun again.
                if error is run.log_error or error is self._seams_error or turn.response is not None:
                    raise
                retry = await retries.after(
                    error,
                    output_started=turn.output_started and not run.writer.hides,
                    now=run.config.clock.time(),
                )
                if retry is None:
                    raise
                logger.info("run %s: the model is asked again: %s", run.run_id, retry.reason, exc_info=error)
            usage = turn.usage or Usage(requests=1)
            # Nothing else of it is kept, whatever becomes of the next.
            self._begin_try([*turn.earlier, usage])
            run.use(usage, model_name(ready.model))
            await self._wait_for(retry)

    async def _wait_for(self, retry: Retry) -> None:
        """Say that the model is asked again, and wait until it is."""
        run = self._run
        turn = run.progress.current_turn
        run.writer.drop_try()
        await run.write(
            ModelRetried(turn=turn, attempt=retry.attempt, reason=retry.reason, delay=retry.delay)
        )
        # Nothing of this turn is there to be kept: the run need not wait for its end.
        with run.stoppable(by=SOONEST_FIRST), run.steering.interrupts(when=SOONEST_FIRST):
            await run.config.clock.sleep(retry.delay)

    async def _try(self, turn: Turn) -> ModelResponse:
        """Ask the model once, as a stream or for the whole response. Called as the SDK calls its models."""
        run, ready, conversation = self._run, self._ready, self._conversation
        asked = {
            "system_instructions": self._instructions,
            "input": self._input,
            "model_settings": ready.settings,
            "tools": ready.tools,
            "output_schema": ready.output_schema,
            "handoffs": list(ready.handoffs.values()),
            "tracing": _tracing(run.config),
        }
        also = {
            "previous_response_id": conversation.previous_response_id,
            "conversation_id": conversation.conversation_id,
            "prompt": None,
        }
        try:
            if not run.streamed:
                response = await ready.model.get_response(
                    **cast("dict[str, Any]", asked), **cast("dict[str, Any]", also)
                )
                await run.write(*cast("list[Any]", turn.whole(response)))
                return response
            # A model that was written for the SDK need not know of batches.
            batches: Any = getattr(ready.model, "stream_batches", None) or partial(
                Model.stream_batches, ready.model
            )
            await self._stream(turn, batches(*asked.values(), **also))
            return turn.finish()
        finally:
            self._estimate(turn)

    async def _stream(self, turn: Turn, stream: Any) -> None:
        run = self._run
        reads_answers = self._seams.reads_answers
        now = run.loop.time  # how busy this process is, which a test's clock cannot tell
        due = now() + _SLICE
        try:
            async for batch in stream:
                payloads = turn.feed(batch)
                await run.write_model_events(payloads, raw_only=len(payloads) == len(batch.events))
                if reads_answers:
                    await self._read(turn)
                if now() > due:
                    await asyncio.sleep(0)
                    due = now() + _SLICE
        finally:
            # The model's socket closes here and now, not when the collector finds the generator.
            if hasattr(stream, "aclose"):
                await stream.aclose()

    async def _read(self, turn: Turn) -> None:
        try:
            await self._seams.model_read(self._run, turn)
        except Exception as error:
            self._seams_error = error
            raise

    def _estimate(self, turn: Turn) -> None:
        """Count what a try has used, where its server did not tell, or did not come to it."""
        if not turn.is_untold:
            return
        ready = self._ready
        count = getattr(ready.model, "count_tokens", None) or estimate_tokens
        try:
            usage = estimate_usage(
                count,
                instructions=self._instructions,
                input=self._input,
                tools=[*ready.tools, *ready.handoffs.values()],
                said=turn.said(),
            )
        except Exception:  # a tokenizer of the user's, say: its trouble is not the run's
            logger.exception("run %s: the usage of a model call could not be estimated", self._run.run_id)
            return
        if usage is not None:
            turn.tell(usage)


def _tracing(config: RunConfig) -> ModelTracing:
    """What a model is told that opens spans itself, as those do that were written for the SDK."""
    if config.tracing_disabled:
        return ModelTracing.DISABLED
    return ModelTracing.ENABLED if config.trace_include_sensitive_data else ModelTracing.ENABLED_WITHOUT_DATA


def model_name(model: Model) -> str:
    """What a model is called, where it says so; else its class."""
    name = getattr(model, "model", None)
    return name if isinstance(name, str) else type(model).__name__
