"""Filters: what an agent that takes over is not shown."""

from typing import Any

import pytest

from millstream.agent import Agent
from millstream.extensions.handoff_filters import remove_all_tools
from millstream.handoff import HandoffInputData
from millstream.items import (
    HandoffCallItem,
    HandoffOutputItem,
    InputItem,
    MessageOutputItem,
    ReasoningItem,
    ToolApprovalItem,
    ToolCallItem,
    ToolCallOutputItem,
)

AGENT: Any = Agent(name="a")
RAW: Any = {}
SAID = (MessageOutputItem(AGENT, RAW), InputItem(AGENT, RAW))
OF_TOOLS = (
    ToolCallItem(AGENT, RAW),
    ToolCallOutputItem(AGENT, RAW, output=1),
    HandoffCallItem(AGENT, RAW),
    HandoffOutputItem(AGENT, RAW, AGENT, AGENT),
    ReasoningItem(AGENT, RAW),
    ToolApprovalItem(AGENT, RAW),
)


def test_only_what_was_said_is_left() -> None:
    data = HandoffInputData("hi", (*OF_TOOLS, *SAID), (*SAID, *OF_TOOLS), input_items=OF_TOOLS)

    left = remove_all_tools(data)

    assert (left.input_history, left.pre_handoff_items, left.new_items) == ("hi", SAID, SAID)
    assert left.input_items == ()
    assert remove_all_tools(HandoffInputData("hi", (), ())).input_items is None


@pytest.mark.parametrize(
    ("item", "stays"),
    [
        ({"role": "user", "content": "x"}, True),
        ({"type": "message", "role": "assistant", "content": "x"}, True),
        ({"type": "compaction"}, True),
        ({"type": "item_reference"}, True),
        ({"type": "function_call"}, False),
        ({"type": "function_call_output"}, False),
        ({"type": "web_search_call"}, False),
        ({"type": "a_tool_to_come_call"}, False),
        ({"type": "mcp_list_tools"}, False),
        ({"type": "mcp_approval_response"}, False),
        ({"type": "tool_search_output"}, False),
        ({"type": "program"}, False),
        ({"type": "reasoning"}, False),
    ],
)
def test_a_history_keeps_what_was_said(item: Any, stays: bool) -> None:
    left = remove_all_tools(HandoffInputData((item,), (), ()))

    assert left.input_history == ((item,) if stays else ())
