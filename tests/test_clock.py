"""The one place where time is read and waited for."""

import asyncio
import re
import threading
from pathlib import Path

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, RunConfig, Runner, tool
from millstream.clock import SYSTEM_CLOCK, SystemClock, current_clock, time_limit
from millstream.testing import ManualClock, ScriptedModel, function_call

STRAY = re.compile(
    r"loop(\(\))?\.(time|call_later|call_at)\b|\btime\.(time|monotonic|sleep|perf_counter)\b"
    r"|\basyncio\.(sleep|timeout|timeout_at|wait_for)\(|\bdatetime\.(now|today|utcnow)\("
    r"|\bwait\([^)]*timeout=|\.get\(timeout="
)
DEADLINE = 20
"""Seconds that a thread has, on a machine that has more to do."""

YIELD = "asyncio.sleep(0)"
"""Lets other tasks run, and waits for no time."""

EXCEPTIONS = {
    "clock.py": "the clock of the machine itself",
    "testing/clock.py": "only yields",
    "testing/logs/clause.py": "a net under the logs of strangers, which wait in real time if they hang",
    "testing/sessions.py": "such a net under their sessions",
    "run/model_call.py": "_SLICE: how busy this process is, which a test's clock cannot tell",
    "tracing/batch.py": "how long a batch waits to be full, on a thread that belongs to no run",
    "log/worker.py": "how long a thread rests that watches a file for what others write there",
    "tool/threads.py": "how long a thread is kept that has nothing to do",
    "server/slow_headers.py": "how long a connection waits for headers, in uvicorn, which has its loop and no clock",
}

SLEEP = re.compile(
    r"\basyncio\.sleep\((?!0[,)])|\btime\.sleep\(|\bfrom (asyncio|time) import [^#]*\bsleep\b"
    r"|\bloop\)?\.call_(later|at)\(|\b(timeout|timeout_at|wait_for|wait|get|join|result)\(.*(?<!\d)0?\.\d|\btimeout=0?\.\d"
)
"""Also a limit of less than a second: it is there to be waited for. A longer one is a net under a test that hangs."""

_ELSEWHERE = "looks again in a moment for what another process brings about, which tells nobody here"

SLEEPERS = {
    "cli/test_serve.py": _ELSEWHERE,
    "durable/kit.py": _ELSEWHERE,
    "durable/programs/owners.py": "a run that is slow enough to be stopped in its middle by another process",
    "durable/programs/work.py": _ELSEWHERE,
    "log/test_redis.py": _ELSEWHERE,
    "log/test_redis_faults.py": f"{_ELSEWHERE}; and a server is held still for longer than it may say nothing",
    "log/test_redis_processes.py": _ELSEWHERE,
    "server/test_every_store.py": "a tool that blocks its loop, to see what that costs",
    "server/test_nginx.py": _ELSEWHERE,
    "server/test_cut_processes.py": _ELSEWHERE,
    "server/test_processes.py": _ELSEWHERE,
    "support/keepers.py": "a lease in Redis ends by the server's clock, which no test can move",
    "support/hurry.py": "what a thread's clock waits for is over at once",
    "server/soaking.py": f"{_ELSEWHERE}; and clients and faults come at moments that a seed says",
    "soak.py": f"{_ELSEWHERE}; and faults come at moments that a seed says",
    "test_clock.py": "the lines that are to be found, and the clock of the machine, against real time",
    "test_conftest.py": "programs that block their loop, to see that it is noticed",
    "differential/scenarios/tools.py": "a tool's time limit, in a program for the SDK too, which has no clock to pass in",
}


def strays(source: str) -> list[str]:
    return [line.strip() for line in source.splitlines() if STRAY.search(line.replace(YIELD, ""))]


def test_nothing_reads_the_time_or_waits_for_it_but_by_the_clock(root: Path) -> None:
    src = root / "src" / "millstream"

    found = {str(f.relative_to(src)): strays(f.read_text()) for f in sorted(src.rglob("*.py"))}

    assert {file: lines for file, lines in found.items() if lines and file not in EXCEPTIONS} == {}
    assert len(found["run/model_call.py"]) == 1


def sleepers(source: str) -> list[str]:
    return [line.strip() for line in source.splitlines() if SLEEP.search(line)]


