"""Servers over HTTP, in both of its forms: hosted by a real server, on loopback."""

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Any

import httpx2
import pytest
from mcp.server import MCPServer as Hosted

from millstream.errors import MCPServerError
from millstream.mcp import MCPServerSse, MCPServerStreamableHttp
from millstream.mcp.client import PROGRESS, MCPServerWithClient
from tests.mcp.kit import PATIENCE, PROGRAMS, Host, hosting, text_of
from tests.support.ports import free_port


class Way:
    """A form of HTTP: how a server is hosted in it, and reached."""

    def __init__(self, form: str) -> None:
        self.form = form
        self.path = "/sse" if form == "sse" else "/mcp"
        self.waiting = asyncio.Event()
        """Somebody has called `wait`."""
        self.cancelled = asyncio.Event()
        """And does not wait for the answer any more."""

    def host(self, port: int = 0) -> AbstractAsyncContextManager[Host]:
        options = {"stateless": {"stateless_http": True}, "json": {"json_response": True}}.get(self.form, {})
        return hosting(self._server(), sse=self.form == "sse", port=port, **options)

    def reach(self, host: Host, **params: Any) -> MCPServerWithClient[Any]:
        return self.reach_url(f"{host.url}{self.path}", **params)

    def reach_url(self, url: str, **params: Any) -> MCPServerWithClient[Any]:
        kind: Any = MCPServerSse if self.form == "sse" else MCPServerStreamableHttp
        return kind({"url": url, **params}, name="hosted", client_session_timeout_seconds=PATIENCE)

    def _server(self) -> Hosted:
        server = Hosted("hosted", log_level="CRITICAL")

        @server.tool()
        def echo(text: str) -> str:
            return text

        @server.tool()
        async def wait() -> str:
            self.waiting.set()
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
            return "never"

        return server


@pytest.fixture(params=["sse", "streamable", "stateless", "json"])
def way(request: pytest.FixtureRequest) -> Way:
    return Way(request.param)


async def test_tools_are_listed_and_called(way: Way) -> None:
    async with way.host() as host, way.reach(host) as server:
        names = [tool.name for tool in await server.list_tools()]
        said = await asyncio.gather(*(text_of(server, "echo", text=str(n)) for n in range(5)))

    assert names == ["echo", "wait"]
    assert said == list("01234")


async def test_no_task_is_left_when_a_server_was_cleaned_up(way: Way) -> None:
    async with way.host() as host, way.reach(host) as server:
        await text_of(server, "echo", text="hello")

    left = asyncio.all_tasks() - {asyncio.current_task()}
    assert [task for task in left if "_shutdown_watcher" not in repr(task)] == []  # the host's own


async def test_a_caller_who_is_cancelled_leaves_the_connection_as_it_was(way: Way) -> None:
    async with way.host() as host, way.reach(host) as server:
        call = asyncio.create_task(server.call_tool("wait", {}))
        await way.waiting.wait()
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call
        if way.form != "json":  # where the server does not look whether anybody is still there
            await way.cancelled.wait()

        assert await text_of(server, "echo", text="still there") == "still there"


@pytest.mark.slow
@pytest.mark.parametrize("form", ["sse", "streamable-http"])
async def test_a_server_that_is_killed_in_mid_call_fails_it_and_is_reached_again_when_it_is_back(
    form: str,
) -> None:
    way = Way(form)
    server = way.reach_url(f"http://127.0.0.1:{(port := free_port())}{way.path}")
    waiting = asyncio.Event()
    token = PROGRESS.set(progress_sets(waiting))
    async with hosted_elsewhere(form, port):
        call = asyncio.create_task(server.call_tool("wait", {}))
        await waiting.wait()
    with pytest.raises(MCPServerError, match="the connection was lost"):
        await call
    with pytest.raises(MCPServerError, match="could not be reached"):
        await server.list_tools()

    PROGRESS.reset(token)
    async with hosted_elsewhere(form, port):
        assert await text_of(server, "add", a=1, b=2) == "3"
        await server.cleanup()


