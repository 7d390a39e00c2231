"""The door of the client: what it takes, and what it asks a real server for."""

import asyncio
import gc
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Agent, MemoryLog, Runner, tool
from millstream.client import Client, RemoteRun
from millstream.errors import (
    AccessDeniedError,
    ApprovalError,
    ConversationBusyError,
    IdempotencyError,
    InputItemError,
    RunCancelledError,
    UnknownConversationError,
    UserError,
)
from millstream.server import LOCAL, create_app
from millstream.testing import ScriptedModel, function_call
from tests.client.kit import everything, served
from tests.server.kit import serving

URL = "http://127.0.0.1:7420"


def agent(*steps: Any, **options: Any) -> Agent[Any]:
    return Agent(name="A", model=ScriptedModel(steps or ["Hello there."]), **options)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "h:80",
        "h",
        "ftp://h",
        "http://",
        "http://h:99999",
        "http://h\n/",
        "http://h/?q=1",
        "http://h#x",
        None,
        5,
    ],
)
def test_an_address_that_is_none_is_refused(url: Any) -> None:
    with pytest.raises(UserError, match="http://host:port or https://host"):
        Client(url)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"token": "to ken"}, "a token is a text"),
        ({"token": "secret\r\nx: y"}, "a token is a text"),
        ({"token": ""}, "a token is a text"),
        ({"headers": {"x": "secret\n"}}, "'x' is not a header"),
        ({"headers": {"x": 5}}, "'x' is not a header"),
        ({"tries": 0}, "a number of tries from 1"),
        ({"idle_timeout": 0}, "a number of seconds above 0"),
    ],
)
def test_what_cannot_work_is_refused_without_telling_a_secret(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said) as refused:
        Client(URL, **options)

    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    "run_id", ["", "..", "../runs", "run/1", "run 1", "run?x", "r\u00fcn", "x" * 129, None]
)
def test_an_id_that_is_none_gets_into_no_path(run_id: Any) -> None:
    with pytest.raises(UserError, match="not the id of a run"):
        Client(URL).run(run_id)


def test_an_address_is_shown_without_what_lets_one_in() -> None:
    client = Client("https://ann:pass@host:9/base/", token="t0ken")

    assert repr(client) == "Client('https://host:9/base')"
    assert repr(client.run("run_1")) == "RemoteRun('run_1' at https://host:9/base)"


async def test_a_client_of_its_own_connections_closes_them() -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as direct:
        async with Client(str(direct.base_url)) as client:
            run = await client.start("Hi")
            text = "".join([piece async for piece in run.text()])
        await client.aclose()

    gc.collect()  # an open connection would be a warning
    assert text == "Hello there."


async def test_a_server_may_be_mounted_at_a_path() -> None:
    from fastapi import FastAPI

    app = FastAPI()
    app.mount("/agents", create_app(agent(), access=LOCAL, log=MemoryLog()))
    async with serving(app) as direct, Client(f"{direct.base_url}/agents/") as client:
        result = await (await client.start("Hi"))

    assert result.final_output == "Hello there."


async def test_who_may_not_is_told_so_and_a_token_lets_in() -> None:
    async def access(connection: Any) -> str | None:
        return "ann" if connection.headers.get("authorization") == "Bearer t0ken" else None

    async with serving(create_app(agent(), access=access, log=MemoryLog())) as direct:
        async with Client(str(direct.base_url)) as nobody:
            with pytest.raises(AccessDeniedError, match="Is the token right") as refused:
                await nobody.start("Hi")
        async with Client(str(direct.base_url), token="t0ken") as ann:
            run = await ann.start("Hi")
            await run
            runs = await ann.runs()

    assert refused.value.status == 401
    assert [each.run_id for each in runs] == [run.run_id]


async def test_one_key_begins_one_run() -> None:
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, _):
        first, second = await asyncio.gather(*(client.start("Hi", idempotency_key="k") for _ in range(2)))
        with pytest.raises(IdempotencyError, match="'k'") as used:
            await client.start("Ho", idempotency_key="k")
        await first
        with pytest.raises(UserError, match="1 to 255 printable"):
            await client.start("Hi", idempotency_key="\n")

    assert first.run_id == second.run_id == used.value.run_id


async def test_what_a_server_does_not_take_is_told_as_a_store_would() -> None:
    async with served(create_app(agent(), access=LOCAL, log=MemoryLog())) as (client, _):
        with pytest.raises(UserError, match="no agent of that name"):
            await client.start("Hi", agent="B")
        bad: Any = [{"role": 5}]
        with pytest.raises(InputItemError):
            await client.start(bad)
        run = await client.start("Hi", agent="A", context={"a": 1}, max_turns=3)
        await run
        with pytest.raises(UserError):
            await run.send("Too late.")
        with pytest.raises(UserError, match="nothing to send"):
            await run.send("")
        with pytest.raises(ApprovalError):
            await run.approve("c1")
        with pytest.raises(ApprovalError, match="not 5"):
            await run.approve(5)  # pyright: ignore[reportArgumentType]
        mode: Any = "soon"
        with pytest.raises(UserError, match="soon"):
            await run.cancel(mode)
        await run.cancel()

        assert await run.status() == "completed"


