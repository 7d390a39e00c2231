"""The model that an agent without one asks, and the settings that suit a model best."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millstream.config.settings import ModelSettings

DEFAULT_MODEL = "gpt-5.6-luna"
"""What `get_default_model()` says while `OPENAI_DEFAULT_MODEL` is not set: the OpenAI Agents SDK's default."""

_REASONS = re.compile(r"gpt-5(?!.*chat)")
_DATE = re.compile(r"-\d{4}-\d{2}-\d{2}$")
_AT_ONCE = frozenset(
    {
        "gpt-5.1",
        "gpt-5.2",
        "gpt-5.3-codex",
        "gpt-5.4",
        "gpt-5.4-mini",
        "gpt-5.4-nano",
        "gpt-5.5",
        "gpt-5.6",
        "gpt-5.6-luna",
        "gpt-5.6-sol",
    }
)
_EFFORT: dict[str, Any] = dict.fromkeys(_AT_ONCE, "none") | {
    "gpt-5": "low",
    "gpt-5.2-codex": "low",
    "gpt-5.2-pro": "medium",
    "gpt-5.4-pro": "medium",
}


def get_default_model() -> str:
    """The name of the model that is asked where none is named."""
    return os.environ.get("OPENAI_DEFAULT_MODEL", "").strip().lower() or DEFAULT_MODEL


def gpt_5_reasoning_settings_required(model_name: str) -> bool:
    """Whether the model is one of those that reason, which take other settings than those that chat."""
    return _REASONS.match(model_name) is not None


def is_gpt_5_default() -> bool:
    """Whether the default model is one that reasons."""
    return gpt_5_reasoning_settings_required(get_default_model())


def get_default_model_settings(model: str | None = None) -> ModelSettings:
    """Settings that make a model answer quickly and to the point; none for models that chat.

    Args:
        model: the model's name; the default one if left out.
    """
    from openai.types.shared import Reasoning

    from millstream.config.settings import ModelSettings

    name = get_default_model() if model is None else model
    if not gpt_5_reasoning_settings_required(name):
        return ModelSettings()
    effort = _EFFORT.get(_DATE.sub("", name))
    return ModelSettings(reasoning=Reasoning(effort=effort) if effort else None, verbosity="low")
