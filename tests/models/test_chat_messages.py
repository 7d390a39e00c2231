"""Input items as messages: a table, read from the left."""

from typing import Any

import pytest

from millstream.errors import InputItemError
from millstream.models.chat_messages import (
    ReasoningContentReplayContext,
    ReasoningContentSource,
    messages,
    replay_to_deepseek,
)
from tests.support.frames import call, message

IMAGE = {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"}
CHAT_IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}}
FILE = {"type": "input_file", "file_data": "data:…", "filename": "f.pdf"}
CHAT_FILE = {"type": "file", "file": {"file_data": "data:…", "filename": "f.pdf"}}
USER = {"role": "user", "content": "hi"}


def text(value: str) -> dict[str, Any]:
    return {"type": "input_text", "text": value}


def chat_text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": value}


def output(value: Any, call_id: str = "call_1") -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": value}


def chat_call(name: str, arguments: str, id: str = "call_1") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def assistant(content: str | None, *tool_calls: dict[str, Any]) -> dict[str, Any]:
    said: dict[str, Any] = {"role": "assistant", "content": content}
    return {**said, "tool_calls": list(tool_calls)} if tool_calls else said


def tool(content: Any, call_id: str = "call_1") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        pytest.param([USER], [USER], id="text"),
        pytest.param([{"type": "message", **USER}], [USER], id="a message by its type"),
        pytest.param(
            [{"role": "user", "content": [text("see"), IMAGE, FILE]}],
            [{"role": "user", "content": [chat_text("see"), CHAT_IMAGE, CHAT_FILE]}],
            id="image and file",
        ),
        pytest.param(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_image", "image_url": "u"},
                        {"type": "input_file", "file_id": "f"},
                    ],
                }
            ],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "image_url", "image_url": {"url": "u", "detail": "auto"}},
                        {"type": "file", "file": {"file_id": "f"}},
                    ],
                }
            ],
            id="image without detail, file by id",
        ),
        pytest.param(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
                        CHAT_IMAGE,
                    ],
                }
            ],
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
                        CHAT_IMAGE,
                    ],
                }
            ],
            id="parts that this wire has itself",
        ),
        pytest.param(
            [{"role": "system", "content": "s"}, {"role": "developer", "content": [text("d")]}],
            [{"role": "system", "content": "s"}, {"role": "developer", "content": [chat_text("d")]}],
            id="system and developer",
        ),
        pytest.param([{"role": "assistant", "content": "x"}], [assistant("x")], id="assistant, plain"),
        pytest.param([message("x")], [assistant("x")], id="assistant, item"),
        pytest.param([message("x"), message("y")], [assistant("x"), assistant("y")], id="two messages"),
        pytest.param(
            [
                {
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "a"}, {"type": "output_text", "text": "b"}],
                }
            ],
            [assistant("a\nb")],
            id="two parts",
        ),
        pytest.param([{"role": "assistant", "content": []}], [assistant("")], id="assistant, empty"),
        pytest.param(
            [{"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]}],
            [{"role": "assistant", "refusal": "no"}],
            id="refusal",
        ),
        pytest.param(
            [
                message("let me see"),
                call("add", '{"a":1}'),
                call("sub", "", call_id="call_2"),
                output("4"),
                output("5", "call_2"),
                USER,
            ],
            [
                assistant("let me see", chat_call("add", '{"a":1}'), chat_call("sub", "{}", "call_2")),
                tool("4"),
                tool("5", "call_2"),
                USER,
            ],
            id="text and calls are one message",
        ),
        pytest.param(
            [call("add", "{}"), message("done so"), output("4")],
            [assistant("done so", chat_call("add", "{}")), tool("4")],
            id="text after calls",
        ),
        pytest.param(
            [call("add", "{}"), output("4"), call("add", "{}", call_id="call_2"), output("5", "call_2")],
            [
                assistant(None, chat_call("add", "{}")),
                tool("4"),
                assistant(None, chat_call("add", "{}", "call_2")),
                tool("5", "call_2"),
            ],
            id="two turns",
        ),
        pytest.param(
            [call("add", "{}"), output([text("a"), text("b")])],
            [assistant(None, chat_call("add", "{}")), tool([chat_text("a"), chat_text("b")])],
            id="output in parts",
        ),
        pytest.param(
            [
                call("draw", "{}"),
                call("add", "{}", call_id="call_2"),
                output([text("see"), IMAGE]),
                output("5", "call_2"),
                message("ok"),
            ],
            [
                assistant(None, chat_call("draw", "{}"), chat_call("add", "{}", "call_2")),
                tool([chat_text("see")]),
                tool("5", "call_2"),
                {"role": "user", "content": [chat_text("[output of tool call call_1]"), CHAT_IMAGE]},
                assistant("ok"),
            ],
            id="an image follows the outputs",
        ),
        pytest.param(
            [call("draw", "{}"), output([IMAGE])],
            [
                assistant(None, chat_call("draw", "{}")),
                tool("[the output is attached below]"),
                {"role": "user", "content": [chat_text("[output of tool call call_1]"), CHAT_IMAGE]},
            ],
            id="only an image",
        ),
        pytest.param(
            [call("draw", "{}"), output([IMAGE]), call("add", "{}", call_id="call_2"), output("", "call_2")],
            [
                assistant(None, chat_call("draw", "{}")),
                tool("[the output is attached below]"),
                {"role": "user", "content": [chat_text("[output of tool call call_1]"), CHAT_IMAGE]},
                assistant(None, chat_call("add", "{}", "call_2")),
                tool("", "call_2"),
            ],
            id="an image between two turns",
        ),
        pytest.param(
            [
                {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]},
                message("x"),
            ],
            [assistant("x")],
            id="reasoning is dropped",
        ),
    ],
)
def test_items_become_messages(items: list[dict[str, Any]], expected: list[dict[str, Any]]) -> None:
    assert messages(None, items) == expected
    assert messages("be", items) == [{"role": "system", "content": "be"}, *expected]


