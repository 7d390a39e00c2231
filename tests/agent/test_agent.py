"""Agents as descriptions: what they may be made of, and what they give to a turn."""

import asyncio
from typing import Any

import pytest
from openai.types.responses import Response  # noqa: F401  # before the loop starts
from pydantic import BaseModel

from millstream.agent import Agent, AgentBase, AgentOutputSchema, StopAtTools
from millstream.config import ModelSettings
from millstream.config.defaults import get_default_model_settings
from millstream.context import RunContextWrapper
from millstream.errors import NotSupportedError, SchemaError, UserError
from millstream.handoff import Handoff, handoff
from millstream.testing import ScriptedModel
from millstream.tool import FunctionTool, WebSearchTool, tool


class Report(BaseModel):
    title: str


def named(name: str, **options: Any) -> FunctionTool:
    return tool(lambda: name, name_override=name, **options)


def context(value: Any = None) -> RunContextWrapper[Any]:
    return RunContextWrapper(value)


# --- making one --------------------------------------------------------------------------------


def test_an_agent_needs_a_name_only() -> None:
    agent = Agent(name="a")

    assert (agent.instructions, agent.tools, agent.handoffs, agent.model) == (None, [], [], None)
    assert agent.model_settings == get_default_model_settings()
    assert (agent.tool_use_behavior, agent.reset_tool_choice) == ("run_llm_again", True)
    assert isinstance(agent, AgentBase)


def test_agents_do_not_share_their_lists() -> None:
    first, second = Agent(name="a"), Agent(name="a")

    first.tools.append(named("t"))

    assert second.tools == []


def test_an_agent_is_equal_only_to_itself_also_where_agents_refer_to_each_other() -> None:
    first, second = Agent(name="a"), Agent(name="a")
    first.handoffs.append(second)
    second.handoffs.append(first)

    assert first != second
    assert len({first, second}) == 2
    assert repr(first) == "Agent(name='a', model=None, tools=[], handoffs=['a'])"


def test_a_clone_differs_in_what_was_replaced_and_shares_the_rest() -> None:
    agent = Agent(name="a", instructions="be brief", tools=[named("t")])

    clone = agent.clone(name="b", tools=[])

    assert (clone.name, clone.instructions, clone.tools) == ("b", "be brief", [])
    assert clone.handoffs is agent.handoffs
    assert agent.name == "a"


def test_agents_may_be_bound_to_a_context_type() -> None:
    assert Agent[str](name="a").name == "a"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("name", 1),
        ("handoff_description", 1),
        ("tools", "x"),
        ("mcp_servers", 3),
        ("mcp_config", 3),
        ("instructions", 3),
        ("instructions", lambda ctx: "one argument"),
        ("handoffs", "x"),
        ("model", 3),
        ("model_settings", 3),
        ("input_guardrails", 3),
        ("output_guardrails", 3),
        ("output_type", 3),
        ("hooks", 3),
        ("tool_use_behavior", "x"),
        ("tool_use_behavior", {"stop": []}),
        ("reset_tool_choice", 1),
    ],
)
def test_a_field_of_the_wrong_type_is_named_at_once(field: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"Agent {field} "):
        Agent(**{"name": "a", field: value})


@pytest.mark.parametrize(
    ("thing", "message"),
    [
        (lambda x: x, r"tools\[1\].*decorate the function with @tool"),
        (Agent(name="b"), r"tools\[1\].*handoffs="),
        ("search", r"tools\[1\] is the text 'search'"),
    ],
)
async def test_a_tool_that_is_none_is_named_at_once_and_also_when_it_comes_later(
    thing: Any, message: str
) -> None:
    with pytest.raises(UserError, match=message):
        Agent(name="a", tools=[named("t"), thing])

    agent = Agent(name="a", tools=[named("t")])
    agent.tools.append(thing)
    with pytest.raises(UserError, match=message):
        await agent.get_all_tools(context())


