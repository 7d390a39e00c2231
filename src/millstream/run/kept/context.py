"""The program's own context object, as what is kept of a run has it, and as it is made of that again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from typing import Any, TypeAlias, cast

from millstream import codec
from millstream.context import RunContextWrapper
from millstream.errors import RunStateError
from millstream.run.kept.document import ContextDocument

logger = logging.getLogger("millstream")

ContextSerializer: TypeAlias = Callable[[Any], Mapping[str, Any]]
"""Makes of a context object what JSON can hold."""

ContextDeserializer: TypeAlias = Callable[[Mapping[str, Any]], Any]
"""Makes a context object of what its serializer made."""

ContextOverride: TypeAlias = "Mapping[str, Any] | RunContextWrapper[Any]"


def context_document(context: Any, serializer: ContextSerializer | None, *, strict: bool) -> ContextDocument:
    """What a document has of the program's context object.

    Raises:
        RunStateError: it cannot be kept, and that is not to be passed over.
    """
    kind = type(context).__name__
    if context is None:
        return ContextDocument()
    if isinstance(context, Mapping):
        return ContextDocument(kind="json", type=kind, value=_as_json(cast("Any", context), "The context"))
    if serializer is not None:
        made = serializer(context)
        if not isinstance(made, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise RunStateError(f"context_serializer returned {type(made).__name__}, not a mapping.")
        value = _as_json(cast("Any", made), "What context_serializer returned")
        return ContextDocument(kind="custom", type=kind, value=value)
    if strict:
        raise RunStateError(
            f"The context is a {kind}, which is no mapping. Pass context_serializer=, which makes one of it."
        )
    if isinstance(context, str | int | float | list):
        return ContextDocument(kind="json", type=kind, value=_as_json(cast("Any", context), "The context"))
    document = as_it_is(context)
    if document.kind == "omitted":
        logger.warning(
            "a state is kept without its context, a %s, which is no JSON: pass context_serializer= to keep it, or "
            "context_override= when it is read",
            kind,
        )
    return document


def as_it_is(context: Any) -> ContextDocument:
    """What a document has of a context that nobody serializes: itself where it is JSON, its fields, or only its class."""
    kind = type(context).__name__
    if context is None:
        return ContextDocument()
    bad: list[codec.BadField] = []
    if isinstance(context, Mapping | str | int | float | list):
        value = codec.decode(codec.encode(cast("Any", context), bad=bad))
        if not bad:
            return ContextDocument(kind="json", type=kind, value=value)
    elif is_dataclass(context) or hasattr(context, "model_dump"):
        value = codec.decode(codec.encode(context, bad=bad))
        if not bad:
            return ContextDocument(kind="custom", type=kind, value=value)
    return ContextDocument(kind="omitted", type=kind)


def _as_json(value: Any, what: str) -> Any:
    bad: list[codec.BadField] = []
    plain = codec.decode(codec.encode(value, bad=bad))
    if bad:
        raise RunStateError(
            f"{what} has no JSON at {bad[0].path or 'its top'} ({bad[0].type}): a state keeps what JSON can hold. "
            "Leave it out of the context, and pass the rest with context= when the run goes on."
        )
    return plain


def context_from(
    document: ContextDocument,
    override: ContextOverride | None,
    deserializer: ContextDeserializer | None,
) -> RunContextWrapper[Any] | None:
    """The context of a run that is read back; None where the document alone does not have it."""
    if isinstance(override, RunContextWrapper):
        return override
    if override is not None:
        return RunContextWrapper(context=override)
    if document.kind in ("none", "json"):
        return RunContextWrapper(context=document.value)
    if document.kind == "custom" and deserializer is not None and isinstance(document.value, dict):
        return RunContextWrapper(context=deserializer(cast("dict[str, Any]", document.value)))
    return None


def no_context(document: ContextDocument) -> RunStateError:
    """What to raise where a context is needed and only this is left of it."""
    return RunStateError(
        f"The context of this run, a {document.type}, is not in its state as it was. Pass context_deserializer= or "
        "context_override= where the state is read, or context= where the run goes on."
    )
