"""Which of the runs that wait for decisions wait no longer, whoever has decided.

Rules of this file:

1. Whoever makes the last decision may have no agents to go on with: the command line, another program, another
   server that has stopped since. All that he leaves is in the run's mail. So runs that wait are looked at from
   time to time.
2. A look lists some of them and asks for the new mail of each, all at once. More is read of a run where that
   has a decision, and nothing is remembered of it that would keep a later one from being seen.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from millstream.attach import AttachedRun
from millstream.errors import LogDamagedError, RunStateError, UnknownRunError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from millstream.log.store import Command, RunRecord, RunStore

logger = logging.getLogger("millstream")

AT_ONCE = 100
"""Runs that one look looks at. The next one goes on behind them, and begins again behind the last."""


class WaitingRuns:
    """The runs of a store that wait for decisions.

    Args:
        store: where they are.
    """

    def __init__(self, store: RunStore) -> None:
        self._store = store
        self._behind: str | None = None
        """The run behind which the next look goes on."""
        self._seen: dict[str, tuple[int, int]] = {}
        """Where each still waited when it was looked at: the last position, and the number of its last command."""
        self._met: set[str] = set()
        """Those that were met since the looks began again."""

    async def decided(self, is_let_be: Callable[[str], bool]) -> list[RunRecord]:
        """Of some runs that wait, those for which nothing is left to wait for. Those told to stop have ended then.

        Args:
            is_let_be: says of a run whether it is not to be looked at now.

        Raises:
            LogError: the store cannot be read.
        """
        records = [record for record in await self._some() if not is_let_be(record.run_id)]
        mail = await asyncio.gather(*(self._new_mail(record) for record in records))
        found = zip(records, mail, strict=True)
        return [record for record, commands in found if commands and await self._is_decided(record, commands)]

    async def _some(self) -> list[RunRecord]:
        try:
            records = await self._store.runs(statuses=["paused"], limit=AT_ONCE, before=self._behind)
        except UnknownRunError:  # it was forgotten since
            records = await self._store.runs(statuses=["paused"], limit=AT_ONCE)
        self._met |= {record.run_id for record in records}
        if len(records) == AT_ONCE:
            self._behind = records[-1].run_id
        else:
            self._behind = None
            self._seen = {run_id: seen for run_id, seen in self._seen.items() if run_id in self._met}
            self._met.clear()
        return records

    async def _new_mail(self, record: RunRecord) -> Sequence[Command]:
        """What was said to it since it was looked at; nothing where somebody goes on with it already."""
        last, number = self._seen.get(record.run_id, (0, 0))
        return (
            []
            if record.is_owned
            else await self._store.mail(record.run_id, number if last == record.last else 0)
        )

    async def _is_decided(self, record: RunRecord, commands: Sequence[Command]) -> bool:
        try:
            if {"decide", "cancel"} & {command.kind for command in commands}:
                run = AttachedRun(record.run_id, self._store)
                if await run.end_if_told():
                    return False
                if not await run.waiting():
                    return True
        except UnknownRunError:
            return False
        except (LogDamagedError, RunStateError) as error:  # the others are still to be looked at
            logger.error("run %s: whether it was decided over cannot be read: %s", record.run_id, error)
        self._seen[record.run_id] = record.last, commands[-1].number
        return False
