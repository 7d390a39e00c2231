"""Rules about a run as a whole: its envelope, its beginning and end, its pauses, its agents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from millstream.events import (
    TERMINAL_TYPES,
    AgentUpdatedStreamEvent,
    Entry,
    RawResponsesStreamEvent,
    RunAttempt,
    RunItemStreamEvent,
    RunResumed,
    RunStarted,
)
from millstream.items import call_id_of
from millstream.stream.grammar.clauses import Rule, Violation


class Envelope(Rule):
    """Parent, depth and path are the run's; turns never go back."""

    def __init__(self, entry: Entry) -> None:
        self._run_id, self._parent, self._depth = entry.run_id, entry.parent_run_id, entry.depth
        self._path = entry.path
        self._turn = 0

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        if (entry.parent_run_id, entry.depth) != (self._parent, self._depth):
            yield Violation(
                "the_envelope_tells_the_state",
                f"Run {self._run_id} has parent {entry.parent_run_id} and depth {entry.depth}; "
                f"before it was {self._parent} and {self._depth}.",
            )
        elif entry.path != self._path:
            yield Violation(
                "the_envelope_tells_the_state",
                f"Run {self._run_id} has path {_told(entry.path)}; before it was {_told(self._path)}.",
            )
        if entry.turn < self._turn and not isinstance(entry.event, RunAttempt):
            yield Violation(
                "the_envelope_tells_the_state", f"Turn {entry.turn} came behind turn {self._turn}."
            )
        self._turn = entry.turn

    def go_back(self, kept: dict[str, Any], *, is_nested: bool) -> None:
        """Another process goes on from where this was `kept`, perhaps with the turn before the one that was to begin."""
        super().go_back(kept, is_nested=is_nested)
        self._turn = max(0, self._turn - 1)


def _told(path: tuple[str, ...]) -> str:
    return "/".join(path) or "none"


class Life(Rule):
    """From run.started to one terminal event."""

    def __init__(self) -> None:
        self._began = False
        self._missed = False
        self._family: str | None = None
        self._is_paused = False

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event: Any = entry.event
        kind = entry.type
        if kind == "run.started":
            if self._began:
                yield Violation("a_run_begins_with_run_started", "run.started came a second time.")
            self._family = event.family
        elif not self._began and not self._missed:
            yield Violation(
                "a_run_begins_with_run_started", f"The run begins with {kind}: expected run.started."
            )
        self._began = True
        self._is_paused = kind == "run.paused" or (self._is_paused and kind != "run.resumed")
        if kind in TERMINAL_TYPES:
            yield from self._terminal(event)

    def _terminal(self, event: Any) -> Iterator[Violation]:
        state = event.type.removeprefix("run.")
        if event.state != state:
            yield Violation(
                "an_end_is_of_its_run", f"{event.type} has state {event.state!r}: expected {state!r}."
            )
        if self._family is not None and event.family != self._family:
            yield Violation(
                "an_end_is_of_its_run",
                f"{event.type} is of family {event.family!r}: the run was started as {self._family!r}.",
            )

    def forget(self) -> None:
        """Something was not seen."""
        self._missed = True

    def go_back(self, kept: dict[str, Any], *, is_nested: bool) -> None:
        """Another process goes on from where this was `kept`."""
        super().go_back(kept, is_nested=is_nested)
        self._is_paused = is_nested

    def end(self) -> Iterator[Violation]:
        """What it breaks that the stream ends here."""
        if not self._is_paused:
            yield Violation(
                "a_run_ends_once",
                "The stream ends, and the run has not: expected run.completed, run.failed or run.cancelled.",
            )


SDK_EVENTS = (RawResponsesStreamEvent, RunItemStreamEvent, AgentUpdatedStreamEvent)
"""The three kinds of `stream_events()`."""


class OnlyThree(Rule):
    """A stream that begins with one of the three kinds of `stream_events()` has no others."""

    def __init__(self) -> None:
        self._told = False

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        if not self._told and not isinstance(entry.event, SDK_EVENTS):
            self._told = True
            yield Violation(
                "a_run_begins_with_run_started",
                f"{entry.type} came, which stream_events() does not give: expected run.started first.",
            )


