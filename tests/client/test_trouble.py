"""What a client makes of a server, or of what stands between, that does not do as it should."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream.client import Client
from millstream.errors import (
    AccessDeniedError,
    AgentsException,
    LogGapError,
    ServerError,
    ServerUnreachableError,
    UserError,
)
from millstream.testing import ManualClock
from tests.client.kit import HastyClock, everything, reaching

RUN = f"run_{'a' * 32}"
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def entry(position: int, **event: Any) -> bytes:
    envelope = {
        "position": position,
        "run_id": RUN,
        "parent_run_id": None,
        "agent": "A",
        "depth": 0,
        "path": [],
        "turn": 1,
        "time": 0.0,
        "event": {"type": "user.event", "name": "x", "data": position} | event,
    }
    return b"id: %d\ndata: %b\n\n" % (position, json.dumps(envelope).encode())


def told(**message: Any) -> bytes:
    return b"data: %b\n\n" % json.dumps(message).encode()


END = entry(3, type="run.completed", output="done", usage={})
WHOLE = STREAM + entry(1) + entry(2) + END


def status(code: int, body: bytes = b"", **headers: str) -> bytes:
    lines = [f"HTTP/1.1 {code} X", f"content-length: {len(body)}", "connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def problem(code: str, message: str = "No.", **facts: Any) -> bytes:
    return json.dumps({"error": {"code": code, "message": message, **facts}}).encode()


class Answers:
    """A server that gives one answer after another, whatever is asked; an Event in one waits until the client leaves."""

    def __init__(self, *answers: Any) -> None:
        self.left = list(answers)
        self.asked: list[str] = []
        self.url = ""
        self.is_left = asyncio.Event()
        """Set when a client closes a connection on which something is waited for."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.asked.append(head.lower())
            answer = self.left.pop(0)
            for piece in answer if isinstance(answer, list) else [answer]:
                if isinstance(piece, asyncio.Event):
                    await reader.read()
                    self.is_left.set()
                else:
                    writer.write(piece)
                    await writer.drain()
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def cursors(self) -> list[str]:
        """What was asked to be sent behind, by each request."""
        lines = [dict(line.split(": ", 1) for line in head.splitlines()[1:] if line) for head in self.asked]
        return [line.get("last-event-id", "") for line in lines]


@contextlib.asynccontextmanager
async def answering(*answers: Any, tls: ssl.SSLContext | None = None) -> AsyncIterator[Answers]:
    server = Answers(*answers)
    tasks = set[asyncio.Task[None]]()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.create_task(server.serve(reader, writer)))

    listening = await asyncio.start_server(connected, "127.0.0.1", 0, ssl=tls)
    server.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


async def followed(*answers: Any, **options: Any) -> tuple[list[int], Answers]:
    """The positions that a follower sees of these answers, and the server."""
    async with answering(*answers) as server, reaching(server.url, **options) as client:
        seen = [each.position async for each in client.run(RUN).entries()]
    return seen, server


@pytest.mark.parametrize(
    "first",
    [
        STREAM + entry(1),
        STREAM + entry(1) + b"id: 2\ndata: {",
        STREAM + entry(1) + entry(1) + entry(1),
        STREAM + entry(1) + entry(3),
        STREAM + entry(1) + told(type="stream.error", code="broken_off", message="?", error_id="e", after=1),
        STREAM + entry(1) + told(type="stream.later", what="nobody knows yet"),
        STREAM + entry(1) + b"data: no JSON\n\n",
        STREAM + entry(1) + b"data: 5\n\n",
        STREAM + entry(1) + b"data: []\n\n",
        STREAM + entry(1) + b"data: {}\n\n",
        STREAM + entry(1) + b'data: {"event":{},"position":"2"}\n\n',
        STREAM + entry(1) + told(type="stream.position", position="9"),
        STREAM + entry(1) + b"data: \xff\n\n",
        STREAM + entry(1) + b":" + b"x" * (17 * 1024 * 1024),
    ],
    ids=lambda answer: repr(answer[len(STREAM + entry(1)) :][:40]),
)
async def test_a_stream_that_breaks_is_read_on_from_what_came(first: bytes) -> None:
    seen, server = await followed(first, WHOLE)

    assert seen == [1, 2, 3]
    assert server.cursors() == ["", "1"]


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"HTTP/1.1 200",
        b"not HTTP at all\r\n\r\n",
        status(500),
        status(502, b"<html>Bad gateway</html>"),
        status(503, problem("stopping"), retry_after="2"),
        status(429, problem("too_many"), retry_after="7"),
        status(200, b"<html>Log in</html>", content_type="text/html"),
        STREAM,
        STREAM + b":\n\n:\n\n",
    ],
    ids=repr,
)
async def test_an_answer_that_is_none_is_asked_for_again(first: bytes) -> None:
    seen, server = await followed(first, WHOLE)

    assert seen == [1, 2, 3]
    assert server.cursors() == ["", ""]


