import asyncio
import gc
import logging
import shutil
import socket
import weakref
from typing import Any

import aiohttp
import httpx2
import pytest
from fastapi import BackgroundTasks, FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.routing import Route

from millstream import Agent, MemoryLog, RunConfig, Runner, UserError, to_sse, tool
from millstream.delivery import SSE_HEADERS, sse_app, sse_frames
from millstream.testing import CANARY, ManualClock, ScriptedModel, awkward_values, function_call
from tests.delivery.serving import (
    TERMINAL,
    Frame,
    Held,
    Runs,
    ended,
    ends,
    greeting,
    nothing_is_left,
    parse,
    serving,
    silent,
    types_of,
)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- what is sent ---------------------------------------------------------------------------


async def test_a_run_is_sent_entry_by_entry_with_its_positions_and_ends_with_its_terminal_entry() -> None:
    runs = Runs()
    runs.handles["a"] = run = greeting()

    async with serving(runs.app) as server, httpx2.AsyncClient() as client:
        response = await client.get(f"{server.url}/runs/a")

    frames = parse(response.content)
    assert [frame.data.encode() for frame in frames] == [e.to_json() async for e in run.entries()]
    assert [int(frame.id) for frame in frames] == list(range(1, len(frames) + 1))
    assert {frame.event for frame in frames} == {"message"}
    assert types_of(frames)[-1] == "run.completed"
    assert len(ends(frames)) == 1
    assert {name: response.headers[name] for name in SSE_HEADERS} == SSE_HEADERS
    assert "content-length" not in response.headers


async def test_the_type_is_an_event_name_where_that_is_asked_for() -> None:
    frames = parse(b"".join([piece async for piece in sse_frames(greeting(), named=True)]))

    assert [frame.event for frame in frames] == types_of(frames)


async def test_what_is_ready_is_sent_in_one_write() -> None:
    runs = Runs()
    runs.handles["a"] = run = greeting()
    await run

    async with serving(runs.app) as server:
        connection = await server.get("/runs/a")
        first, rest = await connection.chunk(), await connection.body()

    assert ends(parse(first)) == ["run.completed"]
    assert rest == b""


async def test_no_write_ends_amid_a_frame() -> None:
    held = Held(answer="word " * 2000)
    runs = Runs({}, {"a": held.handle})

    async with serving(runs.app) as server:
        connection = await server.get("/runs/a")
        chunks = [await connection.until(b"tool.started")]
        held.go_on.set()
        while chunk := await connection.chunk():
            chunks.append(chunk)

    assert len(chunks) > 2
    assert all(parse(chunk) for chunk in chunks)
    assert len(parse(b"".join(chunks))) > 2000


