"""The end of a run that nobody drives: it is cancelled, and there is nobody who could write that.

A run that waits for a decision, or to begin, has no owner that reads its mail. So whoever cancels
it becomes its owner for as long as it takes to write its end.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from millstream.attach.result import history_of
from millstream.attach.source import AttachedSource
from millstream.clock import current_clock
from millstream.context import RunContextWrapper
from millstream.errors import PositionConflictError, RunClosedError, RunOwnedError, StaleOwnerError
from millstream.events import AgentUpdatedStreamEvent, RunCancelled, RunResumed, RunStarted, Stamp
from millstream.log.promise import Batch
from millstream.run.closing import Opened
from millstream.run.kept.form import read
from millstream.run.state import RunProgress
from millstream.run.tenure import new_owner

if TYPE_CHECKING:
    from millstream.events import CancelMode, Event
    from millstream.log.store import RunRecord, RunStore
    from millstream.stream.history import History


LEASE = 10.0
"""Seconds that there are to write an end."""


async def end_unowned(store: RunStore, run_id: str, mode: CancelMode) -> None:
    """Write that a run was cancelled which is paused or queued. Does nothing to one that somebody drives, or that has ended.

    The mail has the cancellation by then: where somebody goes on with the run in this very moment,
    it is theirs to do.
    """
    record = await store.record(run_id)
    if record.status not in ("paused", "queued") or record.is_owned:
        return
    with contextlib.suppress(RunOwnedError, RunClosedError, PositionConflictError, StaleOwnerError):
        epoch = await store.claim(run_id, owner=new_owner(), lease=LEASE, last=record.last)
        try:
            await store.append(run_id, await _last_batch(store, record, mode), epoch=epoch)
        finally:
            await store.let_go(run_id, epoch=epoch)


async def _last_batch(store: RunStore, record: RunRecord, mode: CancelMode) -> Batch:
    """What closes the run, and its end."""
    if not record.last:
        input = "" if record.request is None else read(record.request).input
        stamp = Stamp(record.run_id, record.agent, time=current_clock().time())
        begun: list[Event] = [RunStarted(agent=record.agent, input=input)]
        return Batch(1, stamp, [*begun, RunCancelled(mode=mode)])
    history = await history_of(AttachedSource(store, record.run_id, "pause"))
    assert history.stamp is not None
    stamp = replace(history.stamp, time=current_clock().time())
    agent = cast("Any", history.agent)
    return Batch(
        record.last + 1,
        stamp,
        [
            RunResumed(),  # whoever waits does nothing else
            AgentUpdatedStreamEvent(agent),
            *_answers(history, stamp.time),
            RunCancelled(mode=mode, usage=history.usage.to_dict()),
        ],
    )


def _answers(history: History, time: float) -> list[Event]:
    """What closes the calls that wait: each has its answer in the end."""
    opened = Opened()
    opened.see(history.events, time)
    wrapper: RunContextWrapper[Any] = RunContextWrapper(context=None)
    nobody = RunProgress(
        history.stamp.run_id if history.stamp else "", "", cast("Any", history.agent), wrapper, None
    )
    return opened.closing(nobody, None, cancelled=True, time=time)
