"""Sessions: what a run is given of them, and what it leaves there."""

import copy
from typing import Any

from tests.differential.kit import Case, Kit, scenario
from tests.differential.scenarios.endings import looking

OLD = [{"role": "user", "content": "Old."}, {"role": "assistant", "content": "Older."}]


def session(
    kit: Kit, items: list[Any] | None = None, *, fails: tuple[str, int] | None = None, **settings: Any
) -> Any:
    """A session in a list that notes what is added to it; the call that `fails` names raises."""

    class Kept(kit.SessionABC):
        def __init__(self) -> None:
            self.session_id = "kept"
            self.session_settings = kit.SessionSettings(**settings)
            self.items = list(OLD if items is None else items)
            self.calls = {"get": 0, "add": 0}

        async def get_items(self, limit: int | None = None) -> list[Any]:
            self._count("get")
            return copy.deepcopy(
                self.items if limit is None else self.items[max(0, len(self.items) - limit) :]
            )

        async def add_items(self, items: list[Any]) -> None:
            kit.note("add", items)
            self._count("add")
            self.items += copy.deepcopy(items)

        async def pop_item(self) -> Any:
            kit.note("pop")
            return self.items.pop() if self.items else None

        async def clear_session(self) -> None:
            kit.note("clear")
            self.items.clear()

        def _count(self, name: str) -> None:
            self.calls[name] += 1
            if fails == (name, self.calls[name]):
                raise OSError(f"{name} {self.calls[name]}")

    return Kept()


def saying(kit: Kit, **agent: Any) -> Any:
    return kit.Agent(name="A", model=kit.script([kit.say("Hello.")]), **agent)


# --- given and stored -----------------------------------------------------------------------


@scenario
def a_session_before_a_text(kit: Kit) -> Case:
    return Case(saying(kit), options={"session": session(kit)})


@scenario
def a_session_before_a_list(kit: Kit) -> Case:
    messages = [{"role": "user", "content": "One."}, {"role": "user", "content": "Two."}]
    return Case(saying(kit), messages, options={"session": session(kit)})


@scenario
def a_session_before_nothing(kit: Kit) -> Case:
    return Case(saying(kit), [], options={"session": session(kit)})


@scenario
def a_session_that_is_empty(kit: Kit) -> Case:
    return Case(saying(kit), options={"session": session(kit, [])})


@scenario
def a_session_and_tools(kit: Kit) -> Case:
    return Case(looking(kit, 3), options={"session": session(kit)})


@scenario
def a_session_in_sqlite(kit: Kit) -> Case:
    kept = kit.SQLiteSession("one")
    return Case(looking(kit, 2), options={"session": kept}, after=lambda result: kept.get_items())


@scenario
def a_session_in_sqlite_with_a_limit(kit: Kit) -> Case:
    kept = kit.SQLiteSession("one", session_settings=kit.SessionSettings(limit=2))
    return Case(looking(kit, 2), options={"session": kept}, after=lambda result: kept.get_items())


@scenario
def a_session_with_a_limit(kit: Kit) -> Case:
    return Case(saying(kit), options={"session": session(kit, limit=1)})


@scenario
def a_limit_of_the_run_over_that_of_the_session(kit: Kit) -> Case:
    config = kit.RunConfig(session_settings=kit.SessionSettings(limit=1))
    return Case(saying(kit), options={"session": session(kit, limit=2), "run_config": config})


@scenario
def a_limit_of_the_run_as_a_dict(kit: Kit) -> Case:
    return Case(
        saying(kit), options={"session": session(kit), "run_config": {"session_settings": {"limit": 0}}}
    )


@scenario
def settings_of_the_run_that_are_not_set(kit: Kit) -> Case:
    config = kit.RunConfig(session_settings=kit.SessionSettings())
    return Case(saying(kit), options={"session": session(kit, limit=1), "run_config": config})


