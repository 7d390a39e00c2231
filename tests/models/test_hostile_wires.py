"""Model servers that misbehave: each case of `docs/hostile-wires.md`, over both wires and by both doors.

A run against a hostile server ends within the deadline, in the right result or in the one
exception that the page names; its log keeps the grammar (`tests/conftest.py` looks), and no
socket or task of it is left.
"""

import asyncio
import functools
import gc
from collections.abc import AsyncGenerator, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import httpx2
import openai
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import AsyncOpenAI

from millstream import Agent, ModelSettings, RunConfig, Runner, Usage, function_tool
from millstream.errors import (
    ModelBehaviorError,
    ModelProtocolError,
    ModelResponseError,
    ModelTimeoutError,
)
from millstream.models.openai_chat import OpenAIChatCompletionsModel
from millstream.models.openai_responses import OpenAIResponsesModel
from millstream.testing import (
    ManualClock,
    ModelServer,
    ModelStep,
    assistant_message,
    function_call,
    reasoning,
)
from millstream.testing.faults import (
    Body,
    Choices,
    Corrupt,
    Cut,
    Delay,
    DuplicateIds,
    Edit,
    End,
    ErrorEvent,
    Fault,
    FinishReason,
    Gate,
    Gzip,
    Header,
    Http10,
    Insert,
    LineEnds,
    ManyDataLines,
    NoEnd,
    NoEventNames,
    NoLastLine,
    NoSpace,
    NoTypes,
    ReasoningField,
    Replace,
    Reset,
    Slow,
    Split,
    Stall,
    Status,
    ToolCalls,
    UnknownEvents,
    UsageAs,
)
from millstream.testing.model_server import rendered
from millstream.testing.model_wires import Talk, Wire

pytestmark = pytest.mark.hostile

IDLE, TOTAL = 30, 60
DEADLINE = 50  # a hang fails the test; nothing else comes near it
PAGE = Path(__file__).parents[2] / "docs/hostile-wires.md"
MODELS = {"responses": OpenAIResponsesModel, "chat": OpenAIChatCompletionsModel}
WIRES: tuple[Wire, ...] = ("responses", "chat")

# --- what is said, and what becomes of it -----------------------------------------------------

USAGE = Usage(requests=1, input_tokens=3, output_tokens=5, total_tokens=8)


@function_tool
def add(a: int, b: int) -> int:
    """Add."""
    return a + b


def call(a: int, b: int) -> Any:
    return function_call("add", {"a": a, "b": b}, call_id=f"call_{a}{b}")


def said(*items: Any) -> ModelStep:
    return ModelStep([reasoning("Sums need adding."), *items], usage=USAGE)


ONE_CALL = said(assistant_message("Let me see."), call(2, 3))
TWO_CALLS = said(call(2, 3), call(4, 5))
DONE = ModelStep("Done.", usage=USAGE)


@dataclass(frozen=True)
class Told:
    """A run that ends well: what the page says of it, its items (texts, calls, outputs) and its tokens."""

    label: str
    items: tuple[Any, ...]
    usage: int | None = 16


SUM = ("add", '{"a":2,"b":3}')
GOOD = Told("the answer", ("Sums need adding.", "Let me see.", SUM, "5", "Done."))
BOTH = Told("the answer", ("Sums need adding.", SUM, ("add", '{"a":4,"b":5}'), "5", "9", "Done."))
MARKED = Told("the answer, U+FFFD for the half", ("Sums need adding.", "Let me \ufffd.", SUM, "5", "Done."))
UNCOUNTED = Told("the answer, its usage estimated", GOOD.items, usage=None)
EARLY = Told("what came before it, as the answer", ("Sums need adding.", "Let"), usage=None)
EMPTY = Told("an answer without items", (), usage=8)
BIG = Told("the answer", ("Sums need adding.", "é" * 10_000_000), usage=8)


def refused(arguments: str, why: str) -> Told:
    return Told(
        "the answer; the tool refused the call",
        (
            "Sums need adding.",
            ("add", arguments),
            f"An error occurred while running the tool. Please try again. Error: Invalid JSON input for tool add: {why}",
            "Done.",
        ),
    )


