"""Hooks: base classes in which every callback does nothing."""

import inspect
from typing import Any

import pytest

from millstream.hooks import AgentHooks, RunHooks

RUN = [
    "on_agent_end",
    "on_agent_start",
    "on_handoff",
    "on_llm_end",
    "on_llm_start",
    "on_tool_end",
    "on_tool_start",
]
AGENT = ["on_end", "on_handoff", "on_llm_end", "on_llm_start", "on_start", "on_tool_end", "on_tool_start"]


@pytest.mark.parametrize(("kind", "names"), [(RunHooks, RUN), (AgentHooks, AGENT)])
async def test_every_callback_exists_and_does_nothing(kind: type[Any], names: list[str]) -> None:
    callbacks = dict(inspect.getmembers(kind, inspect.iscoroutinefunction))

    assert sorted(callbacks) == names
    for callback in callbacks.values():
        nothing: list[Any] = [None] * len(inspect.signature(callback).parameters)
        assert await callback(*nothing) is None


def test_hooks_may_be_bound_to_a_context_type() -> None:
    class Mine(RunHooks[int]):
        pass

    assert isinstance(Mine(), RunHooks)
