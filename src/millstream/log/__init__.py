"""Logs: one promise, and who keeps it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from millstream.log.memory import MemoryLog
from millstream.log.promise import Batch, Cursor, EventLog, LogInfo
from millstream.log.sqlite import SQLiteLog
from millstream.log.store import Command, ConversationRecord, NewRun, RunRecord, RunStatus, RunStore

if TYPE_CHECKING:
    from millstream.log.redis import RedisLog

__all__ = [
    "Batch",
    "Command",
    "ConversationRecord",
    "Cursor",
    "EventLog",
    "LogInfo",
    "MemoryLog",
    "NewRun",
    "RedisLog",
    "RunRecord",
    "RunStatus",
    "RunStore",
    "SQLiteLog",
]


def __getattr__(name: str) -> Any:
    if name == "RedisLog":  # needs an extra, and is imported by those alone who ask for it
        from millstream.log.redis import RedisLog

        return RedisLog
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
