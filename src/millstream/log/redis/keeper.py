"""What the thread of a log in Redis does: all calls that wait in one go, and then it sees to those who wait for others.

Rules of this file:

1. What the server has told once it has to tell again. Where it has less, its writer writes again
   what it still holds; what cannot be had is a `LogTruncatedError` for whoever writes or reads it.
2. A run is followed while somebody waits for it and this process does not write to it.
3. What is wrong with a run is told by the server to whoever asks. Who waits is made to ask.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from millstream.clock import SYSTEM_CLOCK
from millstream.errors import LogBrokenError, LogDamagedError, LogError
from millstream.log.form import Packed, unpack
from millstream.log.redis import requests
from millstream.log.redis.appends import Append, Appender, truncated
from millstream.log.redis.following import Following
from millstream.log.redis.requests import Gone, Request
from millstream.log.redis.server import Call, Plain, Reply, Server
from millstream.log.tails import QUIET, Chunk, Reach, Seen, Tails
from millstream.log.worker import Job, Wakes

logger = logging.getLogger("millstream")

LINGER = 10.0
"""Seconds for which a run is followed on that nobody waits for any more: most readers come back at once."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Commands of the server's own, and what their answers mean. A refusal is an answer too."""

    commands: tuple[Plain, ...]
    outcome: Callable[[list[Reply | LogError]], Any]


Work: TypeAlias = Append | Request | Ask


