"""`LitellmModel`, at its place in the OpenAI Agents SDK. Importing this needs the extra `litellm`."""

from millstream.models.litellm import LitellmModel, require_litellm

require_litellm(__name__)

__all__ = ["LitellmModel"]
