"""A run's state as a JSON document, and back.

Rules of this file:

1. The document is data. Nothing in it is imported, evaluated or looked up among classes: its
   form is `StateDocument`, items and payloads have the closed sets of classes that `events`
   and `raw` know, and agents are found by name among those that the program passes.
2. What cannot be used is a `RunStateError` that says where, whatever the document is.
3. What has no JSON (an output of a tool's own class, say) is a marked placeholder, as in the
   log; what the next model call is given is JSON anyway, and is kept whole.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import msgspec

from millstream import codec, raw
from millstream.agent.as_tool import agent_of
from millstream.approval import CallKey, Decision, Decisions, ToolKey
from millstream.context import RunContextWrapper
from millstream.errors import DecodeError, InputItemError, RunStateError, RunStateVersionError
from millstream.events import item_from
from millstream.handoff import Handoff
from millstream.items import AGENT_FIELDS, ModelResponse, RunItem, raw_field
from millstream.run.conversation import Conversation
from millstream.run.input import check_input
from millstream.run.kept.document import (
    SCHEMA,
    VERSION,
    ContextDocument,
    ConversationDocument,
    DecisionDocument,
    ResponseDocument,
    StateDocument,
    UsageDocument,
)
from millstream.run.kept.verdicts import take_verdicts, verdicts_of
from millstream.run.state import Left, RunProgress
from millstream.run.turn import Turn
from millstream.usage import RequestUsage, Usage

if TYPE_CHECKING:
    from millstream.agent import Agent

logger = logging.getLogger("millstream")


# --- to JSON ---------------------------------------------------------------------------------


def to_json(progress: RunProgress, context: ContextDocument) -> dict[str, Any]:
    """The document of a run that waits, or has ended, as plain values; `context` stands for the program's object."""
    return cast("dict[str, Any]", msgspec.to_builtins(document_of(progress, context)))


def document_of(
    progress: RunProgress, context: ContextDocument | None, items: Items | None = None
) -> StateDocument:
    """The document of a run; of one that is nested without what all runs of its tree share, as there is no `context`.

    Args:
        progress: the state of the run.
        context: what stands for the program's object.
        items: writes its items; the document has a copy of what it has written by then.
    """
    shared: dict[str, Any] = {"usage": _usage(progress.used)}
    if context is not None:
        wrapper = progress.context_wrapper
        shared = shared_by_tree(context, wrapper.usage, wrapper.decisions)
    items = items or Items(progress.run_id)
    left = progress.left or Left("running")
    return StateDocument(
        schema=f"{SCHEMA}/{VERSION}",
        run_id=progress.run_id,
        agent=progress.current_agent.name,
        input=progress.input if isinstance(progress.input, str) else items.plain_all(progress.input),
        outcome=left.outcome,
        position=left.position,
        resumed_by=left.resumed_by,
        turn=progress.current_turn,
        max_turns=progress.max_turns,
        new_items=items.places(progress.new_items),
        model_items=items.places(progress.model_items),
        input_has=items.places(progress.input_has),
        turn_items=items.places(progress.turn.items if progress.turn is not None else ()),
        waiting={str(place): items.place(item) for place, item in progress.waiting.items()},
        nested={str(place): document_of(each, None) for place, each in progress.nested.items()},
        responses=[_response(items, each) for each in progress.raw_responses],
        verdicts=verdicts_of(progress),
        pending_input=items.plain_all(progress.pending_input),
        conversation=ConversationDocument(**asdict(progress.conversation)),
        have_used_tools=sorted(set(progress.have_used_tools.values())),
        omits_reasoning_ids=progress.omits_reasoning_ids,
        stored_items=progress.stored_items,
        heard=progress.heard,
        is_durable=left.is_durable,
        items=items.written.copy(),
        **shared,
    )


def shared_by_tree(context: ContextDocument, usage: Usage, decisions: Decisions) -> dict[str, Any]:
    """The fields of a document that all runs of a tree share: the root's has them."""
    return {"context": context, "usage": _usage(usage), "decisions": _decisions(decisions)}


