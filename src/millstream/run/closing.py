"""What a run leaves open, and what closes it: in its log, and in its history.

Every way of ending comes by here, in `ActiveRun`: also where the run's task takes no step any
more, its clock is broken or its log takes nothing but an end. So what closes is one batch with
the terminal event, and nothing here waits. A turn that is given up is closed in the same way.

Rules of this file:

1. What is open in the log is told from what was written alone (`Opened`).
2. The history has what the log has of the present turn, and what the log refused. It can be
   gone on with: text that was cut off is kept, and every call has one answer.
3. Call ids tie calls to answers within one turn, each once: servers use them again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from millstream.events import (
    InputAdded,
    ModelCompleted,
    ModelRetried,
    ModelStarted,
    RunItemStreamEvent,
    ToolFinished,
    ToolStarted,
)
from millstream.items import (
    HandoffOutputItem,
    MessageOutputItem,
    ToolCallOutputItem,
    call_id_of,
    is_function_call,
)
from millstream.models.request import FAKE_ID
from millstream.run.steering import OVER
from millstream.run.tools import CANCELLED_OUTPUT, output_item

if TYPE_CHECKING:
    from millstream.agent import Agent
    from millstream.events import Event
    from millstream.items import InputItem, RunItem
    from millstream.log.promise import Payload
    from millstream.run.state import RunProgress
    from millstream.run.steering import Steering
    from millstream.run.writer import Writer

logger = logging.getLogger("millstream")


class Opened:
    """What a run has begun in its log and not ended, in the order in which it began."""

    def __init__(self) -> None:
        self.time: float | None = None
        """When something began or ended last, by the run's clock."""
        self.answers: list[RunItem] = []
        """The answers to calls of the present turn."""
        self._model: ModelStarted | None = None
        self._calls: list[RunItem] = []
        self._tools: list[tuple[ToolStarted, float]] = []

    def take_up(self, progress: RunProgress) -> None:
        """Begin with what a turn had said before its run was paused: its calls that have no answer are open."""
        turn = progress.turn
        for item in () if turn is None else (*turn.items, *_answers(progress)):
            self._item(item)

    def calls(self) -> list[str]:
        """The ids of the calls that have no answer."""
        return [call_id_of(call.raw_item) or "" for call in self._calls]

    def see(self, payloads: Iterable[Payload], time: float) -> None:
        """Take in what was written at `time`."""
        self.time = time
        for event in payloads:
            if isinstance(event, RunItemStreamEvent):
                self._item(event.item)
            elif isinstance(event, ModelStarted):
                self._model = event
                self.answers = []
            elif isinstance(event, ModelRetried):
                self._calls = []  # superseded
            elif isinstance(event, ModelCompleted):
                self._model = None
            elif isinstance(event, ToolStarted):
                self._tools.append((event, time))
            elif isinstance(event, ToolFinished):
                self._take_tool(event.call_id)

    def _item(self, item: RunItem) -> None:
        if is_function_call(item.raw_item):
            self._calls.append(item)
        elif isinstance(item, ToolCallOutputItem | HandoffOutputItem):
            self.answers.append(item)
            _take(self._calls, call_id_of(item.raw_item))

    def _take_tool(self, call_id: str | None) -> tuple[ToolStarted, float] | None:
        place = next((i for i, (tool, _) in enumerate(self._tools) if tool.call_id == call_id), None)
        return None if place is None else self._tools.pop(place)

    def closing(
        self, progress: RunProgress, partial: MessageOutputItem | None, *, cancelled: bool, time: float
    ) -> list[Event]:
        """What closes all that is open at `time`, when `keep` has made the history whole.

        Args:
            progress: the state of the run.
            partial: the text that was cut off.
            cancelled: whether the run was stopped; otherwise it has failed.
            time: that of the run's end.
        """
        turn = progress.turn
        events: list[Event] = []
        if self._model is not None and turn is not None:
            status = "cancelled" if cancelled else "failed"
            events.append(turn.completed(self._model.turn, status=status))
        if partial is not None:
            events.append(RunItemStreamEvent(item=partial))
        written = {id(item) for item in self.answers}
        unwritten = [item for item in _answers(progress) if id(item) not in written]
        for call in self._calls:
            call_id = call_id_of(call.raw_item)
            tool = self._take_tool(call_id)
            if tool is not None:
                events.append(_finished(*tool, time))
            answer = _take(unwritten, call_id) or _cancelled_answer(call)
            events.append(RunItemStreamEvent(item=answer))
        return events


