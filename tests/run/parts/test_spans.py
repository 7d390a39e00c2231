"""The spans of a run: which there are, what they tell, and that they end however the run does."""

import asyncio
import gc
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from openai import AsyncOpenAI

from millstream import (
    Agent,
    GuardrailFunctionOutput,
    Model,
    ModelSettings,
    ModelTracing,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunCancelledError,
    RunConfig,
    RunHooks,
    Runner,
    ToolGuardrailFunctionOutput,
    Usage,
    UserError,
    handoff,
    input_guardrail,
    output_guardrail,
    tool,
    tool_input_guardrail,
)
from millstream.testing import ModelStep, ScriptedModel, function_call
from millstream.testing.model_server import ModelServer
from millstream.tracing import (
    NoOpTrace,
    custom_span,
    generation_span,
    get_current_span,
    get_current_trace,
    set_trace_processors,
    set_tracing_disabled,
    trace,
)
from tests.support.awaits import counted_awaits
from tests.support.traces import Recorder

pytestmark = pytest.mark.usefixtures("recorder")


async def plain(agent: Agent[Any], **options: Any) -> Any:
    return await Runner.run(agent, "Hello", **options)


async def streamed(agent: Agent[Any], **options: Any) -> Any:
    run = Runner.run_streamed(agent, "Hello", **options)
    async for _ in run.stream_events():
        pass
    return await run


BOTH = pytest.mark.parametrize("run", [plain, streamed])
USAGE = Usage(requests=1, input_tokens=7, output_tokens=5, total_tokens=12)


@tool
async def look_up(city: str) -> str:
    with custom_span("rank"):
        await asyncio.sleep(0)
    return f"{city}: cold"


@tool
def count() -> int:
    raise ValueError("lost count of the secret")


