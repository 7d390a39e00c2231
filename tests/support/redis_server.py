"""A Redis server of the tests' own, on a socket file."""

import contextlib
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def redis_server(*options: str) -> Iterator[str]:
    """The URL of a server that lives as long as the block. It keeps nothing on disk but what `options` say."""
    # Not pytest's folder: the path of a socket may have about a hundred characters.
    with tempfile.TemporaryDirectory(prefix="redis") as folder:
        socket = Path(folder) / "s"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", socket, "--dir", folder, "--save", "", *options],
            stdout=subprocess.PIPE,
        )
        try:
            assert server.stdout is not None
            said = iter(server.stdout.readline, b"")
            assert any(b"eady to accept" in line for line in said), "redis-server did not start"
            yield f"unix://{socket}"
        finally:
            server.kill()
            server.communicate()
