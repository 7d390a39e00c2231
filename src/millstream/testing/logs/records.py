"""What every store promises of the records of its runs."""

from __future__ import annotations

import asyncio
from typing import Any

from millstream.errors import (
    IdempotencyError,
    LogBrokenError,
    PositionConflictError,
    RunExistsError,
    UnknownRunError,
)
from millstream.events import (
    Event,
    RunAttempt,
    RunCancelled,
    RunCompleted,
    RunFailed,
    RunPaused,
    RunResumed,
    RunStarted,
    Stamp,
)
from millstream.log.promise import Batch
from millstream.log.store import Command, NewRun, RunStatus, RunStore
from millstream.testing.logs.clause import (
    OTHER,
    RUN,
    STAMP,
    PassTime,
    StoreClause,
    batch,
    hold_lease,
    positions_and_names,
    refused,
)


def new_run(run_id: str = RUN, *, request: bytes = b'{"input":"hi"}', **others: Any) -> NewRun:
    """A run that is to be kept."""
    return NewRun(run_id=run_id, agent="A", request=request, **others)


# --- what is kept -----------------------------------------------------------------------------


async def a_run_is_kept_as_it_was_created(store: RunStore, _: PassTime) -> None:
    """`create` keeps the run, queued; `record` tells all that was said of it, byte for byte."""
    options = {"tags": ["a", None, 1.5, True], "caf\xe9 \u2028": {"deep": "\U0001f600"}}
    run = new_run(request=b'{"bytes":"\xe2\x80\xa8"}\x00', caller="ann", options=options, idempotency_key="k")
    created = await store.create(run)
    record = await store.record(RUN)
    for each in (created, record):
        assert (each.run_id, each.agent, each.status, each.caller) == (RUN, "A", "queued", "ann")
        assert (each.options, each.idempotency_key) == (options, "k")
        assert (each.epoch, each.is_owned, each.last, each.code, each.has_ended) == (0, False, 0, None, False)
    assert (record.request, record.checkpoint, record.checkpoint_at) == (run.request, None, 0)
    assert record.updated >= record.created, "(updated before it was created)"


async def nothing_is_known_of_a_run_that_is_not_there(store: RunStore, _: PassTime) -> None:
    """`record` raises an `UnknownRunError`, also where somebody waits for the run to begin; `runs` does not name it."""
    cursor = store.cursor(RUN)
    waiting = asyncio.create_task(cursor.next())
    await asyncio.sleep(0)
    await refused(store.record(RUN), UnknownRunError)
    assert await store.runs() == []
    assert await store.orphans() == []
    waiting.cancel()
    await asyncio.wait([waiting])


async def an_id_is_used_once(store: RunStore, _: PassTime) -> None:
    """A run whose id another run has is refused, and the other one stays as it was; also if that was only written to."""
    await store.create(new_run())
    await refused(store.create(new_run(request=b"other")), RunExistsError)
    assert (await store.record(RUN)).request == new_run().request
    await store.append(OTHER, batch(1, "a", run_id=OTHER))
    await refused(store.create(new_run(OTHER)), RunExistsError)


async def a_run_that_was_only_written_to_has_a_record(store: RunStore, _: PassTime) -> None:
    """It has no request, and its status is what was written."""
    await store.append(RUN, Batch(1, STAMP, [RunStarted(agent="A")]))
    record = await store.record(RUN)
    assert (record.run_id, record.status, record.last, record.request) == (RUN, "running", 1, None)
    assert [each.run_id for each in await store.runs()] == [RUN]


async def a_key_makes_one_run(store: RunStore, _: PassTime) -> None:
    """With a key that its caller used before, `create` gives the run of then, whatever became of it."""
    made = await store.create(new_run(idempotency_key="k"))
    await store.append(RUN, batch(1, ends=True))
    again = await store.create(new_run(OTHER, idempotency_key="k"))
    assert (made.run_id, again.run_id, again.status) == (RUN, RUN, "completed")
    await refused(store.record(OTHER), UnknownRunError)


async def a_key_is_for_one_request(store: RunStore, _: PassTime) -> None:
    """A key that was used for another request is refused with the id of that run, and nothing is made."""
    await store.create(new_run(idempotency_key="k"))
    error = await refused(
        store.create(new_run(OTHER, request=b"other", idempotency_key="k")), IdempotencyError
    )
    assert isinstance(error, IdempotencyError)
    assert error.run_id == RUN
    await refused(store.record(OTHER), UnknownRunError)


