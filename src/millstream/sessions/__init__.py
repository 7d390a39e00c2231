"""Conversations that are kept between runs: `SQLiteSession`, `RedisSession`, and what one of your own promises."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.sessions.promise import Session, SessionABC, SessionInputCallback, SessionSettings
from millstream.sessions.sqlite import SQLiteSession

if TYPE_CHECKING:
    from millstream.sessions.redis import RedisSession

__all__ = [
    "RedisSession",
    "SQLiteSession",
    "Session",
    "SessionABC",
    "SessionInputCallback",
    "SessionSettings",
]


def __getattr__(name: str) -> Any:
    if name == "RedisSession":  # needs an extra, and is imported by those alone who ask for it
        from millstream.sessions.redis import RedisSession

        return RedisSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
