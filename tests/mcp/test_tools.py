"""Tools of servers as function tools: also of a server that is none of ours."""

import asyncio
from typing import Any

import pytest
from mcp import MCPError
from mcp.types import CallToolResult, TextContent, Tool

from millstream import Agent, FunctionTool, Runner, function_span, trace
from millstream.errors import (
    DuplicateToolError,
    MCPServerError,
    MCPToolCancellationError,
    ModelBehaviorError,
    ToolFailedError,
)
from millstream.items import ToolOrigin, ToolOriginType
from millstream.mcp import MCPServer, MCPUtil
from millstream.testing import ScriptedModel, function_call
from millstream.tracing import FunctionSpanData
from tests.mcp.kit import NOBODY, by_hand, context, of_the_package

ECHO = Tool(name="echo", input_schema={"type": "object", "properties": {"text": {"type": "string"}}})


class Own(MCPServer):
    """A server of a user's own."""

    def __init__(self, result: Any = "said", name: str = "own", **options: Any) -> None:
        super().__init__(**options)
        self.result = result
        self.calls: list[Any] = []
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    async def connect(self) -> None: ...

    async def cleanup(self) -> None: ...

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> list[Tool]:
        if isinstance(self.result, KeyError | asyncio.CancelledError):
            raise self.result
        return [ECHO]

    async def call_tool(self, tool_name: str, arguments: Any, meta: Any = None) -> CallToolResult:
        self.calls.append((tool_name, arguments, meta))
        if isinstance(self.result, BaseException):
            raise self.result
        return CallToolResult(content=[TextContent(type="text", text=self.result)])

    async def list_prompts(self) -> Any: ...

    async def get_prompt(self, name: str, arguments: Any = None) -> Any: ...


async def invoke(server: MCPServer, arguments: str = "{}", **options: Any) -> Any:
    return await MCPUtil.invoke_mcp_tool(server, ECHO, context(), arguments, **options)


async def test_a_tool_says_where_it_comes_from_and_what_the_server_says_of_it() -> None:
    async with of_the_package() as server:
        tools = await MCPUtil.get_function_tools(server, True, NOBODY, Agent(name="a"))

    add = next(tool for tool in tools if tool.name == "add")
    assert isinstance(add, FunctionTool)
    assert add.tool_origin == ToolOrigin(ToolOriginType.MCP, mcp_server_name="of the package")
    assert (add.description, add.title, add.strict_json_schema) == ("Add two numbers.", "Add numbers", True)
    assert add.mcp_annotations is not None
    assert add.mcp_annotations.read_only_hint


async def test_settings_of_a_server_are_those_of_its_tools() -> None:
    guardrails: Any = [object()], [object()]
    server = Own(
        require_approval="always", tool_input_guardrails=guardrails[0], tool_output_guardrails=guardrails[1]
    )

    made = MCPUtil.to_function_tool(ECHO, server, False)

    assert made.needs_approval is True
    assert (made.tool_input_guardrails, made.tool_output_guardrails) == guardrails


async def test_names_can_be_given() -> None:
    server, agent = Own(), Agent(name="a")

    named = await MCPUtil.get_function_tools(
        server, False, NOBODY, agent, tool_name_override=lambda tool: "x"
    )
    prefixed = await MCPUtil.get_function_tools(
        server, False, NOBODY, agent, include_server_in_tool_names=True
    )

    assert [tool.name for tool in named] == ["x"]
    assert [tool.name for tool in prefixed] == ["mcp_own__echo"]


async def test_two_servers_with_a_tool_of_one_name_are_told_apart_or_refused() -> None:
    servers: Any = [Own(name="one"), Own(name="two")]

    with pytest.raises(DuplicateToolError, match="'one' and 'two' both have a tool called 'echo'"):
        await Agent(name="a", mcp_servers=servers).get_all_tools(NOBODY)
    tools = await Agent(
        name="a", mcp_servers=servers, mcp_config={"include_server_in_tool_names": True}
    ).get_all_tools(NOBODY)

    assert [tool.name for tool in tools] == ["mcp_one__echo", "mcp_two__echo"]


async def test_what_a_listing_raises_is_raised_when_all_servers_have_answered() -> None:
    servers: Any = [Own(KeyError("k")), Own()]

    with pytest.raises(KeyError, match="k"):
        await Agent(name="a", mcp_servers=servers).get_mcp_tools(NOBODY)


