"""The loop: asks the model, runs the tools, hands over, until there is an output.

There is one, for `run`, `run_sync` and `run_streamed` alike. It writes to the log and
returns nothing: whoever wants to know something reads. `ActiveRun.streamed` is asked once,
in `_ask`: does the model answer as a stream, or whole?
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from millstream.agent import ToolsToFinalOutputResult, refuse_unsupported
from millstream.config import (
    CallModelData,
    ModelInputData,
    RunErrorData,
    RunErrorHandlerInput,
    RunErrorHandlerResult,
)
from millstream.context import settle
from millstream.errors import (
    AgentsException,
    MaxTurnsExceeded,
    ModelBehaviorError,
    ModelRefusalError,
    UserError,
)
from millstream.events import (
    AgentUpdatedStreamEvent,
    ModelCompleted,
    ModelStarted,
    RunItemStreamEvent,
    RunStarted,
)
from millstream.handoff import Handoff, HandoffInputData
from millstream.items import HandoffCallItem, HandoffOutputItem, ItemHelpers, MessageOutputItem, ToolCallItem
from millstream.models.promise import Model, ModelTracing
from millstream.run.tools import CANCELLED_OUTPUT, ToolRunner, answer, finish, output_item, resolve
from millstream.run.turn import Turn
from millstream.tool import FunctionTool, FunctionToolResult, tool_names

if TYPE_CHECKING:
    from openai.types.responses import ResponseFunctionToolCall

    from millstream.agent import Agent, AgentOutputSchemaBase
    from millstream.config import ModelSettings, RunErrorHandlers
    from millstream.items import ModelResponse, RunItem, TResponseInputItem
    from millstream.run.active import ActiveRun
    from millstream.run.seams import Seams
    from millstream.tool import Tool

IGNORED_HANDOFF = "Multiple handoffs detected, ignoring this one."
"""What the history says of a second handoff in one response."""


@dataclass
class Conversation:
    """What the model's server remembers of earlier calls, where it is asked to.

    With `tracks`, a call sends only what the server has not seen.
    """

    previous_response_id: str | None = None
    conversation_id: str | None = None
    auto: bool = False
    known_items: int = 0

    @property
    def tracks(self) -> bool:
        """Whether the server keeps the history."""
        return self.auto or self.previous_response_id is not None or self.conversation_id is not None


@dataclass
class _Ready:
    """An agent prepared for one turn."""

    agent: Agent[Any]
    model: Model
    settings: ModelSettings
    instructions: str | None
    tools: list[Tool]
    by_name: dict[str, FunctionTool]
    handoffs: dict[str, Handoff[Any, Any]]
    output_schema: AgentOutputSchemaBase | None


class Loop:
    """Runs one run from its first event to its last.

    Args:
        run: where it writes, and what tells it to stop.
        seams: who takes part.
        conversation: what the model's server remembers.
        error_handlers: the caller's handlers for errors that may become an output.
    """

    def __init__(
        self,
        run: ActiveRun,
        seams: Seams,
        conversation: Conversation,
        error_handlers: RunErrorHandlers[Any] | None = None,
    ) -> None:
        self._run = run
        self._seams = seams
        self._conversation = conversation
        self._error_handlers: dict[str, Any] = dict(error_handlers or {})
        self._progress = run.progress
        self._turn: Turn | None = None

    async def main(self) -> None:
        """Run to the end. Returns when the terminal event is written, and never raises."""
        run = self._run
        run.began = True
        try:
            async with self._seams.run_span(run):
                try:
                    await self._main()
                finally:
                    await self._seams.run_end(run)
        except asyncio.CancelledError:
            # Cancelled by `cancel`, or by a loop that shuts down: either way this is the end.
            _uncancel()
            await self._keep_partial()
            await run.end_cancelled()
        except (Exception, SystemExit) as error:
            await self._keep_partial()
            await run.fail(error)
        else:
            await run.complete()

    async def _main(self) -> None:
        run, progress = self._run, self._progress
        await run.write(
            RunStarted(agent=progress.current_agent.name, input=progress.input),
            AgentUpdatedStreamEvent(progress.current_agent),
        )
        if run.cancel_mode is not None:
            raise asyncio.CancelledError
        await self._seams.run_input(run)
        while True:
            progress.current_turn += 1
            if progress.max_turns is not None and progress.current_turn > progress.max_turns:
                error = MaxTurnsExceeded(f"Max turns ({progress.max_turns}) exceeded")
                await self._handle("max_turns", error)
                return
            if await self._take_turn():
                return
            await self._seams.turn_end(run)
            if run.cancel_mode is not None:
                raise asyncio.CancelledError
            if run.config.ahead == "turn":
                with run.stoppable(by=("now", "after_tool", "after_turn")):
                    await run.readers.have_taken(run.position)

    # --- one turn --------------------------------------------------------------------------

    async def _take_turn(self) -> bool:
        """Ask the model once and do what it says. True when the run has its output."""
        run, progress = self._run, self._progress
        ready = await self._prepare(progress.current_agent)
        with run.stoppable(by=("now", "after_tool")):
            response = await self._ask(ready)
        turn = cast("Turn", self._turn)
        calls = [item.raw_item for item in turn.items if _is_function_call(item)]
        handoffs = [item for item in turn.items if isinstance(item, HandoffCallItem)]

        results = await self._run_tools(ready, calls)
        if handoffs:
            await self._hand_over(ready, handoffs)
            return False
        if results and await self._tools_decide(ready, results):
            return True
        if calls or any(isinstance(item, ToolCallItem) and _wants_an_answer(item) for item in turn.items):
            return False
        await self._final_output(ready, response)
        return True

    async def _prepare(self, agent: Agent[Any]) -> _Ready:
        run, context = self._run, self._progress.context_wrapper
        refuse_unsupported(agent)
        if self._progress.current_turn == 1:
            await self._seams.agent_start(run, agent)
        instructions = await agent.get_system_prompt(context)
        tools = await agent.get_all_tools(context)
        handoffs = await agent.get_handoffs(context)
        by_name = tool_names(agent.name, tools, handoffs, policy=run.config.tool_name_collision_policy)
        settings = agent.model_settings.resolve(run.config.model_settings)
        if agent.reset_tool_choice and self._progress.tools_used.get(id(agent)):
            settings = settings.resolve_tool_choice(None)
        return _Ready(
            agent=agent,
            model=self._model_of(agent),
            settings=settings,
            instructions=instructions,
            tools=tools,
            by_name=by_name,
            handoffs={handoff.tool_name: handoff for handoff in handoffs},
            output_schema=agent.output_schema(),
        )

    def _model_of(self, agent: Agent[Any]) -> Model:
        config = self._run.config
        wanted = config.model if config.model is not None else agent.model
        if wanted is not None and not isinstance(wanted, str):
            return wanted
        return config.get_model_provider().get_model(wanted)

    # --- the model -------------------------------------------------------------------------

    async def _ask(self, ready: _Ready) -> ModelResponse:
        run, progress = self._run, self._progress
        turn = self._turn = Turn(ready.agent, ready.by_name, ready.handoffs)
        instructions, items = await self._model_input(ready)
        await run.write(ModelStarted(turn=progress.current_turn, model=_model_name(ready.model)))
        response: ModelResponse | None = None
        status = "failed"
        try:
            async with self._seams.model_span(run, ready.agent):
                await self._seams.model_start(run, ready.agent, instructions, items)
                arguments = self._arguments(ready, instructions, items)
                if run.streamed:
                    await self._stream(turn, ready.model, arguments)
                    response = turn.finish()
                else:
                    response = await ready.model.get_response(*arguments[0], **arguments[1])
                    await run.write(*cast("list[Any]", turn.whole(response)))
                status = "completed"
                self._take_response(ready, response)
                await self._seams.model_end(run, ready.agent, response)
            return response
        except asyncio.CancelledError:
            status = "cancelled"
            raise
        finally:
            response = response or turn.response
            await finish(
                run,
                ModelCompleted(
                    turn=progress.current_turn,
                    status=status,
                    response_id=response.response_id if response else None,
                    usage=response.usage.to_dict() if response else {},
                ),
            )

    async def _stream(
        self, turn: Turn, model: Model, arguments: tuple[tuple[Any, ...], dict[str, Any]]
    ) -> None:
        run = self._run
        stream = model.stream_batches(*arguments[0], **arguments[1])
        try:
            async for batch in stream:
                payloads = turn.feed(batch)
                await run.write_model_events(payloads, raw_only=len(payloads) == len(batch.events))
        finally:
            # The model's socket closes here and now, not when the collector finds the generator.
            await cast("Any", stream).aclose()

    def _take_response(self, ready: _Ready, response: ModelResponse) -> None:
        progress = self._progress
        progress.raw_responses.append(response)
        progress.context_wrapper.usage.add(response.usage)
        for item in cast("Turn", self._turn).items:
            progress.add(item)
        if self._conversation.tracks:
            if self._conversation.conversation_id is None:
                self._conversation.previous_response_id = response.response_id
            self._conversation.known_items = len(progress.model_items)

    async def _model_input(self, ready: _Ready) -> tuple[str | None, list[TResponseInputItem]]:
        progress, conversation = self._progress, self._conversation
        if conversation.tracks and progress.raw_responses:
            items = [item.to_input_item() for item in progress.model_items[conversation.known_items :]]
        else:
            items = progress.input_items()
        progress.context_wrapper.turn_input = items
        filter_input = self._run.config.call_model_input_filter
        if filter_input is None:
            return ready.instructions, items
        data = ModelInputData(input=items, instructions=ready.instructions)
        filtered = await settle(
            filter_input(
                CallModelData(model_data=data, agent=ready.agent, context=progress.context_wrapper.context)
            )
        )
        if not isinstance(filtered, ModelInputData):
            raise UserError("call_model_input_filter must return a ModelInputData instance")
        return filtered.instructions, list(filtered.input)

    def _arguments(
        self, ready: _Ready, instructions: str | None, items: list[TResponseInputItem]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        positional = (
            instructions,
            items,
            ready.settings,
            ready.tools,
            ready.output_schema,
            list(ready.handoffs.values()),
            ModelTracing.DISABLED,
        )
        return positional, {
            "previous_response_id": self._conversation.previous_response_id,
            "conversation_id": self._conversation.conversation_id,
            "prompt": None,
        }

    # --- tools and handoffs ----------------------------------------------------------------

    async def _run_tools(
        self, ready: _Ready, raw_calls: Sequence[ResponseFunctionToolCall]
    ) -> list[FunctionToolResult]:
        run, progress = self._run, self._progress
        calls, answers = await resolve(run, raw_calls, ready.by_name)
        if not raw_calls:
            return []
        if run.cancel_mode is not None and run.cancel_mode != "after_turn":
            raise asyncio.CancelledError
        await self._seams.before_tools(run, calls)
        progress.tools_used.setdefault(id(ready.agent), []).extend(call.tool.name for call in calls)
        runner = ToolRunner(run, ready.agent, self._seams)
        try:
            for place, text in answers.items():
                runner.items[place] = await answer(run, raw_calls[place], text)
            return await runner.run_all(calls)
        finally:
            for _, item in sorted(runner.items.items()):
                progress.add(item)

    async def _tools_decide(self, ready: _Ready, results: list[FunctionToolResult]) -> bool:
        """Whether the tools' results are the output already (`Agent.tool_use_behavior`)."""
        decision = await _decide(ready.agent, self._progress.context_wrapper, results)
        if not decision.is_final_output:
            return False
        output = decision.final_output
        if ready.agent.output_type in (None, str):
            output = str(output)
        await self._set_output(ready.agent, output)
        return True

    async def _hand_over(self, ready: _Ready, requests: list[HandoffCallItem]) -> None:
        run, progress = self._run, self._progress
        if run.stops_after("now", "after_tool"):
            raise asyncio.CancelledError
        first, *others = requests
        for request in others:
            progress.add(await answer(run, request.raw_item, IGNORED_HANDOFF))
        handoff = ready.handoffs[first.raw_item.name]
        target: Agent[Any] = await handoff.on_invoke_handoff(
            progress.context_wrapper, first.raw_item.arguments
        )
        refuse_unsupported(target)
        raw_output = ItemHelpers.tool_call_output_item(first.raw_item, handoff.get_transfer_message(target))
        item = HandoffOutputItem(ready.agent, raw_output, source_agent=ready.agent, target_agent=target)
        progress.add(item)
        await run.write(RunItemStreamEvent(item=item))
        await self._seams.handoff(run, ready.agent, target)
        await self._filter_handoff(handoff, item)
        progress.current_agent = target
        await run.write(AgentUpdatedStreamEvent(target))
        await self._seams.agent_start(run, target)

    async def _filter_handoff(self, handoff: Handoff[Any, Any], item: HandoffOutputItem) -> None:
        progress = self._progress
        input_filter = handoff.input_filter or self._run.config.handoff_input_filter
        if input_filter is None:
            return
        new = _items_of_turn(progress.model_items, cast("Turn", self._turn), item)
        data = HandoffInputData(
            input_history=progress.input if isinstance(progress.input, str) else tuple(progress.input),
            pre_handoff_items=tuple(progress.model_items[: len(progress.model_items) - len(new)]),
            new_items=tuple(new),
            run_context=progress.context_wrapper,
        )
        filtered = await settle(input_filter(data))
        if not isinstance(filtered, HandoffInputData):
            raise UserError(f"Invalid input filter result: {filtered!r} is not a HandoffInputData")
        history = filtered.input_history
        progress.input = history if isinstance(history, str) else list(history)
        kept = filtered.input_items if filtered.input_items is not None else filtered.new_items
        progress.model_items = [*filtered.pre_handoff_items, *kept]

    # --- the output ------------------------------------------------------------------------

    async def _final_output(self, ready: _Ready, response: ModelResponse) -> None:
        messages = [output for output in response.output if getattr(output, "type", None) == "message"]
        last = messages[-1] if messages else None
        text = ItemHelpers.extract_last_text(last) if last is not None else None
        refusal = ItemHelpers.extract_refusal(last) if last is not None and not text else None
        if refusal:
            await self._handle("model_refusal", ModelRefusalError(refusal))
            return
        schema = ready.output_schema
        if schema is None or schema.is_plain_text():
            await self._set_output(ready.agent, text or "")
            return
        try:
            output = schema.validate_json(text or "")
        except ModelBehaviorError as error:
            await self._handle("invalid_final_output", error)
            return
        await self._set_output(ready.agent, output)

    async def _set_output(self, agent: Agent[Any], output: Any) -> None:
        await self._seams.final_output(self._run, agent, output)
        self._progress.final_output = output

    async def _handle(self, kind: str, error: AgentsException) -> None:
        """Let the caller's handler turn `error` into an output, or raise it."""
        progress = self._progress
        handler = self._error_handlers.get(kind)
        if handler is None:
            raise error
        data = RunErrorData(
            input=progress.input,
            new_items=list(progress.new_items),
            history=progress.input_items(),
            output=[item.to_input_item() for item in progress.new_items],
            raw_responses=list(progress.raw_responses),
            last_agent=progress.current_agent,
        )
        error.run_data = progress.error_details()
        result = await settle(
            handler(
                RunErrorHandlerInput(
                    error=cast("Any", error), context=progress.context_wrapper, run_data=data
                )
            )
        )
        if result is None:
            raise error
        result = _handler_result(result)
        agent = progress.current_agent
        if result.include_in_history:
            item = MessageOutputItem(agent, _message(_as_text(agent, result.final_output)))
            progress.add(item)
            await self._run.write(RunItemStreamEvent(item=item))
        await self._set_output(agent, result.final_output)

    # --- stopping --------------------------------------------------------------------------

    async def _keep_partial(self) -> None:
        """Leave a history that can be gone on with: partial text kept, every open call answered."""
        turn, progress, run = self._turn, self._progress, self._run
        if turn is None:
            return
        known = {id(item) for item in progress.new_items}
        items: list[RunItem] = [item for item in turn.items if id(item) not in known]
        for item in items:
            progress.add(item)
        progress.partial_text = turn.partial_text()
        if progress.partial_text:
            item = MessageOutputItem(
                progress.current_agent, _message(progress.partial_text, status="incomplete")
            )
            progress.add(item)
            await finish(run, RunItemStreamEvent(item=item))
        answered = {_call_id(item.raw_item) for item in progress.new_items if _is_output(item)}
        for item in turn.items:
            raw_call = item.raw_item
            if getattr(raw_call, "type", None) == "function_call" and _call_id(raw_call) not in answered:
                output = output_item(progress.current_agent, raw_call, CANCELLED_OUTPUT)
                progress.add(output)
                await finish(run, RunItemStreamEvent(item=output))


