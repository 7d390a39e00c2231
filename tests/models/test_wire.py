"""The splitter of model streams: plain frames at speed, all others by the book."""

import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream import codec
from millstream.errors import ModelProtocolError, ModelResponseError
from millstream.models.wire import FrameReader
from tests.support.frames import frame, text_frames


class Typed(msgspec.Struct):
    type: str


decoder = msgspec.json.Decoder(list[Typed])


def read(*reads: bytes) -> tuple[list[bytes], list[str], FrameReader[Typed]]:
    """What all of `reads` and the end of the stream give."""
    reader = FrameReader(decoder)
    payloads: list[bytes] = []
    types: list[str] = []
    for frames in [*(reader.feed(data) for data in reads), reader.finish()]:
        if frames is not None:
            payloads += frames.payloads
            types += [value.type for value in frames.values]
    return payloads, types, reader


A, B = b'{"type":"a","n":1}', b'{"type":"b","text":"x\\ny"}'


@pytest.mark.parametrize(
    "stream",
    [
        pytest.param(b"event: a\ndata: %b\n\nevent: b\ndata: %b\n\n", id="as OpenAI sends it"),
        pytest.param(b"data: %b\n\ndata: %b\n\n", id="no event line"),
        pytest.param(b"data:%b\n\ndata:%b\n\n", id="no space"),
        pytest.param(b"event: a\r\ndata: %b\r\n\r\nevent: b\r\ndata: %b\r\n\r\n", id="CRLF"),
        pytest.param(b"event: a\rdata: %b\r\revent: b\rdata: %b\r\r", id="CR"),
        pytest.param(b"\xef\xbb\xbfevent: a\ndata: %b\n\ndata: %b\n\n", id="BOM"),
        pytest.param(b"\xef\xbb\xbfdata: %b\n\ndata: %b\n\n", id="BOM before data"),
        pytest.param(b": hello\n\ndata: %b\n\n: ping\n\n\ndata: %b\n\n", id="comments"),
        pytest.param(b": data: {}\ndata: %b\n\nevent: ping\n\ndata: %b\n\n", id="comment and empty event"),
        pytest.param(b"id: 1\ndata: %b\nretry: 5\n\ndata: %b\nid: 2\n\n", id="other fields"),
        pytest.param(b"data: %b\n\n\n\ndata: %b\n\n\n", id="too many empty lines"),
        pytest.param(b"data: %b\n\ndata: %b\n\ndata: [DONE]\n\n", id="[DONE]"),
        pytest.param(b"data: %b\n\ndata: %b\n\ndata: [DONE]\n\ndata: nonsense\n\n", id="after [DONE]"),
        pytest.param(b"data: %b\n\ndata: %b", id="no empty line at the end"),
        pytest.param(b"data: %b\n\ndata: %b\n\ndata: [DONE]", id="no empty line after [DONE]"),
        pytest.param(b"data\ndata: \n\ndata: %b\n\ndata: %b\n\n", id="empty data"),
    ],
)
def test_two_events_are_read_however_they_are_framed_and_cut(stream: bytes) -> None:
    stream = stream % (A, B)

    whole = read(stream)
    by_byte = read(*(stream[i : i + 1] for i in range(len(stream))))
    in_two = [read(stream[:i], stream[i:]) for i in range(len(stream))]

    for payloads, types, reader in [whole, by_byte, *in_two]:
        assert payloads == [A, B]
        assert types == ["a", "b"]
        assert reader.error is None
        assert reader.count == 2


def test_data_over_several_lines_is_one_event_on_one_line() -> None:
    payloads, types, _ = read(b'data: {\ndata:   "type": "a",\ndata:   "n": [1,\ndata: 2]\ndata: }\n\n')

    assert types == ["a"]
    assert codec.is_clean(payloads[0])
    assert json.loads(payloads[0]) == {"type": "a", "n": [1, 2]}


def test_a_type_that_stands_on_the_event_line_only_is_put_into_the_event() -> None:
    payloads, types, _ = read(b'event: response.created\ndata: {"response":{}}\n\ndata: %b\n\n' % A)

    assert types == ["response.created", "a"]
    assert json.loads(payloads[0]) == {"type": "response.created", "response": {}}


@given(st.text(), st.lists(st.integers(0, 400), max_size=6))
def test_any_text_survives_any_cutting(text: str, cuts: list[int]) -> None:
    stream = b"".join(text_frames(text or " ")) + frame("last", text=text)
    bounds = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]

    payloads, types, reader = read(*(stream[a:b] for a, b in itertools.pairwise(bounds)))

    assert reader.error is None
    assert json.loads(payloads[-1])["text"] == text
    assert types == [json.loads(p)["type"] for p in payloads]


