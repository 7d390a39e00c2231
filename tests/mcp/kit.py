"""MCP servers for tests: programs, and applications on a free port of loopback."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpcore2  # noqa: F401  # when first imported it reads files, which no loop may wait for
import jsonschema  # noqa: F401  # it too
import uvicorn
from mcp.server import MCPServer as Hosted

from millstream import RunContextWrapper, ToolContext
from millstream.mcp import MCPServer, MCPServerStdio

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
    options = {"client_session_timeout_seconds": PATIENCE} | options
    return MCPServerStdio({"command": sys.executable, "args": [str(PROGRAMS / file), *arguments]}, **options)


class Host(uvicorn.Server):
    """A real HTTP server on this loop. When it stops, it cuts off whoever is still connected."""

    def __init__(self, app: Any) -> None:
        super().__init__(
            uvicorn.Config(
                app, log_config=None, log_level="critical", lifespan="on", timeout_graceful_shutdown=0
            )
        )
        self.url = ""

    def capture_signals(self) -> Any:
        return contextlib.nullcontext()  # they belong to the test runner

    @contextlib.asynccontextmanager
    async def running(self, port: int = 0) -> AsyncIterator["Host"]:
        with socket.socket() as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(("127.0.0.1", port))
            self.port = listening.getsockname()[1]
            self.url = f"http://127.0.0.1:{self.port}"
            task = asyncio.create_task(self.serve([listening]))
            while not self.started:
                await asyncio.sleep(0)
            try:
                async with asyncio.timeout(PATIENCE):
                    yield self
            finally:
                self.should_exit = True
                await task


def hosting(
    server: Hosted, *, sse: bool = False, port: int = 0, **options: Any
) -> AbstractAsyncContextManager[Host]:
    """Serve `server` over HTTP on this loop: at `/sse` or at `/mcp`."""
    return Host(server.sse_app() if sse else server.streamable_http_app(**options)).running(port)


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
