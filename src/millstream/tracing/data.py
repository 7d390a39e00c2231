"""What spans are about: one class per kind of work, and how each is exported."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from millstream.output import text_of

if TYPE_CHECKING:
    from openai.types.responses import Response, ResponseInputItemParam


class SpanData(abc.ABC):
    """What a span is about. Yours may be another: give it a `type`, and an `export`."""

    type: ClassVar[str]
    """The kind of work."""

    @abc.abstractmethod
    def export(self) -> dict[str, Any]:
        """The data as a dict, for exporters."""


@dataclass(slots=True, eq=False)
class AgentSpanData(SpanData):
    """An agent acts: from its first turn to its output, or until it hands over."""

    type: ClassVar[str] = "agent"

    name: str
    handoffs: list[str] | None = None
    """The names of the agents that it may hand over to."""
    tools: list[str] | None = None
    """The names of its tools."""
    output_type: str | None = None
    metadata: dict[str, Any] | None = None
    """For processors; not exported."""

    def export(self) -> dict[str, Any]:
        """Type, name, handoffs, tools and output type."""
        return {
            "type": self.type,
            "name": self.name,
            "handoffs": self.handoffs,
            "tools": self.tools,
            "output_type": self.output_type,
        }


@dataclass(slots=True, eq=False)
class TaskSpanData(SpanData):
    """A whole run. Exported as a custom span, which is what it is to backends of the SDK."""

    type: ClassVar[str] = "task"

    name: str
    usage: dict[str, Any] | None = None
    """The tokens of the run."""
    metadata: dict[str, Any] | None = None
    """For processors; not exported."""

    def export(self) -> dict[str, Any]:
        """As a custom span named `task`; its data has the name, and the usage where there is one."""
        data: dict[str, Any] = {"sdk_span_type": self.type, "name": self.name}
        return _as_custom("task", data, self.usage)


@dataclass(slots=True, eq=False)
class TurnSpanData(SpanData):
    """One turn of an agent: a model call and what comes of it. Exported as a custom span."""

    type: ClassVar[str] = "turn"

    turn: int
    """Counts from 1 in a run."""
    agent_name: str
    usage: dict[str, Any] | None = None
    """The tokens of the turn."""
    metadata: dict[str, Any] | None = None
    """For processors; not exported."""

    def export(self) -> dict[str, Any]:
        """As a custom span named `turn`; its data has turn and agent, and the usage where there is one."""
        data = {"sdk_span_type": self.type, "turn": self.turn, "agent_name": self.agent_name}
        return _as_custom("turn", data, self.usage)


@dataclass(slots=True, eq=False)
class GenerationSpanData(SpanData):
    """A model call whose request and answer are told as messages."""

    type: ClassVar[str] = "generation"

    input: Sequence[Mapping[str, Any]] | None = None
    output: Sequence[Mapping[str, Any]] | None = None
    model: str | None = None
    model_config: Mapping[str, Any] | None = None
    usage: dict[str, Any] | None = None

    def export(self) -> dict[str, Any]:
        """All of it."""
        return {
            "type": self.type,
            "input": self.input,
            "output": self.output,
            "model": self.model,
            "model_config": self.model_config,
            "usage": self.usage,
        }


@dataclass(slots=True, eq=False)
class ResponseSpanData(SpanData):
    """A model call over the Responses API."""

    type: ClassVar[str] = "response"

    response: Response | None = None
    input: str | list[ResponseInputItemParam] | None = None
    """For processors; not exported, like the response."""
    usage: dict[str, Any] | None = None
    model: str | None = None
    """For processors; not exported, like the settings."""
    model_config: Mapping[str, Any] | None = None

    def export(self) -> dict[str, Any]:
        """The response's id and the usage."""
        return {
            "type": self.type,
            "response_id": None if self.response is None else self.response.id,
            "usage": self.usage,
        }


@dataclass(slots=True, eq=False)
class FunctionSpanData(SpanData):
    """A call of a tool."""

    type: ClassVar[str] = "function"

    name: str
    input: str | None
    """The arguments as the model wrote them."""
    output: Any | None
    mcp_data: dict[str, Any] | None = None
    """Which server the tool is of, where it is one of MCP."""
    call_id: str | None = None
    """Ties the call to the model's; for processors, not exported."""

    def export(self) -> dict[str, Any]:
        """All of it, the output as text."""
        return {
            "type": self.type,
            "name": self.name,
            "input": self.input,
            "output": None if self.output is None else text_of(self.output),
            "mcp_data": self.mcp_data,
        }


@dataclass(slots=True, eq=False)
class HandoffSpanData(SpanData):
    """An agent hands over to another."""

    type: ClassVar[str] = "handoff"

    from_agent: str | None
    to_agent: str | None

    def export(self) -> dict[str, Any]:
        """The names of both agents."""
        return {"type": self.type, "from_agent": self.from_agent, "to_agent": self.to_agent}


@dataclass(slots=True, eq=False)
class GuardrailSpanData(SpanData):
    """A guardrail judges."""

    type: ClassVar[str] = "guardrail"

    name: str
    triggered: bool = False

    def export(self) -> dict[str, Any]:
        """The guardrail's name, and whether it tripped."""
        return {"type": self.type, "name": self.name, "triggered": self.triggered}


@dataclass(slots=True, eq=False)
class MCPListToolsSpanData(SpanData):
    """An MCP server is asked for its tools."""

    type: ClassVar[str] = "mcp_tools"

    server: str | None = None
    result: list[str] | None = None
    """The names of the tools."""

    def export(self) -> dict[str, Any]:
        """The server's name and the names of its tools."""
        return {"type": self.type, "server": self.server, "result": self.result}


@dataclass(slots=True, eq=False)
class CustomSpanData(SpanData):
    """Work of the program's own."""

    type: ClassVar[str] = "custom"

    name: str
    data: dict[str, Any]
    """May be added to while the span is open."""

    def export(self) -> dict[str, Any]:
        """The name and the data."""
        return {"type": self.type, "name": self.name, "data": self.data}


def _as_custom(name: str, data: dict[str, Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    if usage is not None:
        data["usage"] = usage
    return {"type": "custom", "name": name, "data": data}
