"""What the transports have in common: a client that may be gone, or take nothing, at any moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from millstream import metrics

if TYPE_CHECKING:
    from millstream.metrics import Transport

logger = logging.getLogger("millstream")


class TookNothingError(Exception):
    """The client took nothing of what it was sent for as long as it may."""


def log_let_go(run_id: str | None, seconds: float, transport: Transport) -> None:
    """Say that a client was let go because it took nothing, and count it; None for one that follows no run."""
    metrics.add(metrics.DROPPED, 1, {"millstream.transport": transport})
    if run_id is None:
        logger.warning("a client that follows no run took nothing for %g s and was let go", seconds)
    else:
        logger.warning(
            "run %s: a client took nothing for %g s and was let go; it may resume", run_id, seconds
        )


ABORT = "millstream.abort"
"""The extension of ASGI by which an HTTP server gives a function that breaks a connection off."""


async def break_off(scope: Mapping[str, Any]) -> None:
    """Break the connection of a client off that takes nothing, where the HTTP server has a way for it.

    What is merely closed is kept by the server, with all that waits to be sent, until its client has taken that.
    """
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    abort = extensions.get(ABORT)
    if abort is not None:
        abort()
        await asyncio.sleep(0)  # the server hears of it, and does not miss the end of the answer


async def first_of(*tasks: asyncio.Task[Any]) -> None:
    """Return when one of `tasks` has ended, and the others were cancelled for it.

    Raises:
        Exception: what one of them raised.
    """
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in tasks:
        if not task.cancelled():
            task.result()
