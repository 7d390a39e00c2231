"""Input for a run that goes on: when it reaches the model, what it interrupts, and what is never lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    GuardrailFunctionOutput,
    InputItem,
    InputItemError,
    MaxTurnsExceeded,
    MemoryLog,
    ModelRetryBackoffSettings,
    ModelRetrySettings,
    ModelSettings,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    RunHooks,
    RunItemStreamEvent,
    Runner,
    RunResultStreaming,
    SQLiteSession,
    ToolFailedError,
    UserError,
    input_guardrail,
    output_guardrail,
    retry_policies,
    tool,
)
from millstream.log import Batch
from millstream.log.batches import Caps
from millstream.testing import (
    ManualClock,
    ModelCall,
    ModelStep,
    ScriptedModel,
    assistant_message,
    function_call,
)
from tests.support.awaits import counted_awaits

DEADLINE = 20
CANCELLED = "The tool call was cancelled before it finished."
MOMENTS = ["now", "after_tool", "after_turn"]


async def collect(events: Any) -> list[Any]:
    return [event async for event in events]


async def others_have_run() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


def said(items: Any) -> list[Any]:
    """What a history is, in short: texts by role, calls and their outputs."""
    return [_short(item) for item in items]


def _short(item: Any) -> Any:
    if item.get("type") in ("function_call", "function_call_output"):
        return (item["type"], item["call_id"], item.get("output"))
    content = item["content"]
    text = content if isinstance(content, str) else content[0]["text"]
    return f"{item['role']}: {text}" + (" …" if item.get("status") == "incomplete" else "")


def messages_sent(run: RunResultStreaming) -> list[Any]:
    return [item.raw_item["content"] for item in run.new_items if isinstance(item, InputItem)]


# --- when it reaches the model ------------------------------------------------------------------


class Scene:
    """A run whose model says something and waits, then its tool; brought to a moment of its life."""

    def __init__(self) -> None:
        self.model_goes_on = asyncio.Event()
        self.tool_goes_on = asyncio.Event()

        @tool
        async def wait() -> str:
            await self.tool_goes_on.wait()
            return "waited"

        async def stream(call: ModelCall) -> AsyncIterator[Any]:
            twin = ScriptedModel([[assistant_message("I wait."), function_call("wait", call_id="c1")]])
            async for event in twin.stream_response(
                call.system_instructions,
                call.input,
                call.model_settings,
                call.tools,
                None,
                [],
                call.tracing,
                previous_response_id=None,
                conversation_id=None,
                prompt=None,
            ):
                yield event
                if event.type == "response.output_text.delta":
                    await self.model_goes_on.wait()

        self.model = ScriptedModel([ModelStep.stream(stream), "Good bye.", "Again."])
        self.run = Runner.run_streamed(Agent(name="A", model=self.model, tools=[wait]), "Hi")

    async def before_its_first_step(self) -> None:
        pass

    async def during_the_model(self) -> None:
        async for _ in self.run.text():
            break
        await others_have_run()

    async def during_a_tool(self) -> None:
        self.model_goes_on.set()
        entries = self.run.entries()
        while (await anext(entries)).type != "tool.started":
            pass
        await others_have_run()

    async def between_two_turns(self) -> None:
        self.everything_goes_on()
        self.reader = self.run.stream_events()
        await anext(self.reader)  # it stands there, and the run waits for it
        await others_have_run()

    def everything_goes_on(self) -> None:
        self.model_goes_on.set()
        self.tool_goes_on.set()


WAITED = ["assistant: I wait.", ("function_call", "c1", None), ("function_call_output", "c1", "waited")]
STOPPED = ["assistant: I wait.", ("function_call", "c1", None), ("function_call_output", "c1", CANCELLED)]
CUT_OFF = ["assistant: I …"]
REACHES: dict[Callable[[Scene], Any], dict[str, list[Any]]] = {
    Scene.before_its_first_step: {moment: [] for moment in MOMENTS},
    Scene.during_the_model: {"now": CUT_OFF, "after_tool": CUT_OFF, "after_turn": WAITED},
    Scene.during_a_tool: {"now": STOPPED, "after_tool": WAITED, "after_turn": WAITED},
    Scene.between_two_turns: dict.fromkeys(MOMENTS, WAITED),
}
"""At which moment it is sent, for when; and what stands between the run's input and it when the model gets it."""


