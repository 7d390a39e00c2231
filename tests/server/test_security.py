"""What strangers, other callers and curious clients get of a server: nothing that is not theirs."""

import asyncio
import contextlib
import json
import logging
import random
import re
import socket
from contextvars import ContextVar
from typing import Any, get_args
from urllib.parse import quote

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from fastapi import FastAPI
from starlette.requests import HTTPConnection
from websockets.exceptions import InvalidStatus

from millstream import Agent, MemoryLog, RedisLog, RunHooks, input_guardrail, output_guardrail, tool
from millstream.errors import LogUnavailableError, ModelResponseError, UserError
from millstream.server import LOCAL, OPEN, create_app, messages
from millstream.server.table import ENDPOINTS
from millstream.testing import CANARY, ScriptedModel, function_call
from tests.server.agents import agent, asking
from tests.server.kit import events_of, serving
from tests.server.sockets import asked
from tests.server.talk import Talk, talking

ANN, BOB = {"x-user": "ann"}, {"x-user": "bob"}
ASKING: ContextVar[str | None] = ContextVar("ASKING", default=None)
"""Who asks for what is done at the moment."""


async def by_header(connection: HTTPConnection) -> str | None:
    caller = connection.headers.get("x-user")
    ASKING.set(caller)
    return caller


class Watched(MemoryLog):
    """A store that knows what it was asked for by Bob."""

    def __init__(self) -> None:
        super().__init__()
        self.for_bob: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name != "for_bob" and ASKING.get() == "bob":
            self.for_bob.append(name)
        return super().__getattribute__(name)

    def taken(self) -> list[str]:
        """What he asked for since this was called last."""
        asked_for, self.for_bob = self.for_bob, []
        return asked_for


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


async def test_no_route_tells_another_caller_of_a_run_or_lets_him_touch_it() -> None:
    log = Watched()
    async with serving(create_app(asking(), access=by_header, log=log)) as client:
        run_id = await paused_run(client)
        before = await log.record(run_id)
        of_none = f"run_{'0' * 32}"
        for method, path, name in ROUTES:
            if name in OF_NO_RUN:
                continue
            (hers, for_hers), (nobodys, for_nobodys) = [
                (
                    await client.request(method, path.format(**named), json=BODIES[name], headers=BOB),
                    log.taken(),
                )
                for named in (
                    {"run_id": run_id, "conversation": "c"},
                    {"run_id": of_none, "conversation": "none"},
                )
            ]
            assert (hers.status_code, hers.content) == (404, nobodys.content), name
            assert hers.headers.keys() == nobodys.headers.keys(), name
            assert for_hers == for_nobodys, name  # nor do they take another time
            assert for_hers, "the store was not asked at all: is it watched?"
        listed = await client.get("/runs", headers=BOB)
        paged = await client.get(f"/runs?before={run_id}", headers=BOB)

        assert (listed.json(), paged.status_code) == ({"runs": []}, 404)
        assert await log.record(run_id) == before
        assert await log.mail(run_id) == []
        assert (await client.post(f"/runs/{run_id}/cancel", json={}, headers=ANN)).status_code == 202


COMMANDS: dict[str, dict[str, Any]] = {
    "start": {"input": "Hi", "agent": "A", "max_turns": 1},
    "follow": {},
    "cancel": {},
    "decide": {"call_id": "c1", "approved": True},
    "input": {"input": "mine"},
    "unfollow": {},
    "ping": {},
}
"""By its type, what is said with a command."""
OF_RUNS = {
    struct.__struct_config__.tag
    for struct in get_args(messages.Command)
    if "run_id" in struct.__struct_fields__
}
"""Commands that name a run."""


def test_every_command_has_its_row_here() -> None:
    assert {struct.__struct_config__.tag for struct in get_args(messages.Command)} == set(COMMANDS)
    assert set(COMMANDS) - OF_RUNS == {"start", "unfollow", "ping"}


async def test_no_command_tells_another_caller_of_a_run_or_lets_him_touch_it() -> None:
    log = Watched()
    async with serving(create_app(asking(), access=by_header, log=log)) as client:
        run_id = await paused_run(client)
        before = await log.record(run_id)
        async with talking(client, additional_headers=BOB) as bob:
            assert (await bob.say("ping"))["type"] == "pong"
            log.taken()
            for kind in sorted(OF_RUNS):
                answers = list[tuple[bytes, list[str]]]()
                for named in (run_id, f"run_{'0' * 32}"):
                    await bob.socket.send(json.dumps({"type": kind, "run_id": named, **COMMANDS[kind]}))
                    answers.append((await bob.socket.recv(decode=False), log.taken()))
                (told, asked_for), nobodys = answers
                assert (told, asked_for) == nobodys, kind
                assert json.loads(told)["code"] == "unknown_run", kind
                assert asked_for, "the store was not asked at all: is it watched?"
            for kind in sorted(OF_RUNS - {"follow"}):  # nor is there one that he followed last
                assert (await bob.say(kind, **COMMANDS[kind]))["code"] == "bad_request"

        assert bob.heard == []
        assert await log.record(run_id) == before
        assert await log.mail(run_id) == []


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
                where = path.format(run_id=run_id, conversation="c")
                query = {"until": "pause", "every": "0"}
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


