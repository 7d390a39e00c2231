"""What a session promises: to keep the items of one conversation, in order.

The names and signatures are those of the OpenAI Agents SDK. What its words leave open is
said here, and `millstream.testing.check_session` holds a session to it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from millstream.errors import UserError

if TYPE_CHECKING:
    from millstream.items import TResponseInputItem

SessionInputCallback: TypeAlias = Callable[
    ["list[TResponseInputItem]", "list[TResponseInputItem]"],
    "list[TResponseInputItem] | Awaitable[list[TResponseInputItem]]",
]
"""Makes of the history and the new input what the model is given. Both lists are copies.

What it returns and did not get as history is stored as the input of this run.
"""


@dataclass
class SessionSettings:
    """How a session is read."""

    limit: int | None = None
    """At most how many items a run is given, the latest; None for all."""

    def __post_init__(self) -> None:
        check_limit(self.limit, "SessionSettings.limit")

    def resolve(self, override: SessionSettings | dict[str, Any] | None) -> SessionSettings:
        """These settings with those of `override` over them that are not None."""
        if override is None:
            return self
        over = asdict(SessionSettings.of(override, "SessionSettings.resolve()"))
        return replace(self, **{name: value for name, value in over.items() if value is not None})

    def to_dict(self) -> dict[str, Any]:
        """The settings by name."""
        return asdict(self)

    @classmethod
    def of(cls, value: SessionSettings | Mapping[str, Any], where: str) -> SessionSettings:
        """`value`, where it is a dict of these fields as an object.

        Raises:
            UserError: it is neither, or a key is no field.
        """
        if isinstance(value, SessionSettings):
            return value
        if not isinstance(value, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise UserError(f"{where} takes SessionSettings or a dict, not {type(value).__name__}.")
        known = [each.name for each in fields(cls)]
        unknown = [key for key in value if key not in known]
        if unknown:
            raise UserError(f"{where}: SessionSettings has no {unknown[0]!r}. It has: {', '.join(known)}.")
        return cls(**value)


def check_limit(limit: Any, where: str) -> None:
    """See that `limit` is a number of items, or None.

    Raises:
        UserError: it is not.
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int)):
        raise UserError(f"{where} is a number of items, or None for all, not {limit!r}.")


@runtime_checkable
class Session(Protocol):
    """A conversation that is kept. Any object with these names is one; see `SessionABC` for what they promise."""

    session_id: str
    if TYPE_CHECKING:

        @property
        def session_settings(self) -> SessionSettings | None:
            """How it is read where a call does not say. Any attribute will do; this tells type checkers that."""
            ...

    else:
        session_settings: SessionSettings | None = None

    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items, oldest first; with `limit` the latest so many."""
        ...

    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add `items` at the end: all of them, or none."""
        ...

    async def pop_item(self) -> TResponseInputItem | None:
        """Take the latest item out and return it; None where there is none."""
        ...

    async def clear_session(self) -> None:
        """Forget all items."""
        ...


class SessionABC(ABC):
    """A conversation that is kept: the base class of the sessions here, and of yours if you like."""

    session_id: str
    """Names the conversation. Sessions of one store and of different ids do not see each other."""
    session_settings: SessionSettings | None = None

    @abstractmethod
    async def get_items(self, limit: int | None = None) -> list[TResponseInputItem]:
        """The items in the order in which they were added. They are the caller's: to change them changes nothing here.

        Args:
            limit: at most how many, the latest; 0 gives none. None takes `session_settings.limit`,
                which is None for all.
        """

    @abstractmethod
    async def add_items(self, items: list[TResponseInputItem]) -> None:
        """Add `items` at the end: all of them, or none. Those of another call never stand between them.

        When this returns, they survive whatever the store is meant to survive.
        """

    @abstractmethod
    async def pop_item(self) -> TResponseInputItem | None:
        """Take the latest item out and return it; None where there is none. No two calls get the same one."""

    @abstractmethod
    async def clear_session(self) -> None:
        """Forget all items. The session can be used on."""


def limit_of(limit: int | None, settings: SessionSettings | None) -> int | None:
    """How many items are asked for: the `limit` of the call, else that of the settings.

    Raises:
        UserError: it is no number.
    """
    if limit is None:
        return None if settings is None else settings.limit
    check_limit(limit, "get_items(limit=...)")
    return max(limit, 0)


def settings_of(given: SessionSettings | dict[str, Any] | None) -> SessionSettings:
    """The settings that a session was made with.

    Raises:
        UserError: they are none.
    """
    return SessionSettings() if given is None else SessionSettings.of(given, "session_settings")


def check_session_id(session_id: Any) -> str:
    """The id that a session was made with.

    Raises:
        UserError: it is no text, or empty: every such conversation would be the same.
    """
    if not isinstance(session_id, str) or not session_id:
        raise UserError(
            f"session_id={session_id!r}: a session is named by a text, as that of its user or its thread."
        )
    return session_id
