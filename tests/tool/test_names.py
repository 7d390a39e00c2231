"""Two tools of one name."""

import logging

import pytest

from millstream.agent import Agent
from millstream.errors import DuplicateToolError
from millstream.handoff import handoff
from millstream.tool import FunctionTool, WebSearchTool, tool, tool_names


@tool(name_override="search")
def first() -> str:
    return "first"


@tool(name_override="search")
def second() -> str:
    return "second"


@tool
def other() -> str:
    return "other"


def test_function_tools_are_found_by_their_names() -> None:
    assert tool_names("a", [first, other, WebSearchTool()]) == {"search": first, "other": other}


def test_two_tools_of_one_name_are_an_error_that_says_what_to_change() -> None:
    with pytest.raises(DuplicateToolError, match=r"'desk': two tools are called 'search'.*name_override="):
        tool_names("desk", [first, other, second])


def test_a_tool_and_a_handoff_of_one_name_are_an_error() -> None:
    way = handoff(Agent(name="b"), tool_name_override="search")

    with pytest.raises(DuplicateToolError, match="a tool and a handoff are both called 'search'"):
        tool_names("desk", [first], [way])


def test_two_handoffs_of_one_name_are_an_error() -> None:
    with pytest.raises(DuplicateToolError, match="two handoffs are called 'transfer_to_b'"):
        tool_names("desk", [], [handoff(Agent(name="b")), handoff(Agent(name="B"))])


@pytest.mark.parametrize("order", [[first, second], [second, first]])
def test_where_the_policy_is_to_warn_the_last_one_is_called(
    order: list[FunctionTool], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "millstream"):
        found = tool_names("desk", order, policy="warn")

    assert found == {"search": order[-1]}
    assert "two tools are called 'search'" in caplog.text


def test_hosted_tools_have_no_names_that_could_collide() -> None:
    assert tool_names("a", [WebSearchTool(), WebSearchTool()]) == {}
