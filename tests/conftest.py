"""What every test lives with: no keys, no network, no blocked loop, and no silent skip."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any, NoReturn

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import settings

from millstream.log import address
from millstream.models import provider
from millstream.tracing import set_trace_processors
from tests.support.hurry import hurried  # noqa: F401  # a fixture for all
from tests.support.run_logs import RunLogs
from tests.support.traces import recorder  # noqa: F401  # a fixture for all

# A run of the suite is repeatable; to look for new counterexamples:
# HYPOTHESIS_PROFILE=explore make test T=tests/run
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.register_profile("explore", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "repeatable"))

os.environ["PATH"] += f"{os.pathsep}/usr/sbin"  # where only root looks, and nginx is

# The variables that change what our code, or a client library, would do.
LEAKY = re.compile(
    r"^(OPENAI|AZURE|ANTHROPIC|MILLSTREAM)_|_PROXY$|^(FORCE_COLOR|NO_COLOR|COLUMNS)$", re.IGNORECASE
)


def leave_out_or_fail(reason: str) -> NoReturn:
    """Skip the test; fail it where `CI=true` promises that nothing is left out."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"left out, which CI=true forbids: {reason}", pytrace=False)
    pytest.skip(reason)


@pytest.fixture
def leave_out() -> Callable[[str], NoReturn]:
    """`leave_out(reason)`: for a test that finds out on its way that it cannot run here."""
    return leave_out_or_fail


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in item.iter_markers("requires_program"):
        name, *probe = marker.args
        if shutil.which(name) is None:
            leave_out_or_fail(f"needs `{name}`, not found: `make deps` installs it, or install it by hand")
        if probe:
            tried = subprocess.run([name, *probe], capture_output=True, check=False, stdin=subprocess.DEVNULL)
            if tried.returncode != 0:
                leave_out_or_fail(
                    f"needs `{name} {' '.join(probe)}` to work: {tried.stderr.decode().strip()}"
                )


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on the keys, base URLs and proxies of whoever runs it."""
    for name in list(os.environ):
        if LEAKY.search(name):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def untouched_defaults(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A client, key, API, trace processor or shared log that a test sets up is there no longer than the test."""
    monkeypatch.setattr(address, "_shared", {})
    monkeypatch.setattr(provider, "_Defaults", type("_Defaults", (provider._Defaults,), {}))
    yield
    provider._shared_client.cache_clear()
    set_trace_processors([])


class NetworkReachedError(Exception):
    """A test tried to leave this machine. Not an `OSError`: nobody may take it for a bad line."""


def is_loopback(host: object) -> bool:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return True
    try:
        return ip_address(str(name).partition("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Refuse every address but loopback, and fail the test even if its code swallowed the refusal."""
    reached: list[object] = []

    def refuse(host: object) -> NoReturn:
        reached.append(host)
        raise NetworkReachedError(f"{host!r} is not on this machine")

    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def connect(self: socket.socket, address: Any) -> Any:
            if self.family != getattr(socket, "AF_UNIX", None) and not is_loopback(address[0]):
                refuse(address[0])
            return method(self, address)

        return connect

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        return resolve(host, *args, **kwargs) if is_loopback(host) else refuse(host)

    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket.socket, "connect", guarded(socket.socket.connect))
    monkeypatch.setattr(socket.socket, "connect_ex", guarded(socket.socket.connect_ex))
    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    yield

    assert not reached, f"this test tried to reach {reached}"


@pytest.fixture(autouse=True)
def nothing_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """A call from our code that would block the event loop raises `BlockingError`."""
    if request.node.get_closest_marker("may_block"):
        yield
        return
    with blockbuster_ctx("millstream") as calls:
        # A lock is no I/O: ours is held for microseconds, and coverage takes one of its own in
        # every thread, which two threads that run our code at once may both want.
        for name in ("threading.Lock.acquire", "threading.Lock.acquire_lock"):
            calls.functions[name].deactivate()
        yield


@pytest.fixture(autouse=True)
def every_run_keeps_the_grammar(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[None]:
    """The log of every run that a test starts is held to `docs/grammar.md`."""
    logs = RunLogs()
    logs.watch(monkeypatch)
    yield
    mark = request.node.get_closest_marker("breaks_grammar")
    if mark is not None:
        assert mark.args, "breaks_grammar names its reason"
        return
    problems = "\n\n".join(map(str, logs.reports()))
    assert not problems, problems
