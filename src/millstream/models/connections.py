"""aiohttp's connections, reading in pieces of a good size, with the chunks of each joined (`chunks.py`).

What is private to aiohttp and is used all the same stands here and in `transport.py`;
`test_transport.py` notices when it changes. Imported when the first pool is made.
"""

from __future__ import annotations

import asyncio
import functools
from typing import Any

from aiohttp.client_proto import ResponseHandler

from millstream.models.chunks import ChunkJoiner

_AT_ONCE = 128 * 1024
"""Bytes to read at once. For twice as many, which is what asyncio takes, the allocator goes to
the system for each read anew, and the pages that it gets are paid for at each."""


class JoiningHandler(ResponseHandler, asyncio.BufferedProtocol):
    """Gives its parser fewer and larger chunks than the server sent.

    Args:
        loop: the loop that it belongs to.
        buffer: what the loop reads into; for all connections of a loop, which reads one at a time.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, buffer: memoryview) -> None:
        super().__init__(loop)
        self._chunks = ChunkJoiner()
        self._read_buffer = buffer

    def set_response_params(self, **params: Any) -> None:
        """A request is about to be sent."""
        self._chunks.begin()
        super().set_response_params(**params)

    def get_buffer(self, sizehint: int) -> memoryview:
        """Where the loop reads to."""
        return self._read_buffer

    def buffer_updated(self, nbytes: int) -> None:
        """The loop has read so many bytes."""
        data = self._chunks.feed(bytes(self._read_buffer[:nbytes]))
        if data:
            self.data_received(data)


def join_chunks(client: Any) -> None:
    """Let the connections of an aiohttp-backed HTTP client, which the running loop alone uses, be such."""
    transport = client._transport
    transport.client = session = transport.get_client()
    buffer = memoryview(bytearray(_AT_ONCE))
    session.connector._factory = functools.partial(JoiningHandler, asyncio.get_running_loop(), buffer)
