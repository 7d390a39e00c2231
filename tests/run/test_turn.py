"""One turn: events in, payloads for the log out, fed whole and one piece at a time."""

from collections.abc import Sequence
from typing import Any

import pytest
from openai.types.responses import ResponseOutputItemDoneEvent, ResponseTextDeltaEvent

from millstream import codec
from millstream.agent import Agent
from millstream.errors import ModelProtocolError, ModelResponseError
from millstream.events import RunItemStreamEvent, event_from_json
from millstream.handoff import handoff
from millstream.items import MCPApprovalRequestItem, MCPListToolsItem, ModelResponse, ToolCallItem, raw_field
from millstream.models.promise import RawBatch
from millstream.run.turn import Turn
from millstream.testing import assistant_message, function_call, reasoning
from millstream.tool import tool
from millstream.usage import Usage

Events = list[dict[str, Any]]


@tool
def weather(city: str) -> str:
    """How the weather is."""
    return city


def turn() -> Turn:
    to_b = handoff(Agent(name="B"))
    return Turn(Agent(name="A"), {"weather": weather}, {to_b.tool_name: to_b})


def feed(turn: Turn, events: Events, *, at_once: bool = True) -> list[Any]:
    """Feed `events` as wire JSON, in one batch or one by one."""
    wire = [codec.encode(event) for event in events]
    types = [event["type"] for event in events]
    if at_once:
        return turn.feed(RawBatch(list(wire), types))
    return [p for event, kind in zip(wire, types, strict=True) for p in turn.feed(RawBatch([event], [kind]))]


def kinds(payloads: Sequence[Any]) -> list[str]:
    """What stands in the log: the type of each model event, the name of each item."""
    return [
        payload.name
        if isinstance(payload, RunItemStreamEvent)
        else codec.decode(payload if isinstance(payload, bytes) else payload.json)["type"].removeprefix(
            "response."
        )
        for payload in payloads
    ]


def plain(item: Any) -> dict[str, Any]:
    return item.model_dump(exclude_unset=True)


def delta(text: str, index: int = 0, item_id: str | None = None) -> dict[str, Any]:
    return {
        "type": "response.output_text.delta",
        "delta": text,
        "output_index": index,
        "item_id": item_id or f"item_{index}",
        "content_index": 0,
    }


def done(item: Any, index: int = 0) -> dict[str, Any]:
    return {"type": "response.output_item.done", "item": plain(item), "output_index": index}


def final(*items: Any, kind: str = "completed", **fields: Any) -> dict[str, Any]:
    return {
        "type": f"response.{kind}",
        "response": {"id": "r1", "output": [plain(i) for i in items], **fields},
    }


CALL = function_call("weather", {"city": "Oslo"}, call_id="c1")
MESSAGE = assistant_message("Cold.", item_id="item_1")
THOUGHT = reasoning("Hm.")


@pytest.mark.parametrize("at_once", [True, False])
def test_an_item_stands_right_behind_the_event_that_ended_it(at_once: bool) -> None:
    a_turn = turn()

    payloads = feed(
        a_turn, [done(CALL), delta("Cold.", 1), done(MESSAGE, 1), final(CALL, MESSAGE)], at_once=at_once
    )

    assert kinds(payloads) == [
        "output_item.done",
        "tool_called",
        "output_text.delta",
        "output_item.done",
        "message_output_created",
        "completed",
    ]
    assert a_turn.finish().output == [CALL, MESSAGE]


def test_events_in_which_nothing_ends_pass_through_untouched() -> None:
    a_turn = turn()
    wire = [codec.encode(delta("a")), codec.encode(delta("b"))]
    typed = ResponseTextDeltaEvent.model_validate(delta("c") | {"sequence_number": 1, "logprobs": []})

    as_json = a_turn.feed(RawBatch(list(wire), ["response.output_text.delta"] * 2))
    as_objects = a_turn.feed(RawBatch([typed], ["response.output_text.delta"]))
    nothing = a_turn.feed(RawBatch([], []))

    assert as_json == wire
    assert [payload.data for payload in as_objects] == [typed]  # pyright: ignore[reportAttributeAccessIssue]
    assert nothing == []


