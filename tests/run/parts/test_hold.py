"""What is held of a stream until its output guardrails have judged it, and what is taken back."""

import asyncio
from collections.abc import AsyncGenerator
from itertools import pairwise
from typing import Any

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import (
    Agent,
    GuardrailFunctionOutput,
    HoldChunks,
    InputGuardrail,
    MemoryLog,
    ModelSettings,
    OutputGuardrail,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    RunHooks,
    Runner,
    RunResultStreaming,
    input_guardrail,
    output_guardrail,
    retry_policies,
    tool,
)
from millstream.errors import LogFullError, ModelRefusalError, UserError
from millstream.events import Entry, GuardrailResult, RunFailed, TextRetracted
from millstream.guardrail import Hold
from millstream.models.promise import RawBatch
from millstream.stream.text import text_delta
from millstream.testing import ManualClock, ModelStep, ScriptedModel, function_call, reasoning, refusal
from tests.support.run_logs import entries_of as entries_in

ANSWER = "The first part is fine. The second part is a secret. Nobody reads the end."
HOLDS: list[Hold] = ["pass", "verdict", HoldChunks(1), HoldChunks(30), HoldChunks(10_000)]
AGAIN = retry_policies.even_after_output(lambda context: True)
HELD: list[Hold] = ["verdict", HoldChunks(10_000)]


def verdict(*, trips: bool = False) -> GuardrailFunctionOutput:
    return GuardrailFunctionOutput(output_info=None, tripwire_triggered=trips)


