"""Approvals: which calls wait, and what becomes of a run that goes on."""

# A name of a kit is a class only when it runs.
# pyright: reportInvalidTypeForm=false

from collections.abc import Awaitable, Callable
from typing import Any

from tests.differential.kit import Case, Kit, scenario
from tests.differential.record import event, exception, result

Decide = Callable[[Any], None]
"""Decides over what waits in a state."""


def approve(state: Any) -> None:
    for item in state.get_interruptions():
        state.approve(item)


def reject(state: Any) -> None:
    for item in state.get_interruptions():
        state.reject(item)


def going_on(
    kit: Kit, agent: Any, *decisions: Decide, json: bool = False, **options: Any
) -> Callable[[Any], Any]:
    """What a run and its parts tell that goes on once for each of `decisions`, by the door that it came by."""

    async def go_on(done: Any) -> list[Any]:
        told: list[Any] = []
        for decide in decisions:
            told.append(sorted(item.call_id for item in done.interruptions))
            state = done.to_state()
            decide(state)
            if json:
                state = await kit.RunState.from_string(agent, state.to_string())
            try:
                done = await again(kit, agent, state, hasattr(done, "stream_events"), told, options)
            except Exception as error:
                told.append(exception(error))
                break
            told.append(result(done))
        return told

    return go_on


async def again(
    kit: Kit, agent: Any, state: Any, streamed: bool, told: list[Any], options: dict[str, Any]
) -> Any:
    if not streamed:
        return await kit.Runner.run(agent, state, **options)
    handle = kit.Runner.run_streamed(agent, state, **options)
    told.append([event(each) async for each in handle.stream_events()])
    return handle


def disk(kit: Kit, *steps: Any, needs_approval: Any = True, **options: Any) -> Any:
    """An agent that looks freely, and needs approval to delete."""

    @kit.function_tool
    def look(name: str) -> str:
        kit.note("look", name)
        return f"saw {name}"

    @kit.function_tool(needs_approval=needs_approval)
    def delete(name: str) -> str:
        kit.note("delete", name)
        return f"deleted {name}"

    steps = steps or ([call(kit, "look", "a"), call(kit, "delete", "b")], [kit.say("Done.")])
    return kit.Agent(name="A", tools=[look, delete], model=kit.script(*steps), **options)


def call(kit: Kit, tool: str, name: str) -> Any:
    return kit.call(tool, {"name": name}, call_id=f"{tool}_{name}")


def paused(decide: Decide, *, json: bool = False) -> Callable[[Kit], Case]:
    def case(kit: Kit) -> Case:
        agent = disk(kit)
        return Case(agent, after=going_on(kit, agent, decide, json=json))

    return case


@scenario
def a_call_that_is_approved(kit: Kit) -> Case:
    return paused(approve)(kit)


@scenario
def a_call_that_is_rejected(kit: Kit) -> Case:
    return paused(reject)(kit)


@scenario
def a_call_that_is_approved_over_json(kit: Kit) -> Case:
    return paused(approve, json=True)(kit)


@scenario
def a_call_that_nobody_decides_over(kit: Kit) -> Case:
    return paused(lambda state: None)(kit)


@scenario
def a_call_that_is_rejected_with_a_message(kit: Kit) -> Case:
    return paused(lambda state: state.reject(state.get_interruptions()[0], rejection_message="No."))(kit)


@scenario
def a_rejection_that_is_formatted(kit: Kit) -> Case:
    def words(args: Any) -> str:
        kit.note(args.kind, args.tool_type, args.tool_name, args.call_id, args.default_message)
        return "Nobody wants that."

    agent = disk(kit)
    config = kit.RunConfig(tool_error_formatter=words)
    return Case(agent, after=going_on(kit, agent, reject, run_config=config))


@scenario
def calls_that_are_decided_over_one_by_one(kit: Kit) -> Case:
    calls = [call(kit, "delete", "a"), call(kit, "delete", "b"), call(kit, "delete", "c")]
    agent = disk(kit, calls, [kit.say("Done.")])

    def first(state: Any) -> None:
        waiting = state.get_interruptions()
        (state.reject if len(waiting) == 2 else state.approve)(waiting[0])

    return Case(agent, after=going_on(kit, agent, first, first, first))


