r"""What can go wrong between a model's server and you: values to give to a `ModelServer`.

    server.answer("It is cold.", faults.Cut(byte=120))
    server.answer("It is cold.", faults.LineEnds(b"\r\n"), faults.Split(1))

An answer is made in four steps, and a fault may change the outcome of each: the objects that
are said, the frames they are written in, the head of the answer, and the pieces that it is
sent in. Several faults apply in the order in which they are given, within each step. A fault
that has nothing to change in an answer (line ends of an answer that is no stream, say)
changes nothing. For one that is not here, subclass `Fault`.

Where a fault asks for a place, `byte=n` counts the bytes of the answer's body from 0, and
`frame=n` its pieces: the frames of a stream, as long as no `Split` came before; `frame=-1` is
behind the last, `frame=-2` before it. `head_byte=n` counts the bytes of what stands before the
body, from the status line on. None of them means before anything is answered, even a status.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime
from email.utils import format_datetime
from typing import Any, Literal, TypeAlias, cast

from millstream.errors import UserError
from millstream.testing.model_wires import Json, Talk

# --- what is sent -----------------------------------------------------------------------------


class Gate:
    """Holds an answer back until it is opened, and tells when the answer has come to it."""

    def __init__(self) -> None:
        self._open: Future[None] = Future()
        self._reached: Future[None] = Future()

    def open(self) -> None:
        """Let the answer go on. Safe to call twice, and from any thread."""
        _set(self._open)

    async def reached(self) -> None:
        """Wait until the answer has come here: all that stands before it has been sent."""
        await asyncio.shield(asyncio.wrap_future(self._reached))

    async def wait(self) -> None:
        """Tell that the answer has come here, and wait until the gate is open."""
        _set(self._reached)
        await asyncio.shield(asyncio.wrap_future(self._open))


def _set(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


@dataclass(frozen=True, slots=True)
class Pause:
    """A while in which nothing is sent, by the server's clock."""

    seconds: float


class Mark:
    """Something else than bytes that a server can do."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


CUT = Mark("CUT")
"""Close the connection, in the middle of whatever was said."""
RESET = Mark("RESET")
"""The same, with a RST: what a crashed server or an impatient proxy sends."""
HANG = Mark("HANG")
"""Send nothing more, until the client is gone."""

Piece: TypeAlias = bytes | Gate | Pause | Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What stands before the body of an answer.

    Attributes:
        framing: how the body's end is told: by chunks, by a length, or by the connection's end.
        before: what happens before a single byte of the answer is sent.
        within: what happens after so many bytes of the head.
    """

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    framing: Literal["chunked", "length", "close"] = "chunked"
    version: str = "HTTP/1.1"
    before: tuple[Piece, ...] = ()
    within: tuple[tuple[int, Piece], ...] = ()


class Fault:
    """Changes an answer. Override what it is about; all else stays as it is."""

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """What is said: events, chunks, or the one document of a whole answer."""
        return said

    def frames(self, frames: list[bytes], talk: Talk) -> list[bytes]:
        """How a stream writes that down. Not called for an answer that is no stream."""
        return frames

    def head(self, head: Head) -> Head:
        """What stands before the body."""
        return head

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """How the body is sent."""
        return pieces


# --- the connection ---------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _AtPlace(Fault):
    """A fault that happens at a place of the answer."""

    byte: int | None = None
    frame: int | None = None
    head_byte: int | None = None

    def _does(self) -> Piece:
        raise NotImplementedError

    def head(self, head: Head) -> Head:
        if self.head_byte is not None:
            return replace(head, within=(*head.within, (self.head_byte, self._does())))
        here = self.byte is None and self.frame is None
        return replace(head, before=(*head.before, self._does())) if here else head

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        if self.byte is None and self.frame is None:
            return pieces
        index, pieces = _index_of(pieces, self.byte, self.frame)
        return [*pieces[:index], self._does(), *pieces[index:]]


