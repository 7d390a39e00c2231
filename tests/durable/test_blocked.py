"""An owner whose event loop is blocked, so that it renews no lease: the run is its own still, or it is told that it is not."""

import asyncio

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import Runner, open_log
from tests.durable.kit import attempts, entries_of, programs, until
from tests.durable.programs import others, owners, work

pytestmark = [pytest.mark.slow, pytest.mark.hostile, pytest.mark.timeout(180)]


def submitted(address: str, effects: str) -> str:
    """The id of a run that is queued."""

    async def submit() -> str:
        store = open_log(address)
        record = await Runner.submit(store, work.payer(effects), "Pay")
        await store.aclose()
        return record.run_id

    return asyncio.run(submit())


def test_a_run_whose_owner_is_blocked_for_less_than_its_lease_is_its_own_still(
    address: str, effects: str
) -> None:
    with programs(
        (owners.blocks, address, effects, 600),
        (others.recoverer, address, work.payer, effects),
        (others.reader, address),
    ) as [owner, recoverer, reader]:
        run_id = owner.hear()
        until(lambda: len(work.effects_of(effects)) == 1)
        queued = submitted(address, effects)
        recoverer.say("go on with what there is")
        until(lambda: len(work.effects_of(effects)) == 2)  # it has looked, and found the other one only
        work.let_go_on(effects)

        assert owner.hear() == ("completed", work.OUTPUT)
        assert recoverer.hear() == (queued, "completed", work.OUTPUT)
        reader.say(run_id)
        assert attempts(entries_of(reader.hear()[1])) == 0


def test_an_owner_that_was_blocked_until_others_went_on_with_its_run_writes_nothing_more(
    address: str, effects: str
) -> None:
    with programs(
        (owners.blocks, address, effects, 0.3),
        (others.recoverer, address, work.payer, effects),
        (others.reader, address),
    ) as [owner, recoverer, reader]:
        run_id = owner.hear()
        until(lambda: len(work.effects_of(effects)) == 1)
        recoverer.say("go on with it")
        until(lambda: len(work.effects_of(effects)) == 2)
        work.let_go_on(effects)

        assert owner.hear() == ("raised", "StaleOwnerError")
        assert recoverer.hear() == (run_id, "completed", work.OUTPUT)
        reader.say(run_id)
        assert attempts(entries_of(reader.hear()[1])) == 1
