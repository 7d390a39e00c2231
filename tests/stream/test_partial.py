"""Structured output while it grows: each value a beginning of the next, and at last the output."""

import itertools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types.responses import ResponseTextDeltaEvent
from pydantic import BaseModel

from millstream import (
    Agent,
    AgentOutputSchema,
    AgentUpdatedStreamEvent,
    ModelBehaviorError,
    ModelRefusalError,
    ModelRetryBackoffSettings,
    ModelRetrySettings,
    ModelSettings,
    ModelStarted,
    Partial,
    RawResponsesStreamEvent,
    RunCompleted,
    RunItemStreamEvent,
    Runner,
    retry_policies,
    tool,
)
from millstream.errors import ModelResponseError
from millstream.events import ModelRetried, RunAttempt, TextRetracted
from millstream.items import AgentRef, MessageOutputItem
from millstream.stream.partial import PartialOutput
from millstream.testing import (
    ModelStep,
    ScriptedModel,
    assistant_message,
    final_json,
    function_call,
    refusal,
)

ANY_OBJECT = AgentOutputSchema(dict[str, Any], strict_json_schema=False)


class Recipe(BaseModel):
    title: str
    minutes: int
    steps: list[str]


@dataclass
class Point:
    x: int
    y: int


PORRIDGE = {"title": "Porridge", "minutes": 10, "steps": ["boil it", "eat it"]}


def delta(text: str) -> bytes:
    return json.dumps({"type": "response.output_text.delta", "delta": text}).encode()


def message(text: str) -> RunItemStreamEvent:
    return RunItemStreamEvent(item=MessageOutputItem(Agent(name="A"), assistant_message(text)))


def folded(output_type: Any, *payloads: Any) -> list[Any]:
    """What each payload gives, one read of a socket each."""
    fold = PartialOutput(Agent(name="A", output_type=output_type))
    return [given for payload in payloads for given in fold.feed([payload])]


async def partials(agent: Agent[Any]) -> list[Any]:
    return [value async for value in Runner.run_streamed(agent, "Hi").partial_output()]


def scripted(output_type: Any, *steps: Any, **more: Any) -> Agent[Any]:
    return Agent(name="A", model=ScriptedModel(steps), output_type=output_type, **more)


# --- growing ----------------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(), values, max_size=4),
    max_leaves=12,
)


@st.composite
def written(draw: st.DrawFn) -> tuple[dict[str, Any], list[str]]:
    """An object, and the pieces in which a model writes it."""
    value = draw(st.dictionaries(st.text(), JSON, min_size=1, max_size=4))
    form = {"ensure_ascii": draw(st.booleans()), "indent": draw(st.sampled_from([None, 1]))}
    text = json.dumps(value, **form)
    cuts = sorted(draw(st.sets(st.integers(1, len(text)), max_size=30)) | {0, len(text)})
    return value, [text[a:b] for a, b in itertools.pairwise(cuts)]


def assert_grows(before: Any, after: Any, path: tuple[str | int, ...]) -> None:
    """`after` is what `before` becomes where more is written at `path`, and nowhere else."""
    if not isinstance(before, str | list | dict):
        assert (path, before) == ((), after)
        return
    assert type(before) is type(after)
    if isinstance(before, str):
        assert path == ()
        assert after.startswith(before)
        return
    keys, more = (
        list(each) if isinstance(each, dict) else list(range(len(each))) for each in (before, after)
    )
    assert more[: len(keys)] == keys
    assert not path or path[0] == keys[-1]
    for key in keys:
        if path and key == path[0]:
            assert_grows(before[key], after[key], path[1:])
        else:
            assert before[key] == after[key]


@given(written())
def test_each_partial_is_a_beginning_of_the_next_and_the_last_is_the_whole(
    case: tuple[dict[str, Any], list[str]],
) -> None:
    value, pieces = case
    text = "".join(pieces)
    output = ANY_OBJECT.validate_json(text)

    *growing, last = folded(ANY_OBJECT, *map(delta, pieces), message(text), RunCompleted(output=output))

    assert last is output == value
    assert growing[-1] == Partial(value)
    for before, after in itertools.pairwise(growing):
        assert before != after
        assert_grows(before.value, after.value, before.path)


