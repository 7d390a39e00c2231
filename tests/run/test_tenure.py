"""A process's hold on a run: how it begins, what mail does to it, and what it survives."""

import asyncio
import logging
from collections.abc import Sequence

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, RunConfig, Runner, tool
from millstream.errors import LogUnavailableError, RunCancelledError, RunExistsError
from millstream.log import Command, NewRun, RunRecord
from millstream.run import mail
from millstream.testing import ManualClock, ScriptedModel, function_call


class Slow(MemoryLog):
    """Takes its time to keep a run: until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.go = asyncio.Event()

    async def create(self, run: NewRun) -> RunRecord:
        record = await super().create(run)
        self.asked.set()
        await self.go.wait()
        return record


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_run_that_is_cancelled_while_its_store_takes_it_in_ends_cancelled_there(
    streamed: bool,
) -> None:
    log = Slow()
    model = ScriptedModel(["Never said."])
    agent, config = Agent(name="A", model=model), RunConfig(log=log)
    if streamed:
        handle = Runner.run_streamed(agent, "Go", run_config=config)
        await log.asked.wait()
        handle.cancel()
        log.go.set()
        with pytest.raises(RunCancelledError):
            await handle
    else:
        task = asyncio.create_task(Runner.run(agent, "Go", run_config=config))
        await log.asked.wait()
        task.cancel()
        log.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
    [record] = await log.runs()

    assert (record.status, record.is_owned) == ("cancelled", False)
    assert await log.orphans() == []
    assert not model.calls


async def test_a_loop_that_ends_while_a_store_takes_a_run_in_waits_for_nobody() -> None:
    log = Slow()
    handle = Runner.run_streamed(
        Agent(name="A", model=ScriptedModel(["Hi."])), "Go", run_config=RunConfig(log=log)
    )
    await log.asked.wait()
    for task in asyncio.all_tasks() - {asyncio.current_task()}:  # type: ignore[operator]
        task.cancel()  # as asyncio.run does

    with pytest.raises(RunCancelledError):
        await handle
    assert await log.orphans() == [handle.run_id], "it was kept, and whoever recovers it begins it"


async def test_a_command_that_nobody_knows_is_passed_over_and_those_behind_it_are_followed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    began = asyncio.Event()

    @tool
    async def wait() -> str:
        began.set()
        await asyncio.Event().wait()
        return ""

    log = MemoryLog()
    agent = Agent(name="A", tools=[wait], model=ScriptedModel([[function_call("wait", {})]]))
    handle = Runner.run_streamed(agent, "Go", run_config=RunConfig(log=log))
    await began.wait()
    with caplog.at_level(logging.ERROR):
        await log.tell(handle.run_id, Command("dance", b"{}"))
        await log.tell(handle.run_id, Command("cancel", b'{"mode": 3}'))
        await log.tell(handle.run_id, mail.cancel_command())
        with pytest.raises(RunCancelledError):
            await handle

    assert "command 1 ('dance') cannot be read" in caplog.text
    assert "command 2 ('cancel') cannot be read" in caplog.text


async def test_a_command_that_nobody_knows_keeps_no_run_from_beginning() -> None:
    log = MemoryLog()
    agent = Agent(name="A", model=ScriptedModel(["Hi."]))
    record = await Runner.submit(log, agent, "Go")
    await log.tell(record.run_id, Command("dance", b"{}"))

    [handle] = await Runner.recover(log, agent)

    assert (await handle).final_output == "Hi."


async def test_a_run_of_a_key_that_began_one_names_that_and_says_no_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = MemoryLog()
    model = ScriptedModel(["Hi."])
    config = RunConfig(log=log, idempotency_key="once")
    first = Runner.run_streamed(Agent(name="A", model=model), "Go", run_config=config)
    await first

    second = Runner.run_streamed(Agent(name="A", model=model), "Go", run_config=config)
    with pytest.raises(RunExistsError, match=first.run_id):
        async for _ in second:
            pass

    assert [record.run_id for record in await log.runs()] == [first.run_id]
    assert not caplog.records


class Failing(MemoryLog):
    """Cannot renew a lease, nor give mail, for a while."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.is_away = False
        self.tried: list[str] = []

    async def renew(self, run_id: str, *, epoch: int, lease: float) -> None:
        self.tried.append("renew")
        if self.is_away:
            raise LogUnavailableError("It is away.")
        await super().renew(run_id, epoch=epoch, lease=lease)

    async def wait_for_mail(self, run_id: str, after: int = 0) -> Sequence[Command]:
        self.tried.append("mail")
        if self.is_away:
            raise LogUnavailableError("It is away.")
        return await super().wait_for_mail(run_id, after)


async def test_who_cannot_renew_goes_on_and_hears_its_mail_when_the_store_is_back() -> None:
    began = asyncio.Event()

    @tool
    async def wait() -> str:
        began.set()
        await asyncio.Event().wait()
        return ""

    clock = ManualClock()
    log = Failing(clock)
    log.is_away = True
    agent = Agent(name="A", tools=[wait], model=ScriptedModel([[function_call("wait", {})]]))
    handle = Runner.run_streamed(agent, "Go", run_config=RunConfig(log=log, clock=clock, lease=9))
    await began.wait()
    await log.tell(handle.run_id, mail.cancel_command())
    for _ in range(5):
        clock.advance(3)
        await asyncio.sleep(0)
    assert log.tried.count("renew") > 1
    assert not handle.is_complete
    log.is_away = False
    clock.advance(3)

    with pytest.raises(RunCancelledError):
        await handle


class Away(MemoryLog):
    """Cannot read the log of one run."""

    def __init__(self) -> None:
        super().__init__()
        self.unreadable = ""

    async def record(self, run_id: str) -> RunRecord:
        if run_id == self.unreadable:
            raise LogUnavailableError("It is away.")
        return await super().record(run_id)


async def test_a_store_that_is_away_for_a_moment_ends_no_run_that_is_to_be_recovered() -> None:
    log = Away()
    agent = Agent(name="A", model=ScriptedModel(["Hi.", "Hi."]))
    first, second = [(await Runner.submit(log, agent, "Go")).run_id for _ in range(2)]
    log.unreadable = first
    with pytest.raises(LogUnavailableError):
        await Runner.recover(log, agent)
    assert await log.orphans() == [first, second], "nobody has to wait for a lease to end"

    log.unreadable = second
    [handle] = await Runner.recover(log, agent)
    assert (handle.run_id, (await handle).final_output) == (first, "Hi.")
    log.unreadable = ""
    [handle] = await Runner.recover(log, agent)
    assert (handle.run_id, (await handle).final_output) == (second, "Hi.")
