"""`docs/fault-matrix.md` names the tests that show what it says."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs/fault-matrix.md"
TESTS = Path(__file__).parents[1]


def cells_by_row(text: str) -> dict[int, list[str]]:
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| \d+ \|", line)]
    return {int(row[0].strip("| ")): row for row in rows}


def test_it_has_every_row_and_each_says_for_each_engine_which_test_shows_it_or_why_none_can() -> None:
    rows = cells_by_row(PAGE.read_text().partition("## On the wire")[0])

    assert list(rows) == list(range(14, 27))
    for number, (_, _, _, *engines) in rows.items():
        assert len(engines) == 2, number
        for cell in engines:
            says = "::test_" in cell or cell.startswith(("the same", "means nothing here:"))
            assert says, (number, cell)


def test_each_row_of_the_wire_says_which_test_shows_it() -> None:
    rows = cells_by_row(PAGE.read_text().partition("## On the wire")[2])

    assert {*range(1, 14), *range(35, 49)} <= rows.keys()
    for number, (*_, test) in rows.items():
        assert "::test_" in test, number


def test_every_test_that_it_names_is_there() -> None:
    named = re.findall(r"`([\w/]+\.py)::(test_\w+)`", PAGE.read_text())

    assert len(named) > 30
    for path, name in named:
        assert re.search(rf"^(async )?def {name}\(", (TESTS / path).read_text(), re.MULTILINE), name