@dataclass(frozen=True, kw_only=True)
class Cut(_AtPlace):
    """The connection is closed there."""

    def _does(self) -> Piece:
        return CUT


@dataclass(frozen=True, kw_only=True)
class Reset(_AtPlace):
    """The connection is reset there (RST)."""

    def _does(self) -> Piece:
        return RESET


@dataclass(frozen=True)
class Stall(_AtPlace):
    """Nothing comes from there on until `gate` is opened; without one, for ever."""

    gate: Gate | None = None

    def _does(self) -> Piece:
        return self.gate or HANG


@dataclass(frozen=True)
class Delay(_AtPlace):
    """The rest comes `seconds` later, by the server's clock."""

    seconds: float

    def _does(self) -> Piece:
        return Pause(self.seconds)


@dataclass(frozen=True)
class Slow(Fault):
    """`seconds` pass before each piece of the body, by the server's clock."""

    seconds: float

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """The same pieces, each with a pause before it."""
        return [one for piece in pieces for one in (Pause(self.seconds), piece)]


@dataclass(frozen=True)
class End(Fault):
    """The answer ends there as if it were whole: nothing about the connection tells that it is not."""

    byte: int | None = None
    frame: int | None = None

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """All before the place."""
        index, pieces = _index_of(pieces, self.byte, self.frame)
        return pieces[:index]


class Split(Fault):
    """The body comes in pieces of these sizes in bytes, over and over: `Split(1)` trickles byte by byte."""

    def __init__(self, *sizes: int) -> None:
        if not sizes or min(sizes) < 1:
            raise UserError("faults.Split(...) takes sizes in bytes, each at least 1.")
        self._sizes = sizes

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """Gates and the like stay where they are."""
        cut: list[Piece] = []
        sizes = itertools.cycle(self._sizes)
        for together in _joined(pieces):
            cut.extend(_in_sizes(together, sizes) if isinstance(together, bytes) else [together])
        return cut


@dataclass(frozen=True)
class Corrupt(Fault):
    """The bits of `xor` are flipped in one byte of the body."""

    byte: int
    xor: int = 0x01

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """The same pieces, but for that byte."""
        left = self.byte
        for index, piece in enumerate(pieces):
            if isinstance(piece, bytes) and left < len(piece):
                changed = piece[:left] + bytes([piece[left] ^ self.xor]) + piece[left + 1 :]
                return [*pieces[:index], changed, *pieces[index + 1 :]]
            left -= _size(piece)
        raise UserError(f"faults.Corrupt(byte={self.byte}): the answer ends before it.")


# --- HTTP -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Status(Fault):
    """A status in place of the answer, with the error object that OpenAI's servers send.

    `retry_after` is a number of seconds or a date, `retry_after_ms` the header of that name.
    """

    status: int
    message: str = "scripted failure"
    code: str | None = None
    retry_after: float | datetime | None = None
    retry_after_ms: float | None = None

    def head(self, head: Head) -> Head:
        """The status and its headers."""
        headers = {"content-type": "application/json"}
        after = self.retry_after
        if after is not None:
            is_date = isinstance(after, datetime)
            headers["retry-after"] = format_datetime(after, usegmt=True) if is_date else f"{after:g}"
        if self.retry_after_ms is not None:
            headers["retry-after-ms"] = f"{self.retry_after_ms:g}"
        return replace(head, status=self.status, headers=headers, framing="length")

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """The error object."""
        error = {"message": self.message, "type": "server_error", "code": self.code, "param": None}
        return [json.dumps({"error": error}).encode()]


@dataclass(frozen=True)
class Body(Fault):
    """Another body: what a login page, a proxy, or a server that gave up sends with status 200."""

    body: bytes
    content_type: str = "text/html"

    def head(self, head: Head) -> Head:
        """Its content type."""
        return replace(head, headers={**head.headers, "content-type": self.content_type})

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """The body, in one piece."""
        return [self.body] if self.body else []


