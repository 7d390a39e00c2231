"""Requests on the road: whose HTTP client, how long, and what is left open afterwards."""

import asyncio
import gc
import gzip
import logging
import threading
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from types import MappingProxyType
from typing import Any

import httpx2
import msgspec
import openai
import pytest
from openai import AsyncAzureOpenAI, AsyncOpenAI, DefaultAioHttpClient

from millstream.config import ModelSettings
from millstream.errors import ModelProtocolError, ModelTimeoutError, UserError
from millstream.models import transport
from millstream.models.connections import JoiningHandler
from millstream.models.openai_chat import OpenAIChatCompletionsModel
from millstream.models.openai_responses import OpenAIResponsesModel
from millstream.models.promise import Model
from millstream.models.request import Request
from millstream.models.wire import FrameReader
from millstream.testing import ManualClock
from millstream.testing.faults import CUT, HANG, Gate
from millstream.testing.model_server import ModelServer
from tests.models.conftest import batches, streamed, types_into, whole
from tests.support.frames import chat_frames, message, response, text_frames
from tests.support.hurry import time_flies

ANSWER = text_frames("Hello big world")


def model(server: ModelServer, *, idle_timeout: float | None = 300, **client: Any) -> OpenAIResponsesModel:
    client = {"api_key": "k", "base_url": server.base_url, "max_retries": 0, **client}
    return OpenAIResponsesModel("m", AsyncOpenAI(**client), idle_timeout=idle_timeout)


def text_of(events: list[Any]) -> str:
    return "".join(e.delta for e in events if e.type == "response.output_text.delta")


# --- whose HTTP client ------------------------------------------------------------------------


async def test_the_default_transport_is_read_at_its_source(server: ModelServer) -> None:
    """Fails when `openai` or aiohttp change the shape that `_aiohttp_body` knows: then it is slow, not wrong."""
    server.send(*ANSWER)
    client = AsyncOpenAI(api_key="k", base_url=server.base_url)
    twin = await transport.Transport(client)._with_pool()

    response: Any = await twin.post(
        "/responses", cast_to=httpx2.Response, body={}, stream=True, stream_cls=openai.AsyncStream
    )

    assert twin is not client
    body = transport._aiohttp_body(response)
    assert hasattr(body, "readany")
    assert hasattr(body, "_read_nowait")
    await response.aclose()
    await transport._pools[client].close()


async def test_the_connections_of_the_default_transport_are_our_own(server: ModelServer) -> None:
    """Fails when `openai` or aiohttp change the shape that `join_chunks` knows: then it is slow, not wrong."""
    server.send(*ANSWER)
    client = AsyncOpenAI(api_key="k", base_url=server.base_url)
    sender = transport.Transport(client)

    request = Request(path="/responses", body={})
    stream = await sender.stream(request, FrameReader(msgspec.json.Decoder(list[Any])))

    assert isinstance(stream._body._protocol, JoiningHandler)
    await stream.close()
    await sender.close()


async def test_what_is_private_to_openai_is_still_there() -> None:
    client = AsyncOpenAI(api_key="k")

    assert transport._has_default_http_client(client)
    assert client._platform is None
    assert transport._takes_bytes(client)
    assert not transport._has_default_http_client(AsyncOpenAI(api_key="k", http_client=httpx2.AsyncClient()))
    assert not transport._takes_bytes(
        AsyncAzureOpenAI(api_key="k", azure_endpoint="http://x", api_version="1")
    )


class Seen(httpx2.AsyncHTTPTransport):
    """A transport of the user's, who wants to see what goes over it."""

    def __init__(self) -> None:
        super().__init__()
        self.urls: list[str] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.urls.append(request.url.path)
        return await super().handle_async_request(request)


async def test_a_users_own_http_client_carries_the_stream(server: ModelServer) -> None:
    server.send(*ANSWER)
    seen = Seen()
    async with httpx2.AsyncClient(transport=seen, headers={"x-own": "yes"}) as own:
        events = await streamed(model(server, http_client=own))

    assert text_of(events) == "Hello big world"
    assert seen.urls == ["/v1/responses"]
    assert server.last.headers["x-own"] == "yes"