@pytest.mark.parametrize(
    ("run", "end", "code"),
    [("fails", "run.failed", "tool_failed"), ("is cancelled", "run.cancelled", "cancelled")],
)
async def test_a_run_that_does_not_complete_says_so_in_its_one_last_frame(
    run: str, end: str, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    @tool(failure_error_function=None)
    async def lookup() -> str:
        raise ConnectionError(f"postgres://admin:{CANARY}@db.internal")

    model = ScriptedModel([[function_call("lookup")]])
    handle = (
        silent()
        if run == "is cancelled"
        else Runner.run_streamed(Agent("A", model=model, tools=[lookup]), "Hi")
    )
    runs = Runs({}, {"a": handle})

    async with serving(runs.app) as server:
        connection = await server.get("/runs/a")
        if run == "is cancelled":
            await connection.until(b"response.output_text.delta")
            handle.cancel()
        body = await connection.body()

    frames = parse(body)
    event = frames[-1].json["event"]
    assert (event["type"], event["code"]) == (end, code)
    assert len(ends(frames)) == 1
    assert CANARY.encode() not in body
    if run == "fails":
        # What the client is not told stands in the log, under the id that he is told.
        (line,) = warnings(caplog)
        assert handle.run_id in line
        assert event["error_id"] in line
        assert CANARY in caplog.text


@pytest.mark.hostile
async def test_every_awkward_value_comes_through_as_strict_frames() -> None:
    values = awkward_values()

    @tool
    async def give(index: int) -> Any:
        return values[index].value

    calls = [function_call("give", {"index": i}, call_id=f"c{i}") for i in range(len(values))]
    agent = Agent(name="A", model=ScriptedModel([calls, "Done."]), tools=[give])
    runs = Runs({}, {"a": Runner.run_streamed(agent, "a\r\nb\u2028c\ud800")})

    async with (
        serving(runs.app) as server,
        aiohttp.ClientSession() as client,
        client.get(f"{server.url}/runs/a") as response,
    ):
        body = await response.read()

    frames = parse(body)
    outputs = [frame for frame in frames if frame.json["event"].get("name") == "tool_output"]
    assert len(outputs) == len(values) > 40
    assert ends(frames) == ["run.completed"]
    assert [int(frame.id) for frame in frames] == list(range(1, len(frames) + 1))


# --- resuming -------------------------------------------------------------------------------


async def test_a_client_that_is_cut_at_any_byte_and_resumes_sees_the_same_stream() -> None:
    runs = Runs()
    runs.handles["a"] = run = greeting()
    await run

    async with serving(runs.app) as server:
        whole = await (await server.get("/runs/a")).body()
        frames = parse(whole)
        rest = {
            str(position): parse(await (await server.get("/runs/a", f"Last-Event-ID: {position}")).body())
            for position in range(len(frames))
        }

    for cut in range(len(whole)):
        # Bytes of a character that was cut are with the frame that was.
        seen = parse(whole[: whole.rfind(b"\n\n", 0, cut) + 2] if b"\n\n" in whole[:cut] else b"")
        last = seen[-1].id if seen else "0"
        if last != frames[-1].id:
            assert seen + rest[last] == frames


async def test_a_client_that_is_cut_in_a_run_under_way_misses_nothing_and_sees_nothing_twice() -> None:
    held = Held(answer="one two three four")
    runs = Runs({}, {"a": held.handle})
    seen: list[Any] = []
    connections = 0

    async with serving(runs.app) as server:
        while not seen or seen[-1].json["event"]["type"] not in TERMINAL:
            last = seen[-1].id if seen else "0"
            connection = await server.get("/runs/a", f"Last-Event-ID: {last}")
            connections += 1
            # A frame and a half, and the line is dead.
            data = await connection.chunk()
            (frame, *_) = parse(data)
            seen.append(frame)
            connection.cut()
            if held.reached.is_set():
                held.go_on.set()

    assert [int(frame.id) for frame in seen] == list(range(1, len(seen) + 1))
    assert connections == len(seen)


@pytest.mark.parametrize("last", ["junk", "-1", "1.5", "²", "999999", "9" * 5000, "run_1/3"])
async def test_a_position_that_the_run_does_not_have_is_answered_with_400(last: str) -> None:
    runs = Runs()
    runs.handles["a"] = run = greeting()
    await run

    async with serving(runs.app) as server, httpx2.AsyncClient() as client:
        headers = [(b"last-event-id", last.encode())]
        response = await client.get(f"{server.url}/runs/a", headers=headers)

    assert response.status_code == 400
    assert response.headers["content-type"] == "application/json"
    assert (response.json()["type"], response.json()["code"]) == ("stream.error", "unknown_position")


async def test_where_nothing_is_left_a_browser_is_told_not_to_come_again() -> None:
    runs = Runs()
    runs.handles["a"] = run = greeting()
    await run
    last = [entry async for entry in run.entries()][-1].position

    async with serving(runs.app) as server, httpx2.AsyncClient() as client:
        response = await client.get(f"{server.url}/runs/a", headers={"last-event-id": str(last)})

    assert (response.status_code, response.content) == (204, b"")
    assert "content-type" not in response.headers


async def test_two_clients_of_one_run_see_the_same_and_one_of_them_may_come_late() -> None:
    held = Held()
    runs = Runs({}, {"a": held.handle})

    async with serving(runs.app) as server:
        early = await server.get("/runs/a")
        beginning = await early.until(b"tool.started")
        late = await server.get("/runs/a")
        held.go_on.set()
        bodies = await asyncio.gather(early.body(), late.body())

    assert beginning + bodies[0] == bodies[1]
    assert ends(parse(bodies[1])) == ["run.completed"]


async def test_a_filter_leaves_out_all_but_what_was_asked_for_and_the_end() -> None:
    wanted = ["tool.started", "response.output_text.delta"]
    held = Held(answer="Hello there.")
    held.go_on.set()

    frames = parse(b"".join([piece async for piece in sse_frames(held.handle, types=wanted)]), filtered=True)

    assert types_of(frames) == ["tool.started", "raw_response_event", "raw_response_event", "run.completed"]
    assert [f.json["event"]["data"]["delta"] for f in frames[1:3]] == ["Hello", " there."]


async def test_a_gap_is_the_last_frame_of_a_body_that_ends_properly() -> None:
    log = MemoryLog()
    runs = Runs({}, {"a": greeting(log=log)})
    await runs.handles["a"]
    await log.trim(runs.handles["a"].run_id, 5)

    async with serving(runs.app) as server:
        (gap,) = parse(await (await server.get("/runs/a", "Last-Event-ID: 2")).body())
        rest = parse(await (await server.get("/runs/a", f"Last-Event-ID: {gap.json['first'] - 1}")).body())

    assert (gap.json["type"], gap.json["requested"], gap.json["first"], gap.id) == ("stream.gap", 3, 5, "")
    assert [rest[0].id, *ends(rest)] == ["5", "run.completed"]


# --- silence --------------------------------------------------------------------------------


async def test_a_silent_stream_has_a_heartbeat_every_fifteen_seconds() -> None:
    clock = ManualClock()
    held = Held(clock=clock)
    runs = Runs({}, {"a": held.handle})

    async with serving(runs.app) as server:
        connection = await server.get("/runs/a")
        await connection.until(b"tool.started")
        for _ in range(3):
            await clock.waiting()
            clock.advance(14.9)
            assert clock.due == (pytest.approx(0.1),)
            clock.advance(0.1)
            assert await connection.chunk() == b":\n\n"
        held.go_on.set()
        frames = parse(await connection.body())

    assert ends(frames) == ["run.completed"]


async def test_a_heartbeat_tells_how_far_the_client_is_where_all_was_filtered_out() -> None:
    clock = ManualClock()
    held = Held(clock=clock)
    frames = sse_frames(held.handle, types=["user.event"])

    first = asyncio.create_task(anext(frames))
    await held.reached.wait()
    await clock.waiting()
    clock.advance(15)
    (moved,) = parse(await first)
    second = asyncio.create_task(anext(frames))
    await clock.waiting()
    clock.advance(15)

    assert moved.json == {"type": "stream.position", "position": int(moved.id)}
    assert int(moved.id) == next(e.position for e in await read(held) if e.type == "tool.started")
    assert await second == b":\n\n"
    await frames.aclose()


async def read(held: Held) -> list[Any]:
    entries = []
    async for entry in held.handle.entries():
        entries.append(entry)
        if entry.type == "tool.started":
            held.go_on.set()
    return entries


# --- leaving --------------------------------------------------------------------------------


class Line:
    """A server's side of a connection that is lost at a message of its choice."""

    def __init__(self, lost_at: int, how: str) -> None:
        self.sent: list[Any] = []
        self._lost_at = lost_at
        self._how = how
        self._gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        if len(self.sent) == self._lost_at:
            self._gone.set()
            if self._how == "sending raises":
                raise OSError("the client is gone")
            await asyncio.Event().wait()  # until the request is told that the client is gone
        self.sent.append(message)

    async def receive(self) -> Any:
        if self._how == "sending raises":
            await asyncio.Event().wait()
        await self._gone.wait()
        return {"type": "http.disconnect"}

    @property
    def frames(self) -> list[Frame]:
        return parse(b"".join([message.get("body", b"") for message in self.sent]))


@pytest.mark.parametrize("how", ["sending raises", "the server says so"])
async def test_a_line_that_is_lost_before_any_message_loses_nothing(
    how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("millstream.delivery.feed.AT_ONCE", 1)  # a message for each frame
    run = greeting()
    await run
    whole = parse(b"".join([piece async for piece in sse_frames(run)]))

    for lost_at in range(1, len(whole) + 2):  # the head of the answer, then frames, then the end
        line = Line(lost_at, how)
        await sse_app(run)({"type": "http", "method": "GET"}, line.receive, line.send)
        seen = line.frames
        assert len(seen) == lost_at - 1
        rest = sse_frames(run, after=seen[-1].id if seen else 0)
        assert seen + parse(b"".join([piece async for piece in rest])) == whole

    assert warnings(caplog) == []
    await nothing_is_left()


@pytest.mark.parametrize("moment", ["before a frame", "amid frames", "after the last"])
async def test_a_client_that_leaves_leaves_the_run_alone(
    moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    runs = Runs({}, {"a": held.handle})

    async with serving(runs.app) as server:
        connection = await server.get("/runs/a")
        if moment != "before a frame":
            await connection.until(b"tool.started")
        if moment == "after the last":
            held.go_on.set()
            await connection.until(b"run.completed")
        connection.cut()
        await server.has_no_requests()
        assert held.handle.is_complete == (moment == "after the last")
        held.go_on.set()
        result = await held.handle

    assert result.final_output == "Done."
    assert warnings(caplog) == []
    await nothing_is_left()


async def test_a_route_may_stop_the_run_when_its_client_leaves() -> None:
    run = silent()
    runs = Runs({"on_disconnect": "cancel"}, {"a": run})

    async with serving(runs.app) as server:
        connection = await server.get("/runs/a")
        await connection.until(b"output_text.delta")
        connection.cut()
        await ended(run)

    assert run.is_cancelled


async def test_a_run_that_is_cancelled_once_unread_is_cancelled_when_its_client_leaves() -> None:
    app = FastAPI()
    tasks = []

    @app.post("/chat")
    async def chat() -> Any:
        run = silent(when_unread="cancel")
        tasks.append(run.run_loop_task)
        return to_sse(run)

    async with serving(app) as server:
        connection = await server.get("/chat", method="POST")
        await connection.until(b"output_text.delta")
        connection.cut()
        await asyncio.wait(tasks)

    assert not tasks[0].cancelled()


async def test_a_response_that_is_never_sent_keeps_nothing_alive() -> None:
    run = silent(when_unread="cancel")
    task = run.run_loop_task
    assert task
    gone = weakref.ref(run)

    response = to_sse(run)
    del run
    assert gone() is not None
    del response
    gc.collect()

    assert gone() is None
    await asyncio.wait([task])


async def test_a_client_that_takes_nothing_holds_nobody_up_and_is_let_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    run = Runner.run_streamed(
        Agent(name="A", model=ScriptedModel(["x" * 40_000_000, "y"], chunk_size=4_000_000)),
        "Hi",
        run_config=RunConfig(clock=clock),
    )
    runs = Runs({}, {"a": run})

    async with serving(runs.app) as server:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.setblocking(False)
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", server.port))
            await asyncio.get_running_loop().sock_sendall(client, b"GET /runs/a HTTP/1.1\r\nHost: x\r\n\r\n")
            await run  # it comes to its end all the same
            while clock.due != (30,):
                await clock.waiting()
                await asyncio.sleep(0)
            clock.advance(30)
            await server.has_no_requests()

    assert [line for line in warnings(caplog) if "millstream" in line or "run_" in line] == [
        f"run {run.run_id}: a client took nothing for 30 s and was let go; it may resume"
    ]


async def test_a_slow_client_is_not_one_that_the_next_turn_waits_for() -> None:
    held = Held(ahead="turn")
    frames = sse_frames(held.handle)
    await anext(frames)
    held.go_on.set()

    async with asyncio.timeout(20):
        result = await held.handle

    assert result.final_output == "Done."
    await frames.aclose()


async def test_an_answer_to_head_ends_at_once() -> None:
    held = Held()
    runs = Runs({}, {"a": held.handle})

    async with serving(runs.app) as server, httpx2.AsyncClient() as client:
        response = await client.head(f"{server.url}/runs/a")
        assert not held.handle.is_complete
        held.go_on.set()
        await held.handle

    assert (response.status_code, response.headers["content-type"]) == (200, SSE_HEADERS["content-type"])


async def test_a_client_of_http_1_0_reads_until_the_connection_ends() -> None:
    runs = Runs({}, {"a": greeting()})

    async with serving(runs.app) as server:
        connection = await server.get("/runs/a", version="1.0")
        body = await connection.reader.read()

    assert b"chunked" not in connection.head.lower()
    assert ends(parse(body)) == ["run.completed"]


@pytest.mark.requires_program("curl")
@pytest.mark.slow
async def test_curl_shows_the_stream_and_comes_to_its_end() -> None:
    runs = Runs({}, {"a": greeting()})
    curl = shutil.which("curl")
    assert curl

    async with serving(runs.app) as server:
        process = await asyncio.create_subprocess_exec(
            curl, "-sS", "-N", f"{server.url}/runs/a", stdout=-1, stderr=-1
        )
        body, errors = await process.communicate()

    assert (process.returncode, errors) == (0, b"")
    assert ends(parse(body)) == ["run.completed"]


# --- frameworks -----------------------------------------------------------------------------


async def test_headers_cookies_and_background_tasks_of_fastapi_go_with_it() -> None:
    app = FastAPI()
    done = []

    @app.get("/chat")
    async def chat(tasks: BackgroundTasks) -> Any:
        tasks.add_task(done.append, "done")
        response = to_sse(greeting())
        response.headers["x-run"] = "1"
        response.set_cookie("seen", "yes")
        return response

    async with serving(app) as server, httpx2.AsyncClient() as client:
        response = await client.get(f"{server.url}/chat")

    assert (response.headers["x-run"], response.cookies["seen"]) == ("1", "yes")
    assert ends(parse(response.content)) == ["run.completed"]
    assert done == ["done"]


async def test_middleware_neither_holds_frames_back_nor_hides_that_the_client_left() -> None:
    held = Held()

    async def chat(request: Any) -> Any:
        return to_sse(held.handle)

    async def pass_on(request: Any, call_next: Any) -> Any:
        return await call_next(request)

    app = Starlette(routes=[Route("/chat", chat)])
    app.add_middleware(GZipMiddleware, minimum_size=1)
    app.add_middleware(BaseHTTPMiddleware, dispatch=pass_on)

    async with serving(app) as server:
        connection = await server.get("/chat", "Accept-Encoding: gzip")
        parse(await connection.until(b"tool.started"))
        connection.cut()
        await server.has_no_requests()
        held.go_on.set()
        await held.handle


async def test_plain_asgi_needs_no_framework() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await sse_app(greeting())(scope, receive, send)

    async with serving(app) as server:
        connection = await server.get("/", method="POST", body=b"ping")
        body = await connection.body()

    assert b"text/event-stream; charset=utf-8" in connection.head
    assert ends(parse(body)) == ["run.completed"]


async def test_a_response_is_sent_once() -> None:
    response = sse_app(greeting())
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        await asyncio.Event().wait()

    scope: dict[str, Any] = {"type": "http", "method": "GET"}
    await response(scope, receive, send)
    with pytest.raises(UserError, match="was sent already"):
        await response(scope, receive, send)

    assert [message["type"] for message in sent] == [
        "http.response.start",
        *["http.response.body"] * (len(sent) - 1),
    ]
    assert [message.get("more_body") for message in sent[1:]] == [*[True] * (len(sent) - 2), False]


async def test_a_server_that_raises_where_the_client_is_gone_is_told_nothing_more() -> None:
    held = Held()

    async def send(message: Any) -> None:
        if message["type"] == "http.response.body":
            raise OSError("the client is gone")

    async def receive() -> Any:
        await asyncio.Event().wait()

    await sse_app(held.handle)({"type": "http", "method": "GET"}, receive, send)

    assert not held.handle.is_complete
    held.go_on.set()
    await held.handle


async def test_a_request_that_is_cancelled_leaves_nothing_behind() -> None:
    held = Held()
    began = asyncio.Event()

    async def send(message: Any) -> None:
        began.set()

    async def receive() -> Any:
        await asyncio.Event().wait()

    request = asyncio.create_task(sse_app(held.handle)({"type": "http", "method": "GET"}, receive, send))
    await began.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request

    held.go_on.set()
    await held.handle
    await nothing_is_left()


@pytest.mark.parametrize("left", ["closed in another task", "dropped", "cancelled", "never begun"])
async def test_however_frames_are_left_nothing_is_raised_logged_or_left(
    left: str, caplog: pytest.LogCaptureFixture
) -> None:
    held = Held()
    frames = sse_frames(held.handle)
    await held.reached.wait()

    if left != "never begun":
        await anext(frames)
    if left == "closed in another task":
        await asyncio.create_task(frames.aclose())
        assert [piece async for piece in frames] == []
    elif left == "cancelled":
        waiting = asyncio.create_task(anext(frames))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    del frames
    gc.collect()
    held.go_on.set()
    await held.handle

    assert warnings(caplog) == []
    await nothing_is_left()


async def test_frames_of_a_position_that_is_none_are_one_that_says_so() -> None:
    (frame,) = parse(b"".join([piece async for piece in sse_frames(greeting(), after="junk")]))

    assert (frame.json["code"], frame.id) == ("unknown_position", "")


async def test_a_long_log_that_a_fast_client_takes_at_once_leaves_others_their_turn() -> None:
    run = Runner.run_streamed(Agent("A", model=ScriptedModel(["word " * 20_000], batch_size=1000)), "Hi")
    await run
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    beside = asyncio.create_task(others())
    frames = [piece async for piece in sse_frames(run, types=["user.event"])]
    beside.cancel()

    assert ends(parse(b"".join(frames))) == ["run.completed"]
    assert turns > 20
