"""`millstream serve`: an agent of a Python file as a server."""

from __future__ import annotations

import argparse
import asyncio
import inspect
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from millstream.cli import exits
from millstream.cli.log_lines import FORMS, LEVELS, show_log
from millstream.cli.problem import Problem, say

if TYPE_CHECKING:
    from collections.abc import Mapping

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
BACKLOG = 2048
"""Connections that may wait to be taken."""
STORE = "sqlite:///millstream.db"
VARIABLE = "MILLSTREAM_STORE"
SILENCE = 2.0
"""Seconds after which it is told what is waited for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    parser.add_argument("app", metavar="APP", help="app.py, app.py:name or package.module:name")
    parser.add_argument("--host", default=HOST, help=f"the address to listen on (default {HOST})")
    parser.add_argument(
        "--port", type=_port, default=PORT, help=f"the port (default {PORT}; 0: any that is free)"
    )
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
    parser.add_argument("--log-level", choices=LEVELS, default="info", help="what is logged (default info)")
    parser.add_argument(
        "--log-format", choices=FORMS, default="text", help="lines for people, or JSON (default text)"
    )


def run(args: argparse.Namespace) -> int:
    """Serve, until told to stop; the exit code."""
    _check(args, os.environ)
    try:
        from millstream.cli.served import Served, load
    except ModuleNotFoundError as error:
        from millstream.errors import MissingExtraError

        raise MissingExtraError("millstream serve", "server") from error
    from millstream.agent import Agent
    from millstream.log.address import shown

    show_log(args.log_level, args.log_format)
    served = Served(
        app=args.app,
        store=args.store or os.environ.get(VARIABLE) or STORE,
        drain=args.drain,
        is_open=args.insecure,
        log_level=args.log_level,
        log_format=args.log_format,
    )
    if isinstance(load(served.app), Agent):
        _check_address(args)
        # Says what is wrong with it before anything is started; the server in this process has the same one.
        asyncio.run(_reach(served.store))
        runs = f"runs in {shown(served.store)}"
    else:
        _check_application(args)
        runs = "an application of its own"
    listening = _listening(args.host, args.port)
    url = f"http://{_shown(args.host)}:{listening.getsockname()[1]}"
    replace(served, ready=f"serving {args.app} on {url} ({runs}; Ctrl-C stops)").to_environment()
    return _serve(args, listening)


async def _reach(url: str) -> None:
    """Check the store. One that is away is waited for, which is told."""
    from millstream.clock import current_clock
    from millstream.errors import UserError
    from millstream.log.address import shown, store_of

    try:
        store = store_of("--store", url)
    except UserError as error:
        raise Problem(str(error)) from error
    waiting = current_clock().call_later(
        SILENCE, lambda: say(f"waiting for {shown(url)}, which does not answer yet")
    )
    try:
        await store.check()
    finally:
        waiting.cancel()


def _listening(host: str, port: int) -> socket.socket:
    """Where clients connect: taken here, so that every process serves the same, and whoever is early waits a moment."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Problem(
            f"{_shown(host)}:{port} cannot be served: {error.strerror or error}.",
            "is another server running there? --port N takes another port, and --port 0 any that is free.",
            code=exits.FAILED,
        ) from error


def _serve(args: argparse.Namespace, listening: socket.socket) -> int:
    import uvicorn
    from uvicorn.supervisors import ChangeReload, Multiprocess

    from millstream.cli.served import ServerConfig
    from millstream.server.frame_limits import FrameLimit
    from millstream.server.slow_headers import HeaderLimit

    config = ServerConfig(
        "millstream.cli.served:application",
        factory=True,
        workers=None if args.reload else args.workers,
        reload=args.reload,
        log_config=None,
        log_level="warning",
        access_log=False,
        backlog=BACKLOG,
        timeout_graceful_shutdown=5,
        ws_max_size=1024 * 1024,
        # Deltas are too short to gain by it, and each connection would hold a window of its own for it.
        ws_per_message_deflate=False,
        http=HeaderLimit,
        ws=FrameLimit,
    )
    server = uvicorn.Server(config)
    try:
        if args.reload:
            ChangeReload(config, target=server.run, sockets=[listening]).run()
        elif args.workers > 1:
            # Older versions of uvicorn want to be told what each process runs.
            takes: Any = inspect.signature(Multiprocess).parameters
            target: Any = {"target": server.run} if "target" in takes else {}
            Multiprocess(config, sockets=[listening], **target).run()
        else:
            server.run(sockets=[listening])
    except KeyboardInterrupt:
        pass
    except SystemExit as end:  # it has told why it cannot serve
        return exits.FAILED if end.code else exits.OK
    return exits.OK


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
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port (0 to 65535)")
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
