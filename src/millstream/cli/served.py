"""What `millstream serve` runs: the application of a Python file, in each of its processes.

A process is told what to serve by its environment, as processes that the HTTP server starts by itself, more
workers or one after a change of a file, know nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import signal
from collections.abc import AsyncGenerator
from dataclasses import asdict, dataclass
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from starlette.applications import Starlette

from millstream.cli.collector import relieve_collector
from millstream.cli.log_lines import show_log
from millstream.cli.problem import Problem, say
from millstream.config import RunConfig
from millstream.run.prepare import model_of
from millstream.server.access import LOCAL, OPEN
from millstream.server.app import create_app

if TYPE_CHECKING:
    from millstream.server.service import Service

logger = logging.getLogger("millstream")

VARIABLE = "MILLSTREAM_SERVE"


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and how."""

    app: str
    """Names the application: `app.py`, `app.py:name` or `module:name`."""
    store: str
    drain: float | None
    """Seconds that runs have to end; None for what the application says."""
    is_open: bool
    """Whether everybody may use it who can reach it."""
    log_level: str
    log_format: str
    ready: str = ""
    """What is said when it is ready."""

    def to_environment(self) -> None:
        """Tell it to the processes that are started from here on, and to this one."""
        os.environ[VARIABLE] = json.dumps(asdict(self))

    @classmethod
    def from_environment(cls) -> Served:
        """What this process was told."""
        return cls(**json.loads(os.environ[VARIABLE]))


class ServerConfig(uvicorn.Config):
    """How uvicorn serves, in each of its processes."""

    def configure_logging(self) -> None:
        """Also see to it that a process that is stopped comes to its end: called first of all in each of them."""
        super().configure_logging()
        signal.signal(signal.SIGTERM, _stop)


_is_serving = False


def _stop(number: int, frame: FrameType | None) -> None:
    """Stopped before it served, or when all is done: uvicorn sends itself the signal again that it was stopped by.

    It is not to die of that: what exports traces and numbers has its last word at the end of the process.
    """
    if not _is_serving:
        raise SystemExit


def application() -> Any:
    """The application, as this process was told. Its streams end at once when the process is told to stop."""
    global _is_serving
    _is_serving = True
    served = Served.from_environment()
    show_log(served.log_level, served.log_format)
    try:
        found = load(served.app)
    except Problem as problem:  # it was well when serving began, and a file has changed since
        raise SystemExit(problem.report()) from problem
    if not isinstance(found, Starlette):
        found = create_app(found, access=OPEN if served.is_open else LOCAL, log=served.store)
    service: Service | None = getattr(found.state, "service", None)
    if service is not None:
        if served.drain is not None:
            service.drain = served.drain
        found.router.lifespan_context = _ending_streams_first(found.router.lifespan_context, service)
    found.router.lifespan_context = _said_when_ready(found.router.lifespan_context, served)
    return found


@functools.cache  # a program that is run twice would set up its logs and exporters twice
def load(app: str) -> Any:
    """The agent that `app` names, or an application of Starlette's; checked as far as it can be without a request.

    Raises:
        Problem: there is none.
        UserError: it cannot work: it has no model, say.
    """
    from millstream.agent import Agent, check_agent, reachable
    from millstream.cli.loading import load_app

    found: Any = load_app(app)
    if isinstance(found, Agent):
        agent, config = cast("Agent[Any]", found), RunConfig()
        check_agent(agent, config.tool_name_collision_policy)
        for each in reachable(agent)[0]:
            model_of(each, config)
        return agent
    return found


def _said_when_ready(lifespan: Any, served: Served) -> Any:
    """`lifespan`, which says when it is ready: whoever connects from then on is answered."""

    @contextlib.asynccontextmanager
    async def wrapped(app: Any) -> AsyncGenerator[Any]:
        async with lifespan(app) as state:
            relieve_collector()
            if served.log_format == "json":
                logger.info(served.ready)  # whoever collects it reads JSON
            else:
                say(served.ready)
            yield state

    return wrapped


def _ending_streams_first(lifespan: Any, service: Service) -> Any:
    """`lifespan`, in which a signal to stop ends the streams at once: the HTTP server waits for them, before all else.

    A second one does not wait for the runs either: they are left to the next server.
    """

    @contextlib.asynccontextmanager
    async def wrapped(app: Any) -> AsyncGenerator[Any]:
        loop = asyncio.get_running_loop()
        leaving: list[asyncio.Task[None]] = []
        before: dict[int, Any] = {}

        def leave() -> None:
            if not leaving and (count := service.supervisor.live_runs):
                logger.info(
                    "stopping: %d run(s) have %g s to end, then another server goes on; "
                    "a second Ctrl-C does not wait",
                    count,
                    service.drain,
                )
            leave_what = service.supervisor.stop(0) if leaving else service.leave_streams()
            leaving.append(loop.create_task(leave_what))

        def told(number: int, frame: FrameType | None) -> None:
            loop.call_soon_threadsafe(leave)
            handler = before[number]
            if callable(handler):
                handler(number, frame)

        for number in (signal.SIGTERM, signal.SIGINT):
            with contextlib.suppress(ValueError):  # not in the main thread: somebody else's signals
                before[number] = signal.getsignal(number)
                signal.signal(number, told)
        try:
            async with lifespan(app) as state:
                yield state
        finally:
            for number, handler in before.items():
                if signal.getsignal(number) is told:
                    signal.signal(number, handler)

    return wrapped
