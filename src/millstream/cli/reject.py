"""`millstream reject`: has a call of a paused run answered without being done."""

from __future__ import annotations

import argparse

NAME = "reject"
HELP = "refuse a call that waits for approval"
EPILOG = """\
examples:
  millstream reject run_4f2a               the only call that waits
  millstream reject run_4f2a call_7 --message "Keep that file."
  millstream reject run_4f2a --always      later calls of that tool too

The call is not done, and the model is told so. A call is decided over once,
and the first decision counts. Whoever goes on with the run acts on it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    from millstream.cli.deciding import add_call_arguments

    add_call_arguments(parser)
    parser.add_argument("--message", metavar="TEXT", help="what the model is told, and why")
    parser.add_argument(
        "--always", action="store_true", help="reject all later calls of that tool by that agent in this run"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.approval import Decision
    from millstream.cli.deciding import decide

    return decide(NAME, args, Decision(approved=False, message=args.message))