@pytest.mark.parametrize(
    ("answer", "error", "said"),
    [
        (status(401, problem("unauthorized")), AccessDeniedError, r"let this client do that \(401\). No."),
        (status(403), AccessDeniedError, "does not say why"),
        (
            status(404, b'{"detail":"Not Found"}'),
            ServerError,
            "Is there a Millstream server at this address?",
        ),
        (status(404, b"[[[["), ServerError, "answered 404"),
        (status(307, location="http://elsewhere.example/"), ServerError, "answered 307"),
        (status(410, problem("gone", first=7)), LogGapError, "position 1 .* first one held is 7"),
        (
            status(422, problem("bad_request", "depth has to be a whole number.")),
            UserError,
            "depth has to be",
        ),
        (status(418, problem("teapot")), ServerError, "answered 418. No."),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_what_is_refused_is_told_at_once(
    answer: bytes, error: type[AgentsException], said: str
) -> None:
    async with answering(answer) as server, reaching(server.url, token="s3cret") as client:
        with pytest.raises(error, match=said) as refused:
            await everything(client.run(RUN))

    assert len(server.asked) == 1
    assert "authorization: bearer s3cret" in server.asked[0]
    assert "s3cret" not in str(refused.value) + repr(client)


async def test_a_server_is_asked_after_what_it_asks_for() -> None:
    clock = HastyClock()
    seen, _ = await followed(
        status(503, retry_after="20"),
        status(429, retry_after="99999"),
        STREAM + b"retry: 4000\n\n",
        STREAM + entry(1),
        WHOLE,
        clock=clock,
    )

    assert seen == [1, 2, 3]
    for slept, asked in zip(clock.slept, [20, 300, 4, 4], strict=True):
        assert 0.99 * asked <= slept <= 1.25 * asked


async def test_a_stream_that_brings_nothing_is_given_up_and_one_that_brings_something_is_not() -> None:
    clock = HastyClock()
    pieces = [STREAM + entry(1), STREAM, STREAM, STREAM + entry(2), STREAM, STREAM]
    seen, server = await followed(*pieces, WHOLE, tries=4, clock=clock)

    with pytest.raises(ServerUnreachableError, match=r"4 times in a row.* ended its stream"):
        await followed(STREAM + entry(1), STREAM, STREAM, STREAM, STREAM, tries=4)

    assert (seen, server.cursors()) == ([1, 2, 3], ["", "1", "1", "1", "2", "2", "2"])


async def test_what_came_is_given_before_trouble_behind_it_is_told() -> None:
    gap = told(type="stream.gap", requested=2, first=9, after=1, message="?")
    async with answering(STREAM + entry(1) + gap) as server, reaching(server.url) as client:
        entries: Any = client.run(RUN).entries()
        assert (await anext(entries)).position == 1
        with pytest.raises(LogGapError) as raised:
            await anext(entries)

    assert (raised.value.requested, raised.value.first) == (2, 9)


async def test_a_stream_that_falls_silent_is_opened_anew() -> None:
    clock = ManualClock()
    async with (
        answering([STREAM + entry(1), asyncio.Event()], WHOLE) as server,
        reaching(server.url, clock=clock, idle_timeout=45) as client,
    ):
        entries: Any = client.run(RUN).entries()
        assert (await anext(entries)).position == 1
        waiting = asyncio.ensure_future(anext(entries))
        silence = await clock.tick()
        while not waiting.done():
            await asyncio.sleep(0)
            if clock.due and clock.due[0] < 40:  # what it waits before it asks again
                clock.advance(clock.due[0])
        assert (await waiting).position == 2
        await entries.aclose()

    assert silence == 45
    assert server.cursors() == ["", "1"]


async def test_a_silent_run_is_followed_for_as_long_as_its_connections_last() -> None:
    class Slow(HastyClock):
        """A clock by which a minute passes whenever it is looked at."""

        minutes = 0

        def monotonic(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
            self.minutes += 1
            return self.minutes * 60.0

    seen, server = await followed(*[STREAM + b":\n\n"] * 12, WHOLE, tries=3, clock=Slow())

    assert (seen, len(server.asked)) == ([1, 2, 3], 13)


async def test_a_client_that_is_closed_asks_nothing_more_and_leaves_what_it_was_given_open() -> None:
    async with answering([STREAM + entry(1), asyncio.Event()], WHOLE) as server, httpx2.AsyncClient() as http:
        client = Client(server.url, http_client=http)
        await client.aclose()
        with pytest.raises(UserError, match="closed"):
            await client.record(RUN)
        async with Client(server.url, clock=HastyClock()) as own:
            entries: Any = own.run(RUN).entries()
            await anext(entries)
            waiting = asyncio.ensure_future(anext(entries))
            await asyncio.sleep(0)
        with pytest.raises(UserError, match="closed"):
            await waiting
        seen = await everything(Client(server.url, http_client=http).run(RUN))

    assert len(seen) == 3


async def test_a_reader_that_is_closed_while_it_waits_is_over_and_so_is_its_connection() -> None:
    async with answering([STREAM + entry(1), asyncio.Event()]) as server, reaching(server.url) as client:
        entries: Any = client.run(RUN).entries()
        await anext(entries)
        waiting = asyncio.ensure_future(anext(entries, None))
        await asyncio.sleep(0)
        await entries.aclose()
        assert await waiting is None
        await server.is_left.wait()


# --- requests that do not stream ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "asked_again"),
    [
        (b"", False),  # it may have done what it was asked for
        (status(500), False),
        (status(503, retry_after="1"), True),
        (status(429), True),
    ],
    ids=repr,
)
async def test_input_is_sent_again_only_where_it_cannot_have_arrived(first: bytes, asked_again: bool) -> None:
    done = status(202, b"{}", content_type="application/json")
    async with answering(first, done) as server, reaching(server.url) as client:
        refused = pytest.raises(ServerUnreachableError, match=f"POST /runs/{RUN}/input failed at")
        with contextlib.nullcontext() if asked_again else refused:
            await client.run(RUN).send("More.")

    assert len(server.asked) == 1 + asked_again


async def test_a_start_whose_answer_is_lost_is_the_same_start() -> None:
    record = {"run_id": RUN, "agent": "A", "status": "queued", "code": None, "created": 1.0}
    record |= {"updated": 1.0, "position": 0, "attempts": 0}
    done = status(202, json.dumps(record).encode(), content_type="application/json")
    async with answering(b"", done) as server, reaching(server.url) as client:
        run = await client.start("Hi")

    keys = {line for head in server.asked for line in head.splitlines() if line.startswith("idempotency-key")}
    assert (run.run_id, len(server.asked), len(keys)) == (RUN, 2, 1)


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b'{"runs":5}', b'{"runs":[5]}', b"[" * 5000])
async def test_an_answer_that_is_not_a_servers_is_told_as_that(body: bytes) -> None:
    async with answering(*[status(200, body)] * 3) as server, reaching(server.url) as client:
        for asked in (client.start("Hi"), client.runs(), client.record(RUN)):
            with pytest.raises(ServerError, match="server"):
                await asked


async def test_an_answer_without_end_is_not_waited_for() -> None:
    endless = [b"HTTP/1.1 200 OK\r\n\r\n", *[b"x" * (1 << 20)] * 17, asyncio.Event()]
    async with answering(endless) as server, reaching(server.url, tries=1) as client:
        with pytest.raises(ServerUnreachableError, match="more than 16777216 bytes"):
            await client.record(RUN)


async def test_a_server_that_is_not_there_is_told_with_its_address() -> None:
    async with answering() as server:
        url = server.url
    async with reaching(url, tries=3) as client:
        with pytest.raises(
            ServerUnreachableError, match=r"GET /runs/.* failed 3 times in a row at .*: ConnectError"
        ):
            await client.record(RUN)
