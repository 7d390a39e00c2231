"""What crosses the wire as JSON Schema: read off the very classes that are sent and read.

Events, items and entries write themselves as JSON in ways of their own (`events.py`, `items.py`). So each
of their classes has a struct here that is made of its fields, and stands for its JSON; whatever is a struct
stands for itself. The words for a field are its attribute docstring, read from the source where there is one.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Union, get_type_hints

import msgspec

from millstream.delivery.frame import StreamError, StreamGap, StreamPosition
from millstream.events import EVENT_TYPES, Entry, RawResponsesStreamEvent, RunItemStreamEvent, Stamp
from millstream.items import ITEM_TYPES, AgentRef, ToolCallOutputItem

Schema = dict[str, Any]

Field = tuple[str, Any] | tuple[str, Any, Any]
"""Of a struct: its name, its type, and what it is where it is left out."""

OF_STREAMS = (StreamPosition, StreamGap, StreamError)
"""What a stream sends besides entries."""


class _AgentType:
    """Stands for the class of agents, of which JSON has the name alone."""

    def __class_getitem__(cls, _: Any) -> type[AgentRef]:
        return AgentRef


_NAMES: dict[str, Any] = {
    "Agent": _AgentType,
    "ResponseOutputMessage": Any,
    "ResponseReasoningItem": Any,
    "ResponseFunctionToolCall": Any,
    "FunctionCallOutput": Any,
}
"""What names mean that are imported for annotations alone. The payloads of models are described by who makes them."""


def schemas_of(structs: Iterable[type[msgspec.Struct]]) -> dict[str, Schema]:
    """JSON Schemas by the names of their classes: of `structs`, and of all that the stream of a run is made of."""
    forms = [*structs, *OF_STREAMS]
    _, found = msgspec.json.schema_components([*forms, _entry()], ref_template="#/components/schemas/{name}")
    for module in {form.__module__ for form in forms}:
        for name, cls in vars(sys.modules[module]).items():
            if name in found and isinstance(cls, type) and issubclass(cls, msgspec.Struct):
                _describe(found[name]["properties"], cls)
    for schema in found.values():
        schema["description"] = inspect.cleandoc(schema["description"])
    envelope = found["Entry"]["properties"]
    found["Event"] = {"description": "What a run has said.", **envelope["event"]}
    envelope["event"] = ref("Event")
    found["StreamMessage"] = {
        "description": "An entry of the log of a run, or something that its stream tells of itself.",
        "anyOf": [ref("Entry"), *(ref(form.__name__) for form in OF_STREAMS)],
    }
    return found


_MAY_LACK = {(ToolCallOutputItem, "output")}
"""Fields without default that JSON leaves out: a text that `raw_item` has too is not written twice."""


def ref(name: str) -> Schema:
    """The schema of that name."""
    return {"$ref": f"#/components/schemas/{name}"}


def _entry() -> type[msgspec.Struct]:
    """What stands for the JSON of an entry."""
    place: Field = ("position", Annotated[int, msgspec.Meta(ge=1)])
    told: list[Field] = []
    for name, kind, *_ in _fields(Stamp):
        words = msgspec.Meta(description=getattr(Entry, name).__doc__)
        told.append((name, Annotated[kind, words]))
    fields: list[Field] = [place, *told, ("event", _event())]
    return msgspec.defstruct("Entry", fields, kw_only=True, namespace={"__doc__": Entry.__doc__})


def _event() -> Any:
    """What stands for the JSON of any event."""
    item = _union(_like(cls, kind) for kind, cls in ITEM_TYPES.items())
    special: dict[type[Any], list[Field]] = {
        RawResponsesStreamEvent: [("data", Any)],
        RunItemStreamEvent: [("name", str), ("item", item)],
    }
    return _union(_like(cls, kind, special.get(cls)) for kind, cls in EVENT_TYPES.items())


def _union(kinds: Iterable[Any]) -> Any:
    return Union[tuple(kinds)]  # noqa: UP007  # of as many as there are


def _like(cls: type[Any], tag: str, fields: list[Field] | None = None) -> type[msgspec.Struct]:
    """What stands for the JSON of an event or an item."""
    return msgspec.defstruct(
        cls.__name__,
        fields or list(_fields(cls)),
        tag_field="type",
        tag=tag,
        kw_only=True,
        namespace={"__doc__": cls.__doc__},
    )


def _fields(cls: type[Any]) -> Iterator[Field]:
    """The fields of a dataclass. Who reads an older log finds none that has a default, so that it may be left out."""
    hints, words = get_type_hints(cls, localns=_NAMES, include_extras=True), _words_of(cls)
    for field in dataclasses.fields(cls):
        told = msgspec.Meta(description=words.get(field.name))
        has_default = field.default is not field.default_factory  # of which one is MISSING, else both
        if field.name == "type":
            continue
        if has_default or (cls, field.name) in _MAY_LACK:
            yield field.name, Annotated[hints[field.name] | msgspec.UnsetType, told], msgspec.UNSET
        else:
            yield field.name, Annotated[hints[field.name], told]


# --- words ------------------------------------------------------------------------------------


def _describe(properties: Schema, form: type[msgspec.Struct]) -> None:
    words = _words_of(form)
    for field in msgspec.structs.fields(form):
        if field.name in words:
            properties[field.encode_name]["description"] = words[field.name]


def _words_of(cls: type[Any]) -> dict[str, str]:
    """The attribute docstrings of a class, with those that it has from others."""
    words: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        words |= _words_in(base.__module__).get(base.__name__, {})
    return words


@functools.cache
def _words_in(module: str) -> dict[str, dict[str, str]]:
    """The attribute docstrings of a module, by class; none where its source is not at hand."""
    try:
        source = inspect.getsource(sys.modules[module])
    except (OSError, TypeError):
        return {}
    return {node.name: _words_at(node) for node in ast.parse(source).body if isinstance(node, ast.ClassDef)}


def _words_at(node: ast.ClassDef) -> dict[str, str]:
    words: dict[str, str] = {}
    for each, behind in itertools.pairwise(node.body):
        match each, behind:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                words[name] = inspect.cleandoc(text)
            case _:
                pass
    return words
