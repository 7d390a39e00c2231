"""The parser of server-sent events, fed in every way that a socket may give."""

import re

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from millstream import codec
from millstream.client import SseEvent, SseParser
from millstream.client.sse import MAX_EVENT
from millstream.errors import StreamProtocolError


def parsed(*pieces: bytes, **options: int) -> list[SseEvent]:
    parser = SseParser(**options)  # type: ignore[arg-type]
    return [event for piece in pieces for event in parser.feed(piece)]


def by_the_book(stream: bytes) -> list[SseEvent]:
    """The same, of a whole stream, line by line as the standard tells it."""
    text = stream.decode("utf-8", "replace").removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")
    events, data, kind, last_id = list[SseEvent](), list[str](), "", ""
    lines = re.split("\r\n|\n|\r", text)
    for line in lines[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                events.append(SseEvent("\n".join(data), kind or "message", last_id))
            data, kind = [], ""
        elif name == "data":
            data.append(value)
        elif name == "event":
            kind = value
        elif name == "id" and "\0" not in value:
            last_id = value
    return events


def test_an_event_has_its_data_its_type_and_its_id() -> None:
    assert parsed(b"id: 7\nevent: tool.started\ndata: {}\n\n") == [SseEvent("{}", "tool.started", "7")]


def test_lines_of_data_are_joined_and_comments_are_passed_over() -> None:
    assert parsed(b": hello\ndata: a\ndata:  b\ndata\n\n") == [SseEvent("a\n b\n")]


def test_what_has_no_data_is_no_event_but_its_id_counts() -> None:
    parser = SseParser("1")

    assert parser.feed(b"id: 5\nevent: x\n\n") == []
    assert parser.last_event_id == "5"
    assert parser.feed(b"data: y\n\n") == [SseEvent("y", "message", "5")]


def test_an_id_counts_when_its_event_is_there() -> None:
    parser = SseParser("1")

    parser.feed(b"id: 2\ndata: y\n")
    assert parser.last_event_id == "1"
    parser.feed(b"\n")
    assert parser.last_event_id == "2"


def test_an_id_with_a_null_is_ignored_and_one_that_is_empty_takes_the_last_back() -> None:
    assert parsed(b"id: 1\ndata: a\n\nid: 2\0\ndata: b\n\nid\ndata: c\n\n") == [
        SseEvent("a", id="1"),
        SseEvent("b", id="1"),
        SseEvent("c", id=""),
    ]


@pytest.mark.parametrize(
    ("value", "retry"), [(b"1500", 1500), (b"1.5", None), (b"-1", None), (b"9" * 30, None), (b"", None)]
)
def test_a_server_says_when_to_come_back_in_digits_alone(value: bytes, retry: int | None) -> None:
    parser = SseParser()
    parser.feed(b"retry: " + value + b"\n\n")

    assert parser.retry == retry


def test_what_was_cut_off_is_no_event() -> None:
    assert parsed(b"data: a\n\ndata: b\n") == [SseEvent("a")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_a_stream_is_the_same_wherever_it_is_cut(end: bytes) -> None:
    stream = b"\xef\xbb\xbfid: 1\ndata: caf\xc3\xa9 \xe2\x82\xac\n\n: ping\n\nevent: x\ndata: a\ndata: b\n\n".replace(
        b"\n", end
    )
    whole = [SseEvent("café €", id="1"), SseEvent("a\nb", "x", "1")]

    assert parsed(stream) == whole
    assert parsed(*(stream[place : place + 1] for place in range(len(stream)))) == whole
    for place in range(len(stream)):
        assert parsed(stream[:place], b"", stream[place:]) == whole


_PIECES = [
    b"\n",
    b"\r",
    b"\r\n",
    b"\n\n",
    b"data:",
    b"data: x",
    b"id: 1",
    b"event: e",
    b":",
    b" ",
    b"\0",
    b"\xef\xbb\xbf",
    b"\xff",
]


@given(st.lists(st.sampled_from(_PIECES) | st.binary(max_size=4), max_size=20), st.data())
@example([b"\xef\xbb\xbf", b"data: x", b"\r", b"\n", b"\n"], None)
def test_whatever_comes_is_read_by_the_book(pieces: list[bytes], data: st.DataObject | None) -> None:
    stream = b"".join(pieces)
    if data is not None and stream:
        places = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
        pieces = [stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]

    assert parsed(*pieces) == by_the_book(stream)


def test_an_event_without_end_is_not_waited_for() -> None:
    for stream in (b"data: " + b"x" * 100, b"data: x\n" * 20, b": x\n" * 40):
        parser = SseParser(max_event=80)
        with pytest.raises(StreamProtocolError, match="more than 80 bytes"):
            parser.feed(stream)

    assert parsed(*[b"data: " + b"x" * 60 + b"\n\n"] * 5, max_event=80)


@given(st.text(st.characters(exclude_categories=[]), min_size=1))
def test_no_event_of_ours_is_longer_than_the_parser_takes(text: str) -> None:
    values = codec.MAX_NODES + 20 * codec.FLOOR_NODES
    longest = 6 * (codec.MAX_TEXT + 20 * codec.FLOOR_TEXT) + 40 * values

    assert len(codec.encode(text)) <= 6 * len(text) + 2
    assert len(codec.encode([-1.7976931348623157e308, -(2**63)])) <= 2 * 40
    assert longest < MAX_EVENT
