"""What readers make of a run whose process died, and that another one went on with: at every event of it."""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest

from millstream import Agent, Entry, Runner, tool
from millstream.events import RunItemStreamEvent
from millstream.items import call_id_of
from millstream.stream.arguments import ToolArguments
from millstream.stream.order import EventOrder
from millstream.stream.partial import PartialOutput
from millstream.stream.text import text_delta
from millstream.terminal.view import TextView, View
from millstream.testing import ScriptedModel, check_stream, function_call
from tests.support.crashes import crashed

A = Agent(name="A")


@tool
async def echo(text: str = "x") -> str:
    """Say it again."""
    return text


async def a_log() -> list[Entry]:
    """A run of three turns: two tools side by side, a handoff, an answer."""
    second = Agent(name="B", model=ScriptedModel(["All is done."], chunk_size=4))
    steps = [
        ["Look:", function_call("echo", {"text": "a"}, call_id="c1"), function_call("echo", {"text": "b"}, call_id="c2")],
        [function_call("transfer_to_b", call_id="h1")],
    ]  # fmt: skip
    first = Agent(name="A", tools=[echo], handoffs=[second], model=ScriptedModel(steps, batch_size=3))
    return [entry async for entry in Runner.run_streamed(first, "Hi").entries()]


async def crashed_anywhere() -> list[list[Entry]]:
    """That run, when it had crashed at each of its events; and some of those when they had then crashed again."""
    entries = await a_log()
    once = [crashed(entries, at) for at in range(1, len(entries))]
    twice = [
        crashed(log, at, number=3)
        for first, log in list(enumerate(once, 1))[::7]
        for at in range(first + 1, len(log), 9)  # behind its attempt
    ]
    return [*once, *twice]


def events(log: Iterable[Entry], *, early: bool = False) -> list[Any]:
    order = EventOrder(early=early)
    return [out for entry in log for out in order.feed(entry.event)] + order.flush()


def items(log: Iterable[Entry]) -> list[tuple[str, str | None]]:
    """The items of `stream_events()`. A handoff may be told twice: it stands only when the next turn begins."""
    found: list[tuple[str, str | None]] = []
    for event in events(log):
        if isinstance(event, RunItemStreamEvent):
            item = event.name, call_id_of(event.item.raw_item)
            if item not in found or event.name != "handoff_occured":
                found.append(item)
    return found


async def test_the_log_keeps_to_the_grammar() -> None:
    for log in await crashed_anywhere():
        report = check_stream(log)

        assert report.ok
        assert report.runs == 1


async def test_stream_events_gives_each_item_once_and_in_the_order_of_the_sdk() -> None:
    whole = items(await a_log())

    for log in await crashed_anywhere():
        assert items(log) == whole


async def test_arguments_that_are_void_are_dropped_before_they_are_told_again() -> None:
    for log in await crashed_anywhere():
        fold, calls = ToolArguments(), Counter[str]()
        for piece in fold.feed(entry.event for entry in log):
            if piece.state == "dropped":
                calls[piece.call_id] = 0
            calls[piece.call_id] += piece.state == "done"

        assert calls == {"c1": 1, "c2": 1, "h1": 1}


async def test_what_was_shown_of_an_output_is_taken_back_and_comes_again() -> None:
    for log in await crashed_anywhere():
        shown = PartialOutput(A).feed(entry.event for entry in log)
        values = [getattr(each, "value", each) for each in shown]

        assert values[-1] == "All is done."
        for before, value in pairwise(values):
            assert before is None or value is None or value.startswith(before)


async def test_text_goes_on_with_what_is_said_again() -> None:
    for log in await crashed_anywhere():
        text = "".join(text_delta(entry.event) or "" for entry in log)

        assert text.startswith("Look:"[: len(text)])
        assert text.endswith("All is done.")


@pytest.mark.parametrize("view", [View, TextView])
async def test_a_terminal_shows_what_was_said_behind_the_last_attempt(view: Any) -> None:
    for log in await crashed_anywhere():
        one = view()
        shown = "".join(segment.text for entry in log for segment in one.feed(entry))

        assert "All is done.\n" in shown
        if view is View:
            assert "another process goes on (attempt 2): all behind position" in shown
