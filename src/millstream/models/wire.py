"""The wire of a model's stream, without I/O: bytes of a `text/event-stream` in, JSON out.

Rules of this file:

1. The way of the many is paid for per read, not per frame: one split, one JSON scan and one
   check of the bytes for all frames that a read brought.
2. Whatever that way does not understand it refuses as a whole, and the frames of this one
   read are gone through line by line: other line ends, comments, fields that nobody asked
   for, data over several lines, JSON that is broken.
3. What comes out is one line of strict UTF-8 JSON a frame (`codec.is_clean`), as it came
   where it came so.
4. A broken frame costs nothing that came before it: `feed` gives the good frames, and
   `error` says what stopped it.
"""

from __future__ import annotations

import json
import re
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec

from millstream import codec
from millstream.errors import DecodeError, ModelProtocolError, ModelResponseError

T = TypeVar("T")

# Before the payload of a frame stand perhaps the event's name, and `data: `. The name `error`
# may be all that tells of a failure: such a frame is looked at by itself.
_BEFORE = rb"(?:event: (?!error\n)[^\n]*\n)?data: "
_HEAD = re.compile(_BEFORE)
_BETWEEN = re.compile(rb"\n\n" + _BEFORE)
_DONE = b"[DONE]"
_EXCERPT = 120


class Frames(NamedTuple, Generic[T]):
    """The frames of one read: their JSON, and what `decoder` made of each."""

    payloads: list[bytes]
    values: list[T]


class FrameReader(Generic[T]):
    """Reads the frames of one stream.

    Args:
        decoder: makes a value of each frame; it sees a JSON array of all frames of a read.

    Attributes:
        done: the server said `[DONE]`; what comes after it is not looked at.
        error: what is wrong with the frame after the last good one. Nothing is read after it.
        count: how many frames were read.
    """

    def __init__(self, decoder: msgspec.json.Decoder[list[T]]) -> None:
        self._decode = decoder.decode
        self._held: list[bytes] = []
        self._after_cr = False
        self.done = False
        self.error: ModelProtocolError | ModelResponseError | None = None
        self.count = 0

    def feed(self, data: bytes) -> Frames[T] | None:
        """Take the bytes of one read; give the frames that they complete, or None."""
        if b"\r" in data or self._after_cr:
            data = self._line_feeds(data)
        held = self._held
        cut = data.rfind(b"\n\n") + 2
        if cut == 1:
            # An empty line may lie across two reads.
            if not (held and data.startswith(b"\n") and held[-1].endswith(b"\n")):
                if data:
                    held.append(data)
                return None
            cut = 1
        block = data[:cut] if cut < len(data) else data
        if held:
            block = b"".join((*held, block))
            held.clear()
        if cut < len(data):
            held.append(data[cut:])
        return self._read(block)

    def finish(self) -> Frames[T] | None:
        """Give the frame that a server did not end with an empty line, if the stream ends in a whole one.

        What came instead of a stream may be the server's failure as one JSON document: then `error` is that.
        """
        rest = b"".join(self._held).rstrip(b"\n")
        self._held.clear()
        if not rest or self._is_over():
            return None
        if not self.count and rest.startswith(b"{"):
            self.error = _failure_of_document(rest)
            return None
        frames = self._read(rest + b"\n\n")
        # Half a frame is not the server's bad JSON: the connection was cut, and says so itself.
        if not isinstance(self.error, ModelResponseError):
            self.error = None
        return frames

    def _line_feeds(self, data: bytes) -> bytes:
        """`data` with every line ended by LF; a CR that ends a read takes the LF that begins the next."""
        if self._after_cr and data.startswith(b"\n"):
            data = data[1:]
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

    def _is_over(self) -> bool:
        return self.done or self.error is not None

    def _read(self, block: bytes) -> Frames[T] | None:
        if self._is_over():
            return None
        frames = self._read_at_once(block) or self._read_one_by_one(block)
        self.count += len(frames.payloads)
        return frames if frames.payloads else None

    def _read_at_once(self, block: bytes) -> Frames[T] | None:
        """The frames of `block`, or None if they are not all of the plainest form."""
        payloads = _payloads(block)
        if not payloads:
            return None
        done = payloads[-1] == _DONE
        if done:
            payloads.pop()
        joined = b",".join(payloads)
        # Anything between the frames that the split left in a payload holds a line feed
        # or breaks the JSON.
        if b"\n" in joined:
            return None
        try:
            values = self._decode(b"[%b]" % joined)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return None
        if len(values) != len(payloads):
            return None
        if not codec.is_clean(joined):
            if not _is_utf8(joined):
                return None
            payloads = [codec.clean(payload) for payload in payloads]
        self.done = done
        return Frames(payloads, values)

    def _read_one_by_one(self, block: bytes) -> Frames[T]:
        payloads: list[bytes] = []
        values: list[T] = []
        for frame in block.split(b"\n\n"):
            name, payload = _fields(frame)
            if payload == _DONE:
                self.done = True
                break
            if payload is None or not payload.strip():
                continue
            try:
                payload, value = self._one(name, payload)
            except (ModelProtocolError, ModelResponseError) as error:
                self.error = error
                break
            payloads.append(payload)
            values.append(value)
        return Frames(payloads, values)

    def _one(self, name: str, payload: bytes) -> tuple[bytes, T]:
        if name == "error" and not payload.lstrip().startswith(b"{"):
            raise response_error(payload.decode("utf-8", "replace"))
        payload, plain = strict_json(payload, "an event")
        if not isinstance(plain, dict):
            raise ModelProtocolError(
                f"The model's server sent an event that is no JSON object: {excerpt(payload)}"
            )
        values = cast("dict[str, Any]", plain)
        # The error event of the Responses API is an event: its reader knows it.
        failure = None if values.get("type") == "error" else failure_told(values, named=name == "error")
        if failure is not None:
            raise failure
        if "type" not in values and name:
            # Some servers name the event on its `event:` line only.
            payload = b'{"type":%b,%b' % (codec.encode(name), payload.lstrip()[1:])
        try:
            return payload, self._decode(b"[%b]" % payload)[0]
        except (msgspec.MsgspecError, RecursionError) as error:
            raise ModelProtocolError(
                f"The model's server sent an event of the wrong shape ({error}): {excerpt(payload)}"
            ) from None


