"""The closed table: every event and entry goes to JSON and back, whatever it carries."""

import asyncio
import dataclasses
import json
from typing import Any

import pytest
from openai.types.responses.response_output_item import McpApprovalRequest, McpListTools

from millstream import codec, events
from millstream.errors import DecodeError
from millstream.events import (
    EVENT_TYPES,
    ITEM_EVENT_NAMES,
    TERMINAL_TYPES,
    AgentUpdatedStreamEvent,
    Entry,
    GuardrailResult,
    InputAdded,
    ModelCompleted,
    ModelRetried,
    ModelStarted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunCancelled,
    RunCompleted,
    RunDecided,
    RunFailed,
    RunItemStreamEvent,
    RunPaused,
    RunResumed,
    RunStarted,
    Stamp,
    TextRetracted,
    ToolFinished,
    ToolPartial,
    ToolProgress,
    ToolStarted,
    UserEvent,
    event_from_json,
)
from millstream.items import (
    ITEM_TYPES,
    AgentRef,
    HandoffCallItem,
    HandoffOutputItem,
    InputItem,
    MCPApprovalRequestItem,
    MCPApprovalResponseItem,
    MCPListToolsItem,
    MessageOutputItem,
    ReasoningItem,
    ToolApprovalItem,
    ToolCallItem,
    ToolCallOutputItem,
)
from millstream.testing import (
    AwkwardValue,
    ScriptedModel,
    assistant_message,
    awkward_values,
    function_call,
    reasoning,
)

AGENT: Any = AgentRef("helper")
OTHER: Any = AgentRef("other")
CALL = function_call("search", {"q": "ß"}, call_id="call_1")
OUTPUT: Any = {"type": "function_call_output", "call_id": "call_1", "output": "found"}
USAGE = {"requests": 1, "input_tokens": 2, "output_tokens": 3, "total_tokens": 5}

ITEMS: list[Any] = [
    MessageOutputItem(AGENT, assistant_message("hi\u2028there")),
    ReasoningItem(AGENT, reasoning("hm")),
    ToolCallItem(AGENT, CALL, description="searches", title="Search"),
    ToolCallOutputItem(AGENT, OUTPUT, output={"n": [1, None]}, custom_data={"k": 1}),
    HandoffCallItem(AGENT, CALL),
    HandoffOutputItem(AGENT, OUTPUT, source_agent=AGENT, target_agent=OTHER),
    MCPListToolsItem(AGENT, McpListTools(type="mcp_list_tools", id="l", server_label="s", tools=[])),
    MCPApprovalRequestItem(
        AGENT,
        McpApprovalRequest(type="mcp_approval_request", id="a", arguments="{}", name="f", server_label="s"),
    ),
    MCPApprovalResponseItem(AGENT, {"type": "mcp_approval_response", "approval_request_id": "a"}),
    ToolApprovalItem(AGENT, CALL, tool_name="search"),
    InputItem(AGENT, {"role": "user", "content": "more"}),
]
EVENTS: list[Any] = [
    RawResponsesStreamEvent.from_wire(b'{"type":"response.audio.delta","sequence_number":1,"delta":"x"}'),
    RawResponsesStreamEvent.from_wire(b'{"type":"response.invented","x":[1,{"y":null}]}'),
    *(RunItemStreamEvent(item=item) for item in ITEMS),
    AgentUpdatedStreamEvent(AGENT),
    RunStarted(agent="helper", family="team", input=[{"role": "user", "content": "hi"}]),
    RunAttempt(number=2, resumed_from=17),
    RunPaused(interruptions=({"call_id": "c"},)),
    RunDecided(call_id="c", decision="approved", message="fine"),
    RunResumed(of="run_0"),
    RunCompleted(output={"answer": 42}, usage=USAGE),
    RunFailed(code="tripwire", message="No.", error_id="e1", retryable=True, partial="So", usage=USAGE),
    RunCancelled(mode="after_tool", partial="So f", usage=USAGE),
    ModelStarted(turn=1, model="m"),
    ModelCompleted(turn=1, status="failed", response_id="r", usage=USAGE),
    ModelRetried(turn=1, attempt=2, reason="rate limit", delay=0.5),
    ToolStarted(call_id="c", name="search"),
    ToolProgress(call_id="c", name="search", data={"done": 0.5}),
    ToolPartial(call_id="c", name="search", data="piece"),
    ToolFinished(call_id="c", name="search", status="error", code="tool_timeout", ms=12.5),
    GuardrailResult(guardrail="g", stage="input", tripped=True, info={"why": "x"}),
    TextRetracted(item_id="m", from_position=3),
    InputAdded(input="more"),
    UserEvent(name="mine", data=[1, 2]),
]


def name_of(event: Any) -> str:
    return f"{event.type}:{event.name}" if isinstance(event, RunItemStreamEvent) else event.type


def test_every_type_of_the_table_is_tested_here() -> None:
    assert {event.type for event in EVENTS} == EVENT_TYPES.keys()
    assert {item.type for item in ITEMS} == ITEM_TYPES.keys() == ITEM_EVENT_NAMES.keys()


