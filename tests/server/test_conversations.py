"""Conversations of a server: what one run leaves, the next one has; one run at a time, each caller his own."""

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from starlette.requests import HTTPConnection

from millstream import Agent, MemoryLog, RunConfig, Runner, SQLiteSession, tool
from millstream.errors import StaleOwnerError
from millstream.items import ItemHelpers, raw_field
from millstream.log import Batch, RunRecord, RunStore, SQLiteLog
from millstream.log.conversation import ConversationSession
from millstream.recovery import Recovery
from millstream.server import LOCAL, create_app
from millstream.testing import ManualClock, ModelCall, ModelStep, ScriptedModel, function_call
from tests.cli.test_serve import serving as serving_alone
from tests.server.agents import agent
from tests.server.kit import events_of, serving
from tests.server.talk import talking


def said(items: Any) -> list[str]:
    """A history, in short: who said what; of calls and their outputs, the id."""
    told = list[str]()
    for item in ItemHelpers.input_to_new_input_list(items):
        kind, content = raw_field(item, "type") or "message", raw_field(item, "content")
        if kind == "message":
            text = content if isinstance(content, str) else "".join(part["text"] for part in content)
            told.append(f"{raw_field(item, 'role')}: {text}")
        else:
            told.append(f"{kind}: {raw_field(item, 'call_id')}")
    return told