@input_guardrail
async def polite(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


@output_guardrail
async def short(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(None, tripwire_triggered=len(output) > 100)


def rich_agent() -> Agent[Any]:
    guide = Agent(
        name="Guide", model=ScriptedModel(["Dress warmly."], emit_traces=True), output_guardrails=[short]
    )
    calls = [
        function_call("look_up", {"city": "Oslo"}, call_id="c1"),
        function_call("count", {}, call_id="c2"),
    ]
    steps = [
        ModelStep(calls, USAGE),
        ModelStep([function_call("transfer_to_guide", {}, call_id="c3")], USAGE),
    ]
    return Agent(
        name="A",
        model=ScriptedModel(steps, emit_traces=True),
        tools=[look_up, count],
        handoffs=[guide],
        input_guardrails=[polite],
    )


RICH = [
    "task Agent workflow",
    "  agent A",
    "    guardrail polite",
    "    turn 1",
    "      generation",
    "      function look_up",
    "        custom rank",
    "      function count",
    "    turn 2",
    "      generation",
    "      handoff Guide",
    "  agent Guide",
    "    turn 3",
    "      generation",
    "      guardrail short",
]


# --- the tree ---------------------------------------------------------------------------------


@BOTH
async def test_a_run_has_a_trace_and_spans_for_all_that_it_does(run: Any, recorder: Recorder) -> None:
    config = RunConfig(group_id="chat_7", trace_metadata={"customer": 3}, trace_id="trace_mine")

    result = await run(rich_agent(), run_config=config)

    assert result.final_output == "Dress warmly."
    assert recorder.tree() == RICH
    (whole,) = recorder.traces
    assert whole.export() == {
        "object": "trace", "id": "trace_mine", "workflow_name": "Agent workflow",
        "group_id": "chat_7", "metadata": {"customer": 3},
    }  # fmt: skip
    assert recorder.calls[0] == "start trace Agent workflow"
    assert recorder.calls[-1] == "end trace Agent workflow"
    assert recorder.open == set()


@BOTH
async def test_spans_tell_what_was_asked_and_answered_and_what_it_took(run: Any, recorder: Recorder) -> None:
    await run(rich_agent(), run_config=RunConfig(workflow_name="Weather"))

    task, first, second = recorder.one("task"), *recorder.of("agent")
    assert task.span_data.usage == {
        "input_tokens": 14, "output_tokens": 10, "cached_input_tokens": 0,
        "cache_write_input_tokens": 0, "requests": 3, "total_tokens": 24,
    }  # fmt: skip
    assert (task.span_data.name, first.span_data.handoffs, second.span_data.handoffs) == (
        "Weather",
        ["Guide"],
        [],
    )
    assert (first.span_data.tools, first.span_data.output_type) == (["look_up", "count"], "str")
    turn = recorder.of("turn")[0]
    assert turn.span_data.usage["input_tokens"] == 7
    asked = recorder.of("generation")[0].span_data
    assert [item["role"] for item in asked.input] == ["user"]
    assert [item["name"] for item in asked.output] == ["look_up", "count"]
    assert asked.usage["output_tokens"] == 5
    called = recorder.of("function")[0].span_data
    assert (called.input, called.output) == ('{"city":"Oslo"}', "Oslo: cold")


@BOTH
async def test_the_span_of_a_call_that_a_guardrail_rejects_tells_the_answer(
    run: Any, recorder: Recorder
) -> None:
    @tool_input_guardrail
    def never(data: Any) -> ToolGuardrailFunctionOutput:
        return ToolGuardrailFunctionOutput.reject_content("Not in Oslo.")

    @tool(tool_input_guardrails=[never])
    def ask() -> str:
        return "cold"

    model = ScriptedModel([[function_call("ask", {}, call_id="c1")], "Well."])

    await run(Agent(name="A", model=model, tools=[ask]))

    assert recorder.one("function").span_data.output == "Not in Oslo."


@BOTH
async def test_a_handoff_has_a_span_around_its_functions_with_what_they_raise(
    run: Any, recorder: Recorder
) -> None:
    def on_handoff(context: Any) -> None:
        with custom_span("prepare"):
            raise ValueError("not today")

    guide = Agent(name="Guide", model=ScriptedModel(["Never."]))
    calls = [function_call("transfer_to_guide", {}, call_id="c1")]
    agent = Agent(name="A", model=ScriptedModel([calls]), handoffs=[handoff(guide, on_handoff=on_handoff)])

    with pytest.raises(ValueError, match="not today"):
        await run(agent)

    span, inside = recorder.one("handoff"), recorder.one("custom")
    assert (span.span_data.from_agent, span.span_data.to_agent) == ("A", None)
    assert span.error == {
        "message": "Error in handoff", "data": {"error": "not today", "error_type": "ValueError"},
    }  # fmt: skip
    assert inside.parent_id == span.span_id
    assert recorder.open == set()


async def test_the_prompt_of_a_call_stands_first_among_its_messages(recorder: Recorder) -> None:
    agent = Agent(name="A", instructions="Be brief.", model=ScriptedModel(["Hi."], emit_traces=True))

    await plain(agent)

    assert recorder.one("generation").span_data.input[0] == {"role": "system", "content": "Be brief."}


@BOTH
async def test_a_nested_run_is_below_the_call_of_the_tool_that_runs_it(run: Any, recorder: Recorder) -> None:
    inner = Agent(name="Inner", model=ScriptedModel(["Yes."]))
    model = ScriptedModel([[function_call("ask", {"input": "?"})], "Done."])
    outer = Agent(name="Outer", model=model, tools=[inner.as_tool("ask", "Asks.")])

    await run(outer)

    assert recorder.tree()[:7] == [
        "task Agent workflow",
        "  agent Outer",
        "    turn 1",
        "      function ask",
        "        task Agent workflow",
        "          agent Inner",
        "            turn 1",
    ]
    assert len(recorder.traces) == 1
    assert [span.span_data.usage["requests"] for span in recorder.of("task")] == [3, 1]


@BOTH
async def test_task_and_turns_can_be_left_out(run: Any, recorder: Recorder) -> None:
    await run(rich_agent(), run_config={"tracing": {"include_task_and_turn_spans": False}})

    assert recorder.tree()[:3] == ["agent A", "  guardrail polite", "  generation"]
    assert not [line for line in recorder.tree() if "turn" in line or "task" in line]


# --- whose trace ------------------------------------------------------------------------------


@BOTH
async def test_runs_join_the_trace_and_the_span_that_their_caller_has_open(
    run: Any, recorder: Recorder
) -> None:
    with trace("Two questions") as whole, custom_span("mine") as mine:
        result = await run(Agent(name="A", model=ScriptedModel(["1"])))
        await run(Agent(name="B", model=ScriptedModel(["2"])))
        assert (get_current_trace(), get_current_span()) == (whole, mine)

    assert result.final_output == "1"
    assert recorder.tree() == [
        "custom mine",
        "  task Agent workflow", "    agent A", "      turn 1",
        "  task Agent workflow", "    agent B", "      turn 1",
    ]  # fmt: skip
    assert recorder.traces == [whole]


async def test_a_run_does_not_join_a_trace_that_has_ended(recorder: Recorder) -> None:
    over = trace("over")
    over.start(mark_as_current=True)
    await asyncio.to_thread(over.finish, reset_current=True)  # where it is not the current one of this task

    await plain(Agent(name="A", model=ScriptedModel(["Hi."])))

    over.finish(reset_current=True)
    assert [whole.name for whole in recorder.traces] == ["over", "Agent workflow"]
    assert get_current_trace() is None


async def test_a_run_goes_on_in_a_trace_that_its_caller_has_left(recorder: Recorder) -> None:
    may_go_on = asyncio.Event()

    @tool
    async def wait() -> str:
        await may_go_on.wait()
        with custom_span("late"):
            return "done"

    model = ScriptedModel([[function_call("wait", {})], "Done."])
    with trace("W") as whole:
        run = Runner.run_streamed(Agent(name="A", model=model, tools=[wait]), "Hello")

    may_go_on.set()
    await run

    assert {span.trace_id for span in recorder.spans} == {whole.trace_id}
    assert [span.error for span in recorder.of("custom")] == [None]
    assert recorder.open == set()


async def test_a_handle_tells_its_trace_at_once(recorder: Recorder) -> None:
    run = Runner.run_streamed(Agent(name="A", model=ScriptedModel(["Hi."])), "Hello")
    own = run.trace
    await run
    with trace("W") as whole:
        joined = Runner.run_streamed(Agent(name="A", model=ScriptedModel(["Hi."])), "Hello")
    await joined

    assert own is recorder.traces[0]
    assert joined.trace is whole


@BOTH
async def test_nothing_is_current_in_the_callers_context_after_a_run(run: Any, recorder: Recorder) -> None:
    await run(rich_agent())

    assert (get_current_trace(), get_current_span()) == (None, None)


async def test_runs_side_by_side_have_traces_of_their_own(recorder: Recorder) -> None:
    await asyncio.gather(*(run(rich_agent()) for run in (plain, streamed) * 3))

    assert len(recorder.traces) == 6
    for whole in recorder.traces:
        alone = Recorder()
        alone.spans = [span for span in recorder.spans if span.trace_id == whole.trace_id]
        assert alone.tree() == RICH


# --- who sees them ----------------------------------------------------------------------------


@BOTH
async def test_tools_and_hooks_see_the_trace_of_their_run_and_the_span_around_them(
    run: Any, recorder: Recorder
) -> None:
    seen: list[Any] = []

    def look() -> None:
        span, whole = get_current_span(), get_current_trace()
        assert span is not None
        assert whole is not None
        seen.append((span.span_data.type, whole.name))

    class Hooks(RunHooks[Any]):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            look()

        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            look()

        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            look()

    @tool
    def in_a_thread() -> None:
        look()

    model = ScriptedModel([[function_call("in_a_thread", {})], "Done."])
    await run(Agent(name="A", model=model, tools=[in_a_thread]), hooks=Hooks())

    names = [name for name, _ in seen]
    assert {whole for _, whole in seen} == {"Agent workflow"}
    assert names == ["turn", "turn", "function", "function", "turn"]


async def test_without_a_processor_a_tool_has_the_trace_and_its_id_but_its_spans_do_nothing() -> None:
    set_trace_processors([])
    seen: list[Any] = []

    @tool
    def look() -> None:
        with custom_span("x") as span:
            seen.append((get_current_trace(), span.export()))

    model = ScriptedModel([[function_call("look", {})], "Done."])
    run = Runner.run_streamed(
        Agent(name="A", model=model, tools=[look]), "Hello", run_config={"trace_id": "trace_1"}
    )
    await run

    ((whole, exported),) = seen
    assert (whole.trace_id, exported) == ("trace_1", None)
    assert run.trace is whole


# --- less of it -------------------------------------------------------------------------------


@BOTH
async def test_without_sensitive_data_spans_tell_neither_inputs_nor_outputs_nor_errors(
    run: Any, recorder: Recorder
) -> None:
    await run(rich_agent(), run_config=RunConfig(trace_include_sensitive_data=False))

    assert recorder.tree() == RICH
    told = json.dumps([span.export() for span in recorder.spans])
    assert "Hello" not in told
    assert "Oslo" not in told
    assert "secret" not in told
    assert "Dress warmly" not in told
    asked = recorder.of("generation")[0].span_data
    assert (asked.input, asked.output, asked.usage["input_tokens"]) == (None, None, 7)
    assert "metadata" not in asked.model_config


@pytest.mark.parametrize(
    ("said", "records"),
    [(None, True), ("1", True), ("Yes", True), ("0", False), ("false", False), ("", False)],
)
def test_the_environment_says_whether_sensitive_data_is_recorded_where_the_program_does_not(
    said: str | None, records: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if said is not None:
        monkeypatch.setenv("OPENAI_AGENTS_TRACE_INCLUDE_SENSITIVE_DATA", said)

    assert RunConfig().trace_include_sensitive_data is records
    assert RunConfig(trace_include_sensitive_data=True).trace_include_sensitive_data is True


@BOTH
@pytest.mark.parametrize("how", ["the run", "the process"])
async def test_where_tracing_is_off_nothing_is_recorded(run: Any, how: str, recorder: Recorder) -> None:
    set_tracing_disabled(how == "the process")
    seen: list[Any] = []

    @tool
    def look() -> None:
        with custom_span("x"):
            seen.append(get_current_trace())

    model = ScriptedModel([[function_call("look", {})], "Done."])
    with trace("W"):
        await run(
            Agent(name="A", model=model, tools=[look]),
            run_config=RunConfig(tracing_disabled=how == "the run"),
        )

    assert isinstance(seen[0], NoOpTrace)
    assert recorder.spans == []


# --- models -----------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize(
    ("kind", "span"), [(OpenAIChatCompletionsModel, "generation"), (OpenAIResponsesModel, "response")]
)
async def test_a_call_of_a_model_server_has_the_span_of_its_wire(
    run: Any, kind: Callable[..., Model], span: str, recorder: Recorder
) -> None:
    with ModelServer([ModelStep("It is cold.", USAGE)]) as server:
        async with AsyncOpenAI(api_key="k", base_url=server.base_url) as client:
            model = kind("gpt-x", client)
            settings = ModelSettings(temperature=0.5, extra_headers={"x-key": "secret"})
            await run(Agent(name="A", model=model, model_settings=settings))
            await model.close()

    data = recorder.one(span).span_data
    assert (data.model, data.model_config["temperature"]) == ("gpt-x", 0.5)
    assert "secret" not in json.dumps(data.model_config)
    assert data.usage["input_tokens"] == 7
    if span == "response":
        assert (data.response.id, data.response.model) == ("resp-789", "gpt-x")
        assert data.response.output[0].content[0].text == "It is cold."
        assert data.export() == {"type": "response", "response_id": "resp-789", "usage": data.usage}
    else:
        assert data.output[0]["content"][0]["text"] == "It is cold."


@BOTH
async def test_a_model_call_that_fails_says_so_in_its_span_and_in_that_of_the_agent(
    run: Any, recorder: Recorder
) -> None:
    model = ScriptedModel([ModelStep(error=ConnectionError("down"))], emit_traces=True)

    with pytest.raises(ConnectionError):
        await run(Agent(name="A", model=model))

    what = "streaming" if run is streamed else "getting"
    why = {"error": "down", "error_type": "ConnectionError"}
    assert recorder.one("generation").error == {"message": f"Error {what} response", "data": why}
    assert recorder.one("agent").error == {"message": "Error in agent run", "data": why}
    assert (recorder.one("task").error, recorder.one("turn").error) == (None, None)


@BOTH
@pytest.mark.parametrize(
    ("config", "told"),
    [
        (RunConfig(), ModelTracing.ENABLED),
        (RunConfig(trace_include_sensitive_data=False), ModelTracing.ENABLED_WITHOUT_DATA),
        (RunConfig(tracing_disabled=True), ModelTracing.DISABLED),
    ],
)
async def test_a_model_that_opens_its_own_spans_is_told_whether_to(
    run: Any, config: RunConfig, told: ModelTracing, recorder: Recorder
) -> None:
    class Own(Model):
        def __init__(self) -> None:
            self.script = ScriptedModel(["Hi."])

        async def get_response(self, *args: Any, **kwargs: Any) -> Any:
            with generation_span(model="own"):
                return await self.script.get_response(*args, **kwargs)

        async def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            with generation_span(model="own"):
                async for event in self.script.stream_response(*args, **kwargs):
                    yield event

    model = Own()
    await run(Agent(name="A", model=model), run_config=config)

    assert [call.tracing for call in model.script.calls] == [told]
    expected = [] if told is ModelTracing.DISABLED else ["      generation"]
    assert recorder.tree()[3:] == expected


@BOTH
async def test_a_model_may_leave_its_span_to_the_run(run: Any, recorder: Recorder) -> None:
    class Mine(ScriptedModel):
        model = "mine-1"

    model = Mine(["Hi."])
    model.traced_as = "generation"
    await run(Agent(name="A", model=model))

    assert recorder.one("generation").span_data.model == "mine-1"


# --- how a run may end ------------------------------------------------------------------------


@BOTH
async def test_a_tool_that_fails_says_so_in_its_span(run: Any, recorder: Recorder) -> None:
    await run(rich_agent())

    ok, failed = recorder.of("function")
    assert ok.error is None
    assert failed.error == {
        "message": "Error running tool (non-fatal)",
        "data": {"tool_name": "count", "error": "lost count of the secret", "error_type": "ValueError"},
    }


@BOTH
async def test_a_tool_that_ends_the_run_says_so_in_its_span_and_in_that_of_the_agent(
    run: Any, recorder: Recorder
) -> None:
    @tool(failure_error_function=None)
    def fail() -> None:
        raise ValueError("boom")

    with pytest.raises(Exception, match="boom"):
        await run(Agent(name="A", model=ScriptedModel([[function_call("fail", {})]]), tools=[fail]))

    assert recorder.one("function").error == {
        "message": "Error running tool",
        "data": {"tool_name": "fail", "error": "boom", "error_type": "ValueError"},
    }
    assert (recorder.one("agent").error or {})["message"] == "Error in agent run"
    assert recorder.open == set()


@BOTH
async def test_too_many_turns_and_tripwires_are_errors_of_the_agent(run: Any, recorder: Recorder) -> None:
    looking = ScriptedModel([[function_call("look_up", {"city": "Oslo"})]])
    with pytest.raises(Exception, match="Max turns"):
        await run(Agent(name="A", model=looking, tools=[look_up]), max_turns=1)
    with pytest.raises(Exception, match="tripwire"):
        await run(Agent(name="B", model=ScriptedModel(["x" * 101]), output_guardrails=[short]))

    turns, tripped = recorder.of("agent")
    assert turns.error == {"message": "Max turns exceeded", "data": {"max_turns": 1}}
    assert tripped.error == {
        "message": "Guardrail tripwire triggered",
        "data": {"guardrail": "short", "type": "output_guardrail"},
    }
    assert recorder.one("guardrail").span_data.triggered is True
    assert recorder.open == set()


async def test_a_cancelled_run_says_so_in_the_span_of_its_agent(recorder: Recorder) -> None:
    began = asyncio.Event()

    @tool
    async def wait() -> None:
        began.set()
        await asyncio.Event().wait()

    model = ScriptedModel([[function_call("wait", {}, call_id="c1")]])
    run = Runner.run_streamed(Agent(name="A", model=model, tools=[wait]), "Hello")
    await began.wait()
    run.cancel()
    with pytest.raises(RunCancelledError):
        await run

    assert (recorder.one("agent").error or {})["message"] == "Cancelled"
    assert (recorder.one("function").error or {})["message"] == "Cancelled"
    assert recorder.open == set()


@BOTH
async def test_wherever_a_run_is_cancelled_every_span_ends(run: Any, recorder: Recorder) -> None:
    async def cancelled_at(number: int) -> int:
        """Run, and cancel at that await; how many awaits there were."""
        with counted_awaits() as awaits:
            task = asyncio.create_task(run(rich_agent()))
            awaits.do_at(number, task.cancel)
            await asyncio.wait([task])
        return awaits.count

    number, reached = 1, await cancelled_at(10**9)
    while number <= reached:
        await cancelled_at(number)
        await left_tasks()
        assert recorder.open == set(), f"cancelled at await {number}"
        number += 1

    assert number > 10
    assert (get_current_trace(), get_current_span()) == (None, None)


async def left_tasks() -> None:
    """Wait for the tasks of runs that were cancelled with their callers."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others)


@pytest.mark.parametrize("leave", ["breaks off", "is collected", "never reads"])
async def test_spans_end_also_where_the_reader_is_gone(
    leave: str, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    run = Runner.run_streamed(rich_agent(), "Hello")
    task = run.run_loop_task
    assert task is not None
    if leave == "breaks off":
        async for _ in run.stream_events():
            break
    elif leave == "is collected":
        events = run.stream_events()
        await anext(events)
        del events
    del run
    gc.collect()
    await asyncio.wait([task])

    assert recorder.tree() == RICH
    assert recorder.open == set()
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert (get_current_trace(), get_current_span()) == (None, None)


async def result_of(run: Any) -> Any:
    return await run


def test_a_loop_that_is_closed_under_a_run_closes_its_spans(recorder: Recorder) -> None:
    loop = asyncio.new_event_loop()
    began = asyncio.Event()

    @tool
    async def wait() -> None:
        began.set()
        await asyncio.Event().wait()

    async def start() -> Any:
        model = ScriptedModel([[function_call("wait", {})]])
        run = Runner.run_streamed(Agent(name="A", model=model, tools=[wait]), "Hello")
        await began.wait()
        return run

    run = loop.run_until_complete(start())
    loop.close()
    with pytest.raises(RunCancelledError):
        asyncio.run(result_of(run))
    assert [span.ended_at is None for span in recorder.spans] == [False, False, False, True]

    # The task of the tool was never told: its span ends when it is collected.
    del run, loop
    gc.collect()
    assert recorder.open == set()


# --- configuration ----------------------------------------------------------------------------


def test_settings_that_may_go_into_a_trace_are_those_that_carry_no_secret() -> None:
    settings = ModelSettings(
        temperature=1, extra_headers={"a": "s"}, extra_body={"b": "s"}, extra_args={"c": "s"}
    )

    traceable = settings.to_traceable_dict()

    assert traceable["temperature"] == 1
    assert not [name for name in traceable if name.startswith("extra_")]


@pytest.mark.parametrize("setting", ["tracing", "trace_metadata"])
def test_a_setting_that_can_be_none_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match=rf"RunConfig.{setting} is a dict or None, not str"):
        RunConfig.of({setting: "everything"})
