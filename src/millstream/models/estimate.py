"""What a call has used whose server does not tell: counted from its texts, without I/O.

Rules of this file:

1. It is an estimate and says so: `Usage.estimated`. It is meant to be right within a third,
   which is enough to see what costs, and too little to send a bill.
2. It costs no tokenizer, which would be another one for each vendor: tokens are told from
   what UTF-8 makes of a text (`estimate_tokens`).
3. What has no text is not counted, but for images, which are counted alike; nor is what the
   server remembers of earlier calls.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from millstream import codec
from millstream.models.request import plain_items
from millstream.usage import Usage

_PER_IMAGE = 765
"""Tokens of an image: what OpenAI documents for one of 1024 by 1024 pixels."""
_PER_ITEM = 4
"""Tokens that stand around each item: its role, its ends."""

_TEXTS = frozenset({"arguments", "content", "name", "output", "refusal", "summary", "text"})
"""Fields of an item that hold text, or lists of what holds some."""
_IMAGES = frozenset({"image_url", "input_image"})

_NOT_ASCII = bytes(range(0x80, 0x100))
_NOT_TWO = bytes(sorted(set(range(0x100)) - set(range(0xC2, 0xE0))))
_NOT_THREE = bytes(sorted(set(range(0x100)) - set(range(0xE0, 0xF0))))
_NOT_FOUR = bytes(sorted(set(range(0x100)) - set(range(0xF0, 0xF8))))


def estimate_tokens(text: str) -> int:
    """About how many tokens `text` is.

    Four characters of ASCII are a token, and two of the alphabets that take two bytes in UTF-8
    (accented Latin, Greek, Cyrillic, Hebrew, Arabic); a character of three bytes (Chinese,
    Japanese, Korean, most of Asia) is one, and one of four (emoji) is two.
    """
    if text.isascii():
        return -(-len(text) // 4)
    data = text.encode(errors="replace")
    one, two, three, four = (
        len(data.translate(None, others)) for others in (_NOT_ASCII, _NOT_TWO, _NOT_THREE, _NOT_FOUR)
    )
    return -(-(one + 2 * two + 4 * three + 8 * four) // 4)


def estimate_usage(
    count: Callable[[str], int],
    *,
    instructions: str | None,
    input: Any,
    tools: Iterable[Any],
    said: Iterable[Any],
) -> Usage | None:
    """The usage of one call, estimated; None where there was nothing to count.

    Args:
        count: about how many tokens a text is.
        instructions: what the model was told.
        input: the input items, as the model was given them.
        tools: its tools and handoffs.
        said: what came back: output items, or text.
    """
    items = plain_items(input)
    asked = [instructions or "", *_texts(items), *map(_definition, tools)]
    answer = _texts([one if isinstance(one, str) else plain_items([one])[0] for one in said])
    tokens_in, tokens_out = sum(map(count, asked)), sum(map(count, answer))
    if not tokens_in + tokens_out:
        return None
    tokens_in += _PER_ITEM * len(items) + _PER_IMAGE * _images(items)
    return Usage(
        requests=1,
        input_tokens=tokens_in,
        output_tokens=tokens_out,
        total_tokens=tokens_in + tokens_out,
        estimated=True,
    )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, tuple)):
        for each in cast("list[Any]", value):
            yield from _texts(each)
    elif isinstance(value, dict):
        for name, each in cast("dict[str, Any]", value).items():
            if name in _TEXTS:
                yield from _texts(each)


def _images(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(map(_images, cast("list[Any]", value)))
    if not isinstance(value, dict):
        return 0
    item = cast("dict[str, Any]", value)
    own = item.get("type")
    return int(isinstance(own, str) and own in _IMAGES) + sum(
        _images(each) for name, each in item.items() if name in _TEXTS
    )


def _definition(tool: Any) -> str:
    """A tool or a handoff, as the model reads of it."""
    words = [str(getattr(tool, name, None) or "") for name in _NAMES]
    schema = getattr(tool, "params_json_schema", None) or getattr(tool, "input_json_schema", None)
    return "".join([*words, codec.encode(schema).decode() if schema else ""])


_NAMES = ("name", "description", "tool_name", "tool_description")
