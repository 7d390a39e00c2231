"""Runs: start one, look at it, list them, forget one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.attach import AttachedRun
from millstream.errors import UserError
from millstream.log.store import RunStatus
from millstream.server import commands
from millstream.server.answers import ProblemError, answer, invalid
from millstream.server.reading import asked_run, body_of, caller_of, query_number, record_of
from millstream.server.routes.follow import stream

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from millstream.log.store import RunRecord
    from millstream.server.service import Service

LISTED = 100
"""Runs that one listing has at most."""


async def start(request: Request, service: Service) -> Response:
    """Begin a run. The answer is its record (202), or its stream."""
    caller = await caller_of(request, service.access)
    said = await body_of(request, service, commands.Start)
    streams = said.stream or _wants_stream(request)
    if streams:
        service.places.check(caller)  # before a run is begun that is then not told of
    record = await commands.start(service, caller, said, request.headers.get("idempotency-key"))
    if streams:
        return stream(request, service, record, after=0, on_disconnect=said.on_disconnect)
    return answer(shown(record), 202, location=request.url_for("run", run_id=record.run_id).path)


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


async def show(request: Request, service: Service) -> Response:
    """What is known of a run; of one that is paused, which calls wait."""
    record = await asked_run(request, service)
    told = shown(record)
    if record.status == "paused":
        told["waiting"] = await AttachedRun(record.run_id, service.store).waiting()
    return answer(told)


async def listing(request: Request, service: Service) -> Response:
    """The caller's runs, the newest first."""
    caller = await caller_of(request, service.access)
    limit = query_number(request, "limit", 20, most=LISTED)
    statuses: list[Any] = request.query_params.getlist("status")
    known = RunStatus.__args__
    if not set(statuses) <= set(known):
        raise ProblemError(invalid("status", "one of " + ", ".join(known)))
    before = request.query_params.get("before")
    if before is not None:
        await record_of(before, service.store, caller)
    records = await service.store.runs(caller=caller, statuses=statuses, limit=limit, before=before)
    return answer({"runs": [shown(record) for record in records]})


async def delete(request: Request, service: Service) -> Response:
    """Forget a run that has ended."""
    record = await asked_run(request, service)
    if not record.has_ended:
        raise UserError(f"Run {record.run_id} is {record.status}: stop it before it is forgotten.")
    await service.store.delete(record.run_id)
    return answer({"deleted": record.run_id})


def shown(record: RunRecord) -> dict[str, Any]:
    """A record, as clients see it."""
    return {
        "run_id": record.run_id,
        "agent": record.agent,
        "status": record.status,
        "code": record.code,
        "created": record.created,
        "updated": record.updated,
        "position": record.last,
        "attempts": record.epoch,
        "is_owned": record.is_owned,
    }
