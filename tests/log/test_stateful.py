"""Every keeper does what a model in plain Python does, whatever is done to it, in any order.

One run, and two logs on its engine, as two processes would have them: what one of them did, the
other one tells. A log may be dropped like a process that died, also in the middle of a write.

What the machine does is the same in every run of the suite. To look for something new:
`HYPOTHESIS_PROFILE=explore make test T=tests/log/test_stateful.py`; the seed is printed.
"""

import asyncio
import gc
import random
from collections.abc import Awaitable, Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from millstream.errors import (
    CommandConflictError,
    LogBrokenError,
    LogGapError,
    PositionConflictError,
    RunClosedError,
    RunExistsError,
    RunOwnedError,
    StaleOwnerError,
    UnknownRunError,
)
from millstream.events import (
    Event,
    ModelCompleted,
    RunAttempt,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    Stamp,
    UserEvent,
)
from millstream.log import Batch, Command, Cursor, LogInfo, NewRun, RunStatus
from millstream.log.promise import Payload, live
from tests.support.keepers import Engine

T = TypeVar("T")

PATIENCE = 30.0
"""Seconds that one call may take: a net under a log that hangs."""

TOLD: dict[str, tuple[Event, RunStatus | None]] = {
    "started": (RunStarted(agent="A"), "running"),
    "attempt": (RunAttempt(number=2, resumed_from=0), "running"),
    "paused": (RunPaused(), "paused"),
    "resumed": (RunResumed(), "running"),
    "nested": (RunFailed(code="max_turns", message="m", error_id="e"), None),
    "model": (ModelCompleted(turn=1), None),
}
ENDS: dict[RunStatus, Event] = {
    "completed": RunCompleted(output="done"),
    "failed": RunFailed(code="log_full", message="m", error_id="e"),
    "cancelled": RunCancelled(),
}


@dataclass
class Model:
    """What is known of the run, in plain Python."""

    lines: list[bytes] = field(default_factory=list[bytes])
    """The JSON of its events."""
    written: list[Batch] = field(default_factory=list[Batch])
    first: int = 1
    status: RunStatus = "queued"
    code: str | None = None
    epoch: int = 0
    owner: str | None = None
    """Whose lease lives."""
    checkpoint: bytes | None = None
    checkpoint_at: int = 0
    mail: list[Command] = field(default_factory=list[Command])

    @property
    def last(self) -> int:
        return len(self.lines)

    @property
    def has_ended(self) -> bool:
        return self.status in ENDS

    def write(self, batch: Batch, status: RunStatus | None) -> None:
        self.lines += [live(payload).to_json() for payload in batch.payloads]
        self.written.append(batch)
        self.status = status or self.status
        self.code = "log_full" if self.status == "failed" else None
        if status is not None and status != "running":
            self.owner = None
        if batch.checkpoint is not None:
            self.checkpoint, self.checkpoint_at = batch.checkpoint, batch.last


@dataclass
class Reader:
    """Somebody who follows the run."""

    log: int
    cursor: Cursor
    after: int
    has_read: bool = False
    """Whether the cursor gave something: before, it cannot tell a run that was deleted from one that is to come."""

    def begin_again(self, log: int, cursor: Cursor) -> None:
        self.log, self.cursor, self.has_read = log, cursor, False


