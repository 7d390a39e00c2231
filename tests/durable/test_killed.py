"""`kill -9` of the process that owns a run, at each of its events: another goes on, and no reader can tell but by `run.attempt`."""

import pytest

from millstream.events import RunCompleted
from tests.durable.kit import KILLED, attempts, entries_of, events, one_by_one, programs
from tests.durable.programs import others, owners, work
from tests.support.redis_server import own_server

pytestmark = [pytest.mark.slow, pytest.mark.hostile, pytest.mark.timeout(180)]


def _length(address: str, effects: str, *, streamed: bool) -> int:
    """How many events the run has that nobody kills."""
    with programs((owners.ends, address, effects, streamed)) as [owner]:
        return owner.hear()


@pytest.mark.parametrize(
    ("streamed", "side"), [(False, "before"), (False, "after"), (False, "while"), (True, "while")]
)
def test_whichever_event_its_owner_is_killed_at_a_run_goes_on_and_every_reader_sees_all_of_it_once(
    address: str, effects: str, streamed: bool, side: owners.Side
) -> None:
    length = _length(address, effects, streamed=streamed)
    assert length > 35
    mains = [(owners.dies_at, address, effects, at, side, streamed) for at in range(1, length + 1)]

    with programs(
        (others.reader, address),
        (others.reader_that_leaves, address),
        (others.recoverer, address, work.everything, effects),
        (others.recoverer, address, work.everything, effects),
    ) as [reader, leaver, *recoverers]:
        run_ids = []
        for run_id, code in one_by_one(mains):
            assert code == KILLED
            run_ids.append(run_id)
            reader.say(run_id)
            leaver.say(run_id)
        for recoverer in recoverers:
            recoverer.say("go on with them")
        seen = dict(reader.hear() for _ in run_ids)
        seen_by_leaver = dict(leaver.hear() for _ in run_ids)

    assert seen == seen_by_leaver
    taken_over = 0
    for at, run_id in enumerate(run_ids, 1):
        entries = entries_of(seen[run_id])
        [end] = events(entries, RunCompleted)
        assert end.output == work.OUTPUT, at
        taken_over += attempts(entries)
        assert attempts(entries) <= 1, "two who recover have gone on with it"
    assert taken_over >= length - 3  # all but those that had their end, or not even their first two events
    keys = {key for _, key, _ in work.effects_of(effects)}
    assert len(keys) == 3 * (1 + len(run_ids))  # whatever was done twice


@pytest.mark.requires_program("redis-server")
def test_a_redis_that_is_killed_again_and_again_in_mid_run_loses_no_event_and_doubles_none(
    effects: str,
) -> None:
    with (
        own_server("--appendonly", "yes") as server,
        programs((owners.takes_its_time, server.url, effects), (others.reader, server.url)) as [
            owner,
            reader,
        ],
    ):
        run_id = owner.hear()
        reader.say(run_id)
        for _ in range(4):
            assert isinstance(owner.hear(), int), "it has not ended yet"
            server.kill()
            server.start()
        while isinstance(told := owner.hear(), int):
            pass
        entries = entries_of(reader.hear()[1])

    assert told == ("completed", work.OUTPUT)
    assert (len(entries), attempts(entries), entries[-1].type) == (94, 0, "run.completed")
    assert len(work.effects_of(effects)) == 3


@pytest.mark.requires_program("redis-server")
def test_a_redis_that_comes_back_without_its_data_ends_the_run_and_lets_nobody_wait(effects: str) -> None:
    with (
        own_server() as server,
        programs(
            (owners.takes_its_time, server.url, effects),
            (others.reader, server.url),
        ) as [owner, reader],
    ):
        run_id = owner.hear()
        reader.say(run_id)
        assert isinstance(owner.hear(), int)
        server.kill()
        server.start()
        while isinstance(told := owner.hear(), int):
            pass

        assert told == ("raised", "LogTruncatedError")
        assert reader.hear() in [(run_id, "LogTruncatedError"), (run_id, "LogBrokenError")]
        assert owner.end() == 0
