"""`millstream approve`: lets a call of a paused run be done, whoever goes on with the run."""

from __future__ import annotations

import argparse

NAME = "approve"
HELP = "let a call that waits for approval be done"
EPILOG = """\
examples:
  millstream approve run_4f2a --list       which calls wait?
  millstream approve run_4f2a              the only one that waits
  millstream approve run_4f2a call_7       this one
  millstream approve run_4f2a 2            the second of the list
  millstream approve run_4f2a call_7 --arguments '{"path": "trash/b.txt"}'
  millstream approve run_4f2a --always     later calls of that tool too

A call is decided over once, and the first decision counts. To say the same
again changes nothing. Whoever goes on with the run acts on it.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    from millstream.cli.deciding import add_call_arguments

    add_call_arguments(parser)
    parser.add_argument(
        "--arguments",
        type=_object,
        metavar="JSON",
        help="what the tool gets in place of the model's arguments",
    )
    parser.add_argument(
        "--always", action="store_true", help="approve all later calls of that tool by that agent in this run"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.approval import Decision
    from millstream.cli.deciding import decide

    return decide(NAME, args, Decision(approved=True, arguments=args.arguments))


def _object(text: str) -> str:
    from millstream import codec
    from millstream.errors import DecodeError

    try:
        if isinstance(codec.decode(text), dict):
            return text
    except DecodeError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a JSON object")
