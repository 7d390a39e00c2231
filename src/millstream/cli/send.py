"""`millstream send`: more input for a run, whichever process runs it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from millstream.cli import exits

if TYPE_CHECKING:
    from millstream.cli.place import Place

NAME = "send"
HELP = "give a run of a store or of a server more input"
EPILOG = """\
examples:
  millstream send run_4f2a "Skip the museums."    the answer begins anew
  millstream send run_4f2a --when after_turn "Also book a table."
  cat notes.txt | millstream send run_4f2a -      - stands for what is piped in

A run that waits for approval, or has no owner, reads it when it goes on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    from millstream.cli.place import add_run_argument

    add_run_argument(parser)
    parser.add_argument("words", nargs="+", metavar="TEXT", help="what to tell it; - is standard input")
    parser.add_argument(
        "--when",
        choices=["now", "after_tool", "after_turn"],
        default="now",
        help="when its model gets it: now (default), behind its running tools, or behind its turn",
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.cli.place import in_place
    from millstream.cli.problem import Problem
    from millstream.cli.prompt import read_text
    from millstream.cli.store import find_run, has_ended, print_line, what_next
    from millstream.errors import UserError

    # Not whatever is piped in: in `while read run; do millstream send $run Stop; done` that is the loop's.
    text = read_text(args.words)
    if not text:
        raise Problem("there is no text.", f'give one: millstream send {args.run} "Skip the museums."')

    async def work(place: Place) -> int:
        record = await find_run(place, args.run)
        try:
            await place.run(record.run_id).send(text, args.when)
        except UserError:
            now = await place.record(record.run_id)
            if now.has_ended:
                raise has_ended(now, "it takes no more input") from None
            raise
        print_line(f"Sent to {record.run_id}. {what_next(record)}")
        return exits.OK

    return in_place(args, work)
