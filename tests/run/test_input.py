"""The input of a run is checked before any model is asked."""

import contextlib
from typing import Any

import pytest

from millstream import Agent, Runner
from millstream.errors import InputItemError
from millstream.run.input import check_input
from millstream.testing import ScriptedModel, assistant_message

USER = {"role": "user", "content": "hi"}


def test_text_is_taken_as_it_is() -> None:
    assert check_input("hi") == "hi"


@pytest.mark.parametrize(
    "item",
    [
        USER,
        {"type": "message", "role": "user", "content": []},
        {"type": "function_call_output", "call_id": "c", "output": "x"},
        {"type": "item_reference", "id": "x"},
        {"id": "x"},
    ],
)
def test_items_of_known_types_are_taken_into_a_list_of_the_runs_own(item: dict[str, Any]) -> None:
    given: list[Any] = [item]

    taken = check_input(given)

    assert taken == given
    assert taken is not given
    assert taken[0] is not item
    assert check_input((item,)) == given  # pyright: ignore[reportArgumentType]


def test_an_object_of_the_openai_package_becomes_the_dict_that_it_was_sent_as() -> None:
    message = assistant_message("Hello")

    assert check_input([message]) == [message.model_dump(exclude_unset=True)]


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (None, "must be text or a list of input items, not NoneType"),
        ({"role": "user"}, "not dict"),
        (["hi"], r"input\[0\] is a str"),
        ([USER, {"text": "hi"}], r"input\[1\] has neither a type nor role and content"),
        ([USER, {"role": "user"}], r"input\[1\] is a message that lacks content\. Add"),
        ([{"content": "hi"}], r"input\[0\] is a message that lacks role\."),
        ([{"type": "message"}], r"input\[0\] is a message that lacks role and content\."),
        (
            [{"type": "function_call_output", "output": "x"}],
            r"input\[0\] is a function_call_output that lacks call_id\.",
        ),
        (
            [{"type": "messsage"}],
            "has the type 'messsage', which no model takes. Known types: .*function_call",
        ),
        ([{"type": ["message"]}], r"has the type \['message'\]"),
    ],
)
def test_anything_else_is_refused_with_its_place_and_a_remedy(given: Any, complaint: str) -> None:
    with pytest.raises(InputItemError, match=complaint):
        check_input(given)


async def test_a_result_and_a_coroutine_are_recognised_and_the_remedy_is_theirs() -> None:
    async def asks() -> str:
        return "Hello"

    agent = Agent(name="A", model=ScriptedModel(["Hi."]))
    result = await Runner.run(agent, "Hello")
    with pytest.raises(
        InputItemError, match=r"not RunResult\. .*result\.to_input_list\(\).*result\.to_state\(\)"
    ):
        check_input(result)

    with (
        contextlib.closing(asks()) as never_awaited,
        pytest.raises(InputItemError, match="Await it"),
    ):
        check_input(never_awaited)
