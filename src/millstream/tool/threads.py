"""Threads: where synchronous tools run, off the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def in_thread(call: Callable[[], T], name: str = "millstream-tool") -> T:
    """Run `call` in a thread of its own, with a copy of the caller's context variables.

    Cancelling this stops the waiting at once. The thread cannot be stopped: it runs to its
    end, and what it returns or raises is dropped. It keeps neither the event loop nor the
    program from ending.
    """
    # Not `asyncio.to_thread`: its pool has as few as five threads, so that one stuck tool
    # holds up tools of other runs, and `asyncio.run` waits for the pool before it returns.
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()
    context = contextvars.copy_context()

    def work() -> None:
        try:
            result = context.run(call)
        except StopIteration as error:  # which no future can hold
            settle(future.set_exception, RuntimeError(f"{name} raised StopIteration: {error}"))
        except BaseException as error:
            settle(future.set_exception, error)
        else:
            settle(future.set_result, result)

    def settle(put: Callable[[Any], None], value: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has been closed meanwhile
            loop.call_soon_threadsafe(lambda: None if future.done() else put(value))

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future
