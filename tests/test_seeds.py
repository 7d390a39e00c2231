"""The programs that Millstream was written for, as their authors wrote them, each a row of one table.

They come from tutorials and bug reports about streaming agents. A row is such a program: it is
called with an agent whose run greets after one tool call, and says what it saw. Where the
original could not have run (a name that does not exist, a loop without an end), the row says
what stands in its place.
"""

import asyncio
import contextvars
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest
from typing_extensions import TypedDict

from millstream import (
    Agent,
    AgentUpdatedStreamEvent,
    MessageOutputItem,
    RawResponsesStreamEvent,
    RunItemStreamEvent,
    Runner,
    ToolCallItem,
    ToolCallOutputItem,
    tool,
)
from millstream.errors import AgentsException
from millstream.testing import ModelStep, ScriptedModel, assistant_message, final_json, function_call
from tests.support.hurry import hurry

GREETING = "Hello from Oslo."
KINDS = ["agent_updated_stream_event", "raw_response_event", "run_item_stream_event"]
ITEMS = ["tool_called", "tool_output", "message_output_created"]


@tool
async def weather(city: str) -> str:
    """Tell the weather."""
    return f"{city}: cold"


class City(TypedDict):
    city: str


def greeter(*script: Any, name: str = "Greeter") -> Agent[Any]:
    script = script or ([function_call("weather", {"city": "Oslo"}, call_id="c1")], GREETING)
    return Agent(name=name, model=ScriptedModel(script), tools=[weather])


def kinds(events: list[Any]) -> list[str]:
    return sorted({event.type for event in events})


def item_names(events: list[Any]) -> list[str]:
    return [event.name for event in events if isinstance(event, RunItemStreamEvent)]


def text_of(item: Any) -> str:
    return "".join(part.text for part in item.raw_item.content if part.type == "output_text")


# --- the rows ----------------------------------------------------------------------------------


async def iterate_the_call_itself(agent: Agent[Any]) -> Any:
    seen = []
    names = []
    async for event in Runner.run_streamed(agent, "Hi"):
        seen.append(event.type)
        names += item_names([event])
    return sorted(set(seen)), names


async def iterate_stream_events_then_read_the_result(agent: Agent[Any]) -> Any:
    result = Runner.run_streamed(agent, "Hi")
    events = [event async for event in result.stream_events()]
    return kinds(events), item_names(events), result.final_output, len(result.raw_responses)


async def collect_with_a_comprehension(agent: Agent[Any]) -> Any:
    return item_names([event async for event in Runner.run_streamed(agent, "Hi")])


async def enter_it_as_a_context(agent: Agent[Any]) -> Any:
    async with Runner.run_streamed(agent, "Hi") as stream:
        events = [event async for event in stream]
    return item_names(events), stream.final_output


async def await_it(agent: Agent[Any]) -> Any:
    result = await Runner.run_streamed(agent, "Hi")
    return result.final_output


async def close_it(agent: Agent[Any]) -> Any:
    stream = Runner.run_streamed(agent, "Hi")
    await stream.aclose()
    return stream.is_complete, stream.is_cancelled


async def cancel_gracefully(agent: Agent[Any]) -> Any:
    stream = Runner.run_streamed(agent, "Hi")
    seen = []
    try:
        async for event in stream:
            if isinstance(event, RunItemStreamEvent):  # should_cancel()
                break
            seen.append(event.type)
    finally:
        await stream.aclose()
    return kinds_of_names(seen), stream.is_cancelled


def kinds_of_names(names: list[str]) -> list[str]:
    return sorted(set(names))


async def give_up_after_a_time(agent: Agent[Any]) -> Any:
    """For `asyncio.timeout_for`, which does not exist."""
    agent.model = ScriptedModel([ModelStep("Hello", hang_after=4)])
    stream = Runner.run_streamed(agent, "Hi")
    timed_out = False
    try:
        async with asyncio.timeout(1):
            async for _ in stream:
                pass
    except TimeoutError:
        timed_out = True
    await stream.aclose()
    return timed_out, stream.is_cancelled


