"""A Redis server of the tests' own: on a socket file, or on a port; it may be killed, held still and started again."""

import contextlib
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.support.ports import free_port


class RedisServer:
    """A server process. It keeps nothing on disk but what `options` say."""

    def __init__(self, folder: str, *options: str, on_port: bool = False) -> None:
        self._folder = Path(folder)
        self._options = options
        self._port = free_port() if on_port else 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._port}/0" if self._port else f"unix://{self.socket}"

    @property
    def socket(self) -> str:
        return str(self._folder / "s")

    def start(self, *options: str, wait_for: bytes = b"eady to accept") -> None:
        """Start it, and wait for it to say so."""
        command = [
            "redis-server",
            "--port",
            str(self._port),
            "--unixsocket",
            self.socket,
            "--dir",
            self._folder,
        ]
        process = subprocess.Popen([*command, "--save", "", *self._options, *options], stdout=subprocess.PIPE)
        self._process = process
        assert process.stdout is not None
        said = iter(process.stdout.readline, b"")
        assert any(wait_for in line for line in said), "redis-server did not start"

    def kill(self) -> None:
        """End it as a power switch does: with SIGKILL."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def hold_still(self) -> None:
        """Let it do nothing any more; its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def forget(self) -> None:
        """Lose what is on the disk; while it does not run."""
        for path in sorted(self._folder.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()


@contextlib.contextmanager
def own_server(*options: str, on_port: bool = False) -> Iterator[RedisServer]:
    """A server for one test, that lives as long as the block."""
    # Not pytest's folder: the path of a socket may have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        server = RedisServer(folder, *options, on_port=on_port)
        server.start()
        try:
            yield server
        finally:
            server.kill()


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[str]:
    """The URL of a server that lives as long as the block."""
    with own_server(*options) as server:
        yield server.url