Outcome = Told | type[Exception]


def both(outcome: Outcome) -> tuple[Outcome, Outcome]:
    """By both doors the same."""
    return outcome, outcome


Retried = Literal["yes", "no", "whole"]


@dataclass(frozen=True)
class Case:
    """A row of the page.

    `whole` is None where only a stream can go wrong so; an outcome may differ by wire.
    """

    name: str
    faults: Sequence[Fault]
    streamed: Outcome | Mapping[Wire, Outcome] = GOOD
    whole: Outcome | Mapping[Wire, Outcome] | None = None
    step: ModelStep | None = None
    wires: tuple[Wire, ...] = WIRES
    retried: Retried = "no"

    def outcome(self, wire: Wire, door: str) -> Outcome | None:
        outcome = self.streamed if door == "streamed" else self.whole
        return outcome[wire] if isinstance(outcome, Mapping) else outcome


def events(change: dict[str, Any], *, of: str) -> Edit:
    """The members of `change` in every event of that type."""
    return Edit(lambda event: {**event, **change} if event.get("type") == of else event)


def ending(**change: Any) -> Edit:
    """Other members in the response that the last event repeats, or that is the whole answer."""

    def changed(event: dict[str, Any]) -> dict[str, Any]:
        if event.get("type") == "response.completed":
            return {**event, "response": {**event["response"], **change}}
        return {**event, **change} if "output" in event else event

    return Edit(changed)


def without(kind: str) -> Edit:
    return Edit(lambda event: None if event.get("type") == kind else event)


EVENTS = "text/event-stream"
LOST = openai.APIConnectionError
CHAT: tuple[Wire, ...] = ("chat",)
RESPONSES: tuple[Wire, ...] = ("responses",)
DEEP = b'"x":' + b"[" * 10_000 + b"]" * 10_000
VLLM = b'{"object":"error","message":"scripted failure","type":"BadRequestError","param":null,"code":400}'
LOGIN = b"<html>\n\n<h1>Log in</h1>"

