"""The thread that works for a log: in order, in one go, whoever asked and whatever became of them."""

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import pytest

from millstream.errors import LogError
from millstream.log.worker import AT_ONCE, Job, Wakes, Worker

NET = 20
"""Seconds that a thread has, on a machine that has more to do."""


class Notes:
    """Does jobs by noting them; one that is an exception fails with it. The first round waits for `go`."""

    def __init__(self, *, waits: bool = False) -> None:
        self.rounds: list[list[Any]] = []
        self.beats = 0
        self.pause: float | None = None
        self.closed = threading.Event()
        self.go = threading.Event()
        self.has_begun = threading.Event()
        if not waits:
            self.go.set()

    def handle(self, jobs: Sequence[Job[Any]], wakes: Wakes) -> None:
        self.rounds.append([job.work for job in jobs])
        self.has_begun.set()
        assert self.go.wait(NET)
        for job in jobs:
            if isinstance(job.work, Exception):
                job.error = job.work
            else:
                job.result = job.work * 2

    def beat(self, wakes: Wakes) -> float | None:
        self.beats += 1
        return self.pause

    def close(self) -> None:
        self.closed.set()

    @property
    def done(self) -> list[Any]:
        return [work for each in self.rounds for work in each]


def worker(notes: Notes) -> Worker[Any]:
    return Worker(notes, "a worker of tests", "The log of tests")


async def elsewhere(wait: Any) -> Any:
    return await asyncio.get_running_loop().run_in_executor(None, wait)


async def test_who_asks_is_given_what_came_of_it() -> None:
    asked = worker(Notes())

    assert await asked.ask(21) == 42
    with pytest.raises(KeyError):
        await asked.ask(KeyError("x"))

    await asked.aclose()


async def test_what_waits_is_done_in_one_go_and_in_the_order_in_which_it_was_asked() -> None:
    notes = Notes(waits=True)
    asked = worker(notes)

    tasks = [asyncio.create_task(asked.ask(number)) for number in range(50)]
    await asyncio.sleep(0)
    notes.go.set()

    assert await asyncio.gather(*tasks) == [2 * number for number in range(50)]
    assert notes.done == list(range(50))
    assert len(notes.rounds) <= 2
    await asked.aclose()


async def test_a_round_has_a_bound() -> None:
    notes = Notes(waits=True)
    asked = worker(notes)

    tasks = [asyncio.create_task(asked.ask(number)) for number in range(3 * AT_ONCE)]
    await asyncio.sleep(0)
    notes.go.set()
    await asyncio.gather(*tasks)

    assert max(map(len, notes.rounds)) <= AT_ONCE
    assert notes.done == list(range(3 * AT_ONCE))
    await asked.aclose()


async def test_the_job_of_a_caller_who_was_cancelled_is_done_and_nothing_is_said_of_it() -> None:
    notes = Notes(waits=True)
    asked = worker(notes)
    task = asyncio.create_task(asked.ask(ValueError("nobody is there to be told")))
    await asyncio.sleep(0)

    task.cancel()
    await asyncio.wait([task])
    notes.go.set()
    await asked.aclose()
    gc.collect()

    assert len(notes.done) == 1
    assert task.cancelled()


async def test_a_job_is_in_the_queue_before_its_caller_waits() -> None:
    notes = Notes()
    asked = worker(notes)

    call = asked.ask(1)
    call.send(None)
    call.close()
    await asked.aclose()

    assert notes.done == [1]


def test_where_no_loop_runs_a_job_may_be_begun_and_left() -> None:
    notes = Notes()
    asked = worker(notes)

    call = asked.ask(1)
    call.send(None)
    call.close()
    asyncio.run(asked.aclose())

    assert notes.done == [1]


def test_where_no_loop_runs_nobody_can_wait() -> None:
    asked = worker(Notes())
    call = asked.ask(1)
    call.send(None)

    with pytest.raises(RuntimeError, match="where no event loop runs"):
        call.send(None)
    asyncio.run(asked.aclose())


async def test_callers_may_be_on_any_loop_and_one_that_was_closed_hurts_nobody() -> None:
    notes = Notes(waits=True)
    asked = worker(notes)

    def leave() -> None:
        loop = asyncio.new_event_loop()
        task = loop.create_task(asked.ask(1))
        loop.run_until_complete(asyncio.sleep(0))
        task._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]
        loop.close()

    await elsewhere(leave)
    here = asyncio.create_task(asked.ask(2))
    there = asyncio.create_task(elsewhere(lambda: asyncio.run(asked.ask(3))))
    await elsewhere(lambda: notes.has_begun.wait(NET))
    notes.go.set()

    assert await asyncio.gather(here, there) == [4, 6]
    await asked.aclose()


