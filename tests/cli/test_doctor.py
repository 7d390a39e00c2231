"""`millstream doctor`: the program in this process, the server on a thread, and once at a terminal."""

import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Iterator

import openai.types.responses  # noqa: F401  # reads files when first imported, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog
from millstream.cli import exits, program
from millstream.server import create_app
from millstream.testing import ScriptedModel
from tests.cli.on_thread import TOKEN, OnThread, by_token
from tests.cli.program import at_terminal
from tests.client.between import between
from tests.server.kit import serving


class Served(OnThread):
    """A server, and a proxy before it that buffers."""

    url = buffered = ""

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        agent = Agent(name="Poet", model=ScriptedModel(["Streams run."]))
        app = create_app(agent, access=by_token, log=MemoryLog(), heartbeat=1.0)
        async with serving(app) as direct, between(direct.base_url.port, collects=True) as buffered:
            self.url, self.buffered = str(direct.base_url).rstrip("/"), buffered
            yield


@pytest.fixture
def served(caplog: pytest.LogCaptureFixture) -> Iterator[Served]:
    caplog.set_level(logging.CRITICAL, "uvicorn")
    with Served() as server:
        yield server


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """What the program says, when it is run here."""
    code = program.run(["doctor", *arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_all_that_is_well_is_told_line_by_line(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = said(capsys, served.url, "--token", TOKEN)

    *lines, empty, summary = out.splitlines()
    assert (code, err, empty) == (exits.OK, "", "")
    assert summary == f"{served.url}: no problems, no warnings."
    assert {line.split()[0] for line in lines} == {"ok"}
    assert {"server", "access", "buffering", "heartbeat", "connection", "clock"} <= {
        line.split()[1] for line in lines
    }


def test_a_problem_is_told_with_its_remedy_and_by_the_exit_code(
    served: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILLSTREAM_URL", served.buffered)
    monkeypatch.setenv("MILLSTREAM_TOKEN", TOKEN)

    code, out, _ = said(capsys)

    lines = out.splitlines()
    (found,) = [number for number, line in enumerate(lines) if line.startswith("problem")]
    assert code == exits.FAILED
    assert "Frames that were sent over" in lines[found]
    assert "proxy_buffering off" in lines[found + 1]
    assert lines[-1].startswith(f"{served.buffered}: 1 problem, ")


def test_as_json_it_is_one_object(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = said(capsys, served.url, "--json", "--token", TOKEN, "--wait", "1.5")
    refused, told, _ = said(capsys, served.url, "--json")

    well, ill = json.loads(out), json.loads(told)
    assert (code, well["url"], well["ok"]) == (exits.OK, served.url, True)
    assert all(each.keys() == {"check", "level", "seen", "remedy"} for each in well["findings"])
    (stays,) = [each["seen"] for each in well["findings"] if each["check"] == "connection"]
    assert "stays open to its end." in stays
    assert "--wait" not in stays
    assert (refused, ill["ok"], ill["findings"][-1]["check"]) == (exits.FAILED, False, "access")
    assert "--token" in ill["findings"][-1]["remedy"]


def test_where_no_server_is_that_is_the_problem(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        code, out, err = said(capsys, url)

    assert (code, err) == (exits.FAILED, "")
    assert out.splitlines()[0] == "problem  address     Nothing takes a connection there."
    assert out.endswith(f"{url}: 1 problem, no warnings.\n")


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "which server?"),
        (["localhost:7420"], "the server cannot be asked"),
        (["http://127.0.0.1:7420", "--token", "two words"], "a token is a text"),
        (["http://127.0.0.1:7420", "--wait", "0"], "'0' is not a number of seconds from 1 to 300"),
        (["http://127.0.0.1:7420", "--wait", "x"], "'x' is not a number of seconds"),
    ],
)
def test_wrong_use_is_told_before_anything_is_asked(
    arguments: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = said(capsys, *arguments)

    assert (code, out) == (exits.USAGE, "")
    assert hint in err
    assert "two words" not in err


@pytest.mark.slow
def test_at_a_terminal_it_says_what_it_waits_for_and_folds_long_lines(served: Served) -> None:
    with at_terminal("doctor", served.buffered, "--token", TOKEN) as terminal:
        terminal.wait_for("listening to a stream of")
        terminal.wait_for("1 problem")

        assert terminal.end() == exits.FAILED

    assert "\r\x1b[K" in terminal.screen, "what was waited for is taken back"
    shown = terminal.screen.replace("\r\x1b[K", "\n")
    assert all(len(line) <= 80 for line in shown.splitlines())
