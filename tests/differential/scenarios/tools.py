"""Tools: how they are called, how they fail, and what becomes of their outputs."""

# A name of a kit is a class only when it runs.
# pyright: reportInvalidTypeForm=false

import asyncio
import threading
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

from tests.differential.kit import Case, Kit, scenario


def used(kit: Kit, *tools: Any, calls: list[Any] | None = None, **agent: Any) -> Any:
    """An agent whose model calls every tool once, without arguments, then answers."""
    calls = calls or [kit.call(tool.name, call_id=f"call_{n}") for n, tool in enumerate(tools, 1)]
    return kit.Agent(name="A", tools=list(tools), model=kit.script(calls, [kit.say("Done.")]), **agent)


def returning(value: Callable[[Kit], Any]) -> Callable[[Kit], Case]:
    """A scenario of a tool that returns `value`."""

    def scenario_of(kit: Kit) -> Case:
        @kit.function_tool
        def give() -> Any:
            return value(kit)

        return Case(used(kit, give))

    return scenario_of


@scenario
def a_tool(kit: Kit) -> Case:
    @kit.function_tool
    def add(a: int, b: int = 2) -> int:
        """Add two numbers."""
        return a + b

    return Case(used(kit, add, calls=[kit.call("add", {"a": 1})]))


@scenario
def an_async_tool(kit: Kit) -> Case:
    @kit.function_tool
    async def add(a: int, b: int) -> int:
        await asyncio.sleep(0)
        return a + b

    return Case(used(kit, add, calls=[kit.call("add", {"a": 1, "b": 2})]))


@scenario
def a_sync_tool_runs_in_another_thread(kit: Kit) -> Case:
    main = threading.get_ident()

    @kit.function_tool
    def where() -> bool:
        return threading.get_ident() == main

    return Case(used(kit, where))


