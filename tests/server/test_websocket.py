"""The server over a WebSocket: the entries and the commands of HTTP, on one connection."""

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import HTTPConnection
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from millstream import Agent, MemoryLog, RunConfig
from millstream.client import SseParser
from millstream.errors import LogUnavailableError
from millstream.server import LOCAL, OPEN, create_app
from millstream.server.frame_limits import FrameLimit
from millstream.testing import CANARY, ManualClock, ScriptedModel, check_stream, function_call
from tests.delivery.serving import nothing_is_left
from tests.server.agents import Held, agent, asking, flooding
from tests.server.kit import events_of, serving
from tests.server.talk import Talk, talking, types_of

ANN, BOB = {"x-user": "ann"}, {"x-user": "bob"}
NO_RUN = f"run_{'0' * 32}"


async def by_header(connection: HTTPConnection) -> str | None:
    return connection.headers.get("x-user")


def app_of(*agents: Agent[Any], log: MemoryLog | None = None, **options: Any) -> Starlette:
    return create_app(agents or agent(), **{"access": LOCAL, "log": log or MemoryLog(), **options})


def last_of(talk: Talk) -> Any:
    return json.loads(talk.heard[-1])["event"]


async def told_by_sse(client: httpx2.AsyncClient, run_id: str, **query: Any) -> list[bytes]:
    return [event.data.encode() for event in await events_of(client, run_id, **query)]


# --- following --------------------------------------------------------------------------------


async def test_runs_are_begun_and_followed_to_their_ends_one_after_the_other() -> None:
    async with serving(app_of(agent("One.", "Two."))) as client, talking(client) as talk:
        for output in ("One.", "Two."):
            begun = await talk.say("start", input="Hi")
            told = await talk.stream()
            assert json.loads(told[-1])["event"]["output"] == output
            assert {json.loads(each)["run_id"] for each in told} == {begun["run_id"]}
            assert check_stream(told).ok

    assert (begun["type"], begun["command"], begun["agent"]) == ("command.done", "start", "A")
    assert begun["is_followed"] is True


async def test_a_run_is_told_byte_for_byte_as_over_http_live_and_replayed() -> None:
    held = Held()
    async with serving(app_of(held.agent)) as client, talking(client) as live:
        run_id = (await live.say("start", input="Hi"))["run_id"]
        await live.until("tool.started")
        async with client.stream("GET", f"/runs/{run_id}/events") as response:
            held.go_on.set()
            body = await response.aread()
        await live.stream()
        async with talking(client) as replayed:
            await replayed.say("follow", run_id=run_id)
            await replayed.stream()

    told = [event.data.encode() for event in SseParser().feed(body)]
    assert live.heard == replayed.heard == told


async def test_what_is_filtered_is_told_as_over_http() -> None:
    researcher = Agent(name="Researcher", model=ScriptedModel(["Found."]))
    asked = agent(
        [function_call("research", {"input": "x"})],
        "Done.",
        tools=[researcher.as_tool("research", "Looks it up.")],
    )
    wishes: list[dict[str, Any]] = [
        {"depth": 0},
        {"types": ["tool.started", "response.output_text.delta"]},
        {"types": ["tool.finished"], "depth": 1, "after": 3},
    ]
    async with serving(app_of(asked)) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi"))["run_id"]
        await talk.stream()
        for wish in wishes:
            await talk.say("follow", run_id=run_id, **wish)
            query = wish | ({"types": ",".join(wish["types"])} if "types" in wish else {})
            assert await talk.stream() == await told_by_sse(client, run_id, **query)
        inner = [each for each in talk.heard if json.loads(each).get("depth") == 1]

    assert inner, "nothing was nested, so that this shows little"


