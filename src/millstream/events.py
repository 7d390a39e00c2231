"""Events: the closed table of what a run can say, and the entry that gives one its place.

An **event** is one fact. An **entry** is an event in its envelope: position, run, agent,
depth, turn and time. The log of a run is a sequence of entries; its last one is terminal.

Three events keep the names, fields and `type` strings of the OpenAI Agents SDK
(`raw_response_event`, `run_item_stream_event`, `agent_updated_stream_event`). All others
are frozen and compare by value.

| family | types |
|---|---|
| life of a run | run.started, run.attempt, run.paused, run.decided, run.resumed, and one of run.completed, run.failed, run.cancelled at the end |
| model | model.started, raw_response_event, model.completed, model.retried |
| items | run_item_stream_event, agent_updated_stream_event |
| tools | tool.started, tool.progress, tool.partial, tool.finished |
| others | guardrail.result, text.retracted, input.added, user.event |

`EVENT_TYPES` is that table; a type that is not in it is not an event.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, cast

from millstream import codec, raw
from millstream.errors import DecodeError
from millstream.items import (
    AGENT_FIELDS,
    ITEM_TYPES,
    AgentRef,
    RunItem,
    ToolOrigin,
    TResponseStreamEvent,
    agent_json,
    raw_field,
)

if TYPE_CHECKING:
    from millstream.agent import Agent

CancelMode: TypeAlias = Literal["now", "after_tool", "after_turn"]
"""When a cancelled run stops: at once, when its running tools are done, or when its turn is done."""

SOONEST_FIRST: tuple[CancelMode, ...] = ("now", "after_tool", "after_turn")

ITEM_EVENT_NAMES: dict[str, str] = {
    "message_output_item": "message_output_created",
    "reasoning_item": "reasoning_item_created",
    "tool_call_item": "tool_called",
    "tool_call_output_item": "tool_output",
    "handoff_call_item": "handoff_requested",
    "handoff_output_item": "handoff_occured",  # as the SDK spells it
    "mcp_list_tools_item": "mcp_list_tools",
    "mcp_approval_request_item": "mcp_approval_requested",
    "mcp_approval_response_item": "mcp_approval_response",
    "tool_approval_item": "tool_approval_requested",
    "input_item": "input_added",
}
"""The `name` of a run item's event, by the item's type."""


class _Event:
    """What all events share: a `type`, and a total encoding."""

    __slots__ = ()

    type: ClassVar[str]
    _sealed: ClassVar[bytes | None] = None

    def to_json(self) -> bytes:
        """The event as one line of strict UTF-8 JSON. Total: a value that has no JSON is marked in its place."""
        sealed = self._sealed
        return codec.encode(event_fields(self)) if sealed is None else sealed

    def seal(self) -> list[codec.BadField]:
        """Fix what `to_json` gives as of now, once, whatever becomes of the values; the fields that have no JSON."""
        bad: list[codec.BadField] = []
        if self._sealed is not None:
            return bad
        object.__setattr__(self, "_sealed", codec.encode(event_fields(self), bad=bad))
        return bad

    def seal_as(self, json: bytes) -> None:
        """Fix what `to_json` gives: the clean line that the event was read from."""
        object.__setattr__(self, "_sealed", json)


# --- the three events of the SDK ---------------------------------------------------------


class RawResponsesStreamEvent(_Event):
    """One event of the model's own stream, passed through.

    `data` is an instance of the `openai.types.responses` event classes, made when it is first
    looked at; `json` is the event as it came over the wire, where it came over one.
    """

    __slots__ = ("_data", "_json")

    type = "raw_response_event"  # its JSON cannot change, so there is nothing to seal

    def __init__(
        self,
        data: TResponseStreamEvent | None = None,
        type: str = "raw_response_event",
        *,
        event: TResponseStreamEvent | None = None,
    ) -> None:
        self._data = data if data is not None else event
        self._json: bytes | None = None

    @classmethod
    def from_wire(cls, json: bytes, data: TResponseStreamEvent | None = None) -> RawResponsesStreamEvent:
        """Wrap the JSON of one model event; it is decoded when `data` is looked at, unless that is given."""
        self = _new_raw(cls)
        self._data = data
        self._json = json
        return self

    @classmethod
    def all_from_wire(
        cls, jsons: Iterable[bytes], data: Iterable[TResponseStreamEvent]
    ) -> list[RawResponsesStreamEvent]:
        """Several of these, each with its data."""
        events: list[RawResponsesStreamEvent] = []
        for json, typed in zip(jsons, data, strict=True):
            event = _new_raw(cls)
            event._data = typed
            event._json = json
            events.append(event)
        return events

    @property
    def data(self) -> TResponseStreamEvent:
        """The model's event, typed."""
        data = self._data
        if data is None:
            if self._json is None:
                return None  # pyright: ignore[reportReturnType]  # built by hand without one
            data = self._data = raw.decode(self._json)
        return data

    @property
    def event(self) -> TResponseStreamEvent:
        """Another name for `data`."""
        return self.data

    @property
    def has_data(self) -> bool:
        """Whether `data` is made already."""
        return self._data is not None

    @property
    def json(self) -> bytes:
        """The model's event as JSON."""
        if self._json is None:
            self._json = raw.encode(self._data)
        return self._json

    def to_json(self) -> bytes:
        """The event as one line of strict UTF-8 JSON."""
        return b'{"type":"raw_response_event","data":%b}' % self.json

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RawResponsesStreamEvent) and self.data == other.data

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __repr__(self) -> str:
        return f"RawResponsesStreamEvent(data={self.data!r})"


