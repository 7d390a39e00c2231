"""Runs the real program: in a pipe as scripts do, and at a terminal as people do."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from millstream.testing import check_stream

PROGRAM = [sys.executable, "-m", "millstream"]
DEADLINE = 40.0
PRINTS_LOGS = frozenset({"run", "chat", "demo"})
"""The commands whose `--json` is the logs of their runs; that of the others is a report."""


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """No local server is looked for unless a test says so; what is there may take its time."""
    kept = {
        k: v
        for k, v in os.environ.items()
        if k not in ("LC_ALL", "LANG", "PYTHONIOENCODING", "PYTHONUNBUFFERED")
    }
    return {
        **kept,
        "MILLSTREAM_LOCAL_PORTS": "none",
        "MILLSTREAM_PROBE_SECONDS": "20",
        "LC_ALL": "C.UTF-8",
        **(more or {}),
    }


@dataclass
class Done:
    """What a run of the program came to."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The lines of standard error, without the one that tells the model."""
        return [line for line in self.err.splitlines() if not line.startswith("millstream: model")]


def millstream(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    input: str | None = None,
    cwd: Path | None = None,
    stdout: int | IO[Any] = subprocess.PIPE,
) -> Done:
    """Run `millstream ARGUMENTS`; without `input`, nobody is at its standard input.

    What it prints as the log of a run, or of several, is held to the grammar.
    """
    done = subprocess.run(
        [*PROGRAM, *arguments],
        cwd=cwd,
        env=environment(env),
        stdout=stdout,
        stderr=subprocess.PIPE,
        timeout=DEADLINE,
        check=False,
        encoding="utf-8",
        stdin=subprocess.DEVNULL if input is None else None,
        input=input,
    )
    if "--json" in arguments and arguments[0] in PRINTS_LOGS:
        for log in logs_in(done.stdout or ""):
            check_stream(log)
    return Done(done.returncode, done.stdout or "", done.stderr)


def logs_in(out: str) -> Iterator[list[str]]:
    """The lines of each run's log in what was printed: positions begin at 1 again."""
    log: list[str] = []
    for line in out.splitlines():
        if log and json.loads(line)["position"] == 1:
            yield log
            log = []
        log.append(line)
    if log:
        yield log


class Terminal:
    """The program at a terminal: its screen so far, and a keyboard.

    What `--json` prints there is not held to the grammar: a screen wraps its lines, and shows what is typed among them.
    """

    def __init__(self, process: subprocess.Popen[bytes], master: int) -> None:
        self.process = process
        self.screen = ""
        self._master = master

    def wait_for(self, text: str, *, after: str = "") -> None:
        """Return when the screen shows `text`, behind `after` if that is given."""
        while text not in (self.screen.partition(after)[2] if after else self.screen):
            assert self._read(), f"the program ended without showing {text!r}:\n{self.screen}"

    def forget(self) -> None:
        """Wait only for what the screen shows from now on."""
        self.screen = ""

    def wait_until_it_reads(self) -> None:
        """Return when the program, whose prompt is shown, has lain down to wait for a key.

        Python hears a signal that comes between the two only with the next key: a moment that
        nobody at a keyboard can meet, and a test on a busy machine can.
        """
        stat = Path(f"/proc/{os.tcgetpgrp(self._master)}/stat")  # a shell may stand between
        if not stat.exists():  # not Linux
            return
        deadline = time.monotonic() + DEADLINE
        while stat.read_text().rpartition(") ")[2][0] != "S":
            assert time.monotonic() < deadline, (
                f"it does not wait for a key; the screen shows:\n{self.screen}"
            )
            os.sched_yield()

    def press_ctrl_c(self) -> None:
        self.type("\x03")

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def resize(self, columns: int) -> None:
        _resize(self._master, columns)

    @property
    def modes(self) -> list[Any]:
        """How the terminal treats what is typed and shown."""
        import termios

        return termios.tcgetattr(self._master)

    def end(self) -> int:
        """Read the screen to the end of the program; its exit code."""
        while self._read():
            pass
        return self.process.wait(DEADLINE)

    def _read(self) -> bool:
        ready, _, _ = select.select([self._master], [], [], DEADLINE)
        assert ready, f"nothing happened for {DEADLINE} s; the screen shows:\n{self.screen}"
        try:
            data = os.read(self._master, 65536)
        except OSError:  # how Linux says that nobody has the terminal open any more
            return False
        self.screen += data.decode("utf-8", "replace").replace("\r\n", "\n")
        return bool(data)


def _resize(terminal: int, columns: int) -> None:
    import fcntl
    import struct
    import termios

    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))


@contextlib.contextmanager
def at_terminal(
    *arguments: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdin: int | None = None,
    program: Sequence[str] = PROGRAM,
) -> Iterator[Terminal]:
    """`millstream ARGUMENTS` at a terminal of 80 columns; `stdin`, which is then closed here, may be a pipe."""
    import fcntl
    import pty
    import termios

    master, slave = pty.openpty()
    _resize(slave, 80)
    process = subprocess.Popen(
        [*program, *arguments],
        cwd=cwd,
        env=environment({"TERM": "xterm", **(env or {})}),
        stdin=slave if stdin is None else stdin,
        stdout=slave,
        stderr=slave,
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(1, termios.TIOCSCTTY, 0),
    )
    os.close(slave)
    if stdin is not None:
        os.close(stdin)
    try:
        yield Terminal(process, master)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        os.close(master)
