"""One thing that a server does, described once: its route, its checks and its part of the OpenAPI document come of that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeAlias

import msgspec
from typing_extensions import TypeVar

from millstream.server.access import EVERYBODY
from millstream.server.forms import headers_of, query_of
from millstream.server.reading import body_of, caller_of, record_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from millstream.log.store import RunRecord
    from millstream.server.answers import Problem
    from millstream.server.service import Service

B = TypeVar("B", default=None)
Q = TypeVar("Q", default=None)
H = TypeVar("H", default=None)


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is a stream of server-sent events."""

    message: str | type[msgspec.Struct] = "StreamMessage"
    """What the data of each event is: that of a run's stream, or a struct."""
    headers: Mapping[str, str] = field(default_factory=lambda: {"X-Run-Id": "The run."})
    """What its headers tell, by name."""


Answered: TypeAlias = "type[msgspec.Struct] | Stream | Literal['any'] | None"
"""What an answer holds: JSON of that form, a stream, any JSON object, or nothing."""


@dataclass(frozen=True, slots=True)
class Asked(Generic[B, Q, H]):
    """A request whose caller was let in, and what it says, read and checked."""

    request: Request
    service: Service
    caller: str
    body: B
    query: Q
    headers: H

    async def run(self) -> RunRecord:
        """The record of the run that the path names.

        Raises:
            UnknownRunError: there is none, or it is somebody else's: nothing tells which.
        """
        return await record_of(self.request.path_params["run_id"], self.service.store, self.caller)


@dataclass(frozen=True, kw_only=True)
class Endpoint(Generic[B, Q, H]):
    """One thing that a server does. What its handler promises in its docstring is shown to users."""

    method: str
    path: str
    name: str
    tag: str
    """What it has to do with."""
    handler: Callable[[Asked[B, Q, H]], Awaitable[Response]]
    body: type[B] | None = None
    query: type[Q] | None = None
    headers: type[H] | None = None
    answers: Mapping[int, Answered] = field(default_factory=dict[int, "Answered"])
    """What is answered where all is well, by status."""
    problems: tuple[Problem, ...] = ()
    """What may be wrong besides what every request may do wrong that is read like this one."""
    is_open: bool = False
    """Whether it asks nobody who he is, and works also where the server cannot start."""

    async def ask(self, request: Request, service: Service) -> Asked[B, Q, H]:
        """What `request` says. Who asks is found out before anything of it is read.

        Raises:
            ProblemError: he may not, or something of it is not what it has to be.
        """
        caller = EVERYBODY
        if not self.is_open:
            await service.start()
            caller = await caller_of(request, service)
        forms: tuple[Any, Any, Any] = (self.query, self.headers, self.body)  # None is read as None
        query = forms[0] and query_of(request, forms[0])
        headers = forms[1] and headers_of(request, forms[1])
        body = forms[2] and await body_of(request, service, forms[2])
        return Asked(request, service, caller, body, query, headers)
