"""All that a server does, a row for each: its routes and its OpenAPI document come of this table."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Any

from millstream.server import commands
from millstream.server.answers import (
    BAD_INPUT,
    BUSY,
    CONFLICT,
    GONE,
    KEY_TAKEN,
    NO_AGENT,
    NO_CONVERSATION,
    NO_DECISION,
    NO_POSITION,
    NO_RUN,
    NOT_POSSIBLE,
    RUN_OVER,
    STOPPING,
    TOO_MANY_RUNS,
    TOO_MANY_STREAMS,
    answer,
)
from millstream.server.endpoint import Endpoint, Stream
from millstream.server.openapi import document
from millstream.server.routes import acting, conversations, follow, probe, runs, state

if TYPE_CHECKING:
    from starlette.responses import Response

    from millstream.server.endpoint import Asked


async def described(asked: Asked) -> Response:
    """This document: what the server does, and what its streams send."""
    told = await asyncio.to_thread(_document)
    prefix = asked.request.scope.get("root_path", "")
    return answer({**told, "servers": [{"url": prefix or "/"}]})


@functools.cache
def _document() -> dict[str, Any]:
    return document(ENDPOINTS)


ENDPOINTS: tuple[Endpoint[Any, Any, Any], ...] = (
    Endpoint(
        method="POST",
        path="/runs",
        name="start",
        tag="runs",
        handler=runs.start,
        body=commands.Start,
        query=follow.Following,
        headers=runs.StartHeaders,
        answers={202: runs.RunShown, 200: Stream()},
        problems=(NO_AGENT, BAD_INPUT, KEY_TAKEN, BUSY, TOO_MANY_RUNS, TOO_MANY_STREAMS, STOPPING),
    ),
    Endpoint(
        method="GET",
        path="/runs",
        name="runs",
        tag="runs",
        handler=runs.listing,
        query=runs.RunListing,
        answers={200: runs.Runs},
        problems=(NO_RUN,),
    ),
    Endpoint(
        method="GET",
        path="/runs/{run_id}",
        name="run",
        tag="runs",
        handler=runs.show,
        answers={200: runs.RunStanding},
    ),
    Endpoint(
        method="DELETE",
        path="/runs/{run_id}",
        name="delete",
        tag="runs",
        handler=runs.delete,
        answers={200: runs.Deleted},
        problems=(NOT_POSSIBLE,),
    ),
    Endpoint(
        method="GET",
        path="/runs/{run_id}/events",
        name="events",
        tag="runs",
        handler=follow.follow,
        query=follow.Following,
        headers=follow.Resuming,
        answers={200: Stream(), 204: None},
        problems=(NO_POSITION, GONE, TOO_MANY_STREAMS),
    ),
    Endpoint(
        method="POST",
        path="/runs/{run_id}/cancel",
        name="cancel",
        tag="runs",
        handler=acting.cancel,
        body=commands.Cancel,
        answers={202: acting.Accepted},
    ),
    Endpoint(
        method="POST",
        path="/runs/{run_id}/decisions",
        name="decide",
        tag="runs",
        handler=acting.decide,
        body=commands.Decide,
        answers={202: acting.Decided},
        problems=(NO_DECISION, CONFLICT, RUN_OVER, NOT_POSSIBLE),
    ),
    Endpoint(
        method="POST",
        path="/runs/{run_id}/input",
        name="input",
        tag="runs",
        handler=acting.give_input,
        body=commands.Input,
        answers={202: acting.Accepted},
        problems=(BAD_INPUT, CONFLICT, RUN_OVER, NOT_POSSIBLE),
    ),
    Endpoint(
        method="GET",
        path="/conversations",
        name="conversations",
        tag="conversations",
        handler=conversations.listing,
        query=conversations.ConversationListing,
        answers={200: conversations.Conversations},
        problems=(NO_CONVERSATION,),
    ),
    Endpoint(
        method="GET",
        path="/conversations/{conversation}",
        name="conversation",
        tag="conversations",
        handler=conversations.show,
        query=conversations.ConversationShowing,
        answers={200: conversations.ConversationStanding},
        problems=(NO_CONVERSATION,),
    ),
    Endpoint(
        method="DELETE",
        path="/conversations/{conversation}",
        name="forget",
        tag="conversations",
        handler=conversations.forget,
        answers={200: conversations.Forgotten},
        problems=(BUSY,),
    ),
    Endpoint(
        method="GET",
        path="/probe",
        name="probe",
        tag="server",
        handler=probe.probe,
        query=probe.Probing,
        headers=probe.ProbeHeaders,
        answers={200: Stream(probe.ProbeFrame, headers={})},
        problems=(TOO_MANY_STREAMS,),
    ),
    Endpoint(
        method="GET",
        path="/health",
        name="health",
        tag="server",
        handler=state.health,
        answers={200: state.Health},
        is_open=True,
    ),
    Endpoint(
        method="GET",
        path="/ready",
        name="ready",
        tag="server",
        handler=state.ready,
        answers={200: state.Ready, 503: state.NotReady},
        is_open=True,
    ),
    Endpoint(
        method="GET",
        path="/version",
        name="version",
        tag="server",
        handler=state.version,
        answers={200: state.Version},
        is_open=True,
    ),
    Endpoint(
        method="GET",
        path="/openapi.json",
        name="openapi",
        tag="server",
        handler=described,
        answers={200: "any"},
    ),
)
