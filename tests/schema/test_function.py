"""Schemas from signatures. The expected dicts are what the SDK gives for the same signatures."""

import datetime
import enum
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from millstream.context import RunContextWrapper, ToolContext
from millstream.errors import ModelBehaviorError, SchemaError
from millstream.schema import FuncSchema, function_schema

if TYPE_CHECKING:
    from somewhere import OnlyForCheckers  # pyright: ignore  # noqa: PGH003


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    x: int = 3
    y: list[int] = []


@dataclass
class Pair:
    left: int
    right: str = "r"


class Row(TypedDict):
    id: int


class Opaque:
    """Nothing that JSON could express."""


def properties(func: Callable[..., Any], **options: Any) -> dict[str, Any]:
    return function_schema(func, **options).params_json_schema["properties"]


def call(schema: FuncSchema, arguments: str) -> tuple[list[Any], dict[str, Any]]:
    return schema.to_call_args(schema.params_pydantic_model.model_validate_json(arguments))


# --- what the model is shown -----------------------------------------------------------------


def test_a_signature_and_its_docstring_make_a_strict_schema() -> None:
    def weather(city: str, days: int = 3) -> str:
        """Look up the weather.

        Args:
            city: where
            days: how far ahead
        """
        return city * days

    schema = function_schema(weather)

    assert (schema.name, schema.description, schema.takes_context) == (
        "weather",
        "Look up the weather.",
        False,
    )
    assert schema.params_json_schema == {
        "title": "weather_args",
        "type": "object",
        "properties": {
            "city": {"description": "where", "title": "City", "type": "string"},
            "days": {"default": 3, "description": "how far ahead", "title": "Days", "type": "integer"},
        },
        "required": ["city", "days"],
        "additionalProperties": False,
    }


def test_without_strict_mode_defaults_are_optional_and_objects_open() -> None:
    def weather(city: str, days: int = 3) -> None: ...

    schema = function_schema(weather, strict_json_schema=False).params_json_schema

    assert schema["required"] == ["city"]
    assert "additionalProperties" not in schema


def test_names_descriptions_and_the_docstring_can_be_overridden() -> None:
    def weather(city: Annotated[str, "annotated"]) -> None:
        """Docstring.

        Args:
            city: documented
        """

    named = function_schema(weather, name_override="forecast", description_override="Other.")
    plain = function_schema(weather, use_docstring_info=False)

    assert (named.name, named.description) == ("forecast", "Other.")
    assert named.params_json_schema["title"] == "forecast_args"
    assert plain.description is None
    assert plain.params_json_schema["properties"]["city"]["description"] == "annotated"


def test_a_docstring_goes_before_annotated_text_and_that_before_a_field() -> None:
    def func(
        a: Annotated[int, "annotated"],
        b: Annotated[int, "annotated", Field(description="field")] = 1,
        c: Annotated[int, Field(description="field")] = 2,
        d: int = Field(3, description="default"),
    ) -> None:
        """Do.

        Args:
            a: documented
        """

    described = {name: each["description"] for name, each in properties(func).items()}

    assert described == {"a": "documented", "b": "annotated", "c": "field", "d": "default"}


def test_constraints_and_defaults_of_fields_are_kept() -> None:
    def func(
        a: Annotated[int, Field(ge=1, le=3)] = 2,
        b: int = Field(..., ge=1),
        c: Annotated[str, Field(min_length=1)] = Field(default="x", max_length=3),
    ) -> None: ...

    assert properties(func) == {
        "a": {"default": 2, "maximum": 3, "minimum": 1, "title": "A", "type": "integer"},
        "b": {"minimum": 1, "title": "B", "type": "integer"},
        "c": {"default": "x", "maxLength": 3, "minLength": 1, "title": "C", "type": "string"},
    }


def test_parameters_without_annotation_take_anything() -> None:
    def func(a, b=3) -> None: ...  # pyright: ignore[reportMissingParameterType]

    assert properties(func) == {"a": {"title": "A"}, "b": {"default": 3, "title": "B"}}


