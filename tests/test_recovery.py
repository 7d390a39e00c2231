"""Runs whose process died go on in another, from their last checkpoint."""

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    GuardrailFunctionOutput,
    MemoryLog,
    RunConfig,
    RunHooks,
    Runner,
    RunResultStreaming,
    SQLiteSession,
    ToolContext,
    input_guardrail,
    output_guardrail,
    tool,
)
from millstream.errors import (
    AttemptsExhaustedError,
    HandedBackError,
    LogDamagedError,
    LogUnavailableError,
    NotResumableError,
    RunCancelledError,
    RunInterruptedError,
    StaleOwnerError,
    UnknownAgentError,
    UserError,
)
from millstream.events import Entry, RunFailed, RunItemStreamEvent
from millstream.log import Batch, RunRecord, RunStore
from millstream.recovery import MOST_PATIENCE, Recovery
from millstream.testing import ManualClock, ScriptedModel, check_stream, function_call
from tests.support.by_history import ByHistory

LEASE = 10.0


class Freezing(MemoryLog):
    """Takes so many events; whoever writes more waits until `thaw`, as a process that was stopped."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.frozen_at: int | None = None
        self.frozen_epoch = 1
        self.frozen = asyncio.Event()
        self._thawed = asyncio.Event()

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if self.frozen_at is not None and epoch == self.frozen_epoch and batch.last > self.frozen_at:
            self.frozen.set()
            await self._thawed.wait()
        await super().append(run_id, batch, epoch=epoch)

    def thaw(self) -> None:
        self._thawed.set()


@dataclass
class Work:
    """An agent with two tools side by side, one that is an agent, and a handoff; and what its tools have done."""

    done: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def agent(self) -> Agent[Any]:
        @tool
        async def add(ctx: ToolContext[Any], a: int, b: int) -> int:
            self.done.append(("add", ctx.idempotency_key or ""))
            return a + b

        @tool
        async def mail(ctx: ToolContext[Any], to: str) -> str:
            self.done.append(("mail", ctx.idempotency_key or ""))
            return f"sent to {to}"

        helper = Agent(
            name="helper",
            tools=[add],
            model=ByHistory({(): [function_call("add", {"a": 1, "b": 2}, call_id="h1")], ("h1",): "three"}),
        )
        last = Agent(name="last", model=ByHistory({("c1", "c2", "c3", "c4"): "All done."}))
        steps: dict[tuple[str, ...], Any] = {
            (): [
                function_call("add", {"a": 2, "b": 2}, call_id="c1"),
                function_call("mail", {"to": "Ann"}, call_id="c2"),
            ],
            ("c1", "c2"): [function_call("ask_helper", {"input": "1+2?"}, call_id="c3")],
            ("c1", "c2", "c3"): [function_call("transfer_to_last", {}, call_id="c4")],
        }
        nested = helper.as_tool("ask_helper", "Asks the helper.")
        return Agent(name="first", tools=[add, mail, nested], handoffs=[last], model=ByHistory(steps))


@asynccontextmanager
async def frozen(work: Work, at: int, **options: Any) -> AsyncIterator[tuple[Freezing, RunResultStreaming]]:
    """A run whose process stops when `at` events are written, and whose lease has ended since."""
    clock = ManualClock()
    log = Freezing(clock)
    log.frozen_at = at
    config = RunConfig(log=log, lease=LEASE, clock=clock, ahead="free", **options)
    run = Runner.run_streamed(work.agent(), "Go", run_config=config)
    stopped = asyncio.ensure_future(log.frozen.wait())
    task = run._run.task
    assert task is not None
    await asyncio.wait([stopped, task], return_when=asyncio.FIRST_COMPLETED)
    stopped.cancel()
    run._run.tenure._tasks[0].cancel()  # type: ignore[union-attr]  # a stopped process renews nothing
    clock.advance(LEASE + 1)
    try:
        yield log, run
    finally:
        log.thaw()
        run.cancel()
        await asyncio.wait([task])


async def entries_of(log: RunStore, run_id: str) -> list[Entry]:
    return [entry async for entry in log.follow(run_id)]


async def recover(log: RunStore, agent: Any, **options: Any) -> RunResultStreaming:
    """The only run that there is to go on with."""
    [handle] = await Runner.recover(log, agent, run_config=RunConfig(clock=ManualClock()), **options)
    return handle


def uninterrupted() -> int:
    """How many events the run has that nobody interrupts."""

    async def run() -> int:
        log = MemoryLog()
        handle = Runner.run_streamed(Work().agent(), "Go", run_config=RunConfig(log=log, ahead="free"))
        assert (await handle).final_output == "All done."
        return (await log.info(handle.run_id)).last

    return asyncio.run(run())


EVERYTHING = [
    "tool_call_item",
    "tool_call_item",
    "tool_call_output_item",
    "tool_call_output_item",
    "tool_call_item",
    "tool_call_output_item",
    "handoff_call_item",
    "handoff_output_item",
    "message_output_item",
]
PARTS = 6


@pytest.mark.parametrize("part", range(PARTS))
def test_wherever_its_process_stops_a_run_goes_on_and_comes_to_the_same(part: int) -> None:
    for at in range(1 + part, uninterrupted(), PARTS):
        asyncio.run(_stopped_and_gone_on_with(at))


async def _stopped_and_gone_on_with(at: int) -> None:
    work = Work()
    async with frozen(work, at) as (log, run):
        handle = await recover(log, work.agent())
        result = await handle
        entries = await entries_of(log, run.run_id)
        report = check_stream(entries)

        assert result.final_output == "All done.", at
        assert handle.run_id == run.run_id
        assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
        assert report.ok, (at, str(report))
        assert sum(entry.type == "run.attempt" for entry in entries) == (at > 1)  # else it had not begun
        assert sorted(item.type for item in result.new_items) == sorted(EVERYTHING), at
        # What ran twice ran under one key.
        assert len({key for _, key in work.done}) in (3, 4), (at, work.done)

        log.thaw()
        with pytest.raises(StaleOwnerError):
            await run
        assert await entries_of(log, run.run_id) == entries


async def test_a_tool_that_must_not_run_twice_ends_its_run_where_it_left_no_result() -> None:
    began = asyncio.Event()

    @tool(retry="never")
    async def pay() -> str:
        began.set()
        await asyncio.Event().wait()
        return "paid"

    agent = Agent(name="A", tools=[pay], model=ByHistory({(): [function_call("pay", {}, call_id="p")]}))
    clock = ManualClock()
    log = Freezing(clock)
    run = Runner.run_streamed(agent, "Pay", run_config=RunConfig(log=log, clock=clock))
    await began.wait()
    log.frozen_at = 0
    run._run.tenure._tasks[0].cancel()  # type: ignore[union-attr]
    clock.advance(LEASE + 1)

    handle = await recover(log, agent)
    with pytest.raises(RunInterruptedError, match="while pay ran, which must not be started twice"):
        await handle
    entries = await entries_of(log, run.run_id)

    end = entries[-1].event
    assert isinstance(end, RunFailed)
    assert (end.code, (await log.record(run.run_id)).code) == ("interrupted", "interrupted")
    assert check_stream(entries).ok, str(check_stream(entries))
    log.thaw()
    run.cancel()
    with pytest.raises(StaleOwnerError):
        await run


async def test_an_output_that_is_not_in_the_log_is_not_in_a_checkpoint_of_it() -> None:
    """A hook takes its time behind one tool while the output of the other is written."""

    class Slow(RunHooks[Any]):
        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            if tool.name == "first":
                first_is_done.set()
                await asyncio.Event().wait()

    first_is_done = asyncio.Event()

    @tool
    async def first() -> str:
        return "1"

    @tool
    async def second() -> str:
        await first_is_done.wait()
        return "2"

    calls = [function_call("first", {}, call_id="c1"), function_call("second", {}, call_id="c2")]
    agent = Agent(name="A", tools=[first, second], model=ByHistory({(): calls, ("c1", "c2"): "Done."}))
    clock = ManualClock()
    log = MemoryLog(clock=clock)
    run = Runner.run_streamed(agent, "Go", run_config=RunConfig(log=log, clock=clock), hooks=Slow())
    await anext(e async for e in run.entries() if getattr(e.event, "name", "") == "tool_output")
    run._run.tenure._tasks[0].cancel()  # type: ignore[union-attr]
    clock.advance(LEASE + 1)

    result = await (await recover(log, agent))
    report = check_stream(await entries_of(log, run.run_id))

    assert report.ok, str(report)
    assert result.final_output == "Done."
    run.cancel()
    with pytest.raises(StaleOwnerError):
        await run


@output_guardrail(hold="verdict")
async def judges_the_output(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


@input_guardrail(hold="verdict")
async def judges_the_input(context: Any, agent: Any, input: Any) -> GuardrailFunctionOutput:
    await asyncio.sleep(0)
    return GuardrailFunctionOutput(None, tripwire_triggered=False)


@dataclass
class Guarded(Work):
    """An agent with a tool, whose answers wait for a guardrail."""

    guardrails: dict[str, Any] = field(default_factory=dict[str, Any])

    def agent(self) -> Agent[Any]:
        @tool
        async def add(a: int) -> int:
            return a

        steps = {(): [function_call("add", {"a": 1}, call_id="c1")], ("c1",): "Done."}
        return Agent(name="A", tools=[add], model=ByHistory(steps), **self.guardrails)


@pytest.mark.parametrize(
    "guardrails",
    [{"output_guardrails": [judges_the_output]}, {"input_guardrails": [judges_the_input]}],
    ids=["output", "input"],
)
async def test_what_was_held_back_is_gone_on_from_as_soon_as_it_is_out(guardrails: dict[str, Any]) -> None:
    for at in range(1, 26):  # of 29 events: the model has answered twice
        work = Guarded(guardrails=guardrails)
        async with frozen(work, at) as (log, run):
            result = await (await recover(log, work.agent()))
            report = check_stream(await entries_of(log, run.run_id))

        assert report.ok, (at, str(report))
        assert result.final_output == "Done."


async def test_a_run_that_was_submitted_is_begun_by_whoever_recovers_it() -> None:
    log, work = MemoryLog(), Work()

    queued = await Runner.submit(log, work.agent(), "Go", caller="ann", idempotency_key="k")
    again = await Runner.submit(log, work.agent(), "Go", caller="ann", idempotency_key="k")
    handle = await recover(log, work.agent())
    result = await handle
    entries = await entries_of(log, queued.run_id)

    assert (queued.status, again.run_id) == ("queued", queued.run_id)
    assert (handle.run_id, result.final_output) == (queued.run_id, "All done.")
    assert [entry.type for entry in entries[:2]] == ["run.started", "agent_updated_stream_event"]
    assert check_stream(entries).ok, str(check_stream(entries))
    assert (await log.record(queued.run_id)).caller == "ann"


async def test_a_run_that_is_handed_back_is_gone_on_with_at_once() -> None:
    log, work = MemoryLog(), Work()
    run = Runner.run_streamed(work.agent(), "Go", run_config=RunConfig(log=log))
    async for event in run.stream_events():
        if isinstance(event, RunItemStreamEvent) and event.name == "tool_output":
            run.hand_back()
            break

    with pytest.raises(HandedBackError, match="was handed back"):
        await run
    handle = await recover(log, work.agent())

    assert (await handle).final_output == "All done."
    assert handle.run_id == run.run_id
    assert check_stream(await entries_of(log, run.run_id)).ok


def knows_nobody(record: RunRecord) -> Any:
    return None


def knows_none_of_that_name(record: RunRecord) -> Any:
    raise UnknownAgentError(f"Nobody is called {record.agent}.")


@pytest.mark.parametrize(
    "others",
    [Agent(name="other", model=ScriptedModel()), knows_nobody, knows_none_of_that_name],
    ids=["agent", "gives none", "raises"],
)
@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_run_of_an_agent_that_a_program_does_not_have_is_left_to_who_has_it(
    others: Any, has_begun: bool, caplog: pytest.LogCaptureFixture
) -> None:
    log, work = MemoryLog(), Work()
    if has_begun:
        run_id = (await handed_back(log, work)).run_id
    else:
        run_id = (await Runner.submit(log, work.agent(), "Go")).run_id
    caplog.clear()
    before = await log.record(run_id)
    recovery = Recovery(log=log, agent=others, run_config=RunConfig(clock=ManualClock()))

    assert await recovery.all(100) == []
    assert await recovery.all(100) == []
    told = [record.message for record in caplog.records if run_id in record.message]
    after = await log.record(run_id)
    handle = await recover(log, work.agent())

    assert len(told) == 1
    assert "is left to a program that has its agent" in told[0]
    assert (after.status, after.last, after.is_owned) == (before.status, before.last, False)
    assert (await handle).final_output == "All done."


async def test_runs_that_are_left_alone_keep_no_others_from_being_recovered() -> None:
    log, work = MemoryLog(), Work()
    other = Agent(name="other", model=ScriptedModel())
    for _ in range(3):
        await Runner.submit(log, other, "Go")
    mine = await Runner.submit(log, work.agent(), "Go")
    recovery = Recovery(log=log, agent=work.agent(), run_config=RunConfig(clock=ManualClock()))

    assert await recovery.all(3) == []
    (handle,) = await recovery.all(3)

    assert handle.run_id == mine.run_id
    assert (await handle).final_output == "All done."


async def handed_back(log: RunStore, work: Work) -> RunResultStreaming:
    """A run that has come as far as its first tools, and is nobody's."""
    run = Runner.run_streamed(work.agent(), "Go", run_config=RunConfig(log=log))
    async for _ in run.entries(types=["tool.finished"]):
        run.hand_back()
        break
    with pytest.raises(HandedBackError):
        await run
    return run


