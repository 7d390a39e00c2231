import json

import pytest

from millstream.delivery.frame import (
    HEARTBEAT,
    PONG,
    Message,
    command_error_message,
    entry_message,
    error_message,
    gap_message,
    position_message,
    sse_frame,
)
from millstream.errors import LogGapError
from millstream.events import Entry, Stamp, UserEvent
from tests.delivery.serving import parse

AN_ENTRY = entry_message(Entry(7, Stamp("r", "A"), UserEvent(name="a\r\nid: 9\n\ndata: b\u2028", data="\0")))


def test_a_frame_is_an_id_and_one_line_of_data() -> None:
    assert sse_frame(AN_ENTRY) == b"id: 7\ndata: %b\n\n" % AN_ENTRY.json


def test_a_named_frame_says_its_type_as_well() -> None:
    assert sse_frame(AN_ENTRY, named=True) == b"id: 7\nevent: user.event\ndata: %b\n\n" % AN_ENTRY.json


@pytest.mark.hostile
def test_nothing_in_a_value_can_begin_a_line_or_a_frame() -> None:
    (frame,) = parse(sse_frame(AN_ENTRY))

    assert (frame.id, frame.json["event"]["name"]) == ("7", "a\r\nid: 9\n\ndata: b\u2028")


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        (
            gap_message(LogGapError("r", 3, 9), after=2),
            {"type": "stream.gap", "requested": 3, "first": 9, "after": 2, "message": ...},
        ),
        (
            error_message("broken_off", "It broke off.", after=2, error_id="err_1"),
            {
                "type": "stream.error", "code": "broken_off", "message": "It broke off.",
                "error_id": "err_1", "after": 2,
            },
        ),
        (
            command_error_message("not_json", "Send JSON."),
            {"type": "command.error", "code": "not_json", "message": "Send JSON."},
        ),
        (PONG, {"type": "pong"}),
    ],
    ids=lambda value: value.type if isinstance(value, Message) else "",
)  # fmt: skip
def test_what_is_no_entry_has_no_position_of_its_own(message: Message, fields: dict[str, object]) -> None:
    told = json.loads(message.json)

    assert message.position is None
    assert message.type == told["type"]
    assert told.keys() == fields.keys()
    assert {name: value for name, value in told.items() if fields[name] is not ...} == {
        name: value for name, value in fields.items() if value is not ...
    }
    assert parse(sse_frame(message))[0].id == ""


def test_a_cursor_that_moved_is_told_with_its_position() -> None:
    (frame,) = parse(sse_frame(position_message(12)))

    assert (frame.id, frame.json) == ("12", {"type": "stream.position", "position": 12})


def test_a_heartbeat_is_seen_by_nobody() -> None:
    assert parse(HEARTBEAT + sse_frame(AN_ENTRY) + HEARTBEAT) == parse(sse_frame(AN_ENTRY))
