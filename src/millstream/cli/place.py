"""Where the runs are that a command works on: in a store, or behind a server that has one."""

from __future__ import annotations

import argparse
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Protocol

from millstream.cli import exits
from millstream.cli.problem import Problem
from millstream.cli.store import VARIABLE as STORE_VARIABLE
from millstream.cli.store import add_store_argument, existing_address, opened

if TYPE_CHECKING:
    from millstream.approval import Decision
    from millstream.attach import AttachedRun
    from millstream.cli.deciding import Waiting
    from millstream.client import Client, RemoteRun
    from millstream.log.promise import Cursor
    from millstream.log.store import RunRecord, RunStatus, RunStore

URL_VARIABLE = "MILLSTREAM_URL"
"""The environment variable that names the server where the command line does not."""
TOKEN_VARIABLE = "MILLSTREAM_TOKEN"  # the name of one
"""The environment variable that has what lets one in there."""

_PATIENCE = 3.0
"""Seconds that a Redis server has to answer somebody who only wants to look."""
_TRIES = 3
"""How often a server is asked by a command that somebody waits for; it takes about a second."""


class Place(Protocol):
    """Where runs are."""

    goes_on: str
    """What becomes of a run when all is decided over that it waited for: a part of a sentence."""

    async def record(self, run_id: str) -> RunRecord:
        """As `RunStore.record`."""
        ...

    async def runs(
        self,
        *,
        caller: str | None = None,
        statuses: Collection[RunStatus] = (),
        conversation: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRecord]:
        """As `RunStore.runs`."""
        ...

    def run(self, run_id: str) -> AttachedRun | RemoteRun:
        """The handle of a run."""
        ...

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        """A cursor in the log of a run, which stays with it to its end."""
        ...

    async def waiting(self, record: RunRecord) -> list[Waiting]:
        """The calls that a paused run waits for, in order.

        Raises:
            Problem: it is not paused.
        """
        ...

    async def decide(self, record: RunRecord, call: Waiting, decision: Decision, *, always: bool) -> None:
        """Decide over a call that waits.

        Raises:
            Problem: another decision was made before, or nothing waits any more.
        """
        ...


class StorePlace:
    """A store."""

    goes_on = "the run goes on when a program with its agents takes it up"

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self.record = store.record
        self.runs = store.runs
        self.cursor = store.cursor

    def run(self, run_id: str) -> AttachedRun:
        """The handle of a run."""
        from millstream.attach import AttachedRun

        return AttachedRun(run_id, self._store)

    async def waiting(self, record: RunRecord) -> list[Waiting]:
        """The calls that a paused run waits for, in order, with what was decided over them since."""
        from millstream.cli.deciding import waiting

        return await waiting(self._store, record)

    async def decide(self, record: RunRecord, call: Waiting, decision: Decision, *, always: bool) -> None:
        """Put a decision into the mail of the run."""
        from millstream.attach.waiting import tell
        from millstream.errors import ApprovalError

        try:
            await tell(self._store, record.run_id, call.pause, call.key, decision, always=always)
        except ApprovalError as error:
            before = "" if call.decision is None else f" It was {call.state}."
            raise Problem(f"{error}{before}", code=exits.FAILED) from error


