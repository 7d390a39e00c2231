"""Row 44: frames that no client sends that means well. Each is closed with its code, and the run is not touched."""

import asyncio
import json
import os
import struct
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, tool
from millstream.server import LOCAL, create_app
from millstream.server.frame_limits import MAX_PIECES, FrameLimit
from millstream.testing import ScriptedModel, function_call
from tests.delivery.serving import nothing_is_left
from tests.server.kit import events_of, serving
from tests.server.sockets import line_to

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
LARGEST = 1000
"""Bytes that a message may have, for the HTTP server of these tests."""


def handshake(*headers: str, method: str = "GET", path: str = "/ws", leave_out: str = "") -> bytes:
    """The request of a client that wants a WebSocket."""
    lines = [
        *["Host: localhost", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"],
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ]
    kept = [line for line in lines if not leave_out or not line.startswith(leave_out)]
    return "\r\n".join([f"{method} {path} HTTP/1.1", *kept, *headers, "", ""]).encode()


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    last: bool = True,
    masked: bool = True,
    reserved: int = 0,
    length: int | None = None,
) -> bytes:
    """One frame of a client, which may say another length than it has."""
    size = len(payload) if length is None else length
    first = last << 7 | reserved << 4 | opcode
    bit = masked << 7
    if size < 126:
        head = struct.pack("!BB", first, bit | size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    key = b"\x1d\x35\xa2\x7e"
    return head + key + bytes(byte ^ key[place % 4] for place, byte in enumerate(payload))


def say(**command: Any) -> bytes:
    return frame(TEXT, json.dumps(command).encode())


async def frame_from(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """The next frame of the server."""
    first, size = await reader.readexactly(2)
    assert first & 0xF0 == 0x80
    if size == 126:
        (size,) = struct.unpack("!H", await reader.readexactly(2))
    elif size == 127:
        (size,) = struct.unpack("!Q", await reader.readexactly(8))
    return first & 0xF, await reader.readexactly(size)


async def closed_with(reader: asyncio.StreamReader) -> int:
    """The code of the close frame, behind which the connection has its end."""
    opcode, payload = await frame_from(reader)
    while opcode != CLOSE:
        opcode, payload = await frame_from(reader)
    assert await reader.read() == b""
    return struct.unpack("!H", payload[:2])[0]


def agent() -> tuple[Agent[Any], asyncio.Event]:
    """An agent whose run stands still in a tool until it is let go."""
    go_on = asyncio.Event()

    @tool
    async def hold() -> str:
        await go_on.wait()
        return "held"

    return Agent(name="A", model=ScriptedModel([[function_call("hold")], "Done."]), tools=[hold]), go_on


async def follow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, run_id: str) -> None:
    """Shake hands, and follow a run up to where it stands still."""
    writer.write(handshake())
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    writer.write(say(type="follow", run_id=run_id))
    told = b""
    while b"tool.started" not in told:
        _, told = await frame_from(reader)


async def begun(client: httpx2.AsyncClient) -> str:
    return (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]


def descriptors() -> int:
    """How many files this process has open."""
    return len(os.listdir("/dev/fd"))


PROTOCOL, NOT_UTF8, TOO_BIG = 1002, 1007, 1009
HOSTILE: dict[str, tuple[bytes, int]] = {
    "not masked": (frame(TEXT, b"{}", masked=False), PROTOCOL),
    "an opcode of data that there is not": (frame(3, b"x"), PROTOCOL),
    "an opcode of control that there is not": (frame(11, b"x"), PROTOCOL),
    "a reserved bit": (frame(TEXT, b"{}", reserved=2), PROTOCOL),
    "compressed without having agreed on it": (frame(TEXT, b"{}", reserved=4), PROTOCOL),
    "a continuation of nothing": (frame(CONTINUED, b"x"), PROTOCOL),
    "a message amid another": (frame(TEXT, b"{", last=False) + frame(TEXT, b"}"), PROTOCOL),
    "a ping in pieces": (frame(PING, b"x", last=False), PROTOCOL),
    "a ping that is too long": (frame(PING, b"x" * 126), PROTOCOL),
    "a close of half a code": (frame(CLOSE, b"\x03"), PROTOCOL),
    "a close of no code": (frame(CLOSE, struct.pack("!H", 1005)), PROTOCOL),
    "a close whose reason is no text": (frame(CLOSE, b"\x03\xe8\xff"), NOT_UTF8),
    "bytes that are no text": (frame(TEXT, b'{"type":"\xff"}'), NOT_UTF8),
    "half a character": (frame(TEXT, b"\xe2\x82", last=False) + frame(CONTINUED, b"}"), NOT_UTF8),
    "half a surrogate pair": (frame(TEXT, b'"\xed\xa0\x80"'), NOT_UTF8),
    "a message that is too large": (frame(TEXT, b"x" * (LARGEST + 1)), TOO_BIG),
    "one that says it is": (frame(TEXT, b"", length=1 << 62), TOO_BIG),
    "one that is so in pieces": (
        frame(TEXT, b"x" * 600, last=False) + frame(CONTINUED, b"x" * 600, last=False),
        TOO_BIG,
    ),
    "pieces without end": (
        frame(TEXT, last=False) + frame(CONTINUED, last=False) * (MAX_PIECES + 2),
        TOO_BIG,
    ),
    "a close without a word": (frame(CLOSE), 1005),
    "a farewell": (frame(CLOSE, struct.pack("!H", 1001)), 1001),
}
"""Frames, and the code that they are answered with."""


@pytest.mark.hostile
async def test_row_44_hostile_frames_close_their_connection_with_its_code_and_touch_no_run() -> None:
    asked, go_on = agent()
    async with serving(
        create_app(asked, access=LOCAL, log=MemoryLog()), ws=FrameLimit, ws_max_size=LARGEST
    ) as client:
        run_id = await begun(client)
        before = descriptors()
        for name, (frames, code) in HOSTILE.items():
            async with line_to(client) as (reader, writer):
                await follow(reader, writer, run_id)
                writer.write(frames)
                if code == 1005:  # what stands for a close frame that has none
                    opcode, payload = await frame_from(reader)
                    assert (opcode, payload) == (CLOSE, b""), name
                else:
                    assert await closed_with(reader) == code, name
        while descriptors() > before:  # until the server has seen the ends
            await asyncio.sleep(0)
        go_on.set()
        events = await events_of(client, run_id)
    await nothing_is_left()

    assert json.loads(events[-1].data)["event"]["type"] == "run.completed"


@pytest.mark.hostile
async def test_row_44_a_command_in_pieces_with_pings_amid_it_is_a_command() -> None:
    app = create_app(agent()[0], access=LOCAL, log=MemoryLog())
    async with serving(app, ws=FrameLimit) as client, line_to(client) as (reader, writer):
        writer.write(handshake())
        await reader.readuntil(b"\r\n\r\n")
        text = '{"type":"ping","id":"ü 東"}'.encode()
        *pieces, last = [text[place : place + 1] for place in range(len(text))]
        writer.write(frame(TEXT, last=False))
        for number, piece in enumerate(pieces):
            writer.write(frame(CONTINUED, piece, last=False) + frame(PING, b"%d" % number))
        writer.write(frame(PONG, b"that nobody asked for") + frame(CONTINUED, last))
        pongs = [await frame_from(reader) for _ in pieces]
        answer = await frame_from(reader)
        writer.write(frame(BINARY, b'{"type":"ping"}'))
        again = await frame_from(reader)

    assert pongs == [(PONG, b"%d" % number) for number in range(len(pieces))]
    assert answer == (TEXT, '{"type":"pong","id":"ü 東"}'.encode())
    assert again == (TEXT, b'{"type":"pong"}')


@pytest.mark.hostile
@pytest.mark.parametrize(
    "flood", [frame(PING, b"x" * 125), say(type="ping", id="x" * 255)], ids=["frames", "commands"]
)
async def test_row_44_who_pings_and_reads_nothing_is_not_read_either(flood: bytes) -> None:
    protocols = list[Any]()

    class Seen(FrameLimit):
        def connection_made(self, transport: Any) -> None:
            protocols.append(self)
            super().connection_made(transport)

    asked, go_on = agent()
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog()), ws=Seen) as client:
        run_id = await begun(client)
        async with line_to(client, limit=1024) as (reader, writer):
            await follow(reader, writer, run_id)
            (served,) = protocols
            most = 0
            # Until nothing goes on any more: the client's buffers are full, and so are the server's.
            while served.transport.is_reading() or writer.transport.get_write_buffer_size() < 1 << 20:
                if writer.transport.get_write_buffer_size() < 1 << 20:
                    writer.write(flood * 500)
                await asyncio.sleep(0)
                most = max(most, served.transport.get_write_buffer_size())
            others = [(await client.get("/health")).status_code for _ in range(3)]
            while writer.transport.get_write_buffer_size():  # who reads is read again
                await reader.read(65536)
        go_on.set()
        events = await events_of(client, run_id)
    await nothing_is_left()

    assert most < 1 << 20
    assert others == [200] * 3
    assert json.loads(events[-1].data)["event"]["type"] == "run.completed"