@pytest.mark.parametrize("nothing", ["billing", 3, None, Agent])
async def test_a_handoff_to_nothing_is_named_at_once_and_also_when_it_comes_later(nothing: Any) -> None:
    with pytest.raises(UserError, match=r"Agent 'a': handoffs\[0\] is .*takes an Agent"):
        Agent(name="a", handoffs=[nothing])

    agent = Agent(name="a")
    agent.handoffs.append(nothing)
    with pytest.raises(UserError, match=r"handoffs\[0\]"):
        await agent.get_handoffs(context())


def test_settings_may_be_a_dict_and_mistakes_in_it_are_named() -> None:
    given: Any = {"top_p": 1}
    wrong: Any = {"topp": 1}

    assert Agent(name="a", model_settings=given).model_settings == ModelSettings(top_p=1)
    with pytest.raises(UserError, match=r"Agent 'a': model_settings: .*Did you mean 'top_p'\?"):
        Agent(name="a", model_settings=wrong)


@pytest.mark.parametrize("kind", [Report, list[int], int | None, AgentOutputSchema(Report), None, str])
def test_output_types_of_many_kinds_are_taken(kind: Any) -> None:
    assert Agent(name="a", output_type=kind).output_type is kind


@pytest.mark.parametrize(
    "behavior",
    ["run_llm_again", "stop_on_first_tool", StopAtTools(stop_at_tool_names=["t"]), lambda c, r: None],
)
def test_behaviors_of_all_kinds_are_taken(behavior: Any) -> None:
    assert Agent(name="a", tool_use_behavior=behavior).tool_use_behavior is behavior


def test_what_this_version_does_not_do_is_refused() -> None:
    prompt: Any = {"id": "p"}

    with pytest.raises(NotSupportedError, match="prompt"):
        Agent(name="a", prompt=prompt)


def test_an_agent_with_an_empty_name_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    Agent(name="")

    assert "empty name" in caplog.text


# --- what a turn asks it -----------------------------------------------------------------------


async def test_instructions_are_text_or_are_made_for_the_turn() -> None:
    async def later(ctx: RunContextWrapper[Any], agent: Agent[Any]) -> str:
        return f"{agent.name} serves {ctx.context}"

    for instructions, text in [
        (None, None),
        ("be brief", "be brief"),
        (lambda ctx, agent: f"{agent.name}, {ctx.context}", "a, ann"),
        (lambda ctx, agent: None, None),
        (later, "a serves ann"),
    ]:
        assert await Agent(name="a", instructions=instructions).get_system_prompt(context("ann")) == text


async def test_instructions_that_are_no_text_are_an_error() -> None:
    wrong: Any = lambda ctx, agent: 3  # noqa: E731

    with pytest.raises(UserError, match="Agent 'a': instructions returned int"):
        await Agent(name="a", instructions=wrong).get_system_prompt(context())


async def test_instructions_written_in_c_are_taken_on_trust() -> None:
    wrong: Any = max

    assert Agent(name="a", instructions=wrong).instructions is max


async def test_a_turn_is_shown_the_tools_that_are_enabled_in_their_order() -> None:
    async def later(ctx: RunContextWrapper[Any], agent: AgentBase[Any]) -> bool:
        return ctx.context == "ann" and agent.name == "a"

    search = WebSearchTool()
    agent = Agent(
        name="a",
        tools=[
            named("on"),
            named("off", is_enabled=False),
            search,
            named("by_context", is_enabled=lambda ctx, agent: ctx.context == "ann"),
            named("later", is_enabled=later),
        ],
    )

    async def shown(value: str) -> list[str]:
        return [each.name for each in await agent.get_all_tools(context(value))]

    assert await shown("ann") == ["on", "web_search", "by_context", "later"]
    assert await shown("ben") == ["on", "web_search"]


