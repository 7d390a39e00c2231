"""The model server itself: what it answers, what it refuses, and what it tells of its clients.

What each fault does to a run is held by `tests/models/test_hostile_wires.py`.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncGenerator
from typing import Any

import httpx2
import openai.types.responses  # noqa: F401 - reads files, which must not happen on a loop
import pytest
import pytest_asyncio

from millstream.errors import UserError
from millstream.testing import (
    InvalidModelStep,
    ManualClock,
    ModelServer,
    ModelStep,
    ReceivedRequest,
    assistant_message,
    faults,
    function_call,
    reasoning,
    refusal,
)
from millstream.testing.model_server import rendered
from millstream.testing.model_wires import Talk

WHOLE = Talk("chat", streamed=False)
STREAM = Talk("chat")


@pytest_asyncio.fixture
async def http() -> AsyncGenerator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient() as client:
        yield client


async def asked(http: httpx2.AsyncClient, server: ModelServer, path: str = "/responses", **body: Any) -> Any:
    return await http.post(server.base_url + path, json=body)


def deltas(body: bytes) -> list[dict[str, Any]]:
    """What the chunks of a stream of Chat Completions add."""
    payloads = [line.removeprefix(b"data: ") for line in body.split(b"\n\n")[:-2]]
    return [choice["delta"] for payload in payloads for choice in json.loads(payload)["choices"]]


# --- answers ----------------------------------------------------------------------------------


async def test_one_script_is_told_over_both_wires_streamed_and_whole(http: httpx2.AsyncClient) -> None:
    async with ModelServer(["Hello you"] * 4) as server:
        event = (await asked(http, server, stream=True)).text.split("\n\n")[-2]
        response = (await asked(http, server)).json()
        chunks = (await asked(http, server, "/chat/completions", stream=True)).content
        completion = (await asked(http, server, "/chat/completions")).json()

        assert server.remaining_steps == 0
    assert event.startswith("event: response.completed\ndata: ")
    assert response["output"][0]["content"][0]["text"] == "Hello you"
    assert "".join(delta.get("content", "") for delta in deltas(chunks)) == "Hello you"
    assert completion["choices"][0]["message"] == {"role": "assistant", "content": "Hello you"}


def test_all_that_a_model_says_has_its_place_in_a_chat() -> None:
    step = ModelStep([reasoning("Hm."), refusal("No."), function_call("add", '{"a": 1}', call_id="c")])

    said = json.loads(rendered(step, talk=WHOLE))["choices"][0]
    streamed = deltas(rendered(step, talk=STREAM))

    call = {"id": "c", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    assert said["finish_reason"] == "tool_calls"
    assert said["message"] == {
        "role": "assistant",
        "content": None,
        "reasoning_content": "Hm.",
        "refusal": "No.",
        "tool_calls": [call],
    }
    assert {"reasoning_content": "Hm."} in streamed
    assert {"refusal": "No."} in streamed
    first, *rest = [delta["tool_calls"][0] for delta in streamed if "tool_calls" in delta]
    assert first == {"index": 0, **call, "function": {"name": "add", "arguments": ""}}
    assert "".join(piece["function"]["arguments"] for piece in rest) == '{"a": 1}'


async def test_a_function_of_the_request_may_answer(http: httpx2.AsyncClient) -> None:
    def echo(request: ReceivedRequest) -> str:
        return f"{request.method} {request.path}: {request.json['input']}"

    async with ModelServer() as server:
        server.answer(echo, always=True)
        answers = [(await asked(http, server, input=text)).json() for text in "ab"]

    said = [answer["output"][0]["content"][0]["text"] for answer in answers]
    assert said == ["POST /v1/responses: a", "POST /v1/responses: b"]


async def test_usage_is_streamed_where_it_was_asked_for(http: httpx2.AsyncClient) -> None:
    async with ModelServer(["x", "x"]) as server:
        silent = await asked(http, server, "/chat/completions", stream=True)
        told = await asked(
            http, server, "/chat/completions", stream=True, stream_options={"include_usage": True}
        )

    assert b'"usage"' not in silent.content
    assert b'"usage"' in told.content


async def test_the_models_are_listed_and_use_up_no_answer(http: httpx2.AsyncClient) -> None:
    async with ModelServer(["x"], models=["one", "two"]) as server:
        listed = (await http.get(f"{server.base_url}/models")).json()

        assert server.remaining_steps == 1
    assert [model["id"] for model in listed["data"]] == ["one", "two"]


async def test_the_events_of_a_step_are_streamed_as_they_are() -> None:
    step = ModelStep.stream([{"type": "x", "n": 1}, b'{"type":"y"}'])  # type: ignore[list-item]

    assert rendered(step, talk=Talk("responses")) == (
        b'event: x\ndata: {"type":"x","n":1}\n\nevent: y\ndata: {"type":"y"}\n\n'
    )
    with pytest.raises(UserError, match="for the Responses wire"):
        rendered(step, talk=STREAM)
    with pytest.raises(UserError, match="as a list"):
        rendered(ModelStep.stream(lambda call: None), talk=Talk("responses"))  # type: ignore[arg-type,return-value]


# --- what it refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/responses", "no answer left for /v1/responses"),
        ("/embeddings", "no answer left for /v1/embeddings"),
    ],
)
async def test_a_request_too_many_is_told_so(http: httpx2.AsyncClient, path: str, told: str) -> None:
    async with ModelServer() as server:
        refused = await asked(http, server, path)

    assert refused.status_code == 500
    assert refused.headers["x-should-retry"] == "false"
    assert told in refused.json()["error"]["message"]


async def test_what_an_answer_cannot_do_is_told_to_who_asks(http: httpx2.AsyncClient) -> None:
    async with ModelServer() as server:
        server.answer("x", faults.Cut(byte=100_000))
        server.answer("x", faults.Stall(frame=7))
        server.answer("x", faults.Reset(head_byte=1000))
        server.answer("x")
        server.answer(ModelStep([{"type": "image_generation_call", "id": "i"}]))  # type: ignore[list-item]
        paths = ["/responses", "/responses", "/responses", "/embeddings", "/chat/completions"]
        told = [(await asked(http, server, path)).json()["error"]["message"] for path in paths]

    for message, expected in zip(
        told,
        [
            "at byte 100000: the answer has",
            "at frame 7: the answer has 1",
            "at byte 1000 of the head: it has",
            "knows no POST",
            "no words for",
        ],
        strict=True,
    ):
        assert expected in message


def test_a_step_that_a_server_cannot_be_is_refused_where_it_is_given() -> None:
    server = ModelServer()

    with pytest.raises(InvalidModelStep, match="output is text or a list"):
        server.answer(7)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="a function of the request instead"):
        server.answer(ModelStep.respond(lambda call: "x"))
    with pytest.raises(UserError, match=r"faults.Status\(500\)"):
        server.answer(KeyError("x"))
    with pytest.raises(UserError, match="sizes in bytes"):
        faults.Split(0)
    with pytest.raises(UserError, match="ends before it"):
        rendered("x", faults.Corrupt(byte=10_000), talk=WHOLE)
    assert server.remaining_steps == 0


# --- how it breaks ----------------------------------------------------------------------------


async def test_a_step_says_itself_where_it_breaks(http: httpx2.AsyncClient) -> None:
    async with ModelServer() as server:
        server.answer(ModelStep("one two", truncate_after=5))
        server.answer(ModelStep("one two", fail_after=5))

        cut = (await asked(http, server, stream=True)).content
        with pytest.raises(httpx2.TransportError):
            await asked(http, server, stream=True)

    assert cut.count(b"\n\n") == 5


async def test_a_gate_tells_when_the_answer_has_come_to_it_and_holds_it(http: httpx2.AsyncClient) -> None:
    gate = faults.Gate()
    async with ModelServer() as server:
        server.answer("x", faults.Stall(gate, byte=10))
        asking = asyncio.create_task(asked(http, server))

        await gate.reached()
        assert not asking.done()
        gate.open()
        gate.open()

        assert (await asking).json()["output"]


async def test_a_delay_goes_by_the_clock_of_the_server(http: httpx2.AsyncClient) -> None:
    clock = ManualClock()
    async with ModelServer(clock=clock) as server:
        server.answer("x", faults.Delay(60, byte=10))
        asking = asyncio.create_task(asked(http, server))
        await server_waits(clock)

        clock.advance(60)

        assert (await asking).json()["output"]


async def server_waits(clock: ManualClock) -> None:
    while not clock.due:
        await asyncio.sleep(0)


async def test_a_head_breaks_off_behind_the_very_byte() -> None:
    async with ModelServer() as server:
        server.answer("x", faults.Cut(head_byte=20))
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /v1/responses HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}")

        assert await reader.read() == b"HTTP/1.1 200 Scripted"[:20]
        writer.close()


async def test_all_pieces_of_a_slow_answer_wait_for_the_clock_of_the_server(http: httpx2.AsyncClient) -> None:
    clock = Hurried()
    async with ModelServer(clock=clock) as server:  # type: ignore[arg-type]
        server.answer("x", faults.Split(100), faults.Slow(60))

        body = (await asked(http, server)).content

    assert clock.slept == [60.0] * -(-len(body) // 100)


class Hurried:
    """A clock by which any time is over at once."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_pieces_are_as_the_faults_say() -> None:
    plain = rendered("Hello you", talk=STREAM)

    assert rendered("Hello you", faults.Split(1, 5), talk=STREAM) == plain
    assert gzip.decompress(rendered("Hello you", faults.Gzip(), talk=STREAM)) == plain
    assert rendered("Hello you", faults.LineEnds(), talk=STREAM) == plain.replace(b"\n", b"\r\n")
    assert rendered("Hello you", faults.Corrupt(3, 0x20), faults.Corrupt(3, 0x20), talk=STREAM) == plain
    assert rendered("Hello you", faults.End(byte=7), talk=STREAM) == plain[:7]
    assert rendered("Hello you", faults.Cut(byte=7), talk=STREAM) == plain  # the rest is never sent
    commented = rendered("Hello you", faults.Insert(b": a: b\n\n"), talk=STREAM)
    assert rendered(
        "Hello you", faults.Insert(b": a: b\n\n"), faults.NoSpace(), talk=STREAM
    ) == commented.replace(b"data: ", b"data:")

    frames = [b"a", b"b", b"c"]
    assert faults.Cut(frame=-2).pieces([*frames]) == [b"a", b"b", faults.CUT, b"c"]


