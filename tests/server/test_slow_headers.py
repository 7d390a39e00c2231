"""Headers that do not come to an end hold no connection for ever."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
import uvicorn

from millstream import Agent, MemoryLog
from millstream.server import LOCAL, create_app
from millstream.server.slow_headers import HeaderLimit
from millstream.testing import ScriptedModel
from tests.server.kit import PATIENCE, Host

REQUEST = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"


class Impatient(HeaderLimit):
    seconds = 0.01


class Patient(HeaderLimit):
    """Whose time is over when the test says."""

    seconds = 3600.0
    last: "Patient"

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        Patient.last = self
        super().connection_made(transport)

    @classmethod
    async def let_time_pass(cls) -> None:
        """Once it has read the beginning of a request."""
        while not (cls.last._has_begun and cls.last._timer):
            await asyncio.sleep(0)
        cls.last._timer.cancel()
        cls.last._give_up()


@contextlib.asynccontextmanager
async def line(
    protocol: type[HeaderLimit],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to a server that speaks HTTP by `protocol`."""
    app = create_app(Agent(name="A", model=ScriptedModel(["Hi."])), access=LOCAL, log=MemoryLog())
    server = Host(uvicorn.Config(app, log_config=None, http=protocol, timeout_keep_alive=3600))
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        task = asyncio.create_task(server.serve([listening]))
        while not server.started:
            await asyncio.sleep(0)
        reader, writer = await asyncio.open_connection(*listening.getsockname())
        try:
            async with asyncio.timeout(PATIENCE):
                yield reader, writer
        finally:
            writer.close()
            server.should_exit = True
            await task


async def test_headers_that_never_end_are_answered_408_and_their_connection_is_closed() -> None:
    async with line(Patient) as (reader, writer):
        writer.write(REQUEST[:-2])
        await Patient.let_time_pass()

        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


async def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word() -> None:
    async with line(Impatient) as (reader, _):
        assert await reader.read() == b""


async def test_slow_headers_of_a_second_request_are_no_better() -> None:
    async with line(Patient) as (reader, writer):
        writer.write(REQUEST)
        await reader.readuntil(b'{"status":"ok"}')
        writer.write(REQUEST[:9])
        await Patient.let_time_pass()

        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("at", range(1, len(REQUEST), 5))
async def test_headers_that_come_in_two_pieces_are_answered(at: int) -> None:
    async with line(Patient) as (reader, writer):
        writer.write(REQUEST[:at])
        while not Patient.last._has_begun:
            await asyncio.sleep(0)
        writer.write(REQUEST[at:])

        assert await reader.readline() == b"HTTP/1.1 200 OK\r\n"
