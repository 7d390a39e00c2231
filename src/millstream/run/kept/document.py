"""The form of a run's state as JSON: names, types and limits of everything that may stand in it.

A state is read by these classes alone: what they do not name is passed over, what is of another
kind is refused with its place in the document. None of the classes does anything.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec

SCHEMA = "millstream.run_state"
VERSION = 1
"""Counts up when an older version could not read, or would misread, what is written."""

Count: TypeAlias = Annotated[int, msgspec.Meta(ge=0)]
Json: TypeAlias = dict[str, Any]


class UsageDocument(msgspec.Struct, kw_only=True):
    """Tokens, in all and by request."""

    requests: Count = 0
    input_tokens: Count = 0
    output_tokens: Count = 0
    total_tokens: Count = 0
    cached_tokens: Count = 0
    cache_write_tokens: Count = 0
    reasoning_tokens: Count = 0
    estimated: bool = False
    entries: list[UsageDocument] = []


class ResponseDocument(msgspec.Struct, kw_only=True):
    """One answer of a model."""

    output: list[Json]
    usage: UsageDocument
    response_id: str | None = None
    request_id: str | None = None
    raw_usage: Json | None = None


class DecisionDocument(msgspec.Struct, kw_only=True):
    """A decision: over one call, or for always where it names no call."""

    agent: str
    tool: str
    approved: bool
    call_id: str | None = None
    call_arguments: str = ""
    nth: Count = 0
    message: str | None = None
    arguments: str | None = None


class ConversationDocument(msgspec.Struct, kw_only=True):
    """What the model's server remembers."""

    previous_response_id: str | None = None
    conversation_id: str | None = None
    auto: bool = False
    known_items: Count = 0
    knows_input: bool = False


class VerdictDocument(msgspec.Struct, kw_only=True):
    """What a guardrail found."""

    guardrail: str
    info: Any = None
    tripped: bool = False
    behavior: Json = {}
    agent: str | None = None
    output: Any = None


class ContextDocument(msgspec.Struct, kw_only=True):
    """The program's own context object."""

    kind: Literal["none", "json", "custom", "omitted"] = "none"
    """What became of it: "custom" was made of it, and only the program can make it of that again."""
    type: str = "NoneType"
    """The class that it was of: for people, and never looked up."""
    value: Any = None


class StateDocument(msgspec.Struct, kw_only=True):
    """The whole document. Numbers in lists name items by their place in `items`."""

    schema: str
    run_id: str
    agent: str
    input: str | list[Json]
    outcome: Literal["running", "paused", "completed", "failed", "cancelled"]
    """How the run was left; "running" for a checkpoint that it wrote on its way."""
    position: Count = 0
    resumed_by: str | None = None
    """The run that has gone on from here already."""
    turn: Count = 0
    max_turns: Annotated[int, msgspec.Meta(ge=1)] | None = None
    items: list[Json] = []
    new_items: list[Count] = []
    model_items: list[Count] = []
    input_has: list[Count] = []
    turn_items: list[Count] = []
    has_said: bool = True
    """Whether the model has answered in that turn, so that what is left of it is what it asked for."""
    waiting: dict[str, Count] = {}
    """The items that ask for a decision, by the place of the call among those of its turn."""
    nested: dict[str, StateDocument] = {}
    """The states of runs that are paused inside of a call, by its place."""
    responses: list[ResponseDocument] = []
    verdicts: dict[str, list[VerdictDocument]] = {}
    """Those of guardrails, by the names of their lists in a result."""
    usage: UsageDocument = msgspec.field(default_factory=UsageDocument)
    context: ContextDocument = msgspec.field(default_factory=ContextDocument)
    decisions: list[DecisionDocument] = []
    pending_input: list[Json] = []
    conversation: ConversationDocument = msgspec.field(default_factory=ConversationDocument)
    have_used_tools: list[str] = []
    omits_reasoning_ids: bool = False
    stored_items: Count | None = None
    heard: Count = 0
    """How many commands of its mail were followed."""
    is_durable: bool = False
    """Whether the run stands in a log that other processes can go on with."""
