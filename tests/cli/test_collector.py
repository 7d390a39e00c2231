import gc
from collections.abc import Iterator

import pytest

from millstream.cli.collector import relieve_collector


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_a_process_that_serves_looks_for_garbage_less_often_and_not_among_what_stays() -> None:
    gc.set_threshold(700, 10, 10)
    stays = [[] for _ in range(10)]

    relieve_collector()

    assert gc.get_threshold()[0] > 10_000
    assert gc.get_freeze_count() > len(stays)
    assert gc.isenabled()


def test_a_program_that_has_set_the_collector_itself_is_left_alone() -> None:
    gc.set_threshold(12_345, 6, 7)
    frozen = gc.get_freeze_count()

    relieve_collector()

    assert gc.get_threshold() == (12_345, 6, 7)
    assert gc.get_freeze_count() == frozen
