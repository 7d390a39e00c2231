"""Hooks in a run: when they are called, what they may do, and what becomes of a run whose hook goes wrong."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from millstream import (
    Agent,
    AgentHookContext,
    AgentHooks,
    RunConfig,
    RunContextWrapper,
    RunHooks,
    Runner,
    RunResultStreaming,
    ToolContext,
    ToolExecutionConfig,
    tool,
)
from millstream.errors import UserError
from millstream.events import Entry
from millstream.testing import ScriptedModel, function_call

RUN_HOOKS = [name for name in vars(RunHooks) if name.startswith("on_")]
AGENT_HOOKS = [name for name in vars(AgentHooks) if name.startswith("on_")]

Called = Callable[[str, tuple[Any, ...]], Any]


def hooks(base: type[Any], called: Called) -> Any:
    """Hooks of that class, which tell of every call: `called` may be a coroutine function."""

    def telling(name: str) -> Any:
        async def hook(self: Any, *args: Any, **named: Any) -> None:
            answer = called(name, (*args, *named.values()))
            if answer is not None:
                await answer

        return hook

    names = RUN_HOOKS if base is RunHooks else AGENT_HOOKS
    return type(base.__name__, (base,), {name: telling(name) for name in names})()


@tool
async def echo(text: str = "x") -> str:
    return text


def team(run: Called | None = None, agents: Called | None = None) -> tuple[Agent[Any], dict[str, Any]]:
    """An agent that calls a tool and hands over, and the arguments that give a run hooks."""

    def of(agent: str) -> Any:
        return None if agents is None else hooks(AgentHooks, agents)

    second = Agent(name="B", model=ScriptedModel(["B here."]), hooks=of("B"))
    steps: list[Any] = [[function_call("echo", {})], [function_call("transfer_to_b", {})]]
    first = Agent(name="A", model=ScriptedModel(steps), tools=[echo], handoffs=[second], hooks=of("A"))
    return first, {} if run is None else {"hooks": hooks(RunHooks, run)}


async def entries_of(run: RunResultStreaming) -> list[Entry]:
    return [entry async for entry in run.entries()]


IN_ORDER = [
    "run on_agent_start", "agent on_start",
    "run on_llm_start", "agent on_llm_start", "agent on_llm_end", "run on_llm_end",
    "run on_tool_start", "agent on_tool_start", "run on_tool_end", "agent on_tool_end",
    "run on_llm_start", "agent on_llm_start", "agent on_llm_end", "run on_llm_end",
    "run on_handoff", "agent on_handoff",
    "run on_agent_start", "agent on_start",
    "run on_llm_start", "agent on_llm_start", "agent on_llm_end", "run on_llm_end",
    "run on_agent_end", "agent on_end",
]  # fmt: skip


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_all_hooks_are_called_in_the_same_order_streamed_and_plain(streamed: bool) -> None:
    called: list[str] = []
    agent, options = team(
        lambda name, _: called.append(f"run {name}"), lambda name, _: called.append(f"agent {name}")
    )

    await (Runner.run_streamed(agent, "hi", **options) if streamed else Runner.run(agent, "hi", **options))

    assert called == IN_ORDER


async def test_hooks_are_given_contexts_of_the_run() -> None:
    seen: dict[str, Any] = {}
    agent, options = team(lambda name, args: seen.setdefault(name, args[0]) and None)

    result = await Runner.run(agent, "hi", context="mine", **options)

    assert isinstance(seen["on_agent_start"], AgentHookContext)
    assert isinstance(seen["on_agent_end"], AgentHookContext)
    assert isinstance(seen["on_tool_start"], ToolContext)
    assert seen["on_tool_start"].tool_name == "echo"
    assert seen["on_llm_start"] is seen["on_handoff"] is result.context_wrapper
    assert {context.context for context in seen.values()} == {"mine"}
    assert all(context.usage is result.context_wrapper.usage for context in seen.values())


async def test_a_hook_on_an_agents_start_knows_the_input() -> None:
    seen: list[Any] = []

    class Watching(RunHooks[Any]):
        async def on_agent_start(self, context: AgentHookContext[Any], agent: Agent[Any]) -> None:
            seen.append(list(context.turn_input))

    await Runner.run(Agent(name="A", model=ScriptedModel(["ok"])), "hi", hooks=Watching())

    assert seen == [[{"role": "user", "content": "hi"}]]


async def test_what_a_hook_adds_to_the_models_input_the_model_is_given() -> None:
    class Adding(RunHooks[Any]):
        async def on_llm_start(
            self, context: Any, agent: Any, system_prompt: str | None, input_items: list[Any]
        ) -> None:
            input_items.append({"role": "user", "content": "by the way"})

    model = ScriptedModel(["ok"])
    result = await Runner.run(Agent(name="A", model=model), "hi", hooks=Adding())

    assert [item["content"] for item in model.calls[0].input] == ["hi", "by the way"]
    assert result.input == "hi"


async def test_hooks_may_be_plain_functions() -> None:
    called: list[str] = []

    class Plain(RunHooks[Any]):
        def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:  # type: ignore[override]
            called.append("on_llm_end")

    await Runner.run(Agent(name="A", model=ScriptedModel(["ok"])), "hi", hooks=Plain())

    assert called == ["on_llm_end"]


async def test_what_a_hook_sets_in_a_context_variable_is_seen_in_tools() -> None:
    number: ContextVar[int] = ContextVar("number", default=0)
    seen: list[int] = []

    class Setting(RunHooks[Any]):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            number.set(7)

    @tool
    async def look() -> str:
        seen.append(number.get())
        return "seen"

    model = ScriptedModel([[function_call("look", {})], "ok"])
    await Runner.run(Agent(name="A", model=model, tools=[look]), "hi", hooks=Setting())

    assert (seen, number.get()) == ([7], 0)


async def test_hooks_see_the_tool_start_behind_its_event_and_end_before_its_output() -> None:
    by_then: dict[str, list[str]] = {}

    async def called(name: str, _: Any) -> None:
        if name in ("on_tool_start", "on_tool_end"):
            by_then[name] = [entry.type async for entry in _so_far(run)]

    agent, options = team(called)
    run = Runner.run_streamed(agent, "hi", **options)
    await run

    assert by_then["on_tool_start"][-1] == by_then["on_tool_end"][-1] == "tool.started"


async def _so_far(run: RunResultStreaming) -> AsyncIterator[Entry]:
    last = run._run.position
    async for entry in run.entries():
        yield entry
        if entry.position == last:
            return


# --- what goes wrong -------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize(
    ("who", "name"), [("run", name) for name in RUN_HOOKS] + [("agent", name) for name in AGENT_HOOKS]
)
async def test_what_a_hook_raises_ends_the_run_and_says_whose_it_was(
    who: str, name: str, streamed: bool
) -> None:
    def breaks(called: str, _: Any) -> None:
        if called == name:
            raise LookupError("nothing there")

    agent, options = team(**{"run" if who == "run" else "agents": breaks})

    with pytest.raises(LookupError, match="nothing there") as caught:
        await (
            Runner.run_streamed(agent, "hi", **options) if streamed else Runner.run(agent, "hi", **options)
        )

    of = "RunHooks" if who == "run" else "AgentHooks"
    assert caught.value.__notes__ == [f"Raised by the hook {of}.{name}."]
    assert caught.value.run_data is not None  # type: ignore[attr-defined]


async def test_what_ends_iterators_is_an_error_to_readers_where_a_hook_raises_it() -> None:
    class Takes(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            raise StopAsyncIteration

    run = Runner.run_streamed(Agent(name="A", model=ScriptedModel(["ok"])), "hi", hooks=Takes())

    with pytest.raises(RuntimeError, match="raised StopAsyncIteration"):
        async for _ in run.stream_events():
            pass


@pytest.mark.parametrize("name", ["on_tool_start", "on_tool_end"])
async def test_after_a_hook_on_a_tool_raised_the_history_is_one_to_go_on_with(name: str) -> None:
    def breaks(called: str, _: Any) -> None:
        if called == name:
            raise LookupError("nothing there")

    agent, options = team(breaks)
    run = Runner.run_streamed(agent, "hi", **options)
    entries = await entries_of(run)

    outputs = [item.output for item in run.new_items if item.type == "tool_call_output_item"]
    assert outputs == [{"on_tool_start": "The tool failed.", "on_tool_end": "x"}[name]]
    ends = [entry.event.status for entry in entries if entry.type == "tool.finished"]  # type: ignore[union-attr]
    assert ends == [{"on_tool_start": "error", "on_tool_end": "ok"}[name]]


@pytest.mark.parametrize("name", RUN_HOOKS)
async def test_a_run_whose_hook_hangs_can_be_cancelled(name: str) -> None:
    hanging = asyncio.Event()

    async def hangs(called: str, _: Any) -> None:
        if called == name:
            hanging.set()
            await asyncio.Event().wait()

    agent, options = team(hangs)
    run = Runner.run_streamed(agent, "hi", **options)
    await hanging.wait()
    run.cancel()

    assert (await entries_of(run))[-1].type == "run.cancelled"
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_tool_that_has_run_keeps_its_output_where_a_hook_behind_it_is_cancelled() -> None:
    hanging = asyncio.Event()

    async def hangs(called: str, _: Any) -> None:
        if called == "on_tool_end":
            hanging.set()
            await asyncio.Event().wait()

    agent, options = team(hangs)
    run = Runner.run_streamed(agent, "hi", **options)
    await hanging.wait()
    run.cancel()
    await entries_of(run)

    assert [item.output for item in run.new_items if item.type == "tool_call_output_item"] == ["x"]


async def test_behind_a_tool_that_failed_none_begins_that_waited_for_its_turn() -> None:
    ran: list[str] = []

    @tool(failure_error_function=None)
    async def fails() -> str:
        raise ValueError("no")

    @tool
    async def waits() -> str:
        ran.append("waits")
        return "done"

    calls = [function_call("fails", {}, call_id="c1"), function_call("waits", {}, call_id="c2")]
    agent = Agent(name="A", model=ScriptedModel([calls]), tools=[fails, waits])
    config = RunConfig(tool_execution=ToolExecutionConfig(max_function_tool_concurrency=1))

    with pytest.raises(UserError, match="Error running tool fails"):
        await Runner.run(agent, "hi", run_config=config)

    assert ran == []


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (AgentHooks(), "these are hooks of an agent"),
        (3, "not int"),
        (RunHooks, "not type"),
    ],
)
async def test_what_is_no_hooks_of_a_run_is_refused_before_it_begins(given: Any, says: str) -> None:
    model = ScriptedModel(["ok"])

    with pytest.raises(UserError, match=says):
        Runner.run_streamed(Agent(name="A", model=model), "hi", hooks=given)

    assert not model.calls


# --- whatever the agents do ------------------------------------------------------------------

SAID = ["text", "echo", "two", "fails", "transfer"]


def script(said: list[str]) -> list[Any]:
    steps: dict[str, Any] = {
        "text": "Hello.",
        "echo": [function_call("echo", {"text": "y"})],
        "two": [function_call("echo", {}, call_id="c1"), function_call("echo", {}, call_id="c2")],
        "fails": [function_call("fails", {})],
        "transfer": [function_call("transfer_to_b", {})],
    }
    return [steps[each] for each in said]


@given(said=st.lists(st.sampled_from(SAID), max_size=4), then=st.lists(st.sampled_from(SAID[:4]), max_size=2))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hooks_are_told_the_same_of_a_streamed_run_and_of_a_plain_one(
    said: list[str], then: list[str]
) -> None:
    @tool
    async def fails() -> str:
        raise ValueError("no")

    def told(streamed: bool) -> list[Any]:
        notes: list[Any] = []

        def called(name: str, args: tuple[Any, ...]) -> None:
            notes.append([name, *map(_told, args)])

        tools: list[Any] = [echo, fails]
        agent_hooks = hooks(AgentHooks, called)
        second = Agent(name="B", model=ScriptedModel([*script(then), "B."]), tools=tools, hooks=agent_hooks)
        first = Agent(
            name="A",
            model=ScriptedModel([*script(said), "A."]),
            tools=tools,
            handoffs=[second],
            hooks=agent_hooks,
        )

        async def run() -> None:
            config = RunConfig(tool_execution=ToolExecutionConfig(max_function_tool_concurrency=1))
            options: dict[str, Any] = {"hooks": hooks(RunHooks, called), "run_config": config}
            if streamed:
                await Runner.run_streamed(first, "hi", **options)
            else:
                await Runner.run(first, "hi", **options)

        asyncio.run(run())
        return notes

    assert told(streamed=True) == told(streamed=False)


def _told(value: Any) -> Any:
    if isinstance(value, RunContextWrapper):
        call = value.tool_call_id if isinstance(value, ToolContext) else None
        return [type(value).__name__, list(value.turn_input), value.usage.requests, call]
    if hasattr(value, "output") and hasattr(value, "usage"):
        return [getattr(item, "type", None) for item in value.output]
    return getattr(value, "name", value)
