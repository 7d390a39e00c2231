"""What a caller may ask of a server, by whichever transport: begin a run, stop it, decide over its calls, give it input.

Each command is a struct, which is also the body of its request and a message on a WebSocket, and a function
that does it. Who asks, and that the run is his, was seen to before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec

from millstream.attach import AttachedRun
from millstream.events import CancelMode
from millstream.server.answers import NO_AGENT, ProblemError, invalid
from millstream.server.supervisor import Order

if TYPE_CHECKING:
    from millstream.log.store import RunRecord
    from millstream.server.service import Service


class Start(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Begin a run."""

    input: str | list[dict[str, Any]]
    agent: str | None = None
    """May be left out where there is one agent only."""
    stream: bool = False
    """Whether the answer is the run's stream; else it is the run's record, at once."""
    on_disconnect: Literal["continue", "cancel"] = "continue"
    """What becomes of the run where the answer is its stream, and the client leaves before its end."""
    max_turns: Annotated[int, msgspec.Meta(ge=1)] | None = 10
    context: dict[str, Any] | None = None


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
        ServerStoppingError: nothing is begun any more.
    """
    agent = said.agent or service.only_agent
    if agent is None or not service.knows(agent):
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
    )
    return await service.supervisor.begin(order)


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
        await service.supervisor.resume(run.run_id, record.caller)
    return waiting


async def give_input(service: Service, record: RunRecord, said: Input) -> None:
    """Give a run more input.

    Raises:
        InputItemError: it is none that models take.
        UserError: the run is over.
    """
    await AttachedRun(record.run_id, service.store).send(cast("Any", said.input), said.when)
