"""What every log promises of the events of a run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from millstream.errors import (
    LogBrokenError,
    LogGapError,
    PositionConflictError,
    RunClosedError,
    UnknownRunError,
)
from millstream.events import Entry, RunCompleted, RunStarted, Stamp
from millstream.log.promise import Batch, EventLog
from millstream.testing.logs.clause import OTHER, RUN, batch, entries, positions_and_names, refused


async def what_is_written_can_be_read(log: EventLog) -> None:
    """Followers see what was appended, in order, under the positions it was given."""
    await log.append(RUN, batch(1, "a", "b"))
    await log.append(RUN, batch(3, "c", ends=True))
    assert await positions_and_names(log) == [(1, "a"), (2, "b"), (3, "c"), (4, "run.completed")]


async def raw_events_are_kept_as_they_came(log: EventLog) -> None:
    """The JSON of a raw model event comes back byte for byte."""
    json = b'{"type":"response.output_text.delta","delta":"caf\xc3\xa9","sequence_number":4}'
    await log.append(RUN, Batch(1, Stamp(run_id=RUN, agent="A"), [json], raw_only=True, size=len(json)))
    await log.append(RUN, batch(2, ends=True))
    first = (await entries(log))[0]
    assert first.event.to_json() == b'{"type":"raw_response_event","data":' + json + b"}"


async def a_follower_may_begin_anywhere(log: EventLog) -> None:
    """For every position, what follows it is what an unbroken reader saw after it."""
    await log.append(RUN, batch(1, "a", "b", "c"))
    await log.append(RUN, batch(4, "d"))
    await log.append(RUN, batch(5, "e", ends=True))
    whole = await positions_and_names(log)
    for after in range(8):
        assert await positions_and_names(log, after) == whole[after:], f"(after={after})"


async def a_follower_waits_for_what_comes(log: EventLog) -> None:
    """Followers that are there first see every event once, also the ones that come later."""
    followers = [asyncio.create_task(positions_and_names(log, after)) for after in (0, 0, 2)]
    await asyncio.sleep(0)
    for position, name in enumerate("abcd", 1):
        await log.append(RUN, batch(position, name))
        await asyncio.sleep(0)
    await log.append(RUN, batch(5, ends=True))
    whole = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "run.completed")]
    assert await asyncio.gather(*followers) == [whole, whole, whole[2:]]


async def a_cursor_survives_being_cancelled(log: EventLog) -> None:
    """Cancelling `next` loses nothing: the next call goes on where the last one stood."""
    cursor = log.cursor(RUN)
    for position, name in enumerate("abc", 1):
        waiting = asyncio.create_task(cursor.next())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await log.append(RUN, batch(position, name))
        got = await cursor.next()
        assert got is not None
        assert [entry.position for entry in got.entries(position - 1)] == [position]


async def positions_have_no_holes(log: EventLog) -> None:
    """An append that skips a position is refused and leaves nothing behind."""
    await log.append(RUN, batch(1, "a"))
    await refused(log.append(RUN, batch(3, "c")), PositionConflictError)
    await log.append(RUN, batch(2, "b", ends=True))
    assert [position for position, _ in await positions_and_names(log)] == [1, 2, 3]


async def an_append_may_be_repeated(log: EventLog) -> None:
    """The same events at the same positions change nothing, in part and as a whole."""
    await log.append(RUN, batch(1, "a", "b"))
    await log.append(RUN, batch(1, "a", "b"))
    await log.append(RUN, batch(2, "b", "c"))
    await log.append(RUN, batch(4, ends=True))
    await log.append(RUN, batch(4, ends=True))
    assert await positions_and_names(log) == [(1, "a"), (2, "b"), (3, "c"), (4, "run.completed")]


async def a_position_is_written_once(log: EventLog) -> None:
    """Another event at a position that is taken is refused."""
    await log.append(RUN, batch(1, "a"))
    await refused(log.append(RUN, batch(1, "other")), PositionConflictError)
    await log.append(RUN, batch(2, ends=True))
    assert (await positions_and_names(log))[0] == (1, "a")


async def nothing_follows_the_end(log: EventLog) -> None:
    """After the terminal event every append is refused, and every follower ends."""
    await log.append(RUN, batch(1, "a", ends=True))
    await refused(log.append(RUN, batch(3, "late")), RunClosedError)
    await refused(log.append(RUN, batch(3, ends=True)), RunClosedError)
    assert [position for position, _ in await positions_and_names(log)] == [1, 2]
    assert (await log.info(RUN)).sealed


async def the_end_of_a_nested_run_is_not_the_end(log: EventLog) -> None:
    """A terminal event of a run nested in this one does not seal the log."""
    nested = Stamp(run_id="run_child", agent="B", depth=1, parent_run_id=RUN)
    await log.append(RUN, batch(1, "a"))
    await log.append(RUN, Batch(2, nested, [RunCompleted(output="inner")]))
    assert not (await log.info(RUN)).sealed
    await log.append(RUN, batch(3, "b", ends=True))
    inner, own = (await entries(log))[1:3]
    assert (inner.position, inner.run_id, inner.depth) == (2, "run_child", 1)
    assert (own.position, own.run_id, own.depth) == (3, RUN, 0)


async def runs_do_not_mix(log: EventLog) -> None:
    """Each run has positions and an end of its own."""
    await log.append(RUN, batch(1, "a"))
    await log.append(OTHER, batch(1, "x", run_id=OTHER, ends=True))
    await log.append(RUN, batch(2, "b", ends=True))
    assert [name for _, name in await positions_and_names(log)] == ["a", "b", "run.completed"]
    other = [entry async for entry in log.follow(OTHER)]
    assert [entry.position for entry in other] == [1, 2]


async def a_gap_is_never_silent(log: EventLog) -> None:
    """Who asks for a position that was trimmed gets an error that says what is still held."""
    await log.append(RUN, batch(1, "a", "b", "c"))
    await log.append(RUN, batch(4, "d", ends=True))
    await log.trim(RUN, 3)
    info = await log.info(RUN)
    assert (info.first, info.last) == (3, 5)
    for after in (0, 1):
        try:
            await positions_and_names(log, after)
        except LogGapError as gap:
            assert (gap.requested, gap.first) == (after + 1, 3), f"(after={after})"
        else:
            raise AssertionError(f"(after={after}: no LogGapError)")
    assert [position for position, _ in await positions_and_names(log, 2)] == [3, 4, 5]


async def nobody_waits_for_a_run_that_broke_off(log: EventLog) -> None:
    """After `break_off`, who follows is given what is there and then an error; an ended run just ends."""
    await log.append(RUN, batch(1, "a"))
    follower = asyncio.create_task(_broken_off(log))
    await asyncio.sleep(0)
    log.break_off(RUN)
    assert await follower == [1], "(a follower that waited)"
    assert await _broken_off(log) == [1], "(a follower that came later)"
    await log.append(OTHER, batch(1, "x", run_id=OTHER, ends=True))
    log.break_off(OTHER)
    assert [entry.position async for entry in log.follow(OTHER)] == [1, 2], "(a run that had ended)"


async def the_log_says_how_far_it_reaches(log: EventLog) -> None:
    """`info` counts what is written, and knows no run that nothing was written for."""
    await refused(log.info("run_unknown"), UnknownRunError)
    await log.append(RUN, Batch(1, Stamp(run_id=RUN, agent="A"), [RunStarted(agent="A")]))
    info = await log.info(RUN)
    assert (info.first, info.last, info.sealed) == (1, 1, False)
    assert log.info_nowait(RUN) in (None, info)


async def entries_survive_the_wire(log: EventLog) -> None:
    """An entry read from the log encodes to one line of JSON and reads back the same."""
    await log.append(RUN, batch(1, "a\r\n\u2028", ends=True))
    for entry in await entries(log):
        line = entry.to_json()
        assert b"\n" not in line
        assert Entry.from_json(line).to_json() == line


CLAUSES: tuple[Callable[[EventLog], Coroutine[Any, Any, None]], ...] = (
    what_is_written_can_be_read,
    raw_events_are_kept_as_they_came,
    a_follower_may_begin_anywhere,
    a_follower_waits_for_what_comes,
    a_cursor_survives_being_cancelled,
    positions_have_no_holes,
    an_append_may_be_repeated,
    a_position_is_written_once,
    nothing_follows_the_end,
    the_end_of_a_nested_run_is_not_the_end,
    runs_do_not_mix,
    a_gap_is_never_silent,
    nobody_waits_for_a_run_that_broke_off,
    the_log_says_how_far_it_reaches,
    entries_survive_the_wire,
)
"""The clauses of the contract, in the order in which they are checked."""


async def _broken_off(log: EventLog) -> list[int]:
    positions: list[int] = []
    try:
        async for entry in log.follow(RUN):
            positions += [entry.position]
    except LogBrokenError:
        return positions
    raise AssertionError("(it ended without a LogBrokenError)")
