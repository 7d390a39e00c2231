"""Logs: one promise, and who keeps it."""

from millstream.log.memory import MemoryLog
from millstream.log.promise import Batch, Cursor, EventLog, LogInfo
from millstream.log.store import Command, NewRun, RunRecord, RunStatus, RunStore

__all__ = [
    "Batch",
    "Command",
    "Cursor",
    "EventLog",
    "LogInfo",
    "MemoryLog",
    "NewRun",
    "RunRecord",
    "RunStatus",
    "RunStore",
]
