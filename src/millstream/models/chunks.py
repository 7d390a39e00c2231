"""HTTP chunks that one read brought, joined into one before an HTTP parser sees them.

Most servers send each event of a stream as an HTTP chunk of its own, and aiohttp's parser calls
Python three times for each. So the chunks of a read are made one here, for a sixth of the price.

Rules of this file:

1. What comes out means to a parser what went in. Joined are only whole chunks whose size is a
   plain number. All else passes as it is: the head, the last chunk, trailers, and from there on
   everything if something is not understood. To find fault is the parser's affair.
2. Nothing of a body waits for the next read; only the line between two chunks does.
"""

from __future__ import annotations

import re

_CODING = re.compile(rb"\r\ntransfer-encoding:[ \t]*(.*?)[ \t]*(?=\r\n)", re.IGNORECASE)
_LINE = re.compile(rb"\r\n[0-9A-Fa-f]{1,8}\r\n")
"""What stands between two chunks: the end of the one, and the size of the next."""
_PART = re.compile(rb"(?:\r(?:\n[0-9A-Fa-f]{0,8}\r?)?)?")
"""What there may be of that when a read ends in it."""

_sizes: dict[bytes, int] = {}
"""The size that such a line tells; to look it up costs less than to read it."""


class ChunkJoiner:
    """Joins the chunks of one connection's responses."""

    __slots__ = ("_held", "_is_first", "_is_head", "_left")

    def __init__(self) -> None:
        self._is_head = False
        self._is_first = False
        self._left: int | None = None
        """Bytes to come before the next end of a chunk; None where nothing is joined."""
        self._held = b""

    def begin(self) -> None:
        """Expect a response. What comes when none is expected passes as it is."""
        self._is_head = True
        self._is_first = False
        self._left = None
        self._held = b""

    def feed(self, data: bytes) -> bytes:
        """What the parser is to be given for the bytes of one read."""
        if self._is_head:
            self._is_head = False
            body = _body_of(data)
            if body:
                self._is_first = True
                return data[:body] + self.feed(data[body:])
        if self._is_first and data:
            self._is_first = False
            self._left = _end_of_first(data)
        left = self._left
        if left is None:
            return data
        if self._held:
            data, self._held = self._held + data, b""
        if left > len(data):
            self._left = left - len(data)
            return data
        return self._join(data, left)

    def _join(self, data: bytes, start: int) -> bytes:
        """`data` with its whole chunks joined that begin behind the line end at `start`."""
        bodies: list[bytes] = []
        at, end, width, known = start, len(data), 6, _sizes.get
        while True:
            # Most often the next line is as long as the one before, and has been seen.
            body = at + width
            size = known(data[at:body])
            if size is None or body > end:
                line_end = data.find(b"\r\n", at + 2)
                if line_end < 0 and _PART.fullmatch(data, at):
                    self._left, self._held, rest = 0, data[at:], b""
                    break
                body = line_end + 2
                width = body - at
                size = _size(data[at:body])
            if size == 0 or body + size > end:
                self._left, rest = body + size - end if size else None, data[at:]
                break
            at = body + size
            bodies.append(data[body:at])
        if len(bodies) < 2:
            return data[: end - len(self._held)]
        size = sum(map(len, bodies))
        return b"".join([data[:start], b"\r\n%x\r\n" % size, *bodies, rest])


def _body_of(data: bytes) -> int:
    """Where the chunks of a response begin whose head is in `data`; 0 where it has none."""
    end = data.find(b"\r\n\r\n")
    head = data[: end + 2]
    if end < 0 or not head.startswith(b"HTTP/1.1 "):
        return 0
    return end + 4 if [coding.lower() for coding in _CODING.findall(head)] == [b"chunked"] else 0


def _end_of_first(data: bytes) -> int | None:
    """How many bytes the first chunk takes, which `data` begins; None where that is not plain."""
    body = data.find(b"\r\n") + 2
    size = _size(b"\r\n" + data[:body])
    return body + size if size else None


def _size(line: bytes) -> int:
    """The size that `line` tells; 0 where it is the last chunk's, or no plain number."""
    if _LINE.fullmatch(line) is None:
        return 0
    size = int(line, 16)
    if size and len(_sizes) < 10_000:
        _sizes[line] = size
    return size
