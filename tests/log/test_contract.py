"""Every keeper is held to the contract of all logs, and to that of stores."""

from millstream.log import MemoryLog
from millstream.testing import ManualClock, check_store


async def test_the_memory_log_keeps_the_contract() -> None:
    clock = ManualClock()

    async def pass_time(seconds: float) -> None:
        clock.advance(seconds)

    await check_store(
        lambda: MemoryLog(clock=clock),
        pass_time=pass_time,
        make_capped=lambda events: MemoryLog(max_events=events),
    )
