"""The default model, and the settings that suit a model."""

import pytest

from millstream.config.defaults import (
    DEFAULT_MODEL,
    get_default_model,
    get_default_model_settings,
    gpt_5_reasoning_settings_required,
    is_gpt_5_default,
)


@pytest.mark.parametrize(
    ("model", "effort"),
    [
        ("gpt-5", "low"),
        ("gpt-5-2025-08-07", "low"),
        ("gpt-5-mini", None),
        ("gpt-5.1", "none"),
        ("gpt-5.1-2025-11-13", "none"),
        ("gpt-5.2-pro", "medium"),
        (DEFAULT_MODEL, "none"),
    ],
)
def test_models_that_reason_are_told_to_be_brief(model: str, effort: str | None) -> None:
    settings = get_default_model_settings(model)

    assert gpt_5_reasoning_settings_required(model)
    assert settings.verbosity == "low"
    assert (settings.reasoning and settings.reasoning.effort) == effort


@pytest.mark.parametrize("model", ["gpt-4.1", "gpt-5-chat-latest", "gpt-5.1-chat-latest", "o3", "llama"])
def test_other_models_are_left_alone(model: str) -> None:
    settings = get_default_model_settings(model)

    assert not gpt_5_reasoning_settings_required(model)
    assert (settings.reasoning, settings.verbosity) == (None, None)


def test_the_environment_names_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_gpt_5_default()
    assert get_default_model_settings().verbosity == "low"

    monkeypatch.setenv("OPENAI_DEFAULT_MODEL", "GPT-4.1")

    assert get_default_model() == "gpt-4.1"
    assert not is_gpt_5_default()
