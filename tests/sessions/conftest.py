from collections.abc import Iterator

import pytest

from tests.support.redis_server import redis_server


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """The URL of a server that the tests of this process share: each takes a session id of its own."""
    with redis_server() as url:
        yield url
