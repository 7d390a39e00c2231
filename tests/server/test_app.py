"""The server over real HTTP: runs belong to it, and to no request."""

import asyncio
import json
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from starlette.requests import HTTPConnection

from millstream import Agent, MemoryLog, tool
from millstream.errors import UserError
from millstream.server import LOCAL, create_app
from millstream.testing import check_stream, function_call
from tests.server.agents import agent
from tests.server.kit import events_of, serving


async def ended(client: Any, run_id: str) -> dict[str, Any]:
    """The record of a run, once it has ended."""
    await events_of(client, run_id)
    return (await client.get(f"/runs/{run_id}")).json()


async def test_a_run_is_started_and_followed_to_its_end() -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        started = await client.post("/runs", json={"input": "Hi"})
        run_id = started.json()["run_id"]
        events = await events_of(client, run_id)
        record = (await client.get(f"/runs/{run_id}")).json()

    assert started.status_code == 202
    assert started.headers["location"].endswith(f"/runs/{run_id}")
    assert [int(event.id) for event in events] == list(range(1, len(events) + 1))
    assert json.loads(events[-1].data)["event"]["output"] == "Hello there."
    assert check_stream("\n".join(event.data for event in events)).ok
    assert (record["status"], record["position"]) == ("completed", len(events))


async def test_a_start_may_be_answered_by_its_stream() -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        response = await client.post("/runs", json={"input": "Hi", "stream": True})
        listed = (await client.get("/runs")).json()["runs"]

    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["cache-control"] == "no-cache, no-transform"
    assert response.headers["x-run-id"] == listed[0]["run_id"]
    assert check_stream(response.content).ok


async def test_a_follower_comes_back_with_the_id_that_it_had() -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        whole = await events_of(client, run_id)
        for after in range(len(whole)):
            assert await events_of(client, run_id, after) == whole[after:]
        last = len(whole)
        path = f"/runs/{run_id}/events"

        assert (await client.get(path, headers={"last-event-id": str(last)})).status_code == 204
        assert (await client.get(path, headers={"last-event-id": "3"})).content.startswith(b"id: 4\n")
        # A browser that comes back asks at the address with which it began.
        again = await client.get(path, params={"after": 1}, headers={"last-event-id": "3"})
        assert again.content.startswith(b"id: 4\n")
        for bad in (str(last + 1), "9" * 18, "-1", "x", "9" * 40):
            told = (400, "no_such_position") if bad.isdigit() else (422, "bad_request")
            for answer in (
                await client.get(path, headers={"last-event-id": bad}),
                await client.get(path, params={"after": bad}),
            ):
                assert (answer.status_code, answer.json()["error"]["code"]) == told


async def test_a_client_that_leaves_takes_nothing_with_it() -> None:
    go_on = asyncio.Event()

    @tool
    async def wait() -> str:
        await go_on.wait()
        return "waited"

    asked = agent([function_call("wait", {})], "Done.", tools=[wait])
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        async with client.stream("POST", "/runs", json={"input": "Hi", "stream": True}) as response:
            run_id = response.headers["x-run-id"]
            async for piece in response.aiter_raw():
                if b"tool.started" in piece:
                    break
        go_on.set()
        record = await ended(client, run_id)

    assert record["status"] == "completed"


async def test_a_client_may_wish_that_its_leaving_stops_the_run() -> None:
    @tool
    async def wait() -> None:
        await asyncio.Event().wait()

    asked = agent([function_call("wait", {})], tools=[wait])
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        wish = {"input": "Hi", "stream": True, "on_disconnect": "cancel"}
        async with client.stream("POST", "/runs", json=wish) as response:
            async for piece in response.aiter_raw():
                if b"tool.started" in piece:
                    break
        record = await ended(client, response.headers["x-run-id"])

    assert record["status"] == "cancelled"