async def give_up_waiting_for_one_event(agent: Agent[Any]) -> Any:
    agent.model = ScriptedModel([ModelStep("Hello", hang_after=1)])
    async with Runner.run_streamed(agent, "Hi") as stream:
        reader = aiter(stream)
        seen = []
        while True:
            try:
                seen.append((await asyncio.wait_for(anext(reader), 1)).type)
            except TimeoutError:
                return seen


async def print_the_text_of_messages(agent: Agent[Any]) -> Any:
    """With "output_text" for "text", which no part of a message is called."""
    printed = ""
    async for event in Runner.run_streamed(agent, "Hi"):
        if isinstance(event, RunItemStreamEvent) and isinstance(event.item, MessageOutputItem):
            printed += text_of(event.item)
    return printed


async def print_deltas_of_raw_events(agent: Agent[Any]) -> Any:
    """With `response.output_text.delta` for `response.output_item.delta`, which no server sends."""
    printed = ""
    async for event in Runner.run_streamed(agent, "Hi"):
        if isinstance(event, RawResponsesStreamEvent) and event.event.type == "response.output_text.delta":
            printed += event.event.delta
    return printed


async def print_nothing_by_names_that_no_server_sends(agent: Agent[Any]) -> Any:
    """As their authors wrote them. What prints is in the two rows above.

    A part of a message is an `output_text`, and text comes as `response.output_text.delta`: no
    part is called `text`, and no event of the Responses API `response.output_item.delta`.
    """
    printed = ""
    async for event in Runner.run_streamed(agent, "Hi"):
        if isinstance(event, RunItemStreamEvent) and isinstance(event.item, MessageOutputItem):
            for content in event.item.raw_item.content:
                if content.type == "text":
                    printed += content.text
        if isinstance(event, RawResponsesStreamEvent) and event.event.type == "response.output_item.delta":
            printed += event.event.delta.content
    return printed


async def stream_the_delta_of_every_event(agent: Agent[Any]) -> Any:
    """As its author wrote it: no event has a `delta`, which is in the data of some raw ones.

    Beside it, what `examples/fastapi_executor.py` does.
    """

    async def stream_gen(result: Any) -> AsyncIterator[str]:
        async for event in result.stream_events():
            yield event.delta.text

    async def text_of_stream(result: Any) -> AsyncIterator[str]:
        async for event in result.stream_events():
            if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                yield event.data.delta

    try:
        said = [text async for text in stream_gen(Runner.run_streamed(greeter(), "Hi"))]
    except AttributeError as error:
        said = str(error).rpartition(" ")[2]
    return said, "".join([text async for text in text_of_stream(Runner.run_streamed(agent, "Hi"))])


async def stream_the_text(agent: Agent[Any]) -> Any:
    return "".join([delta async for delta in Runner.run_streamed(agent, "Hi").text()])


async def show_progress_by_item(agent: Agent[Any]) -> Any:
    """With one `if`: the original's second `elif` of the same class can never be reached."""
    shown = []
    async for event in Runner.run_streamed(agent, "Hi"):
        if isinstance(event, RunItemStreamEvent):
            if isinstance(event.item, ToolCallItem):
                shown.append(
                    f"Tool {len(shown) + 1}: {event.item.raw_item.name}({event.item.raw_item.arguments})"
                )
            elif isinstance(event.item, ToolCallOutputItem):
                shown.append(f"Result: {event.item.output[:100]}")
            elif isinstance(event.item, MessageOutputItem):
                shown.append("Agent thinking...")
    return shown


async def parse_structured_output(agent: Agent[Any]) -> Any:
    agent = agent.clone(model=ScriptedModel([[final_json({"city": "Oslo"})]]), output_type=City)
    parts = ""
    stream = Runner.run_streamed(agent, "Hi")
    async for event in stream:
        if isinstance(event, RunItemStreamEvent) and isinstance(event.item, MessageOutputItem):
            parts += text_of(event.item)
    return json.loads(parts), stream.final_output


async def follow_several_agents(agent: Agent[Any]) -> Any:
    agent.model = ScriptedModel([[function_call("transfer_to_closer", call_id="h1")]])
    agent.handoffs = [greeter("Bye.", name="Closer")]
    lines = []
    current_agent = None
    async for event in Runner.run_streamed(agent, "Hi"):
        if isinstance(event, AgentUpdatedStreamEvent):
            if current_agent:
                lines.append(f"{current_agent.name}: Finished")
            current_agent = event.agent
            lines.append(f"{current_agent.name}: Started")
        elif isinstance(event, RunItemStreamEvent) and isinstance(event.item, MessageOutputItem):
            assert current_agent
            lines.append(f"{current_agent.name}: {text_of(event.item)}")
    return lines


