"""Asks the person at the terminal about the calls of a run that wait for approval."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeAlias

from millstream.cli import exits
from millstream.cli.problem import Problem
from millstream.terminal import shorten

if TYPE_CHECKING:
    from millstream.result import RunResultStreaming
    from millstream.run_state import RunState

ReadLine: TypeAlias = Callable[[str], str]
"""Prompts for a line and gives it; raises `EOFError` where there is no more."""

_YES = frozenset({"y", "yes"})
_NO = frozenset({"", "n", "no"})


def decide(handle: RunResultStreaming, read: ReadLine) -> RunState[Any, Any]:
    """Ask about every call that waits; the state with what was decided.

    `y` lets a call run. Nothing, or `n`, rejects it; so does any other text, of which the model is told.

    Raises:
        EOFError: nobody answers.
    """
    state = handle.to_state()
    for item in state.get_interruptions():
        call = shorten.call(str(item.name), item.arguments, 200)
        answer = read(f"May {item.agent.name} call {call}? [y/N] ").strip()
        if answer.lower() in _YES:
            state.approve(item)
        else:
            said = None if answer.lower() in _NO else f"The user did not allow it, and said: {answer}"
            state.reject(item, rejection_message=said)
    return state


def unanswered(handle: RunResultStreaming) -> Problem:
    """What is wrong with a run that waits where nobody can be asked, or nobody answers."""
    names = ", ".join(sorted({str(item.name) for item in handle.interruptions}))
    return Problem(
        f"the run waits for approval of {names}, and nobody answers.",
        "ask at a terminal, or decide in a program: docs/approvals.md says how.",
        code=exits.FAILED,
    )


def read_line(prompt: str) -> str:
    """A line that somebody writes at the terminal, prompted for on standard error.

    Raises:
        EOFError: nobody is there, or the line was ended with Ctrl-D.
    """
    streams: tuple[Any, ...] = (sys.stdin, sys.stderr)
    if not all(stream is not None and stream.isatty() for stream in streams):
        raise EOFError
    sys.stderr.write(prompt)
    sys.stderr.flush()
    line = sys.stdin.readline()
    if not line:
        raise EOFError
    return line
