"""The demo loop: a conversation at the terminal."""

import builtins
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import openai.types.responses  # noqa: F401  # before the loop starts
import pytest

from millstream import Agent, MaxTurnsExceeded, run_demo_loop, tool
from millstream.testing import ScriptedModel, assistant_message, function_call


@pytest.fixture
def types(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """What the user types, line by line; then the input ends."""

    def types(*lines: str | type[BaseException]) -> None:
        left = iter(lines)

        def answer(prompt: str = "") -> str:
            line = next(left, EOFError)
            if not isinstance(line, str):
                raise line
            print(f"{prompt}{line}")
            return line

        monkeypatch.setattr(builtins, "input", answer)

    return types


@tool
def look(x: int) -> str:
    """Look."""
    return f"found {x}"


def desk() -> tuple[Agent[Any], ScriptedModel]:
    model = ScriptedModel(["b here", "b again"])
    script = [
        "hello",
        [assistant_message("wait"), function_call("look", {"x": 1}, call_id="c")],
        [function_call("transfer_to_b", call_id="h")],
    ]
    first = Agent(
        name="A", tools=[look], model=ScriptedModel(script), handoffs=[Agent(name="B", model=model)]
    )
    return first, model


@pytest.mark.parametrize("stream", [True, False])
async def test_the_user_is_asked_about_calls_that_need_approval(
    stream: bool, types: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    sold: list[str] = []

    @tool(needs_approval=True)
    async def sell(item: str) -> str:
        sold.append(item)
        return f"sold {item}"

    steps = [[function_call("sell", {"item": item}, call_id=item) for item in ("a", "b", "c")], "All done."]
    types("sell it all", "y", "no", EOFError, "exit")

    await run_demo_loop(Agent(name="A", tools=[sell], model=ScriptedModel(steps)), stream=stream)

    printed = capsys.readouterr().out
    assert sold == ["a"]
    assert "All done." in printed
    assert printed.count("[y/N]") == 2  # at the third the input had ended


@pytest.mark.parametrize("stream", [True, False])
async def test_who_was_handed_over_to_goes_on_with_the_whole_history(
    stream: bool, types: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    types("hi", "", "  ", " second ", "third", "Exit", "unheard")
    agent, model = desk()

    await run_demo_loop(agent, stream=stream)

    printed = capsys.readouterr().out
    assert [line for line in ("hello", "b here", "b again", "unheard") if line in printed] == [
        "hello", "b here", "b again",
    ]  # fmt: skip
    assert ("look(x=1)" in printed) is stream
    said = [item["content"] for item in model.calls[-1].input if item.get("role") == "user"]
    assert said == ["hi", "second", "third"]


@pytest.mark.parametrize("end", ["quit", EOFError, KeyboardInterrupt])
async def test_the_conversation_ends_when_the_user_wishes(end: Any, types: Any) -> None:
    types(end)

    await run_demo_loop(Agent(name="A", model=ScriptedModel()))


@pytest.mark.parametrize("stream", [True, False])
async def test_what_a_run_fails_with_ends_the_conversation(stream: bool, types: Any) -> None:
    types("hi", "second")
    agent, _ = desk()

    with pytest.raises(MaxTurnsExceeded):
        await run_demo_loop(agent, stream=stream, max_turns=1)


async def test_the_context_is_the_programs_own(types: Any) -> None:
    types("hi")
    seen: list[Any] = []
    agent = Agent(
        name="A", instructions=lambda ctx, agent: seen.append(ctx.context), model=ScriptedModel(["x"])
    )

    await run_demo_loop(agent, context="mine")

    assert seen == ["mine"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_at_the_prompt_ends_it_at_once() -> None:
    program = (
        "import asyncio; from millstream import Agent, run_demo_loop; from millstream.testing import ScriptedModel\n"
        "asyncio.run(run_demo_loop(Agent(name='A', model=ScriptedModel())))\n"
        "print('after')"
    )
    process = subprocess.Popen(
        [sys.executable, "-u", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None

    assert process.stdout.read(3) == " > "
    process.send_signal(signal.SIGINT)

    printed, _ = process.communicate(timeout=30)
    assert (process.returncode, printed) == (0, "\nafter\n")
