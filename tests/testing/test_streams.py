"""`check_stream` lets every stream of a run pass, and names the clause that a broken one breaks."""

import dataclasses
import json
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

import pytest

from millstream import Agent, Entry, Runner, tool
from millstream.delivery import sse_frames
from millstream.events import (
    TERMINAL_TYPES,
    AgentUpdatedStreamEvent,
    Event,
    InputAdded,
    ModelCompleted,
    ModelRetried,
    ModelStarted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunCancelled,
    RunCompleted,
    RunDecided,
    RunFailed,
    RunItemStreamEvent,
    RunPaused,
    RunResumed,
    RunStarted,
    Stamp,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    UserEvent,
)
from millstream.items import AgentRef, HandoffCallItem, HandoffOutputItem, ToolCallItem, ToolCallOutputItem
from millstream.stream.grammar import CLAUSES
from millstream.testing import (
    ModelStep,
    ScriptedModel,
    StreamChecker,
    StreamGrammarError,
    StreamReport,
    check_stream,
    function_call,
    reasoning,
    refusal,
)
from millstream.testing import streams as streams_module

RUN, CHILD = "run_1", "run_2"

# --- streams by hand ---------------------------------------------------------------------------


def log(*events: Event | Entry, run_id: str = RUN) -> list[Entry]:
    """Entries of `events`, in the envelopes that a run would give them; an entry among them keeps its own."""
    agent, turn = "A", 0
    entries: list[Entry] = []
    for position, event in enumerate(events, 1):
        if isinstance(event, Entry):
            entries.append(dataclasses.replace(event, position=position))
            continue
        if isinstance(event, AgentUpdatedStreamEvent):
            agent = event.new_agent.name
        if isinstance(event, ModelStarted):
            turn = event.turn
        entries.append(Entry(position, Stamp(run_id=run_id, agent=agent, turn=turn, time=1.0), event))
    return entries


def changed(entries: list[Entry], at: int, **fields: Any) -> list[Entry]:
    """`entries`, one of which has other values in its envelope."""
    entry = entries[at - 1]
    stamp = dataclasses.replace(entry.stamp, **{k: v for k, v in fields.items() if k != "position"})
    other = Entry(fields.get("position", entry.position), stamp, entry.event)
    return [*entries[: at - 1], other, *entries[at:]]


def nested(
    event: Event,
    *,
    depth: int = 1,
    parent: str = RUN,
    path: tuple[str, ...] = ("c1",),
    run_id: str = CHILD,
    turn: int | None = None,
) -> Entry:
    path = path if depth == 1 else (*path, "c2")
    if turn is None:
        turn = 0 if event.type in ("run.started", "run.resumed", "agent_updated_stream_event") else 1
    stamp = Stamp(run_id=run_id, agent="C", turn=turn, depth=depth, parent_run_id=parent, time=1.0, path=path)
    return Entry(0, stamp, event)


def acts(name: str = "A") -> AgentUpdatedStreamEvent:
    return AgentUpdatedStreamEvent(AgentRef(name))  # pyright: ignore[reportArgumentType]


def raw(kind: str, **fields: Any) -> RawResponsesStreamEvent:
    return RawResponsesStreamEvent.from_wire(json.dumps({"type": kind, **fields}).encode())


def call(call_id: str = "c1", type: str = "function_call") -> dict[str, Any]:
    return {"type": type, "id": call_id, "call_id": call_id, "name": "f", "arguments": "{}"}


def item_done(call_id: str = "c1") -> RawResponsesStreamEvent:
    return raw("response.output_item.done", output_index=0, item=call(call_id))


NOBODY: Any = AgentRef("A")


def called(call_id: str = "c1", type: str = "function_call") -> RunItemStreamEvent:
    return RunItemStreamEvent(item=ToolCallItem(NOBODY, call(call_id, type)))


def answered(call_id: str = "c1") -> RunItemStreamEvent:
    return RunItemStreamEvent(item=ToolCallOutputItem(NOBODY, {"call_id": call_id, "output": "x"}, "x"))


def requested(call_id: str = "h1") -> RunItemStreamEvent:
    payload: Any = call(call_id)
    return RunItemStreamEvent(item=HandoffCallItem(NOBODY, payload))


def handed_over(call_id: str = "h1", target: str = "B") -> RunItemStreamEvent:
    agent: Any = AgentRef(target)
    return RunItemStreamEvent(item=HandoffOutputItem(NOBODY, {"call_id": call_id}, NOBODY, agent))


START: tuple[Event, ...] = (RunStarted(agent="A"), acts())
ASKED = ModelStarted(turn=1)
SAID = ModelCompleted(turn=1)
CUT_SHORT = ModelCompleted(turn=1, status="cancelled")
DONE = RunCompleted(output="x")
CREATED = raw("response.created")
FINAL = raw("response.completed")
BEGINS, ENDS = ToolStarted(call_id="c1", name="f"), ToolFinished(call_id="c1", name="f")
HANDOFF = (*START, ASKED, requested(), SAID)
CALLING = (*START, ASKED, called(), SAID, BEGINS)


def report(stream: Any, **options: Any) -> StreamReport:
    try:
        return check_stream(stream, **options)
    except StreamGrammarError as error:
        return error.report


def clauses(found: StreamReport) -> list[str]:
    return [problem.clause for problem in found.problems]


