"""Every keeper is held to the contract of all logs, and to that of stores."""

from millstream.testing import check_store
from tests.support.keepers import Engine


async def test_every_keeper_keeps_the_contract(engine: Engine) -> None:
    await check_store(
        lambda: engine.open(engine.new_place()),
        pass_time=engine.pass_time,
        make_capped=lambda events: engine.open(engine.new_place(), max_events=events),
    )
