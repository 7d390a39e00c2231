"""Filters: which tools an agent is shown."""

from typing import Any

import pytest
from mcp.types import Tool

from millstream import Agent
from millstream.errors import UserError
from millstream.mcp import ToolFilterContext, create_static_tool_filter
from millstream.mcp.filters import check_filter, filtered
from tests.mcp.kit import NOBODY

AGENT = Agent(name="a")
TOOLS = [Tool(name=name, input_schema={}) for name in "abc"]


async def passing(tool_filter: Any) -> str:
    return "".join(tool.name for tool in await filtered(TOOLS, tool_filter, "s", NOBODY, AGENT))


@pytest.mark.parametrize(
    ("allowed", "blocked", "pass_"),
    [
        (None, None, "abc"),
        (["a", "b", "z"], None, "ab"),
        (None, ["a"], "bc"),
        (["a", "b"], ["b"], "a"),
        ([], None, ""),
        (None, [], "abc"),
    ],
)
async def test_names_are_allowed_and_blocked(allowed: Any, blocked: Any, pass_: str) -> None:
    assert await passing(create_static_tool_filter(allowed, blocked)) == pass_


def test_without_lists_there_is_no_filter() -> None:
    assert create_static_tool_filter() is None


async def test_a_function_is_asked_of_each_tool_for_this_run_and_agent() -> None:
    asked: list[ToolFilterContext] = []

    def shown(context: ToolFilterContext, tool: Any) -> bool:
        asked.append(context)
        return tool.name != "b"

    async def shown_later(context: ToolFilterContext, tool: Any) -> bool:
        return tool.name == "b"

    assert await passing(shown) == "ac"
    assert await passing(shown_later) == "b"
    assert asked == [ToolFilterContext(NOBODY, AGENT, "s")] * 3


async def test_a_tool_whose_function_raises_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    def shown(context: ToolFilterContext, tool: Any) -> bool:
        if tool.name == "b":
            raise ConnectionError("nobody knows")
        return True

    assert await passing(shown) == "ac"
    assert "its tool_filter raised for b" in caplog.text


@pytest.mark.parametrize("nonsense", [3, ["a"], {"allowed": ["a"]}])
def test_what_is_no_filter_is_refused(nonsense: Any) -> None:
    with pytest.raises(UserError, match="tool_filter takes a function of context and tool, or a dict"):
        check_filter(nonsense)
