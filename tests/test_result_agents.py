"""Results that are built by hand, and what results and their items say of agents and tools."""

import dataclasses
import gc
import weakref

import openai.types.responses  # noqa: F401  # before the loop starts
import pytest

from millstream import Agent, RunConfig, RunContextWrapper, Runner, RunResult, ToolContext, tool
from millstream.errors import AgentsException
from millstream.items import MessageOutputItem, ToolOrigin, ToolOriginType
from millstream.result import AgentToolInvocation
from millstream.testing import ScriptedModel, assistant_message, function_call


def test_a_result_can_be_built_by_hand() -> None:
    agent, item = Agent(name="a"), MessageOutputItem(Agent(name="a"), assistant_message("hello"))

    result = RunResult(
        input="hi",
        new_items=[item],
        raw_responses=[],
        final_output="hello",
        input_guardrail_results=[],
        output_guardrail_results=[],
        tool_input_guardrail_results=[],
        tool_output_guardrail_results=[],
        context_wrapper=RunContextWrapper(None),
        _last_agent=agent,
    )

    assert (result.last_agent, result.last_response_id, result.max_turns) == (agent, None, 10)
    assert result.to_input_list() == result.to_input_list(mode="normalized")
    assert [each["role"] for each in result.to_input_list()] == ["user", "assistant"]  # pyright: ignore[reportGeneralTypeIssues, reportTypedDictNotRequiredAccess]
    assert "last agent 'a'" in str(result)
    assert result.agent_tool_invocation is None


def test_a_result_tells_which_call_of_a_tool_it_answers() -> None:
    result = RunResult(
        "hi", [], [], "x", [], [], [], [], ToolContext(None, None, "t", "c", "{}"), Agent(name="a")
    )

    assert result.agent_tool_invocation == AgentToolInvocation("t", "c", "{}")


def test_a_result_that_is_released_keeps_no_agents() -> None:
    agent = Agent(name="big")
    item = MessageOutputItem(agent, assistant_message("one"))
    result = RunResult("hi", [item], [], "one", [], [], [], [], RunContextWrapper(None), agent)

    result.release_agents(release_new_items=False)
    assert result.last_agent is agent
    assert "agent" in vars(result.new_items[0])
    result.release_agents()

    kept = weakref.ref(agent)
    del agent
    gc.collect()
    assert kept() is None
    assert result.new_items[0].agent.name == "big"
    assert result.final_output == "one"
    with pytest.raises(AgentsException, match=r"'big' is gone: release_agents\(\)"):
        result.last_agent  # noqa: B018


async def test_a_run_that_goes_on_keeps_the_agent_that_is_acting() -> None:
    run = Runner.run_streamed(Agent(name="a", model=ScriptedModel(["one"])), "hi")

    run.release_agents()
    gc.collect()

    assert (await run).final_output == "one"
    assert run.last_agent.name == "a"


async def test_calls_and_outputs_say_where_their_tool_comes_from() -> None:
    @tool
    def look() -> str:
        """Look."""
        return "found"

    mine = dataclasses.replace(look, name="mine", tool_origin=ToolOrigin(ToolOriginType.MCP, "files"))
    model = ScriptedModel([[function_call("look"), function_call("mine"), function_call("hosted")], "done"])
    config = RunConfig(tool_not_found_behavior="return_error_to_model")

    result = await Runner.run(Agent(name="a", model=model, tools=[look, mine]), "hi", run_config=config)

    of = [(item.type, item.tool_origin) for item in result.new_items if hasattr(item, "tool_origin")]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
    function = ToolOrigin(ToolOriginType.FUNCTION)
    assert of[:3] == [("tool_call_item", origin) for origin in (function, mine.tool_origin, None)]
    assert {origin for _, origin in of[3:]} == {function, mine.tool_origin, None}
