"""Agents that are tools: what they are given, what they give back, and what is seen of them."""

# A name of a kit is a class only when it runs.
# pyright: reportInvalidTypeForm=false

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

from tests.differential.kit import Case, Kit, scenario


def helper(kit: Kit, *steps: Any, **agent: Any) -> Any:
    """An agent that answers, by default with one text."""
    return kit.Agent(name="Helper", model=kit.script(*(steps or ([kit.say("Helped.")],))), **agent)


def asks(kit: Kit, tool: Any, arguments: Any = None, **agent: Any) -> Any:
    """An agent whose model calls `tool` once, then answers."""
    call = kit.call(tool.name, {"input": "Please."} if arguments is None else arguments)
    return kit.Agent(name="A", tools=[tool], model=kit.script([call], [kit.say("Done.")]), **agent)


@dataclasses.dataclass
class Place:
    """A place on a map."""

    city: str
    days: int = 2


class Wish(BaseModel):
    """What is wanted."""

    city: str = Field(description="Where to.")
    days: int = 3
    kind: str | None = None


class Nested(BaseModel):
    place: Wish
    tags: list[str]


class Plain(BaseModel):
    a: int
    b: float = 1.5


# --- how it is described -----------------------------------------------------------------------


@scenario
def an_agent_as_a_tool(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps.")))


@scenario
def an_agent_as_a_tool_without_a_name(kit: Kit) -> Case:
    return Case(
        asks(kit, kit.Agent(name="The Helper 2", model=kit.script([kit.say("x")])).as_tool(None, None))
    )


@scenario
def an_agent_as_a_tool_and_its_fields(kit: Kit) -> Case:
    tool = helper(kit).as_tool("help", "Helps.", is_enabled=False)
    kit.note(tool.name, tool.description, tool.strict_json_schema, tool.is_enabled, tool.needs_approval)
    kit.note(tool.params_json_schema, tool.timeout_seconds, type(tool).__name__)
    return Case(kit.Agent(name="A", tools=[tool], model=kit.script([kit.say("Done.")])))


@scenario
def an_agent_as_a_tool_that_asks_whether_it_is_enabled(kit: Kit) -> Case:
    def is_enabled(context: Any, agent: Any) -> bool:
        kit.note(context.context, agent.name)
        return False

    tool = helper(kit).as_tool("help", "Helps.", is_enabled=is_enabled)
    return Case(
        kit.Agent(name="A", tools=[tool], model=kit.script([kit.say("Done.")])), options={"context": 7}
    )


@scenario
def the_origin_of_an_agents_calls(kit: Kit) -> Case:
    def origins(done: Any) -> Any:
        return [
            each.tool_origin.to_json_dict() for each in done.new_items if getattr(each, "tool_origin", None)
        ]

    return Case(asks(kit, helper(kit).as_tool("help", "Helps.")), after=origins)


# --- what it is given ---------------------------------------------------------------------------


def structured(parameters: Any, arguments: Any, **options: Any) -> Callable[[Kit], Case]:
    def scenario_of(kit: Kit) -> Case:
        def seen(context: Any, agent: Any) -> str:
            kit.note(context.tool_input, type(context).__name__)
            return "Help."

        agent = helper(kit, instructions=seen)
        tool = agent.as_tool("help", "Helps.", parameters=parameters, **options)
        return Case(asks(kit, tool, arguments))

    return scenario_of


for name, parameters, arguments in (
    ("a_model", Wish, {"city": "Oslo", "days": 1, "kind": None}),
    ("a_dataclass", Place, {"city": "Oslo", "days": 1}),
    ("a_nested_model", Nested, {"place": {"city": "Oslo", "days": 1, "kind": "x"}, "tags": ["a"]}),
    ("a_model_without_descriptions", Plain, {"a": 1, "b": 2}),
):
    for schema in (False, True):
        function = structured(parameters, arguments, include_input_schema=schema)
        function.__name__ = f"an_agent_that_is_given_{name}" + ("_and_its_schema" if schema else "")
        scenario(function)


@scenario
def an_agent_whose_input_is_built(kit: Kit) -> Case:
    def build(options: Any) -> str:
        kit.note(dict(options))
        return f"Go to {options['params']['city']}."

    tool = helper(kit).as_tool("help", "Helps.", parameters=Wish, input_builder=build)
    return Case(asks(kit, tool, {"city": "Oslo", "days": 1, "kind": None}))


@scenario
def an_agent_whose_input_is_built_of_a_text(kit: Kit) -> Case:
    async def build(options: Any) -> Any:
        kit.note(dict(options))
        return [{"role": "user", "content": options["params"]["input"]}]

    return Case(asks(kit, helper(kit).as_tool("help", "Helps.", input_builder=build)))


@scenario
def an_agent_whose_input_is_built_wrongly(kit: Kit) -> Case:
    tool = helper(kit).as_tool("help", "Helps.", input_builder=lambda options: 5)
    return Case(asks(kit, tool))


@scenario
def a_schema_that_is_asked_for_without_parameters(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps.", include_input_schema=True)))


@scenario
def parameters_that_are_no_type(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps.", parameters=dict)))


@scenario
def an_agent_that_is_given_no_json(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps."), '{"input": 5'))


@scenario
def an_agent_that_is_given_the_wrong_type(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps."), {"input": 5}))


@scenario
def an_agent_that_is_given_nothing(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps."), ""))


# --- context, usage, configuration ---------------------------------------------------------------


@scenario
def the_context_of_an_agent_that_is_a_tool(kit: Kit) -> Case:
    @kit.function_tool
    def look(context: kit.ToolContext[Any]) -> str:
        kit.note(
            context.context, context.tool_name, context.tool_call_id, context.agent.name, context.tool_input
        )
        context.context.append("seen")
        return "seen"

    def instructions(context: Any, agent: Any) -> str:
        kit.note(type(context).__name__, context.context, agent.name, context.tool_name, context.agent.name)
        return "Help."

    inner = helper(
        kit,
        [kit.call("look", call_id="call_9")],
        [kit.say("Helped.")],
        tools=[look],
        instructions=instructions,
    )
    tool = inner.as_tool("help", "Helps.")
    return Case(asks(kit, tool), options={"context": []}, after=lambda done: done.context_wrapper.context)


def usage(kit: Kit, n: int) -> Any:
    return kit.Usage(requests=1, input_tokens=n, output_tokens=n, total_tokens=2 * n)


@scenario
def the_usage_of_an_agent_that_is_a_tool(kit: Kit) -> Case:
    async def extract(done: Any) -> str:
        kit.note(done.context_wrapper.usage.requests, done.context_wrapper.usage.total_tokens)
        return "x"

    @kit.function_tool
    def look(context: kit.ToolContext[Any]) -> str:
        kit.note(context.usage.requests, context.usage.total_tokens)
        return "seen"

    inner = kit.Agent(
        name="Helper",
        tools=[look],
        model=kit.script(
            kit.ModelStep(output=[kit.call("look", call_id="call_9")], usage=usage(kit, 3)),
            kit.ModelStep(output=[kit.say("x")], usage=usage(kit, 5)),
        ),
    )
    tool = inner.as_tool("help", "Helps.", custom_output_extractor=extract)
    outer = kit.Agent(
        name="A",
        tools=[tool],
        model=kit.script(
            kit.ModelStep(output=[kit.call("help", {"input": "x"})], usage=usage(kit, 100)),
            kit.ModelStep(output=[kit.say("Done.")], usage=usage(kit, 1000)),
        ),
    )
    return Case(outer)


@scenario
def the_configuration_of_the_run_holds_for_agents_that_are_tools(kit: Kit) -> Case:
    inner, other = (
        helper(kit),
        kit.script([kit.call("help", {"input": "x"})], [kit.say("Other.")], [kit.say("Done.")]),
    )
    agent = kit.Agent(name="A", tools=[inner.as_tool("help", "Helps.")], model=kit.script())
    config = kit.RunConfig(model=other, model_settings=kit.ModelSettings(temperature=0.5))
    return Case(agent, options={"run_config": config})


@scenario
def a_configuration_of_its_own_is_not_mixed_with_the_runs(kit: Kit) -> Case:
    tool = helper(kit).as_tool(
        "help", "Helps.", run_config=kit.RunConfig(model_settings=kit.ModelSettings(top_p=0.1))
    )
    config = kit.RunConfig(model_settings=kit.ModelSettings(temperature=0.5))
    return Case(asks(kit, tool), options={"run_config": config})


@scenario
def a_configuration_of_its_own_as_a_dict(kit: Kit) -> Case:
    tool = helper(kit).as_tool("help", "Helps.", run_config={"model_settings": {"top_p": 0.1}})
    return Case(asks(kit, tool))


@scenario
def a_response_that_an_agent_goes_on_from(kit: Kit) -> Case:
    tool = helper(kit).as_tool("help", "Helps.", previous_response_id="resp_5")
    return Case(asks(kit, tool))


@scenario
def a_conversation_of_an_agent_that_is_a_tool(kit: Kit) -> Case:
    tool = helper(kit).as_tool("help", "Helps.", conversation_id="conv_5")
    return Case(asks(kit, tool))


# --- what it gives back -----------------------------------------------------------------------


@scenario
def what_is_extracted_from_an_agents_result(kit: Kit) -> Case:
    async def extract(done: Any) -> str:
        call = done.agent_tool_invocation
        kit.note(
            type(done).__name__.removesuffix("Streaming"), done.final_output, done.last_agent.name, done.input
        )
        kit.note(call.tool_name, call.tool_call_id, call.tool_arguments)
        return "extracted"

    return Case(asks(kit, helper(kit).as_tool("help", "Helps.", custom_output_extractor=extract)))


@scenario
def an_extractor_that_raises(kit: Kit) -> Case:
    async def extract(done: Any) -> str:
        raise ValueError("nothing there")

    def told(context: Any, error: Exception) -> str:
        return f"{type(error).__name__}: {error}"

    tool = helper(kit).as_tool("help", "Helps.", custom_output_extractor=extract, failure_error_function=told)
    return Case(asks(kit, tool))


@scenario
def an_object_that_an_agent_gives_back(kit: Kit) -> Case:
    agent = helper(kit, [kit.say('{"a": 1, "b": 2.5}')], output_type=Plain)
    return Case(asks(kit, agent.as_tool("help", "Helps.")))


@scenario
def an_agent_that_gives_back_nothing_has_its_last_words_taken(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    agent = helper(kit, [kit.say("I look."), kit.call("look", call_id="call_9")], [kit.say("")], tools=[look])
    return Case(asks(kit, agent.as_tool("help", "Helps.")))


@scenario
def an_agent_that_gives_back_nothing_and_said_nothing(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit, [kit.say("")]).as_tool("help", "Helps.")))


@scenario
def an_agent_that_hands_over_as_a_tool(kit: Kit) -> Case:
    target = kit.Agent(name="Target", model=kit.script([kit.say("Mine.")]))
    agent = helper(kit, [kit.call("transfer_to_target", call_id="call_9")], handoffs=[target])
    return Case(asks(kit, agent.as_tool("help", "Helps.")))


@scenario
def an_agent_whose_answer_ends_the_run(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps."), tool_use_behavior="stop_on_first_tool"))


# --- how it fails --------------------------------------------------------------------------------


def failing(kit: Kit, error: Exception | None = None) -> Any:
    return helper(kit, kit.ModelStep.raise_error(error or ConnectionError("The model is down.")))


def told(kit: Kit) -> Callable[[Any, Exception], str]:
    def tell(context: Any, error: Exception) -> str:
        kit.note(type(error).__name__, type(context).__name__, context.tool_name)
        return "It failed."

    return tell


@scenario
def an_agent_that_fails_as_a_tool(kit: Kit) -> Case:
    return Case(asks(kit, failing(kit).as_tool("help", "Helps.")))


@scenario
def an_agent_that_fails_and_an_error_function(kit: Kit) -> Case:
    return Case(asks(kit, failing(kit).as_tool("help", "Helps.", failure_error_function=told(kit))))


@scenario
def an_agent_whose_failure_ends_the_run(kit: Kit) -> Case:
    return Case(asks(kit, failing(kit).as_tool("help", "Helps.", failure_error_function=None)))


@scenario
def an_agent_as_a_tool_that_takes_too_many_turns(kit: Kit) -> Case:
    @kit.function_tool
    def look(n: int) -> str:
        return f"seen {n}"

    steps = [[kit.call("look", {"n": n}, f"call_{n}")] for n in range(1, 15)]
    tool = helper(kit, *steps, tools=[look]).as_tool(
        "help", "Helps.", max_turns=2, failure_error_function=told(kit)
    )
    return Case(asks(kit, tool), options={"max_turns": 5})


@scenario
def the_turns_of_an_agent_that_is_a_tool_are_its_own(kit: Kit) -> Case:
    @kit.function_tool
    def look(n: int) -> str:
        return f"seen {n}"

    steps = [[kit.call("look", {"n": n}, f"call_{n}")] for n in range(1, 15)]
    tool = helper(kit, *steps, tools=[look]).as_tool("help", "Helps.", failure_error_function=told(kit))
    return Case(asks(kit, tool), options={"max_turns": 3})


@scenario
def an_agent_in_an_agent_in_an_agent(kit: Kit) -> Case:
    inner = helper(kit).as_tool("innermost", "Helps.")
    middle = asks(kit, inner).clone(name="Middle").as_tool("middle", "Helps.")
    return Case(asks(kit, middle))


@scenario
def two_agents_as_tools_side_by_side(kit: Kit) -> Case:
    one = kit.Agent(name="One", model=kit.script([kit.say("1")])).as_tool("one", "")
    two = kit.Agent(name="Two", model=kit.script([kit.say("2")])).as_tool("two", "")
    calls = [kit.call("one", {"input": "x"}, "call_1"), kit.call("two", {"input": "y"}, "call_2")]
    return Case(kit.Agent(name="A", tools=[one, two], model=kit.script(calls, [kit.say("Done.")])))


# --- on_stream -------------------------------------------------------------------------------------


def named(payload: Any) -> list[Any]:
    event = payload["event"]
    what = (
        getattr(event, "name", None)
        or getattr(getattr(event, "data", None), "type", None)
        or event.new_agent.name
    )
    call = payload["tool_call"]
    return [event.type, what, payload["agent"].name, None if call is None else call.call_id]


@scenario
def the_events_of_an_agent_that_is_a_tool(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    target = kit.Agent(name="Target", model=kit.script([kit.say("Mine.")]))
    agent = helper(
        kit,
        [kit.call("look", call_id="call_8")],
        [kit.call("transfer_to_target", call_id="call_9")],
        tools=[look],
        handoffs=[target],
    )
    return Case(
        asks(kit, agent.as_tool("help", "Helps.", on_stream=lambda payload: kit.note(*named(payload))))
    )


@scenario
def the_events_of_an_agent_that_is_a_tool_awaited(kit: Kit) -> Case:
    async def on_stream(payload: Any) -> None:
        await asyncio.sleep(0)
        kit.note(sorted(payload), *named(payload))

    async def extract(done: Any) -> str:
        kit.note(type(done).__name__, done.is_complete, done.final_output)
        return "extracted"

    tool = helper(kit).as_tool("help", "Helps.", on_stream=on_stream, custom_output_extractor=extract)
    return Case(asks(kit, tool))


@scenario
def a_callback_for_events_that_raises(kit: Kit) -> Case:
    def on_stream(payload: Any) -> None:
        kit.note(*named(payload))
        raise ValueError("not today")

    return Case(asks(kit, helper(kit).as_tool("help", "Helps.", on_stream=on_stream)))


@scenario
def the_events_of_an_agent_that_fails(kit: Kit) -> Case:
    tool = failing(kit).as_tool("help", "Helps.", on_stream=lambda payload: kit.note(*named(payload)))
    return Case(asks(kit, tool))


@scenario
def a_callback_for_events_that_is_slow(kit: Kit) -> Case:
    async def on_stream(payload: Any) -> None:
        for _ in range(50):
            await asyncio.sleep(0)
        kit.note(*named(payload))

    tool = helper(kit).as_tool("help", "Helps.", on_stream=on_stream, on_stream_max_pending_events=1)
    return Case(asks(kit, tool))


@scenario
def a_callback_for_events_that_is_none(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps.", on_stream=5)))


@scenario
def a_backlog_of_no_events(kit: Kit) -> Case:
    return Case(asks(kit, helper(kit).as_tool("help", "Helps.", on_stream_max_pending_events=0)))


# --- elsewhere ----------------------------------------------------------------------------------------


@scenario
def an_agent_as_a_tool_that_is_called_by_hand(kit: Kit) -> Case:
    tool = helper(kit).as_tool("help", "Helps.")

    async def by_hand(done: Any) -> Any:
        context = kit.ToolContext(
            context=None,
            usage=kit.Usage(),
            tool_name="help",
            tool_call_id="call_1",
            tool_arguments='{"input": "x"}',
        )
        output = await tool.on_invoke_tool(context, '{"input": "x"}')
        return [output, context.usage.requests]

    return Case(kit.Agent(name="A", model=kit.script([kit.say("Done.")])), after=by_hand)
