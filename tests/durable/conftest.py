import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.redis_server import redis_server

_databases = itertools.count()


@pytest.fixture(scope="session")
def redis_address() -> Iterator[str]:
    """The address of a server that the tests of this process share: each has a database of its own."""
    with redis_server("--databases", "10000") as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=pytest.mark.requires_program("redis-server"))])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a store is that processes share, of each engine that has such."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/runs.db"
    return f"{request.getfixturevalue('redis_address')}?db={next(_databases)}"


@pytest.fixture
def effects(tmp_path: Path) -> str:
    """The file that tools write their effects to."""
    return str(tmp_path / "effects")
