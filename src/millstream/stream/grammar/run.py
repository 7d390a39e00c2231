"""The grammar of one run: its rules, and what the whole stream must know of it."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from typing import Any, NamedTuple

from millstream.events import (
    TERMINAL_TYPES,
    Entry,
    ModelStarted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunResumed,
    RunStarted,
    ToolFinished,
    ToolStarted,
)
from millstream.stream.grammar.attempts import Attempts
from millstream.stream.grammar.clauses import Rule, Violation
from millstream.stream.grammar.life import Agents, Envelope, Life, OnlyThree, Pause
from millstream.stream.grammar.model import Items, ModelCalls, OrderedItems
from millstream.stream.grammar.raw import RawEvents
from millstream.stream.grammar.tools import Calls, Tools

_MOMENTS = 64
"""Moments of a run that are kept. Who goes on from an earlier one goes on from what was not seen."""


class RunGrammar:
    """What was seen of one run.

    Args:
        entry: its first.
        known: whether it is seen from its beginning, or from where nothing was missed.
        sdk: whether the stream has only the three kinds of `stream_events()`.
        bare: whether it has no envelopes.
        raw: whether raw events are held to their protocol.
    """

    def __init__(self, entry: Entry, *, known: bool, sdk: bool, bare: bool, raw: bool) -> None:
        self.run_id = entry.run_id
        self.parent_run_id = entry.parent_run_id
        self.depth = entry.depth
        self.path = entry.path
        self.began = entry.position if isinstance(entry.event, RunStarted) else 0
        """Where it begins; 0 where that was not seen."""
        self.ended = False
        self.is_paused = False
        self.is_void = False
        self._is_told = False
        """Whether it was told that it says something all the same."""
        self.is_certain = known
        self.attempts = Attempts()
        """What attempts say of themselves is held to what was seen before they are gone back for."""
        self._bare = bare
        self._running: Counter[str] = Counter()
        """The tools that run, by their calls."""
        self._moments: deque[_Moment] = deque(maxlen=_MOMENTS)
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
        if self.is_void:
            if not self._is_told:
                self._is_told = True
                yield Violation(
                    "what_is_void_stays_void", f"{entry.type} of run {self.run_id} came, which is void."
                )
            return
        if self.ended:
            yield Violation(
                "a_run_ends_once", f"{entry.type} of run {self.run_id or 'this run'} came behind its end."
            )
            return
        if not isinstance(entry.event, RawResponsesStreamEvent):  # most are
            self._take(entry.event, entry.position)
        for rule in self._rules:
            yield from rule.see(entry)
        kind = entry.type
        self.is_certain = self.is_certain or kind == "run.started"
        self.is_paused = kind == "run.paused" or (self.is_paused and kind != "run.resumed")
        self.ended = kind in TERMINAL_TYPES
        if _is_whole(kind, entry.event):
            self._keep(entry.position)

    def _take(self, event: Any, position: int) -> None:
        """What is to be known before the rules see `event`."""
        if isinstance(event, ToolStarted | ToolFinished) and isinstance(event.call_id, str):  # pyright: ignore[reportUnnecessaryIsInstance]
            self._running[event.call_id] += 1 if isinstance(event, ToolStarted) else -1
        elif isinstance(event, RunResumed) and event.of is not None:
            self.forget()  # it began in another log
        elif isinstance(event, RunAttempt) and self._bare:
            self.forget()  # without positions nobody knows what is void
        elif isinstance(event, ModelStarted):
            self._keep(position)  # who goes on from here begins the turn

    def runs_tool(self, call_id: Any) -> bool:
        """Whether a tool of that call runs, as far as was seen."""
        return isinstance(call_id, str) and self._running[call_id] > 0

    def forget(self) -> None:
        """Something was not seen."""
        self._moments.clear()
        self.attempts.forget()
        self._know_nothing()

    def _know_nothing(self) -> None:
        self.is_certain = False
        self._running.clear()
        for rule in self._rules:
            rule.forget()

    def end(self) -> Iterator[Violation]:
        """What it breaks that the stream ends here."""
        if not self.ended and not self.is_void:
            for rule in self._rules:
                yield from rule.end()

    # --- going back ------------------------------------------------------------------------

    def go_back(self, position: int) -> None:
        """Another process goes on with the tree, from where that stood at `position`.

        What a run has said since its last moment before is void, and a nested run waits for its
        `run.resumed`, as behind a pause.
        """
        if self.depth and position < self.began:
            self.is_void = True
            return
        while self._moments and self._moments[-1].position > position:
            self._moments.pop()
        if not self._moments:
            self._know_nothing()
            self.ended = False
            self._keep(position)
        moment = self._moments[-1]
        self.ended, self.is_certain = moment.ended, moment.is_certain
        is_nested = self.depth > 0
        self._running.clear()
        for rule, kept in zip(self._rules, moment.rules, strict=True):
            rule.go_back(kept, is_nested=is_nested)
        self.is_paused = is_nested and not self.ended

    def settle(self, position: int) -> bool:
        """Nothing up to `position` becomes void any more; whether nothing of this run can."""
        moments = self._moments
        while len(moments) > 1 and moments[1].position <= position:
            moments.popleft()
        return self.is_void or (self.ended and (not moments or moments[-1].position <= position))

    def _keep(self, position: int) -> None:
        if not self._bare:
            rules = [rule.kept() for rule in self._rules]
            self._moments.append(_Moment(position, rules, self.ended, self.is_certain))


class _Moment(NamedTuple):
    """What was seen of a run by a position at which everything of it was whole, tools of the present turn aside."""

    position: int
    rules: list[dict[str, Any]]
    ended: bool
    is_certain: bool


_WHOLE = TERMINAL_TYPES | {"run.started", "run.attempt", "run.paused", "run.resumed"}


def _is_whole(kind: str, event: Any) -> bool:
    """Whether a run can be gone on with from behind `event`, or has ended there."""
    if kind == "run_item_stream_event":
        return event.name == "tool_output"
    if kind == "model.completed":
        return event.status == "completed"
    return kind in _WHOLE
