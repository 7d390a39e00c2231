"""Threads for synchronous tools."""

import asyncio
import contextvars
import threading

import pytest

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


async def test_more_calls_than_a_pool_has_threads_run_at_once() -> None:
    everybody = threading.Barrier(50)

    assert len(await asyncio.gather(*(in_thread(everybody.wait) for _ in range(50)))) == 50


@pytest.mark.may_block
def test_a_loop_that_is_gone_is_not_troubled_by_a_late_result() -> None:
    started, release = threading.Event(), threading.Event()
    threads: list[threading.Thread] = []

    def stuck() -> None:
        threads.append(threading.current_thread())
        started.set()
        release.wait()

    async def leave() -> None:
        task = asyncio.create_task(in_thread(stuck))
        await in_thread(started.wait)
        task.cancel()

    asyncio.run(leave())  # returns although the thread goes on
    release.set()
    threads[0].join()
