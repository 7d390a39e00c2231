import asyncio
import os
import socket
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from blockbuster import BlockingError

import millstream

MISSING_PROGRAM = """
import pytest

@pytest.mark.requires_program("no-such-program")
def test_it(): raise AssertionError("ran")
"""
FAILING_PROBE = """
import pytest

@pytest.mark.requires_program("sh", "-c", "echo not here >&2; exit 3")
def test_it(): raise AssertionError("ran")
"""
PRESENT = """
import pytest

@pytest.mark.requires_program("sh", "-c", "exit 0")
def test_it(): pass
"""


@pytest.fixture
def suite(pytester: pytest.Pytester) -> pytest.Pytester:
    """A suite of its own that has our conftest and our markers."""
    pytester.makeconftest((Path(__file__).parent / "conftest.py").read_text())
    pytester.makeini(
        "[pytest]\nmarkers =\n  requires_program: x\n  may_block: x\n  breaks_grammar: x\n"
        "asyncio_default_fixture_loop_scope = function\n"
    )
    return pytester


@pytest.mark.parametrize(
    ("source", "reason"),
    [(MISSING_PROGRAM, "*needs `no-such-program`*make deps*"), (FAILING_PROBE, "*to work: not here*")],
)
def test_a_test_without_its_program_is_skipped_with_a_remedy(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str, reason: str
) -> None:
    monkeypatch.delenv("CI", raising=False)
    suite.makepyfile(source)

    result = suite.runpytest_inprocess("-rs")

    result.assert_outcomes(skipped=1)
    result.stdout.fnmatch_lines([reason])


@pytest.mark.parametrize("source", [MISSING_PROGRAM, FAILING_PROBE])
def test_in_ci_leaving_a_test_out_is_a_failure(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setenv("CI", "true")
    suite.makepyfile(source)

    result = suite.runpytest_inprocess()

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*left out, which CI=true forbids*"])


def test_a_test_with_its_program_runs(suite: pytest.Pytester) -> None:
    suite.makepyfile(PRESENT)

    result = suite.runpytest_inprocess()

    result.assert_outcomes(passed=1)


def test_a_test_that_swallows_a_refused_connection_fails_all_the_same(suite: pytest.Pytester) -> None:
    suite.makepyfile("""
        import contextlib, socket

        def test_it():
            with contextlib.suppress(Exception):
                socket.create_connection(("192.0.2.1", 80), timeout=1)
    """)

    result = suite.runpytest_inprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*tried to reach*192.0.2.1*"])


async def test_our_code_may_not_block_the_loop(tmp_path: Path) -> None:
    source = "import time\n\ndef wait() -> None:\n    time.sleep(0.001)\n"
    ours: dict[str, Any] = {}
    theirs: dict[str, Any] = {}
    exec(compile(source, str(Path(*millstream.__path__) / "imagined.py"), "exec"), ours)
    exec(compile(source, str(tmp_path / "app.py"), "exec"), theirs)

    with pytest.raises(BlockingError):
        ours["wait"]()
    theirs["wait"]()


@pytest.mark.may_block
async def test_a_test_may_ask_to_block_it() -> None:
    ours: dict[str, Any] = {}
    source = "import time\ntime.sleep(0.001)\n"

    exec(compile(source, str(Path(*millstream.__path__) / "imagined.py"), "exec"), ours)


async def test_loopback_is_reachable() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        reader, writer = await asyncio.open_connection("localhost", port, family=socket.AF_INET)

        assert await reader.read() == b""

        writer.close()
        await writer.wait_closed()


def test_keys_and_proxies_of_the_machine_are_not_seen(suite: pytest.Pytester) -> None:
    with pytest.MonkeyPatch.context() as outside:
        outside.setenv("OPENAI_API_KEY", "sk-real")
        outside.setenv("HTTPS_PROXY", "http://proxy.invalid")
        suite.makepyfile("""
            import os, urllib.request

            def test_it():
                assert "OPENAI_API_KEY" not in os.environ
                assert "https" not in urllib.request.getproxies()
        """)

        result = suite.runpytest_inprocess()

        assert os.environ["OPENAI_API_KEY"] == "sk-real"
    result.assert_outcomes(passed=1)
    assert "https" not in urllib.request.getproxies()


A_LOG_WITHOUT_AN_END = """
import dataclasses

import pytest

from millstream import Agent, MemoryLog, RunConfig, Runner
from millstream.events import UserEvent
from millstream.testing import ScriptedModel

class Mistakes(MemoryLog):
    async def append(self, run_id, batch, *, epoch=0):
        if batch.payloads[0].type == "model.completed":
            batch = dataclasses.replace(batch, payloads=[UserEvent(name="another")])
        await super().append(run_id, batch, epoch=epoch)

MARK
def test_it():
    agent = Agent(name="A", model=ScriptedModel([[]]))
    Runner.run_sync(agent, "Hello", run_config=RunConfig(log=Mistakes()))
"""


def test_a_test_whose_run_breaks_the_grammar_fails(suite: pytest.Pytester) -> None:
    suite.makepyfile(A_LOG_WITHOUT_AN_END.replace("MARK", ""))

    result = suite.runpytest_inprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(
        ["*position 5: every_model_call_ends", "*came before model.completed of turn 1*"]
    )


@pytest.mark.parametrize(("reason", "errors"), [('"the disk is full"', 0), ("", 1)])
def test_a_test_may_break_the_grammar_for_a_reason(suite: pytest.Pytester, reason: str, errors: int) -> None:
    suite.makepyfile(A_LOG_WITHOUT_AN_END.replace("MARK", f"@pytest.mark.breaks_grammar({reason})"))

    result = suite.runpytest_inprocess()

    result.assert_outcomes(passed=1, errors=errors)


A_READER_THAT_IS_GIVEN_AN_OUTPUT_TWICE = """
import asyncio

from millstream import Agent, Runner, tool
from millstream.stream.order import EventOrder
from millstream.testing import ScriptedModel, function_call

@tool
async def weather() -> str:
    return "cold"

def test_it(monkeypatch):
    once = EventOrder._release_outputs
    monkeypatch.setattr(EventOrder, "_release_outputs", lambda self: once(self) * 2)
    model = ScriptedModel([[function_call("weather", call_id="c1")], "Cold."])

    async def main():
        async for event in Runner.run_streamed(Agent(name="A", model=model, tools=[weather]), "Hello"):
            pass

    asyncio.run(main())
"""


def test_a_test_whose_reader_is_given_what_breaks_the_grammar_fails(suite: pytest.Pytester) -> None:
    suite.makepyfile(A_READER_THAT_IS_GIVEN_AN_OUTPUT_TWICE)

    result = suite.runpytest_inprocess()

    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*tool_output of call 'c1' came: expected a call that has no output."])
