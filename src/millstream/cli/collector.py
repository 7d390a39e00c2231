"""Python's collector of garbage, in a process that serves and does nothing else."""

from __future__ import annotations

import gc

USUAL = (700, 2000)
"""The first threshold that Python sets by itself, by its version."""
SERVING = (20_000, 20, 20)
"""What lives while a stream waits for its next event is a few dozen objects. With a thousand streams the usual
numbers have all of them looked at again for each event, though none is garbage."""


def relieve_collector() -> None:
    """Look less often for garbage, and not at all among what is there by now, which stays until the process ends.

    A program that has set the collector otherwise has its reasons, and is left alone.
    """
    if gc.isenabled() and gc.get_threshold()[0] in USUAL:
        gc.set_threshold(*SERVING)
        gc.collect()
        gc.freeze()