@dataclass(frozen=True)
class Header(Fault):
    """One header of the answer, another one or (None) left out."""

    name: str
    value: str | None

    def head(self, head: Head) -> Head:
        """The other headers stay."""
        headers = {name: value for name, value in head.headers.items() if name != self.name.lower()}
        if self.value is not None:
            headers[self.name.lower()] = self.value
        return replace(head, headers=headers)


class Gzip(Fault):
    """The body is compressed, each piece so that it can be read when it arrives."""

    def head(self, head: Head) -> Head:
        """Says so."""
        return replace(head, headers={**head.headers, "content-encoding": "gzip"})

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """One piece more, the end of the archive."""
        packer = zlib.compressobj(wbits=31)
        packed: list[Piece] = [
            packer.compress(piece) + packer.flush(zlib.Z_SYNC_FLUSH) if isinstance(piece, bytes) else piece
            for piece in pieces
        ]
        return [*packed, packer.flush()]


class Http10(Fault):
    """HTTP/1.0: no chunks, no length; the body ends with the connection."""

    def head(self, head: Head) -> Head:
        """The same status and headers."""
        headers = {**head.headers, "connection": "close"}
        return replace(head, version="HTTP/1.0", framing="close", headers=headers)


# --- frames -----------------------------------------------------------------------------------


class _EachFrame(Fault):
    """A fault of every frame."""

    def frames(self, frames: list[bytes], talk: Talk) -> list[bytes]:
        return [self.frame(frame) for frame in frames]

    def frame(self, frame: bytes) -> bytes:
        """The frame as this server writes it."""
        raise NotImplementedError


@dataclass(frozen=True)
class LineEnds(_EachFrame):
    r"""Lines end as in `end`: `b"\r\n"` or `b"\r"`."""

    end: bytes = b"\r\n"

    def frame(self, frame: bytes) -> bytes:
        """With those line ends."""
        return frame.replace(b"\n", self.end)


class NoSpace(_EachFrame):
    """`data:{` and `event:x`, which the specification allows."""

    def frame(self, frame: bytes) -> bytes:
        """Without the space behind a field's colon."""
        return re.sub(rb"(?m)^(\w+): ", rb"\1:", frame)


class ManyDataLines(_EachFrame):
    """The JSON of a frame is spread over several `data:` lines."""

    def frame(self, frame: bytes) -> bytes:
        """A line for each member of its objects."""
        fields, data, payload = frame.rstrip(b"\n").rpartition(b"data: ")
        if not data or payload == b"[DONE]":
            return frame
        lines = json.dumps(json.loads(payload), indent=0).encode().split(b"\n")
        return fields + b"".join(data + line + b"\n" for line in lines) + b"\n"


class NoEventNames(_EachFrame):
    """No `event:` lines; the type stands in the JSON only. Chat Completions never has them."""

    def frame(self, frame: bytes) -> bytes:
        """Its other lines."""
        return b"\n".join(line for line in frame.split(b"\n") if not line.startswith(b"event:"))


class NoTypes(_EachFrame):
    """The type of an event stands on its `event:` line only. Chat Completions has none."""

    def frame(self, frame: bytes) -> bytes:
        """Without the type in its JSON."""
        return re.sub(rb'(\ndata: \{)"type":"[^"]*",?', rb"\1", frame)


class NoLastLine(Fault):
    """The empty line that ends the last frame is missing."""

    def frames(self, frames: list[bytes], talk: Talk) -> list[bytes]:
        """All frames, the last without its end."""
        return [*frames[:-1], frames[-1].rstrip(b"\n") + b"\n"]


class NoEnd(Fault):
    """What ends a stream is missing: `response.completed` on the one wire, `[DONE]` on the other."""

    def frames(self, frames: list[bytes], talk: Talk) -> list[bytes]:
        """All frames but the last."""
        return frames[:-1]