def test_no_test_sleeps(root: Path) -> None:
    tests = root / "tests"

    found = {str(f.relative_to(tests)): sleepers(f.read_text()) for f in sorted(tests.rglob("*.py"))}

    assert {file for file, lines in found.items() if lines} == SLEEPERS.keys()


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.sleep(0.1)",
        "await asyncio.sleep(delay)",
        "time.sleep(1)",
        "from time import sleep",
        "loop.call_later(1, f)",
        "async with asyncio.timeout(0.5):",
        "await asyncio.wait_for(reading, 0.01)",
        "done.wait(timeout=.2)",
    ],
)
def test_a_test_that_sleeps_is_found(line: str) -> None:
    assert sleepers(line) == [line]
    assert sleepers("await asyncio.sleep(0)") == []


@pytest.mark.usefixtures("hurried")
def test_a_hurried_program_waits_for_what_a_thread_brings_and_for_no_time() -> None:
    seen: list[str] = []

    async def after(seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append(f"{seconds / 3600:g} h")

    async def main() -> None:
        loop, thread_is_done = asyncio.get_running_loop(), asyncio.Event()
        begin = current_clock().monotonic()
        await asyncio.gather(after(7200), after(3600), SYSTEM_CLOCK.sleep(10_000))
        seen.append(f"{(current_clock().monotonic() - begin) / 3600:.0f} h")
        held = threading.Event()
        thread = threading.Thread(target=lambda: (held.wait(), loop.call_soon_threadsafe(thread_is_done.set)))
        thread.start()
        late = asyncio.create_task(after(DEADLINE))
        loop.call_soon(held.set)
        await thread_is_done.wait()
        thread.join()
        late.cancel()

    asyncio.run(main())

    assert seen == ["1 h", "2 h", "3 h"]


@pytest.mark.parametrize(
    "line",
    [
        "await asyncio.sleep(0.1)",
        "async with asyncio.timeout(5):",
        "due = loop.time() + 3",
        "timer = loop.call_later(1, f)",
        "timer = self._loop.call_later(1, f)",
        "due = asyncio.get_running_loop().time() + 3",
        "now = time.monotonic()",
        "await asyncio.wait(tasks, timeout=3)",
    ],
)
def test_a_stray_clock_is_found(line: str) -> None:
    assert strays(line) == [line]
    assert strays("await asyncio.sleep(0)") == []


async def test_the_clock_of_a_run_holds_in_its_tools_and_in_the_runs_that_they_start() -> None:
    clock = ManualClock()
    seen: list[object] = []

    @tool
    async def here() -> None:
        seen.append(current_clock())

    @tool
    def in_a_thread() -> None:
        seen.append(current_clock())

    @tool
    async def in_a_run_of_its_own() -> None:
        model = ScriptedModel([[function_call("here")], "done"])
        await Runner.run(Agent(name="inner", model=model, tools=[here]), "hi")

    names = ["here", "in_a_thread", "in_a_run_of_its_own"]
    model = ScriptedModel([[function_call(name) for name in names], "done"])
    agent = Agent(name="outer", model=model, tools=[here, in_a_thread, in_a_run_of_its_own])
    await Runner.run(agent, "hi", run_config=RunConfig(clock=clock))

    assert seen == [clock] * 3
    assert current_clock() is SYSTEM_CLOCK


async def test_a_limit_stops_its_body_and_raises_what_it_was_given() -> None:
    clock, over = ManualClock(), LookupError("over")
    stopped: list[str] = []

    async def body() -> None:
        async with time_limit(clock, 5, over):
            try:
                await asyncio.Event().wait()
            finally:
                stopped.append("stopped")

    task = asyncio.create_task(body())
    await clock.waiting()
    clock.advance(4.5)
    await asyncio.sleep(0)
    early = list(stopped)
    clock.advance(0.5)

    with pytest.raises(LookupError) as raised:
        await task
    assert raised.value is over
    assert (early, stopped) == ([], ["stopped"])


async def test_a_limit_leaves_alone_what_its_body_raises_or_is_told() -> None:
    clock = ManualClock()

    with pytest.raises(TimeoutError, match="the body's own"):
        async with time_limit(clock, 5, LookupError()):
            raise TimeoutError("the body's own")

    async def body() -> None:
        async with time_limit(clock, 5, LookupError()):
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await clock.waiting()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with time_limit(clock, None, LookupError()):
        assert clock.due == ()
    assert clock.due == ()


async def test_the_clock_of_the_machine_goes_by_itself() -> None:
    clock = SystemClock()
    called = asyncio.Event()

    before = clock.monotonic(), clock.time()
    clock.call_later(0.001, called.set)
    await called.wait()
    await clock.sleep(0.001)

    assert clock.monotonic() > before[0]
    assert clock.time() > before[1]
