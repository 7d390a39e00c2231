"""One process of the SDK's interpreter for all tests of a worker."""

from collections.abc import Iterator

import pytest

from tests.differential.peer import Peer, PeerMissingError


@pytest.fixture(scope="session")
def peer() -> Iterator[Peer]:
    """The SDK's side. Without its environment the test fails, and says what to do."""
    try:
        process = Peer()
    except PeerMissingError as error:
        pytest.fail(str(error), pytrace=False)
    yield process
    process.close()