@pytest.mark.parametrize("what", ["agent", "context_from", "session_from"])
async def test_a_run_for_which_a_function_raises_is_tried_again_later_and_later(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock, log, work = ManualClock(), MemoryLog(), Work()
    is_deployed, session = False, SQLiteSession("s")

    def makes(record: RunRecord) -> Any:
        if not is_deployed:
            raise ModuleNotFoundError("No module named 'tools'")
        return {"agent": work.agent(), "session_from": session}.get(what)

    run = Runner.run_streamed(
        work.agent(),
        "Go",
        session=session if what == "session_from" else None,
        run_config=RunConfig(log=log, session_input_callback=None),
    )
    async for _ in run.entries(types=["tool.finished"]):
        run.hand_back()
        break
    with pytest.raises(HandedBackError):
        await run
    config = RunConfig(clock=clock, lease=LEASE)
    recovery = Recovery(log=log, run_config=config, **{"agent": work.agent(), what: makes})

    pauses, tries = list[float](), 0
    while tries < 8:
        assert await recovery.all(100) == []
        assert not (await log.record(run.run_id)).is_owned
        told = caplog.text.count("what it needs to go on could not be made")  # each try is told
        if told > tries:
            tries = told
            pauses.append(clock.monotonic())
        clock.advance(LEASE)
    is_deployed = True
    clock.advance(MOST_PATIENCE)
    (handle,) = await recovery.all(100)

    assert [after - before for before, after in itertools.pairwise(pauses)] == [10, 20, 40, 80, 160, 300, 300]
    assert "No module named 'tools'" in caplog.text
    assert (await handle).final_output == "All done."
    assert check_stream(await entries_of(log, run.run_id)).ok


async def test_a_run_that_can_not_be_gone_on_with_now_can_be_stopped() -> None:
    def makes(record: RunRecord) -> Any:
        raise ModuleNotFoundError("No module named 'tools'")

    log, work = MemoryLog(), Work()
    run = await handed_back(log, work)
    await Runner.attach(run.run_id, log=log).cancel()

    (handle,) = await Runner.recover(log, makes)

    with pytest.raises(RunCancelledError):
        await handle
    assert (await log.record(run.run_id)).status == "cancelled"
    assert check_stream(await entries_of(log, run.run_id)).ok


class Dies(BaseException):
    """Stands for the end of a process: nothing behind it is done."""


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_run_at_whose_agent_the_process_dies_each_time_is_not_tried_for_ever(has_begun: bool) -> None:
    clock, work, asked = ManualClock(), Work(), 0
    log = MemoryLog(clock=clock)
    run_id = (await (handed_back if has_begun else queued)(log, work)).run_id

    def kills(record: RunRecord) -> Any:
        nonlocal asked
        asked += 1
        raise Dies

    config, handles = RunConfig(clock=clock, lease=LEASE), list[RunResultStreaming]()
    while not handles:
        with contextlib.suppress(Dies):
            handles = await Runner.recover(log, kills, run_config=config, max_attempts=3)
        clock.advance(LEASE + 1)

    with pytest.raises(AttemptsExhaustedError, match="begun 3 times"):
        await handles[0]
    assert asked == 3 - has_begun
    assert (await log.record(run_id)).code == "attempts_exhausted"
    assert check_stream(await entries_of(log, run_id)).ok


async def test_a_run_that_waits_at_whose_agent_the_process_dies_each_time_is_left_waiting() -> None:
    clock, log, asked = ManualClock(), MemoryLog(), 0

    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    agent = Agent(
        name="A", tools=[pay], model=ByHistory({(): [function_call("pay", {}, call_id="p")], ("p",): "Done."})
    )
    run_id = (await Runner.run(agent, "Pay", run_config=RunConfig(log=log))).run_id
    attached = Runner.attach(run_id, log=log)
    await attached.approve("p")

    def kills(record: RunRecord) -> Any:
        nonlocal asked
        asked += 1
        raise Dies

    for _ in range(5):  # each a process
        with contextlib.suppress(Dies):
            recovery = Recovery(log=log, agent=kills, run_config=RunConfig(clock=clock), max_attempts=3)
            assert await recovery.resume(run_id) is None

    assert asked == 3
    assert await attached.status() == "paused"
    assert (await (await attached.resume(agent))).final_output == "Done."


async def test_what_is_no_fault_of_a_run_is_not_counted_against_it() -> None:
    log, work = MemoryLog(), Work()
    run_id = (await queued(log, work)).run_id

    async def takes_for_ever(record: RunRecord) -> Any:
        await asyncio.Event().wait()

    async def store_is_away(record: RunRecord) -> Any:
        raise LogUnavailableError("It is away.")

    def raises(record: RunRecord) -> Any:
        raise ModuleNotFoundError

    for make in [takes_for_ever, store_is_away, raises] * 3:
        recovering = asyncio.create_task(Runner.recover(log, make))
        while not (await log.record(run_id)).is_owned and not recovering.done():
            await asyncio.sleep(0)
        if make is takes_for_ever:
            for _ in range(10):
                await asyncio.sleep(0)
            recovering.cancel()
        await asyncio.wait([recovering])
        assert not (await log.record(run_id)).is_owned
        if not recovering.cancelled():
            recovering.exception()

    assert (await (await recover(log, work.agent()))).final_output == "All done."


async def queued(log: RunStore, work: Work) -> RunRecord:
    return await Runner.submit(log, work.agent(), "Go")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"agent": "first"}, "agent= of recover.. is an Agent, or a function .* not str"),
        ({"context_from": {"user": "ada"}}, "context_from= of recover.. is a function .* not dict"),
        ({"session_from": 5}, "session_from= of recover.. is a function .* not int"),
        ({"max_attempts": 0}, "max_attempts=0"),
    ],
)
async def test_what_recovery_cannot_work_with_costs_no_run_its_life(
    wrong: dict[str, Any], message: str
) -> None:
    log, work = MemoryLog(), Work()
    record = await Runner.submit(log, work.agent(), "Go")

    with pytest.raises(UserError, match=message):
        await Runner.recover(log, **{"agent": work.agent(), **wrong})

    assert (await log.record(record.run_id)).status == "queued"


