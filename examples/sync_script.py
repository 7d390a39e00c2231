"""No event loop of your own: for scripts, notebooks, Streamlit."""

import os

from millstream import Agent, Runner
from millstream.testing import ScriptedModel

SCRIPT = ["One word at a time, in a plain for loop.", "And this one came whole."]
model = None if os.environ.get("OPENAI_API_KEY") else ScriptedModel(SCRIPT, tokens_per_second=20)

agent = Agent(name="Writer", instructions="One sentence.", model=model)

with Runner.run_streamed_sync(agent, "Stream something") as stream:
    for piece in stream.text():
        print(piece, end="", flush=True)
print()

print(Runner.run_sync(agent, "Again, at once").final_output)
