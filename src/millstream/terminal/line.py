"""The line at which a person writes: edited, recalled and pasted as the system's own library allows."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any


def _system_library() -> Any:
    try:
        import readline
    except ImportError:  # some Pythons are built without it: then the terminal's own editing has to do
        return None
    return readline


_readline: Any = _system_library()


class LineInput:
    """Reads lines from the terminal at standard input.

    Args:
        history: what arrow up recalls, oldest first.
    """

    def __init__(self, history: Iterable[str] = ()) -> None:
        # Editing draws on standard output: where that is no terminal, lines come as they are.
        self._out = sys.stdout if sys.stdout.isatty() else sys.stderr
        self.edits = bool(_readline) and self._out is sys.stdout
        """Whether lines are edited here; where they are not, the terminal has to."""
        self._last: str | None = None
        if self.edits:
            _readline.set_auto_history(False)
            if "libedit" not in (_readline.__doc__ or ""):
                # Python switches it off: a paste of several lines would be several lines.
                _readline.parse_and_bind("set enable-bracketed-paste on")
        for text in history:
            self.remember(text)

    def read(self, prompt: str, beginning: str = "") -> str:
        """A line, without its end.

        Args:
            prompt: stands before the line.
            beginning: text that has been typed already.

        Raises:
            EOFError: there is no more.
        """
        if self.edits:
            _readline.set_startup_hook(lambda: _readline.insert_text(beginning) if beginning else None)
            try:
                return input(prompt)
            finally:
                _readline.set_startup_hook(None)
        self.show(prompt + beginning)
        line = sys.stdin.readline()
        if not line:
            raise EOFError
        return beginning + line.removesuffix("\n")

    def show(self, text: str) -> None:
        """Write `text` where the line is."""
        self._out.write(text)
        self._out.flush()

    @property
    def unfinished(self) -> str:
        """What stood on the line when reading it was interrupted, as far as is known."""
        return _readline.get_line_buffer() if self.edits else ""

    def remember(self, text: str) -> bool:
        """Let arrow up recall `text`; False where that is what it would recall anyway."""
        if not text.strip() or text == self._last:
            return False
        self._last = text
        if self.edits:
            _readline.add_history(text)
        return True
