"""`check_store` finds what is wrong with a store, and says which clause is broken."""

import asyncio
import contextlib
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import pytest

from millstream.errors import (
    ConversationBusyError,
    IdempotencyError,
    LogBrokenError,
    LogFullError,
    LogGapError,
    RunClosedError,
    RunExistsError,
    RunOwnedError,
    StaleOwnerError,
    UnknownConversationError,
    UnknownRunError,
)
from millstream.log import Batch, Command, ConversationRecord, Cursor, MemoryLog, NewRun, RunRecord
from millstream.log.store import ENDED, RunStatus
from millstream.testing import ManualClock, check_store
from millstream.testing.logs import CAP_CLAUSES, CLAUSES, STORE_CLAUSES
from tests.support.hurry import hurry

# --- stores with one fault each: caps -----------------------------------------------------------


class DropsNothing(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if batch.last > self._caps.events and batch.raw_only:
            raise LogFullError("full")
        await super().append(run_id, batch, epoch=epoch)


class MisnamesTheGapInTheMiddle(MemoryLog):
    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        inner = super().cursor(run_id, after)

        class Misnames(Cursor):
            async def next(self) -> Batch | None:
                try:
                    return await inner.next()
                except LogGapError as gap:
                    if gap.requested > 2:
                        raise LogGapError(run_id, gap.requested, gap.requested + 1) from None
                    raise

        return Misnames()


class HasNoRoomToClose(MemoryLog):
    full = False

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if self.full and not batch.ends(run_id):
            raise LogFullError("full")
        try:
            await super().append(run_id, batch, epoch=epoch)
        except LogFullError:
            self.full = True
            raise


class IsFullForAll(MemoryLog):
    full: str | None = None

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if self.full not in (None, run_id):
            raise LogFullError("full")
        try:
            await super().append(run_id, batch, epoch=epoch)
        except LogFullError:
            self.full = run_id
            raise


# --- records ------------------------------------------------------------------------------------


class LosesOptions(MemoryLog):
    async def create(self, run: NewRun) -> RunRecord:
        return await super().create(replace(run, options={}))


class KnowsEveryRun(MemoryLog):
    async def record(self, run_id: str) -> RunRecord:
        try:
            return await super().record(run_id)
        except UnknownRunError:
            return RunRecord(run_id=run_id, agent="A", status="queued")


class TakesAnIdTwice(MemoryLog):
    async def create(self, run: NewRun) -> RunRecord:
        try:
            return await super().create(run)
        except RunExistsError:
            return await self.record(run.run_id)


class KnowsWhatWasCreatedOnly(MemoryLog):
    async def record(self, run_id: str) -> RunRecord:
        record = await super().record(run_id)
        if record.request is None:
            raise UnknownRunError(run_id)
        return record


class ForgetsTheKeysOfWhatEnded(MemoryLog):
    async def create(self, run: NewRun) -> RunRecord:
        made = self._keys.get((run.caller, run.idempotency_key or ""))
        if made is not None and made.status in ENDED:
            del self._keys[run.caller, run.idempotency_key or ""]
        return await super().create(run)


class TakesAKeyForAnything(MemoryLog):
    async def create(self, run: NewRun) -> RunRecord:
        try:
            return await super().create(run)
        except IdempotencyError as error:
            return await self.record(error.run_id)


class SharesKeys(MemoryLog):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.made: dict[str, str] = {}

    async def create(self, run: NewRun) -> RunRecord:
        key = run.idempotency_key
        made = None if key is None else self.made.setdefault(key, run.run_id)
        if made is not None and made in self._runs and run.request == self._runs[made].record().request:
            return await self.record(made)
        return await super().create(run)


class LooksForTheKeyTooSoon(MemoryLog):
    async def create(self, run: NewRun) -> RunRecord:
        if (key := (run.caller, run.idempotency_key or "")) not in self._keys:
            await asyncio.sleep(0)
            self._keys.pop(key, None)
        return await super().create(run)


class Listing(MemoryLog):
    """One whose listing another one makes."""

    async def runs(
        self,
        *,
        caller: str | None = None,
        statuses: Collection[RunStatus] = (),
        conversation: str | None = None,
        limit: int = 100,
        before: str | None = None,
    ) -> list[RunRecord]:
        return await self.listed(
            caller=caller, statuses=statuses, conversation=conversation, limit=limit, before=before
        )

    async def listed(self, **wanted: Any) -> list[RunRecord]:
        return await MemoryLog.runs(self, **wanted)


class ListsTheOldestFirst(Listing):
    async def listed(self, **wanted: Any) -> list[RunRecord]:
        return (await super().listed(**wanted))[::-1]


class HasOnePage(Listing):
    async def listed(self, **wanted: Any) -> list[RunRecord]:
        return await super().listed(**{**wanted, "before": None})


class CountsWhatItLeavesOut(Listing):
    async def listed(self, **wanted: Any) -> list[RunRecord]:
        found = await super().listed(limit=wanted["limit"], before=wanted["before"])
        return [
            each
            for each in found
            if wanted["caller"] in (None, each.caller)
            and (not wanted["statuses"] or each.status in wanted["statuses"])
        ]


class Recorded(MemoryLog):
    """One whose records another one changes."""

    async def record(self, run_id: str) -> RunRecord:
        return self.changed(await super().record(run_id))

    def changed(self, record: RunRecord) -> RunRecord:
        return record


class SaysNothingOfPauses(Recorded):
    def changed(self, record: RunRecord) -> RunRecord:
        return replace(record, status="running") if record.status == "paused" else record


class TakesEveryEndForASuccess(Recorded):
    def changed(self, record: RunRecord) -> RunRecord:
        return replace(record, status="completed", code=None) if record.has_ended else record


class ListensToNestedRuns(Recorded):
    paused = False

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        await super().append(run_id, batch, epoch=epoch)
        self.paused = self.paused or batch.stamp.depth > 0

    def changed(self, record: RunRecord) -> RunRecord:
        return replace(record, status="paused") if self.paused else record


class MisplacesCheckpoints(Recorded):
    def changed(self, record: RunRecord) -> RunRecord:
        return record if record.checkpoint is None else replace(record, checkpoint_at=record.last)


class Checkpointed(Recorded):
    """One that keeps checkpoints by themselves."""

    checkpoint: bytes | None = None

    def changed(self, record: RunRecord) -> RunRecord:
        return replace(record, checkpoint=self.checkpoint or record.checkpoint)


class KeepsCheckpointsFirst(Checkpointed):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        self.checkpoint = batch.checkpoint or self.checkpoint
        await super().append(run_id, batch, epoch=epoch)


class KeepsTheCheckpointsOfRepetitions(Checkpointed):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        await super().append(run_id, batch, epoch=epoch)
        self.checkpoint = batch.checkpoint or self.checkpoint


class KeepsKeysOfDeletedRuns(MemoryLog):
    async def delete(self, run_id: str) -> None:
        keys = dict(self._keys)
        await super().delete(run_id)
        self._keys = keys


class EndsForWhoFollowsADeletedRun(MemoryLog):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.deleted: set[str] = set()

    async def delete(self, run_id: str) -> None:
        self.deleted.add(run_id)
        await super().delete(run_id)

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        inner, deleted = super().cursor(run_id, after), self.deleted

        class Ends(Cursor):
            async def next(self) -> Batch | None:
                try:
                    return await inner.next()
                except LogBrokenError:
                    if run_id in deleted:
                        return None
                    raise

        return Ends()


class SweepsAtOnce(MemoryLog):
    async def sweep(self, older_than: float) -> int:
        return await super().sweep(-1)


# --- owners -------------------------------------------------------------------------------------


class TakesAnyEpoch(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        await super().append(run_id, batch, epoch=await self.present(run_id))

    async def present(self, run_id: str) -> int:
        try:
            return (await self.record(run_id)).epoch
        except UnknownRunError:
            return 0


class TakesAnyEpochWhereThereWasNone(TakesAnyEpoch):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        present = await self.present(run_id)
        await MemoryLog.append(self, run_id, batch, epoch=epoch if present else 0)


class Claimed(MemoryLog):
    """One whose claims another one grants."""

    async def claim(self, run_id: str, *, owner: str, lease: float, last: int | None = None) -> int:
        return await self.granted(run_id, owner=owner, lease=lease, last=last)

    async def granted(self, run_id: str, **wanted: Any) -> int:
        return await MemoryLog.claim(self, run_id, **wanted)

    async def take_away(self, run_id: str) -> None:
        await MemoryLog.let_go(self, run_id, epoch=(await self.record(run_id)).epoch)


class CountsRepeatedClaims(Claimed):
    owner: str | None = None

    async def granted(self, run_id: str, **wanted: Any) -> int:
        if self.owner == wanted["owner"]:
            await self.take_away(run_id)
        self.owner = wanted["owner"]
        return await super().granted(run_id, **wanted)


class TakesFromOwners(Claimed):
    async def granted(self, run_id: str, **wanted: Any) -> int:
        try:
            return await super().granted(run_id, **wanted)
        except RunOwnedError:
            await self.take_away(run_id)
            return await super().granted(run_id, **wanted)


class LeasesForGood(Claimed):
    async def granted(self, run_id: str, **wanted: Any) -> int:
        return await super().granted(run_id, **{**wanted, "lease": 1e9})


class NeverLetsGo(MemoryLog):
    async def let_go(self, run_id: str, *, epoch: int) -> None:
        pass


class OwnsWhatIsPaused(Recorded):
    def changed(self, record: RunRecord) -> RunRecord:
        return replace(record, is_owned=True) if record.status == "paused" else record


class LetsGoForAnybody(Claimed):
    async def let_go(self, run_id: str, *, epoch: int) -> None:
        await self.take_away(run_id)


class TakesRepetitionsOfStaleOwners(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        try:
            await super().append(run_id, batch, epoch=epoch)
        except StaleOwnerError:
            record = None
            if run_id in self._runs and self._runs[run_id].number:
                record = await self.record(run_id)
            if record is None or batch.last > record.last or epoch == 0:
                raise


class RenewsOnlyWhatLives(MemoryLog):
    async def renew(self, run_id: str, *, epoch: int, lease: float) -> None:
        if not (await self.record(run_id)).is_owned:
            raise StaleOwnerError("too late")
        await super().renew(run_id, epoch=epoch, lease=lease)


class RenewsForGood(MemoryLog):
    async def renew(self, run_id: str, *, epoch: int, lease: float) -> None:
        await super().renew(run_id, epoch=epoch, lease=1e9)


class RenewsForAnybody(MemoryLog):
    async def renew(self, run_id: str, *, epoch: int, lease: float) -> None:
        await super().renew(run_id, epoch=(await self.record(run_id)).epoch, lease=lease)


class GoesByNothing(Claimed):
    async def granted(self, run_id: str, **wanted: Any) -> int:
        return await super().granted(run_id, **{**wanted, "last": None})


class LooksForAnOwnerTooSoon(Claimed):
    async def granted(self, run_id: str, **wanted: Any) -> int:
        if not (await self.record(run_id)).is_owned:
            await asyncio.sleep(0)
            await self.take_away(run_id)
        return await super().granted(run_id, **wanted)


class LetsClaimWhatHasEnded(Claimed):
    async def granted(self, run_id: str, **wanted: Any) -> int:
        try:
            return await super().granted(run_id, **wanted)
        except RunClosedError:
            return 1


class SaysNothingOfDeletedRuns(MemoryLog):
    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if batch.first > 1 and not self._run(run_id).number:
            return
        await super().append(run_id, batch, epoch=epoch)


class TakesPausedRunsForOrphans(MemoryLog):
    async def orphans(self, limit: int = 100) -> list[str]:
        found = await self.runs(statuses=["queued", "running", "paused"])
        return [each.run_id for each in found[::-1] if not each.is_owned][:limit]


# --- mail ---------------------------------------------------------------------------------------


class GivesAllMail(MemoryLog):
    async def mail(self, run_id: str, after: int = 0) -> list[Command]:
        return await super().mail(run_id)


class IgnoresKeysOfCommands(MemoryLog):
    async def tell(self, run_id: str, command: Command) -> int:
        return await super().tell(run_id, replace(command, key=None))


class LooksForACommandTooSoon(MemoryLog):
    async def tell(self, run_id: str, command: Command) -> int:
        known = [each.key for each in await self.mail(run_id) if each.key]
        if command.key is not None and command.key not in known:
            await asyncio.sleep(0)
            for each in self._runs[run_id].mail:
                if each.key == command.key:
                    self._runs[run_id].mail.remove(each)
        return await super().tell(run_id, command)


class TakesMailForTheDead(MemoryLog):
    async def tell(self, run_id: str, command: Command) -> int:
        try:
            return await super().tell(run_id, command)
        except RunClosedError:
            return 1


class IsImpatientForMail(MemoryLog):
    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        return await self.mail(run_id, after)


class LosesMailThatWasWaitedForInVain(MemoryLog):
    lost = 0

    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        try:
            return await super().wait_for_mail(run_id, after + self.lost)
        except asyncio.CancelledError:
            self.lost += 1
            raise


class WaitsForMailForEver(MemoryLog):
    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        return await super().wait_for_mail(run_id, after) or await asyncio.get_running_loop().create_future()


class WarnsOfNothing(MemoryLog):
    async def check(self) -> list[str]:
        return [""]


# --- conversations ------------------------------------------------------------------------------


class LosesConversations(Recorded):
    def changed(self, record: RunRecord) -> RunRecord:
        return replace(record, conversation="")


class TakesTwoRunsAtATime(MemoryLog):
    async def create(self, run: NewRun) -> RunRecord:
        try:
            return await super().create(run)
        except ConversationBusyError as busy:
            return await self.create_all_the_same(run, await self.record(busy.run_id), busy)

    async def create_all_the_same(
        self, run: NewRun, going: RunRecord, busy: ConversationBusyError
    ) -> RunRecord:
        del self._conversations[run.caller, run.conversation]
        return await super().create(run)


class TakesPausedRunsForEnded(TakesTwoRunsAtATime):
    async def create_all_the_same(
        self, run: NewRun, going: RunRecord, busy: ConversationBusyError
    ) -> RunRecord:
        if going.status != "paused":
            raise busy
        return await super().create_all_the_same(run, going, busy)


class LooksForTheRunTooSoon(MemoryLog):
    async def create(self, run: NewRun) -> RunRecord:
        if (whose := (run.caller, run.conversation)) not in self._conversations:
            await asyncio.sleep(0)
            self._conversations.pop(whose, None)
        return await super().create(run)


class LooksAtTheConversationFirst(MemoryLog):
    async def create(self, run: NewRun) -> RunRecord:
        self._must_not_be_busy(run.caller, run.conversation)
        return await super().create(run)


class ListsTheRunsOfAll(Listing):
    async def listed(self, **wanted: Any) -> list[RunRecord]:
        return await super().listed(**{**wanted, "conversation": None})


class ListsTheOldestConversationFirst(MemoryLog):
    async def conversations(
        self, caller: str, *, limit: int = 100, before: str | None = None
    ) -> list[ConversationRecord]:
        return (await super().conversations(caller, before=before))[::-1][:limit]


class JoinsTheNames(MemoryLog):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.kept: dict[str, list[bytes]] = {}

    async def items(self, caller: str, conversation: str, limit: int | None = None) -> list[bytes]:
        return self.kept.get(f"{caller}:{conversation}", [])

    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        run = await self.record(run_id)
        self.kept.setdefault(f"{run.caller}:{run.conversation}", []).extend(items)


class ForgetsConversationsWithTheirRuns(MemoryLog):
    async def delete(self, run_id: str) -> None:
        await super().delete(run_id)
        self._conversations = {
            whose: each for whose, each in self._conversations.items() if each.run_id != run_id
        }


class ForgetsWhatIsGoing(MemoryLog):
    async def forget(self, caller: str, conversation: str) -> None:
        self._conversations.pop((caller, conversation), None)


class KeepsTheRunsOfWhatIsForgotten(MemoryLog):
    async def forget(self, caller: str, conversation: str) -> None:
        self._must_not_be_busy(caller, conversation)
        self._conversations.pop((caller, conversation), None)


class GivesTheFirstItems(MemoryLog):
    async def items(self, caller: str, conversation: str, limit: int | None = None) -> list[bytes]:
        return (await super().items(caller, conversation))[:limit]


class Added(MemoryLog):
    """One that adds in a way of its own."""

    def added_to(self, run_id: str) -> list[bytes]:
        run = self._runs[run_id]
        return self._conversations[run.caller, run.conversation].items


class AddsOneByOne(MemoryLog):
    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        for item in items:
            await asyncio.sleep(0)
            await super().add_items(run_id, [item], epoch=epoch)


class AddsBehindTheEnd(Added):
    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        try:
            await super().add_items(run_id, items, epoch=epoch)
        except RunClosedError:
            self.added_to(run_id).extend(items)


class AddsForAnybody(Added):
    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        try:
            await super().add_items(run_id, items, epoch=epoch)
        except StaleOwnerError:
            self.added_to(run_id).extend(items)


class TakesWhatIsAddedToNothing(MemoryLog):
    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        with contextlib.suppress(UnknownConversationError):
            await super().add_items(run_id, items, epoch=epoch)


ROWS = [
    (DropsNothing, "raw_events_of_ended_calls_make_room"),
    (MisnamesTheGapInTheMiddle, "a_gap_in_the_middle_is_told"),
    (HasNoRoomToClose, "a_full_log_says_so_and_takes_what_closes"),
    (IsFullForAll, "a_full_log_takes_the_end"),
    (LosesOptions, "a_run_is_kept_as_it_was_created"),
    (KnowsEveryRun, "nothing_is_known_of_a_run_that_is_not_there"),
    (TakesAnIdTwice, "an_id_is_used_once"),
    (KnowsWhatWasCreatedOnly, "a_run_that_was_only_written_to_has_a_record"),
    (ForgetsTheKeysOfWhatEnded, "a_key_makes_one_run"),
    (TakesAKeyForAnything, "a_key_is_for_one_request"),
    (SharesKeys, "a_key_is_its_callers"),
    (LooksForTheKeyTooSoon, "of_many_creates_at_once_one_makes_the_run"),
    (ListsTheOldestFirst, "runs_are_listed_the_newest_first"),
    (HasOnePage, "runs_are_listed_by_the_page"),
    (CountsWhatItLeavesOut, "runs_are_listed_by_caller_and_status"),
    (SaysNothingOfPauses, "the_status_follows_what_is_written"),
    (TakesEveryEndForASuccess, "an_end_says_how_the_run_ended"),
    (ListensToNestedRuns, "what_a_nested_run_says_of_itself_is_not_the_runs_status"),
    (MisplacesCheckpoints, "a_checkpoint_comes_with_its_batch"),
    (KeepsCheckpointsFirst, "a_checkpoint_does_not_come_without_its_batch"),
    (KeepsTheCheckpointsOfRepetitions, "an_append_with_a_checkpoint_may_be_repeated"),
    (KeepsKeysOfDeletedRuns, "a_deleted_run_is_forgotten"),
    (EndsForWhoFollowsADeletedRun, "who_follows_a_deleted_run_is_told"),
    (SweepsAtOnce, "a_sweep_forgets_what_ended_before"),
    (TakesAnyEpoch, "a_run_is_claimed"),
    (TakesAnyEpochWhereThereWasNone, "a_run_that_was_never_claimed_has_no_owner"),
    (CountsRepeatedClaims, "a_claim_may_be_repeated"),
    (TakesFromOwners, "what_is_owned_is_not_taken"),
    (LeasesForGood, "a_lease_ends"),
    (NeverLetsGo, "who_lets_go_is_no_owner"),
    (OwnsWhatIsPaused, "a_lease_ends_with_a_pause_or_the_end"),
    (LetsGoForAnybody, "nobody_lets_go_what_is_not_theirs"),
    (TakesRepetitionsOfStaleOwners, "a_stale_owner_writes_nothing"),
    (RenewsOnlyWhatLives, "a_lease_is_renewed"),
    (RenewsForGood, "a_renewed_lease_ends_too"),
    (RenewsForAnybody, "nobody_renews_what_is_not_theirs"),
    (GoesByNothing, "a_claim_may_say_what_it_goes_by"),
    (LooksForAnOwnerTooSoon, "of_many_claims_at_once_one_wins"),
    (LetsClaimWhatHasEnded, "what_has_ended_is_not_claimed"),
    (SaysNothingOfDeletedRuns, "what_was_deleted_is_not_written"),
    (TakesPausedRunsForOrphans, "orphans_are_found"),
    (GivesAllMail, "mail_is_kept_in_order"),
    (IgnoresKeysOfCommands, "a_key_is_said_once"),
    (LooksForACommandTooSoon, "of_two_decisions_at_once_one_counts"),
    (TakesMailForTheDead, "nobody_writes_to_whom_is_not_there"),
    (IsImpatientForMail, "mail_is_waited_for"),
    (LosesMailThatWasWaitedForInVain, "a_wait_for_mail_may_be_cancelled"),
    (WaitsForMailForEver, "a_wait_for_mail_ends_with_the_run"),
    (WarnsOfNothing, "the_engine_is_checked"),
    (LosesConversations, "a_conversation_begins_with_its_first_run"),
    (TakesTwoRunsAtATime, "a_conversation_has_one_run_at_a_time"),
    (TakesPausedRunsForEnded, "a_run_that_is_paused_is_going"),
    (LooksForTheRunTooSoon, "of_many_runs_at_once_one_is_its_next"),
    (LooksAtTheConversationFirst, "a_key_comes_before_its_conversation"),
    (ListsTheRunsOfAll, "runs_are_listed_by_conversation"),
    (ListsTheOldestConversationFirst, "conversations_are_listed_the_newest_first"),
    (JoinsTheNames, "conversations_are_their_callers"),
    (ForgetsConversationsWithTheirRuns, "a_conversation_outlives_its_runs"),
    (ForgetsWhatIsGoing, "a_conversation_that_is_going_is_not_forgotten"),
    (KeepsTheRunsOfWhatIsForgotten, "a_forgotten_conversation_leaves_nothing"),
    (GivesTheFirstItems, "items_are_kept_in_order"),
    (AddsOneByOne, "items_stand_side_by_side"),
    (AddsBehindTheEnd, "a_run_adds_while_it_is_going"),
    (AddsForAnybody, "a_stale_owner_adds_nothing"),
    (TakesWhatIsAddedToNothing, "nothing_is_added_to_what_is_not_there"),
]


async def check(store: type[MemoryLog], *, caps: bool = True) -> None:
    clock = ManualClock()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    await check_store(
        lambda: store(clock=clock),
        pass_time=pass_time,
        make_capped=(lambda events: store(clock=clock, max_events=events)) if caps else None,
    )


@pytest.mark.parametrize(("broken", "clause"), ROWS, ids=[clause for _, clause in ROWS])
async def test_a_broken_store_is_found_out_by_the_clause_that_it_breaks(
    broken: type[MemoryLog], clause: str
) -> None:
    hurry(asyncio.get_running_loop())

    with pytest.raises(AssertionError, match=f"^{clause}: "):
        await check(broken)


def test_every_clause_of_stores_is_broken_by_one_of_these() -> None:
    clauses = [clause.__name__ for clause in (*CAP_CLAUSES, *STORE_CLAUSES)]

    assert [clause for _, clause in ROWS] == clauses


async def test_a_store_is_held_to_what_every_log_promises_too() -> None:
    class WritesAfterTheEnd(MemoryLog):
        async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
            try:
                await super().append(run_id, batch, epoch=epoch)
            except RunClosedError:
                pass

    with pytest.raises(AssertionError, match=r"^nothing_follows_the_end: "):
        await check(WritesAfterTheEnd)


async def test_without_a_log_of_few_events_nothing_is_said_of_caps() -> None:
    made: list[MemoryLog] = []

    class Counted(MemoryLog):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            made.append(self)

    await check(Counted, caps=False)

    assert len(made) == len(CLAUSES) + len(STORE_CLAUSES)
