"""What a call has used whose server does not tell."""

from typing import Any

import pytest
from openai import AsyncOpenAI
from openai.types.responses import ResponseOutputMessage, ResponseOutputText

from millstream import Agent, OpenAIChatCompletionsModel, OpenAIResponsesModel, Runner, function_tool
from millstream.errors import ModelProtocolError
from millstream.models.estimate import estimate_tokens, estimate_usage
from millstream.testing import ScriptedModel
from millstream.testing.faults import CUT, Gate
from millstream.testing.model_server import ModelServer
from tests.support.frames import CHAT_DONE, chat_frames, chunk, frame, response, text_frames

LONG = "The quick brown fox jumps over the lazy dog. " * 10


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("", 0),
        ("a", 1),
        ("twelve chars", 3),
        ("Привет", 3),
        ("今天天气很好", 6),
        ("🎉", 2),
        ("half a pair: \ud83d", 4),
    ],
)
def test_tokens_are_told_from_the_characters(text: str, tokens: int) -> None:
    assert estimate_tokens(text) == tokens


@function_tool
def look_up(word: str) -> str:
    """Look a word up in the dictionary."""
    return word


def estimated(input: Any, *said: Any, instructions: str | None = None, tools: Any = ()) -> tuple[int, int]:
    usage = estimate_usage(estimate_tokens, instructions=instructions, input=input, tools=tools, said=said)
    assert usage is not None
    assert usage.requests == 1
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.estimated
    return usage.input_tokens, usage.output_tokens


def test_all_that_the_model_reads_counts() -> None:
    text_only, _ = estimated("Hello there")

    assert text_only == 3 + 4
    assert estimated("Hello there", instructions="Be brief")[0] == text_only + 2
    assert estimated("Hello there", tools=[look_up])[0] > text_only + 30


def test_items_count_by_their_text_and_images_alike() -> None:
    call = {"type": "function_call", "call_id": "c" * 400, "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c" * 400, "output": "cold"}
    image = {"type": "input_image", "image_url": "data:image/png;base64," + "A" * 4000}

    assert estimated([call, output])[0] == 1 + 1 + 1 + 2 * 4
    assert estimated([{"role": "user", "content": [image, {"type": "input_text", "text": "what"}]}])[0] == (
        765 + 1 + 4
    )


def test_what_came_back_counts_as_items_or_as_pieces() -> None:
    part = ResponseOutputText(type="output_text", text="twelve chars", annotations=[])
    message = ResponseOutputMessage(
        id="m", type="message", role="assistant", status="completed", content=[part]
    )

    assert estimated("x", message)[1] == 3
    assert estimated("x", "twelve chars")[1] == 3


def test_where_nothing_is_counted_there_is_no_estimate() -> None:
    assert estimate_usage(lambda _: 0, instructions="x", input="x", tools=[], said=["x"]) is None


# --- in a run -----------------------------------------------------------------------------------


def client(server: ModelServer) -> AsyncOpenAI:
    return AsyncOpenAI(api_key="k", base_url=server.base_url, max_retries=0)


def chat(server: ModelServer) -> Any:
    return OpenAIChatCompletionsModel("m", client(server))


def responses(server: ModelServer) -> Any:
    return OpenAIResponsesModel("m", client(server))


def silent(wire: Any, *, zeros: bool = False) -> list[bytes]:
    """An answer that tells no usage."""
    if wire is responses:
        *others, _ = text_frames(LONG)
        return [*others, frame("response.completed", response=response(usage=None), sequence_number=99)]
    told = [chunk(usage={"prompt_tokens": 0, "completion_tokens": 0})] if zeros else []
    return [*(one for one in chat_frames(LONG)[:-2]), *told, CHAT_DONE]


@pytest.mark.parametrize("zeros", [False, True], ids=["nothing", "zeros"])
@pytest.mark.parametrize("wire", [chat, responses])
async def test_usage_that_a_stream_does_not_tell_is_estimated_and_marked(
    server: ModelServer, wire: Any, zeros: bool
) -> None:
    server.send(*silent(wire, zeros=zeros))

    run = Runner.run_streamed(Agent(name="A", instructions=LONG, model=wire(server)), "hi")
    entries = [entry async for entry in run.entries()]
    usage = (await run).context_wrapper.usage

    assert (usage.requests, usage.estimated) == (1, True)
    assert 100 <= usage.input_tokens < 140
    assert 100 <= usage.output_tokens < 140
    assert (await run).raw_responses[0].usage.estimated
    for entry in entries:
        if entry.event.type in ("model.completed", "run.completed"):
            assert b'"estimated":true' in entry.to_json()


async def test_usage_that_a_whole_answer_does_not_tell_is_estimated(server: ModelServer) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": LONG}}
    server.send_json({"id": "c", "choices": [choice]})

    usage = (await Runner.run(Agent(name="A", model=chat(server)), "hi")).context_wrapper.usage

    assert (usage.requests, usage.estimated) == (1, True)
    assert 100 <= usage.output_tokens < 140


@pytest.mark.parametrize("wire", [chat, responses])
async def test_what_a_cancelled_call_has_streamed_is_not_lost(server: ModelServer, wire: Any) -> None:
    begun = silent(wire)[:40]
    server.send(*begun, Gate())
    run = Runner.run_streamed(Agent(name="A", model=wire(server)), "hi")
    await anext(aiter(run.text()))

    run.cancel()
    last: Any = [entry.event async for entry in run.entries()][-1]

    assert last.type == "run.cancelled"
    assert last.usage["requests"] == 1
    assert last.usage["estimated"] is True
    assert last.usage["output_tokens"] > 0


async def test_what_a_failed_call_has_streamed_is_not_lost(server: ModelServer) -> None:
    server.send(chunk({"content": LONG}), CUT)
    run = Runner.run_streamed(Agent(name="A", model=chat(server)), "hi")

    last: Any = [entry.event async for entry in run.entries()][-1]

    assert last.type == "run.failed"
    assert 100 <= last.usage["output_tokens"] < 140
    with pytest.raises(ModelProtocolError):
        await run


async def test_what_the_server_tells_is_never_estimated(server: ModelServer) -> None:
    server.send(*chat_frames("Hello."))

    usage = (await Runner.run_streamed(Agent(name="A", model=chat(server)), "hi")).context_wrapper.usage

    assert (usage.total_tokens, usage.estimated) == (8, False)


async def test_a_script_says_itself_what_it_has_used() -> None:
    run = await Runner.run_streamed(Agent(name="A", model=ScriptedModel(["Hello."])), "hi")

    assert run.context_wrapper.usage.to_dict() == {
        "requests": 1,
        "input_tokens": 0,
        "output_tokens": 0,
        "total_tokens": 0,
        "cached_tokens": 0,
        "reasoning_tokens": 0,
    }


async def test_a_model_may_count_by_a_tokenizer_of_its_own(server: ModelServer) -> None:
    class Exact(OpenAIChatCompletionsModel):
        def count_tokens(self, text: str) -> int:
            return len(text.split())

    server.send(*silent(chat))

    run = await Runner.run_streamed(Agent(name="A", model=Exact("m", client(server))), "one two")

    assert run.context_wrapper.usage.output_tokens == len(LONG.split())


async def test_a_tokenizer_that_fails_does_not_fail_the_run(
    server: ModelServer, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(OpenAIChatCompletionsModel):
        def count_tokens(self, text: str) -> int:
            raise KeyError(text)

    server.send(*silent(chat))

    run = await Runner.run_streamed(Agent(name="A", model=Broken("m", client(server))), "hi")

    assert run.context_wrapper.usage.estimated
    assert "could not be estimated" in caplog.text
