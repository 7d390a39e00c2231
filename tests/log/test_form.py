"""The form of a batch in an engine: it comes back as it went, or is seen to be damaged."""

import dataclasses
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream.errors import LogDamagedError
from millstream.events import RawResponsesStreamEvent, RunCompleted, RunStarted, Stamp, UserEvent
from millstream.log import Batch
from millstream.log.form import Packed, unpack, unpack_lines
from millstream.log.promise import Payload, live
from millstream.testing import awkward_values

STAMP = Stamp(run_id="r", agent="A", turn=3, depth=1, parent_run_id="p", time=12.5, path=("call_1",))
DELTA = b'{"type":"response.output_text.delta","delta":"caf\xc3\xa9"}'


def mixed() -> Batch:
    return Batch(7, STAMP, [DELTA, UserEvent(name="a", data={"x": [1, None]}), DELTA], size=2 * len(DELTA))


def test_a_batch_comes_back_as_it_went() -> None:
    batch = mixed()

    assert unpack(Packed.of(batch).data, "r", 7) == batch


def test_raw_events_come_back_byte_for_byte_and_not_decoded() -> None:
    batch = Batch(1, STAMP, [DELTA, b"no JSON at all"], raw_only=True, size=len(DELTA))

    back = unpack(Packed.of(batch).data, "r", 1)

    assert back.payloads == [DELTA, b"no JSON at all"]
    assert back.raw_only


def test_a_raw_event_that_is_an_object_comes_back_as_its_bytes() -> None:
    batch = Batch(1, STAMP, [RawResponsesStreamEvent.from_wire(DELTA)])

    assert unpack(Packed.of(batch).data, "r", 1).payloads == [DELTA]


@pytest.mark.parametrize("as_object", [True, False])
def test_a_raw_event_of_several_lines_is_put_on_one(as_object: bool) -> None:
    pretty = b'{\n  "type": "response.created"\r\n}'
    batch = Batch(
        1, STAMP, [RawResponsesStreamEvent.from_wire(pretty) if as_object else pretty, UserEvent(name="a")]
    )

    back = unpack(Packed.of(batch).data, "r", 1)

    assert back.payloads == [b'{   "type": "response.created"  }', UserEvent(name="a")]


@pytest.mark.parametrize("value", [pytest.param(each.value, id=each.name) for each in awkward_values()])
def test_every_awkward_value_comes_back_as_what_it_is_on_the_wire(value: Any) -> None:
    events: list[Payload] = [UserEvent(name="a", data=value), RunStarted(agent="A", input=value)]

    packed = Packed.of(Batch(1, STAMP, events))

    back = unpack(packed.data, "r", 1)
    assert [live(payload).to_json() for payload in back.payloads] == packed.lines


def test_what_is_packed_does_not_change_with_its_events() -> None:
    data = {"x": 1}
    packed = Packed.of(Batch(1, STAMP, [UserEvent(name="a", data=data)]))

    data["x"] = 2

    assert unpack(packed.data, "r", 1).payloads == [UserEvent(name="a", data={"x": 1})]


@pytest.mark.parametrize(
    ("stamp", "read"),
    [
        (dataclasses.replace(STAMP, agent="\ud800"), dataclasses.replace(STAMP, agent="\ufffd")),
        (dataclasses.replace(STAMP, time=float("nan")), dataclasses.replace(STAMP, time=0.0)),
        (dataclasses.replace(STAMP, agent="a\nb\u2028"), dataclasses.replace(STAMP, agent="a\nb\u2028")),
    ],
    ids=["lone surrogate", "no time", "line breaks"],
)
def test_a_stamp_that_has_no_json_keeps_nothing_from_being_written(stamp: Stamp, read: Stamp) -> None:
    assert unpack(Packed.of(Batch(1, stamp, [DELTA])).data, "r", 1).stamp == read


def test_the_rest_of_a_batch_is_a_batch() -> None:
    whole = mixed()

    rest = Packed.of(dataclasses.replace(whole, checkpoint=b"c")).beyond(8)

    expected = Batch(9, STAMP, [DELTA], size=len(DELTA), checkpoint=b"c")
    assert rest.batch == expected
    assert unpack(rest.data, "r", 9) == dataclasses.replace(expected, checkpoint=None)


def test_a_batch_of_which_nothing_stands_is_its_own_rest() -> None:
    packed = Packed.of(mixed())

    assert packed.beyond(6) is packed


def test_the_lines_of_a_batch_are_told_without_making_events() -> None:
    packed = Packed.of(mixed())

    assert unpack_lines(packed.data, "r", 7) == packed.lines


# --- damage -----------------------------------------------------------------------------------


@pytest.mark.hostile
@given(st.data())
def test_no_changed_byte_goes_unseen(data: st.DataObject) -> None:
    good = Packed.of(mixed()).data
    place = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[place] ^= data.draw(st.integers(1, 255))

    with pytest.raises(LogDamagedError, match="Run r: what stands at position 7 cannot be read"):
        unpack(bytes(bad), "r", 7)


@pytest.mark.hostile
@given(st.binary())
def test_no_bytes_are_taken_for_a_batch_or_break_anything_else(bad: bytes) -> None:
    for given_bytes in (bad, b"%08x%b" % (zlib.crc32(bad), bad)):
        with pytest.raises(LogDamagedError):
            unpack(given_bytes, "r", 1)


@pytest.mark.hostile
@given(cut=st.integers(0, len(Packed.of(mixed()).data) - 1))
def test_a_batch_that_was_cut_off_is_seen(cut: int) -> None:
    with pytest.raises(LogDamagedError):
        unpack(Packed.of(mixed()).data[:cut], "r", 7)


def test_a_batch_that_stands_elsewhere_is_not_taken_for_this_one() -> None:
    with pytest.raises(
        LogDamagedError, match=r"what stands at position 8 .* 3 events of position 7 stand there"
    ):
        unpack(Packed.of(mixed()).data, "r", 8)


def with_line(line: bytes) -> bytes:
    """A batch whose second event is `line`, as another program may have written it."""
    head, *lines = Packed.of(mixed()).data[8:].split(b"\n")
    lines[1] = line
    rest = b"\n".join([head, *lines])
    return b"%08x%b" % (zlib.crc32(rest), rest)


@pytest.mark.parametrize(
    "line",
    [
        b'{"type":"run.teleported"}',
        b'{"type":"run.completed","usage":5,"output"',
        b'{"type":"run_item_stream_event","name":"x","item":{"type":"telepathy_item"}}',
        b'{"type":"run.paused","interruptions":7}',
        b"[]",
        b"",
    ],
)
def test_an_event_that_cannot_be_read_is_named_by_its_position(line: bytes) -> None:
    with pytest.raises(LogDamagedError, match="Run r: what stands at position 8 cannot be read"):
        unpack(with_line(line), "r", 7)


def test_what_a_later_version_has_added_to_an_event_is_left_out() -> None:
    batch = unpack(with_line(b'{"type":"run.completed","output":"x","mood":"good"}'), "r", 7)

    assert batch.payloads[1] == RunCompleted(output="x")


def test_the_form_of_a_later_version_is_refused() -> None:
    later = Packed.of(mixed()).data[8:].replace(b'"v":1', b'"v":2')

    with pytest.raises(LogDamagedError, match="version 2 of Millstream's form"):
        unpack(b"%08x%b" % (zlib.crc32(later), later), "r", 7)
