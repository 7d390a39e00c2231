import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError

from millstream import RunResultStreaming, to_websocket
from millstream.delivery.websocket import MAX_COMMAND
from millstream.testing import ManualClock
from tests.delivery.serving import (
    TERMINAL,
    Held,
    Served,
    ended,
    greeting,
    keeps_the_grammar,
    nothing_is_left,
    serving,
    silent,
)


def app_of(run: RunResultStreaming | Callable[[], RunResultStreaming], **options: Any) -> FastAPI:
    app = FastAPI()

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        handle = run if isinstance(run, RunResultStreaming) else run()
        await to_websocket(handle, websocket, after=websocket.query_params.get("after"), **options)

    return app


def connecting(server: Served, query: str = "") -> Any:
    return connect(server.url.replace("http", "ws") + f"/chat{query}", max_size=None)


async def read(socket: ClientConnection, *, filtered: bool = False) -> list[Any]:
    """All that comes before the connection is closed, with whatever code. It keeps the grammar."""
    messages = []
    with contextlib.suppress(ConnectionClosedError):
        async for message in socket:
            messages.append(json.loads(message))  # noqa: PERF401 (a comprehension would lose those before it)
    keeps_the_grammar(messages, filtered=filtered)
    return messages


async def read_until(socket: ClientConnection, wanted: str) -> list[Any]:
    seen = []
    async for message in socket:
        seen.append(json.loads(message))
        if seen[-1].get("event", seen[-1])["type"] == wanted:
            break
    keeps_the_grammar(seen)
    return seen


async def test_each_entry_is_one_message_and_the_socket_is_closed_with_1000_after_the_last() -> None:
    run = greeting()

    async with serving(app_of(run)) as server, connecting(server) as socket:
        messages = [message async for message in socket]

    assert [message.encode() for message in messages] == [e.to_json() async for e in run.entries()]
    assert json.loads(messages[-1])["event"]["type"] == "run.completed"
    assert socket.close_code == 1000


async def test_a_prompt_may_be_received_before() -> None:
    app = FastAPI()

    @app.websocket("/chat")
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()
        await to_websocket(greeting(f"You said {await websocket.receive_text()}"), websocket)

    async with serving(app) as server, connecting(server) as socket:
        await socket.send("hello")
        messages = await read(socket)

    assert messages[-1]["event"]["output"] == "You said hello"


async def test_a_client_that_comes_again_with_its_position_misses_nothing() -> None:
    held = Held()

    async with serving(app_of(held.handle)) as server:
        async with connecting(server) as socket:
            seen = await read_until(socket, "tool.started")
        held.go_on.set()
        async with connecting(server, f"?after={seen[-1]['position']}") as socket:
            seen += await read(socket)

    assert [message["position"] for message in seen] == list(range(1, len(seen) + 1))
    assert [m["event"]["type"] for m in seen if m["event"]["type"] in TERMINAL] == ["run.completed"]


async def test_a_client_that_has_the_end_already_finds_the_socket_closed() -> None:
    run = greeting()
    await run
    last = [entry async for entry in run.entries()][-1].position

    async with serving(app_of(run)) as server, connecting(server, f"?after={last}") as socket:
        assert await read(socket) == []

    assert socket.close_code == 1000


@pytest.mark.parametrize(("command", "mode"), [({}, "now"), ({"mode": "after_tool"}, "after_tool")])
async def test_a_client_may_stop_the_run(command: Any, mode: str) -> None:
    held = Held()

    async with serving(app_of(held.handle)) as server, connecting(server) as socket:
        await read_until(socket, "tool.started")
        await socket.send(json.dumps({"type": "cancel"} | command))
        if mode == "after_tool":
            await socket.send('{"type":"ping"}')
            await read_until(socket, "pong")
            held.go_on.set()
        messages = await read(socket)

    assert (messages[-1]["event"]["type"], messages[-1]["event"]["mode"]) == ("run.cancelled", mode)
    assert socket.close_code == 1000


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ("{", "not_json"),
        ("", "not_json"),
        (b"\xff\xfe", "not_json"),
        ("[" * 10_000, "not_json"),
        ("x" * (MAX_COMMAND + 1), "too_long"),
        ("[]", "unknown_command"),
        ('"cancel"', "unknown_command"),
        ('{"type": ["cancel"]}', "unknown_command"),
        ('{"type": "decide"}', "unknown_command"),
        ('{"type": "cancel", "mode": "tomorrow"}', "unknown_mode"),
        ('{"type": "cancel", "mode": [1]}', "unknown_mode"),
    ],
)
async def test_what_is_no_command_is_answered_and_the_stream_goes_on(sent: Any, code: str) -> None:
    held = Held()

    async with serving(app_of(held.handle)) as server, connecting(server) as socket:
        await read_until(socket, "tool.started")
        await socket.send(sent)
        (error,) = await read_until(socket, "command.error")
        held.go_on.set()
        messages = await read(socket)

    assert error["code"] == code
    assert messages[-1]["event"]["type"] == "run.completed"
    assert socket.close_code == 1000


