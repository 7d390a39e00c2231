"""What the log of a run says that matters to who goes on with it: how often it was begun, and what must not begin twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from millstream.errors import AttemptsExhaustedError, LogGapError, RunInterruptedError
from millstream.events import Entry, ModelCompleted, RunAttempt, ToolFinished, ToolStarted

if TYPE_CHECKING:
    from millstream.log.store import RunRecord, RunStore


@dataclass
class Past:
    """What was done in a run, as far as it was read."""

    agent: str = ""
    """The name of the agent that acted where it goes on from."""
    attempts: int = 0
    """How often it was taken over."""
    in_vain: int = 0
    """How often of these, last, without a model or a tool having finished since."""
    died_asking: int = 0
    """How often a process died since, while it asked its program for what the run needs."""
    has_begun: bool = False
    began: Counter[tuple[str, str, str]] = field(default_factory=Counter[tuple[str, str, str]])
    """How often tools that must not begin twice began and left no result: by run, call and tool, as servers use ids again."""

    def see(self, entry: Entry) -> None:
        """Take in one entry."""
        event = entry.event
        if isinstance(event, RunAttempt):
            self.attempts += 1
            self.in_vain += 1
        elif isinstance(event, ToolStarted) and event.once:
            self.began[entry.run_id, event.call_id, event.name] += 1
        elif isinstance(event, ToolFinished):
            call = entry.run_id, event.call_id, event.name
            self.began[call] -= self.began[call] > 0
            self.in_vain = 0
        elif isinstance(event, ModelCompleted):
            self.in_vain = 0

    def check(self, run_id: str, max_attempts: int) -> None:
        """Raise where the run is not to be begun again.

        Raises:
            AttemptsExhaustedError: it was in vain too often.
            RunInterruptedError: a tool ran that must not run twice.
        """
        begun = self.in_vain + self.died_asking + self.has_begun
        if begun >= max_attempts:
            raise AttemptsExhaustedError(
                f"Run {run_id} was begun {begun} times and its process died each time before anything was "
                "finished: it is not begun again."
            )
        if names := ", ".join(sorted({name for _, _, name in +self.began})):
            raise RunInterruptedError(
                f"Run {run_id} was interrupted while {names} ran, which must not be started twice: whether it had its "
                "effect is not known."
            )


async def past_of(log: RunStore, record: RunRecord) -> Past:
    """What the log says, as far as it is still held: what was dropped of it, raw deltas, does not matter here."""
    past, position = Past(has_begun=record.last > 0), 0
    cursor = log.cursor(record.run_id, position)
    while position < record.last:
        try:
            batch = await cursor.next()
        except LogGapError as gap:
            position = gap.first - 1
            cursor = log.cursor(record.run_id, position)
            continue
        if batch is None:
            break
        if not batch.raw_only:
            for entry in batch.entries(position):
                past.see(entry)
            if batch.stamp.depth == 0 and batch.first <= record.checkpoint_at:
                past.agent = batch.stamp.agent
        position = batch.last
    return past
