"""Servers that speak MCP, and connections to them: who uses one need not care which task he is in, or how it ended."""

import asyncio
import contextlib
import gc
import io
import os
import signal
import subprocess
import sys
import threading
from typing import Any

import pytest
from mcp import MCPError

from millstream.errors import MCPServerError, UserError
from millstream.mcp import MCPServerStdio
from millstream.testing import ManualClock
from tests.mcp.kit import NOBODY, PATIENCE, by_hand, gone, is_there, of_the_package, text_of, value_of


async def test_a_server_is_connected_to_when_it_is_first_used() -> None:
    server = by_hand()

    names = [tool.name for tool in await server.list_tools()]
    said = await text_of(server, "echo", text="hello")
    await server.cleanup()

    assert names[:2] == ["echo", "pid"]
    assert said == "hello"


async def test_nothing_is_left_when_a_server_was_cleaned_up() -> None:
    before = asyncio.all_tasks()

    async with by_hand() as server:
        pid = await value_of(server, "pid")
        assert is_there(pid)

    assert not is_there(pid)
    assert asyncio.all_tasks() == before


async def test_all_calls_of_a_loop_go_to_one_process() -> None:
    async with by_hand() as server:
        pids = await asyncio.gather(*(value_of(server, "pid") for _ in range(5)))

    assert len(set(pids)) == 1


async def test_who_connects_who_calls_and_who_cleans_up_may_be_three_tasks() -> None:
    server = by_hand()

    await asyncio.create_task(server.connect())
    said = await asyncio.create_task(text_of(server, "echo", text="hello"))
    await asyncio.create_task(server.cleanup())

    assert said == "hello"


async def test_to_clean_up_twice_or_before_anything_was_done_is_fine() -> None:
    server = by_hand()

    await server.cleanup()
    await server.connect()
    await server.connect()
    await server.cleanup()
    await server.cleanup()

    assert not await left_by(server)


async def test_a_server_that_was_cleaned_up_can_be_used_again() -> None:
    server = by_hand()
    async with server:
        first = await value_of(server, "pid")

    async with server:
        second = await value_of(server, "pid")

    assert first != second


async def test_a_server_that_dies_in_mid_call_fails_this_call_and_is_back_for_the_next(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with by_hand() as server:
        first = await value_of(server, "pid")
        with pytest.raises(
            MCPServerError, match=r"'by hand': the connection was lost .* next call connects again"
        ):
            await server.call_tool("die", {})
        second = await value_of(server, "pid")

    assert first != second
    assert not is_there(first)
    assert "the connection was lost" in caplog.text


async def test_a_server_that_was_killed_between_two_calls_is_back_for_the_second() -> None:
    async with by_hand() as server:
        first = await value_of(server, "pid")
        os.kill(first, signal.SIGKILL)
        await gone(first)

        second = await listed_pid(server)

    assert first != second


async def test_a_server_that_ends_after_its_answer_is_started_again() -> None:
    async with by_hand() as server:
        with pytest.raises(MCPServerError):
            await server.call_tool("quit_after", {})
        assert await text_of(server, "echo", text="back") == "back"


async def test_lines_that_are_not_mcp_are_passed_over() -> None:
    async with by_hand() as server:
        assert await text_of(server, "babble") == "after all"


async def test_bytes_that_are_no_text_are_passed_over() -> None:
    async with by_hand() as server:
        assert await text_of(server, "no_utf8") == "after all"


async def test_an_answer_that_is_not_mcp_is_an_error_that_says_so() -> None:
    async with by_hand() as server:
        pid = await value_of(server, "pid")
        with pytest.raises(MCPServerError, match="an answer that cannot be used: it is not what MCP says"):
            await server.call_tool("wrong", {})
        assert await value_of(server, "pid") == pid


async def test_what_a_server_refuses_is_its_own_error() -> None:
    async with by_hand() as server:
        pid = await value_of(server, "pid")
        with pytest.raises(MCPError, match="the password is hunter2"):
            await server.call_tool("refuse", {})
        assert await value_of(server, "pid") == pid


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["quit"], "it ended, or closed the connection, before it had answered"),
        (["no-mcp", "quit"], "it ended, or closed the connection, before it had answered"),
    ],
)
async def test_a_program_that_is_no_server_is_an_error_that_says_what_to_check(
    arguments: list[str], told: str
) -> None:
    server = by_hand(*arguments)

    with pytest.raises(MCPServerError, match=rf"'by hand': {told}.* Check that its command runs") as failed:
        await server.list_tools()
    await server.cleanup()

    assert failed.value.server_name == "by hand"


async def test_a_command_that_does_not_exist_is_an_error_that_says_so() -> None:
    server = MCPServerStdio({"command": "/does/not/exist"})

    with pytest.raises(MCPServerError, match="could not be started") as failed:
        await server.connect()

    assert failed.value.server_name == "stdio: /does/not/exist"


