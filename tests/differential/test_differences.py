"""The table of differences is the users' table, and has no entry too many."""

from pathlib import Path

import pytest

from tests.differential.differences import ANY, DIFFERENCES, GENERATED, Difference
from tests.differential.kit import SCENARIOS
from tests.differential.scenarios import load

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("coming-from-openai-agents.md", "differences.md")

load()


def by_name(difference: Difference) -> str:
    return difference.name


@pytest.mark.parametrize("difference", DIFFERENCES, ids=by_name)
def test_users_are_told_of_every_difference(difference: Difference) -> None:
    page = next(DOCS / name for name in PAGES if (DOCS / name).exists())

    rows = [line.split("|")[1].strip() for line in page.read_text().splitlines() if line.startswith("|")]

    assert difference.name in rows, f"docs/{page.name} has no row that begins with | {difference.name} |"


@pytest.mark.parametrize("difference", DIFFERENCES, ids=by_name)
def test_every_difference_has_scenarios_that_need_it(difference: Difference) -> None:
    # That each of them needs it is seen where the scenario is run.
    assert set(difference.scenarios) - {ANY, GENERATED}
    assert set(difference.scenarios) - {ANY, GENERATED} <= set(SCENARIOS)


def test_no_difference_is_listed_twice() -> None:
    names = [difference.name for difference in DIFFERENCES]

    assert len(names) == len(set(names))
