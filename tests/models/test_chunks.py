"""Chunks of HTTP, joined: a parser must be told the same, of sound answers and of broken ones."""

import asyncio
import itertools
from typing import Any

import pytest
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpResponseParser
from hypothesis import given
from hypothesis import strategies as st

from millstream.models.chunks import ChunkJoiner

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nTransfer-Encoding:  Chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(body: bytes, size: str = "{:x}") -> bytes:
    return b"%b\r\n%b\r\n" % (size.format(len(body)).encode(), body)


def joined(*reads: bytes) -> list[bytes]:
    joiner = ChunkJoiner()
    joiner.begin()
    return [joiner.feed(read) for read in reads]


class Parser:
    """aiohttp's parser, and what it has told."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._parser = HttpResponseParser(BaseProtocol(loop), loop, 1 << 20)
        self._payload: Any = None
        self._error: str | None = None

    def told(self, data: bytes) -> tuple[object, ...]:
        """What it has told by now: how it failed, whether the answer is whole, and its body."""
        try:
            for answer in self._parser.feed_data(data)[0]:
                self._payload = answer[1]
        except Exception as error:
            self._error = self._error or type(error).__name__
        payload = self._payload
        if payload is None:
            return (self._error,)
        return self._error, payload.is_eof(), repr(payload.exception()), b"".join(payload._buffer)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted({place % (len(data) + 1) for place in places}), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


# --- that they are joined ----------------------------------------------------------------------


def test_the_chunks_of_a_read_become_one() -> None:
    first, second = joined(HEAD + chunk(b"a"), chunk(b"b" * 20) + chunk(b"c\r\nd") + chunk(b"e"))

    assert first == HEAD + b"1\r\na"
    assert second == b"\r\n19\r\n" + b"b" * 20 + b"c\r\nde"


def test_what_stands_around_them_passes_as_it_is() -> None:
    begun, ended = joined(
        HEAD + b"8\r\nhalf", b"half\r\n" + chunk(b"a") + chunk(b"b") + b"0\r\nx-trailer: 1\r\n\r\n"
    )

    assert begun == HEAD + b"8\r\nhalf"
    assert ended == b"half\r\n2\r\nab\r\n0\r\nx-trailer: 1\r\n\r\n"


def test_a_line_between_chunks_waits_for_its_end_and_nothing_of_a_body_does() -> None:
    joiner = ChunkJoiner()
    joiner.begin()
    data = HEAD + chunk(b"abc") + chunk(b"d" * 30) + LAST

    given_on = b""
    for place in range(len(data)):
        given_on += joiner.feed(data[place : place + 1])
        behind = data[: place + 1][len(given_on) :]
        assert behind == b"" or (behind.startswith(b"\r\n") and not behind.strip(b"\r\n0123456789abcdef"))
    assert given_on == data


def test_the_next_answer_of_a_connection_begins_anew() -> None:
    joiner = ChunkJoiner()
    told = []
    for _ in range(2):
        joiner.begin()
        told.append([joiner.feed(read) for read in (HEAD + chunk(b"a"), chunk(b"b") + chunk(b"c"), LAST)])

    assert told[0] == told[1]
    assert b"2\r\nbc" in told[0][1]


# --- that it makes no difference ---------------------------------------------------------------


async def test_a_parser_is_told_the_same_wherever_the_reads_are_cut() -> None:
    loop = asyncio.get_running_loop()
    bodies = st.lists(st.binary(min_size=1, max_size=40) | st.sampled_from([b"\r\n", b"0\r\n\r\n", b"5\r\n"]))
    sizes = st.sampled_from(["{:x}", "{:X}", "{:04x}", "{:x};ext=1", "{:x} ", "0x{:x}", "+{:x}", "1{:x}", ""])
    ends = st.sampled_from(
        [LAST, b"", b"\r\n", b"5\r\nabc", b"1\r\nabc\r\n", b"0\r\nx: 1\r\n\r\n", b"x\r\n", b"5;", b"5"]
    )

    @given(bodies, sizes, ends, st.lists(st.integers(0, 10_000)))
    def holds(bodies: list[bytes], size: str, end: bytes, places: list[int]) -> None:
        chunks = [chunk(body, size if index % 3 == 2 else "{:x}") for index, body in enumerate(bodies)]
        reads = cut(HEAD + b"".join(chunks) + end, places)
        told, told_joined, joiner = Parser(loop), Parser(loop), ChunkJoiner()
        joiner.begin()

        for read in reads:
            assert told_joined.told(joiner.feed(read)) == told.told(read)

    holds()


async def test_it_makes_no_difference_at_which_byte_a_read_ends() -> None:
    loop = asyncio.get_running_loop()
    bodies = [b"a" * size for size in (5, 20, 5, 300, 15, 16, 1, 255, 256)]
    data = HEAD + b"".join(map(chunk, bodies)) + LAST

    for place in range(len(data)):
        told, joiner = Parser(loop), ChunkJoiner()
        joiner.begin()
        for read in (data[:place], data[place:]):
            at_last = told.told(joiner.feed(read))
        assert at_last == (None, True, "None", b"".join(bodies))


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: gzip\r\n\r\n",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD,
        b"\r\n",
    ],
)
def test_nothing_is_joined_in_an_answer_whose_head_is_not_plain(head: bytes) -> None:
    reads = (head, chunk(b"a") + chunk(b"b") + chunk(b"c"), LAST)

    assert joined(*reads) == list(reads)


def test_nothing_is_joined_where_no_answer_is_expected() -> None:
    joiner = ChunkJoiner()

    assert joiner.feed(HEAD + chunk(b"a") + chunk(b"b")) == HEAD + chunk(b"a") + chunk(b"b")
