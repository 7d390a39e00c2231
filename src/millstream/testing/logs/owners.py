"""What every store promises of the owners of its runs, and of their mail."""

from __future__ import annotations

import asyncio

from millstream.errors import (
    CommandConflictError,
    PositionConflictError,
    RunClosedError,
    RunOwnedError,
    StaleOwnerError,
    UnknownRunError,
)
from millstream.events import RunPaused, RunStarted, Stamp
from millstream.log.promise import Batch
from millstream.log.store import Command, RunStore
from millstream.testing.logs.clause import (
    RUN,
    STAMP,
    PassTime,
    StoreClause,
    batch,
    hold_lease,
    lose_lease,
    positions_and_names,
    refused,
)
from millstream.testing.logs.records import new_run

# --- claiming ---------------------------------------------------------------------------------


async def a_run_is_claimed(store: RunStore, _: PassTime) -> None:
    """Whoever claims a run that is nobody's owns it, in epoch 1, and writes with that; epoch 0 is over."""
    await store.create(new_run())
    assert await hold_lease(store, "one") == 1
    record = await store.record(RUN)
    assert (record.epoch, record.is_owned) == (1, True)
    await refused(store.append(RUN, batch(1, "a")), StaleOwnerError)
    await store.append(RUN, batch(1, "a"), epoch=1)


async def a_run_that_was_never_claimed_has_no_owner(store: RunStore, _: PassTime) -> None:
    """It is written with epoch 0, and an epoch that it never had is refused."""
    await store.create(new_run())
    await refused(store.append(RUN, batch(1, "a"), epoch=1), StaleOwnerError)
    await store.append(RUN, batch(1, "a"))
    record = await store.record(RUN)
    assert (record.epoch, record.is_owned, record.last) == (0, False, 1)


async def a_claim_may_be_repeated(store: RunStore, _: PassTime) -> None:
    """The owner that claims again has the epoch that it had."""
    await store.create(new_run())
    epochs = [await hold_lease(store, "one") for _ in range(3)]
    assert epochs == [1, 1, 1]
    assert (await store.record(RUN)).epoch == 1


async def what_is_owned_is_not_taken(store: RunStore, _: PassTime) -> None:
    """While the lease lives, another claim is refused, and the owner writes on."""
    await store.create(new_run())
    epoch = await hold_lease(store, "one")
    await refused(store.claim(RUN, owner="two", lease=60), RunOwnedError)
    await store.append(RUN, batch(1, "a"), epoch=epoch)
    assert (await store.record(RUN)).epoch == epoch


async def a_lease_ends(store: RunStore, pass_time: PassTime) -> None:
    """When it has, another may claim the run, in the next epoch. Until then the last owner may write."""
    await store.create(new_run())
    epoch = await lose_lease(store, "one", pass_time)
    assert not (await store.record(RUN)).is_owned
    await store.append(RUN, batch(1, "late, but nobody came"), epoch=epoch)
    assert await hold_lease(store, "two") == epoch + 1


async def who_lets_go_is_no_owner(store: RunStore, _: PassTime) -> None:
    """After `let_go` anybody may claim the run, in the next epoch."""
    await store.create(new_run())
    epoch = await hold_lease(store, "one")
    await store.let_go(RUN, epoch=epoch)
    record = await store.record(RUN)
    assert (record.is_owned, record.epoch) == (False, epoch)
    assert await hold_lease(store, "two") == epoch + 1


async def a_lease_ends_with_a_pause_or_the_end(store: RunStore, _: PassTime) -> None:
    """Who reads of a pause may claim the run at once, in the next epoch; a run that has ended is nobody's."""
    await store.create(new_run())
    epoch = await hold_lease(store, "one")
    await store.append(RUN, Batch(1, STAMP, [RunPaused()]), epoch=epoch)
    assert not (await store.record(RUN)).is_owned, "(after a pause)"
    assert await hold_lease(store, "two") == epoch + 1
    await store.append(RUN, batch(2, ends=True), epoch=epoch + 1)
    assert not (await store.record(RUN)).is_owned, "(after the end)"