def test_models_enums_dates_literals_dataclasses_and_typed_dicts() -> None:
    def func(
        p: Point, q: Point | None, c: Color, when: datetime.datetime, k: Literal["x"], d: Pair, r: Row
    ) -> None: ...

    schema = function_schema(func).params_json_schema

    assert schema["properties"] == {
        "p": {"$ref": "#/$defs/Point"},
        "q": {"anyOf": [{"$ref": "#/$defs/Point"}, {"type": "null"}]},
        "c": {"$ref": "#/$defs/Color"},
        "when": {"format": "date-time", "title": "When", "type": "string"},
        "k": {"const": "x", "title": "K", "type": "string"},
        "d": {"$ref": "#/$defs/Pair"},
        "r": {"$ref": "#/$defs/Row"},
    }
    assert schema["$defs"]["Pair"]["required"] == ["left", "right"]


def test_names_that_pydantic_keeps_for_itself_are_plain_names_here() -> None:
    def func(json: int, copy: str, _hidden: int, model_config: int, arg_json: int) -> None: ...

    schema = function_schema(func)
    args, _ = call(schema, '{"json": 1, "copy": "c", "_hidden": 2, "model_config": 3, "arg_json": 4}')

    assert list(schema.params_json_schema["properties"]) == [
        "json",
        "copy",
        "_hidden",
        "model_config",
        "arg_json",
    ]
    assert schema.params_json_schema["properties"]["json"] == {"title": "Json", "type": "integer"}
    assert args == [1, "c", 2, 3, 4]


def test_a_default_without_json_is_left_out_of_the_schema_and_used_in_the_call() -> None:
    marker = object()

    def func(a: object = marker) -> None: ...

    schema = function_schema(func, strict_json_schema=False)

    assert schema.params_json_schema["properties"] == {"a": {"title": "A"}}
    assert call(schema, "{}") == ([marker], {})


# --- the context -------------------------------------------------------------------------------


def test_a_first_parameter_that_is_the_context_is_not_shown() -> None:
    def plain(ctx: RunContextWrapper[Any], a: int) -> None: ...
    def bare(ctx: RunContextWrapper, a: int) -> None: ...
    def of_tool(ctx: ToolContext[str], a: int) -> None: ...
    def as_text(ctx: "ToolContext[str]", a: "int") -> None: ...
    def annotated(ctx: Annotated[ToolContext[str], "the context"], a: int) -> None: ...

    for func in (plain, bare, of_tool, as_text, annotated):
        schema = function_schema(func)

        assert schema.takes_context, func.__name__
        assert list(schema.params_json_schema["properties"]) == ["a"]


def test_the_context_is_found_where_it_is_imported_for_checkers_only() -> None:
    namespace: dict[str, Any] = {}
    exec("def func(ctx: 'RunContextWrapper[str]', a: int) -> None: ...", namespace)

    assert function_schema(namespace["func"]).takes_context


def test_the_context_in_another_place_is_an_error() -> None:
    def func(a: int, ctx: ToolContext[Any]) -> None: ...

    with pytest.raises(SchemaError, match=r"'func'.*'ctx'.*move it to the front"):
        function_schema(func)


# --- callables of all kinds --------------------------------------------------------------------


class Shop:
    """A shop."""

    def price(self, item: str) -> str:
        """Tell the price."""
        return f"{item}: 1"

    @classmethod
    def count(cls, item: str) -> int:
        """Count."""
        return len(item)

    @staticmethod
    def close(hour: int) -> int:
        """Close."""
        return hour

    def __call__(self, q: str) -> str:
        """Answer a question."""
        return q


@pytest.mark.parametrize(
    ("func", "name", "description", "parameters"),
    [
        (Shop().price, "price", "Tell the price.", ["item"]),
        (Shop.count, "count", "Count.", ["item"]),
        (Shop.close, "close", "Close.", ["hour"]),
        (Shop(), "Shop", "Answer a question.", ["q"]),
    ],
)
def test_methods_and_callable_objects(func: Any, name: str, description: str, parameters: list[str]) -> None:
    schema = function_schema(func)

    assert (schema.name, schema.description) == (name, description)
    assert list(schema.params_json_schema["properties"]) == parameters


