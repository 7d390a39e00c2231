"""The tools of a turn: side by side, every call answered, whatever the tools do."""

import asyncio
import contextvars
import logging
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, FunctionTool, RunConfig, Runner, ToolContext, ToolExecutionConfig, tool
from millstream.errors import ModelBehaviorError, RunCancelledError, ToolTimeoutError, UserError
from millstream.events import Entry, RunItemStreamEvent, ToolFinished, ToolStarted
from millstream.run import tools as tools_module
from millstream.testing import ManualClock, ScriptedModel, function_call


def agent(*calls: Any, tools: list[Any], then: str = "done", **options: Any) -> Agent[Any]:
    """An agent whose model makes these calls, and then says it is done."""
    return Agent(name="A", model=ScriptedModel([list(calls), then]), tools=tools, **options)


def call(name: str, call_id: str = "c1", **arguments: Any) -> Any:
    return function_call(name, arguments, call_id=call_id)


async def entries_of(run: Any) -> list[Entry]:
    return [entry async for entry in run.entries()]


def finished(entries: list[Entry]) -> list[tuple[str, str, str | None]]:
    """Call id, status and code of each tool's end."""
    return [
        (e.event.call_id, e.event.status, e.event.code) for e in entries if isinstance(e.event, ToolFinished)
    ]


def outputs(items: list[Any]) -> list[tuple[str, Any]]:
    return [(item.call_id, item.output) for item in items if item.type == "tool_call_output_item"]


def each_start_has_its_end(entries: list[Entry]) -> bool:
    begun = [e.event.call_id for e in entries if isinstance(e.event, ToolStarted)]
    ended = [e.event.call_id for e in entries if isinstance(e.event, ToolFinished)]
    return sorted(begun) == sorted(ended)


@tool
async def echo(text: str) -> str:
    return text


async def test_tools_run_side_by_side_and_the_history_has_them_in_the_order_of_the_calls() -> None:
    second_ran = asyncio.Event()

    @tool
    async def first() -> str:
        await second_ran.wait()
        return "1"

    @tool
    async def second() -> str:
        second_ran.set()
        return "2"

    run = Runner.run_streamed(agent(call("first", "c1"), call("second", "c2"), tools=[first, second]), "hi")
    entries = await entries_of(run)

    in_the_log = [
        e.event.item.call_id  # pyright: ignore[reportAttributeAccessIssue]
        for e in entries
        if isinstance(e.event, RunItemStreamEvent) and e.event.name == "tool_output"
    ]
    assert in_the_log == ["c2", "c1"]
    assert outputs(run.new_items) == [("c1", "1"), ("c2", "2")]
    assert each_start_has_its_end(entries)


async def test_no_more_tools_run_at_once_than_the_limit_allows() -> None:
    running = most = 0

    @tool
    async def work() -> str:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return "ok"

    calls = [call("work", f"c{n}") for n in range(5)]
    config = RunConfig(tool_execution=ToolExecutionConfig(max_function_tool_concurrency=2))
    result = await Runner.run(agent(*calls, tools=[work]), "hi", run_config=config)

    assert most == 2
    assert outputs(result.new_items) == [(f"c{n}", "ok") for n in range(5)]


async def test_calls_under_one_id_are_each_run_and_answered() -> None:
    run = Runner.run_streamed(
        agent(call("echo", "c", text="1"), call("echo", "c", text="2"), tools=[echo]), "hi"
    )
    entries = await entries_of(run)

    assert outputs(run.new_items) == [("c", "1"), ("c", "2")]
    assert finished(entries) == [("c", "ok", None), ("c", "ok", None)]
    assert run.final_output == "done"


async def test_every_call_of_a_run_has_an_idempotency_key_of_its_own() -> None:
    keys: list[str] = []

    @tool
    async def note(ctx: ToolContext[Any]) -> str:
        keys.append(ctx.idempotency_key)
        return "ok"

    # A server that counts call ids anew in each response, and uses one twice.
    model = ScriptedModel([[call("note", "c0"), call("note", "c0")], [call("note", "c0")], "done"])
    await Runner.run(Agent(name="A", model=model, tools=[note]), "hi")

    assert len(set(keys)) == 3


async def test_the_log_says_before_a_tool_begins_that_its_call_is_not_begun_again() -> None:
    @tool(retry="never")
    async def pay() -> str:
        return "paid"

    calling = agent(call("pay", "c1"), call("echo", "c2", text="x"), tools=[pay, echo])
    entries = await entries_of(Runner.run_streamed(calling, "hi"))

    began = {e.event.call_id: e.event.once for e in entries if isinstance(e.event, ToolStarted)}
    assert began == {"c1": True, "c2": False}
    assert began == {
        e.event.call_id: e.event.once
        for e in (Entry.from_json(entry.to_json()) for entry in entries)
        if isinstance(e.event, ToolStarted)
    }


