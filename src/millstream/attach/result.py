"""The result of a run that is known by its log alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from millstream import codec
from millstream.attach.source import LogSource, failure
from millstream.errors import LogGapError, RunCancelledError
from millstream.events import RunCancelled, RunCompleted, RunFailed
from millstream.items import AgentRef, ItemHelpers
from millstream.stream.history import History
from millstream.usage import Usage

if TYPE_CHECKING:
    from millstream.items import RunItem, ToolApprovalItem, TResponseInputItem

T = TypeVar("T")


@dataclass
class AttachedResult:
    """What a run has come to that is complete, or paused, as its log tells it."""

    run_id: str
    status: Literal["completed", "paused"]
    final_output: Any
    """The output as JSON values; None where the run is paused. `final_output_as` gives it its type."""
    input: str | list[TResponseInputItem]
    """The input of the run, as it was given."""
    new_items: list[RunItem] = field(repr=False)
    """Everything the run has produced, in order. Agents are `AgentRef`s, where the log was read back from bytes."""
    usage: Usage
    """What it has used, with the runs nested in it."""
    last_agent: AgentRef
    """The agent that acted last."""
    interruptions: list[ToolApprovalItem]
    """The tool calls that wait for approval."""

    def final_output_as(self, cls: type[T]) -> T:
        """The final output as a `cls`: any type that pydantic knows, validated.

        Raises:
            TypeError: it is none.
        """
        return output_as(cls, self.final_output)

    def to_input_list(self) -> list[TResponseInputItem]:
        """The input and everything new, as input of a run that goes on from here.

        It has all that was said, whatever filters of handoffs kept from the next agent. Of a run that went
        on with another one, which had failed, say, it has what came since.
        """
        return [
            *ItemHelpers.input_to_new_input_list(self.input),
            *(item.to_input_item() for item in self.new_items if item.type != "tool_approval_item"),
        ]

    def __str__(self) -> str:
        return (
            f"{type(self).__name__}: run {self.run_id} is {self.status}, last agent {self.last_agent.name!r}, "
            f"{len(self.new_items)} new item(s)\n"
            f"Final output ({type(self.final_output).__name__}): {self.final_output}"
        )


async def history_of(source: LogSource) -> History:
    """What is told of a run until its source ends.

    Raises:
        UnknownRunError: there is no such run.
        LogGapError: its beginning is no longer held.
    """
    history = History(source.run_id)
    cursor = source.cursor(0)
    while True:
        try:
            batch = await cursor.next()
        except LogGapError as gap:
            # A full log drops models' own events from its middle, which are not looked at here.
            if gap.requested < await source.first_held():
                raise
            cursor = source.cursor(gap.first - 1)
            continue
        if batch is None:
            return history
        history.feed(batch)


def result_from(source: LogSource, history: History) -> AttachedResult:
    """The result that the run has come to.

    Raises:
        RunFailedError: it failed.
        RunCancelledError: it was cancelled.
    """
    end = history.end
    if isinstance(end, RunFailed):
        raise failure(source.run_id, end)
    if isinstance(end, RunCancelled):
        raise RunCancelledError(f"Run {source.run_id} was cancelled and has no result.")
    return AttachedResult(
        run_id=source.run_id,
        status="completed" if isinstance(end, RunCompleted) else "paused",
        final_output=json_of(end.output) if isinstance(end, RunCompleted) else None,
        input=history.input,
        new_items=history.items,
        usage=history.usage,
        last_agent=history.agent,
        interruptions=history.waiting,
    )


def json_of(value: Any) -> Any:
    """`value` as it stands in JSON: of a log in memory it is the program's own object."""
    return codec.decode(codec.encode(value))


def output_as(cls: Any, value: Any) -> Any:
    """The output of a run, of which `value` is the JSON, as a `cls`.

    Raises:
        TypeError: it is none.
    """
    try:
        return TypeAdapter(cls).validate_json(codec.encode(value))
    except ValidationError as error:
        name = getattr(cls, "__name__", cls)
        raise TypeError(f"The final output is no {name}: {error}") from error