def _payloads(block: bytes) -> list[bytes]:
    """The payloads of frames that begin as most do; none if the first one does not."""
    head = _HEAD.match(block)
    if head is None:
        return []
    rest = block[head.end() : -2]
    # Most reads bring events of one name: then nothing need be matched at each.
    payloads = rest.split(b"\n\n" + head[0])
    return _BETWEEN.split(rest) if b"\n" in b"".join(payloads) else payloads


def failure_told(values: dict[str, Any], *, named: bool = False) -> ModelResponseError | None:
    """The failure that a server sent in place of an event, a chunk or an answer; None if it sent one of those.

    The shapes in use are `{"error": {…}}`, `{"error": "…"}`, `{"message": "…"}`, and vLLM's
    `{"object": "error", "message": "…", "type": …}`; in a frame that is `named` an error, any object.
    """
    said = values.get("error") or (isinstance(values.get("message"), str) and "choices" not in values)
    if named or values.get("object") == "error" or (said and values.get("type") in (None, "error")):
        return response_error(values.get("error") or values)
    return None


def _failure_of_document(data: bytes) -> ModelResponseError | None:
    try:
        _, plain = strict_json(data, "a document")
    except ModelProtocolError:
        return None
    return failure_told(cast("dict[str, Any]", plain))


def response_error(error: Any) -> ModelResponseError:
    """The exception for an `error` object of a server, whose parts may be missing."""
    if not isinstance(error, dict):
        return ModelResponseError(f"The model's server reported a failure: {error}")
    values = cast("dict[str, Any]", error)
    code = values.get("code") or values.get("type")
    message = values.get("message") or values.get("detail") or "no reason given"
    told = f"{message} (code: {code})" if code else f"{message}"
    return ModelResponseError(
        f"The model's server reported a failure: {told}", error_code=None if code is None else str(code)
    )


def excerpt(data: bytes) -> str:
    """The beginning of `data`, for a message."""
    text = data[:_EXCERPT].decode("utf-8", "backslashreplace")
    return repr(text) + ("…" if len(data) > _EXCERPT else "")


def _fields(frame: bytes) -> tuple[str, bytes | None]:
    """The event's name and its data, as the specification of server-sent events reads a frame."""
    name = ""
    data: list[bytes] = []
    for line in frame.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
    return name, b"\n".join(data) if data else None


def strict_json(data: bytes, what: str) -> tuple[bytes, Any]:
    """`data` as strict JSON, and its value; `what` it is, for a message.

    Half a surrogate pair is no reason to give up an answer: it is made U+FFFD. Neither are
    NaN and infinities, which servers written in Python send: they are made null.

    Raises:
        ModelProtocolError: it is not UTF-8, or not JSON.
    """
    if not _is_utf8(data):
        raise ModelProtocolError(f"The model's server sent bytes that are not UTF-8: {excerpt(data)}")
    text = codec.clean(data)
    try:
        return text, codec.decode(text)
    except DecodeError as error:
        try:
            text = codec.encode(json.loads(text, parse_constant=lambda _: None))
        except (ValueError, RecursionError):
            raise ModelProtocolError(
                f"The model's server sent {what} that is not JSON: {excerpt(data)} ({error})"
            ) from None
        return text, codec.decode(text)


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
