"""Schemas: what a model has to write for a function to be called with it."""

from __future__ import annotations

from millstream.schema.docstring import DocstringStyle, FuncDocumentation, generate_func_documentation
from millstream.schema.function import FuncSchema, function_schema
from millstream.schema.problems import problems, reason_of
from millstream.schema.strict import ensure_strict_json_schema

__all__ = [
    "DocstringStyle",
    "FuncDocumentation",
    "FuncSchema",
    "ensure_strict_json_schema",
    "function_schema",
    "generate_func_documentation",
    "problems",
    "reason_of",
]
