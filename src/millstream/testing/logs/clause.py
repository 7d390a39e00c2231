"""How a log is held to one clause of its contract, and what clauses have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeAlias, TypeVar

from millstream.context import settle
from millstream.events import Entry, RunCompleted, Stamp, UserEvent
from millstream.log.promise import Batch, EventLog, Payload
from millstream.log.store import RunStore

PATIENCE = 30.0
"""Seconds that one clause may take: no log of a test needs nearly that long."""

RUN = "run_0123456789abcdef0123456789abcdef"
OTHER = "run_fedcba9876543210fedcba9876543210"
STAMP = Stamp(run_id=RUN, agent="A")

PassTime: TypeAlias = Callable[[float], Awaitable[None]]
"""Lets so many seconds pass by the engine's clock."""

StoreClause: TypeAlias = Callable[[RunStore, PassTime], Coroutine[Any, Any, None]]

AnyLog = TypeVar("AnyLog", bound=EventLog)


async def hold(
    clauses: Iterable[Callable[..., Coroutine[Any, Any, None]]],
    make_log: Callable[..., AnyLog | Awaitable[AnyLog]],
    *given: object,
) -> None:
    """Hold the logs of `make_log` to each clause, which is called with one of its own and with what is given.

    Raises:
        AssertionError: a clause is broken; the message names it.
    """
    for clause in clauses:
        log = await settle(make_log())
        patience = asyncio.timeout(PATIENCE)
        try:
            async with patience:
                await clause(log, *given)
        except Exception as error:  # also what the log raises where it should not
            what = str(error) if isinstance(error, AssertionError) else repr(error)
            if patience.expired():
                what = f"(nothing happened for {PATIENCE:g} s)"
            raise AssertionError(f"{clause.__name__}: {(clause.__doc__ or '').strip()} {what}") from error
        finally:
            await log.aclose()


def batch(first: int, *names: str, run_id: str = RUN, ends: bool = False) -> Batch:
    """User events of these names from position `first` on; with `ends`, a terminal event behind them."""
    payloads: list[Payload] = [UserEvent(name=name) for name in names]
    if ends:
        payloads.append(RunCompleted(output="done"))
    return Batch(first, Stamp(run_id=run_id, agent="A"), payloads)


async def entries(log: EventLog, after: int = 0) -> list[Entry]:
    """All that a follower is given, to the end of the run."""
    return [entry async for entry in log.follow(RUN, after)]


async def positions_and_names(log: EventLog, after: int = 0) -> list[tuple[int, str]]:
    """All that a follower is given, in short."""
    return [
        (entry.position, entry.event.name if isinstance(entry.event, UserEvent) else entry.type)
        for entry in await entries(log, after)
    ]


async def refused(call: Coroutine[Any, Any, Any], expected: type[Exception]) -> Exception:
    """The error that `call` is refused with."""
    try:
        await call
    except expected as error:
        return error
    raise AssertionError(f"({expected.__name__} was expected, and nothing was raised)")


async def hold_lease(store: RunStore, owner: str, run_id: str = RUN) -> int:
    """Claim a run for longer than any clause takes; the epoch."""
    return await store.claim(run_id, owner=owner, lease=10 * PATIENCE)


async def lose_lease(store: RunStore, owner: str, pass_time: PassTime, run_id: str = RUN) -> int:
    """Claim a run and let the lease end; the epoch."""
    epoch = await store.claim(run_id, owner=owner, lease=0.05)
    await pass_time(0.1)
    return epoch
