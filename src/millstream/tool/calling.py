"""How the function of a tool is called: on the event loop or in a thread, for one value or for several.

Rules of this file:

1. What can be awaited runs on the event loop, everything else in a thread.
2. Each value that a function yields is told at once, as a `tool.partial`; one that runs on the
   event loop is asked for the next when that is written. The last one is the result as well.
3. A generator is closed where it runs: an async one in the task of the call, before the call
   ends; a plain one in its thread, at the next value that it yields.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable, Callable, Generator
from contextlib import aclosing, closing
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from millstream.context import settle
from millstream.tool.threads import in_thread

if TYPE_CHECKING:
    from millstream.run.link import CallLink

Call: TypeAlias = Callable[[], Any]
"""A function with the arguments of one call bound to it."""

WayOfCalling: TypeAlias = Callable[[Call, str, "CallLink | None"], Awaitable[Any]]
"""Takes a call, the name of its tool and what ties it to its run, and gives its result."""


def way_of_calling(func: Any) -> WayOfCalling:
    """How `func` is called."""
    target = func.func if isinstance(func, functools.partial) else func
    # The function itself and, of a callable object, the method that runs when it is called.
    bodies = (target, cast("Any", type(target)).__call__)
    if any(map(inspect.iscoroutinefunction, bodies)):
        return _awaited
    if any(map(inspect.isasyncgenfunction, bodies)):
        return _iterated
    if any(map(inspect.isgeneratorfunction, bodies)):
        return _iterated_in_thread
    return _called_in_thread


async def _awaited(call: Call, name: str, link: CallLink | None) -> Any:
    return await call()


async def _called_in_thread(call: Call, name: str, link: CallLink | None) -> Any:
    # A plain function may return a coroutine: one that a decorator wrapped, say.
    return await settle(await in_thread(call, name))


async def _iterated(call: Call, name: str, link: CallLink | None) -> Any:
    value: Any = None
    async with aclosing(call()) as values:
        async for value in values:
            if link is not None:
                await link.partial(value)
    return value


async def _iterated_in_thread(call: Call, name: str, link: CallLink | None) -> Any:
    return await in_thread(functools.partial(_last_of, call, link), name)


def _last_of(call: Call, link: CallLink | None) -> Any:
    """What the generator of `call` returns or, where it returns nothing, yields last."""
    value: Any = None
    with closing(cast("Generator[Any, Any, Any]", call())) as values:
        while link is None or link.is_open:
            try:
                value = next(values)
            except StopIteration as end:
                return value if end.value is None else end.value
            if link is not None:
                link.partial(value)
    return value
