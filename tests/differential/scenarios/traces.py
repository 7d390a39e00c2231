"""What a processor is told of runs: the tree of their spans, and what each of them says."""

from typing import Any

from tests.differential.kit import Case, Kit, scenario

_TOLD = {
    "agent": ("name", "handoffs", "tools", "output_type"),
    "function": ("name", "input", "output"),
    "handoff": ("from_agent", "to_agent"),
    "custom": ("name", "data"),
    "generation": (),  # a scripted model of the SDK's tells nothing in it
}


def told_of(kit: Kit, traces: int = 1) -> None:
    """Note so many traces, each when it ends, with the tree of its spans as they began."""
    spans: list[Any] = []
    left = iter(range(traces - 1, -1, -1))

    class Processor(kit.TracingProcessor):
        def on_trace_start(self, trace: Any) -> None:
            spans.clear()

        def on_trace_end(self, trace: Any) -> None:
            exported = trace.export()
            kit.note(exported["workflow_name"], exported["group_id"], exported["metadata"], tree(None))
            if next(left) == 0:
                kit.set_trace_processors([])

        def on_span_start(self, span: Any) -> None:
            spans.append(span)

        def on_span_end(self, span: Any) -> None:
            pass

        def shutdown(self) -> None:
            pass

        def force_flush(self) -> None:
            pass

    def tree(parent: Any) -> list[Any]:
        return [[*line(span), tree(span.span_id)] for span in spans if span.parent_id == parent]

    kit.set_tracing_disabled(False)  # as it is in the SDK's process of these tests
    kit.set_trace_processors([Processor()])


def line(span: Any) -> list[Any]:
    """What a span says, and its error; texts of errors are each package's own."""
    data = span.export()["span_data"]
    error = dict(span.error) if span.error else None
    if error is not None and error["data"]:
        error["data"] = {
            key: value for key, value in error["data"].items() if key not in ("error", "error_type")
        }
    return [data["type"], {key: data[key] for key in _TOLD[data["type"]]}, error]


def quiet(kit: Kit) -> Any:
    """For `Case.after`: nobody is told any more, and nothing is current."""

    def after(done: Any) -> Any:
        kit.set_trace_processors([])
        return [kit.get_current_trace(), kit.get_current_span()]

    return after


def rich_agent(kit: Kit) -> Any:
    @kit.function_tool
    def look_up(city: str) -> str:
        with kit.custom_span("rank", {"hits": 3}):
            return f"{city}: cold"

    @kit.function_tool
    def fail() -> str:
        raise ValueError("no")

    guide = kit.Agent(name="Guide", model=kit.script([kit.say("Dress warmly.")], emit_traces=True))
    steps = [
        [kit.call("look_up", {"city": "Oslo"})],
        [kit.call("fail", {}, "call_2")],
        [kit.call("transfer_to_guide", {}, "call_3")],
    ]
    model = kit.script(*steps, emit_traces=True)
    return kit.Agent(name="A", model=model, tools=[look_up, fail], handoffs=[guide])


@scenario
def spans_of_a_run_with_tools_and_a_handoff(kit: Kit) -> Case:
    told_of(kit)
    config = kit.RunConfig(workflow_name="Weather", group_id="chat_7", trace_metadata={"customer": 3})
    return Case(rich_agent(kit), options={"run_config": config}, after=quiet(kit))


@scenario
def spans_without_sensitive_data(kit: Kit) -> Case:
    told_of(kit)
    config = kit.RunConfig(trace_include_sensitive_data=False)
    return Case(rich_agent(kit), options={"run_config": config}, after=quiet(kit))


@scenario
def spans_without_task_and_turns(kit: Kit) -> Case:
    told_of(kit)
    config = kit.RunConfig(tracing={"include_task_and_turn_spans": False})
    return Case(rich_agent(kit), options={"run_config": config}, after=quiet(kit))


