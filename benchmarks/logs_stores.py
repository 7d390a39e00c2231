"""The stores that are measured, and beside each what its engine does without us: the floor."""

import contextlib
import itertools
import shutil
import sqlite3
import subprocess
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from millstream import open_log
from millstream.log.store import RunStore

DELTA = (
    b'{"type":"response.output_text.delta","item_id":"msg_68f0c1a4b7d48193a6e2d50c9b1f7e3a",'
    b'"output_index":0,"content_index":0,"delta":" measured","logprobs":[],"obfuscation":"aXb3kQ9z",'
    b'"sequence_number":1042}'
)
"""An event as a model's server sends it."""


class Floor(ABC):
    """An engine without us: events go into it as its own client writes them, one row or entry each."""

    @abstractmethod
    async def write(self, runs: int, count: int) -> None:
        """Write `count` events of each of so many runs at once, and wait until they are as durable as promised."""

    async def aclose(self) -> None:
        """Let go of it."""


class Store:
    """One that is measured."""

    def __init__(self, name: str, address: str) -> None:
        self.name = name
        self.address = address
        """As `open_log` takes it: another process reads it by that."""

    def open(self) -> RunStore:
        """A log of its own."""
        return open_log(self.address)

    def floor(self) -> Floor | None:
        """What its engine does without us, where it has one."""
        return None

    def bytes(self) -> dict[str, int]:
        """What it takes up, by the name of the place. Nothing is open at that moment."""
        return {}

    def others_read_it(self) -> bool:
        """Whether other processes can."""
        return not self.address.startswith("memory:")


class Memory(Store):
    def __init__(self) -> None:
        super().__init__("memory", "memory:")

    def open(self) -> RunStore:
        from millstream import MemoryLog

        return MemoryLog(max_events=1 << 40, max_bytes=1 << 40)  # it is asked for more than a run ever is


class SQLite(Store):
    def __init__(self, folder: Path, synchronous: str) -> None:
        self.path = folder / f"{synchronous}.db"
        self.synchronous: Any = synchronous
        super().__init__(f"SQLite {synchronous}", f"sqlite:///{self.path}")

    def open(self) -> RunStore:
        from millstream.log import SQLiteLog

        return SQLiteLog(self.path, synchronous=self.synchronous)

    def floor(self) -> Floor:
        return _PlainSQLite(self.path.with_suffix(".floor"), self.synchronous)

    def bytes(self) -> dict[str, int]:
        return {"disk": sum(each.stat().st_size for each in self.path.parent.glob(f"{self.path.name}*"))}


class _PlainSQLite(Floor):
    """`executemany` in a transaction of its own, on the thread of the event loop."""

    def __init__(self, path: Path, synchronous: str) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute(f"PRAGMA synchronous = {synchronous}")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS events (run INTEGER, position INTEGER, data BLOB, "
            "PRIMARY KEY (run, position)) WITHOUT ROWID"
        )
        self._connection.execute("DELETE FROM events")
        self._positions = itertools.count(1)

    async def write(self, runs: int, count: int) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        rows = [(run, next(self._positions), DELTA) for run in range(runs) for _ in range(count)]
        self._connection.executemany("INSERT INTO events VALUES (?, ?, ?)", rows)
        self._connection.execute("COMMIT")

    async def aclose(self) -> None:
        self._connection.close()


REDIS = {
    "Redis no persistence": ("--appendonly", "no"),
    "Redis AOF everysec": ("--appendonly", "yes", "--appendfsync", "everysec"),
    "Redis AOF always": ("--appendonly", "yes", "--appendfsync", "always"),
}
"""Servers, and their settings."""
NAMES = ("memory", "SQLite normal", "SQLite full", *REDIS)
"""All stores, as the tables name them."""


class Redis(Store):
    def __init__(self, name: str, folder: Path) -> None:
        self._folder = folder
        super().__init__(name, f"unix://{folder / 's'}")

    def floor(self) -> Floor:
        return _PlainRedis(self.address)

    def bytes(self) -> dict[str, int]:
        import redis

        with contextlib.closing(redis.Redis.from_url(self.address)) as client:
            info: Any = client.info("memory")
        files = [each for each in self._folder.rglob("*.aof") if each.is_file()]
        return {"memory": info["used_memory"], "disk": sum(each.stat().st_size for each in files)}


class _PlainRedis(Floor):
    """`XADD` by redis-py on asyncio: one awaited, or a pipeline of them."""

    def __init__(self, address: str) -> None:
        import redis.asyncio

        self._client = redis.asyncio.Redis.from_url(address)

    async def write(self, runs: int, count: int) -> None:
        if runs * count == 1:
            await self._client.xadd("floor:0", {"data": DELTA})
            return
        async with self._client.pipeline(transaction=False) as pipeline:
            for run in range(runs):
                for _ in range(count):
                    pipeline.xadd(f"floor:{run}", {"data": DELTA})
            await pipeline.execute()

    async def aclose(self) -> None:
        await self._client.aclose()


def why_no_redis() -> str | None:
    """Why Redis cannot be measured; None where it can."""
    if shutil.which("redis-server") is None:
        return "the program redis-server is not there"
    try:
        import redis  # noqa: F401
    except ImportError:
        return "the extra is not installed: pip install 'millstream[redis]'"
    return None


@contextlib.contextmanager
def stores(names: Collection[str], folder: Path | None) -> Iterator[list[Store]]:
    """Those of these names, each in a file or with a server of its own, which go with the block."""
    with contextlib.ExitStack() as stack:
        found: list[Store] = []
        for name in NAMES:
            if name not in names:
                continue
            # Short: the path of a socket may have about a hundred characters.
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="logs", dir=folder)))
            if name in REDIS:
                stack.enter_context(_server(place, REDIS[name]))
                found.append(Redis(name, place))
            else:
                found.append(Memory() if name == "memory" else SQLite(place, name.removeprefix("SQLite ")))
        yield found


@contextlib.contextmanager
def _server(folder: Path, options: tuple[str, ...]) -> Iterator[None]:
    server = subprocess.Popen(
        [
            "redis-server",
            "--port",
            "0",
            "--unixsocket",
            folder / "s",
            "--dir",
            folder,
            "--save",
            "",
            *options,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        assert server.stdout is not None
        said: list[bytes] = []
        for line in server.stdout:
            said.append(line)
            if b"eady to accept" in line:
                break
        else:
            raise SystemExit(f"redis-server did not start:\n{b''.join(said).decode()}")
        yield
    finally:
        server.kill()
        server.communicate()
