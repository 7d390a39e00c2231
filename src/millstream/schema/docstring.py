"""Docstrings: the description of a function and of its parameters."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

DocstringStyle: TypeAlias = Literal["google", "numpy", "sphinx"]

_SIGNS: dict[DocstringStyle, re.Pattern[str]] = {
    "sphinx": re.compile(
        r"^[ \t]*:(param|type|raises?|returns?|rtype|arg|argument|key|keyword)\b[^:\n]*:", re.MULTILINE
    ),
    "numpy": re.compile(r"^[ \t]*[A-Z][\w ]*\n[ \t]*-{3,}[ \t]*$", re.MULTILINE),
    "google": re.compile(r"^[ \t]*([A-Z]\w*( \w+)?|args|arguments|params|parameters):[ \t]*$", re.MULTILINE),
}
"""By what a style is known: a field, an underlined heading, a heading with a colon. The first that fits."""

_CROWDED = re.compile(
    r"(?<=\S\n)(?=(?:((keyword|other) )?(args|arguments|params|parameters)"
    r"|raises|exceptions|returns|yields|receives):[ \t]*\n[ \t]+\S)",
    re.IGNORECASE,
)
"""Where a heading of Google's style stands right below text, with something indented below it."""


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
    style = style or next((each for each, sign in _SIGNS.items() if sign.search(doc)), None)
    # The parser takes a fifth of a second to import, so ask it only where there is something to parse.
    if style is None:
        return FuncDocumentation(name, doc.strip(), None)
    return FuncDocumentation(name, *_parse(doc, style))


def _parse(doc: str, style: DocstringStyle) -> tuple[str | None, dict[str, str] | None]:
    import griffe

    if style == "google":  # the parser takes such a heading for text, and we know what is meant
        doc = _CROWDED.sub("\n", re.sub(r"[ \t]+$", "", doc, flags=re.MULTILINE))
    # The newline: a heading in the very first line is not seen as one. The warnings: what a
    # linter would say of the docstring does not interest here.
    sections = griffe.parse(griffe.Docstring(f"\n{doc}", lineno=1), style, warnings=False)
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
