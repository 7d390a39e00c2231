"""The doors: `run`, `run_sync`, `run_streamed`, `run_streamed_sync`. What each starts, and what it refuses."""

import asyncio
import contextvars
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import weakref
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    MaxTurnsExceeded,
    MemoryLog,
    NestedLoopError,
    NoRunningLoopError,
    RunConfig,
    RunContextWrapper,
    Runner,
    UserError,
    runner,
    tool,
)
from millstream.clock import SystemClock
from millstream.events import RunCompleted, RunFailed
from millstream.log import Batch
from millstream.models.promise import ModelProvider
from millstream.run import start
from millstream.testing import ModelStep, ScriptedModel, function_call

OUTPUT = "It is cold."
user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")


@tool
async def weather() -> str:
    return "cold"


def agent(*tools: Any, model: ScriptedModel | None = None) -> Agent[Any]:
    tools = tools or (weather,)
    calls = [function_call(t.name, call_id=f"c{n}") for n, t in enumerate(tools)]
    return Agent(name="A", model=model or ScriptedModel([calls, OUTPUT]), tools=list(tools))


def silent() -> Agent[Any]:
    return agent(model=ScriptedModel([ModelStep("Hello.", hang_after=0)]))


# --- one loop behind all doors -----------------------------------------------------------------


def by_run(*args: Any, **kwargs: Any) -> Any:
    return asyncio.run(Runner.run(*args, **kwargs))


def by_run_streamed(*args: Any, **kwargs: Any) -> Any:
    async def main() -> Any:
        return await Runner.run_streamed(*args, **kwargs)

    return asyncio.run(main())


def by_run_streamed_sync(*args: Any, **kwargs: Any) -> Any:
    with Runner.run_streamed_sync(*args, **kwargs) as stream:
        return stream.result()


DOORS = pytest.mark.parametrize("door", [by_run, by_run_streamed, Runner.run_sync, by_run_streamed_sync])


@DOORS
def test_all_doors_come_to_the_same_result(door: Any) -> None:
    result = door(agent(), "Hi", context={"a": 1})

    assert result.final_output == OUTPUT
    assert [item.type for item in result.new_items] == [
        "tool_call_item",
        "tool_call_output_item",
        "message_output_item",
    ]
    assert result.context_wrapper.context == {"a": 1}
    assert result.context_wrapper.usage.requests == 2


@DOORS
def test_all_doors_raise_the_same_error(door: Any) -> None:
    with pytest.raises(MaxTurnsExceeded) as raised:
        door(agent(), "Hi", max_turns=1)

    assert raised.value.run_data
    assert len(raised.value.run_data.new_items) == 2


@DOORS
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"starting_agent": "A"}, "must be an Agent, not str"),
        ({"max_turns": 0}, "at least one turn"),
        ({"run_config": {"ahed": "turn"}}, "ahed"),
        ({"session": object()}, "session"),
    ],
)
def test_all_doors_refuse_what_cannot_work(door: Any, arguments: dict[str, Any], says: str) -> None:
    model = ScriptedModel([OUTPUT])

    with pytest.raises(UserError, match=says):
        door(**{"starting_agent": agent(model=model), "input": "Hi", **arguments})

    assert not model.calls


class FindsNothing(ModelProvider):
    def get_model(self, model_name: str | None) -> Any:
        raise LookupError("find nothing")


@DOORS
@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"starting_agent": "A"}, UserError, "must be an Agent"),
        ({"input": 5}, UserError, "input"),
        ({"max_turns": 0}, UserError, "at least one turn"),
        ({"max_turns": "3"}, UserError, "max_turns='3': a whole number"),
        ({"max_turns": True}, UserError, "a whole number"),
        ({"run_config": 5}, UserError, "takes a RunConfig"),
        ({"run_config": {"clock": 5}}, UserError, r"RunConfig\.clock"),
        ({"error_handlers": {"max_turn": None}}, UserError, "max_turn"),
        ({"error_handlers": 5}, UserError, "takes a dict of functions"),
        ({"run_config": {"model": "m", "model_provider": FindsNothing()}}, LookupError, "find nothing"),
        ({"session": object()}, UserError, "session"),
    ],
)
def test_whatever_is_raised_before_the_run_says_how_far_it_came(
    door: Any, arguments: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says) as raised:
        door(**{"starting_agent": agent(), "input": "Hi", **arguments})

    run_data: Any = raised.value.run_data  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    assert run_data.new_items == []
    assert run_data.run_id.startswith("run_")


