"""How an agent that is a tool is described, and what is refused at once. What it does: `tests/test_nested.py`."""

from typing import Any

import pytest

from millstream import Agent, MemoryLog, RunConfig, SQLiteSession, UserError
from millstream.items import ToolOriginType

A = Agent[Any](name="The Helper 2")


def test_a_tool_says_which_agent_it_is() -> None:
    tool = A.as_tool("help", "Helps.", needs_approval=True, is_enabled=False)

    assert (tool.name, tool.description, tool.strict_json_schema) == ("help", "Helps.", True)
    assert (tool.needs_approval, tool.is_enabled) == (True, False)
    assert tool.params_json_schema["required"] == ["input"]
    assert tool.tool_origin.type is ToolOriginType.AGENT_AS_TOOL
    assert (tool.tool_origin.agent_name, tool.tool_origin.agent_tool_name) == ("The Helper 2", "help")


def test_a_name_is_made_of_the_agents() -> None:
    tool = A.as_tool(None, None)

    assert (tool.name, tool.description) == ("the_helper_2", "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"on_stream": 5}, "on_stream=...) takes a function or None, not int"),
        ({"custom_output_extractor": "x"}, "custom_output_extractor=...) takes a function"),
        ({"failure_error_function": "x"}, "failure_error_function=...) takes a function"),
        ({"on_stream_max_pending_events": 0}, "on_stream_max_pending_events=0): a number above 0"),
        ({"on_stream_max_pending_events": True}, "on_stream_max_pending_events=True): a number above 0"),
        ({"max_turns": 0}, "max_turns=0"),
        ({"max_turns": "3"}, "max_turns='3'"),
        ({"run_config": {"modle": "x"}}, "modle"),
        ({"run_config": RunConfig(log=MemoryLog())}, "written in the log of its root"),
        ({"hooks": 5}, "hooks takes an instance of a subclass of RunHooks, or None, not int"),
        ({"session": 5}, "session is a Session or None, not int"),
        ({"session": SQLiteSession("s"), "conversation_id": "c"}, "cannot be combined with conversation_id"),
        ({"tool_name": 5}, "as_tool(tool_name=...) takes text, not int"),
    ],
)
def test_what_cannot_work_is_refused_where_the_tool_is_described(options: dict[str, Any], told: str) -> None:
    described: dict[str, Any] = {"tool_name": "help", "tool_description": "Helps.", **options}

    with pytest.raises(UserError) as caught:
        A.as_tool(**described)

    assert told in str(caught.value)


def test_a_session_may_be_given() -> None:
    assert A.as_tool("help", "Helps.", session=SQLiteSession("s")).name == "help"
