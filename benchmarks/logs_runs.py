"""What a log costs the runs that are written to it: CPU of this process, all of its threads."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from logs_stores import Store

from millstream import Agent, MemoryLog, Model, ModelSettings, RunConfig, Runner, tool
from millstream.items import ModelResponse
from millstream.log.promise import Batch
from millstream.log.store import RunStore
from millstream.models.promise import ModelTracing, RawBatch
from millstream.testing import ScriptedModel, function_call

DELTAS = 2000
"""Words of a streamed answer."""
READS = (1, 64)
"""How many events one read of the model's socket brings."""
SAMPLE = 0.15
"""CPU seconds of a sample: a core that has waited is cold, for some milliseconds."""
TURNS = (10, 20, 40, 80)
"""Model calls of a run with tools."""


class Recording(Model):
    """Answers with streams that were recorded, as the bytes that a server sent: it costs next to nothing.

    Args:
        answers: of its calls, one after the other, and then again.
        together: how many events one read brings.
    """

    def __init__(self, answers: Sequence[RawBatch], together: int) -> None:
        self._reads = [
            [
                RawBatch(each.events[at : at + together], each.types[at : at + together])
                for at in range(0, len(each.events), together)
            ]
            for each in answers
        ]
        self._calls = 0

    async def get_response(self, *_: Any, **__: Any) -> ModelResponse:
        raise NotImplementedError

    def stream_response(self, *_: Any, **__: Any) -> AsyncIterator[Any]:
        raise NotImplementedError

    async def stream_batches(self, *_: Any, **__: Any) -> AsyncIterator[RawBatch]:
        reads = self._reads[self._calls % len(self._reads)]
        self._calls += 1
        for read in reads:
            await asyncio.sleep(0)  # as where a socket is waited for: others have their turn
            yield read


async def recorded(step: Any) -> RawBatch:
    """The stream of one answer."""
    read = RawBatch([], [])
    script, settings = ScriptedModel([step]), ModelSettings()
    async for events, types in script.stream_batches(
        None, "", settings, [], None, [], ModelTracing.DISABLED,
        previous_response_id=None, conversation_id=None, prompt=None,
    ):  # fmt: skip
        read.events.extend(events)
        read.types.extend(types)
    return read


# --- a streamed answer -------------------------------------------------------------------------


async def streamed(model: Model, log: RunStore | None) -> float:
    """CPU seconds of one run, whose reader looks at every delta."""
    agent = Agent(name="A", model=model)
    began, seen = time.process_time(), 0
    async for event in Runner.run_streamed(agent, "Hello", run_config=RunConfig(log=log)).stream_events():
        if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
            seen += len(event.data.delta) > 0
    assert seen == DELTAS, seen
    return time.process_time() - began


async def per_delta(stores: Sequence[Store], rounds: int) -> dict[int, dict[str, float]]:
    """CPU microseconds per delta, by events of a read and by log; the first is a run without any."""
    answer = await recorded(" ".join(f"word{number}" for number in range(DELTAS)))
    found: dict[int, dict[str, float]] = {}
    for together in READS:
        model = Recording([answer], together)
        costs: dict[str, list[float]] = {}
        for number in range(-1, rounds):
            for name, store in {"none": None, **{each.name: each for each in stores}}.items():
                cost = await _sample(model, store)
                if number >= 0:
                    costs.setdefault(name, []).append(cost)
        found[together] = {name: median(each) * 1e6 / DELTAS for name, each in costs.items()}
    return found


async def _sample(model: Model, store: Store | None) -> float:
    log = None if store is None else store.open()
    used, runs = 0.0, 0
    while used < SAMPLE:
        used += await streamed(model, log)
        runs += 1
    if log is not None:
        await log.aclose()
    return used / runs


# --- checkpoints -------------------------------------------------------------------------------


@tool
async def look_up(place: int) -> str:
    """Look something up."""
    return f"What stands at {place}: " + "some facts, " * 20


class Counting(MemoryLog):
    """Counts the checkpoints that come with what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        if batch.checkpoint is not None:
            self.sizes.append(len(batch.checkpoint))
        await super().append(run_id, batch, epoch=epoch)


@dataclass
class Turns:
    """A run with tools, of so many turns."""

    turns: int
    checkpoints: int
    checkpoint_bytes: int
    """Of all of them together."""
    last_bytes: int
    cpu_ms: dict[str, float]
    """Of the whole run, by log; the first is a run without any, and so without checkpoints."""


async def with_tools(turns: int, answers: Sequence[RawBatch], log: RunStore | None) -> float:
    """CPU seconds of a run of so many turns."""
    model = Recording([*answers[: turns - 1], answers[-1]], 64)
    agent = Agent(name="A", model=model, tools=[look_up])
    began = time.process_time()
    run = Runner.run_streamed(agent, "Look it all up.", max_turns=turns, run_config=RunConfig(log=log))
    async for _ in run.entries():
        pass
    assert run.final_output == "That is all.", run.final_output
    return time.process_time() - began


async def by_turns(stores: Sequence[Store], rounds: int) -> list[Turns]:
    """What runs with tools cost, by their length."""
    calls = [function_call("look_up", {"place": at}, call_id=f"call_{at}") for at in range(max(TURNS))]
    answers = [await recorded(step) for step in (*([each] for each in calls), "That is all.")]
    return [await _of_length(turns, answers, stores, rounds) for turns in TURNS]


async def _of_length(turns: int, answers: Sequence[RawBatch], stores: Sequence[Store], rounds: int) -> Turns:
    counting = Counting()
    await with_tools(turns, answers, counting)
    costs: dict[str, list[float]] = {}
    for number in range(-1, rounds):
        for name, store in {"none": None, **{each.name: each for each in stores}}.items():
            log = None if store is None else store.open()
            cost = await with_tools(turns, answers, log)
            if log is not None:
                await log.aclose()
            if number >= 0:
                costs.setdefault(name, []).append(cost)
    sizes = counting.sizes
    cpu = {name: median(each) * 1000 for name, each in costs.items()}
    return Turns(turns, len(sizes), sum(sizes), sizes[-1], cpu)