@scenario
def no_spans_where_tracing_is_disabled(kit: Kit) -> Case:
    told_of(kit)
    config = kit.RunConfig(tracing_disabled=True)
    return Case(rich_agent(kit), options={"run_config": config}, after=quiet(kit))


@scenario
def spans_of_a_run_within_a_tool(kit: Kit) -> Case:
    told_of(kit)
    inner = kit.Agent(name="Inner", model=kit.script([kit.say("Yes.")], emit_traces=True))

    @kit.function_tool
    async def ask() -> str:
        return (await kit.Runner.run(inner, "?")).final_output

    model = kit.script([kit.call("ask")], [kit.say("Done.")], emit_traces=True)
    return Case(kit.Agent(name="Outer", model=model, tools=[ask]), after=quiet(kit))


@scenario
def spans_of_too_many_turns(kit: Kit) -> Case:
    told_of(kit)
    return Case(rich_agent(kit), options={"max_turns": 1}, after=quiet(kit))


@scenario
def spans_of_a_run_that_a_tool_ends(kit: Kit) -> Case:
    told_of(kit)

    @kit.function_tool(failure_error_function=None)
    def fail() -> str:
        raise ValueError("no")

    model = kit.script([kit.call("fail")], emit_traces=True)
    return Case(kit.Agent(name="A", model=model, tools=[fail]), after=quiet(kit))


@scenario
def what_is_current_in_tools_and_hooks(kit: Kit) -> Case:
    def look(where: str) -> None:
        kit.note(where, kit.get_current_span().span_data.type, kit.get_current_trace().name)

    class Hooks(kit.RunHooks):
        async def on_agent_start(self, context: Any, agent: Any) -> None:
            look("agent starts")

        async def on_llm_start(self, context: Any, agent: Any, prompt: Any, items: Any) -> None:
            look("model starts")

        async def on_tool_start(self, context: Any, agent: Any, tool: Any) -> None:
            look("tool starts")

        async def on_tool_end(self, context: Any, agent: Any, tool: Any, result: Any) -> None:
            look("tool ends")

    @kit.function_tool
    def tool() -> str:
        look("tool")
        return "done"

    told_of(kit)
    model = kit.script([kit.call("tool")], [kit.say("Done.")])
    return Case(kit.Agent(name="A", model=model, tools=[tool]), options={"hooks": Hooks()}, after=quiet(kit))


@scenario
def traces_and_spans_of_a_programs_own(kit: Kit) -> Case:
    told_of(kit, 2)
    with kit.trace("W", group_id="g", metadata={"n": 1}), kit.custom_span("outer", {"a": 1}) as outer:
        with kit.agent_span("A", ["B"], ["look"], "str"), kit.handoff_span("A", "B"):
            kit.note(kit.get_current_span().span_data.type)
        outer.set_error({"message": "No.", "data": {"why": 1}})
    with kit.custom_span("outside") as outside, kit.function_span("f", "1", "2", disabled=True) as inside:
        kit.note(outside.export(), outside.span_id, inside.trace_id, inside.started_at)
    spans = [
        kit.agent_span("A"), kit.custom_span("c", {"a": 1}), kit.function_span("f", "1", "2"),
        kit.generation_span([{"role": "user"}], [{"a": 1}], "m", {"t": 1}, {"input_tokens": 1}),
        kit.guardrail_span("g", True), kit.handoff_span("A", "B"), kit.response_span(),
        kit.task_span("t"), kit.turn_span(2, "A"), kit.mcp_tools_span("s", ["x"]),
    ]  # fmt: skip
    kit.note(*(span.span_data.export() for span in spans))
    kit.note(*(kit.gen_trace_id()[:6], len(kit.gen_trace_id()), len(kit.gen_span_id())))
    off = kit.trace("off", disabled=True)
    kit.note(off.name, off.trace_id, off.export(), off.to_json())
    return Case(kit.Agent(name="A", model=kit.script([kit.say("Hi.")])), after=quiet(kit))
