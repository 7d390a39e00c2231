"""A model call that fails is tried again: what the log, the result and the server see of it."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterator
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx2
import openai
import pytest
from openai import AsyncOpenAI

from millstream import (
    Agent,
    Entry,
    LogFullError,
    MemoryLog,
    ModelProtocolError,
    ModelResponseError,
    ModelRetryAdvice,
    ModelSettings,
    OpenAIChatCompletionsModel,
    OpenAIResponsesModel,
    RunConfig,
    Runner,
    RunResultStreaming,
    retry_policies,
    tool,
)
from millstream.errors import UserError
from millstream.events import ModelCompleted, ModelRetried
from millstream.models.promise import Model
from millstream.testing import ManualClock, ModelStep, ScriptedModel, function_call
from millstream.testing.faults import CUT, RESET
from millstream.testing.model_server import ModelServer
from millstream.usage import Usage
from tests.support.frames import chat_frames, frame, response, text_frames

NOW = 1_800_000_000.0
STEADY = {"jitter": False}
AGAIN: Any = {"max_retries": 3, "backoff": STEADY}


def yes(_: object) -> bool:
    return True


def status(code: int) -> openai.APIStatusError:
    request = httpx2.Request("POST", "http://127.0.0.1/v1/responses")
    return openai.APIStatusError(f"secret {code}", response=httpx2.Response(code, request=request), body=None)


def agent(model: Model, retry: Any = AGAIN, **settings: Any) -> Agent[Any]:
    return Agent(name="A", model=model, model_settings=ModelSettings(retry=retry, **settings))


async def followed(run: RunResultStreaming, clock: ManualClock) -> list[Entry]:
    """All entries of a run. Whenever it waits for another try, the clock goes on by just as long."""
    entries: list[Entry] = []
    async for entry in run.entries():
        entries.append(entry)
        if isinstance(entry.event, ModelRetried):
            await clock.waiting()
            assert clock.due == ((entry.event.delay,) if entry.event.delay else ())
            clock.advance(entry.event.delay)
    return entries


async def run_with(
    model: Model, retry: Any = AGAIN, *, streamed: bool = True, **more: Any
) -> tuple[RunResultStreaming, list[Entry]]:
    clock = ManualClock(NOW)
    settings = more.pop("settings", {})
    config = RunConfig(clock=clock, **more.pop("config", {}))
    run = Runner.run_streamed(agent(model, retry, **settings), "Hi", run_config=config, **more)
    run._run.streamed = streamed  # a plain run whose log can be looked at while it is under way
    return run, await followed(run, clock)


def retried(entries: list[Entry]) -> list[tuple[int, str, float]]:
    events = [entry.event for entry in entries]
    return [(e.attempt, e.reason, e.delay) for e in events if isinstance(e, ModelRetried)]


def types(entries: list[Entry]) -> list[str]:
    return [e.type for e in entries]


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as server:
        yield server


def client(server: ModelServer) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="k", base_url=server.base_url)  # with retries of its own, as it comes


# --- before any output ------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_call_that_fails_is_tried_again_and_its_run_knows_nothing_of_it(streamed: bool) -> None:
    model = ScriptedModel([status(429), ConnectionResetError(), "It is fine."])

    run, entries = await run_with(model, streamed=streamed)

    assert run.final_output == "It is fine."
    assert retried(entries) == [(1, "model_unavailable (429)", 0.25), (2, "model_unavailable", 0.5)]
    assert [call.input for call in model.calls] == [[{"content": "Hi", "role": "user"}]] * 3
    assert types(entries).count("model.started") == types(entries).count("model.completed") == 1
    assert [item.type for item in run.new_items] == ["message_output_item"]


@pytest.mark.parametrize("streamed", [True, False])
async def test_the_last_failure_is_that_of_the_run(streamed: bool) -> None:
    model = ScriptedModel([status(500), status(502), status(503), status(504)])

    run, entries = await run_with(model, streamed=streamed)

    assert isinstance(run.run_loop_exception, openai.APIStatusError)
    assert run.run_loop_exception.status_code == 504
    assert [delay for _, _, delay in retried(entries)] == [0.25, 0.5, 1.0]
    assert types(entries)[-2:] == ["model.completed", "run.failed"]
    assert b"secret" not in b"".join(entry.to_json() for entry in entries)


@pytest.mark.parametrize("streamed", [True, False])
async def test_without_settings_nothing_is_tried_again(streamed: bool) -> None:
    model = ScriptedModel([status(500), "never"])

    run, entries = await run_with(model, None, streamed=streamed)

    assert isinstance(run.run_loop_exception, openai.APIStatusError)
    assert retried(entries) == []


async def test_a_plain_run_waits_by_its_clock_too() -> None:
    clock = ManualClock()
    model = ScriptedModel([status(500), "ok"])

    running = asyncio.create_task(Runner.run(agent(model), "Hi", run_config=RunConfig(clock=clock)))

    assert await clock.tick() == 0.25
    assert (await running).final_output == "ok"


async def test_tries_that_were_given_up_are_counted_in_the_usage() -> None:
    model = ScriptedModel(
        [status(500), ModelStep("ok", usage=Usage(1, 10, output_tokens=5, total_tokens=15))]
    )

    run, entries = await run_with(model)

    (ended,) = [e.event for e in entries if isinstance(e.event, ModelCompleted)]
    assert run.context_wrapper.usage.requests == 2
    assert (ended.usage["requests"], ended.usage["total_tokens"]) == (2, 15)
    assert [r.usage.requests for r in run.raw_responses] == [1]


async def test_a_failure_in_a_later_turn_does_not_run_the_tools_again() -> None:
    ran: list[str] = []

    @tool
    def look() -> str:
        ran.append("look")
        return "seen"

    model = ScriptedModel([[function_call("look", call_id="c1")], status(500), "done"])
    clock = ManualClock()
    run = Runner.run_streamed(agent(model).clone(tools=[look]), "Hi", run_config=RunConfig(clock=clock))
    entries = await followed(run, clock)

    assert (ran, run.final_output, len(retried(entries))) == (["look"], "done", 1)
    assert model.calls[1].input == model.calls[2].input


async def test_streamed_and_plain_come_to_the_same_by_the_same_tries() -> None:
    told: list[Any] = []
    for streamed in (True, False):
        model = ScriptedModel([status(500), status(429), "ok"])
        run, entries = await run_with(model, streamed=streamed)
        told.append(
            (
                [t for t in types(entries) if t != "raw_response_event"],
                retried(entries),
                run.to_input_list(),
                run.context_wrapper.usage.requests,
            )
        )

    assert told[0] == told[1]


# --- what readers have seen -------------------------------------------------------------------

PREAMBLE = 2  # response.created, response.in_progress


@pytest.mark.parametrize("seen", range(PREAMBLE + 1))
async def test_that_an_answer_is_under_way_is_no_output_yet(seen: int) -> None:
    model = ScriptedModel([ModelStep("lost", fail_after=seen), "ok"])

    run, entries = await run_with(model)

    assert run.final_output == "ok"
    assert len(retried(entries)) == 1


@pytest.mark.parametrize("seen", range(PREAMBLE + 1, 10))
async def test_what_readers_have_seen_is_not_told_again(seen: int) -> None:
    model = ScriptedModel([ModelStep("one two", fail_after=seen), "ok"])

    run, entries = await run_with(model, {**AGAIN, "policy": yes})

    assert isinstance(run.run_loop_exception, ConnectionResetError)
    assert retried(entries) == []


async def test_a_policy_may_ask_for_it_and_what_was_said_is_superseded() -> None:
    lost = ModelStep(["It is", function_call("look", call_id="lost")], fail_after=12)
    model = ScriptedModel([lost, "It is fine."])
    clock = ManualClock()
    policy = retry_policies.even_after_output(retry_policies.network_error())
    run = Runner.run_streamed(
        agent(model, {**AGAIN, "policy": policy}), "Hi", run_config=RunConfig(clock=clock)
    )
    stream = run.stream_events()
    reading = asyncio.create_task(_all(stream))
    entries = await followed(run, clock)
    events = await reading

    assert run.final_output == "It is fine."
    assert [item.type for item in run.new_items] == ["message_output_item"]
    assert len(run.to_input_list()) == 2
    assert len(run.raw_responses) == 1
    # The log has it all, and says what is void:
    items = [e.type for e in entries if e.type in ("run_item_stream_event", "model.retried")]
    assert items == ["run_item_stream_event", "model.retried", "run_item_stream_event"]
    # The stream has the items of the answer that counts, and begins it anew:
    assert [e.name for e in events if e.type == "run_item_stream_event"] == ["message_output_created"]
    created = [e for e in events if e.type == "raw_response_event" and e.data.type == "response.created"]
    assert len(created) == 2


async def test_what_a_try_that_was_given_up_had_said_is_not_kept_by_a_failure_after_it() -> None:
    policy = retry_policies.even_after_output(yes)
    model = ScriptedModel([ModelStep("one two", fail_after=5), ModelStep("three four", fail_after=5)])

    run, _ = await run_with(model, {"max_retries": 1, "backoff": STEADY, "policy": policy})

    error = run.run_loop_exception
    assert isinstance(error, ConnectionResetError)
    assert error.run_data.partial_text == "three"  # type: ignore[attr-defined]
    assert [item.type for item in run.new_items] == ["message_output_item"]


async def test_an_answer_that_is_whole_is_not_asked_for_again_whatever_breaks_behind_it() -> None:
    async def breaks_at_its_end(_: Any) -> AsyncGenerator[Any]:
        async for event in ScriptedModel(["whole"]).stream_response(None, "Hi", *_REST, **_STATE):
            yield event
        raise ConnectionResetError

    model = ScriptedModel([ModelStep.stream(breaks_at_its_end), "never"])
    run, entries = await run_with(model, {**AGAIN, "policy": retry_policies.even_after_output(yes)})

    assert retried(entries) == []
    assert len(run.raw_responses) == 1


_REST: Any = (ModelSettings(), [], None, [], None)
_STATE: Any = {"previous_response_id": None, "conversation_id": None, "prompt": None}


async def _all(stream: Any) -> list[Any]:
    return [event async for event in stream]


# --- stopping ---------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["now", "after_tool", "after_turn"])
@pytest.mark.parametrize("seen", [0, 5])
async def test_a_cancel_during_a_back_off_stops_at_once_and_keeps_nothing(mode: Any, seen: int) -> None:
    policy = retry_policies.even_after_output(yes)
    model = ScriptedModel([ModelStep("one two", fail_after=seen), "never"])
    clock = ManualClock()
    run = Runner.run_streamed(
        agent(model, {**AGAIN, "policy": policy}), "Hi", run_config=RunConfig(clock=clock)
    )
    async for entry in run.entries():
        if isinstance(entry.event, ModelRetried):
            await clock.waiting()
            run.cancel(mode)
    await run.aclose()

    assert run.is_cancelled
    assert (run.new_items, len(model.calls), clock.due) == ([], 1, ())
    (ended,) = [e.event async for e in run.entries() if isinstance(e.event, ModelCompleted)]
    assert (ended.status, ended.usage["requests"]) == ("cancelled", 1)


async def test_a_log_that_takes_no_more_is_no_failure_of_the_model() -> None:
    model = ScriptedModel(["word " * 500, "never"])

    run, entries = await run_with(
        model,
        {**AGAIN, "policy": retry_policies.even_after_output(yes)},
        config={"log": MemoryLog(max_events=50)},
    )

    assert isinstance(run.run_loop_exception, LogFullError)
    assert retried(entries) == []
    assert len(model.calls) == 1


@pytest.mark.parametrize(
    ("policy", "error"), [(lambda _: "yes", UserError), (lambda _: 1 / 0, ZeroDivisionError)]
)
async def test_a_policy_that_fails_ends_the_run_and_the_models_failure_is_behind_it(
    policy: Any, error: type[Exception]
) -> None:
    model = ScriptedModel([status(500), "never"])

    run, _ = await run_with(model, {**AGAIN, "policy": policy})

    assert isinstance(run.run_loop_exception, error)
    assert isinstance(run.run_loop_exception.__context__, openai.APIStatusError)


async def test_a_script_that_is_too_short_is_told_at_once() -> None:
    run, entries = await run_with(ScriptedModel(), {**AGAIN, "policy": yes})

    assert isinstance(run.run_loop_exception, UserError)
    assert retried(entries) == []


# --- state on the server ----------------------------------------------------------------------


@pytest.mark.parametrize("state", [{"previous_response_id": "r"}, {"conversation_id": "c"}])
@pytest.mark.parametrize(("safety", "again"), [(None, 0), ("unsafe", 0), ("safe", 1)])
async def test_a_server_that_keeps_the_history_is_asked_again_only_where_that_is_safe(
    state: Any, safety: str | None, again: int
) -> None:
    advice = ModelRetryAdvice(suggested=True, replay_safety=safety)
    model = ScriptedModel([ModelStep(error=status(500), retry_advice=advice), "ok"])

    run, entries = await run_with(model, **state)

    assert len(retried(entries)) == again
    assert (run.final_output == "ok") is bool(again)


async def test_advice_of_a_step_is_asked_for_its_own_failure_and_no_other() -> None:
    advised = ModelStep.raise_error(ValueError("busy"), retry_advice=ModelRetryAdvice(True, 7.0))
    model = ScriptedModel([advised, ValueError("a bug")])

    run, entries = await run_with(model)

    assert retried(entries) == [(1, "internal", 7.0)]
    assert str(run.run_loop_exception) == "a bug"


# --- a real server ----------------------------------------------------------------------------


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("made", [OpenAIResponsesModel, OpenAIChatCompletionsModel])
async def test_the_clients_own_retries_are_off_so_that_tries_do_not_multiply(
    server: ModelServer, made: Any, streamed: bool
) -> None:
    server.send(b"{}", status=500, always=True)

    run, entries = await run_with(made("m", client(server)), streamed=streamed)

    assert isinstance(run.run_loop_exception, openai.InternalServerError)
    assert len(retried(entries)) == 3
    assert [r.headers["x-stainless-retry-count"] for r in server.requests] == ["0"] * 4


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({}, 0.25),
        ({"retry-after": "7"}, 7),
        ({"retry-after-ms": "1500"}, 1.5),
        ({"retry-after": format_datetime(datetime.fromtimestamp(NOW + 30, UTC), usegmt=True)}, 30),
    ],
    ids=["nothing", "seconds", "milliseconds", "date"],
)
@pytest.mark.parametrize("code", [429, 500])
async def test_the_server_says_how_long_to_wait(
    server: ModelServer, code: int, headers: dict[str, str], delay: float
) -> None:
    server.send(b"{}", status=code, headers=headers)
    server.answer("ok")

    run, entries = await run_with(OpenAIResponsesModel("m", client(server)))

    assert retried(entries) == [(1, f"model_unavailable ({code})", delay)]
    assert run.final_output == "ok"


@pytest.mark.parametrize("code", [400, 401, 404])
async def test_a_request_that_is_refused_is_not_sent_again(server: ModelServer, code: int) -> None:
    server.send(b"{}", status=code)

    run, _ = await run_with(OpenAIResponsesModel("m", client(server)))

    assert isinstance(run.run_loop_exception, openai.APIStatusError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("state", [{"previous_response_id": "r"}, {"conversation_id": "c"}])
async def test_with_state_on_the_server_a_status_is_tried_again_and_a_broken_line_is_not(
    server: ModelServer, state: Any
) -> None:
    server.send(b"{}", status=503)
    server.send(RESET)

    run, entries = await run_with(OpenAIResponsesModel("m", client(server)), **state)

    assert retried(entries) == [(1, "model_unavailable (503)", 0.25)]
    assert isinstance(run.run_loop_exception, ModelProtocolError | openai.APIConnectionError)


RESPONSES = text_frames("one two three")
CHAT = chat_frames("one two three")


@pytest.mark.parametrize("end", [CUT, RESET], ids=["cut", "reset"])
@pytest.mark.parametrize(
    ("made", "frames", "before"),
    [(OpenAIResponsesModel, RESPONSES, 2), (OpenAIChatCompletionsModel, CHAT, 0)],
    ids=["responses", "chat"],
)
async def test_a_line_that_breaks_is_tried_again_before_the_first_token_and_not_after(
    server: ModelServer, made: Any, frames: list[bytes], before: int, end: Any
) -> None:
    for count, again in ((0, True), (before, True), (before + 4, False)):
        server.send(*frames[:count], end)
        if again:
            server.send(*frames)

        run, entries = await run_with(made("m", client(server)))

        assert bool(retried(entries)) is again, count
        if again:
            assert run.final_output == "one two three"
        else:
            assert isinstance(run.run_loop_exception, ModelProtocolError)
            assert run.run_loop_exception.cut_off


@pytest.mark.parametrize("end", [CUT, RESET, None], ids=["cut", "reset", "closed"])
async def test_a_policy_may_ask_for_an_answer_anew_that_broke_in_the_middle(
    server: ModelServer, end: Any
) -> None:
    server.send(*RESPONSES[:6], *([end] if end else []))
    server.send(*RESPONSES)
    policy = retry_policies.even_after_output(retry_policies.network_error())

    run, entries = await run_with(OpenAIResponsesModel("m", client(server)), {**AGAIN, "policy": policy})

    assert retried(entries) == [(1, "model_protocol", 0.25)]
    assert run.final_output == "one two three"
    assert len(run.new_items) == 1


@pytest.mark.parametrize("streamed", [True, False])
async def test_a_whole_answer_on_a_line_that_breaks_is_asked_for_again(
    server: ModelServer, streamed: bool
) -> None:
    server.send(RESET, headers={"content-type": "application/json"})
    server.answer("ok")

    run, entries = await run_with(OpenAIResponsesModel("m", client(server)), streamed=streamed)

    assert len(retried(entries)) == 1
    assert run.final_output == "ok"


async def test_a_failure_that_the_server_reports_before_any_output_is_tried_again(
    server: ModelServer,
) -> None:
    usage = {"input_tokens": 3, "output_tokens": 0, "total_tokens": 3}
    failed = response(status="failed", error={"code": "server_error", "message": "secret"}, usage=usage)
    server.send(RESPONSES[0], frame("response.failed", response=failed))
    server.send(*RESPONSES)

    run, entries = await run_with(OpenAIResponsesModel("m", client(server)))

    assert retried(entries) == [(1, "model_failed", 0.25)]
    assert run.final_output == "one two three"
    assert run.context_wrapper.usage.total_tokens == 3 + 8


async def test_a_failure_that_another_try_would_meet_again_is_not_tried_again(server: ModelServer) -> None:
    failed = response(status="failed", error={"code": "invalid_prompt", "message": "no"})
    server.send(RESPONSES[0], frame("response.failed", response=failed))

    run, entries = await run_with(OpenAIResponsesModel("m", client(server)))

    assert isinstance(run.run_loop_exception, ModelResponseError)
    assert retried(entries) == []


@pytest.mark.parametrize("streamed", [True, False])
async def test_each_try_has_the_whole_time_limit(server: ModelServer, streamed: bool) -> None:
    held = server.hold()
    server.answer("ok")
    clock = ManualClock()
    model = OpenAIResponsesModel("m", client(server), idle_timeout=None)
    run = Runner.run_streamed(agent(model, timeout=5), "Hi", run_config=RunConfig(clock=clock))
    run._run.streamed = streamed
    following = asyncio.create_task(followed(run, clock))
    await asyncio.wrap_future(held)
    clock.advance(5)
    entries = await following

    assert retried(entries) == [(1, "model_timeout", 0.25)]
    assert run.final_output == "ok"


async def test_why_a_model_was_asked_again_is_in_the_programs_log_with_the_run(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.INFO, "millstream"):
        run, _ = await run_with(ScriptedModel([status(500), "ok"]))

    (record,) = [r for r in caplog.records if "asked again" in r.getMessage()]
    assert run.run_id in record.getMessage()
    assert record.exc_info is not None
