"""`millstream tail`: a run that another process runs, shown from its log as it goes on."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, cast

from millstream.cli import exits
from millstream.cli.problem import Problem, say

if TYPE_CHECKING:
    from millstream.cli.place import Place
    from millstream.events import Entry, RunFailed
    from millstream.log.store import RunRecord, RunStore

NAME = "tail"
HELP = "show a run of a store or of a server, and follow it to its end"
EPILOG = """\
examples:
  millstream tail run_4f2a                 from its beginning to its end
  millstream tail run_4f2a --from 120      from position 120 on
  millstream tail run_4f2a --no-follow     only what is there by now
  millstream tail run_4f2a -q              only the text of the answer
  millstream tail run_4f2a --json          its log, one JSON object a line

Ctrl-C stops looking; the run goes on. Through a pause it stays with the run.
The exit code tells the end of the run: 0 completed, 1 failed or cancelled,
3 stopped by a limit; with --no-follow, 0 while there is no end.
"""

PATIENCE = 5.0
"""Seconds between two looks at whether anybody runs what is followed."""
LIMITS = frozenset({"max_turns", "tripwire"})
"""Codes of failed runs that a limit of their own stopped."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    from millstream.cli.place import add_run_argument
    from millstream.cli.show import add_style_arguments

    add_run_argument(parser)
    parser.add_argument(
        "--from", type=_position, default=1, metavar="N", dest="first", help="begin at position N (default 1)"
    )
    parser.add_argument(
        "--follow",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="stay until the run has ended (default), or show only what is there",
    )
    add_style_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.cli.place import in_place
    from millstream.cli.show import style_of, writer
    from millstream.cli.store import find_run

    write = writer(style_of(args), colour=False if args.no_color else None)

    async def work(place: Place) -> int:
        record = await find_run(place, args.run)
        until = None if args.follow else record.last
        watch = asyncio.ensure_future(_tell_why_it_stands_still(place, record)) if args.follow else None
        try:
            end = await _show(entries(place, record.run_id, args.first - 1, until), record.run_id, write)
        finally:
            if watch is not None:
                watch.cancel()
        return await _exit_code(place, record, end, args)

    try:
        return in_place(args, work)
    except KeyboardInterrupt:
        say("not looking any more; the run is not touched by that.")
        raise


async def entries(
    log: RunStore | Place, run_id: str, after: int, until: int | None = None
) -> AsyncIterator[Entry]:
    """The entries of a run beyond `after`, up to its end or to position `until`. What is no longer held is told of."""
    from millstream.errors import LogGapError

    while until is None or after < until:
        cursor = log.cursor(run_id, after)
        try:
            while (until is None or after < until) and (batch := await cursor.next()) is not None:
                for entry in batch.entries(after):
                    yield entry
                after = batch.last
            return
        except LogGapError as gap:
            last = gap.first - 1
            say(f"positions {gap.requested} to {last} are no longer held and are left out.")
            after = last


async def _show(log: AsyncIterator[Entry], run_id: str, write: Callable[[Entry], None]) -> Entry | None:
    """Write the entries of a run; its terminal one, if that came."""
    end = None
    async for entry in log:
        write(entry)
        if entry.is_terminal and entry.run_id == run_id:
            end = entry
    return end


async def _exit_code(place: Place, record: RunRecord, end: Entry | None, args: argparse.Namespace) -> int:
    if end is not None:
        problem = _problem_of(end)
    else:  # it may stand before what was asked for
        problem = _problem_in(await place.record(record.run_id))
    return exits.OK if problem is None else problem.report(debug=args.debug)


def _problem_of(end: Entry) -> Problem | None:
    """What is wrong with a run that ended so."""
    if end.type == "run.completed":
        return None
    if end.type == "run.cancelled":
        return _CANCELLED
    failed = cast("RunFailed", end.event)
    hint = (
        f"the log of the process that ran it says more, under {failed.error_id}." if failed.error_id else None
    )
    return _failed(failed.code, f": {failed.message}", hint)


def _problem_in(record: RunRecord) -> Problem | None:
    if record.status == "failed":
        return _failed(record.code or "failed", ".", None)
    return _CANCELLED if record.status == "cancelled" else None


_CANCELLED = Problem("the run was cancelled.", code=exits.FAILED)


def _failed(code: str, message: str, hint: str | None) -> Problem:
    return Problem(
        f"the run failed ({code}){message}", hint, code=exits.LIMIT if code in LIMITS else exits.FAILED
    )


async def _tell_why_it_stands_still(place: Place, record: RunRecord) -> None:
    """Say so where nothing comes because the run waits for somebody: for a decision, or for an owner."""
    from millstream.clock import current_clock
    from millstream.errors import LogError, ServerError

    told, last, patience = "", -1, PATIENCE / 5
    while True:
        try:
            now = await place.record(record.run_id)
            # at the second look, when what is there is shown
            why = await _standstill(place, now) if now.last == last else ""
        except (LogError, ServerError):  # whoever reads the entries is told of it
            return
        if why and why != told:
            say(why)
        told, last = why or told, now.last
        await current_clock().sleep(patience)
        patience = PATIENCE


async def _standstill(place: Place, record: RunRecord) -> str:
    if record.status == "paused":
        return await _pause(place, record)
    if record.status in ("queued", "running") and not record.is_owned:
        return "nobody runs it at the moment: its process is gone, or has not begun. It goes on when one takes it over."
    return ""


async def _pause(place: Place, record: RunRecord) -> str:
    from millstream.errors import RunStateError

    try:
        is_decided = all(call.decision is not None for call in await place.waiting(record))
    except RunStateError:  # what is known of its decisions cannot be read here
        is_decided = False
    except Problem:  # it goes on by now
        return ""
    if is_decided:
        return f"all that waited is decided over: {place.goes_on}."
    return f"the run waits for approval: `millstream approve {record.run_id} --list` shows of what."


def _position(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a position (1, 2, …)")
    return int(text)
