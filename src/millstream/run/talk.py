"""What a tool says while it runs: its progress, and the pieces of its result.

Rules of this file:

1. What is said stands in the log in its order, behind `tool.started` and before
   `tool.finished` of its call. What comes before or after that is dropped.
2. It is encoded where and when it is said: what becomes of the value later is not told.
3. To say something waits for nothing. On the event loop it can be awaited, until it is
   written; in a thread, one that is `AHEAD` of the log waits.
4. What is said without being awaited is written together, one append for all that waits.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from millstream.event_loops import call_on, is_running_on

if TYPE_CHECKING:
    from millstream.events import ToolPartial, ToolProgress
    from millstream.run.active import ActiveRun

logger = logging.getLogger("millstream")

AHEAD = 100
"""How many things a thread may have said that are not written yet."""

PATIENCE = 1.0
"""Seconds after which a thread that waits looks whether anybody will write at all."""


class Talk:
    """What one call of a tool says.

    Args:
        run: the run that made the call.
    """

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._is_open = False
        self._waiting: list[ToolProgress | ToolPartial] = []
        self._from_threads = 0
        """How many of those that wait were said in a thread."""
        self._room = threading.Semaphore(AHEAD)
        self._writing: asyncio.Task[None] | None = None

    @property
    def is_open(self) -> bool:
        """Whether the tool runs, so that it may say something."""
        return self._is_open and not self._run.is_done

    def begin(self) -> None:
        """The tool begins to run."""
        self._is_open = True

    def say(self, event: ToolProgress | ToolPartial) -> Said:
        """Say `event`; may be awaited. Safe in any thread."""
        if not self.is_open:
            self._drop(event)
            return Said(None)
        self._run.writer.seal([event])
        loop = self._run.loop
        if is_running_on(loop):
            self._put(event)
            return Said(self)
        while not self._room.acquire(timeout=PATIENCE):
            if not self.is_open or loop.is_closed():
                break
        call_on(loop, self._put_from_thread, event)
        return Said(None)

    async def end(self) -> None:
        """The call is over: write what waits, and take no more."""
        self._is_open = False
        self._room.release(AHEAD)  # nobody waits any longer
        await self._flush()

    async def written(self) -> None:
        """Write what waits; returns when everything that was said so far is written."""
        await self._flush()
        await asyncio.sleep(0)  # a log in memory waits for nothing, and a tool that talks is not alone

    async def _flush(self) -> None:
        await self._write()
        if self._writing is not None and not self._writing.done():
            await asyncio.wait([self._writing])

    async def _write(self) -> None:
        """Write what waits. A log that does not take it ends the run."""
        events, self._waiting = self._waiting, []
        from_threads, self._from_threads = self._from_threads, 0
        if not events:
            return
        try:
            await self._run.write(*events)
        except Exception as error:
            self._run.stop_with(error)
        finally:
            if from_threads:
                self._room.release(from_threads)

    def _put(self, event: ToolProgress | ToolPartial) -> None:
        if not self._waiting:
            # Soon, not now: who awaits what he said writes it himself.
            self._run.loop.call_soon(self._begin_to_write)
        self._waiting.append(event)

    def _put_from_thread(self, event: ToolProgress | ToolPartial) -> None:
        if not self.is_open:
            self._drop(event)
            return
        self._from_threads += 1
        self._put(event)

    def _begin_to_write(self) -> None:
        if not self._waiting or (self._writing is not None and not self._writing.done()):
            return
        self._writing = self._run.loop.create_task(self._write_all())
        # As for the run's own task: a loop that is closed carelessly says nothing of ours.
        self._writing._log_destroy_pending = False  # pyright: ignore[reportAttributeAccessIssue]

    async def _write_all(self) -> None:
        while self._waiting:
            await self._write()

    def _drop(self, event: ToolProgress | ToolPartial) -> None:
        logger.debug(
            "run %s: something was said of tool %s while its call %s did not run: %s is dropped",
            self._run.run_id, event.name, event.call_id, event.type,
        )  # fmt: skip


class Said:
    """Something that was said. Awaited on the run's event loop, it returns when that is written."""

    __slots__ = ("_talk",)

    def __init__(self, talk: Talk | None) -> None:
        self._talk = talk

    def __await__(self) -> Generator[Any, None, None]:
        if self._talk is not None:
            yield from self._talk.written().__await__()
