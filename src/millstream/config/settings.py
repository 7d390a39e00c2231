"""Model settings: how a model is asked."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

from pydantic_core import to_jsonable_python

from millstream.config.coerce import from_dict
from millstream.config.retry import ModelRetrySettings
from millstream.errors import UserError

if TYPE_CHECKING:
    from openai._types import Body, Headers, Query
    from openai.types.responses import ResponseIncludable
    from openai.types.shared import Reasoning


@dataclass
class MCPToolChoice:
    """Makes the model call one tool of one hosted MCP server."""

    server_label: str
    name: str


ToolChoice: TypeAlias = Literal["auto", "required", "none"] | str | MCPToolChoice
"""Whether the model calls tools, or the name of the one that it has to call."""


@dataclass
class ModelSettings:
    """How a model is asked. None, everywhere, leaves a thing to the model.

    Not every model takes every setting; what one does not take is its server's to refuse.
    """

    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    """Whether the model may call several tools in one answer."""
    truncation: Literal["auto", "disabled"] | None = None
    max_tokens: int | None = None
    """How long the answer may become."""
    reasoning: Reasoning | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    """Whether the model's host keeps the response."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None = None
    include_usage: bool | None = None
    """Chat completions: whether a stream ends with its usage. None asks for it."""
    response_include: list[ResponseIncludable | str] | None = None
    top_logprobs: int | None = None
    extra_query: Query | None = None
    extra_body: Body | None = None
    extra_headers: Headers | None = None
    extra_args: dict[str, Any] | None = None
    """Further arguments of the request, by the names that the model's API has for them."""
    retry: ModelRetrySettings | None = None
    """How a call that fails is tried again. With it, the client's own retries are off."""
    context_management: list[Any] | None = None
    prompt_cache_options: Any | None = None
    preserve_raw_usage: bool | None = None
    timeout: float | None = None
    """Seconds that one try of a model call may take, from the request to the end of the answer.

    Time in which a stream waits for us, and not we for it, does not count.
    """

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value: Any = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise UserError(f"ModelSettings.{name} is a number or None, not {type(value).__name__}.")
        if self.timeout is not None and not (self.timeout > 0 and math.isfinite(self.timeout)):
            raise UserError("ModelSettings.timeout is a number of seconds greater than 0, or None.")
        if self.retry is not None:
            self.retry = from_dict(ModelRetrySettings, self.retry, "ModelSettings.retry")
        choice: Any = self.tool_choice
        if choice is not None and not isinstance(choice, str | MCPToolChoice):
            raise UserError(
                "ModelSettings.tool_choice is 'auto', 'required', 'none', the name of a tool or an "
                f"MCPToolChoice, not {type(choice).__name__}."
            )

    def resolve(self, override: ModelSettings | None) -> ModelSettings:
        """These settings, with what `override` sets put over them; `extra_args` and `retry` are merged."""
        if override is None:
            return self
        changes = {
            f.name: value
            for f in dataclasses.fields(override)
            if (value := getattr(override, f.name)) is not None
        }
        if self.extra_args and override.extra_args:
            changes["extra_args"] = self.extra_args | override.extra_args
        if self.retry is not None and override.retry is not None:
            changes["retry"] = self.retry.resolve(override.retry)
        return dataclasses.replace(self, **changes)

    def resolve_tool_choice(self, choice: ToolChoice | None) -> ModelSettings:
        """These settings, with `choice` in place of their tool choice."""
        return dataclasses.replace(self, tool_choice=choice)

    def to_json_dict(self) -> dict[str, Any]:
        """All settings by name, as JSON values."""
        plain = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        plain["retry"] = None if self.retry is None else self.retry.to_json_dict()
        return cast("dict[str, Any]", to_jsonable_python(plain, fallback=repr))

    def to_traceable_dict(self) -> dict[str, Any]:
        """What of them may go into a trace, as JSON values: not what may carry a key, the `extra_…` settings."""
        return {name: value for name, value in self.to_json_dict().items() if name not in _UNTRACED}

    @classmethod
    def of(cls, value: Any, where: str) -> ModelSettings:
        """`value` itself if it is settings; settings made of it if it is a dict.

        Raises:
            UserError: it is neither, or it has a key that no setting has.
        """
        return from_dict(cls, value, where)


_UNTRACED = ("extra_query", "extra_body", "extra_headers", "extra_args", "preserve_raw_usage")
_NUMBERS = (
    "temperature",
    "top_p",
    "frequency_penalty",
    "presence_penalty",
    "max_tokens",
    "top_logprobs",
    "timeout",
)