def finds(word: str, hold: Hold = "pass", asked: list[Any] | None = None) -> OutputGuardrail[Any]:
    """A guardrail that trips at a word, and notes what it was asked about."""

    @output_guardrail(name=f"no {word}", hold=hold)
    async def check(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        if asked is not None:
            asked.append(output)
        return verdict(trips=word in str(output))

    return check


def agent(*steps: Any, guards: list[OutputGuardrail[Any]], **options: Any) -> Agent[Any]:
    return Agent(name="A", model=ScriptedModel(steps), output_guardrails=guards, **options)


async def entries_of(run: RunResultStreaming) -> list[Entry]:
    return [entry async for entry in run.entries()]


async def given_by(reader: Any) -> list[Any]:
    """What a reader gives of a run that trips, but for the error at its end."""
    given: list[Any] = []
    try:
        async for each in reader:
            given.append(each)  # noqa: PERF401  # what was given before the error counts
    except OutputGuardrailTripwireTriggered:
        return given
    raise AssertionError("the run did not trip")


def text_in(entries: list[Entry]) -> str:
    """All text that readers of these entries saw as it came."""
    return "".join(text_delta(entry.event) or "" for entry in entries)


def types_of(entries: list[Entry]) -> list[str]:
    """The types of entries; of raw events the model's own."""
    return [getattr(getattr(entry.event, "data", None), "type", entry.type) for entry in entries]


# --- passing through -------------------------------------------------------------------------


async def test_text_that_passed_through_is_taken_back_where_its_guardrail_trips() -> None:
    run = Runner.run_streamed(agent(ANSWER, guards=[finds("secret")]), "hi")

    entries = await entries_of(run)

    kinds = types_of(entries)
    assert text_in(entries) == ANSWER
    assert kinds[-3:] == ["guardrail.result", "text.retracted", "run.failed"]
    retracted: Any = entries[-2].event
    first = next(entry for entry in entries if types_of([entry]) == ["response.output_item.added"])
    assert retracted == TextRetracted(item_id=first.event.data.item.id, from_position=first.position)  # type: ignore[union-attr]
    assert entries[-1].event.partial == ""  # type: ignore[union-attr]


async def test_every_message_of_the_answer_is_taken_back_and_none_of_an_earlier_turn() -> None:
    @tool
    async def look() -> str:
        return "seen"

    steps: list[Any] = [["Let me look.", function_call("look", {})], ["One.", "Two, secret."]]
    run = Runner.run_streamed(agent(*steps, tools=[look], guards=[finds("secret")]), "hi")

    entries = await entries_of(run)

    retracted = [entry.event.from_position for entry in entries if isinstance(entry.event, TextRetracted)]
    last_call = max(entry.position for entry in entries if entry.type == "model.started")
    begins = [
        entry.position
        for entry in entries
        if types_of([entry]) == ["response.output_item.added"] and entry.position > last_call
    ]
    assert retracted == begins


async def test_a_plain_run_takes_back_the_item_of_its_message() -> None:
    log = MemoryLog()

    with pytest.raises(OutputGuardrailTripwireTriggered) as caught:
        await Runner.run(agent(ANSWER, guards=[finds("secret")]), "hi", run_config=RunConfig(log=log))

    assert caught.value.run_data is not None
    entries, _ = entries_in(log, str(caught.value.run_data.run_id))
    item = next(entry for entry in entries if entry.type == "run_item_stream_event")
    assert [e.event.from_position for e in entries if isinstance(e.event, TextRetracted)] == [item.position]


async def test_what_passed_its_guardrails_is_not_taken_back() -> None:
    entries = await entries_of(Runner.run_streamed(agent(ANSWER, guards=[finds("nothing")]), "hi"))

    assert "text.retracted" not in types_of(entries)
    assert entries[-1].type == "run.completed"


# --- held ------------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", HOLDS, ids=repr)
async def test_the_log_of_a_run_that_passes_is_the_same_whatever_was_held(hold: Hold) -> None:
    @tool
    async def look() -> str:
        return "seen"

    def steps() -> list[Any]:
        return [
            [reasoning("Hm."), "Let me look.", function_call("look", {})],
            [reasoning("Well."), "One.", ANSWER],
        ]

    held = await entries_of(
        Runner.run_streamed(agent(*steps(), tools=[look], guards=[finds("nothing", hold)]), "hi")
    )
    free = await entries_of(
        Runner.run_streamed(agent(*steps(), tools=[look], guards=[finds("nothing")]), "hi")
    )

    def told(entries: list[Entry]) -> list[Any]:
        # The time of a tool is its own in each run.
        return [
            (e.position, e.turn, e.type, e.event.to_json() if e.type != "tool.finished" else b"")
            for e in entries
        ]

    assert told(held) == told(free)


@pytest.mark.parametrize("hold", HELD, ids=repr)
async def test_nobody_sees_held_text_before_the_verdict(hold: Hold) -> None:
    log = MemoryLog()
    by_then: list[Entry] = []

    @output_guardrail(hold=hold)
    async def check(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        by_then.extend(entries_in(log, run.run_id)[0])
        return verdict()

    run = Runner.run_streamed(agent(ANSWER, guards=[check]), "hi", run_config=RunConfig(log=log))
    entries = await entries_of(run)

    assert types_of(by_then) == ["run.started", "agent_updated_stream_event", "model.started"]
    assert text_in(entries) == ANSWER
    assert run.final_output == ANSWER


@pytest.mark.parametrize("hold", HELD, ids=repr)
async def test_held_text_of_a_run_that_trips_is_nowhere(hold: Hold) -> None:
    run = Runner.run_streamed(agent(ANSWER, guards=[finds("secret", hold)]), "hi")

    entries = await entries_of(run)
    seen, text = await given_by(run.stream_events()), await given_by(run.text())

    assert not any(b"first" in entry.to_json() for entry in entries)
    assert [event.type for event in seen] == ["agent_updated_stream_event"]
    assert text == []
    assert types_of(entries)[2:] == ["model.started", "guardrail.result", "model.completed", "run.failed"]
    assert isinstance(run.run_loop_exception, OutputGuardrailTripwireTriggered)


async def test_the_exception_has_what_was_held_for_the_server_alone() -> None:
    with pytest.raises(OutputGuardrailTripwireTriggered) as caught:
        await Runner.run_streamed(agent(ANSWER, guards=[finds("secret", "verdict")]), "hi")

    assert caught.value.guardrail_result.agent_output == ANSWER
    assert caught.value.run_data is not None
    assert [item.type for item in caught.value.run_data.new_items] == ["message_output_item"]


@pytest.mark.parametrize("hold", ["verdict", HoldChunks(10_000)], ids=repr)
async def test_held_text_of_a_run_that_is_cancelled_is_nowhere(hold: Hold) -> None:
    model = ScriptedModel([ModelStep(output=ANSWER, hang_after=12)])
    asked = Agent(name="A", model=model, output_guardrails=[finds("x", hold)])
    run = Runner.run_streamed(asked, "hi")

    while not run._progress.turn or "first" not in run._progress.turn.partial_text():
        await asyncio.sleep(0)
    run.cancel()
    entries = await entries_of(run)

    assert not any(b"first" in entry.to_json() for entry in entries)
    assert types_of(entries)[-2:] == ["model.completed", "run.cancelled"]
    assert "first" in run._progress.partial_text


@pytest.mark.parametrize("hold", ["verdict", HoldChunks(10_000)], ids=repr)
async def test_held_text_of_a_model_that_fails_is_nowhere(hold: Hold) -> None:
    step = ModelStep(output=ANSWER, fail_after=12, error=ConnectionError("no line"))
    run = Runner.run_streamed(agent(step, guards=[finds("x", hold)]), "hi")

    entries = await entries_of(run)

    assert not any(b"first" in entry.to_json() for entry in entries)
    assert isinstance(run.run_loop_exception, ConnectionError)


async def test_a_log_that_is_full_when_held_text_is_let_out_fails_the_run() -> None:
    config = RunConfig(log=MemoryLog(max_events=9))
    run = Runner.run_streamed(agent(ANSWER, guards=[finds("x", "verdict")]), "hi", run_config=config)

    entries = await entries_of(run)

    assert isinstance(run.run_loop_exception, LogFullError)
    assert entries[-1].type == "run.failed"


async def test_what_the_model_says_before_a_tool_runs_is_let_out_by_then() -> None:
    log = MemoryLog()
    by_then: list[str] = []

    @tool
    async def look() -> str:
        by_then.append(text_in(entries_in(log, run.run_id)[0]))
        return "seen"

    steps: list[Any] = [["Let me look.", function_call("look", {})], "It is fine."]
    asked = agent(*steps, tools=[look], guards=[finds("nothing", "verdict")])
    run = Runner.run_streamed(asked, "hi", run_config=RunConfig(log=log))
    await run

    assert by_then == ["Let me look."]


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "plain"])
@pytest.mark.parametrize("hold", HELD, ids=repr)
async def test_what_the_model_says_before_a_tool_runs_is_judged_too(hold: Hold, streamed: bool) -> None:
    asked: list[Any] = []
    log = MemoryLog()

    @tool
    async def look() -> str:
        raise AssertionError("it ran")

    steps: list[Any] = [["A secret.", function_call("look", {})], "It is fine."]
    guarded = agent(*steps, tools=[look], guards=[finds("secret", hold, asked)])
    options: dict[str, Any] = {"run_config": RunConfig(log=log)}

    with pytest.raises(OutputGuardrailTripwireTriggered) as caught:
        await (
            Runner.run_streamed(guarded, "hi", **options)
            if streamed
            else Runner.run(guarded, "hi", **options)
        )

    assert asked == ["A secret."]
    assert caught.value.run_data is not None
    entries, _ = entries_in(log, str(caught.value.run_data.run_id))
    assert not any(b"secret." in entry.to_json() for entry in entries)