@scenario
def a_tool_that_is_always_approved(kit: Kit) -> Case:
    agent = disk(kit, [call(kit, "delete", "a")], [call(kit, "delete", "b")], [kit.say("Done.")])

    def always(state: Any) -> None:
        state.approve(state.get_interruptions()[0], always_approve=True)

    return Case(agent, after=going_on(kit, agent, always))


@scenario
def a_tool_that_is_always_rejected(kit: Kit) -> Case:
    agent = disk(kit, [call(kit, "delete", "a")], [call(kit, "delete", "b")], [kit.say("Done.")])

    def always(state: Any) -> None:
        state.reject(state.get_interruptions()[0], always_reject=True, rejection_message="Never.")

    return Case(agent, after=going_on(kit, agent, always))


@scenario
def a_run_that_pauses_twice(kit: Kit) -> Case:
    agent = disk(kit, [call(kit, "delete", "a")], [call(kit, "delete", "b")], [kit.say("Done.")])
    return Case(agent, after=going_on(kit, agent, approve, reject, json=True))


@scenario
def a_function_that_tells_whether_approval_is_needed(kit: Kit) -> Case:
    async def is_b(context: Any, arguments: Any, call_id: str) -> bool:
        kit.note(arguments, call_id)
        return arguments["name"] == "b"

    calls = [call(kit, "delete", "a"), call(kit, "delete", "b")]
    agent = disk(kit, calls, [kit.say("Done.")], needs_approval=is_b)
    return Case(agent)


@scenario
def a_function_about_approval_that_raises(kit: Kit) -> Case:
    async def breaks(context: Any, arguments: Any, call_id: str) -> bool:
        raise ValueError("no idea")

    return Case(disk(kit, needs_approval=breaks))


@scenario
def arguments_that_cannot_be_judged(kit: Kit) -> Case:
    async def never(context: Any, arguments: Any, call_id: str) -> bool:
        kit.note(arguments)
        return False

    calls = [kit.call("delete", text, call_id=f"c{n}") for n, text in enumerate(('{"name":', "[]"))]
    return Case(disk(kit, calls, [kit.say("Done.")], needs_approval=never))


@scenario
def a_handoff_beside_a_call_that_waits(kit: Kit) -> Case:
    other = kit.Agent(name="B", model=kit.script([kit.say("From B.")]))
    calls = [call(kit, "delete", "a"), kit.call("transfer_to_b", call_id="handoff")]
    agent = disk(kit, calls, handoffs=[other])
    return Case(agent, after=going_on(kit, agent, approve))


@scenario
def a_tool_whose_result_is_the_output_and_waits(kit: Kit) -> Case:
    agent = disk(kit, tool_use_behavior="stop_on_first_tool")
    return Case(agent, after=going_on(kit, agent, approve))


@scenario
def a_rejection_that_is_the_output(kit: Kit) -> Case:
    agent = disk(kit, [call(kit, "delete", "a")], tool_use_behavior="stop_on_first_tool")
    return Case(agent, after=going_on(kit, agent, reject))


@scenario
def max_turns_over_a_pause(kit: Kit) -> Case:
    agent = disk(kit)
    return Case(agent, options={"max_turns": 1}, after=going_on(kit, agent, approve, max_turns=5))


@scenario
def input_that_is_added_in_a_pause(kit: Kit) -> Case:
    agent = disk(kit)

    def decide(state: Any) -> None:
        approve(state)
        state.add_input("Thanks.")
        state.add_input([{"role": "user", "content": "Be quick."}])
        kit.note(state.pending_input)

    return Case(agent, after=going_on(kit, agent, decide, json=True))


@scenario
def a_context_in_a_state(kit: Kit) -> Case:
    agent = disk(kit)
    go_on: Callable[[Any], Awaitable[Any]] = going_on(kit, agent, approve, json=True)

    async def after(done: Any) -> Any:
        told = await go_on(done)
        state = await kit.RunState.from_json(agent, done.to_state().to_json())
        again = await kit.Runner.run(agent, state, context={"user": 2})
        return [told, again.context_wrapper.context]

    return Case(agent, options={"context": {"user": 1}}, after=after)


@scenario
def a_run_that_goes_on_after_its_model_failed(kit: Kit) -> Case:
    step: Any = ConnectionError("down")
    agent = disk(kit, [call(kit, "look", "a")], step, [kit.say("Done.")])

    async def after(done: Any) -> Any:
        if not hasattr(done, "stream_events"):
            return None
        again = await kit.Runner.run(agent, done.to_state())
        return [again.final_output, [item.type for item in again.new_items]]

    return Case(agent, after=after)