async def test_a_run_whose_process_dies_each_time_is_not_begun_for_ever() -> None:
    clock, begun, keys = ManualClock(), asyncio.Semaphore(0), list[str | None]()
    log = MemoryLog(clock=clock)

    @tool
    async def kills(ctx: ToolContext[Any]) -> None:
        keys.append(ctx.idempotency_key)
        begun.release()
        await asyncio.Event().wait()

    agent = Agent(name="A", tools=[kills], model=ByHistory({(): [function_call("kills", {}, call_id="c1")]}))
    config = RunConfig(clock=clock, lease=LEASE)
    handles = [Runner.run_streamed(agent, "Go", run_config=replace(config, log=log))]
    for _ in range(3):
        await begun.acquire()
        handles[-1]._run.tenure._tasks[0].cancel()  # type: ignore[union-attr]  # a dead process renews nothing
        clock.advance(LEASE + 1)
        handles += await Runner.recover(log, agent, run_config=config, max_attempts=3)
        if len(keys) == 3:
            break

    with pytest.raises(AttemptsExhaustedError, match="begun 3 times and its process died each time"):
        await handles[-1]
    entries = await entries_of(log, handles[0].run_id)
    assert (await log.record(handles[0].run_id)).code == "attempts_exhausted"
    assert check_stream(entries).ok, str(check_stream(entries))
    assert len(keys) == 3
    assert len(set(keys)) == 1
    for dead in handles[:-1]:
        dead.cancel()
        await asyncio.wait([dead._run.task])  # type: ignore[list-item]


