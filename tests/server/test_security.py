"""What strangers, other callers and curious clients get of a server: nothing that is not theirs."""

import asyncio
import logging
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from starlette.requests import HTTPConnection

from millstream import Agent, MemoryLog, RunHooks, input_guardrail, tool
from millstream.errors import ModelResponseError, UserError
from millstream.server import LOCAL, OPEN, create_app
from millstream.server.table import ENDPOINTS
from millstream.testing import CANARY, ScriptedModel, function_call
from tests.server.kit import events_of, serving
from tests.server.sockets import asked

ANN, BOB = {"x-user": "ann"}, {"x-user": "bob"}


async def by_header(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


def agent(*steps: Any, **options: Any) -> Agent[Any]:
    return Agent(name="A", model=ScriptedModel(steps or ["Hello there."]), **options)


ROUTES = [(each.method, each.path, each.name) for each in ENDPOINTS if not each.is_open]

# --- callers ----------------------------------------------------------------------------------

OF_NO_RUN = {"start", "runs", "conversations", "probe", "openapi"}
BODIES: dict[str, Any] = {
    "start": {"input": "Hi"},
    "runs": None,
    "run": None,
    "delete": None,
    "events": None,
    "cancel": {},
    "decide": {"call_id": "c1", "approved": True},
    "input": {"input": "mine"},
    "conversations": None,
    "conversation": None,
    "forget": None,
    "probe": None,
    "openapi": None,
}
"""By the name of a route, what is sent to it."""


def test_every_route_has_its_row_here() -> None:
    assert {name for _, _, name in ROUTES} == set(BODIES)
    assert {name for _, path, name in ROUTES if "{" not in path} == OF_NO_RUN


async def paused_run(client: httpx2.AsyncClient) -> str:
    """A run of Ann's at which every route has something to do."""
    body = {"input": "Hi", "conversation": "c"}
    run_id = (await client.post("/runs", json=body, headers=ANN)).json()["run_id"]
    async with client.stream("GET", f"/runs/{run_id}/events?until=pause", headers=ANN) as response:
        await response.aread()
    return run_id


def asking() -> Agent[Any]:
    @tool(needs_approval=True)
    async def delete(name: str) -> str:
        return f"deleted {name}"

    return agent([function_call("delete", {"name": "x"}, call_id="c1")], "Done.", tools=[delete])


async def test_no_route_tells_another_caller_of_a_run_or_lets_him_touch_it() -> None:
    log = MemoryLog()
    async with serving(create_app(asking(), access=by_header, log=log)) as client:
        run_id = await paused_run(client)
        before = await log.record(run_id)
        of_none = f"run_{'0' * 32}"
        for method, path, name in ROUTES:
            if name in OF_NO_RUN:
                continue
            hers, nobodys = [
                await client.request(method, path.format(**named), json=BODIES[name], headers=BOB)
                for named in (
                    {"run_id": run_id, "conversation": "c"},
                    {"run_id": of_none, "conversation": "none"},
                )
            ]
            assert (hers.status_code, hers.content) == (404, nobodys.content), name
            assert hers.headers.keys() == nobodys.headers.keys(), name
        listed = await client.get("/runs", headers=BOB)
        paged = await client.get(f"/runs?before={run_id}", headers=BOB)

        assert (listed.json(), paged.status_code) == ({"runs": []}, 404)
        assert await log.record(run_id) == before
        assert await log.mail(run_id) == []
        assert (await client.post(f"/runs/{run_id}/cancel", json={}, headers=ANN)).status_code == 202


async def test_the_key_of_one_caller_is_not_the_key_of_another() -> None:
    async with serving(create_app(agent("a", "b"), access=by_header, log=MemoryLog())) as client:
        key = {"idempotency-key": "k"}
        ann, bob = [
            (await client.post("/runs", json={"input": "Hi"}, headers=who | key)).json()["run_id"]
            for who in (ANN, BOB)
        ]
        for run_id, who in ((ann, ANN), (bob, BOB)):
            (own,) = (await client.get("/runs", headers=who)).json()["runs"]
            assert own["run_id"] == run_id

    assert ann != bob


async def test_who_may_not_use_a_server_is_told_the_same_by_every_route() -> None:
    async with serving(create_app(asking(), access=by_header, log=MemoryLog())) as client:
        run_id = await paused_run(client)
        answers = [
            await client.request(method, path.format(run_id=each, conversation=each), json=BODIES[name])
            for method, path, name in ROUTES
            for each in (run_id, "x")
        ]

    assert {(each.status_code, each.content) for each in answers} == {(401, answers[0].content)}
    assert answers[0].json()["error"]["code"] == "unauthorized"


async def test_a_page_of_another_origin_changes_nothing() -> None:
    log = MemoryLog()
    async with serving(create_app(asking(), access=by_header, log=log)) as client:
        run_id = await paused_run(client)
        before = await log.record(run_id)
        for origin in ("https://evil.example", "null", "", str(client.base_url) + ".evil.example"):
            for method, path, name in ROUTES:
                where, query = path.format(run_id=run_id, conversation="c"), {"until": "pause"}
                headers = ANN | {"origin": origin}
                answer = await client.request(method, where, params=query, json=BODIES[name], headers=headers)
                assert "access-control-allow-origin" not in answer.headers
                if method != "GET":
                    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "wrong_origin"), name
        own = str(client.base_url).rstrip("/")
        assert await log.record(run_id) == before
        said = await client.post(f"/runs/{run_id}/cancel", json={}, headers=ANN | {"origin": own})

    assert said.status_code == 202


