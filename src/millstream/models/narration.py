"""The natural sequence of events in which a server of the Responses API tells an answer. Pure: no I/O."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from millstream import codec, raw

if TYPE_CHECKING:
    from millstream.models.script import ModelStep
    from millstream.usage import Usage

MODEL_NAME = "scripted-model"
"""The name that the events have for the model."""

_WORD = re.compile(r"\s*\S+|\s+")
_ARGUMENTS_CHUNK = 8

_Told: TypeAlias = "tuple[str, bytes]"
"""An event's type and its JSON."""


def narrated(step: ModelStep, *, chunk_size: int | None = None) -> Iterator[_Told]:
    """The natural events of a step's answer, in order: the type of each, and its JSON."""
    return _Narrator(step, functools.partial(pieces, size=chunk_size)).events()


def pieces(text: str, size: int | None = None, *, words: bool = True) -> Iterable[str]:
    """`text` cut into deltas of `size` characters, by default words; joined, they are `text` again."""
    if size is None and words:
        return _WORD.findall(text)
    size = size or _ARGUMENTS_CHUNK  # arguments have few spaces to cut at
    return [text[i : i + size] for i in range(0, len(text), size)]


class _Narrator:
    """Tells one answer as the Responses API does, event by event, as wire JSON."""

    def __init__(self, step: ModelStep, pieces: Callable[..., Iterable[str]]) -> None:
        self._step = step
        self._pieces = pieces
        self._sequence_number = 0
        self._items = [cast("dict[str, Any]", _plain(item)) for item in step.output]

    def events(self) -> Iterator[_Told]:
        """All events of the answer, in order."""
        yield self._event("response.created", response=self._response("in_progress"))
        yield self._event("response.in_progress", response=self._response("in_progress"))
        for index, item in enumerate(self._items):
            yield from self._item(index, item)
        yield self._event("response.completed", response=self._response("completed"))

    def _event(self, kind: str, /, **values: Any) -> _Told:
        data = codec.encode({"type": kind, "sequence_number": self._sequence_number, **values})
        self._sequence_number += 1
        return kind, data

    def _response(self, status: str) -> dict[str, Any]:
        done = status == "completed"
        return {
            "id": self._step.response_id,
            "created_at": 0,
            "model": MODEL_NAME,
            "object": "response",
            "output": self._items if done else [],
            "parallel_tool_calls": False,
            "tool_choice": "none",
            "tools": [],
            "top_p": None,
            "status": status,
            "usage": _wire_usage(self._step.usage) if done else None,
        }

    def _item(self, index: int, item: dict[str, Any]) -> Iterator[_Told]:
        kind = item.get("type")
        at = {"item_id": item.get("id") or item.get("call_id") or f"item_{index}", "output_index": index}
        filled_later: dict[str, Any] = {"content": [], "summary": [], "arguments": ""}
        filled_later["encrypted_content"] = None
        started = {name: filled_later.get(name, value) for name, value in item.items()}
        if kind in ("message", "function_call", "reasoning"):
            started["status"] = "in_progress"
        yield self._event("response.output_item.added", output_index=index, item=started)
        if kind == "message":
            yield from self._parts(at, item.get("content") or [])
        elif kind == "function_call":
            yield from self._arguments(at, item)
        elif kind == "reasoning":
            yield from self._reasoning(at, item)
        yield self._event("response.output_item.done", output_index=index, item=item)

    def _parts(self, at: dict[str, Any], parts: list[dict[str, Any]]) -> Iterator[_Told]:
        for index, part in enumerate(parts):
            here = {**at, "content_index": index}
            field_name = "refusal" if part["type"] == "refusal" else "text"
            text = part.get(field_name) or ""
            empty = {**part, field_name: ""}
            yield self._event("response.content_part.added", **here, part=empty)
            if field_name == "refusal":
                yield from self._deltas("response.refusal", here, text)
                yield self._event("response.refusal.done", **here, refusal=text)
            else:
                yield from self._deltas("response.output_text", {**here, "logprobs": []}, text)
                yield self._event("response.output_text.done", **here, text=text, logprobs=[])
            yield self._event("response.content_part.done", **here, part=part)

    def _arguments(self, at: dict[str, Any], item: dict[str, Any]) -> Iterator[_Told]:
        arguments = item.get("arguments") or ""
        yield from self._deltas("response.function_call_arguments", at, arguments, words=False)
        yield self._event(
            "response.function_call_arguments.done", **at, arguments=arguments, name=item.get("name")
        )

    def _reasoning(self, at: dict[str, Any], item: dict[str, Any]) -> Iterator[_Told]:
        for index, part in enumerate(item.get("summary") or []):
            here = {**at, "summary_index": index}
            text = part.get("text") or ""
            yield self._event("response.reasoning_summary_part.added", **here, part={**part, "text": ""})
            yield from self._deltas("response.reasoning_summary_text", here, text)
            yield self._event("response.reasoning_summary_text.done", **here, text=text)
            yield self._event("response.reasoning_summary_part.done", **here, part=part)
        for index, part in enumerate(item.get("content") or []):
            here = {**at, "content_index": index}
            text = part.get("text") or ""
            yield from self._deltas("response.reasoning_text", here, text)
            yield self._event("response.reasoning_text.done", **here, text=text)

    def _deltas(self, family: str, here: dict[str, Any], text: str, *, words: bool = True) -> Iterator[_Told]:
        # What all deltas of one text share is encoded once, as there may be many.
        kind = f"{family}.delta"
        head = codec.encode({"type": kind, **here})[:-1]
        for piece in self._pieces(text, words=words):
            yield (
                kind,
                b'%b,"sequence_number":%d,"delta":%b}' % (head, self._sequence_number, codec.encode(piece)),
            )
            self._sequence_number += 1


def _plain(item: Any) -> Any:
    return codec.decode(raw.encode(item))


def _wire_usage(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": usage.input_tokens_details,
        "output_tokens": usage.output_tokens,
        "output_tokens_details": usage.output_tokens_details,
        "total_tokens": usage.total_tokens,
    }
