"""What is current here: the innermost trace, and in it the innermost span.

"Here" is the context of a task or thread, as `contextvars` has it: what is started here
inherits it. No token is kept: who leaves sets back what was there before, where he is still
the current one, and does nothing anywhere else. So a span may be closed by whoever comes
along: another task, another thread, the garbage collector.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from millstream.tracing.spans import Span
    from millstream.tracing.traces import Trace


class Current(NamedTuple):
    """What is current in one context."""

    trace: Trace | None = None
    span: Span[Any] | None = None
    """Of that trace; None where no span of it is open."""


NOTHING = Current()

_current: ContextVar[Current] = ContextVar("millstream_trace", default=NOTHING)


def current() -> Current:
    """What is current here."""
    return _current.get()


def enter(each: Current) -> Current:
    """Make `each` current, and give what was before, for `leave`."""
    before = _current.get()
    _current.set(each)
    return before


def leave(each: Trace | Span[Any], before: Current) -> None:
    """Make `before` current again, where `each` still is."""
    now = _current.get()
    if each is now.span or each is now.trace:
        _current.set(before)
