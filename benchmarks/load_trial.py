"""One measurement of a server under load: its process, that of its clients, and what both have to tell."""

import contextlib
import http.client
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load_readers import Order, Seen
from load_server import Plan

HERE = Path(__file__).parent
MOMENTS = ("before", "there", "end", "gone")
"""Those at which the server's memory is told."""
LONGEST = 600.0
"""Seconds that a process may say nothing, before it is taken for one that hangs."""
EVERY = 0.25
"""Seconds between two looks at the server's memory."""


@dataclass(frozen=True)
class Load:
    """What a server is given to do."""

    plan: Plan
    readers: int
    stalls: bool
    """Whether there is one more client, which never reads."""
    at_once: int
    """How many events are there for that one to be sent at once."""


@dataclass
class Figures:
    """What came of it. Milliseconds, microseconds, MiB, KiB in a second, bytes."""

    p50: float
    p99: float
    max: float
    cpu_us: float
    """Of the server, for each event that reached a reader."""
    rate: float
    """Events that reached readers in a second, from `go` to the last."""
    first_p50: float
    first_p99: float
    memory: dict[str, float]
    growth: float
    """By how much its memory grows in a second of the paced part: the slope of a line through all that was seen."""
    waiting: int
    """The most that the server's process holds for one client."""


class Child:
    """A program of this folder, and a conversation with it by lines."""

    def __init__(self, program: str, *arguments: str) -> None:
        self._program = program
        self._process = subprocess.Popen(
            [sys.executable, HERE / program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        self.pid = self._process.pid

    def say(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self) -> str:
        """The next line.

        Raises:
            SystemExit: it has ended, or says nothing.
        """
        assert self._process.stdout is not None
        limit = threading.Timer(LONGEST, self._process.kill)
        limit.start()
        line = self._process.stdout.readline()
        limit.cancel()
        if not line:
            raise SystemExit(f"{self._program} ended with {self._process.wait()}.")
        return line.strip()

    def ask(self, line: str) -> str:
        self.say(line)
        return self.hear()

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def child(program: str, *arguments: str) -> Iterator[Child]:
    it = Child(program, *arguments)
    try:
        yield it
    finally:
        it.end()


def run(load: Load) -> Figures:
    """Put `load` on a server."""
    with child("load_server.py", load.plan.to_json()) as server:
        port = int(server.hear())
        memory = {"before": resident(server.pid)}
        with child("load_readers.py", str(port), _order(load, port).to_json()) as readers:
            assert readers.hear() == "there"
            memory["there"] = resident(server.pid)
            before = json.loads(server.ask("measure"))
            began = time.time()
            assert readers.ask(str(began)) == "began"
            with watching(server.pid) as looks:
                server.ask("go")
                assert readers.hear() == "all"
            after = json.loads(server.ask("measure"))
            memory["end"] = resident(server.pid)
            server.ask("end")
            seen = Seen(**json.loads(readers.hear()))
        time.sleep(0.5)  # the server has to see that they are gone
        memory["gone"] = resident(server.pid)
    events = len(seen.late)
    return Figures(
        p50=1000 * at(seen.late, 0.5),
        p99=1000 * at(seen.late, 0.99),
        max=1000 * max(seen.late),
        cpu_us=1e6 * (after["cpu"] - before["cpu"]) / events,
        rate=events / (seen.last_at - began),
        first_p50=1000 * at(seen.first, 0.5),
        first_p99=1000 * at(seen.first, 0.99),
        memory=memory,
        growth=slope(looks) * 1024,
        waiting=after["waiting"],
    )


def _order(load: Load, port: int) -> Order:
    order = Order("GET", "/", "", load.readers, load.plan.deltas)
    if not load.plan.address:
        return order
    if load.plan.runs == 1:
        path, last = _run_that_stands(port, load.at_once)
        order = Order("GET", f"{path}?after={last}", "", load.readers, load.plan.deltas)
        return order if not load.stalls else _with_stalled(order, path, "")
    body = json.dumps({"input": "0", "stream": True})
    order = Order("POST", "/runs", body, load.readers, load.plan.deltas)
    many = json.dumps({"input": str(load.at_once), "stream": True})
    return order if not load.stalls else _with_stalled(order, "/runs", many)


def _with_stalled(order: Order, path: str, body: str) -> Order:
    return Order(order.method, order.path, order.body, order.readers, order.deltas, path, body)


def _run_that_stands(port: int, at_once: int) -> tuple[str, int]:
    """The path of a run that has written that many events and waits, and its last position."""
    run_id = _asked(port, "POST", "/runs", {"input": str(at_once)})["run_id"]
    last = -1
    while True:
        position = _asked(port, "GET", f"/runs/{run_id}")["position"]
        if position > at_once and position == last:
            return f"/runs/{run_id}/events", last
        last = position
        time.sleep(0.05)


def _asked(port: int, method: str, path: str, body: Any = None) -> Any:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        headers = {"content-type": "application/json"}
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        return json.loads(connection.getresponse().read())


# --- figures -----------------------------------------------------------------------------------


def at(values: Sequence[float], share: float) -> float:
    """The value that so large a share of all does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * share), len(ordered) - 1)]


def resident(pid: int) -> float:
    """MiB of memory that a process has."""
    said = subprocess.run(["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(said.stdout) / 1024


@contextlib.contextmanager
def watching(pid: int) -> Iterator[list[tuple[float, float]]]:
    """The moments of a stretch, and the memory that a process had at each."""
    looks: list[tuple[float, float]] = []
    is_over = threading.Event()

    def watch() -> None:
        while not is_over.wait(EVERY):
            looks.append((time.monotonic(), resident(pid)))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield looks
    finally:
        is_over.set()
        thread.join()


def slope(looks: Sequence[tuple[float, float]]) -> float:
    """Of the line that fits best; 0 for less than two points."""
    if len(looks) < 2:
        return 0.0
    mean_x = sum(x for x, _ in looks) / len(looks)
    mean_y = sum(y for _, y in looks) / len(looks)
    across = sum((x - mean_x) * (y - mean_y) for x, y in looks)
    return across / sum((x - mean_x) ** 2 for x, _ in looks)
