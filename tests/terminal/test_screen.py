"""Segments on a stream: colours, encodings, and text that a terminal must not obey."""

import io
from collections.abc import Mapping

import pytest

from millstream.terminal.screen import Screen, wants_colour
from millstream.terminal.view import Segment


class Stream(io.TextIOWrapper):
    """A stream in memory that may say it is a terminal."""

    def __init__(self, *, terminal: bool = False, encoding: str = "utf-8") -> None:
        super().__init__(io.BytesIO(), encoding=encoding, newline="")
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal

    @property
    def shown(self) -> str:
        buffer = self.buffer
        assert isinstance(buffer, io.BytesIO)
        return buffer.getvalue().decode(self.encoding)


@pytest.mark.parametrize(
    ("terminal", "environ", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (False, {"TERM": "xterm"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (False, {"FORCE_COLOR": "1"}, True),
        (True, {"FORCE_COLOR": "0"}, False),
        (False, {"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
    ],
)
def test_who_gets_colours(terminal: bool, environ: Mapping[str, str], coloured: bool) -> None:
    assert wants_colour(terminal, environ) is coloured


def test_a_colour_ends_before_the_line_does() -> None:
    stream = Stream(terminal=True)

    Screen(stream, colour=True).write([Segment("error", "  ✗ no\n"), Segment("text", "plain\n")])

    assert stream.shown == "\x1b[31m  ✗ no\x1b[0m\nplain\n"


def test_what_a_segment_says_is_seen_at_once() -> None:
    stream = Stream()
    screen = Screen(stream)

    screen.write([Segment("text", "a")])
    assert stream.shown == "a"
    screen.write([])
    assert stream.shown == "a"


@pytest.mark.hostile
def test_a_terminal_shows_control_characters_and_a_pipe_passes_them_on() -> None:
    hostile = "\x1b]0;owned\x07 \x9b31m\r\nnext\tcolumn"
    terminal, pipe = Stream(terminal=True), Stream()

    Screen(terminal, colour=False).write([Segment("text", hostile)])
    Screen(pipe).write([Segment("text", hostile)])

    assert terminal.shown == "\ufffd]0;owned\ufffd \ufffd31m\nnext\tcolumn"
    assert pipe.shown == hostile


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [("utf-8", "● “é” → 😀 €"), ("latin-1", '* "é" -> ? EUR'), ("ascii", '* "?" -> ? EUR')],
)
def test_every_encoding_gets_what_it_can_show(encoding: str, shown: str) -> None:
    stream = Stream(encoding=encoding)

    Screen(stream).write([Segment("text", "● “é” → 😀 €")])

    assert stream.shown == shown


@pytest.mark.hostile
def test_half_a_character_is_no_trouble() -> None:
    stream = Stream()

    Screen(stream).write([Segment("text", "a\ud83d")])

    assert stream.shown == "a?"
