"""Guardrails in a run: who judges what, when, and what becomes of a run that one of them stops."""

import asyncio
import gc
import logging
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    GuardrailFunctionOutput,
    InputGuardrail,
    InputGuardrailTripwireTriggered,
    MemoryLog,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    RunHooks,
    Runner,
    RunResultStreaming,
    ToolExecutionConfig,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailTripwireTriggered,
    input_guardrail,
    output_guardrail,
    tool,
    tool_input_guardrail,
    tool_output_guardrail,
)
from millstream.errors import AgentsException, ToolFailedError, UserError
from millstream.events import Entry, GuardrailResult, RunFailed, TextRetracted
from millstream.testing import ManualClock, ModelStep, ScriptedModel, function_call
from tests.support.run_logs import entries_of as entries_in


def verdict(*, trips: bool = False, info: Any = None) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=info, tripwire_triggered=trips)


def on_input(
    name: str, *, trips: bool = False, after: asyncio.Event | None = None, parallel: bool = True
) -> InputGuardrail[Any]:
    """A guardrail that gives its verdict when `after` is set."""

    @input_guardrail(name=name, run_in_parallel=parallel)
    async def check(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        if after is not None:
            await after.wait()
        return verdict(trips=trips, info=name)

    return check


def on_output(name: str, *, trips: bool = False, after: asyncio.Event | None = None) -> OutputGuardrail[Any]:
    @output_guardrail(name=name)
    async def check(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        if after is not None:
            await after.wait()
        return verdict(trips=trips, info=name)

    return check


def agent(*steps: Any, **options: Any) -> Agent[Any]:
    return Agent(name="A", model=ScriptedModel(steps), **options)


async def entries_of(run: RunResultStreaming) -> list[Entry]:
    return [entry async for entry in run.entries()]


def verdicts_in(entries: list[Entry]) -> list[tuple[str, str, bool]]:
    return [
        (e.event.stage, e.event.guardrail, e.event.tripped)
        for e in entries
        if isinstance(e.event, GuardrailResult)
    ]


def only_this_task() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


# --- input -----------------------------------------------------------------------------------


async def test_verdicts_stand_in_the_log_and_the_result_in_the_order_in_which_they_came() -> None:
    first, second = asyncio.Event(), asyncio.Event()

    @input_guardrail
    async def last(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        first.set()
        await second.wait()
        return verdict()

    @input_guardrail
    async def earlier(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        await first.wait()
        second.set()
        return verdict()

    run = Runner.run_streamed(agent("ok", input_guardrails=[last, earlier]), "hi")
    entries = await entries_of(run)

    assert verdicts_in(entries) == [("input", "earlier", False), ("input", "last", False)]
    assert [each.guardrail.get_name() for each in run.input_guardrail_results] == ["earlier", "last"]


async def test_no_run_completes_before_every_parallel_guardrail_has_judged() -> None:
    judged, answered = asyncio.Event(), asyncio.Event()

    class Watching(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            answered.set()

        async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
            assert judged.is_set()

    run = Runner.run_streamed(
        agent("ok", input_guardrails=[on_input("slow", after=judged)]), "hi", hooks=Watching()
    )
    await answered.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not run.is_complete

    judged.set()
    assert (await run).final_output == "ok"


async def test_a_guardrail_that_trips_while_the_model_streams_closes_its_stream_at_once() -> None:
    trip = asyncio.Event()
    model = ScriptedModel([ModelStep(output="One two three four.", hang_after=8)])
    asked = Agent(name="A", model=model, input_guardrails=[on_input("late", trips=True, after=trip)])
    run = Runner.run_streamed(asked, "hi")

    async for text in run.text():
        if "two" in text:
            break
    trip.set()
    entries = await entries_of(run)

    assert [entry.type for entry in entries[-4:]] == [
        "guardrail.result",
        "text.retracted",
        "model.completed",
        "run.failed",
    ]
    assert isinstance(run.run_loop_exception, InputGuardrailTripwireTriggered)
    assert only_this_task()


async def test_what_was_said_in_answer_to_an_input_that_tripped_is_taken_back() -> None:
    trip = asyncio.Event()

    @tool
    async def look() -> str:
        return "seen"

    steps: list[Any] = [["Let me look.", function_call("look", {})], ModelStep(output="It is.", hang_after=6)]
    asked = agent(*steps, tools=[look], input_guardrails=[on_input("late", trips=True, after=trip)])
    run = Runner.run_streamed(asked, "hi")

    said = ""
    async for text in run.text():
        said += text
        if said.endswith("It"):
            break
    trip.set()
    entries = await entries_of(run)

    begins = [
        entry.position
        for entry in entries
        if getattr(getattr(entry.event, "data", None), "type", "") == "response.output_item.added"
        and entry.event.data.item.type == "message"  # type: ignore[union-attr]
    ]
    assert [e.event.from_position for e in entries if isinstance(e.event, TextRetracted)] == begins
    assert entries[-1].event.partial == ""  # type: ignore[union-attr]
    assert "incomplete" not in str([entry.to_json() for entry in entries[-4:]])


async def test_a_blocking_guardrail_that_trips_keeps_the_model_from_being_asked() -> None:
    model = ScriptedModel(["ok"])
    guards = [on_input("blocks", trips=True, parallel=False), on_input("parallel")]
    run = Runner.run_streamed(Agent(name="A", model=model, input_guardrails=guards), "hi")

    entries = await entries_of(run)

    assert [entry.type for entry in entries] == [
        "run.started",
        "agent_updated_stream_event",
        "guardrail.result",
        "run.failed",
    ]
    assert not model.calls
    assert verdicts_in(entries) == [("input", "blocks", True)]


async def test_tools_run_before_a_parallel_verdict_unless_they_are_to_wait() -> None:
    ran: list[str] = []
    judged = asyncio.Event()

    @tool
    async def look() -> str:
        ran.append("look")
        judged.set()
        return "seen"

    steps: list[Any] = [[function_call("look", {})], "done"]
    guards = [on_input("late", trips=True, after=judged)]
    with pytest.raises(InputGuardrailTripwireTriggered):
        await Runner.run(agent(*steps, tools=[look], input_guardrails=guards), "hi")

    assert ran == ["look"]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_no_tool_runs_before_the_verdict_where_tools_wait_for_it(streamed: bool) -> None:
    ran: list[str] = []
    judged, answered = asyncio.Event(), asyncio.Event()

    class Watching(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            answered.set()

    @tool
    async def look() -> str:
        ran.append("look")
        return "seen"

    steps: list[Any] = [[function_call("look", {})], "done"]
    config = RunConfig(tool_execution=ToolExecutionConfig(wait_for_input_guardrails=True))
    asked = agent(*steps, tools=[look], input_guardrails=[on_input("late", trips=True, after=judged)])
    options: dict[str, Any] = {"run_config": config, "hooks": Watching()}
    start = Runner.run_streamed(asked, "hi", **options) if streamed else Runner.run(asked, "hi", **options)

    async def result() -> Any:
        return await start

    run = asyncio.create_task(result())
    await answered.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    judged.set()

    with pytest.raises(InputGuardrailTripwireTriggered):
        await run
    assert ran == []


@pytest.mark.parametrize("parallel", [True, False], ids=["parallel", "blocking"])
async def test_what_a_guardrail_raises_ends_the_run_and_says_whose_it_was(parallel: bool) -> None:
    @input_guardrail(run_in_parallel=parallel)
    async def breaks(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        raise LookupError("cannot judge")

    with pytest.raises(LookupError, match="cannot judge") as caught:
        await Runner.run(agent("ok", input_guardrails=[breaks, on_input("other")]), "hi")

    assert caught.value.__notes__[0].startswith("Raised by the input guardrail 'breaks' of run run_")
    assert only_this_task()


async def test_a_client_is_told_nothing_of_what_a_guardrail_raised() -> None:
    @input_guardrail
    async def breaks(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        raise LookupError("a secret")

    entries = await entries_of(Runner.run_streamed(agent("ok", input_guardrails=[breaks]), "hi"))

    end = entries[-1].event
    assert isinstance(end, RunFailed)
    assert (end.code, end.message) == ("internal", "The run failed.")
    assert not any(b"secret" in entry.to_json() for entry in entries)


@pytest.mark.parametrize("steps", range(20))
def test_a_loop_that_shuts_down_before_guardrails_begin_complains_of_nothing(steps: int) -> None:
    guards = [on_input("blocks", parallel=False), on_input("parallel")]

    async def main() -> None:
        run = Runner.run_streamed(
            agent("ok", input_guardrails=guards, output_guardrails=[on_output("o")]), "hi"
        )
        for _ in range(steps):
            await asyncio.sleep(0)
        assert run.run_id

    asyncio.run(main())
    gc.collect()


class Outcome(BaseException):
    """As those of test frameworks: no `Exception`."""


@pytest.mark.parametrize("parallel", [True, False])
async def test_whatever_a_guardrail_raises_nothing_passes_it(parallel: bool) -> None:
    @input_guardrail(run_in_parallel=parallel)
    async def fails(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        raise Outcome("broken")

    with pytest.raises(Outcome, match="broken"):
        await Runner.run(agent("ok", input_guardrails=[fails]), "hi")


@pytest.mark.parametrize("parallel", [True, False])
async def test_nothing_passes_a_guardrail_whose_task_was_cancelled_from_within(parallel: bool) -> None:
    @input_guardrail(run_in_parallel=parallel)
    async def stops(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        raise AssertionError("not reached")

    with pytest.raises(AgentsException, match="'stops' was cancelled, but nobody cancelled it"):
        await Runner.run(agent("ok", input_guardrails=[stops]), "hi")


async def test_a_guardrail_that_cancels_itself_ends_the_run_with_an_error() -> None:
    @input_guardrail
    async def gives_up(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        raise asyncio.CancelledError

    with pytest.raises(AgentsException, match="'gives_up' was cancelled, but nobody cancelled it"):
        await Runner.run(agent("ok", input_guardrails=[gives_up]), "hi")


async def test_a_guardrail_is_given_the_input_and_cannot_change_it() -> None:
    seen: list[Any] = []

    @input_guardrail(run_in_parallel=False)
    def check(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        seen.append([dict(item) for item in given])
        given[0]["content"] = "changed"
        given.clear()
        return verdict()

    model = ScriptedModel(["ok"])
    asked = Agent(name="A", model=model, input_guardrails=[check])
    await Runner.run(asked, [{"role": "user", "content": "hi"}])

    assert seen == [[{"role": "user", "content": "hi"}]]
    assert model.calls[0].input == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize("where", ["blocking", "parallel", "output"])
async def test_a_run_whose_guardrail_hangs_can_be_cancelled_and_leaves_no_task(where: str) -> None:
    hanging = asyncio.Event()

    async def hangs(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        hanging.set()
        await asyncio.Event().wait()
        return verdict()

    options: dict[str, Any] = {
        "blocking": {"input_guardrails": [InputGuardrail(hangs, run_in_parallel=False)]},
        "parallel": {"input_guardrails": [InputGuardrail(hangs)]},
        "output": {"output_guardrails": [OutputGuardrail(hangs)]},
    }[where]
    run = Runner.run_streamed(agent("ok", **options), "hi")
    await hanging.wait()
    run.cancel()

    assert (await entries_of(run))[-1].type == "run.cancelled"
    assert only_this_task()


async def test_a_guardrail_that_will_not_stop_is_left_behind_with_a_warning_and_not_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    release = asyncio.Event()

    @input_guardrail
    async def stubborn(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return verdict(trips=True)

    run = Runner.run_streamed(
        agent(ValueError("no"), input_guardrails=[stubborn]), "hi", run_config=RunConfig(clock=clock)
    )
    with caplog.at_level(logging.WARNING, logger="millstream"):
        while not run.is_complete:
            if clock.due:
                await clock.tick()
            await asyncio.sleep(0)

    assert isinstance(run.run_loop_exception, ValueError)
    assert "the input guardrail 'stubborn' did not stop when it was cancelled" in caplog.text
    release.set()
    while not only_this_task():
        await asyncio.sleep(0)
    assert run.input_guardrail_results == []


async def test_guardrails_of_a_run_that_fails_are_cancelled() -> None:
    ended: list[str] = []

    @input_guardrail
    async def waits(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        return verdict()

    with pytest.raises(ValueError, match="no"):
        await Runner.run(agent(ValueError("no"), input_guardrails=[waits]), "hi")

    assert ended == ["cancelled"]
    assert only_this_task()


# --- output ----------------------------------------------------------------------------------


async def test_the_first_output_guardrail_that_trips_ends_the_judging() -> None:
    never = asyncio.Event()
    guards = [on_output("waits", after=never), on_output("trips", trips=True)]
    run = Runner.run_streamed(agent("ok", output_guardrails=guards), "hi")

    with pytest.raises(OutputGuardrailTripwireTriggered) as caught:
        await run

    assert caught.value.guardrail_result.guardrail.get_name() == "trips"
    assert [each.guardrail.get_name() for each in run.output_guardrail_results] == ["trips"]
    assert run.final_output is None
    assert only_this_task()


async def test_results_of_all_guardrails_are_in_the_result_and_in_run_data() -> None:
    guards: dict[str, Any] = {
        "input_guardrails": [on_input("in")],
        "output_guardrails": [on_output("out", trips=True)],
    }
    with pytest.raises(OutputGuardrailTripwireTriggered) as caught:
        await Runner.run(agent("ok", **guards), "hi")

    data = caught.value.run_data
    assert data is not None
    assert [each.output.output_info for each in data.input_guardrail_results] == ["in"]
    assert [each.output.output_info for each in data.output_guardrail_results] == ["out"]


async def test_a_tools_output_that_is_blocked_is_taken_back_and_replaced_in_the_history() -> None:
    log = MemoryLog()

    @tool
    async def look() -> str:
        return "a secret"

    asked = agent(
        [function_call("look", {})],
        tools=[look],
        tool_use_behavior="stop_on_first_tool",
        output_guardrails=[on_output("trips", trips=True)],
    )
    config = RunConfig(log=log, output_guardrail_blocked_message="Not for you.")
    run = Runner.run_streamed(asked, "hi", run_config=config)
    entries = await entries_of(run)

    assert "secret" not in str(run.to_input_list())
    assert run.new_items[-1].output == "Not for you."  # type: ignore[union-attr]
    output = next(e for e in entries if getattr(e.event, "name", "") == "tool_output")
    assert [e.event for e in entries if isinstance(e.event, TextRetracted)] == [
        TextRetracted(item_id="call_look", from_position=output.position)
    ]


@pytest.mark.parametrize("given", [lambda args: None, lambda args: 1 / 0, lambda args: ""])
async def test_a_message_for_what_was_blocked_that_cannot_be_made_is_the_default(given: Any) -> None:
    @tool
    async def look() -> str:
        return "a secret"

    asked = agent(
        [function_call("look", {})],
        tools=[look],
        tool_use_behavior="stop_on_first_tool",
        output_guardrails=[on_output("trips", trips=True)],
    )
    run = Runner.run_streamed(asked, "hi", run_config=RunConfig(output_guardrail_blocked_message=given))
    await entries_of(run)

    assert run.new_items[-1].output == "Output withheld by an output guardrail."  # type: ignore[union-attr]


# --- tools -----------------------------------------------------------------------------------


def guarded(**options: Any) -> Any:
    @tool(**options)
    async def look() -> str:
        return "seen"

    return look


async def test_a_call_that_is_rejected_is_answered_without_its_tool_having_begun() -> None:
    @tool_input_guardrail
    async def rejects(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("Not that.", "why")

    asked = agent([function_call("look", {})], "ok", tools=[guarded(tool_input_guardrails=[rejects])])
    run = Runner.run_streamed(asked, "hi")
    entries = await entries_of(run)

    assert "tool.started" not in [entry.type for entry in entries]
    assert verdicts_in(entries) == [("tool_input", "rejects", True)]
    assert [item.output for item in run.new_items if item.type == "tool_call_output_item"] == ["Not that."]
    assert [each.output.output_info for each in run.tool_input_guardrail_results] == ["why"]


async def test_nobody_is_asked_to_approve_a_call_that_is_rejected_anyway() -> None:
    @tool_input_guardrail
    async def rejects(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("Not that.")

    look = guarded(tool_input_guardrails=[rejects], needs_approval=True)
    config = RunConfig(tool_execution=ToolExecutionConfig(pre_approval_tool_input_guardrails=True))
    asked = agent([function_call("look", {})], "ok", tools=[look])
    result = await Runner.run(asked, "hi", run_config=config)

    assert (result.interruptions, result.final_output) == ([], "ok")


async def test_a_run_that_is_taken_up_after_a_pause_has_its_input_judged_no_second_time() -> None:
    seen: list[Any] = []

    @input_guardrail
    async def check(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        seen.append(given)
        return verdict()

    asked = agent(
        [function_call("look", {})], "ok", tools=[guarded(needs_approval=True)], input_guardrails=[check]
    )
    paused = await Runner.run(asked, "hi")
    state = paused.to_state()
    state.approve(paused.interruptions[0])
    result = await Runner.run(asked, state)

    assert (result.final_output, seen) == ("ok", ["hi"])


@pytest.mark.parametrize("trips", [False, True])
async def test_input_that_is_added_to_a_paused_run_is_judged_before_the_model_is_asked(trips: bool) -> None:
    seen: list[Any] = []

    @input_guardrail
    async def check(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        seen.append((agent.name, given))
        return verdict(trips=trips and given != "hi")

    model = ScriptedModel([[function_call("look", {})], "ok"])
    asked = Agent(name="A", model=model, tools=[guarded(needs_approval=True)], input_guardrails=[check])
    paused = await Runner.run(asked, "hi")
    state = paused.to_state()
    state.approve(paused.interruptions[0])
    state.add_input("And?")

    if trips:
        with pytest.raises(InputGuardrailTripwireTriggered):
            await Runner.run(asked, state)
    else:
        assert (await Runner.run(asked, state)).final_output == "ok"

    assert seen == [("A", "hi"), ("A", [{"role": "user", "content": "And?"}])]
    assert len(model.calls) == (1 if trips else 2)


async def test_input_that_is_sent_to_a_run_is_judged_by_the_agent_that_is_to_answer_it() -> None:
    @input_guardrail
    async def check(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        return verdict(trips="homework" in str(given))

    class Sending(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            if agent.name == "A":
                run.send("Now my homework.", when="after_turn")

    second = Agent(name="B", model=ScriptedModel(["B here."]), input_guardrails=[check])
    first = agent([function_call("transfer_to_b", {})], handoffs=[second])
    run = Runner.run_streamed(first, "hi", hooks=Sending())
    entries = await entries_of(run)

    assert isinstance(run.run_loop_exception, InputGuardrailTripwireTriggered)
    assert [entry.type for entry in entries[-3:]] == ["input.added", "guardrail.result", "run.failed"]


async def test_no_run_pauses_before_its_input_has_passed() -> None:
    judged, answered = asyncio.Event(), asyncio.Event()

    class Watching(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            answered.set()

    guards = [on_input("late", trips=True, after=judged)]
    asked = agent([function_call("look", {})], tools=[guarded(needs_approval=True)], input_guardrails=guards)
    run = Runner.run_streamed(asked, "hi", hooks=Watching())
    await answered.wait()
    for _ in range(50):
        await asyncio.sleep(0)
    assert not run.interruptions or not run.is_complete
    judged.set()

    assert (await entries_of(run))[-1].type == "run.failed"
    assert isinstance(run.run_loop_exception, InputGuardrailTripwireTriggered)


async def test_an_output_that_is_rejected_is_nowhere() -> None:
    @tool_output_guardrail
    async def rejects(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("Not that.")

    asked = agent([function_call("look", {})], "ok", tools=[guarded(tool_output_guardrails=[rejects])])
    run = Runner.run_streamed(asked, "hi")
    entries = await entries_of(run)

    assert not any(b"seen" in entry.to_json() for entry in entries)
    assert verdicts_in(entries) == [("tool_output", "rejects", True)]


async def test_a_guardrail_of_a_tool_stops_the_run_and_the_other_tools() -> None:
    stopped: list[str] = []

    @tool
    async def forever() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append("forever")
        return ""

    @tool_input_guardrail
    async def stops(data: Any) -> ToolGuardrailFunctionOutput:
        await asyncio.sleep(0)
        return ToolGuardrailFunctionOutput.raise_exception()

    tools = [forever, guarded(tool_input_guardrails=[stops])]
    calls = [function_call("forever", {}, call_id="c1"), function_call("look", {}, call_id="c2")]
    run = Runner.run_streamed(agent(calls, tools=tools), "hi")
    await entries_of(run)

    assert isinstance(run.run_loop_exception, ToolInputGuardrailTripwireTriggered)
    assert stopped == ["forever"]


async def test_what_a_guardrail_of_a_tool_raises_counts_as_the_tools() -> None:
    @tool_output_guardrail
    async def breaks(data: Any) -> ToolGuardrailFunctionOutput:
        raise LookupError("cannot judge")

    asked = agent([function_call("look", {})], tools=[guarded(tool_output_guardrails=[breaks])])
    with pytest.raises(ToolFailedError, match="Error running tool look: cannot judge") as caught:
        await Runner.run(asked, "hi")

    assert isinstance(caught.value.__cause__, LookupError)


# --- bad input -------------------------------------------------------------------------------


async def a_function(*_: Any) -> GuardrailFunctionOutput:
    return verdict()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"input_guardrails": [a_function]}, r"input_guardrails\[0\] is of type function.*@input_guardrail"),
        ({"output_guardrails": [a_function]}, r"output_guardrails\[0\] is of type function"),
        ({"input_guardrails": [on_output("o")]}, r"input_guardrails\[0\] is of type OutputGuardrail"),
    ],
)
@pytest.mark.parametrize("where", ["agent", "run"])
def test_what_is_no_guardrail_is_refused_before_the_run_begins(
    options: dict[str, Any], says: str, where: str
) -> None:
    async def start() -> None:
        if where == "agent":
            Runner.run_streamed(agent("ok", **options), "hi")
        else:
            Runner.run_streamed(agent("ok"), "hi", run_config=options)

    with pytest.raises(UserError, match=says):
        asyncio.run(start())


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_a_plain_and_a_streamed_run_tell_the_same_of_their_guardrails(streamed: bool) -> None:
    allow = tool_input_guardrail(lambda data: ToolGuardrailFunctionOutput.allow("fine"))
    log = MemoryLog()
    asked = agent(
        [function_call("look", {})],
        "ok",
        tools=[guarded(tool_input_guardrails=[allow])],
        input_guardrails=[on_input("in"), on_input("blocks", parallel=False)],
        output_guardrails=[on_output("out")],
    )
    config = RunConfig(log=log)
    start = (
        Runner.run_streamed(asked, "hi", run_config=config)
        if streamed
        else Runner.run(asked, "hi", run_config=config)
    )
    result = await start

    entries, _ = entries_in(log, result.run_id)
    assert verdicts_in(entries) == [
        ("input", "blocks", False),
        ("input", "in", False),
        ("tool_input", "<lambda>", False),
        ("output", "out", False),
    ]