async def test_a_connection_that_is_cut_behind_any_entry_is_resumed_to_the_uncut_stream() -> None:
    async with serving(app_of(agent("Hello there, all of you."))) as client:
        async with talking(client) as talk:
            run_id = (await talk.say("start", input="Hi"))["run_id"]
            whole = await talk.stream()
        for cut in range(len(whole)):
            async with talking(client) as before:
                await before.say("follow", run_id=run_id)
                while len(before.heard) < cut:
                    await before.next()
            async with talking(client) as behind:
                await behind.say("follow", run_id=run_id, after=cut)
                assert before.heard[:cut] + await behind.stream() == whole, cut


async def test_a_run_goes_on_when_its_client_is_cut_off_and_is_found_again() -> None:
    held = Held()
    async with serving(app_of(held.agent)) as client:
        async with talking(client) as talk:
            run_id = (await talk.say("start", input="Hi"))["run_id"]
            await talk.until("tool.started")
        held.go_on.set()
        async with talking(client) as again:
            await again.say("follow", run_id=run_id, after=len(talk.heard))
            rest = await again.stream()
        assert talk.heard + rest == await told_by_sse(client, run_id)

    assert types_of(rest)[-1] == "run.completed"


async def test_a_client_may_wish_that_its_leaving_stops_the_run() -> None:
    held = Held()
    async with serving(app_of(held.agent)) as client:
        async with talking(client) as talk:
            run_id = (await talk.say("start", input="Hi", on_disconnect="cancel"))["run_id"]
            await talk.until("tool.started")
        assert types_of(await told_by_sse(client, run_id))[-1] == "run.cancelled"


async def test_a_run_that_is_followed_takes_the_place_of_the_one_before_which_goes_on() -> None:
    one, other = Held("One"), Held("Other")
    async with serving(app_of(one.agent, other.agent)) as client, talking(client) as talk:
        first = await talk.say("start", input="Hi", agent="One", on_disconnect="cancel")
        await talk.until("tool.started")
        second = await talk.say("start", input="Hi", agent="Other")
        of_first = list(talk.heard)
        await other.begun.wait()
        one.go_on.set()
        other.go_on.set()
        of_second = await talk.stream()
        assert types_of(await told_by_sse(client, first["run_id"]))[-1] == "run.completed"

    assert {json.loads(each)["run_id"] for each in of_first} == {first["run_id"]}
    assert {json.loads(each)["run_id"] for each in of_second} == {second["run_id"]}


async def test_who_follows_nothing_any_more_is_told_nothing() -> None:
    held = Held()
    async with serving(app_of(held.agent)) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi"))["run_id"]
        await talk.until("tool.started")
        left = await talk.say("unfollow")
        heard = len(talk.heard)
        held.go_on.set()
        await events_of(client, run_id)
        assert (await talk.say("ping"))["type"] == "pong"
        again = await talk.say("unfollow")

    assert left == {"type": "command.done", "id": 2, "command": "unfollow", "run_id": run_id}
    assert again["run_id"] is None
    assert len(talk.heard) == heard


async def test_a_run_that_is_begun_and_not_followed_leaves_what_is_followed_alone() -> None:
    held = Held()
    app = app_of(held.agent, Agent(name="B", model=ScriptedModel(["Hi."])))
    async with serving(app) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi", agent="A"))["run_id"]
        await talk.until("tool.started")
        beside = await talk.say("start", input="Hi", agent="B", stream=False)
        await events_of(client, beside["run_id"])
        held.go_on.set()
        told = await talk.stream()

    assert beside["is_followed"] is False
    assert {json.loads(each)["run_id"] for each in told} == {run_id}


async def test_who_has_all_of_a_run_is_told_that_nothing_comes() -> None:
    async with serving(app_of(asking())) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi"))["run_id"]
        await talk.until("run.paused")
        at_pause = await talk.say("follow", run_id=run_id, after=len(talk.heard), until="pause")
        await talk.say("cancel")
        told = len(await told_by_sse(client, run_id))
        at_end = await talk.say("follow", run_id=run_id, after=told)
        assert (await talk.say("ping"))["type"] == "pong"

    assert (at_pause["is_followed"], at_pause["status"]) == (False, "paused")
    assert (at_end["is_followed"], at_end["status"]) == (False, "cancelled")
    assert talk.types[-1] == "run.paused"


