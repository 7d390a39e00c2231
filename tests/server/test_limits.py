"""How much one caller may have, how large a body may be, and how slowly it may come."""

import asyncio
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from starlette.requests import HTTPConnection

from millstream import Agent, MemoryLog, RunConfig, tool
from millstream.errors import UserError
from millstream.server import LOCAL, create_app
from millstream.testing import ManualClock, ScriptedModel, function_call
from tests.server.kit import events_of, serving
from tests.server.sockets import answer_on, asked, line_to

ANN, BOB = {"x-user": "ann"}, {"x-user": "bob"}


async def by_header(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


class Held:
    """Agents whose runs stand still in a tool until they are let go."""

    def __init__(self) -> None:
        self.go_on = asyncio.Event()

    def agent(self, record: Any = None) -> Agent[Any]:
        @tool
        async def hold() -> str:
            await self.go_on.wait()
            return "held"

        return Agent(name="A", model=ScriptedModel([[function_call("hold")], "Done."]), tools=[hold])


def told(answer: Any) -> tuple[int, str, str | None]:
    return answer.status_code, answer.json()["error"]["code"], answer.headers.get("retry-after")


async def test_a_caller_has_so_many_runs_at_a_time_and_no_other_pays_for_it() -> None:
    held, log = Held(), MemoryLog()
    body = {"input": "Hi", "agent": "A"}
    async with serving(create_app(held.agent, access=by_header, log=log, max_runs=2)) as client:
        runs = [await client.post("/runs", json=body, headers=ANN) for _ in range(2)]
        refused = await client.post("/runs", json=body, headers=ANN)
        of_bob = await client.post("/runs", json=body, headers=BOB)
        held.go_on.set()
        client.headers.update(ANN)
        for run in runs:
            await events_of(client, run.json()["run_id"])
        # A run gives its place back when it has let go of its store, behind its end.
        while (again := await client.post("/runs", json=body)).status_code == 429:
            await asyncio.sleep(0)
        await events_of(client, again.json()["run_id"])

    assert told(refused) == (429, "too_many_runs", "5")
    assert of_bob.status_code == 202
    assert len(await log.runs(caller="ann")) == 3  # of one that was refused nothing is kept


async def test_starts_at_the_same_time_do_not_slip_past_the_limit() -> None:
    held, log = Held(), MemoryLog()
    body = {"input": "Hi", "agent": "A"}
    async with serving(create_app(held.agent, access=LOCAL, log=log, max_runs=3, drain=0)) as client:
        answers = await asyncio.gather(*(client.post("/runs", json=body) for _ in range(10)))
        held.go_on.set()

    assert sorted(each.status_code for each in answers) == [202] * 3 + [429] * 7


async def test_what_cannot_be_begun_takes_no_place() -> None:
    async with serving(create_app(Held().agent(), access=LOCAL, log=MemoryLog(), max_runs=1)) as client:
        for _ in range(3):
            answer = await client.post("/runs", json={"input": [{"role": 5}]})
            assert told(answer) == (422, "bad_input", None)


async def test_a_caller_follows_so_many_streams_at_a_time() -> None:
    held, log = Held(), MemoryLog()
    body = {"input": "Hi", "agent": "A"}
    async with serving(create_app(held.agent, access=by_header, log=log, max_streams=1)) as client:
        run_id = (await client.post("/runs", json=body, headers=ANN)).json()["run_id"]
        path = f"/runs/{run_id}/events"
        async with client.stream("GET", path, headers=ANN) as first:
            refused = await client.get(path, headers=ANN)
            not_begun = await client.post("/runs", json=body | {"stream": True}, headers=ANN)
            async with client.stream("POST", "/runs", json=body | {"stream": True}, headers=BOB) as of_bob:
                assert of_bob.status_code == 200
            held.go_on.set()
            await first.aread()
        client.headers.update(ANN)
        while (again := await client.get(path)).status_code == 429:
            await asyncio.sleep(0)  # until the server has seen the end of the first

    assert told(refused) == (429, "too_many_streams", "5")
    assert told(not_begun) == (429, "too_many_streams", "5")
    assert again.content.endswith(b"\n\n")
    assert len(await log.runs(caller="ann")) == 1


async def test_a_body_may_be_so_large_whether_it_says_so_or_not() -> None:
    log = MemoryLog()
    app = create_app(Held().agent(), access=LOCAL, log=log, max_body=100)
    head = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with serving(app) as client:
        exact = b'{"input":5' + b" " * 89 + b"}"
        fits = await asked(client, head + b"Content-Length: 100\r\n\r\n" + exact)
        large = await asked(client, head + b"Content-Length: 101\r\n\r\n" + exact + b" ")
        lies = await asked(client, head + b"Content-Length: 999999999999\r\n\r\n" + b" " * 101)
        chunks = await asked(client, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"32\r\n" + b" " * 50 + b"\r\n" + b"33\r\n" + b" " * 51 + b"\r\n")  # fmt: skip

    assert (fits.status, fits.error) == (422, "bad_request")
    for answer in (large, lies, chunks):
        assert (answer.status, answer.error) == (413, "too_large")


async def test_a_body_that_does_not_come_is_not_waited_for() -> None:
    clock = ManualClock()
    app = create_app(Held().agent(), access=LOCAL, log=MemoryLog(), run_config=RunConfig(clock=clock))
    head = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with serving(app) as client, line_to(client) as (reader, writer):
        before = len(clock.due)
        writer.write(head + b'Content-Length: 50\r\n\r\n{"input":')
        await clock.waiting(before + 1)
        clock.advance(61)
        answer = await answer_on(reader)

    assert (answer.status, answer.error) == (408, "too_slow")


async def test_a_client_that_leaves_amid_its_body_is_no_failure(caplog: pytest.LogCaptureFixture) -> None:
    log = MemoryLog()
    head = b"POST /runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    async with serving(create_app(Held().agent(), access=LOCAL, log=log)) as client:
        for _ in range(20):
            async with line_to(client) as (_, writer):
                writer.write(head + b'Content-Length: 50\r\n\r\n{"input":')
                await writer.drain()
        assert (await client.get("/ready")).status_code == 200

    assert await log.runs() == []
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == []


@pytest.mark.parametrize("name", ["max_runs", "max_streams", "max_body"])
def test_a_limit_of_nothing_is_refused(name: str) -> None:
    limit: dict[str, Any] = {name: 0}
    with pytest.raises(UserError, match=rf"create_app\({name}=0\)"):
        create_app(Held().agent(), access=LOCAL, log=MemoryLog(), **limit)


# --- what the HTTP server below bears ---------------------------------------------------------


async def test_requests_that_come_at_once_on_one_line_are_answered_in_order() -> None:
    get = b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n"
    app = create_app(Held().agent(), access=LOCAL, log=MemoryLog())
    async with serving(app) as client, line_to(client) as (reader, writer):
        writer.write(get % b"/version" + get % b"/runs" + get % b"/runs/x" + get % b"/health")
        answers = [await answer_on(reader) for _ in range(4)]

    assert [answer.status for answer in answers] == [200, 200, 404, 200]
    assert answers[1].body == b'{"runs":[]}'


async def test_headers_without_end_are_refused_and_headers_that_do_not_come_hold_nobody_up() -> None:
    async with serving(create_app(Held().agent(), access=LOCAL, log=MemoryLog())) as client:
        async with line_to(client) as (reader, writer):
            writer.write(b"GET /runs HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 200_000)
            head = await reader.readuntil(b"\r\n\r\n")
        async with line_to(client) as (_, writer):
            writer.write(b"GET /runs HTTP/1.1\r\nHost: localh")
            others = [await client.get("/runs") for _ in range(3)]

    assert head.startswith(b"HTTP/1.1 400 ")
    assert {each.status_code for each in others} == {200}


@pytest.mark.parametrize("request_line", [b"GET /runs", b"\x16\x03\x01\x02\x00\x01\x00", b"\0" * 99])
async def test_what_is_no_request_is_refused_or_let_lie(request_line: bytes) -> None:
    async with serving(create_app(Held().agent(), access=LOCAL, log=MemoryLog())) as client:
        async with line_to(client) as (reader, writer):
            writer.write(request_line + b"\r\n\r\n")
            writer.write_eof()
            got = await reader.read()
        assert (await client.get("/health")).status_code == 200

    assert got == b"" or got.startswith(b"HTTP/1.1 400 ")


async def test_what_a_tool_gives_is_cut_to_what_a_client_takes() -> None:
    @tool
    async def read() -> str:
        return "\u2028" + "x" * 20_000_000

    agent = Agent(name="A", model=ScriptedModel([[function_call("read")], "Done."]), tools=[read])
    async with serving(create_app(agent, access=LOCAL, log=MemoryLog())) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        events = await events_of(client, run_id)

    longest = max(events, key=lambda event: len(event.data))
    assert 16 * 1024 * 1024 < len(longest.data) < 17 * 1024 * 1024
    assert "characters more]" in longest.data
    assert '"run.completed"' in events[-1].data