@output_guardrail
async def failing_output_guardrail(*_: Any) -> Any:
    raise Leaky


@tool(needs_approval=raise_it)
async def failing_to_ask() -> str:
    return "fine"


class FailingHooks(RunHooks[Any]):
    async def on_agent_start(self, context: Any, agent: Any) -> None:
        raise Leaky


SECRETS = {"authorization": f"Bearer {CANARY}", "cookie": f"s={CANARY}", "x-key": CANARY}
"""Headers that a client may send."""
KEY = "canary-of-a-key"
LEAKS: dict[str, dict[str, Any]] = {
    "tool": {"agents": agent([function_call("failing")], tools=[failing])},
    "tool whose failure is told to the model": {
        "agents": agent([function_call("failing_and_told")], "Sorry.", tools=[failing_and_told])
    },
    "model": {"agents": agent(Leaky())},
    "model of another message": {"agents": agent(ModelResponseError(f"key {CANARY} is wrong"))},
    "guardrail": {"agents": agent(input_guardrails=[failing_guardrail])},
    "output guardrail": {"agents": agent(output_guardrails=[failing_output_guardrail])},
    "whether a tool needs approval": {
        "agents": agent([function_call("failing_to_ask")], tools=[failing_to_ask])
    },
    "instructions": {"agents": agent(instructions=raise_it)},
    "agent factory": {"agents": raise_it},
    "context factory": {"agents": agent(), "context_from": raise_it},
    "session factory": {"agents": agent(), "session_from": raise_it},
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
            await client.request(
                method, path.format(run_id=run_id, conversation="c") + "?every=0", json=BODIES[name]
            )
            for method, path, name in sorted(ROUTES, key=lambda route: route[0] == "DELETE")
        ]
    answers = b"".join(repr(each.headers).encode() + each.content for each in got)
    return answers + await all_messages(client)


async def all_messages(client: httpx2.AsyncClient) -> bytes:
    """Every byte that a client can get of a run on a WebSocket, from its start on."""
    own = {name: text for name, text in client.headers.items() if name in SECRETS or name == "x-user"}
    try:
        async with talking(client, additional_headers=own) as talk:
            told = [await commanded(talk, kind) for kind in COMMANDS]
            return b"".join([*talk.heard, json.dumps(told).encode()])
    except InvalidStatus as refused:
        answer = refused.response
        assert answer.status_code != 404, "that was no handshake"
        return repr(answer.headers).encode() + bytes(answer.body or b"")


async def commanded(talk: Talk, kind: str) -> dict[str, Any]:
    """The answer to a command; a run that it has begun is followed to its end."""
    answer = await talk.say(kind, **COMMANDS[kind])
    if answer.get("is_followed"):
        await talk.stream()
    return answer


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


async def test_what_a_request_says_of_its_client_is_nowhere_to_be_found_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def closed(connection: HTTPConnection) -> str | None:
        raise RuntimeError("No directory of users today.")

    caplog.set_level(logging.DEBUG)
    got = b""
    for hook in (LOCAL, closed):
        app = create_app(agent(*["x"] * 9), access=hook, log=MemoryLog())
        async with serving(app) as client:
            client.headers.update(SECRETS)
            client.params = client.params.set("token", CANARY)
            key = {"idempotency-key": KEY}
            started = [await client.post("/runs", json={"input": "Hi"}, headers=key) for _ in range(2)]
            other = await client.post("/runs", json={"input": "Bye"}, headers=key)
            assert other.status_code == (409 if hook is LOCAL else 500)
            got += b"".join(repr(each.headers).encode() + each.content for each in [*started, other])
            got += await all_answers(client)
            path = f"/ws?token={CANARY}"
            with contextlib.suppress(InvalidStatus):
                async with talking(client, path, subprotocols=[CANARY, "millstream"]) as talk:
                    assert talk.socket.subprotocol == "millstream"
                    told = [await talk.say("start", input=each, idempotency_key=KEY) for each in "ab"]
                    got += json.dumps(told).encode()

    assert CANARY.encode() not in got
    assert KEY.encode() not in got
    assert CANARY not in said_by_us(caplog)
    assert KEY not in said_by_us(caplog, logging.INFO)  # no secret, and of use to who looks for a conflict


