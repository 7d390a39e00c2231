"""What is said to a run by its mail, at each of its awaits: it stops, it answers, or its log shows that it was too late."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    AttachedRun,
    MemoryLog,
    RunConfig,
    RunHooks,
    Runner,
    RunResultStreaming,
    UserError,
    tool,
)
from millstream.events import Entry
from millstream.log import Batch, Command
from millstream.testing import check_stream, function_call
from tests.support.awaits import counted_awaits
from tests.support.by_history import ByHistory

pytestmark = [pytest.mark.slow, pytest.mark.hostile]

ENDS = ("run.completed", "run.failed", "run.cancelled")


class Far(MemoryLog):
    """A store that takes its time for everything, both ways.

    Args:
        is_deaf: whether no word of mail ever comes: who wants to know has to look.
    """

    def __init__(self, *, is_deaf: bool) -> None:
        super().__init__()
        self._is_deaf = is_deaf

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        await asyncio.sleep(0)
        await super().append(run_id, batch, epoch=epoch)
        await asyncio.sleep(0)

    async def mail(self, run_id: str, after: int = 0) -> list[Command]:
        await asyncio.sleep(0)
        commands = await super().mail(run_id, after)
        await asyncio.sleep(0)
        return commands

    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        if self._is_deaf:
            await asyncio.Event().wait()
        return await super().wait_for_mail(run_id, after)


class Slow(RunHooks[Any]):
    """Takes its time where a run is about to be told as over, or as waiting."""

    async def on_agent_end(self, *_: Any, **__: Any) -> None:
        await asyncio.sleep(0)


@tool(needs_approval=True)
async def wipe() -> str:
    return "wiped"


@tool
async def look() -> str:
    return "nothing there"


def waits() -> Agent[Any]:
    """An agent that waits for a decision, and says "Done." behind it."""
    steps = {(): [function_call("wipe", {}, call_id="c1")], ("c1",): "Done."}
    return Agent(name="A", model=ByHistory(steps), tools=[wipe])


def looks() -> Agent[Any]:
    steps = {(): [function_call("look", {}, call_id="c1")], ("c1",): "Done."}
    return Agent(name="A", model=ByHistory(steps), tools=[look])


async def told_at(
    number: int, agent: Agent[Any], log: MemoryLog, say: Any
) -> tuple[Any, RunResultStreaming] | None:
    """What came of saying something at that await of a run, whose task has ended then; None where it has no such await."""
    said: list[asyncio.Task[Any]] = []
    with counted_awaits() as awaits:
        config = RunConfig(log=log, ahead="free")
        run = Runner.run_streamed(agent, "Go", run_config=config, hooks=Slow())
        while not await log.runs():  # it is to be found in its store before it can be told anything
            await asyncio.sleep(0)
        attached = Runner.attach(run.run_id, log=log)
        awaits.do_at(awaits.count + number, lambda: said.append(asyncio.create_task(say(attached))))
        assert run._run.task is not None
        await asyncio.wait([run._run.task])
    outcomes = await asyncio.gather(*said, return_exceptions=True)
    return (outcomes[0], run) if outcomes else None


async def entries_of(log: MemoryLog, run_id: str) -> list[Entry]:
    """What stands in the log by now, which is whole as far as it goes."""
    last = (await log.record(run_id)).last
    entries = list[Entry]()
    async for entry in log.follow(run_id):
        entries.append(entry)
        if entry.position == last:
            break
    check_stream(entries).raise_for_problems()
    return entries


@pytest.mark.parametrize("is_deaf", [False, True])
@pytest.mark.parametrize("mode", ["now", "after_turn"])
async def test_who_is_told_to_stop_at_any_await_before_it_waits_or_there_ends_cancelled(
    mode: Any, is_deaf: bool
) -> None:
    number = 0
    for number in itertools.count(1):
        log = Far(is_deaf=is_deaf)
        told = await told_at(number, waits(), log, lambda attached: attached.cancel(mode))
        if told is None:
            break
        outcome, run = told
        entries = await entries_of(log, run.run_id)

        assert outcome is None
        assert (await log.record(run.run_id)).status == "cancelled", number
        assert [entry.type for entry in entries if entry.type in ENDS] == ["run.cancelled"]
        assert entries[-1].type == "run.cancelled"
        assert run.is_cancelled or "run.paused" in [entry.type for entry in entries]
    assert number > 20


@pytest.mark.parametrize("is_deaf", [False, True])
async def test_what_is_sent_at_any_await_of_a_run_that_comes_to_wait_is_answered_when_it_goes_on(
    is_deaf: bool,
) -> None:
    number = 0
    for number in itertools.count(1):
        log = Far(is_deaf=is_deaf)
        told = await told_at(number, waits(), log, lambda attached: attached.send("Hurry."))
        if told is None:
            break
        outcome, run = told
        attached = Runner.attach(run.run_id, log=log)
        if (
            await attached.status() == "paused"
        ):  # else it came while the call was made, and there is another answer
            await attached.approve("c1")
            run = await attached.resume(waits())
        result = await run

        assert outcome is None
        assert result.final_output == "Done."
        assert result.to_input_list().count({"role": "user", "content": "Hurry."}) == 1, number
        assert (await entries_of(log, run.run_id))[-1].type == "run.completed"
    assert number > 20


@pytest.mark.parametrize("is_deaf", [False, True])
async def test_what_is_sent_before_a_run_has_its_output_is_answered_and_what_comes_later_leaves_no_trace(
    is_deaf: bool,
) -> None:
    answered, late = 0, 0

    async def send(attached: AttachedRun) -> list[str]:
        told = [entry.type async for entry in _so_far(attached)]
        await attached.send("Hurry.", "after_turn")
        return told

    async def _so_far(attached: AttachedRun) -> AsyncIterator[Entry]:
        last = (await attached.record()).last
        if last:
            async for entry in attached.entries():
                yield entry
                if entry.position == last:
                    return

    number = 0
    for number in itertools.count(1):
        log = Far(is_deaf=is_deaf)
        told = await told_at(number, looks(), log, send)
        if told is None:
            break
        outcome, run = told
        entries = await entries_of(log, run.run_id)
        messages = run.to_input_list().count({"role": "user", "content": "Hurry."})
        assert entries[-1].type == "run.completed"
        assert messages == [entry.type for entry in entries].count("input.added")
        if isinstance(outcome, UserError):
            assert messages == 0
        else:
            had_output = outcome.count("model.completed") == 2
            assert messages == 1 or had_output, (number, outcome)
            answered, late = answered + messages, late + (messages == 0)
    assert answered > 20
    assert late < answered
