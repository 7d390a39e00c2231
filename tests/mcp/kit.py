"""MCP servers for tests: programs, and applications on a free port of loopback."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema  # noqa: F401  # when first imported it reads files, which no loop may wait for
from mcp.server import MCPServer as Hosted

from millstream import RunContextWrapper, ToolContext
from millstream.mcp import MCPServer, MCPServerStdio
from tests.delivery.serving import Served, serving

PROGRAMS = Path(__file__).parents[1] / "support" / "mcp_servers"
PATIENCE = 50
"""Seconds after which a test gives up on an answer; none here takes long."""
NOBODY = RunContextWrapper(None)


def by_hand(*arguments: str, **options: Any) -> MCPServerStdio:
    """The server of `by_hand.py`."""
    return program("by_hand.py", *arguments, **({"name": "by hand"} | options))


def of_the_package(**options: Any) -> MCPServerStdio:
    """The server of `of_the_package.py`."""
    return program("of_the_package.py", **({"name": "of the package"} | options))


def program(file: str, *arguments: str, **options: Any) -> MCPServerStdio:
    params = {"command": sys.executable, "args": [str(PROGRAMS / file), *arguments]}
    return MCPServerStdio(params, **({"client_session_timeout_seconds": PATIENCE} | options))


@contextlib.asynccontextmanager
async def hosting(server: Hosted, *, sse: bool = False, **options: Any) -> AsyncIterator[Served]:
    """Serve `server` over HTTP on this loop: at `/sse` or at `/mcp`."""
    app = server.sse_app() if sse else server.streamable_http_app(**options)
    async with contextlib.AsyncExitStack() as stack:
        if not sse:
            await stack.enter_async_context(app.router.lifespan_context(app))
        yield await stack.enter_async_context(serving(app, deadline=PATIENCE))


async def text_of(server: MCPServer, tool: str, **arguments: Any) -> str:
    """What a tool says."""
    result = await server.call_tool(tool, arguments)
    return result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]


async def value_of(server: MCPServer, tool: str, **arguments: Any) -> Any:
    """What a tool says in JSON."""
    return json.loads(await text_of(server, tool, **arguments))


def context(name: str = "echo", arguments: str = "{}") -> ToolContext[Any]:
    return ToolContext(None, tool_name=name, tool_call_id="c1", tool_arguments=arguments)


async def gone(pid: int) -> None:
    """Return when no process has this id."""
    async with asyncio.timeout(PATIENCE):
        while is_there(pid):
            await asyncio.sleep(0)


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