class Basket:
    """What no JSON can say."""


async def test_a_context_that_is_no_json_is_made_anew_of_the_record_of_its_run() -> None:
    log, seen, baskets = MemoryLog(), list[object](), dict[str, Basket]()

    @tool
    async def look(ctx: ToolContext[Any]) -> None:
        seen.append(ctx.context)

    agent = Agent(
        name="A",
        tools=[look],
        model=ByHistory({(): [function_call("look", {}, call_id="c1")], ("c1",): "Seen."}),
    )

    async def basket_of(record: RunRecord) -> Basket:
        return baskets.setdefault(record.caller, Basket())

    await Runner.submit(log, agent, "Go", context=Basket(), caller="ann")
    handle = await recover(log, agent, context_from=basket_of)

    assert (await handle).final_output == "Seen."
    assert seen == [baskets["ann"]]


@pytest.mark.parametrize(
    ("kept", "needed"), [({"context": Basket()}, "context_from="), ({"session": True}, "session_from=")]
)
async def test_a_run_with_what_no_store_can_keep_ends_and_says_what_to_pass(
    kept: dict[str, Any], needed: str
) -> None:
    log, work = MemoryLog(), Work()
    session = SQLiteSession("s") if kept.pop("session", None) else None
    run = Runner.run_streamed(work.agent(), "Go", session=session, run_config=RunConfig(log=log), **kept)
    async for _ in run.entries(types=["tool.finished"]):
        run.hand_back()
        break
    with pytest.raises(HandedBackError):
        await run

    handle = await recover(log, work.agent())

    with pytest.raises(NotResumableError, match=needed):
        await handle
    record = await log.record(run.run_id)
    assert (record.status, record.code) == ("failed", "not_resumable")


