"""When a server is asked again."""

from millstream.client.tries import Failure, Tries

PASSED = Failure("it broke")


def test_waits_grow_and_are_never_quite_the_same() -> None:
    first, second = Tries(100), Tries(100)

    waits = [(first.after(PASSED), second.after(PASSED)) for _ in range(50)]

    for number, pair in enumerate(waits):
        assert all(0.75 * min(0.25 * 2**number, 15) <= wait <= 1.25 * 15 for wait in pair if wait is not None)
    assert sum(one == other for one, other in waits) < 3


def test_who_asks_for_time_gets_it_within_reason() -> None:
    tries = Tries(100)
    tries.pause = 3.0

    for asked, at_least in ((None, 3), (5.0, 5), (1e9, 300), (0.0, 3)):
        wait = tries.after(Failure("it is busy", wait=asked))
        assert wait is not None
        assert at_least <= wait <= at_least * 1.25 + 15


def test_the_last_try_is_the_last() -> None:
    tries = Tries(3)

    assert [tries.after(PASSED) is None for _ in range(3)] == [False, False, True]
    tries.progress()
    assert tries.after(PASSED) is not None
    assert Tries(1).after(PASSED) is None
