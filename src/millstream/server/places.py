"""How much of something one caller may have at a time."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Generator
from typing import TYPE_CHECKING

from millstream.server.answers import ProblemError

if TYPE_CHECKING:
    from millstream.server.answers import Problem


class Places:
    """Places of which every caller has the same number; what one takes is no other's loss.

    Args:
        each: how many a caller has.
        problem: what is told who has none left.
    """

    def __init__(self, each: int, problem: Problem) -> None:
        self._each = each
        self._problem = problem
        self._taken: Counter[str] = Counter()

    def check(self, caller: str) -> None:
        """See that `caller` has a place left.

        Raises:
            ProblemError: none.
        """
        if self._taken[caller] >= self._each:
            raise ProblemError(self._problem)

    def take(self, caller: str) -> None:
        """Take a place, also where none is left: for what cannot be refused."""
        self._taken[caller] += 1

    def free(self, caller: str) -> None:
        """Give a place back."""
        self._taken[caller] -= 1
        if not self._taken[caller]:
            del self._taken[caller]  # callers come and go, and are not remembered

    @contextlib.contextmanager
    def place(self, caller: str) -> Generator[None]:
        """A stretch in which `caller` has a place.

        Raises:
            ProblemError: there is none left.
        """
        self.check(caller)
        self.take(caller)
        try:
            yield
        finally:
            self.free(caller)
