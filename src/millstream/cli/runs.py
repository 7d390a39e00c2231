"""`millstream runs`: the runs of a store, or of a server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from millstream.cli import exits
from millstream.cli.problem import say

if TYPE_CHECKING:
    from millstream.cli.place import Place
    from millstream.log.store import RunRecord
    from millstream.terminal.view import Kind, Segment

NAME = "runs"
HELP = "list the runs of a store or of a server"
EPILOG = """\
examples:
  millstream runs --store sqlite:///runs.db
  export MILLSTREAM_STORE=sqlite:///runs.db
  millstream runs                          the newest 20
  millstream runs --status paused          those that wait for approval
  millstream runs --conversation thread-7  those of one conversation
  millstream runs --status queued --status running --limit 100
  millstream runs --url http://127.0.0.1:7420
  millstream runs --json | jq -r .run_id   one JSON object a line

`no owner` stands behind a run whose process is gone, or has not begun.
"""

STATUSES = ("queued", "running", "paused", "completed", "failed", "cancelled")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    from millstream.cli.place import add_place_arguments

    add_place_arguments(parser)
    parser.add_argument(
        "--status",
        action="append",
        choices=STATUSES,
        default=[],
        metavar="STATUS",
        help="only those that are queued, running, paused, completed, failed or cancelled; may be given several times",
    )
    parser.add_argument("--caller", metavar="NAME", help="only those that this caller asked for")
    parser.add_argument("--conversation", metavar="ID", help="only those of this conversation")
    parser.add_argument(
        "--limit",
        type=_limit,
        default=20,
        metavar="N",
        help="how many at most, the newest first (default 20)",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object a line")
    parser.add_argument(
        "--no-color", "--no-colour", action="store_true", help="no colours (also: NO_COLOR=1)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.cli.place import in_place

    async def work(place: Place) -> int:
        found = await place.runs(
            caller=args.caller,
            statuses=args.status,
            conversation=args.conversation,
            limit=args.limit + 1,
        )
        _show(found[: args.limit], args)
        if len(found) > args.limit:
            say(f"there are more: --limit {args.limit * 5} shows more of them.")
        return exits.OK

    return in_place(args, work)


def _show(records: Sequence[RunRecord], args: argparse.Namespace) -> None:
    from millstream.clock import current_clock
    from millstream.terminal.screen import Screen

    if args.json:
        for record in records:
            sys.stdout.buffer.write(json_line(record))
        sys.stdout.buffer.flush()
    elif records:
        screen = Screen(sys.stdout, colour=False if args.no_color else None)
        screen.write(
            table(records, now=current_clock().time(), width=screen.width if screen.is_terminal else None)
        )
    else:
        is_chosen = args.status or args.caller or args.conversation
        say("there are no such runs." if is_chosen else "there are no runs yet.")


def json_line(record: RunRecord) -> bytes:
    """A record for programs: one line of JSON, without its request and its checkpoint."""
    from millstream import codec

    names = ("run_id", "agent", "status", "code", "caller", "is_owned", "epoch", "last", "created", "updated")
    more = ("options", "idempotency_key", "conversation")
    return codec.encode({name: getattr(record, name) for name in names + more}) + b"\n"


def table(records: Sequence[RunRecord], *, now: float, width: int | None) -> list[Segment]:
    """The records for people, a line each below a head; columns that nobody fills are left out.

    Args:
        records: what is shown.
        now: the time, by the clock that wrote theirs.
        width: columns of the terminal: the agent's name, which stands last, is cut to fit. None where nobody looks.
    """
    from millstream.terminal.shorten import cells, cut
    from millstream.terminal.view import Segment

    head = ("RUN", "STATUS", "UPDATED", "", "CALLER", "CONVERSATION", "AGENT")
    rows = [head, *(_row(record, now) for record in records)]
    kinds: list[Kind] = ["note", *(_KINDS[record.status] for record in records)]
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    wide = [max(map(cells, column)) for column in columns]
    shown: list[Segment] = []
    for kind, row in zip(kinds, zip(*columns, strict=True), strict=True):
        run_id, status, *rest = (
            text + " " * (room - cells(text)) for text, room in zip(row, wide, strict=True)
        )
        told = "  ".join(rest).rstrip()
        if width is not None:
            told = cut(told, max(width - wide[0] - wide[1] - 4, 20))
        plain: Kind = "plain" if shown else "note"
        shown += [Segment(plain, f"{run_id}  "), Segment(kind, status), Segment(plain, f"  {told}\n")]
    return shown


def _row(record: RunRecord, now: float) -> tuple[str, ...]:
    from millstream.terminal.shorten import one_line

    has_owner = record.is_owned or record.status not in ("queued", "running")
    note = record.code or "" if record.status == "failed" else "" if has_owner else "no owner"
    told = age(now - record.updated)
    names = (one_line(name) for name in (record.caller, record.conversation, record.agent))
    return record.run_id, record.status, told, note, *names


def age(seconds: float) -> str:
    """How long ago, roughly."""
    seconds = max(seconds, 0.0)
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit} ago"
    return f"{int(seconds)} s ago"


_KINDS: dict[str, Kind] = {
    "queued": "note",
    "running": "agent",
    "paused": "call",
    "completed": "ok",
    "failed": "error",
    "cancelled": "note",
}


def _limit(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of runs (1, 2, …)")
    return int(text)
