"""An agent with the tools of an MCP server: a program that is started when it is first asked."""

import asyncio
import os
import sys

from millstream import Agent, Runner
from millstream.mcp import MCPServerStdio
from millstream.testing import ScriptedModel, function_call

CALL = function_call("free_hours", {"day": "Monday"}, call_id="c1")
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel([[CALL], "Let us meet on Monday at ten."])

# Usually this is somebody else's program, in any language.
SERVER = '''
from mcp.server import MCPServer
server = MCPServer("calendar")
@server.tool()
def free_hours(day: str) -> str:
    """Tell which hours of a day are free."""
    return f"{day}: 10:00, 15:00"
server.run("stdio")
'''
program = {"command": sys.executable, "args": ["-c", SERVER]}
calendar = MCPServerStdio(program, name="calendar", client_session_timeout_seconds=30)
agent = Agent(name="Secretary", instructions="Find a time.", mcp_servers=[calendar], model=model)


async def main() -> None:
    run = Runner.run_streamed(agent, "When can we meet on Monday?")
    async for event in run.stream_events(early=True):
        if event.type == "run_item_stream_event" and event.name == "tool_output":
            print(event.item.tool_origin.mcp_server_name, event.item.output["text"])
    print(run.final_output)


asyncio.run(main())
