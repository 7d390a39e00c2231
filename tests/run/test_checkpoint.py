"""What is kept of a run with its events, and gone on with: at whichever event its process stops."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    MemoryLog,
    RunConfig,
    RunContextWrapper,
    Runner,
    SQLiteSession,
    ToolContext,
    ToolExecutionConfig,
    tool,
)
from millstream.testing import ManualClock, check_stream, function_call
from tests.support.by_history import ByHistory
from tests.test_recovery import LEASE, Freezing, entries_of


@dataclass
class Program:
    """What is the same in the process that stops and in the one that goes on."""

    make: Callable[["Program"], Agent[Any]]
    context: Any = None
    session: Any = None
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    done: list[str] = field(default_factory=list[str])
    """What tools have done, in both."""
    models: list[ByHistory] = field(default_factory=list[ByHistory])

    def model(self, steps: dict[tuple[str, ...], Any]) -> ByHistory:
        """A model, whose calls are counted."""
        self.models.append(ByHistory(steps))
        return self.models[-1]

    def config(self, log: MemoryLog, clock: ManualClock) -> RunConfig:
        return RunConfig(log=log, clock=clock, lease=LEASE, ahead="free", **self.options)


async def length(program: Program) -> int:
    """How many events the run has that nobody stops."""
    log = MemoryLog()
    handle = Runner.run_streamed(
        program.make(program),
        "Go",
        context=program.context,
        session=program.session,
        run_config=program.config(log, ManualClock()),
    )
    await handle
    return (await log.info(handle.run_id)).last


@asynccontextmanager
async def gone_on_with(program: Program, at: int) -> AsyncIterator[Any]:
    """The handle of a run whose process stopped when `at` events were written, in the process that goes on with it."""
    clock = ManualClock()
    log = Freezing(clock)
    log.frozen_at = at
    run = Runner.run_streamed(
        program.make(program),
        "Go",
        context=program.context,
        session=program.session,
        run_config=program.config(log, clock),
    )
    await log.frozen.wait()
    run._run.tenure._tasks[0].cancel()  # type: ignore[union-attr]  # a stopped process renews nothing
    clock.advance(LEASE + 1)
    sessions: dict[str, Any] = {}
    if program.session is not None:
        sessions["session_from"] = lambda _: program.session
    [handle] = await Runner.recover(
        log, program.make(program), run_config=RunConfig(clock=clock, **program.options), **sessions
    )
    try:
        yield handle
        await asyncio.wait([handle._run.task])  # type: ignore[list-item]
        report = check_stream(await entries_of(log, handle.run_id))
        assert report.ok, (at, str(report))
    finally:
        log.thaw()
        run.cancel()
        await asyncio.wait([run._run.task])  # type: ignore[list-item]


# --- sessions ------------------------------------------------------------------------------------


def two_turns(program: Program) -> Agent[Any]:
    @tool
    async def add(a: int, b: int) -> int:
        return a + b

    calls = [function_call("add", {"a": 1, "b": 2}, call_id="c1")]
    return Agent(name="A", tools=[add], model=program.model({(): calls, ("c1",): "Three."}))


@pytest.mark.may_block  # a session in memory is no file
async def test_whichever_event_its_process_stops_at_a_session_has_every_item_once() -> None:
    total = await length(Program(two_turns, session=SQLiteSession("whole")))
    for at in range(1, total):
        session = SQLiteSession("s")
        await session.add_items([{"role": "user", "content": "Before."}])
        program = Program(two_turns, session=session)
        async with gone_on_with(program, at) as handle:
            result = await handle
        items = await session.get_items()

        assert result.final_output == "Three.", at
        kinds = [item.get("type") or item.get("role") for item in items]  # type: ignore[attr-defined]
        assert kinds == ["user", "user", "function_call", "function_call_output", "message"], at
        session.close()


# --- the context ---------------------------------------------------------------------------------


def notes(program: Program) -> Agent[Any]:
    @tool
    async def note(ctx: RunContextWrapper[dict[str, Any]], word: str) -> str:
        ctx.context["notes"].append(word)
        return word

    calls = [function_call("note", {"word": word}, call_id=word) for word in ("one", "two")]
    return Agent(name="A", tools=[note], model=program.model({(): calls, ("one", "two"): "Noted."}))


async def test_what_a_tool_did_to_the_context_is_there_if_its_output_is() -> None:
    total = await length(Program(notes, context={"notes": []}))
    for at in range(1, total):
        program = Program(notes, context={"notes": []})
        async with gone_on_with(program, at) as handle:
            result = await handle

        assert set(result.context_wrapper.context["notes"]) == {"one", "two"}, at


# --- nested runs ---------------------------------------------------------------------------------


def asks_another(program: Program) -> Agent[Any]:
    @tool
    async def look(ctx: ToolContext[Any]) -> str:
        program.done.append(ctx.idempotency_key)
        return "seen"

    inner = Agent(
        name="inner",
        tools=[look],
        model=program.model({(): [function_call("look", {}, call_id="l")], ("l",): "It is there."}),
    )
    ask = inner.as_tool("ask", "Asks.")
    outer = program.model({(): [function_call("ask", {"input": "?"}, call_id="a")], ("a",): "Done."})
    return Agent(name="outer", tools=[ask], model=outer)


async def test_the_model_of_a_nested_run_is_not_asked_again_for_a_turn_that_is_finished() -> None:
    total = await length(Program(asks_another))
    for at in range(1, total):
        program = Program(asks_another)
        async with gone_on_with(program, at) as handle:
            result = await handle
            entries = [entry async for entry in handle.entries()]

        assert result.final_output == "Done.", at
        # Each of the four calls of a model is finished once, what is void included; one may have been begun in vain.
        finished = [entry for entry in entries if entry.type == "model.completed"]
        assert len(finished) == 4, at
        assert sum(len(model.asked) for model in program.models) <= 5, at
        assert len(set(program.done)) == 1, (at, "a tool that runs again has the key that it had")
        assert result.context_wrapper.usage.requests == 4, at


def asks_in_its_own_way(program: Program) -> Agent[Any]:
    """The tool is a function, which asks two agents on its way."""
    inner = Agent(name="inner", model=program.model({(): "Yes."}))
    ask = inner.as_tool("ask", "Asks.")

    @tool
    async def ask_twice(ctx: ToolContext[Any]) -> str:
        program.done.append(ctx.idempotency_key)
        said = [await ask.on_invoke_tool(ctx, '{"input": "Sure?"}') for _ in range(2)]
        return " ".join(map(str, said))

    steps: dict[tuple[str, ...], Any] = {(): [function_call("ask_twice", {}, call_id="a")], ("a",): "Done."}
    return Agent(name="outer", tools=[ask_twice], model=program.model(steps))


async def test_a_function_that_runs_agents_on_its_way_is_begun_again_as_a_whole() -> None:
    total = await length(Program(asks_in_its_own_way))
    for at in range(1, total):
        program = Program(asks_in_its_own_way)
        async with gone_on_with(program, at) as handle:
            result = await handle

        assert result.final_output == "Done.", at
        assert len(set(program.done)) == 1, at


# --- approvals -----------------------------------------------------------------------------------


def pays_twice(program: Program) -> Agent[Any]:
    """Both calls need approval, and one tool runs at a time."""

    @tool(needs_approval=True)
    async def pay(ctx: ToolContext[Any], to: str) -> str:
        program.done.append(to)
        return f"paid {to}"

    calls = [function_call("pay", {"to": name}, call_id=name) for name in ("Ann", "Bob")]
    return Agent(name="A", tools=[pay], model=program.model({(): calls, ("Ann", "Bob"): "Paid."}))


async def test_a_call_that_was_approved_and_has_not_begun_needs_no_other_decision() -> None:
    options: dict[str, Any] = {"tool_execution": ToolExecutionConfig(max_function_tool_concurrency=1)}
    outcomes: set[str] = set()
    for at in range(4, 40):  # behind what says that it goes on
        program = Program(pays_twice, options=options)
        clock = ManualClock()
        log = Freezing(clock)
        run = Runner.run_streamed(program.make(program), "Go", run_config=program.config(log, clock))
        paused = await run
        handle = Runner.attach(run.run_id, log=log)
        for item in paused.interruptions:
            await handle.approve(item)
        pause = (await log.info(run.run_id)).last
        log.frozen_at, log.frozen_epoch = pause + at, 2
        resumed = await handle.resume(program.make(program), run_config=RunConfig(clock=clock, lease=LEASE))
        task = resumed._run.task
        assert task is not None
        stopped = asyncio.ensure_future(log.frozen.wait())
        await asyncio.wait([stopped, task], return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            stopped.cancel()
            break
        resumed._run.tenure._tasks[0].cancel()  # type: ignore[union-attr]
        clock.advance(LEASE + 1)

        [again] = await Runner.recover(
            log, program.make(program), run_config=RunConfig(clock=clock, **options)
        )
        try:
            outcome = str((await again).final_output)
        except Exception as error:
            outcome = type(error).__name__
        outcomes.add(outcome)

        assert outcome in ("Paid.", "RunInterruptedError"), at
        assert len(program.done) == len(set(program.done)), (at, "nobody is paid twice")
        log.thaw()
        resumed.cancel()
        await asyncio.wait([task])

    assert outcomes == {"Paid.", "RunInterruptedError"}