class StoppingClock(SystemClock):
    """Breaks when it has been asked so many times."""

    def __init__(self, times: int) -> None:
        self.left = times

    def time(self) -> float:
        self.left -= 1
        if self.left < 0:
            raise ValueError("no time")
        return 1.0


@DOORS
@pytest.mark.parametrize("times", [0, 1, 5])
def test_a_clock_that_breaks_fails_the_run(door: Any, times: int) -> None:
    with pytest.raises(ValueError, match="no time") as raised:
        door(agent(), "Hi", run_config=RunConfig(clock=StoppingClock(times)))

    assert raised.value.run_data.run_id  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_clock_that_breaks_at_the_end_spoils_nothing() -> None:
    clock = StoppingClock(1_000)
    run = Runner.run_streamed(agent(), "Hi", run_config=RunConfig(clock=clock))
    async for entry in run.entries():
        if entry.type == "run_item_stream_event" and entry.turn == 2:
            clock.left = 0

    assert run.is_complete


@DOORS
def test_tools_see_the_context_variables_of_the_call(door: Any) -> None:
    seen = []

    @tool
    async def on_the_loop() -> None:
        seen.append(user.get())

    @tool
    def in_a_thread() -> None:
        seen.append(user.get())

    def call(name: str) -> None:
        user.set(name)
        door(agent(on_the_loop, in_a_thread), "Hi")

    for name in ("Ada", "Grace"):
        contextvars.Context().run(call, name)

    assert seen == ["Ada", "Ada", "Grace", "Grace"]


@DOORS
def test_a_context_that_is_wrapped_already_is_taken_as_it_is(door: Any) -> None:
    wrapper = RunContextWrapper("mine")

    assert door(agent(), "Hi", context=wrapper).context_wrapper is wrapper


async def test_a_number_of_turns_may_be_left_open() -> None:
    assert (await Runner.run(agent(), "Hi", max_turns=None)).final_output == OUTPUT


# --- run and run_streamed ----------------------------------------------------------------------


async def test_to_cancel_the_task_that_awaits_run_cancels_the_run() -> None:
    cancelled = asyncio.Event()
    waits = asyncio.Event()

    @tool
    async def wait() -> None:
        waits.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    running = asyncio.create_task(Runner.run(agent(wait), "Hi"))
    await waits.wait()
    running.cancel()

    with pytest.raises(asyncio.CancelledError):
        await running
    assert cancelled.is_set()


def test_a_stream_needs_a_loop() -> None:
    with pytest.raises(NoRunningLoopError, match="run_streamed_sync") as raised:
        Runner.run_streamed(agent(), "Hi")

    assert isinstance(raised.value, RuntimeError)


async def test_run_streamed_takes_its_arguments_by_place_as_well() -> None:
    result = await Runner.run_streamed(
        agent(), "Hi", "context", 3, None, RunConfig(), None, False, None, None
    )

    assert (result.context_wrapper.context, result.max_turns) == ("context", 3)


async def test_a_run_is_kept_alive_by_its_loop_alone_and_let_go_at_its_end() -> None:
    done = asyncio.Event()

    @tool
    async def finish() -> None:
        gc.collect()
        done.set()

    active = weakref.ref(Runner.run_streamed(agent(finish), "Hi")._run)
    await done.wait()
    while active() is not None:
        await asyncio.sleep(0)

    assert asyncio.get_running_loop() not in start._under_way


