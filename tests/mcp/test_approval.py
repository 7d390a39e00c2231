"""Approval policies: every form that the SDK has, and what is none."""

from typing import Any

import pytest
from mcp.types import Tool

from millstream import Agent
from millstream.errors import UserError
from millstream.mcp.approval import needs_approval, read_policy
from tests.mcp.kit import NOBODY

AGENT = Agent(name="a")


async def asked(setting: Any, name: str, agent: Any = AGENT) -> bool:
    needs = needs_approval(read_policy(setting), Tool(name=name, input_schema={}), agent)
    return needs if isinstance(needs, bool) else await needs(NOBODY, {}, "c1")


@pytest.mark.parametrize(
    ("setting", "t", "u"),
    [
        (None, False, False),
        (True, True, True),
        (False, False, False),
        ("always", True, True),
        ("never", False, False),
        ({}, False, False),
        ({"t": "always", "u": "never"}, True, False),
        ({"always": "always"}, False, False),
        ({"always": {"tool_names": ["t"]}, "never": {"tool_names": ["u"]}}, True, False),
        ({"always": {"tool_names": ["t"]}}, True, False),
        ({"never": {"tool_names": ["t"]}}, False, False),
        (lambda context, agent, tool: agent is AGENT and tool.name == "t", True, False),
    ],
)
async def test_a_policy_says_which_tools_need_approval(setting: Any, t: bool, u: bool) -> None:
    assert await asked(setting, "t") is t
    assert await asked(setting, "u") is u


async def test_a_function_that_decides_may_be_async_and_sees_the_run() -> None:
    async def decide(context: Any, agent: Any, tool: Any) -> bool:
        return context is NOBODY

    assert await asked(decide, "t") is True


async def test_where_a_function_is_to_decide_and_no_agent_is_known_approval_is_needed() -> None:
    assert await asked(lambda context, agent, tool: False, "t", agent=None) is True


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("sometimes", "require_approval must be 'always' or 'never', not 'sometimes'"),
        (3, "require_approval must be 'always' or 'never', not 3"),
        ({"t": "sometimes"}, r"require_approval\['t'\] must be 'always' or 'never'"),
        ({"always": ["t"]}, r"require_approval\['always'\] must be 'always' or 'never'"),
        ({"always": {"tool_names": "t"}}, "require_approval.always.tool_names must be a list"),
        ({"never": {"tool_names": [3]}}, "require_approval.never.tool_names must be a list"),
        (
            {"always": {"tool_names": ["t"]}, "never": {"tool_names": ["t"]}},
            r"\['t'\] cannot be both in always and in never",
        ),
    ],
)
def test_what_is_no_policy_is_refused(setting: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_policy(setting)
