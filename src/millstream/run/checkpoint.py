"""Checkpoints: what a run can go on from when its process dies, kept with the events that it accounts for.

Rules of this file:

1. A checkpoint is the form of a run's state (`run/kept/`), as of a moment at which everything that
   came before is whole: a finished model call, the output of a tool, the beginning of another turn.
2. A root run writes one for its whole tree: of each nested run that is under way, what that one was at
   its own last such moment. Who goes on with the tree goes on with each from there.
3. It travels in the batch of the event that makes it true. No crash can part the two.
4. What all runs of the tree share (the context, the usage, the decisions) is as of now, whatever run
   that moment was of. A decision that a call has taken counts until that call has its output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from millstream.run.kept.context import as_it_is
from millstream.run.kept.form import Items, document_of, shared_by_tree

if TYPE_CHECKING:
    from millstream.approval import CallKey, Decision
    from millstream.items import ToolCallOutputItem
    from millstream.run.active import ActiveRun
    from millstream.run.kept.document import StateDocument
    from millstream.run.state import RunProgress


def request_of(progress: RunProgress) -> bytes:
    """All that it takes to begin a run as it stands in `progress`. Two that were asked for the same have the same."""
    document = document_of(progress, as_it_is(progress.context_wrapper.context))
    document.outcome, document.has_said = "running", progress.turn is not None
    document.run_id, document.is_durable = "", True
    return msgspec.json.encode(document)


class Checkpoints:
    """Those of one run.

    Args:
        run: the run.
    """

    def __init__(self, run: ActiveRun) -> None:
        self._run = run
        self._items = Items(run.run_id)
        self._base: StateDocument | None = None
        """The run as of its last moment at which everything was whole, tools of the present turn aside."""
        self._now: StateDocument | None = None
        """The same, with the outputs that tools of the turn have by now."""
        self._taken: dict[int, tuple[CallKey, Decision]] = {}
        """The decisions that calls of the turn have taken that have no output yet, by their places."""
        self._over: dict[str, StateDocument] = {}
        """The last of each nested run that is over, until the call that it answers has its output."""

    def take(self, *, has_said: bool, turns: int) -> None:
        """Everything is whole now.

        Args:
            has_said: whether the model has answered in the present turn.
            turns: how many turns there were, this one included where the model has answered.
        """
        document = document_of(self._run.progress, None, self._items)
        document.outcome, document.has_said = "running", has_said
        document.turn = turns
        if not has_said:
            document.turn_items = []
        self._base = self._now = document
        self._taken, self._over = {}, {}

    def took(self, place: int, key: CallKey, decision: Decision) -> None:
        """The call at that place has taken its decision, and has no output yet."""
        self._taken[place] = key, decision

    def child_is_over(self, child: ActiveRun) -> None:
        """A run nested in this one has nothing more to say, and the call that it answers has no output yet."""
        document = None if child.checkpoints is None else child.checkpoints._whole()
        if document is not None and child.place is not None:
            self._over[str(child.place)] = document

    def answered(self, answers: Mapping[int, ToolCallOutputItem], paused: Mapping[int, RunProgress]) -> None:
        """These calls of the present turn have an output by now, and in those a run is paused, by their places."""
        base = self._base
        if base is None:
            return
        places = self._items.places(item for _, item in sorted(answers.items()))
        done = {str(place) for place in (*answers, *paused)}
        self._taken = {place: taken for place, taken in self._taken.items() if place not in answers}
        self._over = {place: document for place, document in self._over.items() if place not in done}
        nested = {place: document for place, document in base.nested.items() if place not in done}
        self._now = msgspec.structs.replace(
            base,
            items=self._items.written.copy(),
            new_items=base.new_items + places,
            model_items=base.model_items + places,
            waiting={place: item for place, item in base.waiting.items() if place not in done},
            nested=nested | {str(place): document_of(each, None) for place, each in paused.items()},
        )

    def now(self, *, is_paused: bool = False) -> Callable[[], bytes]:
        """The checkpoint of the tree whose root the run is, as of this moment: to be encoded once the log has a place for it."""
        document = self._whole()
        assert document is not None, "a root run takes its first before its first event"
        wrapper = self._run.progress.context_wrapper
        decisions = wrapper.decisions.copy()
        decisions.once |= dict(self._all_taken())
        for name, value in shared_by_tree(as_it_is(wrapper.context), wrapper.usage, decisions).items():
            setattr(document, name, value)
        document.is_durable = True
        if is_paused:
            document.outcome = "paused"
        return partial(self._encode, document)

    def _encode(self, document: StateDocument) -> bytes:
        document.position = self._run.position
        return msgspec.json.encode(document)

    def _whole(self) -> StateDocument | None:
        if self._now is None:
            return None
        nested = self._now.nested | self._over
        for child in self._run.children:
            document = None if child.checkpoints is None else child.checkpoints._whole()
            if document is not None and child.place is not None:
                nested[str(child.place)] = document
        return msgspec.structs.replace(self._now, nested=nested)

    def _all_taken(self) -> Iterator[tuple[CallKey, Decision]]:
        """What was decided over calls of the tree that have no output yet, and is used up."""
        yield from self._taken.values()
        for child in self._run.children:
            if child.checkpoints is not None:
                yield from child.checkpoints._all_taken()
