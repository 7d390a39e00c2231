"""Rules about tools, and the calls that they answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from millstream.events import (
    AgentUpdatedStreamEvent,
    Entry,
    ModelRetried,
    ModelStarted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunFailed,
    RunItemStreamEvent,
    ToolFinished,
    ToolPartial,
    ToolProgress,
    ToolStarted,
)
from millstream.items import call_id_of, is_function_call
from millstream.stream.grammar.clauses import Rule, Violation


class Calls(Rule):
    """Function calls of the model, and their answers.

    Args:
        sdk: the stream is that of `stream_events()`, which may begin behind a pause: the calls that
            are answered then, before the model is asked again, are not in it.
    """

    def __init__(self, *, sdk: bool = False) -> None:
        self._open: Counter[str | None] = Counter()
        self._running: Counter[str | None] = Counter()
        self._in_model_call: Counter[str | None] = Counter()
        self._owes_nothing = False
        """Whether nothing came behind run.attempt but an agent: a run that nobody can go on with fails there."""
        self._known = not sdk
        self._sdk = sdk

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event = entry.event
        owes_nothing = self._owes_nothing
        self._owes_nothing = isinstance(event, RunAttempt) or (
            owes_nothing and isinstance(event, AgentUpdatedStreamEvent)
        )
        if self._sdk and (isinstance(event, RawResponsesStreamEvent) or _asks(event)):
            self._sdk, self._known = False, True
        if isinstance(event, RunItemStreamEvent):
            yield from self._item(event)
        elif isinstance(event, ToolStarted):
            call_id = _key(event.call_id)
            if self._known and self._open[call_id] <= self._running[call_id]:
                yield Violation(
                    "a_tool_runs_for_a_call",
                    f"Tool {event.name!r} starts for call {call_id!r}: expected tool_called without an output.",
                )
            self._running[call_id] += 1
        elif isinstance(event, ToolFinished):
            self._running[_key(event.call_id)] -= 1
        elif isinstance(event, ModelRetried):
            self._open -= self._in_model_call  # superseded
            self._in_model_call.clear()
        elif isinstance(event, ModelStarted) or entry.is_terminal:
            if not (owes_nothing and isinstance(event, RunFailed)):
                yield from self._unanswered(entry.type)
            if isinstance(event, ModelStarted):
                self._settle()

    def _item(self, event: RunItemStreamEvent) -> Iterator[Violation]:
        raw = event.item.raw_item
        call_id = call_id_of(raw)
        if event.name == "handoff_requested" or (event.name == "tool_called" and is_function_call(raw)):
            self._open[call_id] += 1
            self._in_model_call[call_id] += 1
        elif event.name in ("tool_output", "handoff_occured"):
            if self._open[call_id] > 0:
                self._open[call_id] -= 1
                if self._running[call_id] > self._open[call_id]:
                    yield Violation(
                        "every_call_is_answered_once",
                        f"{event.name} of call {call_id!r} came before tool.finished.",
                    )
            elif self._known:
                yield Violation(
                    "every_call_is_answered_once",
                    f"{event.name} of call {call_id!r} came: expected a call that has no output.",
                )

    def _unanswered(self, kind: str) -> Iterator[Violation]:
        for call_id, left in self._open.items():
            if left > 0:
                yield Violation(
                    "every_call_is_answered_once", f"{kind} came, and call {call_id!r} has no output."
                )

    def _settle(self) -> None:
        self._open.clear()
        self._running.clear()
        self._in_model_call.clear()
        self._known = True

    def forget(self) -> None:
        """Something was not seen."""
        self._settle()
        self._known = False

    def go_back(self, kept: dict[str, Any], *, is_nested: bool) -> None:
        """Another process goes on from where this was `kept`."""
        super().go_back(kept, is_nested=is_nested)
        self._running.clear()


class Tools(Rule):
    """Tools that run."""

    def __init__(self) -> None:
        self._running: Counter[str | None] = Counter()
        self._known = True

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        event = entry.event
        if isinstance(event, ToolStarted):
            self._running[_key(event.call_id)] += 1
        elif isinstance(event, ToolFinished | ToolProgress | ToolPartial):
            call_id = _key(event.call_id)
            if self._running[call_id] <= 0:
                if self._known:
                    yield Violation(
                        "every_tool_that_starts_finishes",
                        f"{event.type} of call {call_id!r} came: expected tool.started first.",
                    )
            elif isinstance(event, ToolFinished):
                self._running[call_id] -= 1
        elif isinstance(event, ModelStarted) or entry.is_terminal:
            yield from self._unfinished(entry.type)
            self._running.clear()
            self._known = True

    def _unfinished(self, kind: str) -> Iterator[Violation]:
        for call_id, left in self._running.items():
            if left > 0:
                yield Violation(
                    "every_tool_that_starts_finishes",
                    f"{kind} came, and the tool of call {call_id!r} has not finished.",
                )

    def forget(self) -> None:
        """Something was not seen."""
        self._running.clear()
        self._known = False

    def go_back(self, kept: dict[str, Any], *, is_nested: bool) -> None:
        """Another process goes on from where this was `kept`."""
        super().go_back(kept, is_nested=is_nested)
        self._running.clear()


def _asks(event: Any) -> bool:
    return isinstance(event, RunItemStreamEvent) and event.name in ("tool_called", "handoff_requested")


def _key(call_id: Any) -> str | None:
    """What a call is known by, as `call_id_of` has it."""
    return call_id if isinstance(call_id, str) else None
