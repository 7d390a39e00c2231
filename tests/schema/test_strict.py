"""Strict schemas: closed objects, all required, nothing beside a reference."""

import copy
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from millstream.errors import SchemaError
from millstream.schema import ensure_strict_json_schema


class Point(BaseModel):
    """A point."""

    x: int = 3
    y: int | None = None


class Route(BaseModel):
    start: Annotated[Point, Field(description="where it begins")]
    stops: list[Point] = []


class Tree(BaseModel):
    value: int
    children: list["Tree"] = []


class Chain(BaseModel):
    next: "Chain" = Field(default=None, description="the next link")  # pyright: ignore[reportAssignmentType]


def test_an_empty_schema_is_an_object_without_properties() -> None:
    assert ensure_strict_json_schema({}) == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }


def test_objects_are_closed_and_all_their_properties_required() -> None:
    strict = ensure_strict_json_schema(Point.model_json_schema())

    assert strict == {
        "title": "Point",
        "description": "A point.",
        "type": "object",
        "properties": {
            "x": {"default": 3, "title": "X", "type": "integer"},
            "y": {"anyOf": [{"type": "integer"}, {"type": "null"}], "title": "Y"},
        },
        "required": ["x", "y"],
        "additionalProperties": False,
    }


def test_what_stands_beside_a_reference_is_merged_into_what_it_refers_to() -> None:
    strict = ensure_strict_json_schema(Route.model_json_schema())

    assert strict["properties"]["start"] == {
        "title": "Point",
        "description": "where it begins",
        "type": "object",
        "properties": strict["$defs"]["Point"]["properties"],
        "required": ["x", "y"],
        "additionalProperties": False,
    }
    assert strict["properties"]["stops"]["items"] == {"$ref": "#/$defs/Point"}


def test_a_type_that_contains_itself_keeps_its_references() -> None:
    strict = ensure_strict_json_schema(Tree.model_json_schema())

    assert strict["$defs"]["Tree"]["properties"]["children"]["items"] == {"$ref": "#/$defs/Tree"}


def test_a_described_reference_to_itself_does_not_go_on_for_ever() -> None:
    strict = ensure_strict_json_schema(Chain.model_json_schema())

    assert strict["$defs"]["Chain"]["additionalProperties"] is False


def test_one_of_becomes_any_of() -> None:
    strict = ensure_strict_json_schema(
        {"oneOf": [{"type": "object", "properties": {"a": {"type": "integer"}}}], "anyOf": [{"type": "null"}]}
    )

    assert "oneOf" not in strict
    assert [each["type"] for each in strict["anyOf"]] == ["null", "object"]
    assert strict["anyOf"][1]["required"] == ["a"]


def test_all_of_one_is_that_one_and_all_of_several_stays() -> None:
    single = ensure_strict_json_schema({"title": "T", "allOf": [{"type": "object", "properties": {}}]})
    several = ensure_strict_json_schema({"allOf": [{"type": "object"}, {"type": "object"}]})

    assert single == {
        "title": "T",
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert several["allOf"] == [{"type": "object", "additionalProperties": False}] * 2


@pytest.mark.parametrize("extra", [True, {"type": "integer"}])
def test_an_object_of_any_names_has_no_strict_schema_and_the_error_says_where(extra: Any) -> None:
    schema = {"type": "object", "properties": {"d": {"type": "object", "additionalProperties": extra}}}

    with pytest.raises(SchemaError, match="at 'd'"):
        ensure_strict_json_schema(schema)


@pytest.mark.parametrize("ref", ["http://elsewhere/x", "#/$defs/missing"])
def test_a_reference_that_leads_nowhere_is_an_error(ref: str) -> None:
    with pytest.raises(SchemaError, match="refers to"):
        ensure_strict_json_schema({"$ref": ref, "description": "x"})


def test_schemas_that_are_not_objects_are_left_alone() -> None:
    assert ensure_strict_json_schema({"type": "array", "items": True}) == {"type": "array", "items": True}


_SCALARS = st.sampled_from(["integer", "string", "number", "boolean", "null"]).map(
    lambda kind: {"type": kind}
)


def _object(properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


SCHEMAS = st.recursive(
    _SCALARS,
    lambda inner: (
        st.dictionaries(st.text("abc", min_size=1, max_size=2), inner, max_size=3).map(_object)
        | inner.map(lambda item: {"type": "array", "items": item})
        | st.lists(inner, min_size=1, max_size=3).flatmap(
            lambda each: st.sampled_from(["anyOf", "oneOf", "allOf"]).map(lambda key: {key: each})
        )
    ),
    max_leaves=8,
)


def _walk(schema: Any) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [each for part in schema for each in _walk(part)]
    if not isinstance(schema, dict):
        return []
    below = [schema.get("items"), *schema.get("properties", {}).values()]
    below += [schema.get(key) for key in ("anyOf", "oneOf", "allOf")]
    return [schema, *_walk(below)]


@given(SCHEMAS)
def test_strict_is_strict_everywhere_done_twice_is_done_once_and_the_original_stays(
    schema: dict[str, Any],
) -> None:
    before = copy.deepcopy(schema)

    strict = ensure_strict_json_schema(schema)

    assert schema == before
    assert ensure_strict_json_schema(strict) == strict
    for part in _walk(strict):
        assert "oneOf" not in part
        if part.get("type") == "object":
            assert part["additionalProperties"] is False
            assert part["required"] == list(part["properties"])
