"""Structured output while it grows: a fold over the payloads of one run.

Rules of this file:

1. A value only grows: text gets longer, lists and objects get more. A number, `true`, `false` or
   `null` is there when it is whole. What is there stays, until the model starts over.
2. Where the model starts over (another turn, another try, another agent, another process that goes
   on with the run), and where what it said is taken back, a `Partial` without a value says that what
   came before is void.
3. The text is parsed from its beginning, which the parser does at some 50 MB a second. So that a
   long text does not cost its length for every read of the socket, it is parsed when it has
   grown by a part of its length: all of it costs about `_PART` times its length.
4. What is no JSON gives nothing. Whether it is the output is said where the run has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeAlias, cast

from pydantic_core import from_json
from typing_extensions import TypeVar

from millstream.agent.output import output_schema_of
from millstream.events import (
    AgentUpdatedStreamEvent,
    ModelRetried,
    ModelStarted,
    RawResponsesStreamEvent,
    RunAttempt,
    RunCompleted,
    RunItemStreamEvent,
    TextRetracted,
)
from millstream.items import ItemHelpers
from millstream.stream.text import text_delta

if TYPE_CHECKING:
    from millstream.agent import AgentOutputSchemaBase
    from millstream.log.promise import Payload

T_co = TypeVar("T_co", covariant=True, default=Any)

Path: TypeAlias = tuple[str | int, ...]

_SHORT = 8192
"""Characters of a text that is parsed with every read."""
_PART = 32
"""A longer one is parsed when it has grown by this part of its length."""


@dataclass(frozen=True)
class Partial(Generic[T_co]):
    """What there is of an output of type `T_co`, which is still being written. It was not validated."""

    value: Any = None
    """The output as far as it is written, as plain data: text, numbers, lists and dicts, as JSON
    has them, and only those fields that have begun. None where nothing has, and where what came
    before is void, as the model starts over."""
    path: Path = ()
    """Where in `value` it is being written: the keys and indexes that lead to the text, list or
    object that is not closed. Everything beside that way is whole."""


class PartialOutput:
    """Folds the payloads of one run into what there is of its output, and at last the output itself.

    Args:
        agent: the agent that acts at first, where no event says so.
    """

    __slots__ = ("_ended", "_parsed", "_scan", "_schema", "_shown", "_text", "_wrapped")

    def __init__(self, agent: Any = None) -> None:
        self._shown: Partial[Any] = Partial()
        self._schema: AgentOutputSchemaBase | None = None
        self._wrapped = False
        self._start()
        self._write_as(agent)

    def feed(self, payloads: Iterable[Payload]) -> list[Any]:
        """What `payloads` make of it: `Partial`s, and behind them the output where the run has it."""
        found: list[Any] = []
        for payload in payloads:
            if isinstance(payload, bytes | RawResponsesStreamEvent):
                delta = text_delta(payload)
                if delta is not None:
                    if self._ended:  # another message
                        found += self._void()
                    self._add(delta)
            elif isinstance(payload, RunItemStreamEvent):
                if payload.name == "message_output_created":
                    found += self._message(ItemHelpers.extract_text(cast("Any", payload.item.raw_item)))
            elif isinstance(payload, AgentUpdatedStreamEvent):
                found += self._void()
                self._write_as(payload.new_agent)
            elif isinstance(payload, ModelStarted | ModelRetried | RunAttempt | TextRetracted):
                found += self._void()
            elif isinstance(payload, RunCompleted):
                found.append(payload.output)
                return found
        return [*found, *self._grown()]

    def _write_as(self, agent: Any) -> None:
        self._schema = output_schema_of(getattr(agent, "output_type", None))
        self._wrapped = getattr(self._schema, "is_wrapped", False)

    # --- the text --------------------------------------------------------------------------

    def _start(self) -> None:
        self._text: list[str] = []
        self._scan = _Scan()
        self._parsed = 0
        self._ended = False

    def _void(self) -> Iterator[Partial[Any]]:
        self._start()
        if self._shown.value is not None:
            self._shown = Partial()
            yield self._shown

    def _add(self, delta: str) -> None:
        self._text.append(delta)
        self._scan.feed(delta)

    def _message(self, text: str | None) -> Iterator[Partial[Any]]:
        """A message is whole: also one of which no delta was streamed."""
        if self._ended:
            yield from self._void()
        if text and "".join(self._text) != text:
            self._start()
            self._add(text)
        yield from self._grown(whole=True)
        self._ended = True

    # --- the value -------------------------------------------------------------------------

    def _grown(self, *, whole: bool = False) -> Iterator[Partial[Any]]:
        """What has become of the output, if enough of its text is new."""
        length = self._scan.length
        step = 1 if whole else max(1, (length - _SHORT) // _PART)
        if self._ended or length - self._parsed < step:
            return
        self._parsed = length
        self._text = ["".join(self._text)]
        partial = self._partial(self._text[0])
        if partial.value is not None and partial != self._shown:
            self._shown = partial
            yield partial

    def _partial(self, text: str) -> Partial[Any]:
        if self._schema is None or self._schema.is_plain_text():
            return Partial(text)
        if not self._scan.in_string:
            text = text.rstrip(_OF_NUMBERS)  # 12 may become 120
        try:
            value: Any = from_json(text, allow_partial="trailing-strings", allow_inf_nan=False)
        except (ValueError, TypeError):  # also text with lone surrogates
            return Partial()
        path = self._scan.path(value)
        if self._wrapped:
            fields = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
            return Partial(fields.get(_WRAPPER_KEY), path[1:])
        return Partial(value, path)


_OF_NUMBERS = "0123456789+-.eE"
_WRAPPER_KEY = "response"


class _Scan:
    """Where in a JSON text its end is, told from its pieces, each looked at once."""

    __slots__ = ("_escaped", "_is_key", "_open", "in_string", "length")

    def __init__(self) -> None:
        self.length = 0
        self.in_string = False
        """Whether the text ends within a string."""
        self._escaped = False
        self._open: list[str] = []
        """The brackets of the lists and objects that are not closed."""
        self._is_key = False
        """Whether a string of an object that begins here is a key."""

    def feed(self, text: str) -> None:
        """Take in the next piece."""
        self.length += len(text)
        at = 0
        if self._escaped and text:
            self._escaped = False
            at = 1
        while match := (_IN_STRING if self.in_string else _STRUCTURE).search(text, at):
            at = match.end()
            mark = match[0]
            if mark == '"':
                self.in_string = not self.in_string
            elif mark == "\\":
                self._escaped = at == len(text)
                at += 1
            elif mark in "}]":
                if self._open:
                    self._open.pop()
            else:
                self._is_key = mark != ":"
                if mark in "{[":
                    self._open.append(mark)

    def path(self, value: Any) -> Path:
        """The way to what is written at the end of the text, of which `value` was read."""
        path: list[str | int] = []
        steps = len(self._open) - 1
        if self.in_string and self._open and not (self._is_key and self._open[-1] == "{"):
            steps += 1
        for _ in range(steps):
            last = _last(value)
            if last is None:  # the text goes on behind its end, or has a key twice
                break
            path.append(last)
            value = value[last]
        return tuple(path)


_IN_STRING = re.compile(r'["\\]')
_STRUCTURE = re.compile(r'["{}\[\],:]')


def _last(value: Any) -> str | int | None:
    """The key or index of what was added to `value` last."""
    if isinstance(value, list):
        return len(cast("list[Any]", value)) - 1 if value else None
    return next(reversed(cast("dict[str, Any]", value)), None) if isinstance(value, dict) else None
