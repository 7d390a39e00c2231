"""Chat Completions over a real connection: requests, ends and errors. The events are in test_chat_stream."""

from typing import Any, cast

import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseFunctionToolCall
from openai.types.shared import Reasoning
from pydantic import BaseModel

from millstream import Agent, AgentOutputSchema, ModelSettings, WebSearchTool, function_tool, handoff
from millstream.config import MCPToolChoice
from millstream.errors import (
    InputItemError,
    ModelProtocolError,
    ModelResponseError,
    NotSupportedError,
    UserError,
)
from millstream.models.openai_chat import OpenAIChatCompletionsModel
from millstream.testing.faults import HANG
from millstream.testing.model_server import ModelServer
from tests.models.conftest import asked, batches, streamed, types_into, whole
from tests.support.frames import CHAT_DONE, CHAT_USAGE, chat_frames, chunk


class Verdict(BaseModel):
    guilty: bool


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add two numbers.",
        "parameters": add.params_json_schema,
        "strict": True,
    },
}
HI = [{"role": "user", "content": "hi"}]


def completion(**message: Any) -> dict[str, Any]:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}
    return {
        "id": "c1",
        "object": "chat.completion",
        "created": 1,
        "model": "m",
        "choices": [choice],
        "usage": CHAT_USAGE,
    }


@pytest.fixture
def model(server: ModelServer) -> OpenAIChatCompletionsModel:
    return OpenAIChatCompletionsModel("m", AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0))


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({}, {}),
        ({"instructions": "be"}, {"messages": [{"role": "system", "content": "be"}, *HI]}),
        ({"tools": [add]}, {"tools": [ADD]}),
        ({"output_schema": AgentOutputSchema(str)}, {}),
        (
            {"output_schema": AgentOutputSchema(Verdict)},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {
                        "name": "final_output",
                        "strict": True,
                        "schema": AgentOutputSchema(Verdict).json_schema(),
                    },
                }
            },
        ),
        ({"settings": ModelSettings(tool_choice="required")}, {"tool_choice": "required"}),
        (
            {"settings": ModelSettings(tool_choice="add")},
            {"tool_choice": {"type": "function", "function": {"name": "add"}}},
        ),
        (
            {
                "settings": ModelSettings(
                    temperature=0.1, top_p=0.2, frequency_penalty=0.3, presence_penalty=0.4, max_tokens=9
                )
            },
            {
                "temperature": 0.1,
                "top_p": 0.2,
                "frequency_penalty": 0.3,
                "presence_penalty": 0.4,
                "max_tokens": 9,
            },
        ),
        (
            {"settings": ModelSettings(reasoning=Reasoning(effort="low"), verbosity="low", top_logprobs=2)},
            {"reasoning_effort": "low", "verbosity": "low", "logprobs": True, "top_logprobs": 2},
        ),
        (
            {
                "settings": ModelSettings(
                    store=False, metadata={"a": "b"}, extra_args={"user": "u"}, extra_body={"eb": 1}
                )
            },
            {"store": False, "metadata": {"a": "b"}, "user": "u", "eb": 1},
        ),
        ({"settings": ModelSettings(parallel_tool_calls=True, truncation="auto")}, {}),
        (
            {"settings": ModelSettings(parallel_tool_calls=True), "tools": [add]},
            {"parallel_tool_calls": True, "tools": [ADD]},
        ),
    ],
)
async def test_a_call_becomes_a_request(
    server: ModelServer, model: OpenAIChatCompletionsModel, given: dict[str, Any], body: dict[str, Any]
) -> None:
    server.send_json(completion(content="x"))

    await whole(model, **given)

    assert server.last.path == "/v1/chat/completions"
    assert server.last.json == {"model": "m", "messages": HI, **body}


async def test_handoffs_are_tools(server: ModelServer, model: OpenAIChatCompletionsModel) -> None:
    server.send_json(completion(content="x"))

    await whole(model, handoffs=[handoff(Agent(name="Other"))])

    assert server.last.json["tools"][0]["function"]["name"] == "transfer_to_other"