async def test_a_run_that_nobody_else_could_go_on_with_is_not_handed_back() -> None:
    run = Runner.run_streamed(Work().agent(), "Go")

    with pytest.raises(UserError, match="Only a run in a store can be handed back"):
        run.hand_back()
    run.cancel()
    async for _ in run.entries():
        pass


def test_a_run_that_nobody_can_go_on_with_ends_at_once_wherever_it_stood() -> None:
    for at in range(1, uninterrupted(), 9):
        asyncio.run(_stopped_and_given_up(at))


async def _stopped_and_given_up(at: int) -> None:
    def nobody(record: Any) -> Agent[Any]:
        raise NotResumableError(f"There is no {record.agent} any more.")

    async with frozen(Work(), at) as (log, run):
        handle = await recover(log, nobody)
        with pytest.raises(NotResumableError):
            await handle
        entries = await entries_of(log, run.run_id)
        report = check_stream(entries)

    end = entries[-1].event
    assert isinstance(end, RunFailed)
    assert end.code == "not_resumable"
    assert report.ok, (at, str(report))


class Damaged(MemoryLog):
    """Cannot read what it keeps of one run beside its events; or, of a second, anything at all."""

    def __init__(self) -> None:
        super().__init__()
        self.without_record = ""
        self.lost = ""

    async def record(self, run_id: str) -> RunRecord:
        if run_id == self.without_record:
            raise LogDamagedError(f"The record of run {run_id} does not fit its checksum.")
        return await super().record(run_id)

    async def claim(self, run_id: str, *, owner: str, lease: float, last: int | None = None) -> int:
        if run_id == self.lost:
            raise LogDamagedError(f"Nothing of run {run_id} can be read.")
        return await super().claim(run_id, owner=owner, lease=lease, last=last)


