"""Processes of their own, as tests of durable runs need them: to be killed, frozen and heard from.

They are forked from one that has imported everything, so that a hundred of them cost little. What
runs in them are the functions of `programs/`: nothing of pytest is there, and no test's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any, TypeAlias, TypeVar

from millstream.events import Entry, RunAttempt
from millstream.testing import check_stream

E = TypeVar("E")

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.durable.programs.everything"])

PATIENCE = 30.0
"""Seconds after which a process that says nothing fails its test."""
AT_ONCE = 6
"""Processes that run at the same time, where there are many of them."""

KILLED = -signal.SIGKILL
"""What a process that was killed with `kill -9` ends with."""


class Line:
    """What a process says and hears, on its event loop."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def say(self, word: Any) -> None:
        """Tell the test."""
        self._pipe.send(word)

    async def hear(self) -> Any:
        """What the test says next; None when it has no more to say."""
        try:
            return await asyncio.to_thread(self._pipe.recv)
        except EOFError:
            return None


Main: TypeAlias = Callable[..., Coroutine[Any, Any, None]]


class Program:
    """A process that runs `main(line, *args)` on an event loop."""

    def __init__(self, main: Main, *args: Any) -> None:
        self._pipe, theirs = CONTEXT.Pipe()
        self._process = CONTEXT.Process(target=_run, args=(main, theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    def say(self, word: Any) -> None:
        """Tell the process."""
        self._pipe.send(word)

    def hear(self) -> Any:
        """What the process says next."""
        assert self._pipe.poll(PATIENCE), "the process says nothing"
        return self._pipe.recv()

    def end(self) -> int:
        """Its exit code, once it has ended: that of a signal is negative."""
        self._process.join(PATIENCE)
        code = self._process.exitcode
        assert code is not None, "the process does not end"
        return code

    def kill(self) -> None:
        """`kill -9`; returns when it is dead."""
        self._signal(signal.SIGKILL)
        assert self.end() == KILLED

    def freeze(self) -> None:
        """SIGSTOP: it takes no step more, and knows nothing of it."""
        self._signal(signal.SIGSTOP)

    def has_stopped(self) -> None:
        """Return when SIGSTOP, whoever sent it, has reached it."""
        until(lambda: _state(self._process.pid) == "T")

    def wake(self) -> None:
        """SIGCONT: it goes on, as if no time had passed."""
        self._signal(signal.SIGCONT)

    def close(self) -> None:
        """Nothing is left of it."""
        if self._process.is_alive():
            self._process.kill()
        self._process.join()
        self._pipe.close()
        self._process.close()

    def _signal(self, number: signal.Signals) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)


def until(is_so: Callable[[], bool]) -> None:
    """Return when something is so that other processes bring about."""
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, "it does not come to be so"
        time.sleep(0.01)


def _state(pid: int | None) -> str:
    """What the system says that a process does: T is that it is stopped."""
    told = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return told.stdout[:1]


@contextlib.contextmanager
def programs(*mains: Sequence[Any]) -> Iterator[list[Program]]:
    """Processes, each a function and its arguments; they are gone behind the block."""
    started: list[Program] = []
    try:
        started += [Program(*main) for main in mains]
        yield started
    finally:
        for program in started:
            program.close()


def one_by_one(mains: Sequence[Sequence[Any]]) -> Iterator[tuple[Any, int]]:
    """What each of many processes says first, and the code that it ends with; a few run at a time."""
    waiting, running = list(mains), list[Program]()
    try:
        while waiting or running:
            while waiting and len(running) < AT_ONCE:
                running.append(Program(*waiting.pop(0)))
            program = running[0]
            told, code = program.hear(), program.end()
            running.pop(0).close()
            yield told, code
    finally:
        for program in running:
            program.close()


def _run(main: Main, pipe: Connection, *args: Any) -> None:
    asyncio.run(main(Line(pipe), *args))


def entries_of(lines: Sequence[bytes]) -> list[Entry]:
    """What a reader in another process has seen of a run, when it is what every reader has to see."""
    entries = [Entry.from_json(line) for line in lines]
    assert [entry.position for entry in entries] == list(range(1, len(entries) + 1))
    report = check_stream(entries)
    assert report.ok, str(report)
    ends = [entry for entry in entries if entry.depth == 0 and entry.type in _ENDS]
    assert ends == entries[-1:]
    return entries


_ENDS = ("run.completed", "run.failed", "run.cancelled")


def events(entries: Sequence[Entry], kind: type[E]) -> list[E]:
    """The events of a kind that a run has written itself."""
    return [entry.event for entry in entries if entry.depth == 0 and isinstance(entry.event, kind)]


def attempts(entries: Sequence[Entry]) -> int:
    """How often another process has gone on with a run."""
    return len(events(entries, RunAttempt))