@pytest.mark.parametrize("event", EVENTS, ids=name_of)
def test_an_event_comes_back_from_its_json(event: Any) -> None:
    data = event.to_json()

    back = event_from_json(data)

    assert type(back) is type(event)
    assert back == event
    assert back.to_json() == data
    assert event_from_json(data.decode()) == event


@pytest.mark.parametrize("event", EVENTS, ids=name_of)
def test_the_json_of_an_event_has_its_type_first_and_is_one_clean_line(event: Any) -> None:
    data = event.to_json()

    assert data.startswith(b'{"type":"%b"' % event.type.encode())
    assert codec.is_clean(data)
    assert json.loads(data)["type"] == event.type


@pytest.mark.parametrize("event", EVENTS, ids=name_of)
def test_an_entry_comes_back_from_its_json(event: Any) -> None:
    entry = Entry(7, Stamp("run_1", "helper", 2, 1, "run_0", 1700000000.25), event)

    data = entry.to_json()
    back = Entry.from_json(data)

    assert codec.is_clean(data)
    assert back == entry
    assert back.to_json() == data
    assert {name: json.loads(data)[name] for name in ("position", "run_id", "parent_run_id", "turn")} == {
        "position": 7,
        "run_id": "run_1",
        "parent_run_id": "run_0",
        "turn": 2,
    }
    assert (back.type, back.run_id, back.parent_run_id, back.agent, back.turn, back.depth, back.time) == (
        event.type,
        "run_1",
        "run_0",
        "helper",
        2,
        1,
        1700000000.25,
    )


@pytest.mark.parametrize("event", EVENTS, ids=name_of)
def test_only_terminal_events_end_a_run(event: Any) -> None:
    entry = Entry(1, Stamp("r", "a"), event)

    assert entry.is_terminal == isinstance(event, RunCompleted | RunFailed | RunCancelled)
    assert entry.is_terminal == (event.type in TERMINAL_TYPES)


@pytest.mark.parametrize("event", [e for e in EVENTS if not e.type.endswith("_event")], ids=name_of)
def test_our_own_events_cannot_be_changed(event: Any) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.type = "other"


async def test_a_whole_scripted_stream_comes_back() -> None:
    model = ScriptedModel([[reasoning("let me see"), assistant_message("Hello there"), CALL]])
    nothing: Any = None

    stream = model.stream_response(
        None,
        "hi",
        nothing,
        [],
        None,
        [],
        nothing,
        previous_response_id=None,
        conversation_id=None,
        prompt=None,
    )
    seen = [RawResponsesStreamEvent(event) async for event in stream]

    back = [event_from_json(event.to_json()) for event in seen]
    assert back == seen
    assert [type(event.data) for event in back if isinstance(event, RawResponsesStreamEvent)] == [
        type(event.data) for event in seen
    ]


# --- total ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("awkward", awkward_values(), ids=lambda a: a.name)
def test_awkward_values_are_marked_in_their_place_and_the_rest_is_whole(awkward: AwkwardValue) -> None:
    value: Any = awkward.value
    carriers: list[Any] = [
        ToolProgress(call_id="c", name="search", data=value),
        RunCompleted(output=value, usage=USAGE),
        RunItemStreamEvent(item=ToolCallOutputItem(AGENT, OUTPUT, output=value)),
    ]

    written = [event.to_json() for event in carriers]

    progress, completed, item = (event_from_json(data) for data in written)
    assert isinstance(progress, ToolProgress)
    assert isinstance(completed, RunCompleted)
    assert isinstance(item, RunItemStreamEvent)
    assert (progress.call_id, progress.name) == ("c", "search")
    assert (completed.usage, completed.state) == (USAGE, "completed")
    assert item.item.raw_item == OUTPUT
    assert [event.to_json() for event in (progress, completed, item)] == written


@pytest.mark.parametrize(
    ("output", "is_written"), [("found", False), ("other", True), (None, True), (["found"], True)], ids=str
)
def test_an_output_is_written_once_where_the_model_was_sent_that_very_text(
    output: Any, is_written: bool
) -> None:
    event: Any = RunItemStreamEvent(item=ToolCallOutputItem(AGENT, OUTPUT, output=output))

    data = event.to_json()

    assert ("output" in json.loads(data)["item"]) is is_written
    assert event_from_json(data) == event


def test_an_output_of_many_megabytes_is_cut_and_its_neighbours_are_whole() -> None:
    text = "x" * 20_000_000
    raw: Any = {"call_id": "call_1", "output": text, "type": "function_call_output"}
    event: Any = RunItemStreamEvent(item=ToolCallOutputItem(AGENT, raw, output=text, custom_data={"k": 1}))

    back: Any = event_from_json(event.to_json())

    assert (back.item.call_id, back.item.raw_item["type"]) == ("call_1", "function_call_output")
    assert back.item.raw_item["output"].startswith("x" * 16_000_000)
    assert back.item.output == back.item.raw_item["output"]
    assert back.item.custom_data == {"k": 1}


# --- the spellings of the SDK and of those who remember it ----------------------------------------------


