"""What is asked of the server about a run, and what its answers mean. Pure: nothing here reaches a server.

Rules of this file:

1. What the server gives is not trusted: an answer that is none of a script of ours is a
   `LogDamagedError`, and so is what others have put in its place.
2. A time is the server's. Leases are told in seconds, and sent in milliseconds.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import msgspec

from millstream import codec
from millstream.errors import (
    CommandConflictError,
    ConversationBusyError,
    IdempotencyError,
    LogDamagedError,
    PositionConflictError,
    RunClosedError,
    RunExistsError,
    RunOwnedError,
    StaleOwnerError,
    UnknownConversationError,
    UnknownRunError,
)
from millstream.log.form import unpack
from millstream.log.promise import Batch, LogInfo
from millstream.log.redis import scripts
from millstream.log.redis.server import Call, Reply
from millstream.log.store import ENDED, Command, ConversationRecord, NewRun, RunRecord, RunStatus
from millstream.log.tails import Chunk, Mail, Reach, Tails
from millstream.log.worker import Wakes

T = TypeVar("T")

AT_ONCE = 128
"""Batches that are read at once."""
PLACES = 256
"""Places in a listing that one call looks at: the server does nothing else meanwhile."""

_STATUSES: frozenset[str] = frozenset({"queued", "running", "paused"}) | ENDED


@dataclass(frozen=True, slots=True)
class Gone:
    """The server knows nothing of the run."""

    store: str
    """Which log that is: another one than before has lost what it had."""


@dataclass(frozen=True, slots=True)
class Request:
    """One call, and what its answer means."""

    call: Call
    outcome: Callable[[Reply], Any]
    """What came of it; raises where the answer is a refusal."""
    run_id: str = ""
    tell: Callable[[Tails, Any, Wakes], None] | None = None
    """Tells those who wait in this process."""


# --- events ------------------------------------------------------------------------------------


def read(run_id: str, after: int, count: int = AT_ONCE) -> Request:
    """At most `count` batches behind `after`, as a `Chunk`; or `Gone`."""

    def outcome(reply: Reply) -> Chunk | Gone:
        word, *rest = reply
        if word == b"gone":
            return Gone(_text(rest[0]))
        first, last, sealed, mail, pairs = rest
        batches: list[Batch] = []
        for position, data in zip(pairs[::2], pairs[1::2], strict=True):
            try:
                batches.append(unpack(data, run_id, position))
            except LogDamagedError:
                if not batches:  # what is sound is read first
                    raise
                break
        return Chunk(batches, Reach(first, last, bool(sealed), mail))

    return _request(scripts.READ, run_id, (max(after, 0), count), outcome)


def info(run_id: str) -> Request:
    """How far a run reaches, as a `LogInfo`."""

    def outcome(reply: Reply) -> LogInfo:
        word, *rest = reply
        if word == b"gone" or not rest[1]:
            raise UnknownRunError(run_id)
        return LogInfo(rest[0], rest[1], bool(rest[2]))

    return _request(scripts.READ, run_id, (0, 0), outcome)


def trim(run_id: str, first: int) -> Request:
    """Forget the positions before `first`; the first one that is held."""
    return _request(
        scripts.TRIM,
        run_id,
        (first,),
        lambda reply: int(reply[1]) if reply[0] == b"ok" else 1,
        tell=lambda tails, held_from, wakes: tails.trimmed(run_id, held_from, wakes),
    )


# --- records -----------------------------------------------------------------------------------


def create(run: NewRun) -> Request:
    """Keep a run; the id of the one that is kept now."""

    def outcome(reply: Reply) -> str:
        word, *rest = reply
        if word == b"exists":
            raise RunExistsError(f"There is a run {run.run_id} already: give a new one an id of its own.")
        if word == b"conflict":
            raise IdempotencyError(run.idempotency_key or "", _text(rest[0]))
        if word == b"busy":
            raise ConversationBusyError(run.conversation, _text(rest[0]))
        return _text(rest[0])

    arguments = (run.agent, run.request, run.caller, codec.encode(run.options))
    key = run.idempotency_key
    arguments += (_flag(key is not None), key or "", _once(), run.conversation)
    return _request(scripts.CREATE, run.run_id, arguments, outcome)


def record(run_id: str) -> Request:
    """What is known of a run."""

    def outcome(reply: Reply) -> RunRecord:
        word, *rest = reply
        if word == b"gone":
            raise UnknownRunError(run_id)
        now, pairs = rest
        fields = {_text(name): value for name, value in zip(pairs[::2], pairs[1::2], strict=True)}
        return _record(run_id, fields, int(now))

    return _request(scripts.RECORD, run_id, (), outcome)


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a listing."""

    records: list[RunRecord]
    place: str
    """Where it goes on; "" where nothing follows."""


