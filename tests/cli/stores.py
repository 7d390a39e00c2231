"""Runs in a real store: of this process, or of one that goes on meanwhile."""

import asyncio
import contextlib
import json
import re
import runpy
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from millstream import Agent, Runner, RunResultStreaming, open_log
from millstream.log.store import NewRun, RunStore
from tests.cli.program import DEADLINE, PROGRAM, Done, environment


def sqlite_store(folder: Path) -> str:
    """The address of a store in a file that nothing is in yet."""
    return f"sqlite:///{folder / 'runs.db'}"


def run(store: str, app: str, *, cwd: Path) -> str:
    """Run the agent `app` of this folder in that store, to its end or its pause; the id of the run."""
    return begin(store, agent_of(app, cwd))


def begin(store: str, agent: Agent[Any]) -> str:
    """Run `agent` in that store, to its end or its pause; the id of the run."""

    async def start(log: RunStore) -> RunResultStreaming:
        return Runner.run_streamed(agent, "Go.", run_config={"log": log})

    return _to_its_end(store, start)


def go_on(store: str, run_id: str, agent: Agent[Any]) -> None:
    """Go on with a run that was paused, to its end or to its next pause."""

    async def resume(log: RunStore) -> RunResultStreaming:
        return await Runner.attach(run_id, log=log).resume(agent)

    _to_its_end(store, resume)


def begin_later(store: str, run_id: str, *, caller: str = "", conversation: str = "") -> None:
    """Keep a run of the Clerk's that nobody begins."""
    log = open_log(store)

    async def create() -> None:
        run = NewRun(run_id=run_id, agent="Clerk", request=b"{}", caller=caller, conversation=conversation)
        await log.create(run)
        await log.aclose()

    asyncio.run(create())


def agent_of(app: str, folder: Path) -> Agent[Any]:
    """The agent of an app, made anew."""
    file, _, name = app.partition(":")
    return runpy.run_path(str(folder / file))[name or "agent"]


def _to_its_end(store: str, start: Callable[[RunStore], Awaitable[RunResultStreaming]]) -> str:
    log = open_log(store)

    async def main() -> str:
        handle = await start(log)
        async for _ in handle.entries(after=handle.begins_after):
            pass
        assert handle.run_loop_task is not None
        await asyncio.wait([handle.run_loop_task])
        await log.aclose()
        return handle.run_id

    return asyncio.run(main())


def run_id_in(told: str) -> str:
    match = re.search(r"millstream: run: (run_[0-9a-f]{32}) in ", told)
    assert match is not None, told
    return match[1]


class Background:
    """A run that goes on in a process of its own: `run_id` is there and it has said something."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        told = ""
        while "millstream: run: " not in told:
            line = process.stderr.readline()
            assert line, f"the program ended without saying which run it is:\n{told}"
            told += line
        self.run_id = run_id_in(told)
        assert process.stdout.read(5)

    def end(self) -> Done:
        """Wait for its end."""
        out, err = self.process.communicate(timeout=DEADLINE)
        return Done(self.process.returncode, out, err)


@contextlib.contextmanager
def in_background(store: str, app: str, *arguments: str, cwd: Path) -> Iterator[Background]:
    """Run `app` in a process of its own, which is killed at the end of the block."""
    with subprocess.Popen(
        [*PROGRAM, "run", "--quiet", app, "Go.", "--store", store, *arguments],
        cwd=cwd, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield Background(process)
        finally:
            process.kill()


def json_lines(done: Done) -> list[dict[str, Any]]:
    """What was printed, an object a line."""
    return [json.loads(line) for line in done.out.splitlines()]
