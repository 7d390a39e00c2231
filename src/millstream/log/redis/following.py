"""Hearing of runs that other processes write: a second connection, on a thread of its own.

The server tells of each run that is followed on a channel of its own, and gives each batch with
it, so that a reader elsewhere costs one message and no question. What is lost with a connection
is found by asking, so a message may get lost and none has to.

Rules of this file:

1. A run is asked about once it is subscribed to, and again after every loss of the connection:
   what was written in between told nobody here.
2. Only the thread touches its connection. Others tell it what to follow through a channel of
   its own, which is how a thread that waits for the server is reached.
3. A server that says nothing is asked whether it is there.
"""

from __future__ import annotations

import contextlib
import logging
import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from millstream.log.redis.server import FIRST_PAUSE, LONGEST_PAUSE, TIMEOUT, Address, Plain, errors

logger = logging.getLogger("millstream")

SILENCE = 15.0
"""Seconds without a word after which the server is asked whether it is there."""


class Hearer(Protocol):
    """Who is told, on the thread that follows."""

    def heard_batch(self, run_id: str, first: int, data: bytes) -> None:
        """This was written to a run, from position `first` on."""
        ...

    def heard_mail(self, run_id: str, number: int) -> None:
        """There is mail for a run."""
        ...

    def heard_end(self, run_id: str) -> None:
        """A run is gone."""
        ...

    def lost_track(self, run_ids: Iterable[str]) -> None:
        """Something may have been written to these that nobody here was told of."""
        ...


class Following:
    """Follows runs, from the first one on.

    Args:
        address: where the server is.
        channels: what the names of channels begin with.
        hearer: gives who is told, or None once nobody is.
    """

    def __init__(self, address: Address, channels: str, hearer: Callable[[], Hearer | None]) -> None:
        self._address = address
        self._channels = channels
        self._hearer = hearer
        self._own = f"{channels}/{secrets.token_hex(8)}".encode()
        self._wanted: frozenset[str] = frozenset()
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def follow(self, run_ids: frozenset[str]) -> Plain | None:
        """Follow these and no others; what the server is to be asked so that the thread hears of it."""
        self._wanted = run_ids
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="millstream redis follow", daemon=True)
            self._thread.start()
            return None
        return self._call()

    def close(self) -> Plain | None:
        """Let the thread end; what the server is to be asked for that."""
        self._closing.set()
        return None if self._thread is None else self._call()

    def _call(self) -> Plain:
        return Plain(("PUBLISH", self._own, b""))

    # --- on the thread -----------------------------------------------------------------------

    def _work(self) -> None:
        pause = FIRST_PAUSE
        while not self._closing.is_set():
            try:
                with contextlib.closing(_Line(self._address, self._own)) as line:
                    pause = FIRST_PAUSE
                    self._listen(line)
            except errors.ResponseError as error:
                logger.warning("Redis does not tell what other processes write: %s", error)
            except (errors.RedisError, OSError):
                pass  # whoever asks the server is told what is wrong with it
            if (hearer := self._hearer()) is None:
                return
            hearer.lost_track(self._wanted)
            del hearer
            self._closing.wait(pause)
            pause = min(pause * 2, LONGEST_PAUSE)

    def _listen(self, line: _Line) -> None:
        line.follow(self._channels, self._wanted)
        while not self._closing.is_set():
            kind, channel, data = line.next()
            hearer = self._hearer()
            if hearer is None:
                return
            if channel == self._own:
                line.follow(self._channels, self._wanted)
            else:
                self._tell(
                    hearer, kind, channel[len(self._channels) :].decode("utf-8", "surrogatepass"), data
                )
            del hearer

    def _tell(self, hearer: Hearer, kind: bytes, run_id: str, data: bytes) -> None:
        if kind == b"subscribe":
            hearer.lost_track([run_id])
        elif kind != b"message":
            return
        elif data[:1] == b"e":
            first, _, batch = data[1:].partition(b" ")
            hearer.heard_batch(run_id, int(first), batch)
        elif data[:1] == b"m":
            hearer.heard_mail(run_id, int(data[1:]))
        else:
            hearer.heard_end(run_id)


class _Line:
    """The connection of a thread that follows."""

    def __init__(self, address: Address, own: bytes) -> None:
        self._connection: Any = address.connect()
        self._subscribed: frozenset[str] = frozenset()
        self._send("SUBSCRIBE", own)

    def follow(self, channels: str, run_ids: frozenset[str]) -> None:
        """Subscribe to the channels of these runs, and to no other run's."""
        before, self._subscribed = self._subscribed, run_ids
        for command, changed in (("SUBSCRIBE", run_ids - before), ("UNSUBSCRIBE", before - run_ids)):
            if changed:
                self._send(command, *((channels + each).encode("utf-8", "surrogatepass") for each in changed))

    def next(self) -> tuple[bytes, bytes, bytes]:
        """The next that the server says: its kind, the channel, and what."""
        while True:
            if not self._connection.can_read(timeout=SILENCE):
                self._send("PING")
                if not self._connection.can_read(timeout=TIMEOUT):
                    raise errors.TimeoutError("The server says nothing any more.")
            message: Any = self._connection.read_response()
            if message[0] != b"pong":
                return message[0], message[1], message[2]

    def close(self) -> None:
        self._connection.disconnect()

    def _send(self, *command: Any) -> None:
        self._connection.send_command(*command, check_health=False)