async def test_tools_see_the_context_variables_of_whoever_called_the_run() -> None:
    who = contextvars.ContextVar("who", default="nobody")
    who.set("me")

    @tool
    async def ask() -> str:
        return who.get()

    result = await Runner.run(agent(call("ask"), tools=[ask]), "hi")

    assert outputs(result.new_items) == [("c1", "me")]


# --- failures ---------------------------------------------------------------------------------


async def test_a_failure_that_the_model_is_told_of_does_not_end_the_run() -> None:
    @tool
    async def broken() -> str:
        raise ValueError("secret")

    run = Runner.run_streamed(agent(call("broken"), tools=[broken]), "hi")
    entries = await entries_of(run)

    ((_, told),) = outputs(run.new_items)
    assert "error occurred" in told
    assert "secret" not in told
    assert finished(entries) == [("c1", "error", "tool_failed")]
    assert run.final_output == "done"


@pytest.mark.parametrize("arguments", ['{"text":', '{"other": 1}', "[]"])
async def test_arguments_that_do_not_fit_are_told_to_the_model(arguments: str) -> None:
    result = await Runner.run(agent(function_call("echo", arguments, call_id="c1"), tools=[echo]), "hi")

    ((_, told),) = outputs(result.new_items)
    assert "Invalid JSON input for tool echo" in told
    assert result.final_output == "done"


class Silent(Exception):
    """Cannot be told as text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Slotted(Exception):
    __slots__ = ("x",)


class Rude(BaseException):
    """Neither an Exception nor one of the interpreter's own."""