async def a_key_is_its_callers(store: RunStore, _: PassTime) -> None:
    """Two callers, one of them without a name, may use one key for two runs; runs without a key have nothing in common."""
    made = [
        await store.create(new_run(f"run_{caller}", caller=caller, idempotency_key="k"))
        for caller in ("", "ann", "bob")
    ]
    made += [await store.create(new_run(f"run_{number}")) for number in (1, 2)]
    assert [each.run_id for each in made] == ["run_", "run_ann", "run_bob", "run_1", "run_2"]


async def of_many_creates_at_once_one_makes_the_run(store: RunStore, _: PassTime) -> None:
    """Fifty creates with one key give one run, to all of them."""
    creates = [
        store.create(new_run(f"run_{number}", caller="ann", idempotency_key="k")) for number in range(50)
    ]
    made = await asyncio.gather(*creates)
    listed = await store.runs()
    assert len(listed) == 1, f"({len(listed)} runs)"
    assert {each.run_id for each in made} == {listed[0].run_id}


# --- listing ----------------------------------------------------------------------------------


async def runs_are_listed_the_newest_first(store: RunStore, _: PassTime) -> None:
    """`runs` gives them in the order in which they came, backwards, without request and checkpoint."""
    for number in range(5):
        await store.create(new_run(f"run_{number}"))
    await store.append(
        "run_1", Batch(1, Stamp(run_id="run_1", agent="A"), [RunStarted(agent="A")], checkpoint=b"{}")
    )
    listed = await store.runs()
    assert [each.run_id for each in listed] == [f"run_{number}" for number in (4, 3, 2, 1, 0)]
    assert [(each.request, each.checkpoint) for each in listed] == [(None, None)] * 5
    assert (listed[3].status, listed[3].last) == ("running", 1)


async def runs_are_listed_by_the_page(store: RunStore, _: PassTime) -> None:
    """`limit` and `before` give each run once, whatever is created meanwhile; an unknown `before` is an error."""
    for number in range(5):
        await store.create(new_run(f"run_{number}"))
    pages = [await store.runs(limit=2)]
    await store.create(new_run("run_later"))
    while pages[-1] and len(pages) < 6:
        pages.append(await store.runs(limit=2, before=pages[-1][-1].run_id))
    assert [[each.run_id for each in page] for page in pages] == [
        ["run_4", "run_3"],
        ["run_2", "run_1"],
        ["run_0"],
        [],
    ]
    await refused(store.runs(before="run_unknown"), UnknownRunError)


async def runs_are_listed_by_caller_and_status(store: RunStore, _: PassTime) -> None:
    """Those of one caller only, those with one of some statuses only, and both; `limit` counts what is given."""
    for number, caller in enumerate(("ann", "bob", "ann", "bob", "")):
        await store.create(new_run(f"run_{number}", caller=caller))
    for number in (0, 1):
        run_id = f"run_{number}"
        await store.append(run_id, batch(1, run_id=run_id, ends=True))

    async def listed(**wanted: Any) -> list[str]:
        return [each.run_id.removeprefix("run_") for each in await store.runs(**wanted)]

    assert await listed(caller="ann") == ["2", "0"], "(caller)"
    assert await listed(caller="") == ["4"], "(the caller without a name)"
    assert await listed(caller="nobody") == [], "(a caller without runs)"
    assert await listed(statuses=["completed"]) == ["1", "0"], "(status)"
    assert await listed(statuses=["completed", "queued"]) == ["4", "3", "2", "1", "0"], "(statuses)"
    assert await listed(statuses=["failed"]) == [], "(a status of none)"
    assert await listed(caller="bob", statuses={"completed"}) == ["1"], "(both)"
    assert await listed(caller="ann", limit=1) == ["2"], "(limit)"
    assert await listed(caller="ann", before="run_2") == ["0"], "(before)"
    assert await listed(statuses=["completed"], limit=1, before="run_1") == ["0"], "(all three)"


# --- the status and the checkpoint ------------------------------------------------------------


async def the_status_follows_what_is_written(store: RunStore, _: PassTime) -> None:
    """The run's own life makes it running, paused, running again and ended; other events leave it as it is."""
    await store.create(new_run())
    told: list[tuple[Event, RunStatus]] = [
        (RunStarted(agent="A"), "running"),
        (RunPaused(), "paused"),
        (RunResumed(), "running"),
        (RunPaused(), "paused"),
        (RunAttempt(number=2, resumed_from=1), "running"),
    ]
    for position, (event, status) in enumerate(told, 1):
        await store.append(RUN, Batch(2 * position - 1, STAMP, [event]))
        await store.append(RUN, batch(2 * position, "other"))
        record = await store.record(RUN)
        assert (record.status, record.last) == (status, 2 * position), f"({event.type}: {record.status})"