_new_raw = object.__new__


@dataclass
class RunItemStreamEvent(_Event):
    """A new item of the run. Without a `name`, the name follows from the item."""

    name: str = ""
    item: RunItem = None  # pyright: ignore[reportAssignmentType]  # there is one in every event of a run
    type: str = "run_item_stream_event"  # pyright: ignore[reportIncompatibleVariableOverride]

    def __post_init__(self) -> None:
        self.type = "run_item_stream_event"  # pyright: ignore[reportIncompatibleVariableOverride]
        if not self.name and self.item is not None:  # pyright: ignore[reportUnnecessaryComparison]
            self.name = ITEM_EVENT_NAMES.get(self.item.type, "")


@dataclass(init=False)
class AgentUpdatedStreamEvent(_Event):
    """Another agent acts from here on."""

    new_agent: Agent[Any]
    type: str = "agent_updated_stream_event"  # pyright: ignore[reportIncompatibleVariableOverride]

    def __init__(
        self,
        new_agent: Agent[Any] | None = None,
        type: str = "agent_updated_stream_event",
        *,
        agent: Agent[Any] | None = None,
    ) -> None:
        self.new_agent = cast("Agent[Any]", new_agent if new_agent is not None else agent)
        self.type = "agent_updated_stream_event"  # pyright: ignore[reportIncompatibleVariableOverride]

    @property
    def agent(self) -> Agent[Any]:
        """Another name for `new_agent`."""
        return self.new_agent


StreamEvent: TypeAlias = RawResponsesStreamEvent | RunItemStreamEvent | AgentUpdatedStreamEvent
"""What `stream_events()` yields."""

# --- life of a run -----------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunStarted(_Event):
    """The first event of a run."""

    type: ClassVar[str] = "run.started"
    agent: str
    family: str = "agent"
    input: Any = None


@dataclass(frozen=True, kw_only=True)
class RunAttempt(_Event):
    """Another process goes on with the run, from where it stood at position `resumed_from`.

    What came after that, up to here, is void: a model call that did not end is made again, a tool
    that left no result is started again, and what was told of them comes anew.
    """

    type: ClassVar[str] = "run.attempt"
    number: int
    """Which attempt at the run it is, from 2."""
    resumed_from: int


@dataclass(frozen=True, kw_only=True)
class RunPaused(_Event):
    """The run waits for decisions. Not an end: the log stays open."""

    type: ClassVar[str] = "run.paused"
    interruptions: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "interruptions", tuple(self.interruptions))


@dataclass(frozen=True, kw_only=True)
class RunDecided(_Event):
    """Somebody decided over a call that waited for approval: `decision` is approved or rejected.

    `message` is what the model is told of a call that was rejected, where something was said;
    `arguments` what the tool gets in place of the model's own, where they were edited. With
    `always`, later calls of that tool by that agent are decided too.
    """

    type: ClassVar[str] = "run.decided"
    call_id: str
    decision: str
    message: str | None = None
    tool: str | None = None
    arguments: str | None = None
    always: bool = False


