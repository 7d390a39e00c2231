"""The stream of Chat Completions as the events of the Responses API, without I/O.

Rules of this file:

1. Chunks in, events out as clean JSON. What the server told of one response is one response
   object; `sequence_number` counts its events from 0.
2. An item begins with its first piece. Reasoning ends where anything else begins; messages
   and calls end with the answer, because servers may still add to them until then.
3. A whole answer is a stream of one chunk: both ways give the same items.
4. Every item has an id of its own, made up here, and `provider_data`, by which the Responses
   wire knows that the id means nothing to its server. What a server wants back unread, such
   as the signature of a thought, is in it too.
"""

from __future__ import annotations

import uuid
from typing import Any, cast

import msgspec

from millstream import codec, raw
from millstream.errors import DecodeError, ModelProtocolError
from millstream.items import ModelResponse
from millstream.models.promise import RawBatch
from millstream.models.wire import excerpt, response_error, strict_json
from millstream.usage import Usage

# --- what is read of a chunk ------------------------------------------------------------------


class _Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None
    extra_content: Any = None


class Delta(msgspec.Struct, gc=False):
    """A piece of an answer, or a whole one."""

    content: str | list[Any] | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    thinking: Any = None
    thinking_blocks: list[Any] | None = None
    refusal: str | None = None
    tool_calls: list[_Call] | None = None


class Choice(msgspec.Struct, gc=False):
    """What one of the answers asked for has come to; `message` where the answer is whole."""

    index: int = 0
    delta: Delta | None = None
    message: Delta | None = None
    finish_reason: str | None = None
    logprobs: Any = None


class Chunk(msgspec.Struct, gc=False):
    """One chunk of a stream, or the whole answer."""

    id: str | None = None
    choices: list[Choice] | None = None
    usage: Any = None
    error: Any = None
    message: Any = None
    """Of a failure that has no `error` around it: an answer has messages in its choices only."""
    code: Any = None


chunks = msgspec.json.Decoder(list[Chunk])
_whole = msgspec.json.Decoder(Chunk)


def chunk_of(data: bytes) -> Chunk:
    """The chunk, or whole answer, that `data` is as JSON.

    Raises:
        ModelProtocolError: it is none.
    """
    try:
        if codec.is_clean(data):
            return _whole.decode(data)
    except (msgspec.MsgspecError, RecursionError):  # what is wrong with it is found out slowly
        pass
    text, _ = strict_json(data, "a chat completion")
    try:
        return _whole.decode(text)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise ModelProtocolError(
            f"The model's server sent no chat completion ({error}): {excerpt(data)}"
        ) from None


# --- items --------------------------------------------------------------------------------------


class _Item:
    """An output item that has begun."""

    def __init__(self, id: str, index: int) -> None:
        self.id = id
        self.index = index
        self.at: dict[str, Any] = {"item_id": id, "output_index": index}

    def note(self) -> dict[str, Any]:
        """What its server wants back with it, unread."""
        return {}


class _Reasoning(_Item):
    """What the model thinks: a summary, or the text itself, by the field that the server uses."""

    def __init__(self, id: str, index: int, *, as_summary: bool) -> None:
        super().__init__(id, index)
        self.as_summary = as_summary
        self.text: list[str] = []
        self.blocks: list[dict[str, Any]] = []

    def item(self, status: str) -> dict[str, Any]:
        text = "".join(self.text)
        parts = [{"type": "summary_text" if self.as_summary else "reasoning_text", "text": text}]
        return {
            "id": self.id,
            "type": "reasoning",
            **({"summary": parts} if self.as_summary else {"summary": [], "content": parts}),
        }

    def note(self) -> dict[str, Any]:
        return {"thinking_blocks": self.blocks} if self.blocks else {}

    def add_block(self, piece: dict[str, Any]) -> None:
        """A piece of a signed thought: it is whole with its signature, or where it is redacted."""
        last = self.blocks[-1] if self.blocks else {}
        if last.get("signature") or not last.get("type") == piece.get("type") == "thinking":
            self.blocks.append({name: value for name, value in piece.items() if value is not None})
            return
        last["thinking"] = last.get("thinking", "") + (piece.get("thinking") or "")
        if piece.get("signature"):
            last["signature"] = piece["signature"]


