"""How often a tool runs, whatever becomes of the processes: promise 12 over real ones, on each engine that they may share."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from millstream.events import Entry, RunDecided, RunFailed
from tests.durable.kit import KILLED, Program, attempts, entries_of, events, programs, until
from tests.durable.programs import others, owners, work

pytestmark = [pytest.mark.slow, pytest.mark.hostile, pytest.mark.timeout(180)]


def payments(effects: str) -> list[str]:
    """The idempotency keys of what was paid, each time."""
    return [key for name, key, _ in work.effects_of(effects) if name == "pay"]


def entries_read(address: str, run_id: str) -> list[Entry]:
    """What a process that begins to read now sees of a run, to its end."""
    with programs((others.reader, address)) as [reader]:
        reader.say(run_id)
        return entries_of(reader.hear()[1])


@contextmanager
def killed_behind_the_effect(address: str, effects: str, kind: str) -> Iterator[tuple[str, Program]]:
    """A run whose process was killed when its tool had its effect, and had told nobody; and one who recovers."""
    with programs(
        (owners.pays, address, effects, kind), (others.recoverer, address, work.payer, effects, kind)
    ) as [owner, recoverer]:
        run_id = owner.hear()
        until(lambda: len(payments(effects)) == 1)
        owner.kill()
        recoverer.say("go on with it")
        yield run_id, recoverer


@contextmanager
def waiting_for_approval(address: str, effects: str) -> Iterator[tuple[str, Program]]:
    """A run that waits for a decision, whose process has ended since; and one by which others speak."""
    with programs((owners.pays, address, effects, "approval"), (others.speaker, address)) as [owner, speaker]:
        run_id = owner.hear()
        assert owner.hear() == ("paused", "")
        owner.end()
        yield run_id, speaker


def test_a_tool_that_was_killed_behind_its_effect_runs_again_under_the_same_key(
    address: str, effects: str
) -> None:
    with killed_behind_the_effect(address, effects, "plain") as (run_id, recoverer):
        until(lambda: len(payments(effects)) == 2)
        work.let_go_on(effects)

        assert recoverer.hear() == (run_id, "completed", work.OUTPUT)

    [first, second] = payments(effects)
    assert first == second
    assert attempts(entries_read(address, run_id)) == 1


def test_a_tool_that_must_not_run_twice_and_was_killed_behind_its_effect_ends_its_run(
    address: str, effects: str
) -> None:
    with killed_behind_the_effect(address, effects, "never") as (run_id, recoverer):
        assert recoverer.hear() == (run_id, "raised", "RunInterruptedError")

    assert len(payments(effects)) == 1
    [end] = events(entries_read(address, run_id), RunFailed)
    assert end.code == "interrupted"


def test_a_call_that_a_third_process_approves_runs_once_whoever_goes_on_with_its_run(
    address: str, effects: str
) -> None:
    work.let_go_on(effects)
    with (
        waiting_for_approval(address, effects) as (run_id, speaker),
        programs(*[(others.resumer, address, work.payer, effects, "approval")] * 3) as resumers,
    ):
        speaker.say((run_id, "approve", "p"))
        assert speaker.hear() == ("said", "approve")
        for resumer in resumers:
            resumer.say(run_id)
        outcomes = [resumer.hear()[1:] for resumer in resumers]

    assert outcomes.count(("completed", work.OUTPUT)) == 1
    assert outcomes.count(("raised", "RunStateError")) == 2
    assert len(payments(effects)) == 1
    assert attempts(entries_read(address, run_id)) == 0


def test_of_two_processes_that_decide_in_two_ways_the_first_counts(address: str, effects: str) -> None:
    work.let_go_on(effects)
    with (
        waiting_for_approval(address, effects) as (run_id, speaker),
        programs((others.speaker, address), (others.resumer, address, work.payer, effects, "approval")) as [
            other,
            resumer,
        ],
    ):
        speaker.say((run_id, "approve", "p"))
        other.say((run_id, "reject", "p"))
        said = [speaker.hear(), other.hear()]
        resumer.say(run_id)
        assert resumer.hear() == (run_id, "completed", work.OUTPUT)

    assert said.count(("raised", "ApprovalError")) == 1
    approved = said[0] == ("said", "approve")
    assert len(payments(effects)) == approved
    [decided] = events(entries_read(address, run_id), RunDecided)
    assert decided.decision == ("approved" if approved else "rejected")


def test_a_call_that_was_approved_and_killed_while_it_ran_is_not_begun_again(
    address: str, effects: str
) -> None:
    with waiting_for_approval(address, effects) as (run_id, speaker):
        speaker.say((run_id, "approve", "p"))
        assert speaker.hear() == ("said", "approve")
    with programs(
        (owners.goes_on, address, effects, run_id),
        (others.recoverer, address, work.payer, effects, "approval"),
    ) as [owner, recoverer]:
        until(lambda: len(payments(effects)) == 1)
        owner.kill()
        recoverer.say("go on with it")

        assert recoverer.hear() == (run_id, "raised", "RunInterruptedError")

    assert len(payments(effects)) == 1
    [end] = events(entries_read(address, run_id), RunFailed)
    assert end.code == "interrupted"


def test_a_run_whose_process_dies_as_it_takes_it_up_still_waits_and_is_still_approved(
    address: str, effects: str
) -> None:
    run_id = approved_and_killed_at(1, address, effects)
    with programs((others.resumer, address, work.payer, effects, "approval")) as [resumer]:

        def goes_on() -> bool:
            resumer.say(run_id)
            return resumer.hear() == (run_id, "completed", work.OUTPUT)

        until(goes_on)  # when the lease has ended

    assert len(payments(effects)) == 1


@pytest.mark.parametrize(
    ("at", "outcome"),
    [
        (2, ("completed", work.OUTPUT)),  # it goes on, and its tool has not begun
        (3, ("raised", "RunInterruptedError")),  # it has, and its result is lost
        (4, ("completed", work.OUTPUT)),  # that is written
        (5, ("completed", work.OUTPUT)),
    ],
)
def test_what_was_approved_is_done_once_wherever_the_process_dies_that_goes_on(
    address: str, effects: str, at: int, outcome: tuple[str, str]
) -> None:
    run_id = approved_and_killed_at(at, address, effects)
    with programs((others.recoverer, address, work.payer, effects, "approval")) as [recoverer]:
        recoverer.say("go on with it")

        assert recoverer.hear() == (run_id, *outcome)

    assert len(payments(effects)) == 1
    assert attempts(entries_read(address, run_id)) == 1


def approved_and_killed_at(at: int, address: str, effects: str) -> str:
    """A run whose call was approved, and whose process was killed before what it wrote then, the first thing or another."""
    work.let_go_on(effects)
    with waiting_for_approval(address, effects) as (run_id, speaker):
        speaker.say((run_id, "approve", "p"))
        assert speaker.hear() == ("said", "approve")
    with programs((owners.dies_when_it_resumes, address, effects, run_id, at)) as [owner]:
        assert owner.end() == KILLED
    return run_id