@pytest.mark.parametrize(
    "error",
    [
        ValueError("boo"),
        SystemExit(3),
        asyncio.CancelledError(),
        ExceptionGroup("two", [ValueError("a"), KeyError("b")]),
        BaseExceptionGroup("rude", [Rude()]),
        Rude(),
        Silent(),
        Slotted(),
        StopAsyncIteration(),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_whatever_a_tool_raises_ends_the_run_with_one_error_and_every_call_answered(
    error: BaseException, streamed: bool
) -> None:
    other_was_cancelled = asyncio.Event()

    @tool(failure_error_function=None)
    async def broken() -> str:
        await asyncio.sleep(0)
        raise error

    @tool
    async def patient() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            other_was_cancelled.set()
        return "never"

    an_agent = agent(call("broken", "c1"), call("patient", "c2"), tools=[broken, patient])
    with pytest.raises(UserError, match="Error running tool broken") as caught:
        await (Runner.run_streamed(an_agent, "hi") if streamed else Runner.run(an_agent, "hi"))

    assert caught.value.__cause__ is error
    assert other_was_cancelled.is_set()
    assert caught.value.run_data is not None
    assert outputs(caught.value.run_data.new_items) == [
        ("c1", "The tool failed."),
        ("c2", "The tool call was cancelled before it finished."),
    ]


class Quits(Exception):
    """Ends the program when somebody wants it as text."""

    def __str__(self) -> str:
        raise SystemExit(3)


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
async def test_a_result_whose_text_would_end_the_program_is_told_by_its_class(streamed: bool) -> None:
    @tool
    async def quits() -> Quits:
        return Quits()

    an_agent = agent(call("quits"), tools=[quits])
    result = await (Runner.run_streamed(an_agent, "hi") if streamed else Runner.run(an_agent, "hi"))

    assert result.final_output == "done"
    history: list[Any] = result.to_input_list()
    (told,) = [item["output"] for item in history if item.get("type") == "function_call_output"]
    assert told == "<Quits: no text>"


async def test_an_error_whose_text_would_end_the_program_is_told_by_its_class() -> None:
    @tool(failure_error_function=None)
    async def broken() -> str:
        raise Quits

    with pytest.raises(UserError, match="Error running tool broken: <Quits: no text>"):
        await Runner.run(agent(call("broken"), tools=[broken]), "hi")


async def test_an_error_of_ours_that_a_tool_raises_keeps_its_class() -> None:
    @tool(failure_error_function=None)
    async def broken() -> str:
        raise ModelBehaviorError("mine")

    with pytest.raises(ModelBehaviorError, match="mine") as caught:
        await Runner.run(agent(call("broken"), tools=[broken]), "hi")

    assert caught.value.run_data is not None


async def test_the_log_of_a_run_that_a_tool_failed_says_how_each_tool_ended() -> None:
    @tool(failure_error_function=None)
    async def broken() -> str:
        await asyncio.sleep(0)
        raise ValueError("boo")

    @tool
    async def patient() -> str:
        await asyncio.Event().wait()
        return "never"

    run = Runner.run_streamed(
        agent(call("patient", "c1"), call("broken", "c2"), tools=[broken, patient]), "hi"
    )
    entries = await entries_of(run)

    assert finished(entries) == [("c2", "error", "tool_failed"), ("c1", "cancelled", "cancelled")]
    assert [e.type for e in entries if e.is_terminal] == ["run.failed"]
    assert each_start_has_its_end(entries)
    assert run.run_loop_exception is not None


async def test_a_tool_that_cancels_its_own_task_has_failed_and_nobody_cancelled_the_run() -> None:
    async def cancel_me(ctx: ToolContext[Any], arguments: str) -> str:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)
        return "never"

    odd = FunctionTool("odd", "Odd.", {}, cancel_me)
    run = Runner.run_streamed(agent(call("odd"), tools=[odd]), "hi")
    entries = await entries_of(run)

    assert finished(entries) == [("c1", "error", "tool_cancelled_itself")]
    assert isinstance(run.run_loop_exception, UserError)


async def test_a_tool_that_is_told_to_stop_and_finishes_quickly_has_its_output_kept() -> None:
    begun = asyncio.Event()

    @tool
    async def stubborn() -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "saved"
        return "never"

    run = Runner.run_streamed(agent(call("stubborn"), tools=[stubborn]), "hi")
    await begun.wait()
    await run.aclose()

    assert run.is_cancelled
    assert outputs(run.new_items) == [("c1", "saved")]


async def test_a_tool_that_will_not_be_cancelled_is_left_behind_and_says_nothing_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    begun, let_go, clock = asyncio.Event(), asyncio.Event(), ManualClock()

    @tool
    async def deaf() -> str:
        begun.set()
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return "too late"

    run = Runner.run_streamed(agent(call("deaf"), tools=[deaf]), "hi", run_config=RunConfig(clock=clock))
    await begun.wait()
    with caplog.at_level(logging.WARNING, "millstream"):
        run.cancel()
        await asyncio.sleep(0)
        run.cancel()  # impatience changes nothing
        assert await clock.tick() == tools_module.GRACE
        await run.aclose()
    entries = await entries_of(run)
    let_go.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert f"run {run.run_id}: tool deaf did not stop" in caplog.text
    assert outputs(run.new_items) == [("c1", "The tool call was cancelled before it finished.")]
    assert finished(entries) == [("c1", "cancelled", "cancelled")]
    assert await entries_of(run) == entries


# --- timeouts ---------------------------------------------------------------------------------


async def test_a_timeout_is_told_to_the_model() -> None:
    @tool(timeout=5)
    async def slow() -> str:
        await asyncio.Event().wait()
        return "never"

    clock = ManualClock()
    run = Runner.run_streamed(agent(call("slow"), tools=[slow]), "hi", run_config=RunConfig(clock=clock))
    assert await clock.tick() == 5
    entries = await entries_of(run)

    assert outputs(run.new_items) == [("c1", "Tool 'slow' timed out after 5 seconds.")]
    assert finished(entries) == [("c1", "timeout", "tool_timeout")]
    assert run.final_output == "done"


async def test_a_timeout_that_is_to_raise_ends_the_run() -> None:
    @tool(timeout=5, timeout_behavior="raise_exception")
    async def slow() -> str:
        await asyncio.Event().wait()
        return "never"

    clock = ManualClock()
    run = Runner.run_streamed(agent(call("slow"), tools=[slow]), "hi", run_config=RunConfig(clock=clock))
    await clock.tick()
    with pytest.raises(ToolTimeoutError) as caught:
        await run

    assert caught.value.run_data is not None
    assert outputs(caught.value.run_data.new_items) == [("c1", "The tool failed.")]


# --- unknown tools ----------------------------------------------------------------------------


async def test_an_unknown_tool_ends_the_run_where_that_is_the_policy() -> None:
    with pytest.raises(ModelBehaviorError, match="Tool nope not found in agent A") as caught:
        await Runner.run(agent(call("echo", "c1", text="x"), call("nope", "c2"), tools=[echo]), "hi")

    assert caught.value.run_data is not None
    assert [call_id for call_id, _ in outputs(caught.value.run_data.new_items)] == ["c1", "c2"]


async def test_an_unknown_tool_is_told_to_the_model_where_that_is_the_policy() -> None:
    config = RunConfig(tool_not_found_behavior="return_error_to_model")

    result = await Runner.run(
        agent(call("nope", "c1"), call("echo", "c2", text="x"), tools=[echo]), "hi", run_config=config
    )

    assert outputs(result.new_items) == [("c1", "Tool 'nope' not found."), ("c2", "x")]
    assert result.final_output == "done"


@pytest.mark.parametrize(
    ("text", "told"), [("no such thing", "no such thing"), (None, "Tool 'nope' not found.")]
)
async def test_a_formatter_has_the_last_word_on_what_the_model_is_told(text: str | None, told: str) -> None:
    config = RunConfig(
        tool_not_found_behavior="return_error_to_model", tool_error_formatter=lambda args: text
    )

    result = await Runner.run(agent(call("nope"), tools=[]), "hi", run_config=config)

    assert outputs(result.new_items) == [("c1", told)]


# --- cancelling -------------------------------------------------------------------------------

Gate = tuple[asyncio.Event, asyncio.Event]


@pytest.fixture
def gate() -> Gate:
    """Set by a tool when it runs; and what it waits for."""
    return asyncio.Event(), asyncio.Event()


def gated(gate: Gate) -> FunctionTool:
    begun, go = gate

    @tool
    async def gated() -> str:
        begun.set()
        await go.wait()
        return "finished"

    return gated


@pytest.mark.parametrize("mode", ["after_tool", "after_turn"])
async def test_a_tool_that_runs_may_finish_where_the_mode_says_so(gate: Gate, mode: Any) -> None:
    run = Runner.run_streamed(agent(call("gated"), tools=[gated(gate)]), "hi")
    await gate[0].wait()

    run.cancel(mode)
    gate[1].set()
    entries = await entries_of(run)

    assert outputs(run.new_items) == [("c1", "finished")]
    assert finished(entries) == [("c1", "ok", None)]
    assert entries[-1].type == "run.cancelled"
    assert entries[-1].event.mode == mode  # pyright: ignore[reportAttributeAccessIssue]


async def test_cancel_now_stops_a_running_tool(gate: Gate) -> None:
    run = Runner.run_streamed(agent(call("gated"), tools=[gated(gate)]), "hi")
    await gate[0].wait()

    run.cancel()
    entries = await entries_of(run)

    assert finished(entries) == [("c1", "cancelled", "cancelled")]
    assert outputs(run.new_items) == [("c1", "The tool call was cancelled before it finished.")]
    with pytest.raises(RunCancelledError):
        await run


async def test_after_tool_starts_no_tool_that_still_waits_for_its_turn(gate: Gate) -> None:
    an_agent = agent(call("gated", "c1"), call("echo", "c2", text="x"), tools=[gated(gate), echo])
    config = RunConfig(tool_execution=ToolExecutionConfig(max_function_tool_concurrency=1))
    run = Runner.run_streamed(an_agent, "hi", run_config=config)
    await gate[0].wait()

    run.cancel("after_tool")
    gate[1].set()
    entries = await entries_of(run)

    assert outputs(run.new_items) == [
        ("c1", "finished"),
        ("c2", "The tool call was cancelled before it finished."),
    ]
    assert finished(entries) == [("c1", "ok", None)]
    assert entries[-1].type == "run.cancelled"


async def test_after_turn_lets_tools_run_that_wait_for_their_turn(gate: Gate) -> None:
    an_agent = agent(call("gated", "c1"), call("echo", "c2", text="x"), tools=[gated(gate), echo])
    config = RunConfig(tool_execution=ToolExecutionConfig(max_function_tool_concurrency=1))
    run = Runner.run_streamed(an_agent, "hi", run_config=config)
    await gate[0].wait()

    run.cancel("after_turn")
    gate[1].set()
    entries = await entries_of(run)

    assert outputs(run.new_items) == [("c1", "finished"), ("c2", "x")]
    assert entries[-1].type == "run.cancelled"


async def test_a_loop_that_shuts_down_stops_the_tools_and_the_run(gate: Gate) -> None:
    run = Runner.run_streamed(agent(call("gated"), tools=[gated(gate)]), "hi")
    await gate[0].wait()

    for task in asyncio.all_tasks() - {asyncio.current_task()}:  # as asyncio.run does
        task.cancel()
    entries = await entries_of(run)

    assert finished(entries) == [("c1", "cancelled", "cancelled")]
    assert entries[-1].type == "run.cancelled"
