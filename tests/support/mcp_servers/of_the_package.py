"""An MCP server made with the `mcp` package.

As a program it speaks over standard input and output or, with `sse` or `streamable-http` and a
port, over HTTP.
"""

import asyncio
import os
import sys

from mcp.server import MCPServer
from mcp.server.mcpserver import Context, Image
from mcp.types import CallToolResult, TextContent, ToolAnnotations

server = MCPServer("of the package", log_level="CRITICAL")


@server.tool(title="Add numbers", annotations=ToolAnnotations(read_only_hint=True))
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
def picture() -> Image:
    """Give an image."""
    return Image(data=b"\x89PNG", format="png")


@server.tool()
def lines() -> list[str]:
    """Give several parts."""
    return ["one", "two"]


@server.tool()
def nothing() -> None:
    """Give nothing."""


@server.tool()
def structured() -> CallToolResult:
    """Give structured content beside text."""
    return CallToolResult(
        content=[TextContent(type="text", text="text")], structured_content={"a": 1, "b": "é"}
    )


@server.tool()
def fail() -> str:
    """Raise."""
    raise ValueError("it does not work")


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Count, and tell how far it is."""
    for n in range(1, to + 1):
        await ctx.report_progress(n, to, f"at {n}")
    return "counted"


@server.tool()
async def wait(ctx: Context) -> str:
    """Wait until somebody cancels the call."""
    await ctx.report_progress(0)
    await asyncio.Event().wait()
    return "never"


@server.tool()
def pid() -> int:
    """Tell which process this is."""
    return os.getpid()


@server.prompt()
def greet(name: str) -> str:
    """A greeting."""
    return f"Say hello to {name}."


@server.resource("note://today")
def today() -> str:
    """A note."""
    return "Nothing today."


@server.resource("note://{day}")
def note(day: str) -> str:
    """The note of a day."""
    return f"Nothing on {day}."


if __name__ == "__main__":
    if sys.argv[1:]:
        server.run(sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]))  # pyright: ignore[reportArgumentType, reportCallIssue]
    else:
        server.run("stdio")