def test_a_class_is_a_tool_that_makes_objects_of_it() -> None:
    schema = function_schema(Pair)

    assert (schema.name, list(schema.params_json_schema["properties"])) == ("Pair", ["left", "right"])
    assert call(schema, '{"left": 1, "right": "x"}') == ([1, "x"], {})


def test_what_a_partial_has_bound_is_not_shown_to_the_model() -> None:
    def send(key: str, to: str, text: str = "hi") -> str:
        """Send."""
        return f"{key}{to}{text}"

    by_name = function_schema(functools.partial(send, key="secret"))
    by_place = function_schema(functools.partial(functools.partial(send, "secret"), text="ho"))

    assert "secret" not in json.dumps([by_name.params_json_schema, by_place.params_json_schema])
    assert call(by_name, '{"to": "me", "text": "x"}') == ([], {"to": "me", "text": "x"})
    assert call(by_place, '{"to": "me"}') == (["me"], {})


def test_a_wrapped_function_keeps_its_annotations() -> None:
    def logged(func: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(func)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            return func(*args, **kwargs)

        return wrapper

    @logged
    def add(a: int) -> int:
        """Add."""
        return a

    assert properties(add) == {"a": {"title": "A", "type": "integer"}}


def test_a_type_that_is_local_to_the_caller_is_found() -> None:
    class Local(BaseModel):
        n: int

    def func(a: "Local") -> None: ...

    assert function_schema(func).params_json_schema["properties"] == {"a": {"$ref": "#/$defs/Local"}}


# --- back to a call ----------------------------------------------------------------------------


def test_every_kind_of_parameter_finds_its_place_in_the_call() -> None:
    def func(a: int, /, b: int, *rest: str, c: int, **named: str) -> None: ...

    schema = function_schema(func, strict_json_schema=False)

    assert call(schema, '{"a": 1, "b": 2, "rest": ["x"], "c": 3, "named": {"k": "v"}}') == (
        [1, 2, "x"],
        {"c": 3, "k": "v"},
    )
    assert call(schema, '{"a": 1, "b": 2, "c": 3}') == ([1, 2], {"c": 3})


def test_named_arguments_that_repeat_a_parameter_are_the_models_mistake() -> None:
    def func(a: int, **named: int) -> None: ...

    schema = function_schema(func, strict_json_schema=False)

    with pytest.raises(ModelBehaviorError, match="a is given twice"):
        call(schema, '{"a": 1, "named": {"a": 2}}')


def test_arguments_become_objects_of_the_annotated_types() -> None:
    def func(p: Point, d: Pair, c: Color) -> None: ...

    args, _ = call(
        function_schema(func), '{"p": {"x": 1, "y": []}, "d": {"left": 1, "right": "r"}, "c": "red"}'
    )

    assert args == [Point(x=1, y=[]), Pair(1, "r"), Color.RED]


def test_a_schema_made_by_hand_needs_no_map_of_fields() -> None:
    made = function_schema(lambda a: a, name_override="f")
    by_hand = FuncSchema("f", None, made.params_pydantic_model, made.params_json_schema, made.signature)

    assert call(by_hand, '{"a": 1}') == ([1], {})


TYPES: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "integer": (int, st.integers(-(2**53), 2**53)),
    "text": (str, st.text(st.characters(codec="utf-8"))),
    "number": (float, st.floats(allow_nan=False, allow_infinity=False)),
    "flag": (bool, st.booleans()),
    "list": (list[int], st.lists(st.integers(0, 9))),
    "maybe": (int | None, st.none() | st.integers(0, 9)),
    "choice": (Literal["a", "b"], st.sampled_from(["a", "b"])),
    "row": (Row, st.fixed_dictionaries({"id": st.integers(0, 9)})),
    "point": (Point, st.builds(Point, x=st.integers(0, 9), y=st.lists(st.integers(0, 9)))),
}


