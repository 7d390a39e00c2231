"""Whatever the agents and their models do, the four doors come to the same (promise 2).

Agents and scripts are drawn; each pair of `plan` and door gets agents of its own, so that no
door sees what another one left. A failure shows the smallest plan that tells two doors apart,
and the line that brings it back (`@reproduce_failure`).
"""

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream import (
    Agent,
    FunctionTool,
    GuardrailFunctionOutput,
    HandoffInputData,
    HoldChunks,
    InputGuardrail,
    MemoryLog,
    OutputGuardrail,
    RunCancelledError,
    RunConfig,
    RunContextWrapper,
    Runner,
    SQLiteSession,
    ToolContext,
    ToolExecutionConfig,
    ToolsToFinalOutputResult,
    Usage,
    handoff,
    tool,
)
from millstream.events import CancelMode, Entry
from millstream.guardrail import Hold
from millstream.items import ItemHelpers, is_function_call, raw_field
from millstream.testing import (
    ModelCall,
    ModelStep,
    ScriptedModel,
    check_stream,
    final_json,
    function_call,
    reasoning,
    refusal,
)
from tests.support.run_logs import entries_of

pytestmark = pytest.mark.timeout(300)  # hundreds of runs each: on a machine that is busy, minutes

# --- what is drawn -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One answer of a model: `says` is one of ANSWERS, or the tools that it calls."""

    says: str | tuple[str, ...]
    thinks: bool = False
    fails_after: int | None = None
    ends_after: int | None = None


@dataclass(frozen=True)
class Persona:
    """One agent."""

    steps: tuple[Step, ...]
    output: str = "text"
    behavior: str = "run_llm_again"
    filter: str = "none"
    """What its handoff does with the history."""


@dataclass(frozen=True)
class Plan:
    """A run."""

    first: Persona
    second: Persona
    max_turns: int
    unknown_tools: str
    concurrency: int | None
    handlers: tuple[str, ...]
    handled: str | None
    stops: CancelMode = "now"
    """How the tool `stops` stops the run."""
    guards: tuple[str, ...] = ()
    """Of INPUT_GUARDS and OUTPUT_GUARDS."""

    @property
    def stops_itself(self) -> bool:
        """Whether a tool may cancel the run: `run_sync` has no handle to do that by."""
        return any("stops" in step.says for step in self.first.steps + self.second.steps)


ANSWERS: dict[str, Callable[[], Any]] = {
    "text": lambda: ["Hello there."],
    "an object": lambda: [final_json({"response": [1, 2]})],
    "no object": lambda: [final_json({"response": "x"})],
    "a refusal": lambda: [refusal("I will not.")],
    "nothing": list,
    "two messages": lambda: ["One.", "Two."],
    "an error": lambda: ConnectionError("The model is down."),
}
CALLS = ("echoes", "waits", "talks", "fails", "bad arguments", "no such tool", "transfer", "raises")


def on_input(*, trips: bool, parallel: bool = True) -> InputGuardrail[Any]:
    def check(_context: Any, _agent: Any, given: Any) -> GuardrailFunctionOutput:
        return GuardrailFunctionOutput({"given": given}, tripwire_triggered=trips)

    return InputGuardrail(check, f"trips: {trips}", run_in_parallel=parallel)


def on_output(word: str, hold: Hold = "pass") -> OutputGuardrail[Any]:
    async def check(_context: Any, _agent: Any, output: Any) -> GuardrailFunctionOutput:
        await asyncio.sleep(0)
        return GuardrailFunctionOutput({"is text": isinstance(output, str)}, word in str(output))

    return OutputGuardrail(check, f"no {word}", hold)


