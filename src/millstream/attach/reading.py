"""A run that is known by its log alone: what can be read of it, and what it has come to.

Where that log is, and how it is reached, is the matter of a `LogSource`: a store (`handle.py`), or a
server that has one (`millstream.client`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Generator, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast, overload

from millstream.attach.result import AttachedResult, history_of, output_as, result_from
from millstream.errors import UserError
from millstream.events import EVENT_TYPES, AgentUpdatedStreamEvent, Entry, StreamEvent
from millstream.items import AgentRef
from millstream.result import readers
from millstream.stream.arguments import ToolArgumentsDelta
from millstream.stream.filter import EVERYTHING, EntryFilter
from millstream.stream.order import EventOrder
from millstream.stream.partial import Partial, PartialOutput

if TYPE_CHECKING:
    from millstream.attach.source import LogSource, Until
    from millstream.log.promise import Batch, Cursor, Payload
    from millstream.log.store import RunRecord, RunStatus

T = TypeVar("T")

_TOLD = EntryFilter(types=EVENT_TYPES.keys() - {"raw_response_event"})
"""What a result is told by: all but the models' own events, which are most of a log."""


class LogRun(ABC):
    """A run, read by its log.

    Args:
        run_id: the run.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id

    @property
    def run_id(self) -> str:
        """The run."""
        return self._run_id

    # --- looking -----------------------------------------------------------------------------

    @abstractmethod
    async def record(self) -> RunRecord:
        """What is known of the run: how far it has come, whether anybody owns it.

        Raises:
            UnknownRunError: there is no such run.
        """

    async def status(self) -> RunStatus:
        """Where the run stands. "running" says nothing of whether its process lives: `record()` has `is_owned`."""
        return (await self.record()).status

    # --- reading -----------------------------------------------------------------------------

    def entries(
        self,
        after: int = 0,
        *,
        depth: int | None = None,
        types: Iterable[str] | None = None,
        until: Until = "end",
    ) -> AsyncIterator[Entry]:
        """Every entry beyond position `after`, nested runs included, to the terminal one.

        Goes on through pauses, whoever resumes the run, and through a change of its owner: `run.attempt`
        says what that made void. Never raises for a failed run: its terminal entry says so.

        Args:
            after: the position behind which to begin; 0 for the start.
            depth: how deep a run may be nested whose entries are given: 0 for this run alone, None for all.
            types: the types of events that are given, and of the model's own ("response.…"); None for all.
            until: "pause" ends where the run waits for decisions, too.

        Raises:
            UserError: `after` is negative, `depth` is no number of levels, or there is no such type.
            LogGapError: the reader asked for a position that is no longer held.
            LogBrokenError: the run was deleted.
        """
        if until not in ("end", "pause"):
            raise UserError(f"entries(until={until!r}): a reader goes on until 'end' or 'pause'.")
        wanted = readers.wanted(after, depth=depth, types=types)
        return readers.EntryReader(self._source(until, wanted), after, wanted)

    def stream_events(self, *, early: bool = False) -> AsyncIterator[StreamEvent]:
        """The run's own events from the first on, in the order of the OpenAI Agents SDK.

        Ends with the run, and where it waits for decisions; raises at its end what its log tells of
        a failure, as a `RunFailedError`. A cancelled run just ends.

        Args:
            early: give each item when it exists: a tool call when the model has written it,
                a tool's output when that tool is done.
        """
        return readers.EventReader(self._source(), EventOrder(early=early))

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self.stream_events()

    def text(self) -> AsyncIterator[str]:
        """The text of the answer as it forms: of the run itself, not of runs nested in it. Ends as `stream_events()`."""
        return readers.TextReader(self._source())

    def tool_arguments(self) -> AsyncIterator[ToolArgumentsDelta]:
        """The arguments of tool calls as the model writes them, each piece with its call. Ends as `stream_events()`."""
        return readers.ToolArgumentsReader(self._source())

    @overload
    def partial_output(self) -> AsyncIterator[Any]: ...
    @overload
    def partial_output(self, output_type: type[T]) -> AsyncIterator[Partial[T] | T]: ...
    def partial_output(self, output_type: type[Any] | None = None) -> AsyncIterator[Any]:
        """The output as it forms: `Partial`s, each with more of it, and at last the output itself.

        Where the model starts over, a `Partial` without a value says that what came before is void.
        Ends as `stream_events()`.

        Args:
            output_type: what the agents' output is to be: their log does not say it. None for text.

        Raises:
            TypeError: at its end: the output is no `output_type`.
        """
        return _OutputReader(self._source(), output_type)

    @abstractmethod
    def _source(self, until: Until = "pause", wanted: EntryFilter = EVERYTHING) -> LogSource:
        """The run for one more reader of it, who needs no more than `wanted`; that, and more, is what the source gives."""

    def cursor(self, after: int = 0) -> Cursor:
        """A cursor in the log behind position `after`, to the run's end: what the readers above read."""
        return self._source("end").cursor(after)

    # --- the result --------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, AttachedResult]:
        return self.result().__await__()

    async def result(self) -> AttachedResult:
        """Wait until the run has ended, or waits for decisions; what it came to. To be cancelled meanwhile leaves the run alone.

        Raises:
            RunFailedError: it failed.
            RunCancelledError: it was cancelled.
            LogGapError: its beginning is no longer held.
        """
        source = self._source("pause", _TOLD)
        return result_from(source, await history_of(source))


class _OutputReader(readers.PartialReader):
    """Gives the output as it forms, and at last validated, as an `output_type`."""

    __slots__ = ("_type", "_writer")

    def __init__(self, source: LogSource, output_type: Any) -> None:
        self._type = output_type
        self._writer = cast("Any", _Writer(output_type))
        super().__init__(source, PartialOutput(self._writer))

    def _look(self, batch: Batch) -> list[Any]:
        found = super()._look(replace(batch, payloads=[self._typed(each) for each in batch.payloads]))
        if self._type is None or not found or isinstance(found[-1], Partial):
            return found
        return [*found[:-1], output_as(self._type, found[-1])]

    def _typed(self, payload: Payload) -> Payload:
        """What was read back of an agent is its name: whichever it is, it writes what is asked for."""
        if isinstance(payload, AgentUpdatedStreamEvent) and isinstance(payload.new_agent, AgentRef):
            return AgentUpdatedStreamEvent(self._writer)
        return payload


class _Writer:
    """Stands for an agent of that output type."""

    def __init__(self, output_type: Any) -> None:
        self.output_type = output_type
