"""The Responses wire: what goes out for what was asked, and what comes back."""

import json
from typing import Any, cast

import pytest
from openai import AsyncOpenAI
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseOutputMessage,
    ResponseTextDeltaEvent,
)
from openai.types.shared import Reasoning
from pydantic import BaseModel

from millstream import (
    Agent,
    AgentOutputSchema,
    CodeInterpreterTool,
    FileSearchTool,
    ModelSettings,
    WebSearchTool,
    codec,
    function_tool,
    handoff,
)
from millstream.config import MCPToolChoice
from millstream.errors import (
    InputItemError,
    ModelProtocolError,
    ModelResponseError,
    UserError,
)
from millstream.models.openai_responses import OpenAIResponsesModel
from millstream.testing.model_server import ModelServer
from tests.models.conftest import asked, batches, streamed, types_into, whole
from tests.support.frames import call, frame, message, response, responses_frames, text_frames


class Verdict(BaseModel):
    guilty: bool


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


ADD = {
    "type": "function",
    "name": "add",
    "description": "Add two numbers.",
    "parameters": add.params_json_schema,
    "strict": True,
}
HI = [{"content": "hi", "role": "user"}]


@pytest.fixture
def model(server: ModelServer) -> OpenAIResponsesModel:
    return OpenAIResponsesModel("m", AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0))


async def sent(
    server: ModelServer, model: OpenAIResponsesModel, input: Any = "hi", **given: Any
) -> dict[str, Any]:
    """The body of the request that a call sends; what nothing was said about is checked and left out."""
    server.send_json(response())
    await whole(model, input, **given)
    assert server.last.path == "/v1/responses"
    body = server.last.json
    plain = {"model": "m", "input": HI, "include": [], "tools": []}
    return {name: value for name, value in body.items() if plain.get(name) != value}


# --- what goes out ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "body"),
    [
        ({}, {}),
        ({"instructions": "be"}, {"instructions": "be"}),
        ({"tools": [add]}, {"tools": [ADD]}),
        ({"output_schema": AgentOutputSchema(str)}, {}),
        (
            {"output_schema": AgentOutputSchema(Verdict)},
            {
                "text": {
                    "format": {
                        "type": "json_schema",
                        "name": "final_output",
                        "schema": AgentOutputSchema(Verdict).json_schema(),
                        "strict": True,
                    }
                }
            },
        ),
        ({"previous_response_id": "r"}, {"previous_response_id": "r"}),
        ({"conversation_id": "c"}, {"conversation": "c"}),
        (
            {"tools": [FileSearchTool(["v"], include_search_results=True)]},
            {
                "tools": [{"type": "file_search", "vector_store_ids": ["v"]}],
                "include": ["file_search_call.results"],
            },
        ),
    ],
)
async def test_a_call_becomes_a_request(
    server: ModelServer, model: OpenAIResponsesModel, given: dict[str, Any], body: dict[str, Any]
) -> None:
    assert await sent(server, model, **given) == body


@pytest.mark.parametrize(
    ("settings", "body"),
    [
        (ModelSettings(temperature=0.1, top_p=0.2), {"temperature": 0.1, "top_p": 0.2}),
        (ModelSettings(max_tokens=9, truncation="auto"), {"max_output_tokens": 9, "truncation": "auto"}),
        (ModelSettings(store=False, metadata={"a": "b"}), {"store": False, "metadata": {"a": "b"}}),
        (ModelSettings(reasoning=Reasoning(effort="low")), {"reasoning": {"effort": "low"}}),
        (ModelSettings(verbosity="low"), {"text": {"verbosity": "low"}}),
        (ModelSettings(top_logprobs=2), {"top_logprobs": 2, "include": ["message.output_text.logprobs"]}),
        (
            ModelSettings(response_include=["reasoning.encrypted_content", "reasoning.encrypted_content"]),
            {"include": ["reasoning.encrypted_content"]},
        ),
        (ModelSettings(prompt_cache_retention="24h"), {"prompt_cache_retention": "24h"}),
        (ModelSettings(extra_args={"user": "u"}, extra_body={"eb": 1}), {"user": "u", "eb": 1}),
        (ModelSettings(temperature=1.0, extra_body={"temperature": 2}), {"temperature": 2}),
        # Without tools there is nothing to call in parallel; the frequency penalty is of the other wire.
        (ModelSettings(parallel_tool_calls=True, frequency_penalty=1.0), {}),
    ],
)
async def test_settings_go_along(
    server: ModelServer, model: OpenAIResponsesModel, settings: ModelSettings, body: dict[str, Any]
) -> None:
    assert await sent(server, model, settings=settings) == body


