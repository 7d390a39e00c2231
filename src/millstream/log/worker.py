"""A thread that works for a log: it takes all that waits, and has it done in one go.

So whoever writes pays a part of one transaction, or of one round trip, and not a whole one; and
no event loop waits for a disk. Callers may be on any event loop, or on none.

Rules of this file:

1. Jobs are done in the order in which they were asked for. A job is in the queue before its
   caller waits for the first time, and is done whatever becomes of the caller.
2. An event loop is called once for all that a round has for it. One that is closed is no error.
3. The thread knows nothing of the log whose jobs it does: a log that is collected, or whose
   program ends, has done what was asked for, and then the thread ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import logging
import os
import threading
import types
import weakref
from collections.abc import Callable, Generator, Sequence
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from millstream.errors import LogError

logger = logging.getLogger("millstream")

W = TypeVar("W")

AT_ONCE = 512
"""Jobs of one round at most: whoever else wants to write, or to be written, has a turn then."""
AT_EXIT = 5.0
"""Seconds that a program which ends gives the jobs that wait."""


class Wakes:
    """Futures that are to be settled, of any event loops. Each loop is called once."""

    def __init__(self) -> None:
        self._by_loop: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}

    def add(
        self, future: asyncio.Future[Any], result: object = None, error: BaseException | None = None
    ) -> None:
        """Settle `future` when `send` is called, with `result` or with `error`."""
        self._by_loop.setdefault(future.get_loop(), []).append((future, result, error))

    def send(self) -> None:
        """Settle them all, in the order in which they came. Safe in any thread."""
        by_loop, self._by_loop = self._by_loop, {}
        for loop, outcomes in by_loop.items():
            with contextlib.suppress(RuntimeError):  # closed: nobody waits there any more
                loop.call_soon_threadsafe(_settle, outcomes)


_Outcome = tuple["asyncio.Future[Any]", object, "BaseException | None"]


def _settle(outcomes: Sequence[_Outcome]) -> None:
    for future, result, error in outcomes:
        if future.done():
            continue
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)


class Job(Generic[W]):
    """Something to be done, and what came of it."""

    __slots__ = ("error", "future", "result", "work")

    def __init__(self, work: W, future: asyncio.Future[Any] | None = None) -> None:
        self.work = work
        self.future = future
        self.result: Any = None
        self.error: BaseException | None = None


class Keeper(Protocol):
    """Who does the jobs. Every method is called on the worker's thread."""

    def handle(self, jobs: Sequence[Job[Any]], wakes: Wakes) -> None:
        """Do `jobs`, in this order, and give each its `result` or its `error`.

        The callers are told after this returns, and behind those that it adds to `wakes`. What
        it raises is the error of every job that has none.
        """
        ...

    def beat(self, wakes: Wakes) -> float | None:
        """Do what nobody has to ask for. Called after every round.

        Returns in how many seconds it is to be called again where no job comes; None for not before one does.
        """
        ...

    def close(self) -> None:
        """Let go of everything: the last that is called."""
        ...


