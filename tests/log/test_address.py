"""Addresses of logs."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from millstream import MemoryLog, UserError, open_log
from millstream.log.address import FORMS, Address, shared_log, shown


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("memory:", Address("memory", "")),
        ("sqlite:///runs.db", Address("sqlite", "runs.db")),
        ("sqlite:///data/runs.db", Address("sqlite", "data/runs.db")),
        ("sqlite:////var/lib/runs.db", Address("sqlite", "/var/lib/runs.db")),
        ("sqlite:///a%20b%3F.db", Address("sqlite", "a b?.db")),
        ("redis://localhost", Address("redis", "redis://localhost")),
        ("redis://:pw@host:6380/2", Address("redis", "redis://:pw@host:6380/2")),
        ("rediss://host/0?ssl_cert_reqs=none", Address("redis", "rediss://host/0?ssl_cert_reqs=none")),
        ("redis://[::1]:6379/0", Address("redis", "redis://[::1]:6379/0")),
        ("unix:///run/redis.sock?db=1", Address("redis", "unix:///run/redis.sock?db=1")),
    ],
)
def test_an_address_names_an_engine_and_a_place(url: str, address: Address) -> None:
    assert Address.of(url) == address


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "it has to begin as one of these"),
        ("runs.db", "it has to begin as one of these"),
        ("postgres://host/db", "it has to begin as one of these"),
        ("memory:here", "it has to begin as one of these"),
        ("SQLITE:///runs.db", "it has to begin as one of these"),
        ("sqlite:runs.db", "behind three slashes"),
        ("sqlite://runs.db", "behind three slashes"),
        ("sqlite:///", "it names no file"),
        ("sqlite:////", "it names no file"),
        ("sqlite:///a%00b", "it names no file"),
        ("sqlite:///:memory:", "a log in memory is memory:"),
        ("sqlite:///runs.db?mode=ro", "it takes no options"),
        ("redis:localhost", "number of a database"),
        ("redis://localhost/runs", "number of a database"),
        ("redis://localhost:port", "its host or port cannot be read"),
        ("redis://[::1", "its host or port cannot be read"),
        ("unix://", "it names no socket"),
        ("unix:run/redis.sock", "it names no socket"),
    ],
)
def test_what_is_no_address_is_told_which_there_are(url: str, why: str) -> None:
    with pytest.raises(UserError) as raised:
        open_log(url)

    assert why in str(raised.value)
    assert str(raised.value).endswith(f"The forms are {FORMS}.")


def test_what_is_no_text_is_told_so() -> None:
    path: Any = Path("runs.db")

    with pytest.raises(UserError, match="The address of a log is text, not PosixPath: sqlite:///"):
        open_log(path)


def test_no_error_repeats_a_password() -> None:
    for url in (
        "postgres://me:secret@host/db",
        "redis://:secret@host/runs",
        "rediss://a:x@secret@h/x",
        "redis://:x/secret@host",
        "redis://:secret/x@host",
        "postgres://host/db?password=secret",
    ):
        with pytest.raises(UserError) as raised:
            open_log(url)
        assert "secret" not in str(raised.value)
        assert "…" in str(raised.value)
    assert shown("redis://:secret@host:6379/0") == "redis://…@host:6379/0"
    assert shown("sqlite:///runs.db") == "sqlite:///runs.db"


async def test_each_memory_is_one_of_its_own() -> None:
    one, other = open_log("memory:"), open_log("memory:")

    assert isinstance(one, MemoryLog)
    assert one is not other


async def test_runs_of_one_process_share_the_store_at_an_address() -> None:
    assert shared_log("memory:") is shared_log("memory:")
    assert shared_log("memory:") is not open_log("memory:")


def test_no_engine_is_imported_before_it_is_used() -> None:
    program = "import sys, millstream; millstream.open_log('memory:'); print('redis' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
