"""Event loops from outside."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from millstream.event_loops import call_on, is_running_on, wake


@contextmanager
def loop_elsewhere() -> Iterator[asyncio.AbstractEventLoop]:
    """A loop that runs on a thread of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def test_where_the_loop_runs_it_is_called_at_once() -> None:
    called: list[int] = []

    call_on(asyncio.get_running_loop(), called.append, 1)

    assert called == [1]


@pytest.mark.may_block  # another loop's thread is waited for
async def test_another_loop_is_called_on_its_own_thread() -> None:
    seen: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    with loop_elsewhere() as loop:
        assert not is_running_on(loop)
        here = asyncio.get_running_loop()

        call_on(loop, lambda: call_on(here, seen.set_result, is_running_on(loop)))

        assert await seen


def test_a_loop_that_is_closed_is_not_called() -> None:
    loop = asyncio.new_event_loop()
    future: asyncio.Future[None] = loop.create_future()
    loop.close()

    call_on(loop, pytest.fail, "called")
    wake(future)

    assert not future.done()


@pytest.mark.may_block  # as above
async def test_who_waits_is_woken_from_another_thread() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    with loop_elsewhere() as loop:
        call_on(loop, wake, future)

        await future


async def test_nothing_comes_of_waking_nobody_or_of_waking_twice() -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    given_up: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    given_up.cancel()

    for each in (None, future, future, given_up):
        wake(each)

    assert future.done()
    assert given_up.cancelled()