@pytest.mark.parametrize(
    ("choice", "on_wire"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ("none", "none"),
        ("add", {"type": "function", "name": "add"}),
        ("web_search", {"type": "web_search"}),
        ("code_interpreter", {"type": "code_interpreter"}),
        ("mcp", {"type": "mcp"}),
        (MCPToolChoice(server_label="s", name="n"), {"type": "mcp", "server_label": "s", "name": "n"}),
    ],
)
async def test_a_tool_is_chosen_by_its_name(
    server: ModelServer, model: OpenAIResponsesModel, choice: Any, on_wire: Any
) -> None:
    settings = ModelSettings(tool_choice=choice, parallel_tool_calls=False)

    body = await sent(server, model, tools=[add], settings=settings)

    assert body == {"tools": [ADD], "tool_choice": on_wire, "parallel_tool_calls": False}


async def test_hosted_tools_and_handoffs_are_tools_too(
    server: ModelServer, model: OpenAIResponsesModel
) -> None:
    other = handoff(Agent(name="Other", handoff_description="does other things"))
    interpreter = CodeInterpreterTool({"type": "code_interpreter", "container": {"type": "auto"}})

    tools = (await sent(server, model, tools=[WebSearchTool(), interpreter], handoffs=[other]))["tools"]

    assert [tool["type"] for tool in tools] == ["web_search", "code_interpreter", "function"]
    assert tools[1]["container"] == {"type": "auto"}
    assert tools[2] == {
        "type": "function",
        "name": "transfer_to_other",
        "description": other.tool_description,
        "parameters": other.input_json_schema,
        "strict": True,
    }


@pytest.mark.parametrize(
    ("explicit", "given", "body"),
    [
        (True, {}, {"prompt": {"id": "p"}}),
        (False, {}, {"prompt": {"id": "p"}}),
        (True, {"settings": ModelSettings(tool_choice="theirs")}, {"prompt": {"id": "p"}}),
        (
            True,
            {"settings": ModelSettings(tool_choice="required")},
            {"prompt": {"id": "p"}, "tool_choice": "required"},
        ),
    ],
)
async def test_a_prompt_on_the_server_brings_its_own_tools_and_model(
    server: ModelServer, explicit: bool, given: dict[str, Any], body: dict[str, Any]
) -> None:
    client = AsyncOpenAI(api_key="k", base_url=server.base_url)
    model = OpenAIResponsesModel("m", client, model_is_explicit=explicit)

    assert await sent(server, model, prompt={"id": "p"}, **given) == body
    assert server.last.json.get("model") == ("m" if explicit else None)
    assert "tools" not in server.last.json


async def test_items_go_out_as_they_are(server: ModelServer, model: OpenAIResponsesModel) -> None:
    image = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"}
    items = [
        {"role": "user", "content": [{"type": "input_text", "text": "see"}, image]},
        {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "x"},
        call("add", "{}"),
        {"type": "function_call_output", "call_id": "call_1", "output": [image]},
        {"type": "item_reference", "id": "x"},
        {"type": "of_a_later_version", "id": "y"},
    ]

    assert (await sent(server, model, items))["input"] == items


async def test_typed_items_go_out_as_they_came_in(server: ModelServer, model: OpenAIResponsesModel) -> None:
    server.send_json(response([message("hello"), call("add", "{}")]))
    answer = await whole(model)

    assert (await sent(server, model, answer.output))["input"] == [message("hello"), call("add", "{}")]


