"""The calls that a paused run waits for, and decisions over them, by its log and its mail alone.

What waits stands in `run.paused`, with which the run's last checkpoint was written; what was decided over it since
stands in its mail. Neither needs the program of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from millstream.approval import keys_of_items
from millstream.errors import ApprovalError, CommandConflictError, RunClosedError
from millstream.events import RunPaused
from millstream.run import mail
from millstream.run.kept.form import read
from millstream.stream.history import approval_items

if TYPE_CHECKING:
    from millstream.approval import CallKey, Decision
    from millstream.items import ToolApprovalItem
    from millstream.log.store import RunRecord, RunStore


@dataclass(frozen=True)
class Pause:
    """Where a run waits."""

    position: int
    items: Sequence[ToolApprovalItem]
    """The calls that it waits for, in order."""
    decided: dict[CallKey, Decision]
    """What was decided over them since."""

    @property
    def keys(self) -> list[CallKey]:
        """The calls, as decisions name them."""
        return keys_of_items(self.items)


async def pause_of(store: RunStore, record: RunRecord) -> Pause | None:
    """The pause that a run stands at; None where it stands at none."""
    if record.status != "paused":
        return None
    after = (record.checkpoint_at or record.last) - 1
    batch = await store.cursor(record.run_id, after).next()
    for entry in () if batch is None else batch.entries(after):
        if isinstance(entry.event, RunPaused):
            decided = {said.key: said.decision for said in await decisions(store, record)}
            return Pause(entry.position, approval_items(entry.event), decided)
    return None


async def decisions(store: RunStore, record: RunRecord) -> list[mail.Decide]:
    """What was decided since a run took its last decisions in."""
    told = await store.mail(record.run_id, heard(record))
    said = mail.read([each for each in told if each.kind == "decide"], record.run_id)
    return [each for each in said if isinstance(each, mail.Decide)]


def heard(record: RunRecord) -> int:
    """How much of its mail a run has acted on before its last checkpoint."""
    return 0 if record.checkpoint is None else read(record.checkpoint).heard


async def tell(
    store: RunStore, run_id: str, pause: int, key: CallKey, decision: Decision, *, always: bool
) -> None:
    """Put a decision over a call of the pause at position `pause` into the mail of a run.

    Raises:
        ApprovalError: somebody decided over it in another way before, or the run has ended.
    """
    try:
        await store.tell(run_id, mail.decide_command(key, decision, pause=pause, always=always))
    except CommandConflictError:
        raise ApprovalError(
            f"Somebody decided over the call {key.call_id!r} of {key.tool} before, in another way than now: "
            "a call is decided over once, and the first decision counts."
        ) from None
    except RunClosedError:
        raise ApprovalError(f"Run {run_id} has ended by now, and nothing waits.") from None
