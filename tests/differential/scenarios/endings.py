"""How runs end: turns used up, models that fail, handlers, and cancellation."""

from typing import Any

from tests.differential.kit import Case, Kit, scenario
from tests.differential.scenarios.answers import message, refusal


def looking(kit: Kit, turns: int = 9, **agent: Any) -> Any:
    """An agent whose model calls a tool in every turn."""

    @kit.function_tool
    def look(n: int) -> str:
        return f"seen {n}"

    steps = [[kit.call("look", {"n": n}, f"call_{n}")] for n in range(1, turns + 1)]
    return kit.Agent(name="A", tools=[look], model=kit.script(*steps, [kit.say("Done.")]), **agent)


# --- turns ----------------------------------------------------------------------------------


@scenario
def too_many_turns(kit: Kit) -> Case:
    return Case(looking(kit), options={"max_turns": 2})


@scenario
def as_many_turns_as_allowed(kit: Kit) -> Case:
    return Case(looking(kit, 2), options={"max_turns": 3})


@scenario
def turns_without_limit(kit: Kit) -> Case:
    return Case(looking(kit, 12), options={"max_turns": None})


@scenario
def the_default_limit_of_turns(kit: Kit) -> Case:
    return Case(looking(kit, 12))


@scenario
def no_turns_at_all(kit: Kit) -> Case:
    return Case(looking(kit), options={"max_turns": 0})


# --- handlers -------------------------------------------------------------------------------


def told(kit: Kit, given: Any) -> None:
    """Note what an error handler was called with."""
    data = given.run_data
    kit.note(type(given.error).__name__, str(given.error), given.context.context)
    kit.note(data.input, data.last_agent.name, data.history, data.output)
    kit.note(len(data.raw_responses), [each.type for each in data.new_items])


@scenario
def a_handler_of_too_many_turns(kit: Kit) -> Case:
    def handle(given: Any) -> Any:
        told(kit, given)
        return kit.RunErrorHandlerResult(final_output="So far.")

    return Case(looking(kit), options={"max_turns": 2, "error_handlers": {"max_turns": handle}})


@scenario
def a_handler_whose_output_stays_out_of_the_history(kit: Kit) -> Case:
    async def handle(given: Any) -> Any:
        return kit.RunErrorHandlerResult(final_output="So far.", include_in_history=False)

    return Case(looking(kit), options={"max_turns": 1, "error_handlers": {"max_turns": handle}})


@scenario
def a_handler_that_gives_a_dict(kit: Kit) -> Case:
    handlers = {"max_turns": lambda given: {"final_output": "So far.", "include_in_history": False}}
    return Case(looking(kit), options={"max_turns": 1, "error_handlers": handlers})


@scenario
def a_handler_that_gives_the_output_itself(kit: Kit) -> Case:
    handlers = {"max_turns": lambda given: "So far."}
    return Case(looking(kit), options={"max_turns": 1, "error_handlers": handlers})


@scenario
def a_handler_that_gives_nothing(kit: Kit) -> Case:
    handlers = {"max_turns": lambda given: None}
    return Case(looking(kit), options={"max_turns": 1, "error_handlers": handlers})


@scenario
def a_handler_that_raises(kit: Kit) -> Case:
    def handle(given: Any) -> Any:
        raise ValueError("cannot handle it")

    return Case(looking(kit), options={"max_turns": 1, "error_handlers": {"max_turns": handle}})


@scenario
def a_handler_with_an_output_type(kit: Kit) -> Case:
    agent = looking(kit, output_type=list[int])
    handlers = {"max_turns": lambda given: kit.RunErrorHandlerResult(final_output=[1, 2])}
    return Case(agent, options={"max_turns": 1, "error_handlers": handlers})


@scenario
def a_handler_that_misses_the_output_type(kit: Kit) -> Case:
    agent = looking(kit, output_type=list[int])
    handlers = {"max_turns": lambda given: kit.RunErrorHandlerResult(final_output="none")}
    return Case(agent, options={"max_turns": 1, "error_handlers": handlers})


@scenario
def a_handler_of_refusals(kit: Kit) -> Case:
    def handle(given: Any) -> Any:
        told(kit, given)
        return kit.RunErrorHandlerResult(final_output="It would not.")

    agent = kit.Agent(name="A", model=kit.script([message(refusal("No."))]))
    return Case(agent, options={"error_handlers": {"model_refusal": handle}})