async def test_the_loop_of_a_thread_that_has_ended_may_be_collected_while_another_loop_runs() -> None:
    loops: list[Any] = []

    def call() -> None:
        Runner.run_sync(agent(), "Hi")
        loops.append(runner._local.loop)

    thread = threading.Thread(target=call)
    thread.start()
    await asyncio.to_thread(thread.join)
    its_loop = loops[0]._runner.get_loop()
    loops.clear()
    gc.collect()
    for closing in threading.enumerate():
        if closing.name == "millstream closes a loop":
            await asyncio.to_thread(closing.join)

    assert its_loop.is_closed()


def test_a_loop_that_is_closed_without_cancelling_leaves_its_runs_to_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def begin() -> Any:
        run = Runner.run_streamed(silent(), "Hi")
        await anext(run.entries())
        return run

    loop = asyncio.new_event_loop()
    run = loop.run_until_complete(begin())
    loop.close()
    assert not run.is_complete

    by_run(agent(), "Hi")
    gc.collect()

    assert run.is_cancelled
    assert loop not in start._under_way
    assert not caplog.records


def test_an_interrupt_in_the_task_of_a_run_ends_it_with_its_loop() -> None:
    def interrupt(_context: Any, _agent: Any) -> str:
        raise KeyboardInterrupt

    handles: list[Any] = []

    async def main() -> None:
        handles.append(
            Runner.run_streamed(Agent(name="A", instructions=interrupt, model=ScriptedModel([])), "Hi")
        )
        await handles[0]

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(main())

    assert handles[0].is_cancelled


class Odd(BaseException):
    """What frameworks of testing raise, say."""


class OddLog(MemoryLog):
    """Raises something odd when it is to take the end of a run."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if self.times and isinstance(batch.payloads[-1], RunCompleted | RunFailed):
            self.times -= 1
            raise Odd
        await super().append(run_id, batch, epoch=epoch)


@pytest.mark.parametrize("times", [1, 2])
async def test_a_run_whose_task_fails_has_failed(times: int, caplog: pytest.LogCaptureFixture) -> None:
    run = Runner.run_streamed(agent(), "Hi", run_config=RunConfig(log=OddLog(times)))

    with pytest.raises(Odd):
        await run

    terminal = [entry.type async for entry in run.entries() if entry.type.startswith("run.")][1:]
    assert terminal == ["run.failed"]
    assert not run.is_cancelled
    assert f"run {run.run_id}: its task failed" in caplog.messages


# --- run_sync ----------------------------------------------------------------------------------


async def test_run_sync_inside_a_loop_says_what_to_do() -> None:
    with pytest.raises(NestedLoopError, match="await Runner") as raised:
        Runner.run_sync(agent(), "Hi")

    assert isinstance(raised.value, RuntimeError)


def loops_of(calls: int) -> set[asyncio.AbstractEventLoop]:
    loops = set()

    @tool
    async def note() -> None:
        loops.add(asyncio.get_running_loop())

    for _ in range(calls):
        Runner.run_sync(agent(note), "Hi")
    return loops


def test_the_calls_of_one_thread_share_a_loop() -> None:
    assert len(loops_of(3)) == 1
    assert loops_of(1) == loops_of(1)


def test_each_thread_has_a_loop_of_its_own_which_is_closed_with_it() -> None:
    loops: list[asyncio.AbstractEventLoop] = []
    threads = [threading.Thread(target=lambda: loops.extend(loops_of(2))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    gc.collect()

    assert len(set(loops)) == 3
    assert all(loop.is_closed() for loop in loops)


def test_run_sync_leaves_the_current_loop_of_its_thread_alone() -> None:
    def main() -> None:
        mine = asyncio.new_event_loop()
        asyncio.set_event_loop(mine)
        loops_of(1)
        kept.append(asyncio.get_event_loop() is mine)
        asyncio.set_event_loop(None)
        mine.close()

    kept: list[bool] = []
    thread = threading.Thread(target=main)
    thread.start()
    thread.join()

    assert kept == [True]


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_what_an_interrupt_left_half_done_does_not_go_on_with_the_next_call(
    interrupt: type[BaseException],
) -> None:
    stopped = []

    @tool
    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            stopped.append(True)

    def stop(_context: Any, _agent: Any) -> str:
        asyncio.get_running_loop().call_soon(raise_it)
        return ""

    def raise_it() -> None:
        raise interrupt

    calls = [function_call("wait", call_id="c1")]
    interrupted = Agent(name="A", instructions=stop, model=ScriptedModel([calls]), tools=[wait])
    before = loops_of(1)
    with pytest.raises(interrupt):
        Runner.run_sync(interrupted, "Hi")

    assert all(loop.is_closed() for loop in before)
    assert not asyncio_tasks_left(before)
    assert Runner.run_sync(agent(), "Hi").final_output == OUTPUT


def asyncio_tasks_left(loops: set[asyncio.AbstractEventLoop]) -> list[Any]:
    return [task for loop in loops for task in asyncio.all_tasks(loop)]


PROGRAM = """
import asyncio, os, signal, sys
from millstream import Agent, Runner, tool
from millstream.testing import ScriptedModel, function_call

