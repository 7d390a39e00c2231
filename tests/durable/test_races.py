"""Several processes that want the same at once: one run, one owner, one answer."""

from collections.abc import Sequence

import pytest

from millstream.events import InputAdded
from tests.durable.kit import KILLED, Program, attempts, entries_of, events, programs, until
from tests.durable.programs import others, owners, work

pytestmark = [pytest.mark.slow, pytest.mark.hostile, pytest.mark.timeout(180)]


def all_ready(racers: Sequence[Program]) -> None:
    assert [racer.hear() for racer in racers] == ["ready"] * len(racers)


def test_of_many_processes_that_claim_a_run_at_once_one_has_it(address: str, effects: str) -> None:
    with programs((others.submitter, address, effects), *[(others.claimer, address)] * 4) as [
        submitter,
        *racers,
    ]:
        all_ready([submitter, *racers])
        for number in range(20):
            submitter.say((str(number), "Go"))
            [run_id] = submitter.hear()
            for racer in racers:
                racer.say(run_id)
            outcomes = [racer.hear() for racer in racers]

            assert outcomes.count(1) == 1
            assert outcomes.count("RunOwnedError") == 3


def test_what_several_processes_submit_under_one_key_is_one_run(address: str, effects: str) -> None:
    with programs(
        *[(others.submitter, address, effects)] * 3,
        (others.recoverer, address, work.everything, effects),
        (others.reader, address),
    ) as [*racers, recoverer, reader]:
        all_ready(racers)
        recoverer.say("begin what is submitted")
        for racer in racers:
            racer.say(("key", "Go"))
        [run_id] = set.union(*[racer.hear() for racer in racers])
        racers[0].say(("key", "Something else"))

        assert racers[0].hear() == {"IdempotencyError"}
        assert recoverer.hear() == (run_id, "completed", work.OUTPUT)
        reader.say(run_id)
        assert attempts(entries_of(reader.hear()[1])) == 0
        racers[1].say(("key", "Go"))
        assert racers[1].hear() == {run_id}, "also when it has ended"


def test_of_several_processes_that_run_under_one_key_one_does_and_the_others_are_told_which(
    address: str, effects: str
) -> None:
    with programs(*[(owners.runs_under_key, address, effects, "key")] * 4) as racers:
        all_ready(racers)
        for racer in racers:
            racer.say("go")
        outcomes = [racer.hear() for racer in racers]

    assert outcomes.count(("completed", work.OUTPUT)) == 1
    assert outcomes.count(("raised", "RunExistsError")) == 3
    assert len(work.effects_of(effects)) == 3


def test_a_run_whose_process_is_killed_when_it_is_kept_and_nobodys_is_begun_by_another_once(
    address: str, effects: str
) -> None:
    with programs((owners.dies_before_it_claims, address, effects, "key")) as [owner]:
        assert owner.end() == KILLED
    with programs(
        (owners.runs_under_key, address, effects, "key"),
        (others.recoverer, address, work.everything, effects),
        (others.reader, address),
    ) as [again, recoverer, reader]:
        all_ready([again])
        again.say("go")
        assert again.hear() == ("raised", "RunExistsError"), "it is there, and somebody will begin it"
        recoverer.say("go on with it")
        run_id, *outcome = recoverer.hear()
        reader.say(run_id)
        entries = entries_of(reader.hear()[1])

    assert outcome == ["completed", work.OUTPUT]
    assert attempts(entries) == 0
    assert len(work.effects_of(effects)) == 3


def test_a_run_is_cancelled_from_another_process_while_its_tool_runs(address: str, effects: str) -> None:
    with programs(
        (owners.pays, address, effects, "plain"), (others.speaker, address), (others.reader, address)
    ) as [owner, speaker, reader]:
        run_id = owner.hear()
        until(lambda: len(work.effects_of(effects)) == 1)
        speaker.say((run_id, "cancel"))
        assert speaker.hear() == ("said", "cancel")

        assert owner.hear() == ("raised", "RunCancelledError")
        assert [name for name, _, _ in work.effects_of(effects)] == ["pay", "cancelled"]
        reader.say(run_id)
        assert entries_of(reader.hear()[1])[-1].type == "run.cancelled"
        speaker.say((run_id, "cancel"))
        assert speaker.hear() == ("said", "cancel"), "once more, when it has ended"


def test_a_run_is_given_input_from_another_process_while_its_tool_runs(address: str, effects: str) -> None:
    with programs(
        (owners.pays, address, effects, "plain"), (others.speaker, address), (others.reader, address)
    ) as [owner, speaker, reader]:
        run_id = owner.hear()
        until(lambda: len(work.effects_of(effects)) == 1)
        speaker.say((run_id, "send", "And hurry up."))
        assert speaker.hear() == ("said", "send")

        assert owner.hear() == ("completed", work.OUTPUT)
        reader.say(run_id)
        added = events(entries_of(reader.hear()[1]), InputAdded)
    assert [event.input for event in added] == [{"role": "user", "content": "And hurry up."}]


def test_what_was_said_to_a_run_before_its_process_died_is_done_by_who_goes_on_with_it(
    address: str, effects: str
) -> None:
    with programs(
        (owners.pays, address, effects, "plain"),
        (others.speaker, address),
        (others.recoverer, address, work.payer, effects),
    ) as [owner, speaker, recoverer]:
        run_id = owner.hear()
        owner.freeze()
        owner.has_stopped()
        speaker.say((run_id, "cancel"))
        assert speaker.hear() == ("said", "cancel")
        owner.kill()
        recoverer.say("go on with it")

        assert recoverer.hear() == (run_id, "raised", "RunCancelledError")