class Keeper:
    """Does what is asked of a log. Used by the thread of the log, which must not keep the log alive."""

    def __init__(self, server: Server, appender: Appender) -> None:
        self._server = server
        self._appender = appender
        self._store = ""
        """The name that the log had when it was seen first."""
        self._tails: Callable[[], Tails | None] = lambda: None
        self._poke: Callable[[], object] = lambda: None
        self._following = Following(server.address, server.channels, weakref.ref(self))
        self._followed: dict[str, float] = {}
        """The runs that are followed, and when somebody was last seen to wait for them."""
        self._told: frozenset[str] = frozenset()
        """Those that the thread which follows was told of."""
        self._untracked: set[str] = set()
        self._lock = threading.Lock()
        self._wrote_at = float("-inf")

    def serve(self, tails: weakref.ref[Tails], poke: Callable[[], object]) -> None:
        """Tell these tails; `poke` has `beat` called soon."""
        self._tails = tails
        self._poke = poke

    # --- jobs --------------------------------------------------------------------------------

    def handle(self, jobs: Sequence[Job[Work]], wakes: Wakes) -> None:
        """Do `jobs`: one round trip for all of them, unless one has to be looked into."""
        # What was asked for is done also where nobody is left who reads.
        tails = self._tails() or Tails(_nobody, lambda: None)
        # Before the server is asked: what is seen by then, it has to have.
        known = {
            work.run_id: tails.last(work.run_id) for job in jobs if not isinstance(work := job.work, Ask)
        }
        calls = [self._calls(job.work) for job in jobs]
        replies = iter(self._ask([call for each in calls for call in each]))
        unclear: set[str] = set()
        for job, asked in zip(jobs, calls, strict=True):
            work, given = job.work, [next(replies) for _ in asked]
            try:
                if isinstance(work, Ask):
                    job.result = work.outcome(given)
                elif isinstance(work, Request):
                    job.result = self._outcome(tails, work, given[0], known[work.run_id], wakes)
                else:
                    reply = given[0]
                    if work.run_id in unclear:  # it was tried before one in front of it was done
                        reply = self._ask(asked)[0]
                    elif not isinstance(reply, LogError) and reply[0] in (b"overlap", b"hole"):
                        unclear.add(work.run_id)
                    self._appended(tails, work, reply, known[work.run_id], wakes)
            except LogError as error:
                job.error = error

    def _calls(self, work: Work) -> Sequence[Call | Plain]:
        if isinstance(work, Append):
            return [self._appender.call(work)]
        return [work.call] if isinstance(work, Request) else work.commands

    def _ask(self, calls: Sequence[Call | Plain]) -> list[Reply | LogError]:
        replies = self._server.ask(calls)
        self._store = self._store or self._server.store
        return replies

    def _appended(
        self, tails: Tails, work: Append, reply: Reply | LogError, known: int, wakes: Wakes
    ) -> None:
        if not isinstance(reply, LogError) and reply[0] == b"hole" and int(reply[1]) < known:
            reply = self._restored(tails, work, reply, known)
        written = self._appender.outcome(work, reply, known, self._store)
        if written.thinned:
            tails.thinned(work.run_id)
        if written.new is not None:
            self._wrote_at = SYSTEM_CLOCK.monotonic()
            self._followed.pop(work.run_id, None)
            tails.written(work.run_id, written.new.batch, wakes, size=len(written.new.data))

    def _restored(self, tails: Tails, work: Append, reply: Reply, known: int) -> Reply | LogError:
        """The answer to an append once what the server has lost was written again, where it is still held here."""
        last = int(reply[1])
        lost = tails.held(work.run_id, last)
        if not lost or work.packed.batch.first != known + 1:
            return reply
        again = [Append(work.run_id, Packed.of(batch).beyond(last), work.epoch) for batch in lost]
        logger.warning(
            "run %s: the Redis server had lost positions %d to %d, which were written again. Was it killed?",
            work.run_id, last + 1, known,
        )  # fmt: skip
        return self._ask([self._appender.call(each) for each in (*again, work)])[-1]

    def _outcome(
        self, tails: Tails, request: Request, reply: Reply | LogError, known: int, wakes: Wakes
    ) -> Any:
        if isinstance(reply, LogError):
            raise reply
        result = request.outcome(reply)
        if isinstance(result, Gone):
            return self._gone(request.run_id, result, known)
        if isinstance(result, Chunk) and result.reach.last < known:
            raise truncated(request.run_id, known, result.reach.last)
        if request.tell is not None:
            request.tell(tails, result, wakes)
        return result

    def _gone(self, run_id: str, gone: Gone, known: int) -> Chunk:
        if not known:
            return Chunk([], Reach())
        if gone.store != self._store:
            raise truncated(run_id, known, 0)
        raise LogBrokenError(run_id)

    # --- those who wait ----------------------------------------------------------------------

    def beat(self, wakes: Wakes) -> float | None:
        """Follow what is waited for, and ask about what may have been missed."""
        tails = self._tails()
        if tails is None:
            return None
        now = SYSTEM_CLOCK.monotonic()
        watched = tails.watched()
        self._followed = {
            **{run_id: seen for run_id, seen in self._followed.items() if now - seen < LINGER},
            **dict.fromkeys(watched, now),
        }
        if self._followed.keys() != self._told:
            self._follow()
        with self._lock:
            due = {run_id for run_id, seen in watched.items() if seen.is_new or run_id in self._untracked}
            # Who is followed and does not wait at this moment may come back to what was missed.
            self._untracked = (self._untracked & self._followed.keys()) - due
        self._look(tails, {run_id: watched[run_id] for run_id in due}, wakes)
        if now - self._wrote_at < QUIET and tails.are_waited_for:
            return QUIET
        return LINGER if self._followed else None

    def _follow(self) -> None:
        told = self._following.follow(frozenset(self._followed))
        if told is None or not isinstance(self._ask([told])[0], LogError):
            self._told = frozenset(self._followed)

    def _look(self, tails: Tails, due: Mapping[str, Seen], wakes: Wakes) -> None:
        """Ask what stands behind the last known positions of these runs."""
        looks = [requests.read(run_id, seen.last) for run_id, seen in due.items()]
        replies = self._ask([look.call for look in looks])
        for look, reply, (run_id, seen) in zip(looks, replies, due.items(), strict=True):
            try:
                if not isinstance(reply, LogError) and reply[0] == b"gone" and seen.is_there:
                    tails.deleted(run_id, wakes)
                else:
                    tails.found(run_id, self._outcome(tails, look, reply, seen.last, wakes), wakes)
            except LogError:
                tails.doubt(run_id, wakes)

    # --- what is heard, on the thread that follows ---------------------------------------------

    def heard_batch(self, run_id: str, first: int, data: bytes) -> None:
        """This was written to a run."""
        try:
            batch = unpack(data, run_id, first)
        except LogDamagedError:
            self._tell(lambda tails, wakes: tails.doubt(run_id, wakes))
            return
        chunk = Chunk([batch], Reach(last=batch.last, sealed=batch.ends(run_id)))
        self._tell(lambda tails, wakes: tails.found(run_id, chunk, wakes))

    def heard_mail(self, run_id: str, number: int) -> None:
        """There is mail for a run."""
        self._tell(lambda tails, wakes: tails.told(run_id, number, wakes))

    def heard_end(self, run_id: str) -> None:
        """A run is gone."""
        self._tell(lambda tails, wakes: tails.deleted(run_id, wakes))

    def lost_track(self, run_ids: Iterable[str]) -> None:
        """Something may have been written to these that nobody here was told of."""
        with self._lock:
            self._untracked.update(run_ids)
        self._poke()

    def _tell(self, what: Callable[[Tails, Wakes], None]) -> None:
        tails = self._tails()
        if tails is not None:
            wakes = Wakes()
            what(tails, wakes)
            wakes.send()

    # --- the end -----------------------------------------------------------------------------

    def close(self) -> None:
        """Let go of the connections."""
        self._server.close_soon()  # nobody is left who would wait for a server that is away
        told = self._following.close()
        if told is not None:
            self._server.ask([told])
        self._server.close()


async def _nobody(run_id: str, after: int) -> Chunk:
    raise NotImplementedError
