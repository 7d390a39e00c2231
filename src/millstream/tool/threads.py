"""Threads: where synchronous tools run, off the event loop.

Not `asyncio.to_thread`: its pool has as few as five threads, so that one stuck tool holds up
the tools of other runs, and `asyncio.run` waits for all of them before it returns. Here a
call never waits for another one, a thread that has nothing to do serves the next call, and
none keeps the program from ending.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import threading
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

Deliver: TypeAlias = Callable[[], None]
Job: TypeAlias = Callable[[], Deliver]
"""Does the work, and returns what hands over its result."""

IDLE_SECONDS = 10.0
"""How long a thread waits for its next call before it ends."""

_idle: deque[SimpleQueue[Job | None]] = deque()
"""The threads that wait, each by the queue on which it does; None there ends it."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # threads do not survive a fork


async def in_thread(call: Callable[[], T], name: str = "tool") -> T:
    """Run `call` in a thread, with a copy of the caller's context variables.

    Cancelling this stops the waiting at once. The thread cannot be stopped: it runs to its
    end, and what it returns or raises is dropped. It keeps neither the event loop nor the
    program from ending.
    """
    return await thread_future(call, name)


def thread_future(call: Callable[[], T], name: str = "tool") -> asyncio.Future[T]:
    """`in_thread` for who waits in a way of his own: to cancel what is awaited need not be to cancel this."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def job() -> Deliver:
        try:
            result = context.run(call)
        except StopIteration as error:  # which no future can hold
            failure = RuntimeError(f"{name} raised StopIteration: {error}")
            return functools.partial(deliver, future.set_exception, failure)
        except BaseException as error:
            return functools.partial(deliver, future.set_exception, error)
        return functools.partial(deliver, future.set_result, result)

    def deliver(put: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(lambda: None if future.done() else put(value))

    _start(job)
    return future


def _start(job: Job) -> None:
    try:
        _idle.pop().put(job)
    except IndexError:
        threading.Thread(target=_work, args=(job,), name="millstream-tool", daemon=True).start()


def _work(job: Job | None) -> None:
    jobs: SimpleQueue[Job | None] = SimpleQueue()
    while job is not None:
        deliver = job()
        # Idle before the result is out: the loop may have the next call ready at once. That
        # call waits for the delivery, no longer.
        _idle.append(jobs)
        deliver()
        del deliver
        job = None  # these hold arguments and result
        try:
            job = jobs.get(timeout=IDLE_SECONDS)
        except Empty:
            try:
                _idle.remove(jobs)
            except ValueError:
                job = jobs.get()  # somebody took this thread just now: the call is on its way
