"""Function schemas: from a signature and a docstring to what a model has to write, and back to a call.

Rules of this file:

1. Everything is found out once, when the function is described. A call costs one validation
   by pydantic.
2. The model is shown every parameter but the context, and but what a `functools.partial`
   has bound: that may be a secret.
3. A parameter without a schema is an error here, which names it and says what to change.
"""

from __future__ import annotations

import functools
import inspect
import re
import typing
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import FunctionType
from typing import Annotated, Any, cast, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticUserError
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import SchemaError as CoreSchemaError

from millstream.context import RunContextWrapper, ToolContext
from millstream.errors import SchemaError
from millstream.schema.docstring import DocstringStyle, FuncDocumentation, generate_func_documentation
from millstream.schema.problems import reason_of
from millstream.schema.strict import ensure_strict_json_schema

_VAR_POSITIONAL = inspect.Parameter.VAR_POSITIONAL
_VAR_KEYWORD = inspect.Parameter.VAR_KEYWORD


@dataclass
class FuncSchema:
    """How a model calls a function, and how its arguments become a call."""

    name: str
    description: str | None
    params_pydantic_model: type[BaseModel]
    """Validates the arguments, one field per parameter."""
    params_json_schema: dict[str, Any]
    signature: inspect.Signature
    """The function's own, context and bound parameters included."""
    takes_context: bool = False
    """Whether the first argument of a call is the context."""
    strict_json_schema: bool = True
    fields: dict[str, str] = field(default_factory=dict[str, str])
    """The model's field of each parameter, in order. Names that pydantic keeps for itself differ."""

    def __post_init__(self) -> None:
        parameters = self.signature.parameters
        self._plan = [
            (name, parameters[name].kind, attribute)
            for name, attribute in (
                self.fields or {n: n for n in self.params_pydantic_model.model_fields}
            ).items()
        ]

    def to_call_args(self, data: BaseModel) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments from validated `data`, the context not among them.

        Raises:
            ModelBehaviorError: `**kwargs` repeat a parameter.
        """
        args: list[Any] = []
        kwargs: dict[str, Any] = {}
        for name, kind, attribute in self._plan:
            value = getattr(data, attribute)
            if kind is inspect.Parameter.KEYWORD_ONLY:
                kwargs[name] = value
            elif kind is _VAR_POSITIONAL:
                args.extend(value or ())
            elif kind is _VAR_KEYWORD:
                self._check_repeated(value or {})
                kwargs.update(value or {})
            else:
                args.append(value)
        return args, kwargs

    def _check_repeated(self, extra: dict[str, Any]) -> None:
        for name, parameter in self.signature.parameters.items():
            if name in extra and parameter.kind not in (inspect.Parameter.POSITIONAL_ONLY, _VAR_KEYWORD):
                from millstream.errors import ModelBehaviorError

                raise ModelBehaviorError(f"Invalid JSON input for tool {self.name}: {name} is given twice")


def function_schema(
    func: Callable[..., Any],
    docstring_style: DocstringStyle | None = None,
    name_override: str | None = None,
    description_override: str | None = None,
    use_docstring_info: bool = True,
    strict_json_schema: bool = True,
) -> FuncSchema:
    """Describe `func` to a model: a function, a method, a `functools.partial` or a callable object.

    A description in the docstring wins over one in `Annotated`, and that over one in `Field`.

    Raises:
        SchemaError: a parameter has no JSON schema, or no strict one where strictness is asked.
    """
    target, bound = _unwrapped(func)
    name = name_override or _name(func, target)
    docs = (
        _documentation(target, docstring_style) if use_docstring_info else FuncDocumentation(name, None, None)
    )
    signature = _signature(func, name)
    hints = _hints(target, name)
    shown = {n: p for n, p in signature.parameters.items() if n not in bound}
    takes_context = _take_context(name, shown, hints)
    _refuse_self(name, target, shown, hints)
    fields, attributes = _fields(shown, hints, docs.param_descriptions or {})
    open_ended = any(parameter.kind is _VAR_KEYWORD for parameter in shown.values())
    model, schema = _model(name, fields, strict_json_schema, open_ended)
    return FuncSchema(
        name=name,
        description=description_override or docs.description,
        params_pydantic_model=model,
        params_json_schema=schema,
        signature=signature,
        takes_context=takes_context,
        strict_json_schema=strict_json_schema,
        fields=attributes,
    )


# --- the function --------------------------------------------------------------------------


def _unwrapped(func: Any) -> tuple[Any, frozenset[str]]:
    """The function that carries name, docstring and annotations; names that `partial` has bound."""
    bound: frozenset[str] = frozenset()
    while isinstance(func, functools.partial):
        partial = cast("functools.partial[Any]", func)
        bound |= frozenset(partial.keywords)
        func = partial.func
    return func, bound


def _name(func: Any, target: Any) -> str:
    name = getattr(target, "__name__", None) or type(target).__name__
    if name == "<lambda>":
        raise SchemaError("A lambda has no name that a model could call: give it one with name_override=.")
    return name


def _documentation(target: Any, style: DocstringStyle | None) -> FuncDocumentation:
    # The docstring of a callable object's class says what the object is; `__call__`'s, what it does.
    if (
        not inspect.isroutine(target)
        and not inspect.isclass(target)
        and inspect.getdoc(type(target).__call__)
    ):
        target = type(target).__call__
    return generate_func_documentation(target, style)


def _signature(func: Any, name: str) -> inspect.Signature:
    try:
        return inspect.signature(func)
    except (ValueError, TypeError) as error:
        raise SchemaError(
            f"Tool {name!r}: its signature cannot be read ({error}). Wrap it in a function with annotations."
        ) from None


def _hints(target: Any, name: str) -> dict[str, Any]:
    """The annotations of the parameters of `target`, those that are text evaluated."""
    if not inspect.isroutine(target) and not inspect.isclass(target):
        target = type(target).__call__
    if inspect.isclass(target):
        target = target.__init__
    target = _without_return(inspect.unwrap(target))
    try:
        return typing.get_type_hints(target, include_extras=True)
    except NameError:
        pass
    except Exception as error:
        raise SchemaError(f"Tool {name!r}: its annotations cannot be evaluated: {error}.") from error
    # A type that is local to the caller, or one of ours that is imported for type checkers only.
    names: dict[str, Any] = {"RunContextWrapper": RunContextWrapper, "ToolContext": ToolContext}
    names |= getattr(target, "__globals__", {})
    names |= _locals_of_caller()
    try:
        return typing.get_type_hints(target, localns=names, include_extras=True)
    except NameError as error:
        missing = str(error.name)
        culprit = next(
            (p for p, a in target.__annotations__.items() if isinstance(a, str) and missing in a), None
        )
        where = f"parameter {culprit!r}" if culprit else "its signature"
        raise SchemaError(
            f"Tool {name!r}: {where} is annotated with {missing!r}, which is not defined where the "
            "function is. Import it outside `if TYPE_CHECKING:`, or define it at the top of the module."
        ) from None


def _without_return(target: Any) -> Any:
    """`target` without its annotation of what it returns.

    No model is asked for that: it may be there for type checkers only.
    """
    function = getattr(target, "__func__", target)
    if not isinstance(function, FunctionType):
        return target
    annotations = {name: each for name, each in function.__annotations__.items() if name != "return"}
    bare = FunctionType(
        function.__code__, function.__globals__, function.__name__, closure=function.__closure__
    )
    bare.__annotations__ = annotations
    for name in ("__type_params__",):  # Python 3.12 and later
        if hasattr(function, name):
            setattr(bare, name, getattr(function, name))
    return bare


def _locals_of_caller() -> dict[str, Any]:
    frame = inspect.currentframe()
    while frame is not None and frame.f_globals.get("__name__", "").split(".")[0] == "millstream":
        frame = frame.f_back
    return {} if frame is None else dict(frame.f_locals)


def _take_context(name: str, shown: dict[str, inspect.Parameter], hints: dict[str, Any]) -> bool:
    """Take a first parameter that is the context out of `shown`."""
    taken = False
    for index, parameter in enumerate(list(shown)):
        hint = hints.get(parameter)
        if get_origin(hint) is Annotated:
            hint = get_args(hint)[0]
        kind = get_origin(hint) or hint
        if not (inspect.isclass(kind) and issubclass(kind, RunContextWrapper)):
            continue
        if index > 0:
            raise SchemaError(
                f"Tool {name!r}: parameter {parameter!r} is the context, which is passed as the first "
                "argument: move it to the front."
            )
        del shown[parameter]
        taken = True
    return taken


def _refuse_self(name: str, target: Any, shown: dict[str, inspect.Parameter], hints: dict[str, Any]) -> None:
    first = next(iter(shown), None)
    if first in ("self", "cls") and first not in hints and "." in getattr(target, "__qualname__", ""):
        raise SchemaError(
            f"Tool {name!r}: parameter {first!r} would be asked of the model. Make a tool of the method "
            f"of an object instead: tool(thing.{name})."
        )


# --- the model -----------------------------------------------------------------------------


def _fields(
    shown: dict[str, inspect.Parameter], hints: dict[str, Any], descriptions: dict[str, str]
) -> tuple[dict[str, tuple[Any, FieldInfo]], dict[str, str]]:
    """A pydantic field per parameter, and the attribute of each parameter in the model."""
    fields: dict[str, tuple[Any, FieldInfo]] = {}
    attributes: dict[str, str] = {}
    for name, parameter in shown.items():
        hint: Any = hints.get(name, Any)
        default: Any = ... if parameter.default is parameter.empty else parameter.default
        if parameter.kind is _VAR_POSITIONAL:
            hint, default = list[hint], Field(default_factory=list)
        elif parameter.kind is _VAR_KEYWORD:
            hint, default = dict[str, hint], Field(default_factory=dict)
        attributes[name] = attribute = _attribute(name, shown)
        info = FieldInfo.from_annotated_attribute(hint, default)
        if description := descriptions.get(name) or _spoken(hint):
            info.description = description
        if attribute != name:
            info.alias = info.validation_alias = info.serialization_alias = name
            info.title = info.title or name.replace("_", " ").strip().title()
        fields[attribute] = (hint, info)
    return fields, attributes


def _attribute(name: str, shown: dict[str, inspect.Parameter]) -> str:
    """`name`, unless pydantic has another use for it (`json`, `copy`, a leading underscore)."""
    if not name.startswith("_") and not hasattr(BaseModel, name):
        return name
    attribute = f"arg_{name.lstrip('_')}"
    while attribute in shown:
        attribute += "_"
    return attribute


def _spoken(hint: Any) -> str | None:
    """The plain text in `Annotated[int, "how many"]`."""
    if get_origin(hint) is Annotated:
        return next((extra for extra in get_args(hint)[1:] if isinstance(extra, str)), None)
    return None


class _JsonSchema(GenerateJsonSchema):
    # A default that has no JSON is left out of the schema; the call has it all the same.
    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012  # pydantic's own declaration


def _model(
    name: str, fields: dict[str, tuple[Any, FieldInfo]], strict: bool, open_ended: bool
) -> tuple[type[BaseModel], dict[str, Any]]:
    try:
        return _build(name, fields, strict, open_ended)
    except _NO_SCHEMA as error:
        culprit, reason = next(_culprits(name, fields, strict), (None, error))
        where = f"parameter {culprit!r} has" if culprit else "its signature has"
        remedy = (
            "Or turn strict mode off: strict_mode=False."
            if isinstance(reason, SchemaError)
            else "Annotate it with a type that JSON can express: str, int, a list, a pydantic model."
        )
        kind = "strict JSON schema" if isinstance(reason, SchemaError) else "JSON schema"
        raise SchemaError(f"Tool {name!r}: {where} no {kind}. {reason_of(reason)} {remedy}") from error


_NO_SCHEMA = (
    PydanticUserError,
    PydanticInvalidForJsonSchema,
    CoreSchemaError,
    SchemaError,
    TypeError,
    NameError,
)


def _build(
    name: str, fields: dict[str, tuple[Any, FieldInfo]], strict: bool, open_ended: bool
) -> tuple[type[BaseModel], dict[str, Any]]:
    # With `**kwargs`, a model tends to write them beside the others instead of into their own
    # object, where they would be dropped: so it is told.
    extra = "forbid" if open_ended else None
    config = ConfigDict(protected_namespaces=(), extra=extra)
    create: Any = create_model
    model: type[BaseModel] = create(
        f"{re.sub(r'[^0-9A-Za-z_]', '_', name)}_args", __config__=config, **fields
    )
    schema = model.model_json_schema(schema_generator=_JsonSchema)
    schema["title"] = f"{name}_args"
    return model, ensure_strict_json_schema(schema) if strict else schema


def _culprits(
    name: str, fields: dict[str, tuple[Any, FieldInfo]], strict: bool
) -> Iterator[tuple[str, Exception]]:
    """The parameters that have no schema by themselves, and why."""
    for attribute, definition in fields.items():
        try:
            _build(name, {attribute: definition}, strict, open_ended=False)
        except _NO_SCHEMA as error:
            yield definition[1].alias or attribute, error
