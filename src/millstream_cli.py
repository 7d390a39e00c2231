"""The door of the command `millstream`: the one module that is imported before anything slow.

It stands outside the package, because importing anything of the package imports all of it
first, a quarter of a second in which Ctrl-C would be a traceback. From the first line here
on, Ctrl-C ends the program with exit code 130 and no word. What comes before is Python's own
start; `python -m millstream` cannot get here before Python has imported the package.
"""

# Not even `from __future__ import annotations`, which is an import like others, comes before this.
try:
    import os
    import signal
    import threading
    from collections.abc import Sequence
    from types import FrameType
except KeyboardInterrupt:
    raise SystemExit(130) from None

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
