"""Runs: start one, look at it, list them, forget one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import msgspec

from millstream.attach import AttachedRun
from millstream.errors import UserError
from millstream.log.store import RunStatus
from millstream.server import commands
from millstream.server.answers import answer
from millstream.server.reading import record_of
from millstream.server.routes.follow import Following, streamed

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from millstream.log.store import RunRecord
    from millstream.server.endpoint import Asked

LISTED = 100
"""Runs that one listing has at most."""


class StartHeaders(msgspec.Struct):
    """What the headers of a start may say."""

    key: Annotated[str, msgspec.Meta(min_length=1, max_length=255)] | None = msgspec.field(
        name="Idempotency-Key", default=None
    )
    """Of requests with one key, the first begins a run, and all are answered by that run."""


class RunListing(msgspec.Struct):
    """Which runs are listed."""

    limit: Annotated[int, msgspec.Meta(ge=0, le=LISTED)] = 20
    """How many at most."""
    status: list[RunStatus] = []
    """Those that stand so; all where none is named."""
    conversation: str | None = None
    """Those of this conversation."""
    before: str | None = None
    """Those older than this run."""


class RunShown(msgspec.Struct, kw_only=True):
    """A run, as clients see it."""

    run_id: str
    agent: str
    """The name of its first agent."""
    conversation: str | None
    """The conversation that it belongs to."""
    status: RunStatus
    code: str | None
    """Why it failed, where it did."""
    created: float
    """When, in seconds since the epoch; as is `updated`."""
    updated: float
    """When anything was written to it last."""
    position: int
    """The last position of its stream."""
    attempts: int
    """How many owners it has had."""
    is_owned: bool
    """Whether somebody drives it at this moment."""

    @classmethod
    def of(cls, record: RunRecord, **more: Any) -> Self:
        """What of `record` is shown, and `more`."""
        return cls(
            run_id=record.run_id,
            agent=record.agent,
            conversation=record.conversation or None,
            status=record.status,
            code=record.code,
            created=record.created,
            updated=record.updated,
            position=record.last,
            attempts=record.epoch,
            is_owned=record.is_owned,
            **more,
        )


class RunStanding(RunShown, kw_only=True):
    """A run, and what it waits for."""

    waiting: list[str]
    """The ids of the calls that wait for a decision, where it is paused."""


class Runs(msgspec.Struct):
    """Runs of the caller."""

    runs: list[RunShown]
    """The newest first."""


class Deleted(msgspec.Struct):
    """A run that is forgotten."""

    deleted: str
    """Its id."""


async def start(asked: Asked[commands.Start, Following, StartHeaders]) -> Response:
    """Begin a run. The answer is its record (202), with its address as `Location`.

    It is its stream (200) where the body says so, or an `Accept` header of `text/event-stream`.
    """
    service = asked.service
    streams = asked.body.stream or _wants_stream(asked.request)
    commands.wanted_by(asked.query)
    if streams:
        service.places.check(asked.caller)  # before a run is begun that is then not told of
    record = await commands.start(service, asked.caller, asked.body, asked.headers.key)
    if streams:
        feed = commands.feed_of(service, record, msgspec.structs.replace(asked.query, after=0))
        left = asked.body.on_disconnect
        return streamed(feed, asked.caller, service, named=asked.query.named, on_disconnect=left)
    where = asked.request.url_for("run", run_id=record.run_id).path
    return answer(RunShown.of(record), 202, location=where)


def _wants_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


async def show(asked: Asked) -> Response:
    """What is known of a run; of one that is paused, which calls wait."""
    record = await asked.run()
    waiting: list[str] = []
    if record.status == "paused":
        waiting = await AttachedRun(record.run_id, asked.service.store).waiting()
    return answer(RunStanding.of(record, waiting=waiting))


async def listing(asked: Asked[None, RunListing]) -> Response:
    """The caller's runs, the newest first."""
    store, query = asked.service.store, asked.query
    if query.before is not None:
        await record_of(query.before, store, asked.caller)
    records = await store.runs(
        caller=asked.caller,
        statuses=query.status,
        conversation=query.conversation,
        limit=query.limit,
        before=query.before,
    )
    return answer(Runs([RunShown.of(record) for record in records]))


async def delete(asked: Asked) -> Response:
    """Forget a run that has ended."""
    record = await asked.run()
    if not record.has_ended:
        raise UserError(f"Run {record.run_id} is {record.status}: stop it before it is forgotten.")
    await asked.service.store.delete(record.run_id)
    return answer(Deleted(record.run_id))
