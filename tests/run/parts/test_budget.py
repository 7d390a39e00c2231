"""Budgets: nothing begins when one is reached, in whatever run of the tree it was used."""

import asyncio
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from openai.types.responses.response_usage import InputTokensDetails

from millstream import (
    Agent,
    Budget,
    BudgetExceeded,
    ModelRetryBackoffSettings,
    ModelRetrySettings,
    ModelSettings,
    Price,
    RunConfig,
    Runner,
    RunResultStreaming,
    Usage,
    UserError,
    retry_policies,
    tool,
)
from millstream.testing import ModelStep, ScriptedModel, function_call


class Named(ScriptedModel):
    """A scripted model with a name, each of whose calls uses ten tokens, five of them written."""

    def __init__(self, model: str, *steps: Any, cached: int = 0) -> None:
        details = InputTokensDetails(cached_tokens=cached, cache_write_tokens=0)
        usage = Usage(
            requests=1, input_tokens=5, output_tokens=5, total_tokens=10, input_tokens_details=details
        )
        super().__init__(steps, default_usage=usage)
        self.model = model

    def count_tokens(self, text: str) -> int:
        return len(text.split())


ran: list[str] = []


@tool
def look(what: str = "") -> str:
    ran.append(what)
    return "seen"


@pytest.fixture(autouse=True)
def nothing_ran() -> None:
    ran.clear()


def looking(times: int) -> list[Any]:
    return [[function_call("look", {"what": str(n)}, call_id=f"c{n}")] for n in range(times)]


def start(agent: Agent[Any], **budget: Any) -> RunResultStreaming:
    return Runner.run_streamed(agent, "Hi", run_config=RunConfig(budget=Budget(**budget)))


async def test_a_run_ends_when_its_tokens_are_used_and_says_how_far_it_came() -> None:
    model = Named("m", *looking(5), "Done.")
    run = start(Agent(name="A", model=model, tools=[look]), tokens=25)

    with pytest.raises(BudgetExceeded, match="has used 30 tokens, and may use 25") as raised:
        await run

    assert (raised.value.tokens, len(model.calls), ran) == (30, 3, ["0", "1"])
    terminal: Any = [entry async for entry in run.entries()][-1].event
    assert (terminal.code, terminal.message, terminal.retryable) == (
        "budget",
        "The run has used its budget.",
        False,
    )
    assert terminal.usage["total_tokens"] == 30
    assert raised.value.run_data is not None
    assert len(raised.value.run_data.raw_responses) == 3
    history: list[Any] = run.to_input_list()
    assert history[-1]["output"] == "The tool call was cancelled before it finished."


@pytest.mark.parametrize("streamed", [True, False])
async def test_an_output_that_is_there_is_the_runs_whatever_it_used(streamed: bool) -> None:
    agent = Agent(name="A", model=Named("m", *looking(1), "Done."), tools=[look])
    config = RunConfig(budget=Budget(tokens=11))

    if streamed:
        result: Any = await Runner.run_streamed(agent, "Hi", run_config=config)
    else:
        result = await Runner.run(agent, "Hi", run_config=config)

    assert result.final_output == "Done."
    assert result.context_wrapper.usage.total_tokens == 20


async def test_money_counts_by_the_price_of_each_model() -> None:
    dear, cheap = Price(input=100_000, output=300_000), Price(input=1, output=1, cached_input=0)
    other = Agent(name="B", model=Named("cheap", *looking(2), "Done."), tools=[look])
    calls = [function_call("transfer_to_b", call_id="h")]
    agent = Agent(name="A", model=Named("dear", calls), handoffs=[other])
    prices = {"dear": dear, "cheap": cheap}

    with pytest.raises(BudgetExceeded, match=r"has cost 2.00001, and may cost 2.00001") as raised:
        await start(agent, money=2.00001, prices=prices)
    assert raised.value.money == pytest.approx(2 + 10 / 1_000_000)

    agent.model, other.model = Named("dear", calls), Named("cheap", *looking(2), "Done.")
    assert (await start(agent, money=2.1, prices=prices)).final_output == "Done."