CASES = [
    # the connection
    Case("cut before the status", [Cut()], LOST, LOST, retried="yes"),
    Case("reset before the status", [Reset()], LOST, LOST, retried="yes"),
    Case("cut after the head", [Cut(byte=0)], ModelProtocolError, LOST, retried="whole"),
    Case("reset after the head", [Reset(byte=0)], ModelProtocolError, LOST, retried="whole"),
    Case("cut in the middle", [Cut(byte=300)], ModelProtocolError, LOST, retried="whole"),
    Case("reset in the middle", [Reset(byte=300)], ModelProtocolError, LOST, retried="whole"),
    Case("cut in the head", [Cut(head_byte=20)], LOST, LOST, retried="yes"),
    Case("reset in the head", [Reset(head_byte=20)], LOST, LOST, retried="yes"),
    Case("reset before the end", [Reset(frame=-2)], ModelProtocolError, LOST, retried="whole"),
    Case("cut behind the end", [Cut(frame=-1)], GOOD),
    Case("a clean end in the middle", [End(byte=300)], ModelProtocolError, ModelProtocolError),
    Case("silence before the status", [Stall()], ModelTimeoutError, ModelTimeoutError),
    Case("silence in the middle", [Stall(byte=300)], ModelTimeoutError, ModelTimeoutError),
    Case("silence behind the end", [Stall(frame=-1)], GOOD),
    Case("a pause in the middle", [Delay(IDLE - 1, byte=300)], GOOD, GOOD),
    Case("a pause too long", [Delay(IDLE + 1, byte=300)], ModelTimeoutError, GOOD),
    Case("a slow trickle", [Split(10), Slow(IDLE / 3)], ModelTimeoutError, ModelTimeoutError),
    Case("comments without end", [Body(b": ping\n\n" * 100, EVENTS), Split(8), Slow(IDLE / 3)], ModelTimeoutError),
    Case("one byte a write", [Split(1)], GOOD, GOOD),
    Case("odd pieces", [Split(7, 1, 64)], GOOD, GOOD),
    # HTTP
    *(
        Case(f"status {status}", [Status(status)], error, error)
        for status, error in {
            400: openai.BadRequestError,
            401: openai.AuthenticationError,
            404: openai.NotFoundError,
        }.items()
    ),
    *(
        Case(f"status 429, `Retry-After` {how}", [fault], *both(openai.RateLimitError), retried="yes")
        for how, fault in {
            "in seconds": Status(429, retry_after=0.01),
            "as a date": Status(429, retry_after=datetime(2020, 1, 1, tzinfo=UTC)),
            "in milliseconds": Status(429, retry_after_ms=1),
        }.items()
    ),
    Case("status 500", [Status(500, retry_after_ms=1)], *both(openai.InternalServerError), retried="yes"),
    Case(
        "status 502, a page of HTML",
        [Status(502, retry_after_ms=1), Body(LOGIN)],
        *both(openai.InternalServerError),
        retried="yes",
    ),
    Case("status 503", [Status(503, retry_after_ms=1)], *both(openai.InternalServerError), retried="yes"),
    Case("a login page", [Body(LOGIN)], ModelProtocolError, ModelProtocolError),
    Case("nothing at all", [Body(b"", "text/event-stream")], ModelProtocolError, ModelProtocolError),
    Case("JSON that is no answer", [Body(b"[null]", "application/json")], *both(ModelProtocolError)),
    Case("another content type", [Header("content-type", "text/plain")], GOOD, GOOD),
    Case("no content type", [Header("content-type", None)], GOOD, GOOD),
    Case("gzip", [Gzip()], GOOD, GOOD),
    Case("gzip, cut", [Gzip(), Cut(byte=100)], ModelProtocolError, LOST, retried="whole"),
    Case(
        "gzip that is none",
        [Header("content-encoding", "gzip")],
        ModelProtocolError,
        LOST,
        retried="whole",
    ),
    Case("HTTP/1.0", [Http10()], GOOD, GOOD),
    Case("HTTP/1.0, ended in the middle", [Http10(), End(byte=300)], *both(ModelProtocolError)),
    # frames
    Case("line ends CRLF", [LineEnds(b"\r\n")]),
    Case("line ends CR", [LineEnds(b"\r")]),
    Case("line ends CRLF, one byte a write", [LineEnds(b"\r\n"), Split(1)]),
    Case("`data:` without a space", [NoSpace()]),
    Case("heartbeats", [Insert(b": ping\n\n")]),
    Case("comments in frames", [Insert(b":\n")]),
    Case("a byte order mark", [Insert(b"\xef\xbb\xbf", frame=0)]),
    Case("ids and retry hints", [Insert(b"id: 7\nretry: 10\n")]),
    Case("frames without data", [Insert(b"data:\n\nevent: x\n\n\n")]),
    Case("several `data:` lines", [ManyDataLines()]),
    Case("no `event:` lines", [NoEventNames()], wires=RESPONSES),
    Case("types on `event:` lines only", [NoTypes()], wires=RESPONSES),
    Case("no empty line at the end", [NoLastLine()]),
    Case("no last event", [NoEnd()], {"responses": ModelProtocolError, "chat": GOOD}),
    Case("no last event, no reason", [NoEnd(), FinishReason(None)], ModelProtocolError, wires=CHAT),
    Case("`[DONE]` too early", [Insert(b"data: [DONE]\n\n", frame=5)], EARLY, wires=CHAT),
    Case("garbage behind the end", [Insert(b"data: garbage\n\n", frame=-1)]),
    Case("garbage in the middle", [Insert(b"data: garbage\n\n", frame=5)], ModelProtocolError),
    # bytes
    Case("bytes that are not UTF-8", [Replace(b"see", b"s\xff\xfe")], *both(ModelProtocolError)),
    Case("half a surrogate pair", [Replace(b"see", rb"\ud83d")], MARKED, MARKED),
    Case("NaN and infinities", [Replace(b'"id":', b'"x":NaN,"y":-Infinity,"id":')], GOOD, GOOD),
    Case("broken JSON", [Replace(b'"object":', b'"object":!')], *both(ModelProtocolError)),
    Case("10,000 brackets", [Replace(b'"id":', DEEP + b',"id":')], *both(ModelProtocolError)),
    Case("a frame of 20 MB", [], BIG, BIG, said(assistant_message("é" * 10_000_000))),
    # what is said
    Case("an error before anything", [ErrorEvent()], ModelResponseError, ModelResponseError),
    Case("an error in the middle", [ErrorEvent(6)], ModelResponseError),
    Case("an error of no type", [ErrorEvent(6, typed=False)], ModelResponseError, wires=RESPONSES),
    *(
        Case(f"an error as {how}", [Insert(frame + b"\n\n", frame=6)], ModelResponseError)
        for how, frame in {
            "`event: error`": b'event: error\ndata: {"message":"scripted failure"}',
            "`event: error` with text": b"event: error\ndata: scripted failure",
            "`event: error` with a type of its own": b"event: error\ndata: " + VLLM,
            "`object`": b"data: " + VLLM,
            "text": b'data: {"error":"scripted failure"}',
            "a message": b'data: {"message":"scripted failure"}',
        }.items()
    ),
    *(
        Case(f"{what} as JSON", [Body(body, "application/json")], *both(ModelResponseError))
        for what, body in {
            "an error object": b'{"error":{"message":"scripted failure"}}',
            "an error text": b'{"error":"scripted failure"}',
            "an error message": b'{\n  "message": "scripted failure"\n}\n',
            "an error of vLLM": VLLM,
        }.items()
    ),
    Case("unknown events and fields", [UnknownEvents()], GOOD, GOOD),
    Case("ids that repeat", [DuplicateIds()], BOTH, BOTH, TWO_CALLS),
    Case("several choices", [Choices(3)], GOOD, GOOD, wires=CHAT),
    Case("no choices", [Edit(lambda o: {**o, "choices": []})], *both(ModelProtocolError), wires=CHAT),
    Case(
        "calls without ids",
        [ToolCalls(ids=False)],
        {"responses": ModelProtocolError, "chat": BOTH},
        {"responses": ModelProtocolError, "chat": BOTH},
        TWO_CALLS,
    ),
    Case("calls in one piece", [ToolCalls(whole=True)], BOTH, None, TWO_CALLS),
    Case("calls without index", [ToolCalls(index="missing")], BOTH, BOTH, TWO_CALLS, CHAT),
    Case("calls of one index", [ToolCalls(index="reused")], BOTH, BOTH, TWO_CALLS, CHAT),
    Case(
        "calls without index or ids", [ToolCalls(index="missing", ids=False)], BOTH, BOTH, TWO_CALLS, CHAT
    ),
    Case(
        "calls of one index without ids, in one piece",
        [ToolCalls(index="reused", ids=False, whole=True)],
        BOTH,
        BOTH,
        TWO_CALLS,
        CHAT,
    ),
    Case("names in pieces", [ToolCalls(name_in_pieces=True)], BOTH, None, TWO_CALLS, CHAT),
    Case("arguments as an object", [ToolCalls(as_objects=True)], BOTH, BOTH, TWO_CALLS),
    Case(
        "arguments that are not JSON",
        [],
        *both(refused("{a: 2", "Invalid JSON: key must be a string at line 1 column 2")),
        step=said(function_call("add", "{a: 2")),
    ),
    Case(
        "arguments that are no object",
        [],
        *both(refused("[2,3]", "Input should be an object")),
        step=said(function_call("add", "[2,3]")),
    ),
    Case("a tool that there is not", [], *both(ModelBehaviorError), step=said(function_call("sub"))),
    Case("reasoning in `reasoning`", [ReasoningField("reasoning")], GOOD, GOOD, wires=CHAT),
    Case("reasoning in `thinking`", [ReasoningField("thinking")], GOOD, GOOD, wires=CHAT),
    Case("no usage", [UsageAs("missing")], UNCOUNTED, UNCOUNTED),
    Case("usage null", [UsageAs("null")], UNCOUNTED, UNCOUNTED),
    Case("usage with the last choice", [UsageAs("with the finish")], wires=CHAT),
    Case("usage in every chunk", [UsageAs("in every chunk")], wires=CHAT),
    Case("usage under another name", [UsageAs("x_usage")], UNCOUNTED, wires=CHAT),
    Case("usage that is text", [Replace(b'_tokens":', b'_tokens":"many","n":')], UNCOUNTED, UNCOUNTED),
    Case("no reason why it ends", [FinishReason(None)], GOOD, GOOD, wires=CHAT),
    Case("an odd reason why it ends", [FinishReason("weird")], GOOD, GOOD, wires=CHAT),
    Case("a reason that is a number", [FinishReason(7)], *both(ModelProtocolError), wires=CHAT),
    Case("content that is a number", [Replace(b'"Let"', b"5")], ModelProtocolError, wires=CHAT),
    Case("nothing said", [], EMPTY, EMPTY, ModelStep([], usage=USAGE)),
    Case("an odd status", [ending(status="weird")], GOOD, GOOD, wires=RESPONSES),
    Case("a last event without output", [ending(output=[])], wires=RESPONSES),
    Case("a last event without response", [events({"response": None}, of="response.completed")], UNCOUNTED, wires=RESPONSES),
    Case("no `response.created`", [without("response.created")], wires=RESPONSES),
    Case("no `output_item.added`", [without("response.output_item.added")], wires=RESPONSES),
    Case("no `output_item.done`", [without("response.output_item.done")], wires=RESPONSES),
    Case("items that are null", [events({"item": None}, of="response.output_item.done")], ModelProtocolError, wires=RESPONSES),
    Case("no sequence numbers", [Edit(lambda o: {k: v for k, v in o.items() if k != "sequence_number"})], wires=RESPONSES),
]  # fmt: skip