def said_by_us(caplog: pytest.LogCaptureFixture, level: int = logging.DEBUG) -> str:
    """Our log from a level on, with its exceptions."""
    ours = [each for each in caplog.records if each.name.startswith("millstream") and each.levelno >= level]
    return "\n".join(logging.Formatter().format(record) for record in ours)


async def test_what_is_said_in_a_run_stands_in_its_stream_and_in_no_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    words = {"said": "Hi", "known": CANARY + "1", "argued": CANARY + "2", "given": CANARY + "3"}

    @tool
    async def look(name: str) -> str:
        return words["given"]

    looking = agent([function_call("look", {"name": words["argued"]})], "Done.", tools=[look])
    body = {"input": words["said"], "context": {"key": words["known"]}, "conversation": "c"}
    async with serving(create_app(looking, access=by_header, log=MemoryLog())) as client:
        client.headers.update(ANN)
        run_id = (await client.post("/runs", json=body)).json()["run_id"]
        stream = b"".join(event.data.encode() for event in await events_of(client, run_id))
        kept = await client.get("/conversations/c")
        standing = [await client.get(path) for path in ("/runs", f"/runs/{run_id}", "/conversations")]
        client.headers.update(BOB)
        of_bob = await all_answers(client)

    for word in (words["argued"], words["given"]):
        assert word.encode() in stream
        assert word in kept.text
    assert words["known"].encode() not in stream  # a context is the program's own
    assert words["known"] not in kept.text
    assert CANARY.encode() not in b"".join(each.content for each in standing) + of_bob
    assert CANARY not in said_by_us(caplog)


class Troubled(MemoryLog):
    """A store that says where it is when it cannot be used."""

    is_away = False

    def __getattribute__(self, name: str) -> Any:
        asked_for = {"create", "record", "runs", "conversation", "conversations"}
        if name in asked_for and super().__getattribute__("is_away"):
            raise LogUnavailableError(f"/var/{CANARY}/runs.db cannot be opened.")
        return super().__getattribute__(name)


async def test_where_the_store_is_stands_in_the_log_of_the_server_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Troubled()
    async with serving(create_app(agent(), access=LOCAL, log=log)) as client:
        run_id = (await client.post("/runs", json={"input": "Hi", "conversation": "c"})).json()["run_id"]
        await events_of(client, run_id)
        log.is_away = True
        for method, path, name in ROUTES:
            if name in {"probe", "openapi"}:
                continue
            where = path.format(run_id=run_id, conversation="c")
            answer = await client.request(method, where, json=BODIES[name])
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "log_unavailable"), name
            assert answer.json()["error"]["error_id"] in caplog.text
            assert CANARY not in answer.text, name
        async with talking(client) as talk:
            for kind in sorted({*OF_RUNS, "start"}):
                named = {} if kind == "start" else {"run_id": run_id}
                told = await talk.say(kind, **named, **COMMANDS[kind])
                assert told["code"] == "log_unavailable", kind
                assert CANARY not in json.dumps(told), kind

    assert CANARY in caplog.text


async def test_the_password_of_a_store_stands_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.socket() as nobodys:
        nobodys.bind(("127.0.0.1", 0))  # taken, and nobody listens
        address = f"redis://user:{CANARY}@127.0.0.1:{nobodys.getsockname()[1]}/0?password={CANARY}"
        app = create_app(agent(), access=LOCAL, log=RedisLog(address, patience=0.1))
        # A server whose application hears of no start begins with its first request.
        async with serving(app, lifespan="off") as client:
            answers = [await client.get(path) for path in ("/runs", "/ready", "/health")]
            told = await all_messages(client)

    assert [each.status_code for each in answers] == [503, 503, 200]
    assert CANARY.encode() not in told + b"".join(each.content for each in answers)
    assert "127.0.0.1" in said_by_us(caplog), "nobody could find out"
    assert CANARY not in said_by_us(caplog)


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


async def test_local_keeps_out_who_names_two_machines() -> None:
    for first, second in ((b"localhost", b"evil.example"), (b"evil.example", b"localhost")):
        scope = connection(first, "127.0.0.1").scope
        scope["headers"].append((b"host", second))
        assert await LOCAL(HTTPConnection(scope)) is None


