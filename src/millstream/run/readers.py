"""Who reads a run in its own process, and how far it waits for them (`RunConfig.ahead`).

A reader is a small object that belongs to whoever iterates it. The run knows it weakly, and
has a `Place` for it that tells one thing: does this reader keep the run from going on?

Rules of this file:

1. The run waits for readers of `stream_events()` that have begun, on its own loop. It does
   not wait for those of entries and text, for those in other threads, nor for one that was
   closed or collected.
2. A reader that asks for more is about to take what there is: the run waits until it has.
3. A reader that asks for nothing stands still: its owner is dealing with an event, or has
   left it without a word. The run waits for it all the same, so that a cancel from where an
   event is dealt with is exact, unless its owner is seen to be elsewhere:
   a) its task has ended;
   b) its task waits for the run, that is, awaits its result or asks another reader of it;
      or a task does that it has started since (`wait_for`, `gather` and task groups start some);
   c) somebody waits for the run, whoever it is, and the reader has stood still for `PATIENCE`
      seconds: its owner may wait for them in a way that cannot be seen.

So whoever waits for a run never waits for ever because of a reader that was left standing.
Where nobody does, a reader may stand still as long as it likes.

Which task was started by which is told by a context variable, which tasks inherit. It is set
when a reader begins and never set back, so that it does not matter which context that is.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any

from millstream.clock import Clock
from millstream.event_loops import call_on, wake

PATIENCE = 2.0
"""Seconds that a reader which stands still may hold up those who wait for the run."""


class Place:
    """Where one reader stands, and what is known of its owner."""

    __slots__ = ("_task", "above", "asks", "begun", "given_at", "gone", "holds", "taken", "taken_bytes")

    def __init__(self, taken: int) -> None:
        self.taken = taken
        """Every event up to this position has been taken, and dealt with: the next one was asked for."""
        self.taken_bytes = 0
        """The size of those events, as their batches tell it."""
        self.holds = False
        """Whether the run waits for this reader at all (rule 1)."""
        self.asks = False
        """Whether it is asking for more right now (rule 2)."""
        self.given_at = 0.0
        """When it last ceased to ask, in seconds of the run's clock."""
        self.above: tuple[Place, ...] = ()
        """The readers that its task, or one that has started its task, had begun before it."""
        self.begun = False
        """Whether it has asked at all."""
        self.gone = False
        """Whether the reader was closed or collected."""
        self._task: weakref.ref[asyncio.Task[Any]] | None = None

    @property
    def task(self) -> asyncio.Task[Any] | None:
        """The task that asked last, where it is alive."""
        return None if self._task is None else self._task()

    @task.setter
    def task(self, task: asyncio.Task[Any] | None) -> None:
        self._task = None if task is None else weakref.ref(task)

    @property
    def is_left(self) -> bool:
        """Whether the task that asked last has ended."""
        if self._task is None:
            return False
        task = self._task()
        return task is None or task.done()


