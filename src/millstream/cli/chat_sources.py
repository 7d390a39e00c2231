"""Where a chat's lines come from: a person at a terminal, or a pipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from millstream.cli.history import History, history_file
from millstream.terminal.keys import Terminal, TypedAhead
from millstream.terminal.line import LineInput

if TYPE_CHECKING:
    from millstream.terminal.keys import Key


class Pipe:
    """Where lines come from that nobody types: a pipe, a file."""

    is_person = False

    def read(self, prompt: str) -> str:
        """The next line, without its end; nobody is prompted.

        Raises:
            EOFError: there is no more.
        """
        line = sys.stdin.buffer.readline()
        if not line:
            raise EOFError
        return line.decode("utf-8", "replace").removesuffix("\n").removesuffix("\r")

    def ask(self, prompt: str) -> str:
        """Nobody is there to be asked.

        Raises:
            EOFError: always.
        """
        raise EOFError

    def end_line(self) -> None:
        """There is no line on any screen."""

    @property
    def unfinished(self) -> str:
        """Nothing is known of a line that was interrupted."""
        return ""

    def remember(self, text: str) -> None:
        """Nobody recalls it."""

    def keys(self, stop: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """There are none."""
        return contextlib.nullcontext()


class Person:
    """Somebody at a terminal: edits lines, recalls them, types ahead, and presses keys while an answer streams.

    While entered, the terminal is given back as it was when the program stops, ends or is stopped.

    Args:
        history: whether what is written is kept for later chats.
    """

    is_person = True

    def __init__(self, *, history: bool) -> None:
        self._history = History(history_file(os.environ) if history else None)
        self._line = LineInput(self._history.load())
        self._typed = TypedAhead()
        obeys = sys.stdout.isatty() and os.environ.get("TERM") != "dumb"
        self._terminal = Terminal(sys.stdin.fileno(), _send if obeys else None)

    def __enter__(self) -> Person:
        self._terminal.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._terminal.__exit__()

    def leave(self) -> None:
        """Give the terminal back; for who leaves in the middle of anything."""
        self._terminal.restore()

    def read(self, prompt: str) -> str:
        """The next line, without its end: typed ahead, or written at `prompt`.

        Raises:
            EOFError: there is no more.
        """
        if self._typed.lines:
            line = self._typed.lines.popleft()
            self._line.show(f"{prompt}{line}\n")
            return line
        if self._typed.ended:
            raise EOFError
        with contextlib.nullcontext() if self._line.edits else self._terminal.lines():
            return self._line.read(prompt, self._typed.take_rest())

    def ask(self, prompt: str) -> str:
        """The line that is written at `prompt`; what was typed ahead answers no question, and is kept.

        Raises:
            EOFError: it was ended with Ctrl-D.
        """
        with contextlib.nullcontext() if self._line.edits else self._terminal.lines():
            return self._line.read(prompt, "")

    def end_line(self) -> None:
        """End the line on the screen."""
        self._line.show("\n")

    @property
    def unfinished(self) -> str:
        """What stood on the line that was interrupted."""
        return self._line.unfinished

    def remember(self, text: str) -> None:
        """Let arrow up recall `text`, now and in later chats."""
        if self._line.remember(text):
            self._history.add(text)

    def keys(self, stop: Callable[[], None]) -> contextlib.AbstractContextManager[None]:
        """While entered, Esc calls `stop`, and whatever else is typed is kept for the next line."""

        def take(key: Key) -> None:
            if key.kind == "escape":
                stop()
            else:
                self._typed.add(key)

        return self._terminal.keys(take)


def _send(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
