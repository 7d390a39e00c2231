"""The agents of these tests, and what their tools do to the world: a line in a file, each time."""

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from millstream import Agent, ToolContext, tool
from millstream.testing import function_call
from tests.support.by_history import ByHistory

OUTPUT = "All done."


def everything(effects: str) -> Agent[Any]:
    """Two tools side by side, then one that is an agent with a tool of its own, then a handoff."""

    @tool
    async def add(ctx: ToolContext[Any], a: int, b: int) -> int:
        _take_effect(effects, "add", ctx)
        return a + b

    @tool
    async def mail(ctx: ToolContext[Any], to: str) -> str:
        _take_effect(effects, "mail", ctx)
        return f"sent to {to}"

    helper = Agent(
        name="helper",
        tools=[add],
        model=ByHistory({(): [function_call("add", {"a": 1, "b": 2}, call_id="h1")], ("h1",): "three"}),
    )
    last = Agent(name="last", model=ByHistory({("c1", "c2", "c3", "c4"): OUTPUT}))
    steps: dict[tuple[str, ...], Any] = {
        (): [
            function_call("add", {"a": 2, "b": 2}, call_id="c1"),
            function_call("mail", {"to": "Ann"}, call_id="c2"),
        ],
        ("c1", "c2"): [function_call("ask_helper", {"input": "1+2?"}, call_id="c3")],
        ("c1", "c2", "c3"): [function_call("transfer_to_last", {}, call_id="c4")],
    }
    nested = helper.as_tool("ask_helper", "Asks the helper.")
    return Agent(name="first", tools=[add, mail, nested], handoffs=[last], model=ByHistory(steps))


def payer(effects: str, kind: str = "plain") -> Agent[Any]:
    """One tool, which takes effect and then waits for the file `effects` + ".go"; to be cancelled is an effect, too.

    Args:
        effects: the file that its effects are written to.
        kind: "plain", "never" (it must not be started twice), "approval" (somebody has to say yes) or "blocks" (nothing
            else goes on in its process meanwhile).
    """

    async def pay(ctx: ToolContext[Any]) -> str:
        _take_effect(effects, "pay", ctx)
        while kind == "blocks" and not Path(f"{effects}.go").exists():
            time.sleep(0.01)
        try:
            while not Path(f"{effects}.go").exists():  # another process makes it
                await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            _take_effect(effects, "cancelled", ctx)
            raise
        return "paid"

    options: dict[str, Callable[[Any], Any]] = {
        "plain": tool,
        "blocks": tool,
        "never": tool(retry="never"),
        "approval": tool(needs_approval=True),
    }
    steps: dict[tuple[str, ...], Any] = {(): [function_call("pay", {}, call_id="p")], ("p",): OUTPUT}
    return Agent(name="payer", tools=[options[kind](pay)], model=ByHistory(steps))


def _take_effect(effects: str, name: str, ctx: ToolContext[Any]) -> None:
    line = f"{name} {ctx.idempotency_key} {os.getpid()}\n".encode()
    file = os.open(effects, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(file, line)  # in one piece, whoever else writes there
    finally:
        os.close(file)


def let_go_on(effects: str) -> None:
    """Let the tools of every `payer` come to their end."""
    Path(f"{effects}.go").touch()


def effects_of(effects: str) -> list[tuple[str, str, int]]:
    """What was done: the tool, its idempotency key, and the process."""
    if not Path(effects).exists():
        return []
    lines = [line.split() for line in Path(effects).read_text().splitlines()]
    return [(name, key, int(pid)) for name, key, pid in lines]
