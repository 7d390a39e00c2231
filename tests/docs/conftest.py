"""What pages import on their way is imported here: a test must not depend on who imported it first.

Programs on the pages `await` at their top level, and so make their models, and import
`openai`, on an event loop, where reading files counts as blocking.
"""

import logging
from collections.abc import Iterator

import aiohttp  # noqa: F401
import httpcore2  # noqa: F401
import jsonschema  # noqa: F401
import mcp  # noqa: F401
import openai.types.responses  # noqa: F401
import pytest

from tests.docs.keys import KEYS
from tests.support.agents_name import agents_as_before
from tests.support.meters import no_provider


@pytest.fixture(autouse=True)
def vendors_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages read their keys from the environment; no server that looks at them is ever asked."""
    for name in KEYS:
        monkeypatch.setenv(name, "sk-test")


@pytest.fixture(autouse=True)
def agents_name() -> Iterator[None]:
    """A page may install `millstream.compat`: for itself."""
    with agents_as_before():
        yield


@pytest.fixture(autouse=True)
def own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may choose a provider of OpenTelemetry's, which a program does once."""
    no_provider(monkeypatch)


@pytest.fixture(autouse=True)
def own_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page may show the log in its way."""
    monkeypatch.setattr(logging.getLogger("millstream"), "handlers", [])
