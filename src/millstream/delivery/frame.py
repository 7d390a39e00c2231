"""What crosses the wire: one JSON object per message, and the SSE frame around it. No I/O here.

A message is an entry of the log as `Entry.to_json` writes it, or one of these, which tell of
the stream itself and stand in no log:

| type | fields | then |
|---|---|---|
| `stream.position` | position | the cursor stands here; what lies between was filtered out |
| `stream.gap` | requested, first, after | the stream ends: a position is no longer held |
| `stream.error` | code, message, error_id, after | the stream ends; the run does as it would have |
| `command.done` | id, command, … | the WebSocket of a server only: a command was obeyed |
| `command.error` | id, code, message, … | WebSocket only: it was not, or not understood |
| `pong` | id | WebSocket only: the answer to a ping |

Only the run itself writes an end of the run; a stream that ends with trouble of its own has no
terminal entry, and is resumed from `after`.

A frame ends its lines with LF alone and has one `data:` line. That it is one line, and holds
nothing at which a parser would split, is promised by `millstream.codec`; the types are of a
closed set and positions are numbers, so that nothing of a stranger's gets into a field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import msgspec

from millstream import codec
from millstream.errors import LogGapError

if TYPE_CHECKING:
    from millstream.events import Entry

HEARTBEAT = b":\n\n"
"""A comment: it keeps the connection open, and parsers skip it."""


class Message(NamedTuple):
    """One JSON object on its way to a client."""

    json: bytes
    type: str
    position: int | None = None
    """What the client resumes from once it has this; None for what has no place in the log."""


class StreamPosition(msgspec.Struct, tag_field="type", tag="stream.position"):
    """What lies between the last position and this one was filtered out."""

    position: int


class StreamGap(msgspec.Struct, tag_field="type", tag="stream.gap"):
    """The stream ends: a position is no longer held."""

    requested: int
    first: int
    """The first position that is held."""
    after: int
    """The last position that was sent."""
    message: str


class StreamError(msgspec.Struct, tag_field="type", tag="stream.error"):
    """The stream ends, by trouble of its own. The run does as it would have."""

    code: str
    message: str
    error_id: str | None
    """Stands in the server's log, with what happened."""
    after: int
    """The last position that was sent, behind which to resume."""


def entry_message(entry: Entry) -> Message:
    """An entry of the log."""
    return Message(entry.to_json(), entry.type, entry.position)


def position_message(position: int) -> Message:
    """The cursor moved to `position` over entries that the client did not ask for."""
    return Message(b'{"type":"stream.position","position":%d}' % position, "stream.position", position)


def gap_message(gap: LogGapError, after: int) -> Message:
    """A position that is no longer held was asked for."""
    text = "This part of the stream is no longer held."
    return _told(StreamGap(requested=gap.requested, first=gap.first, after=after, message=text))


def error_message(code: str, text: str, after: int, error_id: str | None = None) -> Message:
    """The stream cannot go on; `text` is for the public, `error_id` stands in the server's log."""
    return _told(StreamError(code=code, message=text, error_id=error_id, after=after))


def _told(message: StreamGap | StreamError) -> Message:
    fields = msgspec.to_builtins(message)
    return Message(codec.encode(fields), fields["type"])


def command_error_message(code: str, text: str) -> Message:
    """What a client sent is no command."""
    return Message(codec.encode({"type": "command.error", "code": code, "message": text}), "command.error")


PONG = Message(b'{"type":"pong"}', "pong")


def sse_frame(message: Message, *, named: bool = False) -> bytes:
    """`message` as a frame of server-sent events.

    Args:
        message: what to send.
        named: write the type on an `event:` line too. A browser then gives the frame to the
            listeners of that name, and no longer to `onmessage`.
    """
    head = b"" if message.position is None else b"id: %d\n" % message.position
    if named:
        head += b"event: %b\n" % message.type.encode()
    return b"%bdata: %b\n\n" % (head, message.json)
