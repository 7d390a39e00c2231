"""`millstream serve`: an agent of a Python file as a server."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
from typing import TYPE_CHECKING

from millstream.cli import exits
from millstream.cli.problem import Problem, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

NAME = "serve"
HELP = "serve an agent over HTTP: runs that survive refresh, drop and restart"
EPILOG = """\
examples:
  millstream serve app.py                    `agent` in app.py, on this machine alone
  millstream serve app.py:planner --port 8080
  millstream serve app.py --store redis://localhost:6379/0 --workers 4
  millstream serve app.py --reload           anew whenever a file changes; no run is lost
  millstream serve app.py:app                an application made by create_app(..., access=..., log=...)

then, from another terminal:
  curl -N http://127.0.0.1:7420/runs -H 'content-type: application/json' \\
       -d '{"input": "Why is the sky blue?", "stream": true}'

Ctrl-C or SIGTERM: clients are told to come back, runs have --drain seconds to end, and what is left
goes on with the next server that is started on the store. A second one stops it at once.
"""

PORT = 7420
HOST = "127.0.0.1"
STORE = "sqlite:///millstream.db"
VARIABLE = "MILLSTREAM_STORE"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("app", metavar="APP", help="app.py, app.py:name or package.module:name")
    parser.add_argument("--host", default=HOST, help=f"the address to listen on (default {HOST})")
    parser.add_argument("--port", type=_port, default=PORT, help=f"the port (default {PORT})")
    parser.add_argument(
        "--store", metavar="URL", help=f"where the runs are kept (default {STORE}; also: {VARIABLE})"
    )
    parser.add_argument("--workers", type=_workers, default=1, metavar="N", help="processes (default 1)")
    parser.add_argument("--reload", action="store_true", help="start anew when a Python file changes")
    parser.add_argument(
        "--drain", type=_seconds, metavar="S", help="seconds that runs have to end (default 10)"
    )
    parser.add_argument(
        "--insecure", action="store_true", help="let everybody use it who can reach it, on any address"
    )


def run(args: argparse.Namespace) -> int:
    """Serve, until told to stop; the exit code."""
    _check(args, os.environ)
    try:
        import uvicorn

        from millstream.cli.served import Served, load
        from millstream.server.slow_headers import HeaderLimit
    except ModuleNotFoundError as error:
        from millstream.errors import MissingExtraError

        raise MissingExtraError("millstream serve", "server") from error
    from millstream.agent import Agent
    from millstream.log.address import shown, store_of

    served = Served(
        app=args.app,
        store=args.store or os.environ.get(VARIABLE) or STORE,
        drain=args.drain,
        is_open=args.insecure,
    )
    if isinstance(load(served.app), Agent):
        _check_address(args)
        # Says what is wrong with it before anything is started; the server in this process has the same one.
        asyncio.run(store_of("--store", served.store).check())
        runs = f"runs in {shown(served.store)}"
    else:
        _check_application(args)
        runs = "an application of its own"
    served.to_environment()
    say(f"serving {args.app} on http://{_shown(args.host)}:{args.port} ({runs}; Ctrl-C stops)")
    # The HTTP server sends itself the signal again that it was stopped by, when all is done.
    signal.signal(signal.SIGTERM, _is_done)
    try:
        uvicorn.run(
            "millstream.cli.served:application",
            factory=True,
            host=args.host,
            port=args.port,
            workers=None if args.reload else args.workers,
            reload=args.reload,
            log_level="warning",
            timeout_graceful_shutdown=5,
            ws_max_size=1024 * 1024,
            http=HeaderLimit,
        )
    except SystemExit as end:  # it has told why it cannot serve: the port is somebody else's, say
        return exits.FAILED if end.code else exits.OK
    return exits.OK


def _is_done(number: int, frame: FrameType | None) -> None:
    """Stopped as it was told to: that is no failure."""


def _check(args: argparse.Namespace, environment: Mapping[str, str]) -> None:
    if args.reload and args.workers > 1:
        raise Problem("--reload goes with one worker.", "leave out --workers while you develop.")
    store: str = args.store or environment.get(VARIABLE) or STORE
    if args.workers > 1 and store.startswith("memory:"):
        raise Problem(
            "several workers cannot share memory:.", "name a file or a server: --store sqlite:///runs.db."
        )


def _check_address(args: argparse.Namespace) -> None:
    from millstream.server.access import is_loopback

    if not is_loopback(args.host) and not args.insecure:
        raise Problem(
            f"{args.host} can be reached from other machines, and whoever reaches this server could use it.",
            "serve an application that says who may: app = create_app(agent, access=...), as app.py:app; "
            "or say --insecure, behind something that lets through only who may pass.",
        )


def _check_application(args: argparse.Namespace) -> None:
    for given, name in ((args.store, "--store"), (args.insecure, "--insecure")):
        if given:
            raise Problem(
                f"{name} says nothing to {args.app}: an application was made with its own log and access.",
                f"leave out {name}, or name an agent.",
            )


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _port(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (1 to 65535)")
    return int(text)


def _workers(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 256:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes (1, 2, …)")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds (0, 2.5, …)")
    return seconds
