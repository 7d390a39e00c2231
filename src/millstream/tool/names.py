"""Names: every name that a model may call means one thing."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from millstream.errors import DuplicateToolError
from millstream.tool.function import FunctionTool

if TYPE_CHECKING:
    from millstream.handoff import Handoff

logger = logging.getLogger("millstream")


def tool_names(
    agent_name: str,
    tools: Sequence[Any],
    handoffs: Sequence[Handoff[Any, Any]] = (),
    *,
    policy: Literal["warn", "error"] = "error",
) -> dict[str, FunctionTool]:
    """The function tools of an agent by name, checked against each other and against its handoffs.

    Called with what is enabled this turn: two tools of one name are fine if never both are.
    Where the policy is to warn, the last tool of a name is the one that is called, and a
    handoff goes before a tool.

    Raises:
        DuplicateToolError: two answer to one name, and the policy is not to warn.
    """
    functions = [tool for tool in tools if isinstance(tool, FunctionTool)]
    kinds: dict[str, str] = {}
    for name, kind in (
        *((tool.name, "tool") for tool in functions),
        *((each.tool_name, "handoff") for each in handoffs),
    ):
        if name not in kinds:
            kinds[name] = kind
            continue
        both = f"two {kind}s are" if kinds[name] == kind else "a tool and a handoff are both"
        message = (
            f"Agent {agent_name!r}: {both} called {name!r}. Give one of them another name (name_override= or "
            "tool_name_override=), or see to it that only one is enabled at a time (is_enabled=)."
        )
        if policy == "error":
            raise DuplicateToolError(message)
        logger.warning("%s", message)
    transfers = {each.tool_name for each in handoffs}
    return {tool.name: tool for tool in functions if tool.name not in transfers}