@pytest.mark.parametrize(
    ("text", "value", "path"),
    [
        ("{", {}, ()),
        ('{"tit', {}, ()),
        ('{"title": "Po', {"title": "Po"}, ("title",)),
        ('{"title": "Po"', {"title": "Po"}, ()),
        ('{"title": "Po", "minutes": 1', {"title": "Po"}, ()),
        ('{"title": "Po", "minutes": 10,', {"title": "Po", "minutes": 10}, ()),
        ('{"steps": ["boil it", "ea', {"steps": ["boil it", "ea"]}, ("steps", 1)),
        ('{"steps": ["boil it", ', {"steps": ["boil it"]}, ("steps",)),
        ('{"steps": ["a \\" \\\\', {"steps": ['a " \\']}, ("steps", 0)),
        ('{"title": "a]}{', {"title": "a]}{"}, ("title",)),
        ('{"title": "\\ud83d', {"title": ""}, ("title",)),
        ('{"title": tr', {}, ()),
    ],
)
def test_a_partial_has_what_is_whole_and_says_where_it_is_written(
    text: str, value: Any, path: tuple[Any, ...]
) -> None:
    for pieces in ([text], list(text)):
        assert folded(Recipe, *map(delta, pieces))[-1] == Partial(value, path)


async def test_a_run_gives_its_output_as_it_forms_and_then_the_output_itself() -> None:
    run = Runner.run_streamed(scripted(Recipe, [final_json(PORRIDGE)]), "Hi")

    *growing, last = [value async for value in run.partial_output(Recipe)]

    assert [isinstance(partial, Partial) and partial.value["steps"] for partial in growing] == [
        ["boil"], ["boil it", "eat"], ["boil it", "eat it"],
    ]  # fmt: skip
    assert last == Recipe.model_validate(PORRIDGE)
    assert last is run.final_output


@pytest.mark.parametrize(
    ("output_type", "answer", "output"),
    [
        (list[int], {"response": [1, 22]}, [1, 22]),
        (Point, {"response": {"x": 1, "y": 2}}, Point(1, 2)),
        (int, {"response": 5}, 5),
    ],
)
async def test_a_type_that_travels_wrapped_is_given_without_its_wrapping(
    output_type: Any, answer: Any, output: Any
) -> None:
    *growing, last = await partials(scripted(output_type, [final_json(answer)]))

    assert growing[-1] == Partial(answer["response"])
    assert last == output
    text = '{"response": {"x": [1'
    assert folded(Point, delta(text)) == [Partial({"x": []}, ("x",))]


async def test_the_output_of_an_agent_without_a_type_is_its_text_so_far() -> None:
    assert await partials(scripted(None, "It is cold.")) == [
        Partial("It"), Partial("It is"), Partial("It is cold."), "It is cold.",
    ]  # fmt: skip


def test_a_model_that_streams_no_text_gives_its_output_in_one_piece() -> None:
    whole = json.dumps(PORRIDGE)

    assert folded(Recipe, message(whole), message(whole)) == [Partial(PORRIDGE), Partial(), Partial(PORRIDGE)]


@pytest.mark.parametrize("junk", ["no JSON", '{"a": 1} and more', "[1, 2", "null", "{]", '{"a":[}{"b":["c'])
def test_what_is_no_json_breaks_nothing(junk: str) -> None:
    for output_type in (Recipe, Point):
        for partial in folded(output_type, *map(delta, junk), message(junk)):
            assert isinstance(partial, Partial)


def test_text_that_no_parser_takes_breaks_nothing() -> None:
    lone = ResponseTextDeltaEvent.model_construct(
        type="response.output_text.delta", delta='{"title": "\ud800'
    )

    assert folded(Recipe, RawResponsesStreamEvent(lone)) == []
    assert folded(Recipe, AgentUpdatedStreamEvent(cast("Any", AgentRef("A"))), delta("{"))[0].value == "{"


# --- starting over ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        ModelStarted(turn=2),
        ModelRetried(turn=1, attempt=1, reason="x"),
        RunAttempt(number=2, resumed_from=2),
        TextRetracted(),
        AgentUpdatedStreamEvent(Agent(name="B", output_type=Recipe)),
    ],
    ids=lambda event: event.type,
)
def test_where_the_model_starts_over_what_came_before_is_void(event: Any) -> None:
    given = folded(Recipe, event, delta('{"title": "A'), event, event, delta('{"title": "B'))

    assert given == [Partial({"title": "A"}, ("title",)), Partial(), Partial({"title": "B"}, ("title",))]


async def test_an_output_is_read_as_the_type_of_the_agent_that_took_over() -> None:
    chef = scripted(Recipe, [final_json(PORRIDGE)])
    chef.name = "Chef"
    desk = scripted(
        None, [assistant_message("I ask the chef."), function_call("transfer_to_chef")], handoffs=[chef]
    )

    given = await partials(desk)

    void = given.index(Partial())
    assert given[void - 1] == Partial("I ask the chef.")
    assert given[void + 1].value["title"] == "Porridge"
    assert given[-1] == Recipe.model_validate(PORRIDGE)


