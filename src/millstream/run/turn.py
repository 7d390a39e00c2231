"""One turn of the model, without I/O: batches of model events in, payloads for the log out.

Rules of this file:

1. An item is made the moment its `response.output_item.done` is read and stands in the log
   right behind it: the log has the natural order. What a server only says in its final
   event is made then.
2. A batch in which nothing ends is passed through unlooked at: `types` decides, no event is
   decoded.
3. The final event ends the turn; a stream that stops without one is an error. Text that was
   streamed but is in no item is `partial_text()`.
4. Servers differ in what their final event repeats: everything, nothing, or items that it
   alone has. What it says is matched with what was said before, so that nothing is lost and
   nothing is there twice; `items` end up in the order of the response.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import msgspec

from millstream import codec, raw
from millstream.errors import DecodeError, ModelProtocolError, ModelResponseError
from millstream.events import ModelCompleted, RawResponsesStreamEvent, RunItemStreamEvent
from millstream.items import (
    HandoffCallItem,
    MCPApprovalRequestItem,
    MCPListToolsItem,
    MessageOutputItem,
    ModelResponse,
    ReasoningItem,
    RunItem,
    ToolCallItem,
    is_function_call,
    raw_field,
)
from millstream.usage import Usage

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.handoff import Handoff
    from millstream.log.promise import Payload
    from millstream.models.promise import RawBatch
    from millstream.tool import Tool

_ENDS = frozenset({"response.completed", "response.incomplete", "response.failed", "error"})
_LOOKED_AT = _ENDS | {"response.output_item.done"}
_PREAMBLE = frozenset({"response.created", "response.queued", "response.in_progress"})
"""What a server says of an answer before there is any of it."""


@dataclass(frozen=True, slots=True)
class _Done:
    """Stands in the sequence of events where an item was done."""

    item_id: str | None
    output_index: int | None


class Turn:
    """What one model call has said so far.

    Args:
        agent: the agent whose turn it is.
        tools: its enabled tools by name, for the descriptions that call items carry.
        handoffs: its enabled handoffs by tool name: a call of one is a handoff.
        earlier: what each try of the call has used that was given up before this one.
    """

    def __init__(
        self,
        agent: Agent[Any],
        tools: Mapping[str, Tool],
        handoffs: Mapping[str, Handoff[Any, Any]],
        earlier: Sequence[Usage] = (),
    ) -> None:
        self.items: list[RunItem] = []
        self.usage: Usage | None = None
        """What the call has used, once its final event told it: also where that says it failed."""
        self.agent = agent
        self.earlier = earlier
        self._tools = tools
        self._handoffs = handoffs
        self._outputs: list[Any] = []
        self._response: ModelResponse | None = None
        self._failure: ModelResponseError | None = None
        self._broken: ModelProtocolError | None = None
        self._heard: list[list[Any] | _Done] = []
        """The events in which nothing ended, and where items did: from these partial text is told."""

    @classmethod
    def said_before(cls, agent: Agent[Any], items: Sequence[RunItem]) -> Turn:
        """A turn whose model call is over, of which only the items are known any more."""
        turn = cls(agent, {}, {})
        turn.items = list(items)
        return turn

    def calls(self) -> list[Any]:
        """The calls of functions that the model made: the payloads, handoffs aside."""
        return [
            item.raw_item
            for item in self.items
            if isinstance(item, ToolCallItem) and is_function_call(item.raw_item)
        ]

    def handoffs(self) -> list[HandoffCallItem]:
        """The handoffs that the model asked for."""
        return [item for item in self.items if isinstance(item, HandoffCallItem)]

    def feed(self, batch: RawBatch) -> list[Payload]:
        """The events of `batch` as they go into the log, each new item right behind the event that ended it.

        What a server reports of a failure, and what is wrong with an event that ends something, is
        raised by `finish`, when the events before it are written; or by the next `feed`.

        Raises:
            ModelProtocolError: an event of the last batch ended something, and cannot be used.
        """
        if self._broken is not None:
            raise self._broken
        events, types = batch
        if _LOOKED_AT.isdisjoint(types):
            self._heard.append(events)
            if events and events[0].__class__ is bytes:
                return cast("list[Payload]", events)
            return [_payload(event) for event in events]
        payloads: list[Payload] = []
        for event, kind in zip(events, types, strict=True):
            payloads.append(_payload(event))
            if kind not in _LOOKED_AT:
                self._heard.append([event])
            elif self._broken is None:
                try:
                    payloads.extend(self._look(kind, _typed(event)))
                except ModelProtocolError as error:
                    self._broken = error
        return payloads

    def _look(self, kind: str, typed: Any) -> list[Payload]:
        """The items that an event ends."""
        if kind == "error":
            self._failure = _server_error(typed)
            return []
        if kind != "response.output_item.done":
            return self._end(typed)
        output = _output(getattr(typed, "item", None))
        self._heard.append(_Done(raw_field(output, "id"), getattr(typed, "output_index", None)))
        return self._item_done(output)

    def whole(self, response: ModelResponse) -> list[Payload]:
        """The items of a response that came in one piece.

        Raises:
            ModelProtocolError: an item of it cannot be used.
        """
        outputs = [_output(output) for output in response.output]
        self._response = response
        self.usage = response.usage
        return [payload for output in outputs for payload in self._item_done(output)]

    def finish(self) -> ModelResponse:
        """The whole response.

        Raises:
            ModelResponseError: the server reported a failure.
            ModelProtocolError: the stream ended without a final event, or one of its events cannot be used.
        """
        if self._broken is not None:
            raise self._broken
        if self._failure is not None:
            raise self._failure
        if self._response is None:
            raise ModelProtocolError(
                "The model's stream ended without response.completed: the answer is cut off. "
                "The server, or a proxy before it, closed the stream early.",
                cut_off=True,
            )
        return self._response

    @property
    def output_started(self) -> bool:
        """Whether any of the answer was streamed: an event of more than that it is under way, or has failed."""
        return self._response is not None or any(
            isinstance(heard, _Done) or not all(map(_is_preamble, heard)) for heard in self._heard
        )

    @property
    def response(self) -> ModelResponse | None:
        """The response, once its final event was read."""
        return self._response

    @property
    def is_untold(self) -> bool:
        """Whether the server has begun to answer, and told nothing of what that has used."""
        if self.usage is None:
            return bool(self._heard)
        return self.usage.estimated and not self.usage.total_tokens

    def tell(self, usage: Usage) -> None:
        """Take `usage` for what the server did not tell."""
        self.usage = usage
        if self._response is not None:
            self._response.usage = usage

    def completed(self, number: int, *, status: str) -> ModelCompleted:
        """The end of the model call of turn `number`, with the usage of all its tries where any is known."""
        together = Usage()
        known = [*self.earlier, *([self.usage] if self.usage else [])]
        for usage in known:
            together.add(usage)
        return ModelCompleted(
            turn=number,
            status=status,
            response_id=None if self._response is None else self._response.response_id,
            usage=together.to_dict() if known else {},
        )

    def first_and_after(self, items: list[RunItem]) -> list[RunItem]:
        """Those of `items` from the first one of this turn on."""
        first = self.items[0] if self.items else None
        index = next((i for i, item in enumerate(items) if item is first), len(items))
        return items[index:]

    def forget(self, items: Sequence[RunItem]) -> None:
        """Have nothing any more of these `items`, nor of the text that is in none."""
        gone = set(map(id, items))
        self.items = [item for item in self.items if id(item) not in gone]
        self._heard = []

    def said(self) -> list[Any]:
        """What came of the answer: the items of a whole one, else the text of its pieces. Total, as `partial_text`."""
        if self._response is not None:
            return self._response.output
        events = [event for heard in self._heard if not isinstance(heard, _Done) for event in heard]
        return ["".join(map(_piece, events))]

    def text_behind(self, place: int) -> tuple[str, int]:
        """The text and the refusals that came behind `place`, and the place behind them; from 0. Total, as `said`."""
        events = [event for heard in self._heard[place:] if not isinstance(heard, _Done) for event in heard]
        return "".join(map(_prose, events)), len(self._heard)

    def prose(self) -> str:
        """All text and all refusals so far, whether they are in an item or not. Total, as `said`."""
        streamed, _ = self.text_behind(0)
        messages = [item.raw_item for item in self.items if isinstance(item, MessageOutputItem)]
        parts = [part for message in messages for part in raw_field(message, "content") or ()]
        texts = [raw_field(part, "text") or raw_field(part, "refusal") or "" for part in parts]
        # A server may stream no pieces, or end no item.
        return max(streamed, "".join(texts) + self.partial_text(), key=len)

    def partial_text(self) -> str:
        """The text that was streamed and is in no item. Total: what cannot be read is left out."""
        if self._response is not None:
            return ""
        # By item, as items may be written side by side; a server that names none has one at a time.
        text: dict[tuple[str | int | None, str | int | None], str] = {}
        for heard in self._heard:
            if isinstance(heard, _Done):
                done = [key for key in text if key[0] == heard.item_id or key[1] == heard.output_index]
                for key in done:
                    del text[key]
                continue
            for event in heard:
                delta = _text_delta(event)
                if delta is not None:
                    key = (_name(delta, "item_id"), _name(delta, "output_index"))
                    text[key] = text.get(key, "") + delta.delta
        return "".join(text.values())

    def _item_done(self, output: Any) -> list[Payload]:
        self._outputs.append(output)
        item = self._item(output)
        if item is None:
            return []
        self.items.append(item)
        return [RunItemStreamEvent(item=item)]

    def _end(self, typed: Any) -> list[Payload]:
        response = getattr(typed, "response", None)
        raw_usage = getattr(response, "usage", None)
        if typed.type == "response.failed":
            self._failure = _server_error(getattr(response, "error", None))
            self.usage = None if raw_usage is None else Usage.from_response(raw_usage)
            return []
        self.usage = Usage.from_response(raw_usage)
        said = [_output(output) for output in getattr(response, "output", None) or ()]
        heard, unsaid = _matched(said, self._outputs)
        late: list[Payload] = []
        order: dict[int, int] = {}
        for place, (output, match) in enumerate(zip(said, heard, strict=True)):
            if match is None:
                late += self._item_done(output)
            order[id(output if match is None else match)] = place
        if not unsaid:
            self.items.sort(key=lambda item: order[id(item.raw_item)])
        self._response = ModelResponse(
            output=list(self._outputs) if unsaid else said,
            usage=self.usage,
            response_id=getattr(response, "id", None),
            request_id=getattr(response, "_request_id", None),
        )
        return late

    def _item(self, output: Any) -> RunItem | None:
        kind = raw_field(output, "type")
        if kind == "message":
            return MessageOutputItem(self.agent, output)
        if kind == "reasoning":
            return ReasoningItem(self.agent, output)
        if kind == "mcp_list_tools":
            return MCPListToolsItem(self.agent, output)
        if kind == "mcp_approval_request":
            return MCPApprovalRequestItem(self.agent, output)
        name = raw_field(output, "name")
        if is_function_call(output) and name in self._handoffs:
            return HandoffCallItem(self.agent, output)
        if kind in _NO_ITEM:
            return None
        tool = self._tools.get(name or "")
        return ToolCallItem(
            self.agent,
            output,
            description=getattr(tool, "description", None),
            title=getattr(tool, "title", None),
            tool_origin=getattr(tool, "tool_origin", None),
        )


_NO_ITEM = frozenset({"compaction"})
"""Outputs that are history for the model and no event for people."""


def _matched(said: list[Any], heard: list[Any]) -> tuple[list[Any], list[Any]]:
    """For each output that was `said`, the one of `heard` that it repeats, or None; and what is left of those.

    An output repeats one of its type and ids. Where a server gives new ids, the first of its type.
    """
    left = list(heard)
    matches: list[Any] = [None] * len(said)
    for fields in (("type", "id", "call_id"), ("type",)):
        for index, output in enumerate(said):
            if matches[index] is None:
                key = [raw_field(output, name) for name in fields]
                found = next(
                    (i for i, each in enumerate(left) if [raw_field(each, n) for n in fields] == key), None
                )
                if found is not None:
                    matches[index] = left.pop(found)
    return matches, left


def _typed(event: Any) -> Any:
    if not isinstance(event, bytes):
        return event
    try:
        return raw.decode(event)
    except DecodeError as error:
        raise ModelProtocolError(f"The model's server sent an event that cannot be read: {error}") from error


def _output(plain: Any) -> Any:
    """An output item, typed, that a run can use.

    Raises:
        ModelProtocolError: it has no type, or it is a tool call that cannot be answered.
    """
    output = raw.item_from(plain)
    if not isinstance(raw_field(output, "type"), str):
        raise ModelProtocolError(f"The model's server sent an output item without a type: {output!r:.120}")
    if not is_function_call(output):
        return output
    for field in ("name", "call_id"):
        if not isinstance(raw_field(output, field), str):
            raise ModelProtocolError(
                f"The model's server sent a tool call whose `{field}` is no text: {output!r:.120}"
            )
    arguments = raw_field(output, "arguments")
    if not isinstance(arguments, str):  # JSON text; some servers send the object itself
        text = "" if arguments is None else codec.encode(arguments).decode()
        return raw.item_from({**codec.decode(raw.encode(output)), "arguments": text})
    return output


def _piece(event: Any) -> str:
    """The text that `event` adds to an answer, of whatever kind. Total."""
    if isinstance(event, bytes):
        if b'.delta"' not in event:
            return ""
        try:
            event = raw.decode(event)
        except Exception:  # as below
            return ""
    piece = getattr(event, "delta", None)
    return piece if isinstance(piece, str) else ""


_PROSE = ("response.output_text.delta", "response.refusal.delta")


def _prose(event: Any) -> str:
    """The text that `event` adds to what people read. Total."""
    if isinstance(event, bytes) and not any(kind.encode() in event for kind in _PROSE):
        return ""
    try:
        typed = raw.decode(event) if isinstance(event, bytes) else event
    except Exception:  # as below
        return ""
    return _piece(typed) if getattr(typed, "type", None) in _PROSE else ""


def _text_delta(event: Any) -> Any:
    """`event`, typed, where it is a piece of text. Total."""
    if isinstance(event, bytes):
        if b"output_text.delta" not in event:
            return None
        try:
            event = raw.decode(event)
        except Exception:  # a server may send anything, and this is read on a run's way to its end
            return None
    is_text = getattr(event, "type", None) == "response.output_text.delta"
    return event if is_text and isinstance(getattr(event, "delta", None), str) else None


def _name(delta: Any, field: str) -> str | int | None:
    # Nothing of it was checked: what is no name is none, and might not be hashable either.
    value = getattr(delta, field, None)
    return value if isinstance(value, str | int) else None


class _Type(msgspec.Struct):
    type: str = ""


_type_of = msgspec.json.Decoder(_Type).decode


def _is_preamble(event: Any) -> bool:
    try:
        return (_type_of(event) if isinstance(event, bytes) else event).type in _PREAMBLE
    except (msgspec.MsgspecError, AttributeError, TypeError):  # an event of a model of the user's own
        return False


def _payload(event: Any) -> Payload:
    return event if isinstance(event, bytes) else RawResponsesStreamEvent(event)


def _server_error(said: Any) -> ModelResponseError:
    message = getattr(said, "message", None) or "no reason was given"
    code = getattr(said, "code", None)
    where = f" ({code})" if code else ""
    return ModelResponseError(f"The model's server reported a failure{where}: {message}", error_code=code)
