"""A streamed run for programs without an event loop: `for event in Runner.run_streamed_sync(...)`."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Literal, TypeVar

if TYPE_CHECKING:
    from millstream.events import CancelMode, Entry, StreamEvent
    from millstream.result import RunResult, RunResultStreaming

T = TypeVar("T")


class SyncStream:
    """The handle of a run on a thread and an event loop of its own.

    Iterate it for events, `entries()` or `text()`; attributes of the run (`final_output`,
    `new_items`, …) may be read on the way and after the end. The run is cancelled, and its
    thread ends, when the `for` is left, when the handle is closed or when it is dropped.

    Args:
        start: starts the run; called on the loop of the new thread, in a copy of the caller's
            context.
    """

    def __init__(self, start: Callable[[], RunResultStreaming]) -> None:
        self._thread = _LoopThread()
        try:
            self._handle = self._thread.call(start)
        except BaseException:
            self._thread.stop()
            raise

    def __iter__(self) -> Iterator[StreamEvent]:
        return self._iterate(lambda handle: handle.stream_events())

    def stream_events(self, *, early: bool = False) -> Iterator[StreamEvent]:
        """See `RunResultStreaming.stream_events`."""
        return self._iterate(lambda handle: handle.stream_events(early=early))

    def entries(self, after: int = 0) -> Iterator[Entry]:
        """See `RunResultStreaming.entries`."""
        return self._iterate(lambda handle: handle.entries(after))

    def text(self) -> Iterator[str]:
        """See `RunResultStreaming.text`."""
        return self._iterate(lambda handle: handle.text())

    def result(self) -> RunResult:
        """Wait for the end of the run.

        Raises:
            Exception: what the run failed with.
            RunCancelledError: it was cancelled.
        """
        return self._thread.run(self._result())

    async def _result(self) -> RunResult:
        return await self._handle

    def cancel(self, mode: CancelMode | Literal["immediate"] = "immediate") -> None:
        """Stop the run. See `RunResultStreaming.cancel`."""
        self._handle.cancel(mode)

    def close(self) -> None:
        """Stop the run and its thread. Safe to call twice."""
        if self._thread.is_alive:
            self._thread.run(self._handle.aclose())
            self._thread.stop()

    def __enter__(self) -> SyncStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if "_handle" in self.__dict__:
            self._handle.cancel()
            self._thread.stop()

    def __getattr__(self, name: str) -> Any:
        # Whatever may be read from the handle of a run may be read here.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._handle, name)

    def _iterate(self, read: Callable[[RunResultStreaming], AsyncIterator[T]]) -> Generator[T, None, None]:
        reader = self._thread.call(lambda: read(self._handle))
        ended = False
        try:
            while True:
                # One crossing of threads per read of the log, not per event.
                chunk, error = self._thread.run(_chunk(reader))
                yield from chunk
                if error is not None:
                    ended = True
                    if not isinstance(error, StopAsyncIteration):
                        raise error
                    return
        finally:
            if not ended:
                self.close()


async def _chunk(reader: Any) -> tuple[list[Any], BaseException | None]:
    """The next thing that `reader` gives, and what else it has at hand; and what ended it, if it ended."""
    chunk: list[Any] = []
    try:
        chunk.append(await anext(reader))
        while reader.has_more:
            chunk.append(await anext(reader))
    except (Exception, StopAsyncIteration) as error:
        return chunk, error
    return chunk, None


class _LoopThread:
    """A daemon thread that runs an event loop until it is told to stop."""

    def __init__(self) -> None:
        self._context = contextvars.copy_context()
        self._ready: Future[asyncio.AbstractEventLoop] = Future()
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="millstream run", daemon=True)
        self._thread.start()
        self._loop = self._ready.result()

    @property
    def is_alive(self) -> bool:
        return self._thread.is_alive() and not self._loop.is_closed()

    def call(self, function: Callable[[], T]) -> T:
        """`function()`, called on the loop."""

        async def once() -> T:
            return function()

        return self.run(once())

    def run(self, coroutine: Any) -> Any:
        """The result of `coroutine`, run on the loop."""
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            coroutine.close()
            raise
        try:
            return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the thread: what still runs on its loop is cancelled. Returns when it has ended."""
        if self._stop is not None and not self._loop.is_closed():
            try:
                self._loop.call_soon_threadsafe(self._stop.set)
            except RuntimeError:  # it ended in between
                return
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _main(self) -> None:
        self._context.run(asyncio.run, self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._ready.set_result(asyncio.get_running_loop())
        await self._stop.wait()