GOOD: dict[str, tuple[Event | Entry, ...]] = {
    "an answer that came whole": (*START, ASKED, SAID, DONE),
    "a tool": (*START, ASKED, called(), SAID, BEGINS, ToolProgress(call_id="c1", name="f"), ENDS, answered(), DONE),
    "two calls of one id": (
        *START, ASKED, called(), called(), SAID, BEGINS, BEGINS, ENDS, answered(), ENDS, answered(), DONE,
    ),
    "an id that is no text": (*START, ASKED, called(5), SAID, ToolStarted(call_id=5, name="f"), ToolFinished(call_id=5, name="f"), answered(5), DONE),  # pyright: ignore[reportArgumentType]
    "a call of a tool that runs elsewhere": (*START, ASKED, called("w1", "web_search_call"), SAID, DONE),
    "a handoff": (*HANDOFF, handed_over(), acts("B"), ModelStarted(turn=2), ModelCompleted(turn=2), DONE),
    "a handoff that was not the first": (*START, ASKED, requested("h1"), requested("h2"), SAID, answered("h2"), handed_over(), acts("B"), DONE),
    "a response that was cut": (*START, ASKED, CREATED, ModelCompleted(turn=1, status="cancelled"), RunCancelled()),
    "a response that was tried again": (
        *START, ASKED, CREATED, item_done(), called(),
        ModelRetried(turn=1, attempt=2, reason="cut"), CREATED, FINAL, SAID, DONE,
    ),
    "an item that only the final event has": (*START, ASKED, CREATED, FINAL, called(), SAID, answered(), DONE),
    "an item that cannot be read": (
        *START, ASKED, CREATED, item_done(), FINAL, ModelCompleted(turn=1, status="failed"),
        RunFailed(code="x", message="x", error_id="x"),
    ),
    "an item that cannot be read, in a call that is cut": (
        *START, ASKED, CREATED, item_done(), raw("response.in_progress"), ModelCompleted(turn=1, status="cancelled"),
        RunCancelled(),
    ),
    "an item that could not be read the first time": (
        *START, ASKED, CREATED, item_done(), FINAL,
        ModelRetried(turn=1, attempt=2, reason="protocol"), CREATED, FINAL, SAID, DONE,
    ),
    "a run that never began": (RunStarted(agent="A"), RunCancelled()),
    "a pause": (
        *START, ASKED, called(), SAID, RunPaused(), RunDecided(call_id="c1", decision="approved"), RunResumed(),
        acts(), BEGINS, ENDS, answered(), DONE,
    ),
    "a pause inside of a tool": (
        *START, ASKED, called(), SAID, BEGINS, ToolFinished(call_id="c1", name="t", status="paused"), RunPaused(),
        RunResumed(), acts(), BEGINS, ENDS, answered(), DONE,
    ),
    "another run's going on": (
        RunStarted(agent="A"), RunDecided(call_id="c1", decision="rejected"), RunResumed(of="run_0"), acts(),
        answered(), ASKED, SAID, DONE,
    ),
    "a pause that lasts": (*START, RunPaused(), InputAdded(input="x")),
    "a run inside": (
        *START, ASKED, called(), SAID, BEGINS,
        nested(RunStarted(agent="C")), nested(acts("C")), nested(DONE), ENDS, answered(), DONE,
    ),
    "events of the program's own": (*START, UserEvent(name="x"), ASKED, SAID, DONE),
}  # fmt: skip


@pytest.mark.parametrize("events", GOOD.values(), ids=GOOD)
def test_what_a_run_may_write_passes(events: tuple[Any, ...]) -> None:
    assert not clauses(report(log(*events)))


def began(call_id: str) -> ToolStarted:
    return ToolStarted(call_id=call_id, name="f")


def ended(call_id: str) -> ToolFinished:
    return ToolFinished(call_id=call_id, name="f")


BEGUN = (*START, ASKED, CREATED, item_done(), called())
"""Six events: a call that the model has written, in an answer that goes on."""
TWO_TOOLS = (*START, ASKED, called("c1"), called("c2"), SAID, BEGINS, began("c2"), ENDS, answered())
"""Ten events: of two tools, one is done at position 10, and the other runs."""
CHILD_BEGINS = (RunStarted(agent="C"), acts("C"))
INSIDE = (*CALLING, *(nested(each) for each in (*CHILD_BEGINS, ASKED, CREATED)))
"""Ten events: a run is nested in the tool that runs, and asks its model."""


def again(resumed_from: int, number: int = 2) -> RunAttempt:
    return RunAttempt(number=number, resumed_from=resumed_from)


