"""Guardrails: which judge what, when, and what becomes of a run that one of them stops."""

import asyncio
from typing import Any

from tests.differential.kit import Case, Kit, scenario


def checks_input(kit: Kit, name: str, trips: bool = False, **options: Any) -> Any:
    """An input guardrail that notes what it is given."""

    @kit.input_guardrail(name=name, **options)
    async def check(context: Any, agent: Any, given: Any) -> Any:
        kit.note(name, context.context, agent.name, given)
        return kit.GuardrailFunctionOutput(output_info={"by": name}, tripwire_triggered=trips)

    return check


def checks_output(kit: Kit, name: str, trips: bool = False) -> Any:
    """An output guardrail that notes what it is given."""

    @kit.output_guardrail(name=name)
    async def check(context: Any, agent: Any, output: Any) -> Any:
        kit.note(name, context.context, agent.name, output)
        return kit.GuardrailFunctionOutput(output_info={"by": name}, tripwire_triggered=trips)

    return check


def calls_a_tool(kit: Kit, *, runs: Any = None, **agent: Any) -> Any:
    """An agent that calls a tool, and answers."""

    @kit.function_tool
    async def look(n: int = 1) -> str:
        kit.note("look runs")
        if runs is not None:
            await runs()
        return f"seen {n}"

    model = kit.script([kit.call("look")], [kit.say("Done.")])
    return kit.Agent(name="A", tools=[look], model=model, **agent)


def answers(kit: Kit, **agent: Any) -> Any:
    """An agent that just answers."""
    return kit.Agent(name="A", model=kit.script([kit.say("Hello.")]), **agent)


# --- input ----------------------------------------------------------------------------------


@scenario
def input_guardrails_that_pass(kit: Kit) -> Case:
    agent = answers(
        kit,
        input_guardrails=[
            checks_input(kit, "first"),
            checks_input(kit, "blocking", run_in_parallel=False),
            checks_input(kit, "second"),
        ],
    )
    config = kit.RunConfig(
        input_guardrails=[
            checks_input(kit, "of the run"),
            checks_input(kit, "blocking, of the run", run_in_parallel=False),
        ]
    )
    return Case(agent, options={"run_config": config, "context": "the context"})


@scenario
def input_guardrails_are_given_the_list_of_input(kit: Kit) -> Case:
    agent = answers(kit, input_guardrails=[checks_input(kit, "first")])
    return Case(agent, [{"role": "user", "content": "Hi"}])


@scenario
def a_plain_function_as_input_guardrail(kit: Kit) -> Case:
    @kit.input_guardrail
    def check(context: Any, agent: Any, given: Any) -> Any:
        kit.note("check", given)
        return kit.GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    return Case(answers(kit, input_guardrails=[check]))


@scenario
def a_blocking_input_guardrail_that_trips(kit: Kit) -> Case:
    agent = answers(
        kit,
        input_guardrails=[
            checks_input(kit, "parallel"),
            checks_input(kit, "passes", run_in_parallel=False),
            checks_input(kit, "trips", trips=True, run_in_parallel=False),
            checks_input(kit, "not heard", run_in_parallel=False),
        ],
    )
    return Case(agent)


@scenario
def a_parallel_input_guardrail_that_trips_before_a_tool(kit: Kit) -> Case:
    return Case(calls_a_tool(kit, input_guardrails=[checks_input(kit, "trips", trips=True)]))


@scenario
def a_parallel_input_guardrail_that_trips_while_a_tool_runs(kit: Kit) -> Case:
    running, tripped = asyncio.Event(), asyncio.Event()

    @kit.input_guardrail
    async def late(context: Any, agent: Any, given: Any) -> Any:
        await running.wait()
        kit.note("late")
        tripped.set()
        return kit.GuardrailFunctionOutput(output_info=None, tripwire_triggered=True)

    async def runs() -> None:
        running.set()
        await tripped.wait()

    return Case(calls_a_tool(kit, runs=runs, input_guardrails=[late]))


