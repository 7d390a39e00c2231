"""What a model is told of a tool, made from signatures and docstrings of every kind."""

# A name of a kit is a class only when it runs; and nobody calls the functions here.
# pyright: reportInvalidTypeForm=false, reportReturnType=false

import datetime
import decimal
import enum
import functools
import pathlib
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NotRequired, Optional, Union

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from tests.differential.kit import Case, Kit, scenario


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Point(BaseModel):
    """A point."""

    x: int = 3
    ys: list[str] = Field(default_factory=list, description="The ys.")
    z: int | None = None


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Node(BaseModel):
    value: int
    children: list["Node"] = []


class Open(BaseModel):
    model_config = {"extra": "allow"}
    a: int


class Holder(BaseModel):
    point: Annotated[Point, Field(description="The point.")]


@dataclass
class Pair:
    x: int
    y: str = "a"


class Movie(TypedDict):
    name: str
    year: NotRequired[int]


# Each takes what its name says. What they are called with does not matter: nobody calls them.


def plain(a: int, b: str = "x", *, c: float = 1.5) -> str: ...
def no_annotations(a, b=3): ...
def no_parameters(): ...
def models(p: Point, q: Point | None = None): ...
def an_annotated_model(p: Annotated[Point, "A point."], n: Annotated[int, Field(ge=1, le=3)] = 2): ...
def a_union_by_kind(pet: Annotated[Cat | Dog, Field(discriminator="kind")]): ...
def a_tree(node: Node): ...
def variadic(*args: int): ...
def a_mapping(d: dict[str, int]): ...
def keywords(**kw: int): ...
def an_open_model(o: Open): ...
def a_dataclass_and_a_typed_dict(d: Pair, t: Movie): ...
def scalars(c: Color, w: datetime.datetime, d: decimal.Decimal, u: uuid.UUID, p: pathlib.Path): ...
def anything(x: Any, y: object): ...
def containers(t: tuple[int, str], s: set[int], n: list): ...
def a_required_field(a: int = Field(..., ge=1, description="At least one.")): ...
def a_field_with_a_default(a: int = Field(3, ge=1)): ...
def literals(a: Literal["x", "y"] = "x", b: Union[int, str, None] = None): ...  # noqa: UP007
def an_optional_field(a: Optional[Point] = Field(None, description="A point.")): ...  # noqa: B008, UP045
def a_model_by_default(a: Point = Point()): ...  # noqa: B008
def bytes_and_bool(a: bytes, b: bool = False): ...
def two_fields(a: Annotated[str, Field(min_length=1)] = Field(default="x", max_length=3)): ...
def every_kind_of_parameter(a: int, /, b: int, *rest: str, c: int): ...
def an_underscore(_a: int): ...
def names_of_pydantic(json: int, copy: str): ...
def a_model_in_a_model(holder: Holder): ...
def a_list_of_models(a: list[Point] | None = None): ...
def a_callable(a: Callable[[int], int]): ...
def a_complex_number(a: complex): ...
def a_list_of_dicts(a: list[dict[str, Any]]): ...
def forward_references(a: "int", p: "Point"): ...


def described_as_google(city: str, days: int = 1) -> str:
    """Tell the weather.

    Over several lines.

    Args:
        city: The city, as
            people call it.
        days: How many days.

    Returns:
        What it will be like.
    """


def described_as_numpy(city: str, days: int = 1) -> str:
    """Tell the weather.

    Parameters
    ----------
    city : str
        The city.
    days : int
        How many days.
    """


def described_as_sphinx(city: str, days: int = 1) -> str:
    """Tell the weather.

    :param city: The city.
    :param days: How many days.
    :returns: What it will be like.
    """


def described_in_part(
    a: Annotated[int, "From the annotation."], b: Annotated[int, Field(description="From the field.")], c: int
) -> None:
    """Do it.

    Args:
        a: From the docstring.
        c: Also from the docstring.
    """


def described_on_many_lines() -> None:
    """
    Begin on the second line.

    And go on.
    """


class Methods:
    def method(self, a: int) -> None:
        """A method."""

    def __call__(self, question: str) -> None:
        """A call."""


_FUNCTIONS = [value for value in list(vars().values()) if callable(value) and hasattr(value, "__code__")]


def schemas_of(function: Any, **options: Any) -> Callable[[Kit], Case]:
    """A scenario that makes `function` a tool, strictly and not, and asks a model with both."""

    def scenario_of(kit: Kit) -> Case:
        tools: list[Any] = []
        for strict in (True, False):
            try:
                tools.append(
                    kit.function_tool(
                        function, strict_mode=strict, **{"name_override": f"t{strict}", **options}
                    )
                )
            except Exception as error:
                kit.note(strict, type(error).__name__)
        return Case(kit.Agent(name="A", tools=tools, model=kit.script([kit.say("Ready.")])))

    return scenario_of


def _enter(name: str, function: Any, **options: Any) -> None:
    made = schemas_of(function, **options)
    made.__name__ = f"schema_of_{name}"
    scenario(made)


for _function in _FUNCTIONS:
    if _function.__module__ == __name__:
        _enter(_function.__name__, _function)

_enter("a_method", Methods().method)
_enter("a_callable_object", Methods())
_enter("a_partial_function", functools.partial(plain, 1))
_enter("a_lambda", lambda x: x)
_enter("a_function_without_its_docstring", described_as_google, use_docstring_info=False)
_enter("a_function_described_anew", described_as_google, description_override="Ask the sky.")
_enter("a_docstring_of_a_given_style", described_as_numpy, docstring_style="numpy")
_enter("a_docstring_of_another_style", described_as_numpy, docstring_style="google")


@scenario
def names_of_tools(kit: Kit) -> Case:
    @kit.function_tool
    def own_name() -> str: ...

    @kit.function_tool(name_override="given")
    def other_name() -> str: ...

    tools = [own_name, other_name, kit.function_tool(plain)]
    return Case(kit.Agent(name="A", tools=tools, model=kit.script([kit.say("Ready.")])))


@scenario
def a_context_is_no_parameter(kit: Kit) -> Case:
    @kit.function_tool
    def with_wrapper(context: kit.RunContextWrapper[Any], a: int) -> str: ...

    @kit.function_tool
    def with_tool_context(context: kit.ToolContext[Any], a: int) -> str: ...

    tools = [with_wrapper, with_tool_context]
    return Case(kit.Agent(name="A", tools=tools, model=kit.script([kit.say("Ready.")])))


@scenario
def a_context_that_is_not_first(kit: Kit) -> Case:
    @kit.function_tool
    def late(a: int, context: kit.RunContextWrapper[Any]) -> str: ...

    return Case(kit.Agent(name="A", tools=[late], model=kit.script([kit.say("Ready.")])))