async def nobody_lets_go_what_is_not_theirs(store: RunStore, pass_time: PassTime) -> None:
    """`let_go` by an owner of before does nothing, and neither does it where there is no such run."""
    await store.create(new_run())
    before = await lose_lease(store, "one", pass_time)
    await hold_lease(store, "two")
    await store.let_go(RUN, epoch=before)
    assert (await store.record(RUN)).is_owned
    await store.let_go("run_unknown", epoch=1)


async def a_stale_owner_writes_nothing(store: RunStore, pass_time: PassTime) -> None:
    """Whoever was taken over from is refused, with new events and with those that it wrote before, and leaves nothing."""
    await store.create(new_run())
    before = await lose_lease(store, "one", pass_time)
    await store.append(RUN, batch(1, "a"), epoch=before)
    now = await hold_lease(store, "two")
    stale = Batch(2, STAMP, batch(1, "stale").payloads, checkpoint=b"stale")
    for each in (stale, batch(1, "a"), batch(2, ends=True)):
        await refused(store.append(RUN, each, epoch=before), StaleOwnerError)
    record = await store.record(RUN)
    assert (record.last, record.checkpoint, record.has_ended) == (1, None, False)
    await store.append(RUN, batch(2, "b"), epoch=now)
    await refused(store.append(RUN, batch(3, "stale"), epoch=before), StaleOwnerError)
    await store.append(RUN, batch(3, ends=True), epoch=now)
    assert await positions_and_names(store) == [(1, "a"), (2, "b"), (3, "run.completed")]


async def a_lease_is_renewed(store: RunStore, pass_time: PassTime) -> None:
    """`renew` keeps the run, also where the lease had ended and nobody came."""
    await store.create(new_run())
    epoch = await lose_lease(store, "one", pass_time)
    await store.renew(RUN, epoch=epoch, lease=60)
    record = await store.record(RUN)
    assert (record.is_owned, record.epoch) == (True, epoch)
    await refused(store.claim(RUN, owner="two", lease=60), RunOwnedError)


async def a_renewed_lease_ends_too(store: RunStore, pass_time: PassTime) -> None:
    """It counts from the moment of `renew`."""
    await store.create(new_run())
    epoch = await hold_lease(store, "one")
    await store.renew(RUN, epoch=epoch, lease=0.05)
    await pass_time(0.1)
    assert await hold_lease(store, "two") == epoch + 1


async def nobody_renews_what_is_not_theirs(store: RunStore, pass_time: PassTime) -> None:
    """Whoever was taken over from is told when it renews, and so is the owner of a run that is gone."""
    await store.create(new_run())
    before = await lose_lease(store, "one", pass_time)
    now = await hold_lease(store, "two")
    await refused(store.renew(RUN, epoch=before, lease=60), StaleOwnerError)
    await store.delete(RUN)
    await refused(store.renew(RUN, epoch=now, lease=60), UnknownRunError)


async def a_claim_may_say_what_it_goes_by(store: RunStore, _: PassTime) -> None:
    """With `last`, a run that was written to since is not claimed."""
    await store.create(new_run())
    await store.append(RUN, batch(1, "a", "b"))
    for last in (0, 1, 3):
        await refused(store.claim(RUN, owner="one", lease=60, last=last), PositionConflictError)
    record = await store.record(RUN)
    assert (record.is_owned, record.epoch) == (False, 0)
    assert await store.claim(RUN, owner="one", lease=60, last=2) == 1


async def of_many_claims_at_once_one_wins(store: RunStore, pass_time: PassTime) -> None:
    """The others are refused, of a new run and of one that lost its owner."""
    await store.create(new_run())
    for epoch in (1, 2):
        claims = [store.claim(RUN, owner=f"{epoch}.{number}", lease=60, last=0) for number in range(10)]
        results = await asyncio.gather(*claims, return_exceptions=True)
        assert [each for each in results if not isinstance(each, RunOwnedError)] == [epoch], f"({results})"
        await store.renew(RUN, epoch=epoch, lease=0.05)
        await pass_time(0.1)