async def send_events_as_json(agent: Agent[Any]) -> Any:
    sent = [json.loads(event.to_json()) async for event in Runner.run_streamed(agent, "Hi")]
    return sorted({message["type"] for message in sent})


async def serve_server_sent_events(agent: Agent[Any]) -> Any:
    async def event_generator() -> AsyncIterator[str]:
        async for event in Runner.run_streamed(agent, "Hi"):
            yield f"data: {event.to_json().decode()}\n\n"

    frames = [frame async for frame in event_generator()]
    return kinds_of_names([json.loads(frame[len("data: ") :])["type"] for frame in frames])


async def work_in_batches(agent: Agent[Any], batch_size: int = 10) -> Any:
    sizes = []
    batch = []
    async for event in Runner.run_streamed(agent, "Hi"):
        batch.append(event)
        if len(batch) >= batch_size:
            sizes.append(len(batch))
            batch = []
    if batch:
        sizes.append(len(batch))
    return sizes[0], sizes[-1] <= batch_size


async def keep_only_messages(agent: Agent[Any]) -> Any:
    async def filtered_stream() -> AsyncIterator[RunItemStreamEvent]:
        async for event in Runner.run_streamed(agent, "Hi"):
            if isinstance(event, RunItemStreamEvent) and isinstance(event.item, MessageOutputItem):
                yield event

    return item_names([event async for event in filtered_stream()])


async def put_a_bounded_queue_between(agent: Agent[Any]) -> Any:
    """With an end: the original's consumer waits for ever."""
    queue: asyncio.Queue[Any] = asyncio.Queue(maxsize=100)
    seen = []

    async def producer() -> None:
        async for event in Runner.run_streamed(agent, "Hi"):
            await queue.put(event)
        await queue.put(None)

    async def consumer() -> None:
        while (event := await queue.get()) is not None:
            seen.append(event)
            queue.task_done()

    await asyncio.gather(producer(), consumer())
    return item_names(seen)


async def stream_with_state(agent: Agent[Any]) -> Any:
    async def with_state() -> AsyncIterator[Any]:
        state: dict[str, Any] = {"tool_calls": [], "messages": [], "current_agent": None}
        async for event in Runner.run_streamed(agent, "Hi"):
            if isinstance(event, AgentUpdatedStreamEvent):
                state["current_agent"] = event.agent.name
            elif isinstance(event, RunItemStreamEvent):
                if isinstance(event.item, ToolCallItem):
                    state["tool_calls"].append(event.item.raw_item.name)
                elif isinstance(event.item, MessageOutputItem):
                    state["messages"].append(text_of(event.item))
            yield event, state

    return [state async for _, state in with_state()][-1]


async def survive_errors_of_ones_own(agent: Agent[Any]) -> Any:
    errors: Counter[str] = Counter()
    async for event in Runner.run_streamed(agent, "Hi"):
        try:
            raise ValueError(event.type)
        except ValueError as error:
            errors[str(error)] += 1
    return sorted(errors)


async def catch_errors_of_the_agent(agent: Agent[Any]) -> Any:
    seen = []
    try:
        async for event in Runner.run_streamed(agent, "Hi", max_turns=1):
            seen += item_names([event])
    except AgentsException as error:
        return seen, type(error).__name__, error.run_data is not None
    return None


async def merge_several_streams(agent: Agent[Any]) -> Any:
    """With tasks and a queue for `merge_async_iterators`, which nobody defined."""
    streams = [Runner.run_streamed(greeter(name, name=name), "Hi") for name in ("A", "B", "C")]
    merged: asyncio.Queue[Any] = asyncio.Queue()

    async def pump(stream: Any) -> None:
        async for event in stream:
            await merged.put(event)

    async with asyncio.TaskGroup() as group:
        for stream in streams:
            group.create_task(pump(stream))
    events = [merged.get_nowait() for _ in range(merged.qsize())]
    return sorted(text_of(e.item) for e in events if isinstance(e, RunItemStreamEvent))