async def test_each_loop_is_called_once_for_all_that_a_round_has_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = asyncio.get_running_loop()
    call = loop.call_soon_threadsafe
    calls: list[Any] = []
    monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *given: (calls.append(given), call(*given)))
    futures = [loop.create_future() for _ in range(100)]
    wakes = Wakes()

    for number, future in enumerate(futures):
        wakes.add(future, number)
    futures.pop(7).cancel()
    wakes.send()
    wakes.send()

    assert sum(await asyncio.gather(*futures)) == sum(range(100)) - 7
    assert len(calls) == 1


async def test_what_a_keeper_raises_is_the_error_of_the_whole_round_and_not_the_end() -> None:
    notes = Notes()
    asked = worker(notes)

    with pytest.raises(TypeError):
        await asked.ask(object())

    assert await asked.ask(1) == 2
    await asked.aclose()


async def test_a_beat_that_fails_is_told_and_is_not_the_end(caplog: pytest.LogCaptureFixture) -> None:
    class Fails(Notes):
        def beat(self, wakes: Wakes) -> float | None:
            raise ValueError("no beat")

    asked = worker(Fails())

    assert await asked.ask(1) == 2
    assert await asked.ask(2) == 4
    await asked.aclose()
    assert "a worker of tests failed" in caplog.text


async def test_a_keeper_is_called_when_it_said_it_wants_to_be_and_when_it_is_poked() -> None:
    notes = Notes()
    asked = worker(notes)
    await asked.ask(1)
    before = notes.beats

    notes.pause = 0.0
    asked.poke()
    while notes.beats < before + 100:
        await asyncio.sleep(0)

    await asked.aclose()
    assert notes.done == [1]


# --- its end ----------------------------------------------------------------------------------


async def test_what_waits_is_done_before_it_closes() -> None:
    notes = Notes(waits=True)
    asked = worker(notes)
    tasks = [asyncio.create_task(asked.ask(number)) for number in range(3)]
    await asyncio.sleep(0)

    closing = asyncio.create_task(asked.aclose())
    await asyncio.sleep(0)
    notes.go.set()
    await closing
    await asked.aclose()

    assert notes.closed.is_set()
    assert await asyncio.gather(*tasks) == [0, 2, 4]


async def test_what_was_closed_takes_nothing_more() -> None:
    notes = Notes()
    asked = worker(notes)
    await asked.ask(1)
    await asked.aclose()

    with pytest.raises(LogError, match="The log of tests was closed"):
        await asked.ask(2)
    asked.poke()

    assert notes.done == [1]


async def test_one_that_was_never_asked_has_no_thread_to_end() -> None:
    notes = Notes()
    before = threading.active_count()

    await worker(notes).aclose()

    assert threading.active_count() == before
    assert not notes.closed.is_set()


async def test_one_that_nobody_has_any_more_does_what_it_was_asked_and_ends() -> None:
    notes = Notes(waits=True)
    asked = worker(notes)
    call = asked.ask(1)
    call.send(None)
    call.close()
    seen = weakref.ref(asked)

    del asked, call
    gc.collect()
    notes.go.set()

    assert seen() is None
    assert await elsewhere(lambda: notes.closed.wait(NET))
    assert notes.done == [1]


PROGRAM = """
import sys, threading
from millstream.log.worker import Worker

class Keeper:
    def handle(self, jobs, wakes):
        for job in jobs:
            print(job.work, flush=True)
    def beat(self, wakes): return None
    def close(self): print("closed", flush=True)

worker = Worker(Keeper(), "w", "The log")
for number in range(3):
    call = worker.ask(number)
    call.send(None)
    call.close()
"""


@pytest.mark.slow
def test_a_program_that_ends_has_done_what_it_asked_for() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ran.stdout.split(), ran.stderr, ran.returncode) == (["0", "1", "2", "closed"], "", 0)


# --- forks ------------------------------------------------------------------------------------


def forked(work: Any) -> str:
    """What `work` returns in a child process of this one."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            said = work()
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
        os.write(writing, said.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


def doubled(asked: Worker[Any]) -> str:
    return str(asyncio.run(asked.ask(1)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_was_used_before_a_fork_says_so_behind_it_and_goes_on_in_front_of_it() -> None:
    asked = worker(Notes())
    assert doubled(asked) == "2"

    said = forked(lambda: doubled(asked))

    assert said.startswith("LogError: The log of tests was used before this process was forked")
    assert "Make another one in the child process" in said
    assert doubled(asked) == "2"
    asyncio.run(asked.aclose())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_what_was_not_used_before_a_fork_works_on_both_sides_of_it() -> None:
    asked = worker(Notes())

    assert forked(lambda: doubled(asked)) == "2"
    assert doubled(asked) == "2"
    asyncio.run(asked.aclose())