async def test_a_try_that_was_given_up_is_void() -> None:
    retry = ModelRetrySettings(
        max_retries=1,
        backoff=ModelRetryBackoffSettings(initial_delay=0, jitter=False),
        policy=retry_policies.even_after_output(lambda context: True),
    )
    cut = ModelStep([final_json(PORRIDGE)], fail_after=6, error=ModelResponseError("broken"))
    agent = scripted(
        Recipe, cut, [final_json(PORRIDGE | {"title": "Soup"})], model_settings=ModelSettings(retry=retry)
    )

    given = await partials(agent)

    titles = [value.value and value.value["title"] for value in given[:-1]]
    assert [title for title, _ in itertools.groupby(titles)] == ["Porridge", None, "Soup"]
    assert given[-1].title == "Soup"


async def test_what_a_model_says_before_it_calls_a_tool_is_no_output() -> None:
    @tool
    def look_up() -> str:
        return "oats"

    agent = scripted(
        Recipe,
        [assistant_message("Let me look."), function_call("look_up")],
        [final_json(PORRIDGE)],
        tools=[look_up],
    )

    *growing, last = await partials(agent)

    assert all(partial.value["title"] == "Porridge" for partial in growing)
    assert last.title == "Porridge"


async def test_the_output_may_come_from_a_tool() -> None:
    @tool
    def look_up() -> str:
        return "oats"

    agent = scripted(
        None, [function_call("look_up")], tools=[look_up], tool_use_behavior="stop_on_first_tool"
    )

    assert await partials(agent) == ["oats"]


# --- ending -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "error"),
    [([refusal("No.")], ModelRefusalError), ([final_json({"title": "x"})], ModelBehaviorError)],
    ids=["refused", "invalid"],
)
async def test_a_run_without_a_valid_output_raises_what_it_failed_with(
    answer: Any, error: type[Exception]
) -> None:
    reader = Runner.run_streamed(scripted(Recipe, answer), "Hi").partial_output()
    seen: list[Any] = []

    async def read() -> None:
        async for value in reader:
            seen.append(value)  # noqa: PERF401  # what came before it raised

    with pytest.raises(error):
        await read()

    assert all(isinstance(value, Partial) for value in seen)


async def test_a_cancelled_run_just_ends_without_an_output() -> None:
    run = Runner.run_streamed(scripted(Recipe, ModelStep([final_json(PORRIDGE)], hang_after=6)), "Hi")
    seen: list[Any] = []

    async for value in run.partial_output():
        seen.append(value)
        run.cancel()

    assert [type(value) for value in seen] == [Partial] * len(seen)
    assert seen


async def test_several_readers_see_the_same_and_one_may_leave_early() -> None:
    run = Runner.run_streamed(scripted(Recipe, [final_json(PORRIDGE)]), "Hi")
    async for value in run.partial_output():
        assert isinstance(value, Partial)
        break

    first = [value async for value in run.partial_output()]
    second = [value async for value in run.partial_output()]

    assert first == second
    assert first[-1] is second[-1] is run.final_output


@pytest.mark.may_block
def test_a_plain_for_gives_the_same() -> None:
    with Runner.run_streamed_sync(scripted(Recipe, [final_json(PORRIDGE)]), "Hi") as run:
        *growing, last = run.partial_output(Recipe)

    assert [type(value) for value in growing] == [Partial] * 3
    assert last is run.final_output


# --- what it costs ----------------------------------------------------------------------------


def texts_parsed(monkeypatch: pytest.MonkeyPatch, pieces: Iterable[str]) -> list[int]:
    lengths: list[int] = []
    partial = PartialOutput._partial
    monkeypatch.setattr(
        PartialOutput, "_partial", lambda self, text: lengths.append(len(text)) or partial(self, text)
    )
    folded(Recipe, *map(delta, pieces))
    return lengths


def test_a_long_output_is_not_parsed_from_its_beginning_with_every_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = json.dumps({"title": "", "minutes": 1, "steps": [f"step {n}" for n in range(20_000)]})
    pieces = [text[at : at + 16] for at in range(0, len(text), 16)]

    lengths = texts_parsed(monkeypatch, pieces)

    assert len(lengths) < 1000 < len(pieces)
    assert sum(lengths) < 50 * len(text)
    assert max(b / a for a, b in itertools.pairwise(lengths[-50:])) < 1.04


def test_a_short_output_is_parsed_with_every_read(monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = list(json.dumps(PORRIDGE))

    assert len(texts_parsed(monkeypatch, pieces)) == len(pieces)