@pytest.mark.parametrize(
    ("host", "include", "options"),
    [
        (None, None, {"include_usage": True}),
        (None, True, {"include_usage": True}),
        (None, False, None),
        ("api.mistral.ai", None, None),
        ("api.mistral.ai", True, {"include_usage": True}),
    ],
)
async def test_usage_is_asked_for_where_the_server_lets_one(
    server: ModelServer, host: str | None, include: bool | None, options: dict[str, bool] | None
) -> None:
    client = AsyncOpenAI(api_key="k", base_url=f"http://{host}/v1" if host else server.base_url)
    model = OpenAIChatCompletionsModel("m", client)

    request = model._request(None, "hi", ModelSettings(include_usage=include), [], None, [], stream=True)

    assert request.body.get("stream_options") == options
    assert request.body["stream"] is True


async def test_an_answer_streams_as_events_of_the_responses_api(
    server: ModelServer, model: OpenAIChatCompletionsModel
) -> None:
    server.send(*chat_frames("Hello big world"), headers={"x-request-id": "req_1"})

    events = await streamed(model)

    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "Hello big world"
    last = events[-1].response
    assert last.output[0].content[0].text == "Hello big world"
    assert last._request_id == "req_1"
    assert (last.usage.input_tokens, last.usage.output_tokens_details.reasoning_tokens) == (3, 2)


async def test_a_stream_survives_being_cut_at_every_byte(
    server: ModelServer, model: OpenAIChatCompletionsModel
) -> None:
    stream = b"".join(chat_frames("Hé 😀"))
    server.send(*(stream[i : i + 1] for i in range(len(stream))))

    last = (await streamed(model))[-1]

    assert last.response.output[0].content[0].text == "Hé 😀"


async def test_a_whole_answer_and_a_streamed_one_say_the_same(
    server: ModelServer, model: OpenAIChatCompletionsModel
) -> None:
    called = [{"id": "x", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}]
    server.send_json(completion(content="see", tool_calls=called), headers={"x-request-id": "req_1"})
    server.send(
        chunk({"content": "see"}),
        chunk({"tool_calls": [{"index": 0, **called[0]}]}, finish="tool_calls"),
        chunk(usage=CHAT_USAGE),
        CHAT_DONE,
    )

    answer = await whole(model, settings=ModelSettings(preserve_raw_usage=True))
    last = (await streamed(model))[-1].response

    assert isinstance(answer.output[1], ResponseFunctionToolCall)
    assert [i.model_dump(exclude={"id", "provider_data"}) for i in answer.output] == [
        i.model_dump(exclude={"id", "provider_data"}) for i in last.output
    ]
    assert answer.usage.total_tokens == last.usage.total_tokens == 8
    assert answer.request_id == "req_1"
    assert answer.response_id == "c1"
    assert answer.raw_usage == CHAT_USAGE


@pytest.mark.parametrize(
    "frames",
    [
        pytest.param([chunk({"content": "x"}, finish="stop"), CHAT_DONE], id="no usage"),
        pytest.param([chunk({"content": "x"}, finish="stop")], id="no [DONE]"),
        pytest.param([chunk({"content": "x"}), CHAT_DONE], id="no finish_reason"),
        pytest.param([chunk({"content": "x"}, finish="stop"), CHAT_DONE, HANG], id="left open after [DONE]"),
        pytest.param(
            [b": ping\n\n", chunk({"content": "x"}, finish="stop"), b": ping\n\n", CHAT_DONE], id="comments"
        ),
    ],
)
async def test_ends_as_servers_send_them(
    server: ModelServer, model: OpenAIChatCompletionsModel, frames: list[Any]
) -> None:
    server.send(*frames)

    last = (await streamed(model))[-1]

    assert last.type == "response.completed"
    assert last.response.output[0].content[0].text == "x"
    assert last.response.usage is None


async def test_an_end_in_the_middle_is_a_protocol_error(
    server: ModelServer, model: OpenAIChatCompletionsModel
) -> None:
    server.send(chunk({"content": "x"}), chunk({"content": "y"}))

    with pytest.raises(ModelProtocolError, match="ended in the middle, after 2 chunks"):
        await streamed(model)


async def test_an_answer_of_no_chunks_is_a_protocol_error(
    server: ModelServer, model: OpenAIChatCompletionsModel
) -> None:
    server.send(CHAT_DONE)

    with pytest.raises(ModelProtocolError, match=r"without any event .* It begins 'data: \[DONE\]"):
        await streamed(model)