# --- the runs ---------------------------------------------------------------------------------


@functools.cache
def a_client() -> AsyncOpenAI:
    """One for all tests: to make a client is to read the certificates."""
    return AsyncOpenAI(api_key="k")


@functools.cache
def own_transport() -> Any:
    return httpx2.create_ssl_context()


@asynccontextmanager
async def adder(
    server: ModelServer, wire: Wire, *, own: bool = False, retries: int = 0
) -> AsyncGenerator[Agent]:
    """An agent of that server's model, behind which nothing may be left open."""
    before = asyncio.all_tasks()
    http = httpx2.AsyncClient(verify=own_transport()) if own else None
    client = a_client().copy(base_url=server.base_url, max_retries=retries, http_client=http)
    client._calculate_retry_timeout = lambda *_: 0  # type: ignore[method-assign]  # asks again at once
    model = MODELS[wire]("m", client, idle_timeout=IDLE)
    yield Agent(name="Adder", tools=[add], model=model, model_settings=ModelSettings(timeout=TOTAL))
    # Each connection was closed, or is back in the pool: the next call needs no second one.
    pooled = await model._transport._with_pool()
    await pooled.models.list()
    await server.clients_gone(but=1)
    await model.close()
    if http is not None:
        await http.aclose()
    await server.clients_gone()
    await asyncio.sleep(0)
    assert asyncio.all_tasks() <= before


