"""`check_stream`: holds any stream of a run to the grammar (`docs/grammar.md`).

```python
async def test_my_app() -> None:
    run = Runner.run_streamed(agent, "Hello")
    await check_stream(run.entries())
```
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import AsyncIterable, Awaitable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast, overload

from millstream import codec
from millstream.errors import DecodeError
from millstream.events import EVENT_TYPES, Entry, Event, Stamp, entry_from, event_from
from millstream.items import call_id_of
from millstream.stream.grammar import StreamGrammar, Violation
from millstream.stream.grammar.raw import read_raw

Piece: TypeAlias = "Entry | Event | Mapping[str, Any] | bytes | str"
"""An entry, an event without its envelope, the JSON of either, or a line of a stream of such JSON."""

BEFORE, AFTER = 3, 2
"""How many neighbours of a problem are shown."""
MAX_PROBLEMS = 1_000
"""Problems of one stream that are kept; more are counted."""


class StreamGrammarError(AssertionError):
    """A stream breaks the grammar. `report` says where; so does the message."""

    def __init__(self, report: StreamReport) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True)
class StreamProblem:
    """A place where a stream breaks a clause."""

    clause: str
    """The clause by its name: see `docs/grammar.md`."""
    place: int
    """Which piece of the stream it is, from 1; one more than there are for what is missing at the end."""
    position: int | None
    """The position of that piece, where it has one."""
    run_id: str | None
    what: str
    """What is wrong, and what was expected."""
    around: list[str] = field(default_factory=list[str], compare=False)
    """The pieces before and after it, a line each; the piece itself is marked."""

    def __str__(self) -> str:
        where = f"piece {self.place}" if self.position is None else f"position {self.position}"
        return "\n".join(
            [f"{where}: {self.clause}", f"  {self.what}", *(f"  {line}" for line in self.around)]
        )


@dataclass(frozen=True)
class StreamReport:
    """What is wrong with a stream: everything, in its order."""

    pieces: int
    """How many entries or events there were."""
    runs: int
    problems: list[StreamProblem]
    left_out: int = 0
    """Problems beyond the first thousand."""

    @property
    def ok(self) -> bool:
        """Whether the stream keeps to the grammar."""
        return not self.problems

    def raise_for_problems(self) -> None:
        """Raise if there are problems.

        Raises:
            StreamGrammarError: an `AssertionError` whose message is the report.
        """
        if self.problems:
            raise StreamGrammarError(self)

    def to_dict(self) -> dict[str, Any]:
        """The report as values for JSON."""
        names = ("clause", "place", "position", "run_id", "what", "around")
        problems = [{name: getattr(problem, name) for name in names} for problem in self.problems]
        return {
            "ok": self.ok,
            "pieces": self.pieces,
            "runs": self.runs,
            "problems": problems,
            "left_out": self.left_out,
        }

    def __str__(self) -> str:
        seen = f"{_count(self.pieces, 'event')} of {_count(self.runs, 'run')}"
        if self.ok:
            return f"The stream keeps to the grammar: {seen}."
        told = [f"The stream breaks the grammar {_times(len(self.problems) + self.left_out)}: {seen}."]
        told += [str(problem) for problem in self.problems]
        if self.left_out:
            told.append(f"… and {_count(self.left_out, 'problem')} more.")
        return "\n\n".join(told)


class StreamChecker:
    """Holds a stream to the grammar piece by piece. Keeps what is open, not what it has read.

    Args:
        raw: hold the model's own events to the protocol of the Responses API, too. What a
            server says is passed through, so this is about the server.
        filtered: some entries were left out on purpose, so that positions may have holes.
    """

    def __init__(self, *, raw: bool = False, filtered: bool = False) -> None:
        self._raw = raw
        self._filtered = filtered
        self._grammar: StreamGrammar | None = None
        self._bare = False
        self._lines = _Lines()
        self._pieces = 0
        self._before: deque[str] = deque(maxlen=BEFORE)
        self._problems: list[StreamProblem] = []
        self._left_out = 0
        self._waiting: list[tuple[StreamProblem, int]] = []
        """Problems that are shown with what comes next, and how much of it they still want."""
        self._cut_off = False

    @property
    def pieces(self) -> int:
        """How many entries or events were fed."""
        return self._pieces

    @property
    def runs(self) -> int:
        """Of how many runs they are; 0 where nothing of it was understood."""
        return self._grammar.runs if self._grammar is not None else 0

    def feed(self, piece: Piece) -> None:
        """Take the next piece of the stream.

        Text and bytes are lines, one or more: JSON objects, or a `text/event-stream`. A line
        may not be cut in two.

        Raises:
            TypeError: it is nothing that a stream has.
        """
        if isinstance(piece, bytes | bytearray | str):
            for plain, position in self._lines.feed(piece):
                self._take_json(plain, position)
        elif isinstance(piece, Mapping):
            self._take_json(piece, None)
        elif isinstance(piece, Entry) or getattr(piece, "type", None) in EVENT_TYPES:
            self._take(piece, None)
        else:
            raise TypeError(
                f"A stream has entries, events, or their JSON as text, bytes or dicts, not {type(piece).__name__}."
            )

    def report(self, *, ended: bool = True) -> StreamReport:
        """What is wrong with what was fed.

        Args:
            ended: the stream is over, so that a run without its terminal event is a problem.
        """
        for plain, position in self._lines.finish():
            self._take_json(plain, position)
        problems, left_out = list(self._problems), self._left_out
        if ended and not self._cut_off:
            missing = [Violation("a_run_ends_once", "The stream is empty.")]
            if self._grammar is not None:
                missing = self._grammar.end()
            elif problems:
                missing = []
            problems += [
                StreamProblem(each.clause, self._pieces + 1, None, None, each.what, self._shown_before())
                for each in missing
            ]
        return StreamReport(self._pieces, self.runs, problems, left_out)

    def _take_json(self, plain: Any, position: int | None) -> None:
        """Take what a line held: a decoded object, or the error that it is none."""
        if isinstance(plain, Mapping):
            fields = cast("Mapping[str, Any]", plain)
            kind = fields.get("type")
            if "event" in fields:
                plain = _read(entry_from, fields)
            elif isinstance(kind, str) and kind in _FRAMES:
                self._frame(kind, fields.get("position"))
                return
        if not isinstance(plain, Entry | DecodeError):
            plain = _read(event_from, plain)
        if isinstance(plain, DecodeError):
            self._pieces += 1
            self._tell([Violation("everything_is_an_event", str(plain))], None, "not an event")
            if self._grammar is not None:
                self._grammar.skip()
        else:
            self._take(plain, position)

    def _frame(self, kind: str, position: Any) -> None:
        """A message of the transport: no event of the run, and not in its log."""
        self._cut_off = self._cut_off or kind in ("stream.gap", "stream.error")
        if self._grammar is not None:
            if kind == "stream.gap":
                self._grammar.gap()
            elif kind == "stream.position" and isinstance(position, int):
                self._grammar.passed(position)
        self._show(f"{'':>7}  {kind}")

    def _take(self, piece: Entry | Event, position: int | None) -> None:
        self._pieces += 1
        self._cut_off = False
        bare = not isinstance(piece, Entry)
        if self._grammar is None:
            self._bare = bare
            self._grammar = StreamGrammar(raw=self._raw, filtered=self._filtered, bare=bare)
        if bare:
            entry = Entry(position or 0, _NOBODY, piece)
        else:
            entry = piece
            if position is not None and position != entry.position:
                what = f"The frame has id {position}, and its entry position {entry.position}."
                self._tell([Violation("positions_count", what)], entry, None)
        found: list[Violation] = []
        if bare is not self._bare:
            mixed = "an event without its envelope" if bare else "an entry"
            found.append(
                Violation("everything_is_an_event", f"{mixed.capitalize()} came among the other kind.")
            )
        else:
            if bare and position is not None:
                found += self._grammar.position(position)
            found += self._grammar.feed(entry)
        self._tell(found, entry, _line(entry, self._pieces))

    def _tell(self, found: list[Violation], entry: Entry | None, line: str | None) -> None:
        """Keep what was `found`, and show the piece that it was found at as `line`."""
        position = entry.position if entry is not None and not self._bare else None
        run_id = entry.run_id if entry is not None and not self._bare else None
        mark = [] if line is None else [f"> {line}"]
        told = [
            StreamProblem(
                each.clause, self._pieces, position, run_id, each.what, [*self._shown_before(), *mark]
            )
            for each in found
        ]
        room = max(0, MAX_PROBLEMS - len(self._problems))
        self._problems += told[:room]
        self._left_out += len(told[room:])
        if line is not None:
            self._show(line)
        self._waiting += [(problem, AFTER) for problem in told[:room]]

    def _shown_before(self) -> list[str]:
        return [f"  {line}" for line in self._before]

    def _show(self, line: str) -> None:
        self._before.append(line)
        for problem, _ in self._waiting:
            problem.around.append(f"  {line}")
        self._waiting = [(problem, left - 1) for problem, left in self._waiting if left > 1]


@overload
def check_stream(stream: AsyncIterable[Piece], *, raw: bool = ..., filtered: bool = ..., ended: bool = ...) -> Awaitable[StreamReport]: ...  # fmt: skip


@overload
def check_stream(stream: Iterable[Piece] | bytes | str, *, raw: bool = ..., filtered: bool = ..., ended: bool = ...) -> StreamReport: ...  # fmt: skip


def check_stream(
    stream: AsyncIterable[Piece] | Iterable[Piece] | bytes | str,
    *,
    raw: bool = False,
    filtered: bool = False,
    ended: bool = True,
) -> StreamReport | Awaitable[StreamReport]:
    """Hold a stream to the grammar of `docs/grammar.md`, to its end.

    Takes entries, events (as `stream_events()` gives them, or a whole run's without their
    envelopes), or their JSON: dicts, lines as `millstream run --json` prints them, the lines
    of a `text/event-stream`, or the whole text of either. An async stream makes it something
    to await.

    A stream that begins behind position 1, and one that tells of a gap, is held to what can
    be known of it. What `stream` itself raises is passed on.

    Args:
        stream: what is checked. It is read to its end.
        raw: hold the model's own events to the protocol of the Responses API, too. What a
            server says is passed through, so this is about the server.
        filtered: some entries were left out on purpose, so that positions may have holes.
        ended: the stream is over, so that a run without its terminal event is a problem.

    Raises:
        StreamGrammarError: an `AssertionError` that lists every problem, each with its clause,
            its position, what was expected, and the entries around it.
    """
    checker = StreamChecker(raw=raw, filtered=filtered)
    if isinstance(stream, AsyncIterable):
        return _check_async(checker, stream, ended)
    for piece in [stream] if isinstance(stream, bytes | bytearray | str) else stream:
        checker.feed(piece)
    return _passed(checker.report(ended=ended))


async def _check_async(checker: StreamChecker, stream: AsyncIterable[Piece], ended: bool) -> StreamReport:
    async for piece in stream:
        checker.feed(piece)
    return _passed(checker.report(ended=ended))


def _passed(report: StreamReport) -> StreamReport:
    report.raise_for_problems()
    return report


# --- text ----------------------------------------------------------------------------------------

_FRAMES = frozenset(
    {"stream.gap", "stream.error", "stream.position", "command.done", "command.error", "pong"}
)
"""What the transport says between the entries (`millstream.delivery.frame`)."""

_NOBODY = Stamp(run_id="", agent="")
_BOM = b"\xef\xbb\xbf"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class _Lines:
    """Reads lines of JSON, and frames of a `text/event-stream`; both, as no line can be either."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._id: int | None = None
        self._began = False

    def feed(self, text: bytes | bytearray | str) -> Iterator[tuple[Any, int | None]]:
        """What the lines of `text` hold, decoded, with the id of its frame; a `DecodeError` for what is no JSON."""
        data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else bytes(text)
        if not self._began:
            self._began = True
            data = data.removeprefix(_BOM)
        lines = _LINE_END.split(data)
        for line in lines if lines[-1] else lines[:-1] or lines:
            yield from self._line(line)

    def finish(self) -> Iterator[tuple[Any, int | None]]:
        """What is left of a frame that no empty line ended: it was cut, and is dropped unless it is whole."""
        for plain, position in self._dispatch():
            if not isinstance(plain, DecodeError):
                yield plain, position

    def _line(self, line: bytes) -> Iterator[tuple[Any, int | None]]:
        if not line.strip():
            yield from self._dispatch()
            return
        name, colon, value = line.partition(b":")
        if name.strip() not in _FIELDS:
            yield _decoded(line), None
        elif colon:
            value = value.removeprefix(b" ")
            if name == b"data":
                self._data.append(value)
            elif name == b"id":
                self._id = int(value) if value.isdigit() else None

    def _dispatch(self) -> Iterator[tuple[Any, int | None]]:
        data, self._data = self._data, []
        position, self._id = self._id, None
        if data:
            yield _decoded(b"\n".join(data)), position


