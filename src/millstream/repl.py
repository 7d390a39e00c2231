"""A conversation with an agent at the terminal, in one call."""

from __future__ import annotations

import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from millstream.config import DEFAULT_MAX_TURNS
from millstream.runner import Runner
from millstream.terminal import shorten
from millstream.terminal.screen import Screen
from millstream.terminal.view import View

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.items import TResponseInputItem
    from millstream.result import RunResult, RunResultBase, RunResultStreaming
    from millstream.run_state import RunState

_PROMPT = " > "
_ENDS = frozenset({"exit", "quit"})


async def run_demo_loop(
    agent: Agent[Any],
    *,
    stream: bool = True,
    context: Any = None,
    max_turns: int | None = DEFAULT_MAX_TURNS,
) -> None:
    """Talk with `agent` until the user types `exit` or `quit`, or ends the input.

    Where a tool needs approval, the user is asked. The history of the conversation goes along, and who was handed over to answers the next
    message. While it waits for input, nothing else runs on the event loop. For more than a
    try-out see `millstream chat`.

    Args:
        agent: who answers first.
        stream: show each run as it goes, tools and handoffs too; False prints its output only.
        context: the `context` of every run.
        max_turns: how often a model may be asked for one message.

    Raises:
        Exception: what a run failed with; the conversation is over then.
    """
    history: list[TResponseInputItem] = []
    while (message := _next_message()) is not None:
        if not message:
            continue
        history.append({"role": "user", "content": message})
        given: Any = history
        while True:
            result: RunResultBase
            if stream:
                result = await _shown(Runner.run_streamed(agent, given, context=context, max_turns=max_turns))
            else:
                result = await Runner.run(agent, given, context=context, max_turns=max_turns)
                if result.final_output is not None:
                    print(result.final_output)  # noqa: T201  # to print is what it is for
            if not result.interruptions:
                break
            given = _decided(result.to_state())
        agent, history = result.last_agent, result.to_input_list()


async def _shown(run: RunResultStreaming) -> RunResult:
    screen = Screen(sys.stdout)
    view = View(width=screen.width, tells_failure=False)
    async for entry in run.entries(after=run.begins_after):
        screen.write(view.feed(entry))
    return await run


def _decided(state: RunState[Any, Any]) -> RunState[Any, Any]:
    """`state`, with what the user says of the calls that wait: `y` approves, anything else rejects."""
    for item in state.get_interruptions():
        call = shorten.call(str(item.name), item.arguments, 200)
        try:
            answer = _interruptible_input(f"May {item.agent.name} call {call}? [y/N] ")
        except (EOFError, KeyboardInterrupt):
            answer = ""
            print()  # noqa: T201
        if answer.strip().lower() in ("y", "yes"):
            state.approve(item)
        else:
            state.reject(item)
    return state


def _next_message() -> str | None:
    """What the user typed, without the spaces around it; None where that ends the conversation."""
    try:
        message = _interruptible_input(_PROMPT).strip()
    except (EOFError, KeyboardInterrupt):
        print()  # noqa: T201  # what comes next does not begin behind the prompt
        return None
    return None if message.lower() in _ENDS else message


def _interruptible_input(prompt: str) -> str:
    # asyncio turns the first Ctrl-C into a cancellation, which a blocking `input` never sees.
    if threading.current_thread() is not threading.main_thread():
        return input(prompt)
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return input(prompt)
    finally:
        signal.signal(signal.SIGINT, handler)