class ServerPlace:
    """A server.

    Args:
        asked: a client that soon gives up, for requests.
        followed: one that does not, for streams.
    """

    goes_on = "the server goes on with the run"

    def __init__(self, asked: Client, followed: Client) -> None:
        self._asked = asked
        self._followed = followed
        self.record = asked.record
        self.run = asked.run

    async def runs(
        self,
        *,
        caller: str | None = None,
        statuses: Collection[RunStatus] = (),
        conversation: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRecord]:
        """The caller's runs, the newest first."""
        if caller is not None:
            raise Problem("--caller is for a store: a server lists the runs of whoever asks.")
        return await self._asked.runs(
            statuses=statuses, conversation=conversation, limit=limit, before=before
        )

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        """A cursor that comes back by itself."""
        return self._followed.run(run_id).cursor(after)

    async def waiting(self, record: RunRecord) -> list[Waiting]:
        """The calls that a paused run still waits for, in order, with the numbers that they have among all of its pause."""
        from millstream.approval import keys_of_items
        from millstream.cli.deciding import Waiting, not_waiting
        from millstream.events import RunPaused
        from millstream.stream.history import approval_items

        run = self.run(record.run_id)
        still = await run.waiting()
        if record.status != "paused" or not still:
            raise not_waiting(record)
        pause = None
        async for entry in run.entries(record.last - 1, types=["run.paused"], depth=0, until="pause"):
            pause = entry.event
        assert isinstance(pause, RunPaused)
        keys = enumerate(keys_of_items(approval_items(pause)), 1)
        return [Waiting(number, key, record.last) for number, key in keys if key.call_id in still]

    async def decide(self, record: RunRecord, call: Waiting, decision: Decision, *, always: bool) -> None:
        """Tell a decision to the server."""
        from millstream.errors import ApprovalError

        run, call_id = self.run(record.run_id), call.key.call_id
        try:
            if decision.approved:
                await run.approve(call_id, always, arguments=decision.arguments)
            else:
                await run.reject(call_id, always, rejection_message=decision.message)
        except ApprovalError as error:
            raise Problem(f"the call {call_id} cannot be decided over: {error}", code=exits.FAILED) from error


def add_place_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--store`, `--url` and `--token`."""
    add_store_argument(parser)
    parser.add_argument(
        "--url",
        metavar="URL",
        help=f"the server that has the runs, such as http://127.0.0.1:7420 (also: {URL_VARIABLE})",
    )
    parser.add_argument("--token", metavar="TOKEN", help=f"lets you in there (better: {TOKEN_VARIABLE})")


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """Add `RUN`, and where it is."""
    parser.add_argument("run", metavar="RUN", help="the id of the run, or the beginning of one")
    add_place_arguments(parser)


def in_place(args: argparse.Namespace, work: Callable[[Place], Awaitable[int]]) -> int:
    """What `work` makes of the place that `args` name: an exit code.

    Raises:
        Problem: none is named, or none is there.
    """
    import asyncio
    import logging

    # What a store may lose was said where its runs began.
    logging.getLogger("millstream").setLevel(logging.ERROR)

    async def main() -> int:
        async with _opened_place(args) as place:
            return await work(place)

    return asyncio.run(main())


@asynccontextmanager
async def _opened_place(args: argparse.Namespace) -> AsyncGenerator[Place]:
    url = _server_of(args)
    if url is None:
        async with opened(existing_address(args), redis={"patience": _PATIENCE}) as store:
            yield StorePlace(store)
        return
    from millstream.client import Client
    from millstream.errors import UserError

    token = args.token or os.environ.get(TOKEN_VARIABLE) or None
    async with AsyncExitStack() as stack:
        try:
            asked, followed = Client(url, token=token, tries=_TRIES), Client(url, token=token)
        except UserError as error:
            raise Problem(
                f"the server cannot be asked: {error}", "such as --url http://127.0.0.1:7420"
            ) from error
        stack.push_async_callback(asked.aclose)
        stack.push_async_callback(followed.aclose)
        yield ServerPlace(asked, followed)


def _server_of(args: argparse.Namespace) -> str | None:
    """The address of the server that is meant; None where a store is. What the command line says counts more."""
    if args.url and args.store:
        raise Problem("--url and --store name two places.", "say one of them.")
    if args.url or args.store:
        return args.url
    url = os.environ.get(URL_VARIABLE)
    if url and os.environ.get(STORE_VARIABLE):
        raise Problem(f"{URL_VARIABLE} and {STORE_VARIABLE} name two places.", "say --url or --store.")
    return url or None