@scenario
def a_handler_of_invalid_outputs(kit: Kit) -> Case:
    def handle(given: Any) -> Any:
        kit.note(type(given.error).__name__)
        return kit.RunErrorHandlerResult(final_output=0)

    agent = kit.Agent(name="A", output_type=int, model=kit.script([kit.say("three")]))
    return Case(agent, options={"error_handlers": {"invalid_final_output": handle}})


@scenario
def a_handler_of_something_else(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([message(refusal("No."))]))
    return Case(agent, options={"error_handlers": {"max_turns": lambda given: "So far."}})


@scenario
def a_handler_of_a_kind_that_does_not_exist(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, options={"error_handlers": {"maxturns": lambda given: "So far."}})


# --- models that fail -----------------------------------------------------------------------


@scenario
def a_model_that_raises(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script(ConnectionError("no line"))))


@scenario
def a_model_that_raises_later(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script([kit.call("look")], kit.ModelStep.raise_error(ConnectionError("no line")))
    return Case(kit.Agent(name="A", tools=[look], model=model))


@scenario
def a_model_that_raises_the_packages_own(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script(kit.ModelBehaviorError("nonsense"))))


@scenario
def a_script_that_is_too_short(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script()))


@scenario
def a_stream_that_is_cut_off(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script(kit.ModelStep.stream([], output=[kit.say("Hello.")]))))


# --- input that cannot be -------------------------------------------------------------------


@scenario
def a_number_as_input(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([kit.say("Hello.")])), input=3)


@scenario
def an_input_item_without_anything(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([kit.say("Hello.")])), input=[{}])


@scenario
def something_that_is_no_agent(kit: Kit) -> Case:
    return Case("A")


# --- cancellation ---------------------------------------------------------------------------


def cancelling(kit: Kit, when: Any, *mode: str) -> Any:
    """Cancel at the events of which `when` is true, and note it."""

    def on_event(handle: Any, event: Any) -> None:
        if when(event):
            kit.note("cancelled")
            handle.cancel(*mode)

    return on_event


def is_item(name: str) -> Any:
    return lambda event: getattr(event, "name", None) == name


def is_raw(kind: str) -> Any:
    return lambda event: getattr(getattr(event, "data", None), "type", None) == kind


@scenario
def cancelled_after_the_turn_of_a_tool_call(kit: Kit) -> Case:
    return Case(looking(kit), on_event=cancelling(kit, is_item("tool_called"), "after_turn"))


@scenario
def cancelled_after_the_turn_of_a_delta(kit: Kit) -> Case:
    when = is_raw("response.function_call_arguments.delta")
    return Case(looking(kit), on_event=cancelling(kit, when, "after_turn"))


@scenario
def cancelled_after_the_last_turn(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, on_event=cancelling(kit, is_raw("response.output_text.delta"), "after_turn"))


@scenario
def cancelled_after_the_turn_of_a_tools_output(kit: Kit) -> Case:
    return Case(looking(kit), on_event=cancelling(kit, is_item("tool_output"), "after_turn"))


@scenario
def cancelled_at_the_first_event(kit: Kit) -> Case:
    def when(event: Any) -> bool:
        return event.type == "agent_updated_stream_event"

    return Case(looking(kit), on_event=cancelling(kit, when))


@scenario
def cancelled_at_a_delta(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, on_event=cancelling(kit, is_raw("response.output_text.delta"), "immediate"))


@scenario
def cancelled_at_a_tool_call(kit: Kit) -> Case:
    return Case(looking(kit), on_event=cancelling(kit, is_item("tool_called")))


@scenario
def cancelled_at_a_tools_output(kit: Kit) -> Case:
    return Case(looking(kit), on_event=cancelling(kit, is_item("tool_output")))


@scenario
def cancelled_when_all_is_said(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, on_event=cancelling(kit, is_item("message_output_created")))


@scenario
def cancelled_after_the_turn_of_a_handoff(kit: Kit) -> Case:
    second = kit.Agent(name="B", model=kit.script([kit.say("B here.")]))
    first = kit.Agent(name="A", handoffs=[second], model=kit.script([kit.call("transfer_to_b")]))
    return Case(first, on_event=cancelling(kit, is_item("handoff_requested"), "after_turn"))
