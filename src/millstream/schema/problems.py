"""Problems: what is wrong with JSON that a model wrote, said so that the model can do better."""

from __future__ import annotations

from pydantic import ValidationError


def problems(error: ValidationError) -> str:
    """Each problem with its place, on one line. Never the values themselves: they may be secrets."""
    return "; ".join(
        f"{'.'.join(map(str, each['loc']))}: {each['msg']}" if each["loc"] else each["msg"]
        for each in error.errors(include_url=False, include_context=False, include_input=False)
    )