async def test_a_users_own_aiohttp_client_is_left_open(server: ModelServer) -> None:
    server.send(*ANSWER)
    async with DefaultAioHttpClient() as own:
        asked = model(server, http_client=own)
        await streamed(asked)
        await asked.close()

        assert not own.is_closed


async def test_the_client_keeps_its_say(server: ModelServer) -> None:
    server.send(*ANSWER, always=True)
    asked = model(
        server,
        default_headers={"X-Mine": "1", "User-Agent": "me"},
        default_query={"v": "2"},
        organization="org",
        project="proj",
    )

    await streamed(asked, settings=ModelSettings(extra_headers={"X-Once": "3"}, extra_query={"q": "4"}))
    first = server.last
    asked._transport.client.api_key = "rotated"
    await streamed(asked)

    assert first.target in ("/v1/responses?v=2&q=4", "/v1/responses?q=4&v=2")
    for name, value in {
        "x-mine": "1",
        "user-agent": "me",
        "x-once": "3",
        "openai-organization": "org",
        "openai-project": "proj",
        "authorization": "Bearer k",
    }.items():
        assert first.headers[name] == value
    assert server.last.headers["authorization"] == "Bearer rotated"


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize(
    ("make", "frames", "path"),
    [
        (OpenAIResponsesModel, ANSWER, "/openai/responses"),
        (OpenAIChatCompletionsModel, chat_frames("Hello"), "/openai/deployments/m/chat/completions"),
    ],
)
async def test_azure_routes_its_requests(
    server: ModelServer, make: Callable[..., Model], frames: list[bytes], path: str, own: bool
) -> None:
    server.send(*frames)
    client = AsyncAzureOpenAI(
        api_key="k",
        azure_endpoint=server.base_url.removesuffix("/v1"),
        api_version="2025-04-01",
        http_client=httpx2.AsyncClient() if own else None,
    )

    await streamed(make("m", client))

    assert server.last.target == f"{path}?api-version=2025-04-01"
    assert server.last.headers["api-key"] == "k"
    assert server.last.json["model"] == "m"
    await client.close()


async def test_a_compressed_stream_is_read(server: ModelServer) -> None:
    server.send(gzip.compress(b"".join(ANSWER)), headers={"content-encoding": "gzip"})

    assert text_of(await streamed(model(server))) == "Hello big world"


# --- retries and statuses: the client's own ---------------------------------------------------


@pytest.mark.parametrize("status", [500, 429, 409])
async def test_the_client_retries_as_it_was_told(server: ModelServer, status: int) -> None:
    for _ in range(2):
        server.send(b"{}", status=status, headers={"retry-after-ms": "1"})
    server.send(*ANSWER)

    events = await streamed(model(server, max_retries=2))

    assert text_of(events) == "Hello big world"
    assert [r.headers["x-stainless-retry-count"] for r in server.requests] == ["0", "1", "2"]
    assert len({r.body for r in server.requests}) == 1


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (400, openai.BadRequestError),
        (500, openai.InternalServerError),
    ],
)
async def test_statuses_are_the_errors_that_users_of_openai_catch(
    server: ModelServer, status: int, error: type[openai.APIStatusError]
) -> None:
    for _ in range(2):
        server.send(b'{"error":{"message":"no such thing","code":"c"}}', status=status)

    with pytest.raises(error, match="no such thing"):
        await streamed(model(server))
    with pytest.raises(error, match="no such thing"):
        await whole(model(server))


async def test_a_server_that_is_not_there_is_a_connection_error() -> None:
    with ModelServer() as server:
        asked = model(server)

    with pytest.raises(openai.APIConnectionError):
        await streamed(asked)


# --- the end in the middle --------------------------------------------------------------------


