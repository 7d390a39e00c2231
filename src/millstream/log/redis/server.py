"""The Redis server, as the threads of a log see it: calls of scripts that are made until they are answered.

Rules of this file:

1. Every script knows again what it has done, so a call whose answer did not come is made again.
2. A server may be away for as long as the log has patience; whoever asks later is not made to
   wait as long again. What it refuses is told at once.
3. What it says in an error goes into the message of ours; what the log keeps never does.
"""

from __future__ import annotations

import random
import secrets
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from millstream.clock import SYSTEM_CLOCK
from millstream.errors import LogDamagedError, LogError, LogUnavailableError, MissingExtraError, UserError
from millstream.log.redis.scripts import SCRIPTS, Script

try:
    import redis
    from redis import exceptions as errors
    from redis.backoff import NoBackoff
    from redis.connection import ConnectionPool
    from redis.retry import Retry
except ImportError:
    raise MissingExtraError("RedisLog", "redis") from None

TIMEOUT = 5.0
"""Seconds without an answer after which a connection is given up."""
FIRST_PAUSE = 0.05
"""Seconds before a lost server is tried again; twice as long each time, up to `LONGEST_PAUSE`."""
LONGEST_PAUSE = 1.0

_AWAY = (errors.ConnectionError, errors.TimeoutError, OSError)
_REFUSED = (errors.AuthenticationError, errors.AuthorizationError)
# What a server says that will answer soon; that it is loading is an error of the connection.
_SOON = ("ResponseError: BUSY ", "TryAgainError", "MasterDownError")

Reply: TypeAlias = Any
Argument: TypeAlias = bytes | str | int | float


@dataclass(frozen=True, slots=True)
class Call:
    """A script with its arguments. The first one is the run that it is about, or "" for none."""

    script: Script
    arguments: tuple[Argument, ...]


@dataclass(frozen=True, slots=True)
class Plain:
    """A command of the server's own."""

    arguments: tuple[Argument, ...]


class Address:
    """Where a server is and how one logs in there: from a URL, or as a client of the program's does.

    Raises:
        UserError: it is neither.
    """

    def __init__(self, url_or_client: object, timeout: float) -> None:
        if isinstance(url_or_client, str):
            try:
                pool = cast("Any", ConnectionPool).from_url(url_or_client)
            except ValueError as error:  # not the URL itself: it may have a password
                raise UserError(f"RedisLog(url): {error}") from error
        elif isinstance(url_or_client, redis.Redis):
            pool = cast("Any", url_or_client).connection_pool
        else:
            kind = type(url_or_client)
            raise UserError(
                "RedisLog takes a URL, as redis://localhost:6379/0, or a redis.Redis, not a "
                f"{kind.__module__}.{kind.__name__}."
            )
        self._class: Any = pool.connection_class
        self._options: dict[str, Any] = {
            **{
                name: value for name, value in pool.connection_kwargs.items() if not name.startswith("maint_")
            },
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "decode_responses": False,
            "health_check_interval": 0,
            "protocol": 2,
            # Whether and when something is tried again is decided here.
            "retry": Retry(NoBackoff(), 0),
            "retry_on_error": [],
        }
        self.database = int(self._options.get("db") or 0)

    def connect(self) -> Any:
        """A connection of its own, for one thread."""
        connection = self._class(**self._options)
        connection.connect()
        return connection