class Items:
    """Items of a run, each written once, however many lists and documents have it."""

    def __init__(self, run_id: str) -> None:
        self.written: list[dict[str, Any]] = []
        self._run_id = run_id
        self._places: dict[int, int] = {}
        self._known: list[RunItem] = []
        """Those that have a place: while it is kept, an `id()` is nobody else's."""

    def places(self, items: Iterable[RunItem]) -> list[int]:
        """The places of `items` among those that are written."""
        return [self.place(item) for item in items]

    def place(self, item: RunItem) -> int:
        """The place of `item`, which is written if it was not."""
        place = self._places.get(id(item))
        if place is None:
            place = self._places[id(item)] = len(self.written)
            self.written.append(self.plain(item))
            self._known.append(item)
        return place

    def plain_all(self, values: Iterable[Any]) -> list[dict[str, Any]]:
        """As `plain`, each."""
        return [self.plain(value) for value in values]

    def plain(self, value: Any) -> dict[str, Any]:
        """`value` as plain JSON values, with a line in the log where something in it has none."""
        bad: list[codec.BadField] = []
        plain = codec.decode(codec.encode(value, bad=bad))
        codec.log_bad_fields(logger, bad, f"a state ({type(value).__name__})", self._run_id)
        return plain


def _response(items: Items, response: ModelResponse) -> ResponseDocument:
    return ResponseDocument(
        output=[codec.decode(raw.encode(output)) for output in response.output],
        usage=_usage(response.usage),
        response_id=response.response_id,
        request_id=response.request_id,
        raw_usage=None if response.raw_usage is None else items.plain(response.raw_usage),
    )


def _usage(usage: Usage | RequestUsage) -> UsageDocument:
    read, written = usage.input_tokens_details, usage.output_tokens_details
    return UsageDocument(
        requests=usage.requests if isinstance(usage, Usage) else 1,
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.total_tokens,
        cached_tokens=getattr(read, "cached_tokens", 0) or 0,
        cache_write_tokens=getattr(read, "cache_write_tokens", 0) or 0,
        reasoning_tokens=getattr(written, "reasoning_tokens", 0) or 0,
        estimated=isinstance(usage, Usage) and usage.estimated,
        entries=[_usage(each) for each in usage.request_usage_entries] if isinstance(usage, Usage) else [],
    )


def _decisions(decisions: Decisions) -> list[DecisionDocument]:
    once = [
        DecisionDocument(
            agent=key.agent,
            tool=key.tool,
            approved=decision.approved,
            call_id=key.call_id,
            call_arguments=key.arguments,
            nth=key.nth,
            message=decision.message,
            arguments=decision.arguments,
        )
        for key, decision in decisions.once.items()
    ]
    always = [
        DecisionDocument(agent=key.agent, tool=key.tool, approved=decision.approved, message=decision.message)
        for key, decision in decisions.always.items()
    ]
    return [*once, *always]


# --- from JSON -------------------------------------------------------------------------------


def read(data: Any) -> StateDocument:
    """The document that `data`, JSON text or the values of it, is.

    Raises:
        RunStateVersionError: it was written by a newer version.
        RunStateError: it is no state, or a damaged one; says where.
    """
    try:
        if not isinstance(data, str | bytes):
            data = msgspec.json.encode(data)  # plain values from here on, and none that the caller may change
        plain = codec.decode(data)
    except (DecodeError, TypeError, ValueError, RecursionError, msgspec.MsgspecError) as error:
        raise RunStateError(f"This is not the state of a run, which is JSON: {error}") from None
    _check_version(plain)
    try:
        return msgspec.convert(plain, StateDocument)
    except msgspec.ValidationError as error:
        raise _damaged(str(error)) from None


def _check_version(plain: Any) -> None:
    schema = cast("dict[str, Any]", plain).get("schema") if isinstance(plain, dict) else None
    name, _, number = schema.partition("/") if isinstance(schema, str) else ("", "", "")
    if name != SCHEMA or not (number.isascii() and number.isdigit()) or len(number) > 9:
        sdk = isinstance(plain, dict) and "$schemaVersion" in plain
        hint = " It was written by the OpenAI Agents SDK: finish the run there." if sdk else ""
        raise RunStateError(
            f"This is not the state of a run: it has no `schema` of the form '{SCHEMA}/{VERSION}'.{hint}"
        )
    if not 1 <= int(number) <= VERSION:
        raise RunStateVersionError(int(number), VERSION)