async def test_a_filtered_stream_that_is_silent_says_how_far_it_is() -> None:
    clock, held = ManualClock(), Held()
    app = app_of(held.agent, run_config=RunConfig(clock=clock), heartbeat=5)
    async with serving(app) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi", stream=False))["run_id"]
        await held.begun.wait()
        while (position := (await client.get(f"/runs/{run_id}")).json()["position"]) == 0:
            await asyncio.sleep(0)
        await talk.say("follow", run_id=run_id, types=["run.completed"])
        hearing = asyncio.create_task(talk.next())
        while not hearing.done():
            clock.advance(5)
            await asyncio.sleep(0)
        held.go_on.set()
        await talk.stream()

    assert json.loads(talk.heard[0]) == {"type": "stream.position", "position": position}
    assert talk.types[-1] == "run.completed"


# --- acting -----------------------------------------------------------------------------------


async def test_a_client_stops_the_run_that_it_follows_and_any_other_of_its_own() -> None:
    agents = Held("One").agent, Held("Other").agent
    async with serving(app_of(*agents)) as client, talking(client) as talk:
        other = await talk.say("start", input="Hi", agent="Other", stream=False)
        followed = await talk.say("start", input="Hi", agent="One")
        await talk.until("tool.started")
        assert (await talk.say("cancel"))["run_id"] == followed["run_id"]
        await talk.stream()
        assert (await talk.say("cancel", run_id=other["run_id"], mode="now"))["run_id"] == other["run_id"]
        assert types_of(await told_by_sse(client, other["run_id"]))[-1] == "run.cancelled"
        late = await talk.say("cancel")

    assert last_of(talk)["type"] == "run.cancelled"
    assert late["type"] == "command.done"


@pytest.mark.parametrize("until", ["end", "pause"])
async def test_a_run_that_waits_is_decided_over_and_goes_on(until: str) -> None:
    async with serving(app_of(asking())) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi", stream=False))["run_id"]
        await talk.say("follow", run_id=run_id, until=until)
        await talk.until("run.paused")
        decided = await talk.say("decide", call_id="c1", approved=True, arguments={"name": "y"})
        if until == "pause":
            await talk.say("follow", run_id=run_id, after=len(talk.heard))
        await talk.stream()
        again = await talk.say("decide", call_id="c1", approved=True)

    assert decided | {"id": 0} == {
        "type": "command.done",
        "id": 0,
        "command": "decide",
        "run_id": run_id,
        "waiting": [],
    }
    assert b"deleted y" in b"".join(talk.heard)
    assert check_stream(talk.heard).ok
    assert (again["type"], again["code"]) == ("command.error", "no_such_decision")


async def test_a_run_is_given_more_input() -> None:
    held = Held()
    async with serving(app_of(held.agent)) as client, talking(client) as talk:
        await talk.say("start", input="Hi")
        await talk.until("tool.started")
        given = await talk.say("input", input="And be brief.", when="after_tool")
        held.go_on.set()
        await talk.stream()
        late = await talk.say("input", input="More.")

    assert given["command"] == "input"
    assert "input.added" in talk.types
    assert (late["type"], late["code"]) == ("command.error", "not_possible")


async def test_a_key_begins_one_run_however_often_it_is_sent() -> None:
    async with serving(app_of()) as client, talking(client) as talk:
        begun = await talk.say("start", input="Hi", idempotency_key="k")
        whole = await talk.stream()
        again = await talk.say("start", input="Hi", idempotency_key="k")
        assert await talk.stream() == whole
        other = await talk.say("start", input="Hello", idempotency_key="k")
        by_http = await client.post("/runs", json={"input": "Hi"}, headers={"idempotency-key": "k"})

    assert begun["run_id"] == again["run_id"] == by_http.json()["run_id"]
    assert (other["code"], other["run_id"]) == ("idempotency_conflict", begun["run_id"])


