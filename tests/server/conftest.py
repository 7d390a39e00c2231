"""What the tests of the server share."""

from tests.support.meters import numbers  # noqa: F401  # a fixture
