"""The clients of a server under load, in a process of their own: each reads a stream on a socket of its own.

python load_readers.py PORT ORDER     the order is read by `Order`

It prints "there" when every client has an answer. A line of its standard input says when the paced part
begins; it prints "began" to that, "all" when every client has all deltas of it, and at last what it has
seen, as JSON.

What is read is only looked at for its ids and times: a client that made objects of it would
take from the server what is to be measured.
"""

import asyncio
import json
import re
import socket
import sys
import time
from array import array
from dataclasses import asdict, dataclass

FRAME = re.compile(rb'id: (\d+)\ndata: [^\n]*?"time":([\d.]+)[^\n]*?"event":\{"type":"(\w+)[^\n]*\n\n')


@dataclass(frozen=True)
class Order:
    """What the clients do."""

    method: str
    path: str
    body: str
    readers: int
    deltas: int
    """How many events each is to have behind the line that says that it begins."""
    stalled: str = ""
    """The path of one more client, which never reads; its body is `stalled_body`."""
    stalled_body: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass
class Seen:
    """What all of them saw."""

    first: list[float]
    """Seconds from the request of each reader to its first event."""
    late: list[float]
    """Seconds from the moment at which an event was written down to the reader, for each event."""
    last_at: float
    """When the last delta came, by the clock of the day."""


class Everybody:
    """What the readers have come to."""

    def __init__(self, order: Order) -> None:
        self.order = order
        self.began = float("inf")
        self.there = asyncio.Event()
        self.all = asyncio.Event()
        self.over = asyncio.Event()
        self.failure: str | None = None
        self.first: list[float] = []
        self.late = array("d")
        self.last_at = 0.0
        self._left = dict.fromkeys((self.there, self.all, self.over), order.readers)

    def one_more(self, event: asyncio.Event) -> None:
        self._left[event] -= 1
        if not self._left[event]:
            event.set()

    def fail(self, why: str) -> None:
        self.failure = self.failure or why
        for event in self._left:
            event.set()


class Reader(asyncio.Protocol):
    """One client."""

    def __init__(self, everybody: Everybody) -> None:
        self._everybody = everybody
        self._rest = b""
        self._position: int | None = None
        self._asked_at = 0.0
        self._deltas = 0
        self._has_head = self._is_over = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def ask(self, request: bytes) -> None:
        assert self.transport is not None
        self._asked_at = time.time()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        now, everybody = time.time(), self._everybody
        data = self._rest + data
        if not self._has_head:
            self._look_at_head(data)
        end = 0
        for frame in FRAME.finditer(data):
            end = frame.end()
            position = int(frame[1])
            if self._position is None:
                everybody.first.append(now - self._asked_at)
            elif position != self._position + 1:
                everybody.fail(f"position {position} came behind {self._position}")
            self._position = position
            if frame[3] == b"raw_response_event" and (written := float(frame[2])) >= everybody.began:
                self._deltas += 1
                if self._deltas <= everybody.order.deltas:
                    everybody.late.append(now - written)
                    everybody.last_at = now
                if self._deltas == everybody.order.deltas:
                    everybody.one_more(everybody.all)
        self._rest = data[end:]
        if self._rest.endswith(b"\r\n0\r\n\r\n"):
            self._is_over = True
            everybody.one_more(everybody.over)

    def _look_at_head(self, data: bytes) -> None:
        head, end, _ = data.partition(b"\r\n\r\n")
        if end:
            self._has_head = True
            if b" 200 " not in head.partition(b"\r\n")[0]:
                self._everybody.fail(f"answered {head.decode()}")
            self._everybody.one_more(self._everybody.there)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._is_over:
            self._everybody.fail(f"a connection was lost: {exc}")


def request(port: int, method: str, path: str, body: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode()


def stalled(port: int, order: Order) -> socket.socket:
    """A client that asks and never reads. It has no room, and wants small packets: so the server's machine has none for it either."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    client.connect(("127.0.0.1", port))
    client.sendall(request(port, order.method, order.stalled, order.stalled_body))
    return client


async def main(port: int, order: Order) -> None:
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    still = stalled(port, order) if order.stalled else None
    everybody = Everybody(order)
    readers = [Reader(everybody) for _ in range(order.readers)]
    for reader in readers:
        await loop.create_connection(lambda reader=reader: reader, "127.0.0.1", port)
    asked = request(port, order.method, order.path, order.body)
    for reader in readers:
        reader.ask(asked)
    await everybody.there.wait()
    print("there", flush=True)
    everybody.began = float(await lines.readline())
    print("began", flush=True)  # only now may anything come that is to be counted
    await everybody.all.wait()
    print("all", flush=True)
    await everybody.over.wait()
    if still is not None:
        still.close()
    if everybody.failure is not None:
        raise SystemExit(everybody.failure)
    print(json.dumps(asdict(Seen(everybody.first, list(everybody.late), everybody.last_at))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Order(**json.loads(sys.argv[2]))))
