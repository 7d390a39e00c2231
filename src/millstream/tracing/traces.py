"""Traces: the spans of one workflow, be it one run or several."""

from __future__ import annotations

import abc
from types import TracebackType
from typing import TYPE_CHECKING, Any

from typing_extensions import TypedDict, override

from millstream.tracing.current import Current, enter, leave
from millstream.tracing.ids import NO_OP, gen_trace_id

if TYPE_CHECKING:
    from typing import Self

    from millstream.tracing.processors import TracingProcessor


class TracingConfig(TypedDict, total=False):
    """Settings of one trace."""

    api_key: str
    """Handed to exporters as `tracing_api_key`; Millstream itself has no use for it."""
    include_task_and_turn_spans: bool
    """Whether runs open a span for themselves and for each turn, around those of their agents; by default they do."""


class Trace(abc.ABC):
    """One workflow from end to end. Use it as `with trace("Support") as trace:` around the runs of it.

    In the `with`, it is the current trace, also in tasks and threads that are started there.
    """

    def __enter__(self) -> Self:
        self.start(mark_as_current=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.finish(reset_current=True)

    @abc.abstractmethod
    def start(self, mark_as_current: bool = False) -> None:
        """Begin. A second call does nothing.

        Args:
            mark_as_current: make it the current trace.
        """

    @abc.abstractmethod
    def finish(self, reset_current: bool = False) -> None:
        """End. A second call does nothing. May be called from any task, thread or context.

        Args:
            reset_current: make current what was so before, where this trace still is.
        """

    @property
    @abc.abstractmethod
    def trace_id(self) -> str:
        """Its id."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """The name of the workflow."""

    @abc.abstractmethod
    def export(self) -> dict[str, Any] | None:
        """The trace as a dict; None for one that is disabled."""

    @property
    @abc.abstractmethod
    def tracing_api_key(self) -> str | None:
        """The key of `TracingConfig`, for exporters that need one."""

    def to_json(self, *, include_tracing_api_key: bool = False) -> dict[str, Any] | None:
        """What `export` gives, as a new dict.

        Args:
            include_tracing_api_key: with the key, which is a secret.
        """
        exported = self.export()
        if exported is None:
            return None
        if include_tracing_api_key and self.tracing_api_key is not None:
            return {**exported, "tracing_api_key": self.tracing_api_key}
        return dict(exported)


class NoOpTrace(Trace):
    """A trace that is disabled: its spans are not recorded."""

    def __init__(self) -> None:
        self._before: Current | None = None

    @override
    def start(self, mark_as_current: bool = False) -> None:
        if mark_as_current and self._before is None:
            self._before = enter(Current(self))

    @override
    def finish(self, reset_current: bool = False) -> None:
        if reset_current and self._before is not None:
            leave(self, self._before)

    @property
    @override
    def trace_id(self) -> str:
        return NO_OP

    @property
    @override
    def name(self) -> str:
        return NO_OP

    @override
    def export(self) -> dict[str, Any] | None:
        return None

    @property
    @override
    def tracing_api_key(self) -> str | None:
        return None


class RecordedTrace(Trace):
    """A trace that processors are told of, if there were any when it was made.

    Args:
        name: the name of the workflow.
        processors: who is told; None where nobody is. Such a trace has its id all the same, which a
            program may have use for, and its spans are not recorded.
        trace_id: its id; None for a new one.
        group_id: ties traces together: those of one conversation, say.
        metadata: anything that belongs to it.
        tracing: its settings.
    """

    def __init__(
        self,
        name: str,
        processors: TracingProcessor | None,
        *,
        trace_id: str | None = None,
        group_id: str | None = None,
        metadata: dict[str, Any] | None = None,
        tracing: TracingConfig | None = None,
    ) -> None:
        self._name = name
        self._trace_id = gen_trace_id() if trace_id is None else trace_id
        self._api_key = None if tracing is None else tracing.get("api_key")
        self._before: Current | None = None
        self.processors = processors
        self.group_id = group_id
        self.metadata = metadata
        self.has_started = False
        self.has_ended = False

    @override
    def start(self, mark_as_current: bool = False) -> None:
        if self.has_started:
            return
        self.has_started = True
        if mark_as_current:  # first, so that a processor knows
            self._before = enter(Current(self))
        if self.processors is not None:
            self.processors.on_trace_start(self)

    @override
    def finish(self, reset_current: bool = False) -> None:
        if self.has_started and not self.has_ended:
            self.has_ended = True
            if self.processors is not None:
                self.processors.on_trace_end(self)
        if reset_current and self._before is not None:
            leave(self, self._before)

    @property
    @override
    def trace_id(self) -> str:
        return self._trace_id

    @property
    @override
    def name(self) -> str:
        return self._name

    @override
    def export(self) -> dict[str, Any] | None:
        return {
            "object": "trace",
            "id": self._trace_id,
            "workflow_name": self._name,
            "group_id": self.group_id,
            "metadata": self.metadata,
        }

    @property
    @override
    def tracing_api_key(self) -> str | None:
        return self._api_key