async def test_commands_that_are_sent_at_once_are_answered_in_their_order() -> None:
    async with serving(app_of()) as client, talking(client) as talk:
        for number in range(500):
            await talk.socket.send(json.dumps({"type": "ping", "id": number}))
        answers = [await talk.answer() for _ in range(500)]

    assert answers == [{"type": "pong", "id": number} for number in range(500)]


# --- what is no command -----------------------------------------------------------------------

WRONG: list[tuple[Any, str, Any]] = [
    ("{", "bad_json", None),
    ("", "bad_json", None),
    (b"\xff\xfe", "bad_json", None),
    ('"\\ud800', "bad_json", None),
    ("[" * 100_000, "bad_json", None),
    ('{"type":"ping","id":NaN}', "bad_json", None),
    ("[]", "bad_request", None),
    ('"ping"', "bad_request", None),
    ("5", "bad_request", None),
    ("null", "bad_request", None),
    ("{}", "bad_request", None),
    ('{"id":"x"}', "bad_request", "x"),
    ('{"type":"fly","id":"x"}', "bad_request", "x"),
    ('{"type":["ping"],"id":"x"}', "bad_request", "x"),
    ('{"type":null,"id":5}', "bad_request", 5),
    ('{"type":"ping","id":{}}', "bad_request", None),
    ('{"type":"ping","id":1.5}', "bad_request", None),
    ('{"type":"ping","id":"%s"}' % ("x" * 256), "bad_request", None),
    ('{"type":"ping","id":"x","more":1}', "bad_request", "x"),
    ('{"type":"start","id":"x"}', "bad_request", "x"),
    ('{"type":"start","id":"x","input":5}', "bad_request", "x"),
    ('{"type":"start","id":"x","input":"Hi","agent":"B"}', "unknown_agent", "x"),
    ('{"type":"start","id":"x","input":[{"role":5}]}', "bad_input", "x"),
    ('{"type":"start","id":"x","input":"Hi","idempotency_key":""}', "bad_request", "x"),
    ('{"type":"follow","id":"x"}', "bad_request", "x"),
    ('{"type":"follow","id":"x","run_id":5}', "bad_request", "x"),
    ('{"type":"follow","id":"x","run_id":"../../etc/passwd"}', "unknown_run", "x"),
    ('{"type":"follow","id":"x","run_id":"RUN","after":-1}', "bad_request", "x"),
    ('{"type":"follow","id":"x","run_id":"RUN","after":999999}', "no_such_position", "x"),
    ('{"type":"follow","id":"x","run_id":"RUN","after":1e400}', "bad_json", None),
    ('{"type":"follow","id":"x","run_id":"RUN","types":["nothing"]}', "bad_request", "x"),
    ('{"type":"follow","id":"x","run_id":"RUN","depth":101}', "bad_request", "x"),
    ('{"type":"follow","id":"x","run_id":"RUN","until":"lunch"}', "bad_request", "x"),
    ('{"type":"cancel","id":"x","mode":"tomorrow"}', "bad_request", "x"),
    ('{"type":"decide","id":"x","call_id":"c9","approved":true}', "no_such_decision", "x"),
    ('{"type":"decide","id":"x","call_id":"c9"}', "bad_request", "x"),
    ('{"type":"input","id":"x","input":[]}', "not_possible", "x"),
]


@pytest.mark.hostile
async def test_what_is_no_command_is_answered_and_the_stream_goes_on() -> None:
    held = Held()
    async with serving(app_of(held.agent)) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi"))["run_id"]
        await talk.until("tool.started")
        for sent, code, called in WRONG:
            data = sent.replace("RUN", run_id) if isinstance(sent, str) else sent
            await talk.socket.send(data)
            answer = await talk.answer()
            assert (answer["type"], answer["code"]) == ("command.error", code), sent
            assert answer.get("id") == called, sent
            assert set(answer) <= {"type", "id", "code", "message", "retryable"}, sent
        held.go_on.set()
        await talk.stream()
        assert talk.heard == await told_by_sse(client, run_id)


