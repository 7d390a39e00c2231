"""What others may say to a run, whoever owns it: stop, here is input, that call may run or may not.

And what those say to each other who recover it: a process that dies of what it asks its program for can say no more.

Rules of this file:

1. A command is data, from a store that others may write: it is read by the classes below alone,
   and what they do not name is refused.
2. A call is decided over once. The command is named after the call and the pause that it waits at, so
   that the store keeps the first decision, takes the same one again, and refuses another. A call that
   is the same in everything and waits at a later pause is another: servers use call ids again.
3. Whoever says something is told what cannot be meant before it is kept.
4. What is said before the run takes its last decision is followed, whatever becomes of its owner: the
   owner looks when it has an output, and behind a pause (`tenure.py`); who goes on with a run looks first.
   What comes later, and before the end is written, is kept and has no effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec

from millstream import codec
from millstream.approval import CallKey, Decision
from millstream.errors import LogDamagedError, UserError
from millstream.events import CancelMode
from millstream.items import ItemHelpers
from millstream.log.store import Command
from millstream.run.input import check_input

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem


class Cancel(msgspec.Struct, frozen=True):
    """Stop."""

    mode: CancelMode = "now"


class Send(msgspec.Struct, frozen=True):
    """Here is input."""

    items: list[dict[str, Any]]
    when: CancelMode = "now"


class Decide(msgspec.Struct, frozen=True):
    """That call may run, or may not."""

    agent: str
    tool: str
    call_id: str
    call_arguments: str
    approved: bool
    pause: int = 0
    """The position of the pause that the call waits at."""
    nth: int = 0
    always: bool = False
    message: str | None = None
    arguments: str | None = None

    @property
    def key(self) -> CallKey:
        """The call that was decided over."""
        return CallKey(self.agent, self.tool, self.call_id, self.call_arguments, self.nth)

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return Decision(self.approved, self.message, self.arguments)


class Try(msgspec.Struct, frozen=True):
    """Somebody is about to ask a program for what the run needs to go on. It may cost him his life."""


class Leave(msgspec.Struct, frozen=True):
    """It did not, and he leaves the run as it is."""


Said: TypeAlias = Cancel | Send | Decide | Try | Leave

_KINDS: dict[str, type[Said]] = {"cancel": Cancel, "send": Send, "decide": Decide, "try": Try, "leave": Leave}


def cancel_command(mode: CancelMode | Literal["immediate"] = "now") -> Command:
    """Stop the run.

    Raises:
        UserError: there is no such mode.
    """
    known = "now" if mode == "immediate" else mode
    if known not in ("now", "after_tool", "after_turn"):
        raise UserError(f'A run is cancelled "now", "after_tool" or "after_turn", not {mode!r}.')
    return _command("cancel", Cancel(known))


def send_command(message: str | list[TResponseInputItem], when: CancelMode = "now") -> Command:
    """Give the run more input.

    Raises:
        InputItemError: it is no input that models take.
        UserError: there is no such moment.
    """
    if when not in ("now", "after_tool", "after_turn"):
        raise UserError(f'Input is sent for "now", "after_tool" or "after_turn", not {when!r}.')
    items = check_input(ItemHelpers.input_to_new_input_list(cast("Any", message)))
    return _command("send", Send(cast("list[dict[str, Any]]", items), when))


def decide_command(key: CallKey, decision: Decision, *, pause: int, always: bool = False) -> Command:
    """Decide over a call that waits.

    Args:
        key: the call.
        decision: what is decided.
        pause: the position of the `run.paused` that it waits at.
        always: also over all later calls of that tool by that agent.
    """
    said = Decide(
        agent=key.agent,
        tool=key.tool,
        call_id=key.call_id,
        call_arguments=key.arguments,
        nth=key.nth,
        approved=decision.approved,
        pause=pause,
        always=always,
        message=decision.message,
        arguments=decision.arguments,
    )
    return _command("decide", said, key=codec.encode(["decide", pause, *key]).decode())


def try_command() -> Command:
    """Somebody is about to go on with the run."""
    return _command("try", Try())


def leave_command() -> Command:
    """Who was about to go on with it leaves it."""
    return _command("leave", Leave())


def read(commands: Sequence[Command], run_id: str) -> list[Said]:
    """What `commands` say, in order.

    Raises:
        LogDamagedError: one is no command of ours.
    """
    said: list[Said] = []
    for command in commands:
        form = _KINDS.get(command.kind)
        try:
            if form is None:
                raise msgspec.ValidationError("nobody knows that kind of command")
            said.append(msgspec.json.decode(command.body, type=form))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise LogDamagedError(
                f"Run {run_id}: command {command.number} ({command.kind!r}) cannot be read: {error}"
            ) from None
    return said


def _command(kind: str, said: Said, key: str | None = None) -> Command:
    return Command(kind, codec.encode(msgspec.to_builtins(said)), key)
