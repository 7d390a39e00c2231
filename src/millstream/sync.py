"""A streamed run for programs without an event loop: `for event in Runner.run_streamed_sync(...)`."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Generator, Iterable, Iterator
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, overload

from millstream.run.readers import PATIENCE

if TYPE_CHECKING:
    from millstream.events import CancelMode, Entry, StreamEvent
    from millstream.items import TResponseInputItem
    from millstream.result import RunResult, RunResultStreaming
    from millstream.stream.arguments import ToolArgumentsDelta
    from millstream.stream.partial import Partial

T = TypeVar("T")

LAST_WAIT = 5.0
"""Seconds that an interpreter which exits waits for a run to stop, where a tool does not let itself be cancelled."""


class SyncStream:
    """The handle of a run on a thread and an event loop of its own.

    Iterate it for events, `entries()` or `text()`; attributes of the run (`final_output`,
    `new_items`, …) may be read on the way and after the end. The run is cancelled, and its
    thread ends, when a `for` is left early, when the handle is closed or when it is dropped.
    What the run has come to by then can still be read. A run that is over keeps its thread, and
    with it the connections to the model, only for as long as somebody is reading.

    Args:
        start: starts the run; called on the loop of the new thread, in a copy of the caller's
            context.
    """

    def __init__(self, start: Callable[[], RunResultStreaming]) -> None:
        run = object()
        self._thread = thread = _LoopThread(run)
        self._first: list[AsyncIterator[StreamEvent]] = []

        def over(_: object) -> None:
            thread.leave(run)

        try:
            self._handle = thread.call(functools.partial(_start_read, start, self._first, over))
        except BaseException:
            self._thread.stop()
            raise

    def __iter__(self) -> Iterator[StreamEvent]:
        return self.stream_events()

    def stream_events(self, *, early: bool = False) -> Iterator[StreamEvent]:
        """See `RunResultStreaming.stream_events`."""
        first = self._take_first()
        return self._iterate(first if first and not early else self._handle.stream_events(early=early))

    def entries(
        self, after: int = 0, *, depth: int | None = None, types: Iterable[str] | None = None
    ) -> Iterator[Entry]:
        """See `RunResultStreaming.entries`."""
        self._take_first()
        return self._iterate(self._handle.entries(after, depth=depth, types=types))

    def text(self) -> Iterator[str]:
        """See `RunResultStreaming.text`."""
        self._take_first()
        return self._iterate(self._handle.text())

    def tool_arguments(self) -> Iterator[ToolArgumentsDelta]:
        """See `RunResultStreaming.tool_arguments`."""
        self._take_first()
        return self._iterate(self._handle.tool_arguments())

    @overload
    def partial_output(self) -> Iterator[Any]: ...
    @overload
    def partial_output(self, output_type: type[T]) -> Iterator[Partial[T] | T]: ...
    def partial_output(self, output_type: type[Any] | None = None) -> Iterator[Any]:
        """See `RunResultStreaming.partial_output`."""
        self._take_first()
        return self._iterate(self._handle.partial_output())

    def result(self) -> RunResult:
        """Wait for the end of the run.

        Raises:
            Exception: what the run failed with.
            RunCancelledError: it was cancelled.
        """
        self._take_first()
        with self._running() as thread:
            result, error = thread.run(_outcome(self._handle))
        if error is not None:
            raise error
        return cast("RunResult", result)

    def cancel(self, mode: CancelMode | Literal["immediate"] = "immediate") -> None:
        """Stop the run. See `RunResultStreaming.cancel`."""
        self._handle.cancel(mode)

    def send(self, message: str | list[TResponseInputItem], when: CancelMode = "now") -> None:
        """Give the running run more input. See `RunResultStreaming.send`."""
        self._handle.send(message, when)

    def close(self) -> None:
        """Stop the run and its thread, and wait until they have ended. Safe to call twice."""
        self._handle.cancel()
        self._thread.stop()

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # No waiting here: this may be called anywhere, with any lock held.
        if "_handle" in self.__dict__:
            self._handle.cancel()
            self._thread.stop(wait=False)

    def __getattr__(self, name: str) -> Any:
        # Whatever may be read from the handle of a run may be read here.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._handle, name)

    def _take_first(self) -> AsyncIterator[StreamEvent] | None:
        """The reader that was begun with the run, if nobody has come for it or for something else."""
        try:
            return self._first.pop()
        except IndexError:
            return None

    @contextlib.contextmanager
    def _running(self) -> Generator[_LoopThread]:
        """The thread, which stays meanwhile; a new one where it has ended: a log can be read from any loop."""
        user = object()
        thread = self._thread
        if not thread.enter(user):
            self._thread = thread = _LoopThread(user)
        try:
            yield thread
        finally:
            thread.leave(user)

    def _iterate(self, iterator: AsyncIterator[T]) -> Generator[T, None, None]:
        reader = cast("Any", iterator)
        reader.unbind()
        ended = False
        try:
            with self._running() as thread:
                while not ended:
                    # One crossing of threads per read of the log, not per event.
                    try:
                        chunk, error = thread.run(_chunk(reader))
                    except CancelledError:  # closed meanwhile, by another thread
                        return
                    ended = error is not None
                    yield from chunk
                    if error is not None and not isinstance(error, StopAsyncIteration):
                        raise error
        finally:
            if not ended:
                self.close()


def _start_read(
    start: Callable[[], RunResultStreaming],
    first: list[AsyncIterator[StreamEvent]],
    over: Callable[[object], None],
) -> RunResultStreaming:
    """Start the run with a reader for the `for` that is to come, which the run waits for, for a moment.

    Without it a fast model would be turns ahead before the other thread comes to its `for`.
    """
    handle = start()
    run = cast("Any", handle)._run
    run.task.add_done_callback(over)
    reader = cast("Any", handle.stream_events())
    reader.unbind()
    first.append(reader)
    run.config.clock.call_later(PATIENCE, first.clear)
    return handle


# Errors are returned, not raised, on the way from the thread: its loop would take SystemExit for
# its own end.


async def _outcome(handle: RunResultStreaming) -> tuple[RunResult | None, BaseException | None]:
    try:
        return await handle, None
    except (Exception, SystemExit) as error:
        return None, error


async def _chunk(reader: Any) -> tuple[list[Any], BaseException | None]:
    """The next thing that `reader` gives, and what else it has at hand; and what ended it, if it ended."""
    chunk: list[Any] = []
    try:
        chunk.append(await anext(reader))
        while reader.has_more:
            chunk.append(await anext(reader))
    except (Exception, SystemExit) as error:
        return chunk, error
    return chunk, None


class _LoopThread:
    """A daemon thread that runs an event loop until nobody uses it any more, or until it is told to stop.

    Args:
        user: its first user; anything that is equal to itself alone.
    """

    def __init__(self, user: object) -> None:
        self._users: set[object] = {user}
        self._closing = False
        """Whether it takes no more users."""
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._running: set[Future[Any]] = set()
        self._ended = False
        self._thread = threading.Thread(target=self._main, name="millstream run", daemon=True)
        self._thread.start()
        self._loop = self._ready.result()

    def enter(self, user: object) -> bool:
        """Let it stay until `user` leaves. False if it is about to end, or has."""
        # The other way round than `_stop_if_unused` does it: one of the two sees the other.
        self._users.add(user)
        if not (self._closing or self._ended):
            return True
        self.leave(user)
        return False

    def leave(self, user: object) -> None:
        """Let it end if nobody else uses it. May be called in any thread."""
        self._users.discard(user)
        if not self._users:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._stop_if_unused)

    def _stop_if_unused(self) -> None:
        self._closing = True
        if self._users:
            self._closing = False
        else:
            self._stop.set()

    def call(self, function: Callable[[], T]) -> T:
        """`function()`, called on the loop in a copy of the caller's context."""

        async def once() -> T:
            return function()

        return self.run(once())

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of `coroutine`, run on the loop.

        Raises:
            CancelledError: the thread was stopped.
        """
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # the loop is closed
            coroutine.close()
            raise CancelledError from None
        self._running.add(future)
        try:
            if self._ended:  # and will not look at it any more
                future.cancel()
            return future.result()
        except CancelledError:
            coroutine.close()  # the loop may have ended without having looked at it
            raise
        except KeyboardInterrupt:
            future.cancel()
            raise
        finally:
            self._running.discard(future)

    def stop(self, *, wait: bool = True, patience: float | None = None) -> None:
        """End the thread: what still runs on its loop is cancelled. Safe to call twice.

        Args:
            wait: wait until it has ended.
            patience: how many seconds at most; None for as long as it takes.
        """
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._stop.set)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join(patience)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs in this process: a forked child has none of its parent's."""
        return self._thread.is_alive()

    def _main(self) -> None:
        _alive.add(self)
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            if self._ready.done():  # a KeyboardInterrupt that a tool raised: for `threading.excepthook`
                raise
            self._ready.set_exception(error)
        finally:
            self._ended = True
            _alive.discard(self)
            for future in self._running.copy():
                future.cancel()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._ready.set_result(asyncio.get_running_loop())
        await self._stop.wait()


_alive: set[_LoopThread] = set()


def _stop_all() -> None:
    # Daemon threads are not waited for: their loops would be left open, with what is connected to them.
    threads = [thread for thread in _alive.copy() if thread.is_alive]
    for thread in threads:
        thread.stop(wait=False)
    for thread in threads:
        thread.stop(patience=LAST_WAIT)


atexit.register(_stop_all)
