"""The text of a run: the deltas of what its model writes, as a fold over entries.

What was given cannot be taken back: where the model is asked again, by this process or by another
that goes on with the run, the text goes on with that of the next try. Entries tell where.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from millstream import raw
from millstream.events import RawResponsesStreamEvent

if TYPE_CHECKING:
    from millstream.log.promise import Payload

_DELTA = b"response.output_text.delta"


class _Delta(msgspec.Struct):
    """The two fields of a text delta that are looked at here; the typed event costs eight times as much."""

    type: Any = None
    delta: Any = None


_read = msgspec.json.Decoder(_Delta).decode


def _decode(payload: bytes) -> Any:
    try:
        return _read(payload)
    except msgspec.MsgspecError:
        return raw.decode(payload)  # says what is wrong with it


def text_delta(payload: Payload) -> str | None:
    """The piece of text that a payload of the log adds to the answer, or None where it adds none."""
    if isinstance(payload, bytes):
        # A scan of the bytes spares decoding what is no text; a text that quotes the type is decoded in vain.
        if _DELTA not in payload:
            return None
        event = _decode(payload)
    elif isinstance(payload, RawResponsesStreamEvent):
        event = payload.data
    else:
        return None
    if getattr(event, "type", None) != "response.output_text.delta":
        return None
    delta = getattr(event, "delta", None)
    return delta if isinstance(delta, str) and delta else None  # no server's frame was checked
