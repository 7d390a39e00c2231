"""Arguments of tool calls as they form, over both wires of OpenAI, and from a model that is asked again."""

from collections import defaultdict
from typing import Any

import pytest
from openai import AsyncOpenAI

from millstream import (
    Agent,
    ModelRetrySettings,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RetryDecision,
    Runner,
    tool,
)
from millstream.testing import ModelServer, ModelStep, ScriptedModel, function_call


@tool
def send(to: str, text: str) -> str:
    return f"sent to {to}"


CALLS = [
    function_call("send", '{"to": "Ada", "text": "Hello, caf\u00e9"}', call_id="c1"),
    function_call("send", '{"to": "Bob", "text": "Bye"}', call_id="c2"),
]


async def pieces_of(run: Any) -> list[Any]:
    return [piece async for piece in run.tool_arguments()]


@pytest.mark.parametrize("model_class", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
async def test_arguments_form_call_by_call_over_both_wires(server: ModelServer, model_class: Any) -> None:
    server.answer(CALLS)
    server.answer("Done.")
    model = model_class("m", AsyncOpenAI(base_url=server.base_url, api_key="x", max_retries=0))

    pieces = await pieces_of(Runner.run_streamed(Agent(name="A", model=model, tools=[send]), "Write"))
    await model.close()

    joined: defaultdict[str, str] = defaultdict(str)
    for piece in pieces:
        joined[piece.call_id] += piece.delta
    assert joined == {"c1": '{"to": "Ada", "text": "Hello, caf\u00e9"}', "c2": '{"to": "Bob", "text": "Bye"}'}
    assert {piece.tool_name for piece in pieces} == {"send"}
    assert [(piece.call_id, piece.state) for piece in pieces if piece.state != "forming"] == [
        ("c1", "done"),
        ("c2", "done"),
    ]
    assert len(pieces) > 4


@pytest.mark.parametrize(
    ("seen", "told"), [(5, ["forming", "dropped", "forming", "done"]), (3, ["forming", "done"])]
)
async def test_a_call_of_a_try_that_was_given_up_is_dropped_where_something_was_told(
    seen: int, told: list[str]
) -> None:
    def again(_: Any) -> RetryDecision:
        return RetryDecision(retry=True, even_after_output=True)

    retry = ModelRetrySettings(max_retries=1, policy=again, backoff={"initial_delay": 0})  # pyright: ignore[reportArgumentType]
    broken = ModelStep([CALLS[0]], fail_after=seen, error=ConnectionError("gone"))
    model = ScriptedModel([broken, [CALLS[1]], "Done."])
    agent = Agent(name="A", model=model, tools=[send], model_settings=ModelSettings(retry=retry))

    pieces = await pieces_of(Runner.run_streamed(agent, "Write"))

    states = [piece.state for piece in pieces]
    assert [state for place, state in enumerate(states) if states[place - 1 : place] != [state]] == told
    assert pieces[-1].call_id == "c2"


async def test_a_call_that_was_cut_off_by_a_cancellation_is_dropped() -> None:
    run = Runner.run_streamed(
        Agent(name="A", model=ScriptedModel([ModelStep([CALLS[0]], hang_after=5)]), tools=[send]), "Write"
    )
    pieces = []
    async for piece in run.tool_arguments():
        pieces.append(piece.state)
        run.cancel()

    assert pieces[0] == "forming"
    assert pieces[-1] == "dropped"
    assert pieces.count("dropped") == 1


async def test_a_reader_of_arguments_raises_at_its_end_what_the_run_failed_with() -> None:
    run = Runner.run_streamed(Agent(name="A", model=ScriptedModel([ConnectionError("down")])), "Write")

    with pytest.raises(ConnectionError, match="down"):
        await pieces_of(run)
