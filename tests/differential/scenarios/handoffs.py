"""Handoffs: what the model is told, who takes over, and what he sees."""

from dataclasses import replace
from typing import Any

from pydantic import BaseModel

from tests.differential.kit import Case, Kit, scenario


class Reason(BaseModel):
    reason: str
    urgent: bool = False


def target(kit: Kit, name: str = "B", **agent: Any) -> Any:
    return kit.Agent(name=name, model=kit.script([kit.say(f"{name} here.")]), **agent)


def handing(kit: Kit, handoff: Any, *calls: Any, **agent: Any) -> Any:
    """An agent whose model makes `calls`, by default that of the handoff to B."""
    model = kit.script(list(calls) or [kit.call("transfer_to_b")])
    return kit.Agent(
        name="A", handoffs=handoff if isinstance(handoff, list) else [handoff], model=model, **agent
    )


@scenario
def a_handoff(kit: Kit) -> Case:
    second = target(kit, instructions="You are B.", handoff_description="Knows B things.")
    return Case(handing(kit, second, instructions="You are A."))


@scenario
def a_handoff_there_and_back(kit: Kit) -> Case:
    first = kit.Agent(name="A", model=kit.script([kit.call("transfer_to_b")], [kit.say("A again.")]))
    second = kit.Agent(
        name="B", handoffs=[first], model=kit.script([kit.call("transfer_to_a", call_id="call_2")])
    )
    first.handoffs = [second]
    return Case(first)


@scenario
def a_handoff_with_text(kit: Kit) -> Case:
    return Case(handing(kit, target(kit), kit.say("B will help."), kit.call("transfer_to_b")))