def watching(kit: Kit) -> Any:
    """Hooks that note what they are told."""

    class Watch(kit.RunHooks):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            kit.note("agent_start", agent.name)

        async def on_agent_end(self, context: Any, agent: Any, output: Any) -> None:
            kit.note("agent_end", agent.name, output)

        async def on_llm_start(self, context: Any, agent: Any, *_: Any) -> None:
            kit.note("llm_start", agent.name)

        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            kit.note("tool_start", tool.name)

        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            kit.note("tool_end", tool.name, result)

        async def on_handoff(self, context: Any, from_agent: Any, to_agent: Any) -> None:
            kit.note("handoff", from_agent.name, to_agent.name)

    return Watch()


@scenario
def hooks_over_a_pause(kit: Kit) -> Case:
    agent, hooks = disk(kit), watching(kit)
    return Case(agent, options={"hooks": hooks}, after=going_on(kit, agent, approve, hooks=hooks))


@scenario
def hooks_of_a_rejection(kit: Kit) -> Case:
    agent, hooks = disk(kit), watching(kit)
    return Case(agent, options={"hooks": hooks}, after=going_on(kit, agent, reject, hooks=hooks))


@scenario
def guardrails_over_a_pause(kit: Kit) -> Case:
    @kit.input_guardrail
    def of_input(context: Any, agent: Any, input: Any) -> Any:
        kit.note("input")
        return kit.GuardrailFunctionOutput(None, False)

    @kit.output_guardrail
    def of_output(context: Any, agent: Any, output: Any) -> Any:
        kit.note("output", output)
        return kit.GuardrailFunctionOutput(None, False)

    agent = disk(kit, input_guardrails=[of_input], output_guardrails=[of_output])
    return Case(agent, after=going_on(kit, agent, approve))


@scenario
def a_session_over_a_pause(kit: Kit) -> Case:
    agent, session = disk(kit), kit.SQLiteSession("s")
    go_on = going_on(kit, agent, approve, json=True, session=session)

    async def after(done: Any) -> Any:
        return [await go_on(done), await session.get_items()]

    return Case(agent, options={"session": session}, after=after)


def office(kit: Kit, **options: Any) -> Any:
    """An agent that asks another one, which needs approval to delete."""
    clerk = disk(kit, [call(kit, "delete", "b")], [kit.say("The clerk is done.")])
    clerk.name = "clerk"
    ask = [kit.call("clerk", {"input": "Delete b."}, call_id="ask")]
    return kit.Agent(
        name="A",
        tools=[clerk.as_tool("clerk", "Asks the clerk.", **options)],
        model=kit.script(ask, [kit.say("Done.")]),
    )


@scenario
def an_agent_that_is_a_tool_and_pauses(kit: Kit) -> Case:
    agent = office(kit)
    return Case(agent, after=going_on(kit, agent, approve))


@scenario
def an_agent_that_is_a_tool_and_pauses_over_json(kit: Kit) -> Case:
    agent = office(kit)
    return Case(agent, after=going_on(kit, agent, approve, json=True))


@scenario
def an_agent_that_is_a_tool_and_is_rejected_inside(kit: Kit) -> Case:
    agent = office(kit)
    return Case(agent, after=going_on(kit, agent, reject))


@scenario
def a_state_that_goes_on_twice(kit: Kit) -> Case:
    agent = disk(kit, [call(kit, "delete", "a")], [kit.say("Done.")], [kit.say("Done again.")])

    async def after(done: Any) -> Any:
        state = done.to_state()
        approve(state)
        await kit.Runner.run(agent, state)
        try:
            await kit.Runner.run(agent, state)
        except kit.UserError:
            return "refused"
        return "went on"

    return Case(agent, after=after)


@scenario
def decisions_that_cannot_be_taken(kit: Kit) -> Case:
    agent = disk(kit)

    def after(done: Any) -> Any:
        state = done.to_state()
        (item,) = state.get_interruptions()
        other = kit.ToolApprovalItem(agent=agent, raw_item=call(kit, "delete", "z"), tool_name="delete")
        taken: list[str] = []
        for decide in (lambda: state.approve(item), lambda: state.reject(item), lambda: state.approve(other)):
            try:
                decide()
                taken.append("taken")
            except kit.UserError:
                taken.append("refused")
        return taken

    return Case(agent, after=after)