INPUT_GUARDS: dict[str, InputGuardrail[Any]] = {
    "input passes": on_input(trips=False),
    "blocking input passes": on_input(trips=False, parallel=False),
    "input trips": on_input(trips=True),
}
# In pieces nothing trips here: a plain run has none, and would come further.
OUTPUT_GUARDS: dict[str, OutputGuardrail[Any]] = {
    "output passes": on_output("nothing"),
    "output trips": on_output("Two"),
    "output is held": on_output("nothing", "verdict"),
    "output is held and trips": on_output("there", "verdict"),
    "output comes in pieces": on_output("nothing", HoldChunks(3)),
}

# In a thread of its own, with a cancellation, or as an agent, a tool ends at no certain moment: alone it does.
together = st.lists(st.sampled_from(CALLS), min_size=1, max_size=3).map(tuple)
alone = st.sampled_from(
    [
        ("transfer",),
        ("transfer",),
        ("echoes",),
        ("in a thread",),
        ("stops",),
        ("asks",),
        ("asks", "asks in vain"),
    ]
)
answers = st.sampled_from(list(ANSWERS))
whole_steps = st.builds(Step, says=together | alone | answers, thinks=st.booleans())
torn_steps = st.builds(
    Step,
    says=answers | st.just(("echoes",)),
    fails_after=st.none() | st.integers(0, 12),
    ends_after=st.none() | st.integers(0, 12),
)


def personas(last: st.SearchStrategy[Step]) -> st.SearchStrategy[Persona]:
    """Agents that call tools for some turns, and then do what `last` has."""
    working = st.lists(st.builds(Step, says=together | alone), max_size=3)
    return st.builds(
        Persona,
        steps=st.tuples(working, last).map(lambda steps: (*steps[0], steps[1])),
        output=st.sampled_from(["text", "text", "numbers"]),
        behavior=st.sampled_from(
            ["run_llm_again"] * 4 + ["stop_on_first_tool", "stop at waits", "a function"]
        ),
        filter=st.sampled_from(["none", "none", "drops", "breaks"]),
    )


def plans(last: st.SearchStrategy[Step], *modes: CancelMode) -> st.SearchStrategy[Plan]:
    return st.builds(
        Plan,
        first=personas(last),
        second=personas(last),
        max_turns=st.sampled_from([6, 5, 3, 2, 1]),
        unknown_tools=st.sampled_from(["return_error_to_model", "raise_error"]),
        concurrency=st.sampled_from([None, 1]),
        handlers=st.lists(
            st.sampled_from(["max_turns", "model_refusal", "invalid_final_output"]), unique=True
        ).map(tuple),
        handled=st.sampled_from(["handled", None]),
        stops=st.sampled_from(modes or ("now",)),
        guards=st.lists(st.sampled_from([*OUTPUT_GUARDS, *INPUT_GUARDS]), max_size=3).map(tuple),
    )


# --- what is made of it ------------------------------------------------------------------------


class Stop:
    """How a tool stops its run; known when the run has been started, in another thread perhaps."""

    def __init__(self, mode: CancelMode) -> None:
        self.mode: CancelMode = mode
        self.cancel: Callable[[], object] | None = None


@tool
async def echoes(text: str = "x") -> str:
    return text


@tool
async def talks(context: ToolContext[Any]) -> AsyncIterator[str]:
    context.progress({"at": 1})
    yield "some"
    await context.progress({"at": 2})
    yield "all"


@tool(name_override="in_a_thread")
def in_a_thread() -> str:
    return "from a thread"


@tool
async def fails() -> str:
    raise ValueError("It failed.")


@tool(failure_error_function=None)
async def raises() -> str:
    raise LookupError("It raised.")


@tool
async def waits() -> str:
    for _ in range(3):
        await asyncio.sleep(0)
    return "waited"


@tool
async def stops(context: RunContextWrapper[Stop]) -> str:
    stop = context.context
    while stop.cancel is None:
        await asyncio.sleep(0)
    stop.cancel()
    if stop.mode == "now":
        await asyncio.Event().wait()
    return "stopped"


