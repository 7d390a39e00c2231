"""When a server is asked again that failed to answer. Decisions only: nothing here waits."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

TRIES = 10
"""Tries in a row that may bring nothing. With the waits between them they take about a minute."""
FIRST_WAIT = 0.25
LONGEST_WAIT = 15.0
MOST_ASKED = 300.0
"""Seconds that a server may ask for. One that asks for more is asked again after these."""


class Failure(Exception):
    """A request that brought no answer that can be used. It may do so later.

    Args:
        why: what happened, as the end of a sentence.
        status: the status that was answered; None where there was none.
        reason: the code of the error that the server told.
        wait: seconds that the server asks to wait.
        was_sent: whether the server may have done what it was asked for.
    """

    def __init__(
        self,
        why: str,
        *,
        status: int | None = None,
        reason: str = "",
        wait: float | None = None,
        was_sent: bool = True,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.status = status
        self.reason = reason
        self.wait = wait
        self.was_sent = was_sent


@dataclass
class Tries:
    """Tries in a row. What was asked for comes nearer, or it does not: that alone is counted.

    Args:
        most: how many may fail in a row.
    """

    most: int
    failed: int = field(default=0, init=False)
    """How many have failed in a row."""
    pause: float = field(default=0.0, init=False)
    """Seconds that the server wants to have between two tries, by the `retry:` of its stream."""

    def progress(self) -> None:
        """Something came: begin to count anew."""
        self.failed = 0

    def after(self, failure: Failure) -> float | None:
        """Seconds to wait before the next try; None where that was the last one.

        Never less than the server asked for, and never the same for two clients that failed together.
        """
        self.failed += 1
        if self.failed >= self.most:
            return None
        asked = min(max(failure.wait or 0.0, self.pause), MOST_ASKED)
        backoff = min(FIRST_WAIT * 2.0 ** min(self.failed - 1, 16), LONGEST_WAIT)
        # Who was told when waits a little longer, who was not a little less or more.
        return max(asked * (1 + 0.25 * random.random()), backoff * (0.75 + 0.5 * random.random()))
