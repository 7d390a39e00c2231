"""The page of events is the vocabulary: nothing is missing there, and nothing is invented."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from millstream.events import EVENT_TYPES, ITEM_EVENT_NAMES, TERMINAL_TYPES, Entry, Stamp
from millstream.items import ITEM_TYPES

PAGE = (Path(__file__).parents[1] / "docs" / "events.md").read_text()
TYPES = EVENT_TYPES.keys()


def rows(section: str) -> dict[str, list[set[str]]]:
    """The rows of the table under a heading: what each cell has in backticks, by the first of the row."""
    body = re.split(r"^#+ ", PAGE, flags=re.MULTILINE)
    (part,) = [text for text in body if text.split("\n", 1)[0] == section]
    cells = [line.split("|")[1:-1] for line in part.splitlines() if line.startswith("| `")]
    return {
        re.findall(r"`([^`]+)`", row[0])[0]: [set(re.findall(r"`([^`]+)`", c)) for c in row] for row in cells
    }


def fields_of(cls: type[Any]) -> set[str]:
    if not dataclasses.is_dataclass(cls):
        return {"data"}  # of a raw event
    return {field.name for field in dataclasses.fields(cls)} - {"type"}


def test_the_page_has_every_event_and_no_other() -> None:
    assert rows("Events").keys() == TYPES


@pytest.mark.parametrize("kind", TYPES)
def test_an_event_stands_there_with_its_class_and_its_fields(kind: str) -> None:
    _, classes, fields, _ = rows("Events")[kind]

    assert classes == {EVENT_TYPES[kind].__name__}
    assert fields == fields_of(EVENT_TYPES[kind])


def test_the_page_says_which_events_are_terminal() -> None:
    terminal = re.findall(r"^\| `([^`]+)`.*\| terminal:", PAGE, re.MULTILINE)

    assert set(terminal) == TERMINAL_TYPES


def test_the_page_has_every_item_with_its_name() -> None:
    shown = {name: next(iter(cells[1])) for name, cells in rows("Items").items()}

    assert shown == {name: ITEM_TYPES[kind].__name__ for kind, name in ITEM_EVENT_NAMES.items()}


def test_the_page_has_every_field_of_an_entry() -> None:
    envelope = {field.name for field in dataclasses.fields(Entry)} - {"stamp"}

    assert rows("The entry").keys() == envelope | {field.name for field in dataclasses.fields(Stamp)}