class Readers:
    """The readers of one run that are alive.

    Args:
        loop: the loop that the run is on.
        on_gone: called, in any thread, when a reader is closed or collected.
        clock: the run's; `PATIENCE` goes by it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_gone: Callable[[], None], clock: Clock) -> None:
        self._loop = loop
        self._clock = clock
        self._on_gone = on_gone
        self._places: dict[weakref.ref[object], Place] = {}
        self._waiting: dict[object, tuple[Place, ...]] = {}
        """Those who await the result, each with the readers that it may have left for that."""
        self._moved: set[asyncio.Future[None]] = set()
        """One for each that waits to go on: the run, and those nested in it."""

    def attach(self, reader: object, after: int = 0) -> Place:
        """Take in a reader that was made. It is not waited for before it asks for something."""
        place = self._places[weakref.ref(reader, self._collected)] = Place(after)
        return place

    def detach(self, reader: object) -> None:
        """Forget a reader that was closed or has come to the end."""
        self._collected(weakref.ref(reader))

    def __len__(self) -> int:
        return len(self._places)

    # What readers and those who await the result tell.

    def begin(self, place: Place, task: asyncio.Task[Any] | None = None) -> None:
        """Note that `task`, or without one the caller's context, goes on to read here."""
        place.begun = True
        place.task = task
        place.above = tuple([other for other in _begun.get() if not other.gone and other is not place])
        _begun.set((*place.above, place))

    def ask(self, place: Place, *, holds: bool, bound: bool) -> None:
        """Note that a reader asks for more.

        Args:
            place: the reader's.
            holds: whether it is one that the run may wait for, if it is on the run's loop.
            bound: whether it is the reader of the task that asks.
        """
        here = asyncio.get_running_loop() is self._loop
        place.holds = holds and here
        task = asyncio.current_task() if here and bound else None
        if not place.begun or task is not place.task:
            self.begin(place, task)
        place.asks = True
        self.moved()

    def answer(self, place: Place) -> None:
        """Note that a reader was given something, or does not ask any longer."""
        place.asks = False
        place.given_at = self._clock.monotonic()

    @contextlib.contextmanager
    def awaited(self) -> Generator[None]:
        """A stretch in which somebody awaits the result of the run."""
        awaiting = object()
        self._waiting[awaiting] = _begun.get()
        self.moved()
        try:
            yield
        finally:
            del self._waiting[awaiting]

    def may_be_awaited(self) -> None:
        """Note that from now on somebody may await the end of the run unseen."""
        self._waiting[None] = ()
        self.moved()

    def moved(self) -> None:
        """Look again whether the run may go on. May be called from any thread."""
        if self._moved:
            call_on(self._loop, self._release)

    def _release(self, _: object = None) -> None:
        for moved in self._moved.copy():
            wake(moved)

    def _collected(self, ref: weakref.ref[object]) -> None:
        # The collector may run in any thread, and at interpreter exit when the loop is closed.
        place = self._places.pop(ref, None)
        if place is not None:
            place.gone = True
            place.above = ()
            self.moved()
            self._on_gone()

    # What the run asks.

    async def have_taken(self, position: int) -> None:
        """Return when no reader keeps the run from going on beyond `position`."""
        await self._until(lambda place: place.taken >= position)

    async def have_taken_bytes(self, size: int) -> None:
        """Return when no reader keeps the run from going on beyond the first `size` bytes."""
        await self._until(lambda place: place.taken_bytes >= size)

    async def _until(self, reached: Callable[[Place], bool]) -> None:
        while self._places:
            # Made before looking: what another thread changes after the look is not missed.
            moved = self._loop.create_future()
            self._moved.add(moved)
            behind = [place for place in self._holding() if not reached(place)]
            if not behind:
                self._moved.discard(moved)
                return
            # Callbacks on tasks only while they are needed: a task may read many runs in its life.
            tasks = {task for place in behind if (task := place.task) is not None}
            for task in tasks:
                task.add_done_callback(self._release)
            timer = self._clock.call_later(PATIENCE, self._release)
            try:
                await moved
            finally:
                self._moved.discard(moved)
                timer.cancel()
                for task in tasks:
                    task.remove_done_callback(self._release)

    def _holding(self) -> list[Place]:
        """The readers that the run waits for, by the rules above."""
        # Copied in one step: the collector may take readers out at any moment.
        places = list(self._places.copy().values())
        asking = [place for place in places if place.asks]
        waiting = [*self._waiting.copy().values(), *(place.above for place in asking)]
        left = {id(place) for above in waiting for place in above}
        busy = {id(place.task) for place in asking if place.task is not None}
        stood_since = self._clock.monotonic() - PATIENCE if waiting else float("-inf")

        def is_left(place: Place) -> bool:
            return (
                place.is_left or id(place) in left or id(place.task) in busy or place.given_at <= stood_since
            )

        return [place for place in places if place.holds and (place.asks or not is_left(place))]


_begun: ContextVar[tuple[Place, ...]] = ContextVar("millstream_readers_begun", default=())
"""The readers that this task, or one that has started it, has begun."""
