"""Processes that read runs of others, and go on with them."""

import asyncio
from typing import Any

from millstream import RunConfig, Runner, open_log
from millstream.run.tenure import new_owner
from tests.durable.kit import Line
from tests.durable.programs import work

EVERY = 0.02
"""Seconds between two looks at whether there is a run to go on with."""


async def reader(line: Line, address: str) -> None:
    """Follow each run that is named, from its first event; say its id and its entries when it has ended, or what was raised."""
    store = open_log(address)

    async def follow(run_id: str) -> None:
        try:
            line.say((run_id, [entry.to_json() async for entry in store.follow(run_id)]))
        except Exception as error:
            line.say((run_id, type(error).__name__))

    await _for_each(line, follow)
    await store.aclose()


async def reader_that_leaves(line: Line, address: str) -> None:
    """As `reader`, and goes away behind every few events, to come back with another cursor."""
    store = open_log(address)

    async def follow(run_id: str) -> None:
        lines: list[bytes] = []
        has_ended = False
        while not has_ended:
            seen = 0
            async for entry in Runner.attach(run_id, log=store).entries(after=len(lines)):
                lines.append(entry.to_json())
                seen += 1
                if seen == 7:
                    break
            has_ended = seen < 7
        line.say((run_id, lines))

    await _for_each(line, follow)
    await store.aclose()


async def _for_each(line: Line, do: Any) -> None:
    async with asyncio.TaskGroup() as tasks:
        while (run_id := await line.hear()) is not None:
            tasks.create_task(do(run_id))


async def recoverer(line: Line, address: str, agent: Any, *args: Any) -> None:
    """From the first word on go on with every run that nobody owns; say the id of each that has ended here."""
    store = open_log(address)
    await line.hear()
    async with asyncio.TaskGroup() as tasks:
        stop = asyncio.create_task(line.hear())
        while not stop.done():
            for handle in await Runner.recover(store, agent(*args), run_config=RunConfig(lease=30)):
                tasks.create_task(_to_the_end(handle, line))
            await asyncio.wait([stop], timeout=EVERY)
    await store.aclose()


async def _to_the_end(handle: Any, line: Line) -> None:
    try:
        result = await handle
    except Exception as error:
        line.say((handle.run_id, "raised", type(error).__name__))
    else:
        line.say((handle.run_id, "paused" if result.interruptions else "completed", result.final_output))


async def resumer(line: Line, address: str, agent: Any, *args: Any) -> None:
    """Go on with each run that is named, which waits for decisions; say how it ends here."""
    store = open_log(address)
    while (run_id := await line.hear()) is not None:
        try:
            handle = await Runner.attach(run_id, log=store).resume(agent(*args))
        except Exception as error:
            line.say((run_id, "raised", type(error).__name__))
        else:
            await _to_the_end(handle, line)
    await store.aclose()


async def speaker(line: Line, address: str) -> None:
    """Say to runs what is asked for, as `(run id, what, *arguments)`; and whether that was to be said."""
    store = open_log(address)
    while (said := await line.hear()) is not None:
        run_id, what, *arguments = said
        try:
            await getattr(Runner.attach(run_id, log=store), what)(*arguments)
        except Exception as error:
            line.say(("raised", type(error).__name__))
        else:
            line.say(("said", what))
    await store.aclose()


async def claimer(line: Line, address: str) -> None:
    """Claim each run that is named, and say who has it then: the epoch, or what was raised."""
    store = open_log(address)
    await store.check()
    line.say("ready")
    while (run_id := await line.hear()) is not None:
        try:
            line.say(await store.claim(run_id, owner=new_owner(), lease=600))
        except Exception as error:
            line.say(type(error).__name__)
    await store.aclose()


async def submitter(line: Line, address: str, effects: str) -> None:
    """Submit the same run many times at once under each key that is said, with an input; say the ids that came of it."""
    store = open_log(address)
    await store.check()
    line.say("ready")
    while (said := await line.hear()) is not None:
        key, input = said
        agent = work.everything(effects)
        asked = [Runner.submit(store, agent, input, caller="Ann", idempotency_key=key) for _ in range(20)]
        kept = await asyncio.gather(*asked, return_exceptions=True)
        line.say({type(each).__name__ if isinstance(each, BaseException) else each.run_id for each in kept})
    await store.aclose()
