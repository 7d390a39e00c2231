"""The keyboard of a terminal while an answer streams: its modes, its keys, and what was typed ahead.

`KeyDecoder` and `TypedAhead` are pure. `Terminal` changes the modes of a real terminal, and
puts back what was, whatever happens in between.
"""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import re
import signal
import termios
from collections import deque
from collections.abc import Callable, Generator
from types import FrameType
from typing import Any, Literal, NamedTuple, TypeAlias

from millstream.clock import Timer, current_clock

KeyKind: TypeAlias = Literal["text", "enter", "erase", "kill", "end", "escape"]

ESCAPE_SECONDS = 0.05
"""How long a lone escape may be the beginning of a sequence: arrow keys arrive in one go, or nearly so."""

PASTE_ON, PASTE_OFF = "\x1b[?2004h", "\x1b[?2004l"
"""Ask a terminal to mark what is pasted, so that the line ends in it are not taken for Enter."""

_PASTE_BEGINS, _PASTE_ENDS = "\x1b[200~", "\x1b[201~"

# The key itself (an arrow, F1, …) means nothing to us; all of it has to be known to be passed over.
_SEQUENCE = re.compile(r"\x1b\x1b?(?:\[\[.|\[[0-?]*[ -/]*[@-~]|O.)|\x1b[^\x1b\[O]", re.DOTALL)
_UNFINISHED = re.compile(r"\x1b\x1b?(?:\[\[?[0-?]*[ -/]*|O)?\Z")
# What is pasted may come from anywhere, and will be shown.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_PLAIN = re.compile(r"[^\x00-\x1f\x7f-\x9f]+")

_CONTROLS: dict[str, KeyKind] = {
    "\r": "enter", "\n": "enter", "\x7f": "erase", "\x08": "erase", "\x15": "kill", "\x04": "end",
}  # fmt: skip


class Key(NamedTuple):
    """A key, or a piece of text. A text with line ends in it was pasted."""

    kind: KeyKind
    text: str = ""


class KeyDecoder:
    """Turns what a terminal sends into keys, in pieces of any size."""

    def __init__(self) -> None:
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._pasted: list[str] | None = None

    def feed(self, data: bytes) -> list[Key]:
        """The keys that `data` completes."""
        self._rest += self._utf8.decode(data)
        keys: list[Key] = []
        while self._rest and self._step(keys):
            pass
        return keys

    @property
    def is_open(self) -> bool:
        """Whether what is left is an escape key, or a sequence that was broken off, if nothing follows it soon."""
        return self._pasted is None and bool(self._rest)

    def settle(self) -> list[Key]:
        """Nothing has followed: the keys that what is left makes."""
        if not self.is_open:
            return []
        rest, self._rest = self._rest, ""
        return [Key("escape")] if rest in ("\x1b", "\x1b\x1b") else []

    def _step(self, keys: list[Key]) -> bool:
        """Take one key from what is left; False where it needs more."""
        rest = self._rest
        if self._pasted is not None:
            return self._paste(keys, self._pasted)
        if _UNFINISHED.match(rest):
            return False
        if sequence := _SEQUENCE.match(rest):
            self._rest = rest[sequence.end() :]
            if sequence[0] == _PASTE_BEGINS:
                self._pasted = []
        elif rest.startswith("\x1b"):  # behind it stands what no sequence goes on with
            self._rest = rest[1:]
            keys.append(Key("escape"))
        elif text := _PLAIN.match(rest):
            self._rest = rest[text.end() :]
            keys.append(Key("text", text[0]))
        else:
            self._rest = rest[1:]
            if kind := _CONTROLS.get(rest[0]):
                keys.append(Key(kind))
        return True

    def _paste(self, keys: list[Key], pasted: list[str]) -> bool:
        body, end, rest = self._rest.partition(_PASTE_ENDS)
        if not end:
            # The end mark itself may be cut in two.
            safe = max(len(body) - len(_PASTE_ENDS) + 1, 0)
            pasted.append(body[:safe])
            self._rest = body[safe:]
            return False
        text = "".join([*pasted, body]).replace("\r\n", "\n").replace("\r", "\n")
        text = _OBEYED.sub("", text)
        self._rest, self._pasted = rest, None
        if text:
            keys.append(Key("text", text))
        return True


class TypedAhead:
    """What was typed while nobody asked for a line: whole lines, and the beginning of the next."""

    def __init__(self) -> None:
        self.lines: deque[str] = deque()
        self.rest = ""
        self.ended = False
        """Whether Ctrl-D was pressed on an empty line: nothing comes after the lines."""

    def add(self, key: Key) -> None:
        """Take a key as a terminal does that waits for lines."""
        if self.ended:
            return
        if key.kind == "text":
            self.rest += key.text
        elif key.kind == "enter":
            self.lines.append(self.take_rest())
        elif key.kind == "erase":
            self.rest = self.rest[:-1]
        elif key.kind == "kill":
            self.rest = ""
        elif key.kind == "end":
            self.ended = not self.rest

    def take_rest(self) -> str:
        """The line that has no end yet; from now on it is empty."""
        rest, self.rest = self.rest, ""
        return rest


