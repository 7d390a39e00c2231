"""All that a server does, a row for each: its routes and its OpenAPI document come of this table."""

from __future__ import annotations

from typing import Any

from millstream.server import commands
from millstream.server.endpoint import Endpoint
from millstream.server.routes import acting, follow, probe, runs, state

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
        answers={202: runs.RunShown, 200: "stream"},
    ),
    Endpoint(
        method="GET",
        path="/runs",
        name="runs",
        tag="runs",
        handler=runs.listing,
        query=runs.Listing,
        answers={200: runs.Runs},
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
    ),
    Endpoint(
        method="GET",
        path="/runs/{run_id}/events",
        name="events",
        tag="runs",
        handler=follow.follow,
        query=follow.Following,
        headers=follow.Resuming,
        answers={200: "stream", 204: None},
    ),
    Endpoint(
        method="POST",
        path="/runs/{run_id}/cancel",
        name="cancel",
        tag="runs",
        handler=acting.cancel,
        body=commands.Cancel,
        answers={202: acting.Taken},
    ),
    Endpoint(
        method="POST",
        path="/runs/{run_id}/decisions",
        name="decide",
        tag="runs",
        handler=acting.decide,
        body=commands.Decide,
        answers={202: acting.Decided},
    ),
    Endpoint(
        method="POST",
        path="/runs/{run_id}/input",
        name="input",
        tag="runs",
        handler=acting.give_input,
        body=commands.Input,
        answers={202: acting.Taken},
    ),
    Endpoint(
        method="GET",
        path="/probe",
        name="probe",
        tag="server",
        handler=probe.probe,
        query=probe.Probing,
        headers=probe.ProbeHeaders,
        answers={200: "stream"},
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
)
