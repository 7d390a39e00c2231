"""A run that waits for approval on its way to clients: over SSE and WebSocket, across the pause."""

import json
from typing import Any

from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect

from millstream import Agent, MemoryLog, RunConfig, Runner, RunState, to_sse, to_websocket, tool
from millstream.testing import ScriptedModel, function_call
from tests.delivery.serving import parse, serving


class Desk:
    """An application that keeps the states of its runs as text, and takes decisions."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.states: dict[str, str] = {}
        self.app = FastAPI()
        config = RunConfig(log=MemoryLog())

        @tool(needs_approval=True)
        def delete(name: str) -> str:
            self.done.append(name)
            return f"deleted {name}"

        call = function_call("delete", {"name": "b"}, call_id="c1")
        agent = Agent(name="A", tools=[delete], model=ScriptedModel([[call], "Done."]))

        def started(given: Any) -> Any:
            run = Runner.run_streamed(agent, given, run_config=config)
            assert run.run_loop_task is not None
            run.run_loop_task.add_done_callback(lambda _: self._keep(run))
            return run

        @self.app.post("/runs")
        async def start() -> Any:
            return to_sse(started("Tidy up"))

        @self.app.post("/runs/{run_id}/approve/{call_id}")
        async def approve(run_id: str, call_id: str, after: int) -> Any:
            state = await RunState.from_string(agent, self.states.pop(run_id))
            state.approve(call_id)
            return to_sse(started(state), after=after)

        @self.app.websocket("/runs")
        async def over_websocket(websocket: WebSocket) -> None:
            await to_websocket(started("Tidy up"), websocket)

    def _keep(self, run: Any) -> None:
        if run.interruptions:
            self.states[run.run_id] = run.to_state().to_string()


async def test_a_stream_ends_where_the_run_pauses_and_another_goes_on_behind_it() -> None:
    desk = Desk()
    async with serving(desk.app) as served:
        first = parse(await (await served.get("/runs", method="POST")).body())
        last = first[-1]
        path = f"/runs/{last.json['run_id']}/approve/c1?after={last.id}"
        second = parse(await (await served.get(path, method="POST")).body())

    assert last.json["event"]["type"] == "run.paused"
    (waiting,) = last.json["event"]["interruptions"]
    assert (waiting["tool_name"], waiting["raw_item"]["call_id"]) == ("delete", "c1")
    assert [int(frame.id) for frame in [*first, *second]] == list(range(1, int(second[-1].id) + 1))
    assert {frame.json["run_id"] for frame in [*first, *second]} == {last.json["run_id"]}
    assert second[0].json["event"]["type"] == "run.decided"
    assert second[-1].json["event"]["type"] == "run.completed"
    assert desk.done == ["b"]


async def test_a_socket_is_closed_as_at_an_end_where_the_run_pauses() -> None:
    desk = Desk()
    async with serving(desk.app) as served, connect(f"ws://127.0.0.1:{served.port}/runs") as socket:
        messages = [json.loads(message) async for message in socket]

    assert messages[-1]["event"]["type"] == "run.paused"
    assert socket.close_code == 1000
