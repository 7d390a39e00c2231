"""The text of a run: the deltas of what its model writes, as a fold over entries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from millstream import raw

if TYPE_CHECKING:
    from millstream.events import RawResponsesStreamEvent
    from millstream.log.promise import Payload

_DELTA = b"response.output_text.delta"


def text_delta(payload: Payload) -> str | None:
    """The piece of text that a payload of the log adds to the answer, or None where it adds none."""
    if payload.__class__ is bytes:
        # A scan of the bytes spares decoding what is no text; a text that quotes the type is decoded in vain.
        if _DELTA not in payload:  # pyright: ignore[reportOperatorIssue]
            return None
        event = raw.decode(payload)  # pyright: ignore[reportArgumentType]
    elif payload.type == "raw_response_event":  # pyright: ignore[reportAttributeAccessIssue]
        event = _data(payload)  # pyright: ignore[reportArgumentType]
    else:
        return None
    return event.delta if event.type == "response.output_text.delta" else None


def _data(event: RawResponsesStreamEvent):  # noqa: ANN202
    return event.data
