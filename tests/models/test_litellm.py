"""The real LiteLLM against servers on this machine, each speaking as its vendor does."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from millstream import Agent, ModelRetrySettings, ModelSettings, RunConfig, Runner, function_tool
from millstream.errors import (
    InputItemError,
    ModelProtocolError,
    ModelTimeoutError,
    NotSupportedError,
    UnknownModelError,
)
from millstream.models.litellm import LitellmModel, LitellmProvider
from millstream.models.provider import MultiProvider
from millstream.testing import ManualClock
from millstream.testing.faults import CUT, HANG, Gate
from millstream.testing.model_server import ModelServer
from tests.models.conftest import batches, streamed, types_into, whole
from tests.support import anthropic_frames as anthropic
from tests.support.frames import CHAT_DONE, CHAT_USAGE, chat_frames, chunk

pytestmark = [
    # LiteLLM looks for certificates where it makes a client: on the loop.
    pytest.mark.may_block,
    pytest.mark.usefixtures("litellm_ends"),
    pytest.mark.filterwarnings("ignore:Accessing the 'model_:DeprecationWarning:litellm"),
]


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


class Verdict(BaseModel):
    guilty: bool


def openai_model(server: ModelServer, **given: Any) -> LitellmModel:
    return LitellmModel("openai/m", base_url=server.base_url, api_key="k", **given)


def claude(server: ModelServer) -> LitellmModel:
    return LitellmModel(
        "anthropic/claude-sonnet-4-5", base_url=f"http://127.0.0.1:{server.port}", api_key="k"
    )


def completion(**message: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    about = {"id": "c1", "object": "chat.completion", "created": 1, "model": "m"}
    return {**about, "choices": [choice], "usage": CHAT_USAGE}


async def test_a_stream_is_events_of_the_responses_api(server: ModelServer) -> None:
    server.send(*chat_frames("Hello big world"))

    events = await streamed(openai_model(server), instructions="Be brief.")

    assert [e.delta for e in events if e.type == "response.output_text.delta"] == ["Hello", " big", " world"]
    assert events[-1].type == "response.completed"
    assert events[-1].response.usage.total_tokens == 8
    assert events[-1].response.usage.output_tokens_details.reasoning_tokens == 2
    assert server.last.json["messages"][0] == {"role": "system", "content": "Be brief."}
    assert server.last.json["stream_options"] == {"include_usage": True}
    assert server.last.headers["authorization"] == "Bearer k"


async def test_a_whole_answer_has_the_items_of_a_stream(server: ModelServer) -> None:
    server.send_json(completion(content="Hi", reasoning_content="Hm."))

    response = await whole(openai_model(server), settings=ModelSettings(preserve_raw_usage=True))

    thought, said = response.output
    assert (thought.type, thought.summary[0].text) == ("reasoning", "Hm.")
    assert (said.type, said.content[0].text) == ("message", "Hi")
    assert response.usage.total_tokens == 8
    assert response.raw_usage["total_tokens"] == 8


@pytest.mark.parametrize("stream", [True, False])
async def test_a_run_calls_tools_and_goes_on(server: ModelServer, stream: bool) -> None:
    if stream:
        call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": ""}}
        server.send(
            chunk({"role": "assistant", "tool_calls": [call]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '{"a": 1, '}}]}),
            chunk({"tool_calls": [{"index": 0, "function": {"arguments": '"b": 2}'}}]}),
            chunk({}, finish="tool_calls"),
            CHAT_DONE,
        )
        server.send(*chat_frames("It is 3."))
    else:
        function = {"name": "add", "arguments": '{"a": 1, "b": 2}'}
        server.send_json(completion(tool_calls=[{"id": "call_1", "type": "function", "function": function}]))
        server.send_json(completion(content="It is 3."))
    agent = Agent(name="A", model=openai_model(server), tools=[add])

    result = await (Runner.run_streamed(agent, "1 + 2?") if stream else Runner.run(agent, "1 + 2?"))

    assert result.final_output == "It is 3."
    assert server.last.json["messages"][-1] == {"role": "tool", "tool_call_id": "call_1", "content": "3"}


async def test_claude_is_asked_in_its_own_words_and_gets_its_signed_thought_back(server: ModelServer) -> None:
    server.send(
        anthropic.started(),
        *anthropic.thinking(0, "I should add.", "c2lnbmVk"),
        *anthropic.text(1, "Let me ", "see."),
        *anthropic.tool_use(2, "toolu_1", "add", '{"a": 1,', ' "b": 2}'),
        *anthropic.stopped("tool_use"),
    )
    server.send(anthropic.started(), *anthropic.text(0, "It is ", "3."), *anthropic.stopped())
    agent = Agent(
        name="A",
        model=claude(server),
        tools=[add],
        model_settings=ModelSettings(reasoning={"effort": "low"}, max_tokens=4000),  # type: ignore[arg-type]
    )

    run = Runner.run_streamed(agent, "1 + 2?")
    kinds = [entry.event.type async for entry in run.entries()]
    result = await run

    assert result.final_output == "It is 3."
    assert "raw_response_event" in kinds
    first, second = (request.json for request in server.requests)
    assert server.last.path == "/v1/messages"
    assert first["thinking"]["type"] == "enabled"
    assert first["tools"][0]["name"] == "add"
    answer, outputs = second["messages"][1:]
    assert answer["content"][0] == {"type": "thinking", "thinking": "I should add.", "signature": "c2lnbmVk"}
    assert [part["type"] for part in answer["content"]] == ["thinking", "text", "tool_use"]
    assert outputs["content"][0]["tool_use_id"] == "toolu_1"
    assert result.context_wrapper.usage.input_tokens == 6
    assert not result.context_wrapper.usage.estimated


async def test_ollama_answers_in_lines_of_json(server: ModelServer) -> None:
    said: list[dict[str, Any]] = [
        {"message": {"role": "assistant", "content": "It is "}, "done": False},
        {"message": {"role": "assistant", "content": "cold."}, "done": False},
        {
            "message": {"role": "assistant", "content": ""},
            "done": True,
            "done_reason": "stop",
            "prompt_eval_count": 3,
            "eval_count": 5,
        },
    ]
    lines = [json.dumps({"model": "m", "created_at": "2026-01-01T00:00:00Z", **one}) + "\n" for one in said]
    server.send(*(line.encode() for line in lines), headers={"content-type": "application/x-ndjson"})
    model = LitellmModel("ollama_chat/m", base_url=f"http://127.0.0.1:{server.port}")

    events = await streamed(model)

    assert server.last.path == "/api/chat"
    assert events[-1].response.output[0].content[0].text == "It is cold."
    assert events[-1].response.usage.total_tokens == 8


async def test_an_image_and_an_output_type_are_told(server: ModelServer) -> None:
    server.send(*chat_frames('{"guilty": true}'))
    image = {"type": "input_image", "image_url": "data:image/png;base64,AAAA"}
    agent = Agent(name="Judge", model=openai_model(server), output_type=Verdict)

    result = await Runner.run_streamed(agent, [{"role": "user", "content": [image]}])  # type: ignore[list-item]

    assert result.final_output == Verdict(guilty=True)
    assert server.last.json["response_format"]["json_schema"]["schema"] == Verdict.model_json_schema() | {
        "additionalProperties": False
    }
    assert server.last.json["messages"][0]["content"][0]["image_url"]["url"] == image["image_url"]


async def test_settings_reach_the_vendor(server: ModelServer) -> None:
    server.send(*chat_frames("x"))
    settings = ModelSettings(
        temperature=0.5, extra_headers={"X-Team": "mill"}, extra_args={"seed": 7}, include_usage=False
    )

    await streamed(openai_model(server), settings=settings)

    assert (server.last.json["temperature"], server.last.json["seed"]) == (0.5, 7)
    assert server.last.headers["x-team"] == "mill"
    assert "stream_options" not in server.last.json


@pytest.mark.parametrize("stream", [True, False])
async def test_usage_that_litellm_made_up_is_not_taken_for_the_servers(
    server: ModelServer, stream: bool
) -> None:
    if stream:
        server.send(chunk({"content": "twelve chars"}), chunk({}, finish="stop"), CHAT_DONE)
    else:
        server.send_json({**completion(content="twelve chars"), "usage": None})
    agent = Agent(name="A", model=openai_model(server))

    result = await (Runner.run_streamed(agent, "hi") if stream else Runner.run(agent, "hi"))

    assert result.context_wrapper.usage.estimated
    assert result.context_wrapper.usage.output_tokens == 3


# --- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (401, openai.AuthenticationError),
        (404, openai.NotFoundError),
        (429, openai.RateLimitError),
        (500, openai.InternalServerError),
    ],
)
async def test_a_refusal_is_openais_error_for_that_status(
    server: ModelServer, status: int, error: type[openai.APIStatusError]
) -> None:
    server.send_json({"error": {"message": "no"}}, status=status)

    with pytest.raises(error) as raised:
        await streamed(openai_model(server), settings=ModelSettings(extra_args={"num_retries": 0}))

    assert raised.value.status_code == status


@pytest.mark.parametrize("vendor", [openai_model, claude])
@pytest.mark.parametrize("end", [(), (CUT,)], ids=["ended", "cut"])
async def test_an_answer_that_stops_in_the_middle_is_never_taken_for_a_whole_one(
    server: ModelServer, vendor: Any, end: Any
) -> None:
    begun = [chunk({"content": "It is"})]
    if vendor is claude:
        begun = [anthropic.started(), *anthropic.text(0, "It is")]
    server.send(*begun, *end)
    types: list[str] = []

    with pytest.raises(ModelProtocolError):
        await types_into(types, batches(vendor(server)))

    assert "response.output_text.delta" in types
    assert "response.completed" not in types


async def test_a_failure_in_the_stream_is_told(server: ModelServer) -> None:
    server.send(chunk({"content": "x"}), b'data: {"error":{"message":"overloaded","code":"c"}}\n\n')

    with pytest.raises(ModelProtocolError, match="overloaded"):
        await streamed(openai_model(server))


async def test_half_a_surrogate_pair_does_not_break_the_stream(server: ModelServer) -> None:
    server.send(chunk({"content": "\ud83d x"}), chunk({}, finish="stop"), CHAT_DONE)

    events = await streamed(openai_model(server))

    assert events[-1].response.output[0].content[0].text == "\ufffd x"


@pytest.mark.parametrize(
    "settings",
    [ModelSettings(retry=ModelRetrySettings()), ModelSettings(extra_args={"num_retries": 0})],
    ids=["retry", "num_retries"],
)
async def test_litellm_does_not_try_again_where_somebody_else_decides(
    server: ModelServer, settings: ModelSettings
) -> None:
    server.send(b'{"error": {"message": "no"}}', status=429, always=True)

    with pytest.raises(openai.RateLimitError):
        await streamed(openai_model(server), settings=settings)

    assert len(server.requests) == 1


async def test_silence_ends_a_stream(server: ModelServer) -> None:
    server.send(chunk({"content": "x"}), HANG)

    with ManualClock() as clock:
        reading = asyncio.create_task(streamed(openai_model(server, idle_timeout=20)))
        await clock.tick()

    with pytest.raises(ModelTimeoutError) as raised:
        await reading

    assert raised.value.idle
    await server.last.client_gone()


async def test_a_call_may_not_take_longer_than_it_may(server: ModelServer) -> None:
    held = server.hold()

    with ManualClock() as clock:
        asking = asyncio.create_task(whole(openai_model(server), settings=ModelSettings(timeout=5)))
        request = await asyncio.wrap_future(held)
        await clock.tick()

    with pytest.raises(ModelTimeoutError) as raised:
        await asking

    assert not raised.value.idle
    await request.client_gone()


@pytest.mark.parametrize("vendor", [openai_model, claude])
async def test_closing_the_stream_closes_the_connection(server: ModelServer, vendor: Any) -> None:
    begun = [chunk({"content": "It is"})]
    if vendor is claude:
        begun = [anthropic.started(), *anthropic.text(0, "It is")]
    server.send(*begun, Gate())
    stream = batches(vendor(server))
    await anext(stream)

    await stream.aclose()

    await server.last.client_gone()


async def test_a_run_that_is_cancelled_closes_the_connection(server: ModelServer) -> None:
    server.send(chunk({"content": "It is"}), Gate())
    run = Runner.run_streamed(Agent(name="A", model=openai_model(server)), "hi")
    await anext(aiter(run.text()))

    run.cancel()

    await server.last.client_gone()


async def test_a_name_without_a_vendor_is_told_where_one_belongs() -> None:
    with pytest.raises(UnknownModelError, match="litellm/openai/parrot"):
        await streamed(LitellmModel("parrot"))


async def test_what_chat_completions_has_no_words_for_is_refused(server: ModelServer) -> None:
    with pytest.raises(NotSupportedError, match="conversation_id"):
        await streamed(openai_model(server), conversation_id="conv_1")
    with pytest.raises(InputItemError, match="item 0"):
        await whole(openai_model(server), [{"type": "computer_call"}])


# --- names --------------------------------------------------------------------------------------


def test_names_with_the_prefix_are_litellms() -> None:
    model = MultiProvider().get_model("litellm/anthropic/claude-sonnet-4-5")

    assert isinstance(model, LitellmModel)
    assert model.model == "anthropic/claude-sonnet-4-5"


async def test_a_run_finds_a_server_by_litellms_own_variables(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "from-the-environment")
    monkeypatch.setenv("ANTHROPIC_API_BASE", f"http://127.0.0.1:{server.port}")
    server.send(anthropic.started(), *anthropic.text(0, "Hello."), *anthropic.stopped())

    run = Runner.run_streamed(Agent(name="A", model="litellm/anthropic/claude-sonnet-4-5"), "hi")

    assert (await run).final_output == "Hello."
    assert server.last.headers["x-api-key"] == "from-the-environment"


async def test_a_provider_serves_all_names(server: ModelServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    monkeypatch.setenv("OPENAI_BASE_URL", server.base_url)
    server.send(*chat_frames("Hello."))
    config = RunConfig(model_provider=LitellmProvider())

    run = Runner.run_streamed(Agent(name="A", model="openai/m"), "hi", run_config=config)

    assert (await run).final_output == "Hello."
    with pytest.raises(UnknownModelError):
        LitellmProvider().get_model(" ")


ALONE = """
import asyncio, os, sys, warnings
warnings.simplefilter("error")
from millstream import Agent, Runner
from millstream.extensions.models.litellm_model import LitellmModel
assert "litellm" not in sys.modules
model = LitellmModel("openai/m", base_url=sys.argv[1], api_key="k")
assert "litellm" not in sys.modules
print(asyncio.run(Runner.run(Agent(name="A", model=model), "hi")).final_output)
assert "LITELLM_LOCAL_MODEL_COST_MAP" not in os.environ
"""


@pytest.mark.slow
def test_litellm_is_imported_by_the_first_call_and_says_nothing(server: ModelServer) -> None:
    server.send_json(completion(content="It is cold."))

    done = subprocess.run(
        [sys.executable, "-c", ALONE, server.base_url],
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )

    assert (done.stdout, done.stderr) == ("It is cold.\n", "")


WITHOUT = """
import sys
sys.modules["litellm"] = None
from millstream import Agent, MissingExtraError, Runner
try:
    Runner.run_sync(Agent(name="A", model="litellm/openai/m"), "hi")
except MissingExtraError as error:
    print(error)
try:
    import millstream.extensions.models.litellm_model
except ImportError as error:
    print(error)
"""


@pytest.mark.slow
def test_without_the_extra_the_command_that_installs_it_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=False, timeout=50
    )

    told = 'needs an extra that is not installed: pip install "millstream[litellm]"\n'
    assert (
        done.stdout == f"The model 'litellm/openai/m' {told}millstream.extensions.models.litellm_model {told}"
    )
    assert done.stderr == ""


async def test_litellm_does_not_try_again_where_the_run_does() -> None:
    async with ModelServer() as server:
        server.send(b"{}", status=500, always=True)
        settings = ModelSettings(retry={"max_retries": 1, "backoff": {"initial_delay": 0, "jitter": False}})  # type: ignore[arg-type]
        agent = Agent(name="A", model=openai_model(server), model_settings=settings)

        with pytest.raises(openai.APIStatusError):
            await Runner.run(agent, "hi")

        assert len(server.requests) == 2
