"""The server itself: whether it lives, whether it can begin runs, and which version it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from millstream.about import __version__
from millstream.errors import LogError
from millstream.server.answers import answer

if TYPE_CHECKING:
    from starlette.responses import Response

    from millstream.server.endpoint import Asked


class Health(msgspec.Struct):
    """That the process answers."""

    status: Literal["ok"]


class Ready(msgspec.Struct):
    """The server can begin runs."""

    status: Literal["ready"]
    runs: int
    """How many it drives at this moment."""


class NotReady(msgspec.Struct):
    """The server can begin no runs: its store cannot be used, or it is stopping."""

    status: Literal["no store", "stopping"]


class Version(msgspec.Struct):
    """Which version of what this is."""

    name: Literal["millstream"]
    version: str


async def health(asked: Asked) -> Response:
    """Whether the process answers."""
    return answer(Health("ok"))


async def ready(asked: Asked) -> Response:
    """Whether runs can be begun: the store is there, and the server is not stopping."""
    service = asked.service
    try:
        await service.start()
        await service.store.check()
    except LogError:
        return answer(NotReady("no store"), 503, retry_after="5")
    if service.supervisor.is_stopping:
        return answer(NotReady("stopping"), 503, retry_after="2")
    return answer(Ready("ready", service.supervisor.live_runs))


async def version(asked: Asked) -> Response:
    """Which version this is."""
    return answer(Version("millstream", __version__))
