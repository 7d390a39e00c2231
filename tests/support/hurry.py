"""Time that passes at once, for what waits by the event loop's clock and cannot be given another.

What takes a clock is given a `ManualClock`. But a program that is there to be copied calls
`asyncio.timeout` and `asyncio.sleep`, a net under somebody else's log is cut by real time, and an
HTTP client has limits of its own.
"""

import asyncio
import threading
from typing import Any

import pytest

from millstream.clock import SystemClock
from millstream.tool import threads as tool_threads

_GLANCE = 0.05
"""Seconds for which a loop that is not alone waits before it looks again whether it is now."""


def hurry(loop: asyncio.AbstractEventLoop) -> None:
    """Let `loop` wait for nothing that only time can bring: it goes on to its next timer at once.

    While a socket is open or a thread was started that could wake it, it waits as any loop does,
    and so does one that is not in the main thread.
    """
    _Hurried(loop)


async def time_flies(task: asyncio.Task[Any]) -> None:
    """Let a minute of the running loop's time pass whenever it comes round, until `task` is done.

    For a program that waits for a server that, as the caller knows, does nothing any more.
    """
    loop: Any = asyncio.get_running_loop()
    real, skipped = loop.time, 0.0
    loop.time = lambda: real() + skipped
    while not task.done():
        skipped += 60.0
        await asyncio.sleep(0)


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """`hurry` every event loop that the test, or a program that it runs, makes; millstream's clock goes along.

    In a thread of its own, where a loop cannot tell who might wake it, the clock's `sleep` is over at once.
    """
    make_loop = asyncio.events.new_event_loop
    hurries: list[_Hurried] = []

    def make_hurried() -> asyncio.AbstractEventLoop:
        loop = make_loop()
        hurries.append(_Hurried(loop))
        return loop

    def going_along(tell: Any) -> Any:
        return staticmethod(lambda: tell() + sum(each.skipped for each in hurries))

    async def sleep(self: object, seconds: float) -> None:
        await asyncio.sleep(seconds if _in_main_thread() else 0)

    monkeypatch.setattr(asyncio.events, "new_event_loop", make_hurried)
    monkeypatch.setattr(SystemClock, "sleep", sleep)
    for name in ("time", "monotonic"):
        monkeypatch.setattr(SystemClock, name, going_along(getattr(SystemClock, name)))


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


class _Hurried:
    """The selector of a loop, whose waiting it leaves out."""

    def __init__(self, loop: Any) -> None:
        self.skipped = 0.0
        self._selector = loop._selector
        _dismiss_idle_tool_threads()
        self._threads = {each for each in threading.enumerate() if each.name != "millstream-tool"}
        tell = loop.time
        loop._selector = self
        loop.time = lambda: tell() + self.skipped

    def select(self, timeout: float | None = None) -> Any:
        ready = self._selector.select(0)
        if ready or timeout == 0:
            return ready
        if timeout is None:
            return self._selector.select(None)
        if not self._is_alone():
            return self._selector.select(min(timeout, _GLANCE))
        if ready := self._selector.select(0):  # from a thread that ended between the two looks
            return ready
        self.skipped += timeout
        return []

    def _is_alone(self) -> bool:
        return (
            len(self._selector.get_map()) == 1  # its own, by which threads and signals wake it
            and _in_main_thread()
            and self._threads.issuperset(threading.enumerate())
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._selector, name)


def _dismiss_idle_tool_threads() -> None:
    """Let the threads end that wait for a synchronous tool's next call, lest one serve it unnoticed:

    it was there before, and would not count as one that could wake the loop.
    """
    while tool_threads._idle:
        tool_threads._idle.pop().put(None)
