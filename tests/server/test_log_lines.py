"""What the log of a server says: every line about a run has the run, and none has what a client or a tool gave."""

import ast
import asyncio
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    GuardrailFunctionOutput,
    MemoryLog,
    output_guardrail,
    tool,
)
from millstream.log.promise import Cursor
from millstream.server import LOCAL, create_app
from millstream.testing import CANARY, ScriptedModel, function_call
from tests.server.kit import events_of, serving

OF_NO_RUN = {
    "An agent has an empty name": "a description, before any run",
    "Tool %r: the models' APIs refuse": "a description, before any run",
    "Redis does not tell what": "the line to the engine, which all runs share",
    "Runs that were kept long enough": "many runs at once",
    "runs that nobody owns could not": "many runs at once",
    "%s failed": "a thread of a store; or a request, which has the run of its path",
    "%s: %s": "a request, which has the run of its path",
    "MCP server %r lists two tools": "a listing that runs share",
    "MCP server %r: the connection was lost": "a connection that runs share",
    "MCP server %r: the connection ended": "a connection that runs share",
    "MCP server %r did not connect": "before any run",
    "MCP server %r was not cleaned up": "behind all runs",
    "MCP tool %r keeps its schema": "a listing that runs share",
    "traces may be lost": "an exporter, which all runs share",
    "traces are lost": "an exporter, which all runs share",
    "%s failed, and %d items of traces": "an exporter, which all runs share",
    "the trace processor %s failed": "a processor, which all runs share",
    "a client that follows no run": "as it says",
    "stopping: %d run(s)": "many runs at once",
    "<served.ready>": "the server",
}
"""How the lines begin that are about no run, and what they are about."""

WRITTEN_IN_A_RUN = (
    "MCP server %r: %s; trying again",
    "MCP server %r: its tool_filter raised",
    "session %r: %d item(s)",
    "a state is kept without its context",
    "%s",
)
"""Those written in the task of a run, where there is one, whose records get it from there."""

LEVELS = {"debug", "info", "warning", "error", "exception", "critical", "log"}


def lines_of(file: Path) -> Iterator[str]:
    """The texts of the calls of the logger in a file."""
    for node in ast.walk(ast.parse(file.read_text())):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"), attr=level), args=args):
                if level in LEVELS:
                    text = args[1 if level == "log" else 0]
                    yield str(text.value) if isinstance(text, ast.Constant) else f"<{ast.unparse(text)}>"


def test_every_line_about_a_run_begins_with_it(root: Path) -> None:
    files = sorted((root / "src" / "millstream").rglob("*.py"))
    lines = {line for file in files for line in lines_of(file) if not line.startswith("run %s")}

    known = (*OF_NO_RUN, *WRITTEN_IN_A_RUN)
    assert [line for line in sorted(lines) if not any(begins(line, start) for start in known)] == []
    assert [start for start in known if not any(begins(line, start) for line in lines)] == []


def begins(line: str, start: str) -> bool:
    return line == start or (start != "%s" and line.startswith(start))


# --- a server in trouble ----------------------------------------------------------------------


class Secret:
    def __repr__(self) -> str:
        return CANARY


@tool
async def give() -> Any:
    return Secret()


@tool
async def fail() -> str:
    raise ValueError(CANARY)


@tool(needs_approval=True)
async def ask() -> str:
    return "asked"


@output_guardrail
async def refuse(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=CANARY, tripwire_triggered=True)


class Breaking(MemoryLog):
    """A store that breaks under those who read a run of `broken`."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = set[str]()

    def cursor(self, run_id: str, after: int = 0) -> Cursor:
        if run_id in self.broken:
            raise RuntimeError(f"no disk {CANARY}")
        return super().cursor(run_id, after)


def agents() -> list[Agent[Any]]:
    return [
        Agent(name="gives", tools=[give], model=ScriptedModel([[function_call("give")], "Done."])),
        Agent(name="fails", tools=[fail], model=ScriptedModel([[function_call("fail")], "Done."])),
        Agent(name="breaks", model=ScriptedModel([RuntimeError(CANARY)])),
        Agent(name="refused", output_guardrails=[refuse], model=ScriptedModel([CANARY])),
        Agent(name="asks", tools=[ask], model=ScriptedModel([[function_call("ask", call_id="c1")], "Done."])),
    ]


async def started(client: httpx2.AsyncClient, agent: str) -> str:
    asked = {"input": CANARY, "agent": agent, "context": {"secret": CANARY}}
    return (await client.post("/runs", json=asked)).json()["run_id"]


async def test_whatever_happens_on_a_server_its_lines_name_the_run_and_tell_no_values(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "millstream")
    log = Breaking()
    async with serving(create_app(agents(), access=LOCAL, log=log)) as client:
        runs = {agent.name: await started(client, agent.name) for agent in agents()}
        ends = {
            name: json.loads((await events_of(client, run_id, until="pause"))[-1].data)["event"]
            for name, run_id in runs.items()
        }
        await client.post(f"/runs/{runs['asks']}/decisions", json={"call_id": "c2", "approved": True})
        await client.post(f"/runs/{runs['asks']}/cancel", json={})
        await client.post(f"/runs/{runs['gives']}/input", json={"input": CANARY})
        log.broken.add(runs["gives"])
        broken = await client.get(f"/runs/{runs['gives']}/events")
        while "cancelled" not in (await client.get(f"/runs/{runs['asks']}")).text:
            await asyncio.sleep(0)

    records = [record for record in caplog.records if record.name == "millstream"]
    assert {record.__dict__["run_id"] for record in records} == set(runs.values())
    quiet = [record for record in records if record.levelno in (logging.INFO, logging.WARNING)]
    assert [record.getMessage() for record in quiet if CANARY in record.getMessage()] == []
    for name, kind in (("gives", "WARNING"), ("fails", "INFO"), ("breaks", "ERROR"), ("refused", "WARNING")):
        assert kind in {record.levelname for record in records if record.__dict__["run_id"] == runs[name]}
    for name, level in (("breaks", "ERROR"), ("refused", "WARNING")):
        told = [record for record in records if ends[name]["error_id"] in record.getMessage()]
        assert [record.levelname for record in told if record.levelno > logging.DEBUG] == [level]
    error_id = re.search(r"err_\w+", broken.text)
    assert error_id
    assert error_id[0] in caplog.text
    assert "nobody asked" not in caplog.text


async def test_what_is_logged_in_the_task_of_a_run_has_the_run_though_its_line_does_not_name_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @tool
    def remember() -> str:  # in a thread
        logging.getLogger("millstream").warning("session %r: an item is lost", "s")
        return "remembered"

    agent = Agent(name="A", tools=[remember], model=ScriptedModel([[function_call("remember")], "Done."]))
    async with serving(create_app(agent, access=LOCAL, log=MemoryLog())) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        await events_of(client, run_id)

    (lost,) = [record for record in caplog.records if "is lost" in record.getMessage()]
    assert lost.__dict__["run_id"] == run_id
