"""Who reads a run in its own process, and how far it waits for them (`RunConfig.ahead`).

A reader is a small object that belongs to whoever iterates it. The run knows it weakly, and
only to answer one question: has everybody who keeps the run from going on taken what there is?

A reader keeps the run from going on while

- it iterates `stream_events()` on the run's own loop,
- it is alive and not closed, and the task that iterates it has not ended,
- that task has not gone on to another reader of the run, and
- nobody awaits the run itself: who awaits the result wants the run to get there.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol


class Reader(Protocol):
    """What the run wants to know of a reader."""

    taken: int
    """Every event up to this position has been taken, and dealt with: the next one was asked for."""
    taken_bytes: int
    """The size of those events, as their batches tell it."""
    __weakref__: object


class _Place:
    """What is known of one reader: whether it is waited for, and in which task it iterates."""

    __slots__ = ("counts", "task")

    def __init__(self) -> None:
        self.counts = False
        self.task: weakref.ref[asyncio.Task[Any]] | None = None


class Readers:
    """The readers of one run that are alive.

    Args:
        loop: the loop that the run is on.
        on_gone: called, in any thread, when a reader is closed or collected.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_gone: Callable[[], None]) -> None:
        self._loop = loop
        self._on_gone = on_gone
        self._places: dict[weakref.ref[Reader], _Place] = {}
        self._awaiting = 0
        self._moved: asyncio.Future[None] | None = None

    def attach(self, reader: Reader) -> None:
        """Take in a reader that was made. It is not waited for before it begins to iterate."""
        self._places[weakref.ref(reader, self._collected)] = _Place()

    def begin(self, reader: Reader) -> None:
        """From now on, wait for `reader`, which iterates in the current task; if that is on the run's loop."""
        ref = weakref.ref(reader)
        place = self._places.pop(ref, None)
        if place is None or not is_running_on(self._loop):
            return
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(_Moved(self))
            place.task = weakref.ref(task)
        place.counts = True
        self._places[weakref.ref(reader, self._collected)] = place  # the latest stands last

    def detach(self, reader: Reader) -> None:
        """Forget a reader that was closed or has come to the end."""
        if self._places.pop(weakref.ref(reader), None) is not None:
            self.moved()
            self._on_gone()

    def __len__(self) -> int:
        return len(self._places)

    def awaited(self, by: int) -> None:
        """Count (+1) or discount (-1) somebody who awaits the run itself."""
        self._awaiting += by
        self.moved()

    def moved(self) -> None:
        """Look again whether the run may go on. May be called from any thread."""
        if self._moved is None:
            return
        if is_running_on(self._loop):
            self._release()
        else:
            with contextlib.suppress(RuntimeError):  # the loop is closed, and nobody waits
                self._loop.call_soon_threadsafe(self._release)

    def _release(self) -> None:
        future = self._moved
        if future is not None and not future.done():
            future.set_result(None)

    async def have_taken(self, position: int) -> None:
        """Return when no reader keeps the run from going on beyond `position`."""
        await self._until(lambda reader: reader.taken >= position)

    async def have_taken_bytes(self, size: int) -> None:
        """Return when no reader keeps the run from going on beyond the first `size` bytes."""
        await self._until(lambda reader: reader.taken_bytes >= size)

    async def _until(self, reached: Callable[[Reader], bool]) -> None:
        while not all(reached(reader) for reader in self._counting()):
            self._moved = self._loop.create_future()
            try:
                await self._moved
            finally:
                self._moved = None

    def _counting(self) -> Iterable[Reader]:
        if self._awaiting or not self._places:
            return ()
        latest: dict[int, Reader] = {}
        for ref, place in list(self._places.items()):
            reader = ref()
            if reader is None or not place.counts:
                continue
            task = place.task() if place.task is not None else None
            if place.task is not None and (task is None or task.done()):
                continue
            # The reader that its task began last; it has left the ones before.
            latest[id(reader if task is None else task)] = reader
        return latest.values()

    def _collected(self, ref: weakref.ref[Reader]) -> None:
        # The collector may run in any thread, and at interpreter exit when the loop is closed.
        if self._places.pop(ref, None) is None:
            return
        self.moved()
        self._on_gone()


class _Moved:
    """A task's done-callback that knows its readers weakly: the task may outlive the run by far."""

    __slots__ = ("_readers",)

    def __init__(self, readers: Readers) -> None:
        self._readers = weakref.ref(readers)

    def __call__(self, _task: object) -> None:
        readers = self._readers()
        if readers is not None:
            readers.moved()


def is_running_on(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether the caller runs on `loop`."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
