"""The server as an ASGI application: alone, or mounted into another one."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import BaseRoute, Match, Route, WebSocketRoute

from millstream.clock import time_limit
from millstream.config import RunConfig
from millstream.delivery.options import HEARTBEAT_SECONDS, SEND_SECONDS
from millstream.errors import LogUnavailableError, UserError
from millstream.log.address import store_of
from millstream.recovery import MAX_ATTEMPTS, Recovery
from millstream.server import websocket
from millstream.server.access import checked_origins
from millstream.server.answers import (
    NO_ROUTE,
    TOO_MANY_STREAMS,
    WRONG_METHOD,
    answer_to_error,
    problem_answer,
)
from millstream.server.places import Places
from millstream.server.service import MAX_BODY, MAX_STREAMS, AgentBook, Agents, Service
from millstream.server.supervisor import MAX_RUNS, Supervisor
from millstream.server.table import ENDPOINTS

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from millstream.config import RunErrorHandlers
    from millstream.log.store import RunStore
    from millstream.recovery import ContextOf, SessionOf
    from millstream.server.access import Access
    from millstream.server.endpoint import Endpoint

ANSWER_SECONDS = 45.0
"""Seconds that an answer, or the head of a stream, may take once its request was read: more than any store has patience."""


def create_app(
    agents: Agents,
    *,
    access: Access,
    origins: Iterable[str] = (),
    log: RunStore | str = "sqlite:///millstream.db",
    run_config: RunConfig | dict[str, Any] | None = None,
    context_from: ContextOf | None = None,
    session_from: SessionOf | None = None,
    hooks: Any = None,
    error_handlers: RunErrorHandlers[Any] | None = None,
    max_attempts: int = MAX_ATTEMPTS,
    retention: float | None = None,
    heartbeat: float = HEARTBEAT_SECONDS,
    send_timeout: float = SEND_SECONDS,
    drain: float = 10.0,
    max_runs: int = MAX_RUNS,
    max_streams: int = MAX_STREAMS,
    max_body: int = MAX_BODY,
) -> Starlette:
    """A server of runs that survive their connections, and their process.

    ```python
    app = create_app(Agent(name="A", instructions="Be brief."), access=LOCAL)
    ```

    Args:
        agents: the agent, a list of agents, a dict of them by name, or a function that makes one of a
            `RunRecord`: it sees who calls.
        access: who may use it: `LOCAL`, `OPEN`, or a hook of your own that names the caller.
        origins: of pages that may use it from a browser, besides its own: `["https://app.example"]`. To these
            it says so (CORS), and to no other.
        log: where runs are kept: a store, or its address.
        run_config: how runs run; its log is not asked.
        context_from: makes a run's context object of its record; None for what the client sent.
        session_from: makes the session of a run, with its conversation, of its record; None for the one that the
            log keeps.
        hooks: as of `Runner.run`.
        error_handlers: as of `Runner.run`.
        max_attempts: as of `Runner.recover`.
        retention: seconds for which a run is kept behind its end; None for what the store does by itself.
        heartbeat: seconds of silence after which a stream says that it is alive.
        send_timeout: seconds that a client may take nothing before it is let go.
        drain: seconds that runs have to end when the server stops; those that do not are handed back.
        max_runs: runs that one caller may have going in this process at a time; more are answered 429.
        max_streams: streams that one caller may follow in this process at a time; as before.
        max_body: bytes that the body of a request may have.

    Raises:
        UserError: an argument that cannot work.
    """
    _check(access, max_runs=max_runs, max_streams=max_streams, max_body=max_body)
    book = AgentBook(agents)
    config = replace(RunConfig.of(run_config), log=None, caller="", idempotency_key=None)
    recovery = Recovery(
        log=store_of("create_app(log=...)", log),
        agent=book.agent_of,
        knows=book.knows,
        context_from=context_from,
        session_from=session_from,
        run_config=config,
        hooks=hooks,
        error_handlers=error_handlers,
        max_attempts=max_attempts,
    )
    return _application(
        Service(
            supervisor=Supervisor(recovery, retention=retention, max_runs=max_runs),
            agents=book,
            access=access,
            origins=checked_origins(origins),
            clock=config.clock,
            heartbeat=heartbeat,
            send_timeout=send_timeout,
            drain=drain,
            max_body=max_body,
            places=Places(max_streams, TOO_MANY_STREAMS),
        )
    )


def _check(access: Any, **limits: int) -> None:
    if not callable(access):
        raise UserError(
            "create_app(access=...) is LOCAL, OPEN, or an async function that names the caller of a request."
        )
    for name, limit in limits.items():
        if limit < 1:
            raise UserError(
                f"create_app({name}={limit!r}): it has to be 1 or more, or nothing could be done."
            )


def _application(service: Service) -> Starlette:
    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncGenerator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    routes: list[BaseRoute] = [
        Route(each.path, _route(each, service), methods=[each.method], name=each.name) for each in ENDPOINTS
    ]
    routes.append(WebSocketRoute(websocket.PATH, websocket.endpoint(service), name="websocket"))
    app = Starlette(
        routes=routes,
        lifespan=lifespan,
        exception_handlers={HTTPException: _not_here},
        middleware=_told_to(service.origins),
    )
    # A path with a slash too many is no path: to send its client elsewhere is to believe its `Host` header.
    app.router.redirect_slashes = False
    app.state.service = service
    return app


def _told_to(origins: Collection[str]) -> list[Middleware]:
    """What tells browsers that pages of `origins` may use the server."""
    if not origins:
        return []
    cors = Middleware(
        CORSMiddleware,
        allow_origins=list(origins),
        allow_credentials=True,
        allow_methods=["GET", "POST", "DELETE"],
        allow_headers=["authorization", "content-type", "idempotency-key", "last-event-id"],
        expose_headers=["location", "retry-after", "x-run-id"],
    )
    return [cors]


def _route(endpoint: Endpoint[Any, Any, Any], service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def route(request: Request) -> Response:
        try:
            asked = await endpoint.ask(request, service)
            async with time_limit(service.clock, ANSWER_SECONDS, _too_long()):
                return await endpoint.handler(asked)
        except Exception as error:
            return answer_to_error(request, error)

    return route


def _too_long() -> LogUnavailableError:
    return LogUnavailableError(
        f"The store was waited for for {ANSWER_SECONDS:g} s: is its disk or its server busy with something else?"
    )


async def _not_here(request: Request, error: Exception) -> Response:
    if getattr(error, "status_code", 404) != 405:
        return problem_answer(NO_ROUTE)
    refused = problem_answer(WRONG_METHOD)
    refused.headers["allow"] = ", ".join(sorted(_methods_of(request)))
    return refused


def _methods_of(request: Request) -> set[str]:
    """The methods that the path of a request has: each has a route of its own."""
    there = [
        route
        for route in request.app.routes
        if isinstance(route, Route) and route.matches(request.scope)[0] is not Match.NONE
    ]
    return {method for route in there for method in route.methods or ()}