async def test_a_call_that_takes_too_long_fails_and_others_go_on() -> None:
    clock = ManualClock()
    async with by_hand() as server:
        pid = await value_of(server, "pid")
        with clock:
            late = asyncio.create_task(server.call_tool("never", {}))
            await clock.waiting()
            clock.advance(PATIENCE)
        with pytest.raises(MCPServerError, match="did not answer within 50 s"):
            await late

        # It answers others, so it lives, and keeps its process; and it was told not to go on.
        assert await value_of(server, "pid") == pid
        assert len(await value_of(server, "cancelled")) == 1


async def test_a_server_that_hangs_is_replaced_by_the_next_call() -> None:
    clock = ManualClock()
    async with by_hand() as server:
        first = await value_of(server, "pid")
        with clock:
            late = asyncio.create_task(server.call_tool("hang", {}))
            await clock.waiting()
            clock.advance(PATIENCE)
            with pytest.raises(MCPServerError, match="did not answer within"):
                await late
            following = asyncio.create_task(value_of(server, "pid"))
            await clock.waiting()  # it asks first whether the server is there at all
            clock.advance(PATIENCE)
            second = await following

    assert first != second
    await gone(first)


async def test_a_caller_who_is_cancelled_leaves_the_connection_as_it_was() -> None:
    async with by_hand() as server:
        pid = await value_of(server, "pid")
        call = await begun(server)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

        assert await value_of(server, "pid") == pid


async def test_a_cancelled_call_is_told_to_the_server() -> None:
    async with by_hand() as server:
        call = await begun(server)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await call

        while not await value_of(server, "cancelled"):
            pass


async def test_a_caller_who_is_cancelled_while_connecting_does_not_stop_those_who_wait_too() -> None:
    async with by_hand() as server:
        pass
    first = asyncio.create_task(value_of(server, "pid"))
    second = asyncio.create_task(text_of(server, "echo", text="hello"))
    await asyncio.sleep(0)

    first.cancel()
    said = await second
    await server.cleanup()

    assert said == "hello"
    assert first.cancelled()


async def test_to_clean_up_ends_calls_that_wait() -> None:
    server = by_hand()
    call = await begun(server)

    await server.cleanup()

    with pytest.raises(MCPServerError, match="the connection was lost"):
        await call


async def test_to_clean_up_while_connecting_ends_both() -> None:
    server = by_hand("mute")
    connecting = asyncio.create_task(server.connect())
    await asyncio.sleep(0)

    await server.cleanup()

    with pytest.raises(MCPServerError, match="closed while it was being opened"):
        await connecting


async def test_a_server_that_nobody_holds_any_more_is_stopped() -> None:
    server = by_hand()
    pid = await value_of(server, "pid")

    del server
    gc.collect()

    await gone(pid)


@pytest.mark.may_block
def test_each_loop_has_a_connection_of_its_own_and_takes_it_along_when_it_ends() -> None:
    server = by_hand()

    first = asyncio.run(value_of(server, "pid"))
    second = asyncio.run(value_of(server, "pid"))

    assert first != second
    assert not is_there(first)
    assert not is_there(second)


