"""Runs: start one, look at it, list them, forget one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from millstream.attach import AttachedRun
from millstream.errors import UserError
from millstream.log.store import RunStatus
from millstream.server.answers import NO_AGENT, ProblemError, answer, invalid
from millstream.server.reading import body_of, caller_of, query_number, record_of
from millstream.server.routes.follow import stream
from millstream.server.supervisor import Order

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from millstream.log.store import RunRecord
    from millstream.server.service import Service

LISTED = 100
"""Runs that one listing has at most."""


class Start(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """The body of `POST /runs`."""

    input: str | list[dict[str, Any]]
    agent: str | None = None
    """May be left out where there is one agent only."""
    stream: bool = False
    """Whether the answer is the run's stream; else it is the run's record, at once."""
    on_disconnect: Literal["continue", "cancel"] = "continue"
    """What becomes of the run where the answer is its stream, and the client leaves before its end."""
    max_turns: Annotated[int, msgspec.Meta(ge=1)] | None = 10
    context: dict[str, Any] | None = None


async def start(request: Request, service: Service) -> Response:
    """Begin a run. The answer is its record (202), or its stream."""
    caller = await caller_of(request, service.access)
    asked = await body_of(request, service, Start)
    agent = asked.agent or service.only_agent
    if agent is None or not service.knows(agent):
        raise ProblemError(NO_AGENT)
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= 255:
        raise ProblemError(invalid("Idempotency-Key", "a text of 1 to 255 characters"))
    order = Order(
        agent=agent,
        input=asked.input,
        caller=caller,
        context=asked.context,
        max_turns=asked.max_turns,
        idempotency_key=key,
    )
    streams = asked.stream or _wants_stream(request)
    if streams:
        service.places.check(caller)  # before a run is begun that is then not told of
    record = await service.supervisor.begin(order)
    if streams:
        return stream(request, service, record, after=0, on_disconnect=asked.on_disconnect)
    return answer(shown(record), 202, location=request.url_for("run", run_id=record.run_id).path)


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


async def show(request: Request, service: Service) -> Response:
    """What is known of a run; of one that is paused, which calls wait."""
    caller = await caller_of(request, service.access)
    record = await record_of(request, service.store, caller)
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
        request.path_params["run_id"] = before
        await record_of(request, service.store, caller)
    records = await service.store.runs(caller=caller, statuses=statuses, limit=limit, before=before)
    return answer({"runs": [shown(record) for record in records]})


async def delete(request: Request, service: Service) -> Response:
    """Forget a run that has ended."""
    caller = await caller_of(request, service.access)
    record = await record_of(request, service.store, caller)
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
