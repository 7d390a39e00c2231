"""The values that transports are held to."""

from millstream import testing
from millstream.testing import awkward_values


def test_awkward_values_are_made_anew_so_that_a_test_may_use_them_up() -> None:
    one, other = dict(awkward_values()), dict(awkward_values())

    assert one.keys() == other.keys()
    assert list(one["generator"]) == list(other["generator"]) == [0, 1, 2]
    assert one["cycle"] is not other["cycle"]


def test_their_names_are_fit_for_the_names_of_tests() -> None:
    names = [value.name for value in awkward_values()]

    assert len(set(names)) == len(names)
    assert all(name.isascii() and name.isprintable() and len(name) < 60 for name in names)


def test_what_the_package_offers_is_there() -> None:
    assert all(getattr(testing, name) is not None for name in testing.__all__)
