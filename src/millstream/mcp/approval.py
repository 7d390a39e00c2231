"""Approval policies: which tools of an MCP server may be called only when somebody has said yes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Literal, NotRequired, TypeAlias, cast

from typing_extensions import TypedDict

from millstream.context import MaybeAwaitable, RunContextWrapper, settle
from millstream.errors import UserError

if TYPE_CHECKING:
    from mcp.types import Tool as MCPTool

    from millstream.agent import AgentBase
    from millstream.tool.function import NeedsApproval

RequireApprovalPolicy: TypeAlias = Literal["always", "never"]


class RequireApprovalToolList(TypedDict):
    """Tools by their names."""

    tool_names: list[str]


class RequireApprovalObject(TypedDict, total=False):
    """Two lists of tools: those that always need approval, and those that never do. Others do not."""

    always: NotRequired[RequireApprovalToolList]
    never: NotRequired[RequireApprovalToolList]


RequireApprovalMapping: TypeAlias = dict[str, RequireApprovalPolicy]
"""A policy for each tool by its name; a tool that is not named needs no approval."""

LocalMCPApprovalCallable: TypeAlias = Callable[
    [RunContextWrapper[Any], "AgentBase[Any]", "MCPTool"], MaybeAwaitable[bool]
]
"""Decides for one tool, whenever it is about to be called. May be async."""

RequireApprovalSetting: TypeAlias = (
    RequireApprovalPolicy
    | RequireApprovalObject
    | RequireApprovalMapping
    | LocalMCPApprovalCallable
    | bool
    | None
)
"""What `require_approval=` takes: one answer for all tools, one for each, or a function."""

Policy: TypeAlias = bool | dict[str, bool] | LocalMCPApprovalCallable
"""The same, read: for all, by name, or to be asked."""


def read_policy(setting: Any) -> Policy:
    """Read what a user wrote.

    Raises:
        UserError: it is none of the forms that a policy has; says where.
    """
    if setting is None or isinstance(setting, bool):
        return bool(setting)
    if callable(setting):
        return cast("LocalMCPApprovalCallable", setting)
    if not isinstance(setting, Mapping):
        return _needed(setting, "require_approval")
    given = cast("Mapping[str, Any]", setting)
    if given and all(name in {"always", "never"} and isinstance(given[name], Mapping) for name in given):
        return _lists(given)
    return {name: _needed(policy, f"require_approval[{name!r}]") for name, policy in given.items()}


def needs_approval(policy: Policy, tool: MCPTool, agent: AgentBase[Any] | None) -> NeedsApproval:
    """What `FunctionTool.needs_approval` is for `tool`.

    A function that decides is asked with the agent. Where none is known, approval is needed.
    """
    if isinstance(policy, bool):
        return policy
    if not callable(policy):
        return policy.get(tool.name, False)
    if agent is None:
        return True

    async def ask(context: RunContextWrapper[Any], arguments: dict[str, Any], call_id: str) -> bool:
        return bool(await settle(policy(context, agent, tool)))

    return ask


def _lists(given: Mapping[str, Mapping[str, Any]]) -> dict[str, bool]:
    always, never = (_names(given.get(kind), kind) for kind in ("always", "never"))
    if both := always & never:
        raise UserError(f"require_approval: {sorted(both)} cannot be both in always and in never.")
    return dict.fromkeys(always, True) | dict.fromkeys(never, False)


def _names(listed: Mapping[str, Any] | None, kind: str) -> set[str]:
    names: Any = [] if listed is None else listed.get("tool_names", [])
    if not isinstance(names, list) or not all(isinstance(name, str) for name in cast("list[Any]", names)):
        raise UserError(f"require_approval.{kind}.tool_names must be a list of the names of tools.")
    return set(cast("list[str]", names))


def _needed(policy: Any, where: str) -> bool:
    if policy not in ("always", "never"):
        raise UserError(f"{where} must be 'always' or 'never', not {policy!r}.")
    return policy == "always"
