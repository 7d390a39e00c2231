"""A client that follows a run over a network that breaks: it sees everything, and everything once."""

import asyncio
import gc
import random
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, Runner, tool
from millstream.errors import (
    LogGapError,
    RunFailedError,
    ServerUnreachableError,
    UnknownRunError,
)
from millstream.server import LOCAL, create_app
from millstream.testing import ScriptedModel, awkward_values, check_stream, function_call
from tests.client.kit import everything, reaching, served
from tests.client.proxy import boundaries, proxy
from tests.server.kit import serving

SEED = 20261121


@tool
def look(place: str) -> str:
    """Look somewhere."""
    return f"sunny in {place}"


def agent(*steps: Any, tools: Any = (look,)) -> Agent[Any]:
    told = steps or [
        [function_call("look", {"place": "Rome"}, call_id="c1")],
        "It is sunny in Rome: \U0001f31e.",
    ]
    return Agent(name="A", model=ScriptedModel(told), tools=list(tools))


async def test_what_is_followed_is_the_log() -> None:
    log = MemoryLog()
    async with served(create_app(agent(), access=LOCAL, log=log)) as (client, _):
        run = await client.start("Where?")
        seen = await everything(run)

    assert seen == [entry.to_json() async for entry in log.follow(run.run_id)]
    assert check_stream(b"\n".join(seen)).ok


async def test_what_is_followed_has_the_very_bytes_of_the_log() -> None:
    chosen = {"decimal nan", "nan", "lone surrogate", "str subclass that lies", "range", "bytes"}
    values = {each.name: each.value for each in awkward_values() if each.name in chosen}

    @tool
    async def give(name: str) -> Any:
        return values[name]

    calls = [function_call("give", {"name": name}) for name in values]
    log = MemoryLog()
    async with served(create_app(agent(calls, "Done.", tools=[give]), access=LOCAL, log=log)) as (client, _):
        run = await client.start("Give!")
        seen = await everything(run)

    assert seen == [entry.to_json() async for entry in log.follow(run.run_id)]
    assert values.keys() == chosen


async def test_a_stream_that_is_cut_between_two_events_is_read_on() -> None:
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, between):
        run = await client.start("Where?")
        uncut = await everything(run)
        between.answers.clear()
        assert await everything(run) == uncut
        places = list(boundaries(between.answers[0]))

        for place in places:
            between.cut_at(place)
            assert await everything(run) == uncut, place

    assert len(places) >= len(uncut)


async def test_a_stream_that_is_cut_at_any_byte_is_read_on() -> None:
    chance = random.Random(SEED)
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, between):
        run = await client.start("Where?")
        uncut = await everything(run)
        between.answers.clear()
        assert await everything(run) == uncut
        size = len(between.answers[0])

        for place in sorted(chance.sample(range(1, size), 60)):
            between.connected = 0
            between.cut_at(place)
            assert await everything(run) == uncut, place
            # The last bytes are those behind the end of the run, which is all that is waited for.
            assert between.connected == 2 or place > size - 10, place


async def test_a_stream_that_is_cut_again_and_again_is_read_on() -> None:
    chance = random.Random(SEED)
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, between):
        run = await client.start("Where?")
        uncut = await everything(run)

        for _ in range(5):
            between.cut_at(*(chance.randrange(1, 1500) for _ in range(60)))
            assert await everything(run) == uncut


@pytest.mark.parametrize("after", [1, 7, 12])
async def test_who_begins_in_the_middle_and_is_cut_misses_nothing(after: int) -> None:
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, between):
        run = await client.start("Where?")
        uncut = await everything(run)

        between.cut_at(100, 700)
        assert await everything(run, after) == uncut[after:]


async def test_every_reader_is_that_of_a_store_whatever_is_cut() -> None:
    log = MemoryLog()
    async with served(create_app(agent(), access=LOCAL, log=log)) as (client, between):
        run = await client.start("Where?")
        await everything(run)
        there = Runner.attach(run.run_id, log=log)

        for place in (150, 400, 900, 1700, 3000):
            between.cut_at(place, place)
            assert [piece async for piece in run.text()] == [piece async for piece in there.text()]
            between.cut_at(place)
            ours = [event async for event in run.stream_events()]
            theirs = [event async for event in there.stream_events()]
            assert [event.to_json() for event in ours] == [event.to_json() for event in theirs]
            between.cut_at(place)
            result = await run
            assert result.final_output == (await there).final_output
            assert result.to_input_list() == (await there).to_input_list()
            assert result.usage == (await there).usage


async def test_a_filter_is_the_servers_and_survives_a_cut() -> None:
    types = ["tool.started", "tool.finished", "response.output_text.delta"]
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, between):
        run = await client.start("Where?")
        all_of_it = await everything(run)
        between.answers.clear()
        uncut = await everything(run, types=types, depth=0)
        answer = between.answers[0]

        for place in boundaries(answer):
            between.cut_at(place)
            assert await everything(run, types=types, depth=0) == uncut

    assert 2 < len(uncut) < len(all_of_it) / 2
    assert b"model.started" not in answer


async def test_a_run_is_followed_from_one_server_to_the_next() -> None:
    log, begun, go_on = MemoryLog(), asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        begun.set()
        await go_on.wait()
        return "waited"

    first = create_app(agent([function_call("wait", {})], tools=[wait]), access=LOCAL, log=log, drain=0)
    async with proxy(None) as between, reaching(between.url) as client:
        async with serving(first) as direct:
            between.port = direct.base_url.port
            run = await client.start("Hi")
            reading = asyncio.create_task(everything(run))
            outcome = asyncio.create_task(run.result())
            await begun.wait()
            between.port = None
        go_on.set()
        async with serving(create_app(agent("Done.", tools=[wait]), access=LOCAL, log=log)) as direct:
            between.port = direct.base_url.port
            seen = await reading
            result = await outcome

    assert result.final_output == "Done."
    assert seen == [entry.to_json() async for entry in log.follow(run.run_id)]
    assert b"run.attempt" in b"".join(seen)