@scenario
def a_call_in_a_session_that_has_no_answer(kit: Kit) -> Case:
    call = {"type": "function_call", "call_id": "call_0", "name": "look", "arguments": "{}"}
    return Case(saying(kit), options={"session": session(kit, [*OLD, call])})


@scenario
def an_answer_in_a_session_that_has_no_call(kit: Kit) -> Case:
    answer = {"type": "function_call_output", "call_id": "call_0", "output": "seen"}
    return Case(saying(kit), options={"session": session(kit, [answer, *OLD])})


@scenario
def a_session_and_a_filter_of_what_the_model_is_given(kit: Kit) -> Case:
    def last(data: Any) -> Any:
        data.model_data.input = data.model_data.input[-1:]
        return data.model_data

    config = kit.RunConfig(call_model_input_filter=last)
    return Case(saying(kit), options={"session": session(kit), "run_config": config})


@scenario
def a_session_and_a_conversation_of_the_server(kit: Kit) -> Case:
    return Case(saying(kit), options={"session": session(kit), "conversation_id": "conv_1"})


@scenario
def a_session_and_responses_of_the_server(kit: Kit) -> Case:
    return Case(saying(kit), options={"session": session(kit), "auto_previous_response_id": True})


# --- callbacks ------------------------------------------------------------------------------


def combined(kit: Kit, combine: Any, given: Any = "Hello") -> Case:
    def callback(history: Any, new: Any) -> Any:
        kit.note("history", history, "new", new)
        return combine(history, new)

    config = kit.RunConfig(session_input_callback=callback)
    return Case(saying(kit), given, options={"session": session(kit), "run_config": config})


@scenario
def a_session_callback_that_puts_one_behind_the_other(kit: Kit) -> Case:
    return combined(kit, lambda history, new: history + new)


@scenario
def a_session_callback_that_drops_the_history(kit: Kit) -> Case:
    return combined(kit, lambda history, new: new, [{"role": "user", "content": "One."}])


@scenario
def a_session_callback_that_puts_the_new_first(kit: Kit) -> Case:
    return combined(kit, lambda history, new: new + history)


@scenario
def a_session_callback_that_adds_something(kit: Kit) -> Case:
    return combined(kit, lambda history, new: [{"role": "system", "content": "Be kind."}, *history, *new])


@scenario
def a_session_callback_that_changes_what_it_is_given(kit: Kit) -> Case:
    def change(history: Any, new: Any) -> Any:
        history[0]["content"], new[0]["content"] = "Old!", "Hello!"
        return history + new

    return combined(kit, change)


@scenario
def a_session_callback_that_gives_copies(kit: Kit) -> Case:
    return combined(kit, lambda history, new: copy.deepcopy(history + new))


@scenario
def a_session_callback_that_gives_something_twice(kit: Kit) -> Case:
    return combined(kit, lambda history, new: history + new + new)


@scenario
def a_session_callback_that_gives_nothing_at_all(kit: Kit) -> Case:
    return combined(kit, lambda history, new: [])


@scenario
def a_session_callback_that_gives_none(kit: Kit) -> Case:
    return combined(kit, lambda history, new: None)


@scenario
def a_session_callback_that_gives_a_tuple(kit: Kit) -> Case:
    return combined(kit, lambda history, new: (*history, *new))


@scenario
def a_session_callback_that_raises(kit: Kit) -> Case:
    def fail(history: Any, new: Any) -> Any:
        raise KeyError("it fails")

    return combined(kit, fail)


@scenario
def a_session_callback_that_is_a_coroutine_function(kit: Kit) -> Case:
    async def combine(history: Any, new: Any) -> Any:
        return history[-1:] + new

    config = kit.RunConfig(session_input_callback=combine)
    return Case(saying(kit), options={"session": session(kit), "run_config": config})


@scenario
def a_session_callback_without_a_session(kit: Kit) -> Case:
    config = kit.RunConfig(session_input_callback=lambda history, new: [])
    return Case(saying(kit), options={"run_config": config})


# --- whatever ends a run --------------------------------------------------------------------


