"""One turn of the model, without I/O: batches of model events in, payloads for the log out.

Rules of this file:

1. An item is made the moment its `response.output_item.done` is read and stands in the log
   right behind it: the log has the natural order. What a server only says in its final
   event is made then.
2. A batch in which nothing ends is passed through unlooked at: `types` decides, no event is
   decoded.
3. The final event ends the turn; a stream that stops without one is an error. Text that was
   streamed but is in no item is `partial_text()`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from millstream import raw
from millstream.errors import ModelProtocolError, ModelResponseError
from millstream.events import RawResponsesStreamEvent, RunItemStreamEvent
from millstream.items import (
    HandoffCallItem,
    MessageOutputItem,
    ModelResponse,
    ReasoningItem,
    RunItem,
    ToolCallItem,
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


class Turn:
    """What one model call has said so far.

    Args:
        agent: the agent whose turn it is.
        tools: its enabled tools by name, for the descriptions that call items carry.
        handoffs: its enabled handoffs by tool name: a call of one is a handoff.
    """

    def __init__(
        self,
        agent: Agent[Any],
        tools: Mapping[str, Tool],
        handoffs: Mapping[str, Handoff[Any, Any]],
    ) -> None:
        self.items: list[RunItem] = []
        self._agent = agent
        self._tools = tools
        self._handoffs = handoffs
        self._outputs: list[Any] = []
        self._response: ModelResponse | None = None
        self._failure: ModelResponseError | None = None
        self._open: list[list[Any]] = []
        """Events read since the last item ended, from which partial text is told."""

    def feed(self, batch: RawBatch) -> list[Payload]:
        """The events of `batch` as they go into the log, each new item right behind the event that ended it.

        What a server reports of a failure is raised by `finish`, when its events are written.
        """
        events, types = batch
        if _LOOKED_AT.isdisjoint(types):
            self._open.append(events)
            if events and events[0].__class__ is bytes:
                return cast("list[Payload]", events)
            return [_payload(event) for event in events]
        payloads: list[Payload] = []
        for event, kind in zip(events, types, strict=True):
            if kind not in _LOOKED_AT:
                payloads.append(_payload(event))
                self._open.append([event])
                continue
            typed = cast("Any", raw.decode(event) if isinstance(event, bytes) else event)
            payloads.append(_payload(event))
            if kind == "response.output_item.done":
                self._open.clear()
                payloads.extend(self._item_done(typed.item))
            elif kind == "error":
                self._failure = _server_error(typed)
            else:
                payloads.extend(self._end(typed))
        return payloads

    def whole(self, response: ModelResponse) -> list[Payload]:
        """The items of a response that came in one piece."""
        self._response = response
        return [payload for item in response.output for payload in self._item_done(item)]

    def finish(self) -> ModelResponse:
        """The whole response.

        Raises:
            ModelResponseError: the server reported a failure.
            ModelProtocolError: the stream ended without a final event.
        """
        if self._failure is not None:
            raise self._failure
        if self._response is None:
            raise ModelProtocolError(
                "The model's stream ended without response.completed: the answer is cut off. "
                "The server, or a proxy before it, closed the stream early."
            )
        return self._response

    @property
    def response(self) -> ModelResponse | None:
        """The response, once its final event was read."""
        return self._response

    def partial_text(self) -> str:
        """The text that was streamed since the last item ended."""
        if self._response is not None:
            return ""
        parts: list[str] = []
        for events in self._open:
            for event in events:
                if isinstance(event, bytes) and b"output_text.delta" not in event:
                    continue
                typed = raw.decode(event) if isinstance(event, bytes) else event
                if typed.type == "response.output_text.delta":
                    parts.append(typed.delta)
        return "".join(parts)

    def _item_done(self, output: Any) -> list[Payload]:
        self._outputs.append(output)
        item = self._item(output)
        if item is None:
            return []
        self.items.append(item)
        return [RunItemStreamEvent(item=item)]

    def _end(self, typed: Any) -> list[Payload]:
        response = typed.response
        if typed.type == "response.failed":
            self._failure = _server_error(getattr(response, "error", None))
            return []
        # Some servers repeat nothing in their final event, others say everything only there.
        said = list(getattr(response, "output", None) or ())
        late = [p for output in said[len(self._outputs) :] for p in self._item_done(output)]
        raw_usage = getattr(response, "usage", None)
        self._response = ModelResponse(
            output=said if len(said) == len(self._outputs) else list(self._outputs),
            usage=Usage.from_response(raw_usage),
            response_id=getattr(response, "id", None),
            request_id=getattr(response, "_request_id", None),
        )
        return late

    def _item(self, output: Any) -> RunItem | None:
        kind = output.get("type") if isinstance(output, Mapping) else getattr(output, "type", None)
        if kind == "message":
            return MessageOutputItem(self._agent, output)
        if kind == "reasoning":
            return ReasoningItem(self._agent, output)
        if kind == "function_call" and output.name in self._handoffs:
            return HandoffCallItem(self._agent, output)
        if kind in _NO_ITEM:
            return None
        tool = self._tools.get(getattr(output, "name", None) or "")
        return ToolCallItem(self._agent, output, description=getattr(tool, "description", None))


_NO_ITEM = frozenset({"compaction"})
"""Outputs that are history for the model and no event for people."""


def _payload(event: Any) -> Payload:
    return event if isinstance(event, bytes) else RawResponsesStreamEvent(event)


def _server_error(said: Any) -> ModelResponseError:
    message = getattr(said, "message", None) or "no reason was given"
    code = getattr(said, "code", None)
    where = f" ({code})" if code else ""
    return ModelResponseError(f"The model's server reported a failure{where}: {message}", error_code=code)