async def told(agent: Agent, door: str, config: RunConfig | None = None) -> Any:
    """The result of a run of `agent` by that door."""
    if door == "whole":
        return await Runner.run(agent, "2 + 3?", run_config=config)
    run = Runner.run_streamed(agent, "2 + 3?", run_config=config)
    try:
        return await run
    finally:
        ends = [e.event.type async for e in run.entries() if e.event.type in ("run.completed", "run.failed")]
        assert len(ends) == 1


def items_of(result: Any) -> tuple[Any, ...]:
    return tuple(map(_plain, result.new_items))


def _plain(item: Any) -> Any:
    raw = item.raw_item
    if item.type == "tool_call_item":
        return raw.name, raw.arguments
    if item.type == "tool_call_output_item":
        return str(item.output)
    parts = raw.content if item.type == "message_output_item" else [*raw.summary, *(raw.content or ())]
    return "".join(part.text for part in parts)


def check(result: Any, expected: Told) -> None:
    assert items_of(result) == expected.items
    usage = result.context_wrapper.usage
    if expected.usage is None:
        assert usage.estimated
    else:
        assert usage.total_tokens == expected.usage


# --- the table --------------------------------------------------------------------------------


class Paced:
    """The clock of a server whose pauses move the run's clock, `run`, on the loop of the test."""

    def __init__(self) -> None:
        self.run = ManualClock()
        self._loop = asyncio.get_running_loop()

    async def sleep(self, seconds: float) -> None:
        """On the server's loop."""
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._go_on(seconds), self._loop))

    async def _go_on(self, seconds: float) -> None:
        for _ in range(5):  # what was sent is there, and is read in one of these turns
            await asyncio.sleep(0)
        await self.run.waiting()
        self.run.advance(seconds)