@dataclass(frozen=True)
class Insert(Fault):
    r"""Other bytes before a frame, or before each: `Insert(b": ping\n\n")`, `Insert(b"\xef\xbb\xbf", frame=0)`."""

    data: bytes
    frame: int | None = None

    def frames(self, frames: list[bytes], talk: Talk) -> list[bytes]:
        """The frames with that in front of one, or of all; -1 is behind the last."""
        if self.frame is None:
            return [self.data + frame for frame in frames]
        place = len(frames) if self.frame == -1 else self.frame
        return [*frames[:place], self.data, *frames[place:]]


@dataclass(frozen=True)
class Replace(Fault):
    r"""Other bytes in the JSON: `Replace(b"Oslo", b"\xff")`, `Replace(b"null", b"NaN")`, of a whole answer too."""

    old: bytes
    new: bytes

    def pieces(self, pieces: list[Piece]) -> list[Piece]:
        """In each piece by itself."""
        return [piece.replace(self.old, self.new) if isinstance(piece, bytes) else piece for piece in pieces]


# --- what is said -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit(Fault):
    """Each object (event, chunk, or whole answer) is what `function` makes of it; None leaves it out."""

    function: Callable[[Json], Json | None]

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """What is left of them."""
        return [object for one in said if (object := self.function(one)) is not None]


@dataclass(frozen=True)
class ErrorEvent(Fault):
    """The server's failure, in the middle of a stream, after so many frames; a whole answer is one.

    `typed=False` leaves out the event's type, on the wire that has types.
    """

    after: int = 0
    message: str = "scripted failure"
    code: str = "server_error"
    typed: bool = True

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """Those before, and the failure. Nothing follows it."""
        if talk.wire == "responses" and talk.streamed and self.typed:
            return [*said[: self.after], {"type": "error", "code": self.code, "message": self.message}]
        error = {"message": self.message, "type": self.code, "code": self.code}
        return [*said[: self.after if talk.streamed else 0], {"error": error}]

    def frames(self, frames: list[bytes], talk: Talk) -> list[bytes]:
        """No `[DONE]`: a server that has failed is not done."""
        return frames[:-1] if talk.wire == "chat" else frames


class UnknownEvents(Fault):
    """Events, chunks and fields of a version to come, before each and in each."""

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """Twice as many, or the one document with a field more."""
        if not talk.streamed:
            return [{**one, "brand_new": {"a": [1]}} for one in said]
        kind = "type" if talk.wire == "responses" else "object"
        news = {kind: "response.brand_new.delta", "delta": {"a": [1]}, "sequence_number": 0}
        return [object for one in said for object in (news, {**one, "brand_new": {"a": [1]}})]


class DuplicateIds(Fault):
    """All output items have one id, and all tool calls one call id."""

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """With every id of an item the same."""
        names = {"id", "item_id", "call_id"} if talk.wire == "responses" else {"id"}
        return [_changed(one, dict.fromkeys(names, "same")) for one in said]


@dataclass(frozen=True)
class Choices(Fault):
    """So many choices, though nobody asked for them; ours is sent last. Chat Completions only."""

    n: int = 2

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """The other choices say something else."""
        if talk.wire == "responses":
            return said
        if not talk.streamed:
            return [{**one, "choices": self._choices(one["choices"])} for one in said]
        return [
            {**one, "choices": [choice]}
            for one in said
            for choice in (self._choices(one["choices"]) if one["choices"] else [])
        ] + [one for one in said if not one["choices"]]

    def _choices(self, choices: list[Json]) -> list[Json]:
        (first,) = choices
        other = json.loads(json.dumps(first).replace('"content": "', '"content": "another '))
        return [*({**other, "index": index} for index in range(self.n - 1, 0, -1)), first]


