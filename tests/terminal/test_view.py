"""What a person reads of a run: each test's transcript is the screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from millstream import AgentRef, Entry, events
from millstream.events import Stamp
from millstream.items import (
    HandoffOutputItem,
    MessageOutputItem,
    ToolApprovalItem,
    ToolCallItem,
    ToolCallOutputItem,
)
from millstream.terminal import shorten
from millstream.terminal.view import Segment, TextView, View, usage_line
from millstream.testing import assistant_message, function_call

CLERK: Any = AgentRef("Clerk")
PRICER: Any = AgentRef("Pricer")


def raw(kind: str, **fields: Any) -> events.RawResponsesStreamEvent:
    return events.RawResponsesStreamEvent.from_wire(events.codec.encode({"type": kind, **fields}))


def says(*words: str) -> list[Any]:
    return [raw("response.output_text.delta", delta=word) for word in words]


def thinks(*words: str) -> list[Any]:
    return [raw("response.reasoning_summary_text.delta", delta=word) for word in words]


def item(value: Any) -> events.RunItemStreamEvent:
    return events.RunItemStreamEvent(item=value)


def said(text: str) -> events.RunItemStreamEvent:
    return item(MessageOutputItem(CLERK, assistant_message(text)))


def calls(name: str, call_id: str, arguments: Any = "{}") -> events.RunItemStreamEvent:
    return item(ToolCallItem(CLERK, function_call(name, arguments, call_id=call_id)))


def returns(call_id: str, output: Any, **finished: Any) -> list[Any]:
    end = events.ToolFinished(call_id=call_id, name="t", **{"ms": 12.4, **finished})
    answer = {"type": "function_call_output", "call_id": call_id, "output": str(output)}
    return [end, item(ToolCallOutputItem(CLERK, answer, output))]


def acts(agent: Any) -> events.AgentUpdatedStreamEvent:
    return events.AgentUpdatedStreamEvent(agent)


def entries(*given: Any, run: str = "r", depth: int = 0) -> list[Entry]:
    flat: list[Any] = []
    for each in given:
        flat.extend(each if isinstance(each, list) else [each])
    stamp = Stamp(run_id=run, agent="Clerk", turn=2, depth=depth, time=100.0)
    return [Entry(position, stamp, event) for position, event in enumerate(flat, 1)]


def screen(log: Iterable[Entry], view: View | TextView | None = None) -> str:
    view = view or View(width=60)
    return "".join(segment.text for entry in log for segment in view.feed(entry))


def test_a_whole_run() -> None:
    log = entries(
        events.RunStarted(agent="Clerk"),
        acts(CLERK),
        thinks("A lamp, ", "then."),
        says("Let me", " look."),
        said("Let me look."),
        calls("price", "c1", {"item": "lamp", "count": 2}),
        calls("stock", "c2", {"item": "lamp"}),
        returns("c2", ["red", "blue"]),
        returns("c1", "the register\nis jammed", status="error", ms=1234.5),
        calls("price", "c3", {"item": "lamp"}),
        returns("c3", {"lamp": 12}),
        says("Twelve."),
        said("Twelve."),
        events.RunCompleted(
            output="Twelve.", usage={"total_tokens": 7, "input_tokens": 5, "output_tokens": 2}
        ),
    )

    assert (
        screen(log)
        == """\
● Clerk
A lamp, then.

Let me look.
  → price(item="lamp", count=2)
  → stock(item="lamp")
  ✓ stock  12 ms  ["red","blue"]
  ✗ price  1,234 ms  the register is jammed
  → price #2(item="lamp")
  ✓ price #2  12 ms  {"lamp":12}

Twelve.

  2 turns · 5 tokens in, 2 out · 0.0 s
"""
    )


def test_a_handoff() -> None:
    handed = HandoffOutputItem(
        CLERK, {"type": "function_call_output"}, source_agent=CLERK, target_agent=PRICER
    )
    log = entries(
        acts(CLERK), says("One moment."), said("One moment."), item(handed), acts(PRICER), says("Hello")
    )

    assert (
        screen(log)
        == """\
● Clerk
One moment.
  ⇒ hands over to Pricer

● Pricer
Hello"""
    )


def test_nested_runs_are_indented_and_talk_line_by_line() -> None:
    view = View(width=60)
    root = entries(acts(CLERK), calls("ask", "c1"))
    one = entries(acts(PRICER), says("First ", "line\nsecond"), run="one", depth=1)
    two = entries(acts(AgentRef("Stocker")), says("Plenty"), run="two", depth=1)
    ends = entries(said("First line\nsecond"), events.RunCompleted(output="x"), run="one", depth=1)
    more = entries(events.RunCompleted(output="Plenty"), run="two", depth=1)

    shown = screen([*root, *one, *two, *ends, *more, *entries(*returns("c1", "Plenty"))], view)

    assert (
        shown
        == """\
