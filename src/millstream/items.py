"""Items: what a run has produced so far, one object per message, call and result.

`raw_item` is the payload as the model's wire has it (`openai.types.responses` objects for
what a model said, plain dicts for what a run answered). `to_input_item()` is that payload
as input of the next model call.
"""

from __future__ import annotations

import copy
import secrets
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field, fields
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

from millstream.errors import AgentsException
from millstream.output import tool_output_parts
from millstream.usage import Usage

if TYPE_CHECKING:
    from openai.types.responses import (
        ResponseFunctionToolCall,
        ResponseInputItemParam,
        ResponseOutputItem,
        ResponseOutputMessage,
        ResponseReasoningItem,
        ResponseStreamEvent,
    )
    from openai.types.responses.response_input_item_param import FunctionCallOutput

    from millstream.agent import Agent

    TResponseInputItem: TypeAlias = ResponseInputItemParam
    TResponseOutputItem: TypeAlias = ResponseOutputItem
    TResponseStreamEvent: TypeAlias = ResponseStreamEvent
else:
    TResponseInputItem: TypeAlias = dict
    TResponseOutputItem: TypeAlias = object
    TResponseStreamEvent: TypeAlias = object


@dataclass(frozen=True)
class AgentRef:
    """Stands for an agent in what was read back from JSON, where only its name is known."""

    name: str


AGENT_FIELDS = frozenset({"agent", "source_agent", "target_agent"})
"""Fields of items that hold an agent."""


class Releasable:
    """Holds agents in attributes, and can let go of them."""

    def release(self, *names: str) -> None:
        """Hold the agents of these attributes weakly from here on.

        An attribute shows its agent for as long as somebody else keeps it, then an `AgentRef`.
        """
        released = self.__dict__.setdefault("_released", {})
        for name in names:
            agent = self.__dict__.get(name)
            if agent is not None:
                released[name] = (weakref.ref(agent), AgentRef(agent.name))
                del self.__dict__[name]

    if not TYPE_CHECKING:  # which would take any name for an attribute

        def __getattr__(self, name: str) -> Any:
            # Called for what is not there: what was released, or never was.
            try:
                reference, stands_for = self.__dict__["_released"][name]
            except KeyError:
                raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}") from None
            agent = reference()
            return stands_for if agent is None else agent


class ToolOriginType(StrEnum):
    """What kind of thing a tool is."""

    FUNCTION = "function"
    MCP = "mcp"
    AGENT_AS_TOOL = "agent_as_tool"


@dataclass(frozen=True)
class ToolOrigin:
    """Where a tool of this program comes from. Calls of it and their outputs carry it."""

    type: ToolOriginType
    mcp_server_name: str | None = None
    agent_name: str | None = None
    """The agent that runs, where the tool is one."""
    agent_tool_name: str | None = None

    def to_json_dict(self) -> dict[str, str]:
        """What is known, by name."""
        known = {f.name: getattr(self, f.name) for f in fields(self)}
        return {
            name: str(getattr(value, "value", value)) for name, value in known.items() if value is not None
        }

    @classmethod
    def from_json_dict(cls, data: Any) -> ToolOrigin | None:
        """Read what `to_json_dict` made; None where that is not what it is."""
        if not isinstance(data, Mapping):
            return None
        given = cast("Mapping[str, Any]", data)
        try:
            kind = ToolOriginType(given.get("type"))
        except ValueError:
            return None
        names = {f.name: given.get(f.name) for f in fields(cls) if f.name != "type"}
        return cls(kind, **{name: value for name, value in names.items() if isinstance(value, str)})

    def __millstream_json__(self) -> dict[str, str]:
        return self.to_json_dict()


def agent_json(agent: Any) -> dict[str, Any]:
    """What stands for an agent in JSON: its name, and nothing of how it is set up."""
    return {"name": getattr(agent, "name", None)}


def as_input_item(raw: Any) -> TResponseInputItem:
    """`raw` as a plain dict that models take as input; a dict is copied, a model dumped as it was sent."""
    if isinstance(raw, Mapping):
        return cast("TResponseInputItem", copy.copy(cast("Mapping[str, Any]", raw)))
    if hasattr(raw, "model_dump"):
        return cast("TResponseInputItem", raw.model_dump(exclude_unset=True, by_alias=True, warnings=False))
    raise AgentsException(f"Unexpected raw item type: {type(raw)}")


def raw_field(raw_item: Any, name: str) -> Any:
    """A field of a payload, which may be an object or a dict; None where it has none."""
    if isinstance(raw_item, Mapping):
        return cast("Mapping[str, Any]", raw_item).get(name)
    return getattr(raw_item, name, None)


def call_id_of(raw_item: Any) -> str | None:
    """What ties a call to its output; None where it is no text, as no server's payload was checked."""
    call_id = raw_field(raw_item, "call_id")
    return call_id if isinstance(call_id, str) else None


def is_function_call(raw_item: Any) -> bool:
    """Whether a payload is the call of a function: one that is answered by us."""
    return raw_field(raw_item, "type") == "function_call"


