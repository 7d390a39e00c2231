"""`millstream doctor`: what is wrong between a client and a server."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import textwrap
from dataclasses import asdict
from typing import TYPE_CHECKING

from millstream.cli import exits
from millstream.cli.place import TOKEN_VARIABLE, URL_VARIABLE
from millstream.cli.problem import Problem

if TYPE_CHECKING:
    from millstream.client.doctor import Doctor
    from millstream.client.doctor_findings import Finding

NAME = "doctor"
HELP = (
    "find what is wrong between here and a server: a proxy that buffers, a missing heartbeat, a wrong clock"
)
EPILOG = f"""\
examples:
  millstream doctor http://127.0.0.1:7420
  millstream doctor https://agents.example.com --token TOKEN
  millstream doctor https://agents.example.com --wait 120   is a silent stream cut?
  millstream doctor --json                                  of the server in {URL_VARIABLE}

It begins no run and changes nothing. It takes a few seconds, and --wait as many
more. Ask from where the clients are: what stands between is what is looked at.

Exit code 0: no problem was found, though perhaps warnings. 1: there is one.
2: the command is wrong.
"""

WAITS = (1.0, 300.0)
"""Seconds for which a stream may be asked to stay open."""
_LONGEST = max(map(len, ("ok", "warning", "problem")))
_CHECK = 10
"""Columns for the name of what was looked at."""
_INDENT = _LONGEST + _CHECK + 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("url", metavar="URL", nargs="?", help=f"where the server is (also: {URL_VARIABLE})")
    parser.add_argument("--token", metavar="TOKEN", help=f"lets you in there (better: {TOKEN_VARIABLE})")
    parser.add_argument(
        "--wait",
        type=_wait,
        metavar="SECONDS",
        help="also keep a stream open for that long, silent but for the server's own heartbeats (1 to 300)",
    )
    parser.add_argument("--json", action="store_true", help="print what was found as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.client.doctor import Doctor
    from millstream.clock import current_clock
    from millstream.errors import UserError

    url = args.url or os.environ.get(URL_VARIABLE)
    if not url:
        raise Problem("which server?", f"millstream doctor http://127.0.0.1:7420, or set {URL_VARIABLE}.")
    screen = _Screen(is_json=args.json)
    try:
        doctor = Doctor(
            url,
            token=args.token or os.environ.get(TOKEN_VARIABLE) or None,
            clock=current_clock(),
            wait=args.wait,
            progress=screen.wait,
        )
    except UserError as error:
        raise Problem(f"the server cannot be asked: {error}", "such as http://127.0.0.1:7420") from error
    found = asyncio.run(_all(doctor, screen))
    screen.sum_up(doctor.target.url, found)
    return exits.FAILED if any(each.level == "problem" for each in found) else exits.OK


async def _all(doctor: Doctor, screen: _Screen) -> list[Finding]:
    found: list[Finding] = []
    try:
        async for finding in doctor.findings():
            found.append(finding)
            screen.show(finding)
    finally:
        screen.clear()
        await doctor.aclose()
    return found


class _Screen:
    """Shows findings as they are made, and what is waited for where somebody looks on."""

    def __init__(self, *, is_json: bool) -> None:
        self._is_json = is_json
        error = sys.stderr
        self._is_watched = error is not None and error.isatty()  # pyright: ignore[reportUnnecessaryComparison]
        self._waits = False

    def wait(self, text: str) -> None:
        """Say what is waited for, on a line that goes when it is here."""
        self.clear()
        if self._is_watched:
            self._waits = True
            sys.stderr.write(text)
            sys.stderr.flush()

    def clear(self) -> None:
        """Take back what was waited for."""
        if self._waits:
            self._waits = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, finding: Finding) -> None:
        """One finding, and its remedy."""
        self.clear()
        if self._is_json:
            return
        self._print(f"{finding.level:{_LONGEST}}  {finding.check:{_CHECK}}  ", finding.seen)
        if finding.remedy:
            self._print(" " * _INDENT, finding.remedy)

    def _print(self, head: str, text: str) -> None:
        if sys.stdout.isatty():
            room = max(shutil.get_terminal_size().columns - _INDENT, 30)
            text = textwrap.fill(text, room, break_long_words=False, break_on_hyphens=False)
        print(head + text.replace("\n", "\n" + " " * _INDENT), flush=True)

    def sum_up(self, url: str, found: list[Finding]) -> None:
        """The end of the report, or all of it as JSON."""
        problems, warnings = (sum(each.level == level for each in found) for level in ("problem", "warning"))
        if self._is_json:
            report = {"url": url, "ok": not problems, "findings": [asdict(each) for each in found]}
            print(json.dumps(report))
            return
        print(f"\n{url}: {_count(problems, 'problem')}, {_count(warnings, 'warning')}.")


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"


def _wait(text: str) -> float:
    least, most = WAITS
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not least <= seconds <= most:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from {least:g} to {most:g}")
    return seconds
