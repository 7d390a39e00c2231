"""A real nginx on a free port of loopback, with all that it writes in a folder of the test."""

import contextlib
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAIN = """
daemon off;
{user}
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 128; }}
http {{
    log_format brief '$upstream_status $status $request_uri $http_last_event_id';
    access_log {folder}/access.log brief;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    {site}
}}
"""


@dataclass
class Nginx:
    """One that runs."""

    port: int
    folder: Path

    @property
    def answered(self) -> list[str]:
        """A line for each answer that has ended: what the server said, what the client was told, to what."""
        return (self.folder / "access.log").read_text().splitlines()


@contextlib.contextmanager
def nginx(folder: Path, site: str) -> Iterator[Nginx]:
    """A proxy by the configuration of `site`, which listens at LISTEN."""
    folder.mkdir()
    # It takes over the listening socket as from an older nginx that is replaced: nobody else can have
    # the port, and who connects before it is there waits.
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(128)
        port = listening.getsockname()[1]
        user = "user root;" if os.getuid() == 0 else ""
        assert "LISTEN" in site
        configuration = MAIN.format(
            folder=folder, user=user, site=site.replace("LISTEN", f"127.0.0.1:{port}")
        )
        (folder / "nginx.conf").write_text(configuration)
        process = subprocess.Popen(
            ["nginx", "-e", "stderr", "-p", folder, "-c", folder / "nginx.conf"],
            pass_fds=[listening.fileno()], env=os.environ | {"NGINX": f"{listening.fileno()};"},
            stdin=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
    try:
        yield Nginx(port, folder)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it, and its worker
        process.wait()