async def test_what_other_models_left_in_the_history_stays_here(
    server: ModelServer, model: OpenAIResponsesModel
) -> None:
    notes = {"provider_data": {"model": "other"}}
    items = [
        {"type": "reasoning", "id": "rs", "summary": [], **notes},
        {**message("hello"), **notes},
        {**call("add", "{}"), "id": "__fake_id__"},
    ]

    out = (await sent(server, model, items))["input"]

    without_id = [
        {k: v for k, v in item.items() if k != "id"} for item in (message("hello"), call("add", "{}"))
    ]
    assert out == without_id


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"type": "zzz"}, "Input item 1 is of type 'zzz'"),
        ({"foo": 1}, "Input item 1 has neither a `type` nor a `role` (its keys: foo)"),
        ({}, "its keys: none"),
        ("hello", "Input item 1 is a str"),
        (None, "Input item 1 is a NoneType"),
    ],
)
@pytest.mark.parametrize("ask", [whole, streamed])
async def test_an_unknown_item_is_refused_before_any_request(
    server: ModelServer, model: OpenAIResponsesModel, ask: Any, item: Any, said: str
) -> None:
    with pytest.raises(InputItemError) as raised:
        await ask(model, [HI[0], item])

    assert said in str(raised.value)
    assert server.requests == []


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"settings": ModelSettings(temperature=1.0, extra_args={"temperature": 2})},
            UserError,
            "extra_args sets temperature",
        ),
        ({"tools": [object()]}, UserError, "is not a tool"),
    ],
)
async def test_a_users_mistake_is_told_before_any_request(
    server: ModelServer, model: OpenAIResponsesModel, given: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        await whole(model, **given)

    assert server.requests == []


# --- what comes back --------------------------------------------------------------------------


async def test_a_stream_is_the_servers_bytes_in_batches(
    server: ModelServer, model: OpenAIResponsesModel
) -> None:
    frames = text_frames("Hello big world")
    server.send(b"".join(frames))

    got = [batch async for batch in batches(model)]

    events = [event for batch in got for event in batch.events]
    assert events == [f.split(b"data: ")[1].strip() for f in frames]
    assert [t for batch in got for t in batch.types] == [json.loads(e)["type"] for e in events]  # type: ignore[arg-type]
    assert all(codec.is_clean(e) for e in events)  # type: ignore[arg-type]
    assert server.last.json == {"model": "m", "input": HI, "include": [], "tools": [], "stream": True}


async def test_a_stream_survives_being_cut_at_every_byte(
    server: ModelServer, model: OpenAIResponsesModel
) -> None:
    stream = b"".join(text_frames("Hé 😀"))
    server.send(*(stream[i : i + 1] for i in range(len(stream))))

    events = await streamed(model)

    assert "".join(e.delta for e in events if isinstance(e, ResponseTextDeltaEvent)) == "Hé 😀"
    assert isinstance(events[-1], ResponseCompletedEvent)


async def test_a_call_of_a_tool_comes_typed(server: ModelServer, model: OpenAIResponsesModel) -> None:
    server.send(*responses_frames(message("let me see"), call("add", '{"a":1}')))

    last = (await streamed(model))[-1]

    spoken, called = last.response.output
    assert isinstance(spoken, ResponseOutputMessage)
    assert isinstance(called, ResponseFunctionToolCall)
    assert called.arguments == '{"a":1}'


async def test_a_whole_answer_and_a_streamed_one_say_the_same(
    server: ModelServer, model: OpenAIResponsesModel
) -> None:
    output = [message("let me see"), call("add", '{"a":1}')]
    server.send_json(response(output), headers={"x-request-id": "req_1"})
    server.send(*responses_frames(*output), headers={"x-request-id": "req_1"})

    answer = await whole(model, settings=ModelSettings(preserve_raw_usage=True))
    last = (await streamed(model))[-1]

    assert answer.output == last.response.output
    assert answer.response_id == last.response.id == "resp_1"
    assert answer.request_id == last.response._request_id == "req_1"
    assert (answer.usage.requests, answer.usage.input_tokens, answer.usage.output_tokens) == (1, 3, 5)
    assert answer.raw_usage == response()["usage"]


async def test_the_last_event_is_bytes_too_where_the_server_names_no_request(
    server: ModelServer, model: OpenAIResponsesModel
) -> None:
    server.send(*text_frames("x"))

    got = [batch async for batch in batches(model)]

    assert isinstance(got[-1].events[-1], bytes)
    assert got[-1].types[-1] == "response.completed"


async def test_the_state_of_a_server_may_be_given_by_position_as_in_the_sdk(
    server: ModelServer, model: OpenAIResponsesModel
) -> None:
    server.send(*text_frames("x"))
    server.send_json({"id": "r", "object": "response", "output": []})
    positional, _ = asked()
    stream_response, get_response = cast("Any", model.stream_response), cast("Any", model.get_response)

    events = [event async for event in stream_response(*positional, "resp_1", None, None)]
    answer = await get_response(*positional, None, "conv_1")

    assert events[-1].type == "response.completed"
    assert answer.output == []
    assert [r.json.get("previous_response_id") for r in server.requests] == ["resp_1", None]
    assert [r.json.get("conversation") for r in server.requests] == [None, "conv_1"]


async def test_nothing_after_the_last_event_is_read(server: ModelServer, model: OpenAIResponsesModel) -> None:
    server.send(
        b"".join([*text_frames("x"), frame("response.output_text.delta", delta="late"), b"data: [DONE]\n\n"])
    )

    types = [t for batch in [b async for b in batches(model)] for t in batch.types]

    assert types[-1] == "response.completed"


async def test_an_incomplete_response_is_an_end(server: ModelServer, model: OpenAIResponsesModel) -> None:
    cut_short = response(
        [message("x")], status="incomplete", incomplete_details={"reason": "max_output_tokens"}
    )
    server.send(frame("response.incomplete", response=cut_short))
    server.send_json(cut_short)

    last = (await streamed(model))[-1]
    answer = await whole(model)

    assert last.type == "response.incomplete"
    assert last.response.incomplete_details.reason == "max_output_tokens"
    assert answer.output == last.response.output


FAILED = {"code": "server_error", "message": "the model fell over"}


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (frame("response.failed", response=response(status="failed", error=FAILED)), "response.failed"),
        (frame("error", **FAILED, param=None), "error"),
        (frame("error", error=FAILED), "error"),
    ],
)
async def test_a_failure_is_raised_after_the_event_that_tells_it(
    server: ModelServer, model: OpenAIResponsesModel, event: bytes, kind: str
) -> None:
    server.send(b"".join([*text_frames("Hello world")[:5], event]))
    types: list[str] = []

    with pytest.raises(ModelResponseError, match="the model fell over") as raised:
        await types_into(types, batches(model))

    assert types[-1] == kind
    assert raised.value.error_code == "server_error"


