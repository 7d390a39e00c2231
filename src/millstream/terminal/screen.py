"""The screen: puts segments on a stream, with colours and characters that it can show."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from millstream.terminal.view import Segment

STYLES: dict[str, str] = {
    "agent": "1;36",  # bold cyan
    "reasoning": "2",  # faint
    "call": "34",  # blue
    "ok": "32",  # green
    "error": "31",  # red
    "handoff": "35",  # magenta
    "note": "2",
    "output": "1",  # bold
}
"""How each kind of segment looks; kinds that are not here look plain. The sixteen colours every terminal has."""

PLAIN = str.maketrans(
    {
        "●": "*", "→": "->", "⇒": "=>", "✓": "+", "✗": "x", "■": "#", "·": "-", "│": "|", "…": "...",
        "–": "-", "—": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "€": "EUR", "°": " deg ",
    }
)  # fmt: skip
"""What stands for our signs, and for the commonest others, where the terminal's encoding lacks them."""

# Whatever a model or tool says, a terminal shall show it, never obey it.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Screen:
    """Writes segments to `stream`, flushed, so that text is seen as it comes.

    Args:
        stream: where to.
        colour: whether to use colours; None finds out.
        environ: the environment, of which `NO_COLOR`, `FORCE_COLOR` and `TERM` are looked at.
    """

    def __init__(
        self, stream: TextIO, *, colour: bool | None = None, environ: Mapping[str, str] = os.environ
    ) -> None:
        self._stream = stream
        self._encoding = stream.encoding or "utf-8"
        self.is_terminal = stream.isatty()
        self.colour = wants_colour(self.is_terminal, environ) if colour is None else colour

    @property
    def width(self) -> int:
        """Columns of the terminal; 80 where there is none and `COLUMNS` does not say."""
        return shutil.get_terminal_size((80, 24)).columns

    def write(self, segments: Iterable[Segment]) -> None:
        """Show `segments`.

        Raises:
            OSError: the stream cannot be written to; `BrokenPipeError` where its reader is gone.
        """
        text = "".join([self._styled(kind, text) for kind, text in segments])
        if text:
            self._stream.write(self._encodable(text))
            self._stream.flush()

    def _styled(self, kind: str, text: str) -> str:
        if self.is_terminal:
            text = _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))
        style = STYLES.get(kind) if self.colour else None
        # Not around line ends: some terminals would paint the rest of the line.
        body = text.rstrip("\n")
        return text if style is None or not body else f"\x1b[{style}m{body}\x1b[0m{text[len(body) :]}"

    def _encodable(self, text: str) -> str:
        if text.isascii():
            return text
        try:
            text.encode(self._encoding)
        except UnicodeEncodeError:
            return text.translate(PLAIN).encode(self._encoding, "replace").decode(self._encoding)
        return text


def wants_colour(is_terminal: bool, environ: Mapping[str, str]) -> bool:
    """Whether to use colours, by https://no-color.org and its usual opposite."""
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return environ["FORCE_COLOR"] != "0"
    return is_terminal and environ.get("TERM") != "dumb"
