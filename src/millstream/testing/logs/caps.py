"""What every log promises of a run that reaches its caps. Held to logs of which a run may hold `CAP` events."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Coroutine
from typing import Any

from millstream.errors import LogFullError, LogGapError
from millstream.events import ModelCompleted, ModelStarted
from millstream.log.promise import Batch, EventLog, Payload
from millstream.testing.logs.clause import OTHER, RUN, STAMP, batch, positions_and_names, refused

CAP = 50
"""Events that a run may hold in the logs that these clauses are given."""

_DELTA = b'{"type":"response.output_text.delta","delta":"x"}'


def raw(first: int, count: int) -> Batch:
    """Raw model events from position `first` on."""
    return Batch(first, STAMP, [_DELTA] * count, raw_only=True, size=count * len(_DELTA))


async def raw_events_of_ended_calls_make_room(log: EventLog) -> None:
    """At a cap, raw events of model calls that have ended are dropped, and nothing else; the run writes on."""
    kept = await _two_calls(log)
    seen, gaps = await _read_over_gaps(log)
    assert kept <= set(seen), f"(lost: {sorted(kept - set(seen))})"
    assert gaps, "(nothing was dropped, although there were more events than the cap)"


async def a_gap_in_the_middle_is_told(log: EventLog) -> None:
    """Who comes to what was dropped is told the first position that is held behind it, and can go on there."""
    await _two_calls(log)
    seen, gaps = await _read_over_gaps(log)
    holes = [(one + 1, other) for one, other in itertools.pairwise(seen) if other != one + 1]
    assert seen[0] == 1
    assert gaps == holes, f"(told: {gaps}; the holes: {holes})"
    for after in range(seen[-1]):
        read, told = await _read_over_gaps(log, after)
        assert read == [position for position in seen if position > after], f"(after={after})"
        assert len(told) == sum(first > after + 1 for _, first in holes), f"(after={after}: {told})"


async def a_full_log_says_so_and_takes_what_closes(log: EventLog) -> None:
    """Where nothing can be dropped, the run is told `LogFullError`; it may still close what it opened, and end."""
    last = await _fill(log)
    await log.append(RUN, batch(last + 1, *"abcde"))
    await refused(log.append(RUN, raw(last + 6, 1)), LogFullError)
    await log.append(RUN, batch(last + 6, ends=True))
    assert [position for position, _ in await positions_and_names(log)] == list(range(1, last + 7))


async def a_full_log_takes_the_end(log: EventLog) -> None:
    """The terminal event is never refused, and other runs have a cap of their own."""
    last = await _fill(log)
    await log.append(OTHER, batch(1, "x", run_id=OTHER, ends=True))
    await log.append(RUN, batch(last + 1, ends=True))
    assert (await log.info(RUN)).sealed


CAP_CLAUSES: tuple[Callable[[EventLog], Coroutine[Any, Any, None]], ...] = (
    raw_events_of_ended_calls_make_room,
    a_gap_in_the_middle_is_told,
    a_full_log_says_so_and_takes_what_closes,
    a_full_log_takes_the_end,
)
"""The clauses on caps, in the order in which they are checked."""


async def _fill(log: EventLog) -> int:
    """Write until the run is told that its log is full; the last position that was taken."""
    for position in range(1, 2 * CAP):
        try:
            await log.append(RUN, batch(position, "a"))
        except LogFullError:
            return position - 1
    raise AssertionError(f"({2 * CAP} events were taken, although the cap is {CAP})")


async def _two_calls(log: EventLog) -> set[int]:
    """Write two model calls that are more than the log may hold; the positions that have to be there after all."""
    kept: set[int] = set()
    first = 1
    for turn in (1, 2):
        begins: list[Payload] = [ModelStarted(turn=turn)]
        await log.append(RUN, Batch(first, STAMP, begins))
        kept.add(first)
        for _ in range(3):
            await log.append(RUN, raw(first + 1, 12))
            first += 12
        together: list[Payload] = [_DELTA, *batch(1, "item").payloads, ModelCompleted(turn=turn)]
        await log.append(RUN, Batch(first + 1, STAMP, together, size=len(_DELTA)))
        kept.update((first + 2, first + 3))
        first += 4
    await log.append(RUN, batch(first, ends=True))
    return kept | {first}


async def _read_over_gaps(log: EventLog, after: int = 0) -> tuple[list[int], list[tuple[int, int]]]:
    """The positions that are held, and what the gaps between them said: the one asked for, and the next that is held."""
    seen: list[int] = []
    gaps: list[tuple[int, int]] = []
    while True:
        try:
            async for entry in log.follow(RUN, after):
                seen.append(entry.position)
                after = entry.position
        except LogGapError as gap:
            assert gap.first > gap.requested == after + 1, f"(after={after}: {gap})"
            gaps.append((gap.requested, gap.first))
            after = gap.first - 1
        else:
            return seen, gaps
