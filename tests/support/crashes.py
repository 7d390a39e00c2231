"""Logs of runs whose process died, made of the log of one that did not."""

import dataclasses
from collections.abc import Iterator, Sequence

from millstream.events import (
    AgentUpdatedStreamEvent,
    Entry,
    ModelCompleted,
    ModelStarted,
    RunAttempt,
    RunItemStreamEvent,
    RunStarted,
    ToolFinished,
    ToolStarted,
)
from millstream.items import AgentRef


def crashed(entries: Sequence[Entry], at: int, *, number: int = 2) -> list[Entry]:
    """The log of a run without nested ones, whose process died when `at` events were written; another one went on.

    `entries` is what it would have written. What it went on from is the last moment at which all was
    whole: a finished model call, a tool's output, the beginning of a turn.
    """
    written = list(entries[:at])
    moment = max(index for index, entry in enumerate(written) if _is_whole(entry))
    stands = written[: moment + 1]
    stamp = stands[-1].stamp
    attempt = RunAttempt(number=number, resumed_from=stands[-1].position)
    goes_on = [
        Entry(0, stamp, attempt),
        Entry(0, stamp, AgentUpdatedStreamEvent(AgentRef(stamp.agent))),  # pyright: ignore[reportArgumentType]
        *_running(stands),
    ]
    begins_turn = isinstance(stands[-1].event, ModelStarted)
    rest = entries[moment if begins_turn else moment + 1 :]
    names_again = isinstance(rest[0].event, AgentUpdatedStreamEvent)
    return _numbered([*written, *goes_on, *rest[names_again:]])


def _is_whole(entry: Entry) -> bool:
    event = entry.event
    if isinstance(event, RunItemStreamEvent):
        return event.name == "tool_output"
    if isinstance(event, ModelCompleted):
        return event.status == "completed"
    return isinstance(event, RunStarted | ModelStarted | RunAttempt)


def _running(entries: Sequence[Entry]) -> Iterator[Entry]:
    """The tools that ran there, which begin again."""
    running: dict[str, Entry] = {}
    for entry in entries:
        if isinstance(entry.event, ToolStarted):
            running[entry.event.call_id] = entry
        elif isinstance(entry.event, ToolFinished):
            del running[entry.event.call_id]
        elif isinstance(entry.event, RunAttempt):
            running.clear()
    yield from running.values()


def _numbered(entries: Sequence[Entry]) -> list[Entry]:
    return [dataclasses.replace(entry, position=position) for position, entry in enumerate(entries, 1)]