async def test_nobody_at_the_url_is_an_error_that_says_what_to_check(way: Way) -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/mcp?key=hunter2"
        server = way.reach_url(url)
        with pytest.raises(
            MCPServerError, match=r"could not be reached .* Check that it runs at its url"
        ) as failed:
            await server.list_tools()

    assert "hunter2" not in str(failed.value)


async def test_a_status_that_is_an_error_is_told(way: Way) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        await send({"type": "http.response.start", "status": 401, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with Host(refuse).running() as host:
        with pytest.raises(MCPServerError, match="HTTP status 401"):
            await way.reach(host).list_tools()


async def test_headers_and_timeouts_are_those_of_the_params(way: Way) -> None:
    seen: list[Any] = []

    def factory(headers: Any = None, timeout: Any = None, auth: Any = None) -> httpx2.AsyncClient:
        seen.append((headers, timeout.connect, timeout.read, auth))
        return httpx2.AsyncClient(headers=headers, timeout=timeout, auth=auth, verify=False)

    async with way.host() as host:
        params = {"headers": {"X-Key": "k"}, "timeout": 30, "sse_read_timeout": 60}
        async with way.reach(host, **params, httpx_client_factory=factory) as server:
            assert await text_of(server, "echo", text="hello") == "hello"

    assert seen == [({"X-Key": "k"}, 30, 60, None)]


async def test_a_session_that_the_server_has_forgotten_is_begun_again() -> None:
    sessions = Sessions()
    async with Host(sessions).running() as host:
        server = MCPServerStreamableHttp({"url": host.url})
        await server.connect()
        first = server.session_id
        sessions.known.clear()

        result = await server.call_tool("count", {})
        await server.cleanup()

    assert first == "session-1"
    assert server.session_id == "session-2"
    assert result.content[0].text == "called 1 times"  # pyright: ignore[reportAttributeAccessIssue]
    assert sessions.known == set()  # the one that there was at the end was said goodbye to


class Sessions:
    """A server of the older protocol, by hand: it keeps sessions, and answers 404 to those it does not know."""

    def __init__(self) -> None:
        self.known: set[str] = set()
        self._begun = self._called = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        session = dict(scope["headers"]).get(b"mcp-session-id", b"").decode()
        message = json.loads((await receive())["body"] or "{}")
        status, result = self._answer(scope["method"], session, message.get("method"))
        headers = [(b"content-type", b"application/json")]
        if message.get("method") == "initialize":
            headers.append((b"mcp-session-id", f"session-{self._begun}".encode()))
        reply = {"jsonrpc": "2.0", "id": message.get("id"), "result": result}
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": json.dumps(reply).encode() if result else b""})

    def _answer(self, verb: str, session: str, method: str | None) -> tuple[int, Any]:
        if method == "initialize":
            self._begun += 1
            self.known.add(f"session-{self._begun}")
            about = {"name": "sessions", "version": "1"}
            return 200, {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": about}
        if session not in self.known:
            return 404, None
        if verb == "DELETE":
            self.known.remove(session)
        if method == "tools/call":
            self._called += 1
            return 200, {"content": [{"type": "text", "text": f"called {self._called} times"}]}
        if method == "tools/list":
            return 200, {"tools": [{"name": "count", "inputSchema": {"type": "object"}}]}
        return {"GET": 405, "DELETE": 200}.get(verb, 202), None


def progress_sets(event: asyncio.Event) -> Any:
    async def tell(progress: float, total: float | None, message: str | None) -> None:
        event.set()

    return tell


@contextlib.asynccontextmanager
async def hosted_elsewhere(form: str, port: int, **environment: str) -> AsyncIterator[None]:
    """`of_the_package.py` as a program that listens at `port`. It is killed at the end."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(PROGRAMS / "of_the_package.py"), form, str(port), env=os.environ | environment
    )
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(ConnectionRefusedError):
                    _, writer = await asyncio.open_connection("127.0.0.1", port)
                    writer.close()
                    break
                await asyncio.sleep(0)
        yield
    finally:
        process.kill()
        await process.wait()
