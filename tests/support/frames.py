"""Frames of the two wires, written by hand: for tests of a single frame, or of what servers really send.

A whole answer of a step is told by `ModelServer.answer` itself.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def frame(type: str, **fields: Any) -> bytes:
    """One frame of the Responses wire."""
    data = json.dumps({"type": type, **fields}, separators=(",", ":"))
    return f"event: {type}\ndata: {data}\n\n".encode()


def response(
    output: Iterable[Any] = (), *, id: str = "resp_1", status: str = "completed", **more: Any
) -> dict[str, Any]:
    """A response object of the Responses wire."""
    usage = {
        "input_tokens": 3,
        "output_tokens": 5,
        "total_tokens": 8,
        "input_tokens_details": {"cached_tokens": 1, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 2},
    }
    return {
        "id": id,
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "m",
        "output": list(output),
        "tools": [],
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "usage": usage if status == "completed" else None,
        **more,
    }


def message(text: str, *, id: str = "msg_1") -> dict[str, Any]:
    part = {"type": "output_text", "text": text, "annotations": []}
    return {"type": "message", "id": id, "role": "assistant", "status": "completed", "content": [part]}


def call(name: str, arguments: str, *, call_id: str = "call_1", id: str = "fc_1") -> dict[str, Any]:
    return {
        "type": "function_call",
        "id": id,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
        "status": "completed",
    }


def responses_frames(*output: dict[str, Any], words: Sequence[str] | None = None, **more: Any) -> list[bytes]:
    """The frames by which the Responses wire streams messages (word by word) and calls."""
    kinds: list[tuple[str, dict[str, Any]]] = [
        ("response.created", {"response": response(status="in_progress", **more)}),
        ("response.in_progress", {"response": response(status="in_progress", **more)}),
    ]
    for index, item in enumerate(output):
        at = {"item_id": item["id"], "output_index": index}
        if item["type"] == "message":
            part = item["content"][0]
            added = {**item, "status": "in_progress", "content": []}
            kinds.append(("response.output_item.added", {"output_index": index, "item": added}))
            at["content_index"] = 0
            kinds.append(("response.content_part.added", {**at, "part": {**part, "text": ""}}))
            pieces = words or part["text"].split(" ")
            deltas = [w if i == 0 or words else f" {w}" for i, w in enumerate(pieces)]
            kinds.extend(("response.output_text.delta", {**at, "delta": d, "logprobs": []}) for d in deltas)
            kinds.append(("response.output_text.done", {**at, "text": part["text"], "logprobs": []}))
            kinds.append(("response.content_part.done", {**at, "part": part}))
        else:
            added = {**item, "status": "in_progress", "arguments": ""}
            kinds.append(("response.output_item.added", {"output_index": index, "item": added}))
            kinds.append(("response.function_call_arguments.delta", {**at, "delta": item["arguments"]}))
            done = {**at, "arguments": item["arguments"], "name": item["name"]}
            kinds.append(("response.function_call_arguments.done", done))
        kinds.append(("response.output_item.done", {"output_index": index, "item": item}))
    kinds.append(("response.completed", {"response": response(output, **more)}))
    return [frame(kind, **fields, sequence_number=n) for n, (kind, fields) in enumerate(kinds)]


def text_frames(text: str, **more: Any) -> list[bytes]:
    """The frames of an answer that is one message."""
    return responses_frames(message(text), **more)


def chunk(delta: Mapping[str, Any] | None = None, *, finish: str | None = None, **fields: Any) -> bytes:
    """One frame of the Chat Completions wire."""
    data: dict[str, Any] = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    data["choices"] = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return f"data: {json.dumps({**data, **fields}, separators=(',', ':'))}\n\n".encode()


CHAT_DONE = b"data: [DONE]\n\n"
CHAT_USAGE = {
    "prompt_tokens": 3,
    "completion_tokens": 5,
    "total_tokens": 8,
    "prompt_tokens_details": {"cached_tokens": 1},
    "completion_tokens_details": {"reasoning_tokens": 2},
}


def chat_frames(text: str) -> list[bytes]:
    """The frames by which the Chat Completions wire streams one message, word by word."""
    words = text.split(" ")
    return [
        chunk({"role": "assistant", "content": ""}),
        *(chunk({"content": w if i == 0 else f" {w}"}) for i, w in enumerate(words)),
        chunk({}, finish="stop"),
        chunk(usage=CHAT_USAGE),
        CHAT_DONE,
    ]