def test_a_call_of_a_handoff_is_a_handoff_and_a_call_of_a_tool_is_described() -> None:
    a_turn = turn()

    feed(
        a_turn,
        [final(CALL, function_call("transfer_to_b", call_id="c2"), function_call("nobody", call_id="c3"))],
    )

    assert [item.type for item in a_turn.items] == ["tool_call_item", "handoff_call_item", "tool_call_item"]
    assert [getattr(item, "description", None) for item in a_turn.items] == [
        "How the weather is.",
        None,
        None,
    ]


@pytest.mark.parametrize(
    ("kind", "fields", "name", "cls"),
    [
        ("mcp_list_tools", {"tools": []}, "mcp_list_tools", MCPListToolsItem),
        (
            "mcp_approval_request",
            {"name": "f", "arguments": "{}"},
            "mcp_approval_requested",
            MCPApprovalRequestItem,
        ),
        ("mcp_call", {"name": "f", "arguments": "{}"}, "tool_called", ToolCallItem),
    ],
)
def test_what_a_hosted_mcp_server_does_is_an_item_of_its_own(
    kind: str, fields: dict[str, Any], name: str, cls: type[Any]
) -> None:
    listens = turn()

    done_item = {**done(CALL), "item": {"type": kind, "id": "x", "server_label": "s", **fields}}
    payloads = feed(listens, [done_item, final()])

    assert kinds(payloads)[1] == name
    (item,) = listens.items
    assert type(item) is cls
    assert event_from_json(payloads[1].to_json()).item.type == item.type  # pyright: ignore[reportAttributeAccessIssue]
    assert item.to_input_item()["type"] == kind  # pyright: ignore[reportGeneralTypeIssues, reportTypedDictNotRequiredAccess]


def test_an_output_that_is_only_for_the_model_is_no_item() -> None:
    a_turn = turn()
    summary = {"type": "compaction", "id": "cmp", "encrypted_content": "x"}

    payloads = feed(
        a_turn, [{"type": "response.output_item.done", "output_index": 0, "item": summary}, final()]
    )

    assert kinds(payloads) == ["output_item.done", "completed"]
    assert a_turn.items == []
    assert [output.type for output in a_turn.finish().output] == ["compaction"]


@pytest.mark.parametrize(
    ("streamed", "said", "items", "output"),
    [
        ([CALL, MESSAGE], [CALL, MESSAGE], [CALL, MESSAGE], [CALL, MESSAGE]),
        ([], [CALL, MESSAGE], [CALL, MESSAGE], [CALL, MESSAGE]),
        ([CALL, MESSAGE], [], [CALL, MESSAGE], [CALL, MESSAGE]),
        ([CALL, MESSAGE], [MESSAGE], [CALL, MESSAGE], [CALL, MESSAGE]),
        ([MESSAGE], [THOUGHT, MESSAGE], [THOUGHT, MESSAGE], [THOUGHT, MESSAGE]),
        ([MESSAGE, CALL], [CALL, MESSAGE], [CALL, MESSAGE], [CALL, MESSAGE]),
        (
            [MESSAGE],
            [assistant_message("Cold.", item_id="other"), CALL],
            [MESSAGE, CALL],
            [assistant_message("Cold.", item_id="other"), CALL],
        ),
    ],
    ids=[
        "repeats everything",
        "says everything only at the end",
        "repeats nothing",
        "repeats a part",
        "has one more",
        "in another order",
        "under another id",
    ],
)
def test_what_a_final_event_repeats_is_neither_lost_nor_doubled(
    streamed: list[Any], said: list[Any], items: list[Any], output: list[Any]
) -> None:
    a_turn = turn()

    feed(a_turn, [*(done(item, index) for index, item in enumerate(streamed)), final(*said)])

    assert [item.raw_item for item in a_turn.items] == items
    assert a_turn.finish().output == output


def test_a_whole_response_gives_its_items_also_where_they_are_plain_dicts() -> None:
    a_turn = turn()
    response = ModelResponse([plain(CALL), MESSAGE], Usage(requests=1), "r1")  # pyright: ignore[reportArgumentType]

    payloads = a_turn.whole(response)

    assert kinds(payloads) == ["tool_called", "message_output_created"]
    assert a_turn.items[0].raw_item == CALL
    assert a_turn.response is response
    assert a_turn.usage is response.usage


