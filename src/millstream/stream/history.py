"""What a run has come to, told from its log alone: a fold over the batches of one log.

It has what counts. A model's try that was given up (`model.retried`) and what a new owner has
superseded (`run.attempt`) leave nothing here but, of a try, its usage.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from millstream.events import (
    TERMINAL_TYPES,
    AgentUpdatedStreamEvent,
    InputAdded,
    ModelCompleted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunItemStreamEvent,
    RunPaused,
    RunResumed,
    RunStarted,
    ToolPartial,
    ToolProgress,
    UserEvent,
    item_from,
)
from millstream.items import AgentRef, InputItem, ToolApprovalItem
from millstream.stream.order import EventOrder
from millstream.usage import Usage

if TYPE_CHECKING:
    from millstream.events import Event, Stamp, StreamEvent, TerminalEvent
    from millstream.items import RunItem
    from millstream.log.promise import Batch


class History:
    """Folds the log of a run into its input, its items and its end.

    Args:
        run_id: the root run of that log.
    """

    def __init__(self, run_id: str) -> None:
        self.input: Any = ""
        """The input of the run."""
        self.agent = AgentRef("")
        """Who acted last."""
        self.stamp: Stamp | None = None
        """That of what the run wrote last."""
        self.pause: RunPaused | None = None
        """What it waits for, where it is paused."""
        self.end: TerminalEvent | None = None
        """How it ended, where it has."""
        self._run_id = run_id
        self._events: list[tuple[int, Event]] = []
        """The run's own that tell how far it has come, with their positions."""
        self._calls: list[tuple[int, ModelCompleted]] = []
        """The ends of all model calls, those of nested runs too."""

    def feed(self, batch: Batch) -> None:
        """Take in what comes next."""
        if batch.raw_only:
            return
        is_own = batch.stamp.run_id == self._run_id
        for position, event in enumerate(batch.payloads, batch.first):
            if isinstance(event, bytes | RawResponsesStreamEvent):
                continue
            if isinstance(event, ModelCompleted):
                self._calls.append((position, event))
            if is_own:
                self.stamp = batch.stamp
                self._own(position, event)

    def _own(self, position: int, event: Any) -> None:
        if isinstance(event, RunStarted):
            self.input = event.input
        elif isinstance(event, AgentUpdatedStreamEvent):
            self.agent = AgentRef(event.new_agent.name)
        elif isinstance(event, RunAttempt):
            self._events = [each for each in self._events if each[0] <= event.resumed_from]
            self._calls = [each for each in self._calls if each[0] <= event.resumed_from]
        if isinstance(event, RunAttempt | RunResumed | RunPaused):
            self.pause = event if isinstance(event, RunPaused) else None
        if event.type in TERMINAL_TYPES:
            self.end, self.pause = cast("TerminalEvent", event), None
        if not isinstance(
            event, ToolProgress | ToolPartial | UserEvent
        ):  # which may be many, and change nothing
            self._events.append((position, event))

    @property
    def events(self) -> list[Event]:
        """What the run itself has written and still counts, in order; not what its models and tools said on their way."""
        return [event for _, event in self._events]

    @property
    def items(self) -> list[RunItem]:
        """Everything the run has produced, in the order in which `stream_events()` tells of it."""
        order = EventOrder()
        agent: Any = AgentRef("")
        items: list[RunItem] = []
        for event in self.events:
            items += _items(order.feed(event))
            if isinstance(event, AgentUpdatedStreamEvent):
                agent = event.new_agent
            elif isinstance(event, InputAdded):
                items.append(InputItem(agent, event.input))
        return items + _items(order.flush())

    @property
    def waiting(self) -> list[ToolApprovalItem]:
        """The calls that wait for a decision, those of nested runs included."""
        return [] if self.pause is None else approval_items(self.pause)

    @property
    def usage(self) -> Usage:
        """What it has used, with the runs nested in it."""
        if self.end is not None:
            return Usage.from_dict(self.end.usage)
        used = Usage()
        for _, call in self._calls:
            used.add(Usage.from_dict(call.usage))
        return used


def approval_items(pause: RunPaused) -> list[ToolApprovalItem]:
    """What a pause waits for, also where the pause was read back from JSON."""
    return [
        each if isinstance(each, ToolApprovalItem) else item_from(each)  # pyright: ignore[reportReturnType]
        for each in pause.interruptions
    ]


def _items(events: Iterable[StreamEvent]) -> list[RunItem]:
    return [event.item for event in events if isinstance(event, RunItemStreamEvent)]