async def test_a_hook_that_names_nobody_by_a_text_lets_nobody_in(caplog: pytest.LogCaptureFixture) -> None:
    async def yes(connection: HTTPConnection) -> Any:
        return True

    async with serving(create_app(agent(), access=yes, log=MemoryLog())) as client:
        answer = await client.post("/runs", json={"input": "Hi"})

    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert "access= gave a bool" in caplog.text


# --- what only the log may know ---------------------------------------------------------------


class Leaky(Exception):
    """Says what nobody is to know."""

    def __init__(self) -> None:
        super().__init__(f"password is {CANARY}")


async def raise_it(*_: Any, **__: Any) -> Any:
    raise Leaky


@tool(failure_error_function=None)
async def failing() -> str:
    raise Leaky


@tool
async def failing_and_told() -> str:
    raise Leaky  # the model is told that it failed, and not why: what it is told is in the stream


@tool
async def fine() -> str:
    return "fine"


@input_guardrail
async def failing_guardrail(*_: Any) -> Any:
    raise Leaky


class FailingHooks(RunHooks[Any]):
    async def on_agent_start(self, context: Any, agent: Any) -> None:
        raise Leaky


LEAKS: dict[str, dict[str, Any]] = {
    "tool": {"agents": agent([function_call("failing")], tools=[failing])},
    "tool whose failure is told to the model": {
        "agents": agent([function_call("failing_and_told")], "Sorry.", tools=[failing_and_told])
    },
    "model": {"agents": agent(Leaky())},
    "model of another message": {"agents": agent(ModelResponseError(f"key {CANARY} is wrong"))},
    "guardrail": {"agents": agent(input_guardrails=[failing_guardrail])},
    "instructions": {"agents": agent(instructions=raise_it)},
    "agent factory": {"agents": raise_it},
    "context factory": {"agents": agent(), "context_from": raise_it},
    "hooks": {"agents": agent(), "hooks": FailingHooks()},
    "access": {"agents": agent(), "access": raise_it},
    "error handler": {
        "agents": agent([function_call("fine")], [function_call("fine")], tools=[fine]),
        "error_handlers": {"max_turns": raise_it},
    },
}


async def all_answers(client: httpx2.AsyncClient) -> bytes:
    """Every byte that a client can get of a run from its start on."""
    got = list[httpx2.Response]()
    body = {"input": "Hi", "agent": "A", "max_turns": 1}
    got.append(started := await client.post("/runs", json=body | {"conversation": "c"}))
    got.append(await client.post("/runs", json=body | {"stream": True}))
    got.append(await client.get("/runs"))
    if started.status_code == 202:
        run_id = started.json()["run_id"]
        await events_of(client, run_id)
        got += [
            await client.request(method, path.format(run_id=run_id, conversation="c"), json=BODIES[name])
            for method, path, name in sorted(ROUTES, key=lambda route: route[0] == "DELETE")
        ]
    return b"".join(repr(each.headers).encode() + each.content for each in got)