@tool
async def wait():
    try:
        {how}
        await asyncio.Event().wait()
    finally:
        print("the tool was stopped", flush=True)

def agent():
    return Agent(name="A", model=ScriptedModel([[function_call("wait", call_id="c1")], "x"]), tools=[wait])

try:
    {door}
except KeyboardInterrupt:
    print("interrupted", flush=True)
print(Runner.run_sync(Agent(name="B", model=ScriptedModel(["and again"])), "Hi").final_output)
"""

HOW = {
    "Ctrl-C": "os.kill(os.getpid(), signal.SIGINT)",
    "a tool that raises it": "raise KeyboardInterrupt",
}
SYNC_DOORS = {
    "run_sync": 'Runner.run_sync(agent(), "Hi")',
    "run_streamed_sync": 'for event in Runner.run_streamed_sync(agent(), "Hi"): pass',
}


@pytest.mark.slow
@pytest.mark.parametrize("door", SYNC_DOORS)
def test_ctrl_c_stops_the_tools_and_the_next_call_works(door: str) -> None:
    program = PROGRAM.format(how=HOW["Ctrl-C"], door=SYNC_DOORS[door])

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["the tool was stopped", "interrupted", "and again"]


@pytest.mark.slow
def test_a_tool_that_raises_keyboard_interrupt_is_ctrl_c() -> None:
    program = PROGRAM.format(how=HOW["a tool that raises it"], door=SYNC_DOORS["run_sync"])

    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["the tool was stopped", "interrupted", "and again"]


FORKED = """
import os, sys
from millstream import Agent, Runner
from millstream.testing import ScriptedModel

def ask():
    return Runner.run_sync(Agent(name="B", model=ScriptedModel(["asked"])), "Hi").final_output

childless = os.fork()
if childless == 0:
    sys.exit()
os.waitpid(childless, 0)
print(ask(), flush=True)
child = os.fork()
if child == 0:
    print("child", ask(), flush=True)
    sys.exit()
os.waitpid(child, 0)
print("parent", ask(), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_has_a_loop_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORKED], capture_output=True, text=True, timeout=50, check=False
    )

    assert done.stderr == ""
    assert done.stdout.splitlines() == ["asked", "child asked", "parent asked"]


def test_a_signal_that_is_none_of_ours_is_left_alone() -> None:
    before = signal.getsignal(signal.SIGINT)

    Runner.run_sync(agent(), "Hi")

    assert signal.getsignal(signal.SIGINT) is before


def test_no_door_logs_anything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    for door in (by_run, by_run_streamed, Runner.run_sync, by_run_streamed_sync):
        door(agent(), "Hi")

    assert [r for r in caplog.records if r.name.startswith("millstream")] == []