def rows(cases: Iterable[Case]) -> pytest.MarkDecorator:
    """Each of the cases over each of its wires."""
    table = [pytest.param(case, wire, id=f"{case.name}, {wire}") for case in cases for wire in case.wires]
    return pytest.mark.parametrize(("case", "wire"), table)


@rows(CASES)
async def test_a_hostile_server_costs_no_more_than_the_page_says(case: Case, wire: Wire) -> None:
    transports = (False, True) if case.name != "a frame of 20 MB" else (False,)
    async with asyncio.timeout(DEADLINE), a_server() as (server, pace):
        for own in transports:
            async with adder(server, wire, own=own) as agent:
                for door in ("streamed", "whole"):
                    expected = case.outcome(wire, door)
                    if expected is not None:
                        server.answer(case.step or ONE_CALL, *case.faults)
                        server.answer(DONE, always=True)
                        await _ends_as(agent, door, expected, case, pace)


@asynccontextmanager
async def a_server() -> AsyncGenerator[tuple[ModelServer, Paced]]:
    pace = Paced()
    async with ModelServer(clock=pace) as server:  # type: ignore[arg-type]
        yield server, pace


async def _ends_as(agent: Agent, door: str, expected: Outcome, case: Case, pace: Paced) -> None:
    """A run that ends so; by a clock that the server moves, or we, where it never says another word."""
    pace.run = clock = ManualClock()
    silent = "silence" in case.name
    paced = any(isinstance(fault, Delay | Slow) for fault in case.faults)
    config = RunConfig(clock=clock) if paced or (silent and isinstance(expected, type)) else None
    if isinstance(expected, Told):
        check(await told(agent, door, config), expected)
        return
    running = asyncio.create_task(told(agent, door, config))
    while silent and not running.done():
        ticking = asyncio.create_task(clock.tick())
        await asyncio.wait({running, ticking}, return_when=asyncio.FIRST_COMPLETED)
        ticking.cancel()

    with pytest.raises(expected) as raised:
        await running
    assert raised.type is expected or issubclass(raised.type, openai.OpenAIError)
    assert raised.value.run_data is not None  # type: ignore[attr-defined]
    assert str(raised.value)
    if expected is ModelResponseError:
        assert "scripted failure" in str(raised.value)