async def test_tools_are_asked_side_by_side_whether_they_are_enabled() -> None:
    everybody = asyncio.Barrier(3)

    async def ask(ctx: RunContextWrapper[Any], agent: AgentBase[Any]) -> bool:
        await everybody.wait()
        return True

    agent = Agent(name="a", tools=[named(f"t{i}", is_enabled=ask) for i in range(3)])

    async with asyncio.timeout(10):
        assert len(await agent.get_all_tools(context())) == 3


async def test_what_a_turn_does_with_its_list_does_not_change_the_agent() -> None:
    agent = Agent(name="a", tools=[named("t")])

    (await agent.get_all_tools(context())).clear()

    assert len(agent.tools) == 1


async def test_a_turn_is_shown_the_handoffs_that_are_enabled_in_their_order() -> None:
    b, c, d = Agent(name="b"), Agent(name="c"), Agent(name="d")
    agent = Agent(
        name="a",
        handoffs=[
            b,
            handoff(c, is_enabled=False),
            handoff(d, is_enabled=lambda ctx, agent: ctx.context == "ann"),
        ],
    )

    async def shown(value: str) -> list[Handoff[Any, Any]]:
        return await agent.get_handoffs(context(value))

    assert [each.agent_name for each in await shown("ann")] == ["b", "d"]
    assert [each.tool_name for each in await shown("ben")] == ["transfer_to_b"]


async def test_an_agent_has_no_prompt_yet_and_no_mcp_tools_without_servers() -> None:
    agent = Agent(name="a")

    assert await agent.get_prompt(context()) is None
    assert await agent.get_mcp_tools(context()) == []


def test_the_output_schema_is_that_of_the_type() -> None:
    schema = Agent(name="a", output_type=Report).output_schema()

    assert schema is not None
    assert schema.name() == "Report"
    assert Agent(name="a").output_schema() is None
    with pytest.raises(SchemaError):
        Agent(name="a", output_type=dict[str, int]).output_schema()


# --- settings that suit the model -----------------------------------------------------------------


def effort(settings: ModelSettings) -> tuple[str | None, str | None]:
    return (settings.reasoning.effort if settings.reasoning else None, settings.verbosity)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ("none", "low")),
        ({"model": "gpt-5"}, ("low", "low")),
        ({"model": "gpt-4.1"}, (None, None)),
        ({"model": ScriptedModel()}, (None, None)),
        ({"model_settings": ModelSettings()}, (None, None)),
        ({"model_settings": {"temperature": 0.5}}, (None, None)),
    ],
)
def test_an_agent_without_settings_has_those_that_suit_its_model(options: Any, expected: Any) -> None:
    assert effort(Agent(name="a", **options).model_settings) == expected


def test_a_clone_with_another_model_has_its_settings() -> None:
    agent = Agent(name="a")
    changed = Agent(name="a")
    changed.model_settings.temperature = 0.5

    assert effort(agent.clone(model="gpt-4.1").model_settings) == (None, None)
    assert effort(agent.clone(model="gpt-4.1").clone(model="gpt-5").model_settings) == ("low", "low")
    assert agent.clone(model="gpt-4.1", model_settings=ModelSettings(top_p=1)).model_settings.top_p == 1
    assert changed.clone(model="gpt-4.1").model_settings.temperature == 0.5


@pytest.mark.parametrize(
    ("options", "of_the_run", "expected"),
    [
        ({}, "gpt-5", ("low", "low")),
        ({"model": "gpt-5"}, "gpt-4.1", (None, None)),
        ({"model": "gpt-4.1"}, "gpt-5", ("low", "low")),
        ({"model": "gpt-5"}, None, ("low", "low")),
        ({"model": "gpt-5"}, ScriptedModel(), (None, None)),
        ({"model_settings": ModelSettings()}, "gpt-5", (None, None)),
    ],
)
def test_the_model_of_the_run_is_asked_as_suits_it(options: Any, of_the_run: Any, expected: Any) -> None:
    assert effort(Agent(name="a", **options).settings_for(of_the_run)) == expected
