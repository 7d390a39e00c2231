"""What this version does not act on is refused by name, never ignored."""

from typing import Any

import pytest

from millstream.agent import Agent, check_agent, reachable, refuse_unsupported
from millstream.config import RunConfig
from millstream.errors import DuplicateToolError, NotSupportedError, SchemaError
from millstream.handoff import Handoff, handoff
from millstream.tool import HostedMCPTool, WebSearchTool, tool


def check(*args: Any) -> Any: ...


MCP: Any = {"type": "mcp", "server_label": "x"}


@pytest.mark.parametrize(
    ("agent", "message"),
    [
        (Agent(name="a", tools=[HostedMCPTool(MCP, check)]), "Tool 'hosted_mcp': on_approval_request"),
    ],
)
def test_an_agent_that_asks_for_too_much_is_refused(agent: Agent[Any], message: str) -> None:
    with pytest.raises(NotSupportedError, match=message):
        refuse_unsupported(agent)


@pytest.mark.parametrize(
    "option",
    [
        {"sandbox": object()},
    ],
)
def test_a_configuration_that_asks_for_too_much_is_refused(option: dict[str, Any]) -> None:
    with pytest.raises(NotSupportedError, match=next(iter(option))):
        refuse_unsupported(Agent(name="a"), RunConfig(**option))


def test_what_asks_for_nothing_of_the_kind_passes() -> None:
    config = RunConfig(
        tracing_disabled=True, workflow_name="w", group_id="g", reasoning_item_id_policy="preserve"
    )
    agent = Agent(
        name="a",
        tools=[WebSearchTool(), tool(lambda: 1, name_override="t")],
        handoffs=[Agent(name="b"), handoff(Agent(name="c"))],
    )

    refuse_unsupported(agent)
    refuse_unsupported(agent, config)


def test_what_is_no_tool_at_all_is_left_to_those_who_look_for_tools() -> None:
    agent = Agent(name="a")
    agent.tools.extend(["search", check])  # pyright: ignore[reportArgumentType]
    agent.handoffs.append("b")  # pyright: ignore[reportArgumentType]

    refuse_unsupported(agent)


def twice_named(**options: Any) -> Agent[Any]:
    return Agent(name="c", tools=[tool(lambda: 1, name_override="t", **options) for _ in range(2)])


@pytest.mark.parametrize("way", [lambda agent: agent, handoff])
def test_an_agent_two_handoffs_away_is_checked_too(way: Any) -> None:
    far = Agent(name="a", handoffs=[Agent(name="b", handoffs=[way(twice_named())])])
    shapeless = Agent(name="a", handoffs=[way(Agent(name="b", output_type=dict[str, int]))])

    with pytest.raises(DuplicateToolError, match="Agent 'c'"):
        check_agent(far, "error")
    check_agent(far, "warn")
    with pytest.raises(SchemaError, match="dict"):
        check_agent(shapeless, "warn")


def test_agents_that_hand_over_in_a_circle_are_each_found_once() -> None:
    a, b = Agent(name="a"), Agent(name="b")
    a.handoffs += [b, a]
    b.handoffs += [handoff(a)]

    check_agent(a, "error")
    assert reachable(a) == ([a, b], True)


@pytest.mark.parametrize("enabled", [False, lambda context, agent: False])
def test_what_may_never_be_enabled_is_not_checked_beforehand(enabled: Any) -> None:
    agent = Agent(name="a", handoffs=[handoff(twice_named(), is_enabled=enabled)])

    check_agent(agent, "error")
    check_agent(Agent(name="a", handoffs=[twice_named(is_enabled=enabled)]), "error")
    assert reachable(agent) == ([agent], False)


def test_a_handoff_made_by_hand_tells_its_agent_only_when_it_is_used() -> None:
    by_hand: Any = Handoff("t", "", {}, check, "b")
    agent = Agent(name="a", handoffs=[by_hand])

    assert reachable(agent) == ([agent], False)
