"""Items: what a run has produced, and how it goes back to the model."""

import gc
import weakref
from typing import Any

import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

from millstream import codec
from millstream.agent import Agent
from millstream.errors import AgentsException, ModelBehaviorError
from millstream.events import RunItemStreamEvent, UserEvent, event_from_json
from millstream.items import (
    AgentRef,
    HandoffOutputItem,
    InputItem,
    ItemHelpers,
    MessageOutputItem,
    ModelResponse,
    ToolApprovalItem,
    ToolCallItem,
    ToolCallOutputItem,
    ToolOrigin,
    ToolOriginType,
)
from millstream.testing import CANARY, assistant_message, function_call, reasoning, refusal
from millstream.usage import Usage

AGENT: Any = AgentRef("helper")
CALL = function_call("search", '{"q":1}', call_id="call_1")


def message(*parts: dict[str, Any]) -> Any:
    return ResponseOutputMessage.model_validate(
        {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": list(parts)}
    )


def text(value: str) -> dict[str, Any]:
    return {"type": "output_text", "text": value, "annotations": []}


def no(value: str) -> dict[str, Any]:
    return {"type": "refusal", "refusal": value}


# --- back to the model ------------------------------------------------------------------------


def test_an_item_goes_back_with_the_fields_that_were_sent() -> None:
    assert ToolCallItem(AGENT, CALL).to_input_item() == {
        "type": "function_call",
        "id": "call_1",
        "call_id": "call_1",
        "name": "search",
        "arguments": '{"q":1}',
    }


def test_an_item_goes_back_under_the_names_of_the_wire() -> None:
    sent = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}", "async": True}

    assert ToolCallItem(AGENT, ResponseFunctionToolCall.model_validate(sent)).to_input_item() == sent


def test_an_item_that_is_a_dict_goes_back_as_a_copy() -> None:
    raw: Any = {"type": "function_call_output", "call_id": "c", "output": "x"}
    item = ToolCallOutputItem(AGENT, raw, output="x")

    sent: Any = item.to_input_item()
    sent["output"] = "changed"

    assert raw["output"] == "x"
    assert item.call_id == "c"


def test_what_is_neither_goes_nowhere() -> None:
    with pytest.raises(AgentsException, match="int"):
        ToolCallItem(AGENT, 5).to_input_item()


def test_a_response_goes_back_item_by_item() -> None:
    response = ModelResponse([assistant_message("hi"), CALL], Usage(), "resp_1")

    kinds = [item.get("type") for item in response.to_input_items()]

    assert kinds == ["message", "function_call"]
    assert (response.request_id, response.raw_usage) == (None, None)


# --- what items tell of themselves ----------------------------------------------------------------


@pytest.mark.parametrize("raw", [CALL, CALL.model_dump()], ids=["typed", "dict"])
def test_a_call_names_its_tool(raw: Any) -> None:
    item = ToolCallItem(AGENT, raw)

    assert (item.tool_name, item.call_id, item.type) == ("search", "call_1", "tool_call_item")


def test_a_hosted_call_is_known_by_its_id() -> None:
    item = ToolCallItem(AGENT, {"type": "web_search_call", "id": "ws_1", "status": "completed"})

    assert (item.tool_name, item.call_id) == (None, "ws_1")


def test_an_approval_tells_what_is_to_be_approved() -> None:
    item = ToolApprovalItem(AGENT, CALL)

    assert (item.name, item.arguments, item.call_id) == ("search", '{"q":1}', "call_1")
    assert ToolApprovalItem(AGENT, CALL, tool_name="other").name == "other"


def test_a_handoff_names_both_sides() -> None:
    item = HandoffOutputItem(AGENT, {}, source_agent=AGENT, target_agent=AgentRef("other"))  # pyright: ignore[reportArgumentType]

    assert (item.source_agent.name, item.target_agent.name) == ("helper", "other")


def test_an_item_anywhere_in_an_event_tells_of_its_agents_only_their_names() -> None:
    helper, other = (Agent(name=name, instructions=CANARY) for name in ("helper", "other"))
    item = HandoffOutputItem(helper, {"type": "x"}, source_agent=helper, target_agent=other)  # pyright: ignore[reportArgumentType]

    data = UserEvent(name="mine", data=[item]).to_json()

    assert codec.decode(data)["data"] == [
        {
            "type": "handoff_output_item",
            "agent": {"name": "helper"},
            "raw_item": {"type": "x"},
            "source_agent": {"name": "helper"},
            "target_agent": {"name": "other"},
        }
    ]


# --- readers ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("item", "last_content", "last_text", "all_text", "refused"),
    [
        (message(text("a"), text("b")), "b", "b", "ab", None),
        (message(text("a"), no("n")), "n", None, "a", "n"),
        (message(no("n"), no("o")), "o", None, None, "no"),
        (message(text("")), "", "", None, None),
        (message(), "", None, None, None),
        (refusal("n"), "n", None, None, "n"),
        (CALL, "", None, None, None),
        (reasoning("hm"), "", None, None, None),
        ({"type": "message"}, "", None, None, None),
    ],
)
def test_what_is_read_off_a_message(
    item: Any, last_content: str, last_text: str | None, all_text: str | None, refused: str | None
) -> None:
    assert ItemHelpers.extract_last_content(item) == last_content
    assert ItemHelpers.extract_last_text(item) == last_text
    assert ItemHelpers.extract_text(item) == all_text
    assert ItemHelpers.extract_refusal(item) == refused