async def an_end_says_how_the_run_ended(store: RunStore, _: PassTime) -> None:
    """The status after the terminal event is what that says, with the code of a failure."""
    ends: list[tuple[Any, RunStatus]] = [
        (RunCompleted(output="done"), "completed"),
        (RunFailed(code="max_turns", message="m", error_id="e"), "failed"),
        (RunCancelled(), "cancelled"),
    ]
    for number, (event, status) in enumerate(ends):
        run_id = f"run_{number}"
        await store.create(new_run(run_id))
        stamp = Stamp(run_id=run_id, agent="A")
        await store.append(run_id, Batch(1, stamp, [RunStarted(agent="A"), event]))
        record = await store.record(run_id)
        assert (record.status, record.has_ended) == (status, True), f"({event.type}: {record.status})"
    assert (await store.record("run_1")).code == "max_turns"
    assert (await store.record("run_0")).code is None, "(the code of a run that did not fail)"


async def what_a_nested_run_says_of_itself_is_not_the_runs_status(store: RunStore, _: PassTime) -> None:
    """Pauses and ends of runs nested in this one change nothing in its record."""
    nested = Stamp(run_id="run_child", agent="B", depth=1, parent_run_id=RUN)
    await store.create(new_run())
    await store.append(RUN, Batch(1, STAMP, [RunStarted(agent="A")]))
    await store.append(RUN, Batch(2, nested, [RunStarted(agent="B"), RunPaused()]))
    assert (await store.record(RUN)).status == "running"
    await store.append(RUN, Batch(4, nested, [RunFailed(code="log_full", message="m", error_id="e")]))
    record = await store.record(RUN)
    assert (record.status, record.code, record.agent) == ("running", None, "A")
    await refused(store.record("run_child"), UnknownRunError)


async def a_checkpoint_comes_with_its_batch(store: RunStore, _: PassTime) -> None:
    """The last that was written is kept, with the last position of its batch; batches without one leave it as it is."""
    await store.create(new_run())
    await store.append(RUN, Batch(1, STAMP, batch(1, "a", "b").payloads, checkpoint=b'{"n":1}\n\xff'))
    record = await store.record(RUN)
    assert (record.checkpoint, record.checkpoint_at) == (b'{"n":1}\n\xff', 2)
    await store.append(RUN, batch(3, "c"))
    record = await store.record(RUN)
    assert (record.checkpoint, record.checkpoint_at, record.last) == (b'{"n":1}\n\xff', 2, 3)
    await store.append(RUN, Batch(4, STAMP, batch(1, "d").payloads, checkpoint=b"second"))
    record = await store.record(RUN)
    assert (record.checkpoint, record.checkpoint_at) == (b"second", 4)


async def a_checkpoint_does_not_come_without_its_batch(store: RunStore, _: PassTime) -> None:
    """Where an append is refused, its checkpoint is not kept either."""
    await store.create(new_run())
    await store.append(RUN, Batch(1, STAMP, batch(1, "a").payloads, checkpoint=b"first"))
    other = Batch(1, STAMP, batch(1, "other").payloads, checkpoint=b"second")
    skips = Batch(3, STAMP, batch(1, "c").payloads, checkpoint=b"third")
    await refused(store.append(RUN, other), PositionConflictError)
    await refused(store.append(RUN, skips), PositionConflictError)
    record = await store.record(RUN)
    assert (record.checkpoint, record.checkpoint_at) == (b"first", 1)


async def an_append_with_a_checkpoint_may_be_repeated(store: RunStore, _: PassTime) -> None:
    """It changes nothing: what was written behind it stays, and so does a later checkpoint."""
    first = Batch(1, STAMP, batch(1, "a", "b").payloads, checkpoint=b"first")
    await store.create(new_run())
    await store.append(RUN, first)
    await store.append(RUN, first)
    record = await store.record(RUN)
    assert (record.checkpoint, record.checkpoint_at, record.last) == (b"first", 2, 2)
    await store.append(RUN, Batch(3, STAMP, batch(1, "c").payloads, checkpoint=b"second"))
    await store.append(RUN, first)
    record = await store.record(RUN)
    assert (record.checkpoint, record.checkpoint_at, record.last) == (b"second", 3, 3)
    await store.append(RUN, batch(4, ends=True))
    assert [name for _, name in await positions_and_names(store)] == ["a", "b", "c", "run.completed"]


