"""Appends: what one asks of the server, and what comes of the answer.

The server takes a batch that is the next one, or that stands there already byte for byte. Whether
one that overlaps otherwise says what stands there is found out here.
"""

from __future__ import annotations

from dataclasses import dataclass

from millstream.errors import (
    LogError,
    LogFullError,
    LogTruncatedError,
    PositionConflictError,
    RunClosedError,
    StaleOwnerError,
)
from millstream.log.batches import ROOM, Caps
from millstream.log.form import Packed, unpack_lines
from millstream.log.redis import scripts
from millstream.log.redis.requests import argument, stale
from millstream.log.redis.server import Call, Reply, Server
from millstream.log.store import ENDED, status_told


@dataclass(frozen=True, slots=True)
class Append:
    """A batch that is to be written."""

    run_id: str
    packed: Packed
    epoch: int

    def call(self, caps: Caps, retention: float | None) -> Call:
        """The call that writes it."""
        batch = self.packed.batch
        status, code = status_told(self.run_id, batch) or ("", None)
        of = batch.stamp.run_id
        completes = not batch.raw_only and any(
            not isinstance(payload, bytes) and payload.type == "model.completed" for payload in batch.payloads
        )
        arguments = (
            self.run_id,
            self.epoch,
            batch.first,
            batch.last,
            self.packed.data,
            batch.size,
            of if batch.raw_only else "",
            of if completes else "",
            status,
            code or "",
            int(status in ENDED),
            batch.stamp.agent,
            int(batch.checkpoint is not None),
            batch.checkpoint or b"",
            caps.events,
            caps.bytes,
            ROOM,
            -1 if retention is None else round(retention * 1000),
        )
        return Call(scripts.APPEND, tuple(map(argument, arguments)))


@dataclass(frozen=True, slots=True)
class Written:
    """What came of an append."""

    new: Packed | None
    """What of it was not there yet."""
    thinned: bool
    """Whether raw events were dropped to make room."""


def truncated(run_id: str, known: int, last: int) -> LogTruncatedError:
    """The server has less of a run than it had."""
    had = f"it had position {known}, and has {last} now" if known else "it knows nothing of it any more"
    return LogTruncatedError(
        f"The Redis server has lost events of run {run_id}: {had}. Was it restarted without its data?"
    )


class Appender:
    """Writes batches, on the thread of the log."""

    def __init__(self, server: Server, caps: Caps, retention: float | None) -> None:
        self._server = server
        self._caps = caps
        self._retention = retention

    def call(self, append: Append) -> Call:
        """The call that writes a batch."""
        return append.call(self._caps, self._retention)

    def outcome(self, append: Append, reply: Reply, known: int, store: str) -> Written:
        """What the answer `reply` means.

        Args:
            append: what was asked for.
            reply: the answer.
            known: the last position that the server has been seen to hold.
            store: the name of the log that had it.

        Raises:
            LogError: as `RunStore.append`.
        """
        if isinstance(reply, LogError):
            raise reply
        run_id, batch = append.run_id, append.packed.batch
        word, *rest = reply
        if word == b"ok":
            return Written(append.packed, bool(rest[0]))
        if word == b"overlap":
            return self._written_beyond(append, int(rest[0]), known, store)
        if word == b"closed":
            raise RunClosedError(f"Run {run_id} has ended; nothing more can be written to its log.")
        if word == b"full":
            raise LogFullError(
                f"Run {run_id} reached the cap of its log "
                f"({self._caps.events} events, {self._caps.bytes} bytes)."
            )
        if word == b"stale":
            raise stale(run_id, append.epoch, int(rest[0] or 0))
        last = int(rest[0]) if word == b"hole" else 0
        if last < known if word == b"hole" else rest[0].decode() != store:
            raise truncated(run_id, known, last)
        if word == b"gone" and append.epoch:
            raise StaleOwnerError(f"Run {run_id} was deleted: nothing can be written to it.")
        raise PositionConflictError(f"Position {batch.first} is not the next one: that is {last + 1}.")

    def _written_beyond(self, append: Append, last: int, known: int, store: str) -> Written:
        """Write what of a batch is not there, given that the rest says what stands there."""
        packed = append.packed
        there = self._lines(append.run_id, packed.batch.first, min(last, packed.batch.last))
        for position, (line, held) in enumerate(zip(packed.lines, there, strict=False), packed.batch.first):
            if held is None:
                raise PositionConflictError(
                    f"Position {position} is not the next one: that is {last + 1}. What it held is no longer held."
                )
            if line != held:
                raise PositionConflictError(f"Position {position} holds another event already.")
        if last >= packed.batch.last:
            return Written(None, thinned=False)
        rest = Append(append.run_id, packed.beyond(last), append.epoch)
        return self.outcome(rest, self._server.ask([self.call(rest)])[0], known, store)

    def _lines(self, run_id: str, first: int, last: int) -> list[bytes | None]:
        """The events that stand at positions `first` to `last`; None for one that is no longer held."""
        lines: list[bytes | None] = [None] * (last - first + 1)
        after = first - 1
        while after < last:
            reply = self._server.ask([Call(scripts.READ, (argument(run_id), after, 16))])[0]
            if isinstance(reply, LogError):
                raise reply
            if reply[0] == b"gone" or not reply[5]:
                break
            held_from, pairs = reply[1], reply[5]
            for position, data in zip(pairs[::2], pairs[1::2], strict=True):
                for at, line in enumerate(unpack_lines(data, run_id, position), position):
                    after = max(after, at)
                    if max(first, held_from) <= at <= last:
                        lines[at - first] = line
        return lines