@scenario
def a_handoff_beside_a_tool(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    calls = [kit.call("look"), kit.call("transfer_to_b", call_id="call_2")]
    return Case(handing(kit, target(kit), *calls, tools=[look]))


@scenario
def a_handoff_before_a_tool(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    calls = [kit.call("transfer_to_b"), kit.call("look", call_id="call_2")]
    return Case(handing(kit, target(kit), *calls, tools=[look]))


@scenario
def several_handoffs_in_one_answer(kit: Kit) -> Case:
    calls = [kit.call("transfer_to_c"), kit.call("transfer_to_b", call_id="call_2")]
    return Case(handing(kit, [target(kit), target(kit, "C")], *calls))


@scenario
def a_name_with_spaces(kit: Kit) -> Case:
    second = target(kit, "Billing Agent (é)")
    return Case(handing(kit, second, kit.call("transfer_to_billing_agent____")))


@scenario
def a_handoff_described_anew(kit: Kit) -> Case:
    made = kit.handoff(target(kit), tool_name_override="to_b", tool_description_override="Ask B.")
    return Case(handing(kit, made, kit.call("to_b")))


@scenario
def a_callback_of_a_handoff(kit: Kit) -> Case:
    made = kit.handoff(target(kit), on_handoff=lambda context: kit.note(context.context))
    return Case(handing(kit, made), options={"context": 4})


@scenario
def a_handoff_with_an_input(kit: Kit) -> Case:
    async def on_handoff(context: Any, data: Reason) -> None:
        kit.note(type(data).__name__, data.reason, data.urgent)

    made = kit.handoff(target(kit), on_handoff=on_handoff, input_type=Reason)
    return Case(handing(kit, made, kit.call("transfer_to_b", {"reason": "asked"})))


@scenario
def a_handoff_with_a_plain_type_as_input(kit: Kit) -> Case:
    made = kit.handoff(target(kit), on_handoff=lambda context, data: kit.note(data), input_type=list[int])
    return Case(handing(kit, made, kit.call("transfer_to_b", "[1, 2]")))


@scenario
def a_handoff_with_a_bad_input(kit: Kit) -> Case:
    made = kit.handoff(target(kit), on_handoff=lambda context, data: None, input_type=Reason)
    return Case(handing(kit, made, kit.call("transfer_to_b", {"urgent": "maybe"})))


@scenario
def a_handoff_with_no_input(kit: Kit) -> Case:
    made = kit.handoff(target(kit), on_handoff=lambda context, data: None, input_type=Reason)
    return Case(handing(kit, made, kit.call("transfer_to_b", "")))


@scenario
def a_callback_that_raises(kit: Kit) -> Case:
    def on_handoff(context: Any) -> None:
        raise ValueError("not now")

    return Case(handing(kit, kit.handoff(target(kit), on_handoff=on_handoff)))


@scenario
def an_input_without_a_callback(kit: Kit) -> Case:
    return Case(handing(kit, kit.handoff(target(kit), input_type=Reason)))


@scenario
def a_callback_that_takes_too_much(kit: Kit) -> Case:
    return Case(handing(kit, kit.handoff(target(kit), on_handoff=lambda context, data: None)))


@scenario
def a_handoff_that_is_not_enabled(kit: Kit) -> Case:
    made = kit.handoff(target(kit), is_enabled=lambda context, agent: context.context)
    return Case(handing(kit, made, kit.say("I stay.")), options={"context": False})


@scenario
def a_handoff_that_is_enabled_by_a_coroutine(kit: Kit) -> Case:
    async def enabled(context: Any, agent: Any) -> bool:
        kit.note(agent.name)
        return True

    return Case(handing(kit, kit.handoff(target(kit), is_enabled=enabled)))


@scenario
def a_filter_that_hides_tools(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    def only_input(data: Any) -> Any:
        history = data.input_history
        kit.note(history if isinstance(history, str) else [dict(each) for each in history])
        kit.note([each.type for each in data.pre_handoff_items], [each.type for each in data.new_items])
        return replace(data, pre_handoff_items=(), new_items=())

    made = kit.handoff(target(kit), input_filter=only_input)
    model = kit.script([kit.say("I look."), kit.call("look")], [kit.call("transfer_to_b", call_id="call_2")])
    return Case(kit.Agent(name="A", tools=[look], handoffs=[made], model=model))


@scenario
def a_filter_that_changes_the_history(kit: Kit) -> Case:
    async def anew(data: Any) -> Any:
        return data.clone(input_history=({"role": "user", "content": "Anew."},))

    return Case(handing(kit, kit.handoff(target(kit), input_filter=anew)))


@scenario
def a_filter_that_sets_input_items(kit: Kit) -> Case:
    def messages(data: Any) -> Any:
        kept = tuple(each for each in data.new_items if each.type == "message_output_item")
        return data.clone(input_items=kept)

    made = kit.handoff(target(kit), input_filter=messages)
    return Case(handing(kit, made, kit.say("B will help."), kit.call("transfer_to_b")))


@scenario
def a_filter_of_the_run(kit: Kit) -> Case:
    def shout(data: Any) -> Any:
        return data.clone(input_history=data.input_history.upper())

    config = kit.RunConfig(handoff_input_filter=shout)
    return Case(handing(kit, target(kit)), options={"run_config": config})


@scenario
def a_filter_of_the_handoff_beside_one_of_the_run(kit: Kit) -> Case:
    made = kit.handoff(target(kit), input_filter=lambda data: data.clone(input_history="The handoff's."))
    config = kit.RunConfig(handoff_input_filter=lambda data: data.clone(input_history="The run's."))
    return Case(handing(kit, made), options={"run_config": config})


@scenario
def a_filter_that_gives_something_else(kit: Kit) -> Case:
    return Case(handing(kit, kit.handoff(target(kit), input_filter=lambda data: None)))


@scenario
def a_filter_that_raises(kit: Kit) -> Case:
    def fail(data: Any) -> Any:
        raise LookupError("no history")

    return Case(handing(kit, kit.handoff(target(kit), input_filter=fail)))


@scenario
def a_filter_and_a_conversation(kit: Kit) -> Case:
    made = kit.handoff(target(kit), input_filter=lambda data: data)
    return Case(handing(kit, made), options={"conversation_id": "conv_1"})


def nesting(kit: Kit, config: Any, **handoff: Any) -> Case:
    """A uses a tool, hands over to B, who hands over to C."""

    @kit.function_tool
    def look() -> str:
        return "seen"

    third = target(kit, "C")
    middle = kit.script([kit.say("C knows."), kit.call("transfer_to_c", call_id="call_3")])
    second = kit.Agent(name="B", handoffs=[third], model=middle)
    model = kit.script(
        [kit.say("I look."), kit.call("look")],
        [kit.say("B knows."), kit.call("transfer_to_b", call_id="call_2")],
    )
    first = kit.Agent(name="A", tools=[look], handoffs=[kit.handoff(second, **handoff)], model=model)
    given = [{"role": "user", "content": "Where is it?"}, {"role": "assistant", "content": "Where is what?"}]
    return Case(first, given, {"run_config": config})


@scenario
def a_nested_history(kit: Kit) -> Case:
    return nesting(kit, kit.RunConfig(nest_handoff_history=True))


@scenario
def a_history_that_one_handoff_nests(kit: Kit) -> Case:
    return nesting(kit, kit.RunConfig(), nest_handoff_history=True)


@scenario
def a_history_that_one_handoff_does_not_nest(kit: Kit) -> Case:
    return nesting(kit, kit.RunConfig(nest_handoff_history=True), nest_handoff_history=False)


@scenario
def a_history_nested_in_a_way_of_ones_own(kit: Kit) -> Case:
    def mapper(items: list[Any]) -> list[Any]:
        kit.note([each.get("type", each.get("role")) for each in items])
        return [{"role": "user", "content": f"{len(items)} items"}]

    return nesting(kit, kit.RunConfig(nest_handoff_history=True, handoff_history_mapper=mapper))


@scenario
def a_history_nested_in_a_way_that_gives_no_items(kit: Kit) -> Case:
    config = kit.RunConfig(nest_handoff_history=True, handoff_history_mapper=lambda items: "all of it")
    return Case(handing(kit, target(kit)), options={"run_config": config})


@scenario
def a_nested_history_and_a_conversation(kit: Kit) -> Case:
    config = kit.RunConfig(nest_handoff_history=True)
    return Case(handing(kit, target(kit)), options={"run_config": config, "conversation_id": "conv_1"})


@scenario
def a_filter_that_removes_all_tools(kit: Kit) -> Case:
    return nesting(kit, kit.RunConfig(), input_filter=kit.remove_all_tools)


@scenario
def a_handoff_of_a_clone(kit: Kit) -> Case:
    second = target(kit).clone(name="C", instructions="You are C.")
    return Case(handing(kit, second, kit.call("transfer_to_c")))


@scenario
def a_handoff_made_by_hand(kit: Kit) -> Case:
    second = target(kit)

    async def invoke(context: Any, arguments: str) -> Any:
        kit.note(arguments)
        return second

    made = kit.Handoff(
        tool_name="to_b",
        tool_description="Ask B.",
        input_json_schema={"type": "object", "properties": {}},
        on_invoke_handoff=invoke,
        agent_name="B",
    )
    return Case(handing(kit, made, kit.call("to_b", '{"x": 1}')))


@scenario
def an_output_type_of_the_next_agent(kit: Kit) -> Case:
    second = kit.Agent(name="B", output_type=int, model=kit.script([kit.say('{"response": 4}')]))
    return Case(handing(kit, second))


@scenario
def a_handoff_that_is_the_last_turn(kit: Kit) -> Case:
    return Case(handing(kit, target(kit)), options={"max_turns": 1})


@scenario
def a_tool_and_a_handoff_of_one_name(kit: Kit) -> Case:
    @kit.function_tool
    def transfer_to_b() -> str:
        return "a tool"

    return Case(handing(kit, target(kit), tools=[transfer_to_b]))


@scenario
def no_agent_at_all_in_the_handoffs(kit: Kit) -> Case:
    return Case(handing(kit, "B"))