async def test_cached_input_has_its_own_price() -> None:
    model = Named("m", *looking(2), cached=4)
    prices = {"m": Price(input=1_000_000, output=0, cached_input=0)}

    with pytest.raises(BudgetExceeded) as raised:
        await start(Agent(name="A", model=model, tools=[look]), money=2, prices=prices)

    assert raised.value.money == 2


async def test_a_model_without_a_price_is_refused_before_any_is_asked() -> None:
    other = Agent(name="B", model=Named("unknown", "Never."))
    model = Named("m", "Never.")

    with pytest.raises(UserError, match=r"'unknown', the model of agent 'B', has none.*which has: 'm'"):
        start(Agent(name="A", model=model, handoffs=[other]), money=1, prices={"m": Price(input=1, output=1)})

    assert not model.calls


async def test_a_nested_run_counts_and_none_goes_on_when_the_budget_is_reached() -> None:
    inner_model = Named("m", *looking(5), "Never.")
    inner = Agent(name="Inner", model=inner_model, tools=[look])
    outer_model = Named("m", [function_call("ask", {"input": "?"}, call_id="a")], "Never.")
    outer = Agent(name="Outer", model=outer_model, tools=[inner.as_tool("ask", "Asks.")])
    run = start(outer, tokens=30)

    with pytest.raises(BudgetExceeded):
        await run

    assert (len(outer_model.calls), len(inner_model.calls)) == (1, 2)
    codes = [(e.agent, e.event.code) async for e in run.entries() if e.is_terminal]  # type: ignore[union-attr]  # pyright: ignore[reportAttributeAccessIssue]
    assert codes == [("Inner", "budget"), ("Outer", "budget")]


async def test_a_nested_run_may_have_a_smaller_budget_of_its_own() -> None:
    inner_model = Named("m", *looking(5), "Never.")
    inner = Agent(name="Inner", model=inner_model, tools=[look])
    asks = inner.as_tool("ask", "Asks.", run_config=RunConfig(budget=Budget(tokens=15)))
    outer = Agent(
        name="Outer",
        model=Named("m", [function_call("ask", {"input": "?"}, call_id="a")], "Without it."),
        tools=[asks],
    )

    result = await start(outer, tokens=1000)

    assert result.final_output == "Without it."
    assert len(inner_model.calls) == 2


async def test_runs_that_are_nested_side_by_side_share_the_budget() -> None:
    models = [Named("m", *looking(3), "Done.") for _ in range(3)]
    inner = [Agent(name=f"I{n}", model=model, tools=[look]) for n, model in enumerate(models)]
    calls = [function_call(f"ask{n}", {"input": "?"}, call_id=f"a{n}") for n in range(3)]
    tools: list[Any] = [each.as_tool(f"ask{n}", "Asks.") for n, each in enumerate(inner)]
    outer = Agent(name="Outer", model=Named("m", calls), tools=tools)

    with pytest.raises(BudgetExceeded) as raised:
        await start(outer, tokens=50)

    assert 50 <= raised.value.tokens <= 70  # those that were under way side by side


async def test_tries_that_failed_and_calls_that_were_cut_short_count() -> None:
    retry = ModelRetrySettings(
        max_retries=1,
        backoff=ModelRetryBackoffSettings(initial_delay=0, jitter=False),
        policy=retry_policies.even_after_output(lambda context: True),
    )
    model = Named("m", ModelStep("Hello there.", fail_after=5), *looking(1))
    agent = Agent(name="A", model=model, tools=[look], model_settings=ModelSettings(retry=retry))
    run = start(agent, tokens=11)

    with pytest.raises(BudgetExceeded) as raised:
        await run

    used = run.context_wrapper.usage
    assert (used.requests, used.estimated, used.total_tokens) == (2, True, raised.value.tokens)


async def test_runs_that_are_not_nested_do_not_share_a_budget() -> None:
    config = RunConfig(budget=Budget(tokens=15))

    async def once() -> Any:
        agent = Agent(name="A", model=Named("m", *looking(1), "Done."), tools=[look])
        return (await Runner.run(agent, "Hi", run_config=config)).final_output

    assert await asyncio.gather(once(), once()) == ["Done.", "Done."]
