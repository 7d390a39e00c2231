"""Following a run: its stream from any position, as often as somebody likes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from starlette.responses import Response

from millstream.attach import AttachedRun
from millstream.server import commands
from millstream.server.streaming import Streamed

if TYPE_CHECKING:
    from millstream.delivery.feed import Feed
    from millstream.server.endpoint import Asked
    from millstream.server.service import Service


class Following(commands.Follow, kw_only=True, forbid_unknown_fields=False):
    """What of a run is followed, and how it is told."""

    named: bool = False
    """Whether the type of each entry stands on an `event:` line, too."""


class Resuming(msgspec.Struct):
    """What the headers of a follower may say."""

    last_event_id: Annotated[int, msgspec.Meta(ge=0)] | None = msgspec.field(
        name="Last-Event-ID", default=None
    )
    """The position that the client has. Counts for more than `after`: a browser that comes back says it, to the address with which it once began."""


async def follow(asked: Asked[None, Following, Resuming]) -> Response:
    """The stream of a run, from behind the position that the client has. 204 where nothing is left of it."""
    record = await asked.run()
    said = asked.query
    if asked.headers.last_event_id is not None:
        said = msgspec.structs.replace(said, after=asked.headers.last_event_id)
    feed = await commands.follow(asked.service, record, said)
    if feed is None:
        return Response(status_code=204)  # at which browsers stop to reconnect
    return streamed(feed, record.caller, asked.service, named=said.named)


def streamed(
    feed: Feed,
    caller: str,
    service: Service,
    *,
    named: bool,
    on_disconnect: Literal["continue", "cancel"] = "continue",
) -> Response:
    """An answer that streams a run to `caller`."""
    return Streamed(
        feed,
        caller,
        service,
        named=named,
        headers={"x-run-id": feed.run_id},
        on_left=AttachedRun(feed.run_id, service.store).cancel if on_disconnect == "cancel" else None,
    )