@pytest.fixture(autouse=True)
def collected_elsewhere(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a collector ends where the stack is used up, of whichever test, fails there, and is complained of."""
    if "brackets" not in request.node.name:
        yield
        return
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def fails(case: Case) -> bool:
    return any(isinstance(case.outcome(w, d), type) for w in case.wires for d in ("streamed", "whole"))


@rows(filter(fails, CASES))
async def test_what_the_client_asks_again_is_what_the_page_says(case: Case, wire: Wire) -> None:
    async with (
        asyncio.timeout(DEADLINE),
        a_server() as (server, pace),
        adder(server, wire, retries=1) as agent,
    ):
        for door in ("streamed", "whole"):
            expected = case.outcome(wire, door)
            if not isinstance(expected, type):
                continue
            server.requests.clear()
            server.answer(case.step or ONE_CALL, *case.faults)
            if case.retried == "yes" or case.retried == door:
                server.answer(ONE_CALL)
                server.answer(DONE)
                check(await told(agent, door), GOOD)
                assert [r.headers["x-stainless-retry-count"] for r in server.requests] == ["0", "1", "0"]
            else:
                await _ends_as(agent, door, expected, case, pace)
                assert len(server.requests) <= 1  # none where time was over before it could be sent


# --- every byte -------------------------------------------------------------------------------

PARTS = 6  # of the table of all bytes: a test each, so that they run side by side

SHORT = ModelStep([assistant_message("Aé"), function_call("add", {"a": 2, "b": 3}, call_id="c")], usage=USAGE)
SHORT_TOLD = Told("the answer", ("Aé", SUM, "5", "Done."))


SPARED = ("in_progress", "item.added", "part.added", "part.done", "text.done", "arguments.done")


def slim(event: dict[str, Any]) -> dict[str, Any] | None:
    """The event as a server that is short of words sends it: each byte is a run."""
    kind = event.get("type", "")
    if kind.endswith(SPARED):
        return None
    if kind == "response.completed":
        return {"type": kind, "response": {"output": [], "usage": event["response"]["usage"]}}
    return {k: v for k, v in event.items() if k not in ("created", "model", "object", "logprobs", "response")}


SLIM = (Edit(slim), NoEventNames())


def stream_of(wire: Wire) -> bytes:
    return rendered(SHORT, *SLIM, talk=Talk(wire))


def in_parts() -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("wire", "part"), [(w, p) for w in WIRES for p in range(PARTS)])


@in_parts()
async def test_a_stream_that_is_cut_at_any_byte_is_whole_or_a_protocol_error(wire: Wire, part: int) -> None:
    data = stream_of(wire)
    async with asyncio.timeout(DEADLINE), ModelServer() as server, adder(server, wire) as agent:
        for byte in range(part, len(data), PARTS):
            server.answer(SHORT, *SLIM, Cut(byte=byte))
            with pytest.raises(ModelProtocolError) as raised:
                await told(agent, "streamed")
            assert raised.value.run_data is not None
            assert "Aé".startswith(raised.value.run_data.partial_text)

        server.answer(SHORT, *SLIM, Cut(byte=len(data)))
        server.answer(DONE)
        check(await told(agent, "streamed"), SHORT_TOLD)


@pytest.mark.parametrize("part", range(PARTS))
async def test_a_chat_that_ends_at_any_byte_is_whole_once_it_said_why_it_ends(part: int) -> None:
    data = stream_of("chat")
    enough = data.index(b'"finish_reason":"tool_calls"}]}') + len(b'"finish_reason":"tool_calls"}]}')
    async with asyncio.timeout(DEADLINE), ModelServer() as server, adder(server, "chat") as agent:
        for byte in range(part, len(data), PARTS):
            server.answer(SHORT, *SLIM, End(byte=byte))
            if byte < enough:
                with pytest.raises(ModelProtocolError):
                    await told(agent, "streamed")
            else:
                server.answer(DONE)
                assert items_of(await told(agent, "streamed")) == SHORT_TOLD.items


HEADS = {
    "streamed": b"HTTP/1.1 200 Scripted\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n",
    "whole": b"HTTP/1.1 200 Scripted\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n",
}


@pytest.mark.parametrize("fault", [Cut, Reset])
@pytest.mark.parametrize("door", ["streamed", "whole"])
@pytest.mark.parametrize("wire", WIRES)
async def test_an_answer_that_is_cut_at_any_byte_of_its_head_is_a_lost_connection(
    wire: Wire, door: str, fault: type[Cut] | type[Reset]
) -> None:
    async with asyncio.timeout(DEADLINE), ModelServer() as server, adder(server, wire) as agent:
        for byte in range(len(HEADS[door])):
            server.answer(SHORT, *SLIM, fault(head_byte=byte))
            with pytest.raises(LOST):
                await told(agent, door)

        server.answer(SHORT, *SLIM, fault(head_byte=len(HEADS[door])))
        with pytest.raises(ModelProtocolError if door == "streamed" else LOST):
            await told(agent, door)


@in_parts()
async def test_a_whole_answer_that_is_cut_at_any_byte_is_a_lost_connection(wire: Wire, part: int) -> None:
    size = len(rendered(SHORT, *SLIM, talk=Talk(wire, streamed=False)))
    async with asyncio.timeout(DEADLINE), ModelServer() as server, adder(server, wire) as agent:
        for byte in range(part, size, PARTS):
            server.answer(SHORT, *SLIM, Cut(byte=byte))
            with pytest.raises(LOST):
                await told(agent, "whole")


@in_parts()
async def test_a_stream_that_is_split_at_any_byte_is_the_same(wire: Wire, part: int) -> None:
    data = stream_of(wire)
    async with asyncio.timeout(DEADLINE), ModelServer() as server, adder(server, wire) as agent:
        for byte in range(part, len(data), PARTS):
            gate = Gate()
            server.answer(SHORT, *SLIM, Stall(gate, byte=byte))
            server.answer(DONE, always=True)
            running = asyncio.create_task(told(agent, "streamed"))
            await gate.reached()  # the first piece has been sent, and is read before this is known
            gate.open()

            check(await running, SHORT_TOLD)


# --- any bit ----------------------------------------------------------------------------------

DOCUMENTED = (ModelBehaviorError, openai.APIError)


@pytest.mark.parametrize("wire", WIRES)
@settings(max_examples=120)
@given(data=st.data())
def test_a_stream_with_flipped_bits_is_an_answer_or_a_documented_error(
    wire: Wire, data: st.DataObject
) -> None:
    sent = stream_of(wire)
    flips = data.draw(
        st.lists(st.tuples(st.integers(0, len(sent) - 1), st.integers(1, 255)), min_size=1, max_size=4),
        label="bytes and the bits that are flipped in them",
    )

    asyncio.run(_survives(wire, [Corrupt(byte, xor) for byte, xor in flips]))


async def _survives(wire: Wire, flips: Sequence[Fault]) -> None:
    async with asyncio.timeout(DEADLINE), ModelServer() as server, adder(server, wire) as agent:
        server.answer(SHORT, *SLIM, *flips)
        server.answer(DONE, always=True)
        run = Runner.run_streamed(agent, "2 + 3?")
        events: Any = run.stream_events()
        seen = ""
        error: Any = None
        try:
            async for event in events:
                if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                    seen += event.data.delta
        except DOCUMENTED as failure:
            error = failure
        assert run.is_complete
        # What came last and is in no item is the end of what a reader saw.
        assert error is None or seen.endswith(error.run_data.partial_text)


# --- the page ---------------------------------------------------------------------------------


def row_of(case: Case) -> tuple[str, ...]:
    """What the page says of a case, but for the sentence on what the server does."""
    wires = "both" if len(case.wires) == 2 else {"responses": "Responses", "chat": "Chat"}[case.wires[0]]
    return case.name, wires, _words(case.streamed), _words(case.whole), case.retried


def _words(outcome: Any) -> str:
    if isinstance(outcome, Mapping):
        return f"{_words(outcome['responses'])}; Chat: {_words(outcome['chat'])}"
    if outcome is None:
        return "–"
    if isinstance(outcome, Told):
        return outcome.label
    return f"`{'openai.' * issubclass(outcome, openai.OpenAIError)}{outcome.__name__}`"


def test_the_page_has_each_case_in_a_row_and_each_row_has_its_case() -> None:
    lines = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    told = [(case, wire, *outcomes) for case, wire, does, *outcomes in rows if wire not in ("wire", "---")]

    assert told == [row_of(case) for case in CASES]