Agents: TypeAlias = "Mapping[str, Sequence[Agent[Any]]]"
"""Those that there are, by their names."""


def progress_from(document: StateDocument, agents: Agents, context: RunContextWrapper[Any]) -> RunProgress:
    """The state that `document` tells of; `context` is given its usage and its decisions.

    Raises:
        RunStateError: it contradicts itself, or names an agent that is not there, or is there twice.
    """
    current = _agent(document.agent, agents)
    items = [_item(place, plain, agents) for place, plain in enumerate(document.items)]

    def pick(name: str, places: Iterable[int]) -> list[Any]:
        try:
            return [items[place] for place in places]
        except IndexError:
            raise _damaged(f"{name} names an item that is not there") from None

    used = context.usage = _usage_from(document.usage)
    context.decisions = _decisions_from(document.decisions)
    progress = RunProgress(
        run_id=document.run_id,
        input=_input(document.input, "input"),
        current_agent=current,
        context_wrapper=context,
        max_turns=document.max_turns,
        new_items=pick("new_items", document.new_items),
        model_items=pick("model_items", document.model_items),
        input_has=pick("input_has", document.input_has),
        raw_responses=[_response_from(each) for each in document.responses],
        current_turn=document.turn,
        pending_input=_input(document.pending_input, "pending_input"),
        conversation=Conversation(**msgspec.structs.asdict(document.conversation)),
        omits_reasoning_ids=document.omits_reasoning_ids,
        stored_items=document.stored_items,
        heard=document.heard,
        used=used,
        have_used_tools={id(a): a.name for name in document.have_used_tools for a in agents.get(name, ())},
        left=Left(
            document.outcome,
            document.position,
            is_durable=document.is_durable,
            resumed_by=document.resumed_by,
        ),
    )
    take_verdicts(progress, document.verdicts, lambda name: next(iter(agents.get(name, ())), None))
    if document.outcome in ("running", "paused") and document.has_said:
        progress.turn = Turn.said_before(current, pick("turn_items", document.turn_items))
        waiting = pick("waiting", document.waiting.values())
        progress.waiting = dict(zip(_places(progress, document.waiting), waiting, strict=True))
        for place, name in zip(_places(progress, document.nested), document.nested, strict=True):
            progress.nested[place] = _nested(progress, place, document.nested[name])
        _check_waiting(progress)
        progress.interruptions = progress.all_waiting()
    return progress


def _nested(progress: RunProgress, place: int, document: StateDocument) -> RunProgress:
    """The run that is paused inside of a call: of the agent that the called tool runs."""
    name = raw_field(cast("Turn", progress.turn).calls()[place], "name")
    tools = [tool for tool in progress.current_agent.tools if getattr(tool, "name", None) == name]
    agent = next((agent for tool in tools if (agent := agent_of(tool)) is not None), None)
    if agent is None:
        raise RunStateError(
            f"In the state, a run is paused inside of the tool {name!r}, and agent {progress.current_agent.name!r} has "
            "no agent that is a tool of that name: pass the agent that the run was started with."
        )
    return progress_from(document, agents_by_name(agent), RunContextWrapper(context=None))


def _places(progress: RunProgress, places: Iterable[str]) -> list[int]:
    """The places of calls of a turn, which are the keys of an object."""
    calls = progress.turn.calls() if progress.turn is not None else []
    known = {str(place): place for place in range(len(calls))}
    try:
        return [known[place] for place in places]
    except KeyError as error:
        raise _damaged(f"its turn has no call {error.args[0]!r}") from None