def runs(
    caller: str | None,
    statuses: Collection[RunStatus],
    conversation: str | None,
    limit: int,
    before: str | None,
    place: str,
) -> Request:
    """A page of a listing from `place` on, or behind the run `before`."""

    def outcome(reply: Reply) -> Page:
        word, *rest = reply
        if word == b"gone":
            raise UnknownRunError(before or "")
        now, rows, place = rest
        return Page([_listed(_text(row[0]), row[1:], int(now)) for row in rows], _text(place))

    wanted = f" {' '.join(statuses)} " if statuses else ""
    arguments = (_flag(caller is not None), caller or "", wanted, place, PLACES, limit)
    arguments += (_flag(conversation is not None), conversation or "")
    return _request(scripts.RUNS, before or "", arguments, outcome)


_LISTED = (
    "agent", "status", "caller", "options", "key", "created", "updated", "epoch", "lease", "last", "code",
    "conversation",
)  # fmt: skip
"""What `row_of` in `lua/common.lua` gives."""


def _listed(run_id: str, row: Sequence[Any], now: int) -> RunRecord:
    return _record(run_id, dict(zip(_LISTED, row, strict=True)), now)


def delete(run_id: str) -> Request:
    """Forget a run; None."""
    return _request(
        scripts.DELETE,
        run_id,
        (),
        lambda _: None,
        tell=lambda tails, _, wakes: tails.deleted(run_id, wakes),
    )


def sweep(older_than: float) -> Request:
    """Forget some that ended long ago: how many, and whether there are more."""
    return _request(
        scripts.SWEEP, "", (_milliseconds(older_than),), lambda reply: (int(reply[0]), bool(reply[1]))
    )


def _record(run_id: str, fields: dict[str, Any], now: int) -> RunRecord:
    def text(name: str) -> str:
        return _text(fields.get(name) or b"")

    try:
        status = text("status")
        if status not in _STATUSES:
            raise ValueError(f"its status is {status!r}")
        key = fields.get("key")
        return RunRecord(
            run_id=run_id,
            agent=text("agent"),
            status=cast("RunStatus", status),
            caller=text("caller"),
            options=codec.decode(fields.get("options") or b"{}"),
            idempotency_key=None if key is None else _text(key),
            conversation=text("conversation"),
            created=int(text("created")) / 1000,
            updated=int(text("updated")) / 1000,
            epoch=int(text("epoch")),
            is_owned=int(text("lease") or 0) > now,
            last=int(text("last")),
            code=text("code") or None,
            request=fields.get("request"),
            checkpoint=fields.get("checkpoint"),
            checkpoint_at=int(text("checkpoint_at") or 0),
        )
    except Exception as error:  # whatever others have put there
        raise LogDamagedError(f"The record of run {run_id} cannot be read: {error}") from error


# --- conversations -----------------------------------------------------------------------------


def conversations(caller: str, limit: int, *, one: str = "", before: str | None = None) -> Request:
    """Those of a caller behind the one `before`, or the one that is named."""

    def outcome(reply: Reply) -> list[ConversationRecord]:
        word, *rest = reply
        if word == b"gone":
            raise UnknownConversationError(_text(rest[0]))
        now, rows = rest
        return [_conversation(caller, row, int(now)) for row in rows]

    return _request(scripts.CONVERSATIONS, "", (caller, one, before or "", limit), outcome)


def _conversation(caller: str, row: Sequence[Any], now: int) -> ConversationRecord:
    conversation, created, updated, run_id, run = row
    is_there = run[1] is not None
    return ConversationRecord(
        id=_text(conversation),
        caller=caller,
        created=int(created) / 1000,
        updated=int(updated) / 1000,
        run=_listed(_text(run_id), run, now) if is_there else None,
    )


def items(caller: str, conversation: str, limit: int | None) -> Request:
    """The items of a conversation, the latest so many."""

    def outcome(reply: Reply) -> list[bytes]:
        word, *rest = reply
        if word == b"gone":
            raise UnknownConversationError(conversation)
        return list(rest[0])

    return _request(scripts.ITEMS, "", (caller, conversation, -(limit or 0)), outcome)


def add_items(run_id: str, added: Sequence[bytes], epoch: int) -> Request:
    """Put items at the end of the conversation of a run; None."""

    def outcome(reply: Reply) -> None:
        word, *rest = reply
        if word == b"gone":
            raise UnknownRunError(run_id)
        if word == b"none":
            raise UnknownConversationError("")
        if word == b"stale":
            raise stale(run_id, epoch, int(rest[0]))
        if word == b"closed":
            raise RunClosedError(f"Run {run_id} has ended; nothing more can be added to its conversation.")

    return _request(scripts.ADD_ITEMS, run_id, (epoch, _once(), *added), outcome)


def forget(caller: str, conversation: str) -> Request:
    """Forget a conversation; the ids of its runs."""

    def outcome(reply: Reply) -> list[str]:
        word, told = reply
        if word == b"busy":
            raise ConversationBusyError(conversation, _text(told))
        return [_text(run_id) for run_id in told]

    def tell(tails: Tails, run_ids: list[str], wakes: Wakes) -> None:
        for run_id in run_ids:
            tails.deleted(run_id, wakes)

    return _request(scripts.FORGET, "", (caller, conversation), outcome, tell=tell)


