"""The clauses of the grammar by name, and what a rule is that holds a run to some of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from copy import copy
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from millstream.events import Entry

Family: TypeAlias = Literal["stream", "run", "attempts", "agents", "model", "tools", "raw"]


class Clause(NamedTuple):
    """One clause of the grammar."""

    name: str
    family: Family
    says: str


class Violation(NamedTuple):
    """Something that a clause forbids, and what was expected."""

    clause: str
    what: str


_TABLE: dict[Family, dict[str, str]] = {
    "stream": {
        "everything_is_an_event": "Everything is an entry, or an event of the closed table.",
        "values_are_valid": "Fields of envelopes and events have values of their kind: counts are counts, a status is one of its set.",
        "positions_count": "Positions are 1, 2, 3 … over the whole run tree. Where a part was asked for they only go up.",
    },
    "run": {
        "a_run_begins_with_run_started": "The first event of a run is run.started, and there is one.",
        "a_run_ends_once": "Every run has exactly one terminal event, and nothing of that run follows it.",
        "an_end_is_of_its_run": "The terminal event has the family that run.started named, and the state of its type.",
        "a_nested_run_lives_in_its_parent": "A nested run begins after its parent and ends before it, or waits for good, one level deeper.",
        "a_nested_run_answers_a_call": "The path of a nested run is its parent's and the call that it answers. The tool of that call runs before it begins, and until it has ended.",
        "the_envelope_tells_the_state": "Parent, depth and path of a run never change, its turn never goes back, and its agent is the one that acts.",
        "a_paused_run_waits": "No model call and no tool is open when a run pauses, and it goes on with run.resumed. An attempt pauses the runs that are nested in its own.",
    },
    "attempts": {
        "an_attempt_is_of_the_root_run": "run.attempt is of the root run, and no nested one. Its number is that of the attempt before it and one, from 2 on.",
        "an_attempt_goes_on_from_what_stands": "resumed_from is a position of the run before its attempt: one that is not void, and not inside of a model call.",
        "what_is_finished_stays": "A completed model call of the root run is never void, nor is what a tool of it gave.",
        "what_is_void_stays_void": "A nested run that began in the void part says nothing more, and none begins in it.",
    },
    "agents": {
        "an_agent_is_named_before_it_acts": "No model is asked and no tool runs before agent_updated_stream_event.",
        "a_handoff_is_requested_then_takes_place": "Another agent acts after handoff_requested and handoff_occured, which name it. Behind a pause the same agent is named again.",
    },
    "model": {
        "every_model_call_ends": "model.started and model.completed alternate, with the same turn, one call a turn.",
        "a_cancelled_call_gives_way_to_input": "Behind a call that was cancelled comes input.added, or the run's end, before another call.",
        "a_model_speaks_in_its_call": "Raw events, the items that the model said, and model.retried stand inside a model call.",
        "a_completed_call_is_whole": "A call that is completed has its final raw event. One that failed, was cancelled or was retried may lack it.",
        "an_item_stands_behind_its_end": "An item stands right behind the raw event that ends it. A call with an end whose item cannot be used is not completed.",
    },
    "tools": {
        "every_tool_that_starts_finishes": "Every tool.started has one tool.finished of the same call; what a tool says stands between.",
        "a_tool_runs_for_a_call": "A tool starts for a call that the model made in this turn and that has no output.",
        "every_call_is_answered_once": "Every function call has one output, behind the call and the end of its tool, before the next model call and the end of the run. Where nobody can go on with a run, it fails at once behind run.attempt, and owes none.",
    },
    "raw": {
        "a_response_begins_and_ends_once": "A response begins with response.created; its final event is its last.",
        "sequence_numbers_go_up": "Every raw event of a response has a higher sequence number than the one before.",
        "every_output_item_is_done": "Every output item that is added is done before the response is completed, and none other.",
        "every_part_is_done": "Every part that is added is done before its item, and stands in one that is open.",
        "deltas_make_up_the_whole": "The deltas of a text, a refusal or arguments, joined, are what its done event has.",
    },
}

CLAUSES: dict[str, Clause] = {
    name: Clause(name, family, says) for family, clauses in _TABLE.items() for name, says in clauses.items()
}
"""Every clause by its name, in the order of the documentation."""


class Rule:
    """Watches one subject of a run."""

    def see(self, entry: Entry) -> Iterator[Violation]:
        """What is wrong with `entry`, after what was seen before."""
        raise NotImplementedError

    def forget(self) -> None:
        """Something was not seen."""

    def kept(self) -> dict[str, Any]:
        """What was seen so far, to go back to."""
        return _own(vars(self))

    def go_back(self, kept: dict[str, Any], *, is_nested: bool) -> None:
        """Another process goes on from where this was `kept`: what ran then does not run any more.

        Args:
            kept: what `kept` gave. It may be gone back to any number of times.
            is_nested: the run waits for `run.resumed`, as behind a pause.
        """
        vars(self).update(_own(kept))

    def end(self) -> Iterator[Violation]:
        """The stream ends without an end of the run; what that breaks."""
        return iter(())


def _own(values: dict[str, Any]) -> dict[str, Any]:
    """`values`, of which those that change are copies."""
    return {name: copy(value) if type(value) in _CHANGE else value for name, value in values.items()}


_CHANGE = (Counter, dict, set, list)