● Clerk
  → ask()
  │ ● Pricer
  │ First line
  │ ● Stocker
  │ ● Pricer
  │ second
  │ ● Stocker
  │ Plenty
  ✓ ask  12 ms  Plenty
"""
    )


def test_runs_of_several_depths_need_no_names_to_be_told_apart() -> None:
    view = View(width=60)
    outer = entries(acts(PRICER), calls("ask", "c1"), run="one", depth=1)
    inner = entries(acts(AgentRef("Stocker")), says("Plenty\n"), run="two", depth=2)
    after = entries(*returns("c1", "Plenty"), says("Twelve\n"), run="one", depth=1)

    assert (
        screen([*entries(acts(CLERK)), *outer, *inner, *after], view)
        == """\
● Clerk
  │ ● Pricer
  │   → ask()
  │   │ ● Stocker
  │   │ Plenty
  │   ✓ ask  12 ms  Plenty
  │ Twelve
"""
    )


def test_a_call_that_was_rejected_is_not_shown_as_done() -> None:
    told = {"type": "function_call_output", "call_id": "c1", "output": "Not allowed."}
    log = entries(calls("pay", "c1"), item(ToolCallOutputItem(CLERK, told, "Not allowed.")))

    assert screen(log) == "  → pay()\n  ✗ pay  Not allowed.\n"


def test_the_failure_of_a_nested_run_is_told_whoever_tells_that_of_the_root() -> None:
    failed = events.RunFailed(code="max_turns", message="The run took too many steps.", error_id="e")
    view = View(width=60, tells_failure=False)

    shown = screen([*entries(acts(PRICER), failed, run="one", depth=1), *entries(failed)], view)

    assert shown.count("✗ the run failed (max_turns)") == 1
    assert "  │   ✗ the run failed (max_turns)" in shown


@pytest.mark.parametrize(
    ("end", "shown"),
    [
        (events.RunCompleted(output={"city": "Lyon", "stops": ["a", "b"], "n": {"x": 1}}), """\
= output
  city   Lyon
  stops  a, b
  n      {"x":1}
"""),
        (events.RunCompleted(output=[1, 2]), "= output\n  [1,2]\n"),
        (events.RunCompleted(output="from a tool"), "from a tool\n"),
        (
            events.RunFailed(code="max_turns", message="Too many turns.", error_id="e"),
            "  ✗ the run failed (max_turns): Too many turns.\n",
        ),
        (events.RunCancelled(partial="Well, "), "  ■ stopped; the text so far is kept\n"),
        (events.RunCancelled(), "  ■ stopped\n"),
    ],
)  # fmt: skip
def test_every_end(end: Any, shown: str) -> None:
    assert screen(entries(end)) == shown.lstrip("\n") + "\n  2 turns · 0.0 s\n"


@pytest.mark.parametrize(
    ("event", "shown"),
    [
        (events.ToolProgress(call_id="c", name="dig", data={"deep": 3}), '  · dig  {"deep":3}\n'),
        (events.ModelRetried(turn=1, attempt=1, reason="503", delay=2.0), "  · the model is asked again in 2.0 s: 503\n"),
        (events.GuardrailResult(guardrail="g", stage="input", tripped=True), "  ✗ guardrail g tripped\n"),
        (events.GuardrailResult(guardrail="g", stage="input", tripped=False), ""),
        (events.TextRetracted(), "  · the text above was taken back\n"),
        (events.UserEvent(name="paid", data=3), "  · paid 3\n"),
        (events.InputAdded(input="and now?"), "  · input: and now?\n"),
        (events.RunAttempt(number=2, resumed_from=9), "  · another process goes on (attempt 2): all behind positio…\n"),
        (events.RunPaused(interruptions=("a",)), "  · paused: 1 call(s) wait for approval\n"),
        (events.RunDecided(call_id="c", decision="approved"), "  · approved: c\n"),
        (events.RunResumed(), "  · goes on\n"),
        (raw("response.refusal.delta", delta="No."), "No."),
        (raw("response.function_call_arguments.delta", delta="{"), ""),
        (
            item(ToolApprovalItem(CLERK, function_call("pay", {"eur": 5}, call_id="c"), "pay")),
            "  ? pay(eur=5)  waits for approval\n",
        ),
        (item(ToolCallItem(CLERK, {"type": "web_search_call", "id": "w"})), "  → web_search_call()\n"),
    ],
)  # fmt: skip
def test_every_other_line(event: Any, shown: str) -> None:
    assert screen(entries(event)) == shown


def test_a_message_that_came_whole_is_shown_and_one_that_was_streamed_is_not_shown_twice() -> None:
    assert screen(entries(said("Whole."))) == "Whole."
    assert screen(entries(says("Str", "eamed."), said("Streamed."))) == "Streamed."
    assert screen(entries(said("One."), said("Two."))) == "One.\n\nTwo."


def test_a_failure_can_be_left_to_whoever_knows_more_of_it() -> None:
    failed = events.RunFailed(code="c", message="m", error_id="e")

    assert screen(entries(failed), View(tells_failure=False)) == "  2 turns · 0.0 s\n"


def test_what_was_read_back_from_json_looks_the_same() -> None:
    log = entries(
        acts(CLERK),
        says("Hm."),
        said("Hm."),
        calls("price", "c1", {"item": "lamp"}),
        returns("c1", {"lamp": 12}),
    )

    assert screen([Entry.from_json(entry.to_json()) for entry in log]) == screen(log)


def test_another_process_goes_on() -> None:
    attempt = events.RunAttempt(number=2, resumed_from=1234)
    log = [
        *entries(acts(CLERK), calls("ask", "c")),
        *entries(acts(PRICER), says("half a li"), run="n", depth=1),
        *entries(attempt, acts(CLERK)),
        *entries(
            events.RunResumed(), acts(PRICER), says("a whole line"), said("a whole line"), run="n", depth=1
        ),
        *entries(returns("c", "x"), says("Done."), said("Done.")),
    ]

    shown = screen(log, View(width=80))

    assert (
        shown
        == """\
