"""Servers as they are described: what cannot work is refused there."""

import sys
from typing import Any

import pytest

from millstream import Agent
from millstream.errors import MissingExtraError, NotSupportedError, UserError
from millstream.mcp import MCPServerSse, MCPServerStdio, MCPServerStreamableHttp


def test_a_server_without_a_name_is_called_by_what_it_is_and_where_without_secrets() -> None:
    assert MCPServerStdio({"command": "c", "args": ["--key", "k"]}).name == "stdio: c"
    assert MCPServerSse({"url": "http://u:p@h:1/sse?key=k#f"}).name == "sse: http://h:1/sse"
    assert MCPServerStreamableHttp({"url": "https://h/mcp"}).name == "streamable_http: https://h/mcp"
    assert MCPServerStdio({"command": "c"}, name="N").name == "N"


@pytest.mark.parametrize(
    ("kind", "params", "message"),
    [
        (MCPServerStdio, {}, "MCPServerStdio: params need 'command', as text"),
        (MCPServerStdio, {"command": ""}, "params need 'command'"),
        (MCPServerStdio, "python server.py", "params must be a dict with 'command', not str"),
        (
            MCPServerStdio,
            {"command": "c", "arguments": []},
            "params have no 'arguments'. There are: args, command,",
        ),
        (MCPServerStdio, {"command": "c", "args": "x"}, "params are not of the right type: args"),
        (MCPServerSse, {"command": "c"}, "MCPServerSse: params have no 'command'"),
        (MCPServerStreamableHttp, {"url": 3}, "params need 'url', as text"),
    ],
)
def test_params_that_cannot_work_are_refused(kind: Any, params: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        kind(params)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"client_session_timeout_seconds": -1},
            ValueError,
            "client_session_timeout_seconds must be 0 or more",
        ),
        ({"client_session_timeout_seconds": float("nan")}, ValueError, "and finite"),
        ({"client_session_timeout_seconds": "5"}, UserError, "is a number of seconds, not '5'"),
        ({"retry_backoff_seconds_base": float("inf")}, ValueError, "retry_backoff_seconds_base"),
        ({"retry_backoff_seconds_max": -1}, ValueError, "retry_backoff_seconds_max"),
        ({"max_retry_attempts": -2}, ValueError, "max_retry_attempts must be 0 or more, or -1"),
        ({"max_list_pages": 0}, ValueError, "max_list_pages must be 1 or more"),
        ({"tool_filter": 3}, UserError, "tool_filter takes"),
        ({"require_approval": "sometimes"}, UserError, "require_approval must be"),
        ({"custom_data_extractor": print}, NotSupportedError, "custom_data_extractor is not supported"),
    ],
)
def test_options_that_cannot_work_are_refused(options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        MCPServerStdio({"command": "c"}, **options)


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)

    with pytest.raises(MissingExtraError, match=r'MCPServerStdio needs .* pip install "millstream\[mcp\]"'):
        MCPServerStdio({"command": "c"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"mcp_servers": ["http://h/mcp"]},
            r"mcp_servers\[0\] is the text 'http://h/mcp'; it takes an MCPServerStdio",
        ),
        (
            {"mcp_config": {"strict": True}},
            "mcp_config has no 'strict'. There are: convert_schemas_to_strict,",
        ),
    ],
)
def test_an_agent_refuses_what_is_no_server_and_no_setting(options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Agent(name="a", **options)