@dataclass
class RunItemBase(Releasable):
    """What all items share."""

    agent: Agent[Any]
    """The agent whose turn produced the item."""
    raw_item: Any
    """The payload, as the wire has it."""

    def to_input_item(self) -> TResponseInputItem:
        """The item as input of the next model call."""
        return as_input_item(self.raw_item)

    def release_agent(self) -> None:
        """Hold the item's agents weakly, so that it does not keep them in memory.

        They are shown for as long as somebody else keeps them, then an `AgentRef` with the name.
        """
        self.release(*(AGENT_FIELDS & self.__dict__.keys()))

    def __millstream_json__(self) -> dict[str, Any]:
        """What stands for the item in JSON: its fields, agents by their names alone."""
        data: dict[str, Any] = {"type": getattr(self, "type", None)}
        for name in (f.name for f in fields(self) if f.name != "type"):
            value = getattr(self, name)
            if name in AGENT_FIELDS:
                data[name] = agent_json(value)
            elif value is not None:
                data[name] = value
        return data

    def _raw(self, name: str) -> Any:
        return raw_field(self.raw_item, name)


@dataclass
class MessageOutputItem(RunItemBase):
    """A message of the model."""

    raw_item: ResponseOutputMessage
    type: Literal["message_output_item"] = "message_output_item"


@dataclass
class ReasoningItem(RunItemBase):
    """A piece of the model's reasoning."""

    raw_item: ResponseReasoningItem
    type: Literal["reasoning_item"] = "reasoning_item"


@dataclass
class ToolCallItem(RunItemBase):
    """A call of a tool: one of ours, or one that the model's host runs."""

    raw_item: Any
    type: Literal["tool_call_item"] = "tool_call_item"
    description: str | None = None
    title: str | None = None
    tool_origin: ToolOrigin | None = None
    """Where the tool comes from; None for one that the model's host runs."""

    @property
    def tool_name(self) -> str | None:
        """The name that the model called."""
        return self._raw("name")

    @property
    def call_id(self) -> str | None:
        """Ties the call to its output; calls of hosted tools have an `id` instead."""
        return self._raw("call_id") or self._raw("id")


@dataclass
class ToolCallOutputItem(RunItemBase):
    """The result of a tool call."""

    raw_item: FunctionCallOutput | Any
    output: Any
    """What the tool returned: the object itself, not its text."""
    type: Literal["tool_call_output_item"] = "tool_call_output_item"
    tool_origin: ToolOrigin | None = None
    custom_data: dict[str, Any] | None = None

    @property
    def call_id(self) -> str | None:
        """The call that this is the output of."""
        return self._raw("call_id")

    def __millstream_json__(self) -> dict[str, Any]:
        """As of every item; a text that `raw_item` has as its `output` is not written twice."""
        data = super().__millstream_json__() | {"output": self.output}
        sent = self._raw("output")
        if type(self.output) is type(sent) is str and self.output == sent:
            del data["output"]
        return data


@dataclass
class HandoffCallItem(RunItemBase):
    """The model's request to hand over to another agent."""

    raw_item: ResponseFunctionToolCall
    type: Literal["handoff_call_item"] = "handoff_call_item"


@dataclass
class HandoffOutputItem(RunItemBase):
    """A handover that took place."""

    raw_item: Any
    source_agent: Agent[Any]
    target_agent: Agent[Any]
    type: Literal["handoff_output_item"] = "handoff_output_item"


@dataclass
class MCPListToolsItem(RunItemBase):
    """The tools of an MCP server, which the model's host has listed."""

    type: Literal["mcp_list_tools_item"] = "mcp_list_tools_item"


@dataclass
class MCPApprovalRequestItem(RunItemBase):
    """The model's host asks whether it may call a tool of an MCP server."""

    type: Literal["mcp_approval_request_item"] = "mcp_approval_request_item"


@dataclass
class MCPApprovalResponseItem(RunItemBase):
    """The answer to such a request."""

    type: Literal["mcp_approval_response_item"] = "mcp_approval_response_item"


@dataclass
class ToolApprovalItem(RunItemBase):
    """A tool call that waits for somebody's approval."""

    raw_item: Any
    tool_name: str | None = None
    type: Literal["tool_approval_item"] = "tool_approval_item"
    tool_namespace: str | None = None
    tool_origin: ToolOrigin | None = None
    _: KW_ONLY
    tool_lookup_key: Any = None
    """Has no effect: tools of this version are known by their names."""

    @property
    def name(self) -> str | None:
        """The tool's name."""
        return self.tool_name or self._raw("name")

    @property
    def qualified_name(self) -> str | None:
        """The tool's name behind that of its namespace, if it has one."""
        return f"{self.tool_namespace}.{self.name}" if self.tool_namespace and self.name else self.name

    @property
    def arguments(self) -> str | None:
        """The arguments of the call, as JSON text."""
        return self._raw("arguments")

    @property
    def call_id(self) -> str | None:
        """The call that waits."""
        return self._raw("call_id")


