"""Every recipe of docs/other-models.md, run as it stands there against a server that answers as that vendor does.

The shapes of the streams are those of the vendors' own documentation: which field thoughts are
in, how calls are cut and named, where usage is told, what stands between the frames.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from millstream import Agent, Runner, function_tool
from millstream.errors import ModelResponseError
from millstream.items import ReasoningItem
from millstream.testing.model_server import ModelServer
from tests.docs.keys import KEYS
from tests.docs.snippets import blocks
from tests.support import anthropic_frames as anthropic
from tests.support.frames import CHAT_DONE, call, message, responses_frames

PAGE = Path(__file__).parents[2] / "docs" / "other-models.md"
RECIPES = {block.title: block.body for block in blocks(PAGE.read_text()) if block.title}

Delta = dict[str, Any]


@function_tool
def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


# --- how vendors say things ---------------------------------------------------------------------


def frame(**fields: Any) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()


def chunk(*deltas: Delta, finish: str | None = None, **more: Any) -> bytes:
    choices = [{"index": 0, "delta": delta, "finish_reason": finish} for delta in deltas]
    return frame(id="c1", object="chat.completion.chunk", created=1, model="m", choices=choices, **more)


def tool_call(arguments: str, *, id: str = "call_abc", index: int | None = 0, **more: Any) -> Delta:
    function = {"name": "add", "arguments": arguments}
    one = {"id": id, "index": index, "type": "function", "function": function, **more}
    return {"tool_calls": [{name: value for name, value in one.items() if value is not None}]}


def more_arguments(piece: str) -> Delta:
    return {"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}


USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
USAGE_CHUNK = chunk(usage=USAGE)
ARGUMENTS = '{"a": 1, "b": 2}'


def said(*pieces: str, end: tuple[bytes, ...] = (USAGE_CHUNK, CHAT_DONE)) -> list[bytes]:
    """An answer in text."""
    first, *rest = pieces
    return [
        chunk({"role": "assistant", "content": first}),
        *(chunk({"content": piece}) for piece in rest),
        chunk({}, finish="stop"),
        *end,
    ]


def thought_in(name: str) -> bytes:
    return chunk({"role": "assistant", name: "1 and 2"})


ANSWER = said("It ", "is 3.")
NO_USAGE = said("It ", "is 3.", end=(CHAT_DONE,))


@dataclass
class Vendor:
    """A recipe, and how its server answers: with a call of `add` first, then with a text."""

    recipe: str
    host: str
    """What stands for the server in the recipe; the local one takes its place."""
    calls: list[bytes]
    answers: list[bytes] = field(default_factory=lambda: ANSWER)
    path: str = "/v1/chat/completions"
    key: tuple[str, str] = ("authorization", "Bearer sk-test")
    call_id: str = "call_abc"
    thinks: bool = False
    tells_usage: bool = True


LOCAL_KEY = ("authorization", "Bearer not-needed")

VENDORS = [
    Vendor(  # a call in one piece; usage in a chunk of its own, whose choices are empty
        "ollama.py",
        "http://localhost:11434",
        [
            thought_in("reasoning"),
            chunk({"role": "assistant", "content": "", **tool_call(ARGUMENTS)}),
            chunk({"role": "assistant", "content": ""}, finish="tool_calls"),
            USAGE_CHUNK,
            CHAT_DONE,
        ],
        key=LOCAL_KEY,
        thinks=True,
    ),
    Vendor(  # `content` is null at first; timings beside the usage
        "llamacpp.py",
        "http://localhost:8080",
        [
            chunk({"role": "assistant", "content": None}),
            thought_in("reasoning_content"),
            chunk(tool_call("{", id="f00IKfzMGlHFRWzE")),
            chunk(more_arguments('"a": 1, "b": 2}')),
            chunk({}, finish="tool_calls"),
            chunk(usage=USAGE, timings={"predicted_n": 12}),
            CHAT_DONE,
        ],
        key=LOCAL_KEY,
        call_id="f00IKfzMGlHFRWzE",
        thinks=True,
    ),
    Vendor(  # both names of the field for thoughts have been in use; the id is long
        "vllm.py",
        "http://localhost:8000",
        [
            chunk({"role": "assistant", "content": ""}),
            thought_in("reasoning"),
            chunk(tool_call("", id="chatcmpl-tool-0f1e2d3c4b5a")),
            *(chunk(more_arguments(piece)) for piece in ('{"a": ', '1, "b"', ": 2}")),
            chunk({"content": ""}, finish="tool_calls"),
            USAGE_CHUNK,
            CHAT_DONE,
        ],
        key=LOCAL_KEY,
        call_id="chatcmpl-tool-0f1e2d3c4b5a",
        thinks=True,
    ),
    Vendor(  # ids are numbers, as text
        "lm_studio.py",
        "http://localhost:1234",
        [
            thought_in("reasoning_content"),
            chunk({"role": "assistant", **tool_call("", id="365174485")}),
            chunk(more_arguments(ARGUMENTS)),
            chunk({}, finish="tool_calls"),
            USAGE_CHUNK,
            CHAT_DONE,
        ],
        key=LOCAL_KEY,
        call_id="365174485",
        thinks=True,
    ),
    Vendor(  # no usage
        "localai.py",
        "http://localhost:8080",
        [chunk({"role": "assistant", **tool_call(ARGUMENTS)}), chunk({}, finish="tool_calls"), CHAT_DONE],
        NO_USAGE,
        key=LOCAL_KEY,
        tells_usage=False,
    ),
    Vendor(
        "azure_v1.py",
        "https://example.openai.azure.com",
        responses_frames(call("add", ARGUMENTS, call_id="call_abc")),
        responses_frames(message("It is 3.")),
        path="/openai/v1/responses",
    ),
    Vendor(  # the first chunk has no choices, and tells of the filters
        "azure.py",
        "https://example.openai.azure.com",
        [
            frame(id="", model="", choices=[], prompt_filter_results=[{"prompt_index": 0}]),
            chunk({"role": "assistant", "content": None, **tool_call("")}),
            chunk(more_arguments(ARGUMENTS)),
            chunk({}, finish="tool_calls"),
            USAGE_CHUNK,
            CHAT_DONE,
        ],
        [frame(id="", model="", choices=[], prompt_filter_results=[{"prompt_index": 0}]), *ANSWER],
        path="/openai/deployments/my-deployment/chat/completions",
        key=("api-key", "sk-test"),
    ),
    Vendor(  # comments until a model is found
        "openrouter.py",
        "https://openrouter.ai/api",
        [
            b": OPENROUTER PROCESSING\n\n",
            chunk(
                {
                    "role": "assistant",
                    "content": "",
                    "reasoning": "1 and 2",
                    "reasoning_details": [{"type": "reasoning.text", "text": "1 and 2"}],
                }
            ),
            b": OPENROUTER PROCESSING\n\n",
            chunk({"role": "assistant", "content": None, **tool_call("", id="toolu_01AbC")}),
            chunk({"role": "assistant", "content": None, **more_arguments(ARGUMENTS)}),
            chunk({"role": "assistant", "content": ""}, finish="tool_calls", native_finish_reason="x"),
            chunk({"role": "assistant", "content": ""}, usage={**USAGE, "cost": 0.0001}),
            CHAT_DONE,
        ],
        call_id="toolu_01AbC",
        thinks=True,
    ),
    Vendor(  # `content` and `reasoning_content` are both there, one of them null
        "deepseek.py",
        "https://api.deepseek.com",
        [
            b": keep-alive\n\n",
            chunk({"role": "assistant", "content": None, "reasoning_content": ""}),
            chunk({"content": None, "reasoning_content": "1 and 2"}),
            chunk(tool_call("", id="call_00_Xy")),
            chunk(more_arguments(ARGUMENTS)),
            chunk({"content": ""}, finish="tool_calls", usage={**USAGE, "prompt_cache_hit_tokens": 4}),
            CHAT_DONE,
        ],
        path="/chat/completions",
        call_id="call_00_Xy",
        thinks=True,
    ),
    Vendor(  # about itself in `x_groq`, where usage stands too
        "groq.py",
        "https://api.groq.com",
        [
            chunk({"role": "assistant", "content": None}, x_groq={"id": "req_1"}),
            chunk({"reasoning": "1 and 2", "channel": "analysis"}),
            chunk(tool_call(ARGUMENTS, id="fc_9e8d")),
            chunk({}, finish="tool_calls", x_groq={"id": "req_1", "usage": USAGE}, usage=USAGE),
            CHAT_DONE,
        ],
        path="/openai/v1/chat/completions",
        call_id="fc_9e8d",
        thinks=True,
    ),
    Vendor(  # thoughts are parts of the text; a call has no index of its own; usage in the last chunk
        "mistral.py",
        "https://api.mistral.ai",
        [
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "1 and 2"}]}]}),
            chunk(tool_call(ARGUMENTS, id="D681PevKs"), finish="tool_calls", usage=USAGE),
            CHAT_DONE,
        ],
        said("It ", "is 3.", end=(chunk(usage=USAGE), CHAT_DONE)),
        call_id="D681PevKs",
        thinks=True,
    ),
    Vendor(  # usage in every chunk; a signature beside the call
        "gemini.py",
        "https://generativelanguage.googleapis.com",
        [
            chunk(
                {
                    "role": "assistant",
                    **tool_call(
                        ARGUMENTS,
                        id="function-call-12345",
                        extra_content={"google": {"thought_signature": "c2ln"}},
                    ),
                },
                finish="tool_calls",
                usage={"prompt_tokens": 30, "completion_tokens": 3, "total_tokens": 33},
            ),
            chunk({"role": "assistant"}, finish="stop", usage=USAGE),
            CHAT_DONE,
        ],
        path="/v1beta/openai/chat/completions",
        call_id="function-call-12345",
    ),
    Vendor(  # usage with the last choice
        "together.py",
        "https://api.together.xyz",
        [
            chunk({"role": "assistant", "content": "", "reasoning": "1 and 2"}),
            chunk({"content": "", **tool_call(ARGUMENTS)}),
            chunk({"content": ""}, finish="tool_calls", usage=USAGE),
            CHAT_DONE,
        ],
        thinks=True,
    ),
]


def recipe_of(vendor: str, host: str, server: ModelServer) -> Agent[Any]:
    """The agent of a recipe, whose server is the local one."""
    source = RECIPES[vendor]
    assert host in source, f"{vendor} does not name {host}"
    space: dict[str, Any] = {"__name__": "recipe"}
    exec(compile(source.replace(host, f"http://127.0.0.1:{server.port}"), vendor, "exec"), space)
    return space["agent"]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "sk-test")


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.recipe)
async def test_a_recipe_asks_its_vendor_thinks_calls_and_answers(server: ModelServer, vendor: Vendor) -> None:
    agent = recipe_of(vendor.recipe, vendor.host, server).clone(tools=[add])
    server.send(*vendor.calls)
    server.send(*vendor.answers)

    run = Runner.run_streamed(agent, "1 + 2?")
    text = "".join([piece async for piece in run.text()])
    result = await run

    assert result.final_output == text == "It is 3."
    assert [request.path for request in server.requests] == [vendor.path] * 2
    name, value = vendor.key
    assert server.last.headers[name] == value
    assert outputs(server.last.json) == [(vendor.call_id, "3")]
    thoughts = [item for item in result.new_items if isinstance(item, ReasoningItem)]
    assert bool(thoughts) is vendor.thinks
    usage = result.context_wrapper.usage
    assert usage.requests == 2
    assert usage.total_tokens > 0
    assert usage.estimated is not vendor.tells_usage


def outputs(body: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a request says that tools have returned, on either wire."""
    if "input" in body:
        return [(i["call_id"], i["output"]) for i in body["input"] if i.get("type") == "function_call_output"]
    return [(m["tool_call_id"], m["content"]) for m in body["messages"] if m["role"] == "tool"]