async def test_a_position_that_the_run_does_not_have_is_told_and_closed_with_1008() -> None:
    run = greeting()

    async with serving(app_of(run)) as server, connecting(server, "?after=junk") as socket:
        (error,) = await read(socket)

    assert (error["type"], error["code"], socket.close_code) == ("stream.error", "unknown_position", 1008)


async def test_trouble_of_the_stream_is_told_and_closed_with_1011() -> None:
    run = greeting()
    await run
    await run_log(run).trim(run.run_id, 5)

    async with serving(app_of(run)) as server, connecting(server) as socket:
        (gap,) = await read(socket)

    assert (gap["type"], gap["first"], socket.close_code) == ("stream.gap", 5, 1011)


def run_log(run: RunResultStreaming) -> Any:
    return run._run.trunk.log


@pytest.mark.parametrize("moment", ["at once", "amid frames", "with a farewell"])
async def test_a_client_that_leaves_leaves_the_run_alone(
    moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()

    async with serving(app_of(held.handle)) as server:
        async with connecting(server) as socket:
            if moment != "at once":
                await read_until(socket, "tool.started")
            if moment == "with a farewell":
                await socket.close(1001)
            socket.transport.abort()
        await server.has_no_requests()
        assert not held.handle.is_complete
        held.go_on.set()
        await held.handle

    assert [r for r in caplog.records if r.levelno >= logging.WARNING and r.name == "millstream"] == []
    await nothing_is_left()


async def test_a_route_may_stop_the_run_when_its_client_leaves() -> None:
    run = silent()

    async with serving(app_of(run, on_disconnect="cancel")) as server:
        async with connecting(server) as socket:
            await read_until(socket, "raw_response_event")
        await ended(run)

    assert run.is_cancelled


async def test_two_clients_and_one_of_them_stops_the_run_for_both() -> None:
    held = Held()

    async with serving(app_of(held.handle)) as server, connecting(server) as one, connecting(server) as other:
        await read_until(one, "tool.started")
        await read_until(other, "tool.started")
        await one.send('{"type": "cancel"}')
        ends = [(await read(socket))[-1]["event"]["type"] for socket in (one, other)]

    assert ends == ["run.cancelled", "run.cancelled"]


class StandIn:
    """A socket of some other framework, whose client takes nothing."""

    def __init__(self) -> None:
        self.called: list[str] = []

    async def accept(self) -> None:
        self.called.append("accept")

    async def send_text(self, data: str) -> None:
        self.called.append("send")
        await asyncio.Event().wait()

    async def receive(self) -> Any:
        await asyncio.Event().wait()

    async def close(self, code: int = 1000) -> None:
        self.called.append("close")


async def test_a_client_that_takes_nothing_is_let_go(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    held = Held(clock=clock)
    socket = StandIn()

    line = asyncio.create_task(to_websocket(held.handle, socket, send_timeout=5))
    while not clock.due:
        await asyncio.sleep(0)
    clock.advance(5)
    await line

    assert socket.called == ["accept", "send"]
    assert "took nothing for 5 s" in caplog.text
    held.go_on.set()
    await held.handle


async def test_who_waits_for_the_socket_may_be_cancelled() -> None:
    held = Held()
    line = asyncio.create_task(to_websocket(held.handle, StandIn()))
    await held.reached.wait()

    line.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await line

    assert line.cancelled()
    held.go_on.set()
    await held.handle
    await nothing_is_left()
