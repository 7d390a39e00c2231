"""Problems: what is wrong with JSON that a model wrote, or with a type, said so that one can do better."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic.errors import PydanticUserError


def problems(error: ValidationError) -> str:
    """Each problem with its place, on one line. Never the values themselves: they may be secrets."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}" if each["loc"] else each["msg"]
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    )


def reason_of(error: Exception) -> str:
    """Why a type has no schema: one sentence, without pydantic's advice on models of its own."""
    text = str(error).strip().split("\n")[0].rstrip()
    if isinstance(error, PydanticUserError):
        text = text.split(". ")[0].split("; you should")[0]
    return text if text.endswith((".", "!", "?")) else f"{text}."