@dataclass
class InputItem(RunItemBase):
    """Input that came in while the run was going on."""

    raw_item: Any
    type: Literal["input_item"] = "input_item"
    input_id: str = field(default_factory=lambda: secrets.token_hex(16), compare=False)
    """Names this input, among all."""


RunItem: TypeAlias = (
    MessageOutputItem
    | ReasoningItem
    | ToolCallItem
    | ToolCallOutputItem
    | HandoffCallItem
    | HandoffOutputItem
    | MCPListToolsItem
    | MCPApprovalRequestItem
    | MCPApprovalResponseItem
    | ToolApprovalItem
    | InputItem
)

ITEM_TYPES: dict[str, type[Any]] = {
    "message_output_item": MessageOutputItem,
    "reasoning_item": ReasoningItem,
    "tool_call_item": ToolCallItem,
    "tool_call_output_item": ToolCallOutputItem,
    "handoff_call_item": HandoffCallItem,
    "handoff_output_item": HandoffOutputItem,
    "mcp_list_tools_item": MCPListToolsItem,
    "mcp_approval_request_item": MCPApprovalRequestItem,
    "mcp_approval_response_item": MCPApprovalResponseItem,
    "tool_approval_item": ToolApprovalItem,
    "input_item": InputItem,
}
"""Item classes by their `type`: the closed set."""


@dataclass
class ModelResponse:
    """One whole answer of a model."""

    output: list[TResponseOutputItem]
    usage: Usage
    response_id: str | None
    """Names the response in later calls; None where the model keeps no responses."""
    request_id: str | None = None
    """Names the request in the server's logs."""
    raw_usage: dict[str, Any] | None = field(default=None)

    def to_input_items(self) -> list[TResponseInputItem]:
        """The answer as input of a later call."""
        return [as_input_item(item) for item in self.output]


class ItemHelpers:
    """Small readers of items."""

    _TEXT: ClassVar[str] = "output_text"

    @classmethod
    def extract_last_content(cls, message: TResponseOutputItem) -> str:
        """The text or refusal that ends a message; empty for anything else.

        Raises:
            ModelBehaviorError: the last part is neither text nor a refusal.
        """
        from millstream.errors import ModelBehaviorError

        parts = _message_parts(message)
        if not parts:
            return ""
        last = parts[-1]
        if last.type == cls._TEXT:
            return last.text or ""
        if last.type == "refusal":
            return last.refusal or ""
        raise ModelBehaviorError(f"Unexpected content type: {type(last)}")

    @classmethod
    def extract_last_text(cls, message: TResponseOutputItem) -> str | None:
        """The text that ends a message, or None where it ends otherwise."""
        parts = _message_parts(message)
        return parts[-1].text if parts and parts[-1].type == cls._TEXT else None

    @classmethod
    def extract_text(cls, message: TResponseOutputItem) -> str | None:
        """All text of a message in order, or None where it has none."""
        return "".join(part.text or "" for part in _message_parts(message) if part.type == cls._TEXT) or None

    @classmethod
    def extract_refusal(cls, message: TResponseOutputItem) -> str | None:
        """All refusals of a message in order, or None where it has none."""
        return "".join(part.refusal for part in _message_parts(message) if part.type == "refusal") or None

    @classmethod
    def input_to_new_input_list(cls, input: str | Sequence[TResponseInputItem]) -> list[TResponseInputItem]:
        """Input of a run as a list of items that the caller may change."""
        if isinstance(input, str):
            return [cast("TResponseInputItem", {"content": input, "role": "user"})]
        return list(copy.deepcopy(input))

    @classmethod
    def text_message_outputs(cls, items: Sequence[RunItem]) -> str:
        """The text of all messages among `items`, joined."""
        return "".join(cls.text_message_output(i) for i in items if isinstance(i, MessageOutputItem))

    @classmethod
    def text_message_output(cls, message: MessageOutputItem) -> str:
        """The text of one message, joined."""
        return cls.extract_text(message.raw_item) or ""

    @classmethod
    def tool_call_output_item(cls, tool_call: ResponseFunctionToolCall, output: Any) -> FunctionCallOutput:
        """The input item that answers `tool_call` with `output`: text, or parts of text, image and file."""
        return {
            "call_id": tool_call.call_id,
            "output": cast("Any", tool_output_parts(output)),
            "type": "function_call_output",
        }

    @classmethod
    def copy_tool_call_caller(cls, tool_call: Any, output_item: Any) -> Any:
        """`output_item`, which answers `tool_call`, with the call's `caller`: a program of the model's host has one."""
        caller = raw_field(tool_call, "caller")
        return output_item if caller is None else {**output_item, "caller": caller}


def _message_parts(message: Any) -> list[Any]:
    # Duck-typed: the openai classes cost half a second to import, and `type` says it all.
    return list(message.content or ()) if getattr(message, "type", None) == "message" else []