@given(
    st.lists(st.sampled_from(sorted(TYPES)), unique=True).flatmap(
        lambda kinds: st.fixed_dictionaries({kind: TYPES[kind][1] for kind in kinds})
    )
)
def test_arguments_written_to_the_schema_arrive_as_they_were_meant(values: dict[str, Any]) -> None:
    def func(**_: Any) -> None: ...

    import inspect

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    func.__signature__ = inspect.Signature(  # pyright: ignore[reportFunctionMemberAccess]
        [inspect.Parameter(name, kind, annotation=TYPES[name][0]) for name in values]
    )
    func.__annotations__ = {name: TYPES[name][0] for name in values}
    schema = function_schema(func)
    plain = {name: v.model_dump() if isinstance(v, BaseModel) else v for name, v in values.items()}

    args, kwargs = call(schema, json.dumps(plain))

    assert (args, kwargs) == (list(values.values()), {})
    assert schema.params_json_schema["required"] == list(values)


# --- signatures that have no schema ------------------------------------------------------------


def test_a_type_that_json_cannot_express_is_named_with_its_parameter() -> None:
    def func(fine: int, broken: Opaque) -> None: ...

    with pytest.raises(
        SchemaError, match=r"Tool 'func': parameter 'broken' has no JSON schema.*Annotate it"
    ) as caught:
        function_schema(func)

    assert "arbitrary_types" not in str(caught.value)


def test_a_callback_parameter_has_no_schema() -> None:
    def func(broken: Callable[[int], int]) -> None: ...

    with pytest.raises(SchemaError, match="parameter 'broken'"):
        function_schema(func)


@pytest.mark.parametrize("hint", [dict[str, int], list[dict[str, Any]]])
def test_open_objects_have_no_strict_schema_and_the_remedy_is_named(hint: Any) -> None:
    def func(fine: int, broken) -> None: ...  # pyright: ignore[reportMissingParameterType]

    func.__annotations__["broken"] = hint

    with pytest.raises(
        SchemaError, match=r"'func': parameter 'broken' has no strict JSON schema.*strict_mode=False"
    ):
        function_schema(func)
    assert "broken" in properties(func, strict_json_schema=False)


def test_named_rest_parameters_need_strict_mode_off_and_go_into_an_object_of_their_own() -> None:
    def func(**named: int) -> None: ...

    with pytest.raises(SchemaError, match="parameter 'named'"):
        function_schema(func)
    schema = function_schema(func, strict_json_schema=False).params_json_schema

    assert schema["additionalProperties"] is False
    assert schema["properties"] == {
        "named": {"additionalProperties": {"type": "integer"}, "title": "Named", "type": "object"}
    }


def test_what_a_function_returns_may_be_there_for_type_checkers_only() -> None:
    local = 5

    def func(a: int) -> "OnlyForCheckers[str]":  # type: ignore[type-arg]
        return local  # type: ignore[return-value]  # pyright: ignore[reportReturnType]

    class Thing:
        def method(self, a: "int") -> "OnlyForCheckers":
            raise NotImplementedError

    for each in (func, Thing().method):
        assert list(function_schema(each).params_json_schema["properties"]) == ["a"]


def test_a_name_that_is_nowhere_defined_is_named_with_its_parameter() -> None:
    def func(a: "OnlyForCheckers") -> None: ...

    with pytest.raises(
        SchemaError, match=r"'func': parameter 'a' is annotated with 'OnlyForCheckers'.*TYPE_CHECKING"
    ):
        function_schema(func)


def test_annotations_that_are_no_expressions_are_an_error() -> None:
    def func(a: int) -> None: ...

    func.__annotations__["a"] = "not an expression"

    with pytest.raises(SchemaError, match="'func': its annotations cannot be evaluated"):
        function_schema(func)


def test_a_method_without_its_object_would_ask_the_model_for_self() -> None:
    with pytest.raises(SchemaError, match=r"'self'.*tool\(thing\.price\)"):
        function_schema(Shop.price)


def test_a_lambda_needs_a_name() -> None:
    with pytest.raises(SchemaError, match="name_override="):
        function_schema(lambda x: x)  # pyright: ignore[reportUnknownLambdaType]


def test_a_builtin_without_signature_is_an_error_with_a_remedy() -> None:
    with pytest.raises(SchemaError, match=r"'min': its signature cannot be read.*Wrap it"):
        function_schema(min)
