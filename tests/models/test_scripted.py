"""The scripted model: keeps to its script, streams like the real one, fails where it is told to."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import (
    ResponseCompletedEvent,
    ResponseFunctionToolCall,
    ResponseFunctionWebSearch,
    ResponseOutputMessage,
    ResponseReasoningItem,
    ResponseTextDeltaEvent,
)

from millstream import codec, raw
from millstream.errors import ModelProtocolError, UserError
from millstream.items import ItemHelpers, ModelResponse
from millstream.models.promise import Model, ModelTracing, RawBatch
from millstream.testing import (
    InvalidModelStep,
    ManualClock,
    ModelCall,
    ModelScriptError,
    ModelStep,
    ScriptedModel,
    UnconsumedModelSteps,
    UnexpectedModelCall,
    assistant_message,
    final_json,
    function_call,
    reasoning,
    refusal,
)
from millstream.usage import Usage


def asked(input: Any = "hi") -> dict[str, Any]:
    return {
        "system_instructions": "Be kind.",
        "input": input,
        "model_settings": None,
        "tools": [],
        "output_schema": None,
        "handoffs": [],
        "tracing": ModelTracing.DISABLED,
        "previous_response_id": None,
        "conversation_id": None,
        "prompt": None,
    }


async def answer(model: Model, input: Any = "hi") -> ModelResponse:
    return await model.get_response(**asked(input))


async def events(model: Model, input: Any = "hi") -> list[Any]:
    return [event async for event in model.stream_response(**asked(input))]


async def batches(model: Model, input: Any = "hi") -> list[RawBatch]:
    return [batch async for batch in model.stream_batches(**asked(input))]


Way = Callable[[Model], Awaitable[Any]]
BOTH_WAYS = pytest.mark.parametrize("way", [answer, events, batches])

EVERYTHING: list[Any] = [
    reasoning("let me  think"),
    assistant_message("Hello big\n wörld 😀 "),
    refusal("no way"),
    function_call("search", {"q": "é", "city": "Paris, France"}, call_id="call_1"),
    ResponseFunctionWebSearch.model_validate(
        {
            "type": "web_search_call",
            "id": "ws_1",
            "status": "completed",
            "action": {"type": "search", "query": "x"},
        }
    ),
]


# --- the script ----------------------------------------------------------------------------------


async def test_each_call_takes_the_next_step() -> None:
    model = ScriptedModel(["one", [function_call("f", call_id="c")], ModelStep(output="three")])

    outputs = [(await answer(model)).output[0] for _ in range(3)]

    assert isinstance(outputs[0], ResponseOutputMessage)
    assert isinstance(outputs[1], ResponseFunctionToolCall)
    assert [item.type for item in outputs] == ["message", "function_call", "message"]
    assert model.remaining_steps == 0
    model.assert_complete()


async def test_steps_may_come_later() -> None:
    model = ScriptedModel()
    model.enqueue("one")
    model.extend(["two", [assistant_message("three")]])

    assert model.remaining_steps == 3
    assert [(await answer(model)).output for _ in range(3)] == [
        [assistant_message("one", item_id="msg_1_0")],
        [assistant_message("two", item_id="msg_2_0")],
        [assistant_message("three")],
    ]


@BOTH_WAYS
async def test_a_script_that_runs_out_says_so_and_what_to_do(way: Way) -> None:
    model = ScriptedModel(["one"])
    await answer(model)

    with pytest.raises(UnexpectedModelCall) as caught:
        await way(model)

    assert isinstance(caught.value, ModelScriptError)
    assert isinstance(caught.value, UserError)
    assert caught.value.call_index == 1
    assert caught.value.call is model.last_call
    assert "Model call 2 (input: text) found no scripted step left of 1" in str(caught.value)
    assert "enqueue" in str(caught.value)


async def test_the_items_of_the_input_are_counted_in_the_error() -> None:
    with pytest.raises(UnexpectedModelCall, match=r"input: 2 item\(s\)"):
        await answer(ScriptedModel(), [{"role": "user", "content": "x"}] * 2)


def test_steps_that_no_call_used_are_told() -> None:
    with pytest.raises(UnconsumedModelSteps, match="2 of 2") as caught:
        ScriptedModel(["a", "b"]).assert_complete()

    assert caught.value.remaining_steps == 2


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (5, "invalid_input"),
        (None, "invalid_input"),
        (b"bytes", "invalid_input"),
        ([1], "invalid_input"),
        (assistant_message("not in a list"), "invalid_input"),
        (lambda call: "x", "invalid_input"),
        ({"outputs": []}, "unsupported_field"),
        (ModelStep(error="boom"), "invalid_error"),  # pyright: ignore[reportArgumentType]
        (KeyboardInterrupt(), "invalid_error"),
    ],
    ids=[
        "number",
        "nothing",
        "bytes",
        "list of numbers",
        "item outside a list",
        "function",
        "unknown field",
        "error that is text",
        "error that is an interrupt",
    ],
)
def test_what_is_no_step_is_refused_when_it_is_given(step: Any, reason: str) -> None:
    model = ScriptedModel(["fine"])

    with pytest.raises(InvalidModelStep) as caught:
        model.extend(["fine too", step])

    assert (caught.value.reason, caught.value.input_index) == (reason, 2)
    assert "step 3" in str(caught.value)
    assert model.remaining_steps == 1, "all are added, or none"


@pytest.mark.parametrize(
    "arguments", [{"tokens_per_second": 0}, {"chunk_size": 0}, {"batch_size": 0}], ids=repr
)
def test_a_setting_out_of_range_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(arguments))):
        ScriptedModel(**arguments)


@pytest.mark.parametrize(
    "step",
    [
        [assistant_message("x")],
        [assistant_message("x").model_dump()],
        {"output": [assistant_message("x")]},
        {"output": "x"},
        ["x"],
        "x",
        ModelStep("x"),
        ModelStep.respond(lambda call: "x"),
        ModelStep.respond(lambda call: ModelStep.respond(lambda call: [assistant_message("x")])),
    ],
    ids=lambda step: type(step).__name__,
)
@BOTH_WAYS
async def test_a_step_may_be_written_in_many_ways(step: Any, way: Way) -> None:
    model = ScriptedModel([step])

    result: Any = await way(model)

    if way is batches:
        result = [raw.decode(result[-1].events[-1])]
    (message,) = result.output if way is answer else result[-1].response.output
    assert type(message) is ResponseOutputMessage
    assert ItemHelpers.extract_text(message) == "x"


# --- what it was asked -----------------------------------------------------------------------------


async def test_calls_are_remembered_as_they_were() -> None:
    model = ScriptedModel(["a", "b", ValueError("x")])
    input = [{"role": "user", "content": ["x"]}]

    await answer(model, input)
    await events(model, "second")
    input[0]["content"].append("changed")  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(ValueError, match="x"):
        await answer(model, "third")

    assert [call.streamed for call in model.calls] == [False, True, False]
    assert [call.input for call in model.calls] == [[{"role": "user", "content": ["x"]}], "second", "third"]
    assert model.first_call is model.calls[0]
    assert model.last_call is model.calls[2]
    assert model.calls[0].system_instructions == "Be kind."


def test_a_model_that_was_not_called_remembers_nothing() -> None:
    model = ScriptedModel(["a"])

    assert (model.calls, model.first_call, model.last_call) == ((), None, None)


async def test_a_responder_sees_the_call() -> None:
    async def later(call: ModelCall) -> str:
        return f"You said {call.input}, streamed: {call.streamed}."

    model = ScriptedModel([ModelStep.respond(later), ModelStep.respond(lambda call: ValueError(call.input))])

    assert (await events(model, "hi"))[-1].response.output[0].content[
        0
    ].text == "You said hi, streamed: True."
    with pytest.raises(ValueError, match="hello"):
        await answer(model, "hello")


async def test_what_a_responder_returns_is_held_to_the_same_rules() -> None:
    model = ScriptedModel([ModelStep.respond(lambda call: 5)])  # pyright: ignore[reportArgumentType]

    with pytest.raises(InvalidModelStep, match="step 1"):
        await answer(model)


# --- usage and names -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "default", "counted"),
    [
        (None, None, (1, 0)),
        (None, Usage(requests=1, input_tokens=4, total_tokens=4), (1, 4)),
        (Usage(input_tokens=3, total_tokens=3), Usage(requests=1, input_tokens=4), (1, 3)),
        (Usage(requests=1, input_tokens=3), None, (1, 3)),
    ],
)
async def test_usage_is_the_same_whichever_way_one_asks(
    own: Usage | None, default: Usage | None, counted: tuple[int, int]
) -> None:
    step = ModelStep("x", own or Usage())
    model = ScriptedModel([step, step], default_usage=default)

    whole = (await answer(model)).usage
    streamed = Usage.from_response((await events(model))[-1].response.usage)

    assert whole == streamed
    assert (whole.requests, whole.input_tokens) == counted


async def test_the_default_usage_may_change_on_the_way() -> None:
    model = ScriptedModel(["a", "b"], default_usage=Usage(requests=1, input_tokens=1))

    first = await answer(model)
    model.set_default_usage(Usage(requests=1, input_tokens=2))
    second = await answer(model)
    second.usage.add(first.usage)

    assert (first.usage.input_tokens, second.usage.input_tokens) == (1, 3)


async def test_ids_are_those_of_the_step() -> None:
    step = ModelStep("x", response_id="resp_9", request_id="req_9", raw_usage={"a": 1})
    model = ScriptedModel([step, step, step, "y"])

    response = await answer(model)
    completed = (await events(model))[-1].response
    last: Any = (await batches(model))[-1].events[-1]

    assert (response.response_id, response.request_id, response.raw_usage) == ("resp_9", "req_9", {"a": 1})
    assert (completed.id, completed._request_id) == ("resp_9", "req_9")
    assert last.response._request_id == "req_9"
    assert (await answer(model)).response_id == "resp-789"


async def test_a_model_that_keeps_no_responses_has_no_ids_for_them() -> None:
    model = ScriptedModel([ModelStep("x", response_id=None)])

    assert (await events(model))[-1].response.id is None


# --- the natural stream -------------------------------------------------------------------------------


async def test_the_stream_is_the_natural_sequence() -> None:
    seen = await events(ScriptedModel([EVERYTHING]))

    assert [event.type.removeprefix("response.") for event in seen] == [
        "created",
        "in_progress",
        "output_item.added",
        "reasoning_summary_part.added",
        *["reasoning_summary_text.delta"] * 3,
        "reasoning_summary_text.done",
        "reasoning_summary_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        *["output_text.delta"] * 5,
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        "content_part.added",
        *["refusal.delta"] * 2,
        "refusal.done",
        "content_part.done",
        "output_item.done",
        "output_item.added",
        *["function_call_arguments.delta"] * 4,
        "function_call_arguments.done",
        "output_item.done",
        "output_item.added",
        "output_item.done",
        "completed",
    ]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))


async def test_what_comes_out_equals_what_was_put_in() -> None:
    model = ScriptedModel([EVERYTHING, EVERYTHING])

    streamed = await events(model)
    whole = await answer(model)

    assert isinstance(streamed[-1], ResponseCompletedEvent)
    assert streamed[-1].response.output == EVERYTHING
    assert whole.output == EVERYTHING
    done = [event.item for event in streamed if event.type == "response.output_item.done"]
    assert done == EVERYTHING


async def test_an_item_begins_empty_and_says_that_it_is_not_done() -> None:
    added = [
        e.item for e in await events(ScriptedModel([EVERYTHING])) if e.type.endswith("output_item.added")
    ]

    thought, message, declined, call, search = added
    assert thought.summary == []
    assert (message.content, message.status) == ([], "in_progress")
    assert (declined.content, declined.status) == ([], "in_progress")
    assert (call.arguments, call.status, call.name) == ("", "in_progress", "search")
    assert search == EVERYTHING[4]


async def test_reasoning_that_is_no_summary_streams_too() -> None:
    item = ResponseReasoningItem.model_validate(
        {
            "type": "reasoning",
            "id": "r",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "a b"}],
        }
    )

    seen = await events(ScriptedModel([[item]]))

    assert [e.delta for e in seen if e.type == "response.reasoning_text.delta"] == ["a", " b"]
    assert seen[-1].response.output == [item]


async def test_a_call_without_an_id_is_known_by_its_call_id() -> None:
    call = ResponseFunctionToolCall(type="function_call", call_id="call_1", name="f", arguments="{}")

    seen = await events(ScriptedModel([[call]]))

    assert {e.item_id for e in seen if hasattr(e, "item_id")} == {"call_1"}
    assert seen[-1].response.output == [call]


@given(st.text(), st.one_of(st.none(), st.integers(1, 7)), st.integers(1, 5))
def test_deltas_reassemble_exactly(text: str, chunk_size: int | None, batch_size: int) -> None:
    def model() -> ScriptedModel:
        step: list[Any] = [assistant_message(text), function_call("f", text, call_id="c")]
        return ScriptedModel([step], chunk_size=chunk_size, batch_size=batch_size)

    seen = asyncio.run(events(model()))

    for kind in ("response.output_text", "response.function_call_arguments"):
        deltas = [event.delta for event in seen if event.type == f"{kind}.delta"]
        assert "".join(deltas) == text
        assert "" not in deltas
        assert chunk_size is None or all(len(delta) <= chunk_size for delta in deltas)


async def test_reasoning_begins_empty_and_in_progress() -> None:
    item = reasoning("Hm.").model_copy(update={"encrypted_content": "c2VjcmV0"})

    added, done = [each.item for each in await events(ScriptedModel([[item]])) if hasattr(each, "item")]

    assert (added.status, added.summary, added.encrypted_content) == ("in_progress", [], None)
    assert done == item


async def test_a_delta_is_a_word_unless_a_size_is_set() -> None:
    async def deltas(**settings: Any) -> list[str]:
        seen = await events(ScriptedModel(["Hello big  world"], **settings))
        return [event.delta for event in seen if isinstance(event, ResponseTextDeltaEvent)]

    assert await deltas() == ["Hello", " big", "  world"]
    assert await deltas(chunk_size=7) == ["Hello b", "ig  wor", "ld"]


# --- batches: what a run reads ---------------------------------------------------------------------------


async def test_batches_are_wire_json_with_their_types() -> None:
    model = ScriptedModel([EVERYTHING, EVERYTHING], batch_size=4)

    made = await batches(model)

    wire = [event for batch in made for event in batch.events]
    assert all(isinstance(event, bytes) and codec.is_clean(event) for event in wire)
    assert [codec.decode(event)["type"] for event in wire if isinstance(event, bytes)] == [
        kind for batch in made for kind in batch.types
    ]
    assert {len(batch.events) for batch in made[:-1]} == {4}
    assert [raw.decode(event) for event in wire if isinstance(event, bytes)] == await events(model)


async def test_other_tasks_run_before_each_batch() -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    made = await batches(ScriptedModel(["one two three"]))
    ticking.cancel()

    assert ticks >= len(made)


def test_importing_it_does_not_import_the_types_of_openai() -> None:
    program = "import sys\nimport millstream.testing\nassert 'openai' not in sys.modules\n"

    subprocess.run([sys.executable, "-c", program], check=True)


# --- at a rate ---------------------------------------------------------------------------------------------


class Unresting(ManualClock):
    """A clock that moves when somebody sleeps."""

    async def sleep(self, seconds: float) -> None:
        self.advance(seconds)


async def test_deltas_come_at_the_rate_and_all_else_at_once() -> None:
    clock = Unresting()
    model = ScriptedModel(["one two three"], tokens_per_second=4, clock=clock)

    times = [(event.type, clock.monotonic()) async for event in model.stream_response(**asked())]

    assert [now for kind, now in times if kind.endswith(".delta")] == [0.25, 0.5, 0.75]
    assert {now for kind, now in times[:4]} == {0.0}
    assert times[-1] == ("response.completed", 0.75)


async def test_what_is_there_does_not_wait_for_the_next_delta() -> None:
    clock = Unresting()
    model = ScriptedModel(["one two three"], tokens_per_second=4, batch_size=100, clock=clock)

    made = [(len(batch.events), clock.monotonic()) async for batch in model.stream_batches(**asked())]

    assert made == [(4, 0.0), (1, 0.25), (1, 0.5), (5, 0.75)]


async def test_a_reader_that_takes_its_time_does_not_slow_the_rate() -> None:
    clock = Unresting()
    model = ScriptedModel(["one two three"], tokens_per_second=1, clock=clock)
    times: list[float] = []

    async for event in model.stream_response(**asked()):
        if event.type.endswith(".delta"):
            times.append(clock.monotonic())
            clock.advance(0.75)

    assert times == [1.0, 2.0, 3.0]


async def test_the_whole_answer_takes_as_long_as_its_stream() -> None:
    clock = Unresting()
    model = ScriptedModel(["one two three"], tokens_per_second=4, clock=clock)

    await answer(model)

    assert clock.monotonic() == 0.75


# --- failing anywhere -----------------------------------------------------------------------------------------


@BOTH_WAYS
@pytest.mark.parametrize(
    "step", [ValueError("boom"), ModelStep.raise_error(ValueError("boom"))], ids=["bare", "step"]
)
async def test_an_error_is_raised_instead_of_an_answer(way: Way, step: Any) -> None:
    with pytest.raises(ValueError, match="boom"):
        await way(ScriptedModel([step]))


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("after", range(11))
async def test_it_fails_after_any_number_of_events(after: int, batch_size: int) -> None:
    model = ScriptedModel(
        [ModelStep("one two", fail_after=after, error=ValueError("boom")), "one two"], batch_size=batch_size
    )
    seen: list[Any] = []

    async def read() -> None:
        async for event in model.stream_response(**asked()):
            seen.append(event.type)  # noqa: PERF401  # what came before the error counts

    with pytest.raises(ValueError, match="boom"):
        await read()

    assert seen == [event.type for event in await events(model)][:after]


@pytest.mark.parametrize("after", [0, 5, 100])
async def test_it_breaks_off_after_any_number_of_events(after: int) -> None:
    model = ScriptedModel([ModelStep("one two", truncate_after=after), "one two"])

    seen = [event.type for event in await events(model)]

    assert seen == [event.type for event in await events(model)][:after]


@pytest.mark.parametrize("after", [0, 5, 100])
async def test_it_falls_silent_until_it_is_cancelled(after: int) -> None:
    model = ScriptedModel([ModelStep("one two", hang_after=after), "one two"], batch_size=2)
    seen: list[str] = []

    async def read() -> None:
        async for event in model.stream_response(**asked()):
            seen.append(event.type)  # noqa: PERF401  # what came before the silence counts

    reading = asyncio.create_task(read())
    for _ in range(100):
        await asyncio.sleep(0)
    assert not reading.done()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading

    assert seen == [event.type for event in await events(model)][:after]


async def test_without_an_error_of_its_own_the_connection_broke() -> None:
    with pytest.raises(ConnectionResetError):
        await events(ScriptedModel([ModelStep("one", fail_after=2)]))


async def test_the_whole_answer_fails_where_its_stream_would() -> None:
    model = ScriptedModel(
        [
            ModelStep("x", fail_after=3, error=ValueError("boom")),
            ModelStep("x", truncate_after=3),
            ModelStep("x", hang_after=3),
        ]
    )

    with pytest.raises(ValueError, match="boom"):
        await answer(model)
    with pytest.raises(ModelProtocolError):
        await answer(model)
    hanging = asyncio.create_task(answer(model))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not hanging.done()
    hanging.cancel()


@pytest.mark.parametrize("after", [0, 1, 5])
async def test_a_reader_that_leaves_leaves_nothing_behind(after: int) -> None:
    model = ScriptedModel(["one two three"])
    stream = model.stream_response(**asked())

    for _ in range(after):
        await anext(stream)
    await stream.aclose()

    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- streams of one's own ---------------------------------------------------------------------------------------


async def test_events_of_ones_own_are_passed_on_as_they_are() -> None:
    typed = (await events(ScriptedModel(["x"])))[4]
    as_bytes: Any = b'{"type":"response.invented","n":1}'
    as_dict: Any = {"type": "response.invented", "n": 2}
    step = ModelStep.stream([typed, as_bytes, as_dict], output=[assistant_message("whole")])
    model = ScriptedModel([step, step, step])

    first, second, third = await batches(model)
    seen = await events(model)

    assert first == RawBatch([typed], ["response.output_text.delta"])
    assert second == RawBatch([as_bytes], ["response.invented"])
    assert third == RawBatch([b'{"type":"response.invented","n":2}'], ["response.invented"])
    assert [event.type for event in seen] == ["response.output_text.delta", *["response.invented"] * 2]
    assert (await answer(model)).output == [assistant_message("whole")]


@pytest.mark.parametrize("ending", [{}, {"truncate_after": 1}])
async def test_a_stream_may_be_made_of_the_call_and_is_closed(ending: dict[str, Any]) -> None:
    closed: list[str] = []

    async def stream(call: ModelCall) -> AsyncIterator[Any]:
        try:
            yield {"type": "response.invented", "input": call.input}
            yield {"type": "response.invented", "input": "second"}
        finally:
            closed.append("closed")

    model = ScriptedModel([ModelStep(stream_events=stream, **ending)])

    seen = await events(model, "hello")

    assert seen[0].input == "hello"
    assert len(seen) == (1 if ending else 2)
    assert closed == ["closed"]


async def test_a_stream_that_is_no_generator_will_do() -> None:
    class Once:
        def __init__(self) -> None:
            self.left = 1

        def __aiter__(self) -> "Once":
            return self

        async def __anext__(self) -> Any:
            if not self.left:
                raise StopAsyncIteration
            self.left -= 1
            return {"type": "response.invented"}

    assert len(await events(ScriptedModel([ModelStep.stream(lambda call: Once())]))) == 1


# --- helpers -----------------------------------------------------------------------------------------------------


def test_a_call_without_an_id_is_called_after_its_tool() -> None:
    call = function_call("f")

    assert (call.call_id, call.id, call.arguments) == ("call_f", "call_f", "{}")


def test_helpers_make_what_a_model_says() -> None:
    call = function_call("f", {"a": 1, "b": "ß"}, call_id="c", namespace="n")

    assert (call.arguments, call.call_id, call.id, call.namespace) == ('{"a":1,"b":"ß"}', "c", "c", "n")
    assert function_call("f", "not json", call_id="c", item_id="i").model_dump(exclude_unset=True) == {
        "arguments": "not json",
        "call_id": "c",
        "id": "i",
        "name": "f",
        "type": "function_call",
    }
    assert assistant_message("x").id == "scripted-message"
    assert assistant_message("x", item_id="m").id == "m"
    assert ItemHelpers.extract_text(final_json({"a": [1]})) == '{"a":[1]}'


def test_arguments_that_have_no_json_are_refused() -> None:
    with pytest.raises(TypeError):
        function_call("f", {"a": object()}, call_id="c")