@pytest.mark.parametrize("leak", LEAKS)
async def test_what_an_exception_says_stands_in_the_log_of_the_server_alone(
    leak: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    options = {"access": LOCAL, **LEAKS[leak]}
    async with serving(create_app(**options, log=MemoryLog())) as client:
        got = await all_answers(client)

    assert CANARY.encode() not in got
    assert b"Leaky" not in got
    assert b"Traceback" not in got
    assert CANARY in caplog.text, "nobody could find out"


async def test_the_headers_of_a_request_are_nowhere_to_be_found_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = {"authorization": f"Bearer {CANARY}", "cookie": f"s={CANARY}", "x-key": CANARY}
    async with serving(create_app(agent(*["x"] * 9), access=LOCAL, log=MemoryLog())) as client:
        client.headers.update(secrets)
        got = await all_answers(client)
    async with serving(create_app(agent(), access=raise_it, log=MemoryLog())) as client:
        client.headers.update(secrets)
        got += await all_answers(client)

    assert CANARY.encode() not in got
    ours = [record.getMessage() for record in caplog.records if record.name.startswith("millstream")]
    assert CANARY not in "".join(ours)


async def test_an_error_that_nobody_thought_of_has_an_id_that_the_log_has_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(MemoryLog):
        async def runs(self, *, caller: str | None = None, **asked: Any) -> Any:
            if caller is None:  # the server itself, which looks for what it may go on with
                return await super().runs(**asked)
            raise Leaky

    async with serving(create_app(agent(), access=LOCAL, log=Broken())) as client:
        answer = await client.get("/runs")

    error = answer.json()["error"]
    assert answer.status_code == 500
    assert (error["code"], error["message"]) == ("internal", "Something went wrong.")
    assert error["error_id"] in caplog.text
    assert CANARY not in answer.text


# --- this machine alone -----------------------------------------------------------------------


def connection(host: bytes | None, peer: str | None) -> HTTPConnection:
    headers = [] if host is None else [(b"host", host)]
    return HTTPConnection({"type": "http", "headers": headers, "client": None if peer is None else (peer, 5)})


@pytest.mark.parametrize(
    "host",
    [
        *[b"localhost", b"LOCALHOST:7420", b"127.0.0.1", b"127.0.0.1:7420", b"127.8.9.1:1"],
        *[b"[::1]", b"[::1]:7420", b"[0:0:0:0:0:0:0:1]", b"[::ffff:127.0.0.1]:80"],
    ],
)
async def test_local_lets_in_who_means_this_machine(host: bytes) -> None:
    for peer in ("127.0.0.1", "::1", "::ffff:127.0.0.1", "127.255.0.1"):
        assert await LOCAL(connection(host, peer)) == ""


@pytest.mark.parametrize(
    "host",
    [
        *[None, b"", b":7420", b"evil.example", b"localhost.evil.example", b"evil.example:7420"],
        *[
            b"localhost.",
            b"127.0.0.1.",
            b"127.1",
            b"2130706433",
            b"0x7f.1",
            b"0.0.0.0",
            b"[::]",
            b"[::1",
            b"::1",
        ],
        *[b"x@localhost", b"localhost/x", b"localhost#x", b"localhost?x", b"localhost\\x", b"local host"],
        *[b"127.0.0.1, evil.example", b"evil.example, localhost", b"localhost\tx", b"\xff", b"10.0.0.1"],
        *["localhost\u00b7".encode(), b"%6cocalhost", b"app.localhost", b"127.0.0.1.nip.io"],
    ],
)
async def test_local_keeps_out_what_is_called_otherwise(host: bytes | None) -> None:
    assert await LOCAL(connection(host, "127.0.0.1")) is None


@pytest.mark.parametrize("peer", [None, "", "10.0.0.1", "::2", "::ffff:10.0.0.1", "testclient", "fe80::1%lo"])
async def test_local_keeps_out_who_is_elsewhere(peer: str | None) -> None:
    assert await LOCAL(connection(b"localhost", peer)) is None


# --- what is no request -----------------------------------------------------------------------


OTHER_TYPES = [
    *["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json"],
    *["application/jsonp", "application/json, text/plain"],
]
NO_IDS = [
    *["..", "%2e%2e", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "../../etc/passwd", "run_", "x", "%00", "*", "%"],
    *["run_" + "0" * 31, "run_" + "0" * 33, "RUN_" + "0" * 32, "run_" + "A" * 32, "run_" + "0" * 31 + "%0a"],
    *[
        "run_" + "0" * 32 + "%0a",
        "%20run_" + "0" * 32,
        "run_" + "%d9%a0" * 32,
        "%ff%fe",
        "run_'%20OR%201=1--",
    ],
    *["x" * 5000, "run_" + "0" * 32 + "%2fevents", "run_" + "0" * 32 + ";x=1"],
]


async def test_what_is_no_id_is_no_run() -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        for name in NO_IDS:
            for path in (f"/runs/{name}", f"/runs/{name}/events", f"/runs?before={name}"):
                answer = await asked(client, f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                assert answer.status == 404, (path, answer)
                assert answer.error in ("unknown_run", "unknown_path")


async def test_a_body_of_another_type_is_not_read() -> None:
    # What a page of another origin can send without asking first has one of these types.
    log = MemoryLog()
    async with serving(create_app(agent(), access=OPEN, log=log)) as client:
        for kind in OTHER_TYPES:
            answer = await client.post("/runs", content=b'{"input":"x"}', headers={"content-type": kind})
            assert (answer.status_code, answer.json()["error"]["code"]) == (415, "not_json"), kind

    assert await log.runs() == []


async def test_options_and_head_tell_no_more_than_get() -> None:
    go_on = asyncio.Event()

    @tool
    async def wait() -> None:
        await go_on.wait()

    app = create_app(agent([function_call("wait")], "Done.", tools=[wait]), access=LOCAL, log=MemoryLog())
    async with serving(app) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        head = await client.head(f"/runs/{run_id}/events")  # of a run that has no end yet
        options = [
            await client.options(path.format(run_id=run_id, conversation="c")) for _, path, _ in ROUTES
        ]
        trace = await client.request("TRACE", "/runs")
        go_on.set()
        await events_of(client, run_id)

    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert {each.status_code for each in [*options, trace]} == {405}
    assert not any(name.startswith("access-control") for each in options for name in each.headers)


FRONT = "https://app.example"


async def test_a_page_of_an_origin_that_was_named_may_do_what_its_user_may() -> None:
    app = create_app(
        Agent(name="A", model=ScriptedModel(["Hi."])), access=by_header, origins=[FRONT], log="memory:"
    )
    asks = {"access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    async with serving(app) as client:
        allowed = await client.options("/runs", headers={"origin": FRONT, **asks})
        begun = await client.post("/runs", json={"input": "Hi"}, headers=ANN | {"origin": FRONT})
        stranger = await client.options("/runs", headers={"origin": "https://evil.example", **asks})
        refused = await client.post(
            "/runs", json={"input": "Hi"}, headers=ANN | {"origin": "https://evil.example"}
        )
        client.headers.update(ANN)
        await events_of(client, begun.json()["run_id"])

    assert (allowed.status_code, allowed.headers["access-control-allow-origin"]) == (200, FRONT)
    assert (begun.status_code, begun.headers["access-control-allow-origin"]) == (202, FRONT)
    assert "location" in begun.headers["access-control-expose-headers"].split(", ")
    assert "access-control-allow-origin" not in stranger.headers
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "wrong_origin")
    assert "access-control-allow-origin" not in refused.headers


@pytest.mark.parametrize(
    "origin", ["*", "app.example", "https://app.example/", "https://app.example/page", "null", ""]
)
def test_what_is_no_origin_is_refused_when_the_application_is_made(origin: str) -> None:
    with pytest.raises(UserError, match="is no origin"):
        create_app(Agent(name="A"), access=by_header, origins=[origin], log="memory:")
