"""The program: finds the command, runs it, and turns whatever happens into an exit code."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from millstream.about import __version__
from millstream.cli import (
    approve,
    cancel,
    chat,
    check,
    demo,
    doctor,
    exits,
    models,
    reject,
    runs,
    send,
    serve,
    tail,
)
from millstream.cli import run as run_command
from millstream.cli.problem import Problem, explain, say

DESCRIPTION = "Run LLM agents whose output streams."

EPILOG = """\
examples:
  millstream demo                        a multi-agent run: no key, no network
  millstream run "Why is the sky blue?"  ask a model
  millstream run app.py "Hello"          run the agent of a Python file
  millstream chat                        talk with one, answer by answer
  millstream models                      which model would be used, and why
  millstream check run.jsonl             is this the whole stream of a run?
  millstream doctor https://example.com  what is wrong between here and there?
  millstream runs --store sqlite:///runs.db   what runs, ran or waits there?
  millstream tail run_4f2a --store sqlite:///runs.db

exit codes:
  0 done · 1 the run failed · 2 wrong use or set-up · 3 stopped by a limit
  130 interrupted · 141 the reader of the output went away
"""


_COMMANDS = (run_command, chat, serve, doctor, models, check, demo, runs, tail, send, cancel, approve, reject)
"""In the order that the help lists them."""


def run(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv` (by default the command line's) and return its exit code."""
    args = argparse.Namespace(debug=False)
    try:
        code = _run(argv, args)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        code = exits.INTERRUPTED
    except BrokenPipeError:
        code = exits.READER_GONE
    except Problem as problem:
        code = problem.report(debug=args.debug)
    except OSError as error:  # reading is the commands' own business: this was writing
        say(f"error: the output could not be written: {error.strerror or error}")
        code = exits.FAILED
    except Exception as error:
        code = explain(error).report(debug=args.debug)
    _let_go_of_stdout()
    return code


def _run(argv: Sequence[str] | None, args: argparse.Namespace) -> int:
    if sys.stdout is None:  # pyright: ignore[reportUnnecessaryComparison]
        raise Problem("standard output is closed, so there is nowhere to write to.", code=exits.FAILED)
    try:
        _parser().parse_args(argv, args)
    except SystemExit as error:  # argparse has said why
        return error.code if isinstance(error.code, int) else exits.USAGE
    return args.command(args)


def _let_go_of_stdout() -> None:
    """Write what is still in the buffer, or let it go nowhere: the interpreter would complain of it at its end."""
    # It may have been closed, by whoever started us or by the app.
    with contextlib.suppress(OSError, AttributeError, ValueError):
        try:
            sys.stdout.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and where to look."""

    def _print_message(self, message: str, file: Any = None) -> None:
        # argparse drops what it cannot write, without a word and with exit code 0.
        (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        say(f"error: {message}")
        say(f"hint: `{self.prog} --help` tells what it takes.")
        raise SystemExit(exits.USAGE)


class _Command(_Parser):
    """A command's own parser: its options may stand between its words too."""

    _mixes = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        # A parser with commands cannot mix, and calls only this of theirs; mixing calls it in turn.
        if self._mixes:
            return super().parse_known_args(args, namespace)
        self._mixes = True
        try:
            parsed, unknown = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._mixes = False
        if unknown:  # along with an unknown option come the words behind it
            options = [word for word in unknown if word.startswith("-")]
            self.error(f"unrecognized arguments: {' '.join(options or unknown)}")
        return parsed, unknown


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="millstream",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--version", action="version", version=f"millstream {__version__}", help="show the version and exit"
    )
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, parser_class=_Command
    )
    for module in _COMMANDS:
        command = commands.add_parser(
            module.NAME,
            help=module.HELP,
            description=module.HELP[0].upper() + module.HELP[1:] + ".",
            epilog=module.EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        command.set_defaults(command=module.run)
    return parser