def asks(in_vain: bool) -> FunctionTool:
    """An agent that is a tool. It may be asked by several at once: what it says goes by what it is given."""

    def answer(asked: ModelCall) -> ModelStep:
        if in_vain:
            raise LookupError("Nobody knows.")
        if asked.input[-1].get("type") == "function_call_output":
            return ModelStep(["Asked."])
        return ModelStep([reasoning("Hm."), function_call("talks", call_id="inner")])

    steps = [ModelStep.respond(answer)] * 40
    used = Usage(requests=1, input_tokens=7, output_tokens=1, total_tokens=8)
    agent = Agent[Any](name="Asked", tools=[talks], model=ScriptedModel(steps, default_usage=used))
    return agent.as_tool("asks_in_vain" if in_vain else "asks", "Ask.")


def model(persona: Persona, other: str) -> ScriptedModel:
    def output(step: Step, index: int) -> Any:
        if isinstance(step.says, str):
            said = ANSWERS[step.says]()
        else:
            said = [call(name, f"call_{index}_{place}", other) for place, name in enumerate(step.says)]
        if isinstance(said, Exception):
            return said
        if step.thinks:
            said = [reasoning("Hm."), *said]
        return ModelStep(said, fail_after=step.fails_after, truncate_after=step.ends_after)

    used = Usage(requests=1, input_tokens=3, output_tokens=2, total_tokens=5)
    return ScriptedModel(
        [output(s, i) for i, s in enumerate(persona.steps)], default_usage=used, batch_size=2
    )


def call(name: str, call_id: str, other: str) -> Any:
    if name == "bad arguments":
        return function_call("echoes", '{"text": 5', call_id=call_id)
    if name == "transfer":
        return function_call(f"transfer_to_{other}", call_id=call_id)
    arguments = {"input": "Please."} if name.startswith("asks") else {}
    return function_call(name.replace(" ", "_"), arguments, call_id=call_id)


def drop(data: HandoffInputData) -> HandoffInputData:
    return data.clone(pre_handoff_items=(), new_items=())


def break_down(data: HandoffInputData) -> HandoffInputData:
    raise RuntimeError("The filter broke.")


def decide(_context: Any, results: list[Any]) -> ToolsToFinalOutputResult:
    return ToolsToFinalOutputResult(is_final_output=len(results) > 1, final_output=len(results))


def agents(plan: Plan) -> Agent[Any]:
    behaviors: dict[str, Any] = {"stop at waits": {"stop_at_tool_names": ["waits"]}, "a function": decide}
    filters = {"none": None, "drops": drop, "breaks": break_down}

    def agent(persona: Persona, name: str, other: str) -> Agent[Any]:
        return Agent(
            name=name,
            tools=[echoes, in_a_thread, fails, raises, waits, talks, stops, asks(False), asks(True)],
            model=model(persona, other),
            output_type=list[int] if persona.output == "numbers" else None,
            tool_use_behavior=behaviors.get(persona.behavior, persona.behavior),
        )

    first, second = agent(plan.first, "first", "second"), agent(plan.second, "second", "first")
    first.handoffs = [handoff(second, input_filter=filters[plan.first.filter])]
    second.handoffs = [handoff(first, input_filter=filters[plan.second.filter])]
    return first


def arguments(plan: Plan, stop: Stop, log: MemoryLog) -> dict[str, Any]:
    def handle(_data: Any) -> Any:
        if plan.handled is None:
            return None
        return [3] if plan.first.output == plan.second.output == "numbers" else plan.handled

    return {
        "context": stop,
        "max_turns": plan.max_turns,
        "error_handlers": dict.fromkeys(plan.handlers, handle),
        "run_config": RunConfig(
            log=log,
            input_guardrails=[INPUT_GUARDS[each] for each in plan.guards if each in INPUT_GUARDS],
            output_guardrails=[OUTPUT_GUARDS[each] for each in plan.guards if each in OUTPUT_GUARDS],
            tool_not_found_behavior=plan.unknown_tools,  # pyright: ignore[reportArgumentType]
            tool_execution=ToolExecutionConfig(max_function_tool_concurrency=plan.concurrency),
        ),
    }


