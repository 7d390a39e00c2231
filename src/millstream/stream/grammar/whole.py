"""The grammar of a whole stream: of all runs in it, and of how they nest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from millstream.events import (
    Entry,
    RunAttempt,
    RunResumed,
    RunStarted,
    ToolFinished,
    ToolStarted,
)
from millstream.stream.grammar.clauses import Rule, Violation
from millstream.stream.grammar.life import SDK_EVENTS, Agents, Envelope, Life, OnlyThree, Pause
from millstream.stream.grammar.model import Items, ModelCalls, OrderedItems
from millstream.stream.grammar.raw import RawEvents
from millstream.stream.grammar.tools import Calls, Tools
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
        self._runs: dict[str, _Run] = {}

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
        run = self._runs.get(entry.run_id)
        if run is None:
            run = self._runs[entry.run_id] = self._new_run(entry)
            if not self._bare:
                found += self._nested(run, entry)
        found += run.see(entry)
        if isinstance(entry.event, ToolFinished):
            found += self._inside_of(run, entry.event.call_id)
        if entry.is_terminal:
            found += self._children_of(run)
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

    def _new_run(self, entry: Entry) -> _Run:
        # One that begins here was seen from its beginning, whatever came before it.
        known = self._saw_all or isinstance(entry.event, RunStarted)
        sdk = self._bare and self._saw_all and isinstance(entry.event, SDK_EVENTS)
        return _Run(entry, known=known, sdk=sdk, bare=self._bare, raw=self._raw)

    def _nested(self, run: _Run, entry: Entry) -> Iterator[Violation]:
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

    def _inside_of(self, run: _Run, call_id: Any) -> Iterator[Violation]:
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

    def _children_of(self, run: _Run) -> Iterator[Violation]:
        for child in self._open_in(run):
            if not run.runs_tool(child.path[-1]):  # the tool that has not finished is told of
                yield Violation(
                    "a_nested_run_lives_in_its_parent",
                    f"Run {run.run_id} ends, and run {child.run_id} inside it has not ended.",
                )

    def _open_in(self, run: _Run) -> list[_Run]:
        """The runs nested in `run` that are known to have begun and not to have ended."""
        return [
            child
            for child in self._runs.values()
            if child.parent_run_id == run.run_id and child.is_certain and not (child.ended or child.is_paused)
        ]


# --- one run -----------------------------------------------------------------------------------


class _Run:
    """What was seen of one run: its rules, and what the whole stream must know of it."""

    def __init__(self, entry: Entry, *, known: bool, sdk: bool, bare: bool, raw: bool) -> None:
        self.run_id = entry.run_id
        self.parent_run_id = entry.parent_run_id
        self.depth = entry.depth
        self.path = entry.path
        self._running: Counter[str] = Counter()
        """The tools that run, by their calls."""
        self.ended = False
        self.is_paused = False
        self.is_certain = known
        rules: list[Rule]
        if sdk:
            rules = [OnlyThree(), OrderedItems(), Calls(sdk=True)]
        else:
            rules = [
                Life(),
                Pause(),
                Agents(bare=bare),
                ModelCalls(bare=bare),
                Items(),
                Tools(),
                Calls(),
            ]
        if not bare:
            rules.insert(0, Envelope(entry))
        if raw:
            rules.append(RawEvents(sdk=sdk))
        self._rules = rules
        if not known:
            self.forget()

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        if self.ended:
            yield Violation(
                "a_run_ends_once", f"{entry.type} of run {self.run_id or 'this run'} came behind its end."
            )
            return
        event = entry.event
        if isinstance(event, ToolStarted | ToolFinished) and isinstance(event.call_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            self._running[event.call_id] += 1 if isinstance(event, ToolStarted) else -1
        if isinstance(event, RunAttempt) or (isinstance(event, RunResumed) and event.of is not None):
            self.forget()  # superseded, or in another log
        for rule in self._rules:
            yield from rule.see(entry)
        self.is_certain = self.is_certain or isinstance(event, RunStarted)
        self.is_paused = entry.type == "run.paused" or (self.is_paused and entry.type != "run.resumed")
        self.ended = entry.is_terminal

    def runs_tool(self, call_id: Any) -> bool:
        """Whether a tool of that call runs, as far as was seen."""
        return isinstance(call_id, str) and self._running[call_id] > 0

    def forget(self) -> None:
        """Something was not seen."""
        self.is_certain = False
        self._running.clear()
        for rule in self._rules:
            rule.forget()

    def end(self) -> Iterator[Violation]:
        """What it breaks that the stream ends here."""
        if not self.ended:
            for rule in self._rules:
                yield from rule.end()
