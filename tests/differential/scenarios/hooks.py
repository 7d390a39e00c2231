"""Hooks: which are called, when, with what, and what becomes of a run whose hook raises."""

import types
from typing import Any

from tests.differential.kit import Case, Kit, scenario
from tests.differential.scenarios.answers import message, refusal

RUN_HOOKS = (
    "on_llm_start", "on_llm_end", "on_agent_start", "on_agent_end", "on_handoff", "on_tool_start", "on_tool_end",
)  # fmt: skip
AGENT_HOOKS = (
    "on_llm_start",
    "on_llm_end",
    "on_start",
    "on_end",
    "on_handoff",
    "on_tool_start",
    "on_tool_end",
)


def told(value: Any) -> Any:
    """What a hook was given, as the record can have it."""
    if hasattr(value, "handoff_description") or hasattr(value, "params_json_schema"):
        return value.name
    if hasattr(value, "turn_input"):
        call = getattr(value, "tool_call_id", None)
        return [type(value).__name__, value.context, value.turn_input, value.usage.requests, call]
    return value


def watching(kit: Kit, base: Any, names: tuple[str, ...], who: str, breaks: str | None = None) -> Any:
    """Hooks that note every call; the one that is called `breaks` raises."""

    def noting(name: str) -> Any:
        async def hook(self: Any, *args: Any, **named: Any) -> None:
            kit.note(who, name, *map(told, args), *(f"{key}={told(each)}" for key, each in named.items()))
            if name == breaks:
                raise ValueError(f"{name} broke")

        return hook

    hooks = {name: noting(name) for name in names}
    return types.new_class("Watching", (base,), exec_body=lambda body: body.update(hooks))()


def run_hooks(kit: Kit, breaks: str | None = None) -> Any:
    return watching(kit, kit.RunHooks, RUN_HOOKS, "run", breaks)


def agent_hooks(kit: Kit, who: str, breaks: str | None = None) -> Any:
    return watching(kit, kit.AgentHooks, AGENT_HOOKS, who, breaks)


def team(kit: Kit, run: Any = None, agents: Any = None, **options: Any) -> Case:
    """An agent with two tools that hands over to another."""

    @kit.function_tool
    async def look(n: int) -> str:
        kit.note("look runs")
        return f"seen {n}"

    @kit.function_tool
    async def touch() -> int:
        kit.note("touch runs")
        return 5

    second = kit.Agent(name="B", hooks=agent_hooks(kit, "B", agents), model=kit.script([kit.say("B here.")]))
    calls = [kit.call("look", {"n": 1}, "call_1"), kit.call("touch", {}, "call_2")]
    first = kit.Agent(
        name="A",
        instructions="Be A.",
        hooks=agent_hooks(kit, "A", agents),
        tools=[look, touch],
        handoffs=[second],
        model=kit.script(calls, [kit.call("transfer_to_b", {}, "call_3")]),
    )
    # One after the other: how tools that run side by side take turns is nobody's promise.
    config = kit.RunConfig(tool_execution=kit.ToolExecutionConfig(max_function_tool_concurrency=1))
    options = {"hooks": run_hooks(kit, run), "run_config": config, "context": "the context", **options}
    return Case(first, options=options)


@scenario
def hooks_of_a_run_with_tools_and_a_handoff(kit: Kit) -> Case:
    return team(kit)


@scenario
def hooks_of_a_plain_answer(kit: Kit) -> Case:
    agent = kit.Agent(name="A", hooks=agent_hooks(kit, "A"), model=kit.script([kit.say("Hello.")]))
    return Case(agent, options={"hooks": run_hooks(kit)})


@scenario
def hooks_of_a_run_without_hooks_of_the_agents(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, [{"role": "user", "content": "Hi"}], options={"hooks": run_hooks(kit)})


@scenario
def hooks_of_agents_alone(kit: Kit) -> Case:
    return team(kit, hooks=None)


def breaking(name: str, **who: str) -> None:
    """Enter the scenario in which this hook raises."""

    def case(kit: Kit) -> Case:
        return team(kit, **who)

    case.__name__ = name
    scenario(case)


for each in RUN_HOOKS:
    breaking(f"a_run_hook_that_raises_{each}", run=each)
for each in AGENT_HOOKS:
    breaking(f"an_agent_hook_that_raises_{each}", agents=each)


