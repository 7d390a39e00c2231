"""Tools that talk: progress and pieces of results, in their order, within their call."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    MemoryLog,
    RunConfig,
    RunContextWrapper,
    Runner,
    RunResultStreaming,
    ToolContext,
    ToolGuardrailFunctionOutput,
    ToolInputGuardrailData,
    Usage,
    tool,
    tool_input_guardrail,
)
from millstream.events import Entry, ToolFinished, ToolPartial, ToolProgress, ToolStarted
from millstream.log.promise import Batch
from millstream.run import talk as talk_module
from millstream.run.active import ActiveRun
from millstream.run.state import RunProgress
from millstream.testing import ManualClock, ScriptedModel, function_call
from millstream.tool import threads


def started(
    *tools: Any, then: Any = "done", config: RunConfig | None = None, **options: Any
) -> RunResultStreaming:
    """A run whose model calls each of `tools` once, without arguments, in one turn."""
    calls = [function_call(each.name, call_id=each.name) for each in tools]
    agent = Agent(name="A", model=ScriptedModel([calls, then]), tools=list(tools), **options)
    return Runner.run_streamed(agent, "Go", run_config=config)


async def entries_of(run: RunResultStreaming) -> list[Entry]:
    return [entry async for entry in run.entries()]


def said(entries: list[Entry]) -> list[Any]:
    """What the tools of a run said, by the last part of its type, between the starts and ends of their calls."""
    kinds = (ToolStarted, ToolProgress, ToolPartial, ToolFinished)
    return [
        (each.type.partition(".")[2], getattr(each.event, "data", each.event.call_id))
        for each in entries
        if isinstance(each.event, kinds)
    ]


def output(run: RunResultStreaming) -> Any:
    return next(item.output for item in run.new_items if item.type == "tool_call_output_item")


# --- progress ----------------------------------------------------------------------------------


async def test_progress_of_an_async_tool_stands_in_its_order_within_the_call() -> None:
    @tool
    async def work(ctx: ToolContext[Any]) -> str:
        for n in range(3):
            ctx.progress({"done": n})
        return "worked"

    run = started(work)

    assert said(await entries_of(run)) == [
        ("started", "work"),
        *(("progress", {"done": n}) for n in range(3)),
        ("finished", "work"),
    ]
    assert output(run) == "worked"


async def test_progress_that_is_awaited_is_in_the_log() -> None:
    written: list[int] = []

    @tool
    async def work(ctx: ToolContext[Any]) -> str:
        for n in range(3):
            await ctx.progress(n)
            written.append(run._run.position)
        return "worked"

    run = started(work)
    entries = await entries_of(run)

    told = [entry.position for entry in entries if isinstance(entry.event, ToolProgress)]
    assert written == told


async def test_progress_of_a_tool_in_a_thread_stands_in_its_order_however_much_it_tells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(talk_module, "AHEAD", 3)

    @tool
    def work(ctx: ToolContext[Any]) -> str:
        for n in range(50):
            ctx.progress(n)
        return "worked"

    entries = await entries_of(started(work))

    assert [data for kind, data in said(entries) if kind == "progress"] == list(range(50))
    assert said(entries)[-1] == ("finished", "work")


async def test_a_thread_waits_when_it_is_far_ahead_of_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk_module, "AHEAD", 2)
    log, told = HeldLog(), 0

    @tool
    def work(ctx: ToolContext[Any]) -> str:
        nonlocal told
        for told in range(1, 11):  # looked at from outside
            ctx.progress(told)
        return "worked"

    run = started(work, config=RunConfig(log=log))
    await log.reached.wait()
    ahead = told
    log.go_on.set()
    entries = await entries_of(run)

    assert ahead <= 4  # two in the hands of the log, and two that wait
    assert [data for kind, data in said(entries) if kind == "progress"] == list(range(1, 11))


async def test_what_is_told_is_what_it_was_when_it_was_told() -> None:
    @tool
    async def work(ctx: ToolContext[Any]) -> str:
        state = {"done": 0}
        ctx.progress(state)
        state["done"] = 1
        ctx.progress(state)
        return "worked"

    entries = await entries_of(started(work))

    told = [entry.event.to_json() for entry in entries if isinstance(entry.event, ToolProgress)]
    assert [b'"done":0' in told[0], b'"done":1' in told[1]] == [True, True]


async def test_a_value_without_json_is_marked_and_logged_without_being_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Secret:
        def __repr__(self) -> str:
            return "hunter2"

    @tool
    def work(ctx: ToolContext[Any]) -> str:
        ctx.progress({"percent": float("nan"), "of": Secret(), "fine": 1})
        return "worked"

    run = started(work)
    entries = await entries_of(run)

    (told,) = [entry for entry in entries if isinstance(entry.event, ToolProgress)]
    assert Entry.from_json(told.to_json()).event.data["fine"] == 1  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    assert run.final_output == "done"
    assert run.run_id in caplog.text
    assert "hunter2" not in caplog.text


async def test_what_is_told_after_the_call_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "millstream")
    late: list[ToolContext[Any]] = []

    @tool
    async def work(ctx: ToolContext[Any]) -> str:
        late.append(ctx)
        return "worked"

    @tool
    async def other() -> str:
        await late[0].progress("too late")
        return "worked"

    model = ScriptedModel(
        [[function_call("work", call_id="1")], [function_call("other", call_id="2")], "done"]
    )
    run = Runner.run_streamed(Agent(name="A", model=model, tools=[work, other]), "Go")
    entries = await entries_of(run)
    late[0].progress("much too late")

    assert [kind for kind, _ in said(entries)] == ["started", "finished", "started", "finished"]
    assert caplog.text.count("something was said of tool work while its call 1 did not run") == 2


async def test_what_is_told_before_the_tool_begins_is_dropped() -> None:
    @tool_input_guardrail
    def looks(data: ToolInputGuardrailData) -> ToolGuardrailFunctionOutput:
        data.context.progress("looked at")
        return ToolGuardrailFunctionOutput.allow()

    @tool(tool_input_guardrails=[looks])
    async def work() -> str:
        return "worked"

    entries = await entries_of(started(work))

    assert said(entries) == [("started", "work"), ("finished", "work")]


async def test_a_context_that_was_built_by_hand_tells_nobody() -> None:
    context = ToolContext(None, Usage(), "work", "1", "{}")

    context.progress("nobody hears")
    assert await context.progress("nor this") is None


async def test_tools_side_by_side_each_tell_of_their_own_call() -> None:
    both = asyncio.Barrier(2)

    def make(name: str) -> Any:
        @tool(name_override=name)
        async def work(ctx: ToolContext[Any]) -> str:
            await both.wait()
            ctx.progress(name)
            await both.wait()
            return name

        return work

    entries = await entries_of(started(make("one"), make("two")))

    told = [
        (e.event.call_id, e.event.name, e.event.data) for e in entries if isinstance(e.event, ToolProgress)
    ]
    assert sorted(told) == [("one", "one", "one"), ("two", "two", "two")]


async def test_a_log_that_takes_no_progress_ends_the_run() -> None:
    @tool
    async def work(ctx: ToolContext[Any]) -> str:
        while True:
            await ctx.progress("x")

    run = started(work, config=RunConfig(log=MemoryLog(max_events=30)))
    entries = await entries_of(run)

    assert entries[-1].event.code == "log_full"  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    assert said(entries)[-1] == ("finished", "work")


@pytest.mark.parametrize("awaits", [True, False])
async def test_what_was_told_before_a_cancellation_stands_before_the_end_of_the_call(awaits: bool) -> None:
    @tool
    async def work(ctx: ToolContext[Any]) -> str:
        told = ctx.progress("begun")
        if awaits:
            await told
        run.cancel()
        await asyncio.Event().wait()
        return "never"

    run = started(work)
    entries = await entries_of(run)

    assert said(entries) == [("started", "work"), ("progress", "begun"), ("finished", "work")]
    assert entries[-1].type == "run.cancelled"


async def test_a_thread_that_goes_on_after_its_run_is_not_held_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk_module, "AHEAD", 2)
    cancelled, over = threading.Event(), threading.Event()

    @tool
    def work(ctx: ToolContext[Any]) -> str:
        run.cancel()
        assert cancelled.wait(60)
        for n in range(10):
            ctx.progress(n)
        over.set()
        return "late"

    run = started(work)
    entries = await entries_of(run)
    cancelled.set()
    await threads.in_thread(lambda: over.wait(60))

    assert over.is_set()
    assert [kind for kind, _ in said(entries)] == ["started", "finished"]


def active(loop: asyncio.AbstractEventLoop) -> ActiveRun:
    """A run built by hand, which nothing drives."""
    progress = RunProgress("run_1", "Hi", Agent(name="A"), RunContextWrapper(None), max_turns=None)
    return ActiveRun(progress, RunConfig(), MemoryLog(), streamed=True, loop=loop)


A_STEP = ToolProgress(call_id="1", name="work", data="x")


def test_a_thread_does_not_wait_for_a_loop_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(talk_module, "AHEAD", 1)
    monkeypatch.setattr(talk_module, "PATIENCE", 0.001)
    loop = asyncio.new_event_loop()
    talk = talk_module.Talk(active(loop))
    talk.begin()
    loop.close()

    for _ in range(3):
        talk.say(A_STEP)

    assert talk.is_open


@pytest.mark.may_block
async def test_what_a_thread_told_too_late_to_be_written_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "millstream")
    run = active(asyncio.get_running_loop())
    talk = talk_module.Talk(run)
    talk.begin()

    thread = threading.Thread(target=talk.say, args=(A_STEP,))
    thread.start()
    thread.join()
    await talk.end()
    await asyncio.sleep(0)

    assert run.position == 0
    assert "while its call 1 did not run" in caplog.text


# --- tools that yield --------------------------------------------------------------------------


@tool
async def counts() -> AsyncIterator[int]:
    """Count."""
    for n in range(3):
        yield n


@tool(name_override="counts")
def counts_in_a_thread() -> Iterator[int]:
    """Count."""
    yield from range(3)


@pytest.mark.parametrize("counter", [counts, counts_in_a_thread])
async def test_what_a_tool_yields_is_told_at_once_and_the_last_of_it_is_the_result(counter: Any) -> None:
    run = started(counter)

    assert said(await entries_of(run)) == [
        ("started", "counts"),
        *(("partial", n) for n in range(3)),
        ("finished", "counts"),
    ]
    assert output(run) == 2


async def test_a_generator_is_described_as_any_function() -> None:
    @tool
    async def search(ctx: ToolContext[Any], query: str, limit: int = 5) -> AsyncIterator[dict[str, Any]]:
        """Search.

        Args:
            query: what for.
        """
        yield {"query": query, "limit": limit, "call": ctx.tool_call_id}

    model = ScriptedModel([[function_call("search", {"query": "x"}, call_id="c1")], "done"])
    result = await Runner.run(Agent(name="A", model=model, tools=[search]), "Go")

    assert list(search.params_json_schema["properties"]) == ["query", "limit"]
    assert search.description == "Search."
    assert result.new_items[1].output == {"query": "x", "limit": 5, "call": "c1"}  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_tool_that_yields_nothing_has_no_result() -> None:
    @tool
    async def silent() -> AsyncIterator[str]:
        for text in ():
            yield text

    run = started(silent)

    assert [kind for kind, _ in said(await entries_of(run))] == ["started", "finished"]
    assert output(run) is None


async def test_what_a_plain_generator_returns_is_its_result_and_no_piece() -> None:
    @tool
    def adds() -> Any:
        yield "one"
        yield "two"
        return "one two"

    run = started(adds)

    assert [data for kind, data in said(await entries_of(run)) if kind == "partial"] == ["one", "two"]
    assert output(run) == "one two"


async def test_progress_and_pieces_keep_their_order() -> None:
    @tool
    async def work(ctx: ToolContext[Any]) -> AsyncIterator[str]:
        ctx.progress(1)
        yield "a"
        ctx.progress(2)
        yield "b"

    entries = await entries_of(started(work))

    assert [data for _, data in said(entries)[1:-1]] == [1, "a", 2, "b"]


async def test_the_next_value_is_asked_for_when_the_last_one_is_written() -> None:
    log, yielded = HeldLog(), 0

    @tool
    async def works() -> AsyncIterator[int]:
        nonlocal yielded
        for yielded in range(1, 4):
            yield yielded

    run = started(works, config=RunConfig(log=log))
    await log.reached.wait()
    ahead = yielded
    log.go_on.set()
    await run

    assert (ahead, yielded) == (1, 3)


Ending = Callable[[RunResultStreaming, ManualClock], Awaitable[None]]


async def cancelled(run: RunResultStreaming, _: ManualClock) -> None:
    run.cancel()


async def timed_out(_: RunResultStreaming, clock: ManualClock) -> None:
    await clock.waiting()
    clock.advance(10)


@pytest.mark.parametrize("ending", [cancelled, timed_out])
@pytest.mark.parametrize("waits_in", ["its own code", "the log"])
async def test_an_async_generator_is_closed_in_its_own_task_whatever_ends_it(
    ending: Ending, waits_in: str
) -> None:
    clock, log, reached = ManualClock(), HeldLog(), asyncio.Event()
    tasks: list[Any] = []

    @tool(timeout=10)
    async def works() -> AsyncIterator[int]:
        tasks.append(asyncio.current_task())
        try:
            if waits_in == "the log":
                yield 1
            reached.set()
            await asyncio.Event().wait()
            yield 2
        finally:
            await asyncio.sleep(0)
            tasks.append(asyncio.current_task())

    run = started(works, config=RunConfig(clock=clock, log=log if waits_in == "the log" else None))
    await (log.reached if waits_in == "the log" else reached).wait()
    await ending(run, clock)
    log.go_on.set()
    await entries_of(run)

    assert len(tasks) == 2
    assert tasks[0] is tasks[1]


async def test_a_generator_that_raises_keeps_what_it_told_and_fails_as_any_tool() -> None:
    @tool
    async def breaks() -> AsyncIterator[str]:
        yield "so far"
        raise ValueError("It broke.")

    run = started(breaks)
    entries = await entries_of(run)

    assert said(entries)[1:] == [("partial", "so far"), ("finished", "breaks")]
    assert output(run).startswith("An error occurred")


async def test_a_generator_in_a_thread_is_closed_there_at_its_next_value() -> None:
    told, closed = threading.Event(), threading.Event()
    ran_in: list[int] = []

    @tool
    def works() -> Iterator[int]:
        ran_in.append(threading.get_ident())
        try:
            yield 1
            run.cancel()
            assert told.wait(60)
            yield 2
            yield 3
        finally:
            ran_in.append(threading.get_ident())
            closed.set()

    run = started(works)
    entries = await entries_of(run)
    told.set()
    await threads.in_thread(lambda: closed.wait(60))

    assert said(entries)[1:-1] == [("partial", 1)]
    assert len(set(ran_in)) == 1
    assert len(ran_in) == 2


async def test_a_tool_that_yields_may_be_called_by_hand() -> None:
    context = ToolContext(None, Usage(), "counts", "1", "{}")

    assert await counts.on_invoke_tool(context, "{}") == 2
    assert await counts_in_a_thread.on_invoke_tool(context, "{}") == 2


class HeldLog(MemoryLog):
    """Takes the first thing that a tool says only when it is told to go on."""

    def __init__(self) -> None:
        super().__init__()
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        await super().append(run_id, batch, epoch=epoch)
        if any(isinstance(payload, ToolProgress | ToolPartial) for payload in batch.payloads):
            self.reached.set()
            await self.go_on.wait()
