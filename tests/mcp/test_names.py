"""Names with their server in them: each one means one tool, and the models' APIs take them all."""

import re

from hypothesis import given
from hypothesis import strategies as st

from millstream.mcp.names import prefixed_names

TAKEN = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def test_a_name_has_the_server_in_it() -> None:
    assert prefixed_names([("calendar", ["list", "add"]), ("mail", ["list"])]) == [
        ["mcp_calendar__list", "mcp_calendar__add"],
        ["mcp_mail__list"],
    ]


def test_characters_that_are_not_taken_become_underscores() -> None:
    assert prefixed_names([("stdio: /usr/bin/x", ["t.u!"]), ("ü", ["ß"])]) == [
        ["mcp_stdio___usr_bin_x__t_u"],
        ["mcp_server__tool"],
    ]


def test_names_that_would_be_the_same_end_in_what_they_stand_for() -> None:
    (first,), (second,) = prefixed_names([("s 1", ["t"]), ("s.1", ["t"])])

    assert first != second
    assert first.startswith("mcp_s_1__t_")
    assert prefixed_names([("s 1", ["t"]), ("s.1", ["t"])]) == [[first], [second]]


def test_a_name_that_is_reserved_is_not_given() -> None:
    ((name,),) = prefixed_names([("s", ["t"])], {"mcp_s__t"})

    assert name != "mcp_s__t"


@given(
    st.lists(
        st.tuples(st.text(max_size=70), st.lists(st.text(max_size=70), unique=True, max_size=4)), max_size=4
    ),
    st.sets(st.sampled_from(["mcp_server__tool", "mcp_0__0"])),
)
def test_whatever_the_names_are_all_are_taken_and_none_is_given_twice(
    listed: list[tuple[str, list[str]]], reserved: set[str]
) -> None:
    names = [name for each in prefixed_names(listed, reserved) for name in each]

    assert len(names) == sum(len(tools) for _, tools in listed)
    assert len(set(names)) == len(names)
    assert not set(names) & reserved
    assert all(TAKEN.fullmatch(name) for name in names)
