"""Output types: what an agent's final answer has to be."""

from __future__ import annotations

import abc
import functools
from typing import Any, get_args, get_origin

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from typing_extensions import TypedDict, is_typeddict

from millstream.errors import ModelBehaviorError, SchemaError, UserError
from millstream.schema import ensure_strict_json_schema, problems, reason_of

_WRAPPER_KEY = "response"


class AgentOutputSchemaBase(abc.ABC):
    """What an agent's final answer has to be: a schema for the model, and a check of what it wrote."""

    @abc.abstractmethod
    def is_plain_text(self) -> bool:
        """Whether the answer is text, and there is no schema."""

    @abc.abstractmethod
    def name(self) -> str:
        """The name of the type."""

    @abc.abstractmethod
    def json_schema(self) -> dict[str, Any]:
        """What the model has to keep to.

        Raises:
            UserError: the answer is plain text.
        """

    @abc.abstractmethod
    def is_strict_json_schema(self) -> bool:
        """Whether the model's API shall guarantee that the answer keeps to the schema."""

    @abc.abstractmethod
    def validate_json(self, json_str: str) -> Any:
        """The answer as an object of the type.

        Raises:
            ModelBehaviorError: it is not one.
        """


class AgentOutputSchema(AgentOutputSchemaBase):
    """The schema of a Python type: a pydantic model, a dataclass, a TypedDict, `list[int]` and so on.

    The model's API takes an object at the top; other types travel as `{"response": ...}`.

    Args:
        output_type: the type; `str` or None for plain text.
        strict_json_schema: False for types that strict mode does not take, such as `dict[str, int]`.

    Raises:
        SchemaError: the type has no (strict) JSON schema.
    """

    output_type: type[Any] | Any

    def __init__(self, output_type: type[Any] | Any, strict_json_schema: bool = True) -> None:
        self.output_type = output_type
        self._strict = strict_json_schema
        self._is_wrapped = False
        self._schema: dict[str, Any] | None = None
        self._adapter: TypeAdapter[Any] | None = None
        if self.is_plain_text():
            return
        self._is_wrapped = not _is_object(output_type)
        wrapped: Any = output_type
        if self._is_wrapped:
            make: Any = TypedDict  # a type that is only known now
            wrapped = make("OutputType", {_WRAPPER_KEY: output_type})
        try:
            self._adapter = TypeAdapter(wrapped)
            schema = self._adapter.json_schema()
        except (PydanticUserError, PydanticInvalidForJsonSchema, NameError) as error:
            raise SchemaError(
                f"output_type {self.name()} has no JSON schema. {reason_of(error)} Make it of types that JSON "
                "can express: str, int, a list, a dataclass, a pydantic model."
            ) from error
        self._schema = self._strictly(schema) if strict_json_schema else schema

    def _strictly(self, schema: dict[str, Any]) -> dict[str, Any]:
        try:
            return ensure_strict_json_schema(schema)
        except SchemaError as error:
            raise SchemaError(
                f"output_type {self.name()} has no strict JSON schema. {error} To do so, write "
                f"output_type=AgentOutputSchema({self.name()}, strict_json_schema=False)."
            ) from error

    def is_plain_text(self) -> bool:
        """Whether the answer is text, and there is no schema."""
        return self.output_type is None or self.output_type is str

    @property
    def is_wrapped(self) -> bool:
        """Whether the answer travels as `{"response": ...}`."""
        return self._is_wrapped

    def is_strict_json_schema(self) -> bool:
        """Whether the model's API shall guarantee that the answer keeps to the schema."""
        return self._strict

    def name(self) -> str:
        """The type as one would write it."""
        return _spelled(self.output_type)

    def json_schema(self) -> dict[str, Any]:
        """What the model has to keep to.

        Raises:
            UserError: the answer is plain text.
        """
        if self._schema is None:
            raise UserError("The output type is plain text, which has no JSON schema.")
        return self._schema

    def validate_json(self, json_str: str) -> Any:
        """The answer as an object of the type.

        Raises:
            ModelBehaviorError: it is not one.
        """
        if self._adapter is None:
            return json_str
        try:
            value = self._adapter.validate_json(json_str)
        except ValidationError as error:
            problem = problems(error)
        else:
            return value[_WRAPPER_KEY] if self._is_wrapped else value
        raise ModelBehaviorError(f"The model's output is not a valid {self.name()}: {problem}")

    def __repr__(self) -> str:
        return f"AgentOutputSchema({self.name()}, strict_json_schema={self._strict})"


def output_schema_of(output_type: Any) -> AgentOutputSchemaBase | None:
    """The schema of an agent's `output_type`; None for plain text. Made once for each type.

    Raises:
        SchemaError: the type has no strict JSON schema.
    """
    if output_type is None or output_type is str:
        return None
    if isinstance(output_type, AgentOutputSchemaBase):
        return output_type
    try:
        return _made(output_type)
    except TypeError:  # not hashable: `Annotated[int, []]`, say
        return AgentOutputSchema(output_type)


@functools.lru_cache(maxsize=256)
def _made(output_type: Any) -> AgentOutputSchema:
    return AgentOutputSchema(output_type)


def _is_object(output_type: Any) -> bool:
    """Whether the type's JSON is an object by itself. A dataclass travels wrapped, as in the SDK."""
    kind = get_origin(output_type) or output_type
    return isinstance(kind, type) and (is_typeddict(kind) or issubclass(kind, BaseModel | dict))


def _spelled(kind: Any) -> str:
    if kind is None:
        return "None"
    name = getattr(get_origin(kind) or kind, "__name__", str(kind))
    arguments = [
        _spelled(each) if isinstance(each, type) or get_origin(each) else repr(each)
        for each in get_args(kind)
    ]
    return f"{name}[{', '.join(arguments)}]" if arguments else str(name)
