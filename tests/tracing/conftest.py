"""What tests of traces share."""

from tests.support.traces import recorder  # noqa: F401  # a fixture
