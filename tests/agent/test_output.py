"""Output types. The expected schemas are what the SDK gives for the same types."""

from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from millstream.agent import AgentOutputSchema, AgentOutputSchemaBase, output_schema_of
from millstream.errors import ModelBehaviorError, SchemaError, UserError


class Report(BaseModel):
    title: str
    pages: int = 1


@dataclass
class Pair:
    left: int
    right: str = "r"


class Row(TypedDict):
    id: int


def wrapped(schema: dict[str, Any]) -> dict[str, Any]:
    return {
        "title": "OutputType",
        "type": "object",
        "properties": {"response": schema},
        "required": ["response"],
        "additionalProperties": False,
    }


REPORT = {
    "title": "Report",
    "type": "object",
    "properties": {
        "title": {"title": "Title", "type": "string"},
        "pages": {"default": 1, "title": "Pages", "type": "integer"},
    },
    "required": ["title", "pages"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("kind", "name", "schema", "text", "value"),
    [
        (Report, "Report", REPORT, '{"title": "t", "pages": 2}', Report(title="t", pages=2)),
        (
            Row,
            "Row",
            {
                "title": "Row",
                "type": "object",
                "properties": {"id": {"title": "Id", "type": "integer"}},
                "required": ["id"],
                "additionalProperties": False,
            },
            '{"id": 1}',
            {"id": 1},
        ),
        (int, "int", wrapped({"title": "Response", "type": "integer"}), '{"response": 3}', 3),
        (
            list[str],
            "list[str]",
            wrapped({"title": "Response", "type": "array", "items": {"type": "string"}}),
            '{"response": ["a"]}',
            ["a"],
        ),
        (
            Pair,
            "Pair",
            wrapped({"$ref": "#/$defs/Pair"})
            | {
                "$defs": {
                    "Pair": {
                        "title": "Pair",
                        "type": "object",
                        "properties": {
                            "left": {"title": "Left", "type": "integer"},
                            "right": {"default": "r", "title": "Right", "type": "string"},
                        },
                        "required": ["left", "right"],
                        "additionalProperties": False,
                    }
                }
            },
            '{"response": {"left": 1, "right": "x"}}',
            Pair(1, "x"),
        ),
        (
            Report | None,
            "UnionType[Report, NoneType]",
            wrapped({"anyOf": [{"$ref": "#/$defs/Report"}, {"type": "null"}]})
            | {"$defs": {"Report": REPORT}},
            '{"response": null}',
            None,
        ),
    ],
)
def test_a_type_makes_a_schema_and_reads_what_was_written_to_it(
    kind: Any, name: str, schema: dict[str, Any], text: str, value: Any
) -> None:
    output = AgentOutputSchema(kind)

    assert (output.name(), output.is_plain_text(), output.is_strict_json_schema()) == (name, False, True)
    assert output.json_schema() == schema
    assert output.validate_json(text) == value


@pytest.mark.parametrize("kind", [str, None])
def test_text_has_no_schema(kind: Any) -> None:
    output = AgentOutputSchema(kind)

    assert output.is_plain_text()
    assert output.validate_json("anything") == "anything"
    with pytest.raises(UserError, match="plain text"):
        output.json_schema()
    assert output_schema_of(kind) is None


@pytest.mark.parametrize(
    "text", ["", "{", "3", "{}", '{"response": "x"}', "[]", "null", "\ud800", '{"response": "\ud800"}']
)
def test_an_answer_that_is_not_of_the_type_is_the_models_mistake(text: str) -> None:
    with pytest.raises(ModelBehaviorError, match="not a valid int: "):
        AgentOutputSchema(int).validate_json(text)


def test_the_mistake_is_named_by_its_place() -> None:
    with pytest.raises(ModelBehaviorError, match="not a valid Report: pages: Input should be"):
        AgentOutputSchema(Report).validate_json('{"title": "t", "pages": "many"}')


def test_a_type_without_strict_schema_says_how_to_do_without() -> None:
    with pytest.raises(SchemaError, match=r"AgentOutputSchema\(dict\[str, int\], strict_json_schema=False\)"):
        AgentOutputSchema(dict[str, int])

    loose = AgentOutputSchema(dict[str, int], strict_json_schema=False)

    assert not loose.is_strict_json_schema()
    assert loose.json_schema() == {"type": "object", "additionalProperties": {"type": "integer"}}
    assert loose.validate_json('{"a": 1}') == {"a": 1}
    assert "dict[str, int]" in repr(loose)


class Opaque:
    pass


@pytest.mark.parametrize("kind", [Opaque, "Nowhere", object()])
def test_a_type_without_any_schema_is_named(kind: Any) -> None:
    with pytest.raises(
        SchemaError, match=r"output_type .* has no JSON schema.* types that JSON can"
    ) as caught:
        AgentOutputSchema(kind)
    assert "arbitrary_types_allowed" not in str(caught.value)


def test_the_schema_of_a_type_is_made_once() -> None:
    assert output_schema_of(Report) is output_schema_of(Report)
    assert output_schema_of(Annotated[int, []]) is not None  # cannot be remembered


def test_a_schema_of_the_users_own_is_taken_as_it_is() -> None:
    class Shout(AgentOutputSchemaBase):
        def is_plain_text(self) -> bool:
            return False

        def name(self) -> str:
            return "shout"

        def json_schema(self) -> dict[str, Any]:
            return {}

        def is_strict_json_schema(self) -> bool:
            return False

        def validate_json(self, json_str: str) -> Any:
            return json_str.upper()

    own = Shout()

    assert output_schema_of(own) is own
