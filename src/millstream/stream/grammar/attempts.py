"""Rules about attempts: another process goes on with a run whose own has died.

What came between the position that it goes on from and its `run.attempt` is void. What that makes
of everything else is not told here: all rules go back to what they had seen by that position, so
that whatever still speaks of the void part breaks a clause of theirs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millstream.events import (
    Entry,
    ModelCompleted,
    ModelStarted,
    RunAttempt,
    RunItemStreamEvent,
    RunStarted,
    ToolFinished,
)
from millstream.items import call_id_of
from millstream.stream.grammar.clauses import Rule, Violation


class Attempts(Rule):
    """What an attempt says of itself. Nothing of this is gone back on: a void attempt was one, too."""

    def __init__(self) -> None:
        self.finished = 0
        """The last position of what is never void."""
        self._number = 1
        """That of the attempt which goes on."""
        self._saw_all = True
        """Whether no attempt was missed."""
        self._began = 0
        self._void: list[tuple[int, int]] = []
        """What is void: behind the first position, and before the second."""
        self._call: tuple[int, int | None] | None = None
        """Where the last model call began, and where it ended."""
        self._tool: Any = None
        """The call whose tool has finished right before."""

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event, position = entry.event, entry.position
        finished, self._tool = self._tool, None
        if isinstance(event, RunAttempt):
            yield from self._attempt(event, entry)
        elif isinstance(event, RunStarted):
            self._began = position
        elif isinstance(event, ModelStarted):
            self._call = position, None
        elif isinstance(event, ModelCompleted):
            self._call = None if self._call is None else (self._call[0], position)
            if event.status == "completed":
                self.finished = position
        elif isinstance(event, ToolFinished):
            self._tool = None if event.status == "cancelled" else event.call_id
        elif isinstance(event, RunItemStreamEvent):
            is_given = event.name == "tool_output" and call_id_of(event.item.raw_item) == finished
            self.finished = position if is_given and finished is not None else self.finished

    def _attempt(self, event: RunAttempt, entry: Entry) -> Iterator[Violation]:
        if entry.depth:
            yield Violation(
                "an_attempt_is_of_the_root_run", f"run.attempt came of nested run {entry.run_id}."
            )
            return
        if event.number <= self._number or (self._saw_all and event.number != self._number + 1):
            yield Violation(
                "an_attempt_is_of_the_root_run",
                f"Attempt {event.number} came behind attempt {self._number}: expected {self._number + 1}.",
            )
        self._number, self._saw_all = max(self._number, event.number), True
        stands = self._stands(event.resumed_from, entry.position)
        if stands is not None:
            yield Violation(
                "an_attempt_goes_on_from_what_stands",
                f"The run goes on from position {event.resumed_from}, {stands}.",
            )
        elif event.resumed_from < self.finished:
            yield Violation(
                "what_is_finished_stays",
                f"The run goes on from position {event.resumed_from}, and what it had finished at position "
                f"{self.finished} is void.",
            )
        self._void.append((event.resumed_from, entry.position))
        self._call, self.finished = None, min(self.finished, event.resumed_from)

    def _stands(self, position: int, now: int) -> str | None:
        """Why a run cannot go on from `position`; None where it can."""
        if position >= now:
            return "which has not come yet"
        if position < self._began:
            return "where it had not begun"
        if any(first < position < last for first, last in self._void):
            return "which is void already"
        if self._call is not None:
            began, ended = self._call
            if began < position and (ended is None or position < ended):
                return f"in the middle of the model call that began at {began}"
        return None

    def forget(self) -> None:
        """Something was not seen."""
        self._call = self._tool = None
        self._saw_all = False
