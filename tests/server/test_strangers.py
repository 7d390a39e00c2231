"""Clients that others wrote follow a run as `docs/client.md` shows, through a line that breaks and a server that starts anew."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import NoReturn

import pytest

from tests.cli.test_serve import APP
from tests.server.broken_line import broken_line
from tests.server.shown import npm_eventsource, shown

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

PRINTS = """
import sys
for event in follow(sys.argv[1]):
    print(event.data)
"""


def httpx_sse(folder: Path, leave_out: Callable[[str], NoReturn]) -> list[str | Path]:
    (folder / "follow.py").write_text(shown("client.md", "python", "## Any other client") + PRINTS)
    return [sys.executable, folder / "follow.py"]


@pytest.mark.parametrize(
    "client",
    [pytest.param(npm_eventsource, marks=pytest.mark.requires_program("node")), httpx_sse],
)
async def test_a_strangers_client_sees_a_run_once_through_a_cut_and_another_server_and_leaves_at_its_end(
    client: Callable[..., list[str | Path]], tmp_path: Path, leave_out: Callable[[str], NoReturn]
) -> None:
    command = client(tmp_path, leave_out)
    (tmp_path / "app.py").write_text(APP)

    async with broken_line(tmp_path) as line:
        line.cut_behind(b"id: 4\n")  # amid a frame: its id has come, its data has not
        async with printing(*command, line.begin()) as printed:
            await line.until(b'"type":"tool.started"')
            await line.stop()
            (tmp_path / "go").touch()
            await line.start()
            entries = [json.loads(each) for each in (await printed).splitlines()]

    assert [entry["position"] for entry in entries] == list(range(1, len(entries) + 1))
    types = [entry["event"]["type"] for entry in entries]
    assert types.count("run.attempt") == 1
    assert types[-1] == "run.completed"
    # Cut, sent away, and to the end; then told that nothing is left.
    assert line.statuses == [200, 200, 200, 204]


@contextlib.asynccontextmanager
async def printing(*command: str | Path) -> AsyncIterator[Awaitable[bytes]]:
    """A program, and what it has printed when it has ended by itself, as it should."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)

    async def printed() -> bytes:
        out, _ = await process.communicate()
        assert process.returncode == 0
        return out

    task = asyncio.create_task(printed())
    try:
        yield task
    finally:
        if process.returncode is None:
            process.kill()
        await asyncio.wait([task])
