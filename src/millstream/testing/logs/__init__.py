"""The contracts of logs, ours and a stranger's: `check_log` of every log, `check_store` of those that keep runs.

```python
async def test_my_log() -> None:
    await check_log(lambda: MyLog(...))
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from millstream.log.promise import EventLog
from millstream.log.store import RunStore
from millstream.testing.logs.caps import CAP, CAP_CLAUSES
from millstream.testing.logs.clause import PassTime, hold
from millstream.testing.logs.conversations import CONVERSATION_CLAUSES
from millstream.testing.logs.events import CLAUSES
from millstream.testing.logs.owners import MAIL_CLAUSES, OWNER_CLAUSES
from millstream.testing.logs.records import RECORD_CLAUSES

__all__ = ["CAP", "CAP_CLAUSES", "CLAUSES", "STORE_CLAUSES", "check_log", "check_store"]

MakeLog: TypeAlias = Callable[[], EventLog | Awaitable[EventLog]]
"""Gives a log that holds no runs."""

MakeStore: TypeAlias = Callable[[], RunStore | Awaitable[RunStore]]
"""Gives a store that holds no runs."""

MakeCapped: TypeAlias = Callable[[int], EventLog | Awaitable[EventLog]]
"""Gives a log that holds no runs, and at most so many events of one."""

STORE_CLAUSES = (*RECORD_CLAUSES, *OWNER_CLAUSES, *MAIL_CLAUSES, *CONVERSATION_CLAUSES)
"""The clauses on what a store keeps beside the events, in the order in which they are checked."""


async def check_log(make_log: MakeLog, *, make_capped: MakeCapped | None = None) -> None:
    """Hold a log to its contract.

    Each clause gets a log of its own, which is closed afterwards.

    Args:
        make_log: gives a log that holds no runs.
        make_capped: gives one that holds at most so many events of a run; without it, what a
            log does at its caps is left out.

    Raises:
        AssertionError: a clause is broken; the message names it.
    """
    await hold(CLAUSES, make_log)
    if make_capped is not None:
        await hold(CAP_CLAUSES, lambda: make_capped(CAP))


async def check_store(
    make_store: MakeStore,
    *,
    pass_time: PassTime = asyncio.sleep,
    make_capped: MakeCapped | None = None,
) -> None:
    """Hold a store to its contract: that of every log, and that of records, owners, mail and conversations.

    Each clause gets a store of its own, which is closed afterwards.

    Args:
        make_store: gives a store that holds no runs.
        pass_time: lets so many seconds pass by the engine's clock, a tenth of one at a time; where
            that is a clock that a test moves, it moves it. Leases that have to live meanwhile are
            of minutes.
        make_capped: as of `check_log`.

    Raises:
        AssertionError: a clause is broken; the message names it.
    """
    await check_log(make_store, make_capped=make_capped)
    await hold(STORE_CLAUSES, make_store, pass_time)