@pytest.mark.parametrize("http", [None, httpx2.AsyncClient, DefaultAioHttpClient])
async def test_a_cut_connection_is_a_protocol_error_that_counts_what_came(
    server: ModelServer, http: Callable[[], httpx2.AsyncClient] | None
) -> None:
    gate = Gate()
    server.send(*ANSWER[:5], gate, CUT)
    own = http() if http else None
    stream = batches(model(server, http_client=own))
    types = list((await anext(stream)).types)
    gate.open()

    with pytest.raises(ModelProtocolError, match=r"cut after \d+ events \(\w+") as raised:
        await types_into(types, stream)

    assert f"after {len(types)} events" in str(raised.value)
    assert raised.value.__cause__ is not None
    if own is not None:
        await own.aclose()


@pytest.mark.parametrize("http", [None, httpx2.AsyncClient])
async def test_what_arrived_before_the_connection_broke_is_not_lost_with_it(
    server: ModelServer, http: Callable[[], httpx2.AsyncClient] | None
) -> None:
    gate = Gate()
    server.send(*ANSWER[:5], gate, *ANSWER[5:], CUT)
    own = http() if http else None
    stream = batches(model(server, http_client=own))
    types = list((await anext(stream)).types)

    gate.open()
    await server.clients_gone()
    for _ in range(5):  # so that the rest and the break have both been noticed at the next read
        await asyncio.sleep(0)
    await types_into(types, stream)

    assert types[-1] == "response.completed"
    if own is not None:
        await own.aclose()


async def test_an_end_without_a_last_event_is_a_protocol_error(server: ModelServer) -> None:
    server.send(*ANSWER[:-1])

    with pytest.raises(ModelProtocolError, match=r"ended without response.completed, after 10 events"):
        await streamed(model(server))


@pytest.mark.hostile
@pytest.mark.parametrize("http", [True, False], ids=["own client", "our pool"])
@pytest.mark.parametrize(
    ("kind", "body", "begins", "advice"),
    [
        (
            "text/html",
            b"<html>\n\n<h1>Log in</h1>\n\n",
            r"It begins '<html>\n\n<h1>Log in</h1>\n\n'",
            "base URL",
        ),
        ("application/json", b'{"output": []}', """It begins '{"output": []}'""", "does not stream"),
        ("text/event-stream", b"", "It is empty", "Try again"),
        ("text/plain", b"x" * 5000, f"It begins '{'x' * 120}'…", "base URL"),
    ],
    ids=["login page", "whole answer", "nothing", "long"],
)
async def test_an_answer_that_is_no_stream_is_told_by_its_type_its_beginning_and_what_to_change(
    server: ModelServer, kind: str, body: bytes, begins: str, advice: str, http: bool
) -> None:
    server.send(body, headers={"content-type": kind})
    own = httpx2.AsyncClient() if http else None

    with pytest.raises(ModelProtocolError) as raised:
        await streamed(model(server, http_client=own))

    said = str(raised.value)
    assert f"without any event ({kind}), from {server.base_url}/responses. {begins}. " in said
    assert advice in said
    if own is not None:
        await own.aclose()


async def test_an_end_in_the_middle_of_a_frame_is_a_protocol_error(server: ModelServer) -> None:
    server.send(*ANSWER[:-1], ANSWER[-1][:40])

    with pytest.raises(ModelProtocolError, match="ended without"):
        await streamed(model(server))


# --- limits -----------------------------------------------------------------------------------


async def test_silence_ends_the_stream(server: ModelServer) -> None:
    server.send(*ANSWER[:5], HANG)

    with ManualClock() as clock:
        reading = asyncio.create_task(streamed(model(server, idle_timeout=30)))
        assert await clock.tick() == 30

    with pytest.raises(ModelTimeoutError, match="sent nothing for 30 s") as raised:
        await reading
    assert raised.value.idle
    assert raised.value.timeout_seconds == 30
    await server.last.client_gone()


async def test_the_total_limit_ends_the_stream(server: ModelServer) -> None:
    server.send(*ANSWER[:5], HANG)

    with ManualClock() as clock:
        stream = batches(model(server), settings=ModelSettings(timeout=10))
        await anext(stream)
        reading = asyncio.create_task(types_into([], stream))
        await asyncio.sleep(0)  # it reads: where nobody does, no time counts
        assert await clock.tick() == 10

    with pytest.raises(ModelTimeoutError, match="did not finish within 10 s") as raised:
        await reading
    assert not raised.value.idle
    await server.last.client_gone()