async def what_has_ended_is_not_claimed(store: RunStore, _: PassTime) -> None:
    """Neither is what is not there."""
    await refused(store.claim(RUN, owner="one", lease=60), UnknownRunError)
    await store.create(new_run())
    await store.append(RUN, batch(1, ends=True))
    await refused(store.claim(RUN, owner="one", lease=60), RunClosedError)


async def what_was_deleted_is_not_written(store: RunStore, _: PassTime) -> None:
    """The owner of a deleted run is refused, and leaves nothing."""
    await store.create(new_run())
    epoch = await hold_lease(store, "one")
    await store.append(RUN, batch(1, "a"), epoch=epoch)
    await store.delete(RUN)
    await refused(store.append(RUN, batch(2, "b"), epoch=epoch), StaleOwnerError)
    await refused(store.record(RUN), UnknownRunError)


async def orphans_are_found(store: RunStore, pass_time: PassTime) -> None:
    """Runs that are queued or running and nobody's, the oldest first; not those that are owned, paused or ended."""
    for name in ("queued", "running", "paused", "ended", "owned", "left"):
        await store.create(new_run(f"run_{name}"))
    for name, event in (("running", RunStarted(agent="A")), ("paused", RunPaused())):
        await store.append(f"run_{name}", Batch(1, Stamp(run_id=f"run_{name}", agent="A"), [event]))
    await store.append("run_ended", batch(1, run_id="run_ended", ends=True))
    await hold_lease(store, "one", "run_owned")
    await lose_lease(store, "two", pass_time, "run_left")
    orphans = await store.orphans()
    assert orphans == ["run_queued", "run_running", "run_left"], f"({orphans})"
    assert await store.orphans(limit=2) == orphans[:2], "(limit)"


# --- mail -------------------------------------------------------------------------------------


async def mail_is_kept_in_order(store: RunStore, _: PassTime) -> None:
    """Commands have numbers from 1 on, come back byte for byte, and stay: who reads says what it has."""
    await store.create(new_run())
    told = [Command("cancel", b'{"mode":"now"}'), Command("send", b"\xff\x00\r\n"), Command("cancel", b"{}")]
    assert [await store.tell(RUN, each) for each in told] == [1, 2, 3]
    mail = await store.mail(RUN)
    assert [(each.kind, each.body, each.key, each.number) for each in mail] == [
        (each.kind, each.body, None, number) for number, each in enumerate(told, 1)
    ]
    for after in range(5):
        assert await store.mail(RUN, after) == mail[after:], f"(after={after})"


async def a_key_is_said_once(store: RunStore, _: PassTime) -> None:
    """The same command again has the number it had; another one with its key is refused, and the first one counts."""
    await store.create(new_run())
    yes, no = Command("decide", b"yes", key="call"), Command("decide", b"no", key="call")
    assert await store.tell(RUN, yes) == 1
    assert await store.tell(RUN, Command("send", b"between")) == 2
    assert await store.tell(RUN, yes) == 1
    await refused(store.tell(RUN, no), CommandConflictError)
    assert await store.tell(RUN, Command("decide", b"no", key="another call")) == 3
    assert [each.body for each in await store.mail(RUN)] == [b"yes", b"between", b"no"]


async def of_two_decisions_at_once_one_counts(store: RunStore, _: PassTime) -> None:
    """All who decide otherwise are refused."""
    await store.create(new_run())
    tells = [store.tell(RUN, Command("decide", b"%d" % number, key="call")) for number in range(10)]
    results = await asyncio.gather(*tells, return_exceptions=True)
    assert [each for each in results if not isinstance(each, CommandConflictError)] == [1], f"({results})"
    assert len(await store.mail(RUN)) == 1


