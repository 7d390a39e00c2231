"""What a caller may ask of a server, by whichever transport: begin a run, follow it, stop it, decide over its calls, give it input.

Each command is a struct, which is also the body of its request and a message on a WebSocket, and a function
that does it. Who asks, and that the run is his, was seen to before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec

from millstream.attach import AttachedRun
from millstream.delivery.feed import Feed
from millstream.errors import LogGapError, UserError
from millstream.events import EVENT_TYPES, CancelMode
from millstream.log.conversation import CONVERSATION_ID
from millstream.server.answers import NO_AGENT, NO_AGENT_NAMED, NO_POSITION, ProblemError, invalid
from millstream.server.supervisor import Order
from millstream.stream.filter import EntryFilter

if TYPE_CHECKING:
    from millstream.delivery.feed import Entries
    from millstream.log.store import RunRecord
    from millstream.server.service import Service


DEEPEST = 100
"""Levels of nesting that a follower may name."""

_TYPES = [{"enum": sorted(EVENT_TYPES)}, {"pattern": "^response[.]"}, {"const": "error"}]
_EventType = Annotated[str, msgspec.Meta(extra_json_schema={"anyOf": _TYPES})]
"""A type of events, or of the model's own: `EntryFilter` sees to it."""


class Start(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Begin a run."""

    input: Annotated[str | list[dict[str, Any]], msgspec.Meta(examples=["Hello there."])]
    agent: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    """May be left out where there is one agent only."""
    stream: Annotated[bool, msgspec.Meta(examples=[True, False])] = False
    """Whether the answer is the run's stream; else it is the run's record, at once."""
    on_disconnect: Literal["continue", "cancel"] = "continue"
    """What becomes of the run where the answer is its stream, and the client leaves before its end."""
    max_turns: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] | None = 10
    context: dict[str, Any] | None = None
    conversation: Annotated[str, msgspec.Meta(pattern=CONVERSATION_ID)] | None = None
    """The conversation that it goes on with, or begins; one of its caller's. Without one it goes on with nothing."""


class Follow(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Follow a run."""

    after: Annotated[int, msgspec.Meta(ge=0)] | None = None
    """The position that the client has; without it, all is sent from the first entry on."""
    types: list[_EventType] | None = None
    """The types of events that are sent, and of the model's own; all where it is left out."""
    depth: Annotated[int, msgspec.Meta(ge=0, le=DEEPEST)] | None = None
    """How deep a run may be nested whose entries are sent: 0 for this run alone."""
    until: Literal["end", "pause"] = "end"
    """Whether the stream ends where the run waits for decisions, too."""


class Cancel(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Stop a run."""

    mode: CancelMode = "now"


class Decide(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Decide over a call that waits."""

    call_id: str
    approved: bool
    always: bool = False
    message: str | None = None
    """What the model is told of a call that is rejected."""
    arguments: dict[str, Any] | None = None
    """What the tool gets in place of the model's own arguments, where it is approved."""


class Input(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Give a run more input."""

    input: str | list[dict[str, Any]]
    when: CancelMode = "now"


async def start(service: Service, caller: str, said: Start, key: str | None) -> RunRecord:
    """Begin a run; its record, or that of the run which the idempotency key began before.

    Raises:
        ProblemError: there is no such agent, the key is none, or the caller has as many runs as he may.
        InputItemError: its input is none that models take.
        IdempotencyError: the key was used for another request.
        ConversationBusyError: a run of its conversation is going.
        ServerStoppingError: nothing is begun any more.
    """
    agent = said.agent or service.only_agent
    if agent is None:
        raise ProblemError(NO_AGENT_NAMED)
    if not service.knows(agent):
        raise ProblemError(NO_AGENT)
    if key is not None and not 0 < len(key) <= 255:
        raise ProblemError(invalid("Idempotency-Key", "a text of 1 to 255 characters"))
    order = Order(
        agent=agent,
        input=said.input,
        caller=caller,
        context=said.context,
        max_turns=said.max_turns,
        idempotency_key=key,
        conversation=said.conversation or "",
    )
    return await service.supervisor.begin(order)


async def follow(service: Service, record: RunRecord, said: Follow) -> Feed | None:
    """What is sent to one who follows a run; None where nothing is left of it for him.

    Raises:
        ProblemError: a position that the run has not come to, or a type of no event.
        LogGapError: the position is no longer held.
    """
    after = said.after or 0
    if after > record.last:
        raise ProblemError(NO_POSITION)
    stands = record.has_ended or (said.until == "pause" and record.status == "paused")
    if stands and after == record.last:
        return None
    if record.last:
        info = await service.store.info(record.run_id)
        if after + 1 < info.first:
            raise LogGapError(record.run_id, after + 1, info.first)
    return feed_of(service, record, said)


def feed_of(service: Service, record: RunRecord, said: Follow) -> Feed:
    """What is sent to one who follows a run from a position that it has.

    Raises:
        ProblemError: a type of no event.
    """
    after = said.after or 0
    return Feed(
        cast("Entries", AttachedRun(record.run_id, service.store).entries(after, until=said.until)),
        record.run_id,
        clock=service.clock,
        after=after,
        wanted=wanted_by(said),
        heartbeat=service.heartbeat,
    )


def wanted_by(said: Follow) -> EntryFilter:
    """Which entries one who follows a run is sent.

    Raises:
        ProblemError: a type of no event.
    """
    try:
        return EntryFilter.of("follow", depth=said.depth, types=said.types or None)
    except UserError:
        raise ProblemError(invalid("types", "types of events that there are")) from None


async def cancel(service: Service, record: RunRecord, said: Cancel) -> None:
    """Stop a run. May be said any number of times."""
    await AttachedRun(record.run_id, service.store).cancel(said.mode)


async def decide(service: Service, record: RunRecord, said: Decide) -> list[str]:
    """Decide over a call that waits; the ids of those that wait still. Where none does, the run goes on.

    Raises:
        ApprovalError: no such call waits, or it was decided over in another way before.
    """
    run = AttachedRun(record.run_id, service.store)
    if said.approved:
        await run.approve(said.call_id, said.always, arguments=said.arguments)
    else:
        await run.reject(said.call_id, said.always, rejection_message=said.message)
    waiting = await run.waiting()
    if not waiting:
        await service.supervisor.resume(run.run_id)
    return waiting


async def give_input(service: Service, record: RunRecord, said: Input) -> None:
    """Give a run more input.

    Raises:
        InputItemError: it is none that models take.
        UserError: the run is over.
    """
    await AttachedRun(record.run_id, service.store).send(cast("Any", said.input), said.when)