class Closing:
    """Closes what a run leaves open: all of it at its end, or what a turn has that is given up.

    Args:
        progress: the state of the run.
        writer: what it writes with.
        steering: what is sent to it.
    """

    def __init__(self, progress: RunProgress, writer: Writer, steering: Steering) -> None:
        self.takes_back = False
        """Whether what the model said last was taken back: the end of the run tells nothing of that."""
        self._progress = progress
        self._writer = writer
        self._steering = steering
        self._is_whole = False
        """Whether the history was made whole."""
        self._cut_off: MessageOutputItem | None = None
        """The text that was cut off, as an item of the history."""
        self._unread: list[InputItem] = []
        """Input that came and no model was given, as items of the history."""

    def make_whole(self) -> None:
        """Leave a history that can be gone on with, for a run that ends. Does nothing the second time."""
        if not self._is_whole:
            self._keep()
        self._steering.refuse(OVER)
        self._unread += self._progress.add_input(self._steering.take())

    def drop(self) -> list[Event]:
        """Forget what the model said and was held back; what else waits is written with the end."""
        if self._writer.holds:
            self._cut_off = None
        return self._writer.drop()

    def text(self) -> str:
        """The text that was cut off, as far as it may be known."""
        return "" if self._writer.was_dropped or self.takes_back else self._progress.partial_text

    def end(self, *, cancelled: bool, time: float) -> list[Event]:
        """What closes in the log what is open, when the history is whole; behind it, input that no model was given."""
        partial = None if self.takes_back else self._cut_off
        events = self._writer.opened.closing(self._progress, partial, cancelled=cancelled, time=time)
        return [*events, *(InputAdded(input=item.raw_item) for item in self._unread)]

    def give_up_turn(self) -> list[Event]:
        """Close in the history what the present turn has open; what closes it in the log, and what waits to be written.

        When that is written, `turn_is_closed` is to be called. Where it cannot be, the end of the run
        does it: what is kept is kept once.
        """
        progress, writer = self._progress, self._writer
        was_held = writer.holds
        events = writer.drop()
        if was_held:
            progress.forget(writer.dropped)
        self._keep()
        time = writer.stamp().time
        return [*events, *writer.opened.closing(progress, self._cut_off, cancelled=True, time=time)]

    def turn_is_closed(self) -> None:
        """Nothing of the turn is open any more: the run goes on with another."""
        progress = self._progress
        self._is_whole, self._cut_off, progress.turn = False, None, None
        progress.partial_text, self._writer.was_dropped = "", False
        progress.waits_for_nothing()

    def _keep(self) -> None:
        """Take into the history what the present turn has come to, and close there what is open."""
        try:
            self._cut_off = keep(self._progress, self._writer.opened.answers)
        except (KeyboardInterrupt, GeneratorExit):
            raise  # the interpreter's own; whoever ends the run then comes by here again
        except BaseException:
            # What ended the run is what it ends with, however broken what it leaves behind.
            run_id = self._progress.run_id
            logger.exception("run %s: what it had said at its end could not be kept whole", run_id)
        self._is_whole = True


def keep(progress: RunProgress, written: Iterable[RunItem]) -> MessageOutputItem | None:
    """Leave a history that can be gone on with, and the partial text in `progress`; that text as an item.

    Args:
        progress: the state of the run.
        written: the answers of the present turn that stand in the log.
    """
    turn = progress.turn
    if turn is None:
        return None
    known = {id(item) for item in progress.new_items}
    for item in turn.items:
        if id(item) not in known:
            progress.add(item)
    progress.partial_text = turn.partial_text()
    partial = None
    if progress.partial_text:
        partial = message_item(turn.agent, progress.partial_text, status="incomplete")
        progress.add(partial)
    answers = _answers(progress)
    others = [item for item in written if id(item) not in known]
    for call in turn.items:
        if is_function_call(call.raw_item):
            call_id = call_id_of(call.raw_item)
            if _take(answers, call_id) is None:
                progress.add(_take(others, call_id) or _cancelled_answer(call))
    return partial


def message_item(agent: Agent[Any], text: str, *, status: str = "completed") -> MessageOutputItem:
    """A message that stands in the history as it is, and that no model has ended."""
    from openai.types.responses import ResponseOutputMessage, ResponseOutputText

    # The id is the SDK's for what no model said: the models' requests leave it out.
    part = ResponseOutputText(type="output_text", text=text, annotations=[], logprobs=[])
    raw_item = ResponseOutputMessage(
        id=FAKE_ID, type="message", role="assistant", status=cast("Any", status), content=[part]
    )
    return MessageOutputItem(agent, raw_item)


def _answers(progress: RunProgress) -> list[RunItem]:
    """The answers of the present turn in the history."""
    new = [] if progress.turn is None else progress.turn.first_and_after(progress.new_items)
    return [item for item in new if isinstance(item, ToolCallOutputItem | HandoffOutputItem)]


def _take(items: list[RunItem], call_id: str | None) -> RunItem | None:
    """Take the first of `items` that is of that call out of them."""
    place = next((i for i, item in enumerate(items) if call_id_of(item.raw_item) == call_id), None)
    return None if place is None else items.pop(place)


def _cancelled_answer(call: RunItem) -> ToolCallOutputItem:
    answer = output_item(call.agent, cast("Any", call.raw_item), CANCELLED_OUTPUT)
    answer.tool_origin = getattr(call, "tool_origin", None)
    return answer


def _finished(tool: ToolStarted, began: float, time: float) -> ToolFinished:
    ms = max(0.0, time - began) * 1000
    return ToolFinished(
        call_id=tool.call_id, name=tool.name, status="cancelled", code="cancelled", ms=round(ms, 3)
    )
