"""What every store promises of conversations."""

from __future__ import annotations

import asyncio

from millstream.errors import (
    ConversationBusyError,
    RunClosedError,
    StaleOwnerError,
    UnknownConversationError,
    UnknownRunError,
)
from millstream.events import RunPaused, Stamp
from millstream.log.promise import Batch
from millstream.log.store import RunStore
from millstream.testing.logs.clause import (
    OTHER,
    RUN,
    PassTime,
    StoreClause,
    batch,
    hold_lease,
    lose_lease,
    refused,
)
from millstream.testing.logs.records import new_run


async def _end(store: RunStore, run_id: str = RUN) -> None:
    await store.append(run_id, batch(1, run_id=run_id, ends=True))


async def _talk(store: RunStore, run_id: str, caller: str, conversation: str, *items: bytes) -> None:
    """A run of a conversation, from its beginning to its end, and what it leaves there."""
    await store.create(new_run(run_id, caller=caller, conversation=conversation))
    if items:
        await store.add_items(run_id, items)
    await _end(store, run_id)


# --- runs of a conversation ---------------------------------------------------------------------


async def a_conversation_begins_with_its_first_run(store: RunStore, _: PassTime) -> None:
    """The run's record names it wherever that is told; a run without one begins none."""
    await store.create(new_run(OTHER, caller="ann"))
    created = await store.create(new_run(caller="ann", conversation="c"))
    (listed, other) = await store.runs()
    for each in (created, await store.record(RUN), listed):
        assert (each.run_id, each.conversation) == (RUN, "c")
    assert other.conversation == "", "(a run without one)"
    begun = await store.conversation("ann", "c")
    assert (begun.id, begun.caller, await store.items("ann", "c")) == ("c", "ann", [])
    assert begun.run == listed, f"(its last run: {begun.run})"
    assert begun.created == begun.updated == listed.created, "(when it began)"
    assert [each.id for each in await store.conversations("ann")] == ["c"]


async def a_conversation_has_one_run_at_a_time(store: RunStore, _: PassTime) -> None:
    """Another run is refused with the id of the one that is going, and not kept; when that has ended, the next one is not."""
    await store.create(new_run(conversation="c"))
    error = await refused(store.create(new_run(OTHER, conversation="c")), ConversationBusyError)
    assert isinstance(error, ConversationBusyError)
    assert error.run_id == RUN
    await refused(store.record(OTHER), UnknownRunError)
    await store.append(RUN, batch(1, "a"))
    await refused(store.create(new_run(OTHER, conversation="c")), ConversationBusyError)
    await store.create(new_run("run_elsewhere", conversation="d"))
    await store.append(RUN, batch(2, ends=True))
    await store.create(new_run(OTHER, conversation="c"))
    last = (await store.conversation("", "c")).run
    assert last is not None and last.run_id == OTHER


async def a_run_that_is_paused_is_going(store: RunStore, _: PassTime) -> None:
    """It keeps its conversation busy; and when it is deleted, no more."""
    await store.create(new_run(conversation="c"))
    await store.append(RUN, Batch(1, Stamp(run_id=RUN, agent="A"), [RunPaused()]))
    await refused(store.create(new_run(OTHER, conversation="c")), ConversationBusyError)
    await store.delete(RUN)
    await store.create(new_run(OTHER, conversation="c"))


async def of_many_runs_at_once_one_is_its_next(store: RunStore, _: PassTime) -> None:
    """Of fifty creates in one conversation one makes its run, and all others are refused with that."""
    creates = [store.create(new_run(f"run_{number}", conversation="c")) for number in range(50)]
    made = await asyncio.gather(*creates, return_exceptions=True)
    (run,) = await store.runs()
    busy = [each for each in made if isinstance(each, ConversationBusyError)]
    assert len(busy) == 49, f"({len(busy)} were refused)"
    assert {each.run_id for each in busy} == {run.run_id}


async def a_key_comes_before_its_conversation(store: RunStore, _: PassTime) -> None:
    """The key of the run that is going gives that run: who asks again, as an answer was lost, is not refused."""
    await store.create(new_run(conversation="c", idempotency_key="k"))
    again = await store.create(new_run(OTHER, conversation="c", idempotency_key="k"))
    assert again.run_id == RUN


