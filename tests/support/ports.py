"""Ports for servers that have to be told theirs."""

import itertools
import os
import random
import socket

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_EACH = 500
_places = itertools.count(random.randrange(_EACH))


def free_port() -> int:
    """A port on which nobody listens, and that nobody is given meanwhile.

    The system gives ports from 32768 on to connections and to whoever asks for any: one of these may be
    taken between this call and the server's start. Each worker of a test run has ports of its own.
    """
    while True:
        port = 12_000 + _WORKER * _EACH + next(_places) % _EACH
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