@scenario
def a_session_and_a_model_that_fails(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script([kit.call("look")], kit.ModelStep.raise_error(ConnectionError("down")))
    return Case(kit.Agent(name="A", tools=[look], model=model), options={"session": session(kit)})


@scenario
def a_session_and_too_many_turns(kit: Kit) -> Case:
    return Case(looking(kit), options={"session": session(kit), "max_turns": 2})


@scenario
def a_session_and_a_handler_of_too_many_turns(kit: Kit) -> Case:
    def handle(given: Any) -> Any:
        return kit.RunErrorHandlerResult(final_output="So far.")

    options = {"session": session(kit), "max_turns": 1, "error_handlers": {"max_turns": handle}}
    return Case(looking(kit), options=options)


@scenario
def a_session_and_an_input_guardrail_that_trips(kit: Kit) -> Case:
    @kit.input_guardrail(run_in_parallel=False)
    def judge(context: Any, agent: Any, input: Any) -> Any:
        kit.note("judged", input)
        return kit.GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    return Case(saying(kit, input_guardrails=[judge]), options={"session": session(kit)})


@scenario
def a_session_and_an_output_guardrail_that_trips(kit: Kit) -> Case:
    @kit.output_guardrail
    def judge(context: Any, agent: Any, output: Any) -> Any:
        return kit.GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    return Case(looking(kit, 1, output_guardrails=[judge]), options={"session": session(kit)})


@scenario
def a_session_and_a_tool_that_ends_the_run(kit: Kit) -> Case:
    @kit.function_tool(failure_error_function=None)
    def breaks() -> str:
        raise ValueError("broken")

    model = kit.script([kit.call("breaks")])
    return Case(kit.Agent(name="A", tools=[breaks], model=model), options={"session": session(kit)})


@scenario
def a_session_and_a_cancel_behind_a_tool(kit: Kit) -> Case:
    def stop(handle: Any, event: Any) -> None:
        if getattr(event, "name", None) == "tool_output":
            handle.cancel("after_turn")

    return Case(looking(kit, 3), options={"session": session(kit)}, on_event=stop)


@scenario
def a_session_that_cannot_be_read(kit: Kit) -> Case:
    return Case(saying(kit), options={"session": session(kit, fails=("get", 1))})


@scenario
def a_session_that_does_not_take_the_input(kit: Kit) -> Case:
    return Case(saying(kit), options={"session": session(kit, fails=("add", 1))})


@scenario
def a_session_that_does_not_take_a_turn(kit: Kit) -> Case:
    return Case(looking(kit, 2), options={"session": session(kit, fails=("add", 2))})


@scenario
def a_session_that_does_not_take_the_output(kit: Kit) -> Case:
    return Case(looking(kit, 1), options={"session": session(kit, fails=("add", 3))})


# --- handoffs -------------------------------------------------------------------------------


def handing_over(kit: Kit, **options: Any) -> Case:
    second = kit.Agent(name="B", model=kit.script([kit.say("From B.")]))
    first = kit.Agent(
        name="A",
        model=kit.script([kit.call("transfer_to_b")]),
        handoffs=[kit.handoff(second, **options.pop("handoff", {}))],
    )
    return Case(first, options={"session": session(kit), **options})


@scenario
def a_session_and_a_handoff(kit: Kit) -> Case:
    return handing_over(kit)


@scenario
def a_session_and_a_handoff_that_nests(kit: Kit) -> Case:
    return handing_over(kit, run_config=kit.RunConfig(nest_handoff_history=True))


@scenario
def a_session_and_a_handoff_that_shows_nothing(kit: Kit) -> Case:
    def nothing(data: Any) -> Any:
        return data.clone(input_history=(), pre_handoff_items=(), new_items=())

    return handing_over(kit, handoff={"input_filter": nothing})


@scenario
def a_session_and_a_handoff_that_shows_other_items(kit: Kit) -> Case:
    def nothing(data: Any) -> Any:
        return data.clone(input_history=(), input_items=())

    return handing_over(kit, handoff={"input_filter": nothing})
