"""Logs: one promise, and who keeps it."""

from millstream.log.memory import MemoryLog
from millstream.log.promise import Batch, Cursor, EventLog, LogInfo

__all__ = ["Batch", "Cursor", "EventLog", "LogInfo", "MemoryLog"]
