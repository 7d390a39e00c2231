"""Input items of the Responses API as messages of Chat Completions, without I/O.

Rules of this file:

1. An assistant's text and the calls that stand beside it are one message, and the outputs of
   the calls follow it at once: servers refuse any other order.
2. Outputs of tools carry text only, on this wire. Images and files of an output go into a
   message of the user behind the outputs, which names the call.
3. Nothing is dropped in silence except reasoning, which is of use only to the model that
   thought it; what cannot be said on this wire is an `InputItemError` that names the item.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from millstream.errors import InputItemError
from millstream.models.request import item_type


@dataclass
class ReasoningContentSource:
    """A reasoning item that may be sent back to a model."""

    item: Any
    origin_model: str | None
    """The model that thought it, where that is known."""
    provider_data: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass
class ReasoningContentReplayContext:
    """What is to decide whether a reasoning item is sent back: who asks, and what it is."""

    model: str
    base_url: str | None
    reasoning: ReasoningContentSource


ShouldReplayReasoningContent = Callable[[ReasoningContentReplayContext], bool]


def replay_to_deepseek(context: ReasoningContentReplayContext) -> bool:
    """Send reasoning back to DeepSeek's models only, which ask for it, and only what they thought."""
    origin = context.reasoning.origin_model
    return "deepseek" in context.model.lower() and (origin is None or "deepseek" in origin.lower())


def is_replayed(
    decide: ShouldReplayReasoningContent, model: str, base_url: str | None, item: Mapping[str, Any]
) -> bool:
    """What `decide` says of a reasoning item, before it is sent to `model`."""
    data = cast("Mapping[str, Any]", item.get("provider_data") or {})
    source = ReasoningContentSource(item, data.get("model"), data)
    return decide(ReasoningContentReplayContext(model, base_url, source))


def messages(
    instructions: str | None,
    items: list[dict[str, Any]],
    *,
    replays: Callable[[dict[str, Any]], bool] = lambda _: False,
    model: str | None = None,
) -> list[dict[str, Any]]:
    """The messages that say what `instructions` and `items` say.

    Args:
        instructions: the system message.
        items: input items, as `plain_items` gives them.
        replays: whether a reasoning item goes along with the message or call behind it.
        model: who is asked. What only the model that said it can read, such as signed
            thoughts, goes back to that model and its family.

    Raises:
        InputItemError: an item that this wire has no words for.
    """
    thread = _Thread(instructions, model)
    for index, item in enumerate(items):
        kind = item_type(item, index)
        if kind == "message":
            _message(thread, item, index)
        elif kind == "function_call":
            thread.call(item)
        elif kind == "function_call_output":
            _output(thread, item, index)
        elif kind == "reasoning":
            thread.think(item, _thought(item) if replays(item) else None)
        else:
            raise InputItemError(
                f"Input item {index} is of type {kind!r}, which Chat Completions has no message for. "
                "Use the Responses API (OpenAIResponsesModel), or leave the item out of the input."
            )
    thread.close()
    return thread.messages