_FIELDS = frozenset({b"", b"data", b"event", b"id", b"retry"})
"""What a line of a `text/event-stream` begins with: a field, or nothing for a comment."""


def _decoded(data: bytes) -> Any:
    return _read(codec.decode, data)


def _read(reader: Any, value: Any) -> Any:
    """What `reader` makes of `value`, or its `DecodeError`."""
    try:
        return reader(value)
    except DecodeError as error:
        return error


# --- how a piece is shown ------------------------------------------------------------------------


def _line(entry: Entry, place: int) -> str:
    """An entry on one line: its position, type, and what tells it from others of its type."""
    position = entry.position if entry.run_id else place
    indent = "│ " * _depth(entry)
    return f"{position!s:>7}  {indent}{entry.type}{_details(entry.event)}"


def _depth(entry: Any) -> int:
    return entry.depth if isinstance(entry.depth, int) and 0 < entry.depth < 20 else 0


def _details(event: Any) -> str:
    kind = event.type
    if kind == "raw_response_event":
        told: list[Any] = [read_raw(event).type]
    elif kind == "run_item_stream_event":
        told = [event.name, call_id_of(getattr(event.item, "raw_item", None))]
    elif kind == "agent_updated_stream_event":
        told = [getattr(event.new_agent, "name", None)]
    elif kind == "run.attempt":
        told = [event.number, f"from {event.resumed_from}: what came behind that is void"]
    else:
        told = [getattr(event, name, None) for name in ("call_id", "name", "turn", "status", "code", "agent")]
    text = " ".join(str(each) for each in told if isinstance(each, str | int) and each != "")
    return f"  {text[:100]}" if text else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _times(number: int) -> str:
    return "once" if number == 1 else f"{number} times"