@pytest.mark.may_block
def test_two_loops_use_a_server_at_the_same_time() -> None:
    server = by_hand()
    both = threading.Barrier(2, timeout=PATIENCE)
    pids: list[int] = []

    async def call() -> None:
        await server.connect()
        both.wait()
        pids.append(await value_of(server, "pid"))
        both.wait()

    threads = [threading.Thread(target=lambda: asyncio.run(call())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert len(set(pids)) == 2
    assert not any(is_there(pid) for pid in pids)


@pytest.mark.may_block
@pytest.mark.parametrize("steps", range(0, 24, 4))
def test_a_loop_that_ends_while_a_connection_closes_waits_until_it_has(steps: int) -> None:
    server = by_hand()

    async def leave() -> int:
        pid = await value_of(server, "pid")
        server._connections.leave()
        for _ in range(steps):
            await asyncio.sleep(0)
        return pid

    pid = asyncio.run(leave())
    gc.collect()  # a process whose end nobody saw would complain

    assert not is_there(pid)


CARELESS = """
import asyncio, sys
from tests.mcp.kit import by_hand, value_of

loop = asyncio.new_event_loop()
print(loop.run_until_complete(value_of(by_hand(), "pid")))
loop.close()
"""


@pytest.mark.slow
@pytest.mark.may_block
def test_a_loop_that_is_closed_carelessly_says_nothing_and_its_server_ends_with_the_program() -> None:
    done = subprocess.run([sys.executable, "-c", CARELESS], capture_output=True, text=True, check=True)

    assert done.stderr == ""
    asyncio.run(gone(int(done.stdout)))


async def test_tools_are_asked_for_each_time_unless_they_are_kept() -> None:
    async with by_hand() as asked, by_hand(cache_tools_list=True) as kept:
        for server in (asked, kept):
            assert server.cached_tools is None
            for _ in range(3):
                await server.list_tools()

        assert await value_of(asked, "listings") == 3
        assert await value_of(kept, "listings") == 1
        assert kept.cached_tools == await kept.list_tools()

        kept.invalidate_tools_cache()
        assert kept.cached_tools is None
        await kept.list_tools()

        assert await value_of(kept, "listings") == 2


async def test_tools_are_kept_until_the_server_says_that_they_changed() -> None:
    told: list[Any] = []

    async def handle(message: Any) -> None:
        told.append(message.method)

    async with by_hand(cache_tools_list=True, message_handler=handle) as server:
        before = [tool.name for tool in await server.list_tools()]
        await server.call_tool("grow", {})
        async with asyncio.timeout(PATIENCE):
            while server.cached_tools is not None:
                await asyncio.sleep(0)
        after = [tool.name for tool in await server.list_tools()]

    assert after == [*before, "grown"]
    assert told == ["notifications/tools/list_changed"]


async def test_a_listing_that_goes_in_circles_is_an_error() -> None:
    async with by_hand("circle") as server:
        with pytest.raises(MCPServerError, match="its listing goes in circles"):
            await server.list_tools()


async def test_a_listing_may_have_so_many_pages_and_no_more() -> None:
    async with by_hand("circle", max_list_pages=1) as server:
        with pytest.raises(MCPServerError, match=r"more than 1 pages \(max_list_pages=\)"):
            await server.list_tools()


async def test_two_tools_of_one_name_are_one(caplog: pytest.LogCaptureFixture) -> None:
    async with by_hand("twice") as server:
        names = [tool.name for tool in await server.list_tools()]

    assert names.count("echo") == 1
    assert "two tools called 'echo'" in caplog.text


async def test_a_request_that_failed_is_made_again_as_often_as_was_asked_for() -> None:
    clock = ManualClock()
    async with by_hand(max_retry_attempts=2, retry_backoff_seconds_max=1.5) as server:
        first = await value_of(server, "pid")
        with clock:
            call = asyncio.create_task(server.call_tool("refuse", {}))
            waits = [await backoff(clock), await backoff(clock)]
            with pytest.raises(MCPError):
                await call

        assert waits == [1.0, 1.5]
        assert await value_of(server, "pid") == first


async def test_prompts_and_resources_are_there_too() -> None:
    async with of_the_package() as server:
        prompts = await server.list_prompts()
        prompt = await server.get_prompt("greet", {"name": "Ann"})
        resources = await server.list_resources()
        templates = await server.list_resource_templates()
        note = await server.read_resource("note://monday")

    assert [each.name for each in prompts.prompts] == ["greet"]
    assert prompt.messages[0].content.text == "Say hello to Ann."  # pyright: ignore[reportAttributeAccessIssue]
    assert [str(each.uri) for each in resources.resources] == ["note://today"]
    assert [each.uri_template for each in templates.resource_templates] == ["note://{day}"]
    assert note.contents[0].text == "Nothing on monday."  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_server_that_has_no_prompts_says_so() -> None:
    async with by_hand() as server:
        with pytest.raises(MCPError, match="Method not found"):
            await server.list_prompts()


async def test_a_program_gets_the_variables_that_it_was_given_and_few_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SECRET_OF_OURS", "x")
    server = by_hand()
    server.params.env = {"GIVEN": "yes"}

    environment = await value_of(server, "environment")
    await server.cleanup()

    assert environment["GIVEN"] == "yes"
    assert "PATH" in environment
    assert "SECRET_OF_OURS" not in environment


async def test_a_program_is_started_also_where_standard_error_is_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())  # as in a notebook
    for standard in (sys.__stderr__, None):
        monkeypatch.setattr(sys, "__stderr__", standard)
        async with by_hand() as server:
            assert await text_of(server, "echo", text="hello") == "hello"


async def test_meta_reaches_the_server() -> None:
    async with by_hand() as server:
        result = await server.call_tool("meta", {}, {"tenant": "t1"})

    assert '"tenant": "t1"' in result.content[0].text  # pyright: ignore[reportAttributeAccessIssue]


async def test_a_filter_of_names_lets_the_allowed_ones_pass_that_are_not_blocked() -> None:
    tool_filter: Any = {"allowed_tool_names": ["echo", "pid"], "blocked_tool_names": ["pid"]}

    async with by_hand(tool_filter=tool_filter) as server:
        assert [tool.name for tool in await server.list_tools()] == ["echo"]


async def test_a_filter_that_is_a_function_needs_to_know_for_whom() -> None:
    async with by_hand(tool_filter=lambda context, tool: True) as server:
        with pytest.raises(UserError, match=r"list_tools\(run_context, agent\)"):
            await server.list_tools(NOBODY)


async def begun(server: MCPServerStdio) -> asyncio.Task[Any]:
    """A call of which the server knows, and that it does not answer."""
    call = asyncio.create_task(server.call_tool("never", {}))
    while not await value_of(server, "waiting"):
        pass
    return call


async def listed_pid(server: MCPServerStdio) -> int:
    await server.list_tools()
    return await value_of(server, "pid")


async def backoff(clock: ManualClock) -> float:
    """Wait until a request has failed and waits to be made again; then let it."""
    while not clock.due or clock.due[0] > 10:  # the time limit of a request is `PATIENCE`
        await asyncio.sleep(0)
    wait = clock.due[0]
    clock.advance(wait)
    return wait


async def left_by(server: MCPServerStdio) -> set[asyncio.Task[Any]]:
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}