GOES_ON = {
    "before the first turn": (*BEGUN, again(2), acts(), ASKED, CREATED, FINAL, SAID, DONE),
    "with a turn that had begun": (*BEGUN, again(3), acts(), ASKED, CREATED, FINAL, SAID, DONE),
    "with the tools of a turn": (*CALLING, again(5), acts(), BEGINS, ENDS, answered(), DONE),
    "with the tools that have no result": (
        *TWO_TOOLS, ToolProgress(call_id="c2", name="f"), again(10), acts(), began("c2"), ended("c2"), answered("c2"), DONE,
    ),
    "with the next turn": (
        *CALLING, ENDS, answered(), ModelStarted(turn=2), CREATED,
        again(9), acts(), ModelStarted(turn=2), CREATED, FINAL, ModelCompleted(turn=2), DONE,
    ),
    "with the next turn, before which input came": (
        *START, ASKED, CUT_SHORT, InputAdded(input="x"), ModelStarted(turn=2),
        again(6), acts(), ModelStarted(turn=2), ModelCompleted(turn=2), DONE,
    ),
    "with its output": (*START, ASKED, SAID, again(4), acts(), DONE),
    "behind a pause": (
        *START, ASKED, called(), SAID, RunPaused(), RunDecided(call_id="c1", decision="approved"), RunResumed(), acts(),
        BEGINS, again(6), RunDecided(call_id="c1", decision="approved"), RunResumed(), acts(), BEGINS, ENDS, answered(), DONE,
    ),
    "behind a pause, with a word": (
        *START, ASKED, called(), SAID, RunPaused(), RunResumed(), acts(), again(6), acts(), BEGINS, ENDS, answered(), DONE,
    ),
    "and pauses": (*CALLING, again(5), acts(), RunPaused()),
    "in another log": (
        RunStarted(agent="A"), RunResumed(of="run_0"), acts(), BEGINS, again(3), acts(), BEGINS, ENDS, answered(), ASKED, SAID, DONE,
    ),
    "with a handoff": (
        *HANDOFF, handed_over(), acts("B"),
        Entry(0, Stamp(run_id=RUN, agent="A", turn=1, time=1.0), again(5)), acts(),
        handed_over(), acts("B"), ModelStarted(turn=2), ModelCompleted(turn=2), DONE,
    ),
    "several times": (
        *BEGUN, again(3), acts(), ASKED, CREATED, item_done(), called(),
        again(3, 3), acts(), ASKED, CREATED, FINAL, SAID, again(18, 4), acts(), DONE,
    ),
    "behind an attempt that came to nothing": (*BEGUN, again(3), acts(), again(8, 3), acts(), ASKED, SAID, DONE),
    "to fail at once": (*CALLING, again(5), acts(), RunFailed(code="not_resumable", message="x", error_id="x")),
    "to be stopped": (*CALLING, again(5), acts(), answered(), RunCancelled()),
    "with a nested run": (
        *INSIDE, again(10), acts(), BEGINS, nested(RunResumed()), nested(acts("C")),
        nested(ModelStarted(turn=1)), nested(SAID), nested(DONE), ENDS, answered(), DONE,
    ),
    "with a nested run that had ended": (
        *INSIDE, nested(FINAL), nested(SAID), nested(DONE), again(8), acts(), BEGINS, nested(RunResumed()), nested(acts("C")), nested(RunCancelled()),
        ENDS, answered(), DONE,
    ),
    "with another nested run": (
        *INSIDE, again(5), acts(), BEGINS, *(nested(each, run_id="run_3") for each in (*CHILD_BEGINS, DONE)), ENDS, answered(), DONE,
    ),
    "with another nested run, where the first had begun": (
        *INSIDE, again(10), acts(), BEGINS, *(nested(each, run_id="run_3") for each in (*CHILD_BEGINS, DONE)), ENDS, answered(), DONE,
    ),
    "without its nested run": (*INSIDE, again(10), acts(), BEGINS, ENDS, answered(), DONE),
}  # fmt: skip


@pytest.mark.parametrize("events", GOES_ON.values(), ids=GOES_ON)
def test_another_process_goes_on(events: tuple[Any, ...]) -> None:
    entries = log(*events)

    assert not clauses(report(entries, ended=events[-1].type in TERMINAL_TYPES))
    for after in range(1, len(entries)):
        assert not clauses(report(entries[after:], ended=False)), f"(after={after})"
        assert not clauses(report([*entries[:2], *entries[after + 2 :]], ended=False, filtered=True))
    assert not clauses(report([entry.event for entry in entries if not entry.depth], ended=False))


def test_who_goes_on_from_further_back_than_is_kept_goes_on_from_what_was_not_seen() -> None:
    turns = [(ModelStarted(turn=turn), ModelCompleted(turn=turn)) for turn in range(1, 101)]
    inside = (*CALLING, *map(nested, CHILD_BEGINS), *(nested(e, turn=e.turn) for turn in turns for e in turn))
    resumes = (RunResumed(), acts("C"), ModelStarted(turn=101), ModelCompleted(turn=101), DONE)

    for resumed_from in (6, 10, 60, 160, 208):
        child = [nested(event, turn=101) for event in resumes] if resumed_from > 6 else []
        taken_up = (acts(), BEGINS, *child)
        events = log(*inside, again(resumed_from), *taken_up, ENDS, answered(), DONE)

        assert not clauses(report(events)), f"(from {resumed_from})"