@pytest.mark.parametrize("ask", [streamed, whole])
async def test_the_total_limit_holds_before_the_first_byte(
    server: ModelServer, ask: Callable[..., Any]
) -> None:
    server.hold()

    with ManualClock() as clock:
        asking = asyncio.create_task(ask(model(server), settings=ModelSettings(timeout=10)))
        assert await clock.tick() == 10

    with pytest.raises(ModelTimeoutError, match="within 10 s"):
        await asking


async def test_time_that_the_request_took_counts_towards_the_total(server: ModelServer) -> None:
    held = Gate()
    server.send(held, *ANSWER[:5], HANG)

    with ManualClock() as clock:
        reading = asyncio.create_task(streamed(model(server), settings=ModelSettings(timeout=10)))
        await clock.waiting()
        clock.advance(4)
        held.open()
        while clock.due != (6,):
            await asyncio.sleep(0)
        await clock.tick()

    with pytest.raises(ModelTimeoutError, match="within 10 s"):
        await reading


async def test_a_whole_answer_may_be_silent_for_longer_than_a_stream(server: ModelServer) -> None:
    with ManualClock() as clock:
        held = server.hold()
        asking = asyncio.create_task(whole(model(server, idle_timeout=30)))
        await asyncio.wrap_future(held)

        assert clock.due == ()  # the client's own read timeout is the limit
        asking.cancel()


async def test_the_http_clients_own_read_timeout_is_a_model_timeout_too(server: ModelServer) -> None:
    server.send(*ANSWER[:5], HANG, always=True)

    for http in (None, httpx2.AsyncClient()):
        stream = batches(model(server, http_client=http), settings=ModelSettings(extra_args={"timeout": 30}))
        await anext(stream)
        reading = asyncio.create_task(types_into([], stream))
        await time_flies(reading)
        with pytest.raises(ModelTimeoutError) as raised:
            await reading
        assert raised.value.idle
    assert "timeout" not in server.last.json


async def at_once() -> bytes:
    return b"x"


async def never() -> bytes:
    return await asyncio.get_running_loop().create_future()


@pytest.mark.parametrize(
    ("idle", "total", "waits", "message"),
    [
        (5.0, None, [4.0, 0.9, 0.2], "nothing for 5 s"),
        (None, 10.0, [6.0, 3.9, 0.2], "not finish within 10 s"),
    ],
)
async def test_the_clocks_stand_still_while_nobody_reads(
    idle: float | None, total: float | None, waits: list[float], message: str
) -> None:
    clock = ManualClock()
    patience = transport.Patience(clock, idle, total, spent=0.0)
    assert await patience.wait(at_once) == b"x"
    clock.advance(1000)  # nobody reads
    assert await patience.wait(at_once) == b"x"
    clock.advance(1000)

    assert await patience.wait(at_once) == b"x"
    clock.advance((idle or total or 0) - 1)  # so that the timer is due in the middle of the next read

    reading = asyncio.create_task(patience.wait(never))
    await asyncio.sleep(0)
    for seconds in waits:
        assert not reading.done()
        clock.advance(seconds)
        await asyncio.sleep(0)

    with pytest.raises(ModelTimeoutError, match=message):
        await reading
    patience.close()
    assert clock.due == ()


async def test_one_timer_serves_a_whole_stream() -> None:
    clock = ManualClock()
    patience = transport.Patience(clock, 5.0, None, spent=0.0)

    for _ in range(100):
        await patience.wait(at_once)

    assert len(clock.due) == 1


async def test_a_limit_does_not_swallow_a_cancellation(server: ModelServer) -> None:
    server.send(*ANSWER[:5], HANG)
    stream = batches(model(server, idle_timeout=60))
    await anext(stream)
    reader = asyncio.create_task(anext(stream))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    reader.cancel()

    with pytest.raises(asyncio.CancelledError):
        await reader
    await server.last.client_gone()