class _Part:
    """Text or a refusal, as part of a message."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.text: list[str] = []
        self.logprobs: list[Any] = []
        self.head = b""

    def part(self) -> dict[str, Any]:
        text = "".join(self.text)
        if self.kind == "refusal":
            return {"type": "refusal", "refusal": text}
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": self.logprobs}


class _Message(_Item):
    def __init__(self, id: str, index: int) -> None:
        super().__init__(id, index)
        self.parts: dict[str, _Part] = {}

    def item(self, status: str) -> dict[str, Any]:
        content = [part.part() for part in self.parts.values()]
        return {"id": self.id, "type": "message", "role": "assistant", "status": status, "content": content}


class _FunctionCall(_Item):
    def __init__(self, id: str, index: int, call_id: str, name: str) -> None:
        super().__init__(id, index)
        self.call_id = call_id
        self.name = name
        self.arguments: list[str] = []
        self.extra_content: Any = None

    def note(self) -> dict[str, Any]:
        return {"extra_content": self.extra_content} if self.extra_content else {}

    def item(self, status: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "type": "function_call",
            "call_id": self.call_id,
            "name": self.name,
            "arguments": "".join(self.arguments),
            "status": status,
        }


# --- the fold -----------------------------------------------------------------------------------

_CUT_SHORT = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ChatStream:
    """Turns the chunks of one answer into the events of one response.

    Args:
        model: what the response says its model is.
        uid: makes ids unique; random if left out.
        created: when the response was made, in seconds since the epoch.

    Attributes:
        error: the failure that the server reported in place of a chunk. Nothing follows it.
        finished: a chunk said why the answer ends.
    """

    def __init__(self, model: str, *, uid: str | None = None, created: float = 0) -> None:
        self.error: Exception | None = None
        self.finished = False
        self._model = model
        self._uid = uid or uuid.uuid4().hex
        self._created = int(created)
        self._id: str | None = None
        self._reason: str | None = None
        self._usage: Any = None
        self._sequence = 0
        self._items: list[_Reasoning | _Message | _FunctionCall] = []
        self._thought: _Reasoning | None = None
        self._message: _Message | None = None
        self._text: _Part | None = None
        self._calls: dict[int, _FunctionCall] = {}
        self._unnamed: dict[int, tuple[str | None, list[str]]] = {}
        self._index = 0
        self._chosen = False
        self._events: list[Any] = []
        self._types: list[str] = []

    def feed(self, chunks: list[Chunk]) -> RawBatch:
        """Take the chunks of one read; give the events that they mean."""
        for chunk in chunks:
            if chunk.error or (chunk.message and not chunk.choices):
                self.error = response_error(chunk.error or {"message": chunk.message, "code": chunk.code})
                break
            if self._id is None:
                self._begin(chunk.id)
            if chunk.usage:
                self._usage = chunk.usage
            for choice in chunk.choices or ():
                if choice.index == 0:
                    self._take(choice)
        return self._batch()

    def finish(self) -> RawBatch:
        """End the items that are open, and the response.

        Raises:
            ModelProtocolError: the server never named a tool that it called, or sent no choice at all.
        """
        if not self._chosen:
            raise ModelProtocolError("The model's server sent an answer without choices.")
        if self._unnamed:
            raise ModelProtocolError("The model's server sent a tool call without the name of a tool.")
        if self._id is None:
            self._begin(None)
        self._end_thought()
        why = _CUT_SHORT.get(self._reason or "")
        status = "incomplete" if why else "completed"
        for item in self._items:
            if isinstance(item, _Message):
                self._end_message(item, status)
            elif isinstance(item, _FunctionCall):
                self._end_call(item, status)
        self._emit(f"response.{status}", response=self.response())
        return self._batch()

    def response(self) -> dict[str, Any]:
        """The response as far as it has come: whole after `finish`."""
        why = _CUT_SHORT.get(self._reason or "")
        status = "incomplete" if why else "completed" if self.finished else "in_progress"
        return {
            "id": self._id or f"resp_{self._uid}",
            "object": "response",
            "created_at": self._created,
            "model": self._model,
            "status": status,
            "incomplete_details": {"reason": why} if why else None,
            "output": [self._done(item, "incomplete" if why else "completed") for item in self._items],
            "tools": [],
            "tool_choice": "auto",
            "parallel_tool_calls": True,
            "usage": _usage(self._usage),
        }

    # --- pieces ---

    def _take(self, choice: Choice) -> None:
        self._chosen = True
        delta = choice.delta or choice.message
        if delta is not None:
            thought = (
                delta.reasoning_content or delta.reasoning or (delta.thinking and _text_of(delta.thinking))
            )
            if thought:
                self._think(thought, as_summary=bool(delta.reasoning_content))
            for block in delta.thinking_blocks or ():
                if isinstance(block, dict):
                    (self._thought or self._begin_thought(True)).add_block(cast("dict[str, Any]", block))
            content = delta.content
            if content:
                if type(content) is str and choice.logprobs is None:
                    self._say(content)
                else:
                    self._say_parts(content, choice.logprobs)
            if delta.refusal:
                self._refuse(delta.refusal)
            for place, call in enumerate(delta.tool_calls or ()):
                if delta is choice.message:
                    call.index = place  # they are all there: each is one
                self._call(call)
        if choice.finish_reason:
            self.finished = True
            self._reason = choice.finish_reason

    def _say(self, text: str) -> None:
        part = self._text or self._begin_text()
        part.text.append(text)
        self._events.append(
            b'%b%b,"logprobs":[],"sequence_number":%d}' % (part.head, _json(text), self._sequence)
        )
        self._types.append("response.output_text.delta")
        self._sequence += 1

    def _begin_text(self) -> _Part:
        self._end_thought()
        part = self._text = self._begin_part("output_text")
        at = {"type": "response.output_text.delta", **self._at(part)}
        # All of a delta but its text is the same each time.
        part.head = codec.encode(at)[:-1] + b',"delta":'
        return part

    def _say_parts(self, content: str | list[Any], logprobs: Any) -> None:
        """Text with its probabilities, or in the parts that some servers send instead of text."""
        for piece in [content] if isinstance(content, str) else content:
            thought = cast("dict[str, Any]", piece).get("thinking") if isinstance(piece, dict) else None
            if thought:
                self._think(_text_of(thought), as_summary=False)
                continue
            text = _text_of(piece)
            if not text:
                continue
            part = self._text or self._begin_text()
            part.text.append(text)
            known = _logprobs(logprobs)
            part.logprobs.extend(known)
            self._emit("response.output_text.delta", **self._at(part), delta=text, logprobs=known)

    def _refuse(self, text: str) -> None:
        self._end_thought()
        part = self._message.parts.get("refusal") if self._message else None
        part = part or self._begin_part("refusal")
        part.text.append(text)
        self._emit("response.refusal.delta", **self._at(part), delta=text)

    def _think(self, text: str, *, as_summary: bool) -> None:
        if self._thought is not None and self._thought.as_summary is not as_summary:
            self._end_thought()
        item = self._thought or self._begin_thought(as_summary)
        item.text.append(text)
        if as_summary:
            self._emit("response.reasoning_summary_text.delta", **item.at, summary_index=0, delta=text)
        else:
            self._emit("response.reasoning_text.delta", **item.at, content_index=0, delta=text)

    def _call(self, call: _Call) -> None:
        function = call.function or _Function()
        index = self._index = self._index_of(call)
        open_call = self._calls.get(index)
        piece = _arguments(function.arguments)
        if open_call is None:
            # A call is known by its name; what comes before it waits.
            call_id, early = self._unnamed.pop(index, (None, []))
            if not function.name:
                self._unnamed[index] = (call.id or call_id, [*early, piece])
                return
            open_call = self._begin_call(index, call.id or call_id, function.name)
            piece = "".join(early) + piece
        elif function.name and not open_call.arguments and function.name != open_call.name:
            open_call.name += function.name  # in pieces; who repeats it whole repeats what is known
        if call.extra_content:
            open_call.extra_content = call.extra_content
        if piece:
            open_call.arguments.append(piece)
            self._emit("response.function_call_arguments.delta", **open_call.at, delta=piece)

    def _index_of(self, call: _Call) -> int:
        """Which call a piece belongs to: some servers leave out the index, some send 0 for all."""
        index = self._index if call.index is None else call.index
        known = self._calls.get(index)
        if known is None or not _begins_another(known, call):
            return index
        if call.index is not None:
            # What comes with this index from now on belongs to the new call.
            del self._calls[index]
            return index
        return max(self._calls) + 1

    # --- beginnings ---

    def _begin(self, id: str | None) -> None:
        self._id = id or f"resp_{self._uid}"
        self._emit("response.created", response=self.response())

    def _begin_thought(self, as_summary: bool) -> _Reasoning:
        item = self._thought = _Reasoning(
            f"rs_{self._uid}_{len(self._items)}", len(self._items), as_summary=as_summary
        )
        added: dict[str, Any] = {**item.item("in_progress"), "summary": []}
        self._items.append(item)
        self._emit("response.output_item.added", output_index=item.index, item=self._noted(added))
        if as_summary:
            part = {"type": "summary_text", "text": ""}
            self._emit("response.reasoning_summary_part.added", **item.at, summary_index=0, part=part)
        return item

    def _begin_part(self, kind: str) -> _Part:
        message = self._message
        if message is None:
            message = self._message = _Message(f"msg_{self._uid}_{len(self._items)}", len(self._items))
            added = self._noted(message.item("in_progress"))
            self._items.append(message)
            self._emit("response.output_item.added", output_index=message.index, item=added)
        part = message.parts[kind] = _Part(kind)
        self._emit("response.content_part.added", **self._at(part), part=part.part())
        return part

    def _begin_call(self, index: int, call_id: str | None, name: str) -> _FunctionCall:
        self._end_thought()
        position = len(self._items)
        item = _FunctionCall(
            f"fc_{self._uid}_{position}", position, call_id or f"call_{self._uid}_{position}", name
        )
        added = self._noted(item.item("in_progress"))
        self._items.append(item)
        self._calls[index] = item
        self._emit("response.output_item.added", output_index=item.index, item=added)
        return item

    def _at(self, part: _Part) -> dict[str, Any]:
        message = self._message
        assert message is not None, "a part has its message"
        return {**message.at, "content_index": list(message.parts).index(part.kind)}

    # --- ends ---

    def _end_thought(self) -> None:
        item, self._thought = self._thought, None
        if item is None:
            return
        text = "".join(item.text)
        if item.as_summary:
            part = {"type": "summary_text", "text": text}
            self._emit("response.reasoning_summary_text.done", **item.at, summary_index=0, text=text)
            self._emit("response.reasoning_summary_part.done", **item.at, summary_index=0, part=part)
        else:
            self._emit("response.reasoning_text.done", **item.at, content_index=0, text=text)
        self._emit("response.output_item.done", output_index=item.index, item=self._done(item, "completed"))

    def _end_message(self, item: _Message, status: str) -> None:
        for part in item.parts.values():
            at, whole = self._at(part), part.part()
            if part.kind == "refusal":
                self._emit("response.refusal.done", **at, refusal=whole["refusal"])
            else:
                self._emit("response.output_text.done", **at, text=whole["text"], logprobs=part.logprobs)
            self._emit("response.content_part.done", **at, part=whole)
        self._emit("response.output_item.done", output_index=item.index, item=self._done(item, status))

    def _end_call(self, item: _FunctionCall, status: str) -> None:
        arguments = "".join(item.arguments)
        self._emit("response.function_call_arguments.done", **item.at, name=item.name, arguments=arguments)
        self._emit("response.output_item.done", output_index=item.index, item=self._done(item, status))

    # --- events ---

    def _done(self, item: _Reasoning | _Message | _FunctionCall, status: str) -> dict[str, Any]:
        return self._noted(item.item(status), **item.note())

    def _noted(self, item: dict[str, Any], **note: Any) -> dict[str, Any]:
        return {**item, "provider_data": {"model": self._model, "response_id": self._id, **note}}

    def _emit(self, type: str, **fields: Any) -> None:
        self._events.append(codec.encode({"type": type, **fields, "sequence_number": self._sequence}))
        self._types.append(type)
        self._sequence += 1

    def _batch(self) -> RawBatch:
        batch = RawBatch(self._events, self._types)
        self._events, self._types = [], []
        return batch


def whole_response(
    model: str, data: bytes, *, request_id: str | None = None, keep_raw_usage: bool = False
) -> ModelResponse:
    """The response that a whole answer is, by the same fold as a stream.

    Raises:
        ModelResponseError: the server reported that it failed.
        ModelProtocolError: the answer is not a chat completion.
    """
    chunk = chunk_of(data)
    fold = ChatStream(model)
    fold.feed([chunk])
    if fold.error is not None:
        raise fold.error
    if not chunk.choices:
        raise ModelProtocolError(
            f"The model's server sent a chat completion without choices: {excerpt(data)}"
        )
    fold.finish()
    from openai.types.responses import Response

    response: Any = raw.build(Response, fold.response())
    return ModelResponse(
        output=response.output,
        usage=Usage.from_response(response.usage),
        response_id=response.id,
        request_id=request_id,
        raw_usage=chunk.usage if keep_raw_usage else None,
    )


_encode = msgspec.json.Encoder().encode


def _json(text: str) -> bytes:
    data = _encode(text)
    return data if text.isascii() else codec.clean(data)


def _begins_another(known: _FunctionCall, call: _Call) -> bool:
    """Whether a piece that seems to belong to a known call begins the next one."""
    if call.function is None or not call.function.name:
        return False
    if call.id:
        return call.id != known.call_id
    # By their ids nobody could tell them apart: what is named behind a call that is whole is new.
    return _is_object("".join(known.arguments))


def _is_object(text: str) -> bool:
    try:
        return isinstance(codec.decode(text.encode()), dict)
    except (DecodeError, UnicodeError):
        return False


def _arguments(piece: Any) -> str:
    """Arguments are JSON text; some servers send the object itself."""
    if piece is None or isinstance(piece, str):
        return piece or ""
    return codec.encode(piece).decode()


def _text_of(piece: Any) -> str:
    if isinstance(piece, str):
        return piece
    if isinstance(piece, list):
        return "".join(map(_text_of, cast("list[Any]", piece)))
    text = cast("dict[str, Any]", piece).get("text") if isinstance(piece, dict) else None
    return text if isinstance(text, str) else ""


def _logprobs(logprobs: Any) -> list[dict[str, Any]]:
    tokens = cast("dict[str, Any]", logprobs).get("content") if isinstance(logprobs, dict) else None
    return [
        {**_token(token), "top_logprobs": [_token(t) for t in _objects(token.get("top_logprobs"))]}
        for token in _objects(tokens)
    ]


def _token(token: dict[str, Any]) -> dict[str, Any]:
    return {"token": token.get("token", ""), "logprob": token.get("logprob", 0.0)}


def _objects(values: Any) -> list[dict[str, Any]]:
    listed = cast("list[Any]", values) if isinstance(values, list) else []
    return [value for value in listed if isinstance(value, dict)]


def _usage(usage: Any) -> dict[str, Any] | None:
    """The tokens of a Chat answer as the Responses API counts them."""
    if not isinstance(usage, dict):
        return None
    said = cast("dict[str, Any]", usage)
    read, written = said.get("prompt_tokens_details"), said.get("completion_tokens_details")
    prompt, completion = _count(said, "prompt_tokens"), _count(said, "completion_tokens")
    if not prompt and not completion:
        return None  # some servers send zeros in place of nothing
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": _count(read, "cached_tokens"),
            "cache_write_tokens": _count(read, "cache_write_tokens"),
        },
        "output_tokens": completion,
        "output_tokens_details": {"reasoning_tokens": _count(written, "reasoning_tokens")},
        "total_tokens": _count(said, "total_tokens") or prompt + completion,
    }


def _count(holder: Any, name: str) -> int:
    value = cast("dict[str, Any]", holder).get(name) if isinstance(holder, dict) else None
    return value if isinstance(value, int) else 0