async def test_a_run_is_stopped_given_input_and_forgotten() -> None:
    begun = asyncio.Event()

    @tool
    async def wait() -> None:
        begun.set()
        await asyncio.Event().wait()

    asked = agent([function_call("wait", {})], [function_call("wait", {})], tools=[wait])
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        await begun.wait()
        early = await client.delete(f"/runs/{run_id}")
        begun.clear()
        sent = await client.post(f"/runs/{run_id}/input", json={"input": "And?"})
        await begun.wait()
        stopped = await client.post(f"/runs/{run_id}/cancel", json={})
        record = await ended(client, run_id)
        events = await events_of(client, run_id, types="input.added")
        again = await client.post(f"/runs/{run_id}/cancel", json={"mode": "now"})
        late = await client.post(f"/runs/{run_id}/input", json={"input": "?"})
        forgotten = await client.delete(f"/runs/{run_id}")
        gone = await client.get(f"/runs/{run_id}")

    assert (early.status_code, sent.status_code, stopped.status_code) == (409, 202, 202)
    assert record["status"] == "cancelled"
    assert [json.loads(event.data)["event"]["type"] for event in events][:1] == ["input.added"]
    assert (again.status_code, late.status_code) == (202, 409)
    assert (forgotten.status_code, gone.status_code) == (200, 404)


async def test_a_decision_lets_a_run_go_on() -> None:
    @tool(needs_approval=True)
    async def delete(name: str) -> str:
        return f"deleted {name}"

    asked = agent([function_call("delete", {"name": "x"}, call_id="c1")], "Done.", tools=[delete])
    async with serving(create_app(asked, access=LOCAL, log=MemoryLog())) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        before = await events_of(client, run_id, until="pause")
        path = f"/runs/{run_id}/decisions"
        nobody = await client.post(path, json={"call_id": "c9", "approved": True})
        decided = await client.post(path, json={"call_id": "c1", "approved": True})
        after = await events_of(client, run_id, len(before))
        record = (await client.get(f"/runs/{run_id}")).json()

    assert json.loads(before[-1].data)["event"]["type"] == "run.paused"
    assert (nobody.status_code, nobody.json()["error"]["code"]) == (409, "no_such_decision")
    assert (decided.status_code, decided.json()["waiting"]) == (202, [])
    assert "deleted x" in "".join(event.data for event in after)
    assert record["status"] == "completed"


async def test_one_key_begins_one_run() -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        headers = {"idempotency-key": "k1"}
        answers = await asyncio.gather(
            *(client.post("/runs", json={"input": "Hi"}, headers=headers) for _ in range(20))
        )
        other = await client.post("/runs", json={"input": "Ho"}, headers=headers)
        await ended(client, answers[0].json()["run_id"])

    assert len({each.json()["run_id"] for each in answers}) == 1
    assert (other.status_code, other.json()["error"]["code"]) == (409, "idempotency_conflict")


async def test_a_run_of_another_caller_is_not_there() -> None:
    async def named(connection: HTTPConnection) -> str | None:
        return connection.headers.get("x-user")

    async with serving(create_app(agent(), access=named, log=MemoryLog())) as client:
        ann, bob = {"x-user": "ann"}, {"x-user": "bob"}
        run_id = (await client.post("/runs", json={"input": "Hi"}, headers=ann)).json()["run_id"]
        nobody = await client.get("/runs")
        unknown = await client.get(f"/runs/run_{'0' * 32}", headers=bob)
        for method, path, body in (
            ("GET", "", None),
            ("GET", "/events", None),
            ("POST", "/cancel", {}),
            ("POST", "/input", {"input": "x"}),
            ("POST", "/decisions", {"call_id": "c", "approved": True}),
            ("DELETE", "", None),
        ):
            answer = await client.request(method, f"/runs/{run_id}{path}", json=body, headers=bob)
            assert (answer.status_code, answer.content) == (404, unknown.content), path
        assert (await client.get("/runs", headers=bob)).json() == {"runs": []}
        assert len((await client.get("/runs", headers=ann)).json()["runs"]) == 1

    assert nobody.status_code == 401


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "bad_json"),
        (b"[]", {}, 422, "bad_request"),
        (b"{}", {}, 422, "bad_request"),
        (b'{"input":"x","nonsense":1}', {}, 422, "bad_request"),
        (b'{"input":5}', {}, 422, "bad_request"),
        (b'{"input":[{"role":5}]}', {}, 422, "bad_input"),
        (b'{"input":"x","agent":"B"}', {}, 422, "unknown_agent"),
        (b'{"input":"x","max_turns":0}', {}, 422, "bad_request"),
        (b'{"input":"x"}', {"content-type": "text/plain"}, 415, "not_json"),
        (b'{"input":"x"}', {"origin": "https://evil.example"}, 403, "wrong_origin"),
        (b'{"input":"x"}', {"host": "evil.example"}, 401, "unauthorized"),
        (b'{"input":"' + b"x" * 1_100_000 + b'"}', {}, 413, "too_large"),
    ],
)
async def test_what_cannot_be_is_told_in_words_of_a_table(
    body: bytes, headers: dict[str, str], status: int, code: str
) -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        answer = await client.post(
            "/runs", content=body, headers={"content-type": "application/json"} | headers
        )

    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"inputs": "x"}, "The body has to be made of input, agent, "),
        ({"input": "x", "conversation": "a b"}, "conversation has to be a text that matches ^[A-Za-z0-9_]"),
        ({"input": "x"}, "It is not clear which agent is meant: name it in `agent`."),
        ({"input": "x", "agent": "C"}, "There is no agent of that name."),
    ],
)
async def test_who_asks_wrongly_is_told_what_is_right(body: dict[str, str], told: str) -> None:
    several = {"A": agent(), "B": agent()}

    async with serving(create_app(several, access=LOCAL, log=MemoryLog())) as client:
        answer = await client.post("/runs", json=body)

    assert answer.status_code == 422
    assert told in answer.json()["error"]["message"]


