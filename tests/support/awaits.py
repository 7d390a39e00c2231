"""Counts the awaits of all tasks that begin from now on, so that something can be done at each one of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any


class Awaits:
    """How often tasks have suspended, and what is done at one such moment."""

    def __init__(self) -> None:
        self.count = 0
        self._at: int | None = None
        self._do: Callable[[], object] | None = None

    def do_at(self, number: int, do: Callable[[], object]) -> None:
        """Call `do` behind await number `number`, from 1; at once for 0."""
        if number == 0:
            do()
        self._at, self._do = number, do

    def one_more(self) -> None:
        """Note that a task waits."""
        self.count += 1
        if self.count == self._at and self._do is not None:
            # Not in the middle of that task's step: as somebody else would call it.
            asyncio.get_running_loop().call_soon(self._do)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells when it suspends."""

    def __init__(self, inner: Coroutine[Any, Any, Any], awaits: Awaits) -> None:
        self._inner = inner
        self._awaits = awaits

    def send(self, value: Any) -> Any:
        waits_for = self._inner.send(value)
        self._awaits.one_more()
        return waits_for

    def throw(self, *error: Any) -> Any:
        waits_for = self._inner.throw(*error)
        self._awaits.one_more()
        return waits_for

    def close(self) -> None:
        self._inner.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        return self._inner.__await__()


@contextlib.contextmanager
def counted_awaits() -> Iterator[Awaits]:
    """Count the awaits of the tasks that are made inside the `with`, on the loop that runs."""
    loop, awaits = asyncio.get_running_loop(), Awaits()

    def make(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        return asyncio.Task(_Counted(coroutine, awaits), loop=loop, **options)

    loop.set_task_factory(make)  # type: ignore[arg-type]
    try:
        yield awaits
    finally:
        loop.set_task_factory(None)