async def runs_are_listed_by_conversation(store: RunStore, _: PassTime) -> None:
    """Those of one caller's, the newest first and by the page; without a caller, those of all who have one of that id."""
    for number, (caller, conversation) in enumerate(
        (("ann", "c"), ("bob", "c"), ("ann", "d"), ("ann", "c"), ("ann", ""))
    ):
        await _talk(store, f"run_{number}", caller, conversation)

    async def listed(caller: str | None, conversation: str, before: str | None = None) -> list[str]:
        found = await store.runs(caller=caller, conversation=conversation, before=before)
        return [each.run_id.removeprefix("run_") for each in found]

    assert await listed("ann", "c") == ["3", "0"]
    assert await listed("ann", "c", "run_3") == ["0"], "(before)"
    assert await listed("bob", "c") == ["1"]
    assert await listed("bob", "d") == [], "(another's)"
    assert await listed(None, "c") == ["3", "1", "0"], "(of any caller)"
    assert [each.run_id for each in await store.runs(conversation="c", limit=1)] == ["run_3"]


# --- conversations ------------------------------------------------------------------------------


async def conversations_are_listed_the_newest_first(store: RunStore, _: PassTime) -> None:
    """In the order of their last runs, by the page; an unknown `before` is an error."""
    for number, conversation in enumerate("abcda"):
        await _talk(store, f"run_{number}", "ann", conversation)
    await _talk(store, "run_bob", "bob", "z")
    listed = await store.conversations("ann")
    assert [each.id for each in listed] == ["a", "d", "c", "b"]
    assert listed[0] == await store.conversation("ann", "a"), "(told otherwise)"
    assert [each.id for each in await store.conversations("ann", limit=2)] == ["a", "d"]
    assert [each.id for each in await store.conversations("ann", limit=2, before="d")] == ["c", "b"]
    assert await store.conversations("nobody") == []
    await refused(store.conversations("ann", before="z"), UnknownConversationError)


async def conversations_are_their_callers(store: RunStore, _: PassTime) -> None:
    """Two callers' conversations of one id share nothing, however their names are made."""
    whose = [("", "c"), ("ann", "c"), ("ann:c", "d"), ("ann", "c:d"), ("3:ann", "c"), ("ann", "c:runs")]
    for number, (caller, conversation) in enumerate(whose):
        await store.create(new_run(f"run_{number}", caller=caller, conversation=conversation))
        await store.add_items(f"run_{number}", [b'"%d"' % number])
    for number, (caller, conversation) in enumerate(whose):
        items = await store.items(caller, conversation)
        assert items == [b'"%d"' % number], f"({caller!r}, {conversation!r}: {items})"
        last = (await store.conversation(caller, conversation)).run
        assert last is not None and last.run_id == f"run_{number}"
    await refused(store.conversation("bob", "c"), UnknownConversationError)


async def a_conversation_outlives_its_runs(store: RunStore, pass_time: PassTime) -> None:
    """Its items stay when its runs are deleted or swept, and it goes on."""
    await _talk(store, RUN, "ann", "c", b"1")
    await pass_time(0.1)
    assert await store.sweep(0.05) == 1
    (left,) = await store.conversations("ann")
    assert (left.id, left.run) == ("c", None)
    assert await store.runs(caller="ann", conversation="c") == []
    await _talk(store, OTHER, "ann", "c")
    await store.delete(OTHER)
    left = await store.conversation("ann", "c")
    assert (left.id, left.run) == ("c", None)
    assert left.updated >= left.created, "(updated before it was created)"
    assert await store.items("ann", "c") == [b"1"]


async def a_conversation_that_is_going_is_not_forgotten(store: RunStore, _: PassTime) -> None:
    """`forget` is refused with the id of the run, and nothing is lost."""
    await _talk(store, OTHER, "ann", "c", b"1")
    await store.create(new_run(caller="ann", conversation="c"))
    error = await refused(store.forget("ann", "c"), ConversationBusyError)
    assert isinstance(error, ConversationBusyError)
    assert error.run_id == RUN
    assert await store.items("ann", "c") == [b"1"]
    assert len(await store.runs(conversation="c")) == 2


