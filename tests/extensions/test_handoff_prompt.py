"""The prompt of agents that hand over."""

from millstream.extensions.handoff_prompt import RECOMMENDED_PROMPT_PREFIX, prompt_with_handoff_instructions


def test_the_rules_stand_before_the_agents_own_instructions() -> None:
    prompt = prompt_with_handoff_instructions("You sell tea.")

    assert prompt.startswith(RECOMMENDED_PROMPT_PREFIX)
    assert prompt.endswith("\nYou sell tea.")
    assert "transfer_to_" in RECOMMENDED_PROMPT_PREFIX
