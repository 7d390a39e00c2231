"""`millstream cancel`: stops a run, whichever process runs it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from millstream.cli import exits

if TYPE_CHECKING:
    from millstream.cli.place import Place

NAME = "cancel"
HELP = "stop a run of a store or of a server"
EPILOG = """\
examples:
  millstream cancel run_4f2a                      at once
  millstream cancel run_4f2a --mode after_tool    when running tools are done
  millstream cancel run_4f2a --mode after_turn    when its turn is done

It asks; `millstream tail run_4f2a` shows when it is done. A run that has ended
by itself is left as it is, with exit code 0.
"""

_WHEN = {"now": "now", "after_tool": "when its running tools are done", "after_turn": "when its turn is done"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    from millstream.cli.place import add_run_argument

    add_run_argument(parser)
    parser.add_argument("--mode", choices=list(_WHEN), default="now", help="when it stops (default now)")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.cli.place import in_place
    from millstream.cli.store import find_run, print_line, what_next

    async def work(place: Place) -> int:
        before = await find_run(place, args.run)
        if before.has_ended:
            print_line(f"{before.run_id} is {before.status} already: there is nothing to stop.")
            return exits.OK
        await place.run(before.run_id).cancel(args.mode)
        now = await place.record(before.run_id)
        if now.has_ended:
            print_line(f"{now.run_id} is {now.status}.")
        else:
            print_line(f"{now.run_id} is asked to stop {_WHEN[args.mode]}. {what_next(now)}")
        return exits.OK

    return in_place(args, work)
