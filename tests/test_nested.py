"""Agents as tools: their runs are nested in the run that calls them, and in its log."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    AgentToolStreamEvent,
    AgentUpdatedStreamEvent,
    MemoryLog,
    ModelProvider,
    RunCancelledError,
    RunConfig,
    RunContextWrapper,
    Runner,
    RunResultStreaming,
    ToolContext,
    Usage,
    UserError,
    tool,
)
from millstream.events import TERMINAL_TYPES, CancelMode, Entry, ToolFinished, ToolStarted
from millstream.run import tools as tools_module
from millstream.testing import ManualClock, ModelStep, ScriptedModel, function_call


def agent(name: str, *steps: Any, tools: list[Any] | None = None, **options: Any) -> Agent[Any]:
    return Agent(name=name, model=ScriptedModel(list(steps)), tools=tools or [], **options)


def asking(name: str, *tools: Any, **options: Any) -> Agent[Any]:
    """An agent whose model calls each of `tools` once, in one turn, and then says that it is done."""
    calls = [function_call(each.name, {"input": "Please."}, call_id=f"{name}/{each.name}") for each in tools]
    return agent(name, calls, "Done.", tools=list(tools), **options)


def helper(*steps: Any, name: str = "Helper", **options: Any) -> Agent[Any]:
    return agent(name, *(steps or ("Helped.",)), **options)


async def entries_of(run: RunResultStreaming, **wanted: Any) -> list[Entry]:
    return [entry async for entry in run.entries(**wanted)]


def output(run: Any) -> Any:
    return next(item.output for item in run.new_items if item.type == "tool_call_output_item")


def ends(entries: list[Entry]) -> list[tuple[str, int, str]]:
    """The terminal entries in order: agent, depth, and how it ended."""
    return [
        (entry.agent, entry.depth, entry.type.removeprefix("run."))
        for entry in entries
        if entry.type in TERMINAL_TYPES
    ]


@tool
async def waits() -> str:
    """Wait for ever."""
    await asyncio.Event().wait()
    return "never"


# --- in the log of the root ----------------------------------------------------------------------


async def test_a_nested_run_stands_in_its_roots_log_within_the_call_that_it_answers() -> None:
    run = Runner.run_streamed(asking("A", helper().as_tool("help", "Helps.")), "Go")
    entries = await entries_of(run)

    nested = [entry for entry in entries if entry.depth == 1]
    ((run_id, parent, path, name),) = {(e.run_id, e.parent_run_id, e.path, e.agent) for e in nested}
    started, finished = (
        next(e.position for e in entries if isinstance(e.event, kind)) for kind in (ToolStarted, ToolFinished)
    )
    assert run_id != run.run_id
    assert (parent, path, name) == (run.run_id, ("A/help",), "Helper")
    assert (nested[0].type, nested[-1].type) == ("run.started", "run.completed")
    assert started < nested[0].position
    assert nested[-1].position < finished
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    assert ends(entries) == [("Helper", 1, "completed"), ("A", 0, "completed")]


async def test_runs_nest_as_deep_as_agents_call_each_other() -> None:
    innermost = helper().as_tool("innermost", "")
    middle = asking("Middle", innermost).as_tool("middle", "")

    run = Runner.run_streamed(asking("A", middle), "Go")
    entries = await entries_of(run)

    assert {entry.path for entry in entries} == {(), ("A/middle",), ("A/middle", "Middle/innermost")}
    assert ends(entries) == [("Helper", 2, "completed"), ("Middle", 1, "completed"), ("A", 0, "completed")]


async def test_agents_called_together_run_together_each_in_a_run_of_its_own() -> None:
    both = asyncio.Barrier(2)

    @tool
    async def meets() -> str:
        await both.wait()
        return "met"

    def one(name: str) -> Any:
        call = function_call("meets", call_id=f"{name}/meets")
        return agent(name, [call], name, tools=[meets]).as_tool(name.lower(), "")

    run = Runner.run_streamed(asking("A", one("One"), one("Two")), "Go")
    entries = await entries_of(run)

    assert {entry.path for entry in entries if entry.depth} == {("A/one",), ("A/two",)}
    outputs = [item.output for item in run.new_items if item.type == "tool_call_output_item"]
    assert outputs == ["One", "Two"]


async def test_events_and_text_of_the_handle_stay_with_the_root() -> None:
    run = Runner.run_streamed(asking("A", helper("Secret.").as_tool("help", "")), "Go")

    text = "".join([piece async for piece in run.text()])
    agents = [e.new_agent.name async for e in run if isinstance(e, AgentUpdatedStreamEvent)]
    calls = [piece.tool_name async for piece in run.tool_arguments() if piece.state == "done"]

    assert text == "Done."
    assert agents == ["A"]
    assert calls == ["help"]


async def test_a_nested_model_is_asked_for_a_stream_where_that_of_its_root_is() -> None:
    inner = helper("One.", "Two.")
    model: Any = inner.model
    root = asking("A", inner.as_tool("help", ""))

    run = Runner.run_streamed(root, "Go")
    deltas = await entries_of(run, types=["response.output_text.delta"])
    await Runner.run(root.clone(model=asking("A", *root.tools).model), "Go")

    assert {entry.depth for entry in deltas} == {0, 1}
    assert [call.streamed for call in model.calls] == [True, False]


@pytest.mark.parametrize(
    ("wanted", "depths"),
    [({}, {0, 1, 2}), ({"depth": 0}, {0}), ({"depth": 1}, {0, 1}), ({"types": ["run.started"]}, {0, 1, 2})],
)
async def test_a_reader_may_ask_for_some_depths_and_types_and_positions_stay_what_they_are(
    wanted: dict[str, Any], depths: set[int]
) -> None:
    middle = asking("Middle", helper().as_tool("innermost", "")).as_tool("middle", "")
    run = Runner.run_streamed(asking("A", middle), "Go")

    every = await entries_of(run)
    some = await entries_of(run, **wanted)

    assert {entry.depth for entry in some} == depths
    by_position = {entry.position: entry for entry in every}
    assert all(by_position[entry.position].to_json() == entry.to_json() for entry in some)
    assert len(some) == 3 or "types" not in wanted


def test_a_stream_for_a_plain_for_gives_the_same_parts() -> None:
    root = asking("A", helper().as_tool("help", ""))

    with Runner.run_streamed_sync(root, "Go") as run:
        nested = {entry.depth for entry in run.entries(depth=1, types=["run.completed"])}
        calls = [piece.call_id for piece in run.tool_arguments() if piece.state == "done"]

    assert nested == {0, 1}
    assert calls == ["A/help"]


# --- usage, context, configuration ------------------------------------------------------------------


async def test_each_end_tells_the_usage_of_its_own_part_of_the_tree() -> None:
    def used(tokens: int, *output: Any) -> ModelStep:
        return ModelStep(list(output), Usage(requests=1, input_tokens=tokens, total_tokens=tokens))

    def calls(name: str) -> Any:
        return function_call(name, {"input": "x"}, call_id=name)

    seen: list[int] = []

    async def extract(result: Any) -> str:
        seen.append(result.context_wrapper.usage.total_tokens)
        return "x"

    innermost = agent("C", used(1, "c")).as_tool("c", "", custom_output_extractor=extract)
    middle = agent("B", used(10, calls("c")), used(20, "b"), tools=[innermost]).as_tool("b", "")
    root = agent("A", used(100, calls("b")), used(200, "a"), tools=[middle])

    run = Runner.run_streamed(root, "Go")
    entries = await entries_of(run, types=["run.completed"])

    told = {entry.agent: entry.event.usage for entry in entries}  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    assert {name: usage["total_tokens"] for name, usage in told.items()} == {"C": 1, "B": 31, "A": 331}
    assert {name: usage["requests"] for name, usage in told.items()} == {"C": 1, "B": 3, "A": 5}
    assert run.context_wrapper.usage.total_tokens == 331
    assert seen == [111]  # what had been used in the whole tree by then, as in the SDK


async def test_a_run_that_is_nested_goes_by_the_clock_and_the_provider_of_its_root() -> None:
    clock, asked = ManualClock(), []

    class Provider(ModelProvider):
        def get_model(self, model_name: str | None) -> Any:
            asked.append(model_name)
            return ScriptedModel(["Helped."])

    inner: Agent[Any] = Agent(name="Helper", model="some-model")
    tool_of_it = inner.as_tool("help", "", run_config={"workflow_name": "Help"})
    config = RunConfig(clock=clock, model_provider=Provider())

    run = Runner.run_streamed(asking("A", tool_of_it), "Go", run_config=config)
    entries = await entries_of(run)

    assert set(asked) == {"some-model"}
    assert {entry.time for entry in entries} == {clock.time()}


async def test_a_model_writes_an_object_and_the_agents_tools_see_it() -> None:
    from pydantic import BaseModel, Field

    class Trip(BaseModel):
        """A trip."""

        city: str = Field(description="Where to.")

    seen: list[Any] = []

    @tool
    def look(ctx: ToolContext[Any]) -> str:
        seen.append((ctx.tool_input, ctx.tool_call_id))
        return "seen"

    inner = helper([function_call("look", call_id="inner")], "Helped.", tools=[look])
    trip = inner.as_tool("trip", "", parameters=Trip)
    root = agent("A", [function_call("trip", {"city": "Oslo"}, call_id="outer")], "Done.", tools=[trip])
    model: Any = inner.model

    await Runner.run(root, "Go")

    (message,) = model.first_call.input
    assert '"city": "Oslo"' in message["content"]
    assert "- city (string, required) - Where to." in message["content"]
    assert seen == [({"city": "Oslo"}, "inner")]


@pytest.mark.parametrize(
    ("steps", "given"),
    [
        ([""], ""),
        ([["I look.", function_call("look", call_id="look")], ""], "seen"),
        ([[function_call("silent", call_id="silent")], ""], ""),
        ([["I look.", function_call("silent", call_id="silent")], ""], "I look."),
    ],
)
async def test_an_agent_that_gives_back_nothing_has_its_last_words_taken(
    steps: list[Any], given: str
) -> None:
    @tool
    async def look() -> str:
        return "seen"

    @tool
    async def silent() -> list[str]:
        return []

    result = await Runner.run(asking("A", helper(*steps, tools=[look, silent]).as_tool("help", "")), "Go")

    assert output(result) == given


# --- failure ------------------------------------------------------------------------------------------


async def test_a_nested_run_that_fails_says_so_in_the_log_and_the_caller_is_told() -> None:
    failing = helper(ConnectionError("The model is down.")).as_tool("help", "")

    run = Runner.run_streamed(asking("A", failing), "Go")
    entries = await entries_of(run)

    assert ends(entries) == [("Helper", 1, "failed"), ("A", 0, "completed")]
    assert output(run) == "An error occurred while running the tool. Please try again."


async def test_a_nested_run_that_fails_may_end_the_run_it_is_nested_in() -> None:
    failing = helper(ConnectionError("The model is down.")).as_tool("help", "", failure_error_function=None)

    run = Runner.run_streamed(asking("A", failing), "Go")
    entries = await entries_of(run)

    assert ends(entries) == [("Helper", 1, "failed"), ("A", 0, "failed")]
    with pytest.raises(UserError, match="Error running tool help: The model is down"):
        await run


async def test_a_failure_that_the_caller_was_told_of_is_not_logged_as_unseen(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def listen(_: AgentToolStreamEvent) -> None:
        pass

    for on_stream in (None, listen):
        failing = helper(ConnectionError("Down.")).as_tool("help", "", on_stream=on_stream)
        await Runner.run(asking("A", failing), "Go")

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_an_agent_that_cannot_run_fails_its_call_before_it_begins() -> None:
    inner = helper(tools=[waits, waits])

    run = Runner.run_streamed(asking("A", inner.as_tool("help", "")), "Go")
    entries = await entries_of(run)

    assert ends(entries) == [("A", 0, "completed")]
    assert output(run).startswith("An error occurred")


# --- cancellation ---------------------------------------------------------------------------------------


def deep(levels: int, *tools: Any) -> Agent[Any]:
    """Agents nested in each other, the innermost of which calls `tools`."""
    current = asking(f"Level {levels}", *tools)
    for level in reversed(range(levels)):
        current = asking(f"Level {level}", current.as_tool(f"level_{level + 1}", ""))
    return current


async def reaches(run: RunResultStreaming, name: str) -> None:
    """Return when a tool of that name has begun."""
    async with contextlib.aclosing(run.entries(types=["tool.started"])) as entries:  # type: ignore[type-var]
        async for entry in entries:
            if entry.event.name == name:  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
                return


async def test_a_cancelled_run_stops_those_nested_in_it_and_each_ends_before_its_parent() -> None:
    run = Runner.run_streamed(deep(3, waits), "Go")
    await reaches(run, "waits")
    run.cancel()
    entries = await entries_of(run)

    assert ends(entries) == [(f"Level {level}", level, "cancelled") for level in (3, 2, 1, 0)]


@pytest.mark.parametrize("mode", ["after_tool", "after_turn"])
async def test_a_nested_run_ends_by_itself_where_running_tools_do(mode: CancelMode) -> None:
    go_on = asyncio.Event()

    @tool
    async def works() -> str:
        await go_on.wait()
        return "worked"

    run = Runner.run_streamed(deep(2, works), "Go")
    await reaches(run, "works")
    run.cancel(mode)
    go_on.set()
    entries = await entries_of(run)

    assert ends(entries) == [
        ("Level 2", 2, "completed"),
        ("Level 1", 1, "completed"),
        ("Level 0", 0, "cancelled"),
    ]


async def test_a_cancellation_can_be_made_to_reach_nested_runs_later() -> None:
    run = Runner.run_streamed(deep(1, waits), "Go")
    await reaches(run, "waits")
    run.cancel("after_tool")
    run.cancel("now")

    assert ends(await entries_of(run)) == [("Level 1", 1, "cancelled"), ("Level 0", 0, "cancelled")]


async def test_a_task_that_is_cancelled_in_the_run_stops_the_nested_ones() -> None:
    log, begun = MemoryLog(), asyncio.Event()

    @tool
    async def begins() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    task = asyncio.create_task(Runner.run(deep(2, begins), "Go", run_config=RunConfig(log=log)))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    ((run_id, _),) = log._runs.items()
    assert [depth for _, depth, _ in ends([entry async for entry in log.follow(run_id)])] == [2, 1, 0]


async def test_the_failure_of_one_tool_stops_an_agent_beside_it() -> None:
    begun = asyncio.Event()

    @tool
    async def begins() -> str:
        begun.set()
        await asyncio.Event().wait()
        return "never"

    @tool(failure_error_function=None)
    async def fails(input: str) -> str:
        await begun.wait()
        raise ValueError("It failed.")

    run = Runner.run_streamed(asking("A", asking("Helper", begins).as_tool("help", ""), fails), "Go")

    assert ends(await entries_of(run)) == [("Helper", 1, "cancelled"), ("A", 0, "failed")]


async def test_a_nested_tool_that_will_not_stop_is_waited_for_by_its_own_run_first(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, go_on = ManualClock(), asyncio.Event()

    @tool
    async def stubborn() -> str:
        while not go_on.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await go_on.wait()
        return "at last"

    run = Runner.run_streamed(deep(2, stubborn), "Go", run_config=RunConfig(clock=clock))
    await reaches(run, "stubborn")
    run.cancel()
    await clock.waiting(3)
    clock.advance(tools_module.GRACE)
    entries = await entries_of(run)
    go_on.set()

    assert ends(entries) == [(f"Level {level}", level, "cancelled") for level in (2, 1, 0)]
    assert caplog.text.count("left behind") == 1


def test_a_loop_that_shuts_down_ends_nested_runs_before_their_parents() -> None:
    log = MemoryLog()

    async def main() -> None:
        run = Runner.run_streamed(deep(2, waits), "Go", run_config=RunConfig(log=log))
        await reaches(run, "waits")

    async def read() -> list[Entry]:
        ((run_id, _),) = log._runs.items()
        return [entry async for entry in log.follow(run_id)]

    asyncio.run(main())

    assert [depth for _, depth, _ in ends(asyncio.run(read()))] == [2, 1, 0]


async def test_an_agent_is_not_run_for_a_call_that_is_over() -> None:
    inner = helper().as_tool("help", "")
    late: list[ToolContext[Any]] = []

    @tool
    async def keeps(ctx: ToolContext[Any]) -> str:
        late.append(ctx)
        return "kept"

    run = Runner.run_streamed(agent("A", [function_call("keeps", call_id="1")], "Done.", tools=[keeps]), "Go")
    await run
    by_hand = helper().as_tool("help", "", failure_error_function=None)

    assert (await inner.on_invoke_tool(late[0], '{"input": "x"}')).startswith("An error occurred")
    with pytest.raises(UserError, match="while the call '1' did not run"):
        await by_hand.on_invoke_tool(late[0], '{"input": "x"}')
    assert ends(await entries_of(run)) == [("A", 0, "completed")]


@pytest.mark.parametrize(
    "context", [ToolContext(None, Usage(), "help", "1", '{"input": "x"}'), RunContextWrapper(None)]
)
async def test_a_context_that_was_built_by_hand_gives_a_run_of_its_own(context: Any) -> None:
    tool_of_it = helper("Helped.", "Helped.").as_tool("help", "", run_config={"workflow_name": "Help"})

    assert await tool_of_it.on_invoke_tool(context, '{"input": "x"}') == "Helped."
    assert context.usage.requests == 1


# --- on_stream --------------------------------------------------------------------------------------------


def heard() -> tuple[list[tuple[str, str, str]], Callable[[AgentToolStreamEvent], None]]:
    """What a listener was told: type, acting agent, and call; and that listener."""
    told: list[tuple[str, str, str]] = []

    def on_stream(payload: AgentToolStreamEvent) -> None:
        call = payload["tool_call"]
        told.append((payload["event"].type, payload["agent"].name, call.call_id if call else ""))

    return told, on_stream


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_listener_gets_the_events_of_the_nested_run_in_the_order_of_stream_events(
    streamed: bool,
) -> None:
    told, on_stream = heard()
    root = asking("A", helper().as_tool("help", "", on_stream=on_stream))

    if streamed:
        await Runner.run_streamed(root, "Go")
    else:
        await Runner.run(root, "Go")

    expected = [event.type async for event in Runner.run_streamed(helper(), "Please.")]
    assert [each for each, _, _ in told] == expected
    assert {(name, call) for _, name, call in told} == {("Helper", "A/help")}


async def test_a_listener_that_raises_is_logged_once_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def on_stream(_: AgentToolStreamEvent) -> None:
        raise ValueError("not today")

    result = await Runner.run(asking("A", helper().as_tool("help", "", on_stream=on_stream)), "Go")

    assert output(result) == "Helped."
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(errors) == 1
    assert "on_stream of the tool that runs 'Helper'" in errors[0].getMessage()


async def test_the_next_nested_turn_waits_until_a_slow_listener_has_taken_this_one() -> None:
    @tool
    async def look() -> str:
        return "seen"

    inner = helper([function_call("look", call_id="look")], "Helped.", tools=[look])
    model: Any = inner.model
    asked: list[tuple[int, str]] = []

    async def on_stream(payload: AgentToolStreamEvent) -> None:
        for _ in range(10):
            await asyncio.sleep(0)
        event = payload["event"]
        asked.append((len(model.calls), getattr(event, "name", "")))

    tool_of_it = inner.as_tool("help", "", on_stream=on_stream, on_stream_max_pending_events=1)
    result = await Runner.run(asking("A", tool_of_it), "Go")

    assert output(result) == "Helped."
    assert [calls for calls, name in asked if name == "tool_output"] == [1]


async def test_a_run_that_is_cancelled_stops_the_listener_too() -> None:
    stopped = asyncio.Event()

    async def on_stream(_: AgentToolStreamEvent) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.set()

    @tool
    async def begins() -> str:
        run.cancel()
        await asyncio.Event().wait()
        return "never"

    inner = asking("Helper", begins).as_tool("help", "", on_stream=on_stream)
    run = Runner.run_streamed(asking("A", inner), "Go")
    entries = await entries_of(run)

    assert ends(entries) == [("Helper", 1, "cancelled"), ("A", 0, "cancelled")]
    assert stopped.is_set()


async def test_the_result_of_a_run_that_was_listened_to_is_a_handle_on_that_run_alone() -> None:
    told: list[Any] = []

    async def extract(result: RunResultStreaming) -> str:
        told.append([entry.depth async for entry in result.entries()])
        told.append("".join([piece async for piece in result.text()]))
        told.append((result.final_output, result.is_complete, result.agent_tool_invocation))
        return "extracted"

    _, on_stream = heard()
    tool_of_it = helper().as_tool("help", "", on_stream=on_stream, custom_output_extractor=extract)
    result = await Runner.run(asking("A", tool_of_it), "Go")

    depths, text, (final, complete, call) = told
    assert set(depths) == {1}
    assert (text, final, complete) == ("Helped.", "Helped.", True)
    assert (call.tool_name, call.tool_call_id) == ("help", "A/help")
    assert output(result) == "extracted"


# --- readers ------------------------------------------------------------------------------------------------


async def test_nested_runs_side_by_side_wait_for_the_readers_of_their_root() -> None:
    async def take_all() -> AsyncIterator[Any]:
        async for event in run.stream_events():
            await asyncio.sleep(0)
            yield event

    long = " ".join(["word"] * 200)
    tools = [helper(long, name=name).as_tool(name.lower(), "") for name in ("One", "Two", "Three")]
    run = Runner.run_streamed(asking("A", *tools), "Go", run_config=RunConfig(ahead=200))

    events = [event async for event in take_all()]

    assert run.final_output == "Done."
    assert events[-1].type == "run_item_stream_event"


async def test_a_nested_run_has_a_result_that_its_call_carries() -> None:
    seen: list[Any] = []

    def decide(_: Any, results: list[Any]) -> Any:
        from millstream import ToolsToFinalOutputResult

        seen.extend(results)
        return ToolsToFinalOutputResult(is_final_output=False)

    await Runner.run(asking("A", helper().as_tool("help", ""), tool_use_behavior=decide), "Go")

    (result,) = seen
    assert result.agent_run_result.final_output == "Helped."
    assert result.interruptions == []


async def test_a_nested_run_that_cancels_itself_fails_its_call() -> None:
    @tool
    async def gives_up(ctx: ToolContext[Any]) -> str:
        ctx._link.run.cancel("now")  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
        await asyncio.Event().wait()
        return "never"

    told: list[Exception] = []

    def tell(_: Any, error: Exception) -> str:
        told.append(error)
        return "It gave up."

    inner = asking("Helper", gives_up).as_tool("help", "", failure_error_function=tell)
    run = Runner.run_streamed(asking("A", inner), "Go")

    assert ends(await entries_of(run)) == [("Helper", 1, "cancelled"), ("A", 0, "completed")]
    assert isinstance(told[0], RunCancelledError)


@pytest.mark.parametrize("streamed", [True, False])
async def test_agents_that_ask_each_other_without_end_come_to_one(streamed: bool) -> None:
    step = [function_call("again", {"input": "Please."}, call_id="c")]
    endless = Agent(name="Endless", model=ScriptedModel([step] * 200))
    endless.tools = [endless.as_tool("again", "Ask again.")]
    run = Runner.run_streamed(endless, "Hi") if streamed else Runner.run(endless, "Hi")

    with pytest.raises(UserError, match=r"'Endless' would run nested 101 deep, and 100 is the most"):
        await run