class Terminal:
    """A terminal that somebody types at. While entered, what it was is put back when we stop or end.

    It gives keys one by one all the while: what is pressed between an answer and the next prompt
    waits, as it was pressed, for whoever edits that line. A terminal that waits for whole lines
    would swallow a Ctrl-D there.

    Args:
        fd: the descriptor that keys are read from.
        send: writes to its screen; None where that is somewhere else.
    """

    def __init__(self, fd: int, send: Callable[[str], object] | None = None) -> None:
        self._fd = fd
        self._screen = send
        self._before: list[Any] = []
        self._stop_handler: Any = None

    def __enter__(self) -> Terminal:
        self._before = termios.tcgetattr(self._fd)
        self._set(_one_by_one(self._before))
        if signal.getsignal(signal.SIGTSTP) is signal.SIG_DFL:  # who starts us with it ignored means it
            self._stop_handler = signal.signal(signal.SIGTSTP, self._pause)
        return self

    def __exit__(self, *_: object) -> None:
        if self._stop_handler is not None:
            signal.signal(signal.SIGTSTP, self._stop_handler)
        self.restore()

    def restore(self) -> None:
        """Put back the modes from before; for who leaves in the middle of anything."""
        with contextlib.suppress(termios.error):  # the terminal is gone
            self._set(self._before)
        with contextlib.suppress(OSError, ValueError, RuntimeError):  # in the middle of another write
            self._send(PASTE_OFF)

    @contextlib.contextmanager
    def keys(self, take: Callable[[Key], None]) -> Generator[None]:
        """While entered, within an event loop, keys go to `take` when they are pressed, and none is echoed."""
        before = termios.tcgetattr(self._fd)
        reader = _KeyReader(self._fd, take)
        try:
            self._set(_silent(_one_by_one(before)))
            self._send(PASTE_ON)
            reader.start()
            yield
        finally:
            reader.stop()
            with contextlib.suppress(termios.error):  # the terminal is gone
                self._set(before)
            self._send(PASTE_OFF)

    @contextlib.contextmanager
    def lines(self) -> Generator[None]:
        """While entered, the terminal edits and gives whole lines: for who does not do that himself."""
        before = termios.tcgetattr(self._fd)
        self._set(self._before)
        try:
            yield
        finally:
            with contextlib.suppress(termios.error):  # the terminal is gone
                self._set(before)

    def _send(self, text: str) -> None:
        if self._screen is not None:
            self._screen(text)

    def _set(self, modes: list[Any]) -> None:
        # Now, not flushing: what has been typed meanwhile is kept.
        termios.tcsetattr(self._fd, termios.TCSANOW, modes)

    def _pause(self, number: int, _: FrameType | None) -> None:
        """Ctrl-Z: the shell gets the terminal as it was, and after `fg` we have ours again."""
        ours = termios.tcgetattr(self._fd)
        self._set(self._before)
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
        # Here we are again, some time later.
        signal.signal(number, self._pause)
        if os.tcgetpgrp(self._fd) == os.getpgrp():  # after `bg` the terminal is somebody else's
            self._set(ours)
        # Whoever edits a line draws it anew when the size of the terminal may have changed.
        os.kill(os.getpid(), signal.SIGWINCH)


def _one_by_one(modes: list[Any]) -> list[Any]:
    """`modes`, with keys given when they are pressed; Ctrl-C and Ctrl-Z stay signals.

    They throw nothing away: by itself, a terminal drops what it has not shown yet when Ctrl-C comes.
    """
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = modes
    cc = list(cc)
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag & ~termios.ICANON | termios.NOFLSH, ispeed, ospeed, cc]


def _silent(modes: list[Any]) -> list[Any]:
    """`modes`, with keys not shown. Not for longer than we read them: who edits a line takes it for a wish."""
    return [*modes[:3], modes[3] & ~termios.ECHO, *modes[4:]]


class _KeyReader:
    """Reads keys within an event loop, as they come."""

    def __init__(self, fd: int, take: Callable[[Key], None]) -> None:
        self._fd = fd
        self._take = take
        self._decoder = KeyDecoder()
        self._timer: Timer | None = None
        self._loop = asyncio.get_running_loop()

    def start(self) -> None:
        self._loop.add_reader(self._fd, self._read)

    def stop(self) -> None:
        self._loop.remove_reader(self._fd)
        self._cancel_timer()

    def _read(self) -> None:
        self._cancel_timer()
        try:
            data = os.read(self._fd, 4096)
        except OSError:
            data = b""
        if not data:  # the terminal is gone
            self._loop.remove_reader(self._fd)
        self._give(self._decoder.feed(data))
        if self._decoder.is_open:
            self._timer = current_clock().call_later(ESCAPE_SECONDS, self._settle)

    def _settle(self) -> None:
        self._give(self._decoder.settle())

    def _give(self, keys: list[Key]) -> None:
        for key in keys:
            self._take(key)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
