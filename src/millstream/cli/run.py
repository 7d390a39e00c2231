"""`millstream run`: one run, shown as it goes."""

from __future__ import annotations

import argparse
import contextlib
import os
from typing import TYPE_CHECKING, Any

from millstream.cli.problem import Problem, say
from millstream.cli.prompt import read_prompt

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.config import RunConfig
    from millstream.result import RunResultStreaming
    from millstream.run_state import RunState

NAME = "run"
HELP = "run an agent and show what it does as it happens"
EPILOG = """\
examples:
  millstream run "Why is the sky blue?"
  millstream run app.py "Plan my trip"       `agent` in app.py, or its only one
  millstream run app.py:planner "Lyon"       another agent of app.py
  millstream run shop.agents:clerk "Hello"   an agent of a Python module
  git diff | millstream run "Review this:"   what is piped in follows the prompt
  millstream run --json "Hi" | jq .event     its log, one JSON object a line
  millstream run -q "A haiku" > haiku.txt    only the text
  millstream run app.py --store sqlite:///runs.db "Plan my trip"
                                             kept there: see millstream runs

Ctrl-C stops the run and shows what it left; a second one leaves at once.
"""

DEFAULT_INSTRUCTIONS = (
    "You are a helpful assistant. Your answer is read in a terminal: plain text, to the point."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the command takes."""
    # Not imported until a command line is parsed for real work: see `show`.
    from millstream.cli.show import add_style_arguments
    from millstream.cli.store import add_store_argument

    parser.add_argument(
        "words", nargs="*", metavar="[APP] PROMPT", help="the agent to run, and what to tell it"
    )
    add_agent_arguments(parser)
    add_store_argument(parser, "keep the run there, such as in sqlite:///runs.db (also: MILLSTREAM_STORE)")
    add_style_arguments(parser)


def add_agent_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that say how the agent is run."""
    parser.add_argument(
        "-m", "--model", metavar="NAME", help="the model of every agent (scripted: none at all)"
    )
    parser.add_argument("--api", choices=["responses", "chat"], help="the API that the model's server speaks")
    parser.add_argument("--offline", action="store_true", help="use the scripted model, whatever is there")
    parser.add_argument(
        "-i", "--instructions", metavar="TEXT", help="what the agent is told first (without an APP)"
    )
    parser.add_argument(
        "--max-turns", type=_turns, metavar="N", help="how often models may be asked (default 10)"
    )


def run(args: argparse.Namespace) -> int:
    """Run the command; the exit code."""
    from millstream.cli.loading import names_app
    from millstream.cli.show import show
    from millstream.cli.store import address_of, opened
    from millstream.log.address import shown

    words: list[str] = list(args.words)
    app = words.pop(0) if words and names_app(words[0]) else None
    check_instructions(app, args.instructions)
    prompt = read_prompt(words)
    agent = agent_of(app, args.instructions)
    store = address_of(args)
    used = contextlib.AsyncExitStack()
    configs: list[RunConfig] = []
    handles: list[RunResultStreaming] = []

    async def start() -> RunResultStreaming:
        from millstream.cli.chosen import choose_models
        from millstream.config import RunConfig
        from millstream.runner import Runner

        log = None if store is None else await used.enter_async_context(opened(store))
        chosen = await choose_models(agent, os.environ, model=args.model, api=args.api, offline=args.offline)
        used.push_async_callback(chosen.provider.aclose)
        for line in chosen.told:
            say(line)
        config = RunConfig(model=chosen.for_all, model_provider=chosen.provider, log=log)
        configs.append(config)
        options = {} if args.max_turns is None else {"max_turns": args.max_turns}
        handle = Runner.run_streamed(agent, prompt, run_config=config, **options)
        handles.append(handle)
        if store is not None:
            say(f"run: {handle.run_id} in {shown(store)}")
        return handle

    def go_on(state: RunState[Any, Any]) -> RunResultStreaming:
        from millstream.runner import Runner

        handles.append(Runner.run_streamed(agent, state, run_config=configs[0]))
        return handles[-1]

    code = show(start, args, go_on=go_on, close=used.aclose)
    if store is not None and handles and handles[-1].interruptions:
        say(
            f"it is kept, and can be decided over: millstream approve {handles[-1].run_id} --store {shown(store)}"
        )
    return code


def _turns(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of turns (1, 2, …)")
    return int(text)


def check_instructions(app: str | None, instructions: str | None) -> None:
    """See to it that not both are given.

    Raises:
        Problem: they are.
    """
    if app is not None and instructions is not None:
        raise Problem("--instructions is for a run without an app.", f"{app} has instructions of its own.")


def agent_of(app: str | None, instructions: str | None) -> Agent[Any]:
    """The agent of `app`, or else a plain assistant.

    Raises:
        Problem: there is no such app, or it has no such agent.
    """
    from millstream.agent import Agent
    from millstream.cli.loading import load_agent

    if app is not None:
        return load_agent(app)
    return Agent(name="Assistant", instructions=instructions or DEFAULT_INSTRUCTIONS)
