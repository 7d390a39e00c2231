"""Who takes part in a run, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.run.seams import Seams, Together
from millstream.run.session import SessionPart

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.config import RunConfig


def parts_of(agent: Agent[Any], config: RunConfig, *, hooks: Any = None, session: Any = None) -> Seams:
    """The seams of a run that begins with `agent`: those of all who have something to do in it.

    Args:
        agent: the run's first agent.
        config: the run's.
        hooks: the `RunHooks` of the caller, or None.
        session: the session of the caller, or None.
    """
    parts: list[Seams] = []
    # In the order in which they are asked: spans, session, budget, guardrails, hooks.
    if session is not None:
        parts.append(SessionPart(session, config))
    return Together(parts) if parts else Seams()
