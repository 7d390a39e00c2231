"""Time limits of a model in a run: total and silence, streamed and whole, on both wires, by the run's clock."""

import asyncio
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from millstream import (
    Agent,
    ModelSettings,
    ModelTimeoutError,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    RunResultStreaming,
)
from millstream.events import RawResponsesStreamEvent
from millstream.models.batched import ClientModel
from millstream.testing import ManualClock
from millstream.testing.faults import HANG, Gate, Piece
from millstream.testing.model_server import ModelServer
from tests.support.frames import chat_frames, text_frames
from tests.support.hurry import time_flies

WORDS = "one two three four five six"
WIRES: Any = pytest.mark.parametrize(
    ("made", "frames"),
    [(OpenAIResponsesModel, text_frames(WORDS)), (OpenAIChatCompletionsModel, chat_frames(WORDS))],
    ids=["responses", "chat"],
)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def model(
    server: ModelServer, made: type[ClientModel], idle: float | None = None, **client: Any
) -> ClientModel:
    client = {"api_key": "k", "base_url": server.base_url, "max_retries": 0, **client}
    return made("m", AsyncOpenAI(**client), idle_timeout=idle)


def start(
    asked: ClientModel, clock: ManualClock, *, timeout: float | None = None, **config: Any
) -> RunResultStreaming:
    agent = Agent(name="A", model=asked, model_settings=ModelSettings(timeout=timeout))
    return Runner.run_streamed(agent, "Hi", run_config=RunConfig(clock=clock, **config))


async def first_delta(run: RunResultStreaming) -> Any:
    """A reader that has taken the first piece of text, and asks for nothing more."""
    events = run.stream_events()
    async for event in events:
        if isinstance(event, RawResponsesStreamEvent) and event.data.type.endswith("text.delta"):
            return events
    raise AssertionError("there was no text")


async def time_passes(clock: ManualClock, run: RunResultStreaming) -> None:
    """Second by second to the end of the run: time counts only while the model is waited for."""
    while not run.is_complete:
        clock.advance(1)
        await asyncio.sleep(0)


async def failure(run: RunResultStreaming) -> ModelTimeoutError:
    with pytest.raises(ModelTimeoutError) as raised:
        await run
    return raised.value


@WIRES
async def test_silence_in_the_middle_of_an_answer_ends_it(
    server: ModelServer, made: Any, frames: list[bytes]
) -> None:
    server.send(*frames[:6], HANG)
    clock = ManualClock()
    run = start(model(server, made, idle=30), clock)
    await first_delta(run)
    await time_passes(clock, run)

    error = await failure(run)

    assert clock.monotonic() >= 30
    assert (error.idle, error.timeout_seconds, error.code) == (True, 30, "model_timeout")
    assert error.run_data is not None
    assert error.run_data.partial_text.startswith("one")
    await server.last.client_gone()


@WIRES
async def test_the_limit_of_a_call_ends_it_in_the_middle_of_an_answer(
    server: ModelServer, made: Any, frames: list[bytes]
) -> None:
    server.send(*frames[:6], HANG)
    clock = ManualClock()
    run = start(model(server, made), clock, timeout=10)
    await first_delta(run)
    await time_passes(clock, run)

    error = await failure(run)

    assert (error.idle, error.timeout_seconds) == (False, 10)
    await server.last.client_gone()


@WIRES
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_limit_of_a_call_holds_before_its_answer_begins(
    server: ModelServer, made: Any, frames: list[bytes], streamed: bool
) -> None:
    held = server.hold()
    clock = ManualClock()
    agent = Agent(name="A", model=model(server, made), model_settings=ModelSettings(timeout=10))
    config = RunConfig(clock=clock)
    if streamed:
        running = asyncio.ensure_future(failure(Runner.run_streamed(agent, "Hi", run_config=config)))
    else:
        running = asyncio.ensure_future(_failure_of(Runner.run(agent, "Hi", run_config=config)))
    await asyncio.wrap_future(held)
    clock.advance(10)

    error = await running

    assert (error.idle, error.timeout_seconds) == (False, 10)
    assert clock.due == ()


async def _failure_of(plain: Any) -> ModelTimeoutError:
    with pytest.raises(ModelTimeoutError) as raised:
        await plain
    return raised.value


@WIRES
@pytest.mark.parametrize("limits", [{"idle": 30}, {"timeout": 10}], ids=["silence", "total"])
async def test_a_reader_that_takes_its_time_costs_the_model_none(
    server: ModelServer, made: Any, frames: list[bytes], limits: dict[str, float]
) -> None:
    gate = Gate()
    pieces: list[Piece] = [*frames[:5], gate, *frames[5:]]
    server.send(*pieces)
    clock = ManualClock()
    asked = model(server, made, limits.get("idle"))
    # So many bytes that the run stops reading the socket as soon as its reader stands still.
    run = start(asked, clock, timeout=limits.get("timeout"), ahead=1)
    reader = await first_delta(run)
    await gate.reached()
    gate.open()
    for _ in range(100):
        await asyncio.sleep(0)
    clock.advance(100_000)

    async for _ in reader:
        clock.advance(0)

    assert run.final_output == WORDS


@WIRES
@pytest.mark.parametrize("streamed", [True, False])
async def test_the_clients_own_timeout_is_a_model_timeout_and_what_openai_calls_it(
    server: ModelServer, made: Any, frames: list[bytes], streamed: bool
) -> None:
    held = server.hold()
    asked = model(server, made, timeout=30)  # of the HTTP client, which has its own clock
    agent = Agent(name="A", model=asked)
    run = Runner.run_streamed(agent, "Hi")
    run._run.streamed = streamed

    failing = asyncio.create_task(failure(run))
    await asyncio.wrap_future(held)
    await time_flies(failing)
    error: Any = await failing

    assert openai.APITimeoutError in type(error).__mro__
    assert (error.idle, error.timeout_seconds) == (False, 30)
    assert str(error) == "The model's server did not answer within 30 s, the client's limit."
    terminal: Any = [entry async for entry in run.entries()][-1].event
    assert (terminal.code, terminal.retryable) == ("model_timeout", True)
    assert error.run_data.last_agent is agent
