"""What a model says, and what it is asked."""

# A name of a kit is a class only when it runs.
# pyright: reportInvalidTypeForm=false

from typing import Any

from openai.types.responses import (
    Response,
    ResponseCodeInterpreterToolCall,
    ResponseCompletedEvent,
    ResponseFileSearchToolCall,
    ResponseFunctionWebSearch,
    ResponseIncompleteEvent,
    ResponseOutputItemAddedEvent,
    ResponseOutputItemDoneEvent,
    ResponseOutputMessage,
    ResponseOutputRefusal,
    ResponseOutputText,
    ResponseReasoningItem,
    ResponseUsage,
)
from openai.types.responses.response_function_web_search import ActionSearch
from openai.types.responses.response_output_item import ImageGenerationCall, McpCall, McpListTools
from openai.types.responses.response_reasoning_item import Content, Summary
from openai.types.responses.response_usage import InputTokensDetails, OutputTokensDetails
from openai.types.shared import Reasoning

from tests.differential.kit import Case, Kit, scenario


def message(*parts: Any, item_id: str = "msg_1") -> Any:
    return ResponseOutputMessage(
        id=item_id, content=list(parts), role="assistant", status="completed", type="message"
    )


def text(value: str) -> Any:
    return ResponseOutputText(annotations=[], text=value, type="output_text", logprobs=[])


def refusal(value: str) -> Any:
    return ResponseOutputRefusal(refusal=value, type="refusal")


def reasoning(value: str, item_id: str = "rs_1", **fields: Any) -> Any:
    summary = [Summary(text=value, type="summary_text")]
    return ResponseReasoningItem(id=item_id, summary=summary, type="reasoning", **fields)


def web_search(item_id: str = "ws_1") -> Any:
    action = ActionSearch(query="weather", type="search", queries=["weather"])
    return ResponseFunctionWebSearch(id=item_id, action=action, status="completed", type="web_search_call")


USED = ResponseUsage(
    input_tokens=3,
    input_tokens_details=InputTokensDetails(cached_tokens=1, cache_write_tokens=0),
    output_tokens=4,
    output_tokens_details=OutputTokensDetails(reasoning_tokens=2),
    total_tokens=7,
)


def streamed(kit: Kit, *items: Any, usage: Any = None, ends: Any = ResponseCompletedEvent) -> Any:
    """A step that says `items`, with events of its own: the SDK's scripted model streams no hosted tools."""
    events: list[Any] = []
    for index, item in enumerate(items):
        for make in (ResponseOutputItemAddedEvent, ResponseOutputItemDoneEvent):
            kind: Any = f"response.output_item.{'added' if make is ResponseOutputItemAddedEvent else 'done'}"
            events.append(make(item=item, output_index=index, sequence_number=len(events), type=kind))
    response = Response(
        id="resp_1", created_at=0, model="m", object="response", output=list(items),
        parallel_tool_calls=False, tool_choice="auto", tools=[], usage=usage,
    )  # fmt: skip
    kind = "response.completed" if ends is ResponseCompletedEvent else "response.incomplete"
    events.append(ends(response=response, sequence_number=len(events), type=kind))
    counted = (
        {} if usage is None else {"requests": 1, "input_tokens": 3, "output_tokens": 4, "total_tokens": 7}
    )
    details = (
        {}
        if usage is None
        else {
            "input_tokens_details": usage.input_tokens_details,
            "output_tokens_details": usage.output_tokens_details,
        }
    )
    return kit.ModelStep.stream(
        events, output=list(items), usage=kit.Usage(**counted, **details), response_id="resp_1"
    )


@scenario
def a_plain_answer(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", instructions="Be brief.", model=kit.script([kit.say("Hello, you.")])))


@scenario
def no_instructions(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([kit.say("Hi.")])))


@scenario
def input_as_a_list(kit: Kit) -> Case:
    given = [
        {"role": "user", "content": "What is this?"},
        {"role": "assistant", "content": "What is what?"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "This: é ✓"}]},
    ]
    return Case(kit.Agent(name="A", model=kit.script([kit.say("A tick.")])), input=given)


@scenario
def an_empty_text_as_input(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([kit.say("You said nothing.")])), input="")


@scenario
def an_empty_list_as_input(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([kit.say("You said nothing.")])), input=[])


@scenario
def several_messages_in_one_answer(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([kit.say("One."), kit.say("Two.", "msg_2")])))


