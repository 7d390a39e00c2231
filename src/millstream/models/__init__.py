"""Models: the promise they give a run, and the adapters to the wires they speak."""

from millstream.config.defaults import get_default_model, get_default_model_settings
from millstream.models.openai_chat import OpenAIChatCompletionsModel
from millstream.models.openai_responses import OpenAIResponsesModel
from millstream.models.promise import Model, ModelProvider, ModelTracing, RawBatch
from millstream.models.provider import (
    MultiProvider,
    OpenAIProvider,
    set_default_openai_api,
    set_default_openai_client,
    set_default_openai_key,
)

__all__ = [
    "Model",
    "ModelProvider",
    "ModelTracing",
    "MultiProvider",
    "OpenAIChatCompletionsModel",
    "OpenAIProvider",
    "OpenAIResponsesModel",
    "RawBatch",
    "get_default_model",
    "get_default_model_settings",
    "set_default_openai_api",
    "set_default_openai_client",
    "set_default_openai_key",
]