async def test_an_agent_is_made_for_its_run_by_who_sees_the_caller() -> None:
    async def named(connection: HTTPConnection) -> str | None:
        return connection.headers.get("x-user")

    async def make(record: Any) -> Agent[Any]:
        return agent(f"{record.agent} of {record.caller}")

    async with serving(create_app(make, access=named, log=MemoryLog())) as client:
        outputs = list[str]()
        for caller in ("ann", "bob"):
            client.headers["x-user"] = caller
            started = await client.post("/runs", json={"input": "Hi", "agent": "any"})
            events = await events_of(client, started.json()["run_id"])
            outputs.append(json.loads(events[-1].data)["event"]["output"])

    assert outputs == ["any of ann", "any of bob"]


async def test_a_server_that_stops_hands_its_runs_to_the_next() -> None:
    log, begun = MemoryLog(), asyncio.Event()
    go_on = asyncio.Event()

    @tool
    async def wait() -> str:
        begun.set()
        await go_on.wait()
        return "waited"

    async with serving(
        create_app(agent([function_call("wait", {})], tools=[wait]), access=LOCAL, log=log, drain=0)
    ) as client:
        run_id = (await client.post("/runs", json={"input": "Hi"})).json()["run_id"]
        await begun.wait()
    go_on.set()
    async with serving(create_app(agent("Done.", tools=[wait]), access=LOCAL, log=log)) as client:
        events = await events_of(client, run_id)

    assert json.loads(events[-1].data)["event"]["output"] == "Done."
    assert "run.attempt" in "".join(event.data for event in events)


async def test_health_readiness_and_version_are_told() -> None:
    async with serving(create_app(agent(), access=LOCAL, log=MemoryLog())) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        assert (await client.get("/ready")).json() == {"status": "ready", "runs": 0}
        assert (await client.get("/version")).json()["name"] == "millstream"
        assert (await client.get("/nothing")).json()["error"]["code"] == "unknown_path"
        assert (await client.put("/runs")).json()["error"]["code"] == "wrong_method"


@pytest.mark.parametrize(
    ("agents", "said"),
    [
        ([], "needs an agent"),
        ([agent(), agent()], "Two agents of the server are called 'A'"),
        ({"x": 5}, "not an Agent"),
    ],
)
def test_agents_that_cannot_work_are_refused(agents: Any, said: str) -> None:
    with pytest.raises(UserError, match=said):
        create_app(agents, access=LOCAL, log=MemoryLog())


def test_access_has_to_be_said() -> None:
    with pytest.raises(UserError, match="LOCAL, OPEN, or an async function"):
        create_app(agent(), access=None, log=MemoryLog())  # type: ignore[arg-type]
