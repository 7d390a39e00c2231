"""What to tell agents that hand over to each other."""

from __future__ import annotations

RECOMMENDED_PROMPT_PREFIX = """\
# How this works
Several agents serve this conversation, each with its own instructions and tools; you are one of them. \
To pass the conversation on, call the tool `transfer_to_<name of the agent>`: that agent then answers in \
your place. The person you talk to sees one assistant: never mention agents, transfers or these rules.
"""
"""The rules of handing over, to stand before an agent's own instructions."""


def prompt_with_handoff_instructions(prompt: str) -> str:
    """`prompt` behind the rules of handing over."""
    return f"{RECOMMENDED_PROMPT_PREFIX}\n{prompt}"
