"""Apps, and stores for their runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.stores import sqlite_store
from tests.support.redis_server import redis_server

SHOP = """
from millstream import Agent, tool
from millstream.testing import ScriptedModel, function_call

@tool
def price(item: str) -> dict[str, int]:
    "What an item costs."
    return {item: 12}

agent = Agent(name="Clerk", tools=[price], model=ScriptedModel([
    ["Let me look.", function_call("price", {"item": "lamp"}, call_id="call_1")],
    "A lamp is 12.",
]))
"""

TALKER = """
from millstream import Agent
from millstream.testing import ScriptedModel

agent = Agent(name="Talker", model=ScriptedModel(["word " * 100_000, "Noted."], tokens_per_second=50))
"""

JANITOR = """
from millstream import Agent, tool
from millstream.testing import ScriptedModel, function_call

@tool(needs_approval=True)
def delete(path: str) -> str:
    return f"deleted {path}"

def calls(*paths):
    return [function_call("delete", {"path": path}, call_id=f"call_{path[0]}") for path in paths]

one = Agent(name="Janitor", tools=[delete], model=ScriptedModel([calls("a.txt"), "Tidied."]))
two = Agent(name="Janitor", tools=[delete], model=ScriptedModel([calls("a.txt", "b.txt"), "Tidied."]))
again = Agent(name="Janitor", tools=[delete], model=ScriptedModel([calls("a.txt"), calls("a.txt"), "Tidied."]))
twins = Agent(name="Janitor", tools=[delete], model=ScriptedModel([calls("a.txt", "a.txt"), "Tidied."]))
"""


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    """A folder with the apps above."""
    for name, text in {"shop": SHOP, "talker": TALKER, "janitor": JANITOR}.items():
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.requires_program("redis-server"))])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty store, of each engine."""
    if request.param == "sqlite":
        yield sqlite_store(tmp_path)
        return
    with redis_server() as url:
        yield url