@dataclass(frozen=True, kw_only=True)
class RunResumed(_Event):
    """The run goes on after a pause, or goes on with the run named in `of`."""

    type: ClassVar[str] = "run.resumed"
    of: str | None = None


@dataclass(frozen=True, kw_only=True)
class RunCompleted(_Event):
    """Terminal: the run has its final output."""

    type: ClassVar[str] = "run.completed"
    output: Any = None
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    family: str = "agent"
    state: str = "completed"
    code: str = "completed"


@dataclass(frozen=True, kw_only=True)
class RunFailed(_Event):
    """Terminal: the run ended with an exception, of which this says what a client may know."""

    type: ClassVar[str] = "run.failed"
    code: str
    message: str
    error_id: str
    retryable: bool = False
    partial: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    family: str = "agent"
    state: str = "failed"


@dataclass(frozen=True, kw_only=True)
class RunCancelled(_Event):
    """Terminal: the run was stopped.

    `partial` is the text of a model call that did not end; it stands before as a message item
    of status "incomplete" too.
    """

    type: ClassVar[str] = "run.cancelled"
    mode: CancelMode = "now"
    partial: str = ""
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])
    family: str = "agent"
    state: str = "cancelled"
    code: str = "cancelled"


# --- the model -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ModelStarted(_Event):
    """A model call begins."""

    type: ClassVar[str] = "model.started"
    turn: int
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class ModelCompleted(_Event):
    """A model call ended. `status` is completed, failed or cancelled; usage is of this call alone."""

    type: ClassVar[str] = "model.completed"
    turn: int
    status: str = "completed"
    response_id: str | None = None
    usage: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class ModelRetried(_Event):
    """A model call is tried again, `delay` seconds after try number `attempt` (from 1) failed for `reason`.

    What the call has streamed so far is superseded: the next try tells its answer from the
    beginning. `reason` has nothing of the exception's own text.
    """

    type: ClassVar[str] = "model.retried"
    turn: int
    attempt: int
    reason: str
    delay: float = 0.0


# --- tools ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ToolStarted(_Event):
    """A tool begins to run.

    With `once`, this call is not begun a second time where it leaves no result because its process
    died: the tool says `retry="never"`, or the call needed somebody's approval.
    """

    type: ClassVar[str] = "tool.started"
    call_id: str
    name: str
    once: bool = False


@dataclass(frozen=True, kw_only=True)
class ToolProgress(_Event):
    """A running tool tells how far it is."""

    type: ClassVar[str] = "tool.progress"
    call_id: str
    name: str
    data: Any = None


@dataclass(frozen=True, kw_only=True)
class ToolPartial(_Event):
    """A running tool yields a piece of its result."""

    type: ClassVar[str] = "tool.partial"
    call_id: str
    name: str
    data: Any = None


@dataclass(frozen=True, kw_only=True)
class ToolFinished(_Event):
    """A tool is done: `status` is ok, error, timeout, cancelled or paused, `ms` its time in milliseconds.

    It is paused where the tool is an agent whose run waits for a decision: it has no output yet,
    and is started again when that run goes on.
    """

    type: ClassVar[str] = "tool.finished"
    call_id: str
    name: str
    status: str = "ok"
    code: str | None = None
    ms: float = 0.0


# --- others --------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class GuardrailResult(_Event):
    """A guardrail gave its verdict."""

    type: ClassVar[str] = "guardrail.result"
    guardrail: str
    stage: str
    tripped: bool
    info: Any = None


@dataclass(frozen=True, kw_only=True)
class TextRetracted(_Event):
    """Text that was streamed is taken back; clients remove it."""

    type: ClassVar[str] = "text.retracted"
    item_id: str | None = None
    from_position: int | None = None


@dataclass(frozen=True, kw_only=True)
class InputAdded(_Event):
    """Input that was sent to the running run, or added to its state: written where its model gets it."""

    type: ClassVar[str] = "input.added"
    input: Any = None


@dataclass(frozen=True, kw_only=True)
class UserEvent(_Event):
    """An event of the application's own."""

    type: ClassVar[str] = "user.event"
    name: str
    data: Any = None