async def test_a_command_about_no_run_says_so() -> None:
    async with serving(app_of()) as client, talking(client) as talk:
        answer = await talk.say("cancel")

    assert answer["message"] == "run_id has to be given, where no run is followed."


async def test_a_message_may_be_so_large() -> None:
    async with serving(app_of(max_body=100)) as client, talking(client) as talk:
        for data in ('{"type":"ping"%s}' % (" " * 84), b'{"type":"ping"%b}' % (b" " * 84)):
            await talk.socket.send(data)
            assert (await talk.answer())["type"] == "pong"
        for data in (" " * 101, b" " * 101, '{"type":"ü%s"}' % ("x" * 88)):
            await talk.socket.send(data)
            assert (await talk.answer())["code"] == "too_large", data


async def test_what_is_refused_changes_nothing() -> None:
    held = Held()
    async with serving(app_of(held.agent, max_runs=1)) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi"))["run_id"]
        await talk.until("tool.started")
        assert (await talk.say("follow", run_id=NO_RUN))["code"] == "unknown_run"
        refused = await talk.say("start", input="Hi")
        held.go_on.set()
        await talk.stream()
        assert talk.heard == await told_by_sse(client, run_id)

    assert (refused["code"], refused["retryable"]) == ("too_many_runs", True)


async def test_what_nobody_thought_of_is_told_by_an_id_that_the_log_has(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken(MemoryLog):
        async def record(self, run_id: str) -> Any:
            raise RuntimeError(f"no disk {CANARY}")

    async with serving(app_of(log=Broken())) as client, talking(client) as talk:
        answer = await talk.say("cancel", run_id=NO_RUN)
        assert (await talk.say("ping"))["type"] == "pong"

    assert (answer["code"], answer["message"]) == ("internal", "Something went wrong.")
    assert answer["error_id"] in caplog.text
    assert CANARY in caplog.text
    assert CANARY not in json.dumps(answer)


# --- who may ----------------------------------------------------------------------------------


async def refused(client: httpx2.AsyncClient, path: str = "/ws", **headers: str) -> tuple[int, Any]:
    """What a handshake is answered that is refused."""
    with pytest.raises(InvalidStatus) as error:
        async with talking(client, path, additional_headers=headers):
            pass
    answer = error.value.response
    return answer.status_code, json.loads(bytes(answer.body or b"{}"))["error"]["code"]


async def test_who_may_not_is_refused_before_the_connection_is_there() -> None:
    async with serving(app_of(access=by_header)) as client:
        own = {"x-user": "ann", "origin": str(client.base_url).rstrip("/")}
        assert await refused(client) == (401, "unauthorized")
        for origin in ("https://evil.example", "null", "", own["origin"] + ".evil.example"):
            assert await refused(client, **(own | {"origin": origin})) == (403, "wrong_origin")
        assert await refused(client, "/ws?close=now", **ANN) == (422, "bad_request")
        async with talking(client, additional_headers=own) as talk:
            assert (await talk.say("ping"))["type"] == "pong"


async def test_a_machine_of_another_name_is_not_this_one() -> None:
    async with serving(app_of()) as client:
        port = client.base_url.port
        with pytest.raises(InvalidStatus) as error:
            await connect(f"ws://evil.example:{port}/ws", host="127.0.0.1", port=port)

    assert error.value.response.status_code == 401


async def test_a_token_may_come_as_a_subprotocol_as_pages_can_say_nothing_else() -> None:
    async def by_subprotocol(connection: HTTPConnection) -> str | None:
        return "ann" if "s3cret" in connection.scope.get("subprotocols", []) else None

    async with serving(app_of(access=by_subprotocol)) as client:
        assert await refused(client) == (401, "unauthorized")
        async with talking(client, subprotocols=["millstream", "s3cret"]) as talk:
            assert talk.socket.subprotocol == "millstream"
            assert (await talk.say("ping"))["type"] == "pong"


async def test_anothers_run_is_as_one_that_never_was() -> None:
    log = MemoryLog()
    commands: list[dict[str, Any]] = [
        {"type": "follow"},
        {"type": "follow", "after": 999},
        {"type": "cancel"},
        {"type": "decide", "call_id": "c1", "approved": True},
        {"type": "input", "input": "mine"},
    ]
    async with (
        serving(app_of(asking(), access=by_header, log=log)) as client,
        talking(client, additional_headers=ANN) as ann,
        talking(client, additional_headers=BOB) as bob,
    ):
        run_id = (await ann.say("start", input="Hi", idempotency_key="k"))["run_id"]
        await ann.until("run.paused")
        before = await log.record(run_id)
        for command in commands:
            told = list[bytes]()
            for each in (run_id, NO_RUN):
                await bob.socket.send(json.dumps(command | {"run_id": each}))
                told.append(await bob.socket.recv(decode=False))
            assert told[0] == told[1]
            assert json.loads(told[0])["code"] == "unknown_run", command
        own = await bob.say("start", input="Hi", idempotency_key="k", stream=False)
        assert await log.record(run_id) == before
        assert await log.mail(run_id) == []

    assert own["run_id"] != run_id
    assert bob.heard == []


async def test_a_caller_has_so_many_connections_at_a_time_and_streams_among_them() -> None:
    app = app_of(access=by_header, max_streams=1)
    async with serving(app) as client:
        async with talking(client, additional_headers=ANN) as talk:
            assert await refused(client, **ANN) == (429, "too_many_streams")
            run_id = (await talk.say("start", input="Hi"))["run_id"]
            await talk.stream()
            by_http = await client.get(f"/runs/{run_id}/events", headers=ANN)
            async with talking(client, additional_headers=BOB) as of_bob:
                assert (await of_bob.say("ping"))["type"] == "pong"
        while (again := await client.get(f"/runs/{run_id}/events", headers=ANN)).status_code == 429:
            await asyncio.sleep(0)  # until the server has seen the end of the first

    assert by_http.status_code == 429
    assert again.status_code == 200


async def test_a_store_that_is_away_lets_nobody_in() -> None:
    class Away(MemoryLog):
        async def check(self) -> list[str]:
            raise LogUnavailableError("it is away")

    # A server whose application hears of no start begins with its first request.
    async with serving(app_of(log=Away()), lifespan="off") as client:
        assert await refused(client) == (503, "log_unavailable")


class Handshake:
    """An HTTP server of which a test plays the part."""

    def __init__(self, *received: dict[str, Any], origin: bytes = b"http://h") -> None:
        self.sent: list[dict[str, Any]] = []
        self._received = [{"type": "websocket.connect"}, *received]
        self.scope: dict[str, Any] = {
            "type": "websocket",
            "asgi": {"version": "3.0"},
            "scheme": "ws",
            "path": "/ws",
            "raw_path": b"/ws",
            "root_path": "",
            "query_string": b"",
            "headers": [(b"host", b"h"), (b"origin", origin)],
            "client": ("127.0.0.1", 5),
            "server": ("h", 80),
            "subprotocols": [],
        }

    async def receive(self) -> dict[str, Any]:
        return self._received.pop(0)

    async def send(self, message: Any) -> None:
        self.sent.append(message)


async def test_a_server_that_can_refuse_without_words_only_closes_before_it_accepts() -> None:
    at = Handshake(origin=b"https://evil.example")

    await app_of(access=OPEN)(at.scope, at.receive, at.send)

    assert [message["type"] for message in at.sent] == ["websocket.close"]


async def test_a_server_that_gives_bytes_or_nothing_is_understood() -> None:
    ping, nothing = b'{"type":"ping"}', {"type": "websocket.receive", "bytes": None, "text": ""}
    at = Handshake(
        {"type": "websocket.receive", "bytes": ping}, nothing, {"type": "websocket.disconnect", "code": 1001}
    )

    await app_of(access=OPEN)(at.scope, at.receive, at.send)

    accepted, pong, error = at.sent
    assert accepted["type"] == "websocket.accept"
    assert json.loads(pong["text"]) == {"type": "pong"}
    assert json.loads(error["text"])["code"] == "bad_json"


async def test_a_server_that_raises_where_a_client_is_gone_is_understood() -> None:
    at = Handshake()  # which has nothing to receive

    await app_of(access=OPEN)(at.scope, at.receive, at.send)

    assert [message["type"] for message in at.sent] == ["websocket.accept"]


# --- ends -------------------------------------------------------------------------------------


async def test_a_connection_may_be_closed_with_the_stream() -> None:
    async with serving(app_of(agent("One.", "Two."))) as client:
        async with talking(client, "/ws?close=end") as talk:
            run_id = (await talk.say("start", input="Hi"))["run_id"]
            assert await talk.close_code() == 1000
        assert talk.heard == await told_by_sse(client, run_id)
        async with talking(client, "/ws?close=end") as again:
            told = await again.say("follow", run_id=run_id, after=len(talk.heard))
            assert (told["is_followed"], await again.close_code()) == (False, 1000)


class Breaking(MemoryLog):
    """A store of which so many batches can be read, and then nothing."""

    gives: float = 1

    def cursor(self, run_id: str, after: int = 0) -> Any:
        cursor = super().cursor(run_id, after)
        following, given = cursor.next, 0

        async def next_batch() -> Any:
            nonlocal given
            if given >= self.gives:
                raise RuntimeError(f"no disk {CANARY}")
            given += 1
            return await following()

        cursor.next = next_batch  # type: ignore[method-assign]
        return cursor


async def test_a_stream_that_breaks_says_so_and_is_resumed_on_the_same_connection(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Breaking()
    async with serving(app_of(log=log)) as client:
        async with talking(client) as talk:
            run_id = (await talk.say("start", input="Hi"))["run_id"]
            *seen, trouble = await talk.stream()
            log.gives = math.inf
            said = json.loads(trouble)
            await talk.say("follow", run_id=run_id, after=said["after"])
            rest = await talk.stream()
        log.gives = 0
        async with talking(client, "/ws?close=end") as closing:
            await closing.say("follow", run_id=run_id)
            code = await closing.close_code()
        log.gives = math.inf
        assert seen + rest == await told_by_sse(client, run_id)

    assert (said["type"], said["code"]) == ("stream.error", "broken_off")
    assert said["error_id"] in caplog.text
    assert CANARY not in str(said)
    assert (closing.types[-1], code) == ("stream.error", 1011)


async def test_a_position_that_is_no_longer_held_is_refused_and_never_a_shorter_stream() -> None:
    log = MemoryLog()
    async with serving(app_of(log=log)) as client, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi"))["run_id"]
        whole = await talk.stream()
        await log.trim(run_id, 5)
        gone = await talk.say("follow", run_id=run_id, after=2)
        await talk.say("follow", run_id=run_id, after=4)
        rest = await talk.stream()

    assert (gone["code"], gone["requested"], gone["first"]) == ("gone", 3, 5)
    assert rest == whole[4:]


async def test_a_server_that_stops_says_so_and_another_goes_on_where_it_was() -> None:
    log, held = MemoryLog(), Held()
    first = app_of(held.agent, log=log)
    async with serving(first) as client, talking(client) as idle, talking(client) as talk:
        run_id = (await talk.say("start", input="Hi", on_disconnect="cancel"))["run_id"]
        await talk.until("tool.started")
        await first.state.service.leave_streams()
        assert (await talk.close_code(), await idle.close_code()) == (1012, 1012)
        assert await refused(client) == (503, "stopping")
        *seen, stopping = talk.heard
        held.go_on.set()
    async with serving(app_of(held.agent, log=log)) as client, talking(client) as again:
        told = json.loads(stopping)
        await again.say("follow", run_id=run_id, after=told["after"])
        rest = await again.stream()
        assert seen + rest == await told_by_sse(client, run_id)

    assert (told["type"], told["code"], told["after"]) == ("stream.error", "stopping", len(seen))
    assert types_of(rest)[-1] == "run.completed"
    assert idle.heard == []


async def test_a_client_that_takes_nothing_is_let_go_and_may_come_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = ManualClock()
    async with serving(flooding(clock), ws=FrameLimit) as client:
        async with talking(
            client, max_queue=1, compression=None
        ) as stalled:  # it reads what its buffers hold
            run_id = (await stalled.say("start", input="Hi"))["run_id"]
            while (await client.get(f"/runs/{run_id}")).json()["status"] != "completed":  # it holds nobody up
                await asyncio.sleep(0)
            while 7 not in clock.due:
                await asyncio.sleep(0)
            clock.advance(7)
            while "took nothing" not in caplog.text:
                await asyncio.sleep(0)
            assert await stalled.close_code() == 1006  # nothing is kept for it
        async with talking(client) as again:
            await again.say("follow", run_id=run_id, types=["run.completed"])
            await again.stream()

    assert f"run {run_id}: a client took nothing for 7 s and was let go; it may resume" in caplog.text
    assert again.types[-1] == "run.completed"


async def test_clients_that_leave_in_whatever_way_leave_no_word_in_the_log_and_no_task(
    caplog: pytest.LogCaptureFixture,
) -> None:
    held = Held()
    leaves: list[Callable[[Talk], Any]] = [
        lambda talk: talk.socket.close(),
        lambda talk: talk.socket.close(4000, "bye"),
        lambda talk: talk.socket.transport.abort(),
        lambda talk: talk.socket.transport.write_eof(),
    ]
    async with serving(app_of(held.agent), log_level="warning") as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        await held.begun.wait()
        for leave in leaves:
            for follows in (False, True):
                async with talking(client) as talk:
                    if follows:
                        await talk.say("follow", run_id=run_id)
                        await talk.until("tool.started")
                    left = leave(talk)
                    if left is not None:
                        await left
        held.go_on.set()
        await events_of(client, run_id)
    await nothing_is_left()

    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert said == []


async def test_a_run_that_cannot_be_stopped_behind_its_client_is_told_of_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Deaf(MemoryLog):
        async def tell(self, run_id: str, command: Any) -> Any:
            raise RuntimeError("no mail today")

    held = Held()
    async with serving(app_of(held.agent, log=Deaf()), log_level="warning") as client:
        async with talking(client) as talk:
            run_id = (await talk.say("start", input="Hi", on_disconnect="cancel"))["run_id"]
            await talk.until("tool.started")
        while "no mail today" not in caplog.text:
            await asyncio.sleep(0)
        held.go_on.set()
        await events_of(client, run_id)

    (said,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert said.startswith(f"run {run_id}: stopping it behind its client failed")


# --- where it stands --------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def mounted() -> AsyncIterator[tuple[httpx2.AsyncClient, str]]:
    outer = FastAPI()
    outer.mount("/agents/v1", app_of())
    async with serving(outer) as client:
        yield client, "/agents/v1/ws"


async def test_it_is_mounted_with_the_rest_under_a_prefix() -> None:
    async with mounted() as (client, path), talking(client, path) as talk:
        run_id = (await talk.say("start", input="Hi"))["run_id"]
        whole = await talk.stream()
        answer = await client.get(f"/agents/v1/runs/{run_id}/events")
        assert whole == [event.data.encode() for event in SseParser().feed(answer.content)]
        assert await refused(client, path, origin="https://evil.example") == (403, "wrong_origin")


async def test_what_is_no_handshake_is_no_way_in() -> None:
    async with serving(app_of()) as client:
        answer = await client.get("/ws")

    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_path")


async def test_a_server_whose_process_ends_closes_with_a_code_to_come_back_at() -> None:
    async with serving(app_of()) as client:
        talking_on = talking(client)
        talk = await talking_on.__aenter__()
        assert (await talk.say("ping"))["type"] == "pong"
    with pytest.raises(ConnectionClosedError):
        await talk.socket.recv()
    assert talk.socket.close_code == 1012
    await talking_on.__aexit__(None, None, None)