async def nobody_writes_to_whom_is_not_there(store: RunStore, _: PassTime) -> None:
    """A run that is unknown, or has ended, gets no mail; asked for at once, there is none for a run that is not there."""
    await refused(store.tell(RUN, Command("cancel", b"{}")), UnknownRunError)
    assert await store.mail(RUN) == []
    await store.create(new_run())
    await store.append(RUN, batch(1, ends=True))
    await refused(store.tell(RUN, Command("cancel", b"{}")), RunClosedError)


async def mail_is_waited_for(store: RunStore, _: PassTime) -> None:
    """`wait_for_mail` gives what is there at once, and else waits for the first."""
    await store.create(new_run())
    waiting = [asyncio.create_task(_bodies(store)) for _ in range(2)]
    await asyncio.sleep(0)
    await store.tell(RUN, Command("cancel", b"a"))
    assert await asyncio.gather(*waiting) == [[b"a"], [b"a"]], "(who was there first)"
    assert await _bodies(store) == [b"a"], "(who came later)"
    later = asyncio.create_task(_bodies(store, after=1))
    await asyncio.sleep(0)
    assert not later.done()
    await store.tell(RUN, Command("cancel", b"b"))
    assert await later == [b"b"]


async def a_wait_for_mail_may_be_cancelled(store: RunStore, _: PassTime) -> None:
    """Nothing is lost by it."""
    await store.create(new_run())
    for number in range(3):
        waiting = asyncio.create_task(_bodies(store, after=number))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        await store.tell(RUN, Command("send", b"%d" % number))
        assert await _bodies(store, after=number) == [b"%d" % number]


async def a_wait_for_mail_ends_with_the_run(store: RunStore, _: PassTime) -> None:
    """Where the run ends, or is deleted, whoever waits for its mail gets none."""
    for name in ("ended", "deleted"):
        run_id = f"run_{name}"
        await store.create(new_run(run_id))
        waiting = asyncio.create_task(_bodies(store, run_id=run_id))
        await asyncio.sleep(0)
        if name == "ended":
            await store.append(run_id, batch(1, run_id=run_id, ends=True))
        else:
            await store.delete(run_id)
        assert await waiting == [], f"({name})"
    assert await _bodies(store, run_id="run_ended") == [], "(who came after the end)"


# --- the engine -------------------------------------------------------------------------------


async def the_engine_is_checked(store: RunStore, _: PassTime) -> None:
    """`check` reaches the engine, and says what may be lost in sentences; it may be asked again."""
    for _again in range(2):
        for sentence in await store.check():
            assert isinstance(sentence, str), f"({sentence!r})"  # pyright: ignore[reportUnnecessaryIsInstance]
            assert sentence.strip(), "(an empty sentence)"
    assert store.durability in ("memory", "process", "power")


OWNER_CLAUSES: tuple[StoreClause, ...] = (
    a_run_is_claimed,
    a_run_that_was_never_claimed_has_no_owner,
    a_claim_may_be_repeated,
    what_is_owned_is_not_taken,
    a_lease_ends,
    who_lets_go_is_no_owner,
    a_lease_ends_with_a_pause_or_the_end,
    nobody_lets_go_what_is_not_theirs,
    a_stale_owner_writes_nothing,
    a_lease_is_renewed,
    a_renewed_lease_ends_too,
    nobody_renews_what_is_not_theirs,
    a_claim_may_say_what_it_goes_by,
    of_many_claims_at_once_one_wins,
    what_has_ended_is_not_claimed,
    what_was_deleted_is_not_written,
    orphans_are_found,
)

MAIL_CLAUSES: tuple[StoreClause, ...] = (
    mail_is_kept_in_order,
    a_key_is_said_once,
    of_two_decisions_at_once_one_counts,
    nobody_writes_to_whom_is_not_there,
    mail_is_waited_for,
    a_wait_for_mail_may_be_cancelled,
    a_wait_for_mail_ends_with_the_run,
    the_engine_is_checked,
)


async def _bodies(store: RunStore, *, run_id: str = RUN, after: int = 0) -> list[bytes]:
    return [command.body for command in await store.wait_for_mail(run_id, after)]
