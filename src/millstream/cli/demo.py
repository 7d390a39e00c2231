"""`millstream demo`: a run of several agents, by a script."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from millstream.cli import exits

if TYPE_CHECKING:
    from millstream.result import RunResultStreaming

NAME = "demo"
HELP = "watch a multi-agent run stream; needs no key and no network"
EPILOG = """\
examples:
  millstream demo              about ten seconds
  millstream demo --speed 3    three times as fast
  millstream demo --json       the run's log, one JSON object a line
"""

INTRO = """\
A scripted run: no key, no network, no language model. The agents, their tools
and the stream are real; only the words were written beforehand.

"""

OUTRO = """
What you saw, as it happened: one agent handing over to another, three tools at
once, one telling how far it is and one failing, the model coping and asking a
third agent, and an answer that is an object.

Next:  millstream run "your question"   ask a model of your own
       millstream models                which model that would be, and why
       millstream demo --json           the same run as its log has it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    from millstream.cli.show import add_style_arguments

    parser.add_argument(
        "--speed", type=_speed, default=1.0, metavar="N", help="how many times as fast (default 1)"
    )
    add_style_arguments(parser, quiet=False)


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    import sys

    from millstream.cli.demo_agents import PROMPT, front_desk
    from millstream.cli.show import show
    from millstream.terminal.screen import Screen
    from millstream.terminal.view import Segment

    agent = front_desk(args.speed)

    async def start() -> RunResultStreaming:
        from millstream.runner import Runner

        return Runner.run_streamed(agent, PROMPT)

    if args.json:
        return show(start, args)
    screen = Screen(sys.stdout, colour=False if args.no_color else None)
    screen.write([Segment("note", INTRO), Segment("output", "You"), Segment("plain", f"\n{PROMPT}\n\n")])
    code = show(start, args)
    if code == exits.OK:
        screen.write([Segment("plain", OUTRO)])
    return code


def _speed(text: str) -> float:
    try:
        speed = float(text)
    except ValueError:
        speed = 0.0
    if not 0.01 <= speed <= 1000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a speed between 0.01 and 1000")
    return speed
