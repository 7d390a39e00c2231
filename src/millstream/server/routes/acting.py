"""What a client may do to a run, each a request of its own: stop it, decide over its calls, give it input."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream.server import commands
from millstream.server.answers import answer
from millstream.server.reading import asked_run, body_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from millstream.server.service import Service


async def cancel(request: Request, service: Service) -> Response:
    """Stop a run. May be said any number of times."""
    record = await asked_run(request, service)
    await commands.cancel(service, record, await body_of(request, service, commands.Cancel))
    return answer({"run_id": record.run_id}, 202)


async def decide(request: Request, service: Service) -> Response:
    """Decide over a call that waits. The run goes on when nothing waits any more."""
    record = await asked_run(request, service)
    waiting = await commands.decide(service, record, await body_of(request, service, commands.Decide))
    return answer({"run_id": record.run_id, "waiting": waiting}, 202)


async def give_input(request: Request, service: Service) -> Response:
    """Give a run more input."""
    record = await asked_run(request, service)
    await commands.give_input(service, record, await body_of(request, service, commands.Input))
    return answer({"run_id": record.run_id}, 202)