async def test_a_whole_answer_that_failed_raises(server: ModelServer, model: OpenAIResponsesModel) -> None:
    server.send_json(response(status="failed", error=FAILED))
    with pytest.raises(ModelResponseError, match=r"the model fell over \(code: server_error\)"):
        await whole(model)

    server.send_json({"error": FAILED})
    with pytest.raises(ModelResponseError, match="the model fell over"):
        await whole(model)


@pytest.mark.hostile
@pytest.mark.parametrize("body", [b"<html>", b"[]", b"7", b'{"id":"x"}', b'{"a":', b"\xff"])
async def test_an_answer_that_is_no_response_is_a_protocol_error(
    server: ModelServer, model: OpenAIResponsesModel, body: bytes
) -> None:
    server.send(body)

    with pytest.raises(
        ModelProtocolError, match=r"sent (no response|a response that is not JSON|bytes that are not UTF-8)"
    ):
        await whole(model)


@pytest.mark.hostile
async def test_good_events_of_a_read_come_before_its_bad_one(
    server: ModelServer, model: OpenAIResponsesModel
) -> None:
    server.send(b"".join(text_frames("Hello world")[:5]) + b"data: {broken\n\n")
    types: list[str] = []

    with pytest.raises(ModelProtocolError, match="not JSON"):
        await types_into(types, batches(model))

    assert len(types) == 5


async def test_an_event_of_a_later_version_passes(server: ModelServer, model: OpenAIResponsesModel) -> None:
    frames = text_frames("x")
    server.send(*frames[:3], frame("response.of_tomorrow", x=1), *frames[3:])

    types = [event.type for event in await streamed(model)]

    assert types[3] == "response.of_tomorrow"
    assert types[-1] == "response.completed"