# --- forgetting -------------------------------------------------------------------------------


async def a_deleted_run_is_forgotten(store: RunStore, _: PassTime) -> None:
    """Nothing of it is left, its key is free, and its id may be used anew. To delete what is not there is no error."""
    await store.create(new_run(idempotency_key="k"))
    epoch = await hold_lease(store, "one")
    await store.append(RUN, batch(1, "a"), epoch=epoch)
    await store.tell(RUN, Command("cancel", b"{}"))
    await store.delete(RUN)
    await store.delete(RUN)
    await refused(store.record(RUN), UnknownRunError)
    await refused(store.info(RUN), UnknownRunError)
    assert (await store.runs(), await store.mail(RUN), await store.orphans()) == ([], [], [])
    await store.create(new_run(OTHER, request=b"other", idempotency_key="k"))
    record = await store.create(new_run())
    assert (record.status, record.epoch, record.last) == ("queued", 0, 0)
    await store.append(RUN, batch(1, "anew", ends=True))
    assert await positions_and_names(store) == [(1, "anew"), (2, "run.completed")]


async def who_follows_a_deleted_run_is_told(store: RunStore, _: PassTime) -> None:
    """A follower gets a `LogBrokenError`: one that waits, and one that has not read all of it, which may not just end."""
    await store.append(RUN, batch(1, "a"))
    ended = [batch(1, "a", run_id=OTHER), batch(2, "b", run_id=OTHER, ends=True)]
    for each in ended:
        await store.append(OTHER, each)
    reading = store.cursor(OTHER)
    assert await reading.next() is not None
    waiting = store.cursor(RUN)
    assert await waiting.next() is not None
    task = asyncio.create_task(waiting.next())
    await asyncio.sleep(0)
    await store.delete(RUN)
    await store.delete(OTHER)
    await refused(_awaited(task), LogBrokenError)
    try:
        rest = await reading.next()
    except LogBrokenError:
        return
    assert rest is not None, "(it ended, as if that had been all)"
    assert rest.last == 3, "(it may have had the rest at hand)"


async def a_sweep_forgets_what_ended_before(store: RunStore, pass_time: PassTime) -> None:
    """It forgets runs that ended longer ago than it is told, says how many, and touches no other run."""
    statuses: list[tuple[str, Event]] = [
        ("run_old", RunCompleted(output="")),
        ("run_running", RunStarted(agent="A")),
        ("run_paused", RunPaused()),
    ]
    for run_id, event in statuses:
        await store.create(new_run(run_id))
        await store.append(run_id, Batch(1, Stamp(run_id=run_id, agent="A"), [event]))
    await store.create(new_run("run_queued"))
    assert await store.sweep(3600) == 0, "(nothing had ended an hour ago)"
    await pass_time(0.1)
    assert await store.sweep(0.05) == 1
    assert await store.sweep(0.05) == 0, "(a second time)"
    await refused(store.record("run_old"), UnknownRunError)
    assert [each.run_id for each in await store.runs()] == ["run_queued", "run_paused", "run_running"]


RECORD_CLAUSES: tuple[StoreClause, ...] = (
    a_run_is_kept_as_it_was_created,
    nothing_is_known_of_a_run_that_is_not_there,
    an_id_is_used_once,
    a_run_that_was_only_written_to_has_a_record,
    a_key_makes_one_run,
    a_key_is_for_one_request,
    a_key_is_its_callers,
    of_many_creates_at_once_one_makes_the_run,
    runs_are_listed_the_newest_first,
    runs_are_listed_by_the_page,
    runs_are_listed_by_caller_and_status,
    the_status_follows_what_is_written,
    an_end_says_how_the_run_ended,
    what_a_nested_run_says_of_itself_is_not_the_runs_status,
    a_checkpoint_comes_with_its_batch,
    a_checkpoint_does_not_come_without_its_batch,
    an_append_with_a_checkpoint_may_be_repeated,
    a_deleted_run_is_forgotten,
    who_follows_a_deleted_run_is_told,
    a_sweep_forgets_what_ended_before,
)


async def _awaited(task: asyncio.Task[Any]) -> Any:
    return await task