@pytest.mark.hostile
@pytest.mark.parametrize(
    "sent",
    [b"", say(type="ping")[:5], frame(TEXT, b'{"type"', last=False)],
    ids=["nothing", "half a frame", "half a message"],
)
async def test_row_44_a_client_that_says_no_more_has_left(sent: bytes) -> None:
    asked, go_on = agent()
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog()), ws=FrameLimit) as client:
        run_id = await begun(client)
        async with line_to(client) as (reader, writer):
            await follow(reader, writer, run_id)
            writer.write(sent)
            writer.write_eof()
            assert await reader.read() == b""
        go_on.set()
        events = await events_of(client, run_id)
    await nothing_is_left()

    assert json.loads(events[-1].data)["event"]["type"] == "run.completed"


@pytest.mark.hostile
async def test_row_44_what_is_no_handshake_is_refused_and_its_connection_closed() -> None:
    requests = {
        "another method": (handshake(method="POST"), b"400"),
        "a method of its own": (handshake(method="FLY"), b"400"),
        "no key": (handshake(leave_out="Sec-WebSocket-Key"), b"400"),
        "a key that is none": (handshake("Sec-WebSocket-Key: x", leave_out="Sec-WebSocket-Key"), b"400"),
        "two keys": (handshake("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), b"400"),
        "no version": (handshake(leave_out="Sec-WebSocket-Version"), b"400"),
        "an old version": (handshake("Sec-WebSocket-Version: 8", leave_out="Sec-WebSocket-Ver"), b"400"),
        "another origin": (handshake("Origin: https://evil.example"), b"403"),
        "another path": (handshake(path="/nothing"), b"403"),
        "another host": (handshake("Host: evil.example", leave_out="Host"), b"401"),
        "a header as long as a book": (handshake("X: " + "x" * 60_000), b"400"),
        "more headers than anybody has": (handshake(*["X: y"] * 1000), b"400"),
    }
    async with serving(create_app(agent()[0], access=LOCAL, log=MemoryLog()), ws=FrameLimit) as client:
        for name, (request, status) in requests.items():
            async with line_to(client) as (reader, writer):
                writer.write(request)
                answer = await reader.read()  # to the end of the connection
            assert answer.split(b" ")[1] == status, (name, answer[:300])
        assert (await client.get("/health")).status_code == 200
    await nothing_is_left()
