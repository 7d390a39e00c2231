"""Event loops from outside: which one runs here, and how to reach one that runs elsewhere, or no longer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import TypeVarTuple

Ts = TypeVarTuple("Ts")


def is_running_on(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the caller runs on `loop`."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False


def call_on(loop: asyncio.AbstractEventLoop, callback: Callable[[*Ts], object], *args: *Ts) -> None:
    """Call `callback` on `loop`: at once where the caller runs on it, soon where that is elsewhere.

    Nothing is called where `loop` is closed: nobody waits there any more. Safe in any thread.
    """
    if is_running_on(loop):
        callback(*args)
    else:
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(callback, *args)


def wake(future: asyncio.Future[None] | None) -> None:
    """Let whoever awaits `future` go on; nothing where it is None, or done. Safe in any thread, and twice."""
    if future is not None:
        call_on(future.get_loop(), _set, future)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
