"""A soak: servers, lines and clients that break at random, by a seed, and what has to hold all the same.

    python -m tests.soak --minutes 10 --seed 7 --store redis

Two servers are on one store. Clients start runs on either, follow them by server-sent events, by WebSocket and by
`millstream.client`, through lines that break; they decide, cancel and give input; and they come back on either. One
server is killed, told to stop and held still again and again; the other one is only held still, and its file
descriptors and its memory are what is watched. What is broken is one line, and a folder with all that is known of it.

The seed says what is done. When it meets what, the machine says: the same seed is the same storm, not the same drop.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2

from millstream.testing import StreamGrammarError, check_stream
from tests.server import soaking
from tests.server.soaking import BadLine, BrokenError, Doing, Server, User
from tests.support.redis_server import redis_server

ENDED = {"completed", "failed", "cancelled"}
AT_ONCE = 12
"""Clients at a time."""
STALLED = 600
"""Seconds without the end of any run, after which one is taken to hang for ever."""
SPARE_FDS = 12
"""File descriptors that a server may have more than after its first round: of its threads, and of files that rest."""

Say = Callable[[str], None]
Figures = list[dict[str, Any]]


class Soak:
    """Rounds on one store.

    Args:
        folder: where the servers run, and their logs are.
        store: the address of the runs.
        seed: of all that is done.
        say: is told how it goes.
    """

    def __init__(self, folder: Path, store: str, seed: int, say: Say) -> None:
        self._seed = seed
        self._say = say
        self._keys: dict[str, str] = {}
        """The id of each run, by its key."""
        self._first_fds = 0
        self.servers = [Server("held", folder, store), Server("killed", folder, store)]
        self.figures: Figures = []

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """The servers, for as long as the block."""
        try:
            await asyncio.gather(*(server.start() for server in self.servers))
            yield
        finally:
            for server in self.servers:
                server.end()

    async def round(self, runs: int, faults: int) -> None:
        """So many runs, and faults in them; then all that has to hold.

        Raises:
            BrokenError: something does not.
        """
        number = len(self.figures) + 1
        rng = random.Random(f"{self._seed}/{number}")
        async with contextlib.AsyncExitStack() as stack:
            lines = [server.url for server in self.servers]
            for server in self.servers:
                lines += [await stack.enter_async_context(BadLine(server.port, rng).open()) for _ in "ab"]
            users = [
                User(Doing(random.Random(f"{self._seed}/{number}/{each}")), self._key(number, each), lines)
                for each in range(runs)
            ]
            began = time.monotonic()
            at = sorted(rng.randrange(runs) for _ in range(faults))
            done = await self._storm(users, at, rng)
        await self._held(users)
        fds, rss = await self._weight()
        figures = {
            "round": number,
            "seconds": round(time.monotonic() - began, 1),
            "runs": runs,
            "cancelled": sum(b'"run.cancelled"' in user.seen[-1] for user in users),
            "attempts": sum(b'"run.attempt"' in piece for user in users for piece in user.seen),
            "connections": sum(user.connections for user in users),
            "faults": done,
            "fds": fds,
            "rss_kib": rss,
        }
        self.figures.append(figures)
        self._say("  ".join(f"{name} {told}" for name, told in figures.items()))

    def _key(self, number: int, each: int) -> str:
        return f"soak-{self._seed}-{number}-{each}"

    async def _storm(self, users: list[User], at: list[int], rng: random.Random) -> dict[str, int]:
        """All users, some at a time, and a fault behind the start of each of the runs `at`; how many of each there were."""
        done = {"kill": 0, "stop": 0, "freeze": 0}
        begun: asyncio.Queue[None] = asyncio.Queue()
        waiting = iter(users)

        async def some() -> None:
            for user in waiting:
                begun.put_nowait(None)
                try:
                    async with asyncio.timeout(STALLED):
                        await user.run()
                except TimeoutError:
                    raise BrokenError(f"run {user.run_id} does not end", seen=_texts(user.seen)) from None
                except BrokenError as error:
                    error.facts |= {
                        "run_id": user.run_id,
                        "agent": user.doing.agent,
                        "seen": _texts(user.seen),
                    }
                    raise

        async def faults() -> None:
            for before, place in itertools.pairwise([0, *(place + 1 for place in at)]):
                for _ in range(place - before):
                    await begun.get()
                await asyncio.sleep(rng.uniform(0, 0.5))
                fault = rng.choice([soaking.kill, soaking.stop, soaking.freeze])
                server = rng.choice(self.servers) if fault is soaking.freeze else self.servers[1]
                await fault(server, rng)
                done[fault.__name__] += 1

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(faults())
                for _ in range(AT_ONCE):
                    group.create_task(some())
        except* BrokenError as group:
            first = group.exceptions[0]
            while isinstance(first, BaseExceptionGroup):
                first = first.exceptions[0]
            raise first from None
        return done

    async def _held(self, users: list[User]) -> None:
        """Whether everything held that has to, whatever happened."""
        for server in self.servers:
            async with httpx2.AsyncClient(base_url=server.url, timeout=60, verify=False) as http:
                for user in users:
                    whole = await soaking.replay(http, user.run_id)
                    record = (await http.get(f"/runs/{user.run_id}")).json()
                    _check(user, whole, record)
        self._keys |= {user.run_id: user.key for user in users}
        async with httpx2.AsyncClient(base_url=self.servers[0].url, timeout=60, verify=False) as http:
            listed = [record async for record in _listed(http)]
        if extra := {record["run_id"] for record in listed} - self._keys.keys():
            raise BrokenError("a request that was sent again began another run", runs=sorted(extra))
        if left := [record for record in listed if record["status"] not in ENDED]:
            raise BrokenError("a run is left that has not ended", records=left)

    async def _weight(self) -> tuple[int, int]:
        """What the server weighs that was never killed, once nobody is connected.

        Raises:
            BrokenError: it keeps file descriptors of clients that are gone.
        """
        server = self.servers[0]
        fds, rss = server.weight
        self._first_fds = self._first_fds or fds
        for _ in range(STALLED):
            if fds <= self._first_fds + SPARE_FDS:
                return fds, rss
            await asyncio.sleep(1)  # connections that were cut are noticed at the next heartbeat
            fds, rss = server.weight
        raise BrokenError(
            f"a server has {fds} file descriptors, and had {self._first_fds} after its first round"
        )


def _check(user: User, whole: list[bytes], record: dict[str, Any]) -> None:
    """Hold what one client has to what a server has.

    Raises:
        BrokenError: they differ, or it is no whole stream of a run.
    """
    facts = {"run_id": user.run_id, "agent": user.doing.agent, "record": record}
    facts |= {"seen": _texts(user.seen), "whole": _texts(whole)}
    told = [json.loads(piece) for piece in whole]
    events = [each["event"] for each in told]
    if user.seen != whole:
        raise BrokenError("what a client has of its pieces is not what a server has", **facts)
    if [each["position"] for each in told] != list(range(1, len(told) + 1)):
        raise BrokenError("positions have holes", **facts)
    if sum(soaking.is_end(piece) for piece in whole) != 1:
        raise BrokenError("a run has not exactly one end", **facts)
    try:
        check_stream(whole)
    except StreamGrammarError as error:
        raise BrokenError(f"a stream breaks the grammar: {error}", **facts) from None
    if record["status"] not in ENDED or events[-1]["type"] != f"run.{record['status']}":
        raise BrokenError("a record says another end than its stream", **facts)
    if record["status"] == "cancelled" and not user.has_cancelled:
        raise BrokenError("a run is cancelled that nobody cancelled", **facts)
    # A call that was approved is not begun again where its process died in it: that run ends with `interrupted`.
    if record["status"] == "failed" and not (user.doing.asks and "interrupted" in json.dumps(events[-1])):
        raise BrokenError("a run failed", **facts)


async def _listed(http: httpx2.AsyncClient) -> AsyncIterator[dict[str, Any]]:
    """Every run of the store."""
    before: dict[str, str] = {}
    while page := (await http.get("/runs", params={"limit": "100", **before})).json()["runs"]:
        for record in page:
            yield record
        before = {"before": page[-1]["run_id"]}


def _texts(pieces: list[bytes]) -> list[str]:
    return [piece.decode() for piece in pieces]


# --- the program ---------------------------------------------------------------------------------


async def soak(
    folder: Path, store: str, seed: int, *, rounds: Iterator[Any], runs: int, faults: int, say: Say
) -> Figures:
    """A round for each of `rounds`; their figures.

    Raises:
        BrokenError: something does not hold. What is known of it is in the folder.
    """
    (folder / "app.py").write_text(soaking.APP)
    course = Soak(folder, store, seed, say)
    try:
        async with course.open():
            for _ in rounds:
                await course.round(runs, faults)
    except BrokenError as error:
        told = {"broken": str(error), "seed": seed, "round": len(course.figures) + 1, **error.facts}
        (folder / "broken.json").write_text(json.dumps(told, indent=1))
        raise
    return course.figures


@contextlib.contextmanager
def store_in(folder: Path, name: str) -> Iterator[str]:
    """The address of an empty store."""
    if name == "redis":
        with redis_server() as url:
            yield url
    else:
        yield f"sqlite:///{folder / 'runs.db'}"


def slope(figures: Figures, name: str) -> float:
    """How much a figure grows with a run: the line through its rounds, by least squares, without the first third."""
    counted = figures[len(figures) // 3 :]
    xs = list(itertools.accumulate(each["runs"] for each in counted))
    ys = [each[name] for each in counted]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((each - x) ** 2 for each in xs)
    return sum((a - x) * (b - y) for a, b in zip(xs, ys, strict=True)) / spread if spread else 0.0


def main(arguments: list[str] | None = None) -> int:
    """Soak, and tell; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.soak", description="Servers, lines and clients that break at random."
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="how long, for each store (default 5)")
    parser.add_argument("--seed", type=int, help="repeats what a run with this seed did (default: a new one)")
    parser.add_argument("--store", choices=["sqlite", "redis", "both"], default="sqlite")
    parser.add_argument("--runs", type=int, default=60, help="runs of a round (default 60)")
    parser.add_argument("--faults", type=int, default=4, help="faults of a round (default 4)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    asked = parser.parse_args(arguments)
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    say: Say = lambda line: print(line, file=sys.stderr if asked.json else sys.stdout, flush=True)  # noqa: E731
    results: dict[str, Any] = {}
    for name in ["sqlite", "redis"] if asked.store == "both" else [asked.store]:
        say(f"seed {seed}, {name}")
        folder = Path(tempfile.mkdtemp(prefix="soak-"))
        try:
            with store_in(folder, name) as store:
                rounds = _until(time.monotonic() + asked.minutes * 60)
                going = soak(
                    folder, store, seed, rounds=rounds, runs=asked.runs, faults=asked.faults, say=say
                )
                figures = asyncio.run(going)
        except BrokenError as error:
            say(f"broken: {error}\nall that is known of it, and the servers' logs: {folder}")
            say(
                f"again: make soak ARGS='--seed {seed} --store {name} --runs {asked.runs} --faults {asked.faults}'"
            )
            return 1
        shutil.rmtree(folder)
        slopes = {each: round(slope(figures, each), 3) for each in ("fds", "rss_kib")}
        say(
            f"all held: {sum(each['runs'] for each in figures)} runs on {name}; growth with each run: {slopes}"
        )
        results[name] = {"rounds": figures, "slopes": slopes}
    if asked.json:
        print(json.dumps({"seed": seed, "stores": results}))
    return 0


def _until(moment: float) -> Iterator[None]:
    """Rounds until then, and at least one."""
    yield
    while time.monotonic() < moment:
        yield


if __name__ == "__main__":
    sys.exit(main())
