"""What a client may do to a run: stop it, decide over its calls, give it input."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import msgspec

from millstream.attach import AttachedRun
from millstream.events import CancelMode
from millstream.server.answers import answer
from millstream.server.reading import body_of, caller_of, record_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from millstream.log.store import RunRecord
    from millstream.server.service import Service


class Cancel(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /runs/{run_id}/cancel`."""

    mode: CancelMode = "now"


class Decide(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /runs/{run_id}/decisions`."""

    call_id: str
    approved: bool
    always: bool = False
    message: str | None = None
    """What the model is told of a call that is rejected."""
    arguments: dict[str, Any] | None = None
    """What the tool gets in place of the model's own arguments, where it is approved."""


class Input(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /runs/{run_id}/input`."""

    input: str | list[dict[str, Any]]
    when: CancelMode = "now"


async def cancel(request: Request, service: Service) -> Response:
    """Stop a run. May be said any number of times."""
    run = await _run_of(request, service)
    await run.cancel((await body_of(request, service, Cancel)).mode)
    return answer({"run_id": run.run_id}, 202)


async def decide(request: Request, service: Service) -> Response:
    """Decide over a call that waits. The run goes on when nothing waits any more."""
    record = await _record_of(request, service)
    run = AttachedRun(record.run_id, service.store)
    said = await body_of(request, service, Decide)
    if said.approved:
        await run.approve(said.call_id, said.always, arguments=said.arguments)
    else:
        await run.reject(said.call_id, said.always, rejection_message=said.message)
    waiting = await run.waiting()
    if not waiting:
        await service.supervisor.resume(run.run_id, record.caller)
    return answer({"run_id": run.run_id, "waiting": waiting}, 202)


async def give_input(request: Request, service: Service) -> Response:
    """Give a run more input."""
    run = await _run_of(request, service)
    said = await body_of(request, service, Input)
    await run.send(cast("Any", said.input), said.when)
    return answer({"run_id": run.run_id}, 202)


async def _run_of(request: Request, service: Service) -> AttachedRun:
    return AttachedRun((await _record_of(request, service)).run_id, service.store)


async def _record_of(request: Request, service: Service) -> RunRecord:
    caller = await caller_of(request, service.access)
    return await record_of(request, service.store, caller)