def test_a_message_that_ends_in_something_else_is_an_error() -> None:
    odd: Any = ResponseOutputMessage.construct(None, type="message", content=[CALL])

    with pytest.raises(ModelBehaviorError, match="Unexpected content type"):
        ItemHelpers.extract_last_content(odd)


def test_the_text_of_many_items_is_joined() -> None:
    items: list[Any] = [
        MessageOutputItem(AGENT, message(text("a"), text("b"))),
        ToolCallItem(AGENT, CALL),
        MessageOutputItem(AGENT, message(no("n"))),
        MessageOutputItem(AGENT, message(text("c"))),
    ]

    assert ItemHelpers.text_message_outputs(items) == "abc"
    assert ItemHelpers.text_message_output(items[2]) == ""


def test_input_becomes_a_list_that_the_caller_may_change() -> None:
    given: Any = [{"role": "user", "content": ["x"]}]

    made: Any = ItemHelpers.input_to_new_input_list(given)
    made[0]["content"].append("y")

    assert given == [{"role": "user", "content": ["x"]}]
    assert ItemHelpers.input_to_new_input_list("hi") == [{"content": "hi", "role": "user"}]


def test_an_output_answers_its_call() -> None:
    assert ItemHelpers.tool_call_output_item(CALL, "found") == {
        "type": "function_call_output",
        "call_id": "call_1",
        "output": "found",
    }


# --- letting go of agents -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda agent: MessageOutputItem(agent, message()),
        lambda agent: HandoffOutputItem(agent, {}, source_agent=agent, target_agent=agent),
    ],
    ids=["one agent", "three"],
)
def test_an_item_that_is_released_keeps_no_agent_but_its_name(make: Any) -> None:
    agent = Agent(name="big")
    item = make(agent)
    before = repr(item)

    item.release_agent()
    item.release_agent()

    assert item.agent is agent
    assert (item == make(agent), repr(item)) == (True, before)
    kept = weakref.ref(agent)
    del agent
    gc.collect()
    assert kept() is None
    assert item.agent == AgentRef("big")
    assert '"agent":{"name":"big"}' in codec.encode(item).decode()
    assert getattr(item, "target_agent", AgentRef("big")) == AgentRef("big")
    with pytest.raises(AttributeError, match="no attribute 'agents'"):
        item.agents  # noqa: B018


def test_an_item_without_an_agent_may_be_released() -> None:
    item = MessageOutputItem(None, message())  # pyright: ignore[reportArgumentType]

    item.release_agent()

    assert item.agent is None


# --- where tools come from ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "data"),
    [
        (ToolOrigin(ToolOriginType.FUNCTION), {"type": "function"}),
        (ToolOrigin(ToolOriginType.MCP, mcp_server_name="files"), {"type": "mcp", "mcp_server_name": "files"}),
        (
            ToolOrigin(ToolOriginType.AGENT_AS_TOOL, agent_name="B", agent_tool_name="ask"),
            {"type": "agent_as_tool", "agent_name": "B", "agent_tool_name": "ask"},
        ),
    ],
)  # fmt: skip
def test_an_origin_is_written_and_read_back(origin: ToolOrigin, data: dict[str, str]) -> None:
    assert origin.to_json_dict() == data
    assert ToolOrigin.from_json_dict(data) == origin
    event = RunItemStreamEvent(item=ToolCallItem(AGENT, CALL, tool_origin=origin))
    assert event_from_json(event.to_json()).item.tool_origin == origin  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("data", [None, "function", {}, {"type": "new"}, {"type": 3}, {"type": []}])
def test_what_is_no_origin_is_none(data: Any) -> None:
    assert ToolOrigin.from_json_dict(data) is None


def test_an_origin_takes_names_that_are_text() -> None:
    assert ToolOrigin.from_json_dict({"type": "mcp", "agent_name": 3}) == ToolOrigin(ToolOriginType.MCP)


def test_an_approval_names_the_namespace_of_its_tool() -> None:
    assert ToolApprovalItem(AGENT, CALL).qualified_name == "search"
    assert ToolApprovalItem(AGENT, CALL, tool_namespace="web").qualified_name == "web.search"


def test_every_input_has_an_id() -> None:
    assert InputItem(AGENT, {}).input_id != InputItem(AGENT, {}).input_id
    assert InputItem(AGENT, {}) == InputItem(AGENT, {})


def test_an_output_is_for_the_program_that_called() -> None:
    caller = {"type": "program", "caller_id": "1"}

    assert ItemHelpers.copy_tool_call_caller({"caller": caller}, {"output": "x"}) == {
        "output": "x",
        "caller": caller,
    }
    assert ItemHelpers.copy_tool_call_caller(CALL, {"output": "x"}) == {"output": "x"}