class KeptRun(RuleBasedStateMachine):
    """A run that is kept."""

    engine: Engine

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.Runner()
        self.place = self.engine.new_place()
        self.logs = [self.engine.open(self.place) for _ in range(2)]
        self.run_id = "run_none"
        self.model: Model | None = None
        self.readers: list[Reader] = []
        self.count = 0
        self.looks = 0

    def teardown(self) -> None:
        for reader in self.readers:
            self.read_all(reader)
        for log in self.logs:
            self.do(log.aclose())
        self.loop.close()

    def do(self, call: Awaitable[T]) -> T:
        async def in_time() -> T:
            async with asyncio.timeout(PATIENCE):
                return await call

        return self.loop.run(in_time())

    def refused(self, call: Coroutine[Any, Any, Any], *expected: type[Exception]) -> None:
        with pytest.raises(expected):
            self.do(call)

    @property
    def own(self) -> Stamp:
        return Stamp(run_id=self.run_id, agent="A")

    @property
    def known(self) -> Model:
        assert self.model is not None
        return self.model

    def is_there(self) -> bool:
        return self.model is not None

    def has_readers(self) -> bool:
        return bool(self.readers)

    # --- the run -----------------------------------------------------------------------------

    @initialize()
    def begin(self) -> None:
        self.create(0)

    @rule(log=st.integers(0, 1))
    def create(self, log: int) -> None:
        if self.model is not None:
            other = self.logs[log].create(NewRun(run_id=self.run_id, agent="B", request=b"other"))
            self.refused(other, RunExistsError)
        else:
            self.count += 1
            self.run_id = f"run_{self.count}"  # ids are not used again
            self.do(self.logs[log].create(NewRun(run_id=self.run_id, agent="A", request=b"{}")))
            self.model = Model()

    @precondition(is_there)
    @rule(log=st.integers(0, 1))
    def delete(self, log: int) -> None:
        before, self.model = self.known, None
        self.do(self.logs[log].delete(self.run_id))
        for reader in self.readers:
            if reader.has_read:
                self.is_told_of_the_end(reader, before)
        self.readers = []

    @precondition(lambda self: self.model is None)
    @rule(log=st.integers(0, 1))
    def ask_for_what_is_not_there(self, log: int) -> None:
        store = self.logs[log]
        self.refused(store.record(self.run_id), UnknownRunError)
        self.refused(store.claim(self.run_id, owner="ann", lease=100), UnknownRunError)
        self.refused(store.tell(self.run_id, Command("cancel", b"{}")), UnknownRunError)
        self.refused(store.append(self.run_id, self.next_batch(["x"]), epoch=7), StaleOwnerError)
        assert self.do(store.runs()) == []

    # --- writing -----------------------------------------------------------------------------

    def next_batch(self, what: list[str], *, checkpoint: bool = False, event: Event | None = None) -> Batch:
        payloads: list[Payload] = []
        for kind in what:
            self.count += 1
            raw = b'{"type":"response.output_text.delta","delta":"%d"}' % self.count
            payloads.append(raw if kind == "raw" else UserEvent(name=f"{kind} {self.count}"))
        if event is not None:
            payloads.append(event)
        is_raw = all(isinstance(payload, bytes) for payload in payloads)
        size = sum(len(payload) for payload in payloads if isinstance(payload, bytes))
        first = 1 if self.model is None else self.model.last + 1
        return Batch(
            first, self.own, payloads, is_raw, size, b"checkpoint %d" % self.count if checkpoint else None
        )

    def write(self, log: int, batch: Batch, epoch: int, status: RunStatus | None = None) -> None:
        call = self.logs[log].append(self.run_id, batch, epoch=epoch)
        if epoch != self.known.epoch:
            self.refused(call, StaleOwnerError)
        elif self.known.has_ended:
            self.refused(call, RunClosedError)
        else:
            self.do(call)
            self.known.write(batch, status)

    @precondition(is_there)
    @rule(
        log=st.integers(0, 1),
        what=st.lists(st.sampled_from(["raw", "user"]), min_size=1, max_size=4),
        checkpoint=st.booleans(),
        stale=st.sampled_from([0, 0, 0, 0, -1, 1]),
    )
    def append(self, log: int, what: list[str], checkpoint: bool, stale: int) -> None:
        self.write(log, self.next_batch(what, checkpoint=checkpoint), self.known.epoch + stale)

    @precondition(is_there)
    @rule(log=st.integers(0, 1), what=st.sampled_from(sorted(TOLD)))
    def append_what_the_status_follows(self, log: int, what: str) -> None:
        event, status = TOLD[what]
        batch = self.next_batch([], event=event)
        if what == "nested":
            stamp = Stamp(run_id="run_nested", agent="B", depth=1, parent_run_id=self.run_id)
            batch = replace(batch, stamp=stamp)
        self.write(log, batch, self.known.epoch, status)

    @precondition(is_there)
    @rule(log=st.integers(0, 1), status=st.sampled_from(sorted(ENDS)), stale=st.sampled_from([0, 0, 1]))
    def seal(self, log: int, status: RunStatus, stale: int) -> None:
        batch = self.next_batch(["user"], event=ENDS[status])
        self.write(log, batch, self.known.epoch + stale, status)

    @precondition(lambda self: self.model is not None and self.model.last >= self.model.first)
    @rule(log=st.integers(0, 1), data=st.data())
    def append_again(self, log: int, data: st.DataObject) -> None:
        """The same once more, as a whole or together with what is new."""
        model = self.known
        held = [batch for batch in model.written if batch.first >= model.first]
        if not held:
            return
        batch = data.draw(st.sampled_from(held))
        self.do(self.logs[log].append(self.run_id, batch, epoch=model.epoch))
        final = model.written[-1]
        if final in held and final.stamp == self.own and not model.has_ended:
            more = self.next_batch(["user"])
            both = Batch(final.first, self.own, [*final.payloads, *more.payloads])
            self.do(self.logs[log].append(self.run_id, both, epoch=model.epoch))
            model.write(more, None)

    @precondition(lambda self: self.model is not None and self.model.last >= self.model.first)
    @rule(log=st.integers(0, 1), data=st.data())
    def append_something_else(self, log: int, data: st.DataObject) -> None:
        """At a position that is taken, and behind one that is not."""
        model = self.known
        batch = self.next_batch(["other", "user"])
        taken = data.draw(st.integers(model.first, model.last))
        for first, errors in (
            (taken, (PositionConflictError,)),
            (model.last + 2, (PositionConflictError, RunClosedError)),
        ):
            wrong = Batch(first, self.own, batch.payloads, checkpoint=b"wrong")
            self.refused(self.logs[log].append(self.run_id, wrong, epoch=model.epoch), *errors)

    @precondition(is_there)
    @rule(log=st.integers(0, 1), part=st.floats(0, 1))
    def trim(self, log: int, part: float) -> None:
        model = self.known
        first = model.first + round(part * (model.last + 1 - model.first))
        self.do(self.logs[log].trim(self.run_id, first))
        model.first = first

    # --- logs that come and go -----------------------------------------------------------------

    @rule(log=st.integers(0, 1))
    def crash(self, log: int) -> None:
        """The process is gone, with those who read in it; another one opens the log."""
        self.readers = [reader for reader in self.readers if reader.log != log]
        self.logs[log] = self.engine.open(self.place)
        gc.collect(0)

    @precondition(lambda self: self.model is not None and not self.model.has_ended)
    @rule(log=st.integers(0, 1), waits=st.integers(0, 3), checkpoint=st.booleans())
    def crash_while_writing(self, log: int, waits: int, checkpoint: bool) -> None:
        """Nobody knows whether it was written. Whoever goes on writes it again, and then it is there once."""
        batch = self.next_batch(["raw", "user"], checkpoint=checkpoint)
        epoch = self.known.epoch

        async def write_a_little() -> None:
            writing = asyncio.ensure_future(self.logs[log].append(self.run_id, batch, epoch=epoch))
            for _ in range(waits):
                await asyncio.sleep(0)
            writing.cancel()
            await asyncio.wait([writing])

        self.do(write_a_little())
        self.crash(log)
        self.write(1 - log, batch, epoch)

    @rule(log=st.integers(0, 1))
    def close(self, log: int) -> None:
        """As a process that ends in good order; where the log is the engine, that stays."""
        if self.engine.survives_its_logs:
            self.readers = [reader for reader in self.readers if reader.log != log]
            self.do(self.logs[log].aclose())
            self.logs[log] = self.engine.open(self.place)

    # --- owners --------------------------------------------------------------------------------

    @precondition(is_there)
    @rule(
        log=st.integers(0, 1),
        owner=st.sampled_from(["ann", "bob"]),
        last=st.sampled_from([None, None, 0, 1]),
    )
    def claim(self, log: int, owner: str, last: int | None) -> None:
        model = self.known
        goes_by = None if last is None else model.last + last
        call = self.logs[log].claim(self.run_id, owner=owner, lease=1000, last=goes_by)
        if model.has_ended:
            self.refused(call, RunClosedError)
        elif model.owner not in (None, owner):
            self.refused(call, RunOwnedError)
        elif last:
            self.refused(call, PositionConflictError)
        else:
            if model.owner is None:
                model.epoch += 1
            model.owner = owner
            assert self.do(call) == model.epoch

    @precondition(lambda self: self.model is not None and not self.model.has_ended)
    @rule(log=st.integers(0, 1))
    def race(self, log: int) -> None:
        """Two claim at once, in two processes."""
        model = self.known

        async def both() -> list[Any]:
            claims = [
                self.logs[(log + place) % 2].claim(self.run_id, owner=owner, lease=1000)
                for place, owner in enumerate(("cleo", "dan"))
            ]
            return await asyncio.gather(*claims, return_exceptions=True)

        results = self.do(both())
        won = [owner for owner, got in zip(("cleo", "dan"), results, strict=True) if isinstance(got, int)]
        if model.owner is None:
            assert len(won) == 1
            model.owner, model.epoch = won[0], model.epoch + 1
        else:
            assert won == [each for each in ("cleo", "dan") if each == model.owner]

    @precondition(lambda self: self.model is not None and self.model.owner is not None)
    @rule(log=st.integers(0, 1), how=st.sampled_from(["lets go", "sleeps"]))
    def lose(self, log: int, how: str) -> None:
        """The owner lets go, or sleeps through its lease. Until somebody comes, it may still write."""
        model, store = self.known, self.logs[log]
        if how == "lets go":
            self.do(store.let_go(self.run_id, epoch=model.epoch))
        else:
            self.do(store.renew(self.run_id, epoch=model.epoch, lease=0.001))
            self.do(self.engine.pass_time(0.002))
        model.owner = None

    @precondition(lambda self: self.model is not None and self.model.epoch > 0)
    @rule(log=st.integers(0, 1))
    def act_as_the_owner_before(self, log: int) -> None:
        before = self.known.epoch - 1
        self.refused(self.logs[log].renew(self.run_id, epoch=before, lease=1000), StaleOwnerError)
        self.do(self.logs[log].let_go(self.run_id, epoch=before))

    # --- mail ----------------------------------------------------------------------------------

    @precondition(is_there)
    @rule(
        log=st.integers(0, 1),
        kind=st.sampled_from(["decide", "send"]),
        body=st.sampled_from([b"yes", b"no"]),
        key=st.sampled_from([None, "call 1", "call 2"]),
    )
    def tell(self, log: int, kind: str, body: bytes, key: str | None) -> None:
        model = self.known
        call = self.logs[log].tell(self.run_id, Command(kind, body, key))
        same = [each for each in model.mail if key is not None and each.key == key]
        if model.has_ended:
            self.refused(call, RunClosedError)
        elif not same:
            number = len(model.mail) + 1
            assert self.do(call) == number
            model.mail.append(Command(kind, body, key, number))
        elif (same[0].kind, same[0].body) == (kind, body):
            assert self.do(call) == same[0].number
        else:
            self.refused(call, CommandConflictError)

    @rule(log=st.integers(0, 1), after=st.integers(0, 5))
    def look_for_mail(self, log: int, after: int) -> None:
        expected = [] if self.model is None else self.model.mail[after:]
        assert self.do(self.logs[log].mail(self.run_id, after)) == expected
        if expected or (self.model is not None and self.model.has_ended):
            assert list(self.do(self.logs[log].wait_for_mail(self.run_id, after))) == expected

    # --- readers -------------------------------------------------------------------------------

    @precondition(is_there)
    @rule(log=st.integers(0, 1), part=st.floats(0, 1))
    def attach(self, log: int, part: float) -> None:
        after = round(part * self.known.last)
        self.readers.append(Reader(log, self.logs[log].cursor(self.run_id, after), after))

    @precondition(has_readers)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        self.read_all(data.draw(st.sampled_from(self.readers)))

    @precondition(has_readers)
    @rule(data=st.data(), log=st.integers(0, 1))
    def drop_and_resume(self, data: st.DataObject, log: int) -> None:
        """A reader leaves, maybe in the middle of a wait, and comes again elsewhere, where it was."""
        reader = data.draw(st.sampled_from(self.readers))
        self.wait_in_vain(reader)
        reader.begin_again(log, self.logs[log].cursor(self.run_id, reader.after))

    @precondition(has_readers)
    @rule(data=st.data())
    def wait_and_give_up(self, data: st.DataObject) -> None:
        """A cursor whose wait was cancelled goes on where it stood."""
        self.wait_in_vain(data.draw(st.sampled_from(self.readers)))

    @precondition(has_readers)
    @rule()
    def drop(self) -> None:
        self.readers.pop()

    def wait_in_vain(self, reader: Reader) -> None:
        """Give up on what a reader waits for where nothing is written yet."""
        self.read_all(reader)
        if self.known.has_ended:
            return

        async def wait() -> None:
            waiting = asyncio.ensure_future(reader.cursor.next())
            for _ in range(3):
                await asyncio.sleep(0)
            assert not waiting.done()
            waiting.cancel()
            await asyncio.wait([waiting])

        self.do(wait())

    def read_all(self, reader: Reader) -> None:
        """Read to the last position, over gaps, and see that all is there, and nothing twice."""
        if self.model is None:
            return
        model = self.model
        while reader.after < model.last:
            self.read_on(reader, model)
        if model.has_ended:
            assert self.do(reader.cursor.next()) is None

    def read_on(self, reader: Reader, model: Model) -> None:
        """Read what comes next, or go on behind a gap."""
        told: LogGapError | None = None
        try:
            self.read_next(reader, model)
        except LogGapError as gap:
            told = gap
        if told is not None:
            assert (told.requested, told.first) == (reader.after + 1, model.first)
            assert told.first > told.requested
            reader.after = told.first - 1
            reader.begin_again(reader.log, self.logs[reader.log].cursor(self.run_id, reader.after))

    def read_next(self, reader: Reader, model: Model) -> None:
        batch = self.do(reader.cursor.next())
        assert batch is not None, "it ended, and there was more"
        assert batch.first <= reader.after + 1 <= batch.last
        got = [entry.event.to_json() for entry in batch.entries(reader.after)]
        assert got == model.lines[reader.after : batch.last]
        reader.after, reader.has_read = batch.last, True

    def is_told_of_the_end(self, reader: Reader, before: Model) -> None:
        """Of a run that was deleted: a reader may have the rest at hand, but does not just end before the end."""
        try:
            while reader.after < before.last:
                self.read_next(reader, before)
            final = self.do(reader.cursor.next())
        except (LogBrokenError, LogGapError):
            return
        assert final is None
        assert before.has_ended

    # --- what is always so -----------------------------------------------------------------------

    @invariant()
    def the_logs_tell_of_the_run_what_the_model_does(self) -> None:
        model = self.model
        self.looks += 1
        store = self.logs[self.looks % 2]
        if model is None:
            self.refused(store.info(self.run_id), UnknownRunError)
        else:
            record = self.do(store.record(self.run_id))
            for name in ("status", "code", "epoch", "last", "checkpoint", "checkpoint_at"):
                assert getattr(record, name) == getattr(model, name), name
            if not model.has_ended:
                assert record.is_owned == (model.owner is not None)
            if model.last:
                assert self.do(store.info(self.run_id)) == LogInfo(model.first, model.last, model.has_ended)
            is_orphan = model.status in ("queued", "running") and model.owner is None
            assert self.do(store.orphans()) == ([self.run_id] if is_orphan else [])


def machine_on(engine: Engine, seed: int) -> type[KeptRun]:
    """Machines on `engine`, which do what `seed` says."""
    print(f"seed={seed}")
    return hypothesis.seed(seed)(type("KeptRun", (KeptRun,), {"engine": engine}))


def a_seed() -> int:
    """The same one each time, unless somebody looks for something new."""
    return 7 if settings.default is not None and settings.default.derandomize else random.randrange(1 << 32)


def settled(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        print_blob=True,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],  # on a machine that has more to do
    )


def test_every_keeper_does_what_a_model_does(engine: Engine) -> None:
    run_state_machine_as_test(machine_on(engine, a_seed()), settings=settled(20, 25))


@pytest.mark.slow
@pytest.mark.hostile
@pytest.mark.timeout(600)
def test_every_keeper_does_what_a_model_does_for_longer(engine: Engine) -> None:
    run_state_machine_as_test(machine_on(engine, a_seed() + 1), settings=settled(50, 50))