● Clerk
  → ask()
  │ ● Pricer
  · another process goes on (attempt 2): all behind position 1234 is void

● Clerk
  │   · goes on
  │ ● Pricer
  │ a whole line
  ✓ ask  12 ms  x

Done."""
    )


def test_text_alone() -> None:
    log = [
        *entries(acts(CLERK), says("Let me", " look."), said("Let me look."), calls("t", "c")),
        *entries(says("nested"), run="n", depth=1),
        *entries(returns("c", "x"), said("Whole.\n"), events.RunCompleted(output="Whole.\n")),
    ]

    assert screen(log, TextView()) == "Let me look.\nWhole.\n"
    assert screen(entries(events.RunCompleted(output="a tool's")), TextView()) == "a tool's\n"
    assert screen(entries(says("cut"), events.RunCancelled()), TextView()) == "cut\n"


@pytest.mark.parametrize(
    "again",
    [events.RunAttempt(number=2, resumed_from=2), events.ModelRetried(turn=1, attempt=1, reason="503")],
)
def test_text_alone_that_is_said_anew_begins_on_a_line_of_its_own(again: Any) -> None:
    log = entries(says("Let me"), again, says("Let me look."), said("Let me look."))

    assert screen(log, TextView()) == "Let me\nLet me look.\n"


@pytest.mark.hostile
@given(name=st.text(min_size=1), value=st.one_of(st.text(), st.binary(), st.floats(), st.lists(st.text())))
def test_a_line_of_ours_fits_and_holds_nothing_that_a_terminal_obeys(name: str, value: Any) -> None:
    log = entries(
        acts(AgentRef(name)),
        calls("tool", "c", {name: str(value)}),
        returns("c", value),
        events.UserEvent(name=name, data=value),
        events.RunCompleted(output={name[:5]: value}),
    )

    lines = screen(log).split("\n")

    assert all(line.isprintable() for line in lines)
    assert max(map(shorten.cells, lines)) <= 60


def test_a_width_counts_columns_not_characters() -> None:
    assert shorten.cut("日本語テキスト", 7) == "日本語…"
    assert shorten.cut("e\u0301" * 5, 5) == "e\u0301" * 5
    assert shorten.result("x" * 500, 30) == "xxxxxxxxxxxx… (500 characters)"
    assert shorten.result([{"type": "input_text", "text": "a"}, {"type": "input_image"}], 30) == "a [image]"
    assert shorten.call("f", "not json", 30) == "f(not json)"
    assert shorten.call("f", "[1]", 30) == "f([1])"


def test_usage_says_what_there_is_to_say() -> None:
    usage = {
        "total_tokens": 1,
        "input_tokens": 1200,
        "output_tokens": 3,
        "cached_tokens": 4,
        "reasoning_tokens": 2,
    }

    assert usage_line(1, {}, 0.04) == "  1 turn · 0.0 s"
    assert usage_line(2, usage, 3) == "  2 turns · 1,200 tokens in (4 cached), 3 out (2 reasoning) · 3.0 s"
    assert "about 1,200" in usage_line(2, {**usage, "estimated": True}, 3)


def test_segments_say_what_their_text_is() -> None:
    kinds = [segment for entry in entries(acts(CLERK), says("Hi")) for segment in View().feed(entry)]

    assert kinds == [Segment("agent", "● Clerk"), Segment("plain", "\n"), Segment("text", "Hi")]
