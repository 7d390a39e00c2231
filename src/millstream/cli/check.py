"""`millstream check`: holds a stream that was written down to the grammar of runs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from millstream.cli import exits
from millstream.cli.problem import Problem

if TYPE_CHECKING:
    from millstream.testing import StreamChecker

NAME = "check"
HELP = "check that a stream of a run keeps to the grammar"
EPILOG = """\
examples:
  millstream run --json "Hi" > run.jsonl
  millstream check run.jsonl
  millstream demo --json | millstream check -
  curl -sN localhost:8000/events | millstream check --json -   a text/event-stream
  head -20 run.jsonl | millstream check --unfinished -         a run that goes on

Exit code 0: it keeps to the grammar. 1: it does not, and the report says where.
2: it cannot be read, or is no stream of a run.
"""

STDIN = "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument(
        "file",
        metavar="FILE",
        help="entries or events, one JSON object a line, or a text/event-stream; - is standard input",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="hold the events of the model's server to its protocol, too",
    )
    parser.add_argument(
        "--filtered", action="store_true", help="some entries were left out, so that positions have holes"
    )
    parser.add_argument(
        "--unfinished", action="store_true", help="the run may still go on: it needs no terminal event"
    )
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.testing import StreamChecker

    checker = StreamChecker(raw=args.raw, filtered=args.filtered)
    name = "standard input" if args.file == STDIN else args.file
    with _opened(args.file, name) as file:
        _feed(checker, file, name)
    report = checker.report(ended=not args.unfinished)
    if report.runs == 0:
        raise Problem(f"{name} is empty." if report.pieces == 0 else f"{name} has no event of a run.", _HINT)
    print(json.dumps(report.to_dict()) if args.json else str(report))
    return exits.OK if report.ok else exits.FAILED


_HINT = "a stream is what `millstream run --json` prints, or a text/event-stream of the same JSON."
_PATIENCE = 100
"""Lines that may hold nothing of a run before this is no stream."""


def _feed(checker: StreamChecker, file: IO[bytes], name: str) -> None:
    try:
        for number, line in enumerate(file, 1):
            checker.feed(line)
            if number == _PATIENCE and checker.pieces and not checker.runs:
                raise Problem(f"{name} has no event of a run in its first {number} lines.", _HINT)
    except OSError as error:
        raise Problem(f"{name} cannot be read: {error.strerror or error}.") from error


@contextmanager
def _opened(path: str, name: str) -> Generator[IO[bytes]]:
    if path == STDIN:
        if sys.stdin is None or sys.stdin.isatty():  # pyright: ignore[reportUnnecessaryComparison]
            raise Problem(
                "nothing is piped in.", "for example: millstream run --json Hi | millstream check -"
            )
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")  # noqa: SIM115 (what is raised in the `with` below is not about opening)
    except OSError as error:
        raise Problem(f"{name} cannot be read: {error.strerror or error}.") from error
    with file:
        yield file
