"""Strict JSON schemas: the part of JSON Schema that the model's API guarantees to keep to.

In strict mode every object names all its properties, requires them all and admits no other;
there is no `oneOf`, no `allOf` of one, no default of null, and nothing stands beside a `$ref`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

from millstream.errors import SchemaError

Schema = dict[str, Any]

_MAPS = ("properties", "$defs", "definitions")
"""Keywords whose value is a schema per name."""
_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
"""Keywords whose value is a list of schemas."""


def ensure_strict_json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """A strict schema that admits what `schema` admits; `schema` itself is left as it is.

    Raises:
        SchemaError: an object admits properties that are not named, which no strict schema can.
    """
    if not schema:
        return {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    root = copy.deepcopy(schema)
    return _strict(root, root, path="", inlined=frozenset())


def _strict(schema: Any, root: Schema, path: str, inlined: frozenset[str]) -> Any:
    if not isinstance(schema, dict):
        return schema  # `True`, which admits anything
    schema = cast("Schema", schema)
    ref = schema.get("$ref")
    if isinstance(ref, str) and len(schema) > 1:
        # A type that contains itself would be inlined for ever: there the siblings go.
        if ref in inlined:
            return {"$ref": ref}
        siblings = {name: value for name, value in schema.items() if name != "$ref"}
        schema = copy.deepcopy(_resolve(ref, root)) | siblings
        inlined |= {ref}
    _close(schema, path)
    for name in _MAPS:
        if isinstance(part := schema.get(name), dict):
            below = cast("Schema", part)
            for key in below:
                below[key] = _strict(below[key], root, f"{path}.{key}" if path else key, inlined)
    for name in _LISTS:
        if isinstance(part := schema.get(name), list):
            schema[name] = [_strict(each, root, path, inlined) for each in cast("list[Any]", part)]
    if "items" in schema:
        schema["items"] = _strict(schema["items"], root, f"{path}[]", inlined)
    return _plain_unions(schema)


def _close(schema: Schema, path: str) -> None:
    """Name all that an object may hold, and require it."""
    if schema.get("type") == "object" and schema.setdefault("additionalProperties", False) is not False:
        where = f" at {path!r}" if path else ""
        raise SchemaError(
            f"An object{where} may hold properties of any name (a dict, **kwargs, or extra fields), "
            "which strict mode does not take: name its fields, with a TypedDict or a model say."
        )
    properties = schema.get("properties")
    if isinstance(properties, Mapping):
        schema["required"] = list(cast("Mapping[str, Any]", properties))
    if "default" in schema and schema["default"] is None:
        del schema["default"]


def _plain_unions(schema: Schema) -> Schema:
    if "oneOf" in schema:
        schema["anyOf"] = schema.get("anyOf", []) + schema.pop("oneOf")
    if isinstance(schema.get("allOf"), list) and len(schema["allOf"]) == 1:
        (only,) = schema.pop("allOf")
        schema |= only
    return schema


def _resolve(ref: str, root: Schema) -> Schema:
    if not ref.startswith("#/"):
        raise SchemaError(f"The schema refers to {ref!r}: only references within the schema can be followed.")
    found: Any = root
    for key in ref[2:].split("/"):
        found = found.get(key) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(found, dict):
        raise SchemaError(f"The schema refers to {ref!r}, which it does not have.")
    return cast("Schema", found)