def test_an_incomplete_response_is_a_response() -> None:
    a_turn = turn()

    feed(a_turn, [final(MESSAGE, kind="incomplete", incomplete_details={"reason": "max_output_tokens"})])

    assert a_turn.finish().output == [MESSAGE]


def test_usage_and_ids_come_from_the_final_event() -> None:
    a_turn = turn()

    feed(a_turn, [final(MESSAGE, usage={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})])

    response = a_turn.finish()
    assert (response.response_id, response.usage.total_tokens, response.usage.requests) == ("r1", 5, 1)
    assert a_turn.usage is response.usage


@pytest.mark.parametrize("event", [{"type": "response.completed"}, final()])
def test_a_final_event_that_says_nothing_ends_the_turn_all_the_same(event: dict[str, Any]) -> None:
    a_turn = turn()

    feed(a_turn, [event])

    assert a_turn.finish().output == []
    assert a_turn.finish().usage.requests == 1


@pytest.mark.parametrize(
    ("event", "message", "code"),
    [
        (
            final(kind="failed", error={"code": "server_error", "message": "overloaded"}),
            "failure (server_error): overloaded",
            "server_error",
        ),
        (final(kind="failed"), "failure: no reason was given", None),
        (
            {"type": "error", "code": "rate_limit", "message": "slow down"},
            "(rate_limit): slow down",
            "rate_limit",
        ),
    ],
)
def test_a_failure_that_the_server_reports_is_raised_when_its_events_are_written(
    event: dict[str, Any], message: str, code: str | None
) -> None:
    a_turn = turn()

    payloads = feed(a_turn, [delta("Co"), event])

    assert len(payloads) == 2
    with pytest.raises(ModelResponseError) as caught:
        a_turn.finish()
    assert message in str(caught.value)
    assert caught.value.error_code == code
    assert a_turn.partial_text() == "Co"


def test_a_failed_response_has_used_what_it_says() -> None:
    with_usage, without = turn(), turn()

    feed(with_usage, [final(kind="failed", usage={"input_tokens": 3, "output_tokens": 2, "total_tokens": 5})])
    feed(without, [final(kind="failed")])

    assert with_usage.usage is not None
    assert with_usage.usage.total_tokens == 5
    assert without.usage is None


def test_a_stream_that_stops_without_a_final_event_is_an_error() -> None:
    a_turn = turn()

    feed(a_turn, [done(CALL), delta("Co", 1)])

    with pytest.raises(ModelProtocolError, match="cut off"):
        a_turn.finish()


def test_an_event_that_ends_something_and_cannot_be_read_is_an_error_of_the_server() -> None:
    a_turn = turn()

    a_turn.feed(RawBatch([b'{"type":"response.completed","resp'], ["response.completed"]))

    with pytest.raises(ModelProtocolError, match="cannot be read"):
        a_turn.finish()
    with pytest.raises(ModelProtocolError, match="cannot be read"):
        feed(a_turn, [delta("more")])