BROKEN: list[tuple[str, list[Any]]] = [
    ("an_attempt_is_of_the_root_run", log(*BEGUN, again(2, 1))),
    ("an_attempt_is_of_the_root_run", log(*BEGUN, again(2), acts(), again(2, 2))),
    ("an_attempt_is_of_the_root_run", log(*BEGUN, again(2), acts(), again(2, 4))),
    ("an_attempt_is_of_the_root_run", log(*INSIDE, nested(again(5)))),
    ("an_attempt_goes_on_from_what_stands", log(*BEGUN, again(7))),
    ("an_attempt_goes_on_from_what_stands", log(*BEGUN, again(0))),
    ("an_attempt_goes_on_from_what_stands", log(*BEGUN, again(4))),
    ("an_attempt_goes_on_from_what_stands", log(*START, ASKED, CREATED, FINAL, SAID, again(4))),
    ("an_attempt_goes_on_from_what_stands", log(*BEGUN, again(2), acts(), again(4, 3))),
    ("what_is_finished_stays", log(*START, ASKED, SAID, again(3))),
    ("what_is_finished_stays", log(*TWO_TOOLS, again(6))),
    ("what_is_void_stays_void", log(*INSIDE, again(5), acts(), nested(UserEvent(name="x")), nested(DONE))),
    ("what_is_void_stays_void", log(*INSIDE, again(5), acts(), BEGINS, nested(RunResumed()))),
    ("what_is_void_stays_void", log(*INSIDE, again(5), acts(), nested(RunStarted(agent="C"), depth=2, parent=CHILD, run_id="run_3"))),
    ("a_paused_run_waits", log(*INSIDE, again(10), acts(), BEGINS, nested(ASKED))),
    ("a_nested_run_answers_a_call", log(*INSIDE, again(10), acts(), nested(RunResumed()))),
    ("a_nested_run_answers_a_call", log(*INSIDE, again(10), acts(), BEGINS, nested(RunResumed()), ENDS)),
    ("every_model_call_ends", log(*BEGUN, again(2), acts(), SAID)),
    ("a_model_speaks_in_its_call", log(*BEGUN, again(2), acts(), FINAL)),
    ("every_tool_that_starts_finishes", log(*CALLING, again(5), acts(), ENDS)),
    ("every_call_is_answered_once", log(*BEGUN, again(2), acts(), answered())),
    ("every_call_is_answered_once", log(*TWO_TOOLS, again(10), acts(), answered())),
    ("every_call_is_answered_once", log(*CALLING, again(5), acts(), RunCancelled())),
    ("every_call_is_answered_once", log(*CALLING, again(5), acts(), UserEvent(name="x"), RunFailed(code="x", message="x", error_id="x"))),
    ("a_tool_runs_for_a_call", log(*BEGUN, again(2), acts(), BEGINS)),
    ("a_tool_runs_for_a_call", log(*TWO_TOOLS, again(10), acts(), BEGINS)),
    ("a_handoff_is_requested_then_takes_place", log(*START, ASKED, SAID, again(4), DONE)),
    ("a_handoff_is_requested_then_takes_place", log(*START, ASKED, SAID, again(4), acts("B"))),
    ("a_run_ends_once", log(*START, DONE, again(2))),
    ("values_are_valid", log(*START, RunAttempt(number="2", resumed_from=1))),  # pyright: ignore[reportArgumentType]
    ("values_are_valid", log(*CALLING[:-1], ToolStarted(call_id="c1", name="f", once=1))),  # pyright: ignore[reportArgumentType]
    ("everything_is_an_event", [*log(*START), '{"type": "no.such"}']),
    ("values_are_valid", log(*START, RunPaused(), RunDecided(call_id="c1", decision="perhaps"))),
    ("a_handoff_is_requested_then_takes_place", log(*START, RunPaused(), RunResumed(), acts("B"))),
    ("a_handoff_is_requested_then_takes_place", log(*START, RunPaused(), RunResumed(), ASKED)),
    ("everything_is_an_event", [*log(*START), b"no JSON"]),
    ("everything_is_an_event", [*log(*START), {"position": 3, "event": {"type": "user.event"}}]),
    ("everything_is_an_event", [*log(*START), UserEvent(name="x")]),
    ("values_are_valid", changed(log(*START), 2, run_id="")),
    ("values_are_valid", changed(log(*START), 2, run_id=["x"])),
    ("values_are_valid", changed(log(*START), 2, turn=-1)),
    ("values_are_valid", changed(log(*START), 2, agent=None)),
    ("values_are_valid", changed(log(*START), 2, depth=1)),
    ("values_are_valid", changed(log(*START), 2, depth="1")),
    ("values_are_valid", changed(log(*START), 2, path=("c1",))),
    ("values_are_valid", changed(log(*START), 2, depth=1, parent_run_id="run_0", path=(5,))),
    ("values_are_valid", changed(log(*START), 2, path=None)),
    ("values_are_valid", changed(log(*START), 2, time=float("nan"))),
    ("values_are_valid", changed(log(*START), 2, position=True)),
    ("values_are_valid", log(*START, ASKED, ModelCompleted(turn=1, usage={"input_tokens": -1}))),
    ("values_are_valid", log(*START, RunCompleted(usage={"requests": 1.5}))),
    ("values_are_valid", log(*START, RunCompleted(usage=5))),  # pyright: ignore[reportArgumentType]
    ("values_are_valid", log(*START, ASKED, ModelCompleted(turn=1, status="fine"))),
    ("values_are_valid", log(*START, RunCancelled(mode="soon"))),  # pyright: ignore[reportArgumentType]
    ("values_are_valid", log(*START, RunItemStreamEvent("tool_output", called().item))),
    ("values_are_valid", log(*START, RunItemStreamEvent("tool_output"))),
    ("values_are_valid", log(*START, ASKED, called(), SAID, BEGINS, ToolFinished(call_id="c1", name="f", ms=-1.0))),
    ("values_are_valid", log(*START, RunAttempt(number=-1, resumed_from=1))),
    ("positions_count", [*log(*START, UserEvent(name="x"))[:2], *log(*START, ASKED, SAID)[3:]]),
    ("positions_count", changed(log(*START), 2, position=1)),
    ("positions_count", [log(*START, UserEvent(name="x"))[place] for place in (0, 2, 1)]),
    ("positions_count", [f"id: 7\ndata: {log(*START)[0].to_json().decode()}\n\n"]),
    ("a_run_begins_with_run_started", log(acts(), ASKED, SAID)),
    ("a_run_begins_with_run_started", log(RunFailed(code="x", message="x", error_id="x"))),
    ("a_run_begins_with_run_started", log(*START, RunStarted(agent="A"))),
    ("a_run_ends_once", log(*START, DONE, DONE)),
    ("a_run_ends_once", log(*START, DONE, UserEvent(name="x"))),
    ("an_end_is_of_its_run", log(*START, RunCompleted(family="team"))),
    ("an_end_is_of_its_run", log(*START, RunCompleted(state="failed"))),
    ("a_nested_run_answers_a_call", log(*START, nested(RunStarted(agent="C")))),
    ("a_nested_run_answers_a_call", log(*CALLING, nested(RunStarted(agent="C"), path=("c2",)))),
    ("a_nested_run_answers_a_call", log(*CALLING, ENDS, nested(RunStarted(agent="C")))),
    ("a_nested_run_answers_a_call", log(*CALLING, nested(RunStarted(agent="C")), ENDS, answered(), DONE)),
    ("a_nested_run_lives_in_its_parent", log(*START, DONE, nested(RunStarted(agent="C")))),
    ("a_nested_run_lives_in_its_parent", log(*START, nested(RunStarted(agent="C"), depth=2))),
    ("a_nested_run_lives_in_its_parent", log(*START, nested(RunStarted(agent="C"), parent="run_0"))),
    ("a_nested_run_lives_in_its_parent", changed(log(*START, RunStarted(agent="A")), 3, run_id="run_3")),
    ("the_envelope_tells_the_state", changed(log(*START), 2, depth=1, parent_run_id="run_0", path=("c1",))),
    ("the_envelope_tells_the_state", log(*CALLING, nested(RunStarted(agent="C")), nested(acts("C"), path=("c2",)))),
    ("the_envelope_tells_the_state", changed(log(*START, ASKED, SAID), 4, turn=0)),
    ("the_envelope_tells_the_state", changed(log(*START, ASKED), 3, turn=2)),
    ("the_envelope_tells_the_state", changed(log(*START, ASKED), 3, agent="B")),
    ("the_envelope_tells_the_state", log(RunStarted(agent="B"))),
    ("a_paused_run_waits", log(*START, RunPaused(), DONE)),
    ("a_paused_run_waits", log(*START, ASKED, RunPaused())),
    ("a_paused_run_waits", log(*START, ASKED, called(), SAID, BEGINS, RunPaused())),
    ("an_agent_is_named_before_it_acts", log(RunStarted(agent="A"), ASKED)),
    ("a_handoff_is_requested_then_takes_place", log(*START, acts("B"))),
    ("a_handoff_is_requested_then_takes_place", log(*HANDOFF, handed_over(), acts("C"))),
    ("a_handoff_is_requested_then_takes_place", log(*START, ASKED, called(), SAID, handed_over("c1"), acts("B"))),
    ("a_handoff_is_requested_then_takes_place", log(*HANDOFF, handed_over(), DONE)),
    ("every_model_call_ends", log(*START, ASKED, DONE)),
    ("every_model_call_ends", log(*START, SAID)),
    ("every_model_call_ends", log(*START, ASKED, ModelCompleted(turn=2))),
    ("every_model_call_ends", log(*START, ASKED, ModelStarted(turn=2))),
    ("every_model_call_ends", log(*START, ASKED, SAID, ASKED)),
    ("a_cancelled_call_gives_way_to_input", log(*START, ASKED, CUT_SHORT, ModelStarted(turn=2))),
    ("a_model_speaks_in_its_call", log(*START, CREATED)),
    ("a_model_speaks_in_its_call", log(*START, called())),
    ("a_model_speaks_in_its_call", log(*START, ASKED, SAID, ModelRetried(turn=1, attempt=2, reason="x"))),
    ("a_completed_call_is_whole", log(*START, ASKED, CREATED, SAID)),
    ("an_item_stands_behind_its_end", log(*START, ASKED, CREATED, called())),
    ("an_item_stands_behind_its_end", log(*START, ASKED, CREATED, item_done(), FINAL, SAID)),
    ("an_item_stands_behind_its_end", log(*START, ASKED, CREATED, item_done("c1"), called("c2"))),
    ("an_item_stands_behind_its_end", [CREATED, called(), item_done()]),
    ("every_tool_that_starts_finishes", log(*START, ASKED, called(), SAID, BEGINS, DONE)[5:]),
    ("every_tool_that_starts_finishes", log(*START, ENDS)),
    ("every_tool_that_starts_finishes", log(*START, ToolProgress(call_id="c1", name="f"))),
    ("a_tool_runs_for_a_call", log(*START, BEGINS)),
    ("a_tool_runs_for_a_call", log(*START, ASKED, called(), SAID, BEGINS, ENDS, answered(), BEGINS)),
    ("every_call_is_answered_once", log(*START, ASKED, called(), SAID, DONE)),
    ("every_call_is_answered_once", log(*START, ASKED, called(), SAID, ModelStarted(turn=2))),
    ("every_call_is_answered_once", log(*START, answered())),
    ("every_call_is_answered_once", log(*START, ASKED, called(), SAID, answered(), answered())),
    ("every_call_is_answered_once", log(*START, ASKED, called(), SAID, BEGINS, answered())),
    ("every_call_is_answered_once", [called(), answered(), answered()]),
]  # fmt: skip


