from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.keepers import Engine, Memory, Redis, SQLite
from tests.support.redis_server import redis_server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a server that the tests of this process share: each has keys of its own."""
    with redis_server() as url:
        yield url


@pytest.fixture(
    params=[
        "memory",
        "sqlite",
        pytest.param("redis", marks=pytest.mark.requires_program("redis-server")),
    ]
)
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Engine:
    """Each of the engines that keep runs."""
    match request.param:
        case "memory":
            return Memory()
        case "sqlite":
            return SQLite(tmp_path)
        case _:
            return Redis(request.getfixturevalue("redis_url"))
