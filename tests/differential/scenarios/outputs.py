"""Output types: what the model is told, what it answers, and what the program gets."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from tests.differential.kit import Case, Kit, scenario


class Weather(BaseModel):
    city: str
    degrees: float = Field(description="In the shade.")
    tags: list[str] = []


@dataclass
class Place:
    name: str
    inhabitants: int | None = None


class Movie(TypedDict):
    name: str
    year: int


class Aliased(BaseModel):
    class_: str = Field(alias="class")


# The type, and what the model answers.
_TYPES: dict[str, tuple[Any, Any]] = {
    "a_model": (Weather, {"city": "Oslo", "degrees": 3, "tags": ["wind"]}),
    "a_dataclass": (Place, {"response": {"name": "Oslo", "inhabitants": 700_000}}),
    "a_typed_dict": (Movie, {"name": "M", "year": 1931}),
    "a_list": (list[int], {"response": [1, 2]}),
    "a_list_of_models": (list[Weather], {"response": [{"city": "Oslo", "degrees": 3}]}),
    "an_int": (int, {"response": 3}),
    "a_bool": (bool, {"response": True}),
    "a_literal": (Literal["yes", "no"], {"response": "yes"}),
    "a_union": (Weather | None, {"response": None}),
    "a_text": (str, "plain text"),
    "a_model_with_an_alias": (Aliased, {"class": "first"}),
}

_INVALID: dict[str, tuple[Any, str]] = {
    "no_json": (Weather, "It is cold."),
    "the_wrong_type": (Weather, '{"city": "Oslo", "degrees": "cold"}'),
    "a_missing_field": (Weather, '{"city": "Oslo"}'),
    "a_list_that_is_not_wrapped": (list[int], "[1, 2]"),
    "a_list_wrapped_otherwise": (list[int], '{"result": [1, 2]}'),
    "cut_off_json": (Weather, '{"city": "Os'),
    "a_number_for_a_model": (Weather, "3"),
}


def of_type(output_type: Any, answer: Any) -> Callable[[Kit], Case]:
    """A scenario of an agent with `output_type` whose model answers `answer`."""

    def scenario_of(kit: Kit) -> Case:
        text = answer if isinstance(answer, str) else json.dumps(answer)
        return Case(
            kit.Agent(name="A", output_type=output_type, model=kit.script([kit.say(text)])),
            after=lambda done: type(done.final_output).__name__,
        )

    return scenario_of


for _name, (_type, _answer) in _TYPES.items():
    _scenario = of_type(_type, _answer)
    _scenario.__name__ = f"an_output_that_is_{_name}"
    scenario(_scenario)

for _name, (_type, _answer) in _INVALID.items():
    _scenario = of_type(_type, _answer)
    _scenario.__name__ = f"an_output_that_is_{_name}"
    scenario(_scenario)


@scenario
def an_output_type_that_is_not_strict(kit: Kit) -> Case:
    schema = kit.AgentOutputSchema(dict[str, int], strict_json_schema=False)
    return Case(kit.Agent(name="A", output_type=schema, model=kit.script([kit.say('{"a": 1}')])))


@scenario
def an_output_type_that_cannot_be_strict(kit: Kit) -> Case:
    return Case(kit.Agent(name="A", output_type=dict[str, int], model=kit.script([kit.say('{"a": 1}')])))


@scenario
def an_output_type_of_ones_own(kit: Kit) -> Case:
    class Shouted(kit.AgentOutputSchemaBase):
        def is_plain_text(self) -> bool:
            return False

        def name(self) -> str:
            return "Shouted"

        def json_schema(self) -> dict[str, Any]:
            return {"type": "object"}

        def is_strict_json_schema(self) -> bool:
            return False

        def validate_json(self, json_str: str) -> Any:
            return json_str.upper()

    return Case(kit.Agent(name="A", output_type=Shouted(), model=kit.script([kit.say('{"a": 1}')])))


@scenario
def an_output_type_and_no_message(kit: Kit) -> Case:
    model = kit.script([kit.say("")], [kit.say('{"response": 1}')])
    return Case(kit.Agent(name="A", output_type=int, model=model))


@scenario
def an_output_type_behind_a_tool(kit: Kit) -> Case:
    @kit.function_tool
    def look() -> str:
        return "seen"

    model = kit.script([kit.say("I look."), kit.call("look")], [kit.say('{"response": [1]}')])
    return Case(kit.Agent(name="A", output_type=list[int], tools=[look], model=model))


@scenario
def an_output_type_in_two_messages(kit: Kit) -> Case:
    model = kit.script([kit.say("First this."), kit.say('{"response": 2}', "msg_2")])
    return Case(kit.Agent(name="A", output_type=int, model=model))
