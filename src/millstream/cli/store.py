"""The store that a command works on, and the run in it that a person means."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Protocol

from millstream.cli import exits
from millstream.cli.problem import Problem

if TYPE_CHECKING:
    from millstream.log.address import Address
    from millstream.log.store import RunRecord, RunStore

VARIABLE = "MILLSTREAM_STORE"
"""The environment variable that names the store where the command line does not."""

_PAGE = 500
_CANDIDATES = 8
"""How many runs are listed where several are meant."""


def add_store_argument(parser: argparse.ArgumentParser, help: str | None = None) -> None:
    """Add `--store`."""
    parser.add_argument(
        "--store",
        metavar="URL",
        help=help or f"where the runs are kept, such as sqlite:///runs.db (also: {VARIABLE})",
    )


def address_of(args: argparse.Namespace) -> str | None:
    """The address of the store, of the command line or of the environment; None where neither names one."""
    return args.store or os.environ.get(VARIABLE) or None


def existing_address(args: argparse.Namespace) -> str:
    """The address of a store whose runs are to be looked at: a mistyped path must not become an empty store.

    Raises:
        Problem: none is named, or it holds nothing that could be looked at.
    """
    url = address_of(args)
    if url is None:
        raise Problem(
            "no store is named, and no server.",
            f"say where the runs are kept: --store sqlite:///runs.db, or {VARIABLE}=sqlite:///runs.db for all "
            "commands; also redis://host:6379/0. Or who has them: --url http://127.0.0.1:7420.",
        )
    address = _checked(url)
    if address.engine == "memory":
        raise Problem(
            "memory: is the memory of one process, and nobody else sees its runs.",
            "keep them in a file, sqlite:///runs.db, or in Redis.",
        )
    if address.engine == "sqlite" and not os.path.exists(address.place):
        raise Problem(
            f"there is no file {address.place}, so no runs are kept there.",
            "three slashes begin a path in this folder, four a whole path: sqlite:////var/lib/runs.db"
            if not os.path.isabs(address.place)
            else None,
            code=exits.FAILED,
        )
    return url


@asynccontextmanager
async def opened(url: str, *, redis: Mapping[str, Any] | None = None) -> AsyncGenerator[RunStore]:
    """The store at `url`, reached and found to be one.

    Args:
        url: its address.
        redis: options of a `RedisLog`.

    Raises:
        Problem: it is no address.
        LogError: it cannot be used.
    """
    # A file forgets what its programs want to have forgotten: a command has no say in that.
    options: dict[str, Mapping[str, Any]] = {"sqlite": {"retention": None}, "redis": redis or {}}
    address = _checked(url)
    store = address.open(**options.get(address.engine, {}))
    try:
        await store.check()
        yield store
    finally:
        await store.aclose()


def _checked(url: str) -> Address:
    from millstream.errors import UserError
    from millstream.log.address import Address

    try:
        return Address.of(url)
    except UserError as error:
        raise Problem(str(error)) from error


class Runs(Protocol):
    """What runs are found in: a store, or whoever tells of one."""

    async def record(self, run_id: str) -> RunRecord:
        """As `RunStore.record`."""
        ...

    async def runs(self, *, limit: int = 100, before: str | None = None) -> list[RunRecord]:
        """As `RunStore.runs`."""
        ...


async def find_run(runs: Runs, word: str) -> RunRecord:
    """The run whose id is `word`, or the only one whose id begins so; `run_` may be left out.

    Raises:
        Problem: there is none, or several are meant.
    """
    from millstream.errors import UnknownRunError

    try:
        return await runs.record(word)
    except UnknownRunError:
        found = await _beginning_with(runs, word) if word else []
    if len(found) == 1:
        return await runs.record(found[0].run_id)
    if not found:
        raise Problem(
            f"there is no run {word!r}.", "`millstream runs` lists what is there.", code=exits.FAILED
        )
    lines = [f"    {each.run_id}  {each.status}  {each.agent}" for each in found[:_CANDIDATES]]
    if len(found) > _CANDIDATES:
        lines.append(f"    and {len(found) - _CANDIDATES} more")
    raise Problem("\n".join([f"{len(found)} runs begin with {word!r}:", *lines]), "write more of the id.")


async def _beginning_with(runs: Runs, word: str) -> list[RunRecord]:
    """The runs whose ids begin with `word`, the newest first."""
    found: list[RunRecord] = []
    before: str | None = None
    while page := await runs.runs(limit=_PAGE, before=before):
        found += [each for each in page if each.run_id.startswith((word, f"run_{word}"))]
        before = page[-1].run_id
    return found


def what_next(record: RunRecord) -> str:
    """When something that was said to a run is heard there: a sentence for people."""
    if record.status == "paused":
        return "It is paused, and reads that when somebody goes on with it."
    if not record.is_owned:
        return "Nobody runs it at the moment: whoever takes it over reads that first."
    return "It reads that at once."


def has_ended(record: RunRecord, so: str) -> Problem:
    """What is wrong with saying something to a run that is over."""
    code = f" ({record.code})" if record.code and record.status == "failed" else ""
    return Problem(f"{record.run_id} is {record.status}{code}: {so}.", code=exits.FAILED)


def print_line(text: str) -> None:
    """Print a line, flushed, so that a reader that is gone is noticed here."""
    print(text)
    sys.stdout.flush()
