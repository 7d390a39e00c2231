"""What the requests of all wires have in common: input as plain items, and what settings add."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from millstream.errors import InputItemError, UserError

if TYPE_CHECKING:
    from millstream.config import ModelSettings
    from millstream.items import TResponseInputItem

FAKE_ID = "__fake_id__"
"""The id that the OpenAI Agents SDK gives what a model without ids said; it is in people's sessions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request of a model.

    `timeout` bounds all of it, in seconds; `client_timeout` is for the HTTP client to
    interpret, and replaces what the client was made with. With `tries_once` the client does not
    send it again by itself.
    """

    path: str
    body: Mapping[str, Any]
    headers: Mapping[str, Any] | None = None
    query: Mapping[str, Any] | None = None
    timeout: float | None = None
    client_timeout: Any = None
    tries_once: bool = False


def build_request(path: str, body: Mapping[str, Any], settings: ModelSettings) -> Request:
    """The request of `body` and of what `settings` add to any request; None in `body` means left out.

    Raises:
        UserError: `extra_args` sets what the request has already.
    """
    whole: dict[str, Any] = {name: value for name, value in body.items() if value is not None}
    extra_args = dict(settings.extra_args or {})
    client_timeout = extra_args.pop("timeout", None)
    twice = sorted(whole.keys() & extra_args.keys())
    if twice:
        raise UserError(f"ModelSettings.extra_args sets {', '.join(twice)}, which the request has already.")
    whole |= extra_args
    # The last word: this is how one overrides what we put in.
    whole |= cast("Mapping[str, Any]", settings.extra_body or {})
    return Request(
        path=path,
        body=whole,
        headers=cast("Mapping[str, Any] | None", settings.extra_headers),
        query=cast("Mapping[str, Any] | None", settings.extra_query),
        timeout=settings.timeout,
        client_timeout=client_timeout,
        tries_once=settings.retry is not None,
    )


def plain_items(input: str | list[TResponseInputItem]) -> list[dict[str, Any]]:
    """Input as plain JSON objects, in order.

    Raises:
        InputItemError: an element is neither a dict nor an object of `openai.types`.
    """
    if isinstance(input, str):
        return [{"content": input, "role": "user"}]
    items: list[dict[str, Any]] = []
    for index, item in enumerate(cast("list[Any]", input)):
        if isinstance(item, dict):
            items.append(cast("dict[str, Any]", item))
        elif hasattr(item, "model_dump"):
            items.append(item.model_dump(mode="json", exclude_unset=True, by_alias=True, warnings=False))
        else:
            raise InputItemError(
                f"Input item {index} is a {type(item).__name__}. Items are dicts such as "
                "{'role': 'user', 'content': '…'}, or what a result gives as to_input_list()."
            )
    return items


def item_type(item: Mapping[str, Any], index: int) -> str:
    """The type of an input item; "message" where only a role tells.

    Raises:
        InputItemError: it has neither a type nor a role.
    """
    kind = item.get("type")
    if isinstance(kind, str):
        return kind
    if kind is None and isinstance(item.get("role"), str):
        return "message"
    raise InputItemError(
        f"Input item {index} has neither a `type` nor a `role` (its keys: {', '.join(map(str, item)) or 'none'})."
    )