@dataclass(frozen=True, kw_only=True)
class ToolCalls(Fault):
    """Tool calls as servers other than OpenAI's stream them.

    Attributes:
        ids: whether calls have ids of their own.
        whole: a call comes in one piece, its arguments with its name.
        index: of a call among the calls: the right one, none, or 0 for all. Chat Completions only.
        name_in_pieces: a call's name comes letter by letter. Chat Completions only.
        as_objects: the arguments are an object, not JSON in a text.
    """

    ids: bool = True
    whole: bool = False
    index: Literal["right", "missing", "reused"] = "right"
    name_in_pieces: bool = False
    as_objects: bool = False

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """Other objects are left as they are."""
        if talk.wire == "responses":
            return self._responses(said)
        return [{**one, "choices": [self._choice(c) for c in one["choices"]]} for one in self._pieces(said)]

    def _responses(self, said: list[Json]) -> list[Json]:
        changes: Json = {} if self.ids else {"call_id": None, "id": None}
        kept = [one for one in said if not (self.whole and "function_call_arguments.delta" in str(one))]
        return [_of_calls(one, lambda call: self._arguments({**call, **changes})) for one in kept]

    def _arguments(self, holder: Json) -> Json:
        if not self.as_objects or not holder.get("arguments"):
            return holder
        return {**holder, "arguments": json.loads(holder["arguments"])}

    def _pieces(self, chunks: list[Json]) -> list[Json]:
        """The chunks with their tool calls put together, or their names taken apart."""
        if self.whole or self.as_objects:
            return _whole_calls(chunks)
        if self.name_in_pieces:
            return [piece for chunk in chunks for piece in _name_in_pieces(chunk)]
        return chunks

    def _choice(self, choice: Json) -> Json:
        changed = dict(choice)
        for field_name in ("delta", "message"):
            calls = choice.get(field_name, {}).get("tool_calls")
            if calls:
                changed[field_name] = {**choice[field_name], "tool_calls": [self._call(c) for c in calls]}
        return changed

    def _call(self, call: Json) -> Json:
        call = {**call, "function": self._arguments(call["function"])}
        if not self.ids:
            call.pop("id", None)
        if "index" in call and self.index == "missing":
            del call["index"]
        elif "index" in call and self.index == "reused":
            call["index"] = 0
        return call


@dataclass(frozen=True)
class ReasoningField(Fault):
    """The field in which a server of Chat Completions sends what the model thinks.

    `reasoning_content` (DeepSeek, vLLM, and what a `ModelServer` sends by itself), `reasoning`
    (Ollama, newer vLLM, OpenRouter) or `thinking`.
    """

    name: str

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """With that field in place of `reasoning_content`."""
        renamed = _text_replaced(said, '"reasoning_content"', f'"{self.name}"')
        return renamed if talk.wire == "chat" else said


@dataclass(frozen=True)
class UsageAs(Fault):
    """Where the usage stands: nowhere, null, with the last choice, in every chunk, or in a field of its own.

    On the Responses wire, and in whole answers, every place but "missing" and "null" is the right one.
    """

    place: Literal["missing", "null", "with the finish", "in every chunk", "x_usage"]

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """The same objects with another usage."""
        usage = next((one["usage"] for one in said if one.get("usage")), None)
        if self.place == "missing":
            return [_without(one, "usage") for one in said if one.get("choices") != []]
        if self.place == "null":
            return [_changed(one, {"usage": None}) for one in said]
        if talk.wire == "responses" or not talk.streamed:
            return said
        said = [one for one in said if one["choices"]]
        if self.place == "in every chunk":
            return [{**one, "usage": usage} for one in said]
        name = "usage" if self.place == "with the finish" else "x_usage"
        return [*said[:-1], {**said[-1], name: usage}]


@dataclass(frozen=True)
class FinishReason(Fault):
    """Another reason why the answer ends, or (None) none at all. Chat Completions only."""

    reason: Any

    def objects(self, said: list[Json], talk: Talk) -> list[Json]:
        """With that reason wherever one stood."""
        if talk.wire == "responses":
            return said
        return [
            {
                **one,
                "choices": [
                    {**c, "finish_reason": c["finish_reason"] and self.reason} for c in one["choices"]
                ],
            }
            for one in said
        ]


# --- parts ------------------------------------------------------------------------------------