class Worker(Generic[W]):
    """A thread that has a `keeper` do jobs. It begins with the first one.

    Args:
        keeper: does them.
        name: names the thread.
        what: names the log, in errors.
    """

    def __init__(self, keeper: Keeper, name: str, what: str) -> None:
        self._queue: SimpleQueue[Job[W] | None] = SimpleQueue()
        self._keeper = keeper
        self._name = name
        self._what = what
        # Of a kind that its own thread may take twice: a collector may run in here, and what it
        # collects may have something to write.
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        self._is_forked = False
        _workers.add(self)

    async def ask(self, work: W) -> Any:
        """Have `work` done; what came of it. It is in the queue before this waits, and is done in any case.

        Where no event loop runs, the caller may begin this and cannot await it.

        Raises:
            LogError: the log was closed, or taken into a child process by a fork.
        """
        try:
            future = asyncio.get_running_loop().create_future()
        except RuntimeError:
            self._put(Job(work))
            return await _nobody()
        self._put(Job(work, future))
        try:
            return await future
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                future.cancel()  # where the caller has gone, nobody is to be told

    def poke(self) -> None:
        """Let `beat` be called soon; nothing where the log is closed. Safe in any thread."""
        with contextlib.suppress(LogError):
            self._put(_POKE)

    async def aclose(self) -> None:
        """Do what waits, then end. Safe to call twice."""
        thread = self._close()
        if thread is None or not thread.is_alive():
            return
        await asyncio.to_thread(thread.join)

    def close_soon(self) -> threading.Thread | None:
        """As `aclose`, without waiting for it."""
        return self._close()

    def forked(self) -> None:
        """A fork has put this into a child process, which has neither the thread nor a right to its connections."""
        if self._thread is None:
            self._lock = threading.RLock()
            return
        self._is_forked = True
        _inherited.append(self._keeper)  # for ever: to let go of it would touch what the parent has open

    def _put(self, job: Job[Any]) -> None:
        if self._is_forked:
            raise LogError(
                f"{self._what} was used before this process was forked, and cannot be used on this side of "
                "the fork. Make another one in the child process, or start processes by spawning them."
            )
        with self._lock:
            if self._is_closed:
                raise LogError(f"{self._what} was closed by aclose().")
            if self._thread is None:
                self._start()
            self._queue.put(job)

    def _start(self) -> None:
        thread = threading.Thread(
            target=_work, args=(self._queue, self._keeper), name=self._name, daemon=True
        )
        if self._thread is None:  # else a collector has run just now, see above
            self._thread = thread
            weakref.finalize(self, self._queue.put, None).atexit = False
            thread.start()

    def _close(self) -> threading.Thread | None:
        if self._is_forked:
            return None
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._queue.put(None)
            return self._thread


_POKE: Job[Any] = Job(None)
_workers: weakref.WeakSet[Worker[Any]] = weakref.WeakSet()
_inherited: list[object] = []


def _work(queue: SimpleQueue[Job[Any] | None], keeper: Keeper) -> None:
    """What the thread does."""
    patience: float | None = None
    while True:
        jobs, is_last = _waiting(queue, patience)
        wakes = Wakes()
        try:
            if jobs:
                _handle(keeper, jobs, wakes)
            patience = None if is_last else keeper.beat(wakes)
        except Exception:  # the keeper's own fault: those who wait for other jobs are still to be served
            logger.exception("%s failed", threading.current_thread().name)
        wakes.send()
        del jobs, wakes  # not to be kept alive while nothing comes
        if is_last:
            break
    keeper.close()


def _waiting(queue: SimpleQueue[Job[Any] | None], patience: float | None) -> tuple[list[Job[Any]], bool]:
    """The jobs that wait, once there is one or `patience` is over; and whether the thread is to end behind them."""
    jobs: list[Job[Any]] = []
    try:
        job = queue.get(timeout=patience)
        while job is not None:
            if job is not _POKE:
                jobs.append(job)
            if len(jobs) >= AT_ONCE:
                return jobs, False
            job = queue.get_nowait()
    except Empty:
        return jobs, False
    return jobs, True


def _handle(keeper: Keeper, jobs: list[Job[Any]], wakes: Wakes) -> None:
    try:
        keeper.handle(jobs, wakes)
    except Exception as error:
        for job in jobs:
            job.error = job.error or error
    for job in jobs:
        if job.future is not None:
            wakes.add(job.future, job.result, job.error)


@types.coroutine
def _nobody() -> Generator[None, None, Any]:
    """Wait, where there is no event loop to wait on: to be begun, and left."""
    yield
    raise RuntimeError("Nobody can wait for a log where no event loop runs.")


def _at_exit() -> None:
    threads = [worker.close_soon() for worker in list(_workers)]
    for thread in threads:
        if thread is not None:
            thread.join(AT_EXIT)


atexit.register(_at_exit)

if hasattr(os, "register_at_fork"):
    _forked: Callable[[], object] = lambda: [worker.forked() for worker in list(_workers)]  # noqa: E731
    os.register_at_fork(after_in_child=_forked)
