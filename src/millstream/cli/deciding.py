"""Decides over the calls of a paused run, by its mail: what `millstream approve` and `reject` share.

What waits stands in the last entry of the run's log, `run.paused`, and what was decided over it in
its mail. Neither needs the program of the run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from millstream.cli import exits
from millstream.cli.problem import Problem, say

if TYPE_CHECKING:
    from millstream.approval import CallKey, Decision
    from millstream.cli.place import Place
    from millstream.log.store import RunRecord, RunStore
    from millstream.terminal.view import Segment


@dataclass(frozen=True)
class Waiting:
    """A call that waits for a decision, or has one that nobody has acted on yet."""

    number: int
    """Its place in the list, from 1."""
    key: CallKey
    pause: int
    """The position of the pause that it waits at."""
    decision: Decision | None = None

    @property
    def state(self) -> str:
        """What became of it so far."""
        if self.decision is None:
            return "waits"
        return "approved" if self.decision.approved else "rejected"

    def to_dict(self) -> dict[str, Any]:
        """The call for programs."""
        key = self.key
        return {
            "number": self.number,
            "call_id": key.call_id,
            "agent": key.agent,
            "tool": key.tool,
            "arguments": key.arguments,
            "decision": None if self.decision is None else self.state,
        }


def add_call_arguments(parser: argparse.ArgumentParser) -> None:
    """What says which call is meant."""
    from millstream.cli.place import add_run_argument

    add_run_argument(parser)
    parser.add_argument(
        "call",
        nargs="?",
        metavar="CALL",
        help="the id of the call, or its number in the list; not needed where only one waits",
    )
    parser.add_argument("--list", action="store_true", help="only show what waits, and decide nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object a line for each call")


def decide(verb: str, args: argparse.Namespace, decision: Decision) -> int:
    """Do what the command line asks for: show what waits, or put `decision` into the mail of the run; the exit code.

    Raises:
        Problem: the run does not wait, no call is meant or several are, or another decision was made before.
    """
    from millstream.cli.place import in_place
    from millstream.cli.store import find_run

    async def work(place: Place) -> int:
        record = await find_run(place, args.run)
        calls = await place.waiting(record)
        if args.list:
            _show(calls, args)
            return exits.OK
        call = _meant(calls, verb, args)
        await place.decide(record, call, decision, always=args.always)
        decided = replace(call, decision=decision)
        _show([decided], args)
        left = sum(each.decision is None for each in calls if each is not call)
        if left:
            say(f"{left} more wait{'s' if left == 1 else ''}: millstream {verb} {args.run} --list")
        else:
            say(f"nothing else waits: {place.goes_on}.")
        return exits.OK

    return in_place(args, work)


async def waiting(store: RunStore, record: RunRecord) -> list[Waiting]:
    """The calls that a paused run waits for, in order, with what was decided over them since.

    Raises:
        Problem: it is not paused.
        LogError: its log or its mail cannot be read.
        RunStateError: nor can its checkpoint.
    """
    from millstream.attach.waiting import pause_of

    if record.status != "paused":
        raise not_waiting(record)
    pause = await pause_of(store, record)
    if pause is None:
        raise Problem(f"{record.run_id} goes on by now: nothing waits.", code=exits.FAILED)
    return [
        Waiting(number, key, pause.position, pause.decided.get(key))
        for number, key in enumerate(pause.keys, 1)
    ]


def not_waiting(record: RunRecord) -> Problem:
    """What is wrong with deciding over a run where nothing waits."""
    status = "decided over by now" if record.status == "paused" else record.status
    return Problem(f"{record.run_id} does not wait for approval: it is {status}.", code=exits.FAILED)


def _meant(calls: Sequence[Waiting], verb: str, args: argparse.Namespace) -> Waiting:
    """The call that the command line names; without a name, the only one that waits."""
    if args.call is None:
        left = [call for call in calls if call.decision is None] or calls
        if len(left) == 1:
            return left[0]
        _show(calls, args)
        if left is calls and calls[0].decision is not None:
            raise Problem("all of them were decided over already.", code=exits.FAILED)
        raise Problem(f"{len(left)} calls wait.", f"name one: millstream {verb} {args.run} CALL")
    found = [call for call in calls if call.key.call_id == args.call] or [
        call for call in calls if str(call.number) == args.call
    ]
    if len(found) == 1:
        return found[0]
    _show(calls, args)
    if found:
        raise Problem(f"{len(found)} calls have the id {args.call!r}.", "name one by its number in the list.")
    raise Problem(
        f"no call {args.call!r} waits in this run.",
        "name one of these by its id or its number.",
        code=exits.FAILED,
    )


def _show(calls: Sequence[Waiting], args: argparse.Namespace) -> None:
    from millstream import codec
    from millstream.terminal.screen import Screen

    if args.json:
        for call in calls:
            sys.stdout.buffer.write(codec.encode(call.to_dict()) + b"\n")
        sys.stdout.buffer.flush()
        return
    screen = Screen(sys.stdout, colour=None)
    screen.write(lines(calls, screen.width))


def lines(calls: Sequence[Waiting], width: int) -> list[Segment]:
    """The calls for people, a line each."""
    from millstream.terminal import shorten
    from millstream.terminal.view import Segment

    wide = max((shorten.cells(call.key.call_id) for call in calls), default=0)
    shown: list[Segment] = []
    for call in calls:
        key = call.key
        head = f"  {call.number}  {key.call_id:<{wide}}  {call.state:<8}  {shorten.one_line(key.agent)}: "
        kind = "call" if call.decision is None else "ok" if call.decision.approved else "error"
        shown.append(Segment("plain", f"  {call.number}  {key.call_id:<{wide}}  "))
        shown.append(Segment(kind, f"{call.state:<8}"))
        line = shorten.call(key.tool, key.arguments, max(width - shorten.cells(head), 20))
        shown.append(Segment("plain", f"  {shorten.one_line(key.agent)}: {line}\n"))
    return shown