async def test_a_listing_that_is_cancelled_by_nobody_is_an_error() -> None:
    with pytest.raises(MCPServerError, match="'own': listing its tools was cancelled"):
        await Agent(name="a", mcp_servers=[Own(asyncio.CancelledError())]).get_mcp_tools(NOBODY)


async def test_a_server_whose_calls_know_no_meta_is_called_without() -> None:
    class Old(Own):
        async def call_tool(self, tool_name: str, arguments: Any) -> CallToolResult:  # pyright: ignore[reportIncompatibleMethodOverride]
            return await super().call_tool(tool_name, arguments)

    server = Old()

    assert await invoke(server, '{"text": "a"}') == {"type": "text", "text": "said"}
    assert server.calls == [("echo", {"text": "a"}, None)]


async def test_meta_of_the_caller_goes_before_that_of_the_resolver() -> None:
    async def resolve(asked: Any) -> dict[str, Any]:
        asked.arguments.clear()  # a copy
        return {"from": "resolver", "server": asked.server_name}

    server = Own(tool_meta_resolver=resolve)

    await invoke(server, '{"text": "a"}', meta={"from": "caller"})

    assert server.calls == [("echo", {"text": "a"}, {"from": "caller", "server": "own"})]


async def test_a_resolver_that_gives_no_dict_fails_the_call() -> None:
    with pytest.raises(ToolFailedError, match="tool_meta_resolver gave str, not a dict or None"):
        await invoke(Own(tool_meta_resolver=lambda asked: "x"))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("arguments", ["nope", "[1]", "null"])
async def test_arguments_that_are_no_object_are_the_models_mistake(arguments: str) -> None:
    server = Own()

    with pytest.raises(ModelBehaviorError, match="Invalid JSON input for tool echo"):
        await invoke(server, arguments)

    assert server.calls == []


async def test_what_a_server_raises_is_told_with_its_name_and_its_cause() -> None:
    boom = ValueError("boom")

    with pytest.raises(ToolFailedError, match="Error invoking MCP tool echo on server 'own': boom") as failed:
        await invoke(Own(boom))

    assert failed.value.__cause__ is boom


async def test_a_refusal_of_the_server_is_raised_as_it_is() -> None:
    with pytest.raises(MCPError, match="no"):
        await invoke(Own(MCPError(-32000, "no")))


async def test_a_call_that_is_cancelled_by_nobody_is_an_error() -> None:
    with pytest.raises(MCPToolCancellationError, match="Failed to call tool 'echo' on MCP server 'own'"):
        await invoke(Own(asyncio.CancelledError()))


async def test_a_call_that_is_cancelled_by_its_caller_is_cancelled() -> None:
    async with by_hand() as server:
        await server.connect()
        never = Tool(name="never", input_schema={})
        call = asyncio.create_task(MCPUtil.invoke_mcp_tool(server, never, context(), "{}"))
        await server.call_tool("pid", {})

        call.cancel()

        with pytest.raises(asyncio.CancelledError):
            await call


async def test_the_span_of_a_call_says_which_server_it_went_to() -> None:
    with trace("t"), function_span("echo") as span:
        await invoke(Own())

    assert isinstance(span.span_data, FunctionSpanData)
    assert span.span_data.mcp_data == {"server": "own"}


async def test_the_model_is_told_of_a_failure_without_its_details() -> None:
    secret = "the password is hunter2"
    for server in (Own(ValueError(secret)), Own(MCPError(-32000, secret))):
        run = await Runner.run(agent_of(server), "hi")

        assert secret not in str(run.to_input_list())
        assert "An error occurred while running the tool" in str(run.to_input_list())


async def test_a_failure_may_end_the_run_or_be_told_otherwise() -> None:
    failing = Own(ValueError("boom"))
    with pytest.raises(ToolFailedError, match="boom"):
        await Runner.run(agent_of(failing, mcp_config={"failure_error_function": None}), "hi")

    own = Own(ValueError("boom"), failure_error_function=lambda ctx, error: f"own: {error}")
    run = await Runner.run(agent_of(own, mcp_config={"failure_error_function": None}), "hi")

    assert "own: Error invoking MCP tool echo" in str(run.to_input_list())


def agent_of(server: MCPServer, **options: Any) -> Agent[Any]:
    model = ScriptedModel([[function_call("echo", {}, call_id="c1")], "done"])
    return Agent(name="a", mcp_servers=[server], model=model, **options)