def _is_function_call(item: Any) -> bool:
    return isinstance(item, ToolCallItem) and getattr(item.raw_item, "type", None) == "function_call"


def _call_id(raw_item: Any) -> str | None:
    return raw_item.get("call_id") if isinstance(raw_item, dict) else getattr(raw_item, "call_id", None)


def _is_output(item: Any) -> bool:
    return item.type in ("tool_call_output_item", "handoff_output_item")


def _wants_an_answer(item: ToolCallItem) -> bool:
    # A hosted tool has run by the time its call is reported; the model has seen its result.
    return _is_function_call(item)


def _items_of_turn(items: list[RunItem], turn: Turn, last: RunItem) -> list[RunItem]:
    """The items of the turn that ends with `last`: from the model's first item on."""
    first = turn.items[0] if turn.items else last
    index = next((i for i, item in enumerate(items) if item is first), len(items))
    return items[index:]


def _model_name(model: Model) -> str:
    name = getattr(model, "model", None)
    return name if isinstance(name, str) else type(model).__name__


async def _decide(
    agent: Agent[Any], context: Any, results: list[FunctionToolResult]
) -> ToolsToFinalOutputResult:
    behavior = agent.tool_use_behavior
    if behavior == "run_llm_again":
        return ToolsToFinalOutputResult(is_final_output=False)
    if behavior == "stop_on_first_tool":
        return ToolsToFinalOutputResult(is_final_output=True, final_output=results[0].output)
    if isinstance(behavior, dict):
        names = behavior.get("stop_at_tool_names", [])
        for result in results:
            if result.tool.name in names:
                return ToolsToFinalOutputResult(is_final_output=True, final_output=result.output)
        return ToolsToFinalOutputResult(is_final_output=False)
    if callable(behavior):
        return await settle(behavior(context, results))
    raise UserError(f"Invalid tool_use_behavior: {behavior!r}")


def _handler_result(result: Any) -> RunErrorHandlerResult:
    if isinstance(result, RunErrorHandlerResult):
        return result
    if isinstance(result, dict) and "final_output" in result:
        return RunErrorHandlerResult(**cast("dict[str, Any]", result))
    return RunErrorHandlerResult(final_output=result)


def _message(text: str, *, status: str = "completed") -> Any:
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    part = ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])
    return ResponseOutputMessage(
        id="__fake_id__", type="message", role="assistant", status=cast("Any", status), content=[part]
    )


def _as_text(agent: Agent[Any], output: Any) -> str:
    if isinstance(output, str):
        return output
    from millstream import codec

    return codec.encode(output).decode()


def _uncancel() -> None:
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
