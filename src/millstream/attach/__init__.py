"""Runs that were started elsewhere: read, cancelled, decided over and resumed by their log."""

from millstream.attach.handle import AttachedRun
from millstream.attach.result import AttachedResult

__all__ = ["AttachedResult", "AttachedRun"]
