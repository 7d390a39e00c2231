"""Checks of a set-up, made when a run starts and when another agent takes over."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from millstream.errors import NotSupportedError, UserError
from millstream.guardrail import (
    InputGuardrail,
    OutputGuardrail,
    ToolInputGuardrail,
    ToolOutputGuardrail,
    check_guardrails,
)
from millstream.handoff import Handoff
from millstream.tool import FunctionTool, tool_names

if TYPE_CHECKING:
    from millstream.agent.agent import Agent
    from millstream.config import RunConfig
    from millstream.config.run import ToolNameCollisionPolicy


def refuse_unsupported(agent: Agent[Any], run_config: RunConfig | None = None) -> None:
    """Refuse what this version would have to ignore.

    Raises:
        NotSupportedError: the agent, its tools, the configuration or the call asks for it; names the field.
    """
    # What is no tool and no handoff is somebody else's to complain about: see `get_all_tools`.
    for tool in agent.tools:
        _refuse(f"Tool {getattr(tool, 'name', '?')!r}", getattr(tool, "__dict__", {}), _OF_TOOLS)
    if run_config is None:
        return
    _refuse("RunConfig", vars(run_config), _OF_RUN_CONFIGS)


def check_agent(agent: Agent[Any], policy: ToolNameCollisionPolicy) -> None:
    """Find what is wrong with an agent, or with one it may hand over to, before the run begins.

    Raises:
        DuplicateToolError: two tools that are always enabled answer to one name.
        SchemaError: an output type has no strict JSON schema.
        UserError: something in `tools` or `handoffs` is neither.
    """
    for each in reachable(agent)[0]:
        _check_guardrails(each)
        each.output_schema()
        handoffs = [way for way in each.all_handoffs() if way.is_enabled is True]
        if policy == "error":
            tools = [tool for tool in each.tools if getattr(tool, "is_enabled", True) is True]
            tool_names(each.name, tools, handoffs, policy=policy)


def check_max_turns(max_turns: Any) -> None:
    """Refuse a number of turns with which no run can succeed.

    Raises:
        UserError: it is no number of turns, and not None.
    """
    if max_turns is None:
        return
    if isinstance(max_turns, bool) or not isinstance(max_turns, int):
        raise UserError(f"max_turns={max_turns!r}: a whole number of turns; None means no limit.")
    if max_turns < 1:
        raise UserError(f"max_turns={max_turns}: a run takes at least one turn; None means no limit.")


def _check_guardrails(agent: Agent[Any]) -> None:
    where = f"Agent {agent.name!r}: "
    check_guardrails(f"{where}input_guardrails", agent.input_guardrails, InputGuardrail)
    check_guardrails(f"{where}output_guardrails", agent.output_guardrails, OutputGuardrail)
    for tool in agent.tools:
        if isinstance(tool, FunctionTool):
            of_tool = f"Tool {tool.name!r}: "
            check_guardrails(
                f"{of_tool}tool_input_guardrails", tool.tool_input_guardrails, ToolInputGuardrail
            )
            check_guardrails(
                f"{of_tool}tool_output_guardrails", tool.tool_output_guardrails, ToolOutputGuardrail
            )


def reachable(agent: Agent[Any]) -> tuple[list[Agent[Any]], bool]:
    """`agent` and those it may hand over to, in any number of steps; and whether these are surely all.

    Not followed, and so not surely all: handoffs that are not always enabled, and handoffs made
    without `handoff()`, which tell their agent only when they are used.
    """
    found: dict[int, Agent[Any]] = {id(agent): agent}
    waiting = [agent]
    all_known = True
    while waiting:
        for each in waiting.pop(0).handoffs:
            target: Any = each
            if isinstance(each, Handoff):
                target = each.leads_to if each.is_enabled is True else None
            if not hasattr(target, "handoffs"):  # no agent either: `all_handoffs` will complain
                all_known = False
            elif id(target) not in found:
                found[id(target)] = target
                waiting.append(target)
    return list(found.values()), all_known


# What is not supported yet: these must be empty, false or None.
_OF_TOOLS = (
    "on_approval_request",
    "defer_loading",
    "custom_data_extractor",
    "allowed_callers",
    "output_json_schema",
)
_OF_RUN_CONFIGS = ("sandbox",)


def _refuse(where: str, given: Mapping[str, Any], fields: Sequence[str]) -> None:
    for field in fields:
        value = given.get(field)
        # Not just any false value: a session may have a length, and be empty.
        if not (value is None or value is False or value == []):
            raise NotSupportedError(f"{where}: {field} is not supported by this version: leave it out.")
