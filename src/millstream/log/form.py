"""The form of a batch in an engine: bytes that can be told from damaged ones.

    5c0d1a2f{"v":1,"first":7,"count":2,"size":96,"raw_only":true,"stamp":{…}}
    {"type":"raw_response_event","data":{"type":"response.output_text.delta",…}}
    {"type":"raw_response_event","data":{"type":"response.output_text.delta",…}}

Eight hexadecimal digits, which are the CRC-32 of all behind them; a head; and one line for each
event, as `Event.to_json` writes it. A raw model event is wrapped and unwrapped without being
decoded, so its bytes come back as they went.

What an engine gives is not trusted: others can write there, and disks fail. Whatever is wrong
with it is a `LogDamagedError` that names the run and the position.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import msgspec

from millstream import codec
from millstream.errors import LogDamagedError
from millstream.events import RawResponsesStreamEvent, Stamp, event_from_json
from millstream.log.promise import Batch, Payload

if TYPE_CHECKING:
    from collections.abc import Sequence


VERSION = 1
"""Of this form. A later one is refused."""

_RAW = b'{"type":"raw_response_event","data":'
_DIGITS = 8


class _Head(msgspec.Struct, frozen=True):
    """The first line of the form."""

    v: int
    first: int
    count: int
    size: int
    raw_only: bool
    stamp: Stamp


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch on its way into an engine: encoded, whatever becomes of its events."""

    batch: Batch
    lines: list[bytes]
    """The JSON of its events."""
    data: bytes
    """All of it: what an engine keeps."""

    @classmethod
    def of(cls, batch: Batch) -> Packed:
        """Encode `batch`. Total: a value that has no JSON is marked in its place."""
        return _packed(batch, _lines_of(batch.payloads))

    def beyond(self, last: int) -> Packed:
        """What of it stands beyond position `last`."""
        done = last - self.batch.first + 1
        if done <= 0:
            return self
        payloads = self.batch.payloads[done:]
        size = sum(len(payload) for payload in payloads if isinstance(payload, bytes))
        return _packed(replace(self.batch, first=last + 1, payloads=payloads, size=size), self.lines[done:])


def unpack(data: bytes, run_id: str, first: int) -> Batch:
    """The batch that an engine gave for position `first` of a run.

    Raises:
        LogDamagedError: it is none, or not that one, or a later version wrote it.
    """
    head, lines = _opened(data, run_id, first)
    payloads: list[Payload] = []
    for position, line in enumerate(lines, first):
        try:
            payloads.append(payload_of(line))
        except (
            Exception
        ) as error:  # a program may have written anything there: whatever it breaks, it is damaged
            raise _damaged(run_id, position, str(error)) from error
    return Batch(first, head.stamp, payloads, head.raw_only, head.size)


def unpack_lines(data: bytes, run_id: str, first: int) -> list[bytes]:
    """The JSON of the events of a batch, to be compared.

    Raises:
        LogDamagedError: as `unpack`.
    """
    return _opened(data, run_id, first)[1]


def payload_of(line: bytes) -> Payload:
    """The event of one line, as `Event.to_json` writes it; gives the same line again, where that is clean.

    Raises:
        Exception: whatever the line breaks, where it is not one of ours.
    """
    if line.startswith(_RAW):
        return line[len(_RAW) : -1]
    event = event_from_json(line)
    if codec.is_clean(line) and not isinstance(event, RawResponsesStreamEvent):
        event.seal_as(line)  # not all that is read encodes again to the same: a decimal came back as text
    return event


def _lines_of(payloads: Sequence[Payload]) -> list[bytes]:
    lines: list[bytes] = []
    for payload in payloads:
        if isinstance(payload, bytes):
            lines.append(_one_line(b"%b%b}" % (_RAW, payload)))
        elif isinstance(payload, RawResponsesStreamEvent):
            lines.append(_one_line(payload.to_json()))
        else:
            lines.append(payload.to_json())
    return lines


def _one_line(line: bytes) -> bytes:
    # Models of the package give clean bytes; one of a program's own may not.
    return codec.clean(line) if b"\n" in line else line


def _packed(batch: Batch, lines: list[bytes]) -> Packed:
    stamp = batch.stamp
    if stamp.time - stamp.time != 0.0:  # no clock should tell such a time, and JSON has no word for it
        stamp = replace(stamp, time=0.0)
    head = _Head(VERSION, batch.first, len(lines), batch.size, batch.raw_only, stamp)
    try:
        first_line = msgspec.json.encode(head)
    except Exception:  # a lone surrogate in the name of an agent, say
        first_line = codec.encode(msgspec.structs.asdict(head))
    rest = b"\n".join([first_line, *lines])
    return Packed(batch, lines, b"%08x%b" % (zlib.crc32(rest), rest))


def _opened(data: bytes, run_id: str, first: int) -> tuple[_Head, list[bytes]]:
    if not isinstance(data, bytes):  # pyright: ignore[reportUnnecessaryIsInstance]  # a damaged engine gives anything
        raise _damaged(run_id, first, "it is no bytes")
    rest = data[_DIGITS:]
    if data[:_DIGITS] != b"%08x" % zlib.crc32(rest):
        raise _damaged(run_id, first, "its checksum does not fit")
    first_line, *lines = rest.split(b"\n")
    try:
        version = _version.decode(first_line).v
        if version > VERSION:
            raise _damaged(
                run_id, first, f"version {version} of Millstream's form wrote it, this reads {VERSION}"
            )
        head = _head.decode(first_line)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise _damaged(run_id, first, str(error)) from None
    if head.first != first or head.count != len(lines):
        raise _damaged(run_id, first, f"{head.count} events of position {head.first} stand there")
    return head, lines


def _damaged(run_id: str, position: int, why: str) -> LogDamagedError:
    return LogDamagedError(f"Run {run_id}: what stands at position {position} cannot be read: {why}.")


class _Version(msgspec.Struct, frozen=True):
    v: int


_version = msgspec.json.Decoder(_Version)
_head = msgspec.json.Decoder(_Head)
