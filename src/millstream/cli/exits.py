"""Exit codes: what the program says to the shell that started it."""

from __future__ import annotations

OK = 0
FAILED = 1
"""The run failed, or its output could not be written."""
USAGE = 2
"""The command, the app or the set-up is wrong: nothing ran, or could have."""
LIMIT = 3
"""A limit of the run's own stopped it: its turns, or a guardrail."""
INTERRUPTED = 130
"""Ctrl-C: 128 and the number of the signal, as shells count. A polite kill is 143."""
READER_GONE = 141
"""Who read the output went away (`… | head`), as if the signal for that had ended us."""
