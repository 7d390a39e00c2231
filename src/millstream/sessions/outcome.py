"""Waiting for what cannot be taken back."""

from __future__ import annotations

import asyncio
from typing import TypeVar

T = TypeVar("T")


async def outcome(future: asyncio.Future[T]) -> T:
    """What `future` comes to. Whoever is cancelled meanwhile is so when it is done.

    So that a call which has returned or raised does nothing any more: who stores something
    behind a cancelled call stores it behind that, or in place of it.
    """
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait([future])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return future.result()
    if not future.cancelled():
        future.exception()  # looked at: who was cancelled is told no more
    raise cancelled
