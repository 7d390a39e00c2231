"""What a run writes: its place in the log of the run tree, and what is held back."""

import asyncio

import pytest

from millstream import Agent
from millstream.clock import SYSTEM_CLOCK
from millstream.context import RunContextWrapper
from millstream.errors import LogFullError
from millstream.events import GuardrailResult, ModelStarted, RunStarted, UserEvent
from millstream.log import Batch, MemoryLog
from millstream.run.state import RunProgress
from millstream.run.writer import Trunk, Writer

DELTA = b'{"type":"response.output_text.delta","delta":"x","sequence_number":1}'


A, B = Agent("A"), Agent("B")


def progress(run_id: str = "run_1", agent: Agent = A) -> RunProgress:
    return RunProgress(run_id, "Hi", agent, RunContextWrapper(None), max_turns=None)


def writer(log: MemoryLog | None = None) -> Writer:
    return Writer(Trunk(MemoryLog() if log is None else log, "run_1"), progress(), SYSTEM_CLOCK)


async def written(trunk: Trunk) -> list[str]:
    cursor = trunk.cursor(0)
    types: list[str] = []
    while (batch := cursor.next_nowait()) is not None:
        types += [entry.type for entry in batch.entries()]
    return types


async def test_positions_count_over_a_run_and_those_nested_in_it() -> None:
    root = writer()
    trunk = root.trunk
    child = Writer(trunk, progress("run_2", B), SYSTEM_CLOCK, "run_1", ("call_1",))

    await root.write([RunStarted(agent="A")])
    await child.write([RunStarted(agent="B")])
    await root.write([UserEvent(name="between")])

    first, second, third = [entry for _ in range(3) for entry in await batch_of(trunk, _)]
    assert [entry.position for entry in (first, second, third)] == [1, 2, 3]
    assert (first.run_id, first.depth, first.path, first.parent_run_id) == ("run_1", 0, (), None)
    assert (second.run_id, second.depth, second.path) == ("run_2", 1, ("call_1",))
    assert (second.parent_run_id, second.agent) == ("run_1", "B")


async def batch_of(trunk: Trunk, after: int) -> list:  # type: ignore[type-arg]
    batch = await trunk.cursor(after).next()
    assert batch is not None
    return list(batch.entries(after))


async def test_what_is_held_is_not_in_the_log_until_it_is_released() -> None:
    held = writer()
    await held.write([ModelStarted(turn=1)])
    held.hold("me")
    held.hold("me")

    await held.write_model_events([DELTA, DELTA], raw_only=True, size=2 * len(DELTA))
    await held.write([UserEvent(name="behind")])
    assert (await written(held.trunk), held.trunk.position) == (["model.started"], 1)

    await held.release("me")

    assert await written(held.trunk) == [
        "model.started",
        "raw_response_event",
        "raw_response_event",
        "user.event",
    ]
    assert not held.holds
    await held.write([UserEvent(name="at once")])
    assert held.trunk.position == 5


async def test_what_two_hold_is_written_when_both_have_released_it() -> None:
    held = writer()
    held.hold("one")
    held.hold("two")
    await held.write([UserEvent(name="waits")])

    await held.let_out("one")
    await held.release("one")
    assert (held.trunk.position, held.holds, held.hides) == (0, True, True)

    await held.let_out("two")
    assert (held.trunk.position, held.holds, held.hides) == (1, True, False)

    await held.release("two")
    assert not held.holds


async def test_what_the_model_said_is_dropped_and_what_others_said_is_given_back() -> None:
    held = writer()
    held.hold("me")
    verdict = GuardrailResult(guardrail="g", stage="output", tripped=True)
    await held.write_model_events([DELTA], raw_only=True, size=len(DELTA))
    await held.write([verdict])

    assert held.drop() == [verdict]

    assert (held.holds, held.was_dropped, held.trunk.position) == (False, True, 0)
    assert held.drop() == []


async def test_a_value_that_changes_while_it_is_held_is_written_as_it_was() -> None:
    held = writer()
    held.hold("me")
    data = {"n": 1}
    await held.write([UserEvent(name="u", data=data)])
    data["n"] = 2

    await held.release("me")

    (entry,) = await batch_of(held.trunk, 0)
    assert b'"data":{"n":1}' in entry.to_json()


async def test_what_the_log_refuses_takes_no_position() -> None:
    full = writer(MemoryLog(max_events=1))
    await full.write([UserEvent(name="fits")])

    with pytest.raises(LogFullError) as raised:
        await full.write([UserEvent(name="does not")])

    assert (full.error, full.trunk.position) == (raised.value, 1)


class Slow(MemoryLog):
    """Writes, and then takes its time to say so."""

    def __init__(self) -> None:
        super().__init__()
        self.is_written = asyncio.Event()
        self.may_return = asyncio.Event()

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        await super().append(run_id, batch, epoch=epoch)
        self.is_written.set()
        await self.may_return.wait()


async def test_an_append_that_was_cut_off_is_known_to_be_written_before_the_cancellation_goes_on() -> None:
    log = Slow()
    slow = writer(log)
    task = asyncio.create_task(slow.write([ModelStarted(turn=1)]))
    await log.is_written.wait()

    log.may_return.set()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert (await written(slow.trunk), slow.has_written) == (["model.started"], True)