async def test_local_takes_the_word_of_a_proxy_for_who_is_behind_it() -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        for visitor, status in (("10.0.0.1", 401), ("127.0.0.1, 10.0.0.1", 401), ("127.0.0.1", 200)):
            answer = await client.get("/runs", headers={"x-forwarded-for": visitor})
            assert answer.status_code == status, visitor
        for header in ("x-forwarded-host", "x-real-ip", "forwarded"):
            answer = await client.get("/runs", headers={header: "localhost", "host": "evil.example"})
            assert answer.status_code == 401, header


async def test_a_target_that_is_a_whole_address_is_no_way_around_the_host() -> None:
    get = b"GET http://localhost/runs HTTP/1.1\r\nHost: %b\r\n\r\n"
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        for host in (b"evil.example", b"localhost"):
            answer = await asked(client, get % host)
            assert (answer.status, answer.error) == (404, "unknown_path")
        twice = await asked(client, b"GET /runs HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n")

    assert twice.status == 400


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


async def test_what_is_no_id_is_not_even_looked_for() -> None:
    log, zeros = Watched(), "0" * 32
    names = [
        "",
        "x",
        "*",
        "..",
        f"run_{zeros}\n",
        f" run_{zeros}",
        f"RUN_{zeros}",
        "run_" + "A" * 32,
        "run_\x00",
    ]
    async with serving(create_app(agent(), access=by_header, log=log)) as client:
        async with talking(client, additional_headers=BOB) as bob:
            for kind in sorted(OF_RUNS):
                for name in names:
                    told = await bob.say(kind, run_id=name, **COMMANDS[kind])
                    assert told["code"] == "unknown_run", (kind, name)  # also of "": it is not left out
        for name in names[1:]:
            # Space around what a query says is no part of it.
            for path in (f"/runs/{quote(name, safe='')}", f"/runs?before={quote(name)}x"):
                assert (await client.get(path, headers=BOB)).status_code == 404
        assert log.taken() == []


async def test_the_ids_of_runs_do_not_follow_from_one_another() -> None:
    ids = set[str]()
    async with serving(create_app(agent(*["x"] * 9), access=OPEN, log=MemoryLog())) as client:
        for _ in range(5):
            random.seed(0)
            ids.add((await client.post("/runs", json={"input": "Hi"})).json()["run_id"])

    assert len(ids) == 5
    assert all(re.fullmatch("run_[0-9a-f]{32}", each) for each in ids)


async def test_a_body_of_another_type_is_not_read() -> None:
    # What a page of another origin can send without asking first has one of these types, or none.
    log = MemoryLog()
    posts = [(path, name) for method, path, name in ROUTES if method == "POST"]
    async with serving(create_app(asking(), access=by_header, log=log)) as client:
        run_id = await paused_run(client)
        before = await log.record(run_id)
        for path, name in posts:
            body = json.dumps(BODIES[name]).encode()
            for kind in (None, *OTHER_TYPES):
                headers = ANN if kind is None else ANN | {"content-type": kind}
                answer = await client.post(path.format(run_id=run_id), content=body, headers=headers)
                assert (answer.status_code, answer.json()["error"]["code"]) == (415, "not_json"), (name, kind)

    assert [record.run_id for record in await log.runs()] == [run_id]
    assert (await log.record(run_id), await log.mail(run_id)) == (before, [])


async def test_who_names_no_host_is_no_page_of_the_server() -> None:
    # "null" is the origin of a page that has none: in a sandbox, or of a file.
    head = b"POST /runs HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"
    async with serving(create_app(agent(), access=OPEN, log=MemoryLog())) as client:
        for origin in (b"null", b"", b"://", b"https://"):
            answer = await asked(client, head + b"Origin: " + origin + b'\r\n\r\n{"input":"x"}')
            assert (answer.status, answer.error) == (403, "wrong_origin"), origin


async def test_nobody_is_sent_to_where_his_host_header_says() -> None:
    async with serving(create_app(agent(), access=OPEN, log=MemoryLog())) as client:
        for path in (b"/runs/", b"//evil.example/runs/", b"/health/", b"/ws/"):
            answer = await asked(client, b"GET " + path + b" HTTP/1.1\r\nHost: evil.example\r\n\r\n")
            assert (answer.status, answer.error) == (404, "unknown_path"), path
            assert b"location" not in answer.head.lower()


