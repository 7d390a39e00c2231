"""The log in a file: runs that outlive their process, with nothing to install."""

from millstream.log.sqlite.store import SQLiteLog

__all__ = ["SQLiteLog"]
