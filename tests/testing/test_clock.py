"""A clock that a test moves by hand."""

import asyncio
import math
import threading

import openai.types.responses  # noqa: F401  # when first imported it reads files, which no loop may wait for
import pytest

from millstream import ModelSettings, ModelTracing
from millstream.clock import SYSTEM_CLOCK, current_clock
from millstream.errors import UserError
from millstream.testing import ManualClock, ScriptedModel


async def test_it_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(start=1000)

    clock.advance(2.5)

    assert (clock.monotonic(), clock.time()) == (2.5, 1002.5)


async def test_who_sleeps_wakes_when_his_moment_comes_and_no_sooner() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(10))
    await clock.waiting()

    clock.advance(9.9)
    await asyncio.sleep(0)
    early = sleeper.done()
    clock.advance(0.1)
    await sleeper

    assert not early
    assert clock.due == ()


async def test_moments_come_in_their_order_and_at_their_time() -> None:
    clock = ManualClock()
    seen: list[tuple[str, float]] = []
    for name, seconds in (("c", 3), ("a", 1), ("b", 2), ("b again", 2)):
        clock.call_later(seconds, lambda name=name: seen.append((name, clock.monotonic())))

    assert clock.due == (1, 2, 2, 3)
    clock.advance(10)

    assert seen == [("a", 1), ("b", 2), ("b again", 2), ("c", 3)]
    assert clock.monotonic() == 10


async def test_a_timer_that_is_set_again_comes_again_in_the_same_stretch() -> None:
    clock = ManualClock()
    seen: list[float] = []

    def again() -> None:
        seen.append(clock.monotonic())
        clock.call_later(2, again)

    clock.call_later(2, again)
    clock.advance(7)

    assert seen == [2, 4, 6]
    assert clock.due == (1,)


async def test_a_timer_that_was_cancelled_does_not_come() -> None:
    clock = ManualClock()
    seen: list[str] = []
    timer = clock.call_later(1, lambda: seen.append("came"))

    timer.cancel()
    timer.cancel()
    clock.advance(5)

    assert seen == []
    assert clock.due == ()


async def test_a_sleeper_who_is_cancelled_waits_no_longer() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(10))
    await clock.waiting()

    sleeper.cancel()
    await asyncio.wait({sleeper})

    assert clock.due == ()


async def test_a_test_can_wait_until_so_many_wait() -> None:
    clock = ManualClock()
    watching = asyncio.create_task(clock.waiting(3))

    sleepers = [asyncio.create_task(clock.sleep(seconds)) for seconds in (1, 2)]
    await clock.waiting(2)
    too_early = watching.done()
    sleepers.append(asyncio.create_task(clock.sleep(3)))
    await watching

    assert not too_early
    clock.advance(3)
    await asyncio.gather(*sleepers)


async def test_a_tick_goes_to_the_moment_of_whoever_is_next() -> None:
    clock = ManualClock()

    async def work() -> str:
        await clock.sleep(0.25)
        await clock.sleep(0)
        await clock.sleep(4)
        return "done"

    working = asyncio.create_task(work())

    assert [await clock.tick(), await clock.tick()] == [0.25, 4]
    assert await working == "done"


@pytest.mark.may_block
async def test_it_may_be_moved_from_another_thread() -> None:
    clock = ManualClock()
    sleeper = asyncio.create_task(clock.sleep(5))
    await clock.waiting()

    thread = threading.Thread(target=clock.advance, args=[5])
    thread.start()
    await sleeper
    thread.join()


async def test_in_its_block_it_is_the_clock_of_models_that_are_asked_without_a_run() -> None:
    model = ScriptedModel(["one two three"], tokens_per_second=4)
    state = dict.fromkeys(("previous_response_id", "conversation_id", "prompt"))

    with ManualClock() as clock:
        asked = model.get_response(None, "Hi", ModelSettings(), [], None, [], ModelTracing.DISABLED, **state)
        asking = asyncio.create_task(asked)

    assert await clock.tick() == 0.75
    assert len((await asking).output) == 1
    assert current_clock() is SYSTEM_CLOCK


@pytest.mark.parametrize("seconds", [-1, math.nan, math.inf])
def test_time_does_not_go_back(seconds: float) -> None:
    with pytest.raises(UserError, match="a clock goes on"):
        ManualClock().advance(seconds)
    assert repr(ManualClock()) == "ManualClock(at 0 s, 0 waiting)"