async def test_runs_are_listed_page_after_page_the_newest_first() -> None:
    async with served(create_app(agent(*["x"] * 8), access=LOCAL, log=MemoryLog())) as (client, between):
        started: list[RemoteRun] = [await client.start("Hi") for _ in range(8)]
        for each in started:
            await each
        every = await client.runs(limit=500)
        page = await client.runs(limit=3, before=every[2].run_id)
        none = await client.runs(statuses=["failed", "paused"])
        between.connected = 0
        exactly = await client.runs(limit=2, statuses=["completed"])

    assert [each.run_id for each in every] == [each.run_id for each in reversed(started)]
    assert (page, none, exactly, between.connected) == (every[3:6], [], every[:2], 1)
    assert all(each.status == "completed" and each.last and each.agent == "A" for each in every)


async def test_a_run_is_given_input_and_stopped() -> None:
    begun = asyncio.Event()

    @tool
    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    asked = agent([function_call("wait", {})], [function_call("wait", {})], tools=[wait])
    async with served(create_app(asked, access=LOCAL, log=MemoryLog())) as (client, _):
        run = await client.start("Hi")
        await begun.wait()
        begun.clear()
        await run.send("And?")
        await begun.wait()
        await run.cancel("immediate")
        seen = await everything(run)
        with pytest.raises(RunCancelledError):
            await run
        record = await client.record(run.run_id)

    assert b"input.added" in b"".join(seen)
    assert b"run.cancelled" in seen[-1]
    assert record.status == "cancelled"


async def test_calls_are_decided_over_with_other_arguments_and_with_words() -> None:
    deleted: list[str] = []

    @tool(needs_approval=True)
    async def delete(name: str) -> str:
        deleted.append(name)
        return f"deleted {name}"

    calls = [function_call("delete", {"name": name}, call_id=name) for name in "abc"]
    asked = agent(calls, "Done.", tools=[delete])
    async with served(create_app(asked, access=LOCAL, log=MemoryLog())) as (client, _):
        run = await client.start("Hi")
        waiting = (await run).interruptions
        all_three = await run.waiting()
        await run.approve(waiting[0], arguments={"name": "x"})
        two = await run.waiting()
        await run.reject("b", rejection_message="Keep it.")
        await run.approve("c", arguments='{"name": "y"}')
        seen = b"".join(await everything(run))
        result = await run
        nothing = await run.waiting()

    assert (all_three, two, nothing) == (["a", "b", "c"], ["b", "c"], [])
    assert sorted(deleted) == ["x", "y"]
    assert b"Keep it." in seen
    assert result.final_output == "Done."


# --- conversations ------------------------------------------------------------------------------


async def test_a_conversation_is_gone_on_with_listed_read_and_forgotten() -> None:
    async with served(create_app(agent("one", "two", "three"), access=LOCAL, log=MemoryLog())) as (client, _):
        runs = [await client.start("Hi", conversation="chat")]
        await everything(runs[0])
        runs.append(await client.start("Again", conversation="chat"))
        await everything(runs[1])
        await everything(await client.start("Hi", conversation="other"))
        listed = await client.conversations()
        (second,) = await client.conversations(limit=1, before="other")
        items = await client.items("chat")
        latest = await client.items("chat", limit=1)
        of_it = await client.runs(conversation="chat")
        chat = await client.conversation("chat")
        for _ in range(2):
            await client.forget("chat")
        left = await client.conversations()
        with pytest.raises(UnknownConversationError) as gone:
            await client.items("chat")
        with pytest.raises(UnknownConversationError):
            await client.conversations(before="chat")

    assert [each.id for each in listed] == ["other", "chat"]
    assert chat == second == listed[1]
    assert chat.run is not None
    assert chat.run.run_id == runs[1].run_id
    assert [item.get("role") for item in items] == ["user", "assistant", "user", "assistant"]
    assert latest == items[-1:]
    assert [each.run_id for each in of_it] == [runs[1].run_id, runs[0].run_id]
    assert {each.conversation for each in of_it} == {"chat"}
    assert [each.id for each in left] == ["other"]
    assert gone.value.conversation == "chat"


async def test_conversations_are_listed_by_as_many_pages_as_it_takes() -> None:
    log = MemoryLog()
    for number in range(203):
        run = await Runner.submit(log, agent(), "Hi", conversation=f"c{number}")
        await log.delete(run.run_id)
    async with served(create_app(agent(), access=LOCAL, log=log)) as (client, _):
        listed = await client.conversations(limit=202)

    assert [each.id for each in listed] == [f"c{number}" for number in range(202, 0, -1)]
    assert {each.run for each in listed} == {None}


async def test_a_conversation_that_is_busy_says_with_which_run() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    asked = agent([function_call("pay", {})], tools=[pay])
    async with served(create_app(asked, access=LOCAL, log=MemoryLog())) as (client, _):
        paused = await client.start("Pay", conversation="chat")
        async for _ in paused.entries(types=["run.paused"], until="pause"):
            pass
        for call in (client.start("And?", conversation="chat"), client.forget("chat")):
            with pytest.raises(ConversationBusyError) as busy:
                await call
            assert (busy.value.conversation, busy.value.run_id) == ("chat", paused.run_id)


@pytest.mark.parametrize("name", ["", "..", "a/b", "a b", "x" * 129, None])
async def test_what_names_no_conversation_is_not_asked_for(name: Any) -> None:
    async with Client(URL) as client:
        for call in (client.items(name), client.conversation(name), client.forget(name)):
            with pytest.raises(UserError, match="names no conversation"):
                await call
        with pytest.raises(UserError, match=r"start\(conversation=.*names no conversation"):
            await client.start("Hi", conversation=name or "/")
