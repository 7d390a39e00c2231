"""Tool outputs on their way to the model. The expected parts are what the SDK sends."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from millstream.items import ItemHelpers
from millstream.output import text_of
from millstream.testing import AwkwardValue, awkward_values
from millstream.tool import ToolOutputFileContent, ToolOutputImage, ToolOutputText, tool_output_parts


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    ("output", "parts"),
    [
        ("text", "text"),
        (3, "3"),
        (None, "None"),
        (True, "True"),
        (b"abc", "b'abc'"),
        ({"a": 1}, "{'a': 1}"),
        (["a", "b"], "['a', 'b']"),
        ([], "[]"),
        (ToolOutputText(text="hi"), [{"type": "input_text", "text": "hi"}]),
        ({"type": "text", "text": "hi"}, [{"type": "input_text", "text": "hi"}]),
        (ToolOutputImage(image_url="u"), [{"type": "input_image", "image_url": "u"}]),
        (ToolOutputImage(file_id="f"), [{"type": "input_image", "file_id": "f"}]),
        (
            [ToolOutputText(text="hi"), ToolOutputImage(image_url="u", detail="low")],
            [
                {"type": "input_text", "text": "hi"},
                {"type": "input_image", "image_url": "u", "detail": "low"},
            ],
        ),
        (
            ToolOutputFileContent(file_data="d", filename="n"),
            [{"type": "input_file", "file_data": "d", "filename": "n"}],
        ),
        ({"type": "file", "file_id": "x"}, [{"type": "input_file", "file_id": "x"}]),
        ([{"type": "text", "text": "a"}], [{"type": "input_text", "text": "a"}]),
        ({"type": "text"}, "{'type': 'text'}"),
        ({"type": "image"}, "{'type': 'image'}"),
        ({"type": ["text"]}, "{'type': ['text']}"),
        ({"type": "input_text", "text": "x"}, "{'type': 'input_text', 'text': 'x'}"),
        ([ToolOutputText(text="a"), "b"], "[ToolOutputText(type='text', text='a'), 'b']"),
    ],
)
def test_what_a_tool_returned_is_told_as_parts_or_as_text(output: Any, parts: Any) -> None:
    assert tool_output_parts(output) == parts


def test_an_object_without_text_is_told_by_its_class() -> None:
    assert tool_output_parts(Unspeakable()) == "<Unspeakable: no text>"


@pytest.mark.hostile
@pytest.mark.parametrize("awkward", awkward_values(), ids=lambda awkward: awkward.name)
def test_of_every_awkward_value_a_model_can_be_told(awkward: AwkwardValue) -> None:
    parts = tool_output_parts(awkward.value)

    assert isinstance(parts, str | list)
    assert json.loads(json.dumps(parts)) == parts
    assert isinstance(text_of(awkward.value), str)


def test_text_that_would_be_written_for_ever_is_not_begun() -> None:
    doubled: Any = "leaf"
    for _ in range(60):
        doubled = {"left": doubled, "right": [doubled]}

    assert tool_output_parts(doubled) == "<dict: no text>"


def test_a_cycle_has_its_usual_text() -> None:
    cycle: list[Any] = [1]
    cycle.append(cycle)

    assert tool_output_parts(cycle) == "[1, [...]]"


@pytest.mark.parametrize("output", ["a\ud800b", ToolOutputText(text="a\ud800b"), ["\ud800"]])
def test_lone_surrogates_are_replaced(output: Any) -> None:
    repr(tool_output_parts(output)).encode()


@given(st.text(st.characters(codec="utf-8")))
def test_text_that_can_be_sent_stays_as_it_is(text: str) -> None:
    assert tool_output_parts(text) == text


@pytest.mark.parametrize("kind", [ToolOutputImage, ToolOutputFileContent])
def test_an_image_or_file_needs_a_source(kind: Any) -> None:
    with pytest.raises(ValidationError, match="At least one of"):
        kind()


def test_the_items_of_a_run_carry_the_parts() -> None:
    from openai.types.responses import ResponseFunctionToolCall

    call = ResponseFunctionToolCall(arguments="{}", call_id="c", name="t", type="function_call")

    assert ItemHelpers.tool_call_output_item(call, ToolOutputText(text="hi")) == {
        "type": "function_call_output",
        "call_id": "c",
        "output": [{"type": "input_text", "text": "hi"}],
    }
