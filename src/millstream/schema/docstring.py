"""Docstrings: the description of a function and of its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

DocstringStyle: TypeAlias = Literal["google", "numpy", "sphinx"]

_MAY_HAVE_SECTIONS = re.compile(r"^[ \t]*(:\w+[^:\n]*:|-{3,}[ \t]*$|[A-Z]\w*( \w+)?:[ \t]*$)", re.MULTILINE)
"""A field (sphinx), an underline (numpy) or a heading (google). Nothing of these: all is description."""


@dataclass
class FuncDocumentation:
    """What a docstring says."""

    name: str
    """The function's name."""
    description: str | None
    """The text of the docstring without its sections."""
    param_descriptions: dict[str, str] | None
    """Descriptions by parameter, without asterisks."""


def generate_func_documentation(
    func: Callable[..., Any], style: DocstringStyle | None = None
) -> FuncDocumentation:
    """Read the docstring of `func`. Without a `style`, the one it seems to be written in."""
    name = getattr(func, "__name__", type(func).__name__)
    doc = inspect.getdoc(func)
    if not doc:
        return FuncDocumentation(name, None, None)
    # The parser takes a fifth of a second to import, so ask it only where there is something to parse.
    if style is None and not _MAY_HAVE_SECTIONS.search(doc):
        return FuncDocumentation(name, doc.strip(), None)
    return FuncDocumentation(name, *_parse(doc, style))


def _parse(doc: str, style: DocstringStyle | None) -> tuple[str | None, dict[str, str] | None]:
    import griffe

    docstring = griffe.Docstring(doc, lineno=1)
    # What a linter would say of the docstring does not interest here.
    silent: Any = {"warnings": False}
    if style is None:
        styles: Any = dict.fromkeys(("google", "numpy", "sphinx"), silent)
        sections = griffe.parse_auto(docstring, default="google", per_style_options=styles)
    else:
        sections = griffe.parse(docstring, style, **silent)
    texts: list[str] = []
    params: dict[str, str] = {}
    for section in sections:
        if section.kind is griffe.DocstringSectionKind.text:
            texts.append(section.value.strip())
        elif section.kind in (
            griffe.DocstringSectionKind.parameters,
            griffe.DocstringSectionKind.other_parameters,
        ):
            params |= {each.name.lstrip("*"): each.description for each in section.value}
    return "\n\n".join(filter(None, texts)) or None, params or None