def test_an_item_event_derives_its_name() -> None:
    named = {item.type: RunItemStreamEvent(item=item).name for item in ITEMS}

    assert named == ITEM_EVENT_NAMES
    assert named["handoff_output_item"] == "handoff_occured", "as the SDK spells it"


def test_a_name_that_is_given_stays() -> None:
    assert RunItemStreamEvent("tool_search_called", ITEMS[2]).name == "tool_search_called"
    assert RunItemStreamEvent(name="x", item=ITEMS[2], type="run_item").type == "run_item_stream_event"


def test_data_of_a_raw_event_answers_to_event_too() -> None:
    data: Any = assistant_message("any object will do")

    for event in (RawResponsesStreamEvent(data), RawResponsesStreamEvent(event=data, type="raw_response")):
        assert event.data is event.event is data
        assert event.type == "raw_response_event"


def test_the_new_agent_answers_to_agent_too() -> None:
    for event in (AgentUpdatedStreamEvent(AGENT), AgentUpdatedStreamEvent(agent=AGENT, type="agent_updated")):
        assert event.new_agent is event.agent is AGENT
        assert event.type == "agent_updated_stream_event"


# --- raw events ---------------------------------------------------------------------------------------------


def test_a_raw_event_is_decoded_once_and_only_when_looked_at() -> None:
    broken = RawResponsesStreamEvent.from_wire(b"{")
    good = RawResponsesStreamEvent.from_wire(b'{"type":"response.audio.delta","delta":"x"}')

    assert broken.to_json() == b'{"type":"raw_response_event","data":{}'
    with pytest.raises(DecodeError):
        _ = broken.data
    assert good.data is good.data
    assert good.json == b'{"type":"response.audio.delta","delta":"x"}'
    assert "audio.delta" in repr(good)


def test_raw_events_compare_by_what_they_carry() -> None:
    one = RawResponsesStreamEvent.from_wire(b'{"type":"response.audio.delta","delta":"x"}')
    same = RawResponsesStreamEvent.from_wire(b'{"delta": "x", "type": "response.audio.delta"}')
    other = RawResponsesStreamEvent.from_wire(b'{"type":"response.audio.delta","delta":"y"}')

    assert one == same
    assert one != other
    assert one != "text"


def test_a_raw_event_without_data_has_none() -> None:
    event = RawResponsesStreamEvent()

    assert event.data is None
    assert event.to_json() == b'{"type":"raw_response_event","data":null}'


def test_events_that_were_made_without_their_content_are_written_all_the_same() -> None:
    assert RunItemStreamEvent().to_json() == b'{"type":"run_item_stream_event","name":"","item":null}'
    assert AgentUpdatedStreamEvent().to_json() == (
        b'{"type":"agent_updated_stream_event","new_agent":{"name":null}}'
    )


# --- what is no event -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "An event is a JSON object, not list."),
        ("7", "An event is a JSON object, not int."),
        ("{}", "None is not the type of an event."),
        ('{"type":"run.invented"}', "'run.invented' is not the type of an event."),
        ('{"type":["run.started"]}', "is not the type of an event."),
        ('{"type":"tool.started","name":"x"}', "call_id"),
        ('{"type":"run_item_stream_event"}', "An item is a JSON object, not NoneType."),
        ('{"type":"run_item_stream_event","item":{"type":"odd"}}', "'odd' is not the type of an item."),
        ('{"type":"run_item_stream_event","item":{"type":"handoff_output_item"}}', "source_agent"),
        ('{"type":"agent_updated_stream_event"}', "An agent is a JSON object, not NoneType."),
        ("{", "Not JSON"),
    ],
)
def test_what_is_no_event_is_one_error(text: str, says: str) -> None:
    with pytest.raises(DecodeError) as caught:
        event_from_json(text)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{}", "run_id"),
        ("[]", "An entry is a JSON object"),
        (
            '{"position":1,"run_id":"r","agent":"a","turn":0,"depth":0,"parent_run_id":null,"time":0}',
            "'event'",
        ),
    ],
)
def test_what_is_no_entry_is_one_error(text: str, says: str) -> None:
    with pytest.raises(DecodeError) as caught:
        Entry.from_json(text)

    assert says in str(caught.value)


def test_fields_of_a_later_version_are_left_out() -> None:
    started: Any = event_from_json('{"type":"tool.started","call_id":"c","name":"n","new":1}')
    item: Any = event_from_json(
        '{"type":"run_item_stream_event","name":"x","new":1,'
        '"item":{"type":"input_item","agent":{"name":"a"},"raw_item":{},"new":1}}'
    )

    assert started == ToolStarted(call_id="c", name="n")
    assert item.item == InputItem(AgentRef("a"), {})  # pyright: ignore[reportArgumentType]


def test_the_table_in_the_head_of_the_module_names_every_type() -> None:
    head = events.__doc__ or ""

    assert [kind for kind in EVENT_TYPES if kind not in head] == []


def test_an_event_may_cross_tasks() -> None:
    async def other_task() -> bytes:
        return await asyncio.create_task(asyncio.to_thread(EVENTS[0].to_json))

    assert asyncio.run(other_task()) == EVENTS[0].to_json()