async def by_handle(run: RunResultStreaming, when: Any) -> None:
    run.send("Faster", when)


async def from_another_thread(run: RunResultStreaming, when: Any) -> None:
    await asyncio.to_thread(run.send, "Faster", when)


@pytest.mark.parametrize("send", [by_handle, from_another_thread])
@pytest.mark.parametrize(
    ("moment", "when", "before"),
    [
        pytest.param(moment, when, before, id=f"{when} {moment.__name__}")
        for moment, moments in REACHES.items()
        for when, before in moments.items()
    ],
)
async def test_input_reaches_the_model_at_the_moment_for_which_it_was_sent(
    moment: Callable[[Scene], Any], when: Any, before: list[Any], send: Callable[..., Any]
) -> None:
    async with asyncio.timeout(DEADLINE):
        scene = Scene()
        await moment(scene)
        await send(scene.run, when)
        if when != "now" or moment is Scene.before_its_first_step:
            scene.everything_goes_on()
        await collect(scene.run.stream_events())

    asked = next(said(call.input) for call in scene.model.calls if "user: Faster" in said(call.input))
    assert asked == ["user: Hi", *before, "user: Faster"]
    assert said(scene.run.to_input_list())[: len(asked)] == asked
    assert (await scene.run).final_output == "Good bye."


async def test_the_models_stream_is_closed_when_input_interrupts_it() -> None:
    closed = asyncio.Event()

    async def endless(_: Any) -> AsyncIterator[Any]:
        try:
            await asyncio.Event().wait()
            yield
        finally:
            closed.set()

    model = ScriptedModel([ModelStep.stream(endless), "Yes?"])
    run = Runner.run_streamed(Agent(name="A", model=model), "Hi")
    await others_have_run()
    run.send("Hello?")

    assert (await run).final_output == "Yes?"
    assert closed.is_set()


async def test_what_was_sent_several_times_comes_in_that_order_and_all_at_once() -> None:
    scene = Scene()
    await scene.during_a_tool()

    scene.run.send("one", "after_turn")
    scene.run.send([{"role": "user", "content": "two"}, {"role": "user", "content": "three"}], "after_tool")
    scene.run.send("four", "after_turn")
    scene.run.send("five", "now")
    await scene.run

    words = ["one", "two", "three", "four", "five"]
    assert messages_sent(scene.run) == words
    assert said(scene.model.calls[-1].input)[-5:] == [f"user: {word}" for word in words]
    assert len(scene.model.calls) == 2


async def test_the_log_tells_of_input_where_the_model_gets_it() -> None:
    scene = Scene()
    await scene.during_the_model()

    scene.run.send("Faster")
    entries = await collect(scene.run.entries())
    events = await collect(scene.run.stream_events())

    told = [(e.turn, e.type, getattr(e.event, "name", getattr(e.event, "status", None))) for e in entries]
    first = told.index((1, "model.completed", "cancelled"))
    assert told[first : first + 4] == [
        (1, "model.completed", "cancelled"),
        (1, "run_item_stream_event", "message_output_created"),
        (2, "input.added", None),
        (2, "model.started", None),
    ]
    assert entries[first + 2].event.input == {"role": "user", "content": "Faster"}
    items = [event.item for event in events if event.type == "run_item_stream_event"]
    assert items == [item for item in scene.run.new_items if not isinstance(item, InputItem)]
    assert [item.type for item in scene.run.new_items] == [
        "message_output_item",
        "input_item",
        "message_output_item",
    ]


# --- going on instead of ending -----------------------------------------------------------------