@pytest.mark.hostile
@pytest.mark.parametrize(
    ("item", "told"),
    [
        (None, "without a type: None"),
        ({"id": "x"}, "without a type"),
        ({"type": 5}, "without a type"),
        ({**plain(function_call("weather")), "call_id": None}, "whose `call_id` is no text"),
        ({**plain(function_call("weather")), "name": None}, "whose `name` is no text"),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_an_item_that_cannot_be_used_is_an_error_behind_what_came_before(
    item: Any, told: str, at_once: bool
) -> None:
    a_turn = turn()
    bad = {"type": "response.output_item.done", "output_index": 1, "item": item}

    payloads = feed(a_turn, [done(CALL), bad], at_once=at_once)

    assert kinds(payloads) == ["output_item.done", "tool_called", "output_item.done"]
    with pytest.raises(ModelProtocolError, match=told):
        a_turn.finish()


@pytest.mark.hostile
def test_arguments_that_are_an_object_are_written_as_json() -> None:
    a_turn = turn()

    for arguments in ({"city": "Oslo"}, None):
        feed(a_turn, [{**done(CALL), "item": {**plain(CALL), "arguments": arguments}}])

    assert [raw_field(item.raw_item, "arguments") for item in a_turn.items] == ['{"city":"Oslo"}', ""]


@pytest.mark.parametrize(
    ("events", "started"),
    [
        ([], False),
        ([{"type": "response.created"}, {"type": "response.in_progress"}], False),
        ([{"type": "response.queued"}, {"type": "error", "message": "no"}], False),
        ([{"type": "response.created"}, {"type": "response.output_item.added"}], True),
        ([{"type": "response.heartbeat_of_a_vendor"}], True),
        ([delta("Co")], True),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_an_answer_has_begun_with_the_first_event_that_says_something_of_it(
    events: Events, started: bool, at_once: bool
) -> None:
    a_turn = turn()

    feed(a_turn, events, at_once=at_once)

    assert a_turn.output_started is started


def test_an_item_that_is_done_and_an_event_of_no_type_begin_an_answer_too() -> None:
    with_item, odd = turn(), turn()

    feed(with_item, [done(CALL)])
    odd.feed(RawBatch([b'{"type":5}'], ["5"]))

    assert with_item.output_started
    assert odd.output_started


def test_partial_text_is_what_is_in_no_item() -> None:
    a_turn = turn()

    assert a_turn.partial_text() == ""
    feed(
        a_turn,
        [delta("one ", 0), delta("two", 1, "item_x"), done(assistant_message("one ", item_id="item_0"))],
    )
    assert a_turn.partial_text() == "two"
    feed(a_turn, [delta("!", 1, "item_x")])
    assert a_turn.partial_text() == "two!"
    feed(a_turn, [final()])
    assert a_turn.partial_text() == ""


def test_partial_text_is_told_of_typed_events_and_leaves_out_what_cannot_be_read() -> None:
    a_turn = turn()
    typed = ResponseTextDeltaEvent.model_validate(delta("b") | {"sequence_number": 1, "logprobs": []})
    kind = "response.output_text.delta"

    a_turn.feed(RawBatch([codec.encode(delta("a")), b'{"broken output_text.delta'], [kind, kind]))
    a_turn.feed(RawBatch([typed], [kind]))
    a_turn.feed(
        RawBatch([b'{"type":"response.created","about":"response.output_text.delta"}'], ["response.created"])
    )

    assert a_turn.partial_text() == "ab"


@pytest.mark.parametrize(
    "odd",
    [
        {"delta": None},
        {"delta": 5},
        {"delta": {"a": "b"}},
        {"delta": ["x"]},
        {"delta": "!", "item_id": ["m"]},
        {"delta": "!", "output_index": {"a": 0}},
    ],
    ids=str,
)
@pytest.mark.parametrize("typed", [False, True], ids=["wire", "typed"])
def test_partial_text_is_told_whatever_a_server_sends_as_a_delta(odd: dict[str, Any], typed: bool) -> None:
    a_turn = turn()
    kind = "response.output_text.delta"
    event = ResponseTextDeltaEvent.model_construct(**(delta("") | odd))

    feed(a_turn, [delta("a")])
    a_turn.feed(RawBatch([event if typed else codec.encode(delta("") | odd)], [kind]))
    a_turn.feed(RawBatch([codec.encode({"type": kind})], [kind]))

    assert a_turn.partial_text() in ("a", "a!")


def test_a_server_that_gives_no_ids_writes_one_item_at_a_time() -> None:
    a_turn = turn()
    bare = {"type": "response.output_text.delta", "delta": "x", "content_index": 0}
    ended = {"type": "response.output_item.done", "item": plain(MESSAGE) | {"id": None}}

    feed(a_turn, [bare, ended, bare | {"delta": "y"}])

    assert a_turn.partial_text() == "y"


def test_typed_events_are_read_like_json() -> None:
    a_turn = turn()
    event = ResponseOutputItemDoneEvent(
        type="response.output_item.done", item=MESSAGE, output_index=0, sequence_number=0
    )

    payloads = a_turn.feed(RawBatch([event], ["response.output_item.done"]))

    assert kinds(payloads) == ["output_item.done", "message_output_created"]
    assert a_turn.items[0].raw_item is MESSAGE
