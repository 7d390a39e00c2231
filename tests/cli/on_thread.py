"""Servers on a thread of their own, for a command that runs in this one."""

import asyncio
import threading
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Any, Self

TOKEN = "t0ken"
PATIENCE = 50


async def by_token(connection: Any) -> str | None:
    """Lets in who has the token."""
    return "ann" if connection.headers.get("authorization") == f"Bearer {TOKEN}" else None


class OnThread(ABC):
    """What `serving` serves, as long as the block lasts."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._over: tuple[asyncio.AbstractEventLoop, asyncio.Event] | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    @abstractmethod
    def serving(self) -> AbstractAsyncContextManager[None]:
        """The servers, ready to be asked within it."""

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        if self._over is not None:
            loop, over = self._over
            loop.call_soon_threadsafe(over.set)
        self._thread.join(PATIENCE)

    async def _serve(self) -> None:
        async with self.serving():
            self._over = asyncio.get_running_loop(), asyncio.Event()
            self._ready.set()
            await self._over[1].wait()
