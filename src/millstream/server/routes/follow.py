"""Following a run: its stream from any position, as often as somebody likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, cast

from starlette.responses import Response

from millstream.attach import AttachedRun
from millstream.delivery.feed import Feed
from millstream.delivery.sse import SSE_HEADERS, SseFrames, send_stream
from millstream.errors import LogGapError, UserError
from millstream.server.answers import ProblemError, invalid, problem_answer
from millstream.server.reading import asked_run, number_from, query_number
from millstream.stream.filter import EVERYTHING, EntryFilter

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import Receive, Scope, Send

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
    named = request.query_params.get("named") == "1"
    return _Stream(run, record.caller, feed, service, named=named, cancels=on_disconnect == "cancel")


class _Stream(Response):
    """Streams one run to one client. Who leaves takes nothing with him, unless that was wished."""

    def __init__(
        self, run: AttachedRun, caller: str, feed: Feed, service: Service, *, named: bool, cancels: bool
    ) -> None:
        super().__init__(status_code=200, headers=SSE_HEADERS | {"x-run-id": run.run_id})
        self._run = run
        self._caller = caller
        self._feed = feed
        self._service = service
        self._named = named
        self._cancels = cancels

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service, feed = self._service, self._feed
        headers = [(name, value) for name, value in self.raw_headers if name != b"content-length"]
        pieces = _Pieces(SseFrames(feed, named=self._named), service)
        try:
            with service.streaming(feed, self._caller):
                await send_stream(
                    pieces,
                    (scope, receive, send),
                    headers,
                    run_id=self._run.run_id,
                    clock=service.clock,
                    send_timeout=service.send_timeout,
                )
        except ProblemError as refused:
            await problem_answer(refused.problem)(scope, receive, send)
        finally:
            left = not feed.is_over
            await feed.aclose()
            if left and self._cancels and not service.is_stopping:
                await self._run.cancel()


class _Pieces:
    """The pieces of a stream; where the server stops, the last one says when to come back."""

    def __init__(self, frames: SseFrames, service: Service) -> None:
        self._frames = frames
        self._service = service
        self._is_over = False

    def __aiter__(self) -> _Pieces:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._frames)
        except StopAsyncIteration:
            if self._is_over or not self._service.is_stopping:
                raise
            self._is_over = True
            return COME_BACK


COME_BACK = b"retry: %d\n\n" % 1000
"""Sent at the end of a stream whose server stops: milliseconds after which there should be another one."""


def _after(request: Request, record: RunRecord) -> int:
    """The position that the client has: what it says itself, or what its browser says for it."""
    told: str | None = request.headers.get("last-event-id") or None
    if "after" in request.query_params or told is None:
        return query_number(request, "after", 0, most=record.last)
    return number_from(told, "Last-Event-ID", most=record.last)


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