# --- the doors ---------------------------------------------------------------------------------


def by_run(agent: Agent[Any], stop: Stop, arguments: dict[str, Any]) -> Any:
    async def main() -> Any:
        task = asyncio.create_task(Runner.run(agent, "Hi", **arguments))
        stop.cancel = task.cancel
        return await task

    return asyncio.run(main())


def by_run_sync(agent: Agent[Any], stop: Stop, arguments: dict[str, Any]) -> Any:
    stop.cancel = lambda: pytest.fail("run_sync has no handle to stop its run by")
    return Runner.run_sync(agent, "Hi", **arguments)


def by_run_streamed(agent: Agent[Any], stop: Stop, arguments: dict[str, Any]) -> Any:
    async def main() -> Any:
        handle = Runner.run_streamed(agent, "Hi", **arguments)
        stop.cancel = lambda: handle.cancel(stop.mode)
        return await handle

    return asyncio.run(main())


def by_run_streamed_sync(agent: Agent[Any], stop: Stop, arguments: dict[str, Any]) -> Any:
    with Runner.run_streamed_sync(agent, "Hi", **arguments) as stream:
        stop.cancel = lambda: stream.cancel(stop.mode)
        return stream.result()


def reading(at: int, mode: CancelMode) -> Callable[..., Any]:
    """`run_streamed`, cancelled from where its event `at` is dealt with."""

    def door(agent: Agent[Any], stop: Stop, arguments: dict[str, Any]) -> Any:
        async def main() -> Any:
            handle = Runner.run_streamed(agent, "Hi", **arguments)
            stop.cancel = lambda: handle.cancel(stop.mode)
            place = 0
            async for _ in handle.stream_events():
                if place == at:
                    handle.cancel(mode)
                place += 1
            return await handle

        return asyncio.run(main())

    return door


def reading_sync(at: int, mode: CancelMode) -> Callable[..., Any]:
    """`run_streamed_sync`, cancelled likewise."""

    def door(agent: Agent[Any], stop: Stop, arguments: dict[str, Any]) -> Any:
        with Runner.run_streamed_sync(agent, "Hi", **arguments) as stream:
            stop.cancel = lambda: stream.cancel(stop.mode)
            for place, _ in enumerate(stream):
                if place == at:
                    stream.cancel(mode)
            return stream.result()

    return door


# --- what is told ------------------------------------------------------------------------------


def told(plan: Plan, door: Callable[..., Any]) -> dict[str, Any]:
    """Everything that a caller can know of a run, and its log, which is held to the grammar."""
    log, session = MemoryLog(), SQLiteSession("told")
    stop = Stop(plan.stops)
    outcome: Any
    data = history = None
    try:
        data = door(agents(plan), stop, arguments(plan, stop, log) | {"session": session})
        outcome, history = data.final_output, data.to_input_list()
    except asyncio.CancelledError:  # the task that awaited the run was cancelled, and knows no more
        outcome = "cancelled"
    except RunCancelledError as error:
        outcome, data = "cancelled", error.run_data
    except Exception as error:
        outcome, data = (type(error), str(error)), error.run_data  # pyright: ignore[reportAttributeAccessIssue]
    ((run_id, _),) = log._runs.items()
    entries, sealed = entries_of(log, run_id)
    assert sealed
    check_stream(entries, raw=True)
    stored = asyncio.run(session.get_items())
    session.close()
    assert not unanswered(stored)
    return {
        "outcome": outcome,
        "history": history,
        "result": None if data is None else seen(data),
        "session": stored,
        "log": normal(entries),
    }