@pytest.mark.parametrize(("clause", "stream"), BROKEN)
def test_a_broken_stream_is_found_out_by_the_clause_that_it_breaks(clause: str, stream: list[Any]) -> None:
    found = report(stream, ended=False)

    assert set(clauses(found)) == {clause}


def numbered(*events: RawResponsesStreamEvent) -> list[Event]:
    """Raw events as one response: with sequence numbers, where they have none."""
    return [raw(**{"sequence_number": number, **_fields(event)}) for number, event in enumerate(events)]


def _fields(event: RawResponsesStreamEvent) -> dict[str, Any]:
    fields = json.loads(event.json)
    return {"kind": fields.pop("type"), **fields}


def at(kind: str, index: int = 0, **fields: Any) -> RawResponsesStreamEvent:
    return raw(f"response.{kind}", output_index=index, **fields)


ADDED = at("output_item.added", item=call())
CLOSED = item_done()
PART, PART_DONE = at("content_part.added", content_index=0), at("content_part.done", content_index=0)
TEXT, TEXT_DONE = "output_text.delta", "output_text.done"

BROKEN_RAW: list[tuple[str, list[RawResponsesStreamEvent]]] = [
    ("a_response_begins_and_ends_once", [ADDED]),
    ("a_response_begins_and_ends_once", [CREATED, CREATED]),
    ("a_response_begins_and_ends_once", [CREATED, FINAL, raw("response.queued")]),
    ("sequence_numbers_go_up", [CREATED, raw("response.in_progress", sequence_number=0)]),
    ("sequence_numbers_go_up", [CREATED, raw("response.in_progress", sequence_number="1")]),
    ("every_output_item_is_done", [CREATED, ADDED, FINAL]),
    ("every_output_item_is_done", [CREATED, ADDED, ADDED]),
    ("every_output_item_is_done", [CREATED, CLOSED]),
    ("every_output_item_is_done", [CREATED, ADDED, item_done("c2")]),
    ("every_output_item_is_done", [CREATED, at(TEXT, delta="x")]),
    ("every_part_is_done", [CREATED, ADDED, PART, CLOSED]),
    ("every_part_is_done", [CREATED, ADDED, PART, PART]),
    ("every_part_is_done", [CREATED, PART]),
    ("every_part_is_done", [CREATED, ADDED, PART_DONE]),
    ("deltas_make_up_the_whole", [CREATED, ADDED, at(TEXT, delta="a"), at(TEXT_DONE, text="b")]),
    ("deltas_make_up_the_whole", [CREATED, ADDED, at("refusal.done", refusal="x" * 50)]),
    ("deltas_make_up_the_whole", [CREATED, ADDED, at("function_call_arguments.done", arguments="{}")]),
]