def test_every_recipe_of_the_page_is_here() -> None:
    here = {vendor.recipe for vendor in VENDORS} | {"claude.py", "claude_by_key.py"}

    assert set(RECIPES) == here


# --- what is peculiar to one ---------------------------------------------------------------------


def asked_twice(server: ModelServer, recipe: str) -> tuple[Vendor, Agent[Any]]:
    (vendor,) = [one for one in VENDORS if one.recipe == recipe]
    server.send(*vendor.calls)
    server.send(*vendor.answers)
    return vendor, recipe_of(vendor.recipe, vendor.host, server).clone(tools=[add])


async def test_deepseek_gets_the_thought_back_that_led_to_a_call(server: ModelServer) -> None:
    _, agent = asked_twice(server, "deepseek.py")

    await Runner.run_streamed(agent, "1 + 2?")

    assert server.last.json["messages"][-2]["reasoning_content"] == "1 and 2"


async def test_gemini_gets_its_signature_back(server: ModelServer) -> None:
    _, agent = asked_twice(server, "gemini.py")

    result = await Runner.run_streamed(agent, "1 + 2?")

    (called,) = server.last.json["messages"][-2]["tool_calls"]
    assert called["extra_content"] == {"google": {"thought_signature": "c2ln"}}
    assert result.context_wrapper.usage.total_tokens == 2 * 42