async def a_forgotten_conversation_leaves_nothing(store: RunStore, _: PassTime) -> None:
    """Its items and its runs are gone, with the keys of these, and no others; its id begins another one. Twice is no error."""
    await store.create(new_run(caller="ann", conversation="c", idempotency_key="k"))
    await _end(store)
    await _talk(store, OTHER, "ann", "c", b"1")
    await _talk(store, "run_bob", "bob", "c", b"1")
    await _talk(store, "run_alone", "ann", "")
    for _again in range(2):
        await store.forget("ann", "c")
    await refused(store.conversation("ann", "c"), UnknownConversationError)
    await refused(store.items("ann", "c"), UnknownConversationError)
    assert await store.conversations("ann") == []
    assert [each.run_id for each in await store.runs()] == ["run_alone", "run_bob"]
    assert await store.items("bob", "c") == [b"1"]
    await store.create(new_run("run_new", caller="ann", conversation="c", idempotency_key="k"))
    assert await store.items("ann", "c") == []


# --- items --------------------------------------------------------------------------------------


async def items_are_kept_in_order(store: RunStore, _: PassTime) -> None:
    """As they were added, byte for byte; with a limit the latest so many."""
    items = [b'{"n":1}', b"\x00\xff\n", b"", b'{"n":4}']
    await _talk(store, OTHER, "ann", "c", items[0])
    await store.create(new_run(caller="ann", conversation="c"))
    await store.add_items(RUN, [])
    await store.add_items(RUN, items[1:])
    assert await store.items("ann", "c") == items
    for limit in (0, 1, 3, 4, 9):
        found = await store.items("ann", "c", limit)
        assert found == items[max(4 - limit, 0) :], f"(limit {limit}: {found})"


async def items_stand_side_by_side(store: RunStore, _: PassTime) -> None:
    """Those of one call, whatever others add at the same time; each once."""
    await store.create(new_run(conversation="c"))
    added = [[b"%d" % number, b"and"] for number in range(50)]
    await asyncio.gather(*[store.add_items(RUN, each) for each in added])
    items = await store.items("", "c")
    pairs = [items[place : place + 2] for place in range(0, len(items), 2)]
    assert sorted(pairs) == sorted(added)


async def a_run_adds_while_it_is_going(store: RunStore, _: PassTime) -> None:
    """Behind its end it is refused, and nothing is added."""
    await _talk(store, RUN, "ann", "c", b"1")
    await refused(store.add_items(RUN, [b"2"]), RunClosedError)
    assert await store.items("ann", "c") == [b"1"]


async def a_stale_owner_adds_nothing(store: RunStore, pass_time: PassTime) -> None:
    """Who was taken over from is refused, and so is who never claimed a run that has an owner."""
    await store.create(new_run(caller="ann", conversation="c"))
    stale = await lose_lease(store, "one", pass_time)
    await store.add_items(RUN, [b"1"], epoch=stale)
    epoch = await hold_lease(store, "two")
    for wrong in (stale, 0, epoch + 1):
        await refused(store.add_items(RUN, [b"2"], epoch=wrong), StaleOwnerError)
    await store.add_items(RUN, [b"3"], epoch=epoch)
    assert await store.items("ann", "c") == [b"1", b"3"]


async def nothing_is_added_to_what_is_not_there(store: RunStore, _: PassTime) -> None:
    """It is refused, and makes no conversation: for a run that is not there, or is forgotten, or belongs to none."""
    await refused(store.items("ann", "c"), UnknownConversationError)
    await refused(store.add_items(RUN, [b"1"]), UnknownRunError)
    await store.create(new_run(OTHER, caller="ann"))
    await refused(store.add_items(OTHER, [b"1"]), UnknownConversationError)
    await _talk(store, RUN, "ann", "c")
    await store.forget("ann", "c")
    await refused(store.add_items(RUN, [b"1"]), UnknownRunError)
    assert await store.conversations("ann") == []


CONVERSATION_CLAUSES: tuple[StoreClause, ...] = (
    a_conversation_begins_with_its_first_run,
    a_conversation_has_one_run_at_a_time,
    a_run_that_is_paused_is_going,
    of_many_runs_at_once_one_is_its_next,
    a_key_comes_before_its_conversation,
    runs_are_listed_by_conversation,
    conversations_are_listed_the_newest_first,
    conversations_are_their_callers,
    a_conversation_outlives_its_runs,
    a_conversation_that_is_going_is_not_forgotten,
    a_forgotten_conversation_leaves_nothing,
    items_are_kept_in_order,
    items_stand_side_by_side,
    a_run_adds_while_it_is_going,
    a_stale_owner_adds_nothing,
    nothing_is_added_to_what_is_not_there,
)