def seen(data: Any) -> dict[str, Any]:
    usage = data.context_wrapper.usage
    items = [(item.type, item.agent.name, item.to_input_item()) for item in data.new_items]
    assert not unanswered([item for _, _, item in items])
    return {
        "items": items,
        "responses": [
            (response.output, response.response_id, response.usage) for response in data.raw_responses
        ],
        "usage": (usage.to_dict(), len(usage.request_usage_entries)),
        "last agent": data.last_agent.name,
        "input": data.input,
        "text": ItemHelpers.text_message_outputs(data.new_items),
        "verdicts": [
            (each.guardrail.get_name(), each.output)
            for each in (*data.input_guardrail_results, *data.output_guardrail_results)
        ],
    }


def unanswered(items: list[Any]) -> list[str]:
    """The calls in a history that have no output."""
    calls = Counter(raw_field(item, "call_id") for item in items if is_function_call(item))
    outputs = Counter(item["call_id"] for item in items if item.get("type") == "function_call_output")
    return list((calls - outputs).elements())


def normal(entries: list[Entry]) -> list[Any]:
    """A log without what no two runs share, its raw events left out.

    Tools that run side by side end in no certain order: their events stand call by call.
    """
    plain = [json.loads(entry.to_json()) for entry in entries if entry.type != "raw_response_event"]
    for entry in plain:
        for name in ("position", "run_id", "parent_run_id", "time"):
            del entry[name]
        for name in ("ms", "error_id", "from_position"):
            entry["event"].pop(name, None)
    return sorted(plain, key=_place(plain))


def _place(plain: list[Any]) -> Callable[[Any], Any]:
    """Sorts the tools' events, and what is nested in them, by their calls, and leaves all else."""
    block = 0
    places: dict[int, Any] = {}
    for entry in plain:
        event = entry["event"]
        call_id = event.get("call_id")
        if event["type"] == "run_item_stream_event" and event["name"] == "tool_output":
            call_id = event["item"]["raw_item"]["call_id"]
        if entry["path"]:  # of a run that is nested in a tool
            call_id = entry["path"][0]
        if call_id is None:
            block += 1
        places[id(entry)] = (block, call_id or "")
    return lambda entry: places[id(entry)]


# --- the matrix --------------------------------------------------------------------------------

drawn = settings(print_blob=True, suppress_health_check=[HealthCheck.too_slow])


@drawn
@given(plans(whole_steps))
def test_all_doors_tell_the_same(plan: Plan) -> None:
    streamed = told(plan, by_run_streamed)

    assert told(plan, by_run_streamed_sync) == streamed
    plain = told(plan, by_run)
    if plain["result"] is None:
        plain["result"] = streamed["result"]
    assert plain == streamed
    if not plan.stops_itself:
        assert told(plan, by_run_sync) == streamed


@drawn
@given(plans(whole_steps | torn_steps, "now", "after_tool", "after_turn"))
def test_streams_that_break_off_and_tools_that_stop_their_run_are_told_the_same_by_both_streamed_doors(
    plan: Plan,
) -> None:
    assert told(plan, by_run_streamed_sync) == told(plan, by_run_streamed)


@drawn
@given(plans(torn_steps).filter(lambda plan: not plan.stops_itself))
def test_what_a_whole_answer_fails_with_is_told_the_same_by_both_plain_doors(plan: Plan) -> None:
    assert told(plan, by_run_sync) == told(plan, by_run)


@drawn
@given(plans(whole_steps | torn_steps), st.integers(0, 80))
def test_a_cancel_after_the_turn_is_exact_in_both_streamed_doors(plan: Plan, at: int) -> None:
    assert told(plan, reading_sync(at, "after_turn")) == told(plan, reading(at, "after_turn"))


@drawn
@given(plans(whole_steps | torn_steps), st.integers(0, 80), st.sampled_from(["now", "after_tool"]))
def test_a_run_that_is_cancelled_at_any_event_leaves_a_whole_log_and_a_valid_history(
    plan: Plan, at: int, mode: CancelMode
) -> None:
    for door in (reading, reading_sync):
        assert told(plan, door(at, mode))["log"][-1]["event"]["type"].startswith("run.")
