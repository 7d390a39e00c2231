"""Hosted tools on the wire, as the SDK sends them."""

from typing import Any

import pytest
from pydantic import BaseModel

from millstream.tool import (
    CodeInterpreterTool,
    FileSearchTool,
    HostedMCPTool,
    HostedTool,
    ImageGenerationTool,
    WebSearchTool,
)


class Filters(BaseModel):
    allowed_domains: list[str] | None = None
    blocked_domains: list[str] | None = None


WEB = {"type": "web_search", "filters": None, "user_location": None, "search_context_size": "medium"}
MCP: Any = {"type": "mcp", "server_label": "x", "server_url": "http://127.0.0.1/x"}


@pytest.mark.parametrize(
    ("tool", "name", "wire"),
    [
        (WebSearchTool(), "web_search", WEB),
        (
            WebSearchTool(
                user_location={"type": "approximate", "city": "x"},
                filters=Filters(allowed_domains=["a"]),
                search_context_size="low",
                external_web_access=False,
            ),
            "web_search",
            WEB
            | {
                "user_location": {"type": "approximate", "city": "x"},
                "filters": {"allowed_domains": ["a"]},
                "search_context_size": "low",
                "external_web_access": False,
            },
        ),
        (
            WebSearchTool(image_settings={"max_results": 2}),
            "web_search",
            WEB | {"image_settings": {"max_results": 2}},
        ),
        (FileSearchTool(["a"]), "file_search", {"type": "file_search", "vector_store_ids": ["a"]}),
        (
            FileSearchTool(["a"], 3, True, {"ranker": "auto"}, {"type": "eq", "key": "a", "value": "b"}),
            "file_search",
            {
                "type": "file_search",
                "vector_store_ids": ["a"],
                "max_num_results": 3,
                "ranking_options": {"ranker": "auto"},
                "filters": {"type": "eq", "key": "a", "value": "b"},
            },
        ),
        (
            CodeInterpreterTool({"type": "code_interpreter", "container": {"type": "auto"}}),
            "code_interpreter",
            {"type": "code_interpreter", "container": {"type": "auto"}},
        ),
        (ImageGenerationTool({"type": "image_generation"}), "image_generation", {"type": "image_generation"}),
        (HostedMCPTool(MCP), "hosted_mcp", MCP),
    ],
)
def test_a_hosted_tool_is_passed_through(tool: HostedTool, name: str, wire: dict[str, Any]) -> None:
    assert (tool.name, tool.to_responses_tool()) == (name, wire)


@pytest.mark.parametrize(
    ("tool", "includes"),
    [
        (WebSearchTool(), []),
        (WebSearchTool(search_content_types=["image"]), ["web_search_call.results"]),
        (FileSearchTool(["a"]), []),
        (FileSearchTool(["a"], include_search_results=True), ["file_search_call.results"]),
        (CodeInterpreterTool({"type": "code_interpreter", "container": "c"}), []),
        (ImageGenerationTool({"type": "image_generation"}), []),
        (HostedMCPTool(MCP), []),
    ],
)
def test_a_request_is_told_what_to_include(tool: HostedTool, includes: list[str]) -> None:
    assert tool.includes == includes
