"""What a person writes in a chat, read: messages of one line or several, and commands. Pure."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TypeAlias

QUOTES = '"""'


@dataclass(frozen=True)
class Message:
    """Something for the agent."""

    text: str


@dataclass(frozen=True)
class Command:
    """Something for the chat itself."""

    name: str
    """One of `COMMANDS`, whatever it was called by."""
    argument: str = ""


@dataclass(frozen=True)
class Mistake:
    """A command that there is not, or one that was given what it does not take: nothing is sent."""

    line: str
    hint: str


Input: TypeAlias = Message | Command | Mistake


@dataclass(frozen=True)
class Spec:
    """A command: what it takes, what it does, how else it may be called."""

    help: str
    argument: str = ""
    also: tuple[str, ...] = ()


COMMANDS: dict[str, Spec] = {
    "model": Spec("show the model, or go on with another", argument="[NAME]"),
    "reset": Spec("forget the conversation and begin anew", also=("clear",)),
    "usage": Spec("show what the chat has used so far"),
    "help": Spec("show this", also=("?",)),
    "exit": Spec("end the chat", also=("quit", "bye")),
}

_NAMES = {**{name: name for name in COMMANDS}, **{a: name for name, s in COMMANDS.items() for a in s.also}}


def parse(text: str) -> Input | None:
    """What `text`, a whole message, is; None where it says nothing.

    A command is a single line that begins with a slash; with two slashes it is a message that
    begins with one.
    """
    stripped = text.strip()
    if not stripped:
        return None
    if not stripped.startswith("/") or "\n" in stripped:
        return Message(text)
    if stripped.startswith("//"):
        return Message(stripped[1:])
    called, _, argument = stripped[1:].partition(" ")
    name, argument = _NAMES.get(called.lower()), argument.strip()
    if name is None:
        return Mistake(f"there is no command /{called}.", _hint(called))
    if argument and not COMMANDS[name].argument:
        return Mistake(f"/{called} takes nothing behind it.", "/help lists the commands.")
    return Command(name, argument)


def _hint(called: str) -> str:
    close = difflib.get_close_matches(called.lower(), _NAMES, n=1)
    meant = f"did you mean /{close[0]}? " if close else ""
    return f"{meant}/help lists the commands; a message that begins with a slash begins with //."


def help_text() -> str:
    """What `/help` shows."""
    heads = {name: f"/{name} {spec.argument}".rstrip() for name, spec in COMMANDS.items()}
    wide = max(map(len, heads.values()))
    lines = ["commands:"]
    for name, spec in COMMANDS.items():
        also = f" (also: {', '.join(f'/{each}' for each in spec.also)})" if spec.also else ""
        lines.append(f"  {heads[name]:<{wide}}  {spec.help}{also}")
    return "\n".join([*lines, "", *_HOW_TO_WRITE])


_HOW_TO_WRITE = (
    "writing:",
    "  several lines     end each but the last with \\, or put them between",
    f"                    {QUOTES} and {QUOTES}",
    "  a leading slash   write two: //etc/hosts is a message",
    "  while it answers  Esc or Ctrl-C stops the answer; what you type is kept",
    "  at the prompt     Ctrl-C clears the line, and ends the chat where it is",
    "                    empty (right behind an answer: twice); Ctrl-D ends it too",
)


class Draft:
    """Puts lines together to a message: those that end with a backslash, and those between `\"\"\"`."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._quoted = False

    @property
    def is_open(self) -> bool:
        """Whether a line has been taken that did not end the message."""
        return bool(self._lines) or self._quoted

    def add(self, line: str) -> str | None:
        """Take a line; the message, where this one ends it."""
        if self._quoted:
            return self._add_quoted(line)
        if not self._lines and line.lstrip().startswith(QUOTES):
            self._quoted = True
            return self._add_quoted(line.lstrip()[len(QUOTES) :], first=True)
        backslashes = len(line) - len(line.rstrip("\\"))
        goes_on = backslashes % 2 == 1
        self._lines.append(line[:-1] if goes_on else line)
        return None if goes_on else self.close()

    def close(self) -> str:
        """The message as far as it goes; the draft is empty again."""
        text = "\n".join(self._lines)
        self._lines, self._quoted = [], False
        return text

    def _add_quoted(self, line: str, *, first: bool = False) -> str | None:
        body = line.rstrip()
        ends = body.endswith(QUOTES)
        if ends:
            body = body[: -len(QUOTES)]
        # A line of nothing but quotes is no line of the message.
        if (body if ends else line) or not (first or ends):
            self._lines.append(body if ends else line)
        return self.close() if ends else None