def as_one_call(events: Iterable[RawResponsesStreamEvent]) -> list[Entry]:
    """Raw events in a model call that was broken off, each end with its item."""
    inside: list[Event] = []
    for event in numbered(*events):
        inside.append(event)
        if isinstance(event, RawResponsesStreamEvent) and b"output_item.done" in event.json:
            inside.append(called(json.loads(event.json)["item"]["call_id"]))
    return log(*START, ASKED, *inside)


@pytest.mark.parametrize(("clause", "events"), BROKEN_RAW)
def test_what_a_server_says_is_held_to_its_protocol_where_that_is_asked_for(
    clause: str, events: list[RawResponsesStreamEvent]
) -> None:
    assert set(clauses(report(as_one_call(events), raw=True, ended=False))) == {clause}
    assert not clauses(report(as_one_call(events), ended=False))


def test_every_clause_is_broken_by_one_of_these_streams() -> None:
    assert {clause for clause, _ in [*BROKEN, *BROKEN_RAW]} == set(CLAUSES)


# --- streams of runs ---------------------------------------------------------------------------


@tool
def echo(text: str = "x") -> str:
    return text


def run() -> Any:
    """A run that has a bit of everything."""
    second = Agent(name="B", model=ScriptedModel(["Done."], chunk_size=2))
    steps = [
        [reasoning("Hm."), "Look:", function_call("echo", call_id="c1"), function_call("echo", call_id="c2")],
        [function_call("transfer_to_b", call_id="h1")],
    ]
    first = Agent(name="A", tools=[echo], handoffs=[second], model=ScriptedModel(steps, batch_size=3))
    return Runner.run_streamed(first, "Hi")


async def collected(stream: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in stream]


async def test_a_handle_is_checked_as_it_is_read() -> None:
    handle = run()

    found = await check_stream(handle.entries(), raw=True)

    assert found.ok
    assert found.runs == 1
    assert str(found) == f"The stream keeps to the grammar: {found.pieces} events of 1 run."


@pytest.mark.parametrize("early", [True, False])
async def test_the_events_of_the_sdk_are_checked_in_both_orders(early: bool) -> None:
    events = await collected(run().stream_events(early=early))

    assert check_stream(events, raw=True).ok
    assert check_stream([event.to_json() for event in events]).ok
    assert clauses(report([*events, *events[-1:], answered()])) == ["every_call_is_answered_once"]


async def test_what_a_run_failed_with_is_raised_by_what_is_checked() -> None:
    handle = Runner.run_streamed(Agent(name="A", model=ScriptedModel([ValueError("down")])), "Hi")

    with pytest.raises(ValueError, match="down"):
        await check_stream(handle.stream_events())

    assert (await check_stream(handle.entries())).ok