class Pause(Rule):
    """A paused run waits, with nothing open."""

    _MEANWHILE = TERMINAL_TYPES - {"run.completed"} | {
        "run.decided",
        "run.resumed",
        "input.added",
        "user.event",
    }

    def __init__(self) -> None:
        self._paused = False
        self._open: Counter[str] = Counter()

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        kind = entry.type
        if self._paused and kind not in self._MEANWHILE:
            yield Violation(
                "a_paused_run_waits", f"{kind} came while the run is paused: expected run.resumed."
            )
        if kind in ("model.started", "tool.started"):
            self._open[kind.partition(".")[0]] += 1
        elif kind in ("model.completed", "tool.finished"):
            self._open[kind.partition(".")[0]] -= 1
        elif kind == "run.paused":
            self._paused = True
            for what in ("model", "tool"):
                if self._open[what] > 0:
                    yield Violation("a_paused_run_waits", f"The run pauses in the middle of a {what} call.")
        elif kind == "run.resumed":
            self._paused = False

    def forget(self) -> None:
        """Something was not seen."""
        self._paused = False
        self._open.clear()

    def go_back(self, kept: dict[str, Any], *, is_nested: bool) -> None:
        """Another process goes on from where this was `kept`."""
        super().go_back(kept, is_nested=is_nested)
        self._paused = is_nested
        self._open.clear()


class Agents(Rule):
    """Who acts, and how another comes to."""

    _ACTS = frozenset({"model.started", "tool.started", "run_item_stream_event", "run.completed"})

    def __init__(self, *, bare: bool) -> None:
        self._bare = bare
        self._known = True
        self._acting: str | None = None
        self._target: str | None = None
        """Where the last handoff leads, until that agent acts; or who acts again behind a pause or an attempt."""
        self._requested: set[str | None] = set()
        self._saw_requests = True
        """Whether the handoffs that the model asked for in this turn were seen: not where it began in another log."""

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event = entry.event
        if entry.type == "model.started":
            self._saw_requests = True
            self._requested.clear()
        if isinstance(event, RunResumed | RunAttempt):
            self._target = self._acting
        elif isinstance(event, AgentUpdatedStreamEvent):
            yield from self._updated(_name(event.new_agent))
        elif self._known and self._acting is None and entry.type in self._ACTS:
            yield Violation(
                "an_agent_is_named_before_it_acts", f"{entry.type} came before agent_updated_stream_event."
            )
        elif self._target is not None and entry.type in ("model.started", "run.completed"):
            yield Violation(
                "a_handoff_is_requested_then_takes_place",
                f"{entry.type} came behind a handoff, a pause or an attempt: expected agent_updated_stream_event of {self._target!r}.",
            )
            self._target = None
        if isinstance(event, RunItemStreamEvent):
            yield from self._item(event)
        elif isinstance(event, RunStarted) and not self._bare and event.agent != entry.agent:
            yield Violation(
                "the_envelope_tells_the_state",
                f"run.started is of agent {event.agent!r}, and its envelope says {entry.agent!r}.",
            )
        # Between the handoff and its news, a run that ends may be with either.
        if not self._bare and self._acting is not None and entry.agent not in (self._acting, self._target):
            yield Violation(
                "the_envelope_tells_the_state",
                f"The envelope says that {entry.agent!r} acts, and {self._acting!r} does.",
            )

    def _updated(self, name: str | None) -> Iterator[Violation]:
        if self._known and self._acting is not None and name != self._target:
            expected = "handoff_occured" if self._target is None else f"agent {self._target!r}"
            yield Violation(
                "a_handoff_is_requested_then_takes_place",
                f"Agent {name!r} acts without a handoff to it: expected {expected}.",
            )
        self._acting, self._target, self._known = name, None, True

    def _item(self, event: RunItemStreamEvent) -> Iterator[Violation]:
        call_id = call_id_of(event.item.raw_item)
        if event.name == "handoff_requested":
            self._requested.add(call_id)
        elif event.name == "handoff_occured":
            self._target = _name(getattr(event.item, "target_agent", None))
            if self._known and self._saw_requests and call_id not in self._requested:
                yield Violation(
                    "a_handoff_is_requested_then_takes_place",
                    f"handoff_occured of call {call_id!r} came without handoff_requested.",
                )

    def forget(self) -> None:
        """Something was not seen."""
        self._known, self._acting, self._target = False, None, None
        self._saw_requests = False


def _name(agent: Any) -> str | None:
    return getattr(agent, "name", None)
