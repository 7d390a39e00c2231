"""MCP servers: what a model is told of their tools, and of what comes of calls."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.differential.kit import Case, Kit, scenario

PROGRAM = Path(__file__).parents[2] / "support" / "mcp_servers" / "of_the_package.py"

NUMBER = {"type": "object", "properties": {"a": {"type": "integer"}}}
OPEN = NUMBER | {"additionalProperties": True}


def server(kit: Kit, name: str, tools: dict[str, Any], **options: Any) -> Any:
    """A server in this process: its tools by name, each as what is said of it and what it gives."""
    from mcp.types import CallToolResult, TextContent, Tool

    class Server(kit.MCPServer):
        @property
        def name(self) -> str:
            return name

        async def connect(self) -> None: ...

        async def cleanup(self) -> None: ...

        async def list_tools(self, run_context: Any = None, agent: Any = None) -> Any:
            said = {tool: {"input_schema": NUMBER} | about for tool, (about, _) in tools.items()}
            return [Tool(name=tool, **about) for tool, about in said.items()]

        async def call_tool(self, tool_name: str, arguments: Any, meta: Any = None) -> Any:
            kit.note(name, tool_name, arguments, meta)
            result = tools[tool_name][1]
            if isinstance(result, BaseException):
                raise result
            if isinstance(result, str):
                return CallToolResult(content=[TextContent(type="text", text=result)])
            return CallToolResult.model_validate(result)

        async def list_prompts(self) -> Any: ...

        async def get_prompt(self, name: str, arguments: Any = None) -> Any: ...

    return Server(**options)


def text(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


_RESULTS: dict[str, Any] = {
    "one_text": {"content": [text("x")]},
    "two_texts": {"content": [text("x"), text("y")]},
    "nothing": {"content": []},
    "an_image": {"content": [{"type": "image", "data": "aGk=", "mimeType": "image/png"}]},
    "text_and_an_image": {"content": [text("x"), {"type": "image", "data": "aGk=", "mimeType": "image/png"}]},
    "sound": {"content": [{"type": "audio", "data": "aGk=", "mimeType": "audio/wav"}]},
    "a_link": {"content": [{"type": "resource_link", "name": "n", "uri": "note://x"}]},
    "an_error": {"content": [text("bad")], "isError": True},
    "structured_content": {"content": [text("x")], "structuredContent": {"k": "é"}},
    "empty_structured_content": {"content": [text("x")], "structuredContent": {}},
    "structured_content_of_an_error": {
        "content": [text("x")],
        "structuredContent": {"k": 1},
        "isError": True,
    },
}


def giving(result: Any, **options: Any) -> Callable[[Kit], Case]:
    def scenario_of(kit: Kit) -> Case:
        servers = [server(kit, "s", {"t": ({}, result)}, **options)]
        model = kit.script([kit.call("t", '{"a": 1}')], [kit.say("Done.")])
        return Case(kit.Agent(name="A", mcp_servers=servers, model=model))

    return scenario_of


for _name, _result in _RESULTS.items():
    for _structured in (False, True):
        _scenario = giving(_result, use_structured_content=_structured)
        _scenario.__name__ = f"an_mcp_tool_gives_{_name}" + (
            "_where_structure_is_wanted" if _structured else ""
        )
        scenario(_scenario)

for _name, _result in {
    "an_error_of_its_own": ValueError("boom"),
    "a_cancellation": asyncio.CancelledError(),
}.items():
    _scenario = giving(_result)
    _scenario.__name__ = f"an_mcp_tool_raises_{_name}"
    scenario(_scenario)
    _scenario = giving(_result, failure_error_function=None)
    _scenario.__name__ = f"an_mcp_tool_raises_{_name}_and_that_ends_the_run"
    scenario(_scenario)


def asking(arguments: str) -> Callable[[Kit], Case]:
    def scenario_of(kit: Kit) -> Case:
        servers = [server(kit, "s", {"t": ({}, "x")}, failure_error_function=None)]
        model = kit.script([kit.call("t", arguments)], [kit.say("Done.")])
        return Case(kit.Agent(name="A", mcp_servers=servers, model=model))

    return scenario_of


for _name, _arguments in {
    "empty": "{}",
    "unexpected": '{"a": "x", "b": 1}',
    "a_list_of": "[1]",
    "no_json_as": "nope",
}.items():
    _scenario = asking(_arguments)
    _scenario.__name__ = f"an_mcp_tool_is_given_{_name}_arguments"
    scenario(_scenario)


_SCHEMAS: dict[str, Any] = {
    "plain": {},
    "titled": {"title": "Title"},
    "described": {"title": "Title", "description": "Does it."},
    "annotated": {"annotations": {"title": "Other", "readOnlyHint": True}},
    "bare": {"input_schema": {}},
    "closed": {"input_schema": {"type": "object"}},
    "open": {"input_schema": OPEN},
    "optional": {
        "input_schema": {
            "type": "object",
            "properties": {"a": {"anyOf": [{"type": "integer"}, {"type": "null"}], "default": None}},
        }
    },
}


@scenario
def mcp_tools_as_they_are(kit: Kit) -> Case:
    servers = [server(kit, "s", {name: (about, "x") for name, about in _SCHEMAS.items()})]
    model = kit.script([kit.call("annotated")], [kit.say("Done.")])
    return Case(kit.Agent(name="A", mcp_servers=servers, model=model))


@scenario
def mcp_tools_made_strict(kit: Kit) -> Case:
    servers = [server(kit, "s", {name: (about, "x") for name, about in _SCHEMAS.items()})]
    config = {"convert_schemas_to_strict": True}
    model = kit.script([kit.call("titled")], [kit.say("Done.")])
    return Case(kit.Agent(name="A", mcp_servers=servers, mcp_config=config, model=model))


@scenario
def mcp_tools_stand_before_those_of_the_agent(kit: Kit) -> Case:
    @kit.function_tool
    def own() -> str:
        """Its own."""
        return "own"

    servers = [server(kit, "s1", {"t": ({}, "x")}), server(kit, "s2", {"u": ({}, "y")})]
    model = kit.script([kit.call("u"), kit.call("own", call_id="call_2")], [kit.say("Done.")])
    return Case(kit.Agent(name="A", tools=[own], mcp_servers=servers, model=model))


@scenario
def mcp_tools_with_their_server_in_the_name(kit: Kit) -> Case:
    servers = [server(kit, "s 1", {"t": ({}, "x")}), server(kit, "s2: here", {"t": ({}, "y")})]
    model = kit.script([kit.call("mcp_s2__here__t")], [kit.say("Done.")])
    config = {"include_server_in_tool_names": True}
    return Case(kit.Agent(name="A", mcp_servers=servers, mcp_config=config, model=model))


@scenario
def two_mcp_servers_have_a_tool_of_one_name(kit: Kit) -> Case:
    servers = [server(kit, "s1", {"t": ({}, "x")}), server(kit, "s2", {"t": ({}, "y")})]
    return Case(kit.Agent(name="A", mcp_servers=servers, model=kit.script([kit.say("Done.")])))


@scenario
def an_mcp_tool_that_needs_approval(kit: Kit) -> Case:
    servers = [server(kit, "s", {"t": ({}, "x")}, require_approval={"t": "always"})]
    model = kit.script([kit.call("t")], [kit.say("Done.")])
    return Case(kit.Agent(name="A", mcp_servers=servers, model=model))


@scenario
def an_mcp_call_carries_meta(kit: Kit) -> Case:
    def resolve(context: Any) -> Any:
        return {"tool": context.tool_name, "server": context.server_name, "arguments": context.arguments}

    servers = [server(kit, "s", {"t": ({}, "x")}, tool_meta_resolver=resolve)]
    model = kit.script([kit.call("t", '{"a": 1}')], [kit.say("Done.")])
    return Case(kit.Agent(name="A", mcp_servers=servers, model=model))


@scenario
def a_failed_mcp_call_is_told_by_the_servers_own_function(kit: Kit) -> Case:
    def tell(context: Any, error: Exception) -> str:
        return f"The server says: {error}"

    failing = {"t": ({}, ValueError("boom"))}
    servers = [server(kit, "s", failing, failure_error_function=tell)]
    model = kit.script([kit.call("t")], [kit.say("Done.")])
    config = {"failure_error_function": None}
    return Case(kit.Agent(name="A", mcp_servers=servers, mcp_config=config, model=model))


@scenario
def a_real_mcp_server(kit: Kit) -> Case:
    class Owned(kit.MCPServerStdio):
        """Connected and cleaned up in one task, as the SDK needs it."""

        async def list_tools(self, run_context: Any = None, agent: Any = None) -> Any:
            if not hasattr(self, "ready"):
                self.ready, self.over = asyncio.Event(), asyncio.Event()
                self.owner = asyncio.create_task(self.own())
            await self.ready.wait()
            return await super().list_tools(run_context, agent)

        async def own(self) -> None:
            async with self:
                self.ready.set()
                await self.over.wait()

    program = {"command": sys.executable, "args": [str(PROGRAM)]}
    real = Owned(program, name="real", client_session_timeout_seconds=30)
    calls = [
        ("add", '{"a": 1, "b": 2}'),
        *((name, "{}") for name in ("picture", "lines", "nothing", "structured", "fail")),
    ]
    called = [kit.call(name, arguments, f"call_{name}") for name, arguments in calls]

    async def leave(done: Any) -> None:
        real.over.set()
        await real.owner

    agent = kit.Agent(name="A", mcp_servers=[real], model=kit.script(called, [kit.say("Done.")]))
    return Case(agent, after=leave)