def sse(entries: list[Entry], end: str = "\n") -> str:
    frames = [f": hello{end}", f"retry: 1000{end}{end}"]
    for entry in entries:
        frames += [
            f"id: {entry.position}{end}event: {entry.type}{end}data: {entry.to_json().decode()}{end}{end}"
        ]
        frames += [f": heartbeat{end}{end}"]
    return "".join(frames)


FORMS: dict[str, Callable[[list[Entry]], Any]] = {
    "entries": lambda entries: entries,
    "an iterator": iter,
    "dicts": lambda entries: [json.loads(entry.to_json()) for entry in entries],
    "lines": lambda entries: [entry.to_json() + b"\n" for entry in entries],
    "lines of text": lambda entries: [entry.to_json().decode() for entry in entries],
    "a file's text": lambda entries: "\n".join(entry.to_json().decode() for entry in entries),
    "a file's bytes": lambda entries: b"\xef\xbb\xbf" + b"\r\n".join(entry.to_json() for entry in entries),
    "an event stream": sse,
    "its bytes": lambda entries: sse(entries, "\r\n").encode(),
    "its lines": lambda entries: sse(entries).splitlines(),
    "its lines with their ends": lambda entries: sse(entries).splitlines(keepends=True),
    "events": lambda entries: [entry.event for entry in entries],
    "events in frames": lambda entries: "".join(
        f"id: {entry.position}\ndata: {entry.event.to_json().decode()}\n\n" for entry in entries
    ),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
async def test_a_stream_may_have_any_of_its_forms(form: Callable[[list[Entry]], Any]) -> None:
    entries = await collected(run().entries())
    lost = entries.copy()
    lost.remove(next(entry for entry in entries if entry.type == "tool.finished"))

    assert check_stream(form(entries), raw=True).pieces == len(entries)
    assert report(form(entries), raw=True).ok
    assert not report(form(lost)).ok
    assert clauses(report(form(entries[:-1]))) == ["a_run_ends_once"]


async def test_what_is_not_there_breaks_nothing() -> None:
    entries = await collected(run().entries())
    without_raw = [entry for entry in entries if entry.type != "raw_response_event"]

    for after in range(len(entries) - 1):
        assert not clauses(report(entries[after:], raw=True)), f"(after={after})"
        assert not clauses(report(entries[:after], raw=True, ended=False)), f"(the first {after})"
        gap = ["data: " + json.dumps({"type": "stream.gap", "requested": 3, "first": 9}), ""]
        for until in range(after, len(entries) - 1, 7):
            cut = [*entries[:after], *gap, *entries[until:]]
            assert not clauses(report(cut, raw=True)), f"(a gap from {after} to {until})"
    assert check_stream(without_raw, filtered=True).ok
    assert "positions_count" in clauses(report(without_raw))


async def test_a_transport_that_fails_is_no_end_of_the_run() -> None:
    entries = await collected(run().entries())
    failed = ["data: " + json.dumps({"type": "stream.error", "code": "slow"}), ""]

    assert check_stream([*entries[:9], *failed]).ok
    assert check_stream([*entries[:9], "data: " + json.dumps({"type": "stream.gap"}), ""]).ok
    assert check_stream([*entries[:9], "data: " + json.dumps({"type": "pong"}), "", *entries[9:]]).ok
    assert check_stream([*entries[:9], *failed, *entries[9:]]).ok
    assert clauses(report([*entries[:9], *failed, *entries[9:12]])) == ["a_run_ends_once"]


async def test_what_is_sent_to_clients_is_checked_as_it_is() -> None:
    handle = run()
    await handle
    everything = b"".join([frame async for frame in sse_frames(handle)])
    named = b"".join([frame async for frame in sse_frames(handle, after=7, named=True)])
    some = b"".join([frame async for frame in sse_frames(handle, types=["tool.started", "run.started"])])

    assert check_stream(everything, raw=True).pieces == check_stream(named).pieces + 7
    assert check_stream(some, filtered=True).pieces == 4
    assert report(some).problems


async def test_a_gap_leads_forward_only() -> None:
    entries = await collected(run().entries())
    gap = ["data: " + json.dumps({"type": "stream.gap"}), ""]

    assert clauses(report([*entries[:9], *gap, *entries[8:]])) == ["positions_count"]


def test_each_run_that_has_not_ended_is_named() -> None:
    found = report(log(*START, ASKED, called(), SAID, BEGINS, nested(RunStarted(agent="C"))))

    assert [problem.what.partition(":")[0] for problem in found.problems] == ["Run run_1", "Run run_2"]


async def test_the_transport_may_say_how_far_it_has_come() -> None:
    entries = await collected(run().entries())
    passed = ["data: " + json.dumps({"type": "stream.position", "position": 20}), ""]

    assert check_stream([*entries[:9], *passed, *entries[20:]]).ok
    assert "positions_count" in clauses(report([*entries[:9], *passed, *entries[19:]]))


async def test_every_entry_that_is_left_out_or_told_twice_is_found() -> None:
    entries = await collected(run().entries())

    for index in range(1, len(entries)):
        assert "positions_count" in clauses(
            report([*entries[:index], *entries[index + 1 :]], ended=False)
        ) or (index == len(entries) - 1)
        assert "positions_count" in clauses(report([*entries[:index], *entries[index - 1 :]]))


async def test_every_start_and_end_that_is_left_out_is_found_without_positions() -> None:
    events = [entry.event for entry in await collected(run().entries())]
    paired = {"run.started", "agent_updated_stream_event", "model.started", "model.completed"}
    paired |= {"tool.started", "tool.finished", "run_item_stream_event", *TERMINAL_TYPES}

    for index, event in enumerate(events):
        if event.type in paired:
            assert not report([*events[:index], *events[index + 1 :]]).ok, f"(without {event})"


SERVERS_OWN = {
    "text": ["Hello there."],
    "a refusal": [[refusal("I will not.")]],
    "reasoning": [[reasoning("Hm, hm."), "Hello."]],
    "calls": [[function_call("echo", {"text": "a longer text"}, call_id="c1")], "done"],
    "cut off": [ModelStep("one two three", truncate_after=6)],
    "failing": [ModelStep("one two three", fail_after=6)],
}


@pytest.mark.parametrize("steps", SERVERS_OWN.values(), ids=SERVERS_OWN)
@pytest.mark.parametrize("size", [1, 4])
async def test_the_scripted_model_keeps_the_protocol_of_a_real_one(steps: Any, size: int) -> None:
    agent = Agent(name="A", tools=[echo], model=ScriptedModel(steps, batch_size=size))

    assert (await check_stream(Runner.run_streamed(agent, "Hi").entries(), raw=True)).ok


# --- the report --------------------------------------------------------------------------------


def test_a_report_shows_each_problem_with_its_neighbours() -> None:
    stream = log(*START, ASKED, called(), SAID, ENDS, answered(), DONE)

    with pytest.raises(AssertionError) as raised:
        check_stream(stream)

    assert str(raised.value) == (
        "The stream breaks the grammar once: 8 events of 1 run.\n\n"
        "position 6: every_tool_that_starts_finishes\n"
        "  tool.finished of call 'c1' came: expected tool.started first.\n"
        "          3  model.started  1\n"
        "          4  run_item_stream_event  tool_called c1\n"
        "          5  model.completed  1 completed\n"
        "  >       6  tool.finished  c1 f ok\n"
        "          7  run_item_stream_event  tool_output c1\n"
        "          8  run.completed  completed"
    )


def test_a_report_shows_where_another_process_goes_on() -> None:
    (problem,) = report(log(*CALLING, again(5), acts(), ENDS), ended=False).problems

    assert problem.around[-3] == "        7  run.attempt  2 from 5: what came behind that is void"


def test_a_report_is_values_too() -> None:
    found = report(log(*START, DONE, DONE)).to_dict()

    assert json.loads(json.dumps(found)) == found
    assert (found["ok"], found["pieces"], found["runs"], found["left_out"]) == (False, 4, 1, 0)
    (problem,) = found["problems"]
    assert problem["clause"] == "a_run_ends_once"
    assert (problem["place"], problem["position"], problem["run_id"]) == (4, 4, RUN)
    assert problem["around"][-1].startswith(">       4  run.completed")


def test_problems_without_end_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams_module, "MAX_PROBLEMS", 3)

    found = report(["x"] * 10)

    assert (len(found.problems), found.left_out) == (3, 7)
    assert str(found).startswith("The stream breaks the grammar 10 times: 10 events of 0 runs.")
    assert str(found).endswith("… and 7 problems more.")


