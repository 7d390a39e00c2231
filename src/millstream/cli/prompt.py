"""The prompt: from the command line, from a pipe, or from both."""

from __future__ import annotations

import os
import stat
import sys
import threading
from collections.abc import Sequence

from millstream.cli.problem import Problem, say

STDIN = "-"
"""Stands for what is piped in, where it is to go in the prompt."""


def read_prompt(words: Sequence[str]) -> str:
    """The prompt that `words` make, with what is piped in: at `-`, or at the end.

    Raises:
        Problem: there is none.
    """
    prompt = _joined(words, _read_stdin() if STDIN in words or _is_piped() else "")
    if not prompt:
        raise Problem(
            "there is no prompt.",
            'give one: millstream run "Why is the sky blue?", or pipe one in: millstream run < question.txt',
        )
    return prompt


def read_text(words: Sequence[str]) -> str:
    """The text that `words` make, with what is piped in at `-`, and only there. May be empty."""
    return _joined(words, _read_stdin() if STDIN in words else "")


def _joined(words: Sequence[str], piped: str) -> str:
    text = " ".join(word for word in words if word != STDIN).strip()
    return "\n\n".join(part for part in (text, piped.strip()) if part)


def _is_piped() -> bool:
    """Whether standard input is a pipe or a file: a terminal, and /dev/null, are nobody's prompt."""
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        return False
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def _read_stdin() -> str:
    if sys.stdin is None:  # pyright: ignore[reportUnnecessaryComparison]
        return ""
    if sys.stdin.isatty():
        say("reading the prompt; end it with Ctrl-D on a line of its own.")
    # A pipe that nobody closes would look like a hang.
    notice = threading.Timer(
        2.0, say, ["waiting for the rest of the prompt from standard input (without one: < /dev/null)."]
    )
    notice.daemon = True
    if not sys.stdin.isatty():
        notice.start()
    try:
        return sys.stdin.buffer.read().decode("utf-8", "replace")
    except OSError as error:
        raise Problem(f"standard input cannot be read: {error.strerror}.") from error
    finally:
        notice.cancel()
