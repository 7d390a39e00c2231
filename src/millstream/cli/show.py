"""Shows one run at the terminal: starts it, writes what it says, stops it when asked to."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from millstream.cli import exits
from millstream.cli.asking import decide, read_line, unanswered
from millstream.cli.interrupts import Interrupts, Stop
from millstream.cli.problem import Problem, explain
from millstream.terminal.screen import Screen
from millstream.terminal.view import TextView, View

if TYPE_CHECKING:
    from millstream.events import Entry
    from millstream.result import RunResultStreaming
    from millstream.run_state import RunState

Style: TypeAlias = Literal["view", "text", "json"]
"""How a run is shown: for people, only its text, or its entries."""

Start: TypeAlias = Callable[[], Awaitable["RunResultStreaming"]]
"""Starts the run, within the event loop."""

GoOn: TypeAlias = Callable[["RunState[Any, Any]"], "RunResultStreaming"]
"""Goes on with a run that has waited for approval."""


def add_style_arguments(parser: argparse.ArgumentParser, *, quiet: bool = True) -> None:
    """The options that say how a run is shown."""
    group = parser.add_mutually_exclusive_group()
    group.add_argument(
        "--json", action="store_true", help="print the entries of the run's log, one JSON object a line"
    )
    if quiet:
        group.add_argument("-q", "--quiet", action="store_true", help="print only the text of the answer")
    parser.add_argument(
        "--no-color", "--no-colour", action="store_true", help="no colours (also: NO_COLOR=1)"
    )


def style_of(args: argparse.Namespace) -> Style:
    """The style that the command line asks for."""
    if args.json:
        return "json"
    return "text" if getattr(args, "quiet", False) else "view"


def show(
    start: Start,
    args: argparse.Namespace,
    *,
    go_on: GoOn | None = None,
    close: Callable[[], Awaitable[None]] | None = None,
) -> int:
    """Run what `start` starts to its end, showing it; the exit code.

    Args:
        start: starts the run.
        args: the command line, with the options of `add_style_arguments`.
        go_on: goes on with it, where it waits for approval; without one, nobody is asked.
        close: called at the end, within the event loop.

    Raises:
        OSError: standard output cannot be written to; the run has been stopped by then.
        Problem: the run could not be started.
    """
    write = writer(style_of(args), colour=False if args.no_color else None)
    with Interrupts() as interrupts:
        try:
            failure = asyncio.run(_show(start, write, interrupts, go_on, close))
        except KeyboardInterrupt:
            return interrupts.exit_code
    if interrupts.number is not None:
        return interrupts.exit_code
    return failure.report(debug=args.debug) if failure is not None else exits.OK


def writer(style: Style, *, colour: bool | None) -> Callable[[Entry], None]:
    """What puts an entry on standard output in `style`."""
    if style == "json":
        out = sys.stdout.buffer

        def write_json(entry: Entry) -> None:
            out.write(entry.to_json() + b"\n")
            out.flush()

        return write_json
    screen = Screen(sys.stdout, colour=colour)
    view = TextView() if style == "text" else View(width=screen.width, tells_failure=False)
    return lambda entry: screen.write(view.feed(entry))


async def _show(
    start: Start,
    write: Callable[[Entry], None],
    interrupts: Interrupts,
    go_on: GoOn | None,
    close: Callable[[], Awaitable[None]] | None,
) -> Problem | None:
    try:
        handle = await start()
        stop = Stop()
        interrupts.stops(stop)
        problem = await follow(handle, write, stop)
        while handle.interruptions and go_on is not None:
            interrupts.stops(None)  # a signal interrupts the question
            try:
                state = decide(handle, read_line)
            except EOFError:
                break
            interrupts.stops(stop)
            handle = go_on(state)
            problem = await follow(handle, write, stop)
        return problem
    finally:
        if close is not None:
            await close()


async def follow(handle: RunResultStreaming, write: Callable[[Entry], None], stop: Stop) -> Problem | None:
    """Write the entries of a run to its end, which may come by `stop`, or to where it pauses; what went wrong with it.

    Raises:
        OSError: they cannot be written; the run has been stopped by then.
    """
    stop.begin(handle)
    try:
        async for entry in handle.entries(after=handle.begins_after):
            write(entry)
        if handle.run_loop_task is not None:  # which lets go of a run that is kept in a store
            await asyncio.wait([handle.run_loop_task])
    except OSError:
        await handle.aclose()
        raise
    finally:
        stop.end()
    return _outcome(handle)


def _outcome(handle: RunResultStreaming) -> Problem | None:
    error = handle.run_loop_exception
    if error is not None:
        return explain(error)
    if handle.interruptions:
        return unanswered(handle)
    if handle.is_cancelled:
        return Problem("the run was cancelled.", code=exits.FAILED)
    return None