async def test_openrouter_tells_in_the_stream_that_a_vendor_failed(server: ModelServer) -> None:
    error = {"code": 502, "message": "Provider returned error"}
    server.send(
        b": OPENROUTER PROCESSING\n\n",
        chunk({"content": "It "}),
        chunk({"content": ""}, finish="error", error=error),
        CHAT_DONE,
    )
    agent = recipe_of("openrouter.py", "https://openrouter.ai/api", server)

    with pytest.raises(ModelResponseError, match="Provider returned error") as raised:
        await Runner.run_streamed(agent, "1 + 2?")

    assert raised.value.error_code == "502"


async def test_azure_may_filter_the_answer(server: ModelServer) -> None:
    server.send(
        frame(id="", model="", choices=[], prompt_filter_results=[]),
        chunk({"role": "assistant", "content": "It "}),
        chunk({}, finish="content_filter"),
        CHAT_DONE,
    )
    agent = recipe_of("azure.py", "https://example.openai.azure.com", server)

    run = Runner.run_streamed(agent, "1 + 2?")
    events: list[Any] = [event async for event in run.stream_events()]

    (*_, last) = [event.data for event in events if event.type == "raw_response_event"]
    assert last.response.incomplete_details.reason == "content_filter"
    assert "api-version=2024-10-21" in server.last.target


@pytest.mark.may_block  # LiteLLM looks for certificates on the loop
@pytest.mark.usefixtures("litellm_ends")
@pytest.mark.parametrize("recipe", ["claude.py", "claude_by_key.py"])
async def test_claude_answers_by_way_of_litellm(
    server: ModelServer, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    local = f"http://127.0.0.1:{server.port}"
    monkeypatch.setenv("ANTHROPIC_API_BASE", local)
    server.send(anthropic.started(), *anthropic.text(0, "It ", "is 3."), *anthropic.stopped())
    space: dict[str, Any] = {"__name__": "recipe"}
    exec(RECIPES[recipe].replace("https://api.anthropic.com", local), space)

    run = await Runner.run_streamed(space["agent"], "1 + 2?")

    assert run.final_output == "It is 3."
    assert server.last.path == "/v1/messages"
    assert server.last.headers["x-api-key"] == "sk-test"
