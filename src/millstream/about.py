"""What a program may ask of the library itself, in the whole process: its version, and what it logs."""

from __future__ import annotations

import logging
import sys
from contextvars import ContextVar
from typing import Any

# The one place where it is said: what builds the package reads it here. To look it up in what is
# installed would cost every program that starts some milliseconds.
__version__ = "0.1.0"

logger = logging.getLogger("millstream")
"""The one logger of the library. A line about a run begins with it, as in "run run_…: its lease could not be renewed"."""

CURRENT_RUN: ContextVar[str | None] = ContextVar("millstream_run", default=None)
"""The run in whose task, or in one that this started, something is done."""


def _name_run(record: logging.LogRecord) -> bool:
    """Give a line `run_id`, for whoever writes logs as JSON: the run that it is about, or that it was written in; else None."""
    names_it = isinstance(record.msg, str) and record.msg.startswith("run %s")
    args: Any = record.args
    record.__dict__["run_id"] = (
        args[0] if names_it and isinstance(args, tuple) and args else CURRENT_RUN.get()
    )
    return True


logger.addFilter(_name_run)

_HANDLER = "millstream-verbose"


def enable_verbose_stdout_logging() -> None:
    """Show on standard output everything that the library logs, from `DEBUG` on.

    For looking into a program, once in it or as often as you like: each message is shown once,
    on what `sys.stdout` was at the last call.
    """
    handler = logging.StreamHandler(sys.stdout or sys.stderr)  # a program without a console has no stdout
    handler.set_name(_HANDLER)
    for earlier in [each for each in logger.handlers if each.name == _HANDLER]:
        logger.removeHandler(earlier)
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
