"""What a step of a script is on the wires that model servers speak: JSON objects, and their frames.

Pure: no I/O. The Responses wire is told by the scripted model itself; Chat Completions is told
here, as OpenAI's own servers tell it, with reasoning in the field that others have for it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from millstream import codec, raw
from millstream.errors import UserError
from millstream.models.narration import MODEL_NAME, narrated, pieces
from millstream.models.script import ModelStep

Json: TypeAlias = dict[str, Any]
Wire: TypeAlias = Literal["responses", "chat"]
"""`POST /v1/responses` or `POST /v1/chat/completions`."""


@dataclass(frozen=True, slots=True)
class Talk:
    """How an answer was asked for.

    Attributes:
        wire: which of the two APIs.
        streamed: as a stream of events, or as one JSON document.
        usage: a stream of Chat Completions tells its usage only where it is asked to.
    """

    wire: Wire
    streamed: bool = True
    usage: bool = True


def objects(step: ModelStep, talk: Talk) -> list[Json]:
    """What is said, in order: the events of a stream, its chunks, or the one document of a whole answer.

    Raises:
        UserError: the step holds what cannot be said over this wire.
    """
    told = [cast("Json", codec.decode(event)) for _, event in narrated(step)]
    response = told[-1]["response"]
    if talk.wire == "responses":
        if talk.streamed and step.stream_events is not None:
            return _given(step.stream_events)
        return told if talk.streamed else [response]
    if step.stream_events is not None:
        raise UserError("A step with `stream_events` is for the Responses wire: Chat Completions has others.")
    return list(_chunks(response, talk.usage)) if talk.streamed else [_completion(response)]


def _given(events: Any) -> list[Json]:
    if callable(events):
        raise UserError(
            "A model server takes `stream_events` as a list, not as a function of a model's call."
        )
    return [
        codec.decode(event if isinstance(event, bytes) else raw.encode(event))
        for event in cast("Iterable[Any]", events)
    ]


def frames(said: list[Json], wire: Wire) -> list[bytes]:
    """The frames of a stream, `[DONE]` included where the wire has it."""
    if wire == "responses":
        return [_name(event) + b"data: %b\n\n" % text(event) for event in said]
    return [*(b"data: %b\n\n" % text(chunk) for chunk in said), b"data: [DONE]\n\n"]


def _name(event: Json) -> bytes:
    return b"event: %b\n" % str(event["type"]).encode() if "type" in event else b""


def text(value: Any) -> bytes:
    """`value` as JSON in UTF-8; NaN and half surrogate pairs go out as Python writes them."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


# --- Chat Completions -------------------------------------------------------------------------


def _chunks(response: Json, usage: bool) -> Iterator[Json]:
    yield _chunk(response, {"role": "assistant", "content": ""})
    calls = 0
    for item in response["output"]:
        if item["type"] == "function_call":
            for delta in _call_deltas(item, calls):
                yield _chunk(response, delta)
            calls += 1
        else:
            for field, said in _texts(item):
                for word in pieces(said):
                    yield _chunk(response, {field: word})
    yield _chunk(response, {}, finish="tool_calls" if calls else "stop")
    if usage:
        yield {**_head(response, "chat.completion.chunk"), "choices": [], "usage": _usage(response)}


def _completion(response: Json) -> Json:
    message: Json = {"role": "assistant", "content": None}
    for item in response["output"]:
        if item["type"] == "function_call":
            message.setdefault("tool_calls", []).append(_call(item))
        else:
            for field, said in _texts(item):
                message[field] = (message.get(field) or "") + said
    finish = "tool_calls" if "tool_calls" in message else "stop"
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish}
    return {**_head(response, "chat.completion"), "choices": [choice], "usage": _usage(response)}


def _texts(item: Json) -> Iterator[tuple[str, str]]:
    """The texts of an item, each with its field in a message of Chat Completions."""
    if item["type"] == "message":
        for part in item["content"]:
            field = "refusal" if part["type"] == "refusal" else "content"
            yield field, part["refusal" if field == "refusal" else "text"]
    elif item["type"] == "reasoning":
        for part in [*item.get("summary", ()), *(item.get("content") or ())]:
            yield "reasoning_content", part["text"]
    else:
        raise UserError(f"Chat Completions has no words for an output item of type {item['type']!r}.")


def _call_deltas(item: Json, index: int) -> Iterator[Json]:
    arguments: str = item["arguments"]
    yield {"tool_calls": [{"index": index, **_call({**item, "arguments": ""})}]}
    for piece in pieces(arguments, words=False):
        yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def _call(item: Json) -> Json:
    function = {"name": item["name"], "arguments": item["arguments"]}
    return {"id": item["call_id"], "type": "function", "function": function}


def _chunk(response: Json, delta: Json, *, finish: str | None = None) -> Json:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return {**_head(response, "chat.completion.chunk"), "choices": [choice]}


def _head(response: Json, kind: str) -> Json:
    return {"id": response["id"], "object": kind, "created": 0, "model": MODEL_NAME}


def _usage(response: Json) -> Json:
    usage = response["usage"]
    return {
        "prompt_tokens": usage["input_tokens"],
        "completion_tokens": usage["output_tokens"],
        "total_tokens": usage["total_tokens"],
        "prompt_tokens_details": usage["input_tokens_details"],
        "completion_tokens_details": usage["output_tokens_details"],
    }