@scenario
def hooks_of_a_tool_that_is_the_output(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> int:
        return 3

    agent = kit.Agent(
        name="A",
        tools=[look],
        tool_use_behavior="stop_on_first_tool",
        hooks=agent_hooks(kit, "A"),
        model=kit.script([kit.call("look")]),
    )
    return Case(agent, options={"hooks": run_hooks(kit)})


@scenario
def hooks_of_a_tool_that_fails(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> int:
        raise ValueError("nothing to see")

    agent = kit.Agent(name="A", tools=[look], model=kit.script([kit.call("look")], [kit.say("Oh.")]))
    return Case(agent, options={"hooks": run_hooks(kit)})


@scenario
def hooks_of_a_tool_that_ends_the_run(kit: Kit) -> Case:
    @kit.function_tool(failure_error_function=None)
    def look() -> int:
        raise ValueError("nothing to see")

    agent = kit.Agent(name="A", tools=[look], model=kit.script([kit.call("look")], [kit.say("Oh.")]))
    return Case(agent, options={"hooks": run_hooks(kit)})


@scenario
def hooks_of_a_tool_that_is_not_there(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.call("look")], [kit.say("Oh.")]))
    config = kit.RunConfig(tool_not_found_behavior="return_error_to_model")
    return Case(agent, options={"hooks": run_hooks(kit), "run_config": config})


@scenario
def hooks_of_a_run_that_takes_too_many_turns(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> int:
        return 3

    agent = kit.Agent(name="A", tools=[look], model=kit.script([kit.call("look")], [kit.say("Oh.")]))
    handlers = {"max_turns": lambda given: "So far."}
    return Case(agent, options={"hooks": run_hooks(kit), "max_turns": 1, "error_handlers": handlers})


@scenario
def hooks_of_a_refusal_that_is_handled(kit: Kit) -> Case:
    agent = kit.Agent(name="A", hooks=agent_hooks(kit, "A"), model=kit.script([message(refusal("No."))]))
    handlers = {"model_refusal": lambda given: "It would not."}
    return Case(agent, options={"hooks": run_hooks(kit), "error_handlers": handlers})


@scenario
def hooks_of_a_model_that_fails(kit: Kit) -> Case:
    agent = kit.Agent(name="A", hooks=agent_hooks(kit, "A"), model=kit.script(ConnectionError("no line")))
    return Case(agent, options={"hooks": run_hooks(kit)})


@scenario
def hooks_of_a_handoff_with_a_filter(kit: Kit) -> Case:
    def only_new(data: Any) -> Any:
        kit.note("the filter runs")
        return data.clone(input_history=())

    def goes(context: Any) -> None:
        kit.note("on_handoff of the handoff runs")

    second = kit.Agent(name="B", hooks=agent_hooks(kit, "B"), model=kit.script([kit.say("B here.")]))
    way = kit.handoff(second, on_handoff=goes, input_filter=only_new)
    first = kit.Agent(
        name="A", hooks=agent_hooks(kit, "A"), handoffs=[way], model=kit.script([kit.call("transfer_to_b")])
    )
    return Case(first, options={"hooks": run_hooks(kit)})


@scenario
def a_hook_that_changes_what_the_model_is_given(kit: Kit) -> Case:
    class Adding(kit.RunHooks):  # type: ignore[misc, name-defined]
        async def on_llm_start(self, context: Any, agent: Any, system_prompt: Any, input_items: Any) -> None:
            input_items.append({"role": "user", "content": "By the way."})

    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, options={"hooks": Adding()})


@scenario
def hooks_and_a_filter_of_the_models_input(kit: Kit) -> Case:
    def shout(data: Any) -> Any:
        items = [{"role": "user", "content": "HELLO"}]
        return kit.ModelInputData(input=items, instructions="Listen.")

    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    config = kit.RunConfig(call_model_input_filter=shout)
    return Case(agent, options={"hooks": run_hooks(kit), "run_config": config})


@scenario
def hooks_of_an_agent_for_a_run(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, options={"hooks": agent_hooks(kit, "A")})


@scenario
def no_hooks_for_a_run(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, options={"hooks": 3})


@scenario
def hooks_of_a_run_for_an_agent(kit: Kit) -> Case:
    agent = kit.Agent(name="A", hooks=run_hooks(kit), model=kit.script([kit.say("Hello.")]))
    return Case(agent)


@scenario
def hooks_whose_method_is_a_plain_function(kit: Kit) -> Case:
    class Plain(kit.RunHooks):  # type: ignore[misc, name-defined]
        def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            kit.note("on_llm_end")

    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, options={"hooks": Plain()})
