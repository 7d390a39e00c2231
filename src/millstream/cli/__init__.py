"""The command line: `millstream run`, `models`, `demo`.

The door is light: what stands behind it is imported by `main`, under guard. The import of
the package `millstream` itself comes before any code of ours, and cannot be guarded.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from types import FrameType

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program with `argv` (by default the command line's) and return its exit code."""
    # An interrupt in the middle of an import would be a traceback, or be lost in a library.
    guarded = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if guarded:
        signal.signal(signal.SIGINT, _leave)
    try:
        from millstream.cli.program import run
    finally:
        if guarded:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    return run(argv)


def _leave(number: int, _: FrameType | None) -> None:
    os._exit(128 + number)