async def by_header(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user", "")


async def talk(client: httpx2.AsyncClient, text: str, conversation: str = "chat", **headers: str) -> str:
    """A run of a conversation, from its start to its end; its id."""
    body = {"input": text, "conversation": conversation}
    started = await client.post("/runs", json=body, headers=headers)
    assert started.status_code == 202, started.text
    run_id = started.json()["run_id"]
    async with client.stream("GET", f"/runs/{run_id}/events?until=pause", headers=headers) as response:
        await response.aread()
    return run_id


async def items_of(client: httpx2.AsyncClient, conversation: str = "chat", **query: Any) -> list[str]:
    return said((await client.get(f"/conversations/{conversation}", params=query)).json()["items"])


def code_of(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- one run after another --------------------------------------------------------------------


@pytest.mark.parametrize("kept", ["memory", "sqlite"])
async def test_a_run_has_what_the_runs_before_it_left(kept: str, tmp_path: Path) -> None:
    log: RunStore = MemoryLog() if kept == "memory" else SQLiteLog(tmp_path / "runs.db")
    asked = agent("Hello Ann.", "You are Ann.", "Whose?")
    async with serving(create_app(asked, access=LOCAL, log=log)) as client:
        first = await talk(client, "I am Ann.")
        second = await talk(client, "Who am I?")
        await talk(client, "What is my name?", "another")
        chat = (await client.get("/conversations/chat")).json()
        record = (await client.get(f"/runs/{second}")).json()
        listed = (await client.get("/runs", params={"conversation": "chat"})).json()["runs"]
    await log.aclose()

    assert isinstance(asked.model, ScriptedModel)
    assert [said(call.input) for call in asked.model.calls] == [
        ["user: I am Ann."],
        ["user: I am Ann.", "assistant: Hello Ann.", "user: Who am I?"],
        ["user: What is my name?"],
    ]
    assert said(chat["items"]) == [
        "user: I am Ann.",
        "assistant: Hello Ann.",
        "user: Who am I?",
        "assistant: You are Ann.",
    ]
    assert [run["run_id"] for run in chat["runs"]] == [second, first]
    assert (chat["conversation"], chat["is_whole"], chat["run"]) == ("chat", True, chat["runs"][0])
    assert (record["conversation"], listed) == ("chat", chat["runs"])


async def test_a_run_without_a_conversation_leaves_nothing_to_others() -> None:
    asked = agent("a", "b")
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        started = (await client.post("/runs", json={"input": "Hi"})).json()
        await events_of(client, started["run_id"])
        await talk(client, "Hello")
        listed = (await client.get("/conversations")).json()["conversations"]

    assert started["conversation"] is None
    assert isinstance(asked.model, ScriptedModel)
    assert said(asked.model.calls[1].input) == ["user: Hello"]
    assert [each["conversation"] for each in listed] == ["chat"]


@pytest.mark.parametrize("name", ["", ".", "..", "-x", "a b", "a/b", "ä", "x" * 129, 7])
async def test_what_names_no_conversation_is_refused(name: Any) -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        answer = await client.post("/runs", json={"input": "Hi", "conversation": name})

    assert code_of(answer) == (422, "bad_request")
    assert answer.json()["error"]["message"].startswith("conversation has to be ")


# --- one at a time ----------------------------------------------------------------------------


async def test_a_conversation_in_which_a_run_is_going_takes_no_other() -> None:
    go_on = asyncio.Event()

    @tool
    async def wait() -> str:
        await go_on.wait()
        return "waited"

    asked = agent([function_call("wait", {}, call_id="w")], "Done.", "Next.", tools=[wait])
    body = {"input": "Hi", "conversation": "chat"}
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        key = {"idempotency-key": "k"}
        going = (await client.post("/runs", json=body, headers=key)).json()["run_id"]
        refused = await client.post("/runs", json=body)
        streamed = await client.post("/runs", json=body | {"stream": True})
        again = await client.post("/runs", json=body, headers=key)
        kept = await client.delete("/conversations/chat")
        (only,) = (await client.get("/runs")).json()["runs"]
        go_on.set()
        await events_of(client, going)
        taken = await client.post("/runs", json=body)
        await events_of(client, taken.json()["run_id"])

    assert only["run_id"] == going
    for answer in (refused, streamed, kept):
        error = answer.json()["error"]
        assert code_of(answer) == (409, "conversation_busy")
        assert (error["run_id"], error["retryable"]) == (going, True)
        assert "retry-after" in answer.headers
    assert (again.status_code, again.json()["run_id"]) == (202, going)
    assert taken.status_code == 202


async def test_a_paused_run_keeps_its_conversation_busy_until_it_was_decided_over() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    asked = agent([function_call("pay", {}, call_id="p")], "Paid.", "Yes.", tools=[pay])
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        paused = await talk(client, "Pay")
        refused = await client.post("/runs", json={"input": "And?", "conversation": "chat"})
        waiting = await items_of(client)
        await client.post(f"/runs/{paused}/decisions", json={"call_id": "p", "approved": True})
        await events_of(client, paused)
        await talk(client, "Did you?")
        items = await items_of(client)

    assert code_of(refused) == (409, "conversation_busy")
    assert waiting == ["user: Pay"]
    assert items == [
        "user: Pay",
        "function_call: p",
        "function_call_output: p",
        "assistant: Paid.",
        "user: Did you?",
        "assistant: Yes.",
    ]


async def test_a_conversation_is_the_same_one_over_a_websocket() -> None:
    @tool(needs_approval=True)
    async def pay() -> str:
        return "paid"

    asked = agent("Hello.", [function_call("pay", {}, call_id="p")], tools=[pay])
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        await talk(client, "Hi")
        async with talking(client) as line:
            begun = await line.say("start", input="Pay", conversation="chat", stream=False)
            refused = await line.say("start", input="And?", conversation="chat")
        items = await items_of(client)

    assert begun["conversation"] == "chat"
    assert (refused["type"], refused["code"]) == ("command.error", "conversation_busy")
    assert refused["run_id"] == begun["run_id"]
    assert items[:2] == ["user: Hi", "assistant: Hello."]


@pytest.mark.parametrize("how", ["cancelled", "failed"])
async def test_a_run_that_does_not_complete_leaves_a_history_to_go_on_with(how: str) -> None:
    begun = asyncio.Event()

    @tool
    async def wait() -> str:
        begun.set()
        await asyncio.Event().wait()
        return ""

    @tool(failure_error_function=None)
    async def fail() -> str:
        raise RuntimeError

    name = "wait" if how == "cancelled" else "fail"
    asked = agent([function_call(name, {}, call_id="c")], "Here I am.", tools=[wait, fail])
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        body = {"input": "Do", "conversation": "chat"}
        run_id = (await client.post("/runs", json=body)).json()["run_id"]
        if how == "cancelled":
            await begun.wait()
            await client.post(f"/runs/{run_id}/cancel", json={})
        await events_of(client, run_id)
        status = (await client.get(f"/runs/{run_id}")).json()["status"]
        await talk(client, "Still there?")

    assert status == how
    assert isinstance(asked.model, ScriptedModel)
    assert asked.model.last_call is not None
    assert said(asked.model.last_call.input) == [
        "user: Do",
        "function_call: c",
        "function_call_output: c",
        "user: Still there?",
    ]


# --- two callers --------------------------------------------------------------------------------


async def test_two_callers_conversations_of_one_id_share_nothing() -> None:
    asked = agent("To Ann.", "To Bob.")
    async with serving(create_app(asked, access=by_header, log=MemoryLog())) as client:
        ann, bob = {"x-user": "ann"}, {"x-user": "bob"}
        run_id = await talk(client, "Ann's", **ann)
        assert code_of(await client.get("/conversations/chat", headers=bob)) == (404, "unknown_conversation")
        assert (await client.get("/conversations", headers=bob)).json() == {"conversations": []}
        assert (await client.get("/runs?conversation=chat", headers=bob)).json() == {"runs": []}
        assert code_of(await client.delete("/conversations/chat", headers=bob)) == (
            404,
            "unknown_conversation",
        )
        await talk(client, "Bob's", **bob)
        assert (await client.delete("/conversations/chat", headers=bob)).status_code == 200
        anns = (await client.get("/conversations/chat", headers=ann)).json()

    assert isinstance(asked.model, ScriptedModel)
    assert said(asked.model.calls[1].input) == ["user: Bob's"]
    assert said(anns["items"]) == ["user: Ann's", "assistant: To Ann."]
    assert [run["run_id"] for run in anns["runs"]] == [run_id]


# --- reading and forgetting ---------------------------------------------------------------------


async def test_conversations_are_listed_by_their_last_runs() -> None:
    async with serving(create_app(agent(*"12345"), access=LOCAL, log=MemoryLog())) as client:
        for conversation in ("a", "b", "c", "a"):
            last = await talk(client, "Hi", conversation)
        await client.delete(f"/runs/{last}")
        listed = (await client.get("/conversations")).json()["conversations"]
        page = (await client.get("/conversations?limit=1&before=a")).json()["conversations"]
        unknown = await client.get("/conversations?before=z")

    assert [each["conversation"] for each in listed] == ["a", "c", "b"]
    assert listed[0]["run"] is None  # it was deleted; what was said in it stays
    assert listed[1]["run"]["conversation"] == "c"
    assert page == listed[1:2]
    assert code_of(unknown) == (404, "unknown_conversation")


async def test_the_latest_items_are_shown_where_there_are_more() -> None:
    async with serving(create_app(agent("one", "two"), access=LOCAL, log=MemoryLog())) as client:
        await talk(client, "1")
        await talk(client, "2")
        chat = (await client.get("/conversations/chat?limit=3")).json()
        none = (await client.get("/conversations/chat?limit=0")).json()

    assert said(chat["items"]) == ["assistant: one", "user: 2", "assistant: two"]
    assert (chat["is_whole"], none["items"], none["is_whole"]) == (False, [], False)


async def test_a_conversation_is_forgotten_with_its_runs_and_its_id_begins_another() -> None:
    asked = agent("one", "two", "three")
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        first = await talk(client, "1")
        await talk(client, "other", "other")
        gone = await client.delete("/conversations/chat")
        again = await client.delete("/conversations/chat")
        read = await client.get("/conversations/chat")
        run = await client.get(f"/runs/{first}")
        await talk(client, "3")
        items = await items_of(client)
        others = await items_of(client, "other")

    assert (gone.status_code, gone.json()) == (200, {"forgotten": "chat"})
    assert code_of(again) == code_of(read) == (404, "unknown_conversation")
    assert code_of(run) == (404, "unknown_run")
    assert items == ["user: 3", "assistant: three"]
    assert others == ["user: other", "assistant: two"]


async def test_a_conversation_is_kept_where_the_program_says(tmp_path: Path) -> None:
    made = list[str]()

    def session_from(record: RunRecord) -> SQLiteSession:
        made.append(record.run_id)
        return SQLiteSession(f"{record.caller}/{record.conversation}", tmp_path / "own.db")

    log = MemoryLog()
    app = create_app(agent("one", "two"), access=by_header, log=log, session_from=session_from)
    async with serving(app) as client:
        runs = [await talk(client, text, **{"x-user": "ann"}) for text in "12"]
        shown = (await client.get("/conversations/chat", headers={"x-user": "ann"})).json()
        in_the_store = await log.items("ann", "chat")
        await client.delete("/conversations/chat", headers={"x-user": "ann"})

    assert said(shown["items"]) == ["user: 1", "assistant: one", "user: 2", "assistant: two"]
    assert in_the_store == []
    assert made[:2] == runs
    assert await SQLiteSession("ann/chat", tmp_path / "own.db").get_items() == []


# --- processes that die -------------------------------------------------------------------------


class Mortal(MemoryLog):
    """Takes so many writes, and none after them: the process that made them is dead."""

    writes_left: int | None = None

    def _write(self) -> None:
        if self.writes_left == 0:
            raise StaleOwnerError("This process is dead.")
        if self.writes_left is not None:
            self.writes_left -= 1

    async def append(self, run_id: str, batch: Batch, *, epoch: int = 0) -> None:
        self._write()
        await super().append(run_id, batch, epoch=epoch)

    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        self._write()
        await super().add_items(run_id, items, epoch=epoch)


def adder() -> Agent[Any]:
    """Says what it says by what it is given, so that a run that begins again says the same."""

    @tool
    async def add(a: int, b: int) -> int:
        return a + b

    def answer(call: ModelCall) -> Any:
        history = said(call.input)
        number = sum(line.startswith("user: ") for line in history)
        if history[-1].startswith("user: "):
            return [function_call("add", {"a": number, "b": 1}, call_id=f"c{number}")]
        return f"Answer {number}."

    return Agent(name="A", tools=[add], model=ScriptedModel([ModelStep(responder=answer)] * 10))


async def three_runs(writes: int | None) -> tuple[list[str], bool]:
    """What three runs of a conversation leave, and whether the process of the second one died: after so many writes."""
    clock, died = ManualClock(), False
    log, config = Mortal(clock=clock), RunConfig(clock=clock, ahead="free")
    for text in ("First", "Second", "Third"):
        doing = adder()
        run = await Runner.submit(log, doing, text, caller="ann", conversation="chat")
        if text == "Second":
            log.writes_left = writes
        handle = await Recovery(log=log, agent=doing, run_config=config).one(run.run_id)
        assert handle is not None
        with contextlib.suppress(StaleOwnerError):
            await handle
        log.writes_left, has_died = None, log.writes_left == 0
        clock.advance(config.lease + 1)
        for again in await Recovery(log=log, agent=adder(), run_config=config).all(10):
            await again
        assert (await log.record(run.run_id)).status == "completed"
        died = died or has_died
    session = ConversationSession(log, await log.record(run.run_id))
    return said(await session.get_items()), died


async def test_wherever_its_process_dies_a_conversation_has_all_that_was_said_once() -> None:
    whole, _ = await three_runs(None)
    deaths = 0
    for writes in itertools.count():
        items, died = await three_runs(writes)
        assert items == whole, f"died after {writes} writes"
        if not died:
            break
        deaths += 1

    assert whole == [
        line
        for number, text in enumerate(("First", "Second", "Third"), 1)
        for line in (
            f"user: {text}",
            f"function_call: c{number}",
            f"function_call_output: c{number}",
            f"assistant: Answer {number}.",
        )
    ]
    assert deaths > 10


class Freezing(MemoryLog):
    """Has its first owner wait before it adds more than his input, as a process that is stopped, until `thaw`."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.frozen, self.thaw = asyncio.Event(), asyncio.Event()

    async def add_items(self, run_id: str, items: Sequence[bytes], *, epoch: int = 0) -> None:
        if epoch == 1 and b'"user"' not in items[0]:
            self.frozen.set()
            await self.thaw.wait()
        await super().add_items(run_id, items, epoch=epoch)


async def test_who_wakes_to_a_run_that_others_went_on_with_adds_nothing_to_its_conversation() -> None:
    clock = ManualClock()
    log, config = Freezing(clock), RunConfig(clock=clock, ahead="free")
    run = await Runner.submit(log, adder(), "Hi", conversation="chat")
    sleeper = await Recovery(log=log, agent=adder(), run_config=config).one(run.run_id)
    assert sleeper is not None
    await log.frozen.wait()
    tenure = sleeper._run.tenure
    assert tenure is not None
    tenure._tasks[0].cancel()  # a process that is stopped renews nothing
    clock.advance(config.lease + 1)
    [other] = await Recovery(log=log, agent=adder(), run_config=config).all(10)
    await other
    log.thaw.set()
    with pytest.raises(StaleOwnerError):
        await sleeper

    items = await ConversationSession(log, await log.record(run.run_id)).get_items()
    assert said(items) == [
        "user: Hi",
        "function_call: c1",
        "function_call_output: c1",
        "assistant: Answer 1.",
    ]


APP = """
import asyncio
from pathlib import Path

from millstream import Agent, RunConfig, tool
from millstream.server import LOCAL, create_app
from millstream.testing import ModelStep, ScriptedModel, function_call


@tool
async def wait() -> str:
    if not Path("go").exists():
        await asyncio.Event().wait()
    return "waited"


def answer(call):
    is_asked = call.input[-1].get("content") == "Wait"
    return [function_call("wait", {}, call_id="w")] if is_asked else "Done."


agent = Agent(name="A", tools=[wait], model=ScriptedModel([ModelStep(responder=answer)] * 10))
app = create_app(agent, access=LOCAL, log="sqlite:///runs.db", run_config=RunConfig(lease=1.0))
"""


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_conversation_goes_on_where_its_server_was_killed(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    body = {"conversation": "chat", "stream": True}
    with serving_alone(tmp_path, app="app.py:app") as first:
        with first.stream("POST", "/runs", body | {"input": "Hello"}) as stream:
            stream.until()
        with first.stream("POST", "/runs", body | {"input": "Wait"}) as stream:
            stream.until("tool.started")
            first.process.kill()
    (tmp_path / "go").touch()
    with serving_alone(tmp_path, app="app.py:app") as second:
        with second.stream("GET", f"/runs/{stream.run_id}/events") as rest:
            rest.until()
        with second.stream("POST", "/runs", body | {"input": "And now?"}) as last:
            last.until()
        chat = second.ask("GET", "/conversations/chat")

    assert any('"type":"run.attempt"' in event.data for event in rest.events)
    assert [run["status"] for run in chat["runs"]] == ["completed"] * 3
    assert said(chat["items"]) == [
        "user: Hello",
        "assistant: Done.",
        "user: Wait",
        "function_call: w",
        "function_call_output: w",
        "assistant: Done.",
        "user: And now?",
        "assistant: Done.",
    ]