def _check_waiting(progress: RunProgress) -> None:
    turn = progress.turn
    for call in turn.calls() if turn is not None else ():
        fields = ("name", "call_id", "arguments")
        if not all(isinstance(raw_field(call, name), str) for name in fields):
            raise _damaged("a call of its turn lacks name, call_id or arguments")
    if any(item.type != "tool_approval_item" for item in progress.waiting.values()):
        raise _damaged("waiting names an item that asks for no approval")


def _damaged(what: str) -> RunStateError:
    return RunStateError(f"The state of a run cannot be used: {what}.")


def agents_by_name(agent: Agent[Any]) -> dict[str, list[Agent[Any]]]:
    """`agent` and all that it can hand over to, in any number of steps and also where that is disabled."""
    found: dict[int, Agent[Any]] = {id(agent): agent}
    waiting = [agent]
    while waiting:
        for each in waiting.pop().handoffs:
            target: Any = each.leads_to if isinstance(each, Handoff) else each
            if hasattr(target, "handoffs") and id(target) not in found:
                found[id(target)] = target
                waiting.append(target)
    named: dict[str, list[Agent[Any]]] = {}
    for each in found.values():
        named.setdefault(each.name, []).append(each)
    return named


def _agent(name: str, agents: Agents) -> Agent[Any]:
    found = agents.get(name, ())
    if len(found) == 1:
        return found[0]
    if found:
        raise RunStateError(
            f"The state is of agent {name!r}, and {len(found)} agents have that name: give each a name of its own "
            "before the run begins."
        )
    raise RunStateError(
        f"The state is of agent {name!r}, which is not here. There are: {', '.join(sorted(agents))}. Pass the agent "
        "that the run was started with, or another from which that one can be reached by handoffs."
    )


def _item(place: int, plain: dict[str, Any], agents: Agents) -> RunItem:
    try:
        item = item_from(plain)
        item.to_input_item()
    except (
        Exception
    ) as error:  # payloads are built by classes of `openai`, which say in many ways that they cannot
        raise _damaged(f"items[{place}]: {error}") from None
    for name in AGENT_FIELDS & item.__dict__.keys():
        known = agents.get(getattr(getattr(item, name), "name", ""), ())
        if len(known) == 1:  # else it keeps the name alone: it acts no more
            setattr(item, name, known[0])
    return item


def _input(given: str | list[dict[str, Any]], name: str) -> Any:
    try:
        return check_input(given)
    except InputItemError as error:
        raise _damaged(f"{name}: {error}") from None


def _response_from(document: ResponseDocument) -> ModelResponse:
    try:
        output = [raw.item_from(each) for each in document.output]
    except Exception as error:  # as for items
        raise _damaged(f"an answer of a model: {error}") from None
    return ModelResponse(
        output=output,
        usage=_usage_from(document.usage),
        response_id=document.response_id,
        request_id=document.request_id,
        raw_usage=document.raw_usage,
    )


def _usage_from(document: UsageDocument) -> Usage:
    usage = Usage(
        requests=document.requests,
        input_tokens=document.input_tokens,
        output_tokens=document.output_tokens,
        total_tokens=document.total_tokens,
        request_usage_entries=[_request_from(each) for each in document.entries],
        estimated=document.estimated,
    )
    _tell_details(usage, document)
    return usage


def _request_from(document: UsageDocument) -> RequestUsage:
    usage = RequestUsage(document.input_tokens, document.output_tokens, document.total_tokens)
    _tell_details(usage, document)
    return usage


def _tell_details(usage: Usage | RequestUsage, document: UsageDocument) -> None:
    usage.input_tokens_details.cached_tokens = document.cached_tokens
    usage.input_tokens_details.cache_write_tokens = document.cache_write_tokens
    usage.output_tokens_details.reasoning_tokens = document.reasoning_tokens


def _decisions_from(documents: Sequence[DecisionDocument]) -> Decisions:
    decisions = Decisions()
    for each in documents:
        decision = Decision(each.approved, each.message, each.arguments)
        if each.call_id is None:
            decisions.always[ToolKey(each.agent, each.tool)] = decision
        else:
            key = CallKey(each.agent, each.tool, each.call_id, each.call_arguments, each.nth)
            decisions.once[key] = decision
    return decisions
