"""Runs of agents that have MCP servers: whatever a server does, the run goes on, or says why not."""

import asyncio
import gc
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, Runner, runner
from millstream.errors import MCPServerError
from millstream.events import Entry, ToolFinished, ToolProgress, ToolStarted
from millstream.mcp import MCPServerStdio, connection
from millstream.testing import ScriptedModel, function_call
from tests.mcp.kit import by_hand, gone, is_there, of_the_package, value_of


def agent(*turns: Any, server: MCPServerStdio, **options: Any) -> Agent[Any]:
    """An agent whose model makes one call in each turn, and then says it is done."""
    steps = [[function_call(name, arguments, call_id=f"c{n}")] for n, (name, arguments) in enumerate(turns)]
    return Agent(name="A", model=ScriptedModel([*steps, "done"]), mcp_servers=[server], **options)


def outputs(run: Any) -> list[Any]:
    return [item.output for item in run.new_items if item.type == "tool_call_output_item"]


def finished(entries: list[Entry]) -> list[tuple[str, str]]:
    return [(e.event.name, e.event.status) for e in entries if isinstance(e.event, ToolFinished)]


async def test_a_run_calls_the_tools_of_a_server_that_nobody_connected() -> None:
    server = of_the_package()

    run = await Runner.run(agent(("add", {"a": 1, "b": 2}), server=server), "hi")
    await server.cleanup()

    assert run.final_output == "done"
    assert outputs(run) == [{"type": "text", "text": "3"}]
    assert run.new_items[0].title == "Add numbers"  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_server_that_dies_in_mid_call_is_a_failed_call_and_not_a_dead_run() -> None:
    async with by_hand() as server:
        run = Runner.run_streamed(agent(("die", {}), ("echo", {"text": "back"}), server=server), "hi")
        entries = [entry async for entry in run.entries()]

    assert run.final_output == "done"
    assert finished(entries) == [("die", "error"), ("echo", "ok")]
    assert outputs(run) == [
        "An error occurred while running the tool. Please try again.",
        {"type": "text", "text": "back"},
    ]


async def test_a_result_that_is_an_error_is_a_failed_call_whose_text_the_model_reads() -> None:
    async with of_the_package() as server:
        run = Runner.run_streamed(agent(("fail", {}), server=server), "hi")
        entries = [entry async for entry in run.entries()]

    assert finished(entries) == [("fail", "error")]
    assert outputs(run) == [{"type": "text", "text": "Error executing tool fail"}]


async def test_a_server_that_cannot_be_asked_for_its_tools_ends_the_run() -> None:
    server = by_hand("quit")

    with pytest.raises(MCPServerError, match="MCP server 'by hand'") as failed:
        await Runner.run(agent(server=server), "hi")
    await server.cleanup()

    assert failed.value.run_data is not None


async def test_progress_that_a_server_reports_is_in_the_log() -> None:
    async with of_the_package() as server:
        run = Runner.run_streamed(agent(("count", {"to": 3}), server=server), "hi")
        entries = [entry async for entry in run.entries()]

    told = [entry.event.data for entry in entries if isinstance(entry.event, ToolProgress)]
    assert told == [{"progress": n, "total": 3, "message": f"at {n}"} for n in (1, 2, 3)]


async def test_a_run_that_is_cancelled_in_mid_call_leaves_the_server_to_others() -> None:
    async with by_hand() as server:
        pid = await value_of(server, "pid")
        run = Runner.run_streamed(agent(("never", {}), server=server), "hi")
        waiting: list[Any] = []
        async for entry in run.entries():
            if isinstance(entry.event, ToolStarted):
                while not (waiting := await value_of(server, "waiting")):
                    pass
                run.cancel()

        assert await value_of(server, "pid") == pid
        while await value_of(server, "cancelled") != waiting:  # it is told a moment later
            pass
    assert run.final_output is None
    assert len(outputs(run)) == 1


async def test_agents_and_runs_share_a_server() -> None:
    async with by_hand() as server:
        agents = [agent(("pid", {}), server=server) for _ in range(4)]
        runs = await asyncio.gather(*(Runner.run(each, "hi") for each in agents))

    assert len({outputs(run)[0]["text"] for run in runs}) == 1


async def test_a_server_is_asked_for_its_tools_in_every_turn_or_once() -> None:
    for kept, listings in ((False, "2"), (True, "1")):
        async with by_hand(cache_tools_list=kept) as server:
            run = await Runner.run(agent(("echo", {"text": "x"}), ("listings", {}), server=server), "hi")

            assert outputs(run)[1]["text"] == listings


async def test_a_filter_is_asked_for_each_agent() -> None:
    def shown(context: Any, tool: Any) -> bool:
        return tool.name == context.agent.name

    async with by_hand(tool_filter=shown) as server:
        for name in ("echo", "pid"):
            model = ScriptedModel(["done"])
            await Runner.run(Agent(name=name, model=model, mcp_servers=[server]), "hi")

            assert [tool.name for tool in model.calls[0].tools] == [name]


@pytest.mark.may_block
def test_runs_without_a_loop_share_a_connection_and_leave_nothing() -> None:
    def calls() -> list[int]:
        server = by_hand()

        def pid() -> int:
            return int(outputs(Runner.run_sync(agent(("pid", {}), server=server), "hi"))[0]["text"])

        first, second = pid(), pid()
        streamed = Runner.run_streamed_sync(agent(("pid", {}), server=server), "hi")
        assert list(streamed)
        other = int(outputs(streamed)[0]["text"])
        assert first == second != other  # a streamed one has a loop of its own
        its_loop = runner._local.loop._runner.get_loop()
        dead = {each for each in connection._open if each.loop is its_loop}

        async def settled() -> None:
            while dead & connection._open:
                await asyncio.sleep(0)

        os.kill(first, signal.SIGKILL)
        again = pid()
        its_loop.run_until_complete(settled())  # else its process ends unseen, by a loop that is closed
        assert is_there(again)
        return [other, again]

    # The loop of a thread's calls ends with the thread, and what was left on it with the loop.
    with ThreadPoolExecutor(1) as thread:
        pids = thread.submit(calls).result()
    gc.collect()

    for pid in pids:
        asyncio.run(gone(pid))


async def test_a_tool_whose_server_asks_for_approval_waits_for_it() -> None:
    async with by_hand(require_approval={"always": {"tool_names": ["pid"]}}) as server:
        asking = agent(("pid", {}), ("echo", {"text": "not asked"}), server=server)

        paused = await Runner.run(asking, "hi")
        assert [item.tool_name for item in paused.interruptions] == ["pid"]
        assert outputs(paused) == []
        state = paused.to_state()
        state.approve(paused.interruptions[0])
        run = Runner.run_streamed(asking, state)
        result = await run

        assert result.final_output == "done"
        began = [entry.event async for entry in run.entries(types=["tool.started"])]
        assert {(event.name, event.once) for event in began if isinstance(event, ToolStarted)} == {
            ("echo", False),
            ("pid", True),
        }
        assert [output["text"] for output in outputs(result)] == [
            str(await value_of(server, "pid")),
            "not asked",
        ]
