"""Addresses of logs: where runs are kept, as one line of text for a setting, a variable or a command line.

    sqlite:///runs.db            a file, in the folder that the program runs in
    sqlite:////var/lib/runs.db   a file, by its whole path
    redis://host:6379/0          a Redis server; rediss:// over TLS
    unix:///run/redis.sock       a Redis server on this machine, by its socket
    memory:                      this process alone

An address may hold a password. None of the sentences that are made here tells it.
"""

from __future__ import annotations

import os
import re
import threading
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from millstream.errors import UserError
from millstream.log.store import RunStore

FORMS = (
    "sqlite:///runs.db (a file in this folder), sqlite:////var/lib/runs.db (a file by its whole path), "
    "redis://host:6379/0, rediss://host:6379/0, unix:///run/redis.sock, or memory:"
)
"""The forms that an address may have, for people."""

_SQLITE = "sqlite:///"
_REDIS = frozenset({"redis", "rediss", "unix"})


@dataclass(frozen=True, slots=True)
class Address:
    """An address, read."""

    engine: Literal["memory", "sqlite", "redis"]
    place: str
    """The path of a file, or the URL of a server."""

    @classmethod
    def of(cls, url: str) -> Address:
        """Read an address.

        Raises:
            UserError: it has none of the forms that there are.
        """
        given: Any = url
        if not isinstance(given, str):
            raise UserError(f"The address of a log is text, not {type(given).__name__}: {FORMS}.")
        scheme = url.partition(":")[0]
        if url == "memory:":
            return cls("memory", "")
        if scheme == "sqlite":
            return cls("sqlite", _path_of(url))
        if scheme in _REDIS:
            _check_redis(url)
            return cls("redis", url)
        raise _not_one(url, "it has to begin as one of these")

    def open(self, **options: Any) -> RunStore:
        """A store of its own at this address; `options` are those of its class.

        Raises:
            MissingExtraError: what it takes to reach it is not installed.
        """
        # Each engine is imported by those alone who have a use for it.
        if self.engine == "sqlite":
            from millstream.log.sqlite import SQLiteLog

            return SQLiteLog(self.place, **options)
        if self.engine == "redis":
            from millstream.log.redis import RedisLog

            return RedisLog(self.place, **options)
        from millstream.log.memory import MemoryLog

        return MemoryLog(**options)


def open_log(url: str) -> RunStore:
    """The store at an address, such as `sqlite:///runs.db`, `redis://localhost:6379/0` or `memory:`.

    A store of its own each time: close it with `aclose()`. Nothing is reached yet: the first
    that is asked of it is what may find the engine away (`LogUnavailableError`). Each `memory:`
    is a memory of its own.

    Raises:
        UserError: it is no address of a log; says which forms there are.
        MissingExtraError: Redis needs the extra `redis`.
    """
    return Address.of(url).open()


_shared: dict[tuple[int, Address], RunStore] = {}
_opening = threading.Lock()


def shared_log(url: str) -> RunStore:
    """The one store at an address that all runs of this process share, open until it ends.

    A file that is named by another path is another address, and has a store of its own.

    Raises as `open_log`.
    """
    address = Address.of(url)
    # A child of this process must not use what its parent has open.
    key = (os.getpid(), address)
    with _opening:
        store = _shared.get(key)
        if store is None:
            store = _shared[key] = address.open()
    return store


def store_of(door: str, log: RunStore | str) -> RunStore:
    """The store that somebody passed to `door`: one that he has open, or the shared one at an address.

    Raises:
        UserError: it is neither.
    """
    store: Any = shared_log(log) if isinstance(log, str) else log
    if not isinstance(store, RunStore):
        raise UserError(
            f"{door} takes a store that keeps records of runs, SQLiteLog(...) say, or its address, "
            f"not {type(store).__name__}."
        )
    return store


def shown(url: str) -> str:
    """An address for people to read: without a password, wherever that stands."""
    return re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//…@", url))


def _path_of(url: str) -> str:
    rest = url.removeprefix(_SQLITE)
    if rest == url:
        raise _not_one(url, "the path of a file stands behind three slashes")
    if "?" in rest or "#" in rest:
        raise _not_one(url, "it takes no options; in a path, ? is written %3F and # is written %23")
    path = unquote(rest)
    if path in ("", "/") or "\0" in path:
        raise _not_one(url, "it names no file")
    if path == ":memory:":
        raise _not_one(url, "a log in memory is memory:")
    return path


def _check_redis(url: str) -> None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:  # which may quote what stands where a port should, and be a password
        raise _not_one(url, "its host or port cannot be read") from None
    if parts.scheme == "unix":
        if not parts.path.strip("/") or not url.startswith("unix://"):
            raise _not_one(url, "it names no socket")
    elif not url.startswith(f"{parts.scheme}://") or not re.fullmatch(r"(/\d*)?", parts.path):
        raise _not_one(url, "behind host and port stands the number of a database, if anything")


def _not_one(url: str, why: str) -> UserError:
    return UserError(f"{shown(url)!r} is not the address of a log: {why}. The forms are {FORMS}.")