async def test_leaving_a_stream_closes_its_connection_and_leaves_the_run_alone() -> None:
    go_on = asyncio.Event()

    @tool
    async def wait() -> str:
        await go_on.wait()
        return "waited"

    asked = agent([function_call("wait", {})], "Done.", tools=[wait])
    async with served(create_app(asked, access=LOCAL, log=MemoryLog())) as (client, between):
        run = await client.start("Hi")
        between.left.clear()
        async for entry in run.entries():
            if entry.type == "tool.started":
                break
        gc.collect()
        await between.left.wait()
        go_on.set()
        result = await run.result()

    assert result.final_output == "Done."


async def test_a_wait_that_is_cancelled_loses_nothing() -> None:
    go_on, waits = asyncio.Event(), asyncio.Event()

    @tool
    async def wait() -> str:
        waits.set()
        await go_on.wait()
        return "waited"

    asked = agent([function_call("wait", {})], "Done.", tools=[wait])
    async with served(create_app(asked, access=LOCAL, log=MemoryLog())) as (client, _):
        run = await client.start("Hi")
        entries: Any = run.entries()
        seen = []
        while not seen or seen[-1].type != "tool.started":
            seen.append(await anext(entries))
        while entries.has_more:
            seen.append(await anext(entries))
        for _ in range(3):
            waiting = asyncio.ensure_future(anext(entries))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert waiting.cancelled()
        go_on.set()
        seen += [entry async for entry in entries]
        uncut = await everything(run)

    assert [entry.to_json() for entry in seen] == uncut


async def test_a_reader_ends_at_a_pause_where_it_is_to_and_goes_on_where_not() -> None:
    @tool(needs_approval=True)
    async def delete(name: str) -> str:
        return f"deleted {name}"

    asked = agent([function_call("delete", {"name": "x"}, call_id="c1")], "Done.", tools=[delete])
    async with served(create_app(asked, access=LOCAL, log=MemoryLog())) as (client, between):
        run = await client.start("Hi")
        through = asyncio.create_task(everything(run))
        between.answers.clear()
        paused = await everything(run, until="pause")
        for place in boundaries(between.answers[0]):
            between.cut_at(place)
            assert await everything(run, until="pause") == paused
        assert await everything(run, len(paused), until="pause") == []
        result = await run.result()
        assert [item.call_id for item in result.interruptions] == ["c1"]
        await run.approve(result.interruptions[0])
        whole = await through
        record = await run.record()

    assert result.status == "paused"
    assert whole[: len(paused)] == paused
    assert b"deleted x" in b"".join(whole)
    assert (record.status, record.last) == ("completed", len(whole))


async def test_a_run_that_failed_ends_its_readers_as_its_log_tells() -> None:
    async with served(create_app(agent(RuntimeError("secret")), access=LOCAL, log=MemoryLog())) as (
        client,
        _,
    ):
        run = await client.start("Hi")
        seen = await everything(run)
        with pytest.raises(RunFailedError, match=r"\(internal\)") as failed:
            async for _ in run:
                pass
        with pytest.raises(RunFailedError):
            await run

    assert b"run.failed" in seen[-1]
    assert "secret" not in str(failed.value)


async def test_behind_the_end_of_a_run_there_is_nothing() -> None:
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, _):
        run = await client.start("Hi")
        whole = await everything(run)

        assert await everything(run, len(whole)) == []


async def test_a_run_that_nobody_knows_is_told_at_once() -> None:
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, between):
        run = client.run(f"run_{'0' * 32}")
        for asked in (
            everything(run),
            run.result(),
            run.record(),
            run.cancel(),
            run.send("x"),
            run.approve("c"),
        ):
            with pytest.raises(UnknownRunError, match=run.run_id):
                await asked

    assert between.connected == 6


async def test_what_is_no_longer_held_is_a_gap_that_says_where_to_read_on() -> None:
    log = MemoryLog()
    async with served(create_app(agent(), access=LOCAL, log=log)) as (client, _):
        run = await client.start("Hi")
        whole = await everything(run)
        await log.trim(run.run_id, 6)

        entries: Any = run.entries(2)
        with pytest.raises(LogGapError) as gap:
            await anext(entries)
        with pytest.raises(LogGapError):  # it stands where it stood
            await anext(entries)
        with pytest.raises(LogGapError):
            await run.result()
        assert await everything(run, gap.value.first - 1) == whole[5:]

    assert (gap.value.requested, gap.value.first) == (3, 6)


async def test_a_server_that_is_gone_is_asked_so_often_and_then_told_of() -> None:
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog()), tries=4) as (client, between):
        run = await client.start("Hi")
        whole = await everything(run)
        entries: Any = run.entries()
        first = await anext(entries)
        uncut = [first.to_json(), *[entry.to_json() async for entry in entries]]

        between.connected = 0
        between.cut_at(*[10] * 4)
        reader: Any = run.entries()
        with pytest.raises(ServerUnreachableError, match="behind position 0 failed 4 times in a row") as gone:
            await anext(reader)
        connected = between.connected
        later = [entry.to_json() async for entry in reader]

    assert (connected, uncut, later) == (4, whole, whole)
    assert gone.value.retryable
    assert client._server.name in str(gone.value)