class Server:
    """One connection to the server, used by one thread at a time.

    Args:
        address: where it is.
        prefix: what all keys begin with.
        patience: seconds for which it may be away before those who wait are told.
    """

    def __init__(self, address: Address, prefix: str, patience: float) -> None:
        self.address = address
        self.prefix = prefix
        self.channels = f"{prefix}@{address.database}:"
        """What the channels begin with. Channels know no databases."""
        self.store = ""
        """Which log this is. One that has lost its data has another name."""
        self._patience = patience
        self._connection: Any = None
        self._away_since: float | None = None
        self._closing = threading.Event()

    def close_soon(self) -> None:
        """Wait for a lost server no longer. Safe in any thread."""
        self._closing.set()

    def close(self) -> None:
        """Let go of the connection."""
        self._disconnect()

    def ask(self, calls: Sequence[Call | Plain]) -> list[Reply | LogError]:
        """What the server answers to `calls`, which it does in this order. It may take as long as the patience.

        A call that it refuses has an error in place of the answer, as have all that it was too long away for.
        """
        replies: list[Reply | LogError] = []
        pause = FIRST_PAUSE
        while len(replies) < len(calls):
            try:
                self._exchange(calls, replies)
            except _REFUSED as error:
                return self._give_up(calls, replies, error)
            except (*_AWAY, errors.InvalidResponse, errors.ResponseError) as error:
                if isinstance(error, errors.ResponseError) and not _is_passing(error):
                    return self._give_up(calls, replies, error)
                if not self._wait(pause):
                    return self._give_up(calls, replies, error)
                pause = min(pause * 2, LONGEST_PAUSE)
        return replies

    def _exchange(self, calls: Sequence[Call | Plain], replies: list[Reply | LogError]) -> None:
        try:
            if self._connection is None:
                self._connection = self._connected()
            connection = self._connection
            connection.send_packed_command(
                connection.pack_commands([self._command(call) for call in calls[len(replies) :]]), False
            )
            while len(replies) < len(calls):
                replies.append(_read(connection))
        except BaseException:
            self._disconnect()
            raise
        self._away_since = None

    def _command(self, call: Call | Plain) -> tuple[Argument, ...]:
        if isinstance(call, Plain):
            return call.arguments
        return ("EVALSHA", call.script.digest, 2, self.prefix, self.channels, *call.arguments)

    def _connected(self) -> Any:
        connection = self.address.connect()
        try:
            commands = [("SCRIPT", "LOAD", script.text) for script in SCRIPTS]
            connection.send_packed_command(connection.pack_commands(commands), False)
            for _ in commands:
                connection.read_response()
            self.store = self._name_of_store(connection)
        except BaseException:
            connection.disconnect()
            raise
        return connection

    def _name_of_store(self, connection: Any) -> str:
        key = f"{self.prefix}:store"

        def ask(*command: str) -> Any:
            connection.send_command(*command)
            return connection.read_response()

        name = ask("GET", key)
        if name is None:
            ask("SET", key, secrets.token_hex(8), "NX")
            name = ask("GET", key)
        return str(name, "ascii", "replace")

    def _wait(self, pause: float) -> bool:
        """Whether there is patience left, after a pause."""
        now = SYSTEM_CLOCK.monotonic()
        if self._away_since is None:
            self._away_since = now
        left = self._away_since + self._patience - now
        if left <= 0:
            return False
        # Not all processes at once, when the server is back.
        return not self._closing.wait(min(pause * random.uniform(0.5, 1.0), left))

    def _give_up(
        self, calls: Sequence[Call | Plain], replies: list[Reply | LogError], error: Exception
    ) -> list[Reply | LogError]:
        told = of_ours(error)
        return [*replies, *[told for _ in calls[len(replies) :]]]

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.disconnect()


def _read(connection: Any) -> Reply | LogError:
    try:
        return connection.read_response()
    except errors.ResponseError as error:
        if _is_passing(error):
            raise
        return of_ours(error)


def _is_passing(error: Exception) -> bool:
    return isinstance(error, errors.NoScriptError) or f"{type(error).__name__}: {error}".startswith(_SOON)


def of_ours(error: Exception) -> LogError:
    """What is raised for an error of the server, or of the way there: what is wrong, and what helps."""
    said = f"{type(error).__name__}: {error}"
    for words, what, damaged in _TOLD:
        if any(word in said for word in words):
            return (LogDamagedError if damaged else LogUnavailableError)(f"{what} ({said})")
    if isinstance(error, errors.ResponseError):
        return LogUnavailableError(f"The Redis server refused. ({said})")
    return LogUnavailableError(f"The Redis server of this log cannot be reached. ({said})")


_TOLD: tuple[tuple[tuple[str, ...], str, bool], ...] = (
    (
        ("WRONGTYPE",),
        "A key of this log is of another type: something else uses its prefix. Give the log a prefix of its own.",
        True,
    ),
    (
        ("OutOfMemoryError", "OOM "),
        "The Redis server has no memory left: raise its maxmemory, or keep ended runs for a shorter time.",
        False,
    ),
    (
        ("ReadOnlyError", "READONLY"),
        "The Redis server is a read-only replica: give the log the address of its primary.",
        False,
    ),
    (
        ("MISCONF",),
        "The Redis server cannot write to its disk, and takes no changes.",
        False,
    ),
    (
        ("AuthenticationError", "NOAUTH", "WRONGPASS", "invalid username-password"),
        "The Redis server refuses the password or the user of this log's URL.",
        False,
    ),
    (
        ("NoPermissionError", "NOPERM"),
        "The Redis user of this log may not do all that a log does: see its ACL.",
        False,
    ),
    (
        ("MovedError", "MOVED", "AskError", "CROSSSLOT", "ClusterCrossSlotError", "ClusterDownError"),
        "The Redis server is part of a cluster, which a log cannot use: take a single server, or a primary with replicas.",
        False,
    ),
)
