"""Many servers: those that connect are there, the others are told of."""

import asyncio
import contextlib
from typing import Any

import pytest

from millstream.mcp import MCPServer, MCPServerManager
from millstream.testing import ManualClock
from tests.mcp.kit import by_hand, value_of


class Server(MCPServer):
    """Notes what is done with it; connecting fails as told."""

    def __init__(
        self, name: str, notes: list[str], fails: BaseException | None = None, hangs: bool = False
    ) -> None:
        super().__init__()
        self._name, self.notes, self.fails, self.hangs = name, notes, fails, hangs

    @property
    def name(self) -> str:
        return self._name

    async def connect(self) -> None:
        self.notes.append(f"+{self.name}")
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails

    async def cleanup(self) -> None:
        self.notes.append(f"-{self.name}")
        if self.name == "untidy":
            raise OSError("it does not close")

    async def list_tools(self, run_context: Any = None, agent: Any = None) -> Any: ...

    async def call_tool(self, tool_name: str, arguments: Any, meta: Any = None) -> Any: ...

    async def list_prompts(self) -> Any: ...

    async def get_prompt(self, name: str, arguments: Any = None) -> Any: ...


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def servers(notes: list[str]) -> list[MCPServer]:
    return [Server("a", notes), Server("b", notes, ValueError("x")), Server("c", notes)]


@pytest.mark.parametrize("parallel", [False, True])
async def test_those_that_connect_are_active_and_the_others_are_told_of(
    servers: list[Any], notes: list[str], parallel: bool
) -> None:
    a, b, c = servers
    manager = MCPServerManager(servers, connect_in_parallel=parallel)
    assert manager.active_servers == servers

    async with manager as entered:
        assert entered is manager
        assert (manager.active_servers, manager.failed_servers) == ([a, c], [b])
        assert str(manager.errors[b]) == "x"

    assert (manager.active_servers, manager.failed_servers, manager.all_servers) == ([], [], servers)
    assert notes[-3:] == ["-c", "-b", "-a"]


async def test_those_that_failed_may_be_tried_again(servers: list[Any], notes: list[str]) -> None:
    async with MCPServerManager(servers) as manager:
        servers[1].fails = None
        notes.clear()

        assert await manager.reconnect() == servers
        assert (notes, manager.errors) == (["+b"], {})
        assert await manager.reconnect(failed_only=False) == servers
        assert notes == ["+b", "-c", "-b", "-a", "+a", "+b", "+c"]


async def test_those_that_failed_may_be_kept(servers: list[Any]) -> None:
    async with MCPServerManager(servers, drop_failed_servers=False) as manager:
        assert manager.active_servers == servers
        assert manager.failed_servers == [servers[1]]


@pytest.mark.parametrize("parallel", [False, True])
async def test_a_strict_one_raises_the_first_failure_and_leaves_nothing_connected(
    servers: list[Any], notes: list[str], parallel: bool
) -> None:
    manager = MCPServerManager(servers, strict=True, connect_in_parallel=parallel)

    with pytest.raises(ValueError, match="x"):
        await manager.connect_all()

    assert (manager.active_servers, manager.failed_servers) == ([], [servers[1]])
    assert {"-a", "-b"} <= set(notes)


async def test_one_that_takes_too_long_has_failed(notes: list[str]) -> None:
    clock, hanging = ManualClock(), Server("h", notes, hangs=True)
    with clock:
        connecting = asyncio.create_task(MCPServerManager([hanging], connect_timeout_seconds=3).connect_all())
        await clock.waiting()
        clock.advance(3)

        assert await connecting == []
    assert notes == ["+h", "-h"]


async def test_a_cancellation_that_nobody_asked_for_is_a_failure_or_raised(notes: list[str]) -> None:
    cancelled = Server("x", notes, asyncio.CancelledError())

    assert await MCPServerManager([cancelled]).connect_all() == []
    with pytest.raises(asyncio.CancelledError):
        await MCPServerManager([cancelled], suppress_cancelled_error=False).connect_all()


async def test_who_is_cancelled_while_servers_connect_leaves_nothing_connected(notes: list[str]) -> None:
    connecting = asyncio.create_task(
        MCPServerManager([Server("a", notes), Server("h", notes, hangs=True)]).connect_all()
    )
    while "+h" not in notes:
        await asyncio.sleep(0)

    connecting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await connecting

    assert connecting.cancelled()
    assert notes == ["+a", "+h", "-h", "-a"]


async def test_one_that_does_not_clean_up_keeps_none_of_the_others(
    notes: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    async with MCPServerManager([Server("a", notes), Server("untidy", notes)]):
        pass

    assert notes == ["+a", "+untidy", "-untidy", "-a"]
    assert "'untidy' was not cleaned up" in caplog.text


async def test_real_servers_are_connected_and_stopped() -> None:
    good, bad = by_hand(), by_hand("quit", name="bad")

    async with MCPServerManager([good, bad, good], connect_in_parallel=True) as manager:
        assert manager.active_servers == [good]
        assert await value_of(good, "pid")