class Strange(httpx2.AsyncBaseTransport):
    """A transport of the user's that answers with pieces of its own, or raises what it likes."""

    def __init__(self, *pieces: bytes | Exception) -> None:
        self._pieces = pieces

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._pieces and isinstance(self._pieces[0], Exception):
            raise self._pieces[0]
        return httpx2.Response(200, stream=StrangeStream(self._pieces))


class StrangeStream(httpx2.AsyncByteStream):
    def __init__(self, pieces: Sequence[bytes | Exception]) -> None:
        self._pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece


@pytest.mark.parametrize("pieces", [[KeyError("mine")], [ANSWER[0], KeyError("mine")]])
async def test_what_a_users_transport_raises_of_its_own_passes(pieces: list[bytes | Exception]) -> None:
    async with httpx2.AsyncClient(transport=Strange(*pieces)) as own:
        asked = OpenAIResponsesModel("m", AsyncOpenAI(api_key="k", base_url="http://x/v1", http_client=own))

        with pytest.raises(KeyError, match="mine"):
            await streamed(asked, settings=ModelSettings(timeout=60))


async def test_a_timeout_of_a_users_transport_is_not_taken_for_the_models() -> None:
    async with httpx2.AsyncClient(transport=Strange(TimeoutError("mine"))) as own:
        asked = OpenAIResponsesModel("m", AsyncOpenAI(api_key="k", base_url="http://x/v1", http_client=own))

        with pytest.raises(TimeoutError, match="mine"):
            await streamed(asked, settings=ModelSettings(timeout=60))


async def test_pieces_that_arrive_together_are_one_batch_and_reading_ahead_has_a_bound() -> None:
    taken: list[int] = []

    class Counted(StrangeStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            async for piece in super().__aiter__():
                taken.append(len(piece))
                yield piece

    pieces = [b"x" * 1000] * 1000
    ahead = transport._ReadAhead(httpx2.Response(200, stream=Counted(pieces)))

    first = await ahead.read()
    for _ in range(5):
        await asyncio.sleep(0)
    after_one_read = sum(taken)
    rest = 0
    while data := await ahead.read():
        rest += len(data)
    await ahead.close()

    assert len(first) == transport._ReadAhead.LIMIT // 1000 * 1000 + 1000
    assert after_one_read == 2 * len(first)
    assert len(first) + rest == 1_000_000


async def test_empty_pieces_are_not_the_end() -> None:
    async with httpx2.AsyncClient(transport=Strange(b"", *ANSWER[:5], b"", *ANSWER[5:])) as own:
        asked = OpenAIResponsesModel("m", AsyncOpenAI(api_key="k", base_url="http://x/v1", http_client=own))

        assert text_of(await streamed(asked)) == "Hello big world"


# --- what is left open ------------------------------------------------------------------------


@pytest.mark.parametrize("http", [None, httpx2.AsyncClient])
async def test_closing_the_stream_closes_the_connection(
    server: ModelServer, http: Callable[[], Any] | None
) -> None:
    server.send(*ANSWER[:5], HANG)
    stream = batches(model(server, http_client=http() if http else None))
    await anext(stream)

    await stream.aclose()

    await server.last.client_gone()


async def test_cancelling_a_request_without_an_answer_closes_the_connection(server: ModelServer) -> None:
    arrived = server.hold()
    asking = asyncio.create_task(whole(model(server)))
    request = await asyncio.wrap_future(arrived)

    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking

    await request.client_gone()


async def test_an_answer_that_was_read_to_its_end_leaves_its_connection_for_the_next(
    server: ModelServer,
) -> None:
    server.send(*ANSWER, always=True)
    asked = model(server)

    for _ in range(3):
        await streamed(asked)

    assert server.connections == 1


async def test_what_follows_the_last_event_is_read_so_that_the_connection_can_be_kept(
    server: ModelServer,
) -> None:
    gate = Gate()
    server.send(*ANSWER, gate, b": bye\n\n", b"data: [DONE]\n\n")
    server.send(*ANSWER)
    asked = model(server, idle_timeout=None)

    stream = batches(asked)
    while (await anext(stream)).types[-1] != "response.completed":
        pass
    gate.open()
    assert await anext(stream, None) is None
    await streamed(asked)

    assert server.connections == 1


async def test_two_models_of_one_client_share_its_connections_until_both_are_closed(
    server: ModelServer,
) -> None:
    server.send(*ANSWER, always=True)
    client = AsyncOpenAI(api_key="k", base_url=server.base_url)
    one, other = OpenAIResponsesModel("a", client), OpenAIResponsesModel("b", client)
    await streamed(one)
    await streamed(other)

    await one.close()
    await streamed(other)
    assert server.connections == 1

    await other.close()
    await other.close()
    await server.last.client_gone()
    await streamed(one)
    assert server.connections == 2


def test_one_model_serves_many_loops_and_leaves_nothing_behind(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.send(*ANSWER, always=True)
    asked = model(server)

    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.WARNING):
        warnings.simplefilter("always")
        for _ in range(3):
            assert text_of(asyncio.run(streamed(asked))) == "Hello big world"
        gc.collect()

    assert [str(w.message) for w in caught] == []
    assert caplog.records == []
    assert server.connections == 3
    assert len(transport._pools[asked._transport.client]._by_loop) == 0


async def test_closing_reaches_the_connections_of_other_loops(server: ModelServer) -> None:
    server.send(*ANSWER, always=True)
    asked = model(server)
    other = asyncio.new_event_loop()
    thread = threading.Thread(target=other.run_forever)
    thread.start()
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(streamed(asked), other))

    await asked.close()

    await server.last.client_gone()
    await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(other.shutdown_asyncgens(), other))
    other.call_soon_threadsafe(other.stop)
    await asyncio.to_thread(thread.join)
    other.close()