class _Thread:
    def __init__(self, instructions: str | None, model: str | None) -> None:
        self.messages: list[dict[str, Any]] = []
        if instructions:
            self.messages.append({"role": "system", "content": instructions})
        self._model = model
        self._thought: str | None = None
        self._blocks: list[Any] = []
        self._assistant: dict[str, Any] | None = None
        self._attached: list[dict[str, Any]] = []

    def say(self, message: dict[str, Any]) -> None:
        """A message that is not the assistant's."""
        self.close()
        self._thought, self._blocks = None, []  # it led to nothing
        self.messages.append(message)

    def think(self, item: Mapping[str, Any], thought: str | None) -> None:
        """What the assistant thought before it says or calls something."""
        self._thought = thought
        self._blocks += self._own(item).get("thinking_blocks") or ()

    def answer(self, message: dict[str, Any]) -> None:
        """What the assistant said, to which calls may still be added."""
        open_calls = self._assistant
        if open_calls is not None and open_calls["content"] is None and "refusal" not in open_calls:
            # Called first and spoke then, in one response: one message on this wire.
            open_calls.update({k: v for k, v in message.items() if v is not None})
            return
        self.close()
        self._assistant = self._with_thought(message)

    def call(self, item: Mapping[str, Any]) -> None:
        if self._assistant is None:
            self._flush_attached()
            self._assistant = self._with_thought({"role": "assistant", "content": None})
        function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
        call = {"id": item.get("call_id") or item.get("id"), "type": "function", "function": function}
        extra = self._own(item).get("extra_content")
        self._assistant.setdefault("tool_calls", []).append(
            call | ({"extra_content": extra} if extra else {})
        )

    def output(self, call_id: Any, content: Any, attached: list[dict[str, Any]]) -> None:
        self._close_assistant()
        self.messages.append({"role": "tool", "tool_call_id": call_id, "content": content})
        if attached:
            self._attached += [{"type": "text", "text": f"[output of tool call {call_id}]"}, *attached]

    def close(self) -> None:
        self._close_assistant()
        self._flush_attached()

    def _with_thought(self, message: dict[str, Any]) -> dict[str, Any]:
        if self._thought is not None:
            message = {**message, "reasoning_content": self._thought}
        if self._blocks:
            message = {**message, "thinking_blocks": self._blocks}
        self._thought, self._blocks = None, []
        return message

    def _own(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """What the model that is asked noted on `item` itself."""
        data = cast("Mapping[str, Any]", item.get("provider_data") or {})
        return data if _are_kin(data.get("model"), self._model) else {}

    def _close_assistant(self) -> None:
        if self._assistant is not None:
            self.messages.append(self._assistant)
            self._assistant = None

    def _flush_attached(self) -> None:
        if self._attached:
            self.messages.append({"role": "user", "content": self._attached})
            self._attached = []


def _are_kin(one: Any, other: str | None) -> bool:
    """Whether both models read what one of them has signed."""
    if not isinstance(one, str) or other is None:
        return False
    return one == other or any(name in one.lower() and name in other.lower() for name in _FAMILIES)


_FAMILIES = ("claude", "gemini")


def _message(thread: _Thread, item: Mapping[str, Any], index: int) -> None:
    role, content = item.get("role"), item.get("content")
    if role == "assistant":
        thread.answer(_assistant(content, index))
    elif role in ("user", "system", "developer"):
        if not isinstance(content, str):
            content = [_part(part, index) for part in _list(content, index)]
        thread.say({"role": role, "content": content})
    else:
        raise InputItemError(
            f"Input item {index} has the role {role!r}; a message is of user, assistant, system or developer."
        )


def _assistant(content: Any, index: int) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": None}
    if isinstance(content, str):
        return {**message, "content": content}
    texts: list[str] = []
    for part in _list(content, index):
        kind = part.get("type")
        if kind in ("output_text", "input_text", "text"):
            texts.append(part.get("text") or "")
        elif kind == "refusal":
            message["refusal"] = message.get("refusal", "") + (part.get("refusal") or "")
        else:
            raise _unknown_part(part, index)
    if texts:
        message["content"] = "\n".join(texts)
    elif "refusal" in message:
        del message["content"]
    else:
        message["content"] = ""
    return message


def _output(thread: _Thread, item: Mapping[str, Any], index: int) -> None:
    output = item.get("output")
    if isinstance(output, str):
        thread.output(item.get("call_id"), output, [])
        return
    parts = [_part(part, index) for part in _list(output, index)]
    texts = [part for part in parts if part["type"] == "text"]
    attached = [part for part in parts if part["type"] != "text"]
    content = texts or ("[the output is attached below]" if attached else "")
    thread.output(item.get("call_id"), content, attached)


def _part(part: Mapping[str, Any], index: int) -> dict[str, Any]:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return {"type": "text", "text": part.get("text") or ""}
    if kind == "input_image":
        url = part.get("image_url")
        if not isinstance(url, str):
            raise InputItemError(
                f"Input item {index} has an image without `image_url`: Chat Completions takes no file ids of images."
            )
        return {"type": "image_url", "image_url": {"url": url, "detail": part.get("detail") or "auto"}}
    if kind == "input_file":
        file = {name: part[name] for name in ("file_id", "file_data", "filename") if part.get(name)}
        if "file_id" not in file and "file_data" not in file:
            raise InputItemError(
                f"Input item {index} has a file without `file_data` or `file_id`: Chat Completions takes no file URLs."
            )
        return {"type": "file", "file": file}
    if kind in ("input_audio", "image_url", "file"):  # as this wire has them
        return {name: value for name, value in part.items() if name != "provider_data"}
    raise _unknown_part(part, index)


def _list(content: Any, index: int) -> list[dict[str, Any]]:
    parts = cast("list[Any]", content)
    if isinstance(content, (list, tuple)) and all(isinstance(part, Mapping) for part in parts):
        return parts
    raise InputItemError(
        f"Input item {index} holds {type(parts).__name__} where text or a list of parts belongs."
    )


def _unknown_part(part: Mapping[str, Any], index: int) -> InputItemError:
    return InputItemError(
        f"Input item {index} has a part of type {part.get('type')!r}, which Chat Completions has no part for."
    )


def _thought(item: Mapping[str, Any]) -> str | None:
    parts = [*(item.get("summary") or ()), *(item.get("content") or ())]
    return "\n".join(part.get("text") or "" for part in parts) or None
