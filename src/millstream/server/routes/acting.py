"""What a client may do to a run, each a request of its own: stop it, decide over its calls, give it input."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from millstream.server import commands
from millstream.server.answers import answer

if TYPE_CHECKING:
    from starlette.responses import Response

    from millstream.server.endpoint import Asked


class Accepted(msgspec.Struct):
    """What was said is kept with the run, which does it."""

    run_id: str


class Decided(Accepted):
    """The decision is kept with the run."""

    waiting: list[str]
    """The ids of the calls that wait still. Where none does, the run goes on."""


async def cancel(asked: Asked[commands.Cancel]) -> Response:
    """Stop a run. May be said any number of times."""
    record = await asked.run()
    await commands.cancel(asked.service, record, asked.body)
    return answer(Accepted(record.run_id), 202)


async def decide(asked: Asked[commands.Decide]) -> Response:
    """Decide over a call that waits. The run goes on when nothing waits any more."""
    record = await asked.run()
    waiting = await commands.decide(asked.service, record, asked.body)
    return answer(Decided(record.run_id, waiting), 202)


async def give_input(asked: Asked[commands.Input]) -> Response:
    """Give a run more input."""
    record = await asked.run()
    await commands.give_input(asked.service, record, asked.body)
    return answer(Accepted(record.run_id), 202)
