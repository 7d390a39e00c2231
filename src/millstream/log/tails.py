"""The tails of the runs that somebody reads or writes in this process, and the cursors on them.

What is written is given to those who wait for it by a tail, in this process, when the engine has
it: the very batch that was appended, so that a reader beside its writer decodes nothing. Who is
further back than the tail reaches asks the engine, a chunk at a time.

Rules of this file:

1. A tail is a run of batches without a hole. What does not follow on it begins it anew.
2. Gaps are found by counting: a batch that begins beyond the position that is due is behind one.
   So it does not matter who forgot something, nor in which process.
3. A tail lives as long as a cursor has it, and a while longer if it is written here.
4. Every look at a tail is under one lock, that of all tails: who finds nothing waits before more
   can come. Cursors may be in any thread and on any event loop.
"""

from __future__ import annotations

import asyncio
import bisect
import threading
import weakref
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from millstream.clock import SYSTEM_CLOCK
from millstream.errors import LogBrokenError, LogError, LogGapError, LogTruncatedError, LogUnavailableError
from millstream.log.promise import Batch, Cursor
from millstream.log.store import Command
from millstream.log.worker import Wakes

TAIL_BATCHES = 256
"""Batches that a tail holds at most."""
TAIL_BYTES = 256 * 1024
"""Bytes of them, as far as they are known, beyond which it holds but the last."""
ALL_BATCHES = 32 * 1024
"""Batches that the tails of a log hold together: where there are many, each holds its share."""
FEWEST_BATCHES = 16
"""Batches that a tail may hold, however many there are."""
KEPT = 128
"""Tails that are kept although no cursor has them: of the runs that were written last."""
QUIET = 0.25
"""Seconds after which a run that was written here may have another writer, and is watched again."""


@dataclass(frozen=True, slots=True)
class Reach:
    """How far a run reaches, as its engine says."""

    first: int = 1
    """The first position that was not trimmed."""
    last: int = 0
    """The last position written; 0 where there is none, or no run."""
    sealed: bool = False
    """Whether the last position holds the terminal event."""
    mail: int = 0
    """The number of the last command in its mail."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of what an engine has of a run."""

    batches: list[Batch]
    """Those that hold what was asked for and what follows it, in order; empty only where nothing follows."""
    reach: Reach


class Seen(NamedTuple):
    """What is known of a run that somebody waits for."""

    reach: Reach
    is_there: bool
    """Whether there was ever anything of it: it may have been deleted since."""
    is_followed: bool
    """Whether its events are waited for, and not its mail alone."""
    is_new: bool
    """Whether nobody waited for it when this was asked last: what was told of it since may have been told to nobody."""

    @property
    def last(self) -> int:
        """The last position that is known."""
        return self.reach.last


class Mail(NamedTuple):
    """What an engine has of the mail of a run."""

    commands: Sequence[Command]
    is_last: bool
    """Whether no more will come: the run is not there, or has ended."""


Read = Callable[[str, int], Awaitable[Chunk]]
"""Reads what an engine has of a run beyond a position: as much as is good to read at once."""


class _Due(Enum):
    """What a cursor has to do that finds no batch in its tail."""

    WAIT = 1
    ASK_ENGINE = 2
    END = 3


