"""A chat in the terminal. Ctrl-C stops an answer, Ctrl-D leaves."""

import asyncio
import os

from millstream import Agent, Runner
from millstream.testing import ModelStep, ScriptedModel

parrot = ModelStep.respond(lambda call: f"You said: {call.input[-1]['content']}")
offline = ScriptedModel([parrot] * 1000, tokens_per_second=20)
model = None if os.environ.get("OPENAI_API_KEY") else offline

agent = Agent(name="Friend", instructions="Be brief.", model=model)
history = []


async def answer() -> None:
    async with Runner.run_streamed(agent, history) as run:
        try:
            async for piece in run.text():
                print(piece, end="", flush=True)
        finally:
            await run.aclose()  # does nothing to a run that is over
            history[:] = run.to_input_list()  # with what was said before Ctrl-C
    print()


with asyncio.Runner() as runner:  # one event loop for all turns: connections stay open
    while True:
        try:
            history.append({"role": "user", "content": input("> ")})
            runner.run(answer())
        except KeyboardInterrupt:
            print(" (stopped)")
        except EOFError:
            break
