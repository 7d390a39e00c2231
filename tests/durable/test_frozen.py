"""SIGSTOP of the process that owns a run, beyond its lease, then SIGCONT: what it wakes up to is another's run."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from millstream.events import RunCompleted
from tests.durable.kit import Program, attempts, entries_of, events, programs, until
from tests.durable.programs import others, owners, work

pytestmark = [pytest.mark.slow, pytest.mark.hostile, pytest.mark.timeout(180)]

EVENTS = range(1, 40, 3)
"""Those before which a process is stopped, of the 39 of its run."""


def test_whoever_wakes_to_a_run_that_others_went_on_with_writes_nothing_more(
    address: str, effects: str
) -> None:
    mains = [(owners.stops_at, address, effects, at) for at in EVENTS]
    with (
        programs(*mains) as sleepers,
        programs((others.reader, address), (others.recoverer, address, work.everything, effects)) as [
            reader,
            recoverer,
        ],
    ):
        run_ids = [sleeper.hear() for sleeper in sleepers]
        for sleeper, run_id in zip(sleepers, run_ids, strict=True):
            sleeper.has_stopped()
            reader.say(run_id)
        recoverer.say("go on with them")
        seen = dict(reader.hear() for _ in run_ids)
        for sleeper in sleepers:
            sleeper.wake()
        outcomes = [sleeper.hear() for sleeper in sleepers]
        codes = [sleeper.end() for sleeper in sleepers]
        for run_id in run_ids:
            reader.say(run_id)
        seen_later = dict(reader.hear() for _ in run_ids)

    assert outcomes == [("raised", "StaleOwnerError")] * len(run_ids)
    assert codes == [0] * len(run_ids)
    assert seen_later == seen
    for run_id in run_ids:
        [end] = events(entries_of(seen[run_id]), RunCompleted)
        assert end.output == work.OUTPUT


@contextmanager
def taken_over_in_its_sleep(address: str, effects: str) -> Iterator[tuple[Program, str, Program]]:
    """A process that was stopped while its tool ran; its run, whose tool runs in another process by now; and a reader."""
    with programs(
        (owners.pays, address, effects, "plain"),
        (others.recoverer, address, work.payer, effects),
        (others.reader, address),
    ) as [owner, recoverer, reader]:
        run_id = owner.hear()
        until(lambda: len(work.effects_of(effects)) == 1)
        owner.freeze()
        recoverer.say("go on with it")
        until(lambda: len(work.effects_of(effects)) == 2)
        reader.say(run_id)
        yield owner, run_id, reader


def test_who_wakes_while_another_goes_on_stops_its_tools_and_leaves(address: str, effects: str) -> None:
    with taken_over_in_its_sleep(address, effects) as (owner, _, reader):
        owner.wake()

        assert owner.hear() == ("raised", "StaleOwnerError")
        assert owner.end() == 0
        [first, second, cancelled] = work.effects_of(effects)
        assert (first[0], second[0], cancelled[0]) == ("pay", "pay", "cancelled")
        assert first[1] == second[1] == cancelled[1], "a tool that runs again has the key that it had"
        assert first[2] == cancelled[2] != second[2]

        work.let_go_on(effects)
        entries = entries_of(reader.hear()[1])
        assert (attempts(entries), entries[-1].type) == (1, "run.completed")


def test_who_wakes_with_a_result_when_the_run_has_ended_cannot_write_it(address: str, effects: str) -> None:
    with taken_over_in_its_sleep(address, effects) as (owner, run_id, reader):
        work.let_go_on(effects)
        _, before = reader.hear()
        owner.wake()

        assert owner.hear()[0] == "raised"
        assert owner.end() == 0
        reader.say(run_id)
        assert reader.hear()[1] == before
        assert attempts(entries_of(before)) == 1


def test_a_process_that_is_stopped_for_less_than_its_lease_goes_on_as_if_nothing_was(
    address: str, effects: str
) -> None:
    """Nobody recovers meanwhile: then it is its run also when the lease has ended."""
    with programs((owners.pays, address, effects, "plain"), (others.reader, address)) as [owner, reader]:
        run_id = owner.hear()
        owner.freeze()
        owner.has_stopped()
        work.let_go_on(effects)
        owner.wake()

        assert owner.hear() == ("completed", work.OUTPUT)
        reader.say(run_id)
        assert attempts(entries_of(reader.hear()[1])) == 0