async def test_the_state_of_a_server_may_be_given_by_position_as_in_the_sdk(
    server: ModelServer, model: OpenAIChatCompletionsModel
) -> None:
    server.send(*chat_frames("x"))
    server.send_json(completion(content="x"))
    positional, _ = asked()
    stream_response, get_response = cast("Any", model.stream_response), cast("Any", model.get_response)

    events = [event async for event in stream_response(*positional, None, None, None)]
    answer = await get_response(*positional, None, None, None)

    assert events[-1].type == "response.completed"
    assert len(answer.output) == 1


async def test_a_failure_in_the_stream_is_raised_behind_what_came_before(
    server: ModelServer, model: OpenAIChatCompletionsModel
) -> None:
    server.send(b"".join([chunk({"content": "x"}), b'data: {"error":{"message":"boom","code":"c"}}\n\n']))
    types: list[str] = []

    with pytest.raises(ModelResponseError, match="boom") as raised:
        await types_into(types, batches(model))

    assert types[-1] == "response.output_text.delta"
    assert raised.value.error_code == "c"


async def test_a_broken_chunk_is_a_protocol_error(
    server: ModelServer, model: OpenAIChatCompletionsModel
) -> None:
    server.send(chunk({"content": "x"}), b'data: {"choices":5}\n\n')

    with pytest.raises(ModelProtocolError, match="wrong shape"):
        await streamed(model)


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        (b"<html>", ModelProtocolError, "a chat completion that is not JSON"),
        (b"{}", ModelProtocolError, "without choices"),
        (b'{"choices":[]}', ModelProtocolError, "without choices"),
        (b'{"error":{"message":"boom"}}', ModelResponseError, "boom"),
    ],
)
async def test_an_answer_that_is_no_completion_is_told_as_such(
    server: ModelServer, model: OpenAIChatCompletionsModel, body: bytes, error: type[Exception], said: str
) -> None:
    server.send(body)

    with pytest.raises(error, match=said):
        await whole(model)


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ({"previous_response_id": "r"}, NotSupportedError, "previous_response_id"),
        ({"conversation_id": "c"}, NotSupportedError, "conversation_id"),
        ({"prompt": {"id": "p"}}, NotSupportedError, "prompt"),
        ({"tools": [WebSearchTool()]}, UserError, "WebSearchTool 'web_search' runs at the model's host"),
        (
            {"settings": ModelSettings(tool_choice=MCPToolChoice(server_label="s", name="n"))},
            NotSupportedError,
            "MCP",
        ),
        ({"input": [{"type": "zzz"}]}, InputItemError, "Input item 0"),
    ],
)
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_what_this_wire_cannot_do_is_refused_before_any_request(
    server: ModelServer,
    model: OpenAIChatCompletionsModel,
    ask: Any,
    given: dict[str, Any],
    error: type[Exception],
    said: str,
) -> None:
    with pytest.raises(error, match=said):
        await ask(model, **given)

    assert server.requests == []


async def test_reasoning_is_replayed_to_whom_one_says(server: ModelServer) -> None:
    server.send_json(completion(content="x"))
    asked: list[Any] = []

    def replay(context: Any) -> bool:
        asked.append(context)
        return True

    client = AsyncOpenAI(api_key="k", base_url=server.base_url)
    model = OpenAIChatCompletionsModel("m", client, replay)
    thought = {
        "type": "reasoning",
        "summary": [{"type": "summary_text", "text": "t"}],
        "provider_data": {"model": "theirs"},
    }

    await whole(model, [thought, {"role": "assistant", "content": "x"}])

    assert server.last.json["messages"] == [{"role": "assistant", "content": "x", "reasoning_content": "t"}]
    assert (asked[0].model, asked[0].reasoning.origin_model) == ("m", "theirs")
    assert asked[0].base_url.startswith(server.base_url)


def test_buffering_tool_calls_is_refused() -> None:
    with pytest.raises(NotSupportedError, match="buffer_streamed_tool_calls"):
        OpenAIChatCompletionsModel("m", AsyncOpenAI(api_key="k"), buffer_streamed_tool_calls=True)