def _size(piece: Piece) -> int:
    return len(piece) if isinstance(piece, bytes) else 0


def _index_of(pieces: list[Piece], byte: int | None, frame: int | None) -> tuple[int, list[Piece]]:
    """Where a place is among the pieces, and the pieces with one of them cut in two where need be."""
    if byte is None:
        places = [index for index, piece in enumerate(pieces) if isinstance(piece, bytes)] + [len(pieces)]
        if frame is None or not -len(places) <= frame < len(places):
            raise UserError(f"A fault at frame {frame}: the answer has {len(places) - 1} frames.")
        return places[frame], pieces
    left = byte
    for index, piece in enumerate(pieces):
        size = _size(piece)
        if left < size and isinstance(piece, bytes):
            halves: list[Piece] = [half for half in (piece[:left], piece[left:]) if half]
            return index + len(halves) - 1, [*pieces[:index], *halves, *pieces[index + 1 :]]
        left -= size
    if left:
        raise UserError(f"A fault at byte {byte}: the answer has {byte - left} bytes.")
    return len(pieces), pieces


def _joined(pieces: Sequence[Piece]) -> Iterator[Piece]:
    """The pieces with bytes that follow each other in one."""
    for is_bytes, group in itertools.groupby(pieces, lambda piece: isinstance(piece, bytes)):
        if is_bytes:
            yield b"".join(piece for piece in group if isinstance(piece, bytes))
        else:
            yield from group


def _in_sizes(data: bytes, sizes: Iterator[int]) -> Iterator[bytes]:
    start = 0
    while start < len(data):
        size = next(sizes)
        yield data[start : start + size]
        start += size


def _changed(value: Any, changes: Json) -> Any:
    """`value` with the members named in `changes` changed wherever they stand in it."""
    return _rebuilt(value, lambda object: {**object, **{k: v for k, v in changes.items() if k in object}})


def _without(value: Any, name: str) -> Any:
    return _rebuilt(value, lambda object: {k: v for k, v in object.items() if k != name})


def _of_calls(value: Any, change: Callable[[Json], Json]) -> Any:
    """`value` of the Responses wire with its function calls changed."""
    return _rebuilt(value, lambda object: change(object) if object.get("type") == "function_call" else object)


def _rebuilt(value: Any, change: Callable[[Json], Json]) -> Any:
    """`value` with every object in it changed, from within."""
    if isinstance(value, dict):
        members = cast("Json", value)
        return change({name: _rebuilt(member, change) for name, member in members.items()})
    if isinstance(value, list):
        return [_rebuilt(one, change) for one in cast("list[Any]", value)]
    return value


def _text_replaced(said: list[Json], old: str, new: str) -> list[Json]:
    """`said` with one text in its JSON in place of another."""
    return json.loads(json.dumps(said).replace(old, new))


def _whole_calls(chunks: list[Json]) -> list[Json]:
    """The chunks of a stream, where each call's first has all of its arguments."""
    merged: list[Json] = []
    first: dict[int, Json] = {}
    for chunk in chunks:
        delta: Json = chunk["choices"][0].get("delta", {}) if chunk["choices"] else {}
        for call in delta.get("tool_calls", ()):
            if call["index"] in first:
                first[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
                break
            first[call["index"]] = call
        else:
            merged.append(chunk)
    return merged


def _name_in_pieces(chunk: Json) -> Iterator[Json]:
    delta: Json = chunk["choices"][0].get("delta", {}) if chunk["choices"] else {}
    calls: list[Json] = delta.get("tool_calls", [])
    name: str = calls[0]["function"].get("name", "") if calls else ""
    if not name:
        yield chunk
        return
    for index, letter in enumerate(name):
        said = {"name": letter, "arguments": ""}
        whole = (
            {**calls[0], "function": said} if index == 0 else {"index": calls[0]["index"], "function": said}
        )
        yield {**chunk, "choices": [{**chunk["choices"][0], "delta": {"tool_calls": [whole]}}]}
