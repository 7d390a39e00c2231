"""The text of a run: the deltas of what the model writes."""

import pytest

from millstream.agent import Agent
from millstream.events import RawResponsesStreamEvent, RunItemStreamEvent, UserEvent
from millstream.items import MessageOutputItem
from millstream.log.promise import Payload
from millstream.raw import decode
from millstream.stream.text import text_delta
from millstream.testing import assistant_message

DELTA = b'{"type":"response.output_text.delta","delta":"caf\xc3\xa9","item_id":"m","output_index":0,"content_index":0}'
QUOTES_IT = b'{"type":"response.output_text.done","text":"response.output_text.delta"}'
NO_TEXT = [
    b'{"type":"response.output_text.delta","delta":%b}' % delta
    for delta in (b"null", b"5", b'{"a":"b"}', b'["x"]')
]
NO_DELTA = b'{"type":"response.output_text.delta"}'
OTHER = b'{"type":"response.refusal.delta","delta":"no"}'


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (DELTA, "café"),
        (RawResponsesStreamEvent(decode(DELTA)), "café"),
        (RawResponsesStreamEvent.from_wire(DELTA), "café"),
        (QUOTES_IT, None),
        (OTHER, None),
        (RawResponsesStreamEvent.from_wire(OTHER), None),
        (RunItemStreamEvent(item=MessageOutputItem(Agent(name="A"), assistant_message("café"))), None),
        (UserEvent(name="response.output_text.delta"), None),
        *((frame, None) for frame in [*NO_TEXT, NO_DELTA]),
        *((RawResponsesStreamEvent.from_wire(frame), None) for frame in [*NO_TEXT, NO_DELTA]),
        (RawResponsesStreamEvent(None), None),  # pyright: ignore[reportArgumentType]
    ],
)
def test_only_what_the_model_writes_as_text_is_text(payload: Payload, text: str | None) -> None:
    assert text_delta(payload) == text
