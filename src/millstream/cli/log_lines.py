"""How `millstream serve` shows its log on standard error: lines for people, or one JSON object a line."""

from __future__ import annotations

import logging
import re
from datetime import UTC, datetime
from typing import Any

from millstream import codec

LEVELS = ("debug", "info", "warning", "error")
FORMS = ("text", "json")

_HANDLER = "millstream-serve"
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def show_log(level: str, form: str) -> None:
    """Show what Millstream logs from `level` on, and what the HTTP server does.

    A program that shows logs itself, by a handler of the root logger, does so in its own way, and nothing is
    shown here.
    """
    handler = logging.StreamHandler()
    handler.set_name(_HANDLER)
    handler.setFormatter(_Json() if form == "json" else _Text())
    handler.addFilter(_is_for_us)
    for logger in (logging.getLogger("millstream"), logging.getLogger("uvicorn")):
        for earlier in [each for each in logger.handlers if each.name == _HANDLER]:
            logger.removeHandler(earlier)
        logger.addHandler(handler)
    logging.getLogger("millstream").setLevel(level.upper())


def _is_for_us(_: logging.LogRecord) -> bool:
    return not logging.getLogger().handlers


class _Text(logging.Formatter):
    """`2030-01-01 12:00:00,000 INFO run run_…: begins`. A traceback follows in lines of its own."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line, which is one: what came from elsewhere makes up no other, and tells the terminal nothing."""
        line = super().formatMessage(record)
        run_id = getattr(record, "run_id", None)
        if run_id is not None and run_id not in line:
            line += f" (run {run_id})"
        return _CONTROLS.sub(lambda found: repr(found[0])[1:-1], line)


class _Json(logging.Formatter):
    """One line of strict JSON: `time` (UTC), `level`, `logger`, `message`; `run_id` and `exception` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (run_id := getattr(record, "run_id", None)) is not None:
            line["run_id"] = run_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return codec.encode(line).decode()
