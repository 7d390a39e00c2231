"""Following a run: its stream from any position, as often as somebody likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from starlette.responses import Response

from millstream.attach import AttachedRun
from millstream.delivery.feed import Feed
from millstream.errors import LogGapError, UserError
from millstream.server.answers import ProblemError, invalid
from millstream.server.reading import asked_run, number_from, query_number
from millstream.server.streaming import Streamed
from millstream.stream.filter import EVERYTHING, EntryFilter

if TYPE_CHECKING:
    from starlette.requests import Request

    from millstream.delivery.feed import Entries
    from millstream.log.store import RunRecord
    from millstream.server.service import Service

DEEPEST = 100
"""Levels of nesting that a follower may name."""


async def follow(request: Request, service: Service) -> Response:
    """The stream of a run, from behind the position that the client has."""
    record = await asked_run(request, service)
    after = _after(request, record)
    if record.has_ended and after == record.last:
        return Response(status_code=204)  # at which browsers stop to reconnect
    if record.last:
        info = await service.store.info(record.run_id)
        if after + 1 < info.first:
            raise LogGapError(record.run_id, after + 1, info.first)
    return stream(request, service, record, after=after)


def stream(
    request: Request,
    service: Service,
    record: RunRecord,
    *,
    after: int,
    on_disconnect: Literal["continue", "cancel"] = "continue",
) -> Response:
    """An answer that streams the run from behind `after`, as the query wishes."""
    until: Any = request.query_params.get("until", "end")
    if until not in ("end", "pause"):
        raise ProblemError(invalid("until", '"end" or "pause"'))
    run = AttachedRun(record.run_id, service.store)
    feed = Feed(
        cast("Entries", run.entries(after, until=until)),
        record.run_id,
        clock=service.clock,
        after=after,
        wanted=_wanted(request),
        heartbeat=service.heartbeat,
    )
    return Streamed(
        feed,
        record.caller,
        service,
        named=request.query_params.get("named") == "1",
        headers={"x-run-id": run.run_id},
        on_left=run.cancel if on_disconnect == "cancel" else None,
    )


def _after(request: Request, record: RunRecord) -> int:
    """The position that the client has.

    A browser that comes back says so in its header, to the address with which it once began: the header is
    the newer one.
    """
    told: str | None = request.headers.get("last-event-id") or None
    if told is not None:
        return number_from(told, "Last-Event-ID", most=record.last)
    return query_number(request, "after", 0, most=record.last)


def _wanted(request: Request) -> EntryFilter:
    query = request.query_params
    if "types" not in query and "depth" not in query:
        return EVERYTHING
    depth = query_number(request, "depth", 0, most=DEEPEST) if "depth" in query else None
    types = [each for given in query.getlist("types") for each in given.split(",") if each]
    try:
        return EntryFilter.of("GET /runs/{id}/events", depth=depth, types=types or None)
    except UserError:
        raise ProblemError(invalid("types", "types of events that there are, with commas between")) from None