Event: TypeAlias = (
    StreamEvent
    | RunStarted
    | RunAttempt
    | RunPaused
    | RunDecided
    | RunResumed
    | RunCompleted
    | RunFailed
    | RunCancelled
    | ModelStarted
    | ModelCompleted
    | ModelRetried
    | ToolStarted
    | ToolProgress
    | ToolPartial
    | ToolFinished
    | GuardrailResult
    | TextRetracted
    | InputAdded
    | UserEvent
)

TerminalEvent: TypeAlias = RunCompleted | RunFailed | RunCancelled

EVENT_TYPES: dict[str, type[Any]] = {
    "raw_response_event": RawResponsesStreamEvent,
    "run_item_stream_event": RunItemStreamEvent,
    "agent_updated_stream_event": AgentUpdatedStreamEvent,
    **{
        cls.type: cls
        for cls in (
            RunStarted,
            RunAttempt,
            RunPaused,
            RunDecided,
            RunResumed,
            RunCompleted,
            RunFailed,
            RunCancelled,
            ModelStarted,
            ModelCompleted,
            ModelRetried,
            ToolStarted,
            ToolProgress,
            ToolPartial,
            ToolFinished,
            GuardrailResult,
            TextRetracted,
            InputAdded,
            UserEvent,
        )
    },
}
"""Every event class by its `type`."""

TERMINAL_TYPES = frozenset({"run.completed", "run.failed", "run.cancelled"})
"""The types that end a run."""


# --- the envelope --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Stamp:
    """The part of an envelope that events written together share."""

    run_id: str
    agent: str
    turn: int = 0
    depth: int = 0
    parent_run_id: str | None = None
    time: float = 0.0
    """Seconds since the epoch, by the clock of the process that wrote the event."""
    path: tuple[str, ...] = ()
    """The ids of the tool calls that lead from the root run to this one, `depth` of them."""


@functools.lru_cache(maxsize=256)
def _fields_of(stamp: Stamp) -> bytes:
    """What all events written together have in their JSON, once for them all."""
    fields = {
        "run_id": stamp.run_id,
        "parent_run_id": stamp.parent_run_id,
        "agent": stamp.agent,
        "depth": stamp.depth,
        "path": stamp.path,
        "turn": stamp.turn,
        "time": stamp.time,
    }
    return codec.encode(fields)[1:-1]


@dataclass(frozen=True, slots=True)
class Entry:
    """An event in its envelope. Positions count 1, 2, 3 … over a run and all runs nested in it."""

    position: int
    stamp: Stamp
    event: Event

    @property
    def type(self) -> str:
        """The event's type."""
        return self.event.type

    @property
    def run_id(self) -> str:
        """The run that wrote the event."""
        return self.stamp.run_id

    @property
    def parent_run_id(self) -> str | None:
        """The run that this one is nested in."""
        return self.stamp.parent_run_id

    @property
    def agent(self) -> str:
        """Name of the agent that was acting."""
        return self.stamp.agent

    @property
    def turn(self) -> int:
        """The turn, from 1; 0 before the first."""
        return self.stamp.turn

    @property
    def depth(self) -> int:
        """0 for the root run, 1 for a run nested in it, and so on."""
        return self.stamp.depth

    @property
    def path(self) -> tuple[str, ...]:
        """The ids of the tool calls that lead from the root run to this one."""
        return self.stamp.path

    @property
    def time(self) -> float:
        """Seconds since the epoch, by the clock of the process that wrote the event."""
        return self.stamp.time

    @property
    def is_terminal(self) -> bool:
        """Whether this entry ends its run."""
        return self.event.type in TERMINAL_TYPES

    def to_json(self) -> bytes:
        """The entry as one line of strict UTF-8 JSON; total, as every encoding here is."""
        return b'{"position":%d,%b,"event":%b}' % (
            self.position,
            _fields_of(self.stamp),
            self.event.to_json(),
        )

    @classmethod
    def from_json(cls, data: bytes | str) -> Entry:
        """Read what `to_json` wrote. Agents come back as `AgentRef`s.

        Raises:
            DecodeError: the bytes are not an entry.
        """
        return entry_from(codec.decode(data))


# --- events to plain values and back -------------------------------------------------------


