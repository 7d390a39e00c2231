"""A run under way: how it is cancelled at each of its moments, how it ends, and what its log may do to it."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, RunConfig, Runner, RunResultStreaming, Usage, tool
from millstream.clock import SystemClock
from millstream.context import RunContextWrapper
from millstream.errors import LogError, ModelBehaviorError, RunCancelledError
from millstream.events import ModelStarted, RunCancelled, RunCompleted, RunStarted, Stamp, UserEvent
from millstream.log import Batch, Cursor, EventLog
from millstream.run.active import ActiveRun
from millstream.run.state import RunProgress
from millstream.testing import ModelStep, ScriptedModel, function_call

DEADLINE = 10
USAGE = Usage(requests=1, input_tokens=3, output_tokens=2, total_tokens=5)


async def collect(events: Any) -> list[Any]:
    return [event async for event in events]


async def others_have_run() -> None:
    for _ in range(100):
        await asyncio.sleep(0)


def start(model: ScriptedModel, *tools: Any, **config: Any) -> RunResultStreaming:
    return Runner.run_streamed(
        Agent(name="A", model=model, tools=list(tools)), "Hi", run_config=RunConfig(**config)
    )


def open_calls(run: RunResultStreaming) -> set[Any]:
    """Tool calls of the history that nothing answers."""
    items: list[Any] = run.to_input_list()
    calls = {item["call_id"] for item in items if item.get("type") == "function_call"}
    return calls - {item["call_id"] for item in items if item.get("type") == "function_call_output"}


# --- cancelling, at each moment of a run -------------------------------------------------------


class Scene:
    """A run whose model waits, then its tool; brought to a moment of its life."""

    def __init__(self) -> None:
        self.model_goes_on = asyncio.Event()
        self.tool_goes_on = asyncio.Event()
        self.tool_ended_by_itself = False

        @tool
        async def wait() -> str:
            await self.tool_goes_on.wait()
            self.tool_ended_by_itself = True
            return "waited"

        async def answer(_: Any) -> Any:
            await self.model_goes_on.wait()
            return [function_call("wait", call_id="c1")]

        self.run = start(ScriptedModel([ModelStep.respond(answer), "Good bye."], default_usage=USAGE), wait)

    async def before_its_first_step(self) -> None:
        pass

    async def during_the_model(self) -> None:
        entries = self.run.entries()
        while (await anext(entries)).type != "model.started":
            pass
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

    async def after_its_end(self) -> None:
        self.everything_goes_on()
        await self.run

    def everything_goes_on(self) -> None:
        self.model_goes_on.set()
        self.tool_goes_on.set()


MOMENTS = {
    Scene.before_its_first_step: {
        "now": ("run.cancelled", 0, []),
        "after_tool": ("run.cancelled", 0, []),
        "after_turn": ("run.cancelled", 0, []),
    },
    Scene.during_the_model: {
        "now": ("run.cancelled", 0, []),
        "after_tool": ("run.cancelled", 0, []),
        "after_turn": ("run.cancelled", 5, ["waited"]),
    },
    Scene.during_a_tool: {
        "now": ("run.cancelled", 5, ["The tool call was cancelled before it finished."]),
        "after_tool": ("run.cancelled", 5, ["waited"]),
        "after_turn": ("run.cancelled", 5, ["waited"]),
    },
    Scene.between_two_turns: {
        "now": ("run.cancelled", 5, ["waited"]),
        "after_tool": ("run.cancelled", 5, ["waited"]),
        "after_turn": ("run.cancelled", 5, ["waited"]),
    },
    Scene.after_its_end: {
        "now": ("run.completed", 10, ["waited"]),
        "after_tool": ("run.completed", 10, ["waited"]),
        "after_turn": ("run.completed", 10, ["waited"]),
    },
}
"""The moment, the mode, and then: the terminal event, tokens used, outputs of tools in the history."""


async def by_handle(run: RunResultStreaming, mode: Any) -> None:
    run.cancel(mode)


async def twice(run: RunResultStreaming, mode: Any) -> None:
    run.cancel(mode)
    run.cancel("after_turn")  # which is later, or the same, and changes nothing
    run.cancel(mode)


async def from_another_thread(run: RunResultStreaming, mode: Any) -> None:
    await asyncio.to_thread(run.cancel, mode)


ROWS = [
    pytest.param(moment, mode, sees, cancel, id=f"{mode} {moment.__name__} {cancel.__name__}")
    for moment, modes in MOMENTS.items()
    for mode, sees in modes.items()
    for cancel in (by_handle, twice, from_another_thread)
    # To go to another thread takes steps, the first of which is the run's.
    if not (moment is Scene.before_its_first_step and cancel is from_another_thread)
]


@pytest.mark.parametrize(("moment", "mode", "sees", "cancel"), ROWS)
async def test_a_cancelled_run_ends_once_with_a_valid_history_and_its_usage(
    moment: Callable[[Scene], Any],
    mode: Any,
    sees: Any,
    cancel: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with asyncio.timeout(DEADLINE):
        scene = Scene()
        await moment(scene)
        await cancel(scene.run, mode)
        if mode != "now":
            scene.everything_goes_on()
        entries = await collect(scene.run.entries())

    terminal, tokens, outputs = sees
    types = [entry.type for entry in entries]
    assert types[0] == "run.started"
    assert types[-1] == terminal
    assert sum(kind in ("run.completed", "run.failed", "run.cancelled") for kind in types) == 1
    assert types.count("model.started") == types.count("model.completed")
    assert types.count("tool.started") == types.count("tool.finished")
    assert entries[-1].event.usage.get("total_tokens", 0) == tokens
    assert [i.output for i in scene.run.new_items if i.type == "tool_call_output_item"] == outputs
    assert not open_calls(scene.run)
    assert not caplog.records


async def test_a_later_cancel_may_only_make_a_run_stop_sooner() -> None:
    scene = Scene()
    await scene.during_a_tool()

    scene.run.cancel("after_turn")
    scene.run.cancel("now")
    scene.run.cancel("after_tool")
    entries = await collect(scene.run.entries())

    assert entries[-1].event.mode == "now"
    assert not scene.tool_ended_by_itself


@pytest.mark.parametrize("mode", ["now", "after_tool", "after_turn"])
async def test_a_run_may_be_cancelled_by_what_prepares_its_turn(mode: Any) -> None:
    handles: list[RunResultStreaming] = []

    def instructions(_context: Any, _agent: Any) -> str:
        handles[0].cancel(mode)
        return ""

    model = ScriptedModel(["Hello."])
    handles.append(Runner.run_streamed(Agent(name="A", instructions=instructions, model=model), "Hi"))
    entries = await collect(handles[0].entries())

    # A turn that has begun is let finish by "after_turn", and here that is the last.
    assert entries[-1].type == ("run.completed" if mode == "after_turn" else "run.cancelled")
    assert len(model.calls) == (mode == "after_turn")


async def test_partial_text_is_kept_and_marked() -> None:
    run = start(ScriptedModel([ModelStep("Hello there, friend.", hang_after=6)]))
    entries = run.entries()
    while b"there" not in (await anext(entries)).event.to_json():
        pass

    run.cancel()
    last = (await collect(run.entries()))[-1]

    assert last.event.partial == "Hello there,"
    history: list[Any] = run.to_input_list()
    assert history[-1]["status"] == "incomplete"
    assert history[-1]["content"][0]["text"] == "Hello there,"


async def test_the_models_stream_is_closed_when_its_run_is_cancelled() -> None:
    closed = asyncio.Event()

    async def endless(_: Any) -> AsyncIterator[Any]:
        try:
            await asyncio.Event().wait()
            yield
        finally:
            closed.set()

    run = start(ScriptedModel([ModelStep.stream(endless)]))
    await others_have_run()

    await run.aclose()

    assert closed.is_set()


async def test_cancelling_the_task_of_a_run_before_its_first_step_is_an_end_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = start(ScriptedModel(["Hello."]))
    assert run.run_loop_task

    run.run_loop_task.cancel()
    entries = await collect(run.entries())

    assert [entry.type for entry in entries] == ["run.started", "run.cancelled"]
    with pytest.raises(RunCancelledError):
        await run
    assert not caplog.records


def test_a_loop_that_shuts_down_ends_the_runs_that_it_has_just_begun(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def begin() -> RunResultStreaming:
        return start(ScriptedModel(["Hello."]))

    run = asyncio.run(begin())

    assert run.is_cancelled
    assert not caplog.records


def test_a_loop_that_shuts_down_ends_a_run_with_its_tools() -> None:
    async def begin() -> RunResultStreaming:
        scene = Scene()
        await scene.during_a_tool()
        return scene.run

    run = asyncio.run(begin())

    assert run.is_cancelled
    assert not open_calls(run)


# --- a run built by hand -----------------------------------------------------------------------


def active(log: EventLog | None = None, *, loop: asyncio.AbstractEventLoop | None = None) -> ActiveRun:
    progress = RunProgress(
        run_id="run_1",
        input="Hi",
        current_agent=Agent(name="A"),
        context_wrapper=RunContextWrapper(None),
        max_turns=None,
    )
    return ActiveRun(
        progress,
        RunConfig(),
        log or MemoryLog(),
        streamed=True,
        loop=loop or asyncio.get_running_loop(),
    )


def nested(parent: ActiveRun) -> ActiveRun:
    progress = RunProgress("run_2", "Hi", Agent(name="B"), RunContextWrapper(None), max_turns=None)
    log = parent.trunk.log
    return ActiveRun(
        progress, RunConfig(), log, streamed=True, loop=parent.loop, parent=parent, call_id="call_1"
    )


async def ends(run: ActiveRun) -> list[tuple[str, str]]:
    entries = await collect(RunResultStreaming(run).entries())
    return [(entry.run_id, entry.type) for entry in entries if entry.is_terminal]


@pytest.mark.breaks_grammar("runs that are driven by hand")
async def test_a_nested_run_that_would_not_stop_ends_before_the_run_that_it_is_nested_in() -> None:
    run = active()
    child, grandchild = (first := nested(run)), nested(first)
    grandchild.run_id = grandchild.progress.run_id = "run_3"
    for each in (run, child, grandchild):
        await each.write(RunStarted(agent="A"))

    await run.complete()
    await child.write(UserEvent(name="too late"))
    await child.end_cancelled()

    assert await ends(run) == [
        ("run_3", "run.cancelled"),
        ("run_2", "run.cancelled"),
        ("run_1", "run.completed"),
    ]
    assert run.children == child.children == set()


@pytest.mark.breaks_grammar("runs that are driven by hand")
def test_a_loop_that_is_closed_ends_the_nested_runs_first() -> None:
    loop = asyncio.new_event_loop()

    async def begin() -> ActiveRun:
        run = active(loop=loop)
        nested(run)
        return run

    run = loop.run_until_complete(begin())
    loop.close()
    run.look_after()

    assert asyncio.run(ends(run)) == [("run_2", "run.cancelled"), ("run_1", "run.cancelled")]


async def test_a_run_that_pauses_lets_its_readers_go_and_its_log_stays_open() -> None:
    run = active()
    handle = RunResultStreaming(run)
    early = asyncio.create_task(collect(handle.entries()))
    await run.write(RunStarted(agent="A"))

    await run.pause()

    assert [entry.type for entry in await early] == ["run.started", "run.paused"]
    assert [entry.type for entry in await collect(handle.entries())] == ["run.started", "run.paused"]
    assert await collect(handle) == []
    assert (handle.is_complete, handle.is_cancelled, run.terminal) == (True, False, None)
    assert (await handle).final_output is None
    assert not (await run.trunk.log.info("run_1")).sealed
    handle.cancel()  # there is nothing to stop
    assert (await run.trunk.log.info("run_1")).last == 2


async def test_what_goes_on_beside_a_run_may_end_it_with_an_error() -> None:
    async def never(_: Any) -> ModelStep:
        await asyncio.Event().wait()
        raise AssertionError

    model = ScriptedModel([ModelStep.respond(never)])
    error = ModelBehaviorError("no more of this")
    handle = Runner.run_streamed(Agent(name="A", model=model), "Hi")
    await anext(handle.entries())

    handle._run.stop_with(error)
    handle._run.stop_with(ValueError("a second is not heard"))

    with pytest.raises(ModelBehaviorError) as raised:
        await handle
    assert raised.value is error


async def test_events_of_nested_runs_are_entries_and_nothing_else() -> None:
    log = MemoryLog()
    run = active(log)
    await run.write(RunStarted(agent="A"))
    delta = b'{"type":"response.output_text.delta","delta":"inner","sequence_number":1}'
    nested = Batch(2, Stamp(run_id="run_2", agent="B", parent_run_id="run_1"), [delta], True)
    await log.append("run_1", nested)
    run.trunk.position = 2
    await run.complete()
    handle = RunResultStreaming(run)

    entries = await collect(handle.entries())

    assert [entry.type for entry in entries] == ["run.started", "raw_response_event", "run.completed"]
    assert await collect(handle) == []
    assert await collect(handle.text()) == []


async def test_nothing_is_written_where_there_is_nothing_to_write() -> None:
    run = active()

    await run.write()
    await run.write_model_events([], raw_only=True)

    assert run.position == 0


class Slow(MemoryLog):
    """Suspends before it writes, or after, as the durable logs do; and may fail."""

    def __init__(self, *, before: int = 0, after: int = 0, error: Exception | None = None) -> None:
        super().__init__()
        self.before = before
        self.after = after
        self.error = error

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        for _ in range(self.before):
            await asyncio.sleep(0)
        if self.error is not None:
            raise self.error
        await super().append(run_id, batch, epoch=epoch)
        for _ in range(self.after):
            await asyncio.sleep(0)


@pytest.mark.parametrize(("before", "after"), [(3, 0), (0, 3), (1, 1)])
async def test_an_append_that_was_interrupted_is_written_once(before: int, after: int) -> None:
    run = active(Slow(before=before, after=after))
    writing = asyncio.create_task(run.write(RunStarted(agent="A")))
    await asyncio.sleep(0)

    writing.cancel()

    with pytest.raises(asyncio.CancelledError):
        await writing
    ending = asyncio.create_task(run.end_cancelled())
    for _ in range(3):
        await asyncio.sleep(0)
        ending.cancel()
    await ending
    entries = await collect(RunResultStreaming(run).entries())
    assert [entry.type for entry in entries] == ["run.started", "run.cancelled"]


async def test_a_place_that_could_not_be_written_is_free_for_the_end() -> None:
    log = Slow(error=LogError("full"))
    run = active(log)

    with pytest.raises(LogError):
        await run.write(RunStarted(agent="A"))
    log.error = None
    await run.complete()

    entries = await collect(RunResultStreaming(run).entries())
    assert [(entry.position, entry.type) for entry in entries] == [(1, "run.started"), (2, "run.completed")]


async def test_an_end_that_cannot_be_written_is_logged_and_is_an_end_all_the_same(
    caplog: pytest.LogCaptureFixture,
) -> None:
    run = active(Slow(error=LogError("gone")))

    await run.complete()
    await run.wait_done()

    assert isinstance(run.terminal, RunCompleted)
    assert [r.getMessage() for r in caplog.records] == ["run run_1: its end could not be written to its log"]


@pytest.mark.parametrize(
    ("log", "lines", "entries"),
    [
        (Slow(), 0, 2),
        (Slow(before=1), 0, 0),  # nobody can wait for it there
        (Slow(error=LogError("gone")), 1, 0),
    ],
    ids=["a log that writes at once", "a slow one", "a broken one"],
)
def test_a_run_that_takes_no_step_any_more_is_ended_from_outside(
    log: Slow, lines: int, entries: int, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.new_event_loop()
    run = active(log, loop=loop)
    loop.close()

    asyncio.run(asyncio.wait_for(run.wait_done(), DEADLINE))
    run.abandon()

    assert isinstance(run.terminal, RunCancelled)
    assert len(caplog.records) == lines
    assert run.position == entries


# --- ends that the run's own task cannot write -------------------------------------------------


def cut_off(scene: Callable[[], Any]) -> RunResultStreaming:
    """The run of `scene`, whose loop was closed there without a word to its tasks."""
    loop = asyncio.new_event_loop()
    run: RunResultStreaming = loop.run_until_complete(scene())
    loop.close()
    return run


def last(entries: list[Any], count: int) -> list[str]:
    return [getattr(entry.event, "name", entry.type) for entry in entries[-count:]]


async def when(run: RunResultStreaming, *, event: str, times: int = 1) -> None:
    """Return when that many events of that name are written."""
    async for entry in run.entries():
        times -= getattr(entry.event, "name", entry.type) == event or entry.type == event
        if not times:
            return


def test_a_loop_that_is_closed_in_a_model_call_leaves_the_call_ended_and_its_text_kept() -> None:
    async def scene() -> RunResultStreaming:
        run = start(ScriptedModel([ModelStep("Hello there.", hang_after=5)]))
        await when(run, event="raw_response_event", times=5)
        return run

    run = cut_off(scene)
    entries = asyncio.run(collect(run.entries()))

    assert [entry.type for entry in entries[-3:]] == [
        "model.completed",
        "run_item_stream_event",
        "run.cancelled",
    ]
    ended, kept, end = [entry.event for entry in entries[-3:]]
    assert (ended.status, ended.turn) == ("cancelled", 1)
    assert end.partial == run.to_input_list()[-1]["content"][0]["text"] == "Hello"  # type: ignore[index]
    assert kept.item is run.new_items[-1]


def test_a_loop_that_is_closed_while_tools_run_leaves_them_finished_and_every_call_answered() -> None:
    @tool
    async def ends() -> str:
        return "done"

    @tool
    async def waits() -> None:
        await asyncio.Event().wait()

    async def scene() -> RunResultStreaming:
        calls = [function_call("waits", call_id="c1"), function_call("ends", call_id="c2")]
        run = start(ScriptedModel([calls]), waits, ends)
        await when(run, event="tool.finished")
        return run

    run = cut_off(scene)
    entries = asyncio.run(collect(run.entries()))

    assert [entry.type for entry in entries[-3:]] == [
        "tool.finished",
        "run_item_stream_event",
        "run.cancelled",
    ]
    finished = entries[-3].event
    assert (finished.call_id, finished.status, finished.code) == ("c1", "cancelled", "cancelled")
    assert finished.ms >= 0
    outputs: list[Any] = [item for item in run.to_input_list() if item.get("type") == "function_call_output"]
    assert [item["call_id"] for item in outputs] == ["c1", "c2"]  # the order of the calls
    assert outputs[1]["output"] == "done"
    assert len({id(item) for item in run.new_items}) == len(run.new_items) == 4


@pytest.mark.parametrize("door", ["streamed", "whole"])
def test_a_clock_that_breaks_while_a_tool_runs_leaves_nothing_open(door: str) -> None:
    class Breaks(SystemClock):
        broken = False

        def time(self) -> float:
            if self.broken:
                raise ValueError("no time")
            return 7.0

    @tool
    def breaks() -> str:
        clock.broken = True
        return "done"

    clock, log = Breaks(), MemoryLog()
    agent = Agent(name="A", model=ScriptedModel([[function_call("breaks", call_id="c1")]]), tools=[breaks])
    config = RunConfig(clock=clock, log=log)

    async def run() -> Any:
        if door == "whole":
            return await Runner.run(agent, "Hi", run_config=config)
        return await Runner.run_streamed(agent, "Hi", run_config=config)

    with pytest.raises(ValueError, match="no time") as raised:
        asyncio.run(run())

    data: Any = raised.value.run_data  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    entries = asyncio.run(collect(log.follow(data.run_id)))
    assert [entry.type for entry in entries[-3:]] == ["tool.finished", "run_item_stream_event", "run.failed"]
    assert {entry.time for entry in entries} == {7.0}
    assert entries[-2].event.item is data.new_items[-1]
    assert data.new_items[-1].output == "done"  # what the tool gave, though it could not be written then


async def test_an_end_that_is_lost_with_its_log_closes_what_is_open_for_readers_of_this_process() -> None:
    class Gone(MemoryLog):
        async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
            if run_id in gone:
                raise LogError("gone")
            await super().append(run_id, batch, epoch=epoch)

    @tool
    async def waits() -> None:
        await asyncio.Event().wait()

    gone: set[str] = set()
    run = start(ScriptedModel([[function_call("waits", call_id="c1")]]), waits, log=Gone())
    await when(run, event="tool.started")
    gone.add(run.run_id)
    run.cancel("now")

    entries = await collect(run.entries())

    assert [entry.type for entry in entries[-3:]] == [
        "tool.finished",
        "run_item_stream_event",
        "run.cancelled",
    ]
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    assert not open_calls(run)


async def test_a_log_that_takes_no_handoff_has_it_in_its_end_at_least() -> None:
    class Full(MemoryLog):
        async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
            if getattr(batch.payloads[0], "name", "") == "handoff_occured":
                raise LogError("full")
            await super().append(run_id, batch, epoch=epoch)

    model = ScriptedModel([[function_call("transfer_to_b", call_id="h1")]])
    agent = Agent(name="A", model=model, handoffs=[Agent(name="b", model=model)])
    run = Runner.run_streamed(agent, "Hi", run_config=RunConfig(log=Full()))

    entries = await collect(run.entries())

    assert last(entries, 2) == ["handoff_occured", "run.failed"]
    assert entries[-2].event.item is run.new_items[-1]


async def test_what_is_written_behind_an_end_from_outside_is_dropped() -> None:
    run = active()
    run.abandon()

    await run.write(ModelStarted(turn=1))
    await run.complete()

    assert [e.type for e in await collect(RunResultStreaming(run).entries())] == [
        "run.started",
        "run.cancelled",
    ]


class Frozen(Exception):
    """An exception that lets nobody write on it."""

    def __setattr__(self, name: str, value: object) -> None:
        raise TypeError("frozen")


async def test_an_exception_of_any_class_ends_a_run() -> None:
    run = active()

    await run.fail(Frozen("no"))

    with pytest.raises(Frozen):
        run.raise_failure()


async def test_those_who_wait_on_a_closed_loop_do_not_hinder_the_end() -> None:
    run = active()

    def wait_and_close() -> None:
        loop = asyncio.new_event_loop()
        waiting = loop.create_task(run.wait_done())
        loop.run_until_complete(asyncio.sleep(0))
        waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        kept.append(waiting)
        loop.close()

    kept: list[Any] = []
    await asyncio.to_thread(wait_and_close)

    await run.complete()

    assert run.is_done


async def test_several_may_wait_and_one_of_them_may_leave() -> None:
    run = active()
    waiting = [asyncio.create_task(run.wait_done()) for _ in range(3)]
    await asyncio.sleep(0)

    waiting[0].cancel()
    await run.complete()
    await asyncio.wait(waiting)

    assert [task.cancelled() for task in waiting] == [True, False, False]


def test_a_cancel_that_comes_when_the_loop_is_closed_is_harmless() -> None:
    loop = asyncio.new_event_loop()
    run = active(loop=loop)
    loop.close()

    run.cancel("now")

    assert run.cancel_mode == "now"


async def test_a_failure_that_was_told_of_is_not_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    run = active()
    handle = RunResultStreaming(run)
    await run.fail(ValueError("x"))
    caplog.set_level(logging.WARNING)

    with pytest.raises(ValueError, match="x"):
        await handle
    del handle
    gc.collect()
    run.nobody_left()

    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


class Unreadable(MemoryLog):
    """A log that can be written, and not be read."""

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        raise LogError("no cursor today")


async def test_a_run_whose_log_cannot_be_read_can_still_be_awaited() -> None:
    run = start(ScriptedModel(["Hello."]), log=Unreadable())

    with pytest.raises(LogError):
        run.stream_events()

    assert (await run).final_output == "Hello."
