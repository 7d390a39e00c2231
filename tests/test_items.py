"""Items: what a run has produced, and how it goes back to the model."""

from typing import Any

import pytest
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage

from millstream import codec
from millstream.agent import Agent
from millstream.errors import AgentsException, ModelBehaviorError
from millstream.events import UserEvent
from millstream.items import (
    AgentRef,
    HandoffOutputItem,
    ItemHelpers,
    MessageOutputItem,
    ModelResponse,
    ToolApprovalItem,
    ToolCallItem,
    ToolCallOutputItem,
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
