import subprocess
import sys
from typing import Any

import pytest

from millstream import Agent, MemoryLog, Runner, UserError, to_sse, to_websocket
from millstream.delivery import sse_frames
from millstream.errors import MissingExtraError
from millstream.testing import ScriptedModel
from tests.delivery.serving import greeting

AGENT = Agent(name="A", model=ScriptedModel(["Hello."] * 10))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"after": -1}, "after=-1: positions count from 1"),
        ({"after": 1.5}, "after=1.5 is no position"),
        ({"after": True}, "after=True is no position"),
        ({"types": "tool.started"}, r"types=\['tool.started'\]"),
        ({"types": ["tool.begun"]}, "'tool.begun', which is the type of no event.*tool.started"),
        ({"types": [["tool.started"]]}, "which is the type of no event"),
        ({"types": 3}, "a list of names"),
        ({"depth": -1}, "depth=-1: a number of levels"),
        ({"depth": True}, "depth=True: a number of levels"),
        ({"heartbeat": 0}, "heartbeat=0: a number of seconds"),
        ({"send_timeout": float("inf")}, "send_timeout=inf: a number of seconds"),
        ({"send_timeout": "30"}, "send_timeout='30': a number of seconds"),
        ({"on_disconnect": "stop"}, "neither 'continue' nor 'cancel'"),
    ],
)
async def test_an_option_that_cannot_work_is_refused_at_once_by_name(
    options: dict[str, Any], told: str
) -> None:
    run = greeting()

    with pytest.raises(UserError, match=told):
        to_sse(run, **options)

    await run


async def test_the_handle_itself_is_wanted_and_nothing_made_of_it() -> None:
    for given, hint in [
        (greeting().stream_events(), r"without \.stream_events\(\)"),
        (Runner.run(AGENT, "Hi"), r"not Runner\.run\(\.\.\.\)"),
        (await Runner.run(AGENT, "Hi"), "not RunResult"),
        (Runner.attach("run_1", log=MemoryLog()), r"served by millstream\.server\.create_app"),
        ("Hello", "not str"),
    ]:
        for door in (to_sse, sse_frames):
            with pytest.raises(UserError, match=rf"takes the handle that Runner\.run_streamed.*{hint}"):
                door(given)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r"to_websocket\(\) takes the handle"):
        await to_websocket("Hello", "")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def test_without_starlette_to_sse_says_what_to_install_and_frames_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "starlette"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "millstream.delivery.response", raising=False)
    monkeypatch.setitem(sys.modules, "starlette", None)
    run = greeting()

    with pytest.raises(MissingExtraError, match=r'pip install "millstream\[server\]"'):
        to_sse(run)

    assert b"run.completed" in b"".join([frame async for frame in sse_frames(run)])


@pytest.mark.slow
def test_the_package_does_not_import_starlette() -> None:
    code = "import sys, millstream; print('starlette' in sys.modules)"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"
