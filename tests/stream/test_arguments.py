"""The arguments of tool calls as they form, each piece tied to its call."""

import json
from typing import Any

import pytest

from millstream.events import (
    ModelCompleted,
    ModelRetried,
    RawResponsesStreamEvent,
    RunAttempt,
    RunCancelled,
    ToolStarted,
)
from millstream.log.promise import Payload
from millstream.raw import decode
from millstream.stream.arguments import ToolArguments


def raw(type: str, **fields: Any) -> bytes:
    return json.dumps({"type": f"response.{type}", **fields}, separators=(",", ":")).encode()


def added(index: int | None, call_id: str, name: str = "look", **fields: Any) -> bytes:
    item = {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": ""}
    return raw("output_item.added", output_index=index, item=item | fields)


def delta(index: int | None, text: Any, **fields: Any) -> bytes:
    return raw("function_call_arguments.delta", output_index=index, delta=text, **fields)


def done(index: int, text: Any) -> bytes:
    return raw("function_call_arguments.done", output_index=index, arguments=text)


def item_done(index: int, call_id: str, text: Any) -> bytes:
    item = {"type": "function_call", "call_id": call_id, "name": "look", "arguments": text}
    return raw("output_item.done", output_index=index, item=item)


def pieces(*payloads: Payload) -> list[tuple[str, str, str]]:
    fold = ToolArguments()
    return [(each.call_id, each.delta, each.state) for payload in payloads for each in fold.feed([payload])]


def test_every_piece_is_tied_to_its_call_however_calls_are_interleaved() -> None:
    said = pieces(
        added(0, "a"),
        delta(0, '{"x"'),
        added(1, "b", name="book"),
        delta(1, "{"),
        delta(0, ":1}"),
        done(0, '{"x":1}'),
        item_done(0, "a", '{"x":1}'),
        delta(1, "}"),
        done(1, "{}"),
        item_done(1, "b", "{}"),
    )

    assert said == [
        ("a", '{"x"', "forming"),
        ("b", "{", "forming"),
        ("a", ":1}", "forming"),
        ("a", "", "done"),
        ("b", "}", "forming"),
        ("b", "", "done"),
    ]


def test_a_piece_has_the_name_of_the_tool() -> None:
    (piece,) = ToolArguments().feed([added(0, "a", name="transfer_to_b"), delta(0, "{}")])

    assert piece.tool_name == "transfer_to_b"


@pytest.mark.parametrize("end", [done(0, '{"x":1}'), item_done(0, "a", '{"x":1}')])
def test_what_a_server_tells_only_at_the_end_is_in_the_last_piece(end: bytes) -> None:
    assert pieces(added(0, "a"), end) == [("a", '{"x":1}', "done")]
    assert pieces(added(0, "a"), delta(0, '{"x"'), end) == [("a", '{"x"', "forming"), ("a", ":1}", "done")]


def test_a_server_that_counts_no_items_ties_them_by_their_ids() -> None:
    said = pieces(
        added(None, "a"),
        added(None, "b"),
        delta(None, "{}", item_id="fc_b"),
        delta(None, "[]", item_id="fc_a"),
    )

    assert said == [("b", "{}", "forming"), ("a", "[]", "forming")]


@pytest.mark.parametrize(
    "end",
    [
        ModelRetried(turn=1, attempt=1, reason="x"),
        ModelCompleted(turn=1, status="cancelled"),
        RunCancelled(),
        RunAttempt(number=2, resumed_from=2),
    ],
)
def test_a_call_that_is_void_is_dropped_once(end: Any) -> None:
    said = pieces(added(0, "a"), delta(0, "{"), end, end, delta(0, "}"), done(0, "{}"))

    assert said == [("a", "{", "forming"), ("a", "", "dropped")]


@pytest.mark.parametrize(
    "end", [ModelRetried(turn=1, attempt=1, reason="x"), RunAttempt(number=2, resumed_from=2)]
)
def test_a_call_that_was_done_is_dropped_where_its_answer_is_given_up(end: Any) -> None:
    said = pieces(added(0, "a"), done(0, "{}"), end, added(0, "b"), done(0, "[]"), ModelCompleted(turn=1))

    assert said == [("a", "{}", "done"), ("a", "", "dropped"), ("b", "[]", "done")]


def test_the_next_try_begins_anew() -> None:
    retried = ModelRetried(turn=1, attempt=1, reason="x")

    said = pieces(added(0, "a"), delta(0, "{"), retried, added(0, "b"), delta(0, "{}"), done(0, "{}"))

    assert said[1:] == [("a", "", "dropped"), ("b", "{}", "forming"), ("b", "", "done")]


def test_typed_events_are_read_as_bytes_are() -> None:
    frames = [
        added(0, "a"),
        delta(0, "{}", item_id="fc_a", sequence_number=1),
        raw("function_call_arguments.done", output_index=0, arguments="{}", item_id="fc_a", name="look"),
    ]

    typed = pieces(*(RawResponsesStreamEvent(decode(frame)) for frame in frames))

    assert typed == pieces(*frames) == [("a", "{}", "forming"), ("a", "", "done")]


@pytest.mark.parametrize(
    "odd",
    [
        b"function_call",
        b'["function_call"]',
        b'{"type":"response.output_text.delta","delta":"function_call"}',
        added(0, "a", type="message"),
        raw("output_item.added", output_index=0, item={"type": "function_call", "name": "look"}),
        raw("output_item.added", output_index=0, item=["function_call"]),
        raw("output_item.added", output_index=[0], item="function_call"),
        delta(5, "x"),
        delta(0, 5),
        delta(0, ""),
        done(7, "function_call"),
        ToolStarted(call_id="a", name="look"),
    ],
)
def test_what_cannot_be_tied_to_a_call_is_left_out(odd: Payload) -> None:
    assert pieces(odd, delta(0, "x")) == []


def test_an_end_without_arguments_ends_the_call() -> None:
    assert pieces(added(0, "a"), done(0, None)) == [("a", "", "done")]