ODD_BODIES: dict[str, tuple[str, int, str]] = {
    "nested as nothing is": ('{"input":"x","context":' + '{"a":' * 300 + "1" + "}" * 301, 422, "bad_request"),
    "nested deeper than JSON is read": ("[" * 5000 + "]" * 5000, 400, "bad_json"),
    "a number that is none": ('{"input":"x","context":{"n":1e999}}', 400, "bad_json"),
    "a number as long as a book": ('{"input":"x","context":{"n":' + "9" * 9999 + "}}", 400, "bad_json"),
    "half a character": ('{"input":"\\ud800"}', 400, "bad_json"),
    "a conversation with a line's end": ('{"input":"x","conversation":"c\\n"}', 422, "bad_request"),
    "a conversation that is a path": ('{"input":"x","conversation":"../c"}', 422, "bad_request"),
    "a conversation of one point": ('{"input":"x","conversation":"."}', 422, "bad_request"),
    "a conversation that is too long": (
        '{"input":"x","conversation":"%s"}' % ("c" * 129),
        422,
        "bad_request",
    ),
    "no turns at all": ('{"input":"x","max_turns":0}', 422, "bad_request"),
    "more turns than there are": ('{"input":"x","max_turns":%s}' % ("9" * 30), 422, "bad_request"),
}


@pytest.mark.hostile
async def test_a_body_that_cannot_be_kept_as_it_is_begins_nothing() -> None:
    log = MemoryLog()
    async with (
        serving(create_app(agent(), access=OPEN, log=log)) as client,
        talking(client) as talk,
    ):
        for what, (body, status, code) in ODD_BODIES.items():
            answer = await client.post("/runs", content=body, headers={"content-type": "application/json"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code), what
            await talk.socket.send('{"type":"start",' + body[1:])
            assert (await talk.answer())["code"] == code, what

    assert await log.runs() == []


@pytest.mark.hostile
async def test_a_key_may_be_any_bytes_that_a_header_may_have() -> None:
    head = b"POST /runs HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 13\r\n"
    log = MemoryLog()
    async with serving(create_app(agent(*["x"] * 9), access=OPEN, log=log)) as client:
        runs = list[str]()
        for key in (b"\xff\xfe", b"a\tb", b"'; DROP TABLE runs; --", b"\xc3\xa9", b"{}", b"x" * 255):
            for _ in range(2):
                sent = head + b"Idempotency-Key: " + key + b'\r\n\r\n{"input":"x"}'
                runs.append(json.loads((await asked(client, sent)).body)["run_id"])
            await events_of(client, runs[-1])
        for key in (b"", b"  ", b"x" * 256):
            answer = await asked(client, head + b"Idempotency-Key: " + key + b'\r\n\r\n{"input":"x"}')
            assert (answer.status, answer.error) == (422, "bad_request"), key

    assert runs[::2] == runs[1::2]
    assert len(set(runs)) == len(await log.runs()) == 6


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


@pytest.mark.parametrize("prefix", ["", "/agents/v1"])
async def test_a_page_of_an_origin_that_was_named_can_read_what_went_wrong_and_no_other_can(
    prefix: str,
) -> None:
    async def hook(connection: HTTPConnection) -> str | None:
        if connection.headers.get("x-user") == "broken":
            raise Leaky
        return await by_header(connection)

    app: Any = create_app(agent(), access=hook, origins=[FRONT], log=MemoryLog())
    if prefix:
        inner, app = app, FastAPI()
        app.mount(prefix, inner)
    asks: list[tuple[str, str, dict[str, str], int]] = [
        ("GET", "/runs", {}, 401),
        ("GET", "/runs/x", ANN, 404),
        ("GET", "/nothing", ANN, 404),
        ("PUT", "/runs", ANN, 405),
        ("POST", "/runs", ANN, 415),
        ("GET", "/runs?limit=x", ANN, 422),
        ("GET", "/runs", {"x-user": "broken"}, 500),
        ("GET", "/probe?every=0", ANN, 200),
        ("OPTIONS", "/runs", {"access-control-request-method": "DELETE"}, 200),
    ]
    async with serving(app) as client:
        for method, path, headers, status in asks:
            own = await client.request(method, prefix + path, headers=headers | {"origin": FRONT})
            assert own.status_code == status, (method, path)
            assert own.headers["access-control-allow-origin"] == FRONT, (method, path)
            assert "origin" in own.headers["vary"].lower(), (method, path)
            for origin in ("https://evil.example", "null", FRONT + ".evil.example", "http://app.example"):
                other = await client.request(method, prefix + path, headers=headers | {"origin": origin})
                assert "access-control-allow-origin" not in other.headers, (method, path, origin)


@pytest.mark.parametrize(
    "origin", ["*", "app.example", "https://app.example/", "https://app.example/page", "null", ""]
)
def test_what_is_no_origin_is_refused_when_the_application_is_made(origin: str) -> None:
    with pytest.raises(UserError, match="is no origin"):
        create_app(Agent(name="A"), access=by_header, origins=[origin], log="memory:")