async def stream_on_condition(agent: Agent[Any]) -> Any:
    async def either(stream_enabled: bool) -> Any:
        chosen = greeter()
        if stream_enabled:
            return item_names([event async for event in Runner.run_streamed(chosen, "Hi")])
        return (await Runner.run(chosen, "Hi")).final_output

    return await either(True), await either(False)


async def call_back_by_class_name(agent: Agent[Any]) -> Any:
    called: Counter[str] = Counter()

    async def callback(event: Any) -> None:
        called[event.type] += 1

    callbacks: dict[str, Callable[[Any], Awaitable[None]]] = {
        "RunItemStreamEvent": callback,
        "AgentUpdatedStreamEvent": callback,
        "RawResponsesStreamEvent": callback,
    }
    async for event in Runner.run_streamed(agent, "Hi"):
        await callbacks[type(event).__name__](event)
    return sorted(called)


async def stand_in_for_a_stream(agent: Agent[Any]) -> Any:
    mock_item = MessageOutputItem(agent, assistant_message("mock"))

    async def mock_stream() -> AsyncIterator[Any]:
        yield RunItemStreamEvent(item=mock_item)
        yield AgentUpdatedStreamEvent(agent=agent)

    item, update = [event async for event in mock_stream()]
    return item.name, item.item is mock_item, update.agent is agent, update.new_agent is agent


async def answer_a_web_request(agent: Agent[Any]) -> Any:
    """The handler makes the stream in one task, the server iterates it in another and closes it in a third."""
    user: contextvars.ContextVar[str] = contextvars.ContextVar("user", default="nobody")
    users = []

    @tool
    async def ask() -> str:
        users.append(user.get())
        return "asked"

    @tool
    def ask_in_thread() -> str:
        users.append(user.get())
        return "asked"

    calls = [function_call("ask", call_id="c1"), function_call("ask_in_thread", call_id="c2")]
    agent = Agent(name="A", model=ScriptedModel([calls, "done"]), tools=[ask, ask_in_thread])

    async def handler() -> AsyncIterator[str]:
        user.set("Ada")
        result = Runner.run_streamed(starting_agent=agent, input="Hi").stream_events()

        async def event_stream() -> AsyncIterator[str]:
            async for chunk in result:
                yield chunk.type
            yield "done"

        return event_stream()

    body: Any = await asyncio.create_task(handler())

    async def serve() -> list[str]:
        return [chunk async for chunk in body]

    sent = await asyncio.create_task(serve())
    await asyncio.create_task(body.aclose())
    return sent[-1], users


async def make_a_raw_event_by_its_alias(agent: Agent[Any]) -> Any:
    same = set()
    async for event in Runner.run_streamed(agent, "Hi"):
        if isinstance(event, RawResponsesStreamEvent):
            made = RawResponsesStreamEvent(event=event.event)
            same.add((made.data is event.data, made.type == event.type))
    return same


async def look_for_errors_of_tools(agent: Agent[Any]) -> Any:
    @tool
    async def broken(city: str) -> str:
        raise ValueError(city)

    agent.tools = [broken]
    agent.model = ScriptedModel([[function_call("broken", {"city": "Oslo"})], GREETING])
    printed = []
    async for event in Runner.run_streamed(agent, "Hi"):
        if not (isinstance(event, RunItemStreamEvent) and isinstance(event.item, ToolCallOutputItem)):
            continue
        if "error" in event.item.output.lower():
            printed.append(f"Tool error: {event.item.output}")
    return [line.startswith("Tool error: An error occurred") for line in printed]


async def stream_to_result(agent: Agent[Any]) -> Any:
    """With "output_text" for "text", as above."""
    result: dict[str, Any] = {"messages": [], "tool_calls": [], "final_output": None}
    async for event in Runner.run_streamed(agent, "Hi"):
        if isinstance(event, RunItemStreamEvent):
            if isinstance(event.item, MessageOutputItem):
                for content in event.item.raw_item.content:
                    if content.type == "output_text":
                        result["messages"].append(content.text)
            elif isinstance(event.item, ToolCallItem):
                call = event.item.raw_item
                result["tool_calls"].append({"name": call.name, "arguments": call.arguments})
    result["final_output"] = "".join(result["messages"])
    return result