def test_the_input_is_not_changed() -> None:
    items = [message("x"), call("add", "{}"), output([text("a"), IMAGE])]
    before = repr(items)

    messages("be", items)

    assert repr(items) == before


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"type": "zzz"}, "is of type 'zzz'"),
        ({"foo": 1}, "neither a `type` nor a `role`"),
        ({"type": "item_reference", "id": "x"}, "'item_reference'"),
        ({"type": "web_search_call", "id": "x"}, "'web_search_call'"),
        ({"role": "tool", "content": "x"}, "the role 'tool'"),
        ({"role": "user", "content": [{"type": "zzz"}]}, "a part of type 'zzz'"),
        ({"role": "user", "content": 5}, "holds int"),
        ({"role": "user", "content": ["x"]}, "holds list"),
        ({"role": "assistant", "content": [IMAGE]}, "a part of type 'input_image'"),
        ({"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}, "image without `image_url`"),
        ({"role": "user", "content": [{"type": "input_file", "file_url": "u"}]}, "file without `file_data`"),
        (output(None), "holds NoneType"),
    ],
)
def test_what_has_no_words_on_this_wire_is_refused_by_index(item: dict[str, Any], said: str) -> None:
    with pytest.raises(InputItemError) as raised:
        messages(None, [USER, item])

    assert "Input item 1 " in str(raised.value)
    assert said in str(raised.value)


def test_reasoning_goes_back_with_what_it_led_to() -> None:
    thought = {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "t"}]}
    deep = {
        "type": "reasoning",
        "id": "r",
        "summary": [],
        "content": [{"type": "reasoning_text", "text": "u"}],
    }
    items = [thought, call("add", "{}"), output("4"), deep, message("x")]

    sent = messages(None, items, replays=lambda _: True)

    assert sent == [
        {**assistant(None), "reasoning_content": "t", "tool_calls": [chat_call("add", "{}")]},
        tool("4"),
        {**assistant("x"), "reasoning_content": "u"},
    ]


@pytest.mark.parametrize(
    ("model", "origin", "replayed"),
    [
        ("deepseek-reasoner", "deepseek-reasoner", True),
        ("DeepSeek-R1", None, True),
        ("deepseek-reasoner", "gpt-5", False),
        ("gpt-5", "deepseek-reasoner", False),
    ],
)
def test_deepseek_gets_its_own_thoughts_back(model: str, origin: str | None, replayed: bool) -> None:
    context = ReasoningContentReplayContext(model, None, ReasoningContentSource({}, origin))

    assert replay_to_deepseek(context) is replayed


SIGNED = [{"type": "thinking", "thinking": "Add.", "signature": "s"}]
EXTRA = {"google": {"thought_signature": "s"}}


def signed_by(model: str) -> list[dict[str, Any]]:
    """What `model` thought and called, and the answer to its call."""
    return [
        {"type": "reasoning", "summary": [], "provider_data": {"model": model, "thinking_blocks": SIGNED}},
        {
            "type": "function_call",
            "call_id": "c1",
            "name": "add",
            "arguments": "{}",
            "provider_data": {"model": model, "extra_content": EXTRA},
        },
        {"type": "function_call_output", "call_id": "c1", "output": "3"},
    ]


@pytest.mark.parametrize(
    ("signer", "asked"),
    [
        ("own", "own"),
        ("anthropic/claude-sonnet-4-5", "bedrock/anthropic.claude-haiku-4-5"),
        ("gemini-3-pro", "gemini-3-flash"),
    ],
)
def test_what_a_model_signed_goes_back_to_it_and_its_family(signer: str, asked: str) -> None:
    answer, _ = messages(None, signed_by(signer), model=asked)

    assert answer["thinking_blocks"] == SIGNED
    assert answer["tool_calls"][0]["extra_content"] == EXTRA


@pytest.mark.parametrize("asked", ["gpt-5.4", None])
def test_what_a_model_signed_is_not_shown_to_another(asked: str | None) -> None:
    answer, _ = messages(None, signed_by("claude-sonnet-4-5"), model=asked)

    assert "thinking_blocks" not in answer
    assert "extra_content" not in answer["tool_calls"][0]


def test_a_thought_that_led_to_nothing_is_not_put_before_a_later_answer() -> None:
    reasoning, *_ = signed_by("claude-a")
    later = [{"role": "user", "content": "Go on."}, {"role": "assistant", "content": "Yes."}]

    sent = messages(None, [reasoning, *later], model="claude-a", replays=lambda _: True)

    assert sent == later