@scenario
def text_beside_a_tool_call(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    return Case(used(kit, look, calls=[kit.say("I look."), kit.call("look")]))


@scenario
def a_tool_with_the_runs_context(kit: Kit) -> Case:
    @kit.function_tool
    def greet(context: kit.RunContextWrapper[dict[str, str]], greeting: str) -> str:
        kit.note(context.usage.requests, [dict(each) for each in context.turn_input])
        return f"{greeting}, {context.context['name']}"

    agent = used(kit, greet, calls=[kit.call("greet", {"greeting": "Hello"})])
    return Case(agent, options={"context": {"name": "Ada"}})


@scenario
def a_tool_with_the_calls_context(kit: Kit) -> Case:
    @kit.function_tool
    def look(context: kit.ToolContext[Any], where: str) -> str:
        kit.note(context.tool_name, context.tool_call_id, context.tool_arguments, context.agent.name)
        kit.note(context.tool_call.name, context.context, type(context.run_config).__name__)
        return where

    return Case(used(kit, look, calls=[kit.call("look", {"where": "up"})]), options={"context": 5})


@scenario
def several_tools_side_by_side(kit: Kit) -> Case:
    both = asyncio.Event()

    @kit.function_tool
    async def first() -> str:
        await both.wait()
        return "first"

    @kit.function_tool
    async def second() -> str:
        both.set()
        return "second"

    return Case(used(kit, first, second))


@scenario
def one_tool_called_twice(kit: Kit) -> Case:
    @kit.function_tool
    def double(n: int) -> int:
        return 2 * n

    calls = [kit.call("double", {"n": n}, f"call_{n}") for n in (1, 2)]
    return Case(used(kit, double, calls=calls))


@scenario
def tools_one_at_a_time(kit: Kit) -> Case:
    running: list[str] = []

    def make(name: str) -> Any:
        @kit.function_tool(name_override=name)
        async def work() -> int:
            running.append(name)
            await asyncio.sleep(0)
            count = len(running)
            running.remove(name)
            return count

        return work

    config = kit.RunConfig(tool_execution=kit.ToolExecutionConfig(max_function_tool_concurrency=1))
    return Case(used(kit, make("one"), make("two"), make("three")), options={"run_config": config})


@scenario
def tools_in_several_turns(kit: Kit) -> Case:
    @kit.function_tool
    def count(n: int) -> int:
        return n + 1

    model = kit.script(
        [kit.call("count", {"n": 1}, "call_1")],
        [kit.say("Once more."), kit.call("count", {"n": 2}, "call_2")],
        [kit.call("count", {"n": 3}, "call_3")],
        [kit.say("Four.")],
    )
    return Case(kit.Agent(name="A", tools=[count], model=model))


@scenario
def a_tool_that_raises(kit: Kit) -> Case:
    @kit.function_tool
    def fail() -> str:
        raise ValueError("out of order")

    return Case(used(kit, fail))


@scenario
def a_tool_that_raises_beside_one_that_does_not(kit: Kit) -> Case:
    @kit.function_tool
    def fail() -> str:
        raise ValueError("out of order")

    @kit.function_tool
    def work() -> str:
        return "fine"

    return Case(used(kit, fail, work))


@scenario
def a_tool_with_an_error_function(kit: Kit) -> Case:
    def tell(context: Any, error: Exception) -> str:
        kit.note(context.context, type(error).__name__, str(error))
        return "Try later."

    @kit.function_tool(failure_error_function=tell)
    def fail() -> str:
        raise ValueError("out of order")

    return Case(used(kit, fail), options={"context": 3})


@scenario
def a_tool_with_an_async_error_function(kit: Kit) -> Case:
    async def tell(context: Any, error: Exception) -> str:
        return f"Try later: {error}"

    @kit.function_tool(failure_error_function=tell)
    async def fail() -> str:
        raise ValueError("out of order")

    return Case(used(kit, fail))


@scenario
def a_tool_whose_error_ends_the_run(kit: Kit) -> Case:
    @kit.function_tool(failure_error_function=None)
    def fail() -> str:
        raise ValueError("out of order")

    return Case(used(kit, fail))


@scenario
def a_tool_whose_error_is_the_packages_own(kit: Kit) -> Case:
    @kit.function_tool(failure_error_function=None)
    def fail() -> str:
        raise kit.UserError("not like this")

    return Case(used(kit, fail))


@scenario
def a_formatter_of_tool_errors(kit: Kit) -> Case:
    def tell(args: Any) -> str:
        kit.note(args.kind, args.tool_type, args.tool_name, args.call_id, args.default_message)
        return f"{args.tool_name} failed."

    @kit.function_tool
    def fail() -> str:
        raise ValueError("out of order")

    return Case(used(kit, fail), options={"run_config": kit.RunConfig(tool_error_formatter=tell)})


@scenario
def a_tool_that_takes_too_long(kit: Kit) -> Case:
    @kit.function_tool(timeout=0.01)
    async def wait() -> str:
        await asyncio.Event().wait()
        return "never"

    return Case(used(kit, wait))


@scenario
def a_tool_that_takes_too_long_with_a_text(kit: Kit) -> Case:
    def tell(context: Any, error: Exception) -> str:
        kit.note(type(error).__name__)
        return "Too slow."

    @kit.function_tool(timeout=0.01, timeout_error_function=tell)
    async def wait() -> str:
        await asyncio.Event().wait()
        return "never"

    return Case(used(kit, wait))


@scenario
def a_tool_whose_timeout_ends_the_run(kit: Kit) -> Case:
    @kit.function_tool(timeout=0.01, timeout_behavior="raise_exception")
    async def wait() -> str:
        await asyncio.Event().wait()
        return "never"

    return Case(used(kit, wait))


@scenario
def arguments_that_are_no_json(kit: Kit) -> Case:
    @kit.function_tool
    def add(a: int) -> int:
        return a

    return Case(used(kit, add, calls=[kit.call("add", '{"a": ')]))


@scenario
def arguments_of_the_wrong_type(kit: Kit) -> Case:
    @kit.function_tool
    def add(a: int) -> int:
        return a

    return Case(used(kit, add, calls=[kit.call("add", {"a": "many"})]))


@scenario
def arguments_that_are_missing(kit: Kit) -> Case:
    @kit.function_tool
    def add(a: int, b: int) -> int:
        return a + b

    return Case(used(kit, add, calls=[kit.call("add", {"a": 1})]))


@scenario
def arguments_nobody_asked_for(kit: Kit) -> Case:
    @kit.function_tool
    def add(a: int) -> int:
        return a

    return Case(used(kit, add, calls=[kit.call("add", {"a": 1, "b": 2})]))


@scenario
def arguments_that_are_an_empty_text(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    return Case(used(kit, look, calls=[kit.call("look", "")]))


@scenario
def arguments_as_models(kit: Kit) -> Case:
    class Point(BaseModel):
        x: int
        y: int = 0

    @kit.function_tool
    def far(points: list[Point], *rest: int) -> str:
        kit.note([type(point).__name__ for point in points], rest)
        return str(sum(point.x + point.y for point in points))

    calls = [kit.call("far", {"points": [{"x": 1}, {"x": 2, "y": 3}], "rest": [4, 5]})]
    return Case(used(kit, far, calls=calls))


@scenario
def bad_arguments_end_the_run_where_no_error_function_is(kit: Kit) -> Case:
    @kit.function_tool(failure_error_function=None)
    def add(a: int) -> int:
        return a

    return Case(used(kit, add, calls=[kit.call("add", {"a": "many"})]))


@scenario
def an_unknown_tool(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    return Case(used(kit, look, calls=[kit.call("find")]))


@scenario
def an_unknown_tool_beside_a_known_one(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        kit.note("looked")
        return "seen"

    return Case(used(kit, look, calls=[kit.call("look"), kit.call("find", call_id="call_2")]))


@scenario
def an_unknown_tool_that_the_model_is_told_of(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    config = kit.RunConfig(tool_not_found_behavior="return_error_to_model")
    calls = [kit.call("find"), kit.call("look", call_id="call_2")]
    return Case(used(kit, look, calls=calls), options={"run_config": config})


@scenario
def an_unknown_tool_and_a_formatter(kit: Kit) -> Case:
    def tell(args: Any) -> str:
        kit.note(args.kind, args.tool_type, args.tool_name, args.call_id, args.default_message)
        return "No such tool here."

    config = kit.RunConfig(tool_not_found_behavior="return_error_to_model", tool_error_formatter=tell)
    return Case(used(kit, calls=[kit.call("find")]), options={"run_config": config})


@scenario
def stop_on_the_first_tool(kit: Kit) -> Case:
    @kit.function_tool
    def one() -> int:
        return 1

    @kit.function_tool
    def two() -> int:
        return 2

    return Case(used(kit, one, two, tool_use_behavior="stop_on_first_tool"))


@scenario
def stop_on_the_first_tool_with_a_type(kit: Kit) -> Case:
    @kit.function_tool
    def numbers() -> list[int]:
        return [1, 2]

    return Case(used(kit, numbers, tool_use_behavior="stop_on_first_tool", output_type=list[int]))


@scenario
def stop_at_named_tools(kit: Kit) -> Case:
    @kit.function_tool
    def one() -> int:
        return 1

    @kit.function_tool
    def two() -> int:
        return 2

    behavior = kit.StopAtTools(stop_at_tool_names=["two"])
    return Case(used(kit, one, two, tool_use_behavior=behavior))


@scenario
def stop_at_a_tool_that_is_not_called(kit: Kit) -> Case:
    @kit.function_tool
    def one() -> int:
        return 1

    return Case(used(kit, one, tool_use_behavior={"stop_at_tool_names": ["two"]}))


@scenario
def a_function_decides_what_tools_mean(kit: Kit) -> Case:
    @kit.function_tool
    def one() -> int:
        return 1

    def decide(context: Any, results: list[Any]) -> Any:
        kit.note(context.context, [(each.tool.name, each.output, each.run_item.type) for each in results])
        return kit.ToolsToFinalOutputResult(is_final_output=True, final_output={"sum": 1})

    return Case(used(kit, one, tool_use_behavior=decide), options={"context": 2})


@scenario
def a_coroutine_decides_that_the_model_goes_on(kit: Kit) -> Case:
    @kit.function_tool
    def one() -> int:
        return 1

    async def decide(context: Any, results: list[Any]) -> Any:
        return kit.ToolsToFinalOutputResult(is_final_output=False)

    return Case(used(kit, one, tool_use_behavior=decide))


@scenario
def stop_on_a_tool_that_failed(kit: Kit) -> Case:
    @kit.function_tool
    def fail() -> str:
        raise ValueError("out of order")

    return Case(used(kit, fail, tool_use_behavior="stop_on_first_tool"))


@scenario
def a_tool_choice_is_reset(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    return Case(used(kit, look, model_settings=kit.ModelSettings(tool_choice="required")))


@scenario
def a_tool_choice_is_kept(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    settings = kit.ModelSettings(tool_choice="look")
    return Case(used(kit, look, model_settings=settings, reset_tool_choice=False))


@scenario
def a_tool_choice_of_the_run(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    config = kit.RunConfig(model_settings=kit.ModelSettings(tool_choice="look"))
    return Case(used(kit, look), options={"run_config": config})


@scenario
def a_tool_choice_with_a_handoff(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    settings = kit.ModelSettings(tool_choice="required")
    back = kit.script([kit.call("look", call_id="call_2")], [kit.say("B here.")])
    second = kit.Agent(name="B", tools=[look], model_settings=settings, model=back)
    first = kit.Agent(
        name="A", handoffs=[second], model_settings=settings, model=kit.script([kit.call("transfer_to_b")])
    )
    return Case(first)


@scenario
def tools_that_are_not_enabled(kit: Kit) -> Case:
    def depends(context: Any, agent: Any) -> bool:
        kit.note(context.context, agent.name)
        return context.context > 1

    async def never(context: Any, agent: Any) -> bool:
        return False

    def make(name: str, is_enabled: Any) -> Any:
        @kit.function_tool(name_override=name, is_enabled=is_enabled)
        def work() -> str:
            return name

        return work

    tools = [make("on", True), make("off", False), make("depends", depends), make("never", never)]
    return Case(used(kit, *tools, calls=[kit.call("depends")]), options={"context": 2})


@scenario
def a_tool_that_is_not_enabled_is_called(kit: Kit) -> Case:
    @kit.function_tool(is_enabled=False)
    def look() -> str:
        return "seen"

    return Case(used(kit, look))


@scenario
def a_tool_made_by_hand(kit: Kit) -> Case:
    async def invoke(context: Any, arguments: str) -> str:
        kit.note(context.tool_name, context.tool_call_id, arguments)
        return arguments.upper()

    schema = {"type": "object", "properties": {"word": {"type": "string"}}}
    tool = kit.FunctionTool("shout", "Say it louder.", schema, invoke)
    return Case(used(kit, tool, calls=[kit.call("shout", {"word": "hey"})]))


@scenario
def a_tool_made_by_hand_that_raises(kit: Kit) -> Case:
    async def invoke(context: Any, arguments: str) -> str:
        raise LookupError("no such word")

    tool = kit.FunctionTool("shout", "Say it louder.", {}, invoke)
    return Case(used(kit, tool))


@scenario
def a_tool_that_returns_an_object_with_a_text(kit: Kit) -> Case:
    class Thing:
        def __str__(self) -> str:
            return "a thing"

    @kit.function_tool
    def give() -> Any:
        return Thing()

    return Case(used(kit, give))


@scenario
def two_tools_of_one_name(kit: Kit) -> Case:
    def make(text: str) -> Any:
        @kit.function_tool(name_override="look")
        def look() -> str:
            return text

        return look

    return Case(used(kit, make("one"), make("two"), calls=[kit.call("look")]))


@scenario
def two_tools_of_one_name_where_that_is_an_error(kit: Kit) -> Case:
    def make(text: str) -> Any:
        @kit.function_tool(name_override="look")
        def look() -> str:
            return text

        return look

    agent = used(kit, make("one"), make("two"), calls=[kit.call("look")])
    return Case(agent, options={"run_config": kit.RunConfig(tool_name_collision_policy="error")})


@scenario
def two_tools_of_one_name_where_that_is_a_warning(kit: Kit) -> Case:
    def make(text: str) -> Any:
        @kit.function_tool(name_override="look")
        def look() -> str:
            return text

        return look

    agent = used(kit, make("one"), make("two"), calls=[kit.call("look")])
    return Case(agent, options={"run_config": kit.RunConfig(tool_name_collision_policy="warn")})


@scenario
def many_tools_of_one_name(kit: Kit) -> Case:
    def make(name: str, text: str) -> Any:
        @kit.function_tool(name_override=name, description_override=text)
        def look() -> str:
            return text

        return look

    def way(name: str) -> Any:
        target = kit.Agent(name=name, model=kit.script([kit.say(f"{name} here.")]))
        return kit.handoff(target, tool_name_override="transfer", tool_description_override=name)

    tools = [make("look", "one"), make("transfer", "two"), make("find", "three"), make("look", "four")]
    calls = [kit.call("look"), kit.call("transfer", call_id="call_2")]
    agent = used(kit, *tools, calls=calls, handoffs=[way("B"), way("C")])
    return Case(agent, options={"run_config": kit.RunConfig(tool_name_collision_policy="warn")})


@scenario
def one_call_id_for_two_calls(kit: Kit) -> Case:
    @kit.function_tool
    def double(n: int) -> int:
        return 2 * n

    return Case(used(kit, double, calls=[kit.call("double", {"n": n}, "call_1") for n in (1, 2)]))


@scenario
def no_tool_at_all_in_the_list(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", tools=["look"], model=kit.script([kit.say("Hello.")])))


# What tools return.

_PICTURE = "data:image/png;base64,iVBORw0KGgo="


def _outputs() -> dict[str, Callable[[Kit], Any]]:
    return {
        "text": lambda kit: "seen",
        "nothing": lambda kit: None,
        "a_dict": lambda kit: {"a": [1, None, "é"]},
        "a_list": lambda kit: [1, 2.5, True],
        "an_empty_list": lambda kit: [],
        "bytes": lambda kit: b"\x00\xff",
        "a_text_part": lambda kit: kit.ToolOutputText(text="seen"),
        "an_image": lambda kit: kit.ToolOutputImage(image_url=_PICTURE, detail="low"),
        "an_image_as_a_dict": lambda kit: {"type": "image", "image_url": _PICTURE},
        "an_image_by_id": lambda kit: kit.ToolOutputImage(file_id="file_1"),
        "a_file": lambda kit: kit.ToolOutputFileContent(file_data="aGVsbG8=", filename="hello.txt"),
        "a_file_by_url": lambda kit: kit.ToolOutputFileContent(file_url="https://example.org/a.txt"),
        "a_file_as_a_dict": lambda kit: {"type": "file", "file_id": "file_1"},
        "parts": lambda kit: [
            kit.ToolOutputText(text="look:"),
            kit.ToolOutputImage(image_url=_PICTURE),
            {"type": "text", "text": "there"},
        ],
        "parts_and_something_else": lambda kit: [kit.ToolOutputText(text="look:"), 5],
        "a_dict_that_only_looks_like_a_part": lambda kit: {"type": "image", "size": 3},
        "an_object": lambda kit: kit.ModelInputData(input=[], instructions="Look."),
    }


for _name, _value in _outputs().items():
    _scenario = returning(_value)
    _scenario.__name__ = f"a_tool_that_returns_{_name}"
    scenario(_scenario)