@pytest.mark.parametrize("when", MOMENTS)
async def test_a_run_that_would_be_complete_goes_on_while_input_waits(when: Any) -> None:
    model = ScriptedModel(["Hello.", "Sure."])
    run = Runner.run_streamed(Agent(name="A", model=model), "Hi")

    async for event in run.stream_events(early=True):
        if isinstance(event, RunItemStreamEvent) and not messages_sent(run):
            run.send("And now?", when)

    assert run.final_output == "Sure."
    assert said(run.to_input_list()) == [
        "user: Hi",
        "assistant: Hello.",
        "user: And now?",
        "assistant: Sure.",
    ]


async def test_input_that_comes_while_an_output_is_judged_is_answered_too() -> None:
    handles: list[RunResultStreaming] = []

    @output_guardrail
    async def judge(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        if output == "Hello.":
            handles[0].send("And now?", "after_turn")
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    agent = Agent(name="A", model=ScriptedModel(["Hello.", "Sure."]), output_guardrails=[judge])
    handles.append(Runner.run_streamed(agent, "Hi"))

    assert (await handles[0]).final_output == "Sure."
    assert messages_sent(handles[0]) == ["And now?"]


async def test_input_that_comes_while_input_guardrails_judge_reaches_the_first_call() -> None:
    handles: list[RunResultStreaming] = []

    @input_guardrail(run_in_parallel=False)
    async def judge(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
        if input == "Hi":  # it judges what is sent, too
            handles[0].send("Quick!")
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    model = ScriptedModel(["Hello."])
    handles.append(Runner.run_streamed(Agent(name="A", model=model, input_guardrails=[judge]), "Hi"))

    assert (await handles[0]).final_output == "Hello."
    assert said(model.calls[0].input) == ["user: Hi", "user: Quick!"]


async def test_a_turn_for_input_counts() -> None:
    model = ScriptedModel([ModelStep("Hello there.", hang_after=5)])
    run = Runner.run_streamed(Agent(name="A", model=model), "Hi", max_turns=1)
    async for _ in run.text():
        break
    run.send("Hello?")

    with pytest.raises(MaxTurnsExceeded):
        await run
    assert said(run.to_input_list()) == ["user: Hi", "assistant: Hello …", "user: Hello?"]


async def test_a_handler_for_too_many_turns_ends_the_run_all_the_same() -> None:
    model = ScriptedModel([ModelStep("Hello there.", hang_after=5)])
    handlers: Any = {"max_turns": lambda data: "enough"}
    run = Runner.run_streamed(Agent(name="A", model=model), "Hi", max_turns=1, error_handlers=handlers)
    async for _ in run.text():
        break
    run.send("Hello?")

    assert (await run).final_output == "enough"
    assert messages_sent(run) == ["Hello?"]


@pytest.mark.parametrize("when", MOMENTS)
async def test_input_ends_the_wait_for_another_try(when: Any) -> None:
    clock = ManualClock()
    retry = ModelRetrySettings(
        max_retries=3,
        backoff=ModelRetryBackoffSettings(initial_delay=60, jitter=False),
        policy=retry_policies.network_error(),
    )
    model = ScriptedModel([ConnectionResetError("down"), "Up again."])
    agent = Agent(name="A", model=model, model_settings=ModelSettings(retry=retry))
    run = Runner.run_streamed(agent, "Hi", run_config=RunConfig(clock=clock))
    await clock.waiting()

    run.send("Hello?", when)

    assert (await run).final_output == "Up again."
    assert clock.due == ()
    assert said(model.calls[-1].input) == ["user: Hi", "user: Hello?"]


async def test_no_further_tool_begins_and_no_handoff_when_input_came_for_after_the_tool() -> None:
    began: list[int] = []
    goes_on = asyncio.Event()

    @tool
    async def step(number: int) -> str:
        began.append(number)
        await goes_on.wait()
        return "done"

    other = Agent(name="Other", model=ScriptedModel(["I am the other."]))
    calls = [function_call("step", {"number": n}, call_id=f"c{n}") for n in (1, 2)]
    model = ScriptedModel([[*calls, function_call("transfer_to_other", call_id="h")], "Still me."])
    agent = Agent(name="A", model=model, tools=[step], handoffs=[other])
    config = RunConfig(tool_execution={"max_function_tool_concurrency": 1})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    run = Runner.run_streamed(agent, "Hi", run_config=config)
    entries = run.entries()
    while (await anext(entries)).type != "tool.started":
        pass

    run.send("Stay", "after_tool")
    goes_on.set()
    result = await run

    assert (began, result.final_output) == ([1], "Still me.")
    history: list[Any] = result.to_input_list()
    outputs = {i["call_id"]: i["output"] for i in history if i.get("type") == "function_call_output"}
    assert outputs == {"c1": "done", "c2": CANCELLED, "h": CANCELLED}


async def test_a_model_that_swallows_the_interruption_is_asked_again_all_the_same() -> None:
    async def stubborn(_: Any) -> Any:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "Not now."

    model = ScriptedModel([ModelStep.respond(stubborn), "Yes?", "Never."])
    run = Runner.run_streamed(Agent(name="A", model=model), "Hi")
    await others_have_run()

    run.send("Hello?")
    result = await run

    assert said(result.to_input_list()) == [
        "user: Hi",
        "assistant: Not now.",
        "user: Hello?",
        "assistant: Yes?",
    ]


async def test_a_tool_that_failed_in_the_moment_in_which_input_came_ends_the_run() -> None:
    handles: list[RunResultStreaming] = []

    @tool(failure_error_function=None)
    async def fail() -> str:
        # The run learns of both in the same step of the event loop.
        asyncio.get_running_loop().call_soon(handles[0].send, "Hello?")
        raise ValueError("broken")

    model = ScriptedModel([[function_call("fail", call_id="c1")], "Never."])
    handles.append(Runner.run_streamed(Agent(name="A", model=model, tools=[fail]), "Hi"))

    with pytest.raises(ToolFailedError, match="broken"):
        await handles[0]
    assert messages_sent(handles[0]) == ["Hello?"]


async def test_a_run_nested_in_a_tool_is_stopped_with_its_call() -> None:
    inner = Agent(name="Inner", model=ScriptedModel([ModelStep("Let me think.", hang_after=5)]))
    calls = [function_call("ask", {"input": "Please."}, call_id="c1")]
    model = ScriptedModel([calls, "Without it, then."])
    outer = Agent(name="Outer", model=model, tools=[inner.as_tool("ask", "Asks.")])
    run = Runner.run_streamed(outer, "Hi")
    entries: list[Any] = []
    async for entry in run.entries():
        entries.append(entry)
        if entry.depth == 1 and entry.type == "raw_response_event" and not messages_sent(run):
            run.send("Never mind")

    ends = [(entry.agent, entry.type) for entry in entries if entry.is_terminal]
    assert ends == [("Inner", "run.cancelled"), ("Outer", "run.completed")]
    assert run.final_output == "Without it, then."


@output_guardrail(hold="verdict")
async def no_secrets(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered="Secret" in str(output))


async def test_text_that_is_held_is_nowhere_when_input_ends_it() -> None:
    model = ScriptedModel([ModelStep("Secret words.", hang_after=5), "Good bye."])
    session = SQLiteSession("s")
    run = Runner.run_streamed(
        Agent(name="A", model=model, output_guardrails=[no_secrets]), "Hi", session=session
    )
    while not model.calls:
        await asyncio.sleep(0)
    await others_have_run()

    run.send("Hello?")
    told = b"".join([entry.to_json() async for entry in run.entries()])

    assert b"Secret" not in told
    assert b"Good bye." in told
    assert said(model.calls[1].input) == ["user: Hi", "user: Hello?"]
    assert said(run.to_input_list()) == said(await session.get_items())
    assert "Secret" not in str(run.to_input_list())


async def test_calls_of_an_answer_that_is_held_are_forgotten_with_its_text() -> None:
    @tool
    def look() -> str:
        raise AssertionError("the turn was given up before its tools")

    class Interrupts(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            if len(model.calls) == 1:
                run.send("Hello?", when="now")

    model = ScriptedModel([["Secret words.", function_call("look", call_id="c1")], "Good bye."])
    agent = Agent(name="A", model=model, tools=[look], output_guardrails=[no_secrets])
    run = Runner.run_streamed(agent, "Hi", hooks=Interrupts())
    await run

    assert said(model.calls[1].input) == ["user: Hi", "user: Hello?"]
    assert [item.type for item in run.new_items] == ["input_item", "message_output_item"]


async def test_text_is_judged_before_a_session_has_it_where_input_waits_for_the_turn() -> None:
    class Adds(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            run.send("Hello?", when="after_turn")

    session = SQLiteSession("s")
    agent = Agent(name="A", model=ScriptedModel(["Secret words."]), output_guardrails=[no_secrets])
    run = Runner.run_streamed(agent, "Hi", hooks=Adds(), session=session)

    with pytest.raises(OutputGuardrailTripwireTriggered):
        await run

    assert said(await session.get_items()) == ["user: Hi", "user: Hello?"]


async def test_a_server_that_keeps_the_history_is_sent_all_that_it_has_not_answered() -> None:
    @tool
    def look() -> str:
        return "seen"

    steps = [
        ModelStep([function_call("look", call_id="c1")], response_id="r1"),
        ModelStep("Hello there.", hang_after=5, response_id="r2"),
        ModelStep("Yes?", response_id="r3"),
    ]
    model = ScriptedModel(steps)
    agent = Agent(name="A", model=model, tools=[look])
    run = Runner.run_streamed(agent, "Hi", auto_previous_response_id=True)
    async for _ in run.text():
        break
    run.send("Hello?")
    await run

    assert [call.previous_response_id for call in model.calls] == [None, "r1", "r1"]
    answer = ("function_call_output", "c1", "seen")
    assert said(model.calls[2].input) == [answer, "assistant: Hello …", "user: Hello?"]


async def test_a_session_has_the_input_in_its_place() -> None:
    session: Any = SQLiteSession("s")
    model = ScriptedModel([ModelStep("Hello there.", hang_after=5), "Yes?"])
    run = Runner.run_streamed(Agent(name="A", model=model), "Hi", session=session)
    async for _ in run.text():
        break
    run.send("Hello?")
    await run

    assert said(await session.get_items()) == [
        "user: Hi",
        "assistant: Hello …",
        "user: Hello?",
        "assistant: Yes?",
    ]
    session.close()


# --- pauses and ends ------------------------------------------------------------------------------


async def test_a_run_that_pauses_keeps_input_for_when_it_goes_on() -> None:
    goes_on = asyncio.Event()

    @tool
    async def wait() -> str:
        await goes_on.wait()
        return "waited"

    @tool(needs_approval=True)
    def pay() -> str:
        return "paid"

    calls = [function_call("wait", call_id="c1"), function_call("pay", call_id="c2")]
    model = ScriptedModel([calls, "Done."])
    agent = Agent(name="A", model=model, tools=[wait, pay])
    run = Runner.run_streamed(agent, "Hi")
    entries = run.entries()
    while (await anext(entries)).type != "tool.started":
        pass

    run.send("And a receipt", "after_turn")
    goes_on.set()
    await collect(run.stream_events())
    with pytest.raises(UserError, match="add_input"):
        run.send("Too late")
    state = run.to_state()
    assert said(state.pending_input) == ["user: And a receipt"]
    state.approve(run.interruptions[0])
    result = await Runner.run(agent, state)

    assert result.final_output == "Done."
    assert said(model.calls[-1].input)[-1] == "user: And a receipt"


@pytest.mark.parametrize("end", ["completed", "cancelled", "failed"])
async def test_a_run_that_is_over_takes_no_more_input(end: str) -> None:
    step = ModelStep.raise_error(ValueError("broken")) if end == "failed" else "Hello."
    run = Runner.run_streamed(Agent(name="A", model=ScriptedModel([step])), "Hi")
    if end == "cancelled":
        run.cancel()
    last = (await collect(run.entries()))[-1]
    assert last.type == f"run.{end}"

    with pytest.raises(UserError, match="is over"):
        run.send("Hello?")
    assert isinstance(run.run_loop_exception, ValueError | None)


@pytest.mark.parametrize(
    ("message", "when", "error", "says"),
    [
        ("Hi", "soon", UserError, "the moments are"),
        ([], "now", UserError, "nothing to send"),
        (5, "now", InputItemError, "not int"),
        ([{"type": "no such"}], "now", InputItemError, "which no model takes"),
    ],
)
async def test_what_cannot_be_sent_is_refused_at_once(
    message: Any, when: Any, error: type[Exception], says: str
) -> None:
    run = Runner.run_streamed(Agent(name="A", model=ScriptedModel(["Hello."])), "Hi")

    with pytest.raises(error, match=says):
        run.send(message, when)

    assert (await run).final_output == "Hello."
    assert messages_sent(run) == []


@pytest.mark.parametrize("mode", MOMENTS)
@pytest.mark.parametrize("when", MOMENTS)
async def test_to_cancel_is_more_than_to_send_and_loses_nothing(when: Any, mode: Any) -> None:
    for first, second in ((0, 1), (1, 0)):
        scene = Scene()
        await scene.during_a_tool()

        actions = [lambda: scene.run.send("Hello?", when), lambda: scene.run.cancel(mode)]  # noqa: B023
        actions[first]()
        actions[second]()
        scene.everything_goes_on()
        entries = await collect(scene.run.entries())

        assert entries[-1].type == "run.cancelled"
        assert len(scene.model.calls) == 1
        assert said(scene.run.to_input_list())[-1] == "user: Hello?"
        assert [entry.type for entry in entries].count("input.added") == 1


async def test_a_run_whose_task_is_cancelled_while_it_gives_way_ends_cancelled() -> None:
    scene = Scene()
    await scene.during_the_model()

    scene.run.send("Hello?")
    assert scene.run.run_loop_task
    scene.run.run_loop_task.cancel()
    entries = await collect(scene.run.entries())

    assert entries[-1].type == "run.cancelled"
    assert messages_sent(scene.run) == ["Hello?"]


async def test_a_log_that_is_full_where_an_answer_is_ended_is_closed_all_the_same() -> None:
    scene = Scene()
    run = scene.run
    await scene.during_the_model()
    log: Any = run._run.trunk.log
    log._runs[run.run_id]._batches._caps = Caps(run._run.position, 1 << 30)

    run.send("Faster")
    entries = await collect(run.entries())

    assert [entry.type for entry in entries][-3:] == ["run_item_stream_event", "input.added", "run.failed"]
    assert [entry.type for entry in entries].count("run_item_stream_event") == 1
    assert entries[-1].event.code == "log_full"
    assert said(run.to_input_list()) == ["user: Hi", "assistant: I …", "user: Faster"]


# --- at every moment ------------------------------------------------------------------------------


def rich() -> tuple[Agent[Any], list[ScriptedModel]]:
    """An agent that talks, calls two tools, hands over to one that calls a tool and answers, come what may."""

    @tool
    async def look(what: str) -> str:
        for _ in range(3):
            await asyncio.sleep(0)
        return f"{what}: seen"

    def calls_made(call: ModelCall) -> set[str]:
        return {item["call_id"] for item in call.input if item.get("type") == "function_call"}

    def first(call: ModelCall) -> Any:
        if "a" in calls_made(call):
            return [assistant_message("Ask the other one."), function_call("transfer_to_b", call_id="h")]
        looks = [function_call("look", {"what": name}, call_id=name) for name in ("a", "b")]
        return [assistant_message("I look at two."), *looks]

    def second(call: ModelCall) -> Any:
        if "c" in calls_made(call):
            return "That is all there is."
        return [function_call("look", {"what": "c"}, call_id="c")]

    models = [ScriptedModel([ModelStep.respond(answer)] * 8) for answer in (first, second)]
    other = Agent(name="B", model=models[1], tools=[look])
    return Agent(name="A", model=models[0], tools=[look], handoffs=[other]), models


class Acting(MemoryLog):
    """A log that does something in the very moment in which a position is written."""

    def __init__(self) -> None:
        super().__init__()
        self.deeds: dict[int, Callable[[], object]] = {}

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        await super().append(run_id, batch, epoch=epoch)
        for position in range(batch.first, batch.last + 1):
            deed = self.deeds.pop(position, None)
            if deed is not None:
                deed()


async def entries_of_a_rich_run() -> int:
    run = Runner.run_streamed(rich()[0], "Hi")
    return len(await collect(run.entries()))


def assert_valid(history: list[Any]) -> None:
    """Every call is answered once, behind it, and before anything else is asked of the model."""
    open_calls: list[str] = []
    for item in history:
        if item.get("type") == "function_call":
            open_calls.append(item["call_id"])
        elif item.get("type") == "function_call_output":
            open_calls.remove(item["call_id"])
    assert not open_calls


@pytest.mark.parametrize("when", MOMENTS)
@pytest.mark.parametrize("streamed", [True, False])
async def test_input_may_be_sent_at_every_event_of_a_run(when: Any, streamed: bool) -> None:
    last = await entries_of_a_rich_run()
    for moment in range(1, last):
        agent, models = rich()
        log = Acting()
        run = Runner.run_streamed(agent, "Hi", run_config=RunConfig(log=log))
        run._run.streamed = streamed
        deeds = log.deeds = {
            moment: partial(run.send, "first", when),
            moment + 2: partial(run.send, "second", when),
        }
        entries = await collect(run.entries())
        if not streamed and deeds:
            continue  # a plain run has fewer events
        history: list[Any] = run.to_input_list()
        sent = ["first"] if deeds else ["first", "second"]

        assert moment not in deeds
        assert entries[-1].type == "run.completed", entries[-1]
        assert sum(entry.is_terminal for entry in entries) == 1
        assert run.final_output == "That is all there is."
        assert messages_sent(run) == sent
        told = [entry.event.input["content"] for entry in entries if entry.type == "input.added"]
        assert told == sent
        assert_valid(history)
        asked = [call.input for model in models for call in model.calls]
        for message in sent:
            assert any(f"user: {message}" in said(input) for input in asked)
        for input in asked:
            assert_valid(input)


@pytest.mark.parametrize("when", MOMENTS)
async def test_input_may_be_sent_at_every_await_of_a_run(when: Any) -> None:
    number, total = 0, 1
    while number < total:
        number += 1
        accepted: list[str] = []
        with counted_awaits() as awaits:
            agent, models = rich()
            run = Runner.run_streamed(agent, "Hi")

            def send(run: RunResultStreaming = run, accepted: list[str] = accepted) -> None:
                with contextlib.suppress(UserError):  # the run is over by then
                    run.send("sent", when)
                    accepted.append("sent")

            awaits.do_at(number, send)
            entries = await collect(run.entries())
        total = max(total, awaits.count) if accepted else total

        assert entries[-1].type == "run.completed", entries[-1]
        assert sum(entry.is_terminal for entry in entries) == 1
        assert messages_sent(run) == accepted
        for history in [run.to_input_list(), *(call.input for model in models for call in model.calls)]:
            assert_valid(history)
    assert total > 30


@pytest.mark.parametrize("mode", MOMENTS)
async def test_a_run_may_be_cancelled_at_every_event_after_input_was_sent(mode: Any) -> None:
    for moment in range(1, await entries_of_a_rich_run()):
        log = Acting()
        run = Runner.run_streamed(rich()[0], "Hi", run_config=RunConfig(log=log))
        later = moment + 1 + moment % 3
        log.deeds = {moment: partial(run.send, "sent"), later: partial(run.cancel, mode)}
        entries = await collect(run.entries())

        assert sum(entry.is_terminal for entry in entries) == 1
        assert entries[-1].type in ("run.completed", "run.cancelled")
        assert messages_sent(run) == ["sent"]
        assert_valid(run.to_input_list())


@pytest.mark.may_block
def test_a_plain_for_may_send_too() -> None:
    model = ScriptedModel([ModelStep("Hello there.", hang_after=5), "Yes?"])
    with Runner.run_streamed_sync(Agent(name="A", model=model), "Hi") as run:
        for piece in run.text():
            if piece == "Hello":
                run.send("Hello?")

        assert run.final_output == "Yes?"
