"""Server-sent events from bytes: no I/O, no clock, fed whatever a socket gives.

By the rules of the HTML standard (section 9.2, "Server-sent events"): lines end with LF, CRLF or CR;
a byte order mark may come first; an event is given at the empty line behind it, and only if it
has data; what is cut off before that line is nobody's.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from millstream.codec import MAX_TEXT
from millstream.errors import StreamProtocolError

MAX_EVENT = 8 * MAX_TEXT
"""Bytes that one event may have, lines of comments included: a server that never ends one is not waited for.

As much as the codec makes of one event at most: of `MAX_TEXT` characters each takes six bytes where it is escaped.
"""


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event."""

    data: str
    """The `data` lines, joined by LF."""
    type: str = "message"
    """What its `event` line says."""
    id: str = ""
    """The last id that the server gave, by this event or by one before: what to come back with."""


class SseParser:
    """Makes events of the bytes of one connection.

    ```python
    parser = SseParser()
    for piece in pieces:
        for event in parser.feed(piece):
            ...
    ```

    Args:
        last_event_id: the id that the connection was opened with.
        max_event: bytes that one event may have.
    """

    def __init__(self, last_event_id: str = "", *, max_event: int = MAX_EVENT) -> None:
        self.last_event_id = last_event_id
        """What to come back with: the id of the last event that was given."""
        self.retry: int | None = None
        """Milliseconds after which the server wants to be asked again, once it has said so."""
        self.comments = 0
        """Lines of comments so far: by these a server says that it is there."""
        self._max_event = max_event
        self._rest = bytearray()
        """The beginning of a line."""
        self._size = 0
        """Bytes since the last empty line, `_rest` aside."""
        self._is_first = True
        """Whether a byte order mark may still come."""
        self._skips_lf = False
        """Whether the last byte was a CR, so that an LF belongs to it."""
        self._data: list[str] = []
        self._type = ""
        self._id = last_event_id

    def feed(self, data: bytes) -> list[SseEvent]:
        """The events that `data` completes, in order.

        Raises:
            StreamProtocolError: an event is longer than it may be. The parser is of no more use then.
        """
        events: list[SseEvent] = []
        for line in self._whole_lines(data):
            self._size += len(line) + 1
            self._check_size()
            if line:
                self._line(line)
            elif (event := self._dispatch()) is not None:
                events.append(event)
        self._check_size()
        return events

    def _whole_lines(self, data: bytes) -> list[bytes]:
        """The lines that `data` ends, without what ends them."""
        if self._skips_lf and data:
            data, self._skips_lf = data.removeprefix(b"\n"), False
        self._rest += data
        if self._is_first:
            if len(self._rest) < len(codecs.BOM_UTF8) and codecs.BOM_UTF8.startswith(self._rest):
                return []
            data = bytes(self._rest.removeprefix(codecs.BOM_UTF8))
            self._rest, self._is_first = bytearray(data), False
        if b"\n" not in data and b"\r" not in data:
            return []
        self._skips_lf = data.endswith(b"\r")
        whole = bytes(self._rest)
        if b"\r" in whole:
            whole = whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *lines, rest = whole.split(b"\n")
        self._rest = bytearray(rest)
        return lines

    def _check_size(self) -> None:
        if self._size + len(self._rest) > self._max_event:
            raise StreamProtocolError(
                f"The server sent an event of more than {self._max_event} bytes, which is the most that is taken."
            )

    def _line(self, line: bytes) -> None:
        name, colon, value = line.partition(b":")
        if not name:
            self.comments += 1
            return
        if colon:
            value = value.removeprefix(b" ")
        text = value.decode("utf-8", "replace")
        if name == b"data":
            self._data.append(text)
        elif name == b"id":
            if "\0" not in text:
                self._id = text
        elif name == b"event":
            self._type = text
        elif name == b"retry" and value.isdigit() and len(value) < 19:
            self.retry = int(value)

    def _dispatch(self) -> SseEvent | None:
        data, kind = self._data, self._type
        self._data, self._type, self._size = [], "", 0
        self.last_event_id = self._id
        return SseEvent("\n".join(data), kind or "message", self._id) if data else None