@scenario
def a_message_of_several_parts(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([message(text("One. "), text("Two."))])))


@scenario
def a_message_without_text(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([kit.say("")])))


@scenario
def a_message_without_parts(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([message()])))


@scenario
def an_empty_response(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([], [kit.say("At last.")])), options={"max_turns": 3})


@scenario
def a_refusal(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([message(refusal("I will not."))])))


@scenario
def a_refusal_behind_text(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([message(text("Well, "), refusal("no."))])))


@scenario
def a_refusal_where_a_type_is_wanted(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", output_type=int, model=kit.script([message(refusal("No."))])))


@scenario
def reasoning_before_the_answer(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script([reasoning("Hm."), kit.say("Yes.")])))


@scenario
def reasoning_with_content(kit: Kit) -> Case:
    content = [Content(text="First this.", type="reasoning_text")]
    thought = reasoning("Hm.", content=content, encrypted_content="c2VjcmV0")
    return Case(kit.Agent(name="A", model=kit.script([thought, kit.say("Yes.")])))


@scenario
def reasoning_before_a_tool_call(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script([reasoning("I look."), kit.call("look")], [reasoning("So.", "rs_2"), kit.say("Seen.")])
    return Case(kit.Agent(name="A", tools=[look], model=model))


@scenario
def reasoning_alone(kit: Kit) -> Case:
    model = kit.script([reasoning("Hm.")], [kit.say("Yes.")])
    return Case(kit.Agent(name="A", model=model), options={"max_turns": 3})


@scenario
def reasoning_item_ids_are_kept(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script([reasoning("I look."), kit.call("look")], [kit.say("Seen.")])
    return Case(
        kit.Agent(name="A", tools=[look], model=model),
        options={"run_config": kit.RunConfig(reasoning_item_id_policy="preserve")},
    )


@scenario
def reasoning_item_ids_are_left_out(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    given = [{"role": "user", "content": "Hi"}, {"type": "reasoning", "id": "rs_0", "summary": []}]
    model = kit.script([reasoning("I look."), kit.call("look")], [reasoning("So.", "rs_2"), kit.say("Seen.")])
    return Case(
        kit.Agent(name="A", tools=[look], model=model),
        given,
        options={"run_config": kit.RunConfig(reasoning_item_id_policy="omit")},
    )


@scenario
def a_hosted_tool(kit: Kit) -> Case:
    model = kit.script(streamed(kit, web_search(), kit.say("It rains."), usage=USED))
    return Case(kit.Agent(name="A", tools=[kit.WebSearchTool()], model=model))


@scenario
def calls_of_hosted_tools_of_every_kind(kit: Kit) -> Case:
    calls = [
        web_search(),
        ResponseFileSearchToolCall(id="fs_1", queries=["q"], status="completed", type="file_search_call"),
        ResponseCodeInterpreterToolCall(
            id="ci_1", code="1 + 1", container_id="c", status="completed", type="code_interpreter_call"
        ),
        ImageGenerationCall(id="ig_1", result="aGk=", status="completed", type="image_generation_call"),
        McpListTools(id="ml_1", server_label="s", tools=[], type="mcp_list_tools"),
        McpCall(id="mc_1", arguments="{}", name="look", server_label="s", output="seen", type="mcp_call"),
    ]
    tools = [
        kit.WebSearchTool(),
        kit.HostedMCPTool(
            tool_config={"type": "mcp", "server_label": "s", "server_url": "https://example.org"}
        ),
    ]
    model = kit.script(streamed(kit, *calls, kit.say("It rains."), usage=USED))
    return Case(kit.Agent(name="A", tools=tools, model=model))


@scenario
def a_hosted_tool_without_a_message(kit: Kit) -> Case:
    model = kit.script(streamed(kit, web_search(), usage=USED), [kit.say("It rains.")])
    return Case(kit.Agent(name="A", tools=[kit.WebSearchTool()], model=model))


@scenario
def hosted_tools_of_every_kind(kit: Kit) -> Case:
    tools = [
        kit.WebSearchTool(search_context_size="high"),
        kit.FileSearchTool(vector_store_ids=["vs_1"], max_num_results=3),
        kit.CodeInterpreterTool(tool_config={"type": "code_interpreter", "container": {"type": "auto"}}),
        kit.ImageGenerationTool(tool_config={"type": "image_generation"}),
        kit.HostedMCPTool(
            tool_config={"type": "mcp", "server_label": "s", "server_url": "https://example.org"}
        ),
    ]
    return Case(kit.Agent(name="A", tools=tools, model=kit.script([kit.say("Ready.")])))


@scenario
def instructions_from_a_function(kit: Kit) -> Case:
    def instructions(context: Any, agent: Any) -> str:
        kit.note(context.context, agent.name)
        return f"Speak to {context.context['name']}."

    agent = kit.Agent(name="A", instructions=instructions, model=kit.script([kit.say("Hello.")]))
    return Case(agent, options={"context": {"name": "Ada"}})


@scenario
def instructions_from_a_coroutine(kit: Kit) -> Case:
    async def instructions(context: Any, agent: Any) -> str:
        return f"Turn with {len(context.turn_input)} items, {agent.name}."

    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script([kit.call("look")], [kit.say("Seen.")])
    return Case(kit.Agent(name="A", instructions=instructions, tools=[look], model=model))


@scenario
def instructions_that_raise(kit: Kit) -> Case:
    def instructions(context: Any, agent: Any) -> str:
        raise ValueError("no instructions today")

    return Case(kit.Agent(name="A", instructions=instructions, model=kit.script([kit.say("Hello.")])))


@scenario
def settings_of_agent_and_run(kit: Kit) -> Case:
    agent = kit.Agent(
        name="A",
        model=kit.script([kit.say("Hello.")]),
        model_settings=kit.ModelSettings(
            temperature=0.1,
            top_p=0.9,
            max_tokens=100,
            metadata={"a": "1"},
            extra_args={"seed": 1, "user": "u"},
            extra_headers={"x-a": "1"},
            reasoning=Reasoning(effort="low"),
            verbosity="low",
            truncation="auto",
            parallel_tool_calls=False,
        ),
    )
    over = kit.ModelSettings(
        temperature=0.5,
        max_tokens=0,
        metadata={"b": "2"},
        extra_args={"seed": 2},
        extra_headers={"x-b": "2"},
        reasoning=Reasoning(summary="auto"),
        store=False,
        tool_choice="none",
        response_include=["reasoning.encrypted_content"],
        top_logprobs=2,
    )
    return Case(agent, options={"run_config": kit.RunConfig(model_settings=over)})


@scenario
def a_configuration_as_a_dict(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model_settings={"temperature": 0.2}, model=kit.script([kit.say("Not me.")]))
    config = {
        "model": kit.script([kit.say("Me.")]),
        "model_settings": {"top_p": 0.3},
        "workflow_name": "Test",
        "tool_execution": {"max_function_tool_concurrency": 2},
    }
    return Case(agent, options={"run_config": config})


@scenario
def a_configuration_with_an_unknown_field(kit: Kit) -> Case:
    agent = kit.Agent(name="A", model=kit.script([kit.say("Hello.")]))
    return Case(agent, options={"run_config": {"modle": "x"}})


@scenario
def the_model_of_the_run_is_every_agents(kit: Kit) -> Case:
    second = kit.Agent(name="B", model=kit.script([kit.say("Not me.")]))
    first = kit.Agent(name="A", handoffs=[second], model=kit.script([kit.say("Not me.")]))
    model = kit.script([kit.call("transfer_to_b")], [kit.say("Me.")])
    return Case(first, options={"run_config": kit.RunConfig(model=model)})


@scenario
def a_filter_of_the_models_input(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    def shorten(data: Any) -> Any:
        kit.note(len(data.model_data.input), data.model_data.instructions, data.agent.name, data.context)
        return kit.ModelInputData(input=data.model_data.input[-1:], instructions="Shorter.")

    model = kit.script([kit.call("look")], [kit.say("Seen.")])
    return Case(
        kit.Agent(name="A", instructions="Long.", tools=[look], model=model),
        options={"context": 7, "run_config": kit.RunConfig(call_model_input_filter=shorten)},
    )


@scenario
def a_filter_of_the_models_input_that_gives_something_else(kit: Kit) -> Case:
    return Case(
        kit.Agent(name="A", model=kit.script([kit.say("Hello.")])),
        options={"run_config": kit.RunConfig(call_model_input_filter=lambda data: None)},
    )


@scenario
def a_filter_of_the_models_input_that_raises(kit: Kit) -> Case:
    async def fail(data: Any) -> Any:
        raise LookupError("nothing to filter")

    return Case(
        kit.Agent(name="A", model=kit.script([kit.say("Hello.")])),
        options={"run_config": kit.RunConfig(call_model_input_filter=fail)},
    )


@scenario
def going_on_from_a_response(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script(
        kit.ModelStep(output=[kit.call("look")], response_id="resp_1"),
        kit.ModelStep(output=[kit.say("Seen.")], response_id="resp_2"),
    )
    return Case(kit.Agent(name="A", tools=[look], model=model), options={"previous_response_id": "resp_0"})


@scenario
def the_server_keeps_the_history_by_itself(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script(
        kit.ModelStep(output=[kit.call("look")], response_id="resp_1"),
        kit.ModelStep(output=[kit.call("look", call_id="call_2")], response_id="resp_2"),
        kit.ModelStep(output=[kit.say("Seen.")], response_id="resp_3"),
    )
    return Case(kit.Agent(name="A", tools=[look], model=model), options={"auto_previous_response_id": True})


@scenario
def a_conversation(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script([kit.call("look")], [kit.say("Seen.")])
    return Case(kit.Agent(name="A", tools=[look], model=model), options={"conversation_id": "conv_1"})


@scenario
def a_conversation_with_a_handoff(kit: Kit) -> Case:
    second = kit.Agent(name="B", model=kit.script([kit.say("B here.")]))
    first = kit.Agent(name="A", handoffs=[second], model=kit.script([kit.call("transfer_to_b")]))
    return Case(first, options={"conversation_id": "conv_1"})


@scenario
def responses_without_an_id(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    steps = [[kit.call("look")], [kit.say("Seen.")]]
    model = kit.script(*(kit.ModelStep(output=output, response_id=None) for output in steps))
    agent = kit.Agent(name="A", tools=[look], model=model)
    return Case(agent, options={"auto_previous_response_id": True})


@scenario
def a_responder(kit: Kit) -> Case:
    async def respond(call: Any) -> Any:
        return [kit.say(f"You sent {len(call.input)} item(s).")]

    model = kit.script(kit.ModelStep.respond(respond))
    return Case(kit.Agent(name="A", model=model))


@scenario
def usage_adds_up(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script(
        kit.ModelStep(output=[kit.call("look")], usage=kit.Usage(1, 10, output_tokens=5, total_tokens=15)),
        kit.ModelStep(output=[kit.say("Seen.")], usage=kit.Usage(1, 20, output_tokens=7, total_tokens=27)),
    )
    return Case(kit.Agent(name="A", tools=[look], model=model))


@scenario
def usage_by_default(kit: Kit) -> Case:
    usage = kit.Usage(1, 3, output_tokens=4, total_tokens=7)
    return Case(kit.Agent(name="A", model=kit.script([kit.say("Hello.")], default_usage=usage)))


@scenario
def a_response_without_usage(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", model=kit.script(streamed(kit, kit.say("Hello.")))))


@scenario
def a_response_that_is_not_complete(kit: Kit) -> Case:
    step = streamed(kit, kit.say("Hello, and"), usage=USED, ends=ResponseIncompleteEvent)
    return Case(kit.Agent(name="A", model=kit.script(step)))


@scenario
def a_run_with_a_context_wrapper(kit: Kit) -> Case:
    wrapper = kit.RunContextWrapper(context={"n": 1})

    @kit.function_tool
    def look(context: kit.RunContextWrapper[Any]) -> str:
        kit.note(context.context)
        return "seen"

    model = kit.script([kit.call("look")], [kit.say("Seen.")])
    return Case(
        kit.Agent(name="A", tools=[look], model=model),
        options={"context": wrapper},
        after=lambda done: done.context_wrapper is wrapper,
    )


@scenario
def the_output_as_a_type(kit: Kit) -> Case:
    def after(done: Any) -> Any:
        try:
            done.final_output_as(int, raise_if_incorrect_type=True)
        except TypeError as error:
            return [done.final_output_as(str), done.final_output_as(int), str(error)]

    return Case(kit.Agent(name="A", model=kit.script([kit.say("Hello.")])), after=after)


@scenario
def request_ids_and_raw_usage(kit: Kit) -> Case:
    step = kit.ModelStep(output=[kit.say("Hello.")], response_id="resp_1", request_id="req_1")
    return Case(kit.Agent(name="A", model=kit.script(step)))