class Tails:
    """The tails of one log.

    Args:
        read: asks the engine.
        watch: called, in any thread, when somebody begins to wait for a run that nobody waited for; `watched` tells which.
    """

    def __init__(self, read: Read, watch: Callable[[], object]) -> None:
        self._read = read
        self._watch = watch
        # Its own thread may take it twice: a collector that runs in here may collect a cursor.
        self._lock = threading.RLock()
        self._tails: weakref.WeakValueDictionary[str, _Tail] = weakref.WeakValueDictionary()
        self._kept: OrderedDict[str, _Tail] = OrderedDict()
        self._is_closed = False

    # --- what the log asks -------------------------------------------------------------------

    def cursor(self, run_id: str, after: int) -> Cursor:
        """A cursor that stands behind position `after`."""
        with self._lock:
            return _TailCursor(self, self._tail(run_id), after)

    def break_off(self, run_id: str) -> None:
        """Let nobody here wait for that run, unless it has its terminal event."""
        wakes = Wakes()
        with self._lock:
            tail = self._keep(run_id)
            tail.is_broken = True
            tail.wake(wakes)
        wakes.send()

    async def mail(self, run_id: str, after: int, read: Callable[[], Awaitable[Mail]]) -> Sequence[Command]:
        """The mail of a run behind number `after`, as soon as there is any; `read` asks the engine for it."""
        with self._lock:
            tail = self._tail(
                run_id
            )  # held all the time, so that nothing is missed between looking and waiting
        while True:
            known = tail.mail
            mail = await read()
            if mail.commands or mail.is_last:
                return mail.commands
            with self._lock:
                if after < known == tail.mail:  # the engine has lost what it had: to be waited for again
                    tail.mail = after
            await self.wait_for_mail(run_id, after)

    async def wait_for_mail(self, run_id: str, after: int) -> None:
        """Return when there may be mail behind number `after`, or the run, which was there, has ended or is gone."""
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            tail = self._tail(run_id)
            self._refuse_if_closed()
            tail.is_there = True
            if tail.mail > after or tail.sealed or tail.is_gone:
                return
            tail.waiting_for_mail[waiter] = after
        await self._wait(waiter, tail)

    def close(self) -> None:
        """Let nobody wait any more."""
        wakes = Wakes()
        with self._lock:
            self._is_closed = True
            for tail in list(self._tails.values()):
                tail.is_known = False
                tail.wake(wakes)
            self._kept.clear()
        wakes.send()

    # --- what the keeper tells, on its own thread ------------------------------------------------

    def written(self, run_id: str, batch: Batch, wakes: Wakes, *, size: int) -> None:
        """`batch` was written by this process, and stands in the engine in `size` bytes."""
        with self._lock:
            tail = self._keep(run_id)
            tail.written_at = SYSTEM_CLOCK.monotonic()
            tail.is_known = tail.is_there = True
            tail.room = max(FEWEST_BATCHES, min(TAIL_BATCHES, ALL_BATCHES // len(self._tails)))
            tail.add(batch, size)
            tail.sealed = tail.sealed or batch.ends(run_id)
            tail.wake(wakes)

    def found(self, run_id: str, chunk: Chunk, wakes: Wakes) -> None:
        """The engine has `chunk`, which was asked for behind the last position of a tail, or has no more."""
        if chunk.batches and chunk.batches[-1].last < chunk.reach.last:  # the rest is asked for behind it
            reach = replace(chunk.reach, last=chunk.batches[-1].last, sealed=False)
            chunk = replace(chunk, reach=reach)
        with self._lock:
            tail = self._tails.get(run_id)
            if tail is not None and tail.learn(chunk):
                tail.wake(wakes)

    def told(self, run_id: str, number: int, wakes: Wakes) -> None:
        """There is mail up to `number`."""
        with self._lock:
            tail = self._tails.get(run_id)
            if tail is not None and number > tail.mail:
                tail.mail = number
                tail.wake(wakes)

    def trimmed(self, run_id: str, first: int, wakes: Wakes) -> None:
        """The positions before `first` are forgotten."""
        with self._lock:
            tail = self._tails.get(run_id)
            if tail is not None:
                tail.trim(first)
                tail.wake(wakes)

    def thinned(self, run_id: str) -> None:
        """Some of what stands in the run was forgotten: whoever asks for it asks the engine."""
        with self._lock:
            tail = self._tails.get(run_id)
            if tail is not None:
                tail.forget()

    def deleted(self, run_id: str, wakes: Wakes) -> None:
        """The run is gone. One that is made under its id has another tail."""
        with self._lock:
            self._kept.pop(run_id, None)
            tail = self._tails.pop(run_id, None)
            if tail is not None:
                tail.is_gone = True
                tail.wake(wakes)

    def doubt(self, run_id: str, wakes: Wakes) -> None:
        """Something is wrong with the run: whoever waits for it asks the engine, which tells them what."""
        with self._lock:
            tail = self._tails.get(run_id)
            if tail is not None:
                tail.is_known = False
                tail.wake(wakes)

    def claimed(self, run_id: str) -> None:
        """A new owner in this process writes the run: where it was broken off, that is over."""
        with self._lock:
            tail = self._tails.get(run_id)
            if tail is not None:
                tail.is_broken = False

    # --- what a keeper watches -------------------------------------------------------------------

    def watched(self) -> Mapping[str, Seen]:
        """The runs that somebody waits for and that others may write to, and how far they are known.

        Who begins to wait for a run that nobody waited for when this was called has `watch` called. A run
        that was written here less than `QUIET` seconds ago is left out: so while anybody waits for
        anything, this has to be called again after that.
        """
        quiet_since = SYSTEM_CLOCK.monotonic() - QUIET
        watched: dict[str, Seen] = {}
        with self._lock:
            for run_id, tail in self._tails.items():
                is_followed = bool(tail.waiting) and tail.written_at <= quiet_since
                if is_followed or tail.waiting_for_mail:
                    watched[run_id] = Seen(tail.reach, tail.is_there, is_followed, not tail.is_noticed)
                tail.is_noticed = bool(tail.waiting or tail.waiting_for_mail)
        return watched

    @property
    def are_waited_for(self) -> bool:
        """Whether anybody waits for anything."""
        with self._lock:
            return any(tail.waiting or tail.waiting_for_mail for tail in self._tails.values())

    def last(self, run_id: str) -> int:
        """The last position that is known to have been written; 0 where none is."""
        with self._lock:
            tail = self._tails.get(run_id)
            return 0 if tail is None else tail.last

    def held(self, run_id: str, after: int) -> list[Batch]:
        """The batches behind position `after`, to the last one; none where the tail does not reach back as far."""
        with self._lock:
            tail = self._tails.get(run_id)
            batches = [] if tail is None else [batch for batch in tail.batches if batch.last > after]
        return batches if batches and batches[0].first <= after + 1 else []

    # --- what cursors ask ------------------------------------------------------------------------

    def look(self, tail: _Tail, after: int) -> Batch | _Due:
        """The batch that holds the position behind `after`, or what is to be done for it.

        Raises:
            LogGapError: that position is no longer held.
            LogBrokenError: nothing more will be written here, or the run is gone.
        """
        with self._lock:
            self._refuse_if_closed()
            return tail.look(after)

    async def read(self, tail: _Tail, after: int) -> Chunk:
        """What the engine has beyond `after`.

        Raises:
            LogTruncatedError: it has less than it had.
            LogBrokenError: it has nothing of the run any more; or it cannot be asked, and the run broke off.
        """
        known = tail.last
        try:
            chunk = await self._read(tail.run_id, after)
        except LogUnavailableError as error:
            if tail.is_broken:
                raise LogBrokenError(tail.run_id) from error
            raise
        reach = chunk.reach
        if reach.last < known:
            raise (
                LogTruncatedError(
                    f"Run {tail.run_id} reached position {known} of its log, which has {reach.last} now."
                )
                if reach.last
                else LogBrokenError(tail.run_id)
            )
        if after + 1 < reach.first:
            raise LogGapError(tail.run_id, after + 1, reach.first)
        if not chunk.batches and reach.last > after:
            raise LogGapError(tail.run_id, after + 1, reach.last + 1)
        wakes = Wakes()
        with self._lock:
            if tail.learn(chunk):
                tail.wake(wakes)
        wakes.send()
        return chunk

    async def wait_for(self, tail: _Tail, after: int) -> None:
        """Return when `look` may say something else than to wait."""
        waiter = asyncio.get_running_loop().create_future()
        with self._lock:
            self._refuse_if_closed()
            if tail.look(after) is not _Due.WAIT:
                return
            tail.waiting.add(waiter)
        await self._wait(waiter, tail)

    async def _wait(self, waiter: asyncio.Future[None], tail: _Tail) -> None:
        try:
            if not tail.is_noticed:
                self._watch()
            await waiter
        finally:
            with self._lock:
                tail.waiting.discard(waiter)
                tail.waiting_for_mail.pop(waiter, None)

    def _refuse_if_closed(self) -> None:
        if self._is_closed:
            raise LogError("The log was closed by aclose().")

    def _tail(self, run_id: str) -> _Tail:
        tail = self._tails.get(run_id)
        if tail is None:
            tail = self._tails[run_id] = _Tail(run_id)
        return tail

    def _keep(self, run_id: str) -> _Tail:
        tail = self._kept[run_id] = self._tail(run_id)
        self._kept.move_to_end(run_id)
        while len(self._kept) > KEPT:
            self._kept.popitem(last=False)
        return tail


class _Tail:
    """The last batches of one run, and who waits for more. Used under the lock of `Tails`."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.batches: deque[Batch] = deque()
        """Without a hole; the last one ends at `last`, if there is one."""
        self.sizes: deque[int] = deque()
        self.size = 0
        self.first = 1
        self.last = 0
        self.mail = 0
        self.sealed = False
        self.is_known = False
        """Whether the engine was asked at all how far the run reaches."""
        self.is_there = False
        """Whether there was ever anything of it."""
        self.room = TAIL_BATCHES
        """Batches that it may hold."""
        self.is_broken = False
        self.is_gone = False
        self.is_noticed = False
        """Whether who watches runs knows that this one is waited for."""
        self.written_at = float("-inf")
        """When this process wrote to it last."""
        self.waiting: set[asyncio.Future[None]] = set()
        self.waiting_for_mail: dict[asyncio.Future[None], int] = {}
        """Each with the number of the command that it has seen."""

    @property
    def reach(self) -> Reach:
        """How far the run reaches, as far as is known here."""
        return Reach(self.first, self.last, self.sealed, self.mail)

    def look(self, after: int) -> Batch | _Due:
        if after + 1 < self.first:
            raise LogGapError(self.run_id, after + 1, self.first)
        if after < self.last:
            batches = self.batches
            if not batches or batches[0].first > after + 1:
                # Deleted meanwhile, the engine has it no longer, and may never have had what is asked for.
                if self.is_gone:
                    raise LogBrokenError(self.run_id)
                return _Due.ASK_ENGINE
            if batches[-1].first <= after + 1:
                return batches[-1]
            return batches[bisect.bisect_right(batches, after, key=lambda batch: batch.last)]
        if self.sealed:
            return _Due.END
        if self.is_gone:
            raise LogBrokenError(self.run_id)
        if not self.is_known:
            return _Due.ASK_ENGINE
        if self.is_broken:
            raise LogBrokenError(self.run_id)
        return _Due.WAIT

    def add(self, batch: Batch, size: int) -> None:
        """Put `batch` behind the others; one that was found by another way already changes nothing."""
        if batch.last <= self.last:
            return
        if batch.first != self.last + 1:
            self.forget()
        self.batches.append(batch)
        self.sizes.append(size)
        self.size += size
        self.last = batch.last
        while len(self.batches) > self.room or (self.size > TAIL_BYTES and len(self.batches) > 1):
            self._drop_first()

    def learn(self, chunk: Chunk) -> bool:
        """Take in what the engine says. Returns whether that is news."""
        reach, before = chunk.reach, (self.is_known, self.reach)
        self.is_known = True
        self.is_there = self.is_there or reach.last > 0
        self.mail = max(self.mail, reach.mail)
        if chunk.batches and chunk.batches[-1].last >= self.last:
            for batch in chunk.batches:
                self.add(batch, batch.size)
        if reach.last > self.last:  # the chunk does not reach as far
            self.forget()
            self.last = reach.last
        self.sealed = self.sealed or (reach.sealed and self.last == reach.last)
        if reach.first > self.first:
            self.trim(reach.first)
        return before != (self.is_known, self.reach)

    def trim(self, first: int) -> None:
        self.first = min(max(first, self.first), self.last + 1)
        while self.batches and self.batches[0].last < self.first:
            self._drop_first()

    def forget(self) -> None:
        self.batches.clear()
        self.sizes.clear()
        self.size = 0

    def wake(self, wakes: Wakes) -> None:
        """Let all who wait look again; who waits for mail, where there may be some or none can come."""
        for future in self.waiting:
            wakes.add(future)
        self.waiting.clear()
        no_more = self.sealed or self.is_gone or not self.is_known
        for future, after in list(self.waiting_for_mail.items()):
            if no_more or self.mail > after:
                wakes.add(future)
                del self.waiting_for_mail[future]

    def _drop_first(self) -> None:
        self.batches.popleft()
        self.size -= self.sizes.popleft()


class _TailCursor(Cursor):
    """A place in a run: served by its tail, and by what was read of the engine where that is behind the tail."""

    __slots__ = ("_after", "_read", "_tail", "_tails")

    def __init__(self, tails: Tails, tail: _Tail, after: int) -> None:
        self._tails = tails
        self._tail = tail
        self._after = after
        self._read: deque[Batch] = deque()

    async def next(self) -> Batch | None:
        while True:
            found = self._look()
            if isinstance(found, Batch):
                return self._take(found)
            if found is _Due.END:
                return None
            if found is _Due.WAIT:
                await self._tails.wait_for(self._tail, self._after)
                continue
            self._read.extend((await self._tails.read(self._tail, self._after)).batches)

    def next_nowait(self) -> Batch | None:
        """The next events, where they are at hand in this process."""
        try:
            found = self._look()
            return self._take(found) if isinstance(found, Batch) else None
        except LogError:  # `next` tells of it
            return None

    def _look(self) -> Batch | _Due:
        """The next batch, or what is to be done for it."""
        read = self._read
        while read and read[0].last <= self._after:
            read.popleft()
        if read and self._tail.first <= self._after + 1:  # else it was trimmed since
            return read[0]
        return self._tails.look(self._tail, self._after)

    def _take(self, batch: Batch) -> Batch:
        if batch.first > self._after + 1:
            raise LogGapError(self._tail.run_id, self._after + 1, batch.first)
        self._after = batch.last
        return batch
