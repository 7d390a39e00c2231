"""A part of a log: which entries a filter takes."""

from typing import Any

import pytest

from millstream import UserError
from millstream.events import Entry, Event, RawResponsesStreamEvent, Stamp, ToolStarted, UserEvent
from millstream.stream.filter import EVERYTHING, EntryFilter

DELTA = RawResponsesStreamEvent.from_wire(b'{"type":"response.output_text.delta","delta":"x"}')
STARTED = ToolStarted(call_id="c", name="look")


def entry(event: Event, depth: int = 0) -> Entry:
    return Entry(1, Stamp("r", "A", depth=depth, parent_run_id="p" if depth else None), event)


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (EVERYTHING, [True] * 4),
        (EntryFilter(depth=0), [True, True, False, False]),
        (EntryFilter(depth=1), [True, True, True, False]),
        (EntryFilter(types={"tool.started"}), [True, False, True, False]),
        (EntryFilter(types={"response.output_text.delta"}), [False, True, False, True]),
        (EntryFilter(types={"raw_response_event"}), [False, True, False, True]),
        (EntryFilter(depth=0, types={"response.output_text.delta"}), [False, True, False, False]),
        (EntryFilter(types=()), [False] * 4),
    ],
)
def test_a_filter_takes_what_is_as_deep_and_of_the_types_that_are_asked_for(
    wanted: EntryFilter, taken: list[bool]
) -> None:
    entries = [entry(STARTED), entry(DELTA), entry(STARTED, 1), entry(DELTA, 2)]

    assert [wanted.takes(each) for each in entries] == taken


@pytest.mark.parametrize("json", [b"null", b"{}", b'{"type":[1]}', b"[]"])
def test_a_raw_event_without_a_type_is_of_no_type_that_can_be_asked_for(json: bytes) -> None:
    wanted = EntryFilter(types={"response.created"})

    assert not wanted.takes(entry(RawResponsesStreamEvent.from_wire(json)))


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"depth": -1}, "depth=-1: a number of levels"),
        ({"depth": True}, "depth=True: a number of levels"),
        ({"depth": "all"}, "depth='all': a number of levels"),
        ({"types": "tool.started"}, r"types=\['tool.started'\]"),
        ({"types": ["tool.begun"]}, "'tool.begun', which is the type of no event.*tool.started"),
    ],
)
def test_what_cannot_be_asked_for_is_told_by_name(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=rf"entries\(\): .*{told}"):
        EntryFilter.of("entries()", **asked)


def test_a_filter_keeps_a_list_that_can_be_read_once() -> None:
    wanted = EntryFilter.of("entries()", types=(name for name in ["tool.started"]))

    assert [wanted.takes(entry(STARTED)) for _ in range(2)] == [True, True]
    assert EntryFilter.of("entries()") == EVERYTHING
    assert EntryFilter.of("entries()", types=[]).takes(entry(UserEvent(name="x"))) is False
