"""Handoffs: how they look to the model, and what happens when it takes one."""

from dataclasses import dataclass
from typing import Any

import pytest
from openai.types.responses import ResponseFunctionToolCall  # noqa: F401  # before the loop starts
from pydantic import BaseModel

from millstream.agent import Agent
from millstream.context import RunContextWrapper
from millstream.errors import ModelBehaviorError, SchemaError, UserError
from millstream.handoff import Handoff, HandoffInputData, handoff


class Reason(BaseModel):
    text: str
    urgent: bool = False


def context() -> RunContextWrapper[Any]:
    return RunContextWrapper("ctx")


@pytest.mark.parametrize(
    ("name", "tool_name"),
    [
        ("Billing", "transfer_to_billing"),
        ("My Agent-1", "transfer_to_my_agent_1"),
        ("Ünï x/y", "transfer_to__n__x_y"),
    ],
)
def test_the_tool_is_named_after_the_agent(name: str, tool_name: str) -> None:
    way = handoff(Agent(name=name))

    assert (way.tool_name, way.agent_name) == (tool_name, name)


def test_the_description_says_whom_and_for_what() -> None:
    described = handoff(Agent(name="Billing", handoff_description="Does bills."))
    plain = handoff(Agent(name="Billing"))

    assert described.tool_description == "Hand over to the Billing agent. Does bills."
    assert plain.tool_description == "Hand over to the Billing agent."


def test_name_and_description_can_be_overridden() -> None:
    way = handoff(Agent(name="b"), "escalate", "Call a human.")

    assert (way.tool_name, way.tool_description) == ("escalate", "Call a human.")


def test_a_handoff_on_the_wire_is_a_function_without_parameters() -> None:
    assert handoff(Agent(name="b")).to_responses_tool() == {
        "type": "function",
        "name": "transfer_to_b",
        "description": "Hand over to the b agent.",
        "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": False},
        "strict": True,
    }


def test_the_history_says_who_took_over() -> None:
    agent = Agent(name='the "b"')

    assert handoff(agent).get_transfer_message(agent) == '{"assistant": "the \\"b\\""}'


async def test_taking_it_leads_to_the_agent() -> None:
    agent = Agent(name="b")

    assert await handoff(agent).on_invoke_handoff(context(), "{}") is agent


async def test_a_callback_is_called_with_the_context() -> None:
    seen: list[Any] = []

    async def later(ctx: RunContextWrapper[Any]) -> None:
        seen.append(("async", ctx.context))

    for callback in (lambda ctx: seen.append(("sync", ctx.context)), later):
        await handoff(Agent(name="b"), on_handoff=callback).on_invoke_handoff(context(), "")

    assert seen == [("sync", "ctx"), ("async", "ctx")]


async def test_a_callback_with_an_input_type_receives_the_validated_input() -> None:
    seen: list[Reason] = []
    way = handoff(Agent(name="b"), on_handoff=lambda ctx, reason: seen.append(reason), input_type=Reason)

    await way.on_invoke_handoff(context(), '{"text": "why", "urgent": true}')

    assert seen == [Reason(text="why", urgent=True)]
    assert way.input_json_schema["required"] == ["text", "urgent"]


@dataclass
class Note:
    text: str


@pytest.mark.parametrize(("kind", "text", "value"), [(int, "3", 3), (Note, '{"text": "x"}', Note("x"))])
async def test_an_input_may_be_of_any_type_with_a_schema(kind: Any, text: str, value: Any) -> None:
    seen: list[Any] = []
    way = handoff(Agent(name="b"), on_handoff=lambda ctx, given: seen.append(given), input_type=kind)

    await way.on_invoke_handoff(context(), text)

    assert seen == [value]


@pytest.mark.parametrize("text", ["", "{", '{"text": 3}', "{}", "[]", "\ud800"])
async def test_an_input_that_is_not_valid_is_the_models_mistake(text: str) -> None:
    way = handoff(Agent(name="b"), on_handoff=lambda ctx, reason: None, input_type=Reason)

    with pytest.raises(ModelBehaviorError, match="handoff to b"):
        await way.on_invoke_handoff(context(), text)


@pytest.mark.parametrize("nothing", ["billing", 3, None, Agent, handoff(Agent(name="b"))])
def test_a_handoff_to_something_that_is_no_agent_is_an_error_at_once(nothing: Any) -> None:
    with pytest.raises(UserError, match="A handoff leads to an Agent, not to"):
        handoff(nothing)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_handoff": 3}, "takes a function, not int"),
        ({"on_handoff": lambda: None}, "called with context"),
        ({"on_handoff": lambda ctx: None, "input_type": int}, "called with context and input"),
        ({"on_handoff": lambda ctx, given: None}, "called with context"),
        ({"input_type": int}, "needs an on_handoff"),
    ],
)
def test_a_callback_that_does_not_fit_is_an_error_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        handoff(Agent(name="b"), **options)


@pytest.mark.parametrize("kind", [object(), dict[str, int]])
def test_an_input_type_without_strict_schema_is_an_error_at_once(kind: Any) -> None:
    with pytest.raises(SchemaError, match="input_type="):
        handoff(Agent(name="b"), on_handoff=lambda ctx, given: None, input_type=kind)


async def test_a_callback_written_in_c_is_taken_on_trust() -> None:
    seen: set[Any] = set()
    unknown: Any = max  # has no signature

    await handoff(Agent(name="b"), on_handoff=seen.add).on_invoke_handoff(context(), "{}")
    assert handoff(Agent(name="b"), on_handoff=unknown).agent_name == "b"

    assert len(seen) == 1


def test_input_data_is_changed_by_copying() -> None:
    data = HandoffInputData("hi", (), ())

    assert data.clone(input_history="ho").input_history == "ho"
    assert data.input_history == "hi"


def test_a_handoff_can_be_written_by_hand() -> None:
    async def invoke(ctx: RunContextWrapper[Any], text: str) -> Agent[Any]:
        return Agent(name="b")

    assert Handoff("t", "d", {}, invoke, "b").is_enabled is True


def test_an_input_without_a_schema_is_refused_with_a_remedy_that_helps() -> None:
    class Opaque: ...

    with pytest.raises(SchemaError, match=r"Opaque.* types that JSON can express") as caught:
        handoff(Agent(name="a"), input_type=Opaque, on_handoff=lambda context, given: None)
    assert "arbitrary_types_allowed" not in str(caught.value)
