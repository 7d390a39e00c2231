"""What the library tells of itself, and what it is told for the whole process."""

import importlib.metadata
import logging
from collections.abc import Iterator

import pytest

import millstream
from millstream import enable_verbose_stdout_logging
from millstream.about import logger


@pytest.fixture
def quiet_again() -> Iterator[None]:
    """The logger as it was before."""
    handlers, level = list(logger.handlers), logger.level
    yield
    logger.handlers, logger.level = handlers, level
    logger.setLevel(level)


def test_the_version_is_that_of_the_installed_package() -> None:
    assert millstream.__version__ == importlib.metadata.version("millstream")


@pytest.mark.usefixtures("quiet_again")
def test_verbose_logging_shows_each_message_once_on_what_standard_output_is_now(
    capsys: pytest.CaptureFixture[str],
) -> None:
    logging.getLogger("millstream").debug("unseen")
    enable_verbose_stdout_logging()
    enable_verbose_stdout_logging()

    logging.getLogger("millstream").debug("seen")

    assert capsys.readouterr() == ("seen\n", "")


@pytest.mark.usefixtures("quiet_again")
def test_verbose_logging_leaves_the_handlers_of_the_program_alone() -> None:
    own = logging.NullHandler()
    logger.addHandler(own)

    enable_verbose_stdout_logging()
    enable_verbose_stdout_logging()

    assert own in logger.handlers
    assert len(logger.handlers) == len({id(handler) for handler in logger.handlers})
