"""`import agents` means this library for a while: `millstream.compat.install()` is for a whole process."""

import contextlib
import sys
from collections.abc import Iterator

from millstream import compat


@contextlib.contextmanager
def agents_as_before() -> Iterator[None]:
    """Forget what was installed and imported as `agents` meanwhile."""
    roots = set(compat._FINDER.roots)
    try:
        yield
    finally:
        compat._FINDER.roots = roots
        for name in [name for name in sys.modules if name.partition(".")[0] == "agents"]:
            del sys.modules[name]