@pytest.mark.parametrize("text", ["é", "日本語", "😀", "a\u2028b\u2029c\x85d", "\x7f"])
def test_raw_text_crosses_as_it_is_unless_a_line_reader_would_split_it(text: str) -> None:
    sent = json.dumps({"type": "a", "delta": text}, ensure_ascii=False).encode()

    payloads, _, reader = read(b"data: %b\n\ndata: %b\n\n" % (sent, A))

    assert reader.error is None
    assert codec.is_clean(payloads[0])
    assert json.loads(payloads[0])["delta"] == text
    assert payloads[0] == sent or any(c in text for c in "\u2028\u2029\x85")


@pytest.mark.hostile
@pytest.mark.parametrize("control", [bytes([code]) for code in range(0x20) if code not in b"\r\n"])
def test_a_raw_control_character_becomes_a_space_also_where_nobody_looks(control: bytes) -> None:
    payloads, _, reader = read(b'data: {"type":"a","skipped":"x%by"}\n\ndata: %b\n\n' % (control, A))

    assert reader.error is None
    assert json.loads(payloads[0])["skipped"] == "x y"


@pytest.mark.hostile
def test_half_a_surrogate_pair_becomes_a_replacement_character() -> None:
    payloads, types, reader = read(
        rb'data: {"type":"a","delta":"x\ud83d"}' b"\n\n" rb'data: {"type":"b","d":"\ud83d\ude00"}' b"\n\n"
    )

    assert types == ["a", "b"]
    assert reader.error is None
    assert json.loads(payloads[0])["delta"] == "x\ufffd"
    assert json.loads(payloads[1])["d"] == "😀"


@pytest.mark.hostile
def test_what_python_writes_for_numbers_that_json_lacks_becomes_null() -> None:
    payloads, types, reader = read(b'data: {"type":"a","n":[NaN,-Infinity],"t":"NaN"}\n\ndata: %b\n\n' % B)

    assert types == ["a", "b"]
    assert reader.error is None
    assert json.loads(payloads[0]) == {"type": "a", "n": [None, None], "t": "NaN"}


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (b'{"type":"a"', "not JSON"),
        (b"hello", "not JSON"),
        (b'{"type":"a","t":"\xff\xfe"}', "not UTF-8"),
        (b"[1,2]", "no JSON object"),
        (b"7", "no JSON object"),
        (b'{"n":1}', "wrong shape"),
        (b'{"type":5}', "wrong shape"),
        (b'{"type":"a","n":' + b"[" * 5000 + b"]" * 5000 + b"}", "not JSON"),
    ],
)
def test_a_broken_event_is_named_after_the_good_ones_were_given(broken: bytes, said: str) -> None:
    payloads, types, reader = read(b"data: %b\n\ndata: %b\n\ndata: %b\n\n" % (A, broken, B))

    assert payloads == [A]
    assert types == ["a"]
    assert isinstance(reader.error, ModelProtocolError)
    assert said in str(reader.error)
    assert len(str(reader.error)) < 400


@pytest.mark.hostile
def test_frames_cannot_pass_for_one_array() -> None:
    _, types, reader = read(b'data: {"type":"a"},{"type":"b"}\n\n')

    assert types == []
    assert isinstance(reader.error, ModelProtocolError)


@pytest.mark.parametrize(
    ("sent", "message", "code"),
    [
        ({"message": "boom", "code": "x"}, "boom (code: x)", "x"),
        (
            {"message": "boom", "type": "server_error", "code": None},
            "boom (code: server_error)",
            "server_error",
        ),
        ({"code": 429}, "no reason given (code: 429)", "429"),
        ("boom", "boom", None),
    ],
)
def test_an_error_without_a_type_is_the_servers_failure(sent: object, message: str, code: str | None) -> None:
    payloads, _, reader = read(b"data: %b\n\ndata: %b\n\n" % (A, json.dumps({"error": sent}).encode()))

    assert payloads == [A]
    assert isinstance(reader.error, ModelResponseError)
    assert message in str(reader.error)
    assert reader.error.error_code == code


def test_nothing_is_read_after_an_error() -> None:
    reader = FrameReader(decoder)

    assert reader.feed(b"data: nonsense\n\n") is None
    assert reader.feed(b"data: %b\n\n" % A) is None
    assert reader.finish() is None
    assert reader.error is not None


def test_half_a_frame_at_the_end_is_left_to_whoever_knows_that_the_connection_was_cut() -> None:
    payloads, _, reader = read(b'data: %b\n\ndata: {"ty' % A)

    assert payloads == [A]
    assert reader.error is None


def test_a_large_event_in_small_reads_is_not_copied_each_time() -> None:
    large = b'data: {"type":"a","text":"%b"}\n\n' % (b"x" * 4_000_000)
    reader = FrameReader(decoder)

    reads = [reader.feed(large[i : i + 4096]) for i in range(0, len(large), 4096)]

    assert [frames is not None for frames in reads] == [False] * (len(reads) - 1) + [True]
