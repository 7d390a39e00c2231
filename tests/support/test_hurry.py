"""A loop that hurries skips no time in which a thread may still wake it."""

import asyncio
import threading

from millstream.tool.threads import in_thread
from tests.support.hurry import hurry


async def test_a_hurried_loop_waits_for_a_tool_in_a_thread_that_was_idle_before() -> None:
    await in_thread(lambda: None)
    loop = asyncio.get_running_loop()
    hurry(loop)
    done = threading.Event()
    threading.Timer(0.1, done.set).start()  # which the loop's own first timer must not outrun
    begun = loop.time()

    async with asyncio.timeout(50):
        assert await in_thread(done.wait)

    assert loop.time() - begun < 50
