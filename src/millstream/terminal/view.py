"""The view: a fold from the entries of a run to pieces of text for a person to read.

Pure: entries in, `Segment`s out; no stream, no clock, no colour. A segment's kind says what
its text is, and whoever shows it decides how that looks. Rules of this file:

1. Text of the model goes out as it comes. Everything else is whole lines.
2. A call and its result are two lines that share a name, so that several tools at once stay
   readable; a second call of one name in a run gets a number.
3. Nested runs are indented, and their text goes out line by line: several of them may talk
   at once. Where another one takes the word, its agent is named again.
4. Values are flattened and cut to the width; what a terminal would obey never gets into a
   line. Text of the model is not touched: that is for the screen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, cast

from millstream import codec
from millstream.items import ItemHelpers
from millstream.terminal import shorten

if TYPE_CHECKING:
    from millstream.events import (
        AgentUpdatedStreamEvent,
        Entry,
        ModelRetried,
        RawResponsesStreamEvent,
        RunAttempt,
        RunCancelled,
        RunCompleted,
        RunFailed,
        RunItemStreamEvent,
        ToolFinished,
    )

Kind: TypeAlias = Literal[
    "agent", "text", "reasoning", "call", "ok", "error", "handoff", "note", "output", "plain"
]
"""What the text of a segment is."""


class Segment(NamedTuple):
    """A piece of text and what it is. Line ends are in the text."""

    kind: Kind
    text: str


@dataclass
class _Run:
    """What the view remembers of one run."""

    depth: int
    began: float
    agent: str = ""
    """Who acts, on one line."""
    said: str = ""
    """Text that was streamed and is in no item yet."""
    last_message: str = ""
    line: str = ""
    """Text of a nested run that has no line end yet."""
    labels: dict[str, str] = field(default_factory=dict[str, str])
    """What open calls are called, by call id."""
    counts: dict[str, int] = field(default_factory=dict[str, int])
    finished: dict[str, ToolFinished] = field(default_factory=dict[str, "ToolFinished"])

    @property
    def indent(self) -> str:
        return "  │ " * self.depth


class View:
    """Folds entries into segments, one entry at a time.

    Args:
        width: columns of the terminal; lines that are ours fit in, text of the model is not wrapped.
        tells_failure: whether the end of a failed run is told; off where the caller knows more
            of the failure than the log says. That of a nested run is told in any case.
    """

    def __init__(self, *, width: int = 80, tells_failure: bool = True) -> None:
        self._width = max(width, 40)
        self._tells_failure = tells_failure
        self._runs: dict[str, _Run] = {}
        self._talks: dict[int, _Run] = {}
        """The run that had the word last, by its depth."""
        self._out: list[Segment] = []
        self._newlines = 2  # at the end of what went out so far; nothing counts as a blank line
        self._flow = "start"  # what went out last: text, reasoning, said (a whole message), line, head

    def feed(self, entry: Entry) -> list[Segment]:
        """What there is to show of `entry`, in order; often nothing."""
        self._out = []
        show = _SHOW.get(entry.event.type)
        if show is not None:
            run = self._runs.get(entry.run_id)
            if run is None:
                run = self._runs[entry.run_id] = _Run(entry.depth, entry.time)
            show(self, run, entry, cast("Any", entry.event))
        return self._out

    # --- putting out -----------------------------------------------------------------------

    def _emit(self, kind: Kind, text: str) -> None:
        if not text:
            return
        self._out.append(Segment(kind, text))
        rest = text.rstrip("\n")
        ends = len(text) - len(rest)
        self._newlines = ends if rest else self._newlines + ends

    def _ensure(self, newlines: int) -> None:
        """End the line, and leave one blank for `newlines` of 2."""
        self._emit("plain", "\n" * (newlines - self._newlines))

    def _line(self, run: _Run, *segments: tuple[Kind, str], flow: str = "line", gap: bool = False) -> None:
        self._flush(run)
        self._give_word(run)
        self._ensure(2 if gap else 1)
        self._emit("note", run.indent)
        for kind, text in segments:
            self._emit(kind, text)
        self._emit("plain", "\n")
        self._flow = flow

    def _text(self, run: _Run, kind: Kind, text: str) -> None:
        if run.depth:
            self._nested_text(run, kind, text)
            return
        if self._flow != kind:
            text = text.lstrip("\n")
            if not text:
                return
            self._ensure(1 if self._flow in ("head", "start") else 2)
            self._flow = kind
        self._emit(kind, text)

    def _nested_text(self, run: _Run, kind: Kind, text: str) -> None:
        *lines, run.line = (run.line + text).split("\n")
        for line in lines:
            self._whole_line(run, kind, line)

    def _whole_line(self, run: _Run, kind: Kind, line: str) -> None:
        if line.strip():
            self._give_word(run)
            self._ensure(1)
            self._emit("note", run.indent)
            self._emit(kind, line + "\n")
            self._flow = "line"

    def _give_word(self, run: _Run) -> None:
        """Name the agent of a nested run, where another one of that depth had the word."""
        before = self._talks.get(run.depth)
        self._talks[run.depth] = run
        if run.depth and before is not None and before is not run:
            self._line(run, ("agent", f"● {run.agent}"), flow="head")

    def _flush(self, run: _Run) -> None:
        line, run.line = run.line, ""
        self._whole_line(run, "text", line)

    def _room(self, run: _Run, used: str) -> int:
        return self._width - shorten.cells(run.indent + used)

    # --- entries ---------------------------------------------------------------------------

    def _agent_updated(self, run: _Run, _: Entry, event: AgentUpdatedStreamEvent) -> None:
        run.agent = shorten.cut(shorten.one_line(event.new_agent.name), self._room(run, "● "))
        self._flush(run)
        self._talks[run.depth] = run
        self._line(run, ("agent", f"● {run.agent}"), flow="head", gap=not run.depth)

    def _raw(self, run: _Run, _: Entry, event: RawResponsesStreamEvent) -> None:
        json = event.json
        # Most events of a model are no text: a scan of the bytes spares decoding them.
        if b".delta" not in json:
            return
        data: dict[str, Any] = codec.decode(json)
        kind = _TEXT_KINDS.get(data.get("type", ""))
        delta = data.get("delta")
        if kind is None or not isinstance(delta, str):
            return
        if kind == "text":
            run.said += delta
        self._text(run, kind, delta)

    def _item(self, run: _Run, _: Entry, event: RunItemStreamEvent) -> None:
        item: Any = event.item
        show = _SHOW_ITEM.get(item.type)
        if show is not None:
            show(self, run, item)

    def _message(self, run: _Run, item: Any) -> None:
        text = message_text(item)
        # What was streamed is on the screen; a message that came whole is not.
        if text and not run.said.endswith(text):
            self._text(run, "text", text)
        run.last_message, run.said = text or run.said, ""
        self._flush(run)
        if self._flow in ("text", "reasoning"):
            self._flow = "said"

    def _called(self, run: _Run, item: Any) -> None:
        name = shorten.one_line(str(item.tool_name or _get(item.raw_item, "type") or "tool"))
        count = run.counts[name] = run.counts.get(name, 0) + 1
        label = name if count == 1 else f"{name} #{count}"
        if item.call_id:
            run.labels[item.call_id] = label
        line = shorten.call(label, _get(item.raw_item, "arguments"), self._room(run, "  → "))
        self._line(run, ("call", f"  → {line}"))

    def _output(self, run: _Run, item: Any) -> None:
        finished = run.finished.pop(item.call_id, None)
        name = run.labels.pop(item.call_id, None) or (finished.name if finished else "tool")
        # A tool that never began, because somebody said no or there is none, is not done.
        failed = finished is None or finished.status != "ok"
        time = f"  {finished.ms:,.0f} ms" if finished else ""
        status = f"  {finished.status}" if finished and finished.status in ("timeout", "cancelled") else ""
        head = f"  {'✗' if failed else '✓'} {name}"
        # Plain values as JSON; what a tool returned as an object is shown as the model gets it.
        is_plain = isinstance(item.output, (str, list, dict))
        value: Any = item.output if is_plain else _get(item.raw_item, "output")
        shown = shorten.result(value, self._room(run, f"{head}{time}{status}  "))
        kind: Kind = "error" if failed else "ok"
        self._line(run, (kind, head), ("note", time), (kind, status), ("plain", f"  {shown}".rstrip()))

    def _handed_over(self, run: _Run, item: Any) -> None:
        target = shorten.one_line(item.target_agent.name)
        self._line(run, ("handoff", shorten.cut(f"  ⇒ hands over to {target}", self._room(run, ""))))

    def _approval(self, run: _Run, item: Any) -> None:
        line = shorten.call(str(item.name), item.arguments, self._room(run, "  ? ") - 22)
        self._line(run, ("call", f"  ? {line}"), ("note", "  waits for approval"))

    def _tool_finished(self, run: _Run, _: Entry, event: ToolFinished) -> None:
        run.finished[event.call_id] = event  # its output follows and is shown with it

    def _tool_told(self, run: _Run, _: Entry, event: Any) -> None:
        head = f"  · {run.labels.get(event.call_id, event.name)}  "
        self._line(run, ("note", head + shorten.result(event.data, self._room(run, head))))

    def _retried(self, run: _Run, _: Entry, event: ModelRetried) -> None:
        self._note(run, f"the model is asked again in {event.delay:.1f} s: {event.reason}")

    def _attempt(self, run: _Run, _: Entry, event: RunAttempt) -> None:
        for each in self._runs.values():  # what is not a whole line yet, or in no item, is void
            each.line = each.said = ""
        void = f"all behind position {event.resumed_from} is void"
        self._note(run, f"another process goes on (attempt {event.number}): {void}")

    def _guardrail(self, run: _Run, _: Entry, event: Any) -> None:
        if event.tripped:
            self._line(
                run, ("error", shorten.cut(f"  ✗ guardrail {event.guardrail} tripped", self._room(run, "")))
            )

    def _noted(self, run: _Run, _: Entry, event: Any) -> None:
        self._note(run, _NOTES[event.type](event))

    def _note(self, run: _Run, text: str) -> None:
        self._line(run, ("note", shorten.cut(f"  · {shorten.one_line(text)}", self._room(run, ""))))

    # --- the end ---------------------------------------------------------------------------

    def _completed(self, run: _Run, entry: Entry, event: RunCompleted) -> None:
        output = event.output
        if run.depth:
            pass  # what a nested run came to is the result of a call, and shown as that
        elif isinstance(output, str):
            if output and output != run.last_message:  # the output of a tool, or of an error handler
                self._text(run, "text", output)
        elif output is not None:
            self._structured(run, output)
        self._end(run, entry, event.usage)

    def _structured(self, run: _Run, output: Any) -> None:
        has_type = is_dataclass(output) or hasattr(output, "model_dump")
        self._line(run, ("output", f"= {type(output).__name__ if has_type else 'output'}"), gap=True)
        plain = codec.decode(codec.encode(output))
        if not isinstance(plain, dict):
            self._line(run, ("plain", "  " + shorten.cut(compact_value(plain), self._room(run, "  "))))
            return
        fields = cast("dict[str, Any]", plain)
        names = {name: shorten.one_line(name) for name in fields}
        wide = max(map(len, names.values()), default=0)
        for name, value in fields.items():
            head = f"  {names[name]:<{wide}}  "
            self._line(
                run, ("note", head), ("plain", shorten.cut(compact_value(value), self._room(run, head)))
            )

    def _failed(self, run: _Run, entry: Entry, event: RunFailed) -> None:
        if self._tells_failure or run.depth:
            told = shorten.one_line(f"✗ the run failed ({event.code}): {event.message}")
            self._line(run, ("error", f"  {shorten.cut(told, self._room(run, '  '))}"))
        self._end(run, entry, event.usage)

    def _cancelled(self, run: _Run, entry: Entry, event: RunCancelled) -> None:
        kept = "; the text so far is kept" if event.partial else ""
        self._line(run, ("error", f"  ■ stopped{kept}"))
        self._end(run, entry, event.usage)

    def _end(self, run: _Run, entry: Entry, usage: Mapping[str, Any]) -> None:
        self._flush(run)
        if not run.depth:
            line = usage_line(entry.turn, usage, max(entry.time - run.began, 0.0))
            self._line(run, ("note", shorten.cut(line, self._width)), gap=True)


class TextView:
    """Folds entries into the text of the root run alone, each message ending its line."""

    def __init__(self) -> None:
        self._said = ""
        self._last = ""
        self._open = False

    def feed(self, entry: Entry) -> list[Segment]:
        """The text in `entry`."""
        if entry.depth:
            return []
        event: Any = entry.event
        if event.type == "raw_response_event":
            return self._piece(_text_delta(event.json))
        if event.type == "run_item_stream_event" and event.item.type == "message_output_item":
            text = message_text(event.item)
            rest = text if text and not self._said.endswith(text) else ""
            self._last, self._said = text or self._said, ""
            return self._piece(rest) + self._end_line()
        if event.type == "run.completed":
            output = event.output
            rest = output if isinstance(output, str) and output != self._last else ""
            return self._end_line() + self._piece(rest) + self._end_line()
        if event.type in ("model.retried", "run.attempt"):  # what is in no message is said anew
            self._said = ""
            return self._end_line()
        return self._end_line() if entry.is_terminal else []

    def _piece(self, text: str) -> list[Segment]:
        if not text:
            return []
        self._said += text
        self._open = not text.endswith("\n")
        return [Segment("text", text)]

    def _end_line(self) -> list[Segment]:
        ends, self._open = self._open, False
        return [Segment("plain", "\n")] if ends else []


def usage_line(turns: int, usage: Mapping[str, Any], seconds: float) -> str:
    """What a run took, on one line: turns, tokens, time."""
    parts = [f"{turns} turn{'' if turns == 1 else 's'}", *tokens(usage), f"{seconds:.1f} s"]
    return "  " + " · ".join(parts)


def tokens(usage: Mapping[str, Any]) -> list[str]:
    """The tokens of `usage`, for people; nothing where none were counted."""
    if not usage.get("total_tokens"):
        return []
    cached = f" ({usage['cached_tokens']:,} cached)" if usage.get("cached_tokens") else ""
    reasoning = f" ({usage['reasoning_tokens']:,} reasoning)" if usage.get("reasoning_tokens") else ""
    about = "about " if usage.get("estimated") else ""
    return [
        f"{about}{usage.get('input_tokens', 0):,} tokens in{cached}, "
        f"{usage.get('output_tokens', 0):,} out{reasoning}"
    ]


def message_text(item: Any) -> str:
    """Text and refusals of a message item, also of one that was read back from JSON."""
    raw = item.raw_item
    return ItemHelpers.extract_text(raw) or ItemHelpers.extract_refusal(raw) or ""


def compact_value(value: Any) -> str:
    """A value of a structured output: text as such, a list of texts with commas, the rest as JSON."""
    if isinstance(value, str):
        return shorten.one_line(value)
    if isinstance(value, list) and value and all(isinstance(v, str) for v in cast("list[Any]", value)):
        return shorten.one_line(", ".join(cast("list[str]", value)))
    return shorten.compact(value)


_TEXT_KINDS: dict[str, Kind] = {
    "response.output_text.delta": "text",
    "response.refusal.delta": "text",
    "response.reasoning_summary_text.delta": "reasoning",
    "response.reasoning_text.delta": "reasoning",
}


def _text_delta(json: bytes) -> str:
    if b".delta" not in json:
        return ""
    data: dict[str, Any] = codec.decode(json)
    delta = data.get("delta")
    return delta if _TEXT_KINDS.get(data.get("type", "")) == "text" and isinstance(delta, str) else ""


def _get(raw: Any, name: str) -> Any:
    if isinstance(raw, Mapping):
        return cast("Mapping[str, Any]", raw).get(name)
    return getattr(raw, name, None)


_NOTES: dict[str, Callable[[Any], str]] = {
    "run.paused": lambda e: f"paused: {len(e.interruptions)} call(s) wait for approval",
    "run.decided": lambda e: f"{e.decision}: {e.call_id}",
    "run.resumed": lambda _: "goes on",
    "text.retracted": lambda _: "the text above was taken back",
    "input.added": lambda e: f"input: {shorten.result(e.input, 200)}",
    "user.event": lambda e: f"{e.name} {shorten.result(e.data, 200)}",
}

_SHOW: dict[str, Callable[[View, _Run, Entry, Any], None]] = {
    "agent_updated_stream_event": View._agent_updated,  # pyright: ignore[reportPrivateUsage]
    "raw_response_event": View._raw,  # pyright: ignore[reportPrivateUsage]
    "run_item_stream_event": View._item,  # pyright: ignore[reportPrivateUsage]
    "tool.finished": View._tool_finished,  # pyright: ignore[reportPrivateUsage]
    "tool.progress": View._tool_told,  # pyright: ignore[reportPrivateUsage]
    "tool.partial": View._tool_told,  # pyright: ignore[reportPrivateUsage]
    "model.retried": View._retried,  # pyright: ignore[reportPrivateUsage]
    "run.attempt": View._attempt,  # pyright: ignore[reportPrivateUsage]
    "guardrail.result": View._guardrail,  # pyright: ignore[reportPrivateUsage]
    "run.completed": View._completed,  # pyright: ignore[reportPrivateUsage]
    "run.failed": View._failed,  # pyright: ignore[reportPrivateUsage]
    "run.cancelled": View._cancelled,  # pyright: ignore[reportPrivateUsage]
    **dict.fromkeys(_NOTES, View._noted),  # pyright: ignore[reportPrivateUsage]
}

_SHOW_ITEM: dict[str, Callable[[View, _Run, Any], None]] = {
    "message_output_item": View._message,  # pyright: ignore[reportPrivateUsage]
    "tool_call_item": View._called,  # pyright: ignore[reportPrivateUsage]
    "tool_call_output_item": View._output,  # pyright: ignore[reportPrivateUsage]
    "handoff_output_item": View._handed_over,  # pyright: ignore[reportPrivateUsage]
    "tool_approval_item": View._approval,  # pyright: ignore[reportPrivateUsage]
}
