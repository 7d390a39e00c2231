"""MCP: tools of servers that speak the Model Context Protocol. Needs the extra `mcp`."""

from __future__ import annotations

from millstream.mcp.approval import (
    LocalMCPApprovalCallable,
    RequireApprovalMapping,
    RequireApprovalObject,
    RequireApprovalPolicy,
    RequireApprovalSetting,
    RequireApprovalToolList,
)
from millstream.mcp.filters import (
    ToolFilter,
    ToolFilterCallable,
    ToolFilterContext,
    ToolFilterStatic,
    create_static_tool_filter,
)
from millstream.mcp.manager import MCPServerManager
from millstream.mcp.promise import MCPServer, MCPToolMetaContext, MCPToolMetaResolver
from millstream.mcp.servers import (
    HttpClientFactory,
    MCPServerSse,
    MCPServerSseParams,
    MCPServerStdio,
    MCPServerStdioParams,
    MCPServerStreamableHttp,
    MCPServerStreamableHttpParams,
)
from millstream.mcp.tools import MCPUtil

__all__ = [
    "HttpClientFactory",
    "LocalMCPApprovalCallable",
    "MCPServer",
    "MCPServerManager",
    "MCPServerSse",
    "MCPServerSseParams",
    "MCPServerStdio",
    "MCPServerStdioParams",
    "MCPServerStreamableHttp",
    "MCPServerStreamableHttpParams",
    "MCPToolMetaContext",
    "MCPToolMetaResolver",
    "MCPUtil",
    "RequireApprovalMapping",
    "RequireApprovalObject",
    "RequireApprovalPolicy",
    "RequireApprovalSetting",
    "RequireApprovalToolList",
    "ToolFilter",
    "ToolFilterCallable",
    "ToolFilterContext",
    "ToolFilterStatic",
    "create_static_tool_filter",
]
