"""Ids of traces and spans, and how their times are written."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime

from millstream.clock import current_clock

NO_OP = "no-op"
"""The id of a trace or span that nobody records."""


def gen_trace_id() -> str:
    """A new id for a trace: `trace_` and 128 random bits."""
    return f"trace_{secrets.token_hex(16)}"


def gen_span_id() -> str:
    """A new id for a span: `span_` and 96 random bits."""
    return f"span_{secrets.token_hex(12)}"


def gen_group_id() -> str:
    """A new id for traces that belong together: `group_` and 96 random bits."""
    return f"group_{secrets.token_hex(12)}"


def time_iso() -> str:
    """The time now, as ISO 8601 in UTC; by the clock of the run, where this is called in one."""
    return datetime.fromtimestamp(current_clock().time(), UTC).isoformat(timespec="microseconds")
