"""Chunks of Chat Completions in, events of the Responses API out: fed whole and one by one."""

import json
from typing import Any

import msgspec
import pytest

from millstream import codec, raw
from millstream.errors import ModelProtocolError, ModelResponseError
from millstream.models.chat_stream import ChatStream, chunks


def fold(*said: dict[str, Any], at_once: bool = False) -> list[dict[str, Any]]:
    """The events that chunks with these contents mean; each is checked to be clean and typed right."""
    decoded = chunks.decode(json.dumps(list(said)).encode())
    stream = ChatStream("m", uid="u")
    batches = [stream.feed(decoded)] if at_once else [stream.feed([chunk]) for chunk in decoded]
    batches.append(stream.finish())
    events: list[dict[str, Any]] = []
    for batch in batches:
        for event, kind in zip(batch.events, batch.types, strict=True):
            assert isinstance(event, bytes)
            assert codec.is_clean(event)
            assert raw.decode(event).type == kind
            events.append(json.loads(event))
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def piece(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"id": "c1", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def call_piece(
    index: int | None, *, id: str | None = None, name: str | None = None, arguments: Any = None
) -> dict[str, Any]:
    call = {"index": index, "id": id, "function": {"name": name, "arguments": arguments}}
    return piece(tool_calls=[{k: v for k, v in call.items() if v is not None}])


def kinds(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def output(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The items of the response, of which each was also done in an event of its own."""
    items = events[-1]["response"]["output"]
    done = [e for e in events if e["type"] == "response.output_item.done"]
    assert sorted((e["output_index"], e["item"]["id"]) for e in done) == [
        (i, item["id"]) for i, item in enumerate(items)
    ]
    assert all(e["item"] == items[e["output_index"]] for e in done)
    return items


def calls(events: list[dict[str, Any]]) -> list[tuple[str, str, str]]:
    return [(i["call_id"], i["name"], i["arguments"]) for i in output(events) if i["type"] == "function_call"]


STOP = piece("stop")
USAGE = {"id": "c1", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}}


@pytest.mark.parametrize("at_once", [False, True])
def test_text(at_once: bool) -> None:
    events = fold(
        piece(role="assistant", content=""),
        piece(content="Hé\n"),
        piece(content=" 😀\u2028"),
        STOP,
        USAGE,
        at_once=at_once,
    )

    assert kinds(events) == [
        "created",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[3] == {
        "type": "response.output_text.delta",
        "item_id": "msg_u_0",
        "output_index": 0,
        "content_index": 0,
        "delta": "Hé\n",
        "logprobs": [],
        "sequence_number": 3,
    }
    assert output(events) == [
        {
            "id": "msg_u_0",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [{"type": "output_text", "text": "Hé\n 😀\u2028", "annotations": [], "logprobs": []}],
            "provider_data": {"model": "m", "response_id": "c1"},
        }
    ]
    response = events[-1]["response"]
    assert (response["id"], response["model"], response["status"]) == ("c1", "m", "completed")
    assert (response["usage"]["input_tokens"], response["usage"]["total_tokens"]) == (3, 8)


def test_a_whole_answer_is_a_stream_of_one_chunk() -> None:
    streamed = fold(
        piece(reasoning_content="th"),
        piece(reasoning_content="ink"),
        piece(content="A"),
        call_piece(0, id="x", name="add", arguments="{}"),
        STOP,
        USAGE,
    )
    message = {
        "reasoning_content": "think",
        "content": "A",
        "tool_calls": [{"id": "x", "function": {"name": "add", "arguments": "{}"}}],
    }
    whole = fold({**USAGE, "choices": [{"message": message, "finish_reason": "stop"}]})

    assert whole[-1]["response"] == {
        **streamed[-1]["response"],
        "created_at": whole[-1]["response"]["created_at"],
    }


# --- calls of tools ---------------------------------------------------------------------------


def test_a_call_in_pieces() -> None:
    events = fold(
        call_piece(0, id="x", name="add", arguments=""),
        call_piece(0, arguments='{"a"'),
        call_piece(0, arguments=":1}"),
        piece("tool_calls"),
    )

    assert kinds(events) == [
        "created",
        "output_item.added",
        "function_call_arguments.delta",
        "function_call_arguments.delta",
        "function_call_arguments.done",
        "output_item.done",
        "completed",
    ]
    assert events[1]["item"]["status"] == "in_progress"
    assert events[-3]["arguments"] == '{"a":1}'
    assert calls(events) == [("x", "add", '{"a":1}')]


def test_calls_that_alternate() -> None:
    events = fold(
        piece(content="let me see"),
        call_piece(0, id="x", name="add", arguments='{"a"'),
        call_piece(1, id="y", name="sub", arguments='{"b"'),
        call_piece(0, arguments=":1}"),
        call_piece(1, arguments=":2}"),
        piece("tool_calls"),
    )

    assert calls(events) == [("x", "add", '{"a":1}'), ("y", "sub", '{"b":2}')]
    deltas = [(e["output_index"], e["delta"]) for e in events if e["type"].endswith("arguments.delta")]
    assert deltas == [(1, '{"a"'), (2, '{"b"'), (1, ":1}"), (2, ":2}")]


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param([call_piece(0, name="add", arguments="{}")], [("call_u_0", "add", "{}")], id="no id"),
        pytest.param(
            [call_piece(None, id="x", name="add", arguments='{"a"'), call_piece(None, arguments=":1}")],
            [("x", "add", '{"a":1}')],
            id="no index",
        ),
        pytest.param(
            [
                call_piece(None, id="x", name="add", arguments="{}"),
                call_piece(None, id="y", name="add", arguments="{}"),
            ],
            [("x", "add", "{}"), ("y", "add", "{}")],
            id="two without index",
        ),
        pytest.param(
            [
                call_piece(0, id="x", name="add", arguments="{}"),
                call_piece(0, id="y", name="sub", arguments="{}"),
            ],
            [("x", "add", "{}"), ("y", "sub", "{}")],
            id="two of index 0",
        ),
        pytest.param(
            [
                call_piece(0, id="x", name="add", arguments='{"a"'),
                call_piece(0, id="x", name="add", arguments=":1}"),
            ],
            [("x", "add", '{"a":1}')],
            id="id and name each time",
        ),
        pytest.param(
            [
                call_piece(0, id="x"),
                call_piece(0, arguments='{"a"'),
                call_piece(0, name="add", arguments=":1}"),
            ],
            [("x", "add", '{"a":1}')],
            id="name last",
        ),
        pytest.param(
            [call_piece(0, id="x", name="add", arguments={"a": 1})], [("x", "add", '{"a":1}')], id="an object"
        ),
        pytest.param([call_piece(0, id="x", name="add")], [("x", "add", "")], id="no arguments"),
        pytest.param(
            [
                call_piece(0, id="x", name="add", arguments=""),
                call_piece(0, arguments="{}"),
                call_piece(0, id="y", name="sub", arguments=""),
                call_piece(0, arguments='{"b":2}'),
            ],
            [("x", "add", "{}"), ("y", "sub", '{"b":2}')],
            id="two of index 0 in pieces",
        ),
        pytest.param(
            [
                call_piece(None, name="add", arguments=""),
                call_piece(None, arguments='{"a"'),
                call_piece(None, name="add", arguments=":1}"),
                call_piece(None, name="add", arguments='{"a":2}'),
            ],
            [("call_u_0", "add", '{"a":1}'), ("call_u_1", "add", '{"a":2}')],
            id="neither index nor id",
        ),
        pytest.param(
            [
                call_piece(None, id="x", name="add", arguments=""),
                call_piece(None, arguments='{"a":1}'),
                call_piece(None, id="y", name="add", arguments=""),
                call_piece(None, id="y", arguments='{"a":2}'),
            ],
            [("x", "add", '{"a":1}'), ("y", "add", '{"a":2}')],
            id="no index, in pieces",
        ),
        pytest.param(
            [
                call_piece(0, id="x", name="g", arguments=""),
                call_piece(0, name="et"),
                call_piece(0, arguments="{}"),
            ],
            [("x", "get", "{}")],
            id="name in pieces",
        ),
        pytest.param(
            [call_piece(0, id="x", name="add"), call_piece(0, name="add"), call_piece(0, arguments="{}")],
            [("x", "add", "{}")],
            id="name twice",
        ),
    ],
)
def test_calls_as_servers_send_them(said: list[dict[str, Any]], expected: list[tuple[str, str, str]]) -> None:
    assert calls(fold(*said, piece("tool_calls"))) == expected
    assert calls(fold(*said, piece("tool_calls"), at_once=True)) == expected


@pytest.mark.hostile
def test_a_call_without_a_name_is_a_protocol_error() -> None:
    with pytest.raises(ModelProtocolError, match="without the name"):
        fold(call_piece(0, id="x", arguments="{}"))


# --- reasoning, refusals, parts ---------------------------------------------------------------


def test_reasoning_content_is_a_summary_that_ends_where_the_answer_begins() -> None:
    events = fold(piece(reasoning_content="th"), piece(reasoning_content="ink"), piece(content="A"), STOP)

    assert kinds(events)[:9] == [
        "created",
        "output_item.added",
        "reasoning_summary_part.added",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.delta",
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
    ]
    thought, message = output(events)
    assert thought["summary"] == [{"type": "summary_text", "text": "think"}]
    assert message["content"][0]["text"] == "A"


@pytest.mark.parametrize(
    "thoughts",
    [
        [piece(reasoning="th"), piece(reasoning="ink")],
        [piece(thinking="th"), piece(thinking="ink")],
        [piece(thinking={"text": "think"})],
        [piece(content=[{"type": "thinking", "thinking": [{"type": "text", "text": "think"}]}])],
    ],
)
def test_reasoning_in_other_fields_is_the_text_itself(thoughts: list[dict[str, Any]]) -> None:
    events = fold(*thoughts, call_piece(0, id="x", name="add"), STOP)

    assert "reasoning_text.delta" in kinds(events)
    assert output(events)[0]["content"] == [{"type": "reasoning_text", "text": "think"}]
    assert kinds(events).index("reasoning_text.done") < kinds(events).index("function_call_arguments.done")


def test_reasoning_that_goes_on_after_text_is_a_second_item() -> None:
    events = fold(piece(reasoning="a"), piece(content="b"), piece(reasoning="c"), piece(content="d"), STOP)

    assert [item["type"] for item in output(events)] == ["reasoning", "message", "reasoning"]
    assert output(events)[1]["content"][0]["text"] == "bd"


def test_a_change_of_the_reasoning_field_is_a_second_item() -> None:
    events = fold(piece(reasoning="a"), piece(reasoning_content="b"), STOP)

    assert [bool(item["summary"]) for item in output(events)] == [False, True]


def test_a_refusal() -> None:
    events = fold(piece(content="Well. "), piece(refusal="I "), piece(refusal="won't"), STOP)

    assert output(events)[0]["content"] == [
        {"type": "output_text", "text": "Well. ", "annotations": [], "logprobs": []},
        {"type": "refusal", "refusal": "I won't"},
    ]
    assert [e["content_index"] for e in events if e["type"] == "response.refusal.delta"] == [1, 1]


def test_content_in_parts_is_text() -> None:
    events = fold(piece(content=[{"type": "text", "text": "a"}, "b", {"type": "reference"}]), STOP)

    assert output(events)[0]["content"][0]["text"] == "ab"


def test_probabilities_go_along() -> None:
    said = piece(content="A")
    said["choices"][0]["logprobs"] = {
        "content": [
            {"token": "A", "logprob": -0.1, "bytes": [65], "top_logprobs": [{"token": "B", "logprob": -2.0}]}
        ]
    }
    known = [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": -2.0}]}]

    events = fold(said, STOP)

    assert events[3]["logprobs"] == known
    assert output(events)[0]["content"][0]["logprobs"] == known


# --- ends -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")]
)
def test_an_answer_that_was_broken_off_is_incomplete(finish: str, reason: str) -> None:
    events = fold(piece(content="abc"), piece(finish))

    assert events[-1]["type"] == "response.incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": reason}
    assert output(events)[0]["status"] == "incomplete"


def test_an_empty_answer_has_no_items() -> None:
    assert kinds(fold(STOP)) == ["created", "completed"]


@pytest.mark.hostile
@pytest.mark.parametrize("said", [[], [{"choices": []}], [{"choices": None, "usage": {"prompt_tokens": 1}}]])
def test_an_answer_without_choices_is_a_protocol_error(said: list[dict[str, Any]]) -> None:
    with pytest.raises(ModelProtocolError, match="without choices"):
        fold(*said)


def test_other_choices_are_left_out() -> None:
    other = {"id": "c1", "choices": [{"index": 1, "delta": {"content": "other"}}]}

    assert output(fold(piece(content="mine"), other, STOP))[0]["content"][0]["text"] == "mine"


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ("nonsense", None),
        ({"prompt_tokens": "many", "prompt_tokens_details": [], "completion_tokens": 2}, (0, 0, 2, 0, 2)),
        ({"prompt_tokens": 3, "completion_tokens": 5}, (3, 0, 5, 0, 8)),
        (
            {
                "prompt_tokens": 3,
                "completion_tokens": 5,
                "total_tokens": 9,
                "prompt_tokens_details": {"cached_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 2},
            },
            (3, 1, 5, 2, 9),
        ),
    ],
)
def test_usage_is_counted_as_the_responses_api_does(usage: Any, expected: tuple[int, ...] | None) -> None:
    said = fold(STOP, {"choices": [], "usage": usage})[-1]["response"]["usage"]

    counted = said and (
        said["input_tokens"],
        said["input_tokens_details"]["cached_tokens"],
        said["output_tokens"],
        said["output_tokens_details"]["reasoning_tokens"],
        said["total_tokens"],
    )
    assert counted == expected


def test_an_error_chunk_stops_the_fold_behind_what_came_before() -> None:
    stream = ChatStream("m")
    said = [piece(content="abc"), {"error": {"message": "boom", "code": 5}}, piece(content="late")]

    batch = stream.feed(chunks.decode(json.dumps(said).encode()))

    assert batch.types[-1] == "response.output_text.delta"
    assert isinstance(stream.error, ModelResponseError)
    assert stream.error.error_code == "5"


def test_ids_are_unique_among_answers() -> None:
    one, other = (
        msgspec.json.decode(stream.feed(chunks.decode(json.dumps([piece(content="x")]).encode())).events[1])  # type: ignore[arg-type]
        for stream in (ChatStream("m"), ChatStream("m"))
    )

    assert one["item"]["id"] != other["item"]["id"]


# --- what a server wants back unread ------------------------------------------------------------


def thought(**block: Any) -> dict[str, Any]:
    return piece(
        reasoning_content=block.get("thinking") or "", thinking_blocks=[{"type": "thinking", **block}]
    )


@pytest.mark.parametrize("at_once", [True, False])
def test_a_signed_thought_is_kept_whole(at_once: bool) -> None:
    redacted = {"type": "redacted_thinking", "data": "xyz"}
    events = fold(
        thought(thinking="I should ", signature=None),
        thought(thinking="add."),
        thought(thinking="", signature="signed"),
        thought(thinking="Or not.", signature="too"),
        piece(thinking_blocks=[redacted]),
        piece("stop", content="3"),
        at_once=at_once,
    )

    reasoning, _ = output(events)

    assert reasoning["summary"][0]["text"] == "I should add.Or not."
    assert reasoning["provider_data"]["thinking_blocks"] == [
        {"type": "thinking", "thinking": "I should add.", "signature": "signed"},
        {"type": "thinking", "thinking": "Or not.", "signature": "too"},
        redacted,
    ]


def test_what_stands_beside_a_call_is_kept_with_it() -> None:
    extra = {"google": {"thought_signature": "signed"}}
    function = {"name": "add", "arguments": "{}"}
    called = {"index": 0, "id": "call_1", "function": function, "extra_content": extra}

    (call,) = output(fold(piece("tool_calls", tool_calls=[called])))

    assert call["provider_data"]["extra_content"] == extra


@pytest.mark.parametrize("zeros", [{"prompt_tokens": 0, "completion_tokens": 0}, {}, "none", None])
def test_usage_of_no_tokens_is_none(zeros: Any) -> None:
    events = fold(piece("stop", content="x"), {"id": "c1", "choices": [], "usage": zeros})

    assert events[-1]["response"]["usage"] is None