@scenario
def the_other_input_guardrails_of_one_that_trips(kit: Kit) -> Case:
    @kit.input_guardrail
    async def forever(context: Any, agent: Any, given: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            kit.note("cancelled")

    trips = checks_input(kit, "trips", trips=True, run_in_parallel=False)
    forever.run_in_parallel = False
    return Case(answers(kit, input_guardrails=[forever, trips]))


@scenario
def a_blocking_input_guardrail_that_raises(kit: Kit) -> Case:
    @kit.input_guardrail(run_in_parallel=False)
    async def breaks(context: Any, agent: Any, given: Any) -> Any:
        raise ValueError("cannot judge")

    return Case(answers(kit, input_guardrails=[breaks]))


@scenario
def a_parallel_input_guardrail_that_raises(kit: Kit) -> Case:
    @kit.input_guardrail
    async def breaks(context: Any, agent: Any, given: Any) -> Any:
        raise ValueError("cannot judge")

    return Case(calls_a_tool(kit, input_guardrails=[breaks]))


@scenario
def an_input_guardrail_that_gives_nothing(kit: Kit) -> Case:
    @kit.input_guardrail(run_in_parallel=False)
    async def silent(context: Any, agent: Any, given: Any) -> Any:
        return None

    return Case(answers(kit, input_guardrails=[silent]))


@scenario
def input_guardrails_of_the_second_agent(kit: Kit) -> Case:
    second = kit.Agent(
        name="B",
        model=kit.script([kit.say("B here.")]),
        input_guardrails=[checks_input(kit, "of B", trips=True)],
        output_guardrails=[checks_output(kit, "output of B")],
    )
    first = kit.Agent(
        name="A",
        handoffs=[second],
        model=kit.script([kit.call("transfer_to_b")]),
        input_guardrails=[checks_input(kit, "of A")],
        output_guardrails=[checks_output(kit, "output of A", trips=True)],
    )
    return Case(first)


# --- output ---------------------------------------------------------------------------------


@scenario
def output_guardrails_that_pass(kit: Kit) -> Case:
    agent = answers(kit, output_guardrails=[checks_output(kit, "first"), checks_output(kit, "second")])
    config = kit.RunConfig(output_guardrails=[checks_output(kit, "of the run")])
    return Case(agent, options={"run_config": config, "context": "the context"})


@scenario
def an_output_guardrail_that_trips(kit: Kit) -> Case:
    checks = [checks_output(kit, "passes"), checks_output(kit, "trips", trips=True)]
    return Case(answers(kit, output_guardrails=checks))


@scenario
def an_output_guardrail_of_the_run_that_trips(kit: Kit) -> Case:
    config = kit.RunConfig(output_guardrails=[checks_output(kit, "trips", trips=True)])
    return Case(calls_a_tool(kit), options={"run_config": config})


@scenario
def the_other_output_guardrails_of_one_that_trips(kit: Kit) -> Case:
    @kit.output_guardrail
    async def forever(context: Any, agent: Any, output: Any) -> Any:
        try:
            await asyncio.Event().wait()
        finally:
            kit.note("cancelled")

    return Case(answers(kit, output_guardrails=[forever, checks_output(kit, "trips", trips=True)]))


@scenario
def an_output_guardrail_that_raises(kit: Kit) -> Case:
    @kit.output_guardrail
    def breaks(context: Any, agent: Any, output: Any) -> Any:
        raise ValueError("cannot judge")

    return Case(answers(kit, output_guardrails=[breaks]))


@scenario
def an_output_guardrail_of_structured_output(kit: Kit) -> Case:
    model = kit.script([kit.say('{"response":[1,2]}')])
    agent = kit.Agent(
        name="A", model=model, output_type=list[int], output_guardrails=[checks_output(kit, "first")]
    )
    return Case(agent)


@scenario
def an_output_guardrail_of_what_a_handler_gives(kit: Kit) -> Case:
    agent = calls_a_tool(kit, output_guardrails=[checks_output(kit, "trips", trips=True)])
    handlers = {"max_turns": lambda given: "So far."}
    return Case(agent, options={"max_turns": 1, "error_handlers": handlers})


@scenario
def an_output_guardrail_of_a_tools_output_passes(kit: Kit) -> Case:
    checks = [checks_output(kit, "passes")]
    return Case(calls_a_tool(kit, tool_use_behavior="stop_on_first_tool", output_guardrails=checks))


@scenario
def an_output_guardrail_of_a_tools_output_trips(kit: Kit) -> Case:
    checks = [checks_output(kit, "trips", trips=True)]
    return Case(calls_a_tool(kit, tool_use_behavior="stop_on_first_tool", output_guardrails=checks))


@scenario
def a_message_for_a_tools_output_that_is_blocked(kit: Kit) -> Case:
    checks = [checks_output(kit, "trips", trips=True)]
    agent = calls_a_tool(kit, tool_use_behavior="stop_on_first_tool", output_guardrails=checks)
    config = kit.RunConfig(output_guardrail_blocked_message="Not for you.")
    return Case(agent, options={"run_config": config})


@scenario
def a_formatter_for_a_tools_output_that_is_blocked(kit: Kit) -> Case:
    def formatted(args: Any) -> str:
        kit.note(args.default_message, args.guardrail_name, args.agent.name, args.run_context.context)
        return f"{args.guardrail_name} took it."

    checks = [checks_output(kit, "trips", trips=True)]
    agent = calls_a_tool(kit, tool_use_behavior="stop_on_first_tool", output_guardrails=checks)
    config = kit.RunConfig(output_guardrail_blocked_message=formatted)
    return Case(agent, options={"run_config": config})


# --- tools ----------------------------------------------------------------------------------


def guarded(kit: Kit, given: tuple[Any, ...] = (), got: tuple[Any, ...] = (), **agent: Any) -> Case:
    """An agent whose tool has guardrails, and a run with hooks."""

    class Watching(kit.RunHooks):  # type: ignore[misc, name-defined]
        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            kit.note("on_tool_start")

        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            kit.note("on_tool_end", result)

    @kit.function_tool(tool_input_guardrails=list(given), tool_output_guardrails=list(got))
    def look(n: int = 1) -> str:
        kit.note("look runs")
        return f"seen {n}"

    model = kit.script([kit.call("look", {"n": 7})], [kit.say("Done.")])
    return Case(kit.Agent(name="A", tools=[look], model=model, **agent), options={"hooks": Watching()})


def on_input(kit: Kit, name: str, verdict: Any) -> Any:
    @kit.tool_input_guardrail(name=name)
    async def check(data: Any) -> Any:
        call = data.context
        kit.note(name, data.agent.name, call.tool_name, call.tool_call_id, call.tool_arguments)
        return verdict

    return check


def on_output(kit: Kit, name: str, verdict: Any) -> Any:
    @kit.tool_output_guardrail(name=name)
    def check(data: Any) -> Any:
        kit.note(name, data.agent.name, data.context.tool_name, data.output)
        return verdict

    return check


@scenario
def tool_guardrails_that_allow(kit: Kit) -> Case:
    allow = kit.ToolGuardrailFunctionOutput.allow("fine")
    before = (on_input(kit, "first", allow), on_input(kit, "second", allow))
    return guarded(kit, before, (on_output(kit, "third", allow), on_output(kit, "fourth", allow)))


@scenario
def a_tool_input_guardrail_that_rejects(kit: Kit) -> Case:
    output = kit.ToolGuardrailFunctionOutput
    rejects = on_input(kit, "rejects", output.reject_content("Not that.", "why"))
    return guarded(kit, (rejects, on_input(kit, "not asked", output.allow())))


@scenario
def a_tool_output_guardrail_that_rejects(kit: Kit) -> Case:
    output = kit.ToolGuardrailFunctionOutput
    rejects = on_output(kit, "rejects", output.reject_content("Not that.", "why"))
    return guarded(kit, got=(rejects, on_output(kit, "not asked", output.allow())))


@scenario
def a_tool_input_guardrail_that_stops_the_run(kit: Kit) -> Case:
    output = kit.ToolGuardrailFunctionOutput
    return guarded(kit, (on_input(kit, "stops", output.raise_exception("why")),))


@scenario
def a_tool_output_guardrail_that_stops_the_run(kit: Kit) -> Case:
    output = kit.ToolGuardrailFunctionOutput
    return guarded(kit, got=(on_output(kit, "stops", output.raise_exception("why")),))


@scenario
def a_tool_input_guardrail_that_raises(kit: Kit) -> Case:
    @kit.tool_input_guardrail
    def breaks(data: Any) -> Any:
        raise ValueError("cannot judge")

    return guarded(kit, (breaks,))


@scenario
def a_tool_output_guardrail_that_raises(kit: Kit) -> Case:
    @kit.tool_output_guardrail
    def breaks(data: Any) -> Any:
        raise ValueError("cannot judge")

    return guarded(kit, got=(breaks,))


@scenario
def a_rejected_call_is_the_output(kit: Kit) -> Case:
    output = kit.ToolGuardrailFunctionOutput
    rejects = on_input(kit, "rejects", output.reject_content("Not that."))
    return guarded(kit, (rejects,), tool_use_behavior="stop_on_first_tool")


@scenario
def a_tool_output_guardrail_of_a_tool_that_fails(kit: Kit) -> Case:
    verdict = kit.ToolGuardrailFunctionOutput.allow()

    @kit.function_tool(tool_output_guardrails=[on_output(kit, "looks", verdict)])
    def look() -> str:
        raise ValueError("nothing to see")

    return Case(kit.Agent(name="A", tools=[look], model=kit.script([kit.call("look")], [kit.say("Oh.")])))


@scenario
def a_call_that_waits_for_approval_is_judged_when_it_is_approved(kit: Kit) -> Case:
    output = kit.ToolGuardrailFunctionOutput
    rejects = on_input(kit, "rejects", output.reject_content("Not that."))
    return waits_for_approval(kit, rejects)


@scenario
def a_call_is_rejected_before_anybody_is_asked_to_approve_it(kit: Kit) -> Case:
    output = kit.ToolGuardrailFunctionOutput
    rejects = on_input(kit, "rejects", output.reject_content("Not that."))
    return waits_for_approval(kit, rejects, pre_approval_tool_input_guardrails=True)


@scenario
def a_call_that_passes_its_guardrail_still_waits_for_approval(kit: Kit) -> Case:
    allows = on_input(kit, "allows", kit.ToolGuardrailFunctionOutput.allow())
    return waits_for_approval(kit, allows, pre_approval_tool_input_guardrails=True)


@scenario
def input_that_is_added_to_a_state_is_judged(kit: Kit) -> Case:
    @kit.function_tool(needs_approval=True)
    def look() -> str:
        return "seen"

    agent = kit.Agent(
        name="A",
        tools=[look],
        model=kit.script([kit.call("look")], [kit.say("Done.")]),
        input_guardrails=[checks_input(kit, "parallel")],
    )
    config = kit.RunConfig(input_guardrails=[checks_input(kit, "blocking", run_in_parallel=False)])

    async def approve(result: Any) -> Any:
        state = result.to_state()
        state.approve(result.interruptions[0])
        state.add_input("And?")
        return (await kit.Runner.run(agent, state, run_config=config)).final_output

    given = [{"role": "user", "content": "Hi"}]
    return Case(agent, given, options={"run_config": config}, after=approve)


def waits_for_approval(kit: Kit, guardrail: Any, **execution: Any) -> Case:
    """A run with a guarded tool that needs approval, which is given."""

    @kit.function_tool(needs_approval=True, tool_input_guardrails=[guardrail])
    def look() -> str:
        kit.note("look runs")
        return "seen"

    agent = kit.Agent(name="A", tools=[look], model=kit.script([kit.call("look")], [kit.say("Done.")]))
    config = kit.RunConfig(tool_execution=kit.ToolExecutionConfig(**execution))

    async def approve(result: Any) -> Any:
        kit.note("waiting", len(result.interruptions))
        if not result.interruptions:
            return None
        state = result.to_state()
        state.approve(result.interruptions[0])
        return (await kit.Runner.run(agent, state, run_config=config)).final_output

    return Case(agent, options={"run_config": config}, after=approve)


# --- by themselves --------------------------------------------------------------------------


@scenario
def guardrails_that_are_called_by_hand(kit: Kit) -> Case:
    from_input = checks_input(kit, "input", trips=True)
    from_output = checks_output(kit, "output")
    verdict = kit.ToolGuardrailFunctionOutput.allow("fine")
    agent = answers(kit)

    async def call(result: Any) -> Any:
        context = kit.RunContextWrapper(context=None)
        tool = kit.ToolContext(context=None, tool_name="t", tool_call_id="c", tool_arguments="{}")
        first = await from_input.run(agent, "Hello", context)
        second = await from_output.run(context, agent, 5)
        third = await on_input(kit, "tool", verdict).run(kit.ToolInputGuardrailData(tool, agent))
        fourth = await on_output(kit, "tool", verdict).run(kit.ToolOutputGuardrailData(tool, agent, output=1))
        names = [each.guardrail.get_name() for each in (first, second)]
        return [names, first.output, second.output, second.agent_output, third, fourth]

    return Case(agent, after=call)


@scenario
def guardrails_that_are_no_functions(kit: Kit) -> Case:
    return Case(answers(kit, input_guardrails=[kit.InputGuardrail(guardrail_function=3, name="three")]))