async def test_a_run_whose_record_was_damaged_ends_and_says_so_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, work = Damaged(), Work()
    queued = [await Runner.submit(log, work.agent(), "Go") for _ in range(3)]
    log.without_record, log.lost = (record.run_id for record in queued[:2])

    damaged, other = await Runner.recover(log, work.agent())

    with pytest.raises(LogDamagedError, match="does not fit its checksum"):
        await damaged
    assert (await other).final_output == "All done."
    assert {record.run_id: (record.status, record.code) for record in await log.runs()} == {
        log.without_record: ("failed", "log_damaged"),
        log.lost: ("queued", None),
        other.run_id: ("completed", None),
    }
    assert f"run {log.lost}: it cannot be gone on with: Nothing" in caplog.text


async def test_a_run_whose_record_was_damaged_on_its_way_ends_behind_what_it_wrote() -> None:
    log, work = Damaged(), Work()
    run = Runner.run_streamed(work.agent(), "Go", run_config=RunConfig(log=log))
    async for _ in run.entries(types=["tool.finished"]):
        run.hand_back()
        break
    with pytest.raises(HandedBackError):
        await run
    log.without_record = run.run_id

    handle = await recover(log, work.agent())

    with pytest.raises(LogDamagedError):
        await handle
    entries = await entries_of(log, run.run_id)
    assert [entry.type for entry in entries if entry.type.startswith("run.")] == [
        "run.started", "run.attempt", "run.failed",
    ]  # fmt: skip
    assert check_stream(entries).ok, str(check_stream(entries))
