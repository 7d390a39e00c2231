"""Many servers at once: connected before a program begins, without those that cannot be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Self

from millstream.clock import current_clock, time_limit
from millstream.mcp.promise import MCPServer

logger = logging.getLogger("millstream")


class MCPServerManager:
    """Connects servers, and cleans them up at the end: `async with MCPServerManager(servers) as manager`.

    `manager.active_servers` are those that an agent is to have. Servers connect by themselves
    where they are used; this is for a program that wants to know before it begins, and to do
    without those that are not there.

    Args:
        servers: the servers. One that is named twice counts once.
        connect_timeout_seconds: how long each may take to connect; None for as long as it takes.
        cleanup_timeout_seconds: how long each may take to clean up.
        drop_failed_servers: whether those that did not connect are missing among the active ones.
        strict: whether the first failure is raised, when the others have been cleaned up.
        suppress_cancelled_error: whether a `CancelledError` that nobody asked for, out of a
            server of your own, is a failure like any other.
        connect_in_parallel: whether they connect side by side.
    """

    def __init__(
        self,
        servers: Iterable[MCPServer],
        *,
        connect_timeout_seconds: float | None = 10.0,
        cleanup_timeout_seconds: float | None = 10.0,
        drop_failed_servers: bool = True,
        strict: bool = False,
        suppress_cancelled_error: bool = True,
        connect_in_parallel: bool = False,
    ) -> None:
        self._servers = list(dict.fromkeys(servers))
        self._active = list(self._servers)
        self._errors: dict[MCPServer, BaseException] = {}
        self._connect_limit = connect_timeout_seconds
        self._cleanup_limit = cleanup_timeout_seconds
        self._drop = drop_failed_servers
        self._strict = strict
        self._suppress = suppress_cancelled_error
        self._parallel = connect_in_parallel

    @property
    def active_servers(self) -> list[MCPServer]:
        """Those that are connected, in their order; all of them before they were to be."""
        return list(self._active)

    @property
    def all_servers(self) -> list[MCPServer]:
        """All of them, in their order."""
        return list(self._servers)

    @property
    def failed_servers(self) -> list[MCPServer]:
        """Those that did not connect."""
        return list(self._errors)

    @property
    def errors(self) -> dict[MCPServer, BaseException]:
        """Why they did not."""
        return dict(self._errors)

    @property
    def connect_timeout_seconds(self) -> float | None:
        """How long each server may take to connect."""
        return self._connect_limit

    @property
    def cleanup_timeout_seconds(self) -> float | None:
        """How long each server may take to clean up."""
        return self._cleanup_limit

    async def connect_all(self) -> list[MCPServer]:
        """Connect all servers; the active ones.

        Raises:
            BaseException: what the first of them failed with, where this is `strict`.
        """
        await self._connect(self._servers)
        return self.active_servers

    async def reconnect(self, *, failed_only: bool = True) -> list[MCPServer]:
        """Try again those that failed, or clean up and connect all of them; the active ones.

        Raises:
            BaseException: what the first of them failed with, where this is `strict`.
        """
        if failed_only:
            await self._connect([server for server in self._servers if server in self._errors])
        else:
            await self.cleanup_all()
            await self._connect(self._servers)
        return self.active_servers

    async def cleanup_all(self) -> None:
        """Clean up all servers, the last one first. One that fails is logged, and keeps none of the others."""
        for server in reversed(self._servers):
            await self._cleanup(server)
        if self._drop:
            self._active = []
        self._errors = {}

    async def _connect(self, servers: list[MCPServer]) -> None:
        self._errors = {server: error for server, error in self._errors.items() if server not in servers}
        try:
            if self._parallel:
                await asyncio.gather(*(self._connect_one(server) for server in servers))
            else:
                for server in servers:
                    await self._connect_one(server)
        except BaseException:
            errors = self._errors
            await self.cleanup_all()
            self._errors = errors
            raise
        self._active = [each for each in self._servers if not (self._drop and each in self._errors)]

    async def _connect_one(self, server: MCPServer) -> None:
        late = TimeoutError(f"MCP server {server.name!r} did not connect within {self._connect_limit} s.")
        try:
            async with time_limit(current_clock(), self._connect_limit, late):
                await server.connect()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            self._errors[server] = error
            logger.warning("MCP server %r did not connect: %s", server.name, error)
            await self._cleanup(server)
            if self._strict or (isinstance(error, asyncio.CancelledError) and not self._suppress):
                raise

    async def _cleanup(self, server: MCPServer) -> None:
        late = TimeoutError(f"MCP server {server.name!r} did not clean up within {self._cleanup_limit} s.")
        try:
            async with time_limit(current_clock(), self._cleanup_limit, late):
                await server.cleanup()
        except Exception:
            logger.warning("MCP server %r was not cleaned up", server.name, exc_info=True)

    async def __aenter__(self) -> Self:
        await self.connect_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.cleanup_all()