async def use_the_result_like_that_of_a_plain_run(agent: Agent[Any]) -> Any:
    result = Runner.run_streamed(agent, "Hi")
    async for _ in result.stream_events():
        pass
    plain = await Runner.run(greeter(), "Hi")
    return (
        [item.type for item in result.new_items],
        [item.to_input_item() for item in result.new_items]
        == [item.to_input_item() for item in plain.new_items],
        result.final_output == plain.final_output,
    )


async def iterate_without_a_loop(agent: Agent[Any]) -> Any:
    def program() -> list[str]:
        return item_names(list(Runner.run_streamed_sync(agent, "Hi")))

    return await asyncio.to_thread(program)


FIRST_TEN_KINDS = ["agent_updated_stream_event", "raw_response_event"]

ROWS: list[tuple[Callable[[Agent[Any]], Awaitable[Any]], Any]] = [
    (iterate_the_call_itself, (KINDS, ITEMS)),
    (iterate_stream_events_then_read_the_result, (KINDS, ITEMS, GREETING, 2)),
    (collect_with_a_comprehension, ITEMS),
    (enter_it_as_a_context, (ITEMS, GREETING)),
    (await_it, GREETING),
    (close_it, (True, True)),
    (cancel_gracefully, (FIRST_TEN_KINDS, True)),
    (give_up_after_a_time, (True, True)),
    (give_up_waiting_for_one_event, FIRST_TEN_KINDS),
    (print_the_text_of_messages, GREETING),
    (print_deltas_of_raw_events, GREETING),
    (print_nothing_by_names_that_no_server_sends, ""),
    (stream_the_delta_of_every_event, ("'delta'", GREETING)),
    (stream_the_text, GREETING),
    (show_progress_by_item, ['Tool 1: weather({"city":"Oslo"})', "Result: Oslo: cold", "Agent thinking..."]),
    (parse_structured_output, ({"city": "Oslo"}, {"city": "Oslo"})),
    (
        follow_several_agents,
        ["Greeter: Started", "Greeter: Finished", "Closer: Started", "Closer: Bye."],
    ),
    (send_events_as_json, KINDS),
    (serve_server_sent_events, KINDS),
    (work_in_batches, (10, True)),
    (keep_only_messages, ["message_output_created"]),
    (put_a_bounded_queue_between, ITEMS),
    (
        stream_with_state,
        {"tool_calls": ["weather"], "messages": [GREETING], "current_agent": "Greeter"},
    ),
    (survive_errors_of_ones_own, KINDS),
    (catch_errors_of_the_agent, (ITEMS[:2], "MaxTurnsExceeded", True)),
    (merge_several_streams, ["A", "B", "C"]),
    (stream_on_condition, (ITEMS, GREETING)),
    (call_back_by_class_name, KINDS),
    (stand_in_for_a_stream, ("message_output_created", True, True, True)),
    (answer_a_web_request, ("done", ["Ada", "Ada"])),
    (make_a_raw_event_by_its_alias, {(True, True)}),
    (look_for_errors_of_tools, [True]),
    (
        stream_to_result,
        {
            "messages": [GREETING],
            "tool_calls": [{"name": "weather", "arguments": '{"city":"Oslo"}'}],
            "final_output": GREETING,
        },
    ),
    (
        use_the_result_like_that_of_a_plain_run,
        (["tool_call_item", "tool_call_output_item", "message_output_item"], True, True),
    ),
    (iterate_without_a_loop, ITEMS),
]


@pytest.mark.parametrize(("program", "sees"), ROWS, ids=[row[0].__name__ for row in ROWS])
async def test_a_program_of_the_seeds_works_as_it_reads(
    program: Callable[[Agent[Any]], Awaitable[Any]], sees: Any, caplog: pytest.LogCaptureFixture
) -> None:
    hurry(asyncio.get_running_loop())
    async with asyncio.timeout(50):
        seen = await program(greeter())

    assert seen == sees
    assert not caplog.records
    await nothing_is_left_running()


async def nothing_is_left_running() -> None:
    # A run that nobody reads any more goes on to its end, but no further.
    async with asyncio.timeout(50):
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