def test_a_stream_of_nothing_is_none() -> None:
    assert clauses(report([])) == ["a_run_ends_once"]
    assert check_stream([], ended=False).ok


def test_a_checker_tells_at_any_time_what_it_has_found() -> None:
    checker = StreamChecker()
    for entry in log(*START, ASKED):
        checker.feed(entry)

    assert checker.report(ended=False).ok
    assert not checker.report().ok
    assert checker.report(ended=False).ok


@pytest.mark.parametrize("nonsense", [5, None, object(), ["x"]])
def test_what_no_stream_has_is_refused(nonsense: Any) -> None:
    with pytest.raises(TypeError, match=f"entries, events, .* not {type(nonsense).__name__}"):
        StreamChecker().feed(nonsense)


@pytest.mark.hostile
@pytest.mark.parametrize(
    "line",
    [
        "{}", "[]", "null", "5", '"x"', '{"type": 5}', '{"type": ["x"]}', '{"event": 5}', '{"event": {"type": "run.started"}}',
        '{"type": "run_item_stream_event"}', '{"type": "run_item_stream_event", "item": {"type": "tool_call_item"}}',
        '{"type": "raw_response_event"}', '{"type": "raw_response_event", "data": 5}',
        '{"type": "raw_response_event", "data": {"type": "response.output_item.done", "item": 5}}',
        '{"type": "model.started", "turn": "x"}', '{"type": "model.completed", "turn": 1, "usage": [1]}',
        '{"type": "tool.started", "call_id": [1], "name": {}}', '{"type": "run.completed", "state": [], "family": {}}',
        '{"type": "agent_updated_stream_event", "new_agent": null}', '{"type": "stream.gap"}',
        "id: x", "id", "data", "data:", "data: {", "\ud800", "x" * 100_000, "[" * 100_000,
    ],
)  # fmt: skip
def test_no_line_breaks_the_checker(line: str) -> None:
    entries = [entry.to_json().decode() for entry in log(*START, ASKED, called(), SAID)]
    for raw_too in (True, False):
        for before in range(len(entries) + 1):
            report([*entries[:before], line, "", *entries[before:]], raw=raw_too)
        report([line, "", line, ""], raw=raw_too)