# --- its clients ------------------------------------------------------------------------------


async def test_all_connections_but_so_many_are_waited_for(http: httpx2.AsyncClient) -> None:
    gates = [faults.Gate(), faults.Gate()]
    async with ModelServer() as server:
        for gate in gates:
            server.answer("x", faults.Stall(gate))
        asking = [asyncio.create_task(asked(http, server)) for _ in gates]
        for gate in gates:
            await gate.reached()
        one_left = asyncio.create_task(server.clients_gone(but=1))
        assert server.open_connections == 2

        asking[0].cancel()
        await one_left

        assert server.open_connections == 1
        for gate in gates:
            gate.open()
        assert (await asking[1]).json()["output"]


async def test_connections_are_counted(http: httpx2.AsyncClient) -> None:
    async with ModelServer(["x", "x"]) as server:
        await server.clients_gone()
        await asked(http, server)
        await asked(http, server)

        assert (server.connections, server.open_connections, len(server.requests)) == (1, 1, 2)
        await http.aclose()
        await server.clients_gone()
        await server.last.client_gone()

        assert (server.connections, server.open_connections) == (1, 0)


async def test_a_request_can_be_held_until_its_client_is_gone(http: httpx2.AsyncClient) -> None:
    async with ModelServer() as server:
        held = server.hold()
        asking = asyncio.create_task(asked(http, server, input="x"))
        request = await asyncio.wrap_future(held)

        asking.cancel()
        await request.client_gone()

    assert request.json == {"input": "x"}


def test_a_server_needs_no_loop_of_its_callers() -> None:
    with ModelServer([[assistant_message("x")]]) as server:
        answer = httpx2.post(f"{server.base_url}/responses", json={})

    assert answer.json()["output"][0]["type"] == "message"
    with pytest.raises(httpx2.ConnectError):
        httpx2.post(f"{server.base_url}/responses", json={})
