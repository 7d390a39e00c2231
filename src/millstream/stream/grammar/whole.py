"""The grammar of a whole stream: of all runs in it, and of how they nest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from millstream.events import (
    Entry,
    RawResponsesStreamEvent,
    RunAttempt,
    RunResumed,
    RunStarted,
    ToolFinished,
)
from millstream.stream.grammar.clauses import Violation
from millstream.stream.grammar.life import SDK_EVENTS
from millstream.stream.grammar.run import RunGrammar
from millstream.stream.grammar.values import wrong_values


class StreamGrammar:
    """Holds a stream to the grammar, one entry after another.

    Args:
        raw: hold raw events to the family "raw" as well: the protocol of the model's server.
        filtered: positions may have holes; what stood in one is not known.
        bare: the stream is of events without envelopes, all of one run. If the first is one
            of the three kinds of `stream_events()`, so are all.
    """

    def __init__(self, *, raw: bool = False, filtered: bool = False, bare: bool = False) -> None:
        self._raw = raw
        self._filtered = filtered
        self._bare = bare
        self._last: int | None = None
        self._gap = False
        """Whether the stream has said that the next position may be any later one."""
        self._saw_all = True
        self._runs: dict[str, RunGrammar] = {}
        self._unsettled: dict[str, RunGrammar] = {}
        """Those of which something may yet become void: what stands behind position `_settled`."""
        self._settled = 0

    @property
    def runs(self) -> int:
        """How many runs were seen."""
        return len(self._runs)

    def feed(self, entry: Entry) -> list[Violation]:
        """Take the next entry; what is wrong with it. A bare event comes with any stamp and position."""
        found = list(wrong_values(entry, bare=self._bare))
        if found:
            self._misread(entry)
            return found
        if not self._bare:
            found += self.position(entry.position)
        event = entry.event
        run = self._runs.get(entry.run_id)
        if run is None:
            run = self._runs[entry.run_id] = self._unsettled[entry.run_id] = self._new_run(entry)
            if not self._bare:
                found += self._nested(run, entry)
        elif isinstance(event, RunResumed):
            found += self._goes_on(run)
        if not (self._bare or run.ended or isinstance(event, RawResponsesStreamEvent)):
            found += run.attempts.see(entry)
            if isinstance(event, RunAttempt) and not run.depth:
                self._go_back(event.resumed_from)
        found += run.see(entry)
        if isinstance(event, ToolFinished):
            found += self._inside_of(run, event.call_id)
        if entry.is_terminal:
            found += self._children_of(run)
        if not run.depth and run.attempts.finished > self._settled:
            self._settle(run.attempts.finished)
        return found

    def position(self, position: int) -> list[Violation]:
        """Take the next position."""
        last, self._last = self._last, position
        told, self._gap = self._filtered or self._gap, False
        if last is None:
            if position != 1:
                self.forget()
            return []
        if position == last + 1:
            return []
        if position <= last:
            self._last = last
            again = "came again" if position == last else f"came behind {last}"
            return [Violation("positions_count", f"Position {position} {again}.")]
        self.forget()
        if told:
            return []
        missing = f"{last + 1} is" if position == last + 2 else f"{last + 1} to {position - 1} are"
        return [Violation("positions_count", f"Position {position} came behind {last}: {missing} missing.")]

    def gap(self) -> None:
        """The stream says that something is missing here: the next position may be any later one."""
        self._gap = True
        self.forget()

    def passed(self, position: int) -> None:
        """The stream says that everything up to `position` was left out, where it has not come."""
        if self._last is not None and position > self._last:
            self._last = position
            self.forget()

    def forget(self) -> None:
        """Something was not seen: what was open may be closed by now, and anything may be open."""
        self._saw_all = False
        for run in self._runs.values():
            run.forget()

    def skip(self) -> None:
        """Something came that cannot be read."""
        self._last = None if self._last is None else self._last + 1
        self.forget()

    def _misread(self, entry: Entry) -> None:
        """`entry` has values of which nothing can be told; that it ends its run is told by its type."""
        self.skip()
        run_id: Any = entry.run_id
        run = self._runs.get(run_id) if isinstance(run_id, str) else None
        if run is not None and entry.is_terminal:
            run.ended = True

    def end(self) -> list[Violation]:
        """The stream is over, and is meant to be whole; what is missing."""
        found: list[Violation] = []
        for run in self._runs.values():
            which = f"Run {run.run_id}: " if len(self._runs) > 1 else ""
            found += [Violation(each.clause, f"{which}{each.what}") for each in run.end()]
        return found

    def _new_run(self, entry: Entry) -> RunGrammar:
        # One that begins here was seen from its beginning, whatever came before it.
        known = self._saw_all or isinstance(entry.event, RunStarted)
        sdk = self._bare and self._saw_all and isinstance(entry.event, SDK_EVENTS)
        return RunGrammar(entry, known=known, sdk=sdk, bare=self._bare, raw=self._raw)

    def _nested(self, run: RunGrammar, entry: Entry) -> Iterator[Violation]:
        if entry.depth == 0:
            if len(self._runs) > 1 and self._saw_all:
                yield Violation(
                    "a_nested_run_lives_in_its_parent",
                    f"Run {entry.run_id} of depth 0 stands in the log of another run.",
                )
            return
        parent = self._runs.get(entry.parent_run_id or "")
        if parent is None:
            if self._saw_all:
                yield Violation(
                    "a_nested_run_lives_in_its_parent",
                    f"Run {entry.run_id} is nested in {entry.parent_run_id}, of which nothing was seen.",
                )
            return
        if parent.is_void:
            run.is_void = True
            return
        if parent.ended:
            yield Violation(
                "a_nested_run_lives_in_its_parent",
                f"Run {entry.run_id} begins when its parent {parent.run_id} has ended.",
            )
        if entry.depth != parent.depth + 1:
            yield Violation(
                "a_nested_run_lives_in_its_parent",
                f"Run {entry.run_id} has depth {entry.depth}, and its parent {parent.depth}: expected {parent.depth + 1}.",
            )
        elif not parent.ended and parent.is_certain:
            *path, call_id = entry.path
            if tuple(path) != parent.path or not parent.runs_tool(call_id):
                yield Violation(
                    "a_nested_run_answers_a_call",
                    f"Run {entry.run_id} has path {'/'.join(entry.path)}: expected that of run {parent.run_id} "
                    "and a call whose tool runs.",
                )

    def _goes_on(self, run: RunGrammar) -> Iterator[Violation]:
        """Where a nested run that was paused goes on, the tool of its call runs again."""
        parent = self._runs.get(run.parent_run_id or "")
        if parent is None or run.is_void or not (run.is_paused and run.path and parent.is_certain):
            return
        if not parent.runs_tool(run.path[-1]):
            yield Violation(
                "a_nested_run_answers_a_call",
                f"Run {run.run_id} goes on, and the tool of its call {run.path[-1]!r} does not run.",
            )

    def _go_back(self, position: int) -> None:
        """All runs are again what they were at `position`; those that began behind it are void."""
        for run in self._unsettled.values():
            run.go_back(position)

    def _settle(self, position: int) -> None:
        """Nothing up to `position` becomes void any more."""
        self._settled = position
        self._unsettled = {run_id: run for run_id, run in self._unsettled.items() if not run.settle(position)}

    def _inside_of(self, run: RunGrammar, call_id: Any) -> Iterator[Violation]:
        """What is open in a call of `run` whose tool has finished."""
        if run.runs_tool(call_id):
            return  # another call of that id
        for child in self._open_in(run):
            if child.path[-1] == call_id:
                child.is_certain = False  # it is told of once
                yield Violation(
                    "a_nested_run_answers_a_call",
                    f"The tool of call {call_id!r} finishes, and run {child.run_id} inside it has not ended.",
                )

    def _children_of(self, run: RunGrammar) -> Iterator[Violation]:
        for child in self._open_in(run):
            if not run.runs_tool(child.path[-1]):  # the tool that has not finished is told of
                yield Violation(
                    "a_nested_run_lives_in_its_parent",
                    f"Run {run.run_id} ends, and run {child.run_id} inside it has not ended.",
                )

    def _open_in(self, run: RunGrammar) -> list[RunGrammar]:
        """The runs nested in `run` that are known to have begun and not to have ended."""
        return [
            child
            for child in self._runs.values()
            if child.parent_run_id == run.run_id
            and child.is_certain
            and not (child.ended or child.is_paused or child.is_void)
        ]
