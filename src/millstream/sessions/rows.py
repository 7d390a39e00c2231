"""Items as they are stored: one line of JSON each, as the OpenAI Agents SDK writes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast

from millstream.errors import AgentsException, InputItemError
from millstream.items import as_input_item

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem

logger = logging.getLogger("millstream")


def written(items: Iterable[Any]) -> list[str]:
    """Each of `items` as JSON.

    Raises:
        InputItemError: one is no input item, or holds what JSON cannot say; names its place.
    """
    return [_written(index, item) for index, item in enumerate(items)]


def _written(index: int, item: Any) -> str:
    try:
        plain = as_input_item(item)
        # ASCII, so that half a surrogate pair, which models do send, is text like any other.
        return json.dumps(plain, allow_nan=False)
    except AgentsException:
        raise InputItemError(
            f"items[{index}] is a {type(item).__name__}, not an input item. "
            "An input item is a dict such as {'role': 'user', 'content': 'Hello'}."
        ) from None
    except (TypeError, ValueError, RecursionError) as error:
        raise InputItemError(
            f"items[{index}] cannot be stored as JSON: {error}. Store what it stands for, as text."
        ) from error


def read(row: str | bytes) -> TResponseInputItem | None:
    """The item of a row; None where somebody wrote there what is none."""
    try:
        item: Any = json.loads(row)
    except (ValueError, RecursionError):  # also bytes that are no UTF-8
        return None
    return cast("TResponseInputItem", item) if isinstance(item, Mapping) else None


def log_unreadable(session_id: str, count: int, where: str) -> None:
    """Say that rows were left out. What stands in them is the user's, and not for a log."""
    if count:
        logger.warning(
            "session %r: %d item(s) in %s cannot be read and are left out", session_id, count, where
        )