def event_fields(event: Any) -> dict[str, Any]:
    """The fields of `event` by name, its type first, as values for `codec.encode`."""
    if isinstance(event, RunItemStreamEvent):
        return {"type": event.type, "name": event.name, "item": event.item}
    if isinstance(event, AgentUpdatedStreamEvent):
        return {"type": event.type, "new_agent": agent_json(event.new_agent)}
    return {"type": event.type} | {f.name: getattr(event, f.name) for f in fields(event)}


def entry_from(plain: Any) -> Entry:
    """The entry that `plain`, the decoded JSON of one, stands for.

    Raises:
        DecodeError: it is not an entry.
    """
    envelope = _object(plain, "an entry")
    try:
        stamp = Stamp(
            run_id=envelope["run_id"],
            agent=envelope["agent"],
            turn=envelope["turn"],
            depth=envelope["depth"],
            parent_run_id=envelope["parent_run_id"],
            time=envelope["time"],
            path=_path_from(envelope.get("path", [])),
        )
        return Entry(envelope["position"], stamp, event_from(envelope["event"]))
    except KeyError as error:
        raise DecodeError(f"An entry has no field {error.args[0]!r}.") from None


def _path_from(plain: Any) -> tuple[str, ...]:
    if not isinstance(plain, list | tuple):
        raise DecodeError(f"The path of an entry is a list of call ids, not {type(plain).__name__}.")
    return tuple(cast("Sequence[str]", plain))


def event_from_json(data: bytes | str) -> Event:
    """Read what `to_json` of an event wrote.

    Raises:
        DecodeError: the bytes are not an event of this vocabulary.
    """
    return event_from(codec.decode(data))


def event_from(plain: Any) -> Event:
    """The event that `plain`, the decoded JSON of one, stands for."""
    data = dict(_object(plain, "an event"))
    kind = data.pop("type", None)
    cls = EVENT_TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise DecodeError(f"{kind!r} is not the type of an event.")
    if cls is RawResponsesStreamEvent:
        return RawResponsesStreamEvent.from_wire(codec.encode(data.get("data")))
    if cls is AgentUpdatedStreamEvent:
        return AgentUpdatedStreamEvent(cast("Any", _agent_from(data.get("new_agent"))))
    if cls is RunItemStreamEvent:
        return RunItemStreamEvent(data.get("name", ""), item_from(data.get("item")))
    # A later version may have added fields; what is unknown here is left out.
    known = {f.name for f in fields(cls)}
    try:
        return cls(**{name: value for name, value in data.items() if name in known})
    except TypeError as error:
        raise DecodeError(f"{kind}: {error}") from None


def item_from(plain: Any) -> RunItem:
    """The item that `plain`, the decoded JSON of one, stands for. Agents come back as `AgentRef`s.

    Raises:
        DecodeError: it is not an item of ours.
    """
    data = dict(_object(plain, "an item"))
    kind = data.pop("type", None)
    cls = ITEM_TYPES.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise DecodeError(f"{kind!r} is not the type of an item.")
    for name in AGENT_FIELDS & data.keys():
        data[name] = _agent_from(data[name])
    if "raw_item" in data and kind not in _ANSWERS:
        data["raw_item"] = raw.item_from(data["raw_item"])
    if "tool_origin" in data:
        data["tool_origin"] = ToolOrigin.from_json_dict(data["tool_origin"])
    known = {f.name for f in fields(cls)}
    values: dict[str, Any] = {"agent": None, "raw_item": None}
    if kind == "tool_call_output_item":  # written where it is something else than what the model was sent
        values["output"] = raw_field(data.get("raw_item"), "output")
    values |= {name: value for name, value in data.items() if name in known}
    try:
        return cls(**values)
    except TypeError as error:
        raise DecodeError(f"{kind}: {error}") from None


# What a run itself answered is a plain dict, though models may output items of the same type.
_ANSWERS = frozenset(
    {"tool_call_output_item", "handoff_output_item", "mcp_approval_response_item", "input_item"}
)


def _agent_from(plain: Any) -> AgentRef:
    return AgentRef(str(_object(plain, "an agent").get("name") or ""))


def _object(plain: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(plain, Mapping):
        raise DecodeError(f"{what.capitalize()} is a JSON object, not {type(plain).__name__}.")
    return cast("Mapping[str, Any]", plain)