def test_a_coroutine_whose_loop_is_gone_is_run_as_far_as_it_goes() -> None:
    async def raises() -> None:
        raise RuntimeError("Event loop is closed")

    async def waits() -> None:
        await asyncio.sleep(0)

    transport._run_without_loop(raises())
    transport._run_without_loop(waits())


def test_a_loop_that_was_closed_roughly_is_forgotten(server: ModelServer) -> None:
    server.send(*ANSWER, always=True)
    asked = model(server)
    loop = asyncio.new_event_loop()
    loop.run_until_complete(streamed(asked))
    pools = transport._pools[asked._transport.client]
    http = pools._by_loop[loop][0]
    connector = http._transport.client.connector  # type: ignore[attr-defined]
    connector._close()  # what the kernel would do: no socket may be left to warn of
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()

    asyncio.run(streamed(asked))

    assert loop not in pools._by_loop
    assert http.is_closed


async def test_a_stream_that_nobody_closed_is_closed_with_its_loop_or_by_the_collector(
    server: ModelServer,
) -> None:
    server.send(*ANSWER[:5], HANG)
    stream = batches(model(server))
    await anext(stream)

    del stream
    gc.collect()

    await server.last.client_gone()


async def test_a_client_that_was_closed_says_so(server: ModelServer) -> None:
    asked = model(server)
    await asked._transport.client.close()

    with pytest.raises(RuntimeError, match="client has been closed"):
        await streamed(asked)


# --- bodies -----------------------------------------------------------------------------------


async def test_a_body_goes_out_whole_and_strict(server: ModelServer) -> None:
    server.send_json(response([message("x")]))
    text = "é日😀\u2028 half a pair: \ud83d " + "x" * 100_000

    await whole(model(server), [{"role": "user", "content": text}])

    sent = server.last.json["input"][0]["content"]
    assert sent == text.replace("\ud83d", "\ufffd")


async def test_what_has_no_json_is_refused_by_name(server: ModelServer) -> None:
    with pytest.raises(UserError, match="holds a object, which has no JSON"):
        await whole(model(server), settings=ModelSettings(extra_body={"x": object()}))

    assert server.requests == []


async def test_any_mapping_is_an_object(server: ModelServer) -> None:
    server.send_json(response())

    await whole(model(server), settings=ModelSettings(extra_body={"x": MappingProxyType({"a": 1})}))

    assert server.last.json["x"] == {"a": 1}
