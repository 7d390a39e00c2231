"""The block of docs/sessions.md that needs a Redis server, run with one."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import redis.asyncio  # noqa: F401  # not on an event loop, as the page would

from tests.docs.snippets import blocks, run_python
from tests.support.redis_server import redis_server

PAGE = Path(__file__).parents[2] / "docs" / "sessions.md"
URL = '"redis://localhost:6379/0"'


@pytest.mark.requires_program("redis-server")
def test_the_block_that_needs_a_server_runs_with_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = re.sub(r"<!-- skip: needs a Redis server.*-->", "", PAGE.read_text())
    (block,) = (block for block in blocks(page) if URL in block.body)

    with redis_server() as url:
        run_python(replace(block, body=block.body.replace(URL, repr(url))), tmp_path, monkeypatch)

    assert capsys.readouterr().out == "2\n"