async def test_an_answer_that_more_input_came_behind_is_judged_before_it_is_let_out() -> None:
    asked: list[Any] = []

    class Sending(RunHooks[Any]):
        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            run.send("And?", when="after_turn")

    guarded = agent("A secret.", "Fine.", guards=[finds("secret", "verdict", asked)])
    run = Runner.run_streamed(guarded, "hi", hooks=Sending())
    entries = await entries_of(run)

    assert asked == ["A secret."]
    assert text_in(entries) == ""
    assert isinstance(run.run_loop_exception, OutputGuardrailTripwireTriggered)


async def test_text_that_a_server_streams_no_pieces_of_is_judged_all_the_same() -> None:
    asked: list[Any] = []

    class Terse(ScriptedModel):
        async def stream_batches(self, *args: Any, **kwargs: Any) -> AsyncGenerator[RawBatch, None]:
            async for batch in super().stream_batches(*args, **kwargs):
                if not any("delta" in kind for kind in batch.types):
                    yield batch

    @tool
    async def look() -> str:
        return "seen"

    model = Terse([["Let me look.", function_call("look", {})], "It is fine."])
    guarded = Agent(
        name="A", model=model, tools=[look], output_guardrails=[finds("nothing", HoldChunks(5), asked)]
    )
    await Runner.run_streamed(guarded, "hi")

    assert asked == ["Let me look.", "It is fine."]


