"""A stranger reads the OpenAPI document, and asks a server everything that it says, and what it does not say."""

import asyncio
import os
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, tool
from millstream.server import OPEN, create_app
from millstream.server.table import ENDPOINTS
from millstream.testing import function_call
from tests.server.kit import hosting
from tests.support.by_history import ByHistory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CONFIG = Path(__file__).with_name("schemathesis.toml")
ROOT = Path(__file__).parents[2]


@tool(needs_approval=True)
async def pay(amount: int) -> str:
    return f"paid {amount}"


def asking() -> Agent[Any]:
    """An agent whose runs wait for a decision, and end."""
    calls = [function_call("pay", {"amount": 1}, call_id="c1")]
    return Agent(name="A", model=ByHistory({(): calls, ("c1",): "Paid."}), tools=[pay])


class Seen:
    """An application, and what statuses it answered, by the name of the endpoint that was asked."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.statuses: dict[str, set[int]] = defaultdict(set)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def seen(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.statuses[name_of(scope["method"], scope["path"])].add(message["status"])
            await send(message)

        await self._app(scope, receive, seen)


def name_of(method: str, path: str) -> str:
    return next(
        (
            each.name
            for each in ENDPOINTS
            if each.method == method and re.fullmatch(re.sub(r"{\w+}", "[^/]*", each.path), path)
        ),
        "",
    )


async def test_what_a_server_answers_to_anything_is_what_its_document_says(tmp_path: Path) -> None:
    app = Seen(create_app(asking(), access=OPEN, log=MemoryLog()))
    async with hosting(app) as url:
        program = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG)]
        stranger = await asyncio.create_subprocess_exec(
            *program, "run", f"{url}/openapi.json", "--no-color",
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},  # it finds its checks, and may leave things
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await stranger.communicate()

    assert stranger.returncode == 0, said.decode()
    asked = app.statuses
    assert {each.name for each in ENDPOINTS} <= asked.keys() | {"probe"}
    assert asked["start"] >= {200, 202, 415, 422}
    assert 200 in asked["runs"] & asked["health"] & asked["ready"] & asked["version"] & asked["openapi"]
