"""The context of a run and of a tool call."""

from typing import Any

import pytest
from openai.types.responses import ResponseFunctionToolCall

from millstream import Agent
from millstream.context import RunContextWrapper, ToolContext, settle
from millstream.items import ToolApprovalItem
from millstream.usage import Usage


def test_a_wrapper_carries_the_programs_object_and_starts_with_no_usage() -> None:
    wrapper = RunContextWrapper("ann")

    assert (wrapper.context, wrapper.usage, wrapper.turn_input, wrapper.tool_input) == (
        "ann",
        Usage(),
        [],
        None,
    )


def test_wrappers_are_equal_only_to_themselves() -> None:
    first, second = RunContextWrapper("ann"), RunContextWrapper("ann")

    assert first != second
    assert len({first, second}) == 2


def test_the_context_of_a_call_shares_the_runs_usage_context_and_input() -> None:
    wrapper: RunContextWrapper[Any] = RunContextWrapper(
        ["ann"], turn_input=[{"role": "user", "content": "hi"}]
    )
    call = ResponseFunctionToolCall(arguments='{"a":1}', call_id="c", name="add", type="function_call")

    context = ToolContext.from_agent_context(wrapper, "c", call, idempotency_key="run/c")

    assert context.context is wrapper.context
    assert context.usage is wrapper.usage
    assert context.turn_input is wrapper.turn_input
    assert (context.tool_name, context.tool_call_id, context.tool_arguments) == ("add", "c", '{"a":1}')
    assert (context.tool_call, context.idempotency_key, context.failure) == (call, "run/c", None)


def test_the_namespace_of_a_call_is_part_of_its_qualified_name() -> None:
    call = ResponseFunctionToolCall(
        arguments="{}", call_id="c", name="add", namespace="sums", type="function_call"
    )

    named = ToolContext.from_agent_context(RunContextWrapper(None), "c", call)
    plain = ToolContext(None, tool_name="add", tool_call_id="c", tool_arguments="{}")

    assert (named.tool_namespace, named.qualified_tool_name) == ("sums", "sums.add")
    assert (plain.tool_namespace, plain.qualified_tool_name) == (None, "add")


def test_name_and_arguments_that_are_given_go_before_the_calls() -> None:
    call = ResponseFunctionToolCall(arguments="{}", call_id="c", name="add", type="function_call")

    context = ToolContext.from_agent_context(
        RunContextWrapper(None), "c", call, tool_name="other", tool_arguments="[]"
    )

    assert (context.tool_name, context.tool_arguments) == ("other", "[]")


def test_a_context_needs_no_call_where_name_and_arguments_are_given() -> None:
    context = ToolContext.from_agent_context(RunContextWrapper(None), "c", tool_name="t", tool_arguments="{}")

    assert (context.tool_name, context.tool_call) == ("t", None)


def test_a_context_made_by_hand_has_its_call_id_as_idempotency_key() -> None:
    context = ToolContext(None, Usage(requests=1), "t", "c", "{}")

    assert (context.usage.requests, context.idempotency_key) == (1, "c")


@pytest.mark.parametrize("missing", ["tool_name", "tool_call_id", "tool_arguments"])
def test_a_tool_context_needs_to_know_its_call(missing: str) -> None:
    given = {"tool_name": "t", "tool_call_id": "c", "tool_arguments": "{}"}
    del given[missing]

    with pytest.raises(ValueError, match=f"{missing} must be passed"):
        ToolContext(None, **given)  # pyright: ignore[reportArgumentType]


async def test_settling_awaits_only_what_has_to_be_awaited() -> None:
    async def later() -> int:
        return 1

    assert (await settle(later()), await settle(2)) == (1, 2)


def waiting(arguments: str = "{}", call_id: str = "c") -> ToolApprovalItem:
    call = ResponseFunctionToolCall(name="t", arguments=arguments, call_id=call_id, type="function_call")
    return ToolApprovalItem(Agent(name="A"), call)


def test_a_decision_over_a_call_can_be_looked_up_by_tool_and_call() -> None:
    context = RunContextWrapper(None)

    context.approve_tool(waiting(call_id="yes"))
    context.reject_tool(waiting(call_id="no"), rejection_message="Not now.")

    assert [context.is_tool_approved("t", each) for each in ("yes", "no", "open")] == [True, False, None]
    assert [context.get_rejection_message("t", each) for each in ("yes", "no")] == [None, "Not now."]
    assert context.get_approval_status("other", "yes", tool_namespace="n") is None


def test_a_decision_for_always_counts_for_every_call_of_the_tool() -> None:
    context = RunContextWrapper(None)

    context.reject_tool(waiting(), always_reject=True, rejection_message="Never.")

    assert context.get_approval_status("t", "any other") is False
    assert context.get_rejection_message("t", "any other") == "Never."


def test_a_copy_of_a_context_has_the_same_object_and_decisions_of_its_own() -> None:
    context = RunContextWrapper([])
    context.approve_tool(waiting(call_id="before"))
    copy = context.copy()

    copy.approve_tool(waiting(call_id="after"))
    copy.usage.requests += 1

    assert copy.context is context.context
    assert [context.is_tool_approved("t", each) for each in ("before", "after")] == [True, None]
    assert context.usage.requests == 0
