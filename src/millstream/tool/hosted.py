"""Hosted tools: descriptions of tools that the model's host runs; they are passed through to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

if TYPE_CHECKING:
    from openai.types.responses.file_search_tool_param import Filters, RankingOptions
    from openai.types.responses.tool_param import CodeInterpreter, ImageGeneration, Mcp
    from openai.types.responses.web_search_tool_param import Filters as WebSearchToolFilters
    from openai.types.responses.web_search_tool_param import UserLocation


@dataclass
class WebSearchTool:
    """Lets the model search the web."""

    user_location: UserLocation | None = None
    """Where to suppose the user, so that results suit the place."""
    filters: WebSearchToolFilters | Any | None = None
    search_context_size: Literal["low", "medium", "high"] = "medium"
    external_web_access: bool | None = None
    search_content_types: list[Literal["text", "image"]] | None = None
    image_settings: Any | None = None

    @property
    def name(self) -> str:
        """The name that the model knows it by."""
        return "web_search"

    @property
    def includes(self) -> list[str]:
        """What a request has to list under `include` for this tool's results to be whole."""
        return ["web_search_call.results"] if "image" in (self.search_content_types or ()) else []

    def to_responses_tool(self) -> dict[str, Any]:
        """The tool as the Responses API takes it."""
        optional = {
            "external_web_access": self.external_web_access,
            "search_content_types": self.search_content_types,
            "image_settings": _plain(self.image_settings),
        }
        return {
            "type": "web_search",
            "filters": _plain(self.filters),
            "user_location": self.user_location,
            "search_context_size": self.search_context_size,
        } | _given(optional)


@dataclass
class FileSearchTool:
    """Lets the model search in vector stores."""

    vector_store_ids: list[str]
    max_num_results: int | None = None
    include_search_results: bool = False
    """Whether the results themselves come back, not only what the model made of them."""
    ranking_options: RankingOptions | None = None
    filters: Filters | None = None

    @property
    def name(self) -> str:
        """The name that the model knows it by."""
        return "file_search"

    @property
    def includes(self) -> list[str]:
        """What a request has to list under `include` for this tool's results to be whole."""
        return ["file_search_call.results"] if self.include_search_results else []

    def to_responses_tool(self) -> dict[str, Any]:
        """The tool as the Responses API takes it."""
        optional = {
            "max_num_results": self.max_num_results,
            "ranking_options": self.ranking_options,
            "filters": self.filters,
        }
        return {"type": "file_search", "vector_store_ids": self.vector_store_ids} | _given(optional)


@dataclass
class CodeInterpreterTool:
    """Lets the model run code in a container."""

    tool_config: CodeInterpreter

    @property
    def name(self) -> str:
        """The name that the model knows it by."""
        return "code_interpreter"

    @property
    def includes(self) -> list[str]:
        """What a request has to list under `include`: nothing."""
        return []

    def to_responses_tool(self) -> dict[str, Any]:
        """The tool as the Responses API takes it."""
        return cast("dict[str, Any]", self.tool_config)


@dataclass
class ImageGenerationTool:
    """Lets the model make images."""

    tool_config: ImageGeneration

    @property
    def name(self) -> str:
        """The name that the model knows it by."""
        return "image_generation"

    @property
    def includes(self) -> list[str]:
        """What a request has to list under `include`: nothing."""
        return []

    def to_responses_tool(self) -> dict[str, Any]:
        """The tool as the Responses API takes it."""
        return cast("dict[str, Any]", self.tool_config)


@dataclass
class HostedMCPTool:
    """Lets the model's host call the tools of an MCP server."""

    tool_config: Mcp
    on_approval_request: Callable[[Any], Any] | None = None

    @property
    def name(self) -> str:
        """The name that the model knows it by."""
        return "hosted_mcp"

    @property
    def includes(self) -> list[str]:
        """What a request has to list under `include`: nothing."""
        return []

    def to_responses_tool(self) -> dict[str, Any]:
        """The tool as the Responses API takes it."""
        return cast("dict[str, Any]", self.tool_config)


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _plain(value: Any) -> Any:
    # The SDK takes pydantic objects of `openai.types` here; the wire takes dicts.
    return value.model_dump(exclude_none=True) if hasattr(value, "model_dump") else value