async def test_a_handoff_lets_out_what_its_agent_held() -> None:
    second = Agent(name="B", model=ScriptedModel(["B here."]))
    steps: list[Any] = [["I hand over.", function_call("transfer_to_b", {})]]
    first = agent(*steps, handoffs=[second], guards=[finds("nothing", "verdict")])

    entries = await entries_of(Runner.run_streamed(first, "hi"))

    assert text_in(entries) == "I hand over.B here."


async def test_the_guardrails_of_the_agent_that_answers_hold_and_no_others() -> None:
    log = MemoryLog()
    by_then: list[str] = []

    @output_guardrail
    async def check(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        by_then.append(text_in(entries_in(log, run.run_id)[0]))
        return verdict()

    second = Agent(name="B", model=ScriptedModel(["B here."]), output_guardrails=[check])
    first = agent([function_call("transfer_to_b", {})], handoffs=[second], guards=[finds("B", "verdict")])
    run = Runner.run_streamed(first, "hi", run_config=RunConfig(log=log))
    await run

    assert by_then == ["B here."]


async def test_a_guardrail_of_the_run_holds_too() -> None:
    config = RunConfig(output_guardrails=[finds("secret", "verdict")])
    run = Runner.run_streamed(Agent(name="A", model=ScriptedModel([ANSWER])), "hi", run_config=config)

    assert text_in(await entries_of(run)) == ""
    assert isinstance(run.run_loop_exception, OutputGuardrailTripwireTriggered)


async def test_a_refusal_is_held_as_text_is() -> None:
    run = Runner.run_streamed(agent([refusal("I will not.")], guards=[finds("x", "verdict")]), "hi")

    entries = await entries_of(run)

    assert not any(b"will not" in entry.to_json() for entry in entries)
    assert isinstance(run.run_loop_exception, ModelRefusalError)


async def test_a_refusal_that_is_handled_is_judged_as_what_the_handler_gave_is_and_let_out() -> None:
    asked: list[Any] = []
    run = Runner.run_streamed(
        agent([refusal("I will not.")], guards=[finds("x", "verdict", asked)]),
        "hi",
        error_handlers={"model_refusal": lambda given: "It would not."},
    )

    entries = await entries_of(run)

    assert asked == ["I will not.", "It would not."]
    assert sum(b"I will not." in entry.to_json() for entry in entries) > 0
    assert run.final_output == "It would not."


async def test_what_an_error_handler_gave_is_seen_only_when_it_has_passed() -> None:
    run = Runner.run_streamed(
        agent([refusal("No.")], guards=[finds("secret")]),
        "hi",
        error_handlers={"model_refusal": lambda given: "A secret."},
    )

    entries = await entries_of(run)

    assert not any(b"A secret" in entry.to_json() for entry in entries)
    assert isinstance(run.run_loop_exception, OutputGuardrailTripwireTriggered)


# --- until the input has passed -----------------------------------------------------------------


def on_input(judged: asyncio.Event, *, trips: bool = False) -> InputGuardrail[Any]:
    """A parallel guardrail that holds, and judges when `judged` is set."""

    @input_guardrail(hold="verdict")
    async def check(context: Any, agent: Any, given: Any) -> GuardrailFunctionOutput:
        await judged.wait()
        return verdict(trips=trips)

    return check


class Answered(RunHooks[Any]):
    """Tells when the model has answered, so that what follows waits for a verdict."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
        self.event.set()

    async def wait(self) -> None:
        await self.event.wait()
        for _ in range(20):
            await asyncio.sleep(0)


async def test_an_answer_that_is_written_beside_an_input_guardrail_is_held_until_its_verdict() -> None:
    log, judged, hooks = MemoryLog(), asyncio.Event(), Answered()
    asked = Agent(name="A", model=ScriptedModel([ANSWER]), input_guardrails=[on_input(judged)])
    run = Runner.run_streamed(asked, "hi", run_config=RunConfig(log=log), hooks=hooks)

    await hooks.wait()
    by_then = entries_in(log, run.run_id)[0]
    judged.set()
    entries = await entries_of(run)

    assert types_of(by_then) == ["run.started", "agent_updated_stream_event", "model.started"]
    assert text_in(entries) == ANSWER


async def test_what_was_held_beside_an_input_that_trips_is_nowhere() -> None:
    judged, hooks = asyncio.Event(), Answered()
    asked = Agent(name="A", model=ScriptedModel([ANSWER]), input_guardrails=[on_input(judged, trips=True)])
    run = Runner.run_streamed(asked, "hi", hooks=hooks)

    await hooks.wait()
    judged.set()
    entries = await entries_of(run)

    assert types_of(entries)[2:] == ["model.started", "guardrail.result", "model.completed", "run.failed"]
    assert not any(b"first" in entry.to_json() for entry in entries)


async def test_no_tool_runs_behind_an_answer_that_is_held_for_the_input() -> None:
    judged, hooks = asyncio.Event(), Answered()
    ran: list[str] = []

    @tool
    async def look() -> str:
        ran.append("look")
        return "seen"

    model = ScriptedModel([["Let me look.", function_call("look", {})], "It is fine."])
    asked = Agent(name="A", model=model, tools=[look], input_guardrails=[on_input(judged)])
    run = Runner.run_streamed(asked, "hi", hooks=hooks)

    await hooks.wait()
    assert ran == []
    judged.set()

    assert text_in(await entries_of(run)) == "Let me look.It is fine."
    assert ran == ["look"]


@pytest.mark.parametrize("hold", HELD, ids=repr)
async def test_what_input_and_output_guardrails_hold_is_seen_when_both_have_passed_it(hold: Hold) -> None:
    log, judged, hooks = MemoryLog(), asyncio.Event(), Answered()
    by_then: list[str] = []

    @output_guardrail(hold=hold)
    async def check(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        by_then.append(text_in(entries_in(log, run.run_id)[0]))
        return verdict()

    asked = agent(ANSWER, guards=[check], input_guardrails=[on_input(judged)])
    run = Runner.run_streamed(asked, "hi", run_config=RunConfig(log=log), hooks=hooks)
    await hooks.wait()
    judged.set()
    entries = await entries_of(run)

    assert set(by_then) == {""}
    assert text_in(entries) == ANSWER


async def test_text_streams_on_once_the_input_has_passed() -> None:
    judged = asyncio.Event()
    model = ScriptedModel([ModelStep(output=ANSWER, hang_after=12)])
    run = Runner.run_streamed(Agent(name="A", model=model, input_guardrails=[on_input(judged)]), "hi")

    while not run._progress.turn or "part" not in run._progress.turn.partial_text():
        await asyncio.sleep(0)
    judged.set()
    async for text in run.text():
        if "first" in text:
            break
    run.cancel()

    assert text_in(await entries_of(run)).startswith("The first part")


def test_an_input_guardrail_holds_until_its_verdict_or_not_at_all() -> None:
    with pytest.raises(UserError, match="hold is 'pass' or 'verdict', not HoldChunks"):
        InputGuardrail(lambda *_: verdict(), "mine", hold=HoldChunks())  # pyright: ignore[reportArgumentType]


# --- by chunks -------------------------------------------------------------------------------


async def test_text_comes_in_pieces_that_the_guardrail_has_passed() -> None:
    log = MemoryLog()
    asked: list[tuple[str, str]] = []

    @output_guardrail(hold=HoldChunks(20))
    async def check(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        asked.append((output, text_in(entries_in(log, run.run_id)[0])))
        return verdict()

    run = Runner.run_streamed(agent(ANSWER, guards=[check]), "hi", run_config=RunConfig(log=log))
    await run

    judged = [output for output, _ in asked]
    assert [out for _, out in asked] == ["", *judged[:-1]]
    assert judged[-1] == ANSWER
    assert all(len(more) - len(text) >= 20 for text, more in pairwise(judged[:-1]))
    assert len(run.output_guardrail_results) == 1


async def test_a_piece_that_trips_ends_the_run_and_what_is_out_is_taken_back() -> None:
    asked: list[Any] = []
    model = ScriptedModel([ANSWER])
    guarded = Agent(name="A", model=model, output_guardrails=[finds("secret", HoldChunks(10), asked)])
    run = Runner.run_streamed(guarded, "hi")

    entries = await entries_of(run)

    out = text_in(entries)
    assert out.startswith("The first part is fine.")
    assert "secret" not in out
    assert not any(b"secret." in entry.to_json() for entry in entries)
    assert types_of(entries)[-4:] == ["guardrail.result", "text.retracted", "model.completed", "run.failed"]
    assert not any("end" in text for text in asked)
    assert run.output_guardrail_results[-1].agent_output == asked[-1]


async def test_a_piece_that_trips_closes_the_models_stream_and_is_no_reason_to_ask_again() -> None:
    closed = False

    class Slow(ScriptedModel):
        async def stream_batches(self, *args: Any, **kwargs: Any) -> AsyncGenerator[RawBatch, None]:
            nonlocal closed
            try:
                async for batch in super().stream_batches(*args, **kwargs):
                    yield batch
            finally:
                closed = True

    settings = ModelSettings(retry={"max_retries": 3, "policy": lambda context: True})  # pyright: ignore[reportArgumentType]
    model = Slow([ANSWER, "another"])
    guarded = Agent(
        name="A", model=model, model_settings=settings, output_guardrails=[finds("secret", HoldChunks(5))]
    )

    with pytest.raises(OutputGuardrailTripwireTriggered):
        await Runner.run_streamed(guarded, "hi")

    assert closed
    assert len(model.calls) == 1


async def test_the_rest_of_a_turn_that_calls_tools_is_judged_before_they_run() -> None:
    asked: list[Any] = []
    ran = False

    @tool
    async def look() -> str:
        nonlocal ran
        ran = True
        return "seen"

    steps: list[Any] = [["A secret.", function_call("look", {})], "Done."]
    guarded = agent(*steps, tools=[look], guards=[finds("secret", HoldChunks(1000), asked)])

    with pytest.raises(OutputGuardrailTripwireTriggered):
        await Runner.run_streamed(guarded, "hi")

    assert asked == ["A secret."]
    assert not ran


async def test_the_messages_before_the_last_are_judged_before_they_are_let_out() -> None:
    asked: list[Any] = []
    run = Runner.run_streamed(
        agent(["A secret.", "All fine."], guards=[finds("secret", HoldChunks(1000), asked)]), "hi"
    )

    assert text_in(await entries_of(run)) == ""
    assert asked == ["A secret.All fine."]


async def test_the_pieces_of_structured_output_are_its_json_and_the_whole_is_the_value() -> None:
    asked: list[Any] = []
    run = Runner.run_streamed(
        agent('{"response":[1,2]}', output_type=list[int], guards=[finds("x", HoldChunks(1), asked)]), "hi"
    )

    assert (await run).final_output == [1, 2]
    assert asked[0] in '{"response":[1,2]}'
    assert asked[-1] == [1, 2]


async def test_who_holds_for_the_verdict_is_not_overruled_by_who_judges_pieces() -> None:
    log = MemoryLog()
    by_then: list[str] = []

    @output_guardrail(hold=HoldChunks(5))
    async def pieces(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        by_then.append(text_in(entries_in(log, run.run_id)[0]))
        return verdict()

    guards = [pieces, finds("nothing", "verdict")]
    run = Runner.run_streamed(agent(ANSWER, guards=guards), "hi", run_config=RunConfig(log=log))
    await run

    assert len(by_then) > 2
    assert set(by_then) == {""}


async def test_a_guardrail_that_raises_over_a_piece_ends_the_run_with_that() -> None:
    @output_guardrail(hold=HoldChunks(5))
    async def breaks(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        raise ValueError("cannot judge")

    run = Runner.run_streamed(agent(ANSWER, guards=[breaks]), "hi")

    assert text_in(await entries_of(run)) == ""
    assert isinstance(run.run_loop_exception, ValueError)


async def test_a_run_that_is_cancelled_while_a_piece_is_judged_leaves_no_guardrail_behind() -> None:
    judging = asyncio.Event()

    @output_guardrail(hold=HoldChunks(5))
    async def thinks(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        judging.set()
        await asyncio.Event().wait()
        return verdict()

    run = Runner.run_streamed(agent(ANSWER, guards=[thinks]), "hi")
    await judging.wait()
    run.cancel()
    entries = await entries_of(run)

    assert entries[-1].type == "run.cancelled"
    assert text_in(entries) == ""
    assert asyncio.all_tasks() == {asyncio.current_task()}


# --- tries -----------------------------------------------------------------------------------


@pytest.mark.parametrize("hold", ["verdict", HoldChunks(1000)], ids=repr)
async def test_held_text_of_a_try_that_failed_is_nowhere_and_no_reason_not_to_try_again(hold: Hold) -> None:
    clock = ManualClock()
    failed = ModelStep(output="A first try.", fail_after=6, error=ConnectionError("no line"))
    settings = ModelSettings(
        retry={"max_retries": 1, "policy": lambda context: True, "backoff": {"jitter": False}}  # pyright: ignore[reportArgumentType]
    )
    guarded = agent(failed, "The second.", model_settings=settings, guards=[finds("nothing", hold)])
    run = Runner.run_streamed(guarded, "hi", run_config=RunConfig(clock=clock))

    while not run.is_complete:
        if clock.due:
            await clock.tick()
        await asyncio.sleep(0)
    entries = await entries_of(run)

    assert text_in(entries) == "The second."
    assert not any(b"first" in entry.to_json() for entry in entries)
    assert "model.retried" in types_of(entries)


async def test_pieces_of_a_try_that_failed_are_superseded_and_the_next_is_judged_anew() -> None:
    clock = ManualClock()
    asked: list[Any] = []
    failed = ModelStep(output="A first try.", fail_after=6, error=ConnectionError("no line"))
    settings = ModelSettings(
        retry={"max_retries": 1, "policy": AGAIN, "backoff": {"jitter": False}}  # pyright: ignore[reportArgumentType]
    )
    guards = [finds("second", HoldChunks(1), asked)]
    guarded = agent(failed, "The second.", model_settings=settings, guards=guards)
    run = Runner.run_streamed(guarded, "hi", run_config=RunConfig(clock=clock))

    while not run.is_complete:
        if clock.due:
            await clock.tick()
        await asyncio.sleep(0)
    entries = await entries_of(run)

    assert "A first" in asked[:3]
    assert asked[-1] == "The second."
    retracted = [entry.event.from_position for entry in entries if isinstance(entry.event, TextRetracted)]
    retried = next(entry.position for entry in entries if entry.type == "model.retried")
    assert [at is not None and at > retried for at in retracted] == [True]


# --- the rest --------------------------------------------------------------------------------


async def test_text_whose_beginning_is_no_longer_held_is_taken_back_without_a_place() -> None:
    log = MemoryLog()

    @output_guardrail
    async def forgets(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        last = (await log.info(run.run_id)).last
        await log.trim(run.run_id, last + 1)
        return verdict(trips=True)

    run = Runner.run_streamed(agent(ANSWER, guards=[forgets]), "hi", run_config=RunConfig(log=log))
    with pytest.raises(OutputGuardrailTripwireTriggered):
        await run

    entries, _ = entries_in(log, run.run_id)
    assert [entry.event for entry in entries if entry.type == "text.retracted"] == [TextRetracted()]


@pytest.mark.parametrize("hold", ["never", None, 200, HoldChunks], ids=repr)
def test_a_policy_that_is_none_is_refused_where_the_guardrail_is_made(hold: Any) -> None:
    with pytest.raises(UserError, match="hold is 'pass', 'verdict' or HoldChunks"):
        OutputGuardrail(lambda *_: verdict(), "mine", hold)


@pytest.mark.parametrize("characters", [0, -1, 2.5, True, "200"])
def test_chunks_have_at_least_one_character(characters: Any) -> None:
    with pytest.raises(UserError, match="a whole number of characters"):
        HoldChunks(characters)


async def test_a_verdict_stands_in_the_log_behind_the_text_that_it_is_about() -> None:
    run = Runner.run_streamed(agent(ANSWER, guards=[finds("nothing", "verdict")]), "hi")

    entries = await entries_of(run)

    assert types_of(entries)[-3:] == ["model.completed", "guardrail.result", "run.completed"]
    found = next(entry.event for entry in entries if isinstance(entry.event, GuardrailResult))
    assert (found.guardrail, found.stage, found.tripped) == ("no nothing", "output", False)


async def test_a_client_is_told_no_more_of_a_trip_than_that_there_was_one() -> None:
    entries = await entries_of(Runner.run_streamed(agent(ANSWER, guards=[finds("secret", "verdict")]), "hi"))

    end = entries[-1].event
    assert isinstance(end, RunFailed)
    assert (end.code, end.message, end.partial) == ("tripwire", "A guardrail stopped the run.", "")
