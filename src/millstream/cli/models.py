"""`millstream models`: which model would be used, and why."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from millstream.cli import exits

if TYPE_CHECKING:
    from millstream.models.choice import Candidate, ModelChoice
    from millstream.terminal.view import Segment

NAME = "models"
HELP = "show which model would be used, and why"
EPILOG = """\
examples:
  millstream models
  millstream models --model qwen3    where would that one be asked?
  millstream models --json           for programs

The order: OPENAI_BASE_URL, OPENAI_API_KEY, a server on this machine, the
scripted model. --model, or else MILLSTREAM_MODEL, names the model. Nothing
beyond this machine is asked.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("-m", "--model", metavar="NAME", help="as `millstream run` takes it")
    parser.add_argument("--api", choices=["responses", "chat"], help="as `millstream run` takes it")
    parser.add_argument("--offline", action="store_true", help="as `millstream run` takes it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--no-color", "--no-colour", action="store_true", help="no colours (also: NO_COLOR=1)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    import asyncio

    from millstream.errors import UserError
    from millstream.models.choice import choose
    from millstream.terminal.screen import Screen

    trail: list[Candidate] = []
    screen = Screen(sys.stdout, colour=False if args.no_color else None)
    try:
        choice = asyncio.run(
            choose(
                os.environ, model=args.model, wire=args.api, offline=args.offline, probe_all=True, trail=trail
            )
        )
    except UserError as error:
        if args.json:
            print(json.dumps({"error": str(error), "candidates": [each.to_dict() for each in trail]}))
        elif trail:
            screen.write(table(trail))
        sys.stdout.flush()  # before the error
        raise
    if args.json:
        print(json.dumps(choice.to_dict()))
    else:
        screen.write(lines(choice))
    return exits.OK


def lines(choice: ModelChoice) -> list[Segment]:
    """What a person is shown of `choice`."""
    from millstream.terminal.view import Segment

    shown = [Segment("plain", "would use "), Segment("agent", choice.model)]
    if choice.base_url is not None:
        api = "Responses API" if choice.wire == "responses" else "Chat Completions API"
        shown.append(Segment("plain", f" at {choice.base_url}, {api}"))
    shown.append(Segment("plain", f"\nbecause   {choice.reason}\n\n"))
    return shown + table(choice.candidates)


def table(candidates: Sequence[Candidate]) -> list[Segment]:
    """What became of every place where a model might have come from."""
    from millstream.terminal.view import Segment

    shown: list[Segment] = []
    wide = max(len(candidate.name) for candidate in candidates)
    for candidate in candidates:
        used = candidate.state == "used"
        mark, kind = ("●", "ok") if used else ("·", "note")
        models = ", ".join(candidate.models[:4]) + (", …" if len(candidate.models) > 4 else "")
        detail = f"{candidate.detail}{f': {models}' if models else ''}"
        shown.append(Segment(kind, f"  {mark} {candidate.name:<{wide}}  {candidate.state:<9}  "))
        shown.append(Segment("plain", f"{detail}\n"))
    return shown
