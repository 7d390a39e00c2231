"""Threads for synchronous tools."""

import asyncio
import contextvars
import threading
from collections import deque
from typing import Any

import pytest

from millstream.tool import threads
from millstream.tool.threads import in_thread

user: contextvars.ContextVar[str] = contextvars.ContextVar("user")


async def test_a_call_runs_in_another_thread_with_the_callers_context() -> None:
    def call() -> tuple[str, bool]:
        seen = user.get()
        user.set("changed in the thread")
        return seen, threading.current_thread() is threading.main_thread()

    user.set("ann")

    assert await in_thread(call) == ("ann", False)
    assert user.get() == "ann"


async def test_what_a_call_raises_is_raised_here() -> None:
    def call() -> None:
        raise KeyError("k")

    with pytest.raises(KeyError, match="k"):
        await in_thread(call)


async def test_stop_iteration_which_no_future_can_hold_is_a_runtime_error() -> None:
    with pytest.raises(RuntimeError, match="raised StopIteration"):
        await in_thread(lambda: next(iter(())), "my-tool")


async def test_cancelling_does_not_wait_for_the_thread_and_its_result_is_dropped() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def stuck() -> str:
        started.set()
        release.wait()
        ended.set()
        return "too late"

    waiting = asyncio.create_task(in_thread(stuck))
    await in_thread(started.wait)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not ended.is_set()

    release.set()
    await in_thread(ended.wait)


async def test_a_thread_that_has_nothing_to_do_serves_the_next_call(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**options: Any) -> None:
        raise AssertionError("a new thread, although one is idle")

    await in_thread(threading.get_ident)
    monkeypatch.setattr(threading, "Thread", refuse)

    assert await in_thread(threading.get_ident)


@pytest.mark.may_block
def test_a_thread_that_waits_in_vain_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.0)
    threads._idle.clear()

    thread = asyncio.run(in_thread(threading.current_thread))
    thread.join(10)

    assert not thread.is_alive()
    assert not threads._idle


@pytest.mark.may_block
def test_a_thread_that_is_taken_while_it_gives_up_still_serves_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Taken(deque[Any]):
        """Somebody takes the thread in the moment between its giving up and its leaving the list."""

        def remove(self, value: Any, /) -> None:
            self.pop().put(lambda: served.set)
            raise ValueError

    served = threading.Event()
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(threads, "_idle", Taken())

    asyncio.run(in_thread(threading.get_ident))

    assert served.wait(10)
    monkeypatch.setattr(threads, "_idle", deque())


async def test_more_calls_than_a_pool_has_threads_run_at_once() -> None:
    everybody = threading.Barrier(50)

    assert len(await asyncio.gather(*(in_thread(everybody.wait) for _ in range(50)))) == 50


@pytest.mark.may_block
def test_a_loop_that_is_gone_is_not_troubled_by_a_late_result() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()
    workers: list[threading.Thread] = []

    def stuck() -> None:
        workers.append(threading.current_thread())
        started.set()
        release.wait()
        ended.set()

    async def leave() -> None:
        task = asyncio.create_task(in_thread(stuck))
        await in_thread(started.wait)
        task.cancel()

    asyncio.run(leave())  # returns although the thread goes on
    assert workers[0].is_alive()
    release.set()
    assert ended.wait(10)
