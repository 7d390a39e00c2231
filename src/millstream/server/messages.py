"""What a client may say on a WebSocket, and what is answered: JSON objects, a struct for each.

A command is what it is over HTTP, with a `type` and, where its client wishes to tell its answers apart, an `id`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, TypeAlias, cast

import msgspec

from millstream import codec
from millstream.delivery.frame import Message
from millstream.server import commands
from millstream.server.answers import TOO_LARGE, ProblemError
from millstream.server.forms import formed, json_of
from millstream.server.routes.runs import RunShown

Id: TypeAlias = Annotated[str, msgspec.Meta(max_length=255)] | int | None
"""What a client calls one of its commands."""


class Start(commands.Start, tag_field="type", tag="start"):
    """Begin a run, and follow it from its first entry on."""

    stream: bool = True
    """Whether it is followed; else what was followed before goes on."""
    idempotency_key: str | None = None
    """As the header of that name."""
    id: Id = None


class Follow(commands.Follow, tag_field="type", tag="follow"):
    """Follow a run."""

    run_id: str
    id: Id = None


class Cancel(commands.Cancel, tag_field="type", tag="cancel"):
    """Stop a run."""

    run_id: str | None = None
    """The run; without it, the one that this connection follows, or followed last."""
    id: Id = None


class Decide(commands.Decide, tag_field="type", tag="decide"):
    """Decide over a call that waits."""

    run_id: str | None = None
    """As of `Cancel`."""
    id: Id = None


class Input(commands.Input, tag_field="type", tag="input"):
    """Give a run more input."""

    run_id: str | None = None
    """As of `Cancel`."""
    id: Id = None


class Unfollow(msgspec.Struct, tag_field="type", tag="unfollow", kw_only=True, forbid_unknown_fields=True):
    """Follow no run any more; it goes on."""

    id: Id = None


class Ping(msgspec.Struct, tag_field="type", tag="ping", kw_only=True, forbid_unknown_fields=True):
    """Ask whether anybody is there."""

    id: Id = None


Command: TypeAlias = Start | Follow | Cancel | Decide | Input | Unfollow | Ping
"""What a client may say."""


class Following(RunShown, kw_only=True):
    """The answer to who begins a run, or follows one."""

    is_followed: bool
    """Whether its stream comes now: not where nothing is left of it, or none was wished."""


class Unfollowed(msgspec.Struct):
    """The answer to who follows no run any more."""

    run_id: str | None
    """The run that was followed, or was followed last."""


def object_in(data: str | bytes, most: int) -> Any:
    """The JSON value of a message that has at most so many bytes.

    Raises:
        ProblemError: it has more, or is none.
    """
    sent = data if isinstance(data, bytes) else data.encode(errors="replace")
    if len(sent) > most:
        raise ProblemError(_TOO_LARGE)
    return json_of(data, _MESSAGE)


def command_in(plain: Any) -> Command:
    """The command that a JSON value is.

    Raises:
        ProblemError: it is none; says what is wrong with it.
    """
    return formed(plain, cast("Any", Command), _MESSAGE)


def id_in(plain: Any) -> Id:
    """What the client calls a command, whatever else may be wrong with it.

    Raises:
        ProblemError: it is no name.
    """
    if not isinstance(plain, dict):
        return None
    return formed({"id": cast("dict[str, Any]", plain).get("id")}, _Named, _MESSAGE).id


def message(kind: str, called: Id, fields: dict[str, Any]) -> Message:
    """An answer to the command that its client calls so."""
    named = {} if called is None else {"id": called}
    return Message(codec.encode({"type": kind} | named | fields), kind)


class _Named(msgspec.Struct):
    id: Id


_MESSAGE = "The message"
_TOO_LARGE = replace(TOO_LARGE, message="The message is larger than this server takes.")