# --- owners ------------------------------------------------------------------------------------


def claim(run_id: str, owner: str, lease: float, last: int | None) -> Request:
    """Become the owner; the epoch."""

    def outcome(reply: Reply) -> int:
        word, *rest = reply
        if word == b"gone":
            raise UnknownRunError(run_id)
        if word == b"closed":
            raise RunClosedError(f"Run {run_id} has ended; it cannot be claimed.")
        if word == b"owned":
            raise RunOwnedError(f"Run {run_id} has an owner that lives: {_text(rest[0])}.")
        if word == b"moved":
            raise PositionConflictError(
                f"Run {run_id} was written to: its last position is {int(rest[0])}, not {last}."
            )
        return int(rest[0])

    arguments = (owner, _milliseconds(lease), _flag(last is not None), last or 0)
    return _request(scripts.CLAIM, run_id, arguments, outcome)


def renew(run_id: str, epoch: int, lease: float) -> Request:
    """Keep the run; None."""

    def outcome(reply: Reply) -> None:
        word, *rest = reply
        if word == b"gone":
            raise UnknownRunError(run_id)
        if word == b"stale":
            raise stale(run_id, epoch, int(rest[0]))

    return _request(scripts.RENEW, run_id, (epoch, _milliseconds(lease)), outcome)


def let_go(run_id: str, epoch: int) -> Request:
    """End the lease; None."""
    return _request(scripts.LET_GO, run_id, (epoch,), lambda _: None)


def orphans(limit: int) -> Request:
    """The ids of runs that are nobody's."""
    return _request(scripts.ORPHANS, "", (limit,), lambda reply: [_text(run_id) for run_id in reply])


def stale(run_id: str, epoch: int, present: int) -> StaleOwnerError:
    """Somebody else has the run; or nobody has, in the eyes of a server that has lost the claim."""
    why = (
        f"Run {run_id} has another owner: its epoch is {present}, not {epoch}."
        if present > epoch
        else f"Run {run_id} has epoch {present} and never had epoch {epoch}, or the Redis server has lost that claim."
    )
    return StaleOwnerError(why)


# --- mail --------------------------------------------------------------------------------------


class _Letter(msgspec.Struct, frozen=True, array_like=True):
    kind: str
    body: bytes
    key: str | None


def tell(run_id: str, command: Command) -> Request:
    """Put a command into the mail; its number."""

    def outcome(reply: Reply) -> int:
        word, *rest = reply
        if word == b"gone":
            raise UnknownRunError(run_id)
        if word == b"closed":
            raise RunClosedError(f"Run {run_id} has ended; nobody would read that.")
        if word == b"conflict":
            raise CommandConflictError(
                f"Something else was said to run {run_id} under the key {command.key!r}."
            )
        return int(rest[0])

    letter = msgspec.msgpack.encode(_Letter(command.kind, command.body, command.key))
    key = command.key
    return _request(
        scripts.TELL,
        run_id,
        (_flag(key is not None), key or "", letter, _once()),
        outcome,
        tell=lambda tails, number, wakes: tails.told(run_id, number, wakes),
    )


def mail(run_id: str, after: int) -> Request:
    """The mail behind a number."""
    start = max(after, 0)

    def outcome(reply: Reply) -> Mail:
        word, *rest = reply
        if word == b"gone":
            return Mail([], is_last=True)
        sealed, letters = rest
        return Mail([_command(run_id, *each) for each in enumerate(letters, start + 1)], bool(sealed))

    return _request(scripts.MAIL, run_id, (start,), outcome)


def _command(run_id: str, number: int, data: bytes) -> Command:
    try:
        letter = _letter.decode(data)
    except msgspec.MsgspecError as error:
        raise LogDamagedError(f"Run {run_id}: command {number} cannot be read: {error}") from None
    return Command(letter.kind, letter.body, letter.key, number)


_letter = msgspec.msgpack.Decoder(_Letter)

# --- how it is written -------------------------------------------------------------------------


def _request(
    script: scripts.Script,
    run_id: str,
    arguments: Sequence[Any],
    outcome: Callable[[Reply], Any],
    *,
    tell: Callable[[Tails, Any, Wakes], None] | None = None,
) -> Request:
    def read(reply: Reply) -> Any:
        try:
            return outcome(reply)
        except (TypeError, ValueError, IndexError) as error:
            raise LogDamagedError(f"What the server says of run {run_id} cannot be read: {error}") from error

    return Request(Call(script, tuple(map(argument, (run_id, *arguments)))), read, run_id, tell)


def argument(value: Any) -> Any:
    """An argument as it is sent: the name of an agent may hold what is no UTF-8."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value


def _flag(value: bool) -> int:
    return int(value)


def _milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _once() -> str:
    """By which the server knows a call again whose answer was lost."""
    return secrets.token_hex(8)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")
